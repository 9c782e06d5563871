//! Burst AEAD providers behind one trait.
