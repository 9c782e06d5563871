//! The peer of `esp-memory`: Debian's dpdk example ipsec-secgw over an in-memory port.
//!
//! One core receives (a capture file replayed from memory), finds policy and SA, seals or opens with
//! libipsec-mb, routes, and sends to a null port: the same work as Tandem's pipeline between its replay port
//! and its sink. It keeps no replay window, has one SA, and no more than its own counters, printed each second,
//! tell how fast it is. Seconds are those for which it had the core (other work here does not make it slower),
//! and its best one stands for a quiet core.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::frames::{self, Flow};
use crate::{cpu, pin};

/// Frames in the replayed file. Tandem's replay has as many.
pub const FRAMES: usize = 1024;
/// Memory of the program, in MiB, and the 2 MiB pages for it with some to spare.
const MEMORY_MIB: u32 = 700;
const PAGES: u64 = 400;
/// How long the program may take to say something: it starts in half a second and then speaks each second.
const PATIENCE: Duration = Duration::from_secs(15);
/// AES-128 key and salt, as the configuration file writes them.
const KEY: &str = "2b:7e:15:16:28:ae:d2:a6:ab:f7:15:88:09:cf:4f:3c:de:ad:be:ef";
const SELECTOR: &str = "dst 192.168.105.0/24 sport 0:65535 dport 0:65535";
const TUNNEL: &str = "mode ipv4-tunnel src 172.16.1.5 dst 172.16.2.5";

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Plain frames in, ESP out.
    Encrypt,
    /// ESP in, plain frames out.
    Decrypt,
}

impl Direction {
    /// `encrypt` or `decrypt`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Encrypt => "encrypt",
            Direction::Decrypt => "decrypt",
        }
    }
}

/// The program, built, and what it needs to run.
pub struct Secgw {
    program: PathBuf,
    folder: TempDir,
    memory: Memory,
}

impl Secgw {
    /// Builds the program (or takes the one built before) and reserves its memory.
    pub fn prepare() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("secgw/build");
        let output =
            Command::new(&script).stderr(Stdio::inherit()).output().context("starting secgw/build")?;
        ensure!(output.status.success(), "{} ended with {}", script.display(), output.status);
        let program = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        let folder = tempfile::tempdir()?;
        // It wants an inbound SA and a policy for it wherever there is an unprotected port, even if nothing comes in.
        std::fs::write(
            folder.path().join("encrypt.cfg"),
            format!(
                "sp ipv4 out esp protect 5 pri 1 {SELECTOR}\n\
                 sa out 5 aead_algo aes-128-gcm aead_key {KEY} {TUNNEL}\n\
                 sp ipv4 in esp protect 6 pri 1 dst 192.168.115.0/24 sport 0:65535 dport 0:65535\n\
                 sa in 6 aead_algo aes-128-gcm aead_key {KEY} mode ipv4-tunnel src 172.16.2.5 dst 172.16.1.5\n\
                 rt ipv4 dst 172.16.2.5/32 port 1\n\
                 rt ipv4 dst 192.168.105.0/24 port 0\n"
            ),
        )?;
        std::fs::write(
            folder.path().join("decrypt.cfg"),
            format!(
                "sp ipv4 in esp protect 5 pri 1 {SELECTOR}\n\
                 sa in 5 aead_algo aes-128-gcm aead_key {KEY} {TUNNEL}\n\
                 rt ipv4 dst 192.168.105.0/24 port 1\n"
            ),
        )?;
        Ok(Self { program, folder, memory: Memory::reserve() })
    }

    /// Writes the files that are replayed: frames of `size` octets, and the ESP packets that the program itself
    /// makes of them.
    pub fn record(&self, size: usize) -> Result<()> {
        let flow = Flow {
            to_mac: [2, 0, 0, 0, 0, 1],
            from_mac: [2, 0, 0, 0, 0, 2],
            from: Ipv4Addr::new(192, 168, 1, 1),
            to: Ipv4Addr::new(192, 168, 105, 10),
        };
        let plain: Vec<Vec<u8>> = (0..FRAMES).map(|id| frames::udp(flow, size, id as u16)).collect();
        let (input, output) =
            (self.capture(Direction::Encrypt, size), self.capture(Direction::Decrypt, size));
        frames::write_pcap(&input, &plain)?;
        let mut run = Run::start(
            self,
            Direction::Encrypt,
            &[
                format!("net_pcap0,rx_pcap={}", input.display()),
                format!("net_pcap1,tx_pcap={}", output.display()),
            ],
        )?;
        while run.next()?.sent < FRAMES as u64 {}
        run.finish()?;
        let written = std::fs::metadata(&output).context("no ESP packets were written")?.len();
        ensure!(written > (FRAMES * size) as u64, "only {written} octets of ESP packets were written");
        Ok(())
    }

    /// Packets a second of CPU time in each of `seconds` seconds. [`Self::record`] must have been called for the size.
    pub fn rates(&self, direction: Direction, size: usize, seconds: usize) -> Result<Vec<f64>> {
        let mut run = Run::start(
            self,
            direction,
            &[
                format!("net_pcap0,rx_pcap={},infinite_rx=1", self.capture(direction, size).display()),
                String::from("net_null0,no-rx=1"),
            ],
        )?;
        let mut before = run.next()?;
        let mut rates = Vec::with_capacity(seconds);
        for _ in 0..seconds {
            let after = run.next()?;
            ensure!(after.dropped == 0, "ipsec-secgw dropped {} packets", after.dropped);
            rates.push((after.sent - before.sent) as f64 / after.at.saturating_sub(before.at).as_secs_f64());
            before = after;
        }
        run.finish()?;
        ensure!(
            rates.iter().all(|&rate| rate > 0.0 && rate.is_finite()),
            "ipsec-secgw sent nothing: {rates:?}"
        );
        Ok(rates)
    }

    /// Whether it runs on pages of 2 MiB.
    pub fn has_huge_pages(&self) -> bool {
        self.memory.former.is_some()
    }

    fn capture(&self, direction: Direction, size: usize) -> PathBuf {
        self.folder.path().join(format!("{}-{size}.pcap", direction.name()))
    }
}

