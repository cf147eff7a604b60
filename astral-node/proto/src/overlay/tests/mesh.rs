//! A primary and a backup, records between supernodes, streams fetched for others.

use super::*;
use crate::overlay::supernodes::Mode;
use crate::wire::control::{Peers, Register};

fn always(net: &mut Net, nodes: &[usize]) {
    for node in nodes {
        net.event(*node, Event::Supernodes { mode: Mode::Always });
    }
}

fn auto(net: &mut Net, nodes: &[usize]) {
    for node in nodes {
        net.event(*node, Event::Supernodes { mode: Mode::Auto });
    }
}

fn primary(net: &Net, node: usize) -> Option<NodeId> {
    net.nodes[node].overlay.primary_supernode()
}

fn backup(net: &Net, node: usize) -> Option<NodeId> {
    net.nodes[node].overlay.backup_supernode()
}

fn number(net: &Net, id: Option<NodeId>) -> usize {
    (0..net.nodes.len())
        .find(|node| Some(net.id(*node)) == id)
        .expect("one of the nodes")
}

fn lists(net: &Net, node: usize) -> bool {
    let views = net.nodes[node].overlay.streams_view(net.now);
    views
        .iter()
        .any(|view| view.record.value().id() == net.stream())
}

/// Supernodes 0 to `supernodes - 1`, connected in a row; the others know the first.
fn network(supernodes: usize, others: usize) -> Net {
    let mut net = Net::new(&vec![4; supernodes + others]);
    let all: Vec<usize> = (0..supernodes).collect();
    always(&mut net, &all);
    for node in 1..supernodes {
        net.bootstrap(node, node - 1);
    }
    net.run(Duration::from_secs(1));
    for node in supernodes..supernodes + others {
        net.bootstrap(node, 0);
        auto(&mut net, &[node]);
    }
    net.run(Duration::from_secs(3));
    net
}

#[test]
fn node_has_a_primary_and_a_backup_which_takes_over_within_two_seconds() {
    let mut net = network(3, 1);
    let (first, second) = (primary(&net, 3), backup(&net, 3));
    assert!(first.is_some() && second.is_some() && first != second);
    let lost = number(&net, first);
    net.kill(lost);
    net.run(Duration::from_secs(2));
    assert_eq!(primary(&net, 3), second, "the backup takes over");
    net.run(Duration::from_secs(3));
    let third = backup(&net, 3);
    assert!(
        third.is_some() && third != second && third != first,
        "a new backup"
    );
    assert_eq!(net.nodes[3].overlay.role(), Role::Node);
}

#[test]
fn node_becomes_a_supernode_when_none_has_room() {
    let mut net = Net::new(&[2, 2]);
    always(&mut net, &[0]);
    net.nodes[0].overlay.supernodes.registration.capacity = 0;
    net.bootstrap(1, 0);
    auto(&mut net, &[1]);
    net.run(Duration::from_secs(3));
    assert_eq!(net.nodes[1].overlay.role(), Role::Supernode);
}

#[test]
fn crowd_spreads_over_supernodes() {
    let net = network(3, 40);
    let counts: Vec<usize> = (0..3)
        .map(|node| {
            let here = Some(net.id(node));
            (3..43)
                .filter(|other| primary(&net, *other) == here)
                .count()
        })
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 40, "{counts:?}");
    assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
}

#[test]
fn stream_published_anywhere_is_listed_everywhere_within_two_seconds() {
    let mut net = network(4, 8);
    net.publish();
    net.run(Duration::from_secs(2));
    for node in 0..12 {
        assert!(lists(&net, node), "node {node}");
    }
}

#[test]
fn two_networks_that_learn_of_each_other_become_one() {
    let mut net = Net::new(&[4; 6]);
    always(&mut net, &[0, 3]);
    for (node, to) in [(1, 0), (2, 0), (4, 3), (5, 3)] {
        net.bootstrap(node, to);
        auto(&mut net, &[node]);
    }
    net.run(Duration::from_secs(3));
    net.publish();
    net.run(Duration::from_secs(2));
    assert!(lists(&net, 2) && !lists(&net, 5), "apart");
    // A share link leads an ordinary node of one to an ordinary node of the other.
    net.bootstrap(2, 4);
    net.run(Duration::from_secs(3));
    assert!(lists(&net, 5), "one");
    let mesh = net.nodes[0].overlay.mesh();
    assert_eq!(mesh, [net.id(3)], "their supernodes have met");
}

#[test]
fn network_goes_on_when_its_only_supernode_dies() {
    let mut net = network(1, 3);
    net.kill(0);
    net.run(Duration::from_secs(12));
    let role = |node: usize| net.nodes[node].overlay.role();
    let supernodes = (1..4).filter(|node| role(*node) == Role::Supernode);
    assert!(supernodes.count() >= 1);
    for node in 1..4 {
        let settled = role(node) == Role::Supernode || primary(&net, node).is_some();
        assert!(settled, "node {node}");
    }
}

