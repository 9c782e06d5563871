//! The XDP steering program of Tandem and its typed loader.
