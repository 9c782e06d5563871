//! The object serves users of libbpf, libxdp and bpftool too.

use libbpf_rs::{MapCore as _, MapFlags, MapType, ObjectBuilder, ProgramInput, ProgramType};
use std::ffi::OsStr;
use tandem_ebpf::{OBJECT, SteerCounter};

#[test]
fn libbpf_loads_the_object_and_finds_program_and_maps_by_name() {
    let open = ObjectBuilder::default().open_memory(OBJECT).expect("libbpf reads the object");
    let mut object = open.load().expect("libbpf loads the object (root is needed)");

    let mut maps: Vec<(String, MapType)> =
        object.maps().map(|map| (map.name().to_string_lossy().into_owned(), map.map_type())).collect();
    maps.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("addresses", MapType::Hash),
        ("counters", MapType::PercpuArray),
        ("protected", MapType::LpmTrie),
        ("role", MapType::Array),
        ("settings", MapType::Array),
        ("xsks", MapType::Xskmap),
    ];
    assert_eq!(maps, expected.map(|(name, kind)| (name.to_owned(), kind)));

    // Settings, role and prefix as another program would write them.
    let own_mac = [2, 0, 0, 0, 0, 1];
    for map in object.maps_mut() {
        if map.name() == OsStr::new("settings") {
            let settings = [&[1, 0, 0, 0][..], &own_mac, &[0; 6]].concat();
            map.update(&0_u32.to_ne_bytes(), &settings, MapFlags::ANY).expect("settings");
        } else if map.name() == OsStr::new("role") {
            map.update(&0_u32.to_ne_bytes(), &1_u32.to_ne_bytes(), MapFlags::ANY).expect("the role");
        } else if map.name() == OsStr::new("protected") {
            let key = [&16_u32.to_ne_bytes()[..], &[10, 20, 0, 0]].concat();
            map.update(&key, &[1], MapFlags::ANY).expect("a prefix");
        }
    }

    let program = object.progs_mut().find(|program| program.name() == OsStr::new("steer")).expect("steer");
    assert!(matches!(program.prog_type(), ProgramType::Xdp));
    let protected = crate::frames::ipv4(6, crate::frames::ANYBODY, crate::frames::REMOTE, &[0; 20]);
    let run = |frame: &[u8]| {
        let input = ProgramInput { data_in: Some(frame), ..ProgramInput::default() };
        program.test_run(input).expect("a test run").return_value
    };
    assert_eq!(run(&protected.to(own_mac)), 1, "XDP_DROP: no data plane is there");
    assert_eq!(run(&protected.to([2; 6])), 2, "XDP_PASS: another host's");

    let counters =
        object.maps().find(|map| map.name() == OsStr::new("counters")).expect("the map of the counters");
    let count = |counter: SteerCounter| -> u64 {
        let key = (counter as u32).to_ne_bytes();
        let values = counters.lookup_percpu(&key, MapFlags::ANY).expect("readable").expect("present");
        values.iter().map(|value| u64::from_ne_bytes(value[..8].try_into().expect("8 octets"))).sum()
    };
    assert_eq!((count(SteerCounter::FailClosed), count(SteerCounter::OtherHost)), (1, 1));
}
