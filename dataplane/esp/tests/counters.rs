//! Sequence numbers and IVs over real hot state: never one twice, never one past its end.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use proptest::prelude::*;
use tandem_aead::{Algorithm, provider};
use tandem_esp::iv::{self, BLOCK, COUNTER_END, DEAD_TERMS, SOFT_TERMS, term_difference};
use tandem_esp::sequence::{self, Exhausted, LAST, take, taken};
use tandem_esp::{Iv, IvSource, SaOut, SaOutConfig, TermError};
use tandem_shm::HotState;

fn hot() -> HotState {
    let hot = HotState::create(1).expect("a memfd");
    let out = hot.outbound(0).expect("slot 0");
    out.lease_end.store(u64::MAX, Relaxed);
    out.limit.store(u64::MAX, Relaxed);
    hot
}

/// The IVs of term difference 0, from a hot state of their own.
struct Expected(HotState);

impl Expected {
    fn of(&self, counter: u64) -> Iv {
        self.0.header().node_counter.store(counter, Relaxed);
        IvSource::new().next(self.0.header(), 0).expect("within the counter")
    }
}

/// The IV as it goes onto the wire.
fn wire(iv: Iv) -> u64 {
    let provider = provider("aes-gcm").expect("listed");
    let key = provider.key(Algorithm::Aes128Gcm, &[0; 16]);
    let sa = SaOut::new(SaOutConfig {
        spi: 0x1001,
        slot: 0,
        policy: 0,
        local: [192, 0, 2, 1].into(),
        peer: [192, 0, 2, 2].into(),
        salt: [0; 4],
        base_term: 0,
        key: key.expect("16 octets"),
    });
    let mut buf = vec![0; SaOut::outer_len(20)];
    buf[SaOut::FRONT] = 0x45;
    buf[SaOut::FRONT + 3] = 20;
    sa.prepare(&mut buf, 1, iv).expect("a packet");
    u64::from_be_bytes(buf[28..36].try_into().expect("8 octets"))
}

#[test]
fn numbers_begin_at_one_and_follow_each_other() {
    let hot = hot();
    let out = hot.outbound(0).expect("slot 0");
    assert_eq!(taken(out), 0);
    assert_eq!(take(out, 1, true), Ok(1..2));
    assert_eq!(take(out, 64, true), Ok(2..66));
    assert_eq!(take(out, 0, true), Ok(66..66));
    assert_eq!(take(out, 3, true), Ok(66..69));
    assert_eq!(taken(out), 68);
}

#[test]
fn numbers_end_at_the_last_of_32_bits_and_stay_ended() {
    let hot = hot();
    let out = hot.outbound(0).expect("slot 0");
    out.next.store(LAST - 10, Relaxed);
    assert_eq!(take(out, 4, true), Ok(LAST - 9..LAST - 5));
    assert_eq!(take(out, 64, true), Ok(LAST - 5..LAST + 1), "as many as there are");
    for _ in 0..1000 {
        assert_eq!(take(out, 64, true), Err(Exhausted::Numbers));
    }
    assert_eq!(taken(out), LAST);
    assert_eq!(sequence::LAST, u64::from(u32::MAX));
    // Whatever a predecessor has left.
    for stored in [LAST + 1, LAST + 64, u64::MAX - 1, u64::MAX] {
        out.next.store(stored, Relaxed);
        assert_eq!(take(out, u32::MAX, true), Err(Exhausted::Numbers));
        assert_eq!(out.next.load(Relaxed), stored);
        assert_eq!(taken(out), LAST);
    }
}

#[test]
fn numbers_wait_at_the_end_of_the_lease_and_go_on_behind_it() {
    let hot = hot();
    let out = hot.outbound(0).expect("slot 0");
    out.lease_end.store(100, Relaxed);
    assert_eq!(take(out, 64, true), Ok(1..65));
    assert_eq!(take(out, 64, true), Ok(65..101), "up to the end");
    for _ in 0..1000 {
        assert_eq!(take(out, 64, true), Err(Exhausted::Lease));
    }
    assert_eq!(taken(out), 100, "waiting uses nothing up");
    out.lease_end.store(200, Relaxed);
    assert_eq!(take(out, 64, true), Ok(101..165));
    out.lease_end.store(0, Relaxed);
    assert_eq!(take(out, 1, true), Err(Exhausted::Lease));
    out.lease_end.store(LAST, Relaxed);
    out.next.store(LAST, Relaxed);
    assert_eq!(
        take(out, 1, true),
        Err(Exhausted::Numbers),
        "a lease to the last number is no reason to wait"
    );
}

#[test]
fn lease_binds_only_while_handling_is_strict() {
    let hot = hot();
    let out = hot.outbound(0).expect("slot 0");
    out.lease_end.store(10, Relaxed);
    assert_eq!(take(out, 64, true), Ok(1..11));
    assert_eq!(take(out, 64, true), Err(Exhausted::Lease));
    assert_eq!(take(out, 64, false), Ok(11..75), "alone needs no lease");
    assert_eq!(take(out, 1, true), Err(Exhausted::Lease));
    out.lease_end.store(0, Relaxed);
    assert_eq!(take(out, 1, false), Ok(75..76));
}

