//! AF_XDP over veth pairs, in network namespaces of their own. Needs root; fails without.

// A map, a program and a link are made with bpf(2), so that these tests depend on no loader.
#![allow(unsafe_code)]

mod veth;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tandem_xsk::{Batch, Error, FreeList, Port, SocketConfig, Umem, UnicastMembership, XskPort, ZeroCopy};
use veth::{Redirect, frame, in_own_namespace, ip, number_of, veth};

/// Nothing here takes longer than a moment; a lost wake-up would take for ever.
const PATIENCE: Duration = Duration::from_secs(10);

fn config(ifindex: u32, queue: u32, ring_size: u32) -> SocketConfig {
    SocketConfig { ifindex, queue, ring_size, zero_copy: ZeroCopy::Auto, generic: false }
}

/// One end that uses one port with a UMEM of its own.
struct End {
    umem: Arc<Umem>,
    free: FreeList,
    port: XskPort,
    rest: Batch,
}

impl End {
    fn open(ifindex: u32, queue: u32, frames: u32, ring_size: u32) -> End {
        let (umem, mut free) = Umem::new(frames).unwrap();
        let port = XskPort::open(&umem, &mut free, &config(ifindex, queue, ring_size)).unwrap();
        End { umem, free, port, rest: Batch::new() }
    }

    /// Fills the batch with numbered frames as long as there are free ones, sends what the ring takes.
    fn send(&mut self, next: &mut u32, until: u32) {
        self.port.reclaim(&mut self.free);
        while *next < until && !self.rest.is_full() {
            let Some(mut token) = self.free.pop() else { break };
            let octets = frame(*next, 60 + (*next as usize * 7) % 1440);
            token.push_back(octets.len()).unwrap();
            self.umem.data_mut(&mut token).copy_from_slice(&octets);
            self.rest.push(token);
            *next += 1;
        }
        self.port.transmit(&mut self.rest);
        self.port.wake_transmit();
    }

    /// Receives once; returns the numbers.
    fn receive(&mut self) -> Vec<u32> {
        let mut batch = Batch::new();
        self.port.receive(&mut batch);
        let numbers = batch.iter().filter_map(|token| number_of(self.umem.data(token))).collect();
        batch.into_iter().for_each(|token| self.free.push(token));
        self.port.refill(&mut self.free);
        self.port.wake_receive();
        numbers
    }

    /// Closes the port and checks that every frame of the UMEM is accounted for.
    fn finish(mut self) {
        self.rest.drain(..).for_each(|token| self.free.push(token));
        let drained = self.port.drain(&mut self.free);
        assert_eq!(drained.withheld, 0);
        assert_eq!(self.free.len(), self.umem.frames() as usize, "a frame was lost");
    }
}

/// Repeats `round` until it says that it is done.
fn until_done(mut round: impl FnMut() -> bool) {
    let start = Instant::now();
    while !round() {
        assert!(start.elapsed() < PATIENCE, "no progress any more");
        std::thread::yield_now();
    }
}

#[test]
fn ten_thousand_numbered_frames_cross_a_veth_and_come_back() {
    in_own_namespace(|| {
        let (one, two) = veth("one", "two", 1);
        let programs = [Redirect::attach(one), Redirect::attach(two)];
        // Few frames, so that each is used many times.
        let mut near = End::open(one, 0, 512, 128);
        let mut far = End::open(two, 0, 256, 128);
        programs[0].steer(0, near.port.fd());
        programs[1].steer(0, far.port.fd());
        let (mut next, mut there, mut back) = (0, 0, 0);
        let mut turned = Batch::new();
        until_done(|| {
            // No more under way than the receive ring takes: nothing may be lost here.
            let window = 10_000.min(back + 64);
            near.send(&mut next, window);
            far.port.reclaim(&mut far.free);
            far.port.receive(&mut turned);
            for token in turned.iter() {
                if let Some(number) = number_of(far.umem.data(token)) {
                    assert_eq!(number, there);
                    there += 1;
                }
            }
            far.port.transmit(&mut turned);
            far.port.wake_transmit();
            far.port.refill(&mut far.free);
            for number in near.receive() {
                assert_eq!(number, back);
                back += 1;
            }
            back == 10_000
        });
        assert_eq!(there, 10_000);
        for end in [&near, &far] {
            let statistics = end.port.statistics();
            assert_eq!((statistics.refused, statistics.wake_errors), (0, 0), "{statistics:?}");
            assert_eq!((statistics.rx_dropped, statistics.rx_ring_full), (0, 0), "{statistics:?}");
            assert_eq!(statistics.rx_invalid_descriptors, 0, "{statistics:?}");
            assert_eq!(statistics.tx_invalid_descriptors, 0, "{statistics:?}");
        }
        far.rest = turned;
        near.finish();
        far.finish();
    });
}

