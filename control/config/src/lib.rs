//! The configuration of Tandem: parse, check, explain.
