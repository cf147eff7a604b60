use std::collections::BTreeMap;

use astral_proto::api::SettingValue;
use astral_proto::ids::NodeId;

use super::super::memory::{PEERS_MAX, SLUGS_MAX, WANTED_MAX};
use super::*;

fn id(number: u64) -> NodeId {
    NodeId(uuid::Uuid::from_u64_pair(7, number))
}

fn stream_id(number: u64) -> StreamId {
    StreamId(uuid::Uuid::from_u64_pair(8, number))
}

fn peer(connected_ms: u64) -> RememberedPeer {
    RememberedPeer {
        addresses: vec!["192.0.2.1:8000".to_owned()],
        connected_ms,
    }
}

/// Storage in a new folder, and a way to close it and open it again.
fn folder() -> (tempfile::TempDir, impl Fn() -> Storage) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (dir, move || Storage::open(&path).unwrap())
}

#[test]
fn settings_survive_a_restart_and_resets_do_too() {
    let (_dir, open) = folder();
    let two = BTreeMap::from([
        ("name".to_owned(), SettingValue::Text("x".to_owned())),
        ("verbosity".to_owned(), SettingValue::Number(1)),
    ]);
    open().put_settings(&two).unwrap();
    assert_eq!(open().settings().unwrap(), two);
    let one = BTreeMap::from([("name".to_owned(), SettingValue::List(vec![]))]);
    open().put_settings(&one).unwrap();
    assert_eq!(open().settings().unwrap(), one);
}

#[test]
fn peers_that_were_connected_last_are_remembered_and_come_first() {
    let (_dir, open) = folder();
    let storage = open();
    let many = (0..PEERS_MAX as u64).map(|i| (id(i), peer(1_000 + i)));
    storage.put_peers(&many.collect()).unwrap();
    let new = BTreeMap::from([(id(9_999), peer(5_000)), (id(3), peer(4_000))]);
    storage.put_peers(&new).unwrap();
    storage.forget_peer(id(9)).unwrap();
    drop(storage);
    let kept = open().peers().unwrap();
    assert_eq!(kept.len(), PEERS_MAX - 1);
    assert_eq!(kept[0], (id(9_999), peer(5_000)));
    assert_eq!(kept[1], (id(3), peer(4_000)));
    let is_kept = |node| kept.iter().any(|(known, _)| *known == id(node));
    assert!(!is_kept(0) && is_kept(1), "the longest unseen one goes");
    assert!(!is_kept(9), "forgotten");
}

#[test]
fn slugs_keep_their_meaning_and_the_longest_unseen_go() {
    let (_dir, open) = folder();
    let slug = |i: u64, seen_ms| RememberedSlug {
        slug: format!("show-{i}"),
        stream: stream_id(i),
        seen_ms,
    };
    let many: Vec<_> = (0..SLUGS_MAX as u64).map(|i| slug(i, i)).collect();
    open().put_slugs(&many).unwrap();
    open().put_slugs(&[slug(50_000, 50_000)]).unwrap();
    let kept = open().slugs().unwrap();
    assert_eq!(kept.len(), SLUGS_MAX);
    assert_eq!(kept[0], slug(1, 1));
    assert_eq!(kept.last(), Some(&slug(50_000, 50_000)));
}

#[test]
fn wanted_streams_survive_a_restart_up_to_a_bound() {
    let (_dir, open) = folder();
    let wanted = |i| WantedStream {
        nodes: vec![(id(i), vec!["192.0.2.1:8000".to_owned()])],
        carried: (i == 7).then_some(true),
    };
    let storage = open();
    for i in 0..=WANTED_MAX as u64 {
        storage.put_wanted(stream_id(i), Some(&wanted(i))).unwrap();
    }
    storage.put_wanted(stream_id(1), None).unwrap();
    storage.put_wanted(stream_id(2), Some(&wanted(7))).unwrap();
    drop(storage);
    let kept = open().wanted().unwrap();
    assert_eq!(kept.len(), WANTED_MAX - 1);
    assert!(!kept.contains_key(&stream_id(1)));
    assert!(!kept.contains_key(&stream_id(WANTED_MAX as u64)));
    assert_eq!(kept[&stream_id(2)], wanted(7));
}

#[test]
fn rows_of_a_later_form_are_passed_over_and_stay() {
    let (_dir, open) = folder();
    let storage = open();
    storage
        .put_wanted(stream_id(1), Some(&Default::default()))
        .unwrap();
    let table = TableDefinition::<&[u8], &[u8]>::new("wanted");
    let key = stream_id(2).0;
    let put = storage.with(|database| {
        let transaction = begin(database)?;
        transaction
            .open_table(table)?
            .insert(key.as_bytes().as_slice(), [2, 99].as_slice())?;
        Ok(transaction.commit()?)
    });
    put.unwrap();
    assert_eq!(storage.wanted().unwrap().len(), 1);
    storage
        .put_wanted(stream_id(3), Some(&Default::default()))
        .unwrap();
    let row = storage.with(|database| {
        let table = database.begin_read()?.open_table(table)?;
        Ok(table
            .get(key.as_bytes().as_slice())?
            .map(|row| row.value().to_vec()))
    });
    assert_eq!(row.unwrap(), Some(vec![2, 99]));
}

#[test]
fn folder_of_a_version_without_these_tables_is_read() {
    let (_dir, open) = folder();
    let storage = open();
    assert!(storage.settings().unwrap().is_empty());
    assert!(storage.peers().unwrap().is_empty());
    assert!(storage.slugs().unwrap().is_empty());
    assert!(storage.wanted().unwrap().is_empty());
}
