//! `ping` and `traceroute` as a user runs them.

use crate::lab::Namespace;
use anyhow::Result;
use std::net::Ipv4Addr;

/// What `ping` said.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
    /// Mean round trip in milliseconds, where there was one.
    pub round_trip_ms: Option<f64>,
    /// Its whole output.
    pub output: String,
}

impl Ping {
    /// Every request was answered.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.sent > 0 && self.sent == self.received
    }

    /// `5 of 5 answered, 0.31 ms`.
    #[must_use]
    pub fn summary(&self) -> String {
        let round_trip = self.round_trip_ms.map_or(String::new(), |ms| format!(", {ms:.2} ms"));
        format!("{} of {} answered{round_trip}", self.received, self.sent)
    }

    /// The MTU that an ICMP fragmentation-needed (or the kernel's cache of one) reported.
    #[must_use]
    pub fn reported_mtu(&self) -> Option<u32> {
        let position = self.output.find("mtu")?;
        let digits: String = self.output[position + 3..]
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    }
}

/// Runs `ping -c COUNT` with more arguments. Requests without an answer are no error.
///
/// # Errors
/// Where ping cannot be run.
pub fn ping(namespace: &Namespace, to: Ipv4Addr, count: u32, more: &[&str]) -> Result<Ping> {
    let output = namespace
        .command("ping")
        .args(["-n", "-i", "0.02", "-W", "1", "-c", &count.to_string()])
        .args(more)
        .arg(to.to_string())
        .output()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(parse(text))
}

fn parse(output: String) -> Ping {
    let summary = output.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let number = |what: &str| {
        summary
            .split(',')
            .find(|part| part.contains(what))
            .and_then(|part| part.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    let round_trip_ms = output
        .lines()
        .find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "))
        .and_then(|times| times.split('/').nth(1)?.parse().ok());
    Ping { sent: number("transmitted"), received: number("received"), round_trip_ms, output }
}

/// The address that answered for each hop of `traceroute -I` or UDP; `None` where none did.
///
/// # Errors
/// Where traceroute cannot be run.
pub fn traceroute(namespace: &Namespace, to: Ipv4Addr, icmp: bool) -> Result<Vec<Option<Ipv4Addr>>> {
    let mut command = namespace.command("traceroute");
    command.args(["-n", "-q", "1", "-w", "2", "-m", "8"]);
    if icmp {
        command.arg("-I");
    }
    let output = command.arg(to.to_string()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .skip(1)
        .filter_map(|line| Some(line.split_whitespace().nth(1)?.parse().ok()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_summary_of_ping_is_read() {
        let ping = parse(
            "PING 10.2.0.10\n\n--- 10.2.0.10 ping statistics ---\n5 packets transmitted, 4 received, 20% packet loss, time 80ms\nrtt min/avg/max/mdev = 0.214/0.305/0.400/0.067 ms\n"
                .to_owned(),
        );
        assert_eq!((ping.sent, ping.received), (5, 4));
        assert_eq!(ping.round_trip_ms, Some(0.305));
        assert!(!ping.is_whole());
    }

    #[test]
    fn the_reported_mtu_is_read_from_both_forms() {
        let first = parse("From 10.1.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1446)\n".to_owned());
        assert_eq!(first.reported_mtu(), Some(1446));
        assert_eq!(
            parse("ping: local error: message too long, mtu=1400\n".to_owned()).reported_mtu(),
            Some(1400)
        );
        assert_eq!(parse("nothing\n".to_owned()).reported_mtu(), None);
    }
}
