//! The operator's command line: what can be asked, and how the answers are shown.

mod client;
mod numbers;
mod redundancy;
mod sas;
mod ssp;
mod tables;

use crate::settings_file::{self, ReadError};
use crate::state;
use clap::{Args, Parser, Subcommand};
use client::{Client, ClientError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tandem_api::operator::{
    Counters, Detached, Interfaces, IpsecSas, Method, NodeStatus, Policies, Rates, Reloaded, Ssp, schemas,
};
use tandem_api::types::Role;

/// The operator's command line of Tandem. Commands may be abbreviated: `tandemctl sh cry ips sa`.
/// Exit status: 0 done, 1 refused, 2 wrong usage, 3 tandem-control not reachable.
#[derive(Debug, Parser)]
#[command(name = "tandemctl", version, infer_subcommands = true, infer_long_args = true)]
struct Arguments {
    /// Socket of tandem-control.
    #[arg(long, global = true, default_value = "/run/tandem/control.sock")]
    socket: PathBuf,
    /// One JSON object instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Command {
    /// Show what runs.
    Show {
        #[command(subcommand)]
        what: Show,
    },
    /// The configuration.
    Config {
        #[command(subcommand)]
        what: Config,
    },
    /// This node.
    Node {
        #[command(subcommand)]
        what: Node,
    },
    /// The pair.
    Redundancy {
        #[command(subcommand)]
        what: Redundant,
    },
    /// Take the data plane off its interfaces and remove the blackhole routes: protected traffic may leave in clear.
    Detach,
    /// Print the JSON schemas of all answers.
    Schema,
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Show {
    /// IPsec.
    Crypto {
        #[command(subcommand)]
        what: Crypto,
    },
    /// Interfaces: driver, mode, queues, rates, steering.
    Interfaces(ShowInterfaces),
    /// Every counter and drop reason, and where every frame ended.
    Counters(ShowCounters),
    /// Policies, the one that decides first on top.
    Policy,
    /// Node, connection to the data plane, terms.
    Status,
    /// The pair: role, partner, what a takeover would keep, paths, segments.
    Redundancy {
        #[command(subcommand)]
        what: Option<ShowRedundancy>,
    },
    /// Synchronization of state with the partner.
    Ssp {
        #[command(subcommand)]
        what: Option<ShowSsp>,
    },
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum ShowRedundancy {
    /// What has happened, with the time of each step.
    History,
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum ShowSsp {
    /// What is synchronized.
    Client,
    /// Messages between the two control processes.
    Packet,
    /// Ways to the partner.
    Peers,
    /// Replication between the data planes, and its lag.
    Redundancy,
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Redundant {
    /// Change the roles of the two nodes, without loss; refused where it cannot be.
    SwitchOver,
}

#[derive(Debug, Args)]
struct ShowInterfaces {
    /// Seconds between the two samples that rates come from; 0 shows no rates.
    #[arg(long, default_value_t = 1.0, value_parser = interval)]
    interval: f64,
}

#[derive(Debug, Args)]
struct ShowCounters {
    /// Counters that are zero too.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Crypto {
    /// IPsec.
    Ipsec {
        #[command(subcommand)]
        what: Ipsec,
    },
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Ipsec {
    /// Security associations by crypto map.
    Sa {
        #[command(subcommand)]
        detail: Option<Detail>,
    },
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Detail {
    /// All that is known of each.
    Detail,
    /// On the standby: the dormant ones, with the numbers that it would start from.
    Standby,
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Config {
    /// Check a configuration file; nothing is applied, no daemon is asked.
    Check {
        /// The file.
        #[arg(default_value = "/etc/tandem/tandem.toml")]
        file: PathBuf,
    },
    /// Read the configuration file again and apply it, whole or not at all.
    Reload,
}

#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
enum Node {
    /// Make node key, term file and numbers file, once in the life of a node.
    Init {
        /// Where they are kept (`state-directory` of the configuration).
        #[arg(long, default_value = "/var/lib/tandem")]
        state_directory: PathBuf,
    },
    /// Print the public key of this node: `partner-key` in the configuration of its partner.
    Show {
        /// Where the key is kept (`state-directory` of the configuration).
        #[arg(long, default_value = "/var/lib/tandem")]
        state_directory: PathBuf,
    },
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 3600".to_owned()),
    }
}

/// Why a command was not done.
#[derive(Debug)]
enum Failed {
    Client(ClientError),
    Refused { code: &'static str, message: String },
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Failed::Client(error)
    }
}

/// Runs `tandemctl` with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut text = String::new();
    let result = run(&arguments, &mut text);
    let mut stdout = std::io::stdout().lock();
    // A reader that went away (`| head`) does not want the rest.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    let Err(failed) = result else { return ExitCode::SUCCESS };
    let (status, code, message) = match failed {
        Failed::Refused { code, message } => (1, code.to_owned(), message),
        Failed::Client(ClientError::Refused(failure)) => {
            let code = serde_json::to_value(failure.code).ok();
            let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or("refused").to_owned();
            (1, code, failure.message)
        }
        Failed::Client(error @ ClientError::Unreachable { .. }) => {
            (3, "control_unreachable".to_owned(), error.to_string())
        }
        Failed::Client(error @ ClientError::Protocol(_)) => (1, "protocol".to_owned(), error.to_string()),
    };
    if arguments.json && text.is_empty() {
        let object = serde_json::json!({ "error": { "code": code, "message": message } });
        let _ = writeln!(stdout, "{object:#}");
    }
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(status)
}

/// Does what is asked; `text` takes what belongs on standard output.
fn run(arguments: &Arguments, text: &mut String) -> Result<(), Failed> {
    let json = arguments.json;
    let client = || Client::connect(&arguments.socket);
    match &arguments.command {
        Command::Show { what } => match what {
            Show::Crypto { what: Crypto::Ipsec { what: Ipsec::Sa { detail } } } => {
                let sas: IpsecSas = client()?.ask(Method::ShowCryptoIpsecSa)?;
                if matches!(detail, Some(Detail::Standby)) && sas.role == Role::Active {
                    let message = format!(
                        "this node is active in term {}: it has no dormant SAs; ask its partner, or \
                         `tandemctl show crypto ipsec sa`",
                        sas.term
                    );
                    return Err(Failed::Refused { code: "refused", message });
                }
                let render = |sas: &IpsecSas| match detail {
                    None => sas::table(sas),
                    Some(Detail::Detail) => sas::detail(sas),
                    Some(Detail::Standby) => sas::standby(sas),
                };
                *text = shown(json, &sas, render);
            }
            Show::Interfaces(options) => {
                *text = shown(json, &interfaces(&mut client()?, options.interval)?, tables::interfaces);
            }
            Show::Counters(options) => {
                let counters: Counters = client()?.ask(Method::ShowCounters)?;
                *text = shown(json, &counters, |counters| tables::counters(counters, options.all));
            }
            Show::Policy => {
                *text = ask(client()?, Method::ShowPolicy, json, |p: &Policies| tables::policy(p))?
            }
            Show::Status => {
                *text = ask(client()?, Method::ShowStatus, json, |s: &NodeStatus| tables::status(s))?
            }
            Show::Redundancy { what: None } => {
                *text = ask(client()?, Method::ShowRedundancy, json, redundancy::overview)?;
            }
            Show::Redundancy { what: Some(ShowRedundancy::History) } => {
                *text = ask(client()?, Method::ShowRedundancyHistory, json, redundancy::history)?;
            }
            Show::Ssp { what } => *text = show_ssp(&client()?.ask(Method::ShowSsp)?, what.as_ref(), json),
        },
        Command::Redundancy { what: Redundant::SwitchOver } => {
            *text = ask(client()?, Method::SwitchOver, json, redundancy::switched_over)?;
        }
        Command::Config { what: Config::Check { file } } => return check(file, json, text),
        Command::Config { what: Config::Reload } => {
            *text = ask(client()?, Method::ConfigReload, json, |r: &Reloaded| tables::reloaded(r))?;
        }
        Command::Node { what: Node::Init { state_directory } } => {
            let public_key = state::init(state_directory)
                .map_err(|error| Failed::Refused { code: "refused", message: error.to_string() })?;
            let made =
                Initialized { public_key: hex::encode(public_key), state_directory: state_directory.clone() };
            *text = shown(json, &made, |made| {
                let directory = made.state_directory.display();
                format!("node key and term file made in {directory}\npublic key {}\n", made.public_key)
            });
        }
        Command::Node { what: Node::Show { state_directory } } => {
            let public_key = state::public_key(state_directory)
                .map_err(|error| Failed::Refused { code: "refused", message: error.to_string() })?;
            let key = PublicKey { public_key: hex::encode(public_key) };
            *text = shown(json, &key, |key| format!("{}\n", key.public_key));
        }
        Command::Detach => {
            *text = ask(client()?, Method::Detach, json, |detached: &Detached| {
                let removed = detached.routes_removed;
                format!(
                    "detached: the data plane has left its interfaces, {removed} blackhole routes are removed\n\
                     `tandemctl config reload` attaches again, once tandem-dataplane runs\n"
                )
            })?;
        }
        Command::Schema => *text = pretty(&schemas()),
    }
    Ok(())
}

#[derive(Serialize)]
struct Initialized {
    public_key: String,
    state_directory: PathBuf,
}

#[derive(Serialize)]
struct PublicKey {
    public_key: String,
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
    errors: Vec<CheckError>,
}

#[derive(Serialize)]
struct CheckError {
    line: usize,
    column: usize,
    path: String,
    message: String,
    cure: String,
}

fn check(file: &std::path::Path, json: bool, text: &mut String) -> Result<(), Failed> {
    let refused = |message: String| Failed::Refused { code: "config_invalid", message };
    match settings_file::read(file) {
        Ok(settings) => {
            let checked = Checked { valid: true, errors: Vec::new() };
            *text = shown(json, &checked, |_| {
                let (config, sas) = (&settings.data_plane, settings.sas.len());
                let (interfaces, policies) = (config.interfaces.len(), config.policies.len());
                let file = file.display();
                format!("{file}: no errors ({interfaces} interfaces, {policies} policies, {sas} SAs)\n")
            });
            Ok(())
        }
        Err(ReadError::Findings(findings)) => {
            if json {
                let errors = findings.iter().cloned().map(|finding| CheckError {
                    line: finding.line,
                    column: finding.column,
                    path: finding.path,
                    message: finding.message,
                    cure: finding.cure,
                });
                *text = pretty(&Checked { valid: false, errors: errors.collect() });
            }
            Err(refused(findings.to_string()))
        }
        Err(error) => Err(refused(error.to_string())),
    }
}

fn interfaces(client: &mut Client, interval: f64) -> Result<Interfaces, ClientError> {
    let first: Interfaces = client.ask(Method::ShowInterfaces)?;
    if interval == 0.0 {
        return Ok(first);
    }
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs_f64(interval));
    let mut second: Interfaces = client.ask(Method::ShowInterfaces)?;
    let elapsed = start.elapsed().as_secs_f64();
    for later in &mut second.interfaces {
        let earlier = first.interfaces.iter().find(|earlier| earlier.index == later.index);
        later.rates = earlier.map(|earlier| Rates::between(earlier, later, elapsed));
    }
    Ok(second)
}

/// All of SSP, or one part: then JSON too is that part.
fn show_ssp(ssp: &Ssp, what: Option<&ShowSsp>, json: bool) -> String {
    match what {
        None => shown(json, ssp, ssp::all),
        Some(ShowSsp::Client) => shown(json, &ssp.clients, |_| ssp::client(ssp)),
        Some(ShowSsp::Packet) => shown(json, &ssp.packets, |_| ssp::packet(ssp)),
        Some(ShowSsp::Peers) => shown(json, &ssp.peers, |_| ssp::peers(ssp)),
        Some(ShowSsp::Redundancy) => shown(json, &ssp.redundancy, |_| ssp::redundancy(ssp)),
    }
}

fn ask<T: DeserializeOwned + Serialize>(
    mut client: Client,
    method: Method,
    json: bool,
    render: impl FnOnce(&T) -> String,
) -> Result<String, ClientError> {
    let result: T = client.ask(method)?;
    Ok(shown(json, &result, render))
}

fn shown<T: Serialize>(json: bool, value: &T, render: impl FnOnce(&T) -> String) -> String {
    if json { pretty(value) } else { render(value) }
}

fn pretty<T: Serialize>(value: &T) -> String {
    // Every answer is made of maps with string keys: it can be written.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn commands_may_be_abbreviated_as_long_as_they_are_clear() {
        let arguments = parse("tandemctl sh cry ips sa det --js").unwrap();
        assert!(arguments.json);
        let Command::Show { what: Show::Crypto { what: Crypto::Ipsec { what: Ipsec::Sa { detail } } } } =
            arguments.command
        else {
            panic!("another command");
        };
        assert!(detail.is_some());
        assert!(parse("tandemctl show c").is_err(), "crypto or counters?");
        assert!(parse("tandemctl show int").is_ok());
        for line in
            ["sh red", "sh red hist", "sh ssp", "sh ssp cl", "sh ssp pac", "sh ssp peer", "sh ssp red"]
        {
            assert!(parse(&format!("tandemctl {line} --json")).is_ok(), "{line}");
        }
        assert!(parse("tandemctl show crypto ipsec sa standby").is_ok());
        assert!(parse("tandemctl red sw").is_ok());
        assert!(parse("tandemctl redundancy").is_err(), "nothing is done by an abbreviation of nothing");
    }

    #[test]
    fn wrong_usage_has_exit_status_2() {
        assert_eq!(parse("tandemctl show nothing").unwrap_err().exit_code(), 2);
        assert_eq!(parse("tandemctl show interfaces --interval -1").unwrap_err().exit_code(), 2);
    }
}
