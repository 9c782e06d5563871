//! Typed views of the packet formats that Tandem reads and writes.
//!
//! One module a format. A `parse` function checks every length once and returns references into the
//! buffer; from then on no getter can fail. Header structures have the layout of the wire, so that they
//! are read and written in place: multi-octet fields are big-endian [`U16`] and [`U32`], which convert
//! with `get` and `set`. Builders write into a buffer of the caller's and say `None` where it is too
//! short. Nothing allocates (the crate is `no_std`), nothing does input or output, and no input makes
//! anything panic.
//!
//! Addresses that are looked up in tables are `u32` in host byte order; those that slow paths build
//! packets from are [`core::net::Ipv4Addr`].

#![no_std]
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod ipv4;
pub mod tcp;
pub mod udp;

pub use zerocopy::network_endian::{U16, U32};

/// The buffer is shorter than the header, or than the length that the header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet is shorter than the headers it announces")]
pub struct Truncated;
