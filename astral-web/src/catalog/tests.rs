use astral_proto::ids::{NodeId, SecretKey};
use astral_proto::record::Role;

use super::table::prefix;
use super::*;

const HOUR: u64 = 3_600_000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node(seed: u8, seq: u64, address: &str) -> SignedNode {
    let key = SecretKey::from_seed([seed; 32]);
    let record = NodeRecord {
        key: key.public(),
        seq,
        addresses: vec![Address::canonical(address.parse().unwrap())],
        role: Role::Supernode,
        alias: None,
        name: None,
        software: None,
        public_http: None,
        removed: None,
        load: None,
    };
    SignedNode::sign(record, &key)
}

fn stream(seed: u8, seq: u64, change: impl FnOnce(&mut StreamRecord)) -> SignedStream {
    let key = SecretKey::from_seed([seed; 32]);
    let mut record = StreamRecord {
        key: key.public(),
        seq,
        name: "My show".into(),
        description: None,
        publisher: NodeId::of(&key.public()),
        unlisted: None,
        epoch: 1,
        started_at_ms: 0,
        state: StreamState::Live,
        bitrate_bps: None,
        tracks: vec![],
        viewers: None,
    };
    change(&mut record);
    SignedStream::sign(record, &key)
}

#[test]
fn lease_runs_from_first_sight_and_the_same_seq_never_extends_it() {
    let mut catalog = Catalog::default();
    let (from, record) = (ip("203.0.113.5"), node(1, 7, "203.0.113.5:8000"));
    assert!(catalog.submit_node(record.clone(), from, 0).is_ok());
    let again = catalog.submit_node(record.clone(), from, LEASE_MS - 1);
    assert_eq!(again.unwrap_err(), Refusal::Stale);
    assert_eq!(catalog.nodes_for(false, None, LEASE_MS - 1).count(), 1);
    assert_eq!(catalog.nodes_for(false, None, LEASE_MS).count(), 0);
    let late = catalog.submit_node(record.clone(), from, 23 * HOUR);
    assert_eq!(late.unwrap_err(), Refusal::Stale);
    assert!(catalog.submit_node(record, from, 25 * HOUR).is_ok());
}

#[test]
fn address_of_another_host_is_refused_though_mapped_ones_are_the_same() {
    let mut catalog = Catalog::default();
    let from = ip("203.0.113.5");
    let foreign = catalog.submit_node(node(1, 1, "203.0.113.6:8000"), from, 0);
    assert_eq!(foreign.unwrap_err(), Refusal::Foreign(from));
    let mapped = node(1, 1, "[::ffff:203.0.113.5]:8000");
    assert!(catalog.submit_node(mapped, from, 0).is_ok());
}

#[test]
fn loopback_addresses_are_told_to_loopback_only() {
    let mut catalog = Catalog::default();
    let record = node(1, 1, "127.0.0.1:8000");
    catalog.submit_node(record, ip("127.0.0.1"), 0).unwrap();
    assert_eq!(catalog.nodes_for(true, None, 1).count(), 1);
    assert_eq!(catalog.nodes_for(false, None, 1).count(), 0);
}

#[test]
fn network_has_sixteen_live_nodes_and_loopback_as_many_as_it_likes() {
    let mut catalog = Catalog::default();
    for seed in 1..=20 {
        let from = ip(&format!("203.0.113.{seed}"));
        let taken = catalog.submit_node(node(seed, 1, &format!("{from}:1")), from, 0);
        assert_eq!(taken.is_ok(), seed <= 16, "{seed}");
        let local = node(100 + seed, 1, "127.0.0.1:1");
        assert!(catalog.submit_node(local, ip("127.0.0.1"), 0).is_ok());
    }
    let renewed = catalog.submit_node(node(1, 2, "203.0.113.1:1"), ip("203.0.113.1"), 1);
    assert_eq!(renewed.unwrap().0, Taken::Renewed);
    let after = catalog.submit_node(
        node(20, 1, "203.0.113.20:1"),
        ip("203.0.113.20"),
        LEASE_MS + 1,
    );
    assert!(after.is_ok());
    assert_eq!(prefix(ip("2001:db8:1:2::3")), prefix(ip("2001:db8:1:3::3")));
    assert_ne!(prefix(ip("2001:db8:1::")), prefix(ip("2001:db8:2::")));
}

#[test]
fn bare_slug_is_of_the_stream_seen_first_and_unlisted_ones_have_none() {
    let mut catalog = Catalog::default();
    let from = ip("203.0.113.5");
    let mut submit = |record, now| catalog.submit_stream(record, from, now).unwrap();
    submit(stream(3, 1, |r| r.unlisted = Some(true)), 0);
    submit(stream(1, 1, |_| ()), 1);
    submit(stream(2, 1, |_| ()), 2);
    submit(stream(1, 2, |_| ()), 3);
    let id = |seed| stream(seed, 1, |_| ()).value().id();
    let found = |text: &str| match catalog.find(text, 4) {
        Found::One(row) => Some(row.record.value().id()),
        Found::Many(_) | Found::Nothing => None,
    };
    assert_eq!(found("my-show"), Some(id(1)));
    assert_eq!(found(&full_slug("My show", id(2))), Some(id(2)));
    assert_eq!(found(&full_slug("My show", id(3))), None);
    assert_eq!(found(&id(3).to_string()), Some(id(3)));
    assert_eq!(catalog.streams(None, 4).count(), 2);
}
