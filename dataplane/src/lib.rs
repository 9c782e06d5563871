//! The data plane daemon of Tandem.
