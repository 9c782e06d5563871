//! Longest-prefix match over IPv4 addresses: a multibit trie with strides 16, 8, 8.
//!
//! A look-up is one to three dependent loads, without hashing or branching on prefix lengths; a
//! table is built once and then only read.

/// Set in an entry that points to a node of the next level.
const NODE: u32 = 1 << 31;
/// No prefix covers the address.
const NONE: u32 = 0;

/// Maps prefixes to values below 2^31 - 1 by longest match.
#[derive(Clone, Debug)]
pub struct PrefixTable {
    root: Box<[u32]>,
    nodes: Vec<[u32; 256]>,
}

/// A prefix: address in host byte order (host bits are ignored) and length 0..=32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Length in bits.
    pub len: u8,
    /// Network address, host byte order.
    pub addr: u32,
}

impl Prefix {
    /// A prefix with its host bits cleared; a `len` above 32 counts as 32.
    #[must_use]
    pub fn new(addr: u32, len: u8) -> Self {
        let len = len.min(32);
        Self { len, addr: addr & Self::mask_of(len) }
    }

    /// Netmask of a length.
    #[must_use]
    pub fn mask_of(len: u8) -> u32 {
        if len == 0 { 0 } else { u32::MAX << (32 - u32::from(len.min(32))) }
    }

    /// Does `addr` lie within?
    #[must_use]
    pub fn contains(self, addr: u32) -> bool {
        addr & Self::mask_of(self.len) == self.addr
    }
}

impl From<ipnet::Ipv4Net> for Prefix {
    fn from(net: ipnet::Ipv4Net) -> Self {
        Self::new(u32::from(net.network()), net.prefix_len())
    }
}

impl Default for PrefixTable {
    fn default() -> Self {
        Self { root: vec![NONE; 1 << 16].into_boxed_slice(), nodes: Vec::new() }
    }
}

impl PrefixTable {
    /// Builds a table. Of two entries with the same prefix the later wins.
    #[must_use]
    pub fn build(entries: impl IntoIterator<Item = (Prefix, u32)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        // Shorter prefixes first, so that longer ones overwrite what they cover. Stable: the later wins.
        entries.sort_by_key(|(prefix, _)| prefix.len);
        let mut table = Self::default();
        for (prefix, value) in entries {
            debug_assert!(value < NODE - 1);
            table.insert(prefix, value + 1);
        }
        table
    }

    fn insert(&mut self, prefix: Prefix, entry: u32) {
        let Prefix { addr, len } = prefix;
        if len <= 16 {
            let first = (addr >> 16) as usize;
            let count = 1usize << (16 - len);
            self.root[first..first + count].fill(entry);
            return;
        }
        let index = (addr >> 16) as usize;
        let node = Self::descend(&mut self.nodes, &mut self.root[index]);
        if len <= 24 {
            let first = (addr >> 8 & 0xff) as usize;
            self.nodes[node][first..first + (1usize << (24 - len))].fill(entry);
            return;
        }
        let mut slot = self.nodes[node][(addr >> 8 & 0xff) as usize];
        let leaf = Self::descend(&mut self.nodes, &mut slot);
        self.nodes[node][(addr >> 8 & 0xff) as usize] = slot;
        let first = (addr & 0xff) as usize;
        self.nodes[leaf][first..first + (1usize << (32 - len))].fill(entry);
    }

    /// The node below `entry`, made from what the entry held if there was none.
    fn descend(nodes: &mut Vec<[u32; 256]>, entry: &mut u32) -> usize {
        if *entry & NODE == 0 {
            nodes.push([*entry; 256]);
            *entry = NODE | (nodes.len() - 1) as u32;
        }
        (*entry & !NODE) as usize
    }

    /// Value of the longest prefix that covers `addr` (host byte order).
    #[inline]
    #[must_use]
    pub fn lookup(&self, addr: u32) -> Option<u32> {
        let mut entry = self.root[(addr >> 16) as usize];
        if entry & NODE != 0 {
            entry = self.nodes[(entry & !NODE) as usize][(addr >> 8 & 0xff) as usize];
            if entry & NODE != 0 {
                entry = self.nodes[(entry & !NODE) as usize][(addr & 0xff) as usize];
            }
        }
        entry.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(entries: &[(Prefix, u32)], addr: u32) -> Option<u32> {
        let mut best: Option<(u8, u32)> = None;
        for (prefix, value) in entries {
            if prefix.contains(addr) && best.is_none_or(|(len, _)| prefix.len >= len) {
                best = Some((prefix.len, *value));
            }
        }
        best.map(|(_, value)| value)
    }

    proptest! {
        #[test]
        fn a_look_up_agrees_with_a_linear_search(
            // Few distinct bits, so that prefixes nest and collide.
            raw in proptest::collection::vec((any::<u32>(), 0u8..=32, 0u32..1000), 0..60),
            probes in proptest::collection::vec(any::<u32>(), 0..40),
        ) {
            let squeeze = |a: u32| a & 0xc003_0303;
            let entries: Vec<_> = raw.iter().map(|&(a, l, v)| (Prefix::new(squeeze(a), l), v)).collect();
            let table = PrefixTable::build(entries.clone());
            for probe in probes.iter().flat_map(|&p| [p, squeeze(p)]).chain(entries.iter().map(|(p, _)| p.addr)) {
                prop_assert_eq!(table.lookup(probe), model(&entries, probe));
            }
        }
    }

    #[test]
    fn an_empty_table_covers_nothing_and_a_default_route_everything() {
        assert_eq!(PrefixTable::default().lookup(0x0a00_0001), None);
        let table = PrefixTable::build([(Prefix::new(0, 0), 7)]);
        assert_eq!(table.lookup(0), Some(7));
        assert_eq!(table.lookup(u32::MAX), Some(7));
    }
}
