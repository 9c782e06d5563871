//! The ports in memory keep the rules of AF_XDP, and lose no frame.

use proptest::prelude::*;
use tandem_xsk::{Batch, Capture, FreeList, MemConfig, Port, Repeat, ReplayConfig, ReplayPort, Umem, mem};

fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut octets = vec![0xa5; len.max(14)];
    octets[..4].copy_from_slice(&number.to_be_bytes());
    octets
}

#[test]
fn packet_is_received_only_into_a_refilled_frame() {
    let (umem, mut free) = Umem::new(4).unwrap();
    let (mut port, wire) = mem::port(&umem, &MemConfig { ring_size: 2 });
    (0..3).for_each(|n| wire.inject(&packet(n, 60)));
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch), 0);
    assert_eq!(port.statistics().rx_fill_ring_empty, 1);
    assert_eq!(port.refill(&mut free), 2, "as many as the ring has room for");
    assert_eq!(port.receive(&mut batch), 2);
    assert_eq!((free.len(), wire.waiting()), (2, 1));
    for (n, frame) in batch.iter().enumerate() {
        assert_eq!(umem.data(frame), packet(n as u32, 60));
        assert_eq!(frame.headroom(), tandem_xsk::HEADROOM);
    }
    batch.into_iter().for_each(|frame| free.push(frame));
    port.drain(&mut free);
    assert_eq!(free.len(), 4);
}

#[test]
fn transmission_needs_a_wake_up_and_frames_come_back_by_reclaim() {
    let (umem, mut free) = Umem::new(8).unwrap();
    let (mut port, wire) = mem::port(&umem, &MemConfig { ring_size: 4 });
    let mut batch = Batch::new();
    for n in 0..6 {
        let mut frame = free.pop().unwrap();
        frame.push_back(60).unwrap();
        umem.data_mut(&mut frame).copy_from_slice(&packet(n, 60));
        batch.push(frame);
    }
    assert!(!port.wake_transmit(), "nothing is pending");
    assert_eq!(port.transmit(&mut batch), 4, "as many as the ring has room for");
    assert_eq!((batch.len(), port.transmit_pending()), (2, 4));
    assert_eq!(umem.data(&batch[0]), packet(4, 60), "the rest stays, in order");
    assert_eq!(port.reclaim(&mut free), 0);
    assert!(wire.take().is_empty());
    assert!(port.wake_transmit());
    assert_eq!(port.transmit(&mut batch), 2);
    port.wake_transmit();
    assert_eq!(port.transmit_pending(), 2, "completions that were not reclaimed hold up the rest");
    assert_eq!(port.reclaim(&mut free), 4);
    port.wake_transmit();
    assert_eq!(port.reclaim(&mut free), 2);
    assert_eq!(wire.take(), (0..6).map(|n| packet(n, 60)).collect::<Vec<_>>());
    assert_eq!(free.len(), 8);
}

#[test]
fn packets_that_cannot_be_are_counted_and_cost_no_frame() {
    let (umem, mut free) = Umem::new(4).unwrap();
    let (mut port, wire) = mem::port(&umem, &MemConfig::default());
    wire.inject(&packet(1, 3841));
    wire.inject(&packet(2, 3840));
    port.refill(&mut free);
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch), 1);
    assert_eq!(port.statistics().rx_dropped, 1);
    batch[0].truncate(13);
    port.transmit(&mut batch);
    port.wake_transmit();
    assert_eq!(port.statistics().refused, 1);
    assert!(wire.take().is_empty());
    port.reclaim(&mut free);
    port.drain(&mut free);
    assert_eq!(free.len(), 4);
}

