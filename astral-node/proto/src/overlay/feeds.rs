//! The parent's side of tickets: offering, promising, charging, ending.

use std::collections::{BTreeMap, BTreeSet};

use super::audience::Audience;
use super::budget::charge;
use super::displace::Place;
use super::event::{Action, Change, ConnId, Time};
use super::search::Stream;
use super::{Overlay, Timer};
use crate::ids::{NodeId, StreamId, TicketId};
use crate::limits::{PATH_MAX, TICKETS_PER_PEER};
use crate::record::SignedStream;
use crate::wire::control::{
    Confirm, Have, PathUpdate, Reason, RecordBytes, Referral, TicketAccepted, TicketActivate,
    TicketCancel, TicketConfirm, TicketOffer, TicketRefused,
};
use crate::wire::heartbeat::{Supply, TicketBeat};

/// A child, and what was promised to it.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) conn: ConnId,
    pub(super) node: NodeId,
    pub(super) stream: StreamId,
    pub(super) created: Time,
    pub(super) charge_bps: u64,
    pub(super) viewers: u32,
    pub(super) free: u32,
    /// Set while this node is only ready to feed it.
    pub(super) standby: Option<Ready>,
    /// How it got its place.
    pub(super) place: Place,
    /// Since when frames that it pulls are counted, and how many since.
    pub(super) pulled: (Time, u32),
    /// How those are served who have the stream by way of it, as it says.
    pub(super) audience: Audience,
}

/// A child that is fed by somebody else for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// Its parent, whose failure would bring it here.
    pub(super) parent: NodeId,
    /// Whether upload is kept free for it; else there may be none when it comes.
    pub(super) reserved: bool,
}

impl Feed {
    /// Whether it is fed now.
    pub(super) fn is_active(&self) -> bool {
        self.standby.is_none()
    }
}

/// Nodes that somebody is referred to who is refused: each is worth a connection, and the
/// first of them most.
const REFERRED: usize = 5;
/// Nodes above that a child is told of.
const ABOVE_MAX: usize = 5;
/// Children that a node is ready to feed: they cost a heartbeat each.
const STANDBYS_MAX: usize = 128;

impl Overlay {
    // Own streams

    pub(super) fn publish(&mut self, now: Time, record: SignedStream, supply: Supply) {
        let id = record.value().id();
        if self.is_over(id) {
            // Signed before the stream was ended, told after it.
            return;
        }
        let stream = self.streams.entry(id).or_insert_with(|| Stream::new(now));
        stream.own.get_or_insert(supply);
        self.learn(now, None, record);
    }

    pub(super) fn unpublish(&mut self, now: Time, record: SignedStream) {
        self.learn(now, None, record);
    }

    pub(super) fn supply_changed(&mut self, now: Time, id: StreamId, supply: Supply) {
        let Some(own) = self
            .streams
            .get_mut(&id)
            .and_then(|stream| stream.own.as_mut())
        else {
            return;
        };
        if *own != supply {
            *own = supply;
            self.beat_children(now, id);
            self.changed(Change::Stream(id));
        }
    }

    // Offering and promising

    pub(super) fn ticket_requested(&mut self, now: Time, conn: ConnId, id: StreamId) {
        self.peer_knows(conn, id);
        match self.check_room(conn, id) {
            Ok(()) => self.offer(conn, id),
            Err(Reason::Full) if self.gives_way(now, conn, id).is_some() => self.offer(conn, id),
            Err(Reason::NoStream) if self.pull(now, conn, id) => {}
            Err(reason) => self.refuse(now, conn, id, reason),
        }
    }