/// The program's counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Counters {
    /// CPU time of its core's thread.
    at: Duration,
    sent: u64,
    dropped: u64,
}

/// The running program.
struct Run {
    child: Child,
    counters: Receiver<Counters>,
    /// What it says on its standard error.
    log: PathBuf,
}

impl Run {
    fn start(secgw: &Secgw, direction: Direction, ports: &[String]) -> Result<Self> {
        let core = pin::core(pin::Role::UnderTest)?.to_string();
        let mut command = Command::new("taskset");
        // Its output must come by lines and not by buffers; the program must not outlive this one.
        command.args(["-c", &core, "setpriv", "--pdeathsig", "KILL", "stdbuf", "-oL"]).arg(&secgw.program);
        command.args(["--no-pci", "-l", &core, "--main-lcore", &core, "-m", &MEMORY_MIB.to_string()]);
        command.args(["--in-memory", "--iova-mode", "va"]);
        if !secgw.has_huge_pages() {
            command.arg("--no-huge");
        }
        for port in ports {
            command.args(["--vdev", port]);
        }
        // The unprotected port faces the encrypted side.
        let unprotected = match direction {
            Direction::Encrypt => "0x2",
            Direction::Decrypt => "0x1",
        };
        command.args(["--vdev", "crypto_aesni_gcm0", "--", "-p", "0x3", "-P", "-u", unprotected]);
        command.args(["-l", "-t", "1", "-s", "8192", "-f"]);
        command.arg(secgw.folder.path().join(format!("{}.cfg", direction.name())));
        command.args(["--config", &format!("(0,0,{core}),(1,0,{core})")]);
        let log = secgw.folder.path().join("stderr");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("starting ipsec-secgw")?;
        let output = child.stdout.take().context("no pipe")?;
        let (sender, counters) = mpsc::channel();
        // Of its first thread, which is the one that forwards.
        let time = PathBuf::from(format!("/proc/{}/schedstat", child.id()));
        std::thread::spawn(move || read_counters(output, &sender, || cpu::time(&time)));
        Ok(Self { child, counters, log })
    }

    /// The counters that it prints next.
    fn next(&mut self) -> Result<Counters> {
        match self.counters.recv_timeout(PATIENCE) {
            Ok(counters) => Ok(counters),
            Err(error) => {
                let status = self.child.try_wait()?;
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!(
                    "ipsec-secgw told no counters: {error}; its status is {status:?}; it said: {}",
                    log.trim()
                )
            }
        }
    }

    /// Asks it to close its ports and waits for that.
    fn finish(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM).context("ending ipsec-secgw")?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(start.elapsed() < PATIENCE, "ipsec-secgw does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail only where it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the statistics screen; ends with the program.
fn read_counters(output: impl Read, sender: &mpsc::Sender<Counters>, now: impl Fn() -> Option<Duration>) {
    // Away from the core that is measured; where this fails the reader shares it and costs little.
    let _ = pin::this_thread(pin::Role::Generator);
    let mut sent = None;
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let number =
            |label: &str| line.strip_prefix(label).and_then(|number| number.trim().parse::<u64>().ok());
        if let Some(number) = number("Total packets sent:") {
            sent = now().map(|at| (at, number));
        } else if let Some(dropped) = number("Total packets dropped:")
            && let Some((at, sent)) = sent.take()
            && sender.send(Counters { at, sent, dropped }).is_err()
        {
            return;
        }
    }
}

const PAGE_COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Pages of 2 MiB, given back at the end.
struct Memory {
    /// How many there were; none where there are none to be had.
    former: Option<u64>,
}

/// What [`release_memory`] has to restore, plus one; zero if there is nothing to do.
static TO_RESTORE: AtomicU64 = AtomicU64::new(0);

impl Memory {
    fn reserve() -> Self {
        let Some(former) = page_count() else { return Self { former: None } };
        TO_RESTORE.store(former + 1, Ordering::SeqCst);
        let written = std::fs::write(PAGE_COUNT, (former + PAGES).to_string());
        if written.is_ok() && page_count().is_some_and(|now| now >= former + PAGES) {
            return Self { former: Some(former) };
        }
        release_memory();
        Self { former: None }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        release_memory();
    }
}

fn page_count() -> Option<u64> {
    std::fs::read_to_string(PAGE_COUNT).ok()?.trim().parse().ok()
}

/// Gives reserved memory back; also for the handler of Ctrl-C.
pub fn release_memory() {
    if let Some(former) = TO_RESTORE.swap(0, Ordering::SeqCst).checked_sub(1) {
        // Without the permission to write there was none to reserve either.
        let _ = std::fs::write(PAGE_COUNT, former.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_off_the_statistics_screen() {
        let screen = "\u{1b}[2J\u{1b}[1;1H\nCore statistics ====\nPackets sent:  7\n\
                      Total packets received:       24507584\nTotal packets sent:           24507552\n\
                      Total packets dropped:               3\nTotal frag packets dropped:          0\n";
        let (sender, counters) = mpsc::channel();
        read_counters(screen.repeat(2).as_bytes(), &sender, || Some(Duration::ZERO));
        drop(sender);
        let seen: Vec<(u64, u64)> =
            counters.iter().map(|counters| (counters.sent, counters.dropped)).collect();
        assert_eq!(seen, [(24_507_552, 3), (24_507_552, 3)]);
    }
}
