use super::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn init_makes_key_and_terms_once_and_for_the_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let public = init(directory.path()).unwrap();
    for name in ["node/key", "node/terms", "node/numbers"] {
        let metadata = fs::metadata(directory.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let before = fs::read(directory.path().join("node/key")).unwrap();
    assert!(matches!(init(directory.path()), Err(StateError::Exists(_))));
    assert_eq!(fs::read(directory.path().join("node/key")).unwrap(), before);
    assert_eq!(NodeState::open(directory.path()).unwrap().public_key(), hex::encode(public));
}

#[test]
fn what_a_killed_init_left_is_no_node_and_does_not_stop_the_next() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("node.new")).unwrap();
    fs::write(directory.path().join("node.new/key"), "half").unwrap();
    assert!(matches!(NodeState::open(directory.path()), Err(StateError::Missing(_))));
    init(directory.path()).unwrap();
    NodeState::open(directory.path()).unwrap();
}

#[test]
fn two_processes_cannot_have_the_same_node() {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path()).unwrap();
    let first = NodeState::open(directory.path()).unwrap();
    assert!(matches!(NodeState::open(directory.path()), Err(StateError::Locked(_))));
    drop(first);
    NodeState::open(directory.path()).unwrap();
}

#[test]
fn each_start_takes_another_term_and_one_that_went_nowhere_is_used_later() {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path()).unwrap();
    let mut state = NodeState::open(directory.path()).unwrap();
    assert_eq!(state.take_term().unwrap(), 2);
    assert_eq!(state.take_term().unwrap(), 2);
    state.term_is_used();
    assert_eq!(state.take_term().unwrap(), 4);
    drop(state);
    // What a process took and did not use may have been used for all that the next one knows.
    assert_eq!(NodeState::open(directory.path()).unwrap().take_term().unwrap(), 6);
}

#[test]
fn a_term_heard_of_is_never_given_out() {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path()).unwrap();
    let mut state = NodeState::open(directory.path()).unwrap();
    state.take_term().unwrap();
    state.heard_term(1000).unwrap();
    assert_eq!(state.take_term().unwrap(), 1002);
    drop(state);
    assert!(NodeState::open(directory.path()).unwrap().take_term().unwrap() > 1002);
}

const PARTNER: [u8; 32] = [0xff; 32];

fn node() -> (tempfile::TempDir, NodeState) {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path()).unwrap();
    let state = NodeState::open(directory.path()).unwrap();
    (directory, state)
}

fn on_disk(directory: &tempfile::TempDir) -> TermFile {
    TermFile::decode(&fs::read(directory.path().join("node/terms")).unwrap()).unwrap()
}

#[test]
fn a_node_with_a_partner_becomes_eligible_when_it_has_learnt_the_partners_terms() {
    let (directory, mut state) = node();
    let before = state.grant(&PARTNER).unwrap();
    assert!(!before.eligible && before.reserved == before.taken);
    state.pair(&PARTNER, [100, 31]).unwrap();
    let grant = state.grant(&PARTNER).unwrap();
    assert!(grant.eligible && grant.taken >= 100 && grant.reserved >= grant.taken + 32);
    let file = on_disk(&directory);
    assert!(file.is_open() && file.partner() == Some(&PARTNER));
    assert_eq!((file.taken(), file.reserved()), (grant.taken, grant.reserved));
    assert_eq!(state.grant(&PARTNER).unwrap(), grant, "the next grant takes nothing");
    let other = state.grant(&[0xfe; 32]).unwrap();
    assert!(!other.eligible && other.reserved == other.taken, "another partner");
}

#[test]
fn the_order_of_the_keys_makes_the_node_number_and_a_key_is_no_pair_with_itself() {
    let (_directory, mut state) = node();
    assert_eq!(state.node_number(None).unwrap(), NodeNumber::Zero);
    assert_eq!(state.node_number(Some(&[0xff; 32])).unwrap(), NodeNumber::Zero);
    assert_eq!(state.node_number(Some(&[0; 32])).unwrap(), NodeNumber::One);
    state.pair(&[0; 32], [0, 0]).unwrap();
    assert_eq!(state.status().node, 1);
    let own = state.public_key_bytes();
    assert!(matches!(state.pair(&own, [0, 0]), Err(StateError::SameKey)));
}

#[test]
fn terms_that_were_granted_count_as_used_in_the_next_process_unless_the_memory_lives() {
    let (directory, mut state) = node();
    state.pair(&PARTNER, [0, 0]).unwrap();
    let incarnation = state.new_incarnation(Memory::Lost).unwrap();
    let first = state.grant(&PARTNER).unwrap();
    assert_eq!(first.incarnation, incarnation);
    drop(state);

    let mut state = NodeState::open(directory.path()).unwrap();
    assert!(state.resumes(incarnation));
    assert_eq!(state.grant(&PARTNER).unwrap(), first);
    drop(state);

    let mut state = NodeState::open(directory.path()).unwrap();
    assert!(!state.resumes(0));
    let second = state.new_incarnation(Memory::Lost).unwrap();
    let grant = state.grant(&PARTNER).unwrap();
    assert!(grant.taken >= first.reserved && second > incarnation && grant.incarnation == second);
    // Also in one process.
    state.new_incarnation(Memory::Lost).unwrap();
    assert!(state.grant(&PARTNER).unwrap().taken >= grant.reserved);
    drop(state);

    let mut state = NodeState::open(directory.path()).unwrap();
    let third = state.grant(&PARTNER).unwrap();
    assert!(third.taken >= grant.reserved + 32, "without a word of the data plane nothing is resumed");
}

