//! The child's side of tickets: asking, choosing, confirming, losing a parent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::audience::Service;
use super::event::{Action, Change, ConnId, Progress, Target, Time, Why};
use super::holes::Pulls;
use super::improve::{cost, shared_cost};
use super::peers::Dial;
use super::standby::{Former, Quiet, Standby, is_apart, shared_ancestors};
use super::{Overlay, Timer};
use crate::ids::{NodeId, StreamId, TicketId};
use crate::limits::{ASKED_AT_ONCE, PATH_MAX};
use crate::record::{SignedStream, StreamState};
use crate::wire::control::{
    Confirm, PathUpdate, Reason, Referral, TicketAccepted, TicketCancel, TicketOffer,
    TicketRefused, TicketRequest,
};
use crate::wire::heartbeat::{Supply, TicketBeat};

/// Offers are collected for at least this long after the first good one.
const COLLECT_MIN: Duration = Duration::from_millis(20);
/// And for at most this long.
const COLLECT_MAX: Duration = Duration::from_millis(200);
/// Who has not answered a request by then counts as silent.
const ASK_WITHIN: Duration = Duration::from_millis(1_000);
/// A confirm is answered within this, else the next offer is tried.
const CONFIRM_WITHIN: Duration = Duration::from_millis(1_000);
/// First wait before asking again when nobody had room.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before asking again.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Two thirds of the time after which a parent that has more and sends nothing is left,
/// while it is not known how often something comes.
pub(super) const STALL: Duration = Duration::from_secs(1);
/// Nothing new for this long while nobody up the path admits to a break.
pub(super) const SILENT: Duration = Duration::from_secs(3);
/// A parent may begin with the next keyframe, which is at most 10 s away.
pub(super) const FIRST: Duration = Duration::from_secs(12);
/// A parent that says "no source" is believed for this long while the publisher's
/// signed record says that the stream is live.
pub(super) const NO_SOURCE: Duration = Duration::from_secs(15);
/// A node that finds itself in its own path leaves within this, jittered: one of those in a
/// loop is enough.
const LOOP_WITHIN: Duration = Duration::from_millis(300);
/// And at once if its parent is as new as this: then it has closed the loop itself.
const LOOP_CLOSED: Duration = Duration::from_secs(1);

/// A parent that has served for so long and then fails is asked again soon.
const SERVED_WELL: Duration = Duration::from_secs(20);
/// Doublings of the time for which a faulty parent is not asked: up to ten minutes.
const FAULTS_MAX: u32 = 8;
/// Peers that are asked at first for what is not urgent.
const ASKED_AT_LEISURE: usize = 4;
/// Nodes that were named and not asked yet, in one search: four refusals' worth.
const LEADS_MAX: usize = 32;
/// Nodes that are asked in one search; the next one begins anew.
const ASKED_MAX: usize = 64;
/// And in one for a better place: that can wait for the next.
const ASKED_FOR_BETTER: usize = 8;
/// Connections that are made at one time to those who were named, for somebody to send now:
/// each is a handshake, and nobody is dialled any more once there is an offer.
const DIALLED_FOR_PARENT: usize = 8;
/// And for a standby, which there is time to find.
const DIALLED_FOR_STANDBY: usize = 2;
/// Attempts that found nobody, after which those are asked who stood above the last parent.
const ASK_UPHILL: u32 = 2;
/// Faulty parents that are remembered.
const FAULTY_MAX: usize = 64;
/// A parent whose owner took the ticket back is not asked for this long.
const REVOKED: Duration = Duration::from_secs(30);

/// What this node has to do with one stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Set if this node publishes it.
    pub(super) own: Option<Supply>,
    pub(super) wanted: BTreeSet<Why>,
    pub(super) search: Option<Search>,
    pub(super) attempt: u32,
    pub(super) parent: Option<Parent>,
    pub(super) standby: Option<Standby>,
    pub(super) former: Option<Former>,
    pub(super) quiet: Option<Quiet>,
    pub(super) standby_attempt: u32,
    /// Whom a parent named that is gone.
    pub(super) uphill: Vec<Referral>,
    pub(super) improve_attempt: u32,
    pub(super) progress: Progress,
    pub(super) progressed: Time,
    pub(super) switches: u64,
    pub(super) last_refusal: Option<Reason>,
    /// Parents lost for a fault, and until when they are not asked.
    pub(super) avoided: BTreeMap<NodeId, Time>,
    /// Frames that others have been asked for.
    pub(super) pulls: Pulls,
    /// How often parents failed that had not served well before.
    pub(super) faults: BTreeMap<NodeId, u32>,
    /// How this node was served of late.
    pub(super) service: Service,
}

/// The node that feeds this one.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) conn: ConnId,
    pub(super) node: NodeId,
    pub(super) ticket: TicketId,
    pub(super) path: Vec<NodeId>,
    pub(super) delay_us: u32,
    pub(super) supply: Supply,
    pub(super) newest: (u64, u32),
    pub(super) since: Time,
    /// Whether anything new has come since.
    pub(super) begun: bool,
    /// Whether anything has come under its ticket.
    pub(super) came: bool,
    /// Others that hold the stream and do not get it from this parent, as it says.
    pub(super) others: Vec<Referral>,
}

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Somebody to send now.
    Parent,
    /// Somebody to send should the parent fail.
    Standby,
    /// Somebody nearer to the source, at no more than this cost.
    Better(u64),
}

/// An offer that was taken up and is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Confirming {
    conn: ConnId,
    goal: Goal,
}

/// A search for a parent.
#[derive(Debug)]
pub(super) struct Search {
    goal: Goal,
    asked: BTreeSet<NodeId>,
    open: BTreeSet<ConnId>,
    dialling: BTreeMap<NodeId, Vec<String>>,
    /// Others whom somebody named, each with its place in what was named.
    leads: BTreeMap<(usize, u64), Referral>,
    led: u64,
    offers: Vec<Offer>,
    confirming: Option<Confirming>,
    waiting: bool,
}

