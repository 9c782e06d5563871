//! The two sites that all scenarios use.
//!
//! ```text
//!  host-a -- [in-a] -- gw-a -- [out-a] -- router -- [out-b] -- gw-b -- [in-b] -- host-b
//!                                 |  \___ router2 ___/ |
//!                               guest-a             guest-b
//! ```
//!
//! The segments in brackets are bridges in a namespace of their own, where captures are taken. Each
//! gateway has a kernel address (`.2`) beside the virtual one (`.1`), which lives in the data plane
//! alone. The routers know nothing of the inside prefixes of the sites but the way to site A's gateway
//! for traffic that no policy protects, so that a protected packet in clear has nowhere to hide.

use crate::capture::{Capture, Recorded};
use crate::gateway::{CryptoMap, Gateway, Interface, Settings, StaticSa};
use crate::judge::{self, Expectation};
use crate::lab::Namespace;
use crate::network::Network;
use crate::run::Run;
use anyhow::Result;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::path::PathBuf;

pub use crate::network::{
    ELSEWHERE, GUEST_A, GUEST_B, HOST_A, HOST_B, INSIDE_A, INSIDE_B, OUTSIDE_A, OUTSIDE_A_MAC, OUTSIDE_B,
    SPI_A_TO_B, SPI_B_TO_A, protected,
};

/// What a scenario wants otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    /// MSS clamp on all interfaces.
    pub mss_clamp: bool,
    /// Transform of the site-to-site SAs.
    pub transform: &'static str,
    /// More crypto maps of gateway A.
    pub more_a: Vec<CryptoMap>,
    /// More crypto maps of gateway B.
    pub more_b: Vec<CryptoMap>,
    /// Capture site B's outside segment too.
    pub capture_b: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mss_clamp: true,
            transform: "aes128gcm16",
            more_a: Vec::new(),
            more_b: Vec::new(),
            capture_b: false,
        }
    }
}

/// The sites, running.
#[derive(Debug)]
pub struct Sites {
    captures: Vec<Capture>,
    /// Gateway of site A.
    pub a: Gateway,
    /// Gateway of site B.
    pub b: Gateway,
    /// Everything else; last, since the namespaces go after what runs in them.
    pub net: Network,
}

/// The crypto map of gateway A for site B, with fresh random keys.
///
/// # Errors
/// Where the kernel gives no random octets.
pub fn site_map(transform: &'static str) -> Result<CryptoMap> {
    Ok(CryptoMap {
        name: "site-b".to_owned(),
        priority: 100,
        local: OUTSIDE_A,
        peer: OUTSIDE_B,
        protect: vec![protected()],
        inbound: StaticSa::random(SPI_B_TO_A, transform)?,
        outbound: StaticSa::random(SPI_A_TO_B, transform)?,
        stale_takeover: None,
    })
}

/// The configuration of a gateway without a partner: one worker, `in0` and `out0` with these virtual
/// addresses, and virtual MACs whose last octets are `last` and the next.
#[must_use]
pub fn settings(
    name: &str,
    (inside, outside): (Ipv4Addr, Ipv4Addr),
    last: u8,
    mss_clamp: bool,
    maps: Vec<CryptoMap>,
) -> Settings {
    Settings {
        name: name.to_owned(),
        workers: 1,
        max_sas: 4096,
        interfaces: [("in0", "inside", inside, last), ("out0", "outside", outside, last + 1)]
            .map(|(name, side, address, last)| Interface {
                name,
                side,
                virtual_address: Ipv4Net::new_assert(address, 24),
                virtual_mac: [0x00, 0x00, 0x0c, 0x9f, 0xf0, last],
                mss_clamp,
                witness: None,
            })
            .to_vec(),
        maps,
        redundancy: None,
    }
}

/// The namespace of site B's gateway.
///
/// # Errors
/// Where the kernel refuses.
pub fn place_of_b(net: &mut Network) -> Result<Namespace> {
    net.gateway("gw-b", ("in-b", "10.2.0.2/24"), ("out-b", "198.51.100.2/24"), "198.51.100.254")
}