    /// Whether a ticket for this peer could be promised now.
    fn check_room(&self, conn: ConnId, id: StreamId) -> Result<(), Reason> {
        let peer = self.peers.get(&conn).ok_or(Reason::Disconnected)?;
        let stream = self.streams.get(&id).filter(|stream| stream.is_held());
        let stream = stream.ok_or(if self.is_over(id) {
            Reason::Ended
        } else {
            Reason::NoStream
        })?;
        if self.leaving {
            return Err(Reason::Leaving);
        }
        let path = self.own_path(stream);
        if path.contains(&peer.node) || path.len() >= PATH_MAX {
            return Err(Reason::Loop);
        }
        if self.budget.never_forwards() {
            return Err(Reason::NotForwarding);
        }
        if self.feeds_on.get(&conn).map_or(0, BTreeSet::len) >= TICKETS_PER_PEER {
            return Err(Reason::Limit);
        }
        let has_it = self
            .feeds
            .values()
            .any(|feed| feed.conn == conn && feed.stream == id && feed.is_active());
        if has_it || self.budget.has_room(self.charge_of(id)) {
            return Ok(());
        }
        Err(Reason::Full)
    }

    pub(super) fn charge_of(&self, id: StreamId) -> u64 {
        charge(self.known_rate(id).unwrap_or(0))
    }

    /// The stream's rate as measured here or declared by its publisher.
    fn known_rate(&self, id: StreamId) -> Option<u64> {
        let measured = self.streams.get(&id).map(|s| s.progress.peak_bps);
        let known = self.records.stream(id);
        let declared = known.and_then(|known| known.record.value().bitrate_bps);
        measured.max(declared).filter(|bps| *bps > 0)
    }

    fn offer(&mut self, conn: ConnId, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let offer = TicketOffer {
            stream: id,
            path: self.own_path(stream),
            delay_us: self.delay_us(stream),
            spare_bps: self.budget.spare_bps(),
        };
        self.send(conn, offer);
    }

    pub(super) fn refuse(&mut self, now: Time, conn: ConnId, id: StreamId, reason: Reason) {
        let referrals = if reason == Reason::NoStream {
            self.referrals_to_source(now, conn, id)
        } else {
            self.referrals_to_neighbours(conn, id)
        };
        self.send(
            conn,
            TicketRefused {
                stream: id,
                reason,
                referrals,
            },
        );
    }

    /// The publisher if it is known where that is, else whoever first told of its newest
    /// record: that one stands nearer to it.
    fn referrals_to_source(&self, now: Time, conn: ConnId, id: StreamId) -> Vec<Referral> {
        let to = self.peers.get(&conn).map(|peer| peer.remote);
        let fresh = self.records.fresh(now).find(|(known, _)| *known == id);
        let Some((to, (_, known))) = to.zip(fresh) else {
            return Vec::new();
        };
        let publisher = self.referral(known.record.value().publisher, to);
        let nearer = || {
            let teller = known.told_by.filter(|teller| *teller != conn)?;
            self.referral(self.peers.get(&teller)?.node, to)
        };
        publisher.or_else(nearer).into_iter().collect()
    }

    /// Children of the stream that have room, at them or below; then who feeds this node and
    /// who would: one that never forwards may be the only node that the asker knows. The
    /// other children come last: what they keep for a standby goes to who needs it now.
    fn referrals_to_neighbours(&mut self, conn: ConnId, id: StreamId) -> Vec<Referral> {
        let asker = self.peers.get(&conn).map(|peer| peer.node);
        let (mut referrals, full) = self.children_to_name(conn, id);
        let above = self.others_above(id, conn).into_iter();
        referrals.extend(above.filter(|referral| Some(referral.node) != asker));
        referrals.extend(full);
        referrals.truncate(REFERRED);
        referrals
    }

    /// Children of the stream, those with room first.
    fn referrals_to_children(&mut self, conn: ConnId, id: StreamId) -> Vec<Referral> {
        let (mut referrals, full) = self.children_to_name(conn, id);
        referrals.extend(full);
        referrals.truncate(REFERRED);
        referrals
    }

