//! Traffic of real hosts: numbered UDP flows, echo requests, iperf3, downloads, crafted frames.

pub mod echo;
pub mod flow;
pub mod http;
pub mod iperf;
pub mod ping;
pub mod rate;
pub mod raw;
