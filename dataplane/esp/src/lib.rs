//! ESP: seal, open, anti-replay window, SA layout, SPI scheme.