    /// Children of the stream that have room, and those that say they have none. The first
    /// are those with upload to spare, then those with free places below them, drawn so that
    /// who has more is more often named before the rest: what a child says of them is old by
    /// a heartbeat, and a crowd that was sent to the best would find it full.
    fn children_to_name(&mut self, conn: ConnId, id: StreamId) -> (Vec<Referral>, Vec<Referral>) {
        let Some(to) = self.peers.get(&conn).map(|peer| peer.remote) else {
            return Default::default();
        };
        let charge_bps = self.charge_of(id);
        let mut children: Vec<(bool, bool, u64, NodeId)> = Vec::new();
        for feed in self.feeds.values() {
            if feed.stream == id && feed.conn != conn && feed.is_active() {
                let peer = self.peers.get(&feed.conn);
                let spare = peer.is_some_and(|peer| peer.spare_bps >= charge_bps);
                let drawn = self.random.next() % (u64::from(feed.free) + 1);
                children.push((spare || feed.free > 0, spare, drawn, feed.node));
            }
        }
        children.sort_unstable_by_key(|child| std::cmp::Reverse(*child));
        children.truncate(REFERRED);
        let (room, full): (Vec<_>, Vec<_>) = children.into_iter().partition(|child| child.0);
        let name = |children: Vec<(bool, bool, u64, NodeId)>| -> Vec<Referral> {
            let nodes = children.into_iter().map(|child| child.3);
            nodes.filter_map(|node| self.referral(node, to)).collect()
        };
        (name(room), name(full))
    }

    pub(super) fn ticket_confirmed(&mut self, now: Time, conn: ConnId, confirm: TicketConfirm) {
        let id = confirm.stream;
        let Some(node) = self.peers.get(&conn).map(|peer| peer.node) else {
            return;
        };
        let crossing = self.is_confirming(id, node) && self.id < node;
        let wants_now = confirm.confirm == Confirm::Active && !crossing;
        let full = wants_now && self.check_room(conn, id) == Err(Reason::Full);
        let place = if full {
            self.make_room(now, conn, id)
        } else {
            Place::Free
        };
        let checked = match confirm.confirm {
            _ if crossing => Err(Reason::Loop),
            Confirm::Active => self.check_room(conn, id).map(|()| None),
            Confirm::Standby(parent) => self.check_standby_room(conn, id, parent).map(Some),
        };
        match checked {
            Err(reason) => self.refuse(now, conn, id, reason),
            Ok(standby) => self.promise(now, conn, node, confirm, place, standby),
        }
    }

    /// Whether this node can be ready to feed a peer, and what it would keep for it.
    fn check_standby_room(
        &self,
        conn: ConnId,
        id: StreamId,
        parent: NodeId,
    ) -> Result<Ready, Reason> {
        let fed = |feed: &Feed| feed.conn == conn && feed.stream == id && feed.is_active();
        let standbys = self.feeds.values().filter(|feed| !feed.is_active());
        if self.feeds.values().any(fed) || parent == self.id || standbys.count() >= STANDBYS_MAX {
            return Err(Reason::Limit);
        }
        match self.check_room(conn, id) {
            Ok(()) | Err(Reason::Full) => {}
            Err(reason) => return Err(reason),
        }
        let with_it = self.worst_failure(Some((parent, self.charge_of(id))));
        let limit_bps = self.budget.limit_bps.unwrap_or(u64::MAX);
        let reserved = self.budget.promised_bps.saturating_add(with_it) <= limit_bps;
        Ok(Ready { parent, reserved })
    }

    /// The largest sum of charges that the failure of one node would bring here, with
    /// one more child counted in.
    fn worst_failure(&self, more: Option<(NodeId, u64)>) -> u64 {
        let mut by_parent: BTreeMap<NodeId, u64> = BTreeMap::new();
        let held = self.feeds.values().filter_map(|feed| {
            let ready = feed.standby.filter(|ready| ready.reserved)?;
            Some((ready.parent, feed.charge_bps))
        });
        for (parent, charge_bps) in held.chain(more) {
            let sum = by_parent.entry(parent).or_default();
            *sum = sum.saturating_add(charge_bps);
        }
        by_parent.into_values().max().unwrap_or(0)
    }

    /// A child turns to this node, which promised to be ready.
    pub(super) fn ticket_activated(&mut self, now: Time, conn: ConnId, activate: TicketActivate) {
        let TicketActivate { id: ticket, have } = activate;
        let feed = self.feeds.get(&ticket).filter(|feed| feed.conn == conn);
        let Some((stream, node, standby)) = feed.map(|f| (f.stream, f.node, f.standby)) else {
            let cancel = TicketCancel {
                id: ticket,
                reason: Reason::NoStream,
                referrals: Vec::new(),
            };
            return self.send(conn, cancel);
        };
        // Said twice, it counts once.
        if standby.is_none() {
            return;
        }
        if let Err(reason) = self.check_room(conn, stream) {
            let referrals = self.referrals_to_children(conn, stream);
            return self.cancel_feed(ticket, reason, referrals);
        }
        self.serve(now, conn, ticket, stream, have);
        self.changed(Change::Promised(ticket, node));
    }

