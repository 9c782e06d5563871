//! The pinned link: it outlives its owner, is replaced in one step, and goes when it is told to.

use crate::lab::{Lab, in_lab, index, ip, mac};
use crate::live::{Kernel, Stream, configure, configured, send};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tandem_ebpf::{Error, Mode, Settings, Side, SteerProgram, attachment, detach, mount_bpffs};

/// Set for the owner: this program once more, as a process that can be killed.
const OWNER_PIN: &str = "TANDEM_EBPF_TEST_OWNER_PIN";
const READY: &str = "the owner is ready";

/// Attaches the program, with a socket behind it, and waits for its end.
#[allow(clippy::print_stdout)] // the test reads it
fn be_owner(pin: &Path) -> ! {
    let ifindex = index("gw");
    let mut program = SteerProgram::load().expect("loaded");
    configure(&mut program, mac("gw"), true);
    let (_umem, port, _free) = crate::setup::socket(ifindex, 0);
    program.set_socket(0, port.fd()).expect("a socket");
    program.attach(ifindex, Mode::Native, pin).expect("attached");
    println!("{READY}");
    loop {
        std::thread::park();
    }
}

/// The owner's process; killed at the latest with this value.
struct Owner(Child);

impl Owner {
    /// In the namespaces of the calling thread.
    fn start(pin: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "pin::a_killed_owner_leaves_the_program_failing_closed", "--nocapture"])
            .env(OWNER_PIN, pin)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the owner starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains(READY));
        let owner = Self(child);
        assert!(ready, "the owner ended before it was ready");
        owner
    }

    fn kill(mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL).expect("killed");
        self.0.wait().expect("ended");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn attach(lab: &Lab, pin: &Path) -> Result<tandem_ebpf::Attachment, Error> {
    configured(lab, true).attach(lab.ifindex, Mode::Native, pin)
}

/// Identifier of the XDP program on the interface, as `ip` tells it.
fn program_on(name: &str) -> Option<u32> {
    let output = Command::new("ip").args(["-o", "link", "show", "dev", name]).output().expect("ip starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let (_, rest) = text.split_once("prog/xdp id ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_killed_owner_leaves_the_program_failing_closed() {
    if let Some(pin) = std::env::var_os(OWNER_PIN) {
        be_owner(Path::new(&pin));
    }
    in_lab(|lab| {
        let pin = lab.pin("gw");
        let kernel = Kernel::listen();
        let owner = Owner::start(&pin);
        let before = attachment(&pin).expect("readable").expect("pinned");
        assert_eq!(before.ifindex, lab.ifindex);
        send(lab, 5);
        kernel.assert_arrived(0, 5, "with an owner");

        let stream = Stream::start(lab);
        owner.kill();
        assert_eq!(attachment(&pin).expect("readable"), Some(before));
        assert_eq!(program_on("gw"), Some(before.program_id));
        std::thread::sleep(std::time::Duration::from_millis(200));

        // The next start, while traffic goes on.
        let after = attach(lab, &pin).expect("attached");
        assert_eq!(after.replaced, Some(before.program_id));
        assert_ne!(after.program_id, before.program_id);
        assert_eq!(after.link_id, before.link_id);
        assert_eq!(program_on("gw"), Some(after.program_id));
        std::thread::sleep(std::time::Duration::from_millis(100));
        let sent = stream.stop();
        assert!(sent > 50, "{sent} frames prove nothing");
        kernel.assert_arrived(0, sent, "while the owner was killed and replaced");
    });
}

#[test]
fn each_start_replaces_the_program_and_nothing_slips_through() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        let kernel = Kernel::listen();
        let first = attach(lab, &pin).expect("attached");
        assert_eq!(first.replaced, None);
        let stream = Stream::start(lab);
        let mut last = first;
        for _ in 0..20 {
            let next = attach(lab, &pin).expect("replaced");
            assert_eq!((next.link_id, next.replaced), (first.link_id, Some(last.program_id)));
            last = next;
        }
        let sent = stream.stop();
        assert!(sent > 50, "{sent} frames prove nothing");
        kernel.assert_arrived(0, sent, "while the program was replaced");
    });
}

#[test]
fn detaching_lets_everything_through_again_even_while_the_owner_lives() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        let kernel = Kernel::listen();
        assert!(!detach(&pin).expect("nothing to do"));
        let mut program = configured(lab, true);
        program.attach(lab.ifindex, Mode::Native, &pin).expect("attached");
        send(lab, 5);
        kernel.assert_arrived(0, 5, "attached");
        assert!(detach(&pin).expect("detached"));
        assert_eq!(program_on("gw"), None);
        assert_eq!(attachment(&pin).expect("readable"), None);
        send(lab, 5);
        kernel.assert_arrived(5, 5, "detached");
        assert!(!detach(&pin).expect("nothing left"));
        // And on again, with the same program.
        program.attach(lab.ifindex, Mode::Native, &pin).expect("attached");
        send(lab, 5);
        kernel.assert_arrived(0, 5, "attached again");
    });
}

#[test]
fn the_pin_of_an_interface_that_is_gone_is_used_for_the_next_one() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        let first = attach(lab, &pin).expect("attached");
        let index = lab.ifindex;
        lab.replace_interfaces();
        assert_ne!(lab.ifindex, index);
        let stale = attachment(&pin).expect("readable").expect("still pinned");
        assert_eq!((stale.link_id, stale.ifindex), (first.link_id, 0));
        let second = attach(lab, &pin).expect("attached");
        assert_ne!(second.link_id, first.link_id);
        assert_eq!((second.ifindex, second.replaced), (lab.ifindex, None));
        assert_eq!(program_on("gw"), Some(second.program_id));
        // A stale pin can be detached too.
        lab.replace_interfaces();
        assert!(detach(&pin).expect("detached"));
        assert_eq!(attachment(&pin).expect("readable"), None);
    });
}

