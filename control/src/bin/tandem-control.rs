//! `tandem-control`: the control process.

use clap::Parser;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tandem_control::daemon::Daemon;
use tandem_control::fence::KernelFence;
use tandem_control::settings_file::{self, ReadError};
use tandem_control::state::NodeState;
use tandem_control::{hardening, operator};
use tokio::sync::mpsc;

/// The control process of Tandem: configuration, terms, operators.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "/etc/tandem/tandem.toml")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or tracing's filter syntax.
    #[arg(long, default_value = "info")]
    log: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = match tracing_subscriber::EnvFilter::try_new(&arguments.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("tandem-control: --log {}: {error}", arguments.log);
            return ExitCode::from(2);
        }
    };
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let settings = match settings_file::read(&arguments.config) {
        Ok(settings) => settings,
        Err(error @ (ReadError::Io(..) | ReadError::Findings(_))) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(arguments.config, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: PathBuf, settings: tandem_config::Settings) -> Result<(), Box<dyn std::error::Error>> {
    if settings_file::is_open_to_others(&config) {
        tracing::warn!("{} may hold keys and everybody can read it: `chmod o-r` it", config.display());
    }
    let node = NodeState::open(&settings.node.state_directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = operator::bind(&settings.node.control_socket, settings.node.control_group.as_deref())?;
        // What needed other capabilities is done: sockets are bound, files of other owners are open.
        hardening::harden();
        tracing::info!("tandem-control {} for node {}", env!("CARGO_PKG_VERSION"), settings.node.name);
        let socket = settings.node.control_socket.clone();
        let (sender, orders) = mpsc::channel(64);
        tokio::spawn(operator::serve(listener, sender));
        let ended = Daemon::new(config, settings, node, KernelFence).run(orders).await;
        // A socket left behind is replaced at the next start; it only looks untidy.
        let _ = std::fs::remove_file(socket);
        Ok(ended?)
    })
}
