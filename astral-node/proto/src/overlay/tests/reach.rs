//! Whether strangers can connect, who is introduced to whom, and who lies about it.

use super::*;
use crate::overlay::supernodes::{Mode, RoleReason};
use crate::wire::control::{Introduce, Probe, Probed};

fn mode(net: &mut Net, node: usize, mode: Mode) {
    net.event(node, Event::Supernodes { mode });
}

fn standing(net: &Net, node: usize) -> Standing {
    net.nodes[node].overlay.standing(net.now)
}

fn role(net: &Net, node: usize) -> Role {
    net.nodes[node].overlay.role()
}

pub(super) fn dial(net: &mut Net, from: usize, to: usize) {
    let target = Target {
        node: None,
        addresses: vec![net.at(to).0.to_string()],
    };
    net.event(from, Event::Bootstrap { target });
}

fn conn_to(net: &Net, from: usize, to: usize) -> ConnId {
    net.nodes[from].overlay.by_node[&net.id(to)]
}

/// Node 0 is a supernode, which the others dial.
fn star(limits: &[u64], walled: &[usize]) -> Net {
    let mut net = Net::public(limits);
    net.walled.extend(walled);
    mode(&mut net, 0, Mode::Auto);
    net.run(Duration::from_secs(2));
    for node in 1..limits.len() {
        dial(&mut net, node, 0);
        mode(&mut net, node, Mode::Auto);
    }
    net.run(Duration::from_secs(3));
    net
}

#[test]
fn supernode_is_proved_by_those_who_come_in_and_nodes_by_dialling_back() {
    let net = star(&[2, 2, 2], &[2]);
    assert_eq!(role(&net, 0), Role::Supernode);
    assert_eq!(standing(&net, 0), Standing::Reachable);
    assert_eq!(standing(&net, 1), Standing::Reachable);
    assert_eq!(standing(&net, 2), Standing::Unreachable);
    let reached = net.nodes[1].overlay.reached_at(net.now);
    assert_eq!(reached, [net.at(1)]);
    let primary = net.nodes[2].overlay.primary_supernode();
    assert_eq!(
        primary,
        Some(net.id(0)),
        "who cannot be reached registers all the same"
    );
}

#[test]
fn node_that_nobody_reaches_never_becomes_a_supernode() {
    let mut net = star(&[2, 2], &[1]);
    net.event(0, Event::Leave);
    net.kill(0);
    net.run(Duration::from_secs(15));
    assert_eq!(role(&net, 1), Role::Node);
    assert_eq!(net.nodes[1].overlay.role_reason(), RoleReason::Unreachable);
    mode(&mut net, 1, Mode::Always);
    net.run(Duration::from_secs(3));
    assert_eq!(role(&net, 1), Role::Node, "not even when it is told to");
}

#[test]
fn lone_node_that_became_a_supernode_retires_when_a_stranger_shows_it_is_walled() {
    let mut net = Net::public(&[2, 2]);
    net.walled.insert(0);
    mode(&mut net, 0, Mode::Auto);
    net.run(Duration::from_secs(2));
    assert_eq!(role(&net, 0), Role::Supernode, "nobody else is known");
    mode(&mut net, 1, Mode::Never);
    dial(&mut net, 0, 1);
    net.run(Duration::from_secs(12));
    assert_eq!(role(&net, 0), Role::Node);
}

#[test]
fn claim_to_be_a_supernode_is_tried_before_it_is_believed() {
    let mut net = star(&[2, 2, 2], &[1]);
    let record = net.nodes[1].overlay.record.value().clone();
    let record = NodeRecord {
        seq: record.seq + 1,
        role: Role::Supernode,
        ..record
    };
    let record = SignedNode::sign(record, &net.nodes[1].key);
    let conn = conn_to(&net, 0, 1);
    let records = vec![crate::wire::control::RecordBytes(record.wire().clone())];
    let message = crate::wire::control::Peers { records }.into();
    net.event(0, Event::Received { conn, message });
    net.run(Duration::from_secs(3));
    assert!(
        net.nodes[0].overlay.mesh().is_empty(),
        "it cannot be reached"
    );
    let told = net.nodes[2].overlay.records.node(net.id(1));
    assert!(told.is_none(), "and nobody hears of it");
}

