//! Namespaces, scenarios, the demo and the test runner of Tandem.
//!
//! A scenario builds two sites in network namespaces ([`network`]) with gateways between them ([`sites`]), runs the real daemons in them
//! ([`gateway`]), sends real traffic ([`traffic`]), records the outside segment ([`capture`]) and has it
//! read by judges that share no code with the project ([`judge`]). What it saw becomes a
//! [`report::Report`].

pub mod capture;
pub mod demo;
pub mod gateway;
pub mod html;
pub mod judge;
pub mod lab;
pub mod network;
pub mod pair;
pub mod pcap;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod simulation;
pub mod sites;
pub mod suite;
pub mod traffic;
