//! A node for tests: real `tandem-control` and `tandemctl` in a network namespace of their own, before a
//! data plane that only keeps books.

pub mod books;

use books::DataPlane;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs `test` in a network namespace that ends with its thread and what it started.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// What a command left.
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

/// A node: folder, configuration, data plane, control process.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub data_plane: DataPlane,
    /// Public key of the node, hexadecimal.
    pub public_key: String,
    /// `[redundancy]` of the next configuration.
    pub redundancy: String,
    control: Option<Child>,
}

impl Site {
    /// Everything but the control process, with `maps` crypto maps.
    pub fn new(maps: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_plane = DataPlane::start(&folder.path().join("dataplane.sock"));
        let (public_key, redundancy) = (String::new(), String::new());
        let mut site = Self { folder, data_plane, public_key, redundancy, control: None };
        let made = site.ctl(&["--json", "node", "init", "--state-directory", &site.path("state")]);
        assert_eq!(made.status, 0, "{}", made.stderr);
        site.public_key = made.json()["public_key"].as_str().unwrap().to_owned();
        site.configure(&(0..maps).map(|i| format!("m{i}")).collect::<Vec<_>>());
        site
    }

    /// As [`Site::new`], with the control process connected.
    pub fn running(maps: usize) -> Self {
        let mut site = Self::new(maps);
        site.start_control();
        site.wait_connected();
        site
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("tandem.toml")
    }

    /// Writes a configuration with crypto maps of these names; name `mN` decides SPIs, keys and prefixes.
    pub fn configure<S: AsRef<str>>(&self, names: &[S]) {
        let mut text = format!(
            "[node]\nname = \"gw-a\"\nstate-directory = \"{}\"\ncontrol-socket = \"{}\"\n\
             [dataplane]\nsocket = \"{}\"\n\
             [[interface]]\nname = \"in0\"\nside = \"inside\"\nvirtual-addresses = [\"10.1.0.1/24\"]\n\
             [[interface]]\nname = \"out0\"\nside = \"outside\"\nvirtual-addresses = [\"192.0.2.1/24\"]\n",
            self.path("state"),
            self.path("control.sock"),
            self.path("dataplane.sock"),
        );
        text += &self.redundancy;
        for name in names.iter().map(AsRef::as_ref) {
            let number: u32 = name[1..].parse().unwrap();
            text += &format!(
                "[[crypto-map]]\nname = \"{name}\"\npriority = 100\nlocal = \"192.0.2.1\"\npeer = \"198.51.100.2\"\n\
                 protect = [{{ local = \"10.1.0.0/24\", remote = \"10.{}.{}.0/24\" }}]\n\
                 [crypto-map.static.inbound]\nspi = {}\ntransform = \"aes128gcm16\"\nkey = \"{number:040x}\"\n\
                 [crypto-map.static.outbound]\nspi = {}\ntransform = \"aes128gcm16\"\nkey = \"ff{number:038x}\"\n",
                2 + number / 256,
                number % 256,
                0x1000 + number,
                0x2000 + number,
            );
        }
        std::fs::write(self.config_file(), text).unwrap();
    }

    pub fn start_control(&mut self) {
        assert!(self.control.is_none());
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path("control.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tandem-control"))
            .args(["--config", self.config_file().to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.control = Some(child.unwrap());
    }

    pub fn control_pid(&self) -> i32 {
        self.control.as_ref().expect("tandem-control runs").id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.control_pid()), signal).unwrap();
    }

    pub fn kill_control(&mut self) {
        let mut child = self.control.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("control.log")).unwrap()
    }

    pub fn ctl(&self, arguments: &[&str]) -> Output {
        tandemctl(Path::new(&self.path("control.sock")), arguments)
    }

    pub fn wait_connected(&self) {
        self.wait_state("connected");
    }

    pub fn wait_state(&self, state: &str) {
        wait(&format!("data plane {state}"), || {
            let output = self.ctl(&["--json", "show", "status"]);
            output.status == 0 && output.json()["data_plane"]["state"] == state
        });
    }

    /// Blackhole routes of the fence, as `ip` shows them.
    pub fn fence(&self) -> Vec<String> {
        fence()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(child) = &mut self.control {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "log of tandem-control:\n{}",
                std::fs::read_to_string(self.path("control.log")).unwrap_or_default()
            );
        }
    }
}

pub fn fence() -> Vec<String> {
    let output = Command::new("ip").args(["route", "show", "proto", "201"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().nth(1).unwrap_or_default().to_owned()).collect()
}

pub fn tandemctl(socket: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tandemctl"))
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .output()
        .unwrap();
    Output {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
