use astral_proto::ids::{NodeId, SecretKey};

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

fn listed(catalog: &mut Catalog, local: bool, now: u64) -> usize {
    catalog.expire(now);
    catalog.nodes_for(local, None).count()
}

#[test]
fn lease_runs_from_first_sight_and_the_same_seq_never_extends_it() {
    let mut catalog = Catalog::default();
    let (from, record) = (ip("203.0.113.5"), node(1, 7, "203.0.113.5:8000"));
    assert!(catalog.submit_node(record.clone(), from, 0).is_ok());
    let again = catalog.submit_node(record.clone(), from, LEASE_MS - 1);
    assert_eq!(again.unwrap_err(), Refusal::Stale);
    assert_eq!(listed(&mut catalog, false, LEASE_MS - 1), 1);
    assert_eq!(listed(&mut catalog, false, LEASE_MS), 0);
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
    assert_eq!(listed(&mut catalog, true, 1), 1);
    assert_eq!(listed(&mut catalog, false, 1), 0);
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
    assert_eq!(renewed.unwrap(), Taken::Renewed);
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
    let found = |text: &str| match catalog.find(text) {
        Found::One(row) => Some(row.record.value().id()),
        Found::Many(_) | Found::Nothing => None,
    };
    assert_eq!(found("my-show"), Some(id(1)));
    assert_eq!(found(&full_slug("My show", id(2))), Some(id(2)));
    assert_eq!(found(&full_slug("My show", id(3))), None);
    assert_eq!(found(&id(3).to_string()), Some(id(3)));
    assert_eq!(catalog.streams(None).count(), 2);
}

#[test]
fn what_is_gone_is_remembered_for_a_day_and_a_strangers_tombstone_for_a_lease() {
    let mut catalog = Catalog::default();
    let from = ip("203.0.113.5");
    let ended = |seq| stream(1, seq, |r| r.state = StreamState::Ended);
    assert!(catalog.submit_stream(ended(5), from, 0).is_ok());
    assert_eq!(catalog.streams.marks(), 1);
    catalog.expire(LEASE_MS);
    assert_eq!(catalog.streams.marks(), 0, "nothing was ever here");
    assert!(
        catalog
            .submit_stream(stream(1, 6, |_| ()), from, LEASE_MS)
            .is_ok()
    );
    assert!(catalog.submit_stream(ended(7), from, LEASE_MS).is_ok());
    assert_eq!(catalog.streams.len(), 0);
    let replayed = catalog.submit_stream(stream(1, 6, |_| ()), from, REMEMBERED_MS);
    assert_eq!(replayed.unwrap_err(), Refusal::Stale);
    catalog.expire(2 * LEASE_MS + REMEMBERED_MS);
    assert_eq!(catalog.streams.marks(), 0);
}

#[test]
fn stream_keeps_its_bare_slug_over_a_pause_that_outlasts_its_lease() {
    let mut catalog = Catalog::default();
    let from = ip("203.0.113.5");
    catalog
        .submit_stream(stream(1, 1, |_| ()), from, 0)
        .unwrap();
    catalog
        .submit_stream(stream(2, 1, |_| ()), from, 1)
        .unwrap();
    let late = LEASE_MS * 2;
    catalog
        .submit_stream(stream(2, 2, |_| ()), from, late)
        .unwrap();
    let slug = |catalog: &Catalog, seed| catalog.slug(stream(seed, 1, |_| ()).value());
    assert_eq!(slug(&catalog, 2), "my-show");
    catalog
        .submit_stream(stream(1, 2, |_| ()), from, late)
        .unwrap();
    assert_eq!(slug(&catalog, 1), "my-show");
    assert_ne!(slug(&catalog, 2), "my-show");
}

#[test]
fn names_without_ascii_letters_are_found_by_their_slug() {
    let mut catalog = Catalog::default();
    let record = stream(1, 1, |r| r.name = "直播".into());
    let id = record.value().id();
    catalog.submit_stream(record, ip("203.0.113.5"), 0).unwrap();
    let slug = slug_of("直播", id);
    let Found::One(row) = catalog.find(&slug) else {
        panic!("{slug} is not found");
    };
    assert_eq!(row.record.value().id(), id);
}

#[test]
fn misspelt_name_leads_to_those_that_are_near() {
    let mut catalog = Catalog::default();
    catalog
        .submit_stream(stream(1, 1, |_| ()), ip("203.0.113.5"), 0)
        .unwrap();
    assert_eq!(catalog.near("show", 3), ["my-show"]);
    assert_eq!(catalog.near("my-shows", 3), ["my-show"]);
    assert_eq!(catalog.near("~", 3), Vec::<String>::new());
    assert_eq!(catalog.near("cat", 3), Vec::<String>::new());
}

#[test]
fn flood_leaves_live_rows_of_one_lease_and_marks() {
    let mut catalog = Catalog::default();
    let from = ip("203.0.113.5");
    let mut refused = 0;
    for step in 0..2_000u32 {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&step.to_be_bytes());
        let key = SecretKey::from_seed(seed);
        let record = NodeRecord {
            key: key.public(),
            ..node(1, 1, "203.0.113.5:1").value().clone()
        };
        let signed = SignedNode::sign(record, &key);
        let taken = catalog.submit_node(signed, from, u64::from(step) * 6);
        refused += usize::from(taken.is_err());
    }
    assert_eq!(refused, 2_000 - NodeRecord::PER_PREFIX);
    assert_eq!(catalog.nodes.len(), NodeRecord::PER_PREFIX);
}
