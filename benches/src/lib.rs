//! Benchmarks of Tandem and comparison with its peers.
