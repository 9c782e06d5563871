//! Typed views of the packet formats that Tandem reads and writes.
