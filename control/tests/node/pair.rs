//! Two nodes: the real `tandem-control` on each, over loopback TCP, each before a data plane that keeps books.

use crate::site::{Site, in_namespace, wait};
use std::path::Path;
use std::process::Command;
use tandem_api::dataplane::SaSpec;
use tandem_api::pair::{EpochKey, Event, HistoryEntry, SessionNews};
use tandem_api::types::{Direction, Role};
use tandem_control::partner::{Command as Told, News, Partner};
use tandem_control::settings_file;
use tandem_control::state::NodeState;
use tandem_ssp::{Counters, Digest, Epochs, Keys, Local, Store};

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "{arguments}");
}

/// Two nodes that are each other's partner, the one of number 0 first; controls not started.
fn two_nodes(maps: usize) -> (Site, Site) {
    ip("link set lo up");
    for address in ["10.255.0.1", "10.255.0.2", "10.255.1.1", "10.255.1.2"] {
        ip(&format!("addr add {address}/32 dev lo"));
    }
    let (mut a, mut b) = (Site::new(0), Site::new(0));
    if a.public_key > b.public_key {
        std::mem::swap(&mut a, &mut b);
    }
    let redundancy = |partner: &Site, own: u8, other: u8| {
        format!(
            "[redundancy]\npartner-key = \"{}\"\n\
             [[redundancy.path]]\nname = \"dead\"\nlocal = \"10.255.0.{own}\"\nremote = \"10.255.0.9\"\nport = 4000\n\
             [[redundancy.path]]\nname = \"sync\"\nlocal = \"10.255.0.{own}\"\nremote = \"10.255.0.{other}\"\n\
             [[redundancy.path]]\nname = \"spare\"\nlocal = \"10.255.1.{own}\"\nremote = \"10.255.1.{other}\"\n",
            partner.public_key
        )
    };
    (a.redundancy, b.redundancy) = (redundancy(&b, 1, 2), redundancy(&a, 2, 1));
    for site in [&a, &b] {
        site.configure(&(0..maps).map(|i| format!("m{i}")).collect::<Vec<_>>());
    }
    (a, b)
}

/// As [`two_nodes`], with a session that is up.
fn pair(maps: usize) -> (Site, Site) {
    let (mut a, mut b) = two_nodes(maps);
    for site in [&mut a, &mut b] {
        site.start_control();
        site.wait_connected();
    }
    wait("session up and epoch in force", || {
        [&a, &b].iter().all(|site| is_up(site) && site.data_plane.books().epochs.iter().any(|key| key.send))
    });
    (a, b)
}

fn is_up(site: &Site) -> bool {
    let news = site.data_plane.books().news.clone();
    let last = news.iter().rev().find(|news| matches!(news, SessionNews::Up { .. } | SessionNews::Down));
    matches!(last, Some(SessionNews::Up { .. }))
}

fn incarnation(site: &Site) -> u64 {
    site.data_plane.books().grants.last().unwrap().incarnation
}

/// What the standby's data plane was told last of the partner's stream.
fn applied(site: &Site) -> Option<(u64, u64, bool)> {
    let books = site.data_plane.books();
    books.news.iter().rev().find_map(|news| match *news {
        SessionNews::Applied { incarnation, position, end_of_bulk } => {
            Some((incarnation, position, end_of_bulk))
        }
        _ => None,
    })
}

#[test]
fn two_controls_find_each_other_agree_and_exchange_an_epoch() {
    in_namespace(|| {
        let (a, b) = pair(3);
        for (site, other, number) in [(&a, &b, 0), (&b, &a, 1)] {
            let partner = incarnation(other);
            let books = site.data_plane.books();
            assert_eq!(books.said[..6], ["Hello", "ListSas", "PairStatus", "SetPair", "Grant", "Configure"]);
            assert!(!books.said.contains(&"SetRole"));
            let pair = books.pair.as_ref().unwrap();
            assert_eq!((pair.node, pair.partner.as_ref().unwrap().paths.len()), (number, 3));
            assert!(books.news.contains(&SessionNews::Up { partner_incarnation: partner }));
            let grant = books.grants.last().unwrap();
            assert!(!books.grants[0].eligible && grant.eligible, "{:?}", books.grants);
            assert!(grant.reserved > grant.taken && grant.incarnation > 0);
            assert_eq!(books.made, 6);
        }
        // Node 1 opens with the key before node 0 seals with it, and seals with it after.
        let (keys_a, keys_b) = (a.data_plane.books().epochs.clone(), b.data_plane.books().epochs.clone());
        assert_eq!(keys_a.iter().map(|key| key.send).collect::<Vec<_>>(), [true]);
        assert_eq!(keys_b.iter().map(|key| key.send).collect::<Vec<_>>(), [false, true]);
        assert!(keys_a[0].secret == keys_b[1].secret && keys_b[0].number == keys_a[0].number);

        let shown = a.ctl(&["--json", "show", "redundancy"]).json();
        let session = &shown["partner"]["session"];
        assert_eq!((&session["state"], &session["path"]), (&"up".into(), &"sync".into()), "{shown}");
        assert_eq!(session["configuration_equal"], true);
        assert_eq!(shown["record"]["paired_with"], b.public_key.as_str());
        let ssp = b.ctl(&["--json", "show", "ssp"]).json();
        assert_eq!((&ssp["packets"]["sessions"], &ssp["packets"]["bad"]), (&1.into(), &0.into()), "{ssp}");
        assert_eq!((&ssp["peers"][0]["in_use"], &ssp["peers"][1]["in_use"]), (&false.into(), &true.into()));
    });
}

