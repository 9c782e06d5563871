//! iperf3 between two hosts.

use crate::lab::{Namespace, Process};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A client that runs against a server of its own.
#[derive(Debug)]
pub struct Iperf {
    server: Process,
    client: Process,
    seconds: u32,
}

/// What iperf3 measured.
#[derive(Clone, Debug)]
pub struct IperfResult {
    /// Throughput at the receiver in Mbit/s.
    pub mbit: f64,
    /// TCP retransmissions.
    pub retransmits: u64,
    /// UDP datagrams sent.
    pub datagrams: u64,
    /// UDP datagrams lost.
    pub lost: u64,
    /// Throughput of each interval in Mbit/s: (seconds since the start, Mbit/s).
    pub intervals: Vec<(f64, f64)>,
}

impl Iperf {
    /// Starts a server in `to` and a client in `from`; `more` are the client's arguments (`-u`, `-R`, `-b`, ...).
    ///
    /// # Errors
    /// Where one of them does not start.
    pub fn start(
        from: &Namespace,
        (to, address): (&Namespace, Ipv4Addr),
        port: u16,
        seconds: u32,
        more: &[&str],
    ) -> Result<Self> {
        let (port, address, time) = (port.to_string(), address.to_string(), seconds.to_string());
        let mut server =
            to.start(&format!("iperf3-server-{port}"), "iperf3", &["-s", "-1", "-p", &port, "--forceflush"])?;
        server.wait_for_log("listening", Duration::from_secs(5))?;
        let mut arguments =
            vec!["-J", "-i", "0.2", "-c", &address, "-p", &port, "-t", &time, "--connect-timeout", "5000"];
        arguments.extend_from_slice(more);
        let client = from.start(&format!("iperf3-client-{port}"), "iperf3", &arguments)?;
        Ok(Self { server, client, seconds })
    }

    /// Does the client still run?
    pub fn is_running(&mut self) -> bool {
        self.client.is_alive()
    }

    /// Waits for the end and reads the result.
    ///
    /// # Errors
    /// With iperf3's own words where it failed.
    pub fn finish(mut self) -> Result<IperfResult> {
        self.client.wait(Duration::from_secs(u64::from(self.seconds) + 30))?;
        let text = self.client.log();
        let _ = self.server.wait(Duration::from_secs(2));
        parse(&text)
    }
}

/// One run from start to end.
///
/// # Errors
/// As [`Iperf::finish`].
pub fn run(
    from: &Namespace,
    to: (&Namespace, Ipv4Addr),
    port: u16,
    seconds: u32,
    more: &[&str],
) -> Result<IperfResult> {
    Iperf::start(from, to, port, seconds, more)?.finish()
}

fn parse(text: &str) -> Result<IperfResult> {
    // Warnings of nsenter or iperf3 may stand before the object.
    let start = text.find('{').with_context(|| format!("iperf3 said: {text}"))?;
    let json: Value = serde_json::from_str(&text[start..]).context("reading iperf3's JSON")?;
    if let Some(error) = json["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let end = &json["end"];
    let received =
        [&end["sum_received"], &end["sum"]].into_iter().find(|sum| sum["bits_per_second"].is_number());
    let received = received.context("iperf3 gave no sum")?;
    Ok(IperfResult {
        mbit: received["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        datagrams: end["sum"]["packets"].as_u64().unwrap_or(0),
        lost: end["sum"]["lost_packets"].as_u64().unwrap_or(0),
        intervals: json["intervals"]
            .as_array()
            .map(|intervals| {
                intervals
                    .iter()
                    .filter_map(|interval| {
                        let sum = &interval["sum"];
                        Some((sum["end"].as_f64()?, sum["bits_per_second"].as_f64()? / 1e6))
                    })
                    .collect()
            })
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn tcp_and_udp_results_are_read() {
        let tcp = parse(
            r#"{"intervals":[{"sum":{"end":0.2,"bits_per_second":2e6}}],"end":{"sum_sent":{"retransmits":3},"sum_received":{"bits_per_second":1e9}}}"#,
        )
        .expect("a result");
        assert_eq!((tcp.mbit, tcp.retransmits), (1000.0, 3));
        assert_eq!(tcp.intervals, [(0.2, 2.0)]);
        let udp = parse(r#"{"end":{"sum":{"bits_per_second":5e7,"packets":100,"lost_packets":2}}}"#)
            .expect("a result");
        assert_eq!((udp.datagrams, udp.lost), (100, 2));
    }

    #[test]
    fn an_error_of_iperf3_is_an_error() {
        assert!(parse(r#"{"error":"unable to connect"}"#).is_err());
        assert!(parse("iperf3: command not found").is_err());
    }
}
