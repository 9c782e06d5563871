//! What the control process waits for beside the data plane: orders and signals.

use crate::operator::Order;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that the control process follows.
pub struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What ends a wait.
pub enum Event {
    /// An operator's order.
    Order(Order),
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}

impl Signals {
    /// Follows them from here on.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next event.
    pub async fn next(&mut self, orders: &mut mpsc::Receiver<Order>) -> Event {
        tokio::select! {
            order = orders.recv() => order.map_or(Event::Stop, Event::Order),
            _ = self.reload.recv() => Event::Reload,
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
        }
    }
}
