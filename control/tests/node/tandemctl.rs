//! What `tandemctl` prints, end to end.

use crate::site::{Site, in_namespace, tandemctl};
use std::path::Path;
use tandem_api::counters::DropReason;

#[test]
fn every_show_command_has_a_table_and_json() {
    in_namespace(|| {
        let site = Site::running(2);
        let shown = |arguments: &[&str]| {
            let output = site.ctl(arguments);
            assert_eq!(output.status, 0, "{arguments:?}: {}", output.stderr);
            output
        };
        let sas = shown(&["sh", "cry", "ips", "sa"]).stdout;
        assert!(sas.contains("m1          198.51.100.2  outbound   0x00002001  aes128gcm16"), "{sas}");
        let sas = shown(&["show", "crypto", "ipsec", "sa", "detail"]).stdout;
        assert!(sas.contains("   remote ident (addr/mask): (10.2.1.0/255.255.255.0)"), "{sas}");
        let sas = shown(&["--json", "show", "crypto", "ipsec", "sa"]).json();
        let sa = &sas["maps"][1]["inbound"][0];
        assert_eq!((&sa["spi"], &sa["packets"]), (&0x1001.into(), &3.into()));
        assert_eq!(sa["terms"]["left_hard"], 65534);
        assert_eq!(sas["maps"][1]["interface"], "out0");

        let interfaces = shown(&["show", "interfaces", "--interval", "0.1"]).stdout;
        assert!(interfaces.contains("driver veth, XDP native, copy, 1 queues, MTU 1500"), "{interfaces}");
        assert!(interfaces.contains("rates over 0.1 s: received 0 frames/s"), "{interfaces}");
        let interfaces = shown(&["--json", "show", "interfaces", "--interval", "0"]).json();
        assert_eq!(interfaces["interfaces"][0]["steering"]["esp"], 7);

        let counters = shown(&["show", "counters"]).stdout;
        assert!(counters.contains(DropReason::EspNoSa.text()), "{counters}");
        assert!(counters.contains("= forwarded 0 + slow path 0 + dropped 7"), "{counters}");
        let counters = shown(&["--json", "show", "counters"]).json();
        assert_eq!(counters["drops"]["esp_no_sa"], 7);
        assert_eq!(counters["counters"]["received"], 7);
        assert_eq!(counters["slow"]["slow_answered"], 0);
        assert_eq!(counters["slow_drops"]["esp_no_sa"], 0);

        let policy = shown(&["show", "policy"]).stdout;
        assert!(
            policy.contains("     100  m0    10.1.0.0/24  10.2.0.0/24  protect  198.51.100.2"),
            "{policy}"
        );
        assert_eq!(shown(&["--json", "show", "policy"]).json()["in_force"], true);

        let status = shown(&["show", "status"]).stdout;
        assert!(status.contains("active, term 2"), "{status}");
        assert!(status.contains("2 blackhole routes in place"), "{status}");
        assert_eq!(shown(&["--json", "show", "status"]).json()["role"], "active");
    });
}

#[test]
fn config_check_needs_no_daemon() {
    let site = Site::new(2);
    let file = site.config_file();
    let file = file.to_str().unwrap();
    let good = site.ctl(&["config", "check", file]);
    assert_eq!((good.status, good.stderr.as_str()), (0, ""));
    assert!(good.stdout.contains("no errors (2 interfaces, 2 policies, 4 SAs)"), "{}", good.stdout);
    let text = std::fs::read_to_string(file).unwrap().replace("peer = ", "pear = ");
    std::fs::write(file, text).unwrap();
    let wrong = site.ctl(&["config", "check", file]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.stderr.contains("did you mean `peer`?"), "{}", wrong.stderr);
    let wrong = site.ctl(&["--json", "config", "check", file]).json();
    assert_eq!(wrong["valid"], false);
    assert_eq!(wrong["errors"].as_array().unwrap().len(), 4);
}

#[test]
fn node_init_prints_the_public_key_and_refuses_to_run_twice() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let init = || {
        tandemctl(
            Path::new("/nonexistent"),
            &["--json", "node", "init", "--state-directory", state.to_str().unwrap()],
        )
    };
    let first = init();
    assert_eq!(first.status, 0, "{}", first.stderr);
    assert_eq!(first.json()["public_key"].as_str().unwrap().len(), 64);
    let second = init();
    assert_eq!(second.status, 1);
    assert!(second.stderr.contains("exists already"), "{}", second.stderr);
    assert_eq!(second.json()["error"]["code"], "refused");
}

#[test]
fn the_published_schemas_are_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/operator.json");
    let published = std::fs::read_to_string(&file).unwrap();
    let now = tandemctl(Path::new("/nonexistent"), &["schema"]).stdout;
    assert!(published == now, "run `tandemctl schema > docs/schema/operator.json`");
}