#[test]
fn frame_goes_from_one_device_to_another_without_a_copy() {
    in_own_namespace(|| {
        let (source, outside) = veth("source", "outside", 1);
        let (inside, sink) = veth("inside", "sink", 1);
        let programs = [Redirect::attach(outside), Redirect::attach(sink)];
        let mut source = End::open(source, 0, 256, 64);
        let mut sink = End::open(sink, 0, 256, 64);
        // The gateway: two devices over one UMEM.
        let (umem, mut free) = Umem::new(256).unwrap();
        let mut outside = XskPort::open(&umem, &mut free, &config(outside, 0, 64)).unwrap();
        let mut inside = XskPort::open(&umem, &mut free, &config(inside, 0, 64)).unwrap();
        assert_eq!(free.len(), 128, "both fill rings were filled before the bind");
        programs[0].steer(0, outside.fd());
        programs[1].steer(0, sink.port.fd());
        let (mut next, mut arrived) = (0, 0);
        let mut batch = Batch::new();
        until_done(|| {
            source.send(&mut next, 5_000.min(arrived + 32));
            outside.reclaim(&mut free);
            inside.reclaim(&mut free);
            outside.receive(&mut batch);
            // The same frame: the token alone moves, and no data is touched.
            inside.transmit(&mut batch);
            inside.wake_transmit();
            outside.refill(&mut free);
            for number in sink.receive() {
                assert_eq!(number, arrived);
                arrived += 1;
            }
            arrived == 5_000
        });
        source.finish();
        sink.finish();
        batch.drain(..).for_each(|token| free.push(token));
        // In either order of closing, the other one stays usable and everything comes back.
        assert_eq!(outside.drain(&mut free).withheld, 0);
        assert_eq!(inside.drain(&mut free).withheld, 0);
        assert_eq!(free.len(), 256);
    });
}

#[test]
fn later_socket_joins_a_umem_whose_first_socket_is_gone() {
    in_own_namespace(|| {
        let (one, two) = veth("one", "two", 1);
        let (three, _) = veth("three", "four", 1);
        let (umem, mut free) = Umem::new(256).unwrap();
        let first = XskPort::open(&umem, &mut free, &config(one, 0, 32)).unwrap();
        let second = XskPort::open(&umem, &mut free, &config(two, 0, 32)).unwrap();
        first.drain(&mut free);
        let third = XskPort::open(&umem, &mut free, &config(three, 0, 32)).unwrap();
        second.drain(&mut free);
        third.drain(&mut free);
        // And with none left the UMEM is registered anew; the queue is waited for.
        let again = XskPort::open(&umem, &mut free, &config(one, 0, 32)).unwrap();
        again.drain(&mut free);
        assert_eq!(free.len(), 256);
    });
}

#[test]
fn full_rings_lose_no_frame_and_are_counted() {
    in_own_namespace(|| {
        let (one, two) = veth("one", "two", 1);
        let programs = [Redirect::attach(one), Redirect::attach(two)];
        let mut near = End::open(one, 0, 256, 32);
        let mut far = End::open(two, 0, 64, 32);
        programs[0].steer(0, near.port.fd());
        programs[1].steer(0, far.port.fd());
        assert!(!near.port.wake_transmit(), "nothing is pending, so no system call is made");
        for n in 0..64 {
            let mut token = near.free.pop().unwrap();
            token.push_back(60).unwrap();
            near.umem.data_mut(&mut token).copy_from_slice(&frame(n, 60));
            near.rest.push(token);
        }
        assert_eq!(near.port.transmit(&mut near.rest), 32, "the ring has 32 descriptors");
        assert_eq!((near.rest.len(), near.port.transmit_pending()), (32, 32));
        assert_eq!(near.port.transmit(&mut near.rest), 0);
        assert!(near.port.wake_transmit(), "the kernel asked to be woken");
        assert_eq!(near.port.transmit_pending(), 0);
        until_done(|| {
            near.port.reclaim(&mut near.free);
            near.port.transmit(&mut near.rest);
            near.port.wake_transmit();
            near.rest.is_empty() && near.port.transmit_pending() == 0
        });
        // 64 frames for a fill ring of 32: the receiver was not looking.
        until_done(|| {
            let statistics = far.port.statistics();
            statistics.rx_ring_full + statistics.rx_dropped + statistics.rx_fill_ring_empty >= 32
        });
        let mut seen = Vec::new();
        until_done(|| {
            seen.extend(far.receive());
            seen.len() >= 32
        });
        assert_eq!(seen, (0..32).collect::<Vec<_>>());
        // Once refilled it goes on.
        let mut next = 64;
        let mut after = Vec::new();
        until_done(|| {
            near.send(&mut next, 80);
            after.extend(far.receive());
            after.len() == 16
        });
        assert_eq!(after, (64..80).collect::<Vec<_>>());
        near.finish();
        far.finish();
    });
}