#[test]
fn the_pin_of_another_interface_is_left_alone() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        let present = attach(lab, &pin).expect("attached");
        ip("link add other type veth peer name other2");
        let mut program = SteerProgram::load().expect("loaded");
        configure(&mut program, mac("other"), true);
        let other = index("other");
        match program.attach(other, Mode::Native, &pin) {
            Err(Error::PinOfOther { present, asked, .. }) => {
                assert_eq!((present, asked), (lab.ifindex, other))
            }
            unexpected => panic!("{unexpected:?}"),
        }
        assert_eq!(attachment(&pin).expect("readable"), Some(present));
    });
}

#[test]
fn another_program_on_the_interface_is_named_and_left_alone() {
    in_lab(|lab| {
        let present = attach(lab, &lab.pin("somebody-else")).expect("attached");
        for mode in [Mode::Native, Mode::Generic] {
            match configured(lab, true).attach(lab.ifindex, mode, &lab.pin("gw")) {
                Err(error @ Error::Occupied { program_id, .. }) => {
                    assert_eq!(program_id, present.program_id);
                    assert!(error.to_string().contains(&format!("id {program_id}")), "{error}");
                }
                unexpected => panic!("{unexpected:?}"),
            }
        }
        assert_eq!(program_on("gw"), Some(present.program_id));
        assert_eq!(attachment(&lab.pin("gw")).expect("readable"), None);
    });
}

#[test]
fn a_change_of_mode_is_refused_until_the_program_is_detached() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        attach(lab, &pin).expect("attached");
        let mut program = configured(lab, true);
        let refused = program.attach(lab.ifindex, Mode::Generic, &pin);
        assert!(matches!(refused, Err(Error::ModeDiffers { .. })), "{refused:?}");
        detach(&pin).expect("detached");
        program.attach(lab.ifindex, Mode::Generic, &pin).expect("attached");
        let refused = attach(lab, &pin);
        assert!(matches!(refused, Err(Error::ModeDiffers { .. })), "{refused:?}");
        let again = configured(lab, true).attach(lab.ifindex, Mode::Generic, &pin).expect("replaced");
        assert!(again.replaced.is_some());
    });
}

#[test]
fn nothing_is_attached_before_the_settings_are_there_and_right() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        let mut program = SteerProgram::load().expect("loaded");
        let refused = program.attach(lab.ifindex, Mode::Native, &pin);
        assert!(matches!(refused, Err(Error::NotConfigured)), "{refused:?}");
        configure(&mut program, lab.peer_mac, true);
        let refused = program.attach(lab.ifindex, Mode::Native, &pin);
        assert!(matches!(refused, Err(Error::WrongMac { .. })), "{refused:?}");
        assert_eq!(program_on("gw"), None);
    });
}

#[test]
fn errors_say_what_is_wrong_with_the_interface_or_the_pin() {
    in_lab(|lab| {
        let mut program = configured(lab, true);
        let refused = program.attach(999_999, Mode::Native, &lab.pin("gw"));
        assert!(matches!(refused, Err(Error::Interface { ifindex: 999_999, .. })), "{refused:?}");

        let elsewhere = tempfile::tempdir().expect("a folder");
        let refused = program.attach(lab.ifindex, Mode::Native, &elsewhere.path().join("gw"));
        assert!(matches!(refused, Err(Error::Pin { .. })), "{refused:?}");
        assert_eq!(program_on("gw"), None, "what cannot be pinned does not stay");

        // The loopback interface has no native XDP, and an address of zeros.
        let settings = Settings { side: Side::Inside, own_mac: [0; 6], virtual_mac: None };
        program.set_settings(&settings).expect("settings");
        match program.attach(index("lo"), Mode::Native, &lab.pin("lo")) {
            Err(error @ Error::Attach { .. }) => assert!(error.to_string().contains("generic"), "{error}"),
            unexpected => panic!("{unexpected:?}"),
        }
    });
}

#[test]
fn what_is_pinned_but_no_link_is_left_alone() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        let open = libbpf_rs::ObjectBuilder::default().open_memory(tandem_ebpf::OBJECT).expect("read");
        let object = open.load().expect("loaded");
        object.progs_mut().next().expect("a program").pin(&pin).expect("pinned");
        for result in [attach(lab, &pin).map(drop), detach(&pin).map(drop), attachment(&pin).map(drop)] {
            assert!(matches!(result, Err(Error::NotALink(_))), "{result:?}");
        }
        assert!(pin.exists());
        assert_eq!(program_on("gw"), None);
    });
}

#[test]
fn mounting_twice_keeps_the_pins_of_the_first_mount() {
    in_lab(|lab| {
        let pin = lab.pin("gw");
        attach(lab, &pin).expect("attached");
        assert!(!mount_bpffs(pin.parent().expect("a folder")).expect("mounted already"));
        assert!(attachment(&pin).expect("readable").is_some());
        let deeper = lab.elsewhere();
        let folder = deeper.path().join("made/on/the/way");
        assert!(mount_bpffs(&folder).expect("mounted"));
        assert!(!mount_bpffs(&folder).expect("mounted already"));
        nix::mount::umount(&folder).expect("unmounted");
        let file = deeper.path().join("file");
        std::fs::write(&file, "no folder").expect("written");
        assert!(matches!(mount_bpffs(&file), Err(Error::Mount { .. })));
    });
}

/// Guards the others: without a program both kinds of traffic arrive.
#[test]
fn without_a_program_the_kernel_takes_everything() {
    in_lab(|lab| {
        let kernel = Kernel::listen();
        send(lab, 5);
        kernel.assert_arrived(5, 5, "without a program");
    });
}