#[derive(Debug)]
struct Offer {
    conn: ConnId,
    node: NodeId,
    path: Vec<NodeId>,
    delay_us: u64,
    spare_bps: u64,
    /// Whether upload is free for it, and not only kept for somebody who may need it.
    sure: bool,
}

impl Offer {
    fn cost(&self) -> u64 {
        cost(self.path.len(), self.delay_us)
    }
}

impl Stream {
    pub(super) fn new(now: Time) -> Self {
        Self {
            own: None,
            wanted: BTreeSet::new(),
            search: None,
            attempt: 0,
            parent: None,
            standby: None,
            former: None,
            quiet: None,
            standby_attempt: 0,
            uphill: Vec::new(),
            improve_attempt: 0,
            progress: Progress::default(),
            progressed: now,
            switches: 0,
            last_refusal: None,
            avoided: BTreeMap::new(),
            pulls: Pulls::default(),
            faults: BTreeMap::new(),
            service: Service::default(),
        }
    }

    /// How this node's own supply stands, for those that it feeds.
    pub(super) fn supply(&self) -> Supply {
        match (&self.own, &self.parent) {
            (Some(supply), _) => *supply,
            (None, Some(parent)) => parent.supply,
            (None, None) => Supply::Repairing,
        }
    }

    /// Whether it comes, or would come, over this connection.
    pub(super) fn counts_on(&self, conn: ConnId) -> bool {
        let parent = self.parent.as_ref().map(|parent| parent.conn);
        let standby = self.standby.as_ref().map(|standby| standby.conn);
        // Who is not heard of stops sending: also a parent that has done its part soon.
        let former = self.former.as_ref().map(|former| former.parent.conn);
        [parent, standby, former].contains(&Some(conn))
    }

    /// Whether somebody looks at it here.
    pub(super) fn is_watched(&self) -> bool {
        let looks = |why: &Why| matches!(why, Why::Watch | Why::Readers);
        self.wanted.iter().any(looks)
    }

    /// Whether an offer is one that the search is for.
    fn may_take(&self, offer: &Offer) -> bool {
        let search = self.search.as_ref();
        search.is_some_and(|search| self.may_serve(search.goal, offer))
    }

    fn may_serve(&self, goal: Goal, offer: &Offer) -> bool {
        if let Goal::Better(most) = goal {
            // Who has failed before is not worth a try while all is well.
            return offer.cost() <= most && !self.faults.contains_key(&offer.node);
        }
        let Some(parent) = self.parent.as_ref().filter(|_| goal == Goal::Standby) else {
            return true;
        };
        // One that is held already is only given up for a better one.
        let shared = |path: &[NodeId]| shared_ancestors(path, &parent.path);
        let better = self.standby.as_ref().is_none_or(|held| {
            let has_room = held.full && offer.sure;
            has_room || (!held.full && shared(&offer.path) < shared(&held.path))
        });
        // Who has failed again and again would do so then, too.
        let fails = self.faults.get(&offer.node).is_some_and(|times| *times > 1);
        better && !fails && offer.node != parent.node && is_apart(&offer.path, parent.node)
    }

    /// Whether somebody to send now is looked for.
    pub(super) fn seeks_parent(&self) -> bool {
        let search = self.search.as_ref();
        search.is_some_and(|search| search.goal == Goal::Parent)
    }

    /// Whether it can be promised to others.
    pub(super) fn is_held(&self) -> bool {
        self.own.is_some() || self.parent.is_some()
    }
}

impl Search {
    fn new(goal: Goal) -> Self {
        Self {
            goal,
            asked: BTreeSet::new(),
            open: BTreeSet::new(),
            dialling: BTreeMap::new(),
            leads: BTreeMap::new(),
            led: 0,
            offers: Vec::new(),
            confirming: None,
            waiting: false,
        }
    }

    fn is_confirming(&self, conn: ConnId) -> bool {
        self.confirming
            .is_some_and(|confirming| confirming.conn == conn)
    }

    /// Whether an answer is awaited from there, or an offer of it may still be taken up.
    pub(super) fn counts_on(&self, conn: ConnId) -> bool {
        let offered = || self.offers.iter().any(|offer| offer.conn == conn);
        let open = self.open.contains(&conn) || self.is_confirming(conn) || offered();
        open && !self.waiting
    }

    fn is_exhausted(&self) -> bool {
        self.open.is_empty() && self.dialling.is_empty()
    }

    /// Keeps whom somebody named: of each answer the best first.
    fn lead(&mut self, referrals: &[Referral]) {
        for (place, referral) in referrals.iter().enumerate() {
            let known = |lead: &Referral| lead.node == referral.node;
            if !self.asked.contains(&referral.node) && !self.leads.values().any(known) {
                self.led += 1;
                self.leads.insert((place, self.led), referral.clone());
            }
        }
        while self.leads.len() > LEADS_MAX {
            self.leads.pop_last();
        }
    }

    /// Whether there is an offer to be content with: a standby is to have room.
    fn has_offer(&self) -> bool {
        let any = |offer: &Offer| offer.sure || self.goal != Goal::Standby;
        self.offers.iter().any(any)
    }

    /// Whether others may be asked beyond those who are being asked.
    fn may_go_on(&self) -> bool {
        let (dialled_at_once, asked_max) = match self.goal {
            Goal::Parent => (DIALLED_FOR_PARENT, ASKED_MAX),
            Goal::Standby => (DIALLED_FOR_STANDBY, ASKED_MAX),
            Goal::Better(_) => (DIALLED_FOR_STANDBY, ASKED_FOR_BETTER),
        };
        let busy = self.waiting || self.confirming.is_some() || self.has_offer();
        !busy && self.dialling.len() < dialled_at_once && self.asked.len() < asked_max
    }
}

