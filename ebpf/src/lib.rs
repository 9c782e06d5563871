//! The XDP steering program of Tandem and its typed loader.
//!
//! The program (C, `src/bpf`) decides for each frame of one interface whether the data plane gets it, the
//! kernel, or nobody, and counts each decision; the crate's README has the table. It fails closed: what the data plane
//! should get is dropped while no AF_XDP socket takes it. Attached through a pinned link, it outlives the process.
//!
//! ```no_run
//! # use std::{net::Ipv4Addr, path::Path};
//! # fn main() -> Result<(), tandem_ebpf::Error> {
//! use tandem_ebpf::{Mode, Prefix, Settings, Side, SteerProgram};
//! tandem_ebpf::mount_bpffs(Path::new("/run/tandem/bpf"))?;
//! let mut program = SteerProgram::load()?;
//! program.set_settings(&Settings { side: Side::Inside, own_mac: [2, 0, 0, 0, 0, 1], virtual_mac: None })?;
//! program.set_own_addresses(&[Ipv4Addr::new(10, 1, 0, 1)])?;
//! program.set_protected(&[Prefix::new(Ipv4Addr::new(10, 2, 0, 0), 16)?])?;
//! program.set_active(true)?;
//! program.attach(3, Mode::Native, Path::new("/run/tandem/bpf/inside0"))?;
//! # Ok(()) }
//! ```

mod bpffs;
mod counters;
mod error;
mod interface;
mod layout;
mod link;
mod prefix;
mod program;
mod sets;
mod sys;

pub use bpffs::mount_bpffs;
pub use counters::{Outcome, SteerCounter};
pub use error::Error;
pub use layout::{MAX_OWN_ADDRESSES, MAX_PROTECTED, MAX_QUEUES, MAX_VIRTUAL_ADDRESSES};
pub use link::{Attachment, Mode, attachment, detach};
pub use prefix::Prefix;
pub use program::{Action, OBJECT, RoleSwitch, RxQueue, Settings, Side, SteerProgram, TestRun};
