//! Becoming a supernode, ceasing to be one, and registering.

use super::*;
use crate::overlay::supernodes::Mode;

fn told(limits: &[u64], mode: Mode) -> Net {
    let mut net = Net::new(limits);
    for node in 0..limits.len() {
        net.event(node, Event::Supernodes { mode });
    }
    net
}

fn role(net: &Net, node: usize) -> Role {
    net.nodes[node].overlay.role()
}

fn primary(net: &Net, node: usize) -> Option<NodeId> {
    net.nodes[node].overlay.primary_supernode()
}

/// What astral-web would tell `node` of `of`.
fn hear(net: &mut Net, node: usize, of: usize) {
    let record = net.nodes[of].overlay.record.clone();
    let nodes = vec![(record, vec![address(of)])];
    let streams = Vec::new();
    net.event(node, Event::Heard { nodes, streams });
}

/// Nodes of which the first is a supernode and the others are registered with it.
fn star(count: usize) -> Net {
    let mut net = Net::new(&vec![2; count]);
    net.event(0, Event::Supernodes { mode: Mode::Auto });
    net.run(Duration::from_secs(2));
    for node in 1..count {
        hear(&mut net, node, 0);
        net.event(node, Event::Supernodes { mode: Mode::Auto });
    }
    net.run(Duration::from_secs(2));
    net
}

#[test]
fn node_that_knows_no_supernode_becomes_one_unless_told_not_to() {
    let mut net = told(&[1, 1], Mode::Auto);
    net.event(1, Event::Supernodes { mode: Mode::Never });
    net.run(Duration::from_millis(900));
    assert_eq!(role(&net, 0), Role::Node);
    net.run(Duration::from_millis(600));
    assert_eq!(role(&net, 0), Role::Supernode);
    let signed = net.nodes[0].overlay.record.value().role;
    assert_eq!(signed, Role::Supernode, "its record says so");
    assert_eq!(role(&net, 1), Role::Node);
}

#[test]
fn node_that_hears_of_a_supernode_dials_it_and_registers() {
    let net = star(3);
    for node in [1, 2] {
        assert_eq!(role(&net, node), Role::Node);
        assert_eq!(primary(&net, node), Some(net.id(0)));
    }
    assert_eq!(net.nodes[0].overlay.registered_nodes(), 2);
}

#[test]
fn of_two_idle_supernodes_the_larger_id_retires_and_registers() {
    let mut net = told(&[1, 1], Mode::Auto);
    net.run(Duration::from_secs(2));
    let (small, large) = if net.id(0) < net.id(1) {
        (0, 1)
    } else {
        (1, 0)
    };
    assert_eq!([role(&net, 0), role(&net, 1)], [Role::Supernode; 2]);
    hear(&mut net, small, large);
    net.run(Duration::from_secs(4));
    assert_eq!(role(&net, large), Role::Supernode, "others may yet need it");
    net.run(Duration::from_secs(3));
    assert_eq!(role(&net, large), Role::Node);
    assert_eq!(role(&net, small), Role::Supernode);
    assert_eq!(primary(&net, large), Some(net.id(small)));
}

#[test]
fn supernode_with_registered_nodes_does_not_retire() {
    let mut net = Net::new(&[1, 1, 1]);
    let large = (0..2).max_by_key(|node| net.id(*node)).unwrap();
    let small = 1 - large;
    for node in [0, 1] {
        net.event(node, Event::Supernodes { mode: Mode::Auto });
    }
    net.run(Duration::from_secs(2));
    hear(&mut net, 2, large);
    net.event(2, Event::Supernodes { mode: Mode::Auto });
    net.run(Duration::from_secs(1));
    assert_eq!(primary(&net, 2), Some(net.id(large)));
    hear(&mut net, small, large);
    net.run(Duration::from_secs(10));
    assert_eq!(role(&net, large), Role::Supernode);
    assert_eq!(primary(&net, 2), Some(net.id(large)));
}

#[test]
fn node_whose_primary_leaves_registers_with_the_next_or_takes_its_place() {
    let mut net = Net::new(&[1, 1, 1]);
    for (node, mode) in [(0, Mode::Always), (1, Mode::Always), (2, Mode::Auto)] {
        net.event(node, Event::Supernodes { mode });
    }
    hear(&mut net, 2, 0);
    hear(&mut net, 2, 1);
    net.run(Duration::from_secs(1));
    let first = primary(&net, 2).expect("one of them has taken it in");
    let first = (0..2).find(|node| net.id(*node) == first).unwrap();
    net.event(first, Event::Leave);
    net.run(Duration::from_secs(1));
    assert_eq!(primary(&net, 2), Some(net.id(1 - first)));
    net.event(1 - first, Event::Leave);
    net.run(Duration::from_secs(3));
    assert_eq!(role(&net, 2), Role::Supernode);
}

#[test]
fn full_supernode_refers_to_another() {
    let mut net = Net::new(&[1, 1, 1]);
    for node in [0, 1] {
        net.event(node, Event::Supernodes { mode: Mode::Always });
    }
    hear(&mut net, 0, 1);
    net.run(Duration::from_secs(1));
    net.nodes[0].overlay.supernodes.registration.capacity = 0;
    hear(&mut net, 2, 0);
    net.event(2, Event::Supernodes { mode: Mode::Auto });
    net.run(Duration::from_secs(2));
    assert_eq!(primary(&net, 2), Some(net.id(1)));
}

#[test]
fn heard_stream_is_known_and_told_to_peers() {
    let mut net = star(2);
    let record = StreamRecord {
        seq: 7,
        ..live(net.id(0), &net.stream_key, "elsewhere")
    };
    let streams = vec![SignedStream::sign(record, &net.stream_key)];
    net.event(
        1,
        Event::Heard {
            nodes: Vec::new(),
            streams,
        },
    );
    net.run(Duration::from_millis(200));
    for node in [0, 1] {
        let views = net.nodes[node].overlay.streams_view(net.now);
        assert_eq!(views.len(), 1, "node {node}");
        assert_eq!(views[0].record.value().seq, 7);
    }
}