impl Overlay {
    pub(super) fn want(&mut self, now: Time, id: StreamId, why: Why) {
        let Some(known) = self.records.stream(id) else {
            return;
        };
        let record = known.record.clone();
        let stream = self.streams.entry(id).or_insert_with(|| Stream::new(now));
        if stream.own.is_some() {
            return;
        }
        let is_new = stream.wanted.is_empty() && stream.parent.is_none();
        stream.wanted.insert(why);
        if is_new {
            stream.attempt = 0;
            if self.records.node(record.value().publisher).is_none() {
                // The answer says where the publisher is: the last resort when the parent is lost.
                self.find(Some(id), None);
            }
            self.act(Action::Open { record });
            self.start_search(now, id);
        }
    }

    pub(super) fn unwant(&mut self, id: StreamId, why: Option<Why>) {
        let Some(stream) = self
            .streams
            .get_mut(&id)
            .filter(|stream| stream.own.is_none())
        else {
            return;
        };
        match why {
            Some(why) => {
                stream.wanted.remove(&why);
            }
            None => {
                stream.wanted.clear();
                self.end_feeds_of_stream(id, Reason::Unwanted);
            }
        }
        self.release(id);
    }

    /// Ends the ticket of a stream that nobody wants, here or further down.
    pub(super) fn release(&mut self, id: StreamId) {
        let fed = self
            .feeds
            .values()
            .any(|feed| feed.stream == id && feed.is_active());
        let idle = |stream: &Stream| stream.own.is_none() && stream.wanted.is_empty();
        if fed || !self.streams.get(&id).is_some_and(idle) {
            return;
        }
        self.drop_parent(id, Reason::Unwanted);
        // Nobody is kept ready by a node that will not have the stream itself.
        self.end_standby_feeds(id);
        self.timers.clear(Timer::Search(id));
        self.timers.clear(Timer::Stall(id));
        self.timers.clear(Timer::Improve(id));
        self.streams.remove(&id);
        self.act(Action::Drop { stream: id });
        self.changed(Change::Stream(id));
    }

    /// The stream is over: nobody is asked for it any more.
    pub(super) fn stream_over(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.wanted.clear();
        stream.own = None;
        self.end_feeds_of_stream(id, Reason::Ended);
        self.drop_parent(id, Reason::Ended);
        self.release(id);
    }

