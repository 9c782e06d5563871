//! `tandem-control` before a data plane: reconciliation, terms, fence, reload, operators.

use crate::site::{Site, in_namespace, tandemctl, wait};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tandem_api::dataplane::{HotStateOrigin, PolicyAction};
use tandem_api::types::Role;

#[test]
fn a_fresh_data_plane_gets_fence_term_configuration_and_sas_in_that_order() {
    in_namespace(|| {
        let site = Site::running(3);
        let books = site.data_plane.books();
        assert_eq!(books.said[..5], ["Hello", "ListSas", "SetPair", "SetRole", "Configure"]);
        assert_eq!(books.pair.as_ref().unwrap().partner, None);
        assert_eq!((books.role, books.term), (Role::Active, 2));
        assert_eq!(books.sas.len(), 6);
        assert_eq!(books.config.as_ref().unwrap().policies.len(), 3);
        assert_eq!(books.fence_at_configure, ["10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24"]);
    });
}

#[test]
fn a_killed_control_process_comes_back_without_touching_a_working_sa() {
    in_namespace(|| {
        let mut site = Site::running(300);
        let made = site.data_plane.books().made;
        assert_eq!(made, 600);
        site.kill_control();
        assert_eq!(site.fence().len(), 300, "the fence stays");
        site.start_control();
        site.wait_connected();
        let books = site.data_plane.books();
        assert_eq!(books.made, made, "an SA was made anew");
        assert_eq!(books.sas.len(), 600);
        assert_eq!(books.term, 2, "the term of the hot state is kept");
        assert_eq!(books.said.iter().filter(|what| **what == "SetRole").count(), 1);
    });
}

#[test]
fn a_broken_connection_is_made_again_and_changes_nothing() {
    in_namespace(|| {
        let site = Site::running(2);
        for round in 2..5 {
            site.data_plane.hang_up();
            wait("connected again", || {
                let status = site.ctl(&["--json", "show", "status"]).json();
                status["data_plane"]["state"] == "connected" && status["data_plane"]["connections"] == round
            });
        }
        let books = site.data_plane.books();
        assert_eq!((books.made, books.term), (4, 2));
    });
}

#[test]
fn the_hot_state_is_handed_to_the_next_data_plane_and_its_term_goes_on() {
    in_namespace(|| {
        let site = Site::running(2);
        site.data_plane.restart();
        wait("adopted", || site.data_plane.books().role == Role::Active);
        site.wait_connected();
        let books = site.data_plane.books();
        assert!(books.was_handed);
        assert_eq!(books.origin, HotStateOrigin::Adopted);
        assert_eq!(books.term, 2, "the term of the hot state goes on");
        assert_eq!(books.sas.len(), 4);
    });
}

#[test]
fn when_both_are_gone_the_next_start_takes_a_new_term() {
    in_namespace(|| {
        let mut site = Site::running(1);
        for term in [4, 6] {
            site.kill_control();
            site.data_plane.restart();
            site.start_control();
            site.wait_connected();
            assert_eq!(site.data_plane.books().term, term);
            assert_eq!(site.data_plane.books().origin, HotStateOrigin::Fresh);
        }
    });
}

#[test]
fn a_term_that_the_file_does_not_know_is_never_given_out_later() {
    in_namespace(|| {
        let mut site = Site::new(1);
        // An old copy of the term file was restored while the data plane went on.
        site.data_plane.books().term = 100;
        site.start_control();
        site.wait_connected();
        assert_eq!(site.data_plane.books().term, 100);
        let status = site.ctl(&["--json", "show", "status"]).json();
        assert!(status["terms"]["taken"].as_u64() >= Some(100), "{status}");
        site.kill_control();
        site.data_plane.restart();
        site.start_control();
        site.wait_connected();
        assert_eq!(site.data_plane.books().term, 102);
    });
}

