//! What goes wrong with a node, and how it comes back.

use super::PairSites;
use crate::lab::IpBatch;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::time::Instant;

/// A link of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Its device `in0`.
    Inside,
    /// Its device `out0`.
    Outside,
    /// Its device `sync0`.
    Sync,
}

impl Link {
    /// Every link of a node.
    pub const ALL: [Link; 3] = [Link::Inside, Link::Outside, Link::Sync];

    const fn device(self) -> &'static str {
        match self {
            Link::Inside => "in0",
            Link::Outside => "out0",
            Link::Sync => "sync0",
        }
    }
}

impl PairSites {
    /// A node loses its power: SIGKILL of both daemons and all links down at once. Gives the moment.
    ///
    /// # Errors
    /// Where the links cannot be shut.
    pub fn kill_node(&mut self, node: usize) -> Result<Instant> {
        self.kill_nodes(&[node])
    }

    /// Some nodes lose their power at the same moment.
    ///
    /// # Errors
    /// As [`Self::kill_node`].
    pub fn kill_nodes(&mut self, nodes: &[usize]) -> Result<Instant> {
        let mut links = Vec::new();
        for &node in nodes {
            links.push(IpBatch::start(&self.nodes[node].namespace)?);
        }
        let at = Instant::now();
        for (&node, links) in nodes.iter().zip(&mut links) {
            self.nodes[node].signal(Signal::SIGKILL);
            for link in Link::ALL {
                links.line(&format!("link set {} down", link.device()))?;
            }
        }
        for links in links {
            links.finish()?;
        }
        for &node in nodes {
            self.nodes[node].kill();
        }
        Ok(at)
    }

    /// A node that was killed comes back: its links, its default route (which went with the link), its daemons.
    ///
    /// # Errors
    /// Where one of them does not.
    pub fn return_node(&mut self, node: usize) -> Result<()> {
        let gateway = &mut self.nodes[node];
        for link in Link::ALL {
            gateway.namespace.run(&format!("ip link set {} up", link.device()))?;
        }
        gateway.namespace.run("ip route replace default via 192.0.2.254")?;
        gateway.start_dataplane()?;
        gateway.start_control()?;
        gateway.wait_ready()?;
        Ok(())
    }

    /// Pulls cables of a node: the far ends go down, all at once.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn pull(&self, node: usize, links: &[Link]) -> Result<Instant> {
        self.far_ends(node, links, "down")
    }

    /// Plugs the cables in again.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn plug(&self, node: usize, links: &[Link]) -> Result<Instant> {
        self.far_ends(node, links, "up")
    }

    fn far_ends(&self, node: usize, links: &[Link], state: &str) -> Result<Instant> {
        let mut switch = IpBatch::start(&self.net.switch)?;
        let mut partner = IpBatch::start(&self.nodes[1 - node].namespace)?;
        let name = &self.nodes[node].settings.name;
        let at = Instant::now();
        for link in links {
            match link {
                Link::Inside => switch.line(&format!("link set p-{name}-in {state}"))?,
                Link::Outside => switch.line(&format!("link set p-{name}-out {state}"))?,
                Link::Sync => partner.line(&format!("link set sync0 {state}"))?,
            }
        }
        switch.finish()?;
        partner.finish()?;
        Ok(at)
    }

    /// Whatever comes over the sync link is lost, and no carrier is: a broken switch between the nodes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn mute_sync(&self) -> Result<Instant> {
        let at = Instant::now();
        for node in &self.nodes {
            node.namespace.run("nft add table netdev mute")?;
            node.namespace.run(
                "nft add chain netdev mute sync0 { type filter hook ingress device sync0 priority 0 ; policy drop ; }",
            )?;
        }
        Ok(at)
    }

    /// Ends [`Self::mute_sync`].
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unmute_sync(&self) -> Result<()> {
        for node in &self.nodes {
            node.namespace.run("nft delete table netdev mute")?;
        }
        Ok(())
    }
}