#[test]
fn peer_that_says_it_dialled_back_and_did_not_proves_nothing() {
    let mut net = Net::public(&[2, 2]);
    net.walled.insert(1);
    // Node 0 answers nothing of itself: it is not asked to run.
    dial(&mut net, 1, 0);
    net.run(Duration::from_millis(100));
    net.nodes[0].frozen = true;
    mode(&mut net, 1, Mode::Auto);
    net.run(Duration::from_millis(100));
    let conn = conn_to(&net, 1, 0);
    for query in 0..50 {
        let reachable = true;
        let message = Probed { query, reachable }.into();
        net.event(1, Event::Received { conn, message });
    }
    assert_eq!(standing(&net, 1), Standing::Unproven);
}

#[test]
fn nobody_is_dialled_back_at_another_address_than_his_own() {
    let mut net = star(&[2, 2], &[]);
    net.run(Duration::from_secs(2));
    let conn = conn_to(&net, 0, 1);
    let victim = Address("192.0.2.99:53".parse().unwrap());
    let message: Message = Probe {
        query: 9,
        address: victim,
    }
    .into();
    let event = Event::Received { conn, message };
    let actions: Vec<Action> = net.nodes[0].overlay.handle(net.now, event).collect();
    let dialled = actions
        .iter()
        .any(|action| matches!(action, Action::Probe { .. }));
    assert!(!dialled, "{actions:?}");
}

#[test]
fn publisher_behind_a_wall_dials_the_viewer_that_it_is_introduced_to() {
    // The supernode forwards nothing: they must come together directly.
    let mut net = star(&[2, 2, 2], &[1]);
    net.event(0, Event::Limit { bps: Some(0) });
    let (stream, record) = {
        let record = StreamRecord {
            bitrate_bps: Some(1_000_000),
            ..live(net.id(1), &net.stream_key, "walled")
        };
        (net.stream(), SignedStream::sign(record, &net.stream_key))
    };
    let supply = Supply::Ok;
    net.event(1, Event::Publish { record, supply });
    net.event(
        2,
        Event::Find {
            id: Some(stream),
            slug: None,
        },
    );
    net.run(Duration::from_secs(1));
    net.watch(2);
    // No video runs here: in the end it would look for somebody else.
    net.run(Duration::from_secs(2));
    assert_eq!(net.parent(2), Some(net.id(1)));
}

#[test]
fn nobody_is_introduced_in_anothers_name_or_by_an_ordinary_node() {
    let mut net = star(&[2, 2, 2, 2], &[]);
    let conn = conn_to(&net, 0, 1);
    let message: Message = Introduce {
        peer: net.id(2),
        addresses: vec![Address("192.0.2.99:53".parse().unwrap())],
        to: Some(net.id(3)),
    }
    .into();
    let event = Event::Received { conn, message };
    let actions: Vec<Action> = net.nodes[0].overlay.handle(net.now, event).collect();
    assert!(actions.is_empty(), "{actions:?}");
    let conn = conn_to(&net, 0, 1);
    let message: Message = Introduce {
        peer: NodeId(uuid::Uuid::from_u128(77)),
        addresses: vec![Address("192.0.2.99:53".parse().unwrap())],
        to: None,
    }
    .into();
    let event = Event::Received { conn, message };
    let actions: Vec<Action> = net.nodes[0].overlay.handle(net.now, event).collect();
    let dialled = actions
        .iter()
        .any(|action| matches!(action, Action::Dial { .. }));
    assert!(!dialled, "{actions:?}");
}
