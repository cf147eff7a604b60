//! A hostile tenth: nodes whose paths, clocks and offers lie.

use super::mesh::foreign;
use super::reach::dial;
use super::*;
use crate::ids::NodeId;
use crate::overlay::supernodes::Mode;
use crate::wire::control::{Peers, RecordBytes, Referral, Refused};
use crate::wire::heartbeat::TicketBeat;

/// Honest nodes that watch, and liars among them.
const NODES: usize = 20;
const LIARS: [usize; 2] = [4, 11];

/// A publisher with room for three, and nodes that know it and one another's neighbours.
/// The liars offer a short way, much room and no delay.
fn network(lie: Lie) -> Net {
    let mut limits = vec![3; NODES + 1];
    for liar in LIARS {
        limits[liar] = 50;
    }
    let mut net = Net::new(&limits);
    for liar in LIARS {
        net.nodes[liar].lie = Some(lie);
    }
    net.bootstrap(1, 0);
    net.run(Duration::from_secs(1));
    net.publish();
    net.run(Duration::from_millis(200));
    for node in 1..=NODES {
        net.bootstrap(node, 0);
        for other in [node / 2, LIARS[node % 2]] {
            if other != node {
                net.bootstrap(node, other);
            }
        }
        net.run(Duration::from_millis(300));
        net.watch(node);
        net.run(Duration::from_millis(200));
    }
    net.run(Duration::from_secs(10));
    net
}

fn honest() -> impl Iterator<Item = usize> {
    (1..=NODES).filter(|node| !LIARS.contains(node))
}

/// Runs for a minute, one honest interior node being killed on the way: honest nodes have
/// nearly every frame in time, and no liar feeds any of them.
fn assert_borne(lie: Lie) {
    let mut net = network(lie);
    let liars: Vec<NodeId> = LIARS.iter().map(|liar| net.id(*liar)).collect();
    let (mut behind, mut looks, mut fed) = (0, 0, 0);
    for tenth in 0..600 {
        net.run(Duration::from_millis(100));
        if tenth == 200 {
            net.kill(2);
        }
        let newest = net.newest(0);
        for node in honest().filter(|node| *node != 2 || tenth < 200) {
            looks += 1;
            // A second of buffer is thirty frames.
            behind += usize::from(net.newest(node) + 30 < newest);
            fed += usize::from(net.parent(node).is_some_and(|p| liars.contains(&p)));
        }
    }
    let share = 100.0 * behind as f64 / looks as f64;
    assert!(share <= 1.0, "{lie:?}: {share:.2} % of the time too late");
    let fed = 100.0 * fed as f64 / looks as f64;
    assert!(fed <= 2.0, "{lie:?}: fed by a liar {fed:.2} % of the time");
}

#[test]
fn nodes_that_promise_and_send_nothing_are_out_within_ten_seconds() {
    assert_borne(Lie::Mute);
}

#[test]
fn nodes_that_say_that_the_source_is_away_are_not_believed_while_another_has_more() {
    assert_borne(Lie::NoSource);
}

#[test]
fn nodes_that_hide_their_path_and_claim_to_hold_everything_are_out_within_ten_seconds() {
    assert_borne(Lie::Path);
}

#[test]
fn a_standby_that_would_send_nothing_does_not_cost_the_parent_that_does() {
    let mut net = super::failover::diamond();
    let standby = super::failover::standby(&net, 3).expect("a standby");
    let at = (0..4).find(|node| net.id(*node) == standby).unwrap();
    net.nodes[at].lie = Some(Lie::Mute);
    net.watch_gap(3);
    // The parent is quiet for so long that it is left, and goes on.
    let parent = (0..3).find(|n| Some(net.id(*n)) == net.parent(3)).unwrap();
    let conn = *net.nodes[3]
        .links
        .iter()
        .find(|(_, (to, _))| *to == parent)
        .unwrap()
        .0;
    net.nodes[parent].paused_for = Some((net.now, net.now.after(Duration::from_millis(260))));
    net.run(Duration::from_secs(6));
    assert!(net.nodes[3].links.contains_key(&conn));
    assert_ne!(net.parent(3), Some(standby), "back to whoever sends");
    assert!(net.gap(3) < Duration::from_secs(1), "{:?}", net.gap(3));
}

/// Somebody who is nowhere.
fn nobody(seed: u8) -> Referral {
    let key = SecretKey::from_seed([seed ^ 0x5a; 32]);
    Referral {
        node: NodeId::of(&key.public()),
        addresses: vec![Address("192.0.2.7:9".parse().unwrap())],
    }
}

