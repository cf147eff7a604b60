//! What the publisher learns of its audience, and what all this talk costs.

use super::*;

/// Bytes of a packet around what it carries: IP, UDP, QUIC and its tag.
const PACKET_BYTES: u64 = 28 + 24 + 16;

#[test]
fn publisher_learns_how_its_whole_audience_is_served() {
    let mut net = row_of(8);
    net.run(Duration::from_secs(25));
    let stream = net.stream();
    let view = net.nodes[0].overlay.stream_view(net.now, stream).unwrap();
    assert_eq!(view.audience.viewers(), 7, "{:?}", view.audience);
    assert_eq!(view.audience.depth, 7);
    assert_eq!((view.audience.stalls, view.audience.lost), (0, 0));
    let (median, most) = (view.audience.delay(50), view.audience.delay(99));
    assert!(median >= 3 * LATENCY && median <= 6 * LATENCY, "{median:?}");
    assert!(most >= 6 * LATENCY && most <= 12 * LATENCY, "{most:?}");
    assert_eq!(view.places, 2, "the last one has room for two");
    // In the middle of the row only those below are known.
    let view = net.nodes[5].overlay.stream_view(net.now, stream).unwrap();
    assert_eq!(view.audience.viewers(), 2);

    net.paused = true;
    net.run(Duration::from_millis(1_500));
    net.paused = false;
    net.run(Duration::from_secs(20));
    let view = net.nodes[0].overlay.stream_view(net.now, stream).unwrap();
    assert!(view.audience.stalls >= 7, "{:?}", view.audience);
    net.run(Duration::from_secs(80));
    let view = net.nodes[0].overlay.stream_view(net.now, stream).unwrap();
    assert_eq!(view.audience.stalls, 0, "that was more than a minute ago");
}

#[test]
fn control_and_heartbeats_are_under_one_percent_of_four_megabits() {
    let mut net = row_of(8);
    net.run(Duration::from_secs(10));
    let (bytes, packets) = net.said;
    net.run(Duration::from_secs(60));
    let packets = net.said.1 - packets;
    let bytes = net.said.0 - bytes + packets * PACKET_BYTES;
    // Seven links with a ticket each, both ways.
    let share = bytes as f64 * 8.0 / (7.0 * 60.0 * 4e6);
    println!("{:.2} % of 4 Mbit/s, {packets} packets", share * 100.0);
    assert!(share <= 0.01, "{:.2} %", share * 100.0);
}

/// A publisher and nodes behind one another, each with room for one, the last for two.
fn row_of(nodes: usize) -> Net {
    let mut limits = vec![1; nodes];
    limits[nodes - 1] = 2;
    let mut net = Net::new(&limits);
    for node in 1..nodes {
        net.bootstrap(node, node - 1);
    }
    net.run(Duration::from_secs(1));
    net.publish();
    net.run(Duration::from_secs(1));
    for node in 1..nodes {
        net.watch(node);
        net.run(Duration::from_millis(500));
        assert_eq!(net.parent(node), Some(net.id(node - 1)));
    }
    net
}
