//! Standbys and the change of parent.

use super::*;

/// A second of buffer is what a player has; this is what the design promises.
const GAP_MAX: Duration = Duration::from_millis(300);

/// Publisher 0 feeds relays 1 and 2, relay 1 feeds viewer 3, which knows both relays.
pub(super) fn diamond() -> Net {
    let mut net = Net::new(&[2, 2, 2, 0]);
    for node in [1, 2] {
        net.bootstrap(node, 0);
    }
    net.run(Duration::from_secs(1));
    net.publish();
    net.run(Duration::from_millis(200));
    net.watch(1);
    net.watch(2);
    net.run(Duration::from_secs(1));
    net.bootstrap(3, 1);
    net.run(Duration::from_millis(300));
    net.watch(3);
    net.run(Duration::from_secs(2));
    assert_eq!(net.parent(3), Some(net.id(1)));
    net.bootstrap(3, 2);
    net.run(Duration::from_secs(8));
    net
}

pub(super) fn standby(net: &Net, node: usize) -> Option<NodeId> {
    let view = net.nodes[node].overlay.stream_view(net.now, net.stream())?;
    view.intake?.standby
}

fn switches(net: &Net, node: usize) -> u64 {
    let view = net.nodes[node].overlay.stream_view(net.now, net.stream());
    view.unwrap().intake.unwrap().switches
}

#[test]
fn standby_stands_in_another_branch() {
    let net = diamond();
    // The publisher has no room, and relay 1 is the parent.
    let standby = standby(&net, 3).expect("a standby was found");
    assert_ne!(standby, net.id(1));
    let ready = net.nodes.iter().flat_map(|node| &node.changes);
    assert!(ready.into_iter().any(|c| matches!(c, Change::Ready(..))));
}

#[test]
fn standby_takes_over_from_a_killed_parent_before_a_player_notices() {
    let mut net = diamond();
    net.watch_gap(3);
    net.kill(1);
    net.run(Duration::from_secs(3));
    assert_ne!(net.parent(3), Some(net.id(1)));
    assert_eq!(switches(&net, 3), 1);
    assert!(net.gap(3) <= GAP_MAX, "gap of {:?}", net.gap(3));
    net.check(&[2, 3]);
}

#[test]
fn frozen_parent_is_replaced_as_fast_as_a_killed_one_and_does_not_come_back() {
    let mut net = diamond();
    net.watch_gap(3);
    net.nodes[1].frozen = true;
    net.run(Duration::from_secs(2));
    net.nodes[1].frozen = false;
    net.run(Duration::from_secs(2));
    assert!(net.gap(3) <= GAP_MAX, "gap of {:?}", net.gap(3));
    assert_eq!(switches(&net, 3), 1);
    net.check(&[2, 3]);
}

#[test]
fn parent_whose_heartbeats_are_lost_is_kept_while_its_frames_come() {
    let mut net = diamond();
    net.beats_lost = vec![(1, 3)];
    net.run(Duration::from_secs(10));
    assert_eq!(net.parent(3), Some(net.id(1)));
    assert_eq!(switches(&net, 3), 0);
    net.paused = true;
    net.run(Duration::from_secs(3));
    assert_ne!(net.parent(3), Some(net.id(1)), "now nothing comes of it");
}

#[test]
fn leaving_parent_is_heard_until_the_standby_sends() {
    let mut net = diamond();
    net.watch_gap(3);
    net.event(1, Event::Leave);
    net.run(Duration::from_secs(1));
    assert!(net.nodes[1].left, "its only child has moved");
    assert!(net.gap(3) <= 2 * FRAME, "gap of {:?}", net.gap(3));
    net.check(&[2, 3]);
}

#[test]
fn who_ends_its_own_ticket_takes_the_stream_from_another() {
    let mut net = diamond();
    net.watch_gap(3);
    let ticket = ticket_of(&net, 3);
    net.event(3, Event::Revoke { ticket });
    net.run(Duration::from_secs(5));
    net.check(&[1, 2, 3]);
    assert_ne!(net.parent(3), Some(net.id(1)));
    assert!(net.gap(3) <= GAP_MAX, "gap of {:?}", net.gap(3));
}

#[test]
fn who_ends_the_ticket_of_its_standby_keeps_its_parent() {
    let mut net = diamond();
    let before = standby(&net, 3).expect("a standby was found");
    let held = &net.nodes[3].overlay.streams[&net.stream()].standby;
    let ticket = held.as_ref().expect("the same").ticket;
    net.event(3, Event::Revoke { ticket });
    net.run(Duration::from_secs(5));
    assert_ne!(
        standby(&net, 3),
        Some(before),
        "it is left alone for a while"
    );
    assert_eq!(switches(&net, 3), 0);
    net.check(&[1, 2, 3]);
}

/// The encoder is back: everybody has the stream, from whoever sent it before.
fn assert_goes_on_unmoved(net: &mut Net) {
    let (stream, supply) = (net.stream(), Supply::Ok);
    net.event(0, Event::Supply { stream, supply });
    net.paused = false;
    net.run(Duration::from_secs(2));
    for node in [1, 2, 3] {
        assert_eq!(switches(net, node), 0, "node {node}");
    }
    net.check(&[1, 2, 3]);
}

