//! A hostile tenth: nodes whose paths, clocks and offers lie.

use super::*;
use crate::ids::NodeId;
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
            (honest, _) => honest,
        })
    }
}

fn lied_beat(beat: &mut TicketBeat, lie: Lie) {
    beat.delay_us = 0;
    match lie {
        Lie::Mute => {}
        Lie::NoSource => beat.supply = Supply::NoSource,
        Lie::Path => {
            beat.supply = Supply::Ok;
            beat.newest = (1 << 40, 1);
        }
    }
}