#[test]
fn limit_binds_in_every_handling_and_says_by_name_what_is_missing() {
    for strict in [false, true] {
        let hot = hot();
        let out = hot.outbound(0).expect("slot 0");
        out.limit.store(0, Relaxed);
        assert_eq!(take(out, 64, strict), Err(Exhausted::Held));
        assert_eq!(taken(out), 0, "a held SA uses nothing up");
        out.limit.store(100, Relaxed);
        assert_eq!(take(out, 64, strict), Ok(1..65));
        assert_eq!(take(out, 64, strict), Ok(65..101), "up to the limit");
        assert_eq!(take(out, 64, strict), Err(Exhausted::Limit));
        out.limit.store(120, Relaxed);
        assert_eq!(take(out, 64, strict), Ok(101..121));
        out.limit.store(0, Relaxed);
        assert_eq!(take(out, 64, strict), Err(Exhausted::Held), "held later");
        out.limit.store(LAST, Relaxed);
        out.next.store(LAST, Relaxed);
        assert_eq!(take(out, 1, strict), Err(Exhausted::Numbers));
    }
    let hot = hot();
    let out = hot.outbound(0).expect("slot 0");
    out.lease_end.store(10, Relaxed);
    out.limit.store(20, Relaxed);
    assert_eq!((take(out, 64, true), take(out, 1, true)), (Ok(1..11), Err(Exhausted::Lease)));
    out.lease_end.store(30, Relaxed);
    out.limit.store(20, Relaxed);
    assert_eq!((take(out, 64, true), take(out, 1, true)), (Ok(11..21), Err(Exhausted::Limit)));
}

/// Takes from several cores until nothing is left, and says what each number was given how often.
fn takes_of_cores(hot: &HotState, cores: u32) -> Vec<u64> {
    let start = Barrier::new(cores as usize);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..cores)
            .map(|core| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let out = hot.outbound(0).expect("slot 0");
                    let mut numbers = Vec::new();
                    while let Ok(run) = take(out, 1 + core * 13, true) {
                        assert!(!run.is_empty());
                        numbers.extend(run);
                    }
                    numbers
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("no core panics")).collect()
    })
}

#[test]
fn cores_never_take_a_number_twice_nor_past_the_end() {
    for (from, lease_end, end) in [(0, 200_000, 200_000), (LAST - 200_000, u64::MAX, LAST)] {
        let hot = hot();
        let out = hot.outbound(0).expect("slot 0");
        out.next.store(from, Relaxed);
        out.lease_end.store(lease_end, Relaxed);
        let numbers = takes_of_cores(&hot, 4);
        let distinct: HashSet<_> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "some number was taken twice");
        assert_eq!(numbers.iter().min(), Some(&(from + 1)));
        assert_eq!(numbers.iter().max(), Some(&end));
    }
}

#[test]
fn iv_is_term_difference_and_counter() {
    let hot = hot();
    hot.header().term.store(0x1_0002, Relaxed);
    hot.header().node_counter.store(0x0000_0203_0405_0000, Relaxed);
    let mut source = IvSource::new();
    assert_eq!(source.next(hot.header(), 0x1_0000).map(wire), Ok(0x0002_0203_0405_0000));
    assert_eq!(source.next(hot.header(), 3).map(wire), Ok(0xffff_0203_0405_0001));
}

#[test]
fn sources_take_blocks_of_the_one_counter_of_the_node() {
    let hot = hot();
    let expected = Expected(self::hot());
    let (mut one, mut two) = (IvSource::new(), IvSource::new());
    assert_eq!(one.next(hot.header(), 0).map(wire), Ok(0));
    assert_eq!(two.next(hot.header(), 0).map(wire), Ok(BLOCK));
    for i in 1..BLOCK {
        assert_eq!(one.next(hot.header(), 0), Ok(expected.of(i)));
    }
    assert_eq!(hot.header().node_counter.load(Relaxed), 2 * BLOCK);
    assert_eq!(one.next(hot.header(), 0).map(wire), Ok(2 * BLOCK));
    // A restarted process: what was left of the blocks is lost, and nothing comes again.
    let mut successor = IvSource::new();
    assert_eq!(successor.next(hot.header(), 0).map(wire), Ok(3 * BLOCK));
}

/// Takes IVs on four cores at once; `take` gets the source of its core.
fn ivs_of_cores(each: usize, take: impl Fn(&mut IvSource, &HotState) -> Iv + Sync) -> Vec<Iv> {
    let hot = hot();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        let cores: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut source = IvSource::new();
                    start.wait();
                    (0..each).map(|_| take(&mut source, &hot)).collect::<Vec<_>>()
                })
            })
            .collect();
        cores.into_iter().flat_map(|core| core.join().expect("no core panics")).collect()
    })
}

