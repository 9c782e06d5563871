//! `tandem-dataplane`: the data plane daemon.

use clap::Parser;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tandem_dataplane::daemon::{self, Places};

/// The data plane of Tandem: XDP, AF_XDP workers, ESP. It is configured by tandem-control.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Socket for the control process.
    #[arg(long, default_value = "/run/tandem/dataplane.sock")]
    socket: PathBuf,
    /// Folder where a BPF file system of our own is mounted, for the pinned XDP links.
    #[arg(long, default_value = "/run/tandem/bpf")]
    bpffs: PathBuf,
    /// What to log: error, warn, info, debug, trace, or tracing's filter syntax.
    #[arg(long, default_value = "info")]
    log: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = match tracing_subscriber::EnvFilter::try_new(&arguments.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("tandem-dataplane: --log {}: {error}", arguments.log);
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let places = Places { socket: arguments.socket, bpffs: arguments.bpffs };
    match daemon::run(&places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