#[test]
fn the_active_node_sends_its_sas_and_the_standby_confirms_them() {
    in_namespace(|| {
        let (a, b) = pair(100);
        let first = a.data_plane.books().grants.last().unwrap().taken + 2;
        a.data_plane.take_over(first);
        // Start and end of the bulk, and 200 SAs.
        wait("applied", || applied(&b) == Some((incarnation(&b), 202, true)));
        let grant = *a.data_plane.books().grants.last().unwrap();
        assert_eq!((grant.reign, grant.taken, first % 2), (first, first, 0));
        assert!(grant.reserved >= first + 8, "{grant:?}");
        let installs =
            |site: &Site| site.data_plane.books().said.iter().filter(|w| **w == "InstallSas").count();
        assert_eq!(
            (installs(&b), b.data_plane.books().made),
            (2, 200),
            "what is configured is only confirmed"
        );
        // A quiet point, and an SA that is to be sent again.
        a.data_plane.say(Event::Joining { incarnation: incarnation(&b) });
        let quiet = SessionNews::Quiet { incarnation: incarnation(&b), position: 202 };
        wait("quiet", || a.data_plane.books().news.contains(&quiet));
        a.data_plane.say(Event::Resend { direction: Direction::Inbound, spi: 0x1005 });
        wait("sent again", || applied(&b).map(|(_, position, _)| position) == Some(203));
        // What was applied holds for a new incarnation, too, and for a data plane that comes back.
        b.data_plane.say(Event::NeedGrant { incarnation: true });
        wait("said again", || applied(&b) == Some((incarnation(&b), 203, true)));
        b.data_plane.restart();
        b.wait_connected();
        wait("said to the next one", || applied(&b) == Some((incarnation(&b), 203, true)));
        // The roles change: the stream goes the other way, with positions of its own.
        b.data_plane.take_over(first + 1);
        a.data_plane.books().role = Role::Standby;
        a.data_plane.say(Event::Reign { term: first + 1, own: false });
        wait("applied by the other one", || applied(&a) == Some((incarnation(&a), 202, true)));
        assert_eq!(a.data_plane.books().grants.last().unwrap().reign, first + 1);
        let history = HistoryEntry { unix_us: 1, step: "takeover".to_owned(), text: "fresh".to_owned() };
        b.data_plane.say(Event::History(history));
        wait("history", || {
            let shown = b.ctl(&["--json", "show", "redundancy", "history"]).json();
            shown["entries"][0]["step"] == "takeover"
        });
        let refused = b.ctl(&["redundancy", "switch-over"]);
        assert!(refused.status == 1 && refused.stderr.contains("not strict"), "{}", refused.stderr);
        let done = a.ctl(&["--json", "redundancy", "switch-over"]).json();
        assert_eq!((&done["role_before"], &done["role"]), (&"standby".into(), &"active".into()), "{done}");
    });
}

#[test]
fn a_new_incarnation_is_on_disk_and_reaches_the_partner() {
    in_namespace(|| {
        let (a, mut b) = pair(1);
        let before = incarnation(&b);
        b.data_plane.say(Event::NeedGrant { incarnation: true });
        wait("granted", || incarnation(&b) == before + 1);
        let up = SessionNews::Up { partner_incarnation: before + 1 };
        wait("told", || a.data_plane.books().news.last() == Some(&up));
        // Control comes back before a data plane that has it: the incarnation is kept, and the key of the paths renewed.
        let epoch = a.data_plane.books().epochs.last().unwrap().number;
        b.kill_control();
        wait("down", || !is_up(&a));
        b.start_control();
        wait("up again", || is_up(&a) && is_up(&b));
        assert_eq!(incarnation(&b), before + 1);
        wait("another epoch", || {
            [&a, &b].iter().all(|site| {
                let books = site.data_plane.books();
                books.epochs.last().is_some_and(|key| key.send && key.number > epoch)
            })
        });
        // The data plane comes back with the memory that was kept: it has forgotten what it sealed and which datagrams
        // it has seen, so that incarnation and key are new.
        let epoch = a.data_plane.books().epochs.last().unwrap().number;
        b.data_plane.restart();
        b.wait_connected();
        wait("a key above and the session again", || {
            [&a, &b].iter().all(|site| {
                let books = site.data_plane.books();
                books.epochs.last().is_some_and(|key| key.send && key.number > epoch)
                    && !books.news.is_empty()
            })
        });
        assert_eq!((incarnation(&b), b.data_plane.books().was_handed), (before + 2, true));
    });
}

