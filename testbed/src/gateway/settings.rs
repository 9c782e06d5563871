//! The configuration of a gateway, as a TOML file.

use anyhow::Result;
use ipnet::Ipv4Net;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::Path;

/// One direction of a static SA.
#[derive(Clone, Debug)]
pub struct StaticSa {
    /// SPI.
    pub spi: u32,
    /// `aes128gcm16` or `aes256gcm16`.
    pub transform: &'static str,
    /// Key, then salt.
    pub key: Vec<u8>,
}

impl StaticSa {
    /// An SA with a random key.
    ///
    /// # Errors
    /// Where the kernel gives no random octets.
    pub fn random(spi: u32, transform: &'static str) -> Result<Self> {
        let mut key = vec![0; if transform == "aes256gcm16" { 36 } else { 20 }];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self { spi, transform, key })
    }

    /// Key and salt in hexadecimal.
    #[must_use]
    pub fn key_hex(&self) -> String {
        self.key.iter().fold(String::new(), |mut text, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        })
    }
}

/// A static crypto map.
#[derive(Clone, Debug)]
pub struct CryptoMap {
    /// Name.
    pub name: String,
    /// Priority, the lowest wins.
    pub priority: u32,
    /// Outer address of ours.
    pub local: Ipv4Addr,
    /// Outer address of the peer's.
    pub peer: Ipv4Addr,
    /// Prefixes here and there.
    pub protect: Vec<(Ipv4Net, Ipv4Net)>,
    /// From the peer.
    pub inbound: StaticSa,
    /// To the peer.
    pub outbound: StaticSa,
    /// What a stale takeover does to the static SAs, `jump` or `hold`; by default the product's default.
    pub stale_takeover: Option<&'static str>,
}

impl CryptoMap {
    /// The same tunnel as the peer's gateway sees it.
    #[must_use]
    pub fn mirrored(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            priority: self.priority,
            local: self.peer,
            peer: self.local,
            protect: self.protect.iter().map(|&(local, remote)| (remote, local)).collect(),
            inbound: self.outbound.clone(),
            outbound: self.inbound.clone(),
            stale_takeover: self.stale_takeover,
        }
    }
}

/// An interface that Tandem takes packets from.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Kernel name.
    pub name: &'static str,
    /// `inside` or `outside`.
    pub side: &'static str,
    /// Virtual address with its prefix length.
    pub virtual_address: Ipv4Net,
    /// Virtual MAC.
    pub virtual_mac: [u8; 6],
    /// Lower the MSS of TCP SYNs.
    pub mss_clamp: bool,
    /// Neighbour that shows that the segment lives (F25).
    pub witness: Option<Ipv4Addr>,
}

/// A way to the partner.
#[derive(Clone, Debug)]
pub struct PartnerPath {
    /// Name.
    pub name: &'static str,
    /// A kernel address of this node.
    pub local: Ipv4Addr,
    /// The partner's.
    pub remote: Ipv4Addr,
}

/// The partner of a node.
#[derive(Clone, Debug)]
pub struct Redundancy {
    /// Its public key in hexadecimal, as `tandemctl node show` prints it on the partner.
    pub partner_key: String,
    /// Decides between two cold nodes (F22).
    pub priority: u8,
    /// Ways to it, the preferred one first.
    pub paths: Vec<PartnerPath>,
}

/// Configuration of a gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the node.
    pub name: String,
    /// Worker threads, one queue of each interface for each.
    pub workers: u16,
    /// SA slots of each direction.
    pub max_sas: u32,
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Crypto maps.
    pub maps: Vec<CryptoMap>,
    /// The partner, where there is one.
    pub redundancy: Option<Redundancy>,
}

/// Text form of a MAC address.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

impl Settings {
    /// The configuration file, with state and sockets in `folder`.
    #[must_use]
    pub fn toml(&self, folder: &Path) -> String {
        let folder = folder.display();
        let mut text = format!(
            "[node]\nname = \"{}\"\nstate-directory = \"{folder}/state\"\ncontrol-socket = \"{folder}/control.sock\"\n\n\
             [dataplane]\nsocket = \"{folder}/dataplane.sock\"\nworkers = {}\nmax-sas = {}\n",
            self.name, self.workers, self.max_sas
        );
        if let Some(redundancy) = &self.redundancy {
            let _ = write!(
                text,
                "\n[redundancy]\npartner-key = \"{}\"\npriority = {}\n",
                redundancy.partner_key, redundancy.priority
            );
            for path in &redundancy.paths {
                let _ = write!(
                    text,
                    "[[redundancy.path]]\nname = \"{}\"\nlocal = \"{}\"\nremote = \"{}\"\n",
                    path.name, path.local, path.remote
                );
            }
        }
        for interface in &self.interfaces {
            let _ = write!(
                text,
                "\n[[interface]]\nname = \"{}\"\nside = \"{}\"\nvirtual-addresses = [\"{}\"]\nvirtual-mac = \"{}\"\nmss-clamp = {}\n",
                interface.name,
                interface.side,
                interface.virtual_address,
                mac_text(interface.virtual_mac),
                interface.mss_clamp
            );
            if let Some(witness) = interface.witness {
                let _ = writeln!(text, "witness = \"{witness}\"");
            }
        }
        for map in &self.maps {
            let protect: Vec<String> = map
                .protect
                .iter()
                .map(|(local, remote)| format!("{{ local = \"{local}\", remote = \"{remote}\" }}"))
                .collect();
            let _ = write!(
                text,
                "\n[[crypto-map]]\nname = \"{}\"\npriority = {}\nlocal = \"{}\"\npeer = \"{}\"\nprotect = [{}]\n",
                map.name,
                map.priority,
                map.local,
                map.peer,
                protect.join(", ")
            );
            if let Some(action) = map.stale_takeover {
                let _ = writeln!(text, "stale-takeover = \"{action}\"");
            }
            for (direction, sa) in [("inbound", &map.inbound), ("outbound", &map.outbound)] {
                let _ = write!(
                    text,
                    "[crypto-map.static.{direction}]\nspi = {:#x}\ntransform = \"{}\"\nkey = \"{}\"\n",
                    sa.spi,
                    sa.transform,
                    sa.key_hex()
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirrored_map_swaps_everything_that_has_a_side() {
        let sa = |spi| StaticSa { spi, transform: "aes128gcm16", key: vec![1; 20] };
        let map = CryptoMap {
            name: "b".to_owned(),
            priority: 1,
            local: Ipv4Addr::new(192, 0, 2, 1),
            peer: Ipv4Addr::new(198, 51, 100, 1),
            protect: vec![("10.1.0.0/24".parse().expect("a net"), "10.2.0.0/24".parse().expect("a net"))],
            inbound: sa(1),
            outbound: sa(2),
            stale_takeover: Some("hold"),
        };
        let mirrored = map.mirrored("a");
        assert_eq!((mirrored.local, mirrored.peer), (map.peer, map.local));
        assert_eq!((mirrored.inbound.spi, mirrored.outbound.spi), (2, 1));
        assert_eq!(mirrored.protect[0], (map.protect[0].1, map.protect[0].0));
        assert_eq!(mirrored.stale_takeover, Some("hold"));
    }
}
