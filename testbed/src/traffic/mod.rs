//! Traffic of real hosts: numbered UDP flows, closed TCP loops, echo requests, iperf3, downloads, crafted frames.

pub mod arrivals;
pub mod dialogue;
pub mod echo;
pub mod flow;
pub mod http;
pub mod iperf;
pub mod ping;
pub mod rate;
pub mod raw;
