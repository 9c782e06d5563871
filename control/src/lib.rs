//! The control process of Tandem and tandemctl.