#[test]
fn a_reload_applies_what_changed_and_keeps_policy_numbers() {
    in_namespace(|| {
        let mut site = Site::running(2);
        let number = |site: &Site, name: &str| {
            let books = site.data_plane.books();
            let policy = books.config.as_ref().unwrap().policies.iter().find(|p| p.name == name).cloned();
            match policy.map(|policy| policy.action) {
                Some(PolicyAction::Protect { policy }) => policy,
                other => panic!("{other:?}"),
            }
        };
        let before = number(&site, "m1");
        site.configure(&["m7", "m8", "m1"]);
        let done = site.ctl(&["--json", "config", "reload"]);
        assert_eq!(done.status, 0, "{}", done.stderr);
        let done = done.json();
        assert_eq!(
            (&done["sas_new"], &done["sas_unchanged"], &done["sas_removed"]),
            (&4.into(), &2.into(), &2.into())
        );
        assert_eq!(number(&site, "m1"), before);
        assert_eq!(site.fence(), ["10.2.1.0/24", "10.2.7.0/24", "10.2.8.0/24"]);
        // The same by signal.
        site.configure(&["m1"]);
        site.signal(Signal::SIGHUP);
        wait("reloaded", || site.data_plane.books().sas.len() == 2);
        wait("fence", || site.fence() == ["10.2.1.0/24"]);
        // And over a restart of the control process.
        site.kill_control();
        site.configure(&["m4", "m5", "m6", "m1"]);
        site.start_control();
        site.wait_connected();
        assert_eq!(number(&site, "m1"), before);
    });
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_why() {
    in_namespace(|| {
        let site = Site::running(1);
        // What operators ask is passed on.
        let told = || site.data_plane.books().said.iter().filter(|word| **word != "Status").count();
        let said = told();
        let good = std::fs::read_to_string(site.config_file()).unwrap();
        std::fs::write(site.config_file(), good.replace("spi = 4096", "spi = 4")).unwrap();
        let refused = site.ctl(&["config", "reload"]);
        assert_eq!(refused.status, 1);
        assert!(refused.stderr.contains("choose a number from 256"), "{}", refused.stderr);
        site.signal(Signal::SIGHUP);
        wait("logged", || site.log().contains("configuration not applied"));
        let status = site.ctl(&["show", "status"]).stdout;
        assert!(status.contains("ago: FAILED, nothing has changed: "), "{status}");
        assert_eq!(site.ctl(&["--json", "show", "status"]).json()["last_reload"]["ok"], false);
        let workers = good.replace("[dataplane]\n", "[dataplane]\nworkers = 2\n");
        std::fs::write(site.config_file(), workers).unwrap();
        let refused = site.ctl(&["config", "reload"]);
        assert_eq!(refused.status, 1);
        assert!(refused.stderr.contains("dataplane.workers"), "{}", refused.stderr);
        assert_eq!(told(), said, "the data plane was told something");
        std::fs::write(site.config_file(), good).unwrap();
        assert_eq!(site.ctl(&["config", "reload"]).status, 0);
        assert_eq!(site.ctl(&["--json", "show", "status"]).json()["last_reload"]["ok"], true);
    });
}

#[test]
fn what_the_data_plane_refuses_is_taken_back_whole() {
    in_namespace(|| {
        let site = Site::running(2);
        let before: Vec<_> = site.data_plane.books().sas.keys().copied().collect();
        site.configure(&["m1", "m2", "m3"]);
        for refusal in ["policies", "spi"] {
            match refusal {
                "policies" => site.data_plane.books().most_policies = 2,
                _ => {
                    let mut books = site.data_plane.books();
                    books.most_policies = usize::MAX;
                    books.refused_spi = Some(0x2003);
                }
            }
            let refused = site.ctl(&["config", "reload"]);
            assert_eq!(refused.status, 1, "{}", refused.stdout);
            assert!(refused.stderr.contains("nothing has changed"), "{}", refused.stderr);
            let books = site.data_plane.books();
            assert_eq!(books.sas.keys().copied().collect::<Vec<_>>(), before, "{refusal}");
            assert_eq!(books.config.as_ref().unwrap().policies.len(), 2);
            drop(books);
            assert_eq!(site.fence(), ["10.2.0.0/24", "10.2.1.0/24"]);
        }
        assert_eq!(site.data_plane.books().made, 4, "a working SA was made anew");
        site.data_plane.books().refused_spi = None;
        assert_eq!(site.ctl(&["config", "reload"]).status, 0);
    });
}

#[test]
fn a_data_plane_that_hangs_or_is_gone_never_blocks_an_operator() {
    in_namespace(|| {
        let site = Site::running(1);
        site.data_plane.books().silent = true;
        let start = Instant::now();
        let refused = site.ctl(&["show", "counters"]);
        assert_eq!(refused.status, 1);
        assert!(refused.stderr.contains("did not answer within 2 s"), "{}", refused.stderr);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        // While it tries to greet the silent one, status answers at once.
        let start = Instant::now();
        let status = site.ctl(&["show", "status"]);
        assert_eq!(status.status, 0);
        assert!(status.stdout.contains("not reachable since"), "{}", status.stdout);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        site.data_plane.books().silent = false;
        site.wait_connected();
        assert_eq!(site.data_plane.books().made, 2);

        site.data_plane.vanish();
        site.wait_state("unreachable");
        let refused = site.ctl(&["show", "interfaces"]);
        assert_eq!(refused.status, 1);
        assert!(refused.stderr.contains("data plane not reachable since"), "{}", refused.stderr);
        let policy = site.ctl(&["show", "policy"]);
        assert!(policy.stdout.starts_with("not in force"), "{}", policy.stdout);
        std::thread::sleep(Duration::from_millis(500));
        let warnings = site.log().matches("No such file or directory").count();
        assert_eq!(warnings, 1, "one line a state change: {}", site.log());
    });
}

#[test]
fn detach_removes_the_fence_and_a_reload_attaches_again() {
    in_namespace(|| {
        let site = Site::running(2);
        let done = site.ctl(&["--json", "detach"]);
        assert_eq!((done.status, &done.json()["routes_removed"]), (0, &2.into()));
        assert_eq!(site.fence(), Vec::<String>::new());
        site.wait_state("detached");
        site.data_plane.restart();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(site.data_plane.books().said.last(), Some(&"Detach"), "it stays away");
        let refused = site.ctl(&["show", "crypto", "ipsec", "sa"]);
        assert!(refused.stderr.contains("config reload"), "{}", refused.stderr);
        assert_eq!(site.ctl(&["config", "reload"]).status, 0);
        site.wait_connected();
        assert_eq!(site.fence().len(), 2);
        assert_eq!(site.data_plane.books().term, 2, "numbers go on");
    });
}

#[test]
fn it_ends_on_sigterm_and_leaves_data_plane_and_fence_alone() {
    in_namespace(|| {
        let mut site = Site::running(1);
        let said = site.data_plane.books().said.len();
        site.signal(Signal::SIGTERM);
        wait("ended", || !Path::new(&site.path("control.sock")).exists());
        assert_eq!(site.fence().len(), 1);
        assert_eq!(site.data_plane.books().said.len(), said);
        site.kill_control();
    });
}

#[test]
fn after_the_start_only_net_admin_is_left_and_memory_is_no_ones() {
    in_namespace(|| {
        let site = Site::running(1);
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.control_pid())).unwrap();
        for set in ["CapEff", "CapPrm"] {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            assert!(line.ends_with("0000000000001000"), "{line}");
        }
        assert!(status.lines().any(|line| line == "CapInh:\t0000000000000000"), "{status}");
    });
}

