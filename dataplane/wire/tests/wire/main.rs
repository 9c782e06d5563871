//! Tests of the packet formats: against plain models, against packets that scapy made, and on octets that
//! are no packets at all.

#![allow(missing_docs)]

mod arp;
mod checksum;
mod fragment;
mod hostile;
mod icmp;
mod ipv4;
mod model;
mod scapy;
mod scapy_packets;
mod tcp;
mod udp;
