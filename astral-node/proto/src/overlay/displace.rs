//! Who gives goes before who takes only (DESIGN §6, *Contributors first*).
//!
//! ```text
//!   child that carries others,         ── TicketRequest{carries, places} ──► full parent
//!   or could feed some
//!   leaf ◄── TicketCancel{full, referrals: the child} ── parent ── TicketAccepted ──► child
//! ```
//!
//! A branch that has lost its parent would else hang at the end of another one, and every
//! node of it stand that much farther from the source; and a place near the source at which
//! a node could feed ten is lost on one that feeds nobody. A leaf that gives way has a
//! standby, and nobody below it notices. That somebody carries others is believed for a time:
//! a child that got a place so and carries nobody then loses it. One that could feed some, and
//! was asked by nobody, keeps its place until somebody asks for it.

use std::time::Duration;

use super::Overlay;
use super::event::{ConnId, Time};
use super::feeds::Feed;
use crate::ids::{StreamId, TicketId};
use crate::wire::control::{Reason, TicketRequest};

/// Nodes that somebody carries who goes before a leaf: what the leaf loses must be less than
/// what they gain.
const CARRIES_MIN: u32 = 3;
/// Nodes that somebody could feed who goes before a leaf that could feed none.
const PLACES_MIN: u32 = 2;
/// Somebody goes before a leaf if it and those whom it could feed are so many times those of
/// the leaf: nobody is moved for little, and nobody to and fro.
const TIMES: u32 = 3;
/// A leaf is left in peace for this long after it came.
const SETTLED: Duration = Duration::from_secs(2);
/// What was said of those who are carried, or could be fed, is believed for this long.
const BELIEVED_FOR: Duration = Duration::from_secs(30);

/// What a peer that asks for a stream says to give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gives {
    stream: StreamId,
    /// Whether it carries others who lack the stream with it.
    carries: bool,
    /// Further nodes that it could feed.
    places: u32,
}

/// How a child got its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There was room.
    Free,
    /// A leaf gave way, since it carries others.
    ForCarrying,
    /// A leaf gave way, since it could feed some.
    ForRoom,
}

impl Overlay {
    /// Nodes that get the stream by way of this one, if it is worth saying.
    pub(super) fn carries(&self, id: StreamId) -> Option<u32> {
        let below = self.feeds.values();
        let below = below.filter(|feed| feed.stream == id && feed.is_active());
        let viewers = below.fold(0u32, |sum, feed| sum.saturating_add(feed.viewers));
        Some(viewers).filter(|viewers| self.contributes && *viewers >= CARRIES_MIN)
    }

    /// Further nodes that this one could feed, if it is worth saying.
    pub(super) fn places(&self, id: StreamId) -> Option<u32> {
        Some(self.free_places(id)).filter(|places| self.contributes && *places >= PLACES_MIN)
    }

    /// A peer asks for a stream, and has said what it gives.
    pub(super) fn note_asked(&mut self, now: Time, conn: ConnId, request: &TicketRequest) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            let carries = request.carries >= Some(CARRIES_MIN);
            let places = request.places.unwrap_or(0);
            let gives = Gives {
                stream: request.stream,
                carries,
                places,
            };
            peer.gives = Some(gives).filter(|_| carries || places >= PLACES_MIN);
            peer.asked = Some(now);
        }
    }

    /// The child that gives way to a peer that gives more: the newest of those who carry
    /// nobody, and have the least to give.
    pub(super) fn gives_way(&self, now: Time, conn: ConnId, id: StreamId) -> Option<TicketId> {
        let gives = self.peers.get(&conn)?.gives;
        let gives = gives.filter(|gives| gives.stream == id)?;
        let goes_before = |feed: &Feed| {
            let could = feed.could_feed(now);
            let more = gives.places.saturating_add(1) / TIMES > could;
            gives.carries || (gives.places >= PLACES_MIN && more)
        };
        let is_leaf = |feed: &Feed| {
            let other = feed.stream == id && feed.conn != conn && feed.is_active();
            other && feed.viewers <= 1 && now.since(feed.created) >= SETTLED && goes_before(feed)
        };
        let leaves = self.feeds.iter().filter(|(_, feed)| is_leaf(feed));
        let order = |(id, feed): &(&TicketId, &Feed)| {
            let newest_first = std::cmp::Reverse(feed.created);
            (feed.could_feed(now), newest_first, **id)
        };
        leaves.min_by_key(order).map(|(ticket, _)| *ticket)
    }

    /// Makes room for a peer that gives more than a leaf at a node that is full, and says how
    /// that came about.
    pub(super) fn make_room(&mut self, now: Time, conn: ConnId, id: StreamId) -> Place {
        let Some(ticket) = self.gives_way(now, conn, id) else {
            return Place::Free;
        };
        let gives = self.peers.get(&conn).and_then(|peer| peer.gives);
        let place = if gives.is_some_and(|gives| gives.carries) {
            Place::ForCarrying
        } else {
            Place::ForRoom
        };
        let to = self.feeds.get(&ticket).map(|feed| feed.conn);
        let to = to
            .and_then(|conn| self.peers.get(&conn))
            .map(|peer| peer.remote);
        let node = self.peers.get(&conn).map(|peer| peer.node);
        let referral = node.zip(to).and_then(|(node, to)| self.referral(node, to));
        self.cancel_feed(ticket, Reason::Full, referral.into_iter().collect());
        place
    }

    /// Ends the feeds of those who said that they carry others, and do not.
    pub(super) fn check_carriers(&mut self, now: Time) {
        let idle = |feed: &Feed| {
            let late = now.since(feed.created) >= BELIEVED_FOR;
            let carries = feed.place == Place::ForCarrying;
            carries && feed.is_active() && late && feed.viewers <= 1
        };
        for ticket in self.tickets_where(idle) {
            self.cancel_feed(ticket, Reason::NotForwarding, Vec::new());
        }
    }
}

impl Feed {
    /// Nodes that a leaf could feed, as far as that is believed: who got a place for it and
    /// feeds nobody has had its time.
    fn could_feed(&self, now: Time) -> u32 {
        let had_its_time = now.since(self.created) >= BELIEVED_FOR;
        if self.place == Place::ForRoom && had_its_time {
            0
        } else {
            self.free
        }
    }
}
