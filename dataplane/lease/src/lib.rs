//! Terms and the term file, without I/O.
