//! AF_XDP for Tandem: UMEM in a memfd, ring cursors, sockets, and the interface trait.
//!
//! A worker owns one [`Umem`] with its [`FreeList`], and one [`Port`] for each queue of each interface
//! that it serves. All ports of a worker share the UMEM, so a frame received on one interface leaves
//! on another one without a copy: only its token, the [`Frame`], moves.
//!
//! Two families implement [`Port`]: [`XskPort`] is an AF_XDP socket; [`MemPort`] and [`ReplayPort`] are
//! memory, so that the whole data path is tested without privileges and measured without the kernel.
//!
//! # Why an own ring layer
//! The fill ring has to be filled *before* `bind` (several drivers leak buffers or receive nothing
//! otherwise), the UMEM has to live in a memfd that survives the process, sockets of several devices
//! share it, and the ring operations have to be inlined. No crate offers all of this, so this one speaks
//! to the kernel through `libc` alone: no libxdp, no libbpf.
//!
//! # Why the unsafe code here is sound
//! Memory is reached only through [`Umem::data`] and [`Umem::data_mut`], which demand the frame's token;
//! the module docs of `frame` and `lending` say who makes tokens and why there is never more than one
//! for a frame, whatever the kernel writes into a ring.

// This crate is one of the homes of unsafe code: it maps memory that it shares with the kernel.
#![allow(unsafe_code)]

mod error;
mod frame;
mod free_list;
mod lending;
pub mod mem;
mod membership;
mod packet_socket;
mod port;
mod replay;
mod ring;
mod socket;
mod sync;
mod umem;
mod xsk_port;

pub use error::Error;
pub use frame::{FRAME_SIZE, Frame, HEADROOM, NoRoom};
pub use free_list::FreeList;
pub use mem::{MemConfig, MemHandle, MemPort};
pub use membership::UnicastMembership;
pub use packet_socket::PacketSocket;
pub use port::{BURST, Batch, Port, PortStatistics};
pub use replay::{Capture, Repeat, ReplayConfig, ReplayPort, Transmitted};
pub use umem::Umem;
pub use xsk_port::{Drained, SocketConfig, XskPort, ZeroCopy};