    fn serve(&mut self, now: Time, conn: ConnId, ticket: TicketId, stream: StreamId, have: Have) {
        if let Some(feed) = self.feeds.get_mut(&ticket) {
            feed.standby = None;
            feed.created = now;
            feed.viewers = 1;
        }
        self.count_promised();
        self.act(Action::SetRoute {
            conn,
            ticket,
            stream,
            have,
        });
        self.bind(now, conn);
    }

    /// This node will not have the stream: who counted on it must look elsewhere.
    pub(super) fn end_standby_feeds(&mut self, id: StreamId) {
        for ticket in self.tickets_where(|feed| feed.stream == id && !feed.is_active()) {
            self.cancel_feed(ticket, Reason::NoStream, Vec::new());
        }
    }

    /// Others whom a child could turn to if this node failed, or for a place nearer to the
    /// source: who feeds this node, who would, and who stands above, as its parent says.
    fn others_above(&self, id: StreamId, conn: ConnId) -> Vec<Referral> {
        let to = self.peers.get(&conn).map(|peer| peer.remote);
        let Some((stream, to)) = self.streams.get(&id).zip(to) else {
            return Vec::new();
        };
        let parent = stream.parent.as_ref();
        let standby = stream.standby.as_ref().map(|standby| standby.node);
        let nearest = parent.map(|parent| parent.node).into_iter().chain(standby);
        let nearest = nearest.filter_map(|node| self.referral(node, to));
        let is_above = |referral: &&Referral| {
            let above = parent.is_some_and(|parent| parent.path.contains(&referral.node));
            above && Some(referral.node) != standby
        };
        let told = parent.map_or(&[][..], |parent| &parent.others);
        let farther = told.iter().filter(is_above).filter_map(|referral| {
            let addresses = Self::tellable(&referral.addresses, to);
            let node = referral.node;
            (!addresses.is_empty()).then_some(Referral { node, addresses })
        });
        nearest.chain(farther).take(ABOVE_MAX).collect()
    }

    fn promise(
        &mut self,
        now: Time,
        conn: ConnId,
        node: NodeId,
        confirm: TicketConfirm,
        place: Place,
        standby: Option<Ready>,
    ) {
        let id = confirm.stream;
        let record = self
            .records
            .stream(id)
            .map(|known| known.record.wire().clone());
        let path = self.streams.get(&id).map(|stream| self.own_path(stream));
        let (Some(record), Some(path)) = (record, path) else {
            return self.refuse(now, conn, id, Reason::NoStream);
        };
        let same = |feed: &Feed| feed.conn == conn && feed.stream == id;
        let before = self.tickets_where(same);
        let ticket = TicketId(self.random.next());
        let charge_bps = self.charge_of(id);
        let feed = Feed {
            conn,
            node,
            stream: id,
            created: now,
            charge_bps,
            viewers: u32::from(standby.is_none()),
            free: 0,
            standby,
            place,
            pulled: (now, 0),
            audience: Audience::default(),
        };
        // First the new one, then the old: a stream that nobody is fed is let go.
        self.feeds.insert(ticket, feed);
        self.feeds_on.entry(conn).or_default().insert(ticket);
        for old in before {
            self.end_feed(old, Reason::OtherChosen);
        }
        self.count_promised();
        let accepted = TicketAccepted {
            stream: id,
            id: ticket,
            path,
            rate_bps: charge_bps,
            record: RecordBytes(record),
            others: Some(self.others_above(id, conn)).filter(|others| !others.is_empty()),
        };
        self.send(conn, accepted);
        if standby.is_some() {
            self.bind(now, conn);
            return self.changed(Change::Ready(ticket, node));
        }
        self.serve(now, conn, ticket, id, confirm.have);
        self.changed(Change::Promised(ticket, node));
    }

