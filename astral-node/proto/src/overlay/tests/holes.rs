//! Frames that did not come are pulled from whoever has promised the stream.

use super::failover::diamond;
use super::*;
use crate::limits::FETCH_FRAMES_MAX;

fn hole(group: u64, track: u8, first: u32, count: u32) -> Hole {
    Hole {
        group,
        track,
        first,
        count,
    }
}

fn lacks(net: &mut Net, node: usize, holes: &[Hole]) {
    let (stream, holes) = (net.stream(), holes.to_vec());
    net.event(node, Event::Missing { stream, holes });
    net.run(2 * LATENCY);
}

/// What each node was asked for since the last look: node and fetch.
fn served(net: &mut Net) -> Vec<(usize, (u64, u8, u32, u32))> {
    let mut all = Vec::new();
    for (index, node) in net.nodes.iter_mut().enumerate() {
        let fetches = node.served.drain(..);
        all.extend(fetches.map(|f| (index, (f.group, f.track, f.first, f.count))));
    }
    all
}

#[test]
fn a_hole_is_asked_for_once_at_the_parent_and_then_at_the_standby() {
    let mut net = diamond();
    let parent = (0..3).find(|n| Some(net.id(*n)) == net.parent(3)).unwrap();
    lacks(&mut net, 3, &[hole(7, 1, 4, 3)]);
    assert_eq!(served(&mut net), [(parent, (7, 1, 4, 3))]);
    lacks(&mut net, 3, &[hole(7, 1, 4, 3)]);
    assert_eq!(served(&mut net), [], "it was asked for a moment ago");
    net.run(Duration::from_millis(300));
    lacks(&mut net, 3, &[hole(7, 1, 4, 3)]);
    let again = served(&mut net);
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].0, parent, "the standby has promised it, too");
}

#[test]
fn what_came_of_a_hole_makes_the_rest_due_at_once() {
    let mut net = diamond();
    lacks(&mut net, 3, &[hole(7, 1, 4, 30)]);
    lacks(&mut net, 3, &[hole(7, 1, 20, 14)]);
    let asked = served(&mut net);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1].1, (7, 1, 20, 14));
}

#[test]
fn a_hole_of_the_publisher_is_not_asked_for_for_ever() {
    let mut net = diamond();
    for _ in 0..400 {
        lacks(&mut net, 3, &[hole(7, 1, 4, 3)]);
        net.run(Duration::from_millis(80));
    }
    let asked = served(&mut net).len();
    assert!((5..=9).contains(&asked), "{asked} times in 40 s");
}

#[test]
fn many_holes_are_asked_for_a_few_at_a_time_and_within_the_limits_of_the_wire() {
    let mut net = diamond();
    let holes: Vec<Hole> = (0..40).map(|group| hole(group, 1, 0, u32::MAX)).collect();
    lacks(&mut net, 3, &holes);
    let asked = served(&mut net);
    assert_eq!(asked.len(), 8);
    assert!(
        asked
            .iter()
            .all(|(_, (.., count))| *count == FETCH_FRAMES_MAX)
    );
}

#[test]
fn a_child_that_asks_without_end_is_answered_within_bounds_and_a_stranger_never() {
    let mut net = diamond();
    let parent = (0..3).find(|n| Some(net.id(*n)) == net.parent(3)).unwrap();
    let ticket = ticket_of(&net, 3);
    let of = |net: &Net, from: usize| {
        let to = net.nodes[from]
            .links
            .iter()
            .find(|(_, (to, _))| *to == parent);
        *to.expect("they are connected").0
    };
    let (child, stranger) = (of(&net, 3), of(&net, if parent == 1 { 0 } else { 1 }));
    let fetch = |first| Fetch {
        id: ticket,
        track: 1,
        group: 7,
        first,
        count: 1,
    };
    for first in 0..500 {
        net.post(3, child, Packet::Message(fetch(first).into()));
    }
    net.run(2 * LATENCY);
    assert_eq!(served(&mut net).len(), 64);
    let other = if parent == 1 { 0 } else { 1 };
    net.run(Duration::from_secs(2));
    net.post(other, stranger, Packet::Message(fetch(0).into()));
    net.run(2 * LATENCY);
    assert_eq!(served(&mut net), []);
}
