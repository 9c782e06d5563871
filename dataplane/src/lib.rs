//! The data plane of Tandem: the way of packets through a gateway, and the daemon around it.
//!
//! [`pipeline`] is the hot path; [`worker`] runs it on a core; [`slow_path`] does what it cannot finish;
//! [`sa_table`], [`policy`], [`fib`] and [`tables`] are what workers read; [`netlink`] follows the kernel;
//! [`pair`] runs the machine that decides who is active;
//! [`daemon`] puts it all together and serves the control process. [`harness`] runs the same pipeline over
//! memory, without privileges.

pub mod any_port;
pub mod counters;
pub mod daemon;
pub mod fib;
pub mod harness;
pub mod keeper;
pub mod netlink;
pub mod pair;
pub mod pipeline;
pub mod policy;
pub mod prefix_table;
pub mod sa_table;
pub mod slow_path;
pub mod tables;
pub mod worker;