#[test]
fn lost_memory_makes_a_new_incarnation_and_a_new_key() {
    in_namespace(|| {
        let (a, mut b) = pair(1);
        let (before, granted) = (incarnation(&b), *b.data_plane.books().grants.last().unwrap());
        let epoch = a.data_plane.books().epochs.last().unwrap().number;
        b.kill_control();
        b.data_plane.restart();
        b.start_control();
        wait("up with a new key", || {
            is_up(&a) && is_up(&b) && a.data_plane.books().epochs.last().is_some_and(|key| key.number > epoch)
        });
        // One more where the partner had heard of it by a session that did not last.
        assert!(incarnation(&b) > before);
        // What the earlier memory could have taken counts as used.
        assert!(b.data_plane.books().grants.last().unwrap().taken >= granted.reserved);
    });
}

#[test]
fn a_mismatch_is_refused_and_its_key_named_on_both_nodes_until_it_is_mended() {
    in_namespace(|| {
        let (mut a, mut b) = two_nodes(3);
        let good = std::fs::read_to_string(b.config_file()).unwrap();
        let key = format!("key = \"{:040x}\"", 1);
        assert!(good.contains(&key));
        std::fs::write(b.config_file(), good.replace(&key, &format!("key = \"{:040x}\"", 77))).unwrap();
        for site in [&mut a, &mut b] {
            site.start_control();
            site.wait_connected();
        }
        for site in [&a, &b] {
            wait("named", || {
                let shown = site.ctl(&["--json", "show", "redundancy"]).json();
                let session = &shown["partner"]["session"];
                let named = session["first_difference"].as_str().unwrap_or_default().to_owned();
                session["state"] == "refused"
                    && session["configuration_equal"] == false
                    && named.contains("crypto-map.m1.static.inbound.key")
            });
            assert!(site.log().contains("crypto-map.m1.static.inbound.key"));
            let books = site.data_plane.books();
            assert!(books.epochs.is_empty() && books.news.is_empty(), "{:?}", books.news);
            assert!(books.grants.iter().all(|grant| !grant.eligible), "{:?}", books.grants);
        }
        // Tried again each second, and said once.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        assert_eq!(a.log().matches("crypto-map.m1.static.inbound.key").count(), 1, "{}", a.log());
        std::fs::write(b.config_file(), good).unwrap();
        assert_eq!(b.ctl(&["config", "reload"]).status, 0);
        wait("up", || is_up(&a) && is_up(&b));
        // A change on one node alone ends the session; the same on the other one brings it back.
        for (site, other) in [(&a, &b), (&b, &a)] {
            site.configure(&["m0", "m1"]);
            assert_eq!(site.ctl(&["config", "reload"]).status, 0);
            if site.public_key == a.public_key {
                wait("down", || !is_up(site) && !is_up(other));
                wait("named", || {
                    other.log().contains("crypto-map.m2.") && site.log().contains("crypto-map.m2.")
                });
            }
        }
        wait("up again", || is_up(&a) && is_up(&b));
    });
}

#[test]
fn another_key_than_the_partners_is_refused_and_the_cure_named() {
    in_namespace(|| {
        let (mut a, mut b) = two_nodes(1);
        let stranger = Site::new(0);
        let text = std::fs::read_to_string(b.config_file()).unwrap();
        std::fs::write(b.config_file(), text.replace(&a.public_key, &stranger.public_key)).unwrap();
        for site in [&mut a, &mut b] {
            site.start_control();
            site.wait_connected();
        }
        wait("refused", || {
            b.log().contains("not the configured partner") && b.log().contains("tandemctl node show")
        });
        assert!(!is_up(&a) && !is_up(&b));
    });
}

#[test]
fn what_a_living_data_plane_cannot_take_is_refused_and_the_priority_is_not() {
    in_namespace(|| {
        let (a, b) = pair(1);
        let text = std::fs::read_to_string(a.config_file()).unwrap();
        std::fs::write(a.config_file(), text.replace("port = 4000", "port = 4001")).unwrap();
        let refused = a.ctl(&["config", "reload"]);
        assert!(refused.status == 1 && refused.stderr.contains("[redundancy]"), "{}", refused.stderr);
        std::fs::write(a.config_file(), text.replace("[redundancy]\n", "[redundancy]\npriority = 7\n"))
            .unwrap();
        assert_eq!(a.ctl(&["config", "reload"]).status, 0);
        let priority = a.data_plane.books().pair.as_ref().unwrap().partner.as_ref().unwrap().priority;
        assert!(priority == 7 && is_up(&a) && is_up(&b));
    });
}

