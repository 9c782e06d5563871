//! `tandemctl` to the control process: one JSON object a line.
