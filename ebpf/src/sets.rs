//! The sets that the program asks: prefixes and addresses. Each is made equal to what it should be by adding first and
//! removing after, so that what the old and the new set have in common is in the map at all times.

use crate::layout::{ADDRESS_OWN, ADDRESS_VIRTUAL, MAX_OWN_ADDRESSES, MAX_PROTECTED, MAX_VIRTUAL_ADDRESSES};
use crate::{Error, Prefix};
use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use std::collections::{HashMap as Table, HashSet};
use std::net::Ipv4Addr;

/// Value of a prefix, which has no meaning.
const PRESENT: u8 = 1;

/// The map `protected`.
pub(crate) struct Protected(LpmTrie<MapData, [u8; 4], u8>);

impl Protected {
    const MAP: &str = "protected";

    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        take(ebpf, Self::MAP).map(Self)
    }

    pub(crate) fn set(&mut self, prefixes: &[Prefix]) -> Result<(), Error> {
        let wanted: HashSet<(u32, [u8; 4])> =
            prefixes.iter().map(|prefix| (u32::from(prefix.length()), prefix.address().octets())).collect();
        check_room("protected prefixes", wanted.len(), MAX_PROTECTED)?;
        let present: HashSet<(u32, [u8; 4])> = self
            .0
            .keys()
            .map(|key| key.map(|key| (key.prefix_len(), key.data())))
            .collect::<Result<_, _>>()
            .map_err(map_error(Self::MAP, "read"))?;
        for (length, address) in wanted.difference(&present) {
            self.0
                .insert(&Key::new(*length, *address), PRESENT, 0)
                .map_err(map_error(Self::MAP, "written"))?;
        }
        for (length, address) in present.difference(&wanted) {
            gone(self.0.remove(&Key::new(*length, *address))).map_err(map_error(Self::MAP, "written"))?;
        }
        Ok(())
    }
}

/// The map `addresses`.
pub(crate) struct Addresses {
    map: HashMap<MapData, [u8; 4], u8>,
    own: HashSet<[u8; 4]>,
    virtuals: HashSet<[u8; 4]>,
}

impl Addresses {
    const MAP: &str = "addresses";

    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { map: take(ebpf, Self::MAP)?, own: HashSet::new(), virtuals: HashSet::new() })
    }

    pub(crate) fn set_own(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        self.own = bounded("own addresses", addresses, MAX_OWN_ADDRESSES)?;
        self.reconcile()
    }

    pub(crate) fn set_virtual(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        self.virtuals = bounded("virtual addresses", addresses, MAX_VIRTUAL_ADDRESSES)?;
        self.reconcile()
    }

    fn reconcile(&mut self) -> Result<(), Error> {
        let virtuals = self.virtuals.iter().map(|address| (*address, ADDRESS_VIRTUAL));
        // An address that is both is the kernel's: nothing may cut the gateway off from itself.
        let own = self.own.iter().map(|address| (*address, ADDRESS_OWN));
        let wanted: Table<[u8; 4], u8> = virtuals.chain(own).collect();
        let present: Table<[u8; 4], u8> =
            self.map.iter().collect::<Result<_, _>>().map_err(map_error(Self::MAP, "read"))?;
        for (address, kind) in &wanted {
            if present.get(address) != Some(kind) {
                self.map.insert(address, kind, 0).map_err(map_error(Self::MAP, "written"))?;
            }
        }
        for address in present.keys().filter(|address| !wanted.contains_key(*address)) {
            gone(self.map.remove(address)).map_err(map_error(Self::MAP, "written"))?;
        }
        Ok(())
    }
}

/// Takes a map out of a loaded object.
pub(crate) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Missing(name))?;
    M::try_from(map).map_err(map_error(name, "recognized"))
}

pub(crate) fn map_error(map: &'static str, operation: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { map, operation, source: Box::new(source) }
}

/// What is not there need not be removed.
pub(crate) fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn bounded(what: &'static str, addresses: &[Ipv4Addr], limit: usize) -> Result<HashSet<[u8; 4]>, Error> {
    let set: HashSet<[u8; 4]> = addresses.iter().map(|address| address.octets()).collect();
    check_room(what, set.len(), limit)?;
    Ok(set)
}

fn check_room(what: &'static str, count: usize, limit: usize) -> Result<(), Error> {
    if count > limit { Err(Error::TooMany { what, count, limit }) } else { Ok(()) }
}
