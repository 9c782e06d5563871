//! What can go wrong while the program is loaded, told its settings, and attached.

use std::io;
use std::path::PathBuf;

/// Why the loader could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused the object.
    #[error("the XDP program could not be loaded (it takes CAP_BPF and CAP_NET_ADMIN): {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel refused the program.
    #[error("{operation} the XDP program failed: {source}")]
    Program {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a part that the loader knows: not built together.
    #[error("the XDP object has no {0}: object and loader were not built together")]
    Missing(&'static str),
    /// A map could not be read or written.
    #[error("the map {map} could not be {operation}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: Box<aya::maps::MapError>,
    },
    /// More entries than there is room for.
    #[error("{count} {what}, where the XDP program takes {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Entries asked for.
        count: usize,
        /// Entries that there is room for.
        limit: usize,
    },
    /// A prefix longer than 32 bits.
    #[error("a prefix length of {0} bits; IPv4 has 32")]
    PrefixLength(u8),
    /// A queue beyond the map of sockets.
    #[error("queue {0} is beyond the {max} that one interface can have", max = crate::MAX_QUEUES)]
    Queue(u32),
    /// The program would drop every frame.
    #[error("the XDP program is not to be attached before it has its settings")]
    NotConfigured,
    /// The interface does not exist in this network namespace, or is no Ethernet interface.
    #[error("interface {ifindex} cannot be used: {reason}")]
    Interface {
        /// Its index.
        ifindex: u32,
        /// What the kernel said about it.
        reason: String,
    },
    /// The settings name another MAC address than the interface has.
    #[error(
        "interface {ifindex} has the MAC address {actual}, and the settings name {configured}: \
         frames for it would pass by the data plane; give the program the new address"
    )]
    WrongMac {
        /// Index of the interface.
        ifindex: u32,
        /// What it has.
        actual: String,
        /// What the settings name.
        configured: String,
    },
    /// Somebody else's XDP program is attached.
    #[error(
        "interface {ifindex} already has another XDP program (id {program_id}, {mode}): see `bpftool prog show id \
         {program_id}`, and take it off (`ip link set dev IF xdp off`, or `bpftool link show` and end its owner)"
    )]
    Occupied {
        /// Index of the interface.
        ifindex: u32,
        /// The program that is there.
        program_id: u32,
        /// Native or generic.
        mode: String,
    },
    /// The pin holds a link in the other mode. Both cannot be attached at once, so that a change leaves a gap.
    #[error(
        "the program pinned at {pin} is attached in {present} mode, not in {asked} mode: detach it first \
         (interface {ifindex} is without it in between)"
    )]
    ModeDiffers {
        /// The pin.
        pin: PathBuf,
        /// Index of the interface.
        ifindex: u32,
        /// The mode that it is in.
        present: String,
        /// The mode that was asked for.
        asked: String,
    },
    /// The pin belongs to another interface, which it still protects.
    #[error(
        "{pin} pins the program of interface {present}, not of interface {asked}: use a pin of its own for each \
         interface, or detach that one first"
    )]
    PinOfOther {
        /// The pin.
        pin: PathBuf,
        /// Interface that it is attached to.
        present: u32,
        /// Interface that was asked for.
        asked: u32,
    },
    /// What is at the pin's path is no XDP link.
    #[error("{0} is not a pinned XDP link; remove it or choose another path")]
    NotALink(PathBuf),
    /// The driver does not take the program.
    #[error("the XDP program could not be attached to interface {ifindex} in {mode} mode: {source}{hint}")]
    Attach {
        /// Index of the interface.
        ifindex: u32,
        /// Native or generic.
        mode: String,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do.
        hint: &'static str,
    },
    /// The kernel is older than 5.9 and has no links for XDP.
    #[error("the kernel has no XDP links, which are needed to pin the program (Linux 5.9 or later)")]
    NoXdpLinks,
    /// The link could not be pinned.
    #[error(
        "the program could not be pinned at {pin}: {reason} (the folder must be on a BPF file system of its own)"
    )]
    Pin {
        /// The pin.
        pin: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// A pin could not be read, followed or removed.
    #[error("{operation} {pin} failed: {source}")]
    PinAccess {
        /// What was tried.
        operation: &'static str,
        /// The pin.
        pin: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The BPF file system could not be mounted.
    #[error("the BPF file system at {folder} could not be mounted: {source}")]
    Mount {
        /// The mount point.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a test run.
    #[error("the test run failed (it takes a frame of 14 octets at least, and of one page at most): {0}")]
    TestRun(#[source] Box<aya::programs::ProgramError>),
}
