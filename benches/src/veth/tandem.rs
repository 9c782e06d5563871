//! The Tandem gateway in the middle of a path.

use std::path::Path as Folder;
use std::process::Command;

use anyhow::Result;
use tandem_testbed::gateway::{CryptoMap, Gateway, Interface, Settings, StaticSa};

use crate::cpu::Threads;
use crate::pin::{self, Role};
use crate::veth::path::{INSIDE, OUTSIDE, Path, SINK};
use crate::veth::{FLOW, GATEWAY_MAC};

/// Configures a gateway that protects the benchmark's flow towards the sink, and starts it on the core under
/// test. The sink's kernel answers its ARP; beyond that nobody is there.
pub fn start(path: &Path, folder: &Folder) -> Result<Gateway> {
    let gateway = &path.gateway;
    gateway.run(&format!("ip address add 10.101.0.3/24 dev {INSIDE}"))?;
    gateway.run(&format!("ip address add 10.103.0.3/24 dev {OUTSIDE}"))?;
    gateway.run("ip route add 10.102.0.0/16 via 10.103.0.2")?;
    path.sink.run(&format!("ip address add 10.103.0.2/24 dev {SINK}"))?;
    let settings = Settings {
        name: String::from("bench"),
        workers: 1,
        max_sas: 1024,
        interfaces: vec![
            Interface {
                name: INSIDE,
                side: "inside",
                virtual_address: "10.101.0.1/24".parse()?,
                virtual_mac: GATEWAY_MAC,
                mss_clamp: false,
                witness: None,
            },
            Interface {
                name: OUTSIDE,
                side: "outside",
                virtual_address: "10.103.0.1/24".parse()?,
                virtual_mac: [0x02, 0, 0, 0, 0x03, 0x01],
                mss_clamp: false,
                witness: None,
            },
        ],
        maps: vec![CryptoMap {
            name: String::from("bench"),
            priority: 10,
            local: "10.103.0.1".parse()?,
            peer: "10.103.0.2".parse()?,
            protect: vec![(format!("{}/32", FLOW.from).parse()?, format!("{}/32", FLOW.to).parse()?)],
            inbound: StaticSa::random(0x1001, "aes128gcm16")?,
            outbound: StaticSa::random(0x1002, "aes128gcm16")?,
            stale_takeover: None,
        }],
        redundancy: None,
    };
    // The daemons inherit the affinity of the thread that starts them.
    pin::this_thread(Role::UnderTest)?;
    let mut gateway = Gateway::prepare(gateway, folder, "bench", settings)?;
    gateway.start()?;
    pin::this_thread(Role::Generator)?;
    Ok(gateway)
}

/// Every thread of the daemons on a path.
pub fn threads(path: &Path) -> Result<Threads> {
    let pids = tandem_testbed::lab::run(Command::new("ip").args(["netns", "pids", path.gateway.name()]))?;
    Threads::of_processes(pids.split_whitespace().filter_map(|pid| pid.parse().ok()))
}
