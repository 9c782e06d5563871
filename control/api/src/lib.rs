//! Requests, answers and events of both Tandem sockets, and the one list of counters.
//!
//! - [`dataplane`]: what the control process and the data plane say to each other
//!   (Unix `SOCK_SEQPACKET`, postcard).
//! - [`operator`]: what `tandemctl` and the control process say to each other
//!   (Unix stream, one JSON object a line).
//! - [`counters`]: every counter and drop reason by name and text, from one list.
//! - [`types`]: words that both share (roles, transforms, selectors).
//!
//! No I/O here.

pub mod counters;
pub mod dataplane;
pub mod operator;
pub mod pair;
pub mod types;