    pub(super) fn drop_parent(&mut self, id: StreamId, reason: Reason) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.search = None;
        let (parent, standby) = (stream.parent.take(), stream.standby.take());
        self.let_former_go(id);
        if let Some(parent) = parent {
            self.let_go(parent.conn, parent.ticket, reason);
        }
        if let Some(standby) = standby {
            self.let_go(standby.conn, standby.ticket, reason);
        }
    }

    pub(super) fn let_go(&mut self, conn: ConnId, ticket: TicketId, reason: Reason) {
        self.act(Action::Unexpect { conn, ticket });
        let cancel = TicketCancel {
            id: ticket,
            reason,
            referrals: Vec::new(),
        };
        self.send(conn, cancel);
    }

    // Asking

    fn start_search(&mut self, now: Time, id: StreamId) {
        self.start_search_at(now, id, Goal::Parent, &[]);
    }

    /// Looks for another parent while the present one is kept.
    pub(super) fn replace_parent(&mut self, now: Time, id: StreamId, referrals: &[Referral]) {
        self.restart_search_at(now, id, Goal::Parent, referrals);
    }

    /// Looks for somebody who would feed this node, should the parent fail.
    fn seek_standby(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let Some(parent) = stream.parent.as_ref() else {
            return;
        };
        let poor = stream.lacks_standby() || stream.has_poor_standby();
        if stream.own.is_none() && poor {
            let others = parent.others.clone();
            self.start_search_at(now, id, Goal::Standby, &others);
        }
    }

    /// Starts a search at those whom somebody named, too: without them it may be over at once.
    pub(super) fn start_search_at(
        &mut self,
        now: Time,
        id: StreamId,
        goal: Goal,
        referrals: &[Referral],
    ) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if self.leaving {
            return;
        }
        if stream.search.is_some() {
            return self.follow(now, id, referrals);
        }
        stream.search = Some(Search::new(goal));
        stream.avoided.retain(|_, until| *until > now);
        let (again, parent) = match goal {
            Goal::Parent => (stream.attempt > 0, None),
            Goal::Standby => (stream.standby_attempt > 1, stream.parent.as_ref()),
            Goal::Better(_) => (false, None),
        };
        let improves = matches!(goal, Goal::Better(_));
        // Who is fed by the publisher itself has nobody above it to turn to.
        let below_source = parent.is_some_and(|parent| parent.path.len() == 1);
        let candidates = self.candidates(now, id, goal);
        let alone = candidates.is_empty() && referrals.is_empty() && !improves;
        for conn in candidates {
            self.ask(id, conn);
        }
        let publisher = self
            .records
            .stream(id)
            .map(|known| known.record.value().publisher);
        if let Some(publisher) = publisher.filter(|_| (alone || again) && !below_source) {
            self.ask_by_dialling(now, id, publisher, Vec::new());
        }
        self.follow(now, id, referrals);
        self.timers.set(Timer::Search(id), now.after(ASK_WITHIN));
        self.settle(now, id);
    }

    /// Connected peers to ask: the publisher first, then the nearest of those with room.
    fn candidates(&self, now: Time, id: StreamId, goal: Goal) -> Vec<ConnId> {
        let fed = |conn: ConnId| {
            goal != Goal::Parent
                && self
                    .feeds
                    .values()
                    .any(|feed| feed.conn == conn && feed.stream == id)
        };
        let publisher = self
            .records
            .stream(id)
            .map(|known| known.record.value().publisher);
        // What nothing depends on is asked of those only who say that they have room.
        let charge_bps = self.charge_of(id);
        let least_bps = match goal {
            Goal::Parent | Goal::Standby => 0,
            Goal::Better(_) => charge_bps,
        };
        let mut list: Vec<_> = self
            .peers
            .iter()
            .filter(|(conn, peer)| {
                let has_room = peer.spare_bps >= least_bps;
                has_room && self.may_ask(now, id, peer.node) && !peer.leaving && !fed(**conn)
            })
            .map(|(conn, peer)| {
                let full = peer.spare_bps < charge_bps;
                (Some(peer.node) != publisher, full, peer.rtt, *conn)
            })
            .collect();
        list.sort_unstable();
        list.truncate(match goal {
            Goal::Parent => ASKED_AT_ONCE,
            Goal::Standby | Goal::Better(_) => ASKED_AT_LEISURE,
        });
        list.into_iter().map(|(_, _, _, conn)| conn).collect()
    }

    fn may_ask(&self, now: Time, id: StreamId, node: NodeId) -> bool {
        let Some(stream) = self.streams.get(&id) else {
            return false;
        };
        let current = stream.parent.as_ref().map(|parent| parent.node);
        node != self.id
            && current != Some(node)
            && !self.is_banned(now, node)
            && stream.avoided.get(&node).is_none_or(|until| *until <= now)
    }

    pub(super) fn ask(&mut self, id: StreamId, conn: ConnId) {
        let Some(node) = self.peers.get(&conn).map(|peer| peer.node) else {
            return;
        };
        let again = self.streams.get(&id).is_some_and(|s| s.attempt > 0);
        let Some(search) = self.search_mut(id) else {
            return;
        };
        search.dialling.remove(&node);
        if search.asked.insert(node) {
            search.open.insert(conn);
            let (carries, places) = match search.goal {
                Goal::Parent if again => (self.carries(id), self.places(id)),
                Goal::Parent | Goal::Better(_) => (self.carries(id), None),
                Goal::Standby => (None, None),
            };
            self.send(
                conn,
                TicketRequest {
                    stream: id,
                    carries,
                    places,
                },
            );
        }
    }

    fn search_mut(&mut self, id: StreamId) -> Option<&mut Search> {
        self.streams.get_mut(&id)?.search.as_mut()
    }

    /// Asks a node that somebody named, connecting to it first if need be.
    fn ask_by_dialling(&mut self, now: Time, id: StreamId, node: NodeId, mut at: Vec<String>) {
        if !self.may_ask(now, id, node) {
            return;
        }
        if let Some(conn) = self.by_node.get(&node).copied() {
            return self.ask(id, conn);
        }
        if let Some(known) = self.records.node(node) {
            at.extend(known.addresses.iter().map(|address| address.0.to_string()));
        }
        at.sort_unstable();
        at.dedup();
        let dialling = self.is_dialling(node);
        let Some(search) = self.search_mut(id) else {
            return;
        };
        if at.is_empty() || search.asked.contains(&node) || search.dialling.len() >= ASKED_AT_ONCE {
            return;
        }
        search.dialling.insert(node, at.clone());
        if !dialling {
            let dial = Dial {
                node: Some(node),
                bootstrap: None,
                supernode: false,
            };
            self.introduce_later(now, node);
            let target = Target {
                node: Some(node),
                addresses: at,
            };
            if !self.dial(dial, target) {
                self.unreachable(now, node);
            }
        }
    }

    /// A node that was dialled is here: it is asked for whatever it was dialled for.
    pub(super) fn peer_arrived(&mut self, now: Time, conn: ConnId, node: NodeId) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            let Some(stream) = self.streams.get(&id) else {
                continue;
            };
            let Some(search) = stream.search.as_ref().filter(|s| s.confirming.is_none()) else {
                continue;
            };
            let starved = stream.parent.is_none() && stream.own.is_none();
            if (starved || search.dialling.contains_key(&node)) && self.may_ask(now, id, node) {
                let waiting = self.search_mut(id).is_some_and(|search| search.waiting);
                if waiting && starved {
                    self.restart_search(now, id);
                } else {
                    self.ask(id, conn);
                }
            }
        }
    }

    /// A node that was to be asked cannot be reached.
    pub(super) fn unreachable(&mut self, now: Time, node: NodeId) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            let Some(search) = self.search_mut(id) else {
                continue;
            };
            if search.dialling.remove(&node).is_some() {
                search.asked.insert(node);
                self.settle(now, id);
            }
        }
    }

    pub(super) fn ticket_offered(&mut self, now: Time, conn: ConnId, offer: TicketOffer) {
        self.peer_knows(conn, offer.stream);
        let own = self.id;
        let charge_bps = self.charge_of(offer.stream);
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        let (node, rtt) = (peer.node, peer.rtt);
        let Some(search) = self.search_mut(offer.stream) else {
            return;
        };
        if !search.open.remove(&conn) {
            return;
        }
        let id = offer.stream;
        let first = !search.has_offer();
        let delay_us = u64::from(offer.delay_us) + rtt.as_micros() as u64 / 2;
        let usable = !offer.path.contains(&own) && offer.path.len() < PATH_MAX;
        let offer = Offer {
            conn,
            node,
            path: offer.path,
            delay_us,
            spare_bps: offer.spare_bps,
            sure: offer.spare_bps >= charge_bps,
        };
        let usable = usable && self.streams.get(&id).is_some_and(|s| s.may_take(&offer));
        if let Some(search) = self.search_mut(id).filter(|_| usable) {
            search.offers.push(offer);
            if first && search.has_offer() && search.confirming.is_none() {
                let wait = match search.goal {
                    Goal::Parent => COLLECT_MIN.max(rtt).min(COLLECT_MAX),
                    Goal::Standby | Goal::Better(_) => COLLECT_MAX,
                };
                self.timers.set(Timer::Search(id), now.after(wait));
            }
        }
        self.settle(now, id);
    }

    pub(super) fn ticket_refused(&mut self, now: Time, conn: ConnId, refused: TicketRefused) {
        let id = refused.stream;
        if refused.reason != Reason::NoStream {
            self.peer_knows(conn, id);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(search) = stream.search.as_mut() else {
            return;
        };
        let was_confirming = search.is_confirming(conn);
        if was_confirming {
            search.confirming = None;
        } else if !search.open.remove(&conn) {
            return;
        }
        if search.goal == Goal::Parent {
            stream.last_refusal = Some(match (stream.last_refusal, refused.reason) {
                (Some(Reason::Full), Reason::NoStream) => Reason::Full,
                (_, reason) => reason,
            });
        }
        self.follow(now, id, &refused.referrals);
        if was_confirming {
            self.confirm_failed(now, id);
        }
        self.settle(now, id);
    }

    fn follow(&mut self, now: Time, id: StreamId, referrals: &[Referral]) {
        if let Some(search) = self.search_mut(id) {
            search.lead(referrals);
            self.go_on(now, id);
        }
    }

    /// Asks others who were named, while nobody has offered.
    fn go_on(&mut self, now: Time, id: StreamId) {
        while let Some(search) = self.search_mut(id) {
            if !search.may_go_on() {
                return;
            }
            let Some((_, referral)) = search.leads.pop_first() else {
                return;
            };
            let at = referral
                .addresses
                .iter()
                .map(|address| address.0.to_string())
                .collect();
            self.ask_by_dialling(now, id, referral.node, at);
        }
    }

    /// Decides if there is nothing more to wait for.
    fn settle(&mut self, now: Time, id: StreamId) {
        self.go_on(now, id);
        let Some(search) = self.search_mut(id) else {
            return;
        };
        if search.waiting || search.confirming.is_some() || !search.is_exhausted() {
            return;
        }
        self.decide(now, id);
    }

    pub(super) fn search_due(&mut self, now: Time, id: StreamId) {
        let Some(search) = self.search_mut(id) else {
            return self.seek_standby(now, id);
        };
        if search.waiting {
            return self.restart_search(now, id);
        }
        search.confirming = None;
        self.decide(now, id);
    }

    /// Nobody promises what was to be confirmed: another offer is taken up, or others are
    /// asked, before the answer that will not come is overdue.
    fn confirm_failed(&mut self, now: Time, id: StreamId) {
        let offered = self.search_mut(id).is_some_and(|s| !s.offers.is_empty());
        let wait = if offered {
            Duration::ZERO
        } else {
            ASK_WITHIN / 2
        };
        self.timers.set(Timer::Search(id), now.after(wait));
    }

    /// Asks anew; in the end also those of whom the last parent told, since all that are
    /// connected may be gone. Not at first: they may be gone with it, and who dials the dead
    /// asks nobody else meanwhile.
    fn restart_search(&mut self, now: Time, id: StreamId) {
        let stream = self.streams.get(&id).filter(|s| s.attempt >= ASK_UPHILL);
        let told = stream.map(|stream| stream.uphill.clone());
        self.restart_search_at(now, id, Goal::Parent, &told.unwrap_or_default());
    }

    fn restart_search_at(&mut self, now: Time, id: StreamId, goal: Goal, referrals: &[Referral]) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.search = None;
        }
        self.start_search_at(now, id, goal, referrals);
    }

    /// Confirms the best offer, or waits before asking anew.
    fn decide(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let parent = stream.parent.as_ref().map(|parent| parent.node);
        let above = stream
            .parent
            .as_ref()
            .map_or(Vec::new(), |p| p.path.clone());
        let Some(mut search) = stream.search.take() else {
            return;
        };
        // The parent may have moved since an offer came.
        search
            .offers
            .retain(|offer| stream.may_serve(search.goal, offer));
        let goal = search.goal;
        let search = stream.search.insert(search);
        let best = (0..search.offers.len()).min_by_key(|index| {
            let offer = &search.offers[*index];
            // A standby that has no room now may have none then, and a parent that gives
            // away what it keeps for others lets them down; a standby that has its stream
            // by the parent's way may fail with it.
            let doubtful = !offer.sure && !matches!(goal, Goal::Better(_));
            let shared = if goal == Goal::Standby {
                shared_ancestors(&offer.path, &above)
            } else {
                0
            };
            let spare = u64::MAX - offer.spare_bps;
            let cost = offer.cost().saturating_add(shared_cost(shared));
            (doubtful, cost, spare, offer.node)
        });
        let Some(best) = best else {
            return self.search_on(now, id);
        };
        let offer = search.offers.swap_remove(best);
        if !self.by_node.contains_key(&offer.node) {
            return self.decide(now, id);
        }
        let Some(search) = self.search_mut(id) else {
            return;
        };
        search.confirming = Some(Confirming {
            conn: offer.conn,
            goal,
        });
        self.timers
            .set(Timer::Search(id), now.after(CONFIRM_WITHIN));
        let confirm = match (goal, parent) {
            (Goal::Standby, Some(parent)) => Confirm::Standby(parent),
            (Goal::Parent | Goal::Better(_), _) | (Goal::Standby, None) => Confirm::Active,
        };
        self.act(Action::Confirm {
            conn: offer.conn,
            stream: id,
            confirm,
        });
    }

    /// Nobody has offered so far: others are asked if somebody was named, else it is waited.
    fn search_on(&mut self, now: Time, id: StreamId) {
        if let Some(search) = self.search_mut(id) {
            // Whoever has not answered by now is not waited for any longer.
            search.dialling.clear();
            search.open.clear();
        }
        self.go_on(now, id);
        let asks = self
            .search_mut(id)
            .is_some_and(|search| !search.is_exhausted());
        if !asks {
            return self.back_off(now, id);
        }
        self.timers.set(Timer::Search(id), now.after(ASK_WITHIN));
    }

    fn back_off(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Some(Goal::Better(_)) = stream.search.as_ref().map(|search| search.goal) {
            return self.not_improved(now, id);
        }
        if stream.parent.is_some() {
            stream.search = None;
            return self.seek_standby_later(now, id);
        }
        let Some(search) = stream.search.as_mut() else {
            return;
        };
        search.waiting = true;
        let base = RETRY_FIRST
            .saturating_mul(1 << stream.attempt.min(8))
            .min(RETRY_MAX);
        stream.attempt += 1;
        let reason = stream.last_refusal.unwrap_or(Reason::NoStream);
        let wait = self.random.jitter(base);
        self.timers.set(Timer::Search(id), now.after(wait));
        let known = self.records.stream(id);
        let publisher = known.map(|known| known.record.value().publisher);
        if publisher.is_some_and(|node| self.records.node(node).is_none()) {
            // When it was asked for before, perhaps nobody was connected.
            self.find(Some(id), None);
        }
        self.changed(Change::NoRoom(id, reason));
    }

    pub(super) fn is_confirming(&self, id: StreamId, node: NodeId) -> bool {
        let search = self
            .streams
            .get(&id)
            .and_then(|stream| stream.search.as_ref());
        let conn = search
            .and_then(|search| search.confirming)
            .filter(|confirming| confirming.goal != Goal::Standby)
            .map(|confirming| confirming.conn);
        conn.is_some() && conn == self.by_node.get(&node).copied()
    }

    pub(super) fn ticket_accepted(&mut self, now: Time, conn: ConnId, accepted: TicketAccepted) {
        let id = accepted.stream;
        let unwanted = TicketCancel {
            id: accepted.id,
            reason: Reason::Unwanted,
            referrals: vec![],
        };
        let expected = self
            .search_mut(id)
            .and_then(|search| search.confirming)
            .filter(|confirming| confirming.conn == conn);
        let node = self.peers.get(&conn).map(|peer| peer.node);
        let Some((node, confirming)) = node.zip(expected) else {
            return self.send(conn, unwanted);
        };
        if accepted.path.contains(&self.id) || accepted.path.len() >= PATH_MAX {
            let cancel = TicketCancel {
                id: accepted.id,
                reason: Reason::Loop,
                referrals: vec![],
            };
            self.send(conn, cancel);
            return self.search_due(now, id);
        }
        if confirming.goal == Goal::Standby {
            let standby = Standby {
                conn,
                node,
                ticket: accepted.id,
                path: accepted.path,
                delay_us: 0,
                supply: Supply::Ok,
                full: false,
                newest: (0, 0),
                since: now,
                others: accepted.others.unwrap_or_default(),
            };
            return self.hold(now, id, standby);
        }
        if let Ok(record) = SignedStream::decode(&accepted.record.0) {
            self.learn(now, Some(conn), record);
        }
        let parent = Parent {
            conn,
            node,
            ticket: accepted.id,
            path: accepted.path,
            delay_us: 0,
            supply: Supply::Ok,
            newest: (0, 0),
            since: now,
            begun: false,
            came: false,
            others: accepted.others.unwrap_or_default(),
        };
        self.adopt(now, id, parent);
    }

    fn adopt(&mut self, now: Time, id: StreamId, parent: Parent) {
        let (conn, node, ticket) = (parent.conn, parent.node, parent.ticket);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let search = stream.search.take();
        let improves = search.is_some_and(|s| matches!(s.goal, Goal::Better(_)));
        stream.last_refusal = None;
        stream.progressed = now;
        stream.quiet = None;
        let old = stream.parent.replace(parent);
        // Who was ready to and now does: its old ticket went with the new one.
        let same = stream.standby.take_if(|standby| standby.conn == conn);
        self.timers.clear(Timer::Search(id));
        if let Some(same) = same {
            self.act(Action::Unexpect {
                conn,
                ticket: same.ticket,
            });
        }
        self.let_former_go(id);
        self.timers.set(Timer::Stall(id), now.after(STALL / 8));
        self.act(Action::Expect {
            conn,
            ticket,
            stream: id,
        });
        if let Some(old) = old {
            self.keep_former(now, id, old);
        }
        if improves || self.timers.get(Timer::Improve(id)).is_none() {
            self.improve_on(now, id);
        }
        self.bind(now, conn);
        self.changed(Change::Parent(id, node));
        self.tell_place(id);
        self.check_standby(now, id);
        self.seek_standby_soon(now, id);
        self.pulled(now, id);
    }

    // Losing a parent

    /// The connection to a parent is gone, or its tickets have expired.
    pub(super) fn parent_gone(&mut self, now: Time, conn: ConnId, node: NodeId, reason: Reason) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(search) = self.search_mut(id) {
                search.open.remove(&conn);
                search.offers.retain(|offer| offer.conn != conn);
                if search.is_confirming(conn) {
                    search.confirming = None;
                    self.confirm_failed(now, id);
                }
            }
            self.forget_gone(now, id, conn);
            let fed = self
                .streams
                .get(&id)
                .and_then(|stream| stream.parent.as_ref());
            if fed.is_some_and(|parent| parent.conn == conn) {
                self.lose_parent(now, id, node, reason);
            }
            self.settle(now, id);
        }
    }

    /// A standby or former parent is gone with its connection.
    fn forget_gone(&mut self, now: Time, id: StreamId, conn: ConnId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let former = stream.former.take_if(|former| former.parent.conn == conn);
        let standby = stream.standby.take_if(|standby| standby.conn == conn);
        let lost_standby = standby.is_some();
        let tickets = [former.map(|f| f.parent.ticket), standby.map(|s| s.ticket)];
        for ticket in tickets.into_iter().flatten() {
            self.act(Action::Unexpect { conn, ticket });
        }
        if lost_standby {
            self.changed(Change::Stream(id));
            self.seek_standby_soon(now, id);
        }
    }

    pub(super) fn lose_parent(&mut self, now: Time, id: StreamId, node: NodeId, reason: Reason) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(parent) = stream.parent.take() else {
            return;
        };
        stream.switches += 1;
        stream.quiet = None;
        let faulty = matches!(reason, Reason::BadMedia | Reason::Stalled | Reason::Expired);
        if faulty {
            self.blame(now, id, &parent);
        }
        self.act(Action::Unexpect {
            conn: parent.conn,
            ticket: parent.ticket,
        });
        if reason != Reason::Disconnected {
            let cancel = TicketCancel {
                id: parent.ticket,
                reason,
                referrals: Vec::new(),
            };
            self.send(parent.conn, cancel);
        }
        self.changed(Change::ParentLost(id, node, reason));
        self.find_parent(now, id, &parent.others);
    }

    /// Ends a ticket by which this node receives, or would.
    pub(super) fn revoke_taken(&mut self, now: Time, ticket: TicketId) {
        let found = self.streams.iter().find_map(|(id, stream)| {
            let parent = stream.parent.as_ref().filter(|p| p.ticket == ticket);
            let standby = stream.standby.as_ref().filter(|s| s.ticket == ticket);
            let node = parent.map(|p| p.node).or(standby.map(|s| s.node))?;
            Some((*id, node, parent.is_some()))
        });
        let Some((id, node, is_parent)) = found else {
            return;
        };
        self.avoid(id, node, now.after(REVOKED));
        if is_parent {
            self.lose_parent(now, id, node, Reason::Revoked);
        } else {
            self.drop_standby(now, id, Reason::Revoked);
            self.seek_standby_soon(now, id);
        }
    }

    /// There is no parent any more: the standby is it now, or one is looked for.
    fn find_parent(&mut self, now: Time, id: StreamId, referrals: &[Referral]) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.look_up_to(referrals);
        }
        if self.activate(now, id, None) {
            return;
        }
        if self.leaving {
            // It looks for nobody any more: its children are not to wait for it.
            return self.end_feeds_of_stream(id, Reason::Leaving);
        }
        self.beat_children(now, id);
        let Some(search) = self.search_mut(id) else {
            return self.restart_search_at(now, id, Goal::Parent, referrals);
        };
        let promised = |confirming: Confirming| confirming.goal != Goal::Parent;
        if search.confirming.is_some_and(promised) {
            // What was to be the standby becomes the parent once it has agreed.
            search.goal = Goal::Parent;
        } else if search.waiting || search.goal != Goal::Parent {
            self.restart_search_at(now, id, Goal::Parent, referrals);
        }
    }

    /// The parent is about to go: another is looked for while it still sends.
    pub(super) fn parent_leaves(&mut self, now: Time, conn: ConnId, referrals: &[Referral]) {
        let fed = |stream: &Stream| stream.parent.as_ref().is_some_and(|p| p.conn == conn);
        let ids: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| fed(stream))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.switches += 1;
            if stream.standby.is_none() {
                self.replace_parent(now, id, referrals);
                continue;
            }
            let former = stream.parent.take();
            stream.look_up_to(referrals);
            self.activate(now, id, former);
        }
    }

    /// Whoever was ready to feed this node is about to go: another is looked for, of
    /// those whom it names, too.
    pub(super) fn standby_leaves(&mut self, now: Time, conn: ConnId) {
        let ready = |stream: &Stream| stream.standby.as_ref().is_some_and(|s| s.conn == conn);
        let ids: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| ready(stream))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.drop_standby(now, id, Reason::Leaving);
            self.seek_standby_soon(now, id);
        }
    }

    pub(super) fn ticket_cancelled(&mut self, now: Time, conn: ConnId, cancel: TicketCancel) {
        if self.feed_cancelled(conn, &cancel) || self.standby_gone(now, conn, cancel.id) {
            return;
        }
        if self.former_gone(conn, cancel.id) {
            return;
        }
        let of_this = |stream: &Stream| {
            stream
                .parent
                .as_ref()
                .is_some_and(|p| p.ticket == cancel.id && p.conn == conn)
        };
        let Some(id) = self
            .streams
            .iter()
            .find(|(_, stream)| of_this(stream))
            .map(|(id, _)| *id)
        else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(parent) = stream.parent.take() else {
            return;
        };
        stream.switches += 1;
        stream.last_refusal = Some(cancel.reason);
        self.act(Action::Unexpect {
            conn,
            ticket: parent.ticket,
        });
        self.changed(Change::ParentLost(id, parent.node, cancel.reason));
        let pause = match cancel.reason {
            Reason::Revoked => REVOKED,
            Reason::Ended => RETRY_MAX,
            Reason::Full
            | Reason::NoStream
            | Reason::Loop
            | Reason::Leaving
            | Reason::Unwanted
            | Reason::OtherChosen
            | Reason::BadMedia
            | Reason::Expired
            | Reason::Disconnected
            | Reason::NotForwarding
            | Reason::Limit
            | Reason::Stalled => RETRY_FIRST,
        };
        self.avoid(id, parent.node, now.after(pause));
        if cancel.reason == Reason::Ended {
            // The publisher's own word for it is the record.
            self.find(Some(id), None);
        }
        let mut referrals = cancel.referrals;
        referrals.extend(parent.others);
        self.find_parent(now, id, &referrals);
    }

    fn former_gone(&mut self, conn: ConnId, ticket: TicketId) -> bool {
        let is_it =
            |former: &mut Former| former.parent.conn == conn && former.parent.ticket == ticket;
        let gone = self
            .streams
            .values_mut()
            .any(|stream| stream.former.take_if(is_it).is_some());
        if gone {
            self.act(Action::Unexpect { conn, ticket });
        }
        gone
    }

    /// A parent that failed is not asked for a time, and each time for twice as long,
    /// unless it had served well before.
    pub(super) fn blame(&mut self, now: Time, id: StreamId, parent: &Parent) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let node = parent.node;
        let served = parent.came && now.since(parent.since) >= SERVED_WELL;
        let faults = stream.faults.entry(node).or_default();
        *faults = if served { 0 } else { *faults + 1 };
        let pause = RETRY_MAX * (1 << (*faults).min(FAULTS_MAX));
        if stream.faults.len() > FAULTY_MAX {
            stream.faults.pop_first();
        }
        self.avoid(id, node, now.after(pause));
    }

    pub(super) fn avoid(&mut self, id: StreamId, node: NodeId, until: Time) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.avoided.insert(node, until);
        }
    }

    pub(super) fn path_updated(&mut self, now: Time, conn: ConnId, update: PathUpdate) {
        let own = self.id;
        let of_standby = self.streams.iter_mut().find_map(|(id, stream)| {
            let standby = stream.standby.as_mut()?;
            (standby.conn == conn && standby.ticket == update.id).then_some((*id, standby))
        });
        if let Some((id, standby)) = of_standby {
            standby.path = update.path;
            standby.delay_us = update.delay_us;
            standby.others = update.others.unwrap_or(std::mem::take(&mut standby.others));
            return self.check_standby(now, id);
        }
        let found = self.streams.iter_mut().find_map(|(id, stream)| {
            let parent = stream.parent.as_mut()?;
            (parent.conn == conn && parent.ticket == update.id).then_some((*id, parent))
        });
        let Some((id, parent)) = found else { return };
        parent.delay_us = update.delay_us;
        parent.others = update.others.unwrap_or(std::mem::take(&mut parent.others));
        if parent.path == update.path {
            return;
        }
        parent.path = update.path;
        let (node, since) = (parent.node, parent.since);
        if parent.path.contains(&own) || parent.path.len() >= PATH_MAX {
            self.avoid(id, node, now.after(RETRY_MAX));
            let jitter = self.random.jitter(LOOP_WITHIN);
            let closed_it = now.since(since) < LOOP_CLOSED;
            let wait = if closed_it { Duration::ZERO } else { jitter };
            self.timers.set(Timer::Stall(id), now.after(wait));
            return;
        }
        self.tell_path(id);
        self.check_standby(now, id);
    }

    /// What a heartbeat says about a ticket of ours, up or down.
    pub(super) fn ticket_beat(&mut self, now: Time, conn: ConnId, beat: &TicketBeat) {
        if self.feed_beat(now, conn, beat) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&beat.stream) else {
            return;
        };
        let of_standby = |standby: &&mut Standby| standby.ticket == beat.ticket;
        if let Some(standby) = stream.standby.as_mut().filter(of_standby) {
            if standby.conn == conn {
                standby.supply = beat.supply;
                standby.newest = beat.newest;
                standby.delay_us = beat.delay_us;
                let was = std::mem::replace(&mut standby.full, beat.viewers > 0);
                if !was && standby.full {
                    self.seek_standby_later(now, beat.stream);
                }
            }
            return;
        }
        let Some(parent) = stream.parent.as_mut() else {
            return;
        };
        if parent.conn != conn || parent.ticket != beat.ticket {
            return;
        }
        let changed = parent.supply != beat.supply;
        let resumes = parent.supply == Supply::NoSource && beat.supply == Supply::Ok;
        parent.supply = beat.supply;
        parent.newest = beat.newest;
        parent.delay_us = beat.delay_us;
        if resumes {
            stream.progressed = now;
            stream.service.resumed(now);
        }
        if changed {
            self.beat_children(now, beat.stream);
            self.changed(Change::Stream(beat.stream));
        }
    }

    pub(super) fn progressed(&mut self, now: Time, id: StreamId, progress: Progress) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let newer =
            (progress.epoch, progress.newest) > (stream.progress.epoch, stream.progress.newest);
        let unsaid = newer && progress.last == Time::default();
        let at = if unsaid { now } else { progress.last };
        let came = at > stream.progressed;
        stream.service.came(at);
        stream.progressed = stream.progressed.max(at);
        stream.progress = progress;
        if newer {
            stream.attempt = 0;
        }
        if !came {
            return;
        }
        // The catalog comes at once, the first picture maybe only with the next keyframe.
        let media = progress.newest > (0, 0);
        let since = |parent: &&mut Parent| media && at >= parent.since;
        if let Some(parent) = stream.parent.as_mut().filter(since) {
            parent.begun = true;
            stream.quiet = None;
        }
    }

    /// The parent sends; if that is what is newest, the one before it has done its part.
    pub(super) fn came(&mut self, conn: ConnId, ticket: TicketId, level: bool) {
        let is_it = |parent: &Parent| parent.conn == conn && parent.ticket == ticket;
        let found = self.streams.iter_mut().find_map(|(id, stream)| {
            let parent = stream.parent.as_mut()?;
            is_it(parent).then_some((*id, parent))
        });
        let Some((id, parent)) = found else { return };
        parent.came = true;
        if level {
            self.let_former_go(id);
        }
    }

    pub(super) fn is_said_live(&self, id: StreamId) -> bool {
        let known = self.records.stream(id);
        known.is_some_and(|known| known.record.value().state == StreamState::Live)
    }

    /// Expected delay from the source to this node, in microseconds.
    pub(super) fn delay_us(&self, stream: &Stream) -> u32 {
        let Some(parent) = stream.parent.as_ref() else {
            return 0;
        };
        let rtt = self
            .peers
            .get(&parent.conn)
            .map_or(Duration::ZERO, |peer| peer.rtt);
        let hop = rtt.as_micros() as u64 / 2;
        (u64::from(parent.delay_us) + hop).min(u64::from(u32::MAX)) as u32
    }

    /// Nodes from the publisher to this one, both included.
    pub(super) fn own_path(&self, stream: &Stream) -> Vec<NodeId> {
        let above = stream
            .parent
            .as_ref()
            .map_or(&[][..], |parent| &parent.path);
        above.iter().copied().chain([self.id]).collect()
    }

    /// Whether a stream may be over for good.
    pub(super) fn is_over(&self, id: StreamId) -> bool {
        self.records
            .stream(id)
            .is_some_and(|known| known.record.value().state == StreamState::Ended)
    }
}
