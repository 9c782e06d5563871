//! The control process of Tandem and tandemctl.
//!
//! `tandem-control` reads the configuration, keeps the terms of the node, tells the data plane what is
//! wanted ([`session`]), keeps a session with the partner's control process ([`partner`]), keeps protected
//! traffic off the wire while no data plane runs ([`fence`]) and answers operators ([`operator`]). `tandemctl` ([`ctl`]) asks.

pub mod ctl;
pub mod daemon;
pub mod fence;
pub mod hardening;
pub mod link;
pub mod operator;
pub mod partner;
pub mod report;
pub mod session;
pub mod settings_file;
pub mod state;