#[test]
fn a_goodbye_takes_an_incarnation_and_no_terms() {
    let (directory, mut state) = node();
    state.pair(&PARTNER, [0, 0]).unwrap();
    let before = state.grant(&PARTNER).unwrap();
    let next = state.new_incarnation(Memory::Kept).unwrap();
    assert_eq!(on_disk(&directory).incarnation(), next);
    assert_eq!(state.grant(&PARTNER).unwrap(), Grant { incarnation: next, ..before });
    assert!(next > before.incarnation);
}

#[test]
fn an_incarnation_that_the_file_does_not_know_is_never_given_again() {
    let (_directory, mut state) = node();
    state.pair(&PARTNER, [0, 0]).unwrap();
    assert!(state.grant(&PARTNER).unwrap().incarnation < 40);
    state.seen_incarnation(40);
    assert_eq!(state.grant(&PARTNER).unwrap().incarnation, 41);
    assert!(!state.resumes(50));
    assert_eq!(state.new_incarnation(Memory::Lost).unwrap(), 51);
}

#[test]
fn a_reign_is_on_disk_and_the_next_grant_lies_above_it() {
    let (directory, mut state) = node();
    state.pair(&PARTNER, [0, 0]).unwrap();
    state.grant(&PARTNER).unwrap();
    state.note_reign(77).unwrap();
    assert_eq!(on_disk(&directory).reign(), 77);
    let grant = state.grant(&PARTNER).unwrap();
    assert!((grant.reign, grant.taken) == (77, 77) && grant.reserved >= 77 + 32);
    state.note_reign(5).unwrap();
    assert_eq!(on_disk(&directory).reign(), 77);
}

#[test]
fn what_could_not_be_written_is_not_granted_and_written_later() {
    let (directory, mut state) = node();
    state.pair(&PARTNER, [0, 0]).unwrap();
    let before = state.grant(&PARTNER).unwrap();
    // A folder in the way of the draft: nothing can be written.
    let obstacle = directory.path().join("node/terms.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(state.pair(&PARTNER, [500, 0]).is_err());
    assert!(state.note_reign(600).is_err());
    assert!(state.new_incarnation(Memory::Kept).is_err());
    assert!(state.grant(&PARTNER).is_err() && !state.nothing_granted().eligible);
    assert_eq!(on_disk(&directory).incarnation(), before.incarnation);
    fs::remove_dir(&obstacle).unwrap();
    let grant = state.grant(&PARTNER).unwrap();
    assert!(grant.eligible && grant.taken >= 600 && grant.reign == 600);
    assert!(grant.incarnation > before.incarnation);
}

#[test]
fn a_term_taken_alone_is_above_all_that_a_data_plane_may_have_taken_from_grants() {
    let (directory, mut state) = node();
    state.pair(&PARTNER, [0, 0]).unwrap();
    let incarnation = state.new_incarnation(Memory::Lost).unwrap();
    let grant = state.grant(&PARTNER).unwrap();
    let term = state.take_term().unwrap();
    assert!(term > grant.reserved);
    drop(state);
    let mut state = NodeState::open(directory.path()).unwrap();
    assert!(state.resumes(incarnation));
    let grant = state.grant(&PARTNER).unwrap();
    assert!(grant.taken >= term && on_disk(&directory).is_open());
}

#[test]
fn the_numbers_file_is_made_with_the_node_and_not_made_again_after_its_first_term() {
    let (directory, mut state) = node();
    let path = state.numbers_file();
    let read = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        tandem_lease::numbers::read(Some(&bytes), on_disk(&directory).file_id, true).unwrap()
    };
    assert_eq!(read(&path).loss, None);
    fs::remove_file(&path).unwrap();
    drop(state);
    state = NodeState::open(directory.path()).unwrap();
    assert_eq!(read(&path).loss, None);
    state.take_term().unwrap();
    fs::remove_file(&path).unwrap();
    drop(state);
    NodeState::open(directory.path()).unwrap();
    assert!(!path.exists(), "its loss must be seen");
}

#[test]
fn the_public_key_is_shown_while_a_daemon_has_the_node() {
    let (directory, state) = node();
    assert_eq!(public_key(directory.path()).unwrap(), state.public_key_bytes());
    let secret = StaticSecret::from(*state.secret_key());
    assert_eq!(PublicKey::from(&secret).to_bytes(), state.public_key_bytes());
    assert!(!format!("{state:?}").contains(&hex::encode(*state.secret_key())));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(public_key(empty.path()), Err(StateError::Missing(_))));
}

#[test]
fn a_damaged_term_file_or_an_open_key_is_refused_with_a_cure() {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path()).unwrap();
    let terms = directory.path().join("node/terms");
    let good = fs::read(&terms).unwrap();
    fs::write(&terms, &good[..good.len() - 3]).unwrap();
    let error = NodeState::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("node init"), "{error}");
    fs::write(&terms, good).unwrap();
    let key = directory.path().join("node/key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = NodeState::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
