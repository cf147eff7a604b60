//! Seeding: who takes what is offered, and for how long.

use super::*;

fn offer(net: &mut Net, to: usize, stream: StreamId) -> Option<SeedAnswer> {
    let node = net.id(to);
    net.event(0, Event::Seed { node, stream });
    net.run(Duration::from_secs(1));
    net.nodes[0].overlay.seed_answer(node, stream)
}

fn consent(net: &mut Net, node: usize, consent: Consent) {
    net.event(node, Event::Consent { consent });
}

/// A record of a stream of node 0, other than [`Net::stream`].
fn another(net: &Net, number: u8) -> SignedStream {
    let key = SecretKey::from_seed([100 + number; 32]);
    let record = StreamRecord {
        unlisted: Some(true),
        bitrate_bps: Some(1_000),
        ..live(net.id(0), &key, &format!("Show {number}"))
    };
    SignedStream::sign(record, &key)
}

#[test]
fn carrier_is_fed_without_being_a_viewer_and_feeds_others() {
    let mut net = star(&[1, 2, 1]);
    consent(&mut net, 1, Consent::Always);
    let stream = net.stream();
    assert_eq!(offer(&mut net, 1, stream), Some(SeedAnswer::Taken));
    net.check(&[1]);
    assert_eq!(net.parent(1), Some(net.id(0)));
    let viewers = |net: &Net| {
        let view = net.nodes[0].overlay.stream_view(net.now, stream);
        view.map(|view| view.viewers)
    };
    net.run(Duration::from_secs(5));
    assert_eq!(viewers(&net), Some(0));
    net.watch(2);
    net.run(Duration::from_secs(5));
    net.check(&[1, 2]);
    assert_eq!(net.parent(2), Some(net.id(1)));
    assert_eq!(viewers(&net), Some(1));
    // Offered once more, it is the same.
    assert_eq!(offer(&mut net, 1, stream), Some(SeedAnswer::Taken));
    // Its owner has the last word.
    net.event(1, Event::Unwant { stream, why: None });
    net.run(Duration::from_secs(1));
    assert_eq!(net.parent(1), None);
    assert_eq!(net.nodes[1].overlay.carried().count(), 0);
}

#[test]
fn refusal_says_why() {
    let mut net = star(&[3, 1, 0]);
    let stream = net.stream();
    let refused = |reason| Some(SeedAnswer::Refused(reason));
    // A node that is none of the supernodes, and one that never forwards.
    assert_eq!(offer(&mut net, 1, stream), refused(Reason::Unwanted));
    consent(&mut net, 2, Consent::Always);
    assert_eq!(offer(&mut net, 2, stream), refused(Reason::NotForwarding));
    consent(&mut net, 1, Consent::Never);
    assert_eq!(offer(&mut net, 1, stream), refused(Reason::Unwanted));
    net.run(Duration::from_secs(5));
    assert_eq!((net.parent(1), net.parent(2)), (None, None));
}

#[test]
fn supernode_takes_what_is_offered_as_long_as_it_is_one() {
    let mut net = star(&[1, 2]);
    let stream = net.stream();
    let mode = Mode::Always;
    net.event(1, Event::Supernodes { mode });
    net.run(Duration::from_secs(2));
    assert_eq!(offer(&mut net, 1, stream), Some(SeedAnswer::Taken));
    net.check(&[1]);
}

#[test]
fn node_that_is_not_connected_is_dialled_first() {
    let mut net = Net::new(&[1, 1]);
    net.bootstrap(1, 0);
    net.run(Duration::from_secs(1));
    net.publish();
    consent(&mut net, 1, Consent::Always);
    let conn = *net.nodes[0].links.keys().next().unwrap();
    net.event(0, Event::Closed { conn, code: None });
    net.nodes[0].links.remove(&conn);
    net.run(Duration::from_millis(1));
    let stream = net.stream();
    let node = net.id(1);
    net.event(0, Event::Seed { node, stream });
    net.run(Duration::from_secs(3));
    let answer = net.nodes[0].overlay.seed_answer(node, stream);
    assert_eq!(answer, Some(SeedAnswer::Taken));
}

#[test]
fn what_nobody_uses_makes_room_after_ten_minutes_and_no_sooner() {
    let mut net = star(&[40, 40]);
    consent(&mut net, 1, Consent::Always);
    let supply = Supply::Ok;
    for number in 0..33 {
        let record = another(&net, number);
        let stream = record.value().id();
        net.event(0, Event::Publish { record, supply });
        let wanted = match number {
            32 => SeedAnswer::Refused(Reason::Limit),
            _ => SeedAnswer::Taken,
        };
        assert_eq!(offer(&mut net, 1, stream), Some(wanted), "{number}");
    }
    for _ in 0..61 {
        // Their records are signed anew before the lease is over.
        net.run(Duration::from_secs(10));
        let seq = net.now.0;
        for number in 0..33 {
            let key = SecretKey::from_seed([100 + number; 32]);
            let mut value = another(&net, number).value().clone();
            value.seq = seq;
            let record = SignedStream::sign(value, &key);
            net.event(0, Event::Publish { record, supply });
        }
    }
    let last = another(&net, 32).value().id();
    assert_eq!(offer(&mut net, 1, last), Some(SeedAnswer::Taken));
    assert_eq!(net.nodes[1].overlay.carried().count(), 32);
}

#[test]
fn peer_that_offers_too_often_is_told_so() {
    let mut net = star(&[1, 1]);
    let stream = net.stream();
    let node = net.id(1);
    consent(&mut net, 1, Consent::Always);
    for _ in 0..3 {
        net.event(0, Event::Seed { node, stream });
    }
    net.run(Duration::from_millis(200));
    let answer = net.nodes[0].overlay.seed_answer(node, stream);
    assert_eq!(answer, Some(SeedAnswer::Refused(Reason::Limit)));
}
