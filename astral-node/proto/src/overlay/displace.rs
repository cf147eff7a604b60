//! Who carries others goes before who carries nobody (DESIGN §6, *Contributors first*).
//!
//! ```text
//!   child, with a branch below it ── TicketRequest{carries} ──► full parent
//!   leaf ◄── TicketCancel{full, referrals: the child} ── parent ── TicketAccepted ──► child
//! ```
//!
//! A branch that has lost its parent would else hang at the end of another one, and every
//! node of it stand that much farther from the source. A leaf that gives way has a standby,
//! and nobody below it notices. That somebody carries others is believed for a time: a child
//! that got a place so and carries nobody then loses it.

use std::time::Duration;

use super::Overlay;
use super::event::{ConnId, Time};
use super::feeds::Feed;
use crate::ids::{StreamId, TicketId};
use crate::wire::control::{Reason, TicketRequest};

/// Nodes that somebody carries who goes before a leaf: what the leaf loses must be less than
/// what they gain.
const CARRIES_MIN: u32 = 3;
/// A leaf is left in peace for this long after it came.
const SETTLED: Duration = Duration::from_secs(2);
/// What was said of those who are carried is believed for this long.
const BELIEVED_FOR: Duration = Duration::from_secs(30);

impl Overlay {
    /// Nodes that get the stream by way of this one, if it is worth saying.
    pub(super) fn carries(&self, id: StreamId) -> Option<u32> {
        let below = self.feeds.values();
        let below = below.filter(|feed| feed.stream == id && feed.is_active());
        let viewers = below.fold(0u32, |sum, feed| sum.saturating_add(feed.viewers));
        Some(viewers).filter(|viewers| *viewers >= CARRIES_MIN)
    }

    /// A peer asks for a stream, and has said how many it carries.
    pub(super) fn note_asked(&mut self, now: Time, conn: ConnId, request: &TicketRequest) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            let carries = request.carries.filter(|count| *count >= CARRIES_MIN);
            peer.carries = carries.map(|_| request.stream);
            peer.asked = Some(now);
        }
    }

    /// The child that gives way to a peer that carries others: the newest of those who carry
    /// nobody, and have the least to give.
    pub(super) fn gives_way(&self, now: Time, conn: ConnId, id: StreamId) -> Option<TicketId> {
        let peer = self.peers.get(&conn)?;
        if peer.carries != Some(id) {
            return None;
        }
        let is_leaf = |feed: &Feed| {
            let other = feed.stream == id && feed.conn != conn && feed.is_active();
            other && feed.viewers <= 1 && now.since(feed.created) >= SETTLED
        };
        let spare = |feed: &Feed| self.peers.get(&feed.conn).map_or(0, |peer| peer.spare_bps);
        let leaves = self.feeds.iter().filter(|(_, feed)| is_leaf(feed));
        let order =
            |(id, feed): &(&TicketId, &Feed)| (spare(feed), std::cmp::Reverse(feed.created), **id);
        leaves.min_by_key(order).map(|(ticket, _)| *ticket)
    }

    /// Makes room for a peer that carries others at a node that is full; true if there is
    /// some now.
    pub(super) fn make_room(&mut self, now: Time, conn: ConnId, id: StreamId) -> bool {
        let Some(ticket) = self.gives_way(now, conn, id) else {
            return false;
        };
        let to = self.feeds.get(&ticket).map(|feed| feed.conn);
        let to = to
            .and_then(|conn| self.peers.get(&conn))
            .map(|peer| peer.remote);
        let node = self.peers.get(&conn).map(|peer| peer.node);
        let referral = node.zip(to).and_then(|(node, to)| self.referral(node, to));
        self.cancel_feed(ticket, Reason::Full, referral.into_iter().collect());
        true
    }

    /// Ends the feeds of those who said that they carry others, and do not.
    pub(super) fn check_carriers(&mut self, now: Time) {
        let idle = |feed: &Feed| {
            let late = now.since(feed.created) >= BELIEVED_FOR;
            feed.displaced && feed.is_active() && late && feed.viewers <= 1
        };
        for ticket in self.tickets_where(idle) {
            self.cancel_feed(ticket, Reason::NotForwarding, Vec::new());
        }
    }
}