    // Charging

    pub(super) fn count_promised(&mut self) {
        let active = self.feeds.values().filter(|feed| feed.is_active());
        self.budget.promised_bps = active.map(|feed| feed.charge_bps).sum();
        let limit_bps = self.budget.limit_bps.unwrap_or(u64::MAX);
        let room_bps = limit_bps.saturating_sub(self.budget.promised_bps);
        while self.worst_failure(None) > room_bps {
            let newest = self
                .feeds
                .iter_mut()
                .filter_map(|(id, feed)| {
                    let reserved = feed.standby.as_mut().filter(|ready| ready.reserved)?;
                    Some(((feed.created, *id), reserved))
                })
                .max_by_key(|(name, _)| *name);
            let Some((_, reserved)) = newest else { break };
            reserved.reserved = false;
        }
        self.budget.reserved_bps = self.worst_failure(None);
    }

    /// Charges every ticket anew, and cancels the newest while the sum is over the limit.
    pub(super) fn recharge(&mut self, now: Time) {
        let streams: BTreeSet<StreamId> = self.feeds.values().map(|feed| feed.stream).collect();
        for id in streams {
            let Some(charge_bps) = self.known_rate(id).map(charge) else {
                continue;
            };
            for feed in self.feeds.values_mut().filter(|feed| feed.stream == id) {
                feed.charge_bps = charge_bps;
            }
        }
        self.check_carriers(now);
        self.count_promised();
        while self.budget.is_over() {
            let newest = self
                .feeds
                .iter()
                .filter(|(_, feed)| feed.is_active())
                .max_by_key(|(id, feed)| (feed.created, **id));
            let Some((ticket, conn, stream)) = newest.map(|(id, f)| (*id, f.conn, f.stream)) else {
                break;
            };
            let referrals = self.referrals_to_children(conn, stream);
            self.cancel_feed(ticket, Reason::Full, referrals);
        }
        self.timers
            .set(Timer::Recharge, now.after(super::budget::RECHARGE_EVERY));
    }

    // Ending

    pub(super) fn cancel_feed(
        &mut self,
        ticket: TicketId,
        reason: Reason,
        referrals: Vec<Referral>,
    ) {
        if let Some(conn) = self.feeds.get(&ticket).map(|feed| feed.conn) {
            self.send(
                conn,
                TicketCancel {
                    id: ticket,
                    reason,
                    referrals,
                },
            );
            self.end_feed(ticket, reason);
        }
    }

    fn end_feed(&mut self, ticket: TicketId, reason: Reason) {
        let Some(feed) = self.feeds.remove(&ticket) else {
            return;
        };
        if let Some(on) = self.feeds_on.get_mut(&feed.conn) {
            on.remove(&ticket);
            if on.is_empty() {
                self.feeds_on.remove(&feed.conn);
            }
        }
        self.count_promised();
        self.act(Action::ClearRoute {
            conn: feed.conn,
            ticket,
        });
        self.changed(Change::Ended(ticket, feed.node, reason));
        self.release(feed.stream);
        self.check_left();
    }

    pub(super) fn end_feeds_of(&mut self, conn: ConnId, reason: Reason) {
        for ticket in self.tickets_where(|feed| feed.conn == conn) {
            self.end_feed(ticket, reason);
        }
    }

    pub(super) fn end_feeds_of_stream(&mut self, id: StreamId, reason: Reason) {
        for ticket in self.tickets_where(|feed| feed.stream == id) {
            let conn = self.feeds.get(&ticket).map(|feed| feed.conn);
            let to = conn
                .and_then(|conn| self.peers.get(&conn))
                .map(|peer| peer.remote);
            let parent = self
                .streams
                .get(&id)
                .and_then(|stream| stream.parent.as_ref());
            let referral = parent
                .zip(to)
                .and_then(|(parent, to)| self.referral(parent.node, to));
            self.cancel_feed(ticket, reason, referral.into_iter().collect());
        }
    }

