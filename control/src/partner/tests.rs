//! Two drivers against each other over loopback TCP.

use super::*;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tandem_api::operator::SessionState;
use tandem_ssp::{Counters, Epochs, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use x25519_dalek::{PublicKey, StaticSecret};

/// Each test has addresses and a port of its own.
static NEXT: AtomicU16 = AtomicU16::new(1);

struct Network {
    addresses: [SocketAddrV4; 2],
}

impl Network {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let address = |node: u8| SocketAddrV4::new([127, high, low, node].into(), 20_000 + number);
        Self { addresses: [address(10), address(20)] }
    }

    fn start(&self, node: u8) -> Partner {
        let (own, other) = (usize::from(node), usize::from(1 - node));
        let public = PublicKey::from(&StaticSecret::from([other as u8 + 1; 32])).to_bytes();
        let keys = Keys { own: [node + 1; 32], partner: public };
        let path =
            PairPath { name: "sync".to_owned(), local: self.addresses[own], remote: self.addresses[other] };
        let local = Local {
            node,
            software: "0.1.0".to_owned(),
            file_id: [node; 16],
            highest: [2, 1],
            reserved: 32,
            reign: 0,
            incarnation: 1,
            incarnation_seen: 0,
            digest: Digest::new([]),
            epochs: Epochs::new(node, 1),
            store: Store::default(),
            source: None,
            position: 0,
            counters: Counters::default(),
        };
        Partner::start(keys, vec![path], local)
    }
}

/// Does what an owner does, for so long; gives how often the session came up and went down.
async fn own(partner: &mut Partner, time: Duration) -> (u32, u32) {
    let (mut ups, mut downs) = (0, 0);
    let end = Instant::now() + time;
    while let Ok(news) = tokio::time::timeout_at(end, partner.news()).await {
        match news {
            News::Paired(id, _) => partner.tell(Command::Reserved(id)),
            News::Up { .. } => ups += 1,
            News::Down(_) => downs += 1,
            News::Epoch(EpochKey { number, send, .. }) => {
                partner.tell(Command::EpochInstalled { number, send });
            }
            News::Stream(id, position, _) => partner.tell(Command::Applied(id, position)),
            News::Incarnation(_) | News::Quiet { .. } | News::EpochsRenewed => {}
        }
    }
    (ups, downs)
}

#[tokio::test]
async fn one_session_stays_however_close_both_nodes_dial() {
    for offset in [0, 130, 140, 145, 148, 150, 152, 155, 160, 170] {
        let network = Network::new();
        // Node 1 dials 150 ms after its start.
        let second = async {
            let mut partner = network.start(1);
            let counted = own(&mut partner, Duration::from_millis(900)).await;
            (counted, partner)
        };
        let first = async {
            sleep(Duration::from_millis(offset)).await;
            let mut partner = network.start(0);
            let counted = own(&mut partner, Duration::from_millis(900 - offset)).await;
            (counted, partner)
        };
        let (first, second) = tokio::join!(first, second);
        for ((ups, downs), partner) in [&first, &second] {
            let report = partner.report().await.unwrap();
            assert_eq!(report.session.state, SessionState::Up, "{offset} ms: {:?}", report.session);
            assert!(*ups == downs + 1 && *ups <= 2, "{offset} ms: {ups} ups, {downs} downs");
        }
    }
}

#[tokio::test]
async fn a_partner_that_comes_late_or_comes_back_is_found_within_its_back_off() {
    let network = Network::new();
    let mut first = network.start(0);
    assert_eq!(own(&mut first, Duration::from_millis(300)).await, (0, 0));
    let report = first.report().await.unwrap();
    assert_eq!(report.session.state, SessionState::Down);
    assert!(report.peers[0].reason.as_ref().unwrap().contains("no partner at"), "{report:?}");
    for round in 0..2 {
        let mut second = network.start(1);
        let both = async { tokio::join!(own(&mut first, LATE), own(&mut second, LATE)) };
        assert_eq!(both.await, ((1, 0), (1, 0)), "round {round}");
        drop(second);
        assert_eq!(own(&mut first, Duration::from_millis(200)).await, (0, 1));
    }
}