impl Sites {
    /// Lays everything out, starts captures and gateways and waits until they are ready.
    ///
    /// # Errors
    /// Where a part cannot be made or a daemon does not become ready.
    pub fn up(run: &mut Run, options: Options) -> Result<Self> {
        run.say("laying out two sites, two gateways and the network between them");
        let mut net = Network::lay(run.folder())?;
        let gw_a = net.gateway("gw-a", ("in-a", "10.1.0.2/24"), ("out-a", "192.0.2.2/24"), "192.0.2.254")?;
        let gw_b = place_of_b(&mut net)?;
        let captures = {
            let mut captures = vec![Capture::start(&net.switch, net.folder(), "out-a", "out-a", "")?];
            if options.capture_b {
                captures.push(Capture::start(&net.switch, net.folder(), "out-b", "out-b", "")?);
            }
            captures
        };
        let map = site_map(options.transform)?;
        let mut maps_a = vec![map.clone()];
        maps_a.extend(options.more_a);
        let mut maps_b = vec![map.mirrored("site-a")];
        maps_b.extend(options.more_b);
        let clamp = options.mss_clamp;
        let settings_a = settings("gw-a", (INSIDE_A, OUTSIDE_A), 1, clamp, maps_a);
        let settings_b = settings("gw-b", (INSIDE_B, OUTSIDE_B), 3, clamp, maps_b);
        let mut a = Gateway::prepare(&gw_a, net.folder(), "gw-a", settings_a)?;
        let mut b = Gateway::prepare(&gw_b, net.folder(), "gw-b", settings_b)?;
        run.say("starting both gateways");
        a.start()?;
        b.start()?;
        Ok(Self { captures, a, b, net })
    }

    /// Checks that belong at the end of every scenario: both gateways live and account for every frame,
    /// the captures lost nothing, and the judges find nothing wrong in them.
    ///
    /// # Errors
    /// Where a judge cannot be run.
    pub fn finish(mut self, run: &mut Run, expectation: &Expectation) -> Result<()> {
        let mut captures = Vec::new();
        for capture in std::mem::take(&mut self.captures) {
            captures.push(capture.stop()?);
        }
        for gateway in [&mut self.a, &mut self.b] {
            let name = gateway.settings.name.clone();
            let alive = gateway.is_alive();
            run.check(&format!("{name}: both daemons live at the end"), alive, alive);
            check_balances(run, gateway)?;
        }
        let keys = self.write_keys()?;
        for capture in &captures {
            judge::check_capture(run, capture, &keys, expectation)?;
        }
        Ok(())
    }

    /// Writes the judges' key file and gives its path.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_keys(&self) -> Result<PathBuf> {
        judge::write_keys(self.net.folder(), &[&self.a, &self.b])
    }

    /// Ends the captures early and gives what was recorded; [`Self::finish`] then judges none.
    ///
    /// # Errors
    /// Where tcpdump gives no account.
    pub fn stop_captures(&mut self) -> Result<Vec<Recorded>> {
        std::mem::take(&mut self.captures).into_iter().map(Capture::stop).collect()
    }
}

/// Every frame that a gateway received is accounted for, once traffic has come to rest.
///
/// # Errors
/// Where the counters cannot be read.
pub fn check_balances(run: &mut Run, gateway: &Gateway) -> Result<()> {
    let all = balances(gateway)?;
    let name = &gateway.settings.name;
    for (what, came, went) in all {
        run.check(&format!("{name}: {what}"), came == went, format!("{came} = {went}"));
    }
    Ok(())
}

/// The balances that must hold, once traffic has come to rest: what, and its two sides.
///
/// # Errors
/// Where the counters cannot be read.
pub fn balances(gateway: &Gateway) -> Result<Vec<(&'static str, u64, u64)>> {
    let read = || -> Result<Vec<(&'static str, u64, u64)>> {
        let counters = gateway.counters()?;
        let [workers, slow] = counters.balances();
        let mut all = vec![
            ("received + created + returned = forwarded + punted + each drop", workers.0, workers.1),
            ("punted = answered + resumed + held + each drop of the slow path", slow.0, slow.1),
        ];
        if !gateway.was_restarted() {
            let (steered, taken) = counters.steered();
            all.push(("steered by XDP = received + dropped by the kernel's sockets", steered, taken));
        }
        Ok(all)
    };
    // A frame may be in hand at the very moment of one reading, never for long.
    let mut all = read()?;
    for _ in 0..20 {
        if all.iter().all(|(_, came, went)| came == went) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        all = read()?;
    }
    Ok(all)
}