/// Supernodes 0 to 18 at public addresses, of which 17 and 18 lie, and nodes that come by
/// way of a liar and of an honest one; node 0 publishes.
fn supernodes_with(lie: Lie) -> Net {
    let (supernodes, all) = (19, 40);
    let mut net = Net::public(&vec![4; all]);
    for node in 17..supernodes {
        net.nodes[node].lie = Some(lie);
    }
    for node in 0..supernodes {
        let mode = Mode::Always;
        net.event(node, Event::Supernodes { mode });
        if node > 0 {
            dial(&mut net, node, node - 1);
        }
    }
    net.run(Duration::from_secs(3));
    for node in supernodes..all {
        let mode = Mode::Auto;
        net.event(node, Event::Supernodes { mode });
        dial(&mut net, node, 17 + node % 2);
        dial(&mut net, node, node % 17);
    }
    net.run(Duration::from_secs(3));
    net.publish();
    net.run(Duration::from_secs(2));
    net
}

#[test]
fn supernodes_that_claim_room_and_refuse_cost_nobody_a_place() {
    let net = supernodes_with(Lie::Room);
    let asked = |liar: usize| net.nodes[liar].overlay.registered_nodes();
    assert!(asked(17) + asked(18) > 0, "nobody was refused");
    for node in 19..40 {
        let overlay = &net.nodes[node].overlay;
        let primary = overlay.primary_supernode().expect("registered");
        let liar = [17, 18].iter().any(|liar| net.id(*liar) == primary);
        assert!(!liar, "node {node} waits for a liar");
        assert!(overlay.backup_supernode().is_some(), "node {node}");
        assert_eq!(overlay.role(), Role::Node, "nobody was driven to serve");
    }
}

#[test]
fn supernodes_that_tell_of_their_like_only_hide_no_stream() {
    let mut net = supernodes_with(Lie::Eclipse);
    let held = |liar: usize| net.nodes[liar].overlay.registered_nodes();
    assert!(held(17) + held(18) > 0, "nobody is registered with a liar");
    for node in 19..40 {
        net.watch(node);
    }
    net.run(Duration::from_secs(5));
    net.check(&(19..40).collect::<Vec<_>>());
    for node in 0..40 {
        let known = net.nodes[node].overlay.records.nodes().count();
        assert!(known <= 100, "node {node} keeps {known}");
    }
    // Even whoever has a liar for a primary knows an honest one, should they all deny it.
    for node in 19..40 {
        let overlay = &net.nodes[node].overlay;
        let honest = (0..17).filter(|other| overlay.by_node.contains_key(&net.id(*other)));
        assert!(honest.count() >= 1, "node {node}");
    }
}

impl Net {
    /// What a liar makes of what it would say.
    pub(super) fn lied(&self, from: usize, packet: Packet) -> Option<Packet> {
        let Some(lie) = self.nodes[from].lie else {
            return Some(packet);
        };
        let path = vec![self.id(0), self.id(from)];
        Some(match (packet, lie) {
            (Packet::Frame(..), _) => return None,
            (Packet::Message(Message::TicketOffer(mut offer)), _) => {
                (offer.path, offer.delay_us, offer.spare_bps) = (path, 0, 1 << 40);
                Packet::Message(offer.into())
            }
            (Packet::Message(Message::TicketAccepted(mut accepted)), Lie::Path) => {
                accepted.path = path;
                Packet::Message(accepted.into())
            }
            (Packet::Message(Message::PathUpdate(mut update)), Lie::Path) => {
                (update.path, update.delay_us) = (path, 0);
                Packet::Message(update.into())
            }
            (Packet::Beat(mut beat), _) => {
                beat.tickets.iter_mut().for_each(|t| lied_beat(t, lie));
                // A clock that runs as it likes: the way seems to take no time.
                beat.echo = beat.echo.map(|(seq, held)| (seq, held + 20_000));
                Packet::Beat(beat)
            }
            (Packet::Message(Message::Registered(_)), Lie::Room) => {
                let refused = Refused {
                    reason: Reason::Full,
                    referrals: (0..8).map(nobody).collect(),
                };
                Packet::Message(refused.into())
            }
            (Packet::Message(Message::Announce(_) | Message::Found(_)), Lie::Eclipse) => {
                return None;
            }
            (Packet::Message(Message::Peers(_)), Lie::Eclipse) => {
                let hostile = self.nodes.iter().filter(|node| node.lie.is_some());
                let known = hostile.map(|node| node.overlay.record.wire().clone());
                let invented = (0..24).map(|seed| foreign(seed, 1, Role::Supernode).wire().clone());
                let records = known.chain(invented).map(RecordBytes).collect();
                Packet::Message(Peers { records }.into())
            }
            (honest, _) => honest,
        })
    }
}

fn lied_beat(beat: &mut TicketBeat, lie: Lie) {
    beat.delay_us = 0;
    match lie {
        Lie::Mute | Lie::Room | Lie::Eclipse => {}
        Lie::NoSource => beat.supply = Supply::NoSource,
        Lie::Path => {
            beat.supply = Supply::Ok;
            beat.newest = (1 << 40, 1);
        }
    }
}