#[test]
fn supernode_fetches_a_stream_once_for_those_who_are_registered_there() {
    // The publisher has room for one; the viewers know the supernode only.
    let mut net = Net::new(&[1, 4, 0, 0, 0]);
    always(&mut net, &[1]);
    net.event(0, Event::Supernodes { mode: Mode::Never });
    net.walled.insert(0);
    net.bootstrap(0, 1);
    net.run(Duration::from_secs(1));
    net.publish();
    for node in 2..5 {
        net.bootstrap(node, 1);
        auto(&mut net, &[node]);
    }
    net.run(Duration::from_secs(2));
    for node in 2..5 {
        net.watch(node);
    }
    net.run(Duration::from_secs(3));
    net.check(&[2, 3, 4]);
    for node in 2..5 {
        assert_eq!(net.parent(node), Some(net.id(1)));
    }
    assert_eq!(net.nodes[0].overlay.children(), 1, "one copy");
    let view = net.nodes[1]
        .overlay
        .stream_view(net.now, net.stream())
        .unwrap();
    assert_eq!(view.viewers, 3, "a supernode that serves is no viewer");
    // Nobody watches any more: the copy ends.
    let stream = net.stream();
    for node in 2..5 {
        net.event(node, Event::Unwant { stream, why: None });
    }
    net.run(Duration::from_secs(15));
    assert_eq!(net.nodes[0].overlay.children(), 0);
    assert_eq!(net.parent(1), None);
}

fn conn_to(net: &Net, from: usize, to: usize) -> ConnId {
    net.nodes[from].overlay.by_node[&net.id(to)]
}

#[test]
fn counts_of_a_supernode_are_signed_and_reach_the_others() {
    let mut net = network(2, 3);
    net.run(Duration::from_secs(12));
    let first = net.id(0);
    let known = net.nodes[1].overlay.records.node(first).unwrap();
    let load = known.record.value().load.clone().expect("it counts");
    let registered = net.nodes[0].overlay.registered_nodes();
    assert_eq!(load.registered as usize, registered);
    assert!(load.room > 0);
}

// What strangers do

pub(super) fn foreign(seed: u16, seq: u64, role: Role) -> SignedNode {
    let [high, low] = seed.to_be_bytes();
    let mut bytes = [200; 32];
    (bytes[0], bytes[1]) = (high, low);
    let key = SecretKey::from_seed(bytes);
    let record = NodeRecord {
        key: key.public(),
        seq,
        addresses: vec![Address("192.0.2.1:9".parse().unwrap())],
        role,
        alias: None,
        name: None,
        software: None,
        public_http: None,
        removed: None,
        load: None,
    };
    SignedNode::sign(record, &key)
}

fn tell(net: &mut Net, from: usize, to: usize, records: &[SignedNode]) {
    let conn = conn_to(net, to, from);
    let records = records
        .iter()
        .map(|record| crate::wire::control::RecordBytes(record.wire().clone()))
        .collect();
    let message = Peers { records }.into();
    net.event(to, Event::Received { conn, message });
}

#[test]
fn replayed_record_prolongs_nothing_and_an_older_one_changes_nothing() {
    let mut net = network(1, 1);
    let (old, new) = (foreign(1, 5, Role::Supernode), foreign(1, 6, Role::Node));
    tell(&mut net, 1, 0, std::slice::from_ref(&new));
    let id = new.value().id();
    let renewed = |net: &Net| {
        let known = net.nodes[0].overlay.records.node(id).unwrap();
        (known.renewed, known.record.value().seq)
    };
    let first = renewed(&net);
    net.run(Duration::from_secs(5));
    tell(&mut net, 1, 0, &[new, old]);
    assert_eq!(renewed(&net), first);
}

#[test]
fn one_peer_fills_only_its_part_of_the_table_of_nodes() {
    let mut net = network(1, 1);
    for batch in 0..10u16 {
        let records: Vec<SignedNode> = (0..30)
            .map(|at| foreign(batch * 30 + at, 1, Role::Supernode))
            .collect();
        tell(&mut net, 1, 0, &records);
    }
    let known = net.nodes[0].overlay.records.nodes().count();
    assert!(known <= 256 + 2, "{known}");
    assert_eq!(primary(&net, 1), Some(net.id(0)), "nobody was pushed out");
}

#[test]
fn peer_that_floods_with_records_is_let_go() {
    let mut net = network(1, 1);
    let records: Vec<SignedNode> = (0..32).map(|at| foreign(at, 1, Role::Node)).collect();
    let conn = conn_to(&net, 0, 1);
    for _ in 0..600 {
        if net.nodes[0].links.contains_key(&conn) {
            tell(&mut net, 1, 0, &records);
        }
    }
    assert!(!net.nodes[0].links.contains_key(&conn));
}

#[test]
fn flood_of_registrations_is_answered_a_few_times_a_second() {
    let mut net = network(1, 1);
    let conn = conn_to(&net, 0, 1);
    for _ in 0..1_000 {
        let register = Register {
            primary: true,
            over: None,
        };
        let message = register.into();
        net.event(0, Event::Received { conn, message });
    }
    let answers = net.queue.values().filter(|(to, _, packet)| {
        *to == 1 && matches!(packet, Packet::Message(Message::Registered(_)))
    });
    assert!(answers.count() <= 4);
    assert_eq!(net.nodes[0].overlay.registered_nodes(), 1);
}