#[test]
fn nobody_moves_while_the_encoder_is_away() {
    let mut net = diamond();
    let stream = net.stream();
    net.paused = true;
    net.run(Duration::from_millis(400));
    let supply = Supply::NoSource;
    net.event(0, Event::Supply { stream, supply });
    net.run(Duration::from_secs(10));
    assert_goes_on_unmoved(&mut net);
}

#[test]
fn nobody_moves_when_the_publishers_record_is_faster_than_the_parents_word() {
    let mut net = diamond();
    let stream = net.stream();
    let publish = |net: &mut Net, seq, state, supply| {
        let record = StreamRecord {
            seq,
            state,
            ..live(net.id(0), &net.stream_key, "Show")
        };
        let record = SignedStream::sign(record, &net.stream_key);
        net.event(0, Event::Publish { record, supply });
        net.event(0, Event::Supply { stream, supply });
    };
    net.paused = true;
    publish(&mut net, 8, StreamState::Waiting, Supply::NoSource);
    net.run(Duration::from_secs(20));
    publish(&mut net, 9, StreamState::Live, Supply::NoSource);
    net.run(Duration::from_millis(900));
    assert_goes_on_unmoved(&mut net);
}

#[test]
fn break_further_up_is_repaired_where_it_is() {
    // 0 feeds 1 and 2; 1 feeds 3; 3 feeds 4, whose parent stays alive.
    let mut net = Net::new(&[2, 2, 2, 1, 0]);
    for node in [1, 2] {
        net.bootstrap(node, 0);
    }
    net.run(Duration::from_secs(1));
    net.publish();
    net.run(Duration::from_millis(200));
    for node in [1, 2] {
        net.watch(node);
    }
    net.run(Duration::from_secs(1));
    net.bootstrap(3, 1);
    net.run(Duration::from_millis(300));
    net.watch(3);
    net.run(Duration::from_secs(1));
    net.bootstrap(4, 3);
    net.run(Duration::from_millis(300));
    net.watch(4);
    net.run(Duration::from_secs(1));
    net.bootstrap(3, 2);
    net.run(Duration::from_secs(15));
    let parent = net.parent(4);
    assert_eq!(parent, Some(net.id(3)));
    net.watch_gap(4);
    net.kill(1);
    net.run(Duration::from_secs(3));
    assert_eq!(net.parent(4), parent);
    assert_eq!(switches(&net, 4), 0);
    assert!(net.gap(4) <= GAP_MAX, "gap of {:?}", net.gap(4));
    net.check(&[2, 3, 4]);
}

#[test]
fn standby_that_would_fail_with_the_parents_parent_is_replaced_by_a_better_one() {
    // 0 feeds 1 and 2; 1 feeds 3 and 4; 5 is fed by 3, and knows 4 first.
    let mut net = Net::new(&[2, 2, 2, 2, 2, 0]);
    for node in [1, 2] {
        net.bootstrap(node, 0);
    }
    net.run(Duration::from_secs(1));
    net.publish();
    net.run(Duration::from_millis(200));
    for node in [1, 2] {
        net.watch(node);
    }
    net.run(Duration::from_secs(1));
    for node in [3, 4] {
        net.bootstrap(node, 1);
        net.run(Duration::from_millis(300));
        net.watch(node);
        net.run(Duration::from_secs(1));
        assert_eq!(net.parent(node), Some(net.id(1)));
    }
    net.bootstrap(5, 3);
    net.run(Duration::from_millis(300));
    net.watch(5);
    net.run(Duration::from_secs(1));
    net.bootstrap(5, 4);
    net.run(Duration::from_secs(10));
    assert_eq!(net.parent(5), Some(net.id(3)));
    net.bootstrap(5, 2);
    net.run(Duration::from_secs(60));
    // Or it has moved to the other branch itself, and the old parent stands by.
    let (fed, stands) = (net.parent(5), standby(&net, 5));
    let branch = |node: Option<NodeId>| [0, 2].map(|n| Some(net.id(n))).contains(&node);
    assert!(branch(fed) != branch(stands), "{fed:?} {stands:?}");
    assert_eq!(switches(&net, 5), 0);
}

#[test]
fn upload_kept_for_a_standby_is_given_to_who_needs_it_now() {
    let mut net = diamond();
    let stands = standby(&net, 3).unwrap();
    let at = (0..4).find(|node| net.id(*node) == stands).unwrap();
    let limit_bps = net.nodes[at].overlay.promised_bps() + charge(1_000_000);
    let bps = Some(limit_bps);
    net.event(at, Event::Limit { bps });
    net.nodes[at].overlay.count_promised();
    assert!(!net.nodes[at].overlay.budget.has_room(2 * charge(1_000_000)));
    assert!(net.nodes[at].overlay.budget.has_room(charge(1_000_000)));
}

#[test]
fn parent_and_standby_killed_together_are_replaced_within_three_seconds() {
    let mut net = diamond();
    let bps = None;
    net.event(0, Event::Limit { bps });
    net.watch_gap(3);
    net.kill(1);
    net.kill(2);
    net.run(Duration::from_secs(5));
    assert_eq!(net.parent(3), Some(net.id(0)));
    assert!(net.gap(3) <= Duration::from_secs(3), "{:?}", net.gap(3));
}
