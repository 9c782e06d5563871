//! Benchmarks of Tandem, each beside a peer in the same run.
//!
//! A figure of a shared machine means little alone: its neighbours come and go. Therefore every expectation is
//! a ratio to a peer that was measured in the same run, and cycles are kept only of moments in which the core
//! was [`quiet`]. The exception is [`takeover`], whose outages have bounds in milliseconds that the product promises.
//!
//! `unsafe` is allowed in three modules, each for calls that have no safe form: [`tsc`] (two instructions),
//! `ipsec_mb` (a C library loaded at run time) and `veth::xsk` (xsk-rs). x86-64 only, like the counter.

pub mod aead;
mod cpu;
mod frames;
mod ipsec_mb;
pub mod memory;
pub mod pin;
pub mod quiet;
pub mod replication;
pub mod secgw;
pub mod takeover;
pub mod tsc;
pub mod veth;