const LATE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn strangers_at_the_partners_address_cost_their_own_connection_at_most() {
    let network = Network::new();
    let mut node = network.start(1);
    // Nobody else than the partner's address is listened to.
    let stranger = TcpStream::connect(network.addresses[1]);
    let mut stranger = retry(stranger, network.addresses[1]).await;
    let mut octets = Vec::new();
    let read = timeout(Duration::from_secs(2), stranger.read_to_end(&mut octets)).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?} {octets:?}");
    // From its address: hostile octets, half a frame, silence; more at once than are let in.
    let mut silent = Vec::new();
    let hostile: [&[u8]; 8] =
        [b"\x00\x00", b"\x00\x03GET", b"\x00\x0ctandem-ssp\x00\x01", b"\xff\xff", b"", b"", b"", b""];
    for said in hostile {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddrV4::new(*network.addresses[0].ip(), 0).into()).unwrap();
        let mut stream = socket.connect(network.addresses[1].into()).await.unwrap();
        stream.write_all(said).await.unwrap();
        silent.push(stream);
        assert_eq!(own(&mut node, Duration::from_millis(20)).await, (0, 0));
    }
    drop(silent);
    let mut partner = network.start(0);
    let both = async { tokio::join!(own(&mut node, LATE), own(&mut partner, LATE)) };
    assert_eq!(both.await, ((1, 0), (1, 0)));
    assert_eq!(node.report().await.unwrap().packets.bad, 2);
}

/// The listener of a driver that has just started may not be there yet.
async fn retry(first: impl Future<Output = std::io::Result<TcpStream>>, address: SocketAddrV4) -> TcpStream {
    if let Ok(stream) = first.await {
        return stream;
    }
    loop {
        sleep(Duration::from_millis(10)).await;
        if let Ok(stream) = TcpStream::connect(address).await {
            return stream;
        }
    }
}

#[tokio::test]
async fn another_program_at_the_partners_port_is_named_and_tried_again_each_second() {
    let network = Network::new();
    let other = TcpListener::bind(network.addresses[1]).await.unwrap();
    let mut node = network.start(0);
    let answer = async {
        let (mut dialled, mut open) = (0, Vec::new());
        while let Ok(Ok((mut stream, _))) = timeout(Duration::from_millis(1800), other.accept()).await {
            dialled += 1;
            stream.write_all(b"\x00\x04SSH-").await.unwrap();
            // Closed with something unread, a connection is reset.
            open.push(stream);
            if dialled == 3 {
                break;
            }
        }
        (dialled, open)
    };
    let start = Instant::now();
    let ((dialled, _open), counted) = tokio::join!(answer, own(&mut node, Duration::from_millis(2500)));
    assert_eq!((dialled, counted), (3, (0, 0)));
    assert!(start.elapsed() >= Duration::from_secs(2));
    let report = node.report().await.unwrap();
    assert_eq!(report.session.state, SessionState::Refused);
    assert!(report.session.reason.unwrap().contains("does not speak SSP"));
}

#[tokio::test]
async fn the_keys_of_the_paths_are_in_force_as_soon_as_the_session_is_up() {
    let network = Network::new();
    let mut nodes = [network.start(0), network.start(1)];
    // The time from the session to the key that is sealed with.
    async fn until_sealed(partner: &mut Partner) -> Duration {
        let mut up = Instant::now();
        loop {
            match partner.news().await {
                News::Paired(id, _) => partner.tell(Command::Reserved(id)),
                News::Up { .. } => up = Instant::now(),
                News::Epoch(EpochKey { number, send, .. }) => {
                    partner.tell(Command::EpochInstalled { number, send });
                    if send {
                        return up.elapsed();
                    }
                }
                _ => {}
            }
        }
    }
    let [first, second] = &mut nodes;
    let both = async { tokio::join!(until_sealed(first), until_sealed(second)) };
    let (first, second) = timeout(Duration::from_secs(10), both).await.unwrap();
    assert!(first.max(second) < Duration::from_millis(400), "{first:?}, {second:?}");
}
