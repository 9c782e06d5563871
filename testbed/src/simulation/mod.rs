//! The deterministic simulation of a pair: the real takeover machine, merge, leases, windows and term files on two nodes
//! under a seeded clock, with a network that loses, repeats, reorders and cuts, a remote peer, an attacker who
//! replays everything, and crashes at every step.
//!
//! A run is a seed. It draws a world and its faults ([`faults`]), or plays one dangerous moment ([`directed`]), lets the world go on ([`world`]), and looks all the time
//! at what leaves the nodes ([`check`]); then everything heals, and the pair must become healthy and survive the death of
//! its active node ([`liveness`]). The same seed gives the same run, and can tell its story ([`story`]).
//!
//! Real: `tandem_takeover::Node`, the hot state in a memfd, marks, windows, sequence numbers, IVs, term files, messages.
//! Modelled, after their contracts: the worker's round ([`worker`]), the pair thread ([`pair`]), control and its SSP
//! session ([`control`]), the disk ([`disk`]), the envelope of datagrams ([`net`]).

mod attacker;
mod check;
mod control;
mod directed;
mod disk;
mod faults;
mod liveness;
pub mod mutants;
mod net;
mod node;
mod pair;
mod peer;
mod queue;
mod rng;
mod runner;
mod story;
mod worker;
mod world;

pub use liveness::{Outcome, run};
pub use runner::{Seeds, Sums, replay, run_all, simulate};
