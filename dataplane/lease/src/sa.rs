//! How an SA is named between the nodes of a pair.

/// Direction of an SA; equal on both nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Way {
    /// Opened by the gateway.
    In = 0,
    /// Sealed by the gateway.
    Out = 1,
}

/// An SA, as both nodes know it: the whole SPI, and the key by its fingerprint (F8, F38).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaKey {
    /// Direction.
    pub way: Way,
    /// SPI, host byte order.
    pub spi: u32,
    /// Fingerprint of the key.
    pub fingerprint: u64,
}
