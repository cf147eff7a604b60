//! Places near the source: who moves up, and who gives way.

use super::*;
use crate::wire::control::{Confirm, TicketOffer, TicketRequest};

/// Asks node 0 for its one place in the name of node 2; gives what is said.
fn ask(net: &mut Net, carries: Option<u32>, places: Option<u32>) -> Vec<Message> {
    let (stream, now, asker) = (net.stream(), net.now, net.id(2));
    let overlay = net.overlay(0);
    let conn = overlay.by_node[&asker];
    let confirm = TicketConfirm {
        stream,
        confirm: Confirm::Active,
        have: Default::default(),
    };
    let request = TicketRequest {
        stream,
        carries,
        places,
    };
    let mut said = Vec::new();
    for message in [request.into(), confirm.into()] {
        said.extend(overlay.handle(now, Event::Received { conn, message }));
    }
    let messages = said.into_iter().filter_map(|action| {
        if let Action::Send { message, .. } = action {
            Some(message)
        } else {
            None
        }
    });
    messages.collect()
}

#[test]
fn leaf_gives_way_to_who_carries_others_and_to_nobody_else() {
    let mut net = star(&[1, 0, 4]);
    net.watch(1);
    net.run(Duration::from_secs(3));
    assert_eq!(net.parent(1), Some(net.id(0)));
    for few in [None, Some(2)] {
        let said = ask(&mut net, few, None);
        assert!(matches!(
            said[..],
            [Message::TicketRefused(_), Message::TicketRefused(_)]
        ));
    }
    let said = ask(&mut net, Some(3), None);
    let [
        Message::TicketOffer(_),
        Message::TicketCancel(cancel),
        Message::TicketAccepted(_),
    ] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!(cancel.reason, Reason::Full);
    assert_eq!(cancel.referrals.len(), 1, "to who came in its place");
    // It was to carry others, and does not.
    let overlay = &mut net.nodes[0].overlay;
    let at = |seconds| net.now.after(Duration::from_secs(seconds));
    overlay.check_carriers(at(29));
    assert_eq!(overlay.children(), 1);
    overlay.check_carriers(at(31));
    assert_eq!(overlay.children(), 0);
}

#[test]
fn leaf_gives_way_to_who_could_feed_far_more_and_is_then_fed_by_it() {
    // Each child of node 0 could feed as many as its number.
    for (leaf, asker, gives_way) in [(0, 1, false), (0, 2, true), (1, 4, false), (1, 5, true)] {
        let mut net = star(&[1, leaf, 4]);
        net.watch(1);
        net.run(Duration::from_secs(3));
        let said = ask(&mut net, None, Some(asker));
        let came = said
            .iter()
            .any(|said| matches!(said, Message::TicketAccepted(_)));
        assert_eq!(came, gives_way, "{leaf} against {asker}: {said:?}");
    }
}

#[test]
fn who_got_a_place_for_its_room_and_feeds_nobody_gives_way_to_the_next() {
    let mut net = star(&[1, 0, 9, 4]);
    net.watch(1);
    net.run(Duration::from_secs(3));
    ask(&mut net, None, Some(9));
    let stream = net.stream();
    let (first, second, now) = (net.id(2), net.id(3), net.now);
    let overlay = net.overlay(0);
    let (first, second) = (overlay.by_node[&first], overlay.by_node[&second]);
    for feed in overlay.feeds.values_mut() {
        assert_eq!(feed.conn, first);
        // What it would say in its heartbeats.
        feed.free = 9;
    }
    let request = TicketRequest {
        stream,
        carries: None,
        places: Some(4),
    };
    overlay.note_asked(now, second, &request);
    let at = |seconds| now.after(Duration::from_secs(seconds));
    assert_eq!(overlay.gives_way(at(29), second, stream), None);
    assert!(overlay.gives_way(at(31), second, stream).is_some());
}

#[test]
fn newcomer_with_upload_gets_a_place_where_only_leaves_are_and_feeds_who_gave_way() {
    let mut net = star(&[1, 0, 4]);
    net.watch(1);
    net.run(Duration::from_secs(4));
    net.watch(2);
    net.run(Duration::from_secs(5));
    net.check(&[1, 2]);
    assert_eq!(net.parent(2), Some(net.id(0)));
    assert_eq!(net.parent(1), Some(net.id(2)));
}