#[test]
fn the_socket_is_for_owner_and_group_a_stale_one_is_replaced_and_a_live_one_is_not() {
    in_namespace(|| {
        let mut site = Site::running(1);
        let path = site.path("control.sock");
        let metadata = std::fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);

        let second = Command::new(env!("CARGO_BIN_EXE_tandem-control"))
            .arg("--config")
            .arg(site.config_file())
            .output();
        let second = second.unwrap();
        assert_eq!(second.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another tandem-control"));

        site.kill_control();
        assert!(Path::new(&path).exists(), "a killed process leaves its socket");
        site.start_control();
        site.wait_connected();

        site.kill_control();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        site.start_control();
        wait("refused", || site.log().contains("something that is no socket is there"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    });
}

#[test]
fn the_socket_belongs_to_the_configured_group() {
    in_namespace(|| {
        let mut site = Site::new(1);
        let text = std::fs::read_to_string(site.config_file()).unwrap();
        let with = |group: &str| text.replace("[node]\n", &format!("[node]\ncontrol-group = \"{group}\"\n"));
        std::fs::write(site.config_file(), with("no-such-group")).unwrap();
        site.start_control();
        wait("refused", || site.log().contains("there is no group no-such-group: `groupadd"));
        site.kill_control();
        let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(1)).unwrap().unwrap();
        std::fs::write(site.config_file(), with(&group.name)).unwrap();
        site.start_control();
        site.wait_connected();
        let metadata = std::fs::metadata(site.path("control.sock")).unwrap();
        assert_eq!((metadata.gid(), metadata.permissions().mode() & 0o777), (1, 0o660));
    });
}

#[test]
fn a_log_never_holds_a_key() {
    in_namespace(|| {
        let site = Site::running(1);
        let text = std::fs::read_to_string(site.config_file()).unwrap();
        std::fs::write(site.config_file(), text.replace("key = \"ff", "key = \"gg")).unwrap();
        let refused = site.ctl(&["config", "reload"]);
        assert!(refused.stderr.contains("the key is not hexadecimal"), "{}", refused.stderr);
        let key = "0".repeat(30);
        for text in [site.log(), refused.stderr, refused.stdout] {
            assert!(!text.contains(&key), "{text}");
        }
    });
}

#[test]
fn it_does_not_start_with_a_wrong_configuration_or_without_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tandem.toml");
    let control = |file: &Path| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tandem-control")).arg("--config").arg(file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, text) = control(&file);
    assert_eq!(status, Some(2));
    assert!(text.contains("--config"), "{text}");
    std::fs::write(&file, "[node]\nname = \"gw a\"\n").unwrap();
    let (status, text) = control(&file);
    assert_eq!(status, Some(2));
    assert!(text.contains("tandem.toml:2:8"), "{text}");
    in_namespace(|| {
        let site = Site::new(1);
        std::fs::remove_dir_all(site.path("state")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tandem-control"))
            .arg("--config")
            .arg(site.config_file())
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("tandemctl node init"));
    });
}