#[test]
fn replay_repeats_its_packets_and_captures_what_is_sent() {
    let (umem, mut free) = Umem::new(128).unwrap();
    let packets: Vec<Vec<u8>> = (0..3).map(|n| packet(n, 60 + n as usize)).collect();
    let config = ReplayConfig {
        packets: packets.clone(),
        repeat: Repeat::Times(50),
        ring_size: 64,
        capture: Some(Capture::with_capacity(100, 100 * 62)),
    };
    let mut port = ReplayPort::new(&umem, config);
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch), 0, "nothing was refilled");
    let mut received = 0;
    loop {
        port.reclaim(&mut free);
        port.refill(&mut free);
        if port.receive(&mut batch) == 0 {
            break;
        }
        for frame in &batch {
            assert_eq!(umem.data(frame), packets[received % 3]);
            received += 1;
        }
        while !batch.is_empty() {
            port.transmit(&mut batch);
            port.reclaim(&mut free);
        }
    }
    assert_eq!(received, 150);
    let sent = port.transmitted();
    assert_eq!((sent.packets, sent.octets), (150, 50 * (60 + 61 + 62)));
    let capture = port.set_capture(None).unwrap();
    assert_eq!((capture.packets().len(), capture.missed()), (100, 50));
    assert!(capture.packets().enumerate().all(|(i, octets)| octets == packets[i % 3]));
    port.drain(&mut free);
    assert_eq!(free.len(), 128);
}

#[test]
fn replay_without_end_does_not_end_and_without_packets_does_not_begin() {
    let (umem, mut free) = Umem::new(64).unwrap();
    let config = |packets| ReplayConfig { packets, repeat: Repeat::Endless, ring_size: 64, capture: None };
    let mut port = ReplayPort::new(&umem, config(vec![packet(7, 60)]));
    let mut batch = Batch::new();
    for _ in 0..100 {
        port.refill(&mut free);
        assert_eq!(port.receive(&mut batch), 64);
        batch.drain(..).for_each(|frame| free.push(frame));
    }
    let mut port = ReplayPort::new(&umem, config(Vec::new()));
    port.refill(&mut free);
    assert_eq!(port.receive(&mut batch), 0);
}

/// A worker that forwards between two ports, with steps in any order and number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Inject(usize, u8),
    Receive(usize),
    Transmit(usize),
    Wake(usize),
    Reclaim(usize),
    Refill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    (0..6u8, 0..2usize, any::<u8>()).prop_map(|(kind, side, n)| match kind {
        0 => Step::Inject(side, n % 40),
        1 => Step::Receive(side),
        2 => Step::Transmit(side),
        3 => Step::Wake(side),
        4 => Step::Reclaim(side),
        _ => Step::Refill(side),
    })
}

fn drain_all(batches: [Batch; 2], free: &mut FreeList) {
    for frame in batches.into_iter().flatten() {
        free.push(frame);
    }
}

proptest! {
    #[test]
    fn no_order_of_steps_loses_or_doubles_a_frame_or_packet(
        steps in proptest::collection::vec(step(), 0..200),
        ring_size in 1..20u32,
    ) {
        let (umem, mut free) = Umem::new(32).unwrap();
        let config = MemConfig { ring_size };
        let (one, first) = mem::port(&umem, &config);
        let (two, second) = mem::port(&umem, &config);
        let (mut ports, wires) = ([one, two], [first, second]);
        let mut batches = [Batch::new(), Batch::new()];
        let (mut number, mut injected, mut seen) = (0, [Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for step in steps {
            match step {
                Step::Inject(side, count) => for _ in 0..count {
                    number += 1;
                    wires[side].inject(&packet(number, 60));
                    injected[side].push(packet(number, 60));
                },
                Step::Receive(side) => { ports[side].receive(&mut batches[side]); }
                Step::Transmit(side) => { ports[1 - side].transmit(&mut batches[side]); }
                Step::Wake(side) => { ports[side].wake_transmit(); }
                Step::Reclaim(side) => { ports[side].reclaim(&mut free); }
                Step::Refill(side) => { ports[side].refill(&mut free); }
            }
            for side in 0..2 {
                seen[1 - side].extend(wires[side].take());
            }
        }
        for side in 0..2 {
            prop_assert!(injected[side].starts_with(&seen[side]), "in order, none lost, none twice");
        }
        drain_all(batches, &mut free);
        for port in ports {
            port.drain(&mut free);
        }
        prop_assert_eq!(free.len(), 32);
    }
}
