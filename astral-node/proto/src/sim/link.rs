//! Connections between nodes: latency, jitter, loss, order, cuts.
//!
//! Control messages and video are reliable: what is lost comes later, after a
//! retransmission. Heartbeats are datagrams, and are lost. Control messages of one
//! connection stay in order.

use std::time::Duration;

use super::dice::Dice;
use super::scenario::Network;
use crate::overlay::{ConnId, Time};

/// A peer that has not been heard of for this long has lost the connection: QUIC's idle
/// timeout as `transport` sets it.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// A handshake that is not answered ends after this.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// Added to a round trip by a retransmission (RFC 9002 §6.2: 4 × variation, 25 ms of delayed acknowledgement).
const RETRANSMIT: Duration = Duration::from_millis(30);

/// One end of a connection: what its node calls `ConnId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End(pub(super) u64);

impl End {
    fn new(generation: u32, slot: usize, side: usize) -> Self {
        Self((u64::from(generation) << 32) | ((slot as u64) << 1) | side as u64)
    }

    fn slot(self) -> usize {
        ((self.0 as u32) >> 1) as usize
    }

    fn side(self) -> usize {
        (self.0 & 1) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The other end.
    pub(super) fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    pub(super) fn conn(self) -> ConnId {
        ConnId(self.0)
    }

    pub(super) fn of(conn: ConnId) -> Self {
        Self(conn.0)
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    generation: u32,
    nodes: [u32; 2],
    /// Whether each side still has it.
    open: [bool; 2],
    latency: Duration,
    /// When the last control message to each side arrives.
    ordered: [Time; 2],
    /// When each side has heard a heartbeat last.
    pub(super) heard: [Time; 2],
    /// Set while packets do not get through.
    pub(super) cut: bool,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Links {
    slots: Vec<Link>,
    free: Vec<usize>,
}

/// Where a node is: distances between nodes are distances in the unit square.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) x: f32,
    pub(super) y: f32,
}

impl Spot {
    pub(super) fn latency_to(self, other: Self, network: &Network) -> Duration {
        let (dx, dy) = (self.x - other.x, self.y - other.y);
        let share = f64::from(dx.hypot(dy)) / std::f64::consts::SQRT_2;
        let [low, high] = network.latency_ms;
        Duration::from_secs_f64((low + (high - low) * share) / 1000.0)
    }
}

impl Links {
    /// A new connection from the first node to the second; gives the first one's end.
    pub(super) fn add(&mut self, now: Time, nodes: [u32; 2], latency: Duration) -> End {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let generation = self.slots.get(slot).map_or(0, |link| link.generation + 1);
        let link = Link {
            generation,
            nodes,
            open: [true; 2],
            latency,
            ordered: [now; 2],
            heard: [now; 2],
            cut: false,
        };
        if slot == self.slots.len() {
            self.slots.push(link);
        } else {
            self.slots[slot] = link;
        }
        End::new(generation, slot, 0)
    }

    /// The connection, if this end still has it.
    pub(super) fn at(&self, end: End) -> Option<&Link> {
        let link = self.slots.get(end.slot())?;
        (link.generation == end.generation() && link.open[end.side()]).then_some(link)
    }

    pub(super) fn at_mut(&mut self, end: End) -> Option<&mut Link> {
        let link = self.slots.get_mut(end.slot())?;
        (link.generation == end.generation() && link.open[end.side()]).then_some(link)
    }

    /// The node at an end, whether it still has the connection or not.
    pub(super) fn node(&self, end: End) -> Option<u32> {
        let link = self.slots.get(end.slot())?;
        (link.generation == end.generation()).then_some(link.nodes[end.side()])
    }

    /// Ends the connection at one end; true if it had it.
    pub(super) fn drop_end(&mut self, end: End) -> bool {
        let Some(link) = self.at_mut(end) else {
            return false;
        };
        link.open[end.side()] = false;
        if link.open == [false; 2] {
            self.free.push(end.slot());
        }
        true
    }

    /// Both ends of every connection for which `holds`.
    pub(super) fn ends_where(&self, holds: impl Fn(&Link) -> bool) -> Vec<End> {
        let slots = self.slots.iter().enumerate();
        let found = slots.filter(|(_, link)| link.open != [false; 2] && holds(link));
        found
            .map(|(slot, link)| End::new(link.generation, slot, 0))
            .collect()
    }
}

impl Link {
    pub(super) fn nodes(&self) -> [u32; 2] {
        self.nodes
    }

    pub(super) fn latency(&self) -> Duration {
        self.latency
    }

    pub(super) fn heard_at(&self, end: End) -> Time {
        self.heard[end.side()]
    }

    pub(super) fn hear(&mut self, end: End, now: Time) {
        self.heard[end.side()] = now;
    }

    fn jittered(&self, network: &Network, dice: &mut Dice) -> Duration {
        let most = Duration::from_secs_f64(network.jitter_ms / 1000.0);
        self.latency + dice.up_to(most)
    }

    /// How long a datagram takes; none if it is lost.
    pub(super) fn datagram(&self, network: &Network, dice: &mut Dice) -> Option<Duration> {
        (!dice.chance(network.loss)).then(|| self.jittered(network, dice))
    }

    /// How long `packets` packets of reliable bytes take.
    pub(super) fn reliable(&self, network: &Network, dice: &mut Dice, packets: u32) -> Duration {
        let mut takes = self.jittered(network, dice);
        let lost = 1.0 - (1.0 - network.loss).powi(packets as i32);
        let mut tries = 0;
        while dice.chance(if tries == 0 { lost } else { network.loss }) && tries < 8 {
            takes += 2 * self.latency + RETRANSMIT;
            tries += 1;
        }
        takes
    }

    /// When the last control message so far arrives at `end`.
    pub(super) fn ordered_to(&self, end: End) -> Time {
        self.ordered[end.side()]
    }

    /// When a control message that is sent now to `end` arrives: after all before it.
    pub(super) fn in_order(&mut self, end: End, at: Time) -> Time {
        let last = &mut self.ordered[end.side()];
        *last = at.max(*last);
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_bytes_come_later_and_lost_heartbeats_not_at_all() {
        let network = Network {
            loss: 0.5,
            ..Network::default()
        };
        let mut links = Links::default();
        let end = links.add(Time(0), [0, 1], Duration::from_millis(20));
        let link = links.at(end).unwrap();
        let mut dice = Dice::new(1);
        let lost = (0..1000).filter(|_| link.datagram(&network, &mut dice).is_none());
        assert!((400..600).contains(&lost.count()));
        let late = Duration::from_millis(24);
        let later = (0..1000).filter(|_| link.reliable(&network, &mut dice, 1) > late);
        assert!((400..600).contains(&later.count()));
    }

    #[test]
    fn end_of_a_connection_that_is_gone_is_not_that_of_the_next() {
        let mut links = Links::default();
        let old = links.add(Time(0), [0, 1], Duration::ZERO);
        assert!(links.drop_end(old) && links.drop_end(old.other()));
        assert!(!links.drop_end(old));
        let new = links.add(Time(0), [2, 3], Duration::ZERO);
        assert_eq!(links.node(new.other()), Some(3));
        assert_eq!((links.node(old), links.at(old).is_none()), (None, true));
    }
}