fn lines(stream: &UnixStream, count: usize) -> Vec<serde_json::Value> {
    let lines = BufReader::new(stream).lines().take(count);
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

#[test]
fn hostile_input_costs_its_own_connection_at_most() {
    in_namespace(|| {
        let site = Site::running(1);
        let connect = || UnixStream::connect(site.path("control.sock")).unwrap();

        let mut stream = connect();
        stream.write_all(b"\n\xff\xfe\n[1,2]\n{\"id\":9,\"method\":\"show.x\"}\n{\"id\":10,\"method\":\"show.status\"}\n").unwrap();
        let answers = lines(&stream, 4);
        let codes: Vec<_> = answers.iter().map(|a| a["error"]["code"].as_str()).collect();
        assert_eq!(codes, [Some("bad_question"), Some("bad_question"), Some("unknown_method"), None]);
        assert_eq!(answers[3]["id"], 10);
        assert_eq!(answers[3]["result"]["node"], "gw-a");

        // Deep nesting and a line without end.
        let mut stream = connect();
        stream.write_all(&[b"[".repeat(60_000), b"\n".to_vec()].concat()).unwrap();
        assert_eq!(lines(&stream, 1)[0]["error"]["code"], "bad_question");
        let mut stream = connect();
        let flood = vec![b'x'; 1 << 20];
        let _ = stream.write_all(&flood);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // The answer may be lost with what was not read; what counts is the end of the connection.
        if !answer.is_empty() {
            assert!(String::from_utf8_lossy(&answer).contains("too_long"));
        }

        // Half a line and away, many times over.
        for _ in 0..200 {
            connect().write_all(b"{\"id\":1,\"meth").unwrap();
        }
        assert_eq!(site.ctl(&["show", "status"]).status, 0);
    });
}

#[test]
fn a_daemon_that_is_not_there_has_exit_status_3() {
    let folder = tempfile::tempdir().unwrap();
    let output = tandemctl(&folder.path().join("control.sock"), &["show", "status"]);
    assert_eq!(output.status, 3);
    assert!(output.stderr.contains("start tandem-control"), "{}", output.stderr);
    assert_eq!(tandemctl(folder.path(), &["show", "nothing"]).status, 2);
}