fn assert_distinct(ivs: Vec<Iv>, count: usize) {
    assert_eq!(ivs.len(), count);
    assert_eq!(ivs.into_iter().collect::<HashSet<_>>().len(), count, "some IV came twice");
}

#[test]
fn cores_never_take_an_iv_twice() {
    let each = 3 * BLOCK as usize / 2;
    let ivs = ivs_of_cores(each, |source, hot| source.next(hot.header(), 0).expect("an IV"));
    assert_distinct(ivs, 4 * each);
}

#[test]
fn cores_never_take_a_block_twice() {
    // A new source for each IV, so that all cores are at the counter of the node all the time.
    let each = 100_000;
    let ivs = ivs_of_cores(each, |_, hot| IvSource::new().next(hot.header(), 0).expect("an IV"));
    assert_distinct(ivs, 4 * each);
}

#[test]
fn a_key_lives_from_its_base_term_for_two_to_the_sixteen_terms() {
    let hot = hot();
    let mut source = IvSource::new();
    let base = 1 << 40;
    let mut at = |term: u64| {
        hot.header().term.store(term, Relaxed);
        source.next(hot.header(), base).map(|iv| iv.replace_key())
    };
    assert_eq!(at(0), Err(TermError::BelowBase));
    assert_eq!(at(base - 1), Err(TermError::BelowBase));
    assert_eq!(at(base), Ok(false));
    assert_eq!(at(base + SOFT_TERMS - 1), Ok(false));
    assert_eq!(at(base + SOFT_TERMS), Ok(true));
    assert_eq!(at(base + DEAD_TERMS - 1), Ok(true));
    assert_eq!(at(base + DEAD_TERMS), Err(TermError::Dead));
    assert_eq!(at(u64::MAX), Err(TermError::Dead));
    assert_eq!(term_difference(u64::MAX, 0), Err(TermError::Dead));
    assert_eq!(term_difference(0, u64::MAX), Err(TermError::BelowBase));
    assert_eq!((SOFT_TERMS, DEAD_TERMS), (1 << 15, 1 << 16));
}

#[test]
fn refused_terms_use_no_counter_value() {
    let hot = hot();
    let mut source = IvSource::new();
    assert_eq!(source.next(hot.header(), 1), Err(TermError::BelowBase));
    assert_eq!(hot.header().node_counter.load(Relaxed), 0, "no block was taken");
    assert_eq!(source.next(hot.header(), 0).map(wire), Ok(0));
    assert_eq!(source.next(hot.header(), 1), Err(TermError::BelowBase));
    assert_eq!(source.next(hot.header(), 0).map(wire), Ok(1));
}

#[test]
fn counter_ends_at_two_to_the_forty_eight_and_stays_ended() {
    let hot = hot();
    let expected = Expected(self::hot());
    // Also where a block would reach over the end.
    for start in [COUNTER_END - BLOCK, COUNTER_END - 3] {
        hot.header().node_counter.store(start, Relaxed);
        let mut source = IvSource::new();
        for counter in start..COUNTER_END {
            assert_eq!(source.next(hot.header(), 0), Ok(expected.of(counter)));
        }
        for _ in 0..3 {
            assert_eq!(source.next(hot.header(), 0), Err(TermError::CounterUsedUp));
        }
        assert!(hot.header().node_counter.load(Relaxed) < COUNTER_END + BLOCK, "waiting moves nothing");
    }
    for stored in [COUNTER_END, COUNTER_END + 1, u64::MAX] {
        hot.header().node_counter.store(stored, Relaxed);
        assert_eq!(IvSource::new().next(hot.header(), 0), Err(TermError::CounterUsedUp));
        assert_eq!(hot.header().node_counter.load(Relaxed), stored);
    }
    assert_eq!(iv::COUNTER_END, 1 << 48);
}

proptest! {
    /// Sources of one node, whose term moves meanwhile, under keys of several base terms; sources come and go.
    #[test]
    fn no_iv_comes_twice_whatever_happens(
        steps in proptest::collection::vec((0..4usize, 0..6u32, 0..3u64, 0..40u32), 1..200),
        start in prop_oneof![Just(0), Just(COUNTER_END - 3 * BLOCK), 0..COUNTER_END],
    ) {
        let hot = hot();
        hot.header().term.store(2, Relaxed);
        hot.header().node_counter.store(start, Relaxed);
        let mut sources: Vec<_> = (0..4).map(|_| IvSource::new()).collect();
        let mut seen: [HashSet<Iv>; 3] = Default::default();
        for (who, what, base, count) in steps {
            match what {
                0 => sources[who] = IvSource::new(),
                1 => drop(hot.header().term.fetch_add(2, Relaxed)),
                _ => for _ in 0..count {
                    match sources[who].next(hot.header(), base) {
                        Ok(iv) => prop_assert!(seen[base as usize].insert(iv)),
                        Err(error) => prop_assert_eq!(error, TermError::CounterUsedUp),
                    }
                },
            }
        }
    }
}
