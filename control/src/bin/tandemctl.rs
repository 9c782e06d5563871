//! `tandemctl`: the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    tandem_control::ctl::main()
}