    pub(super) fn tickets_where(&self, holds: impl Fn(&Feed) -> bool) -> Vec<TicketId> {
        self.feeds
            .iter()
            .filter(|(_, feed)| holds(feed))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The child has ended a ticket; false if it is none that this node feeds.
    pub(super) fn feed_cancelled(&mut self, conn: ConnId, cancel: &TicketCancel) -> bool {
        let is_ours = self
            .feeds
            .get(&cancel.id)
            .is_some_and(|feed| feed.conn == conn);
        if is_ours {
            self.end_feed(cancel.id, cancel.reason);
        }
        is_ours
    }

    /// Ends a ticket, whichever end of it this node is; whoever received by it looks for
    /// another, and leaves the other end alone for a while.
    pub(super) fn revoke(&mut self, now: Time, ticket: TicketId) {
        if let Some(feed) = self.feeds.get(&ticket) {
            let referrals = self.referrals_to_children(feed.conn, feed.stream);
            return self.cancel_feed(ticket, Reason::Revoked, referrals);
        }
        self.revoke_taken(now, ticket);
    }

    // Telling children

    pub(super) fn feed_beat(&mut self, now: Time, conn: ConnId, beat: &TicketBeat) -> bool {
        let Some(feed) = self.feeds.get_mut(&beat.ticket) else {
            return false;
        };
        if feed.conn != conn {
            return true;
        }
        if feed.is_active() {
            feed.viewers = beat.viewers;
            feed.free = beat.free;
        }
        // It lacks something, and wants to know whether this node lives.
        let asks = beat.supply == Supply::Repairing;
        if asks {
            self.beat_now(now, conn);
        }
        true
    }

    /// Viewers and free places in the part of the tree below and with this node.
    pub(super) fn subtree(&self, id: StreamId) -> (u32, u32) {
        let below = self
            .feeds
            .values()
            .filter(|feed| feed.stream == id && feed.is_active());
        let (viewers, free) = below.fold((0u32, 0u32), |(viewers, free), feed| {
            (
                viewers.saturating_add(feed.viewers),
                free.saturating_add(feed.free),
            )
        });
        let watched = self.streams.get(&id).is_some_and(Stream::is_watched);
        (
            viewers.saturating_add(u32::from(watched)),
            free.saturating_add(self.free_places(id)),
        )
    }

    /// Further nodes that this one could feed the stream.
    pub(super) fn free_places(&self, id: StreamId) -> u32 {
        let places = self.budget.spare_bps() / self.charge_of(id).max(1);
        places.min(u64::from(u16::MAX)) as u32
    }

    /// Nodes that are fed a stream from here.
    pub(super) fn children_of(&self, id: StreamId) -> u32 {
        let fed = |feed: &&Feed| feed.stream == id && feed.is_active();
        self.feeds.values().filter(fed).count() as u32
    }

    pub(super) fn beat_children(&mut self, now: Time, id: StreamId) {
        let conns: Vec<ConnId> = self
            .feeds
            .values()
            .filter(|feed| feed.stream == id)
            .map(|feed| feed.conn)
            .collect();
        for conn in conns {
            self.beat_now(now, conn);
        }
    }

    /// Tells the children of a stream that this node is fed by somebody else now.
    pub(super) fn tell_place(&mut self, id: StreamId) {
        self.tell_way(id, true);
    }

    /// Tells the children of a stream that the way to them has changed further up.
    pub(super) fn tell_path(&mut self, id: StreamId) {
        self.tell_way(id, false);
    }

    fn tell_way(&mut self, id: StreamId, moved: bool) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let (path, delay_us) = (self.own_path(stream), self.delay_us(stream));
        let children: Vec<(TicketId, ConnId)> = self
            .feeds
            .iter()
            .filter(|(_, feed)| feed.stream == id)
            .map(|(ticket, feed)| (*ticket, feed.conn))
            .collect();
        for (ticket, conn) in children {
            let path = path.iter().take(PATH_MAX).copied().collect();
            let others = moved.then(|| self.others_above(id, conn));
            self.send(
                conn,
                PathUpdate {
                    id: ticket,
                    path,
                    delay_us,
                    others: others.filter(|others| !others.is_empty()),
                },
            );
        }
    }
}