#[test]
fn who_can_feed_others_moves_up_soon_and_who_cannot_stays() {
    for (upload, moves) in [(3, true), (0, false)] {
        let mut net = star(&[1, 1, 1, upload]);
        for node in [1, 2, 3] {
            net.watch(node);
            net.run(Duration::from_secs(1));
        }
        assert_eq!(net.parent(3), Some(net.id(2)), "in a row");
        net.event(0, Event::Limit { bps: None });
        net.run(Duration::from_secs(10));
        assert_eq!(net.parent(3) == Some(net.id(0)), moves, "{upload}");
    }
}

#[test]
fn who_is_full_names_the_children_that_have_room_before_those_that_have_none() {
    let mut net = star(&[2, 4, 0, 0]);
    for node in [2, 1] {
        net.watch(node);
        net.run(Duration::from_secs(1));
    }
    let (stream, now, asker) = (net.stream(), net.now, net.id(3));
    let (with_room, without) = (net.id(1), net.id(2));
    let overlay = net.overlay(0);
    assert_eq!(overlay.children(), 2);
    let conn = overlay.by_node[&asker];
    let message = TicketRequest {
        stream,
        carries: None,
        places: None,
    };
    let message = message.into();
    let said: Vec<Action> = overlay
        .handle(now, Event::Received { conn, message })
        .collect();
    let [
        Action::Send {
            message: Message::TicketRefused(refused),
            ..
        },
    ] = &said[..]
    else {
        panic!("{said:?}")
    };
    let named: Vec<NodeId> = refused.referrals.iter().map(|r| r.node).collect();
    assert_eq!(named, [with_room, without]);
}

#[test]
fn search_goes_on_soon_when_the_node_that_was_to_confirm_is_gone() {
    let mut net = star(&[4, 4, 4]);
    net.bootstrap(1, 2);
    net.run(Duration::from_secs(2));
    // Nobody answers node 1 but the publisher, which offers and is gone.
    let (stream, now, publisher) = (net.stream(), net.now, net.id(0));
    let overlay = net.overlay(1);
    let conn = overlay.by_node[&publisher];
    let why = Why::Watch;
    drop(overlay.handle(now, Event::Want { stream, why }));
    let message = TicketOffer {
        stream,
        path: vec![publisher],
        delay_us: 0,
        spare_bps: 9_000_000,
    };
    let message = message.into();
    drop(overlay.handle(now, Event::Received { conn, message }));
    let later = now.after(Duration::from_millis(300));
    let mut said = overlay.handle_timeout(later);
    assert!(said.any(|action| matches!(action, Action::Confirm { .. })));
    drop(said);
    drop(overlay.handle(later, Event::Closed { conn, code: None }));
    let due = overlay.timers.get(Timer::Search(stream));
    let soon = later.after(Duration::from_millis(500));
    assert!(due.is_some_and(|due| due <= soon), "{due:?}");
}

#[test]
fn node_moves_up_when_there_is_room_nearer_to_the_source() {
    let mut net = star(&[1, 1, 0]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    net.watch(2);
    net.run(Duration::from_secs(2));
    assert_eq!(net.parent(2), Some(net.id(1)));
    net.event(0, Event::Limit { bps: None });
    net.watch_gap(2);
    net.run(Duration::from_secs(70));
    assert_eq!(net.parent(2), Some(net.id(0)));
    assert!(net.gap(2) < Duration::from_millis(100), "{:?}", net.gap(2));
}

#[test]
fn standby_that_has_no_upload_left_is_replaced() {
    // 0 feeds 1, 2 and 3; the standby of 1 has its only place taken, and 3 has room.
    let mut net = star(&[3, 0, 1, 4, 0]);
    for node in [1, 2, 3] {
        net.watch(node);
        net.run(Duration::from_millis(500));
    }
    net.bootstrap(1, 2);
    net.run(Duration::from_secs(5));
    let standby = |net: &Net| {
        let view = net.nodes[1].overlay.stream_view(net.now, net.stream());
        view.and_then(|view| view.intake?.standby)
    };
    assert_eq!(standby(&net), Some(net.id(2)));
    net.bootstrap(1, 3);
    net.bootstrap(4, 2);
    net.run(Duration::from_millis(300));
    net.watch(4);
    net.run(Duration::from_secs(8));
    assert_eq!(net.parent(4), Some(net.id(2)), "the only place there");
    assert_eq!(standby(&net), Some(net.id(3)));
}