#[test]
fn each_queue_has_its_own_socket() {
    in_own_namespace(|| {
        let (one, two) = veth("one", "two", 2);
        let program = Redirect::attach(two);
        let mut senders = [End::open(one, 0, 256, 64), End::open(one, 1, 256, 64)];
        let (umem, mut free) = Umem::new(512).unwrap();
        let mut ports = [0, 1].map(|queue| XskPort::open(&umem, &mut free, &config(two, queue, 64)).unwrap());
        for port in &ports {
            program.steer(port.queue(), port.fd());
            assert_eq!(port.ifindex(), two);
        }
        let mut next = [0, 1_000_000];
        let mut seen = [0, 1_000_000];
        until_done(|| {
            for queue in 0..2 {
                let base = queue as u32 * 1_000_000;
                senders[queue].send(&mut next[queue], (base + 1000).min(seen[queue] + 32));
                let mut batch = Batch::new();
                ports[queue].receive(&mut batch);
                for token in batch {
                    if let Some(number) = number_of(umem.data(&token)) {
                        assert_eq!(number, seen[queue], "on queue {queue}");
                        seen[queue] += 1;
                    }
                    free.push(token);
                }
                ports[queue].refill(&mut free);
            }
            seen == [1000, 1_001_000]
        });
        senders.into_iter().for_each(End::finish);
        for port in ports {
            assert_eq!(port.drain(&mut free).withheld, 0);
        }
        assert_eq!(free.len(), 512);
    });
}

#[test]
fn refused_bind_names_the_cause_and_costs_no_frame() {
    in_own_namespace(|| {
        let (one, _) = veth("one", "two", 1);
        let (umem, mut free) = Umem::new(256).unwrap();
        let mut refused = |config: &SocketConfig| {
            let error = XskPort::open(&umem, &mut free, config).unwrap_err();
            assert_eq!(free.len(), 256);
            error
        };
        let error = refused(&config(one, 1, 64));
        assert!(matches!(error, Error::Bind { queue: 1, .. }), "{error}");
        assert!(error.to_string().contains("a veth needs its queues at creation"), "{error}");
        let error = refused(&config(9999, 0, 64));
        assert!(error.to_string().contains("no such interface"), "{error}");
        let error = refused(&SocketConfig { zero_copy: ZeroCopy::Require, ..config(one, 0, 64) });
        assert!(error.to_string().contains("no zero-copy mode"), "{error}");
        assert!(matches!(refused(&config(one, 0, 48)), Error::RingSize(48)));
        assert!(matches!(refused(&config(one, 0, 0)), Error::RingSize(0)));
        let (_, mut foreign) = Umem::new(64).unwrap();
        let error = XskPort::open(&umem, &mut foreign, &config(one, 0, 64)).unwrap_err();
        assert!(matches!(error, Error::ForeignFreeList));
        let mut empty = umem.free_list();
        let error = XskPort::open(&umem, &mut empty, &config(one, 0, 64)).unwrap_err();
        assert!(matches!(error, Error::NoFrames));
        // Another UMEM on a queue in use: busy, after a second of patience.
        let holder = XskPort::open(&umem, &mut free, &config(one, 0, 64)).unwrap();
        let (other, mut others) = Umem::new(64).unwrap();
        let start = Instant::now();
        let error = XskPort::open(&other, &mut others, &config(one, 0, 32)).unwrap_err();
        assert!(error.to_string().contains("another AF_XDP socket holds the queue"), "{error}");
        assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
        assert_eq!(others.len(), 64);
        assert!(!holder.is_zero_copy(), "a veth works in copy mode");
        holder.drain(&mut free);
    });
}

#[test]
fn queue_can_be_opened_again_at_once() {
    in_own_namespace(|| {
        let (one, two) = veth("one", "two", 1);
        let program = Redirect::attach(two);
        let mut sender = End::open(one, 0, 128, 64);
        let (umem, mut free) = Umem::new(128).unwrap();
        let (mut next, mut seen) = (0, 0);
        for round in 1..=10 {
            let mut port = XskPort::open(&umem, &mut free, &config(two, 0, 64)).unwrap();
            program.steer(0, port.fd());
            until_done(|| {
                sender.send(&mut next, round * 20);
                let mut batch = Batch::new();
                port.receive(&mut batch);
                for token in batch {
                    seen += u32::from(number_of(umem.data(&token)).is_some());
                    free.push(token);
                }
                port.refill(&mut free);
                seen == round * 20
            });
            assert_eq!(port.drain(&mut free).withheld, 0);
            assert_eq!(free.len(), 128);
        }
        sender.finish();
    });
}