#[test]
fn a_session_whose_path_dies_moves_to_another_one_and_keeps_the_key_of_the_paths() {
    in_namespace(|| {
        let (a, b) = pair(1);
        let epoch = a.data_plane.books().epochs.last().unwrap().number;
        ip("addr del 10.255.0.2/32 dev lo");
        wait("over another path", || {
            [&a, &b].iter().all(|site| {
                let shown = site.ctl(&["--json", "show", "redundancy"]).json();
                let session = &shown["partner"]["session"];
                session["state"] == "up" && session["path"] == "spare"
            })
        });
        wait("told", || is_up(&a) && is_up(&b));
        for site in [&a, &b] {
            let books = site.data_plane.books();
            assert!(books.news.contains(&SessionNews::Down));
            assert_eq!(books.epochs.last().unwrap().number, epoch);
        }
        assert!(a.log().contains("nothing was heard for 3 s"), "{}", a.log());
    });
}

/// A partner in this process: the real driver with the node's key and configuration, and an owner that says yes.
async fn serve(partner: &mut Partner, done: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
    while !done() {
        assert!(tokio::time::Instant::now() < end, "{:?}", partner.report().await);
        let pause = std::time::Duration::from_millis(20);
        match tokio::time::timeout(pause, partner.news()).await {
            Ok(News::Paired(id, _)) => partner.tell(Told::Reserved(id)),
            Ok(News::Epoch(EpochKey { number, send, .. })) => {
                partner.tell(Told::EpochInstalled { number, send });
            }
            Ok(_) | Err(_) => {}
        }
    }
}

#[test]
fn an_sa_that_only_the_stream_names_is_installed_removed_and_refused_by_name() {
    in_namespace(|| {
        let (mut a, b) = two_nodes(2);
        let settings = settings_file::read(&b.config_file()).unwrap();
        let node = NodeState::open(Path::new(&b.path("state"))).unwrap();
        let key: [u8; 32] = hex::decode(&a.public_key).unwrap().try_into().unwrap();
        let mut extra = settings.sas[0].clone();
        (extra.spi, extra.policy) = (0x9999, 4242);
        let id = (extra.direction, extra.spi);
        let local = Local {
            node: 1,
            software: "0.1.0".to_owned(),
            file_id: node.file_id(),
            highest: node.highest(&key),
            reserved: 32,
            reign: 0,
            incarnation: 1,
            incarnation_seen: 0,
            digest: Digest::new(settings.digest()),
            epochs: Epochs::new(1, 1),
            store: Store::default(),
            source: Some(1),
            position: 0,
            counters: Counters::default(),
        };
        a.start_control();
        a.wait_connected();
        let sas = |more: &[SaSpec]| Told::Sas(settings.sas.iter().chain(more).cloned().collect());
        let held = || a.data_plane.books().sas.get(&id).map(|(_, sa)| sa.policy);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let keys = Keys { own: *node.secret_key(), partner: key };
            let paths = settings.redundancy.as_ref().unwrap().paths.clone();
            let mut partner = Partner::start(keys, paths, local);
            partner.tell(sas(std::slice::from_ref(&extra)));
            serve(&mut partner, || {
                applied(&a).is_some_and(|(_, position, end)| (position, end) == (7, true))
            })
            .await;
            // Under the number that its map has here.
            let policy =
                a.data_plane.books().sas.values().find(|(_, sa)| sa.map == extra.map).unwrap().1.policy;
            assert_eq!(held(), Some(policy));
            // A reload keeps it, a new data plane gets it again.
            assert_eq!(a.ctl(&["config", "reload"]).status, 0);
            assert_eq!(held(), Some(policy));
            a.data_plane.restart();
            serve(&mut partner, || held() == Some(policy)).await;
            partner.tell(sas(&[]));
            serve(&mut partner, || held().is_none() && a.data_plane.books().sas.len() == 4).await;
            // One that the data plane does not take is not acknowledged, and the partner hears why.
            a.data_plane.books().refused_spi = Some(0x9999);
            partner.tell(sas(std::slice::from_ref(&extra)));
            serve(&mut partner, || a.log().contains("cannot be installed: this SPI is refused")).await;
            assert_eq!(applied(&a).map(|(_, position, _)| position), Some(8));
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let reason = partner.report().await.unwrap().session.reason.unwrap();
            assert!(reason.contains("this SPI is refused"), "{reason}");
        });
    });
}
