//! What the program and the loader share: the Rust mirror of `bpf/consts.h` and `bpf/structs.h`.

use std::mem::{offset_of, size_of};

/// Receive queues of one interface.
pub const MAX_QUEUES: u32 = 256;
/// Protected prefixes that [`set_protected`](crate::SteerProgram::set_protected) takes.
pub const MAX_PROTECTED: usize = 65536;
/// Addresses that [`set_virtual_addresses`](crate::SteerProgram::set_virtual_addresses) takes.
pub const MAX_VIRTUAL_ADDRESSES: usize = 1024;
/// Addresses that [`set_own_addresses`](crate::SteerProgram::set_own_addresses) takes.
pub const MAX_OWN_ADDRESSES: usize = 8192;

pub(crate) const SIDE_INSIDE: u8 = 1;
pub(crate) const SIDE_OUTSIDE: u8 = 2;

/// Values in the map `addresses`.
pub(crate) const ADDRESS_OWN: u8 = 1;
pub(crate) const ADDRESS_VIRTUAL: u8 = 2;

/// `struct steer_settings`. Has no padding, so that every octet is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct RawSettings {
    pub side: u8,
    pub has_virtual_mac: u8,
    pub reserved: [u8; 2],
    pub own_mac: [u8; 6],
    pub virtual_mac: [u8; 6],
}

const _: () = {
    assert!(size_of::<RawSettings>() == 16);
    assert!(offset_of!(RawSettings, side) == 0);
    assert!(offset_of!(RawSettings, has_virtual_mac) == 1);
    assert!(offset_of!(RawSettings, reserved) == 2);
    assert!(offset_of!(RawSettings, own_mac) == 4);
    assert!(offset_of!(RawSettings, virtual_mac) == 10);
    // `struct steer_prefix` is aya's key of an LPM trie over four octets.
    assert!(size_of::<aya::maps::lpm_trie::Key<[u8; 4]>>() == 8);
};

#[cfg(test)]
mod tests {
    use super::*;
    use libbpf_rs::btf::types::{MemberAttr, Struct};
    use libbpf_rs::btf::{Btf, HasSize as _};

    /// Size, then name and offset in octets of each member.
    fn in_btf(btf: &Btf<'_>, name: &str) -> (usize, Vec<(String, usize)>) {
        let found: Struct<'_> = btf.type_by_name(name).expect("the struct is in the BTF of the object");
        let members = found
            .iter()
            .map(|member| {
                let MemberAttr::Normal { offset } = member.attr else { panic!("a bit field in {name}") };
                assert!(offset.is_multiple_of(8));
                (member.name.expect("a name").to_string_lossy().into_owned(), offset as usize / 8)
            })
            .collect();
        (found.size(), members)
    }

    #[test]
    fn structs_are_those_of_the_objects_btf() {
        let btf = Btf::from_path(concat!(env!("OUT_DIR"), "/steer.bpf.o")).expect("the object has BTF");
        let member = |name: &str, offset: usize| (name.to_owned(), offset);
        assert_eq!(
            in_btf(&btf, "steer_settings"),
            (
                size_of::<RawSettings>(),
                vec![
                    member("side", offset_of!(RawSettings, side)),
                    member("has_virtual_mac", offset_of!(RawSettings, has_virtual_mac)),
                    member("reserved", offset_of!(RawSettings, reserved)),
                    member("own_mac", offset_of!(RawSettings, own_mac)),
                    member("virtual_mac", offset_of!(RawSettings, virtual_mac)),
                ]
            )
        );
        assert_eq!(in_btf(&btf, "steer_prefix"), (8, vec![member("length", 0), member("address", 4)]));
    }

    #[test]
    fn constants_are_those_of_the_header() {
        let header = include_str!("bpf/consts.h");
        // Twice what the loader accepts: the new entries are added before the old ones go.
        for (name, ours) in [
            ("STEER_MAX_QUEUES", MAX_QUEUES as usize),
            ("STEER_MAX_PROTECTED", 2 * MAX_PROTECTED),
            ("STEER_MAX_ADDRESSES", 2 * (MAX_VIRTUAL_ADDRESSES + MAX_OWN_ADDRESSES)),
            ("STEER_ADDRESS_OWN", usize::from(ADDRESS_OWN)),
            ("STEER_ADDRESS_VIRTUAL", usize::from(ADDRESS_VIRTUAL)),
            ("STEER_SIDE_UNSET", 0),
            ("STEER_SIDE_INSIDE", usize::from(SIDE_INSIDE)),
            ("STEER_SIDE_OUTSIDE", usize::from(SIDE_OUTSIDE)),
        ] {
            let line = format!("#define {name} {ours}");
            assert!(header.lines().any(|present| present == line), "consts.h has no line \"{line}\"");
        }
    }
}