#[test]
fn frames_of_a_socket_that_lives_on_elsewhere_are_withheld() {
    in_own_namespace(|| {
        let (one, _) = veth("one", "two", 1);
        let (umem, mut free) = Umem::new(64).unwrap();
        let port = XskPort::open(&umem, &mut free, &config(one, 0, 32)).unwrap();
        let duplicate = port.fd().try_clone_to_owned().unwrap();
        let drained = port.drain(&mut free);
        assert_eq!((drained.returned, drained.withheld), (0, 32));
        assert_eq!(free.len(), 32);
        drop(duplicate);
    });
}

#[test]
fn descriptors_that_were_never_sent_come_back() {
    in_own_namespace(|| {
        let (one, _) = veth("one", "two", 1);
        let mut end = End::open(one, 0, 128, 64);
        for n in 0..40 {
            let mut token = end.free.pop().unwrap();
            token.push_back(60).unwrap();
            end.umem.data_mut(&mut token).copy_from_slice(&frame(n, 60));
            end.rest.push(token);
        }
        assert_eq!(end.port.transmit(&mut end.rest), 40);
        end.finish();
    });
}

#[test]
fn frames_that_cannot_be_sent_are_counted_and_come_back() {
    in_own_namespace(|| {
        let (one, _) = veth("one", "two", 1);
        let mut end = End::open(one, 0, 64, 32);
        let (foreign_umem, mut foreign) = Umem::new(2).unwrap();
        for len in [0, 13] {
            let mut token = end.free.pop().unwrap();
            token.push_back(len).unwrap();
            end.rest.push(token);
        }
        let mut token = foreign.pop().unwrap();
        token.push_back(60).unwrap();
        end.rest.push(token);
        assert_eq!(end.port.transmit(&mut end.rest), 3);
        assert_eq!(end.port.transmit_pending(), 0);
        assert_eq!(end.port.statistics().refused, 3);
        assert_eq!(end.port.reclaim(&mut end.free), 2);
        end.finish();
        drop(foreign_umem);
    });
}

#[test]
fn sleeping_worker_is_woken_by_a_frame() {
    in_own_namespace(|| {
        let (one, two) = veth("one", "two", 1);
        let program = Redirect::attach(two);
        let mut near = End::open(one, 0, 64, 32);
        let mut far = End::open(two, 0, 64, 32);
        program.steer(0, far.port.fd());
        let readable = |port: &XskPort, milliseconds| {
            let fd = port.pollable().unwrap().as_fd().as_raw_fd();
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one structure, which lives for the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
            ready == 1 && poll.revents & libc::POLLIN != 0
        };
        assert!(!readable(&far.port, 20));
        let mut next = 0;
        near.send(&mut next, 1);
        assert!(readable(&far.port, 5000));
        assert_eq!(far.receive(), [0]);
        near.finish();
        far.finish();
    });
}

#[test]
fn interface_that_goes_down_loses_no_frame_and_comes_back() {
    in_own_namespace(|| {
        let (one, two) = veth("one", "two", 1);
        let program = Redirect::attach(two);
        let mut near = End::open(one, 0, 128, 32);
        let mut far = End::open(two, 0, 128, 32);
        program.steer(0, far.port.fd());
        ip("link set one down");
        let mut next = 0;
        near.send(&mut next, 10);
        assert_eq!(near.port.statistics().wake_errors, 1, "the kernel says that the interface is down");
        assert_eq!(near.port.transmit_pending(), 10);
        ip("link set one up");
        let mut seen = Vec::new();
        until_done(|| {
            near.send(&mut next, 20);
            seen.extend(far.receive());
            seen.last() == Some(&19)
        });
        near.finish();
        far.finish();
    });
}

/// A veth has no unicast filter, so the kernel's answer to a further address is promiscuity.
#[test]
fn further_address_is_heard_as_long_as_its_membership_lives() {
    in_own_namespace(|| {
        let (one, _) = veth("one", "two", 1);
        let promiscuity = || {
            let output =
                std::process::Command::new("ip").args(["-d", "link", "show", "one"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let (_, count) = text.split_once("promiscuity ").expect("ip shows the promiscuity");
            count.split_whitespace().next().unwrap().parse::<u32>().unwrap()
        };
        assert_eq!(promiscuity(), 0);
        let membership = UnicastMembership::join(one, [0, 0, 0x0c, 7, 0xac, 1]).unwrap();
        assert_eq!(promiscuity(), 1);
        drop(membership);
        until_done(|| promiscuity() == 0);
        let error = UnicastMembership::join(9999, [0, 0, 0x0c, 7, 0xac, 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    });
}
