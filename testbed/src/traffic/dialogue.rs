//! A closed-loop TCP flow: the next message leaves when the last one was answered, so that a loss is repaired
//! by TCP's own timers or not at all.

use super::arrivals::Arrivals;
use crate::lab::Namespace;
use anyhow::{Context, Result};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A side that hears nothing for so long gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two hosts that talk.
#[derive(Debug)]
pub struct Dialogue {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    asker: JoinHandle<Asked>,
    answerer: JoinHandle<Result<()>>,
}

#[derive(Debug, Default)]
struct Asked {
    answered: Vec<Instant>,
    trouble: Option<String>,
}

/// What became of a dialogue.
#[derive(Clone, Debug)]
pub struct DialogueResult {
    /// When answers came.
    pub answers: Arrivals,
    /// Why it ended by itself, if it did.
    pub trouble: Option<String>,
}

impl DialogueResult {
    /// One line for a reader.
    #[must_use]
    pub fn summary(&self) -> String {
        match &self.trouble {
            None => format!("{} messages answered", self.answers.count()),
            Some(trouble) => format!("{} messages answered, then: {trouble}", self.answers.count()),
        }
    }
}

impl Dialogue {
    /// Starts one: messages of `octets` octets (at least 8) from `from` to `to`, at most `per_second` a second
    /// (0: as fast as answers come).
    ///
    /// # Errors
    /// Where the connection is not made.
    pub fn start(
        from: &Namespace,
        (to, address): (&Namespace, Ipv4Addr),
        port: u16,
        octets: usize,
        per_second: u32,
    ) -> Result<Self> {
        let octets = octets.max(8);
        let listener = to.enter(|| TcpListener::bind((address, port)).context("binding the answerer"))?;
        let answerer = std::thread::spawn(move || answer(&listener, octets));
        let connection = from.enter(|| {
            TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(5))
                .with_context(|| format!("connecting to {address} port {port}"))
        })?;
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let asker = std::thread::spawn({
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            move || {
                let mut asked = Asked::default();
                if let Err(error) = ask(connection, octets, per_second, &stop, &answers, &mut asked.answered)
                {
                    asked.trouble = Some(format!("{error:#}"));
                }
                asked
            }
        });
        Ok(Self { stop, answers, asker, answerer })
    }

    /// Messages answered so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where a thread panicked.
    pub fn stop(self) -> Result<DialogueResult> {
        self.stop.store(true, Ordering::Relaxed);
        let asked = self.asker.join().map_err(|_| anyhow::anyhow!("the asker panicked"))?;
        let answered = self.answerer.join().map_err(|_| anyhow::anyhow!("the answerer panicked"))?;
        let trouble = asked.trouble.or(answered.err().map(|error| format!("{error:#}")));
        Ok(DialogueResult { answers: Arrivals::new(asked.answered), trouble })
    }
}

fn ask(
    mut connection: TcpStream,
    octets: usize,
    per_second: u32,
    stop: &AtomicBool,
    answers: &AtomicU64,
    answered: &mut Vec<Instant>,
) -> Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut message = vec![0x5a; octets];
    let start = Instant::now();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if per_second > 0 {
            let due = Duration::from_secs_f64(crate::report::count(number) / f64::from(per_second));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        message[..8].copy_from_slice(&number.to_be_bytes());
        connection.write_all(&message).context("sending a message")?;
        let mut answer = [0; 8];
        connection.read_exact(&mut answer).context("waiting for an answer")?;
        anyhow::ensure!(u64::from_be_bytes(answer) == number, "message {number} got another one's answer");
        answered.push(Instant::now());
        answers.store(number + 1, Ordering::Relaxed);
    }
    Ok(())
}

/// Answers each message with its number until the other side closes.
fn answer(listener: &TcpListener, octets: usize) -> Result<()> {
    // Somebody may never come; then the one who waits for this thread must not wait for ever.
    listener.set_nonblocking(true)?;
    let end = Instant::now() + PATIENCE;
    let mut connection = loop {
        match listener.accept() {
            Ok((connection, _)) => break connection,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error).context("waiting for the connection"),
        }
    };
    connection.set_nonblocking(false)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut message = vec![0; octets];
    loop {
        match connection.read_exact(&mut message) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).context("waiting for a message"),
        }
        anyhow::ensure!(message[8..].iter().all(|octet| *octet == 0x5a), "a damaged message arrived");
        let (number, _) = message.split_at(8);
        connection.write_all(number).context("answering")?;
    }
}
