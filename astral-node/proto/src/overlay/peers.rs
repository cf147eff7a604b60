//! Connections: dialling, `Hello`, duplicates, heartbeats, expiry, leaving.

use std::collections::BTreeSet;
use std::time::Duration;

use super::allowance::Allowance;
use super::displace::Gives;
use super::event::{Action, Change, ConnId, DialId, Target, Time};
use super::search::Stream;
use super::{Overlay, Timer};
use crate::ids::{NodeId, PublicKey, StreamId};
use crate::limits::{REFERRALS_MAX, TICKETS_PER_PEER};
use crate::record::{Address, SignedNode};
use crate::wire::control::{Hello, Leaving, Message, Reason, RecordBytes, Referral};
use crate::wire::heartbeat::{Heartbeat, Supply, TicketBeat};
use crate::wire::{CloseCode, VERSION};

/// A `Hello` must come within this of the handshake.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Heartbeats between two nodes that share a ticket.
///
/// 250 ms: at 4 Mbit/s they are under 0.2 % of the bytes.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Heartbeats between other connected nodes.
const IDLE_BEAT_EVERY: Duration = Duration::from_secs(5);
/// Time without a sign of life after which a peer's tickets expire: four missed heartbeats
/// and half of one for jitter. A link that is too narrow loses two datagrams of five, and so
/// four in a row soon: for a child, what comes of the stream counts as well.
const EXPIRY: Duration = Duration::from_millis(1_125);
/// First wait before a bootstrap node is dialled again.
const REDIAL_FIRST: Duration = Duration::from_millis(250);
/// Longest wait before a bootstrap node is dialled again.
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// How long a node that sent bad bytes is neither served nor asked.
const BAN: Duration = Duration::from_secs(600);
/// Attempts to connect at one time.
const DIALS_MAX: usize = 64;
/// How long a leaving node goes on serving children that have not moved.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// Sent heartbeats remembered for the round-trip time.
const BEATS_REMEMBERED: usize = 8;
/// Nodes to keep a connection to.
const BOOTSTRAPS_MAX: usize = 64;
/// Heartbeats at once, because something changed, are at least this far apart.
const BEAT_APART: Duration = Duration::from_millis(20);
/// A connection that ends sooner tells nothing about a copy of this node's key.
const SETTLED: Duration = Duration::from_secs(2);
/// `Find`s that a peer may ask in a second.
const FINDS_PER_SECOND: u32 = 20;
/// Records that a peer may tell in a second: all streams that a node holds, signed anew
/// every 10 s.
const RECORDS_PER_SECOND: u32 = 512;
/// And at once, when the two meet: all that it holds, twice.
const RECORDS_AT_ONCE: u32 = 16_384;

/// Whom a ban is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ban {
    /// Whoever holds this key.
    Key(PublicKey),
    /// Whoever calls from there: an IPv4 address or an IPv6 /64, never loopback.
    Prefix(std::net::IpAddr),
}

impl Ban {
    fn prefix(address: Address) -> Option<Self> {
        use std::net::IpAddr;
        match address.0.ip().to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V6(ip) => {
                let prefix = u128::from(ip) >> 64 << 64;
                Some(Self::Prefix(IpAddr::V6(prefix.into())))
            }
            ip => Some(Self::Prefix(ip)),
        }
    }
}

/// A connection whose `Hello` has not come.
#[derive(Debug)]
pub(super) struct Pending {
    key: PublicKey,
    remote: Address,
    dial: Option<Dial>,
    outbound: bool,
    rtt: Duration,
}

/// An attempt to connect.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) node: Option<NodeId>,
    pub(super) bootstrap: Option<usize>,
    /// Whether it is dialled as one of this node's supernodes.
    pub(super) supernode: bool,
}

/// A node to keep a connection to.
#[derive(Debug)]
pub(super) struct Bootstrap {
    target: Target,
    node: Option<NodeId>,
    failures: u32,
    stopped: bool,
}

impl Bootstrap {
    /// Whether an attempt has come to an end, good or bad.
    pub(super) fn was_tried(&self) -> bool {
        self.node.is_some() || self.failures > 0
    }
}

/// A connected node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) key: PublicKey,
    pub(super) joined: Time,
    beaten: Time,
    pub(super) finds: Allowance,
    pub(super) probes: Allowance,
    pub(super) registers: Allowance,
    pub(super) introduces: Allowance,
    pub(super) seeds: Allowance,
    told: Allowance,
    /// When it asked for a stream last, if it did.
    pub(super) asked: Option<Time>,
    /// When it last heard of a new supernode from this node.
    pub(super) mentioned: Time,
    /// What it says to give, with the stream that it asked for last.
    pub(super) gives: Option<Gives>,
    /// Streams that it has told of, while it is not told what this node knows.
    pub(super) told_of: Option<BTreeSet<StreamId>>,
    /// Where it sees this node.
    pub(super) observed: Option<Address>,
    /// Whether others can dial it, as far as that was tried.
    pub(super) reached: bool,
    /// Dials back to it that did not get through.
    pub(super) claims: u32,
    pub(super) remote: Address,
    pub(super) outbound: bool,
    pub(super) heard: Time,
    pub(super) rtt: Duration,
    pub(super) spare_bps: u64,
    pub(super) leaving: bool,
    seq: u32,
    sent: [(u32, Time); BEATS_REMEMBERED],
    echo: Option<(u32, Time)>,
}

impl Overlay {
    pub(super) fn bootstrap(&mut self, now: Time, target: Target) {
        let known = self.bootstraps.iter().any(|known| known.target == target);
        if known || self.bootstraps.len() >= BOOTSTRAPS_MAX {
            return;
        }
        self.bootstraps.push(Bootstrap {
            target,
            node: None,
            failures: 0,
            stopped: false,
        });
        self.redial(now, self.bootstraps.len() - 1);
    }

    /// Dials a bootstrap node unless it is connected already.
    pub(super) fn redial(&mut self, now: Time, index: usize) {
        let Some(bootstrap) = self.bootstraps.get(index) else {
            return;
        };
        let connected = bootstrap
            .node
            .is_some_and(|node| self.by_node.contains_key(&node));
        if self.leaving || bootstrap.stopped || connected || bootstrap.target.node == Some(self.id)
        {
            return;
        }
        let target = bootstrap.target.clone();
        let dial = Dial {
            node: target.node,
            bootstrap: Some(index),
            supernode: false,
        };
        if !self.dial(dial, target) {
            self.redial_later(now, index);
        }
    }

    fn redial_later(&mut self, now: Time, index: usize) {
        let Some(bootstrap) = self.bootstraps.get_mut(index) else {
            return;
        };
        let base = REDIAL_FIRST
            .saturating_mul(1 << bootstrap.failures.min(8))
            .min(REDIAL_MAX);
        bootstrap.failures += 1;
        let wait = self.random.jitter(base);
        self.timers.set(Timer::Redial(index), now.after(wait));
    }

    pub(super) fn dial(&mut self, dial: Dial, target: Target) -> bool {
        if self.dials.len() >= DIALS_MAX {
            return false;
        }
        self.dial_count += 1;
        let id = DialId(self.dial_count);
        self.dials.insert(id, dial);
        self.act(Action::Dial { dial: id, target });
        true
    }

    pub(super) fn is_dialling(&self, node: NodeId) -> bool {
        self.dials.values().any(|dial| dial.node == Some(node))
    }

    pub(super) fn dial_failed(&mut self, now: Time, id: DialId) {
        let Some(dial) = self.dials.remove(&id) else {
            return;
        };
        if let Some(index) = dial.bootstrap {
            self.redial_later(now, index);
        }
        if let Some(node) = dial.node {
            self.meeting_failed(now, node);
            self.unreachable(now, node);
        }
    }

    pub(super) fn connected(
        &mut self,
        now: Time,
        conn: ConnId,
        key: PublicKey,
        remote: Address,
        dial: Option<DialId>,
        rtt: Duration,
    ) {
        let outbound = dial.is_some();
        let dial = dial.and_then(|id| self.dials.remove(&id));
        if !outbound {
            self.dialled_back(now, key, remote);
        }
        self.pending.insert(
            conn,
            Pending {
                key,
                remote,
                dial,
                outbound,
                rtt,
            },
        );
        self.timers.set(Timer::Hello(conn), now.after(HELLO_WITHIN));
        let record = RecordBytes(self.record.wire().clone());
        self.send(
            conn,
            Hello {
                version: VERSION,
                record,
                observed: Some(remote),
            },
        );
    }

    pub(super) fn hello_missing(&mut self, conn: ConnId) {
        if self.pending.contains_key(&conn) {
            self.close(conn, CloseCode::Identity, "no Hello within 5 s");
        }
    }

    pub(super) fn close(&mut self, conn: ConnId, code: CloseCode, reason: impl Into<String>) {
        self.act(Action::Close {
            conn,
            code,
            reason: reason.into(),
        });
    }

    pub(super) fn received(&mut self, now: Time, conn: ConnId, message: Message) {
        if let Message::Hello(hello) = message {
            return self.hello(now, conn, &hello);
        }
        if !self.peers.contains_key(&conn) {
            if self.pending.contains_key(&conn) {
                self.close(conn, CloseCode::Identity, "the first message was not Hello");
            }
            return;
        }
        self.peer_said(now, conn, message);
    }

    fn peer_said(&mut self, now: Time, conn: ConnId, message: Message) {
        match message {
            Message::Hello(_) => {}
            Message::Peers(m) if self.may_tell(now, conn, m.records.len()) => {
                self.peers_told(now, conn, &m.records);
            }
            Message::Announce(m) if self.may_tell(now, conn, m.records.len()) => {
                self.announced(now, conn, &m.records);
            }
            Message::Peers(_) | Message::Announce(_) => {}
            Message::Find(m) => self.asked_to_find(now, conn, &m),
            Message::Found(m) => self.found(now, conn, &m),
            Message::TicketRequest(m) => {
                self.note_asked(now, conn, &m);
                self.ticket_requested(now, conn, m.stream);
            }
            Message::TicketOffer(m) => self.ticket_offered(now, conn, m),
            Message::TicketConfirm(m) => self.ticket_confirmed(now, conn, m),
            Message::TicketAccepted(m) => self.ticket_accepted(now, conn, m),
            Message::TicketActivate(m) => self.ticket_activated(now, conn, m),
            Message::TicketRefused(m) => self.ticket_refused(now, conn, m),
            Message::TicketCancel(m) => self.ticket_cancelled(now, conn, m),
            Message::PathUpdate(m) => self.path_updated(now, conn, m),
            Message::Leaving(m) => self.peer_leaves(now, conn, &m),
            Message::Register(m) => self.register_asked(now, conn, &m),
            Message::Probe(m) => self.probe_asked(now, conn, &m),
            Message::Registered(_) => self.registered(now, conn),
            Message::Introduce(m) => self.introduced(now, conn, &m),
            Message::Probed(m) => self.probed(now, conn, &m),
            Message::Refused(m) => self.register_refused(now, conn, &m),
            Message::Audience(m) => self.audience_told(conn, &m),
            Message::Fetch(m) => self.fetch_asked(now, conn, m),
            Message::Seed(m) if self.may_tell(now, conn, 1) => self.seed_offered(now, conn, &m),
            Message::Seed(_) => {}
            Message::Seeded(m) => self.seed_answered(conn, &m),
        }
    }

    fn hello(&mut self, now: Time, conn: ConnId, hello: &Hello) {
        let Some(pending) = self.pending.remove(&conn) else {
            return;
        };
        self.timers.clear(Timer::Hello(conn));
        match self.check_hello(now, &pending, hello) {
            Ok((node, record)) => self.join(now, conn, pending, node, record, hello.observed),
            Err((code, reason)) => {
                if let Some(index) = pending.dial.as_ref().and_then(|dial| dial.bootstrap) {
                    self.redial_later(now, index);
                }
                self.close(conn, code, reason);
            }
        }
    }

    fn check_hello(
        &self,
        now: Time,
        pending: &Pending,
        hello: &Hello,
    ) -> Result<(NodeId, SignedNode), (CloseCode, String)> {
        let identity = |reason: String| (CloseCode::Identity, reason);
        let record = SignedNode::decode(&hello.record.0)
            .map_err(|error| identity(format!("Hello: {error}")))?;
        if record.value().key != pending.key {
            return Err(identity(
                "Hello names another key than the certificate".into(),
            ));
        }
        let node = record.value().id_for(pending.remote);
        let expected = pending.dial.as_ref().and_then(|dial| dial.node);
        if expected.is_some_and(|expected| expected != node && expected != record.value().id()) {
            return Err(identity(format!("dialled another node than {node}")));
        }
        if node == self.id {
            return Err((CloseCode::DuplicateKey, "this is the node itself".into()));
        }
        let banned = [Some(Ban::Key(pending.key)), Ban::prefix(pending.remote)];
        if banned.into_iter().flatten().any(|ban| self.runs(now, ban)) {
            return Err((
                CloseCode::Banned,
                "this node sent bytes that do not verify".into(),
            ));
        }
        Ok((node, record))
    }

    fn join(
        &mut self,
        now: Time,
        conn: ConnId,
        pending: Pending,
        node: NodeId,
        record: SignedNode,
        observed: Option<Address>,
    ) {
        let stranger = !pending.outbound
            && self.records.node(node).is_none()
            && !self.is_introduced(now, node)
            && !self.is_dialling(node);
        if let Some(index) = pending.dial.as_ref().and_then(|dial| dial.bootstrap) {
            self.bootstraps[index].node = Some(node);
        }
        if !self.outlives_duplicate(now, node, pending.outbound) {
            self.close(
                conn,
                CloseCode::Done,
                "another connection of this pair stays",
            );
            return;
        }
        let peer = Peer {
            node,
            key: pending.key,
            joined: now,
            beaten: now,
            finds: Allowance::default(),
            probes: Allowance::default(),
            registers: Allowance::default(),
            introduces: Allowance::default(),
            seeds: Allowance::default(),
            told: Allowance::default(),
            told_of: None,
            asked: None,
            gives: None,
            mentioned: Time::default(),
            observed,
            reached: pending.outbound || pending.remote.is_loopback(),
            claims: 0,
            remote: pending.remote,
            outbound: pending.outbound,
            heard: now,
            rtt: pending.rtt,
            spare_bps: 0,
            leaving: false,
            seq: 0,
            sent: [(0, now); BEATS_REMEMBERED],
            echo: None,
        };
        self.records
            .insert_node(now, node, record, &[pending.remote], None);
        self.peers.insert(conn, peer);
        self.by_node.insert(node, conn);
        self.timers
            .set(Timer::Beat(conn), now.after(IDLE_BEAT_EVERY));
        self.changed(Change::PeerJoined(node));
        self.introduce_records(now, conn);
        self.introduce_supernodes(conn);
        self.peer_arrived(now, conn, node);
        if let Some(observed) = observed.filter(|_| stranger) {
            self.stranger_came(now, observed);
        }
        self.check_claim(conn);
        self.offer_seeds(conn);
        if self.is_supernode(conn) {
            self.tell_of(now, conn);
            self.review(now);
        }
    }

    /// Two connections of one pair: in the same direction the newer stays; of
    /// crossing ones that which the smaller id dialled.
    fn outlives_duplicate(&mut self, now: Time, node: NodeId, outbound: bool) -> bool {
        let Some(old) = self.by_node.get(&node).copied() else {
            return true;
        };
        let old_outbound = self.peers.get(&old).is_some_and(|peer| peer.outbound);
        let newer_stays = old_outbound == outbound || outbound == (self.id < node);
        if newer_stays {
            let code = duplicate_code(old_outbound == outbound);
            self.close(old, code, "a newer connection of this pair took over");
            self.part(now, old, Reason::Disconnected);
        }
        newer_stays
    }

    pub(super) fn closed(&mut self, now: Time, conn: ConnId, code: Option<CloseCode>) {
        self.timers.clear(Timer::Hello(conn));
        if let Some(pending) = self.pending.remove(&conn) {
            if let Some(index) = pending.dial.as_ref().and_then(|dial| dial.bootstrap) {
                self.redial_later(now, index);
            }
            if let Some(node) = pending.dial.and_then(|dial| dial.node) {
                self.unreachable(now, node);
            }
            return;
        }
        if code == Some(CloseCode::DuplicateKey) {
            self.stop_redialling(now, conn);
        }
        self.part(now, conn, Reason::Disconnected);
    }

    /// The peer says that a newer connection of this key took over. If it is none of
    /// this process, a copy of it runs somewhere: redialling would throw each other
    /// out for ever.
    fn stop_redialling(&mut self, now: Time, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        let (node, key) = (peer.node, peer.key);
        let ours = self.pending.values().any(|pending| pending.key == key);
        if ours || !peer.outbound || now.since(peer.joined) < SETTLED {
            return;
        }
        for bootstrap in &mut self.bootstraps {
            bootstrap.stopped |= bootstrap.node == Some(node);
        }
    }

    fn part(&mut self, now: Time, conn: ConnId, reason: Reason) {
        let Some(peer) = self.peers.remove(&conn) else {
            return;
        };
        if now.since(peer.joined) >= SETTLED {
            for bootstrap in &mut self.bootstraps {
                if bootstrap.node == Some(peer.node) {
                    bootstrap.failures = 0;
                }
            }
        }
        self.by_node.remove(&peer.node);
        self.timers.clear(Timer::Beat(conn));
        self.timers.clear(Timer::Expiry(conn));
        self.timers.clear(Timer::Greet(conn));
        self.end_feeds_of(conn, reason);
        self.parent_gone(now, conn, peer.node, reason);
        self.changed(Change::PeerLeft(peer.node));
        self.registrar_gone(now, conn);
        for index in 0..self.bootstraps.len() {
            if self.bootstraps[index].node == Some(peer.node) && !self.bootstraps[index].stopped {
                self.redial_later(now, index);
            }
        }
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.records.forget_node(node);
    }

    pub(super) fn bad_media(&mut self, now: Time, conn: ConnId, stream: StreamId) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        let (node, until) = (peer.node, now.after(BAN));
        let bans = [Some(Ban::Key(peer.key)), Ban::prefix(peer.remote)];
        self.banned
            .extend(bans.into_iter().flatten().map(|ban| (ban, until)));
        let reason = format!("sent bytes of stream {} that do not verify", stream.short());
        self.changed(Change::Banned(node, reason.clone()));
        self.close(conn, CloseCode::BadMedia, reason);
        self.part(now, conn, Reason::BadMedia);
        for index in 0..self.bootstraps.len() {
            if self.bootstraps[index].node == Some(node) {
                self.timers.set(Timer::Redial(index), until);
            }
        }
    }

    fn runs(&self, now: Time, ban: Ban) -> bool {
        self.banned.get(&ban).is_some_and(|until| *until > now)
    }

    pub(super) fn is_banned(&self, now: Time, node: NodeId) -> bool {
        let known = self.records.node(node);
        known.is_some_and(|known| self.runs(now, Ban::Key(known.record.value().key)))
    }

    /// Whether a peer may tell so many records now; one that goes on and on is let go.
    fn may_tell(&mut self, now: Time, conn: ConnId, records: usize) -> bool {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return false;
        };
        let may = peer
            .told
            .take(now, records, RECORDS_PER_SECOND, RECORDS_AT_ONCE);
        if !may {
            self.close(conn, CloseCode::Protocol, "too many records");
        }
        may
    }

    // Heartbeats

    /// Whether a connection to this node is to be kept in any case.
    pub(super) fn is_bootstrap(&self, node: NodeId) -> bool {
        let mut bootstraps = self.bootstraps.iter();
        bootstraps.any(|bootstrap| bootstrap.node == Some(node))
    }

    pub(super) fn shares_ticket(&self, conn: ConnId) -> bool {
        self.feeds_on.contains_key(&conn)
            || self.streams.values().any(|stream| stream.counts_on(conn))
    }

    /// Makes the next heartbeat due at once: something changed.
    pub(super) fn beat_now(&mut self, now: Time, conn: ConnId) {
        if let Some(peer) = self.peers.get(&conn) {
            let due = peer.beaten.after(BEAT_APART).max(now);
            self.timers.set(Timer::Beat(conn), due);
        }
    }

    /// Starts to expect heartbeats, since a ticket binds the two from now on.
    pub(super) fn bind(&mut self, now: Time, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.heard = peer.heard.max(now);
            self.beat_now(now, conn);
            self.timers.set(Timer::Expiry(conn), now.after(EXPIRY));
        }
    }

    pub(super) fn beat(&mut self, now: Time, conn: ConnId) {
        let bound = self.shares_ticket(conn);
        if !bound && self.is_superfluous(now, conn) {
            self.close(conn, CloseCode::Done, "nothing needs it any more");
            // At once: the next that is looked at may be one of the few to be kept.
            return self.part(now, conn, Reason::Disconnected);
        }
        let every = if bound {
            BEAT_EVERY
        } else {
            self.idle_beat(conn).unwrap_or(IDLE_BEAT_EVERY)
        };
        let tickets = self.ticket_beats(conn);
        let spare_bps = self.budget.spare_bps();
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.beaten = now;
        peer.seq = peer.seq.wrapping_add(1);
        peer.sent[peer.seq as usize % BEATS_REMEMBERED] = (peer.seq, now);
        let held = |at: Time| now.since(at).as_micros().min(u128::from(u32::MAX)) as u32;
        let echo = peer.echo.map(|(seq, at)| (seq, held(at)));
        let mut chunks = tickets.chunks(crate::limits::HEARTBEAT_TICKETS_MAX);
        let first = chunks.next().unwrap_or(&[]).to_vec();
        let seq = peer.seq;
        self.act(Action::Beat {
            conn,
            beat: Heartbeat {
                seq,
                echo,
                spare_bps,
                tickets: first,
            },
        });
        for more in chunks {
            let tickets = more.to_vec();
            self.act(Action::Beat {
                conn,
                beat: Heartbeat {
                    seq,
                    echo: None,
                    spare_bps,
                    tickets,
                },
            });
        }
        self.timers.set(Timer::Beat(conn), now.after(every));
    }

    fn ticket_beats(&self, conn: ConnId) -> Vec<TicketBeat> {
        let on = self.feeds_on.get(&conn).into_iter().flatten();
        let down = on
            .filter_map(|id| Some((id, self.feeds.get(id)?)))
            .map(|(id, feed)| {
                let stream = self.streams.get(&feed.stream);
                TicketBeat {
                    ticket: *id,
                    stream: feed.stream,
                    supply: stream.map_or(Supply::Repairing, Stream::supply),
                    newest: stream.map_or((0, 0), |stream| stream.progress.newest),
                    delay_us: stream.map_or(0, |stream| self.delay_us(stream)),
                    // Who counts on it had better look for another.
                    viewers: (!feed.is_active() && !self.budget.has_room(feed.charge_bps)).into(),
                    free: 0,
                }
            });
        let up = self.streams.iter().filter_map(|(id, stream)| {
            let parent = stream
                .parent
                .as_ref()
                .filter(|parent| parent.conn == conn)?;
            let (viewers, free) = self.subtree(*id);
            // A parent answers at once to a child that lacks something.
            let supply = match stream.quiet {
                Some(_) => Supply::Repairing,
                None => stream.supply(),
            };
            Some(TicketBeat {
                ticket: parent.ticket,
                stream: *id,
                supply,
                newest: stream.progress.newest,
                delay_us: self.delay_us(stream),
                viewers,
                free,
            })
        });
        let ready = self.streams.iter().filter_map(|(id, stream)| {
            let standby = stream.standby.as_ref().filter(|s| s.conn == conn)?;
            Some(TicketBeat {
                ticket: standby.ticket,
                stream: *id,
                supply: match stream.quiet {
                    Some(_) => Supply::Repairing,
                    None => stream.supply(),
                },
                newest: stream.progress.newest,
                delay_us: self.delay_us(stream),
                viewers: 0,
                free: 0,
            })
        });
        down.chain(up)
            .chain(ready)
            .take(2 * TICKETS_PER_PEER)
            .collect()
    }

    pub(super) fn beat_received(&mut self, now: Time, conn: ConnId, beat: Heartbeat) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.heard = now;
        self.records.node_heard(now, peer.node);
        peer.spare_bps = beat.spare_bps;
        if let Some((seq, held)) = beat.echo {
            peer.measure(now, seq, held);
        }
        if peer
            .echo
            .is_none_or(|(seq, _)| beat.seq.wrapping_sub(seq) as i32 > 0)
        {
            peer.echo = Some((beat.seq, now));
        }
        for ticket in &beat.tickets {
            self.ticket_beat(now, conn, ticket);
        }
    }

    pub(super) fn check_expiry(&mut self, now: Time, conn: ConnId) {
        if !self.shares_ticket(conn) {
            return;
        }
        let Some(due) = self.expires(conn) else {
            return;
        };
        if due > now {
            self.timers.set(Timer::Expiry(conn), due);
            return;
        }
        let node = self.peers[&conn].node;
        self.end_feeds_of(conn, Reason::Expired);
        self.parent_gone(now, conn, node, Reason::Expired);
    }

    /// When a peer's tickets expire unless it is heard of.
    pub(super) fn expires(&self, conn: ConnId) -> Option<Time> {
        let peer = self.peers.get(&conn)?;
        let feeds = |stream: &&Stream| {
            let parent = stream.parent.as_ref();
            let only = stream.former.is_none();
            only && parent.is_some_and(|parent| parent.conn == conn && parent.came)
        };
        let fed = self.streams.values().filter(feeds);
        let came = fed.map(|stream| stream.progressed).max();
        Some(peer.heard.max(came.unwrap_or_default()).after(EXPIRY))
    }

    // Leaving

    pub(super) fn leave(&mut self, now: Time) {
        self.leaving = true;
        self.timers.set(Timer::Leave, now.after(LEAVE_WITHIN));
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            let referrals = self.referrals_on_leaving(conn);
            self.send(conn, Leaving { referrals });
        }
        self.check_left();
    }

    /// The last child has moved: nothing holds a leaving node any more.
    pub(super) fn check_left(&mut self) {
        let waits = self.feeds.values().any(super::feeds::Feed::is_active);
        if self.leaving && !waits && self.timers.get(Timer::Leave).is_some() {
            self.timers.clear(Timer::Leave);
            self.left();
        }
    }

    pub(super) fn left(&mut self) {
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            self.drop_parent(stream, Reason::Leaving);
        }
        self.act(Action::Left);
    }

    fn referrals_on_leaving(&self, conn: ConnId) -> Vec<Referral> {
        let Some(to) = self.peers.get(&conn).map(|peer| peer.remote) else {
            return Vec::new();
        };
        let parents = self
            .streams
            .values()
            .filter_map(|stream| stream.parent.as_ref());
        let mut referrals: Vec<Referral> = parents
            .filter(|parent| parent.conn != conn)
            .filter_map(|parent| self.referral(parent.node, to))
            .collect();
        referrals.dedup();
        referrals.truncate(REFERRALS_MAX);
        referrals
    }

    fn peer_leaves(&mut self, now: Time, conn: ConnId, leaving: &Leaving) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.leaving = true;
        }
        self.standby_leaves(now, conn);
        self.parent_leaves(now, conn, &leaving.referrals);
        self.registrar_gone(now, conn);
    }

    /// A node and where somebody at `to` can find it.
    pub(super) fn referral(&self, node: NodeId, to: Address) -> Option<Referral> {
        let known = self.records.node(node)?;
        let addresses = Self::tellable(&known.addresses, to);
        (!addresses.is_empty()).then_some(Referral { node, addresses })
    }
}

/// Two connections in the same direction are two processes with one key, or one
/// that has restarted; crossing ones are nobody's fault.
fn duplicate_code(same_direction: bool) -> CloseCode {
    if same_direction {
        CloseCode::DuplicateKey
    } else {
        CloseCode::Done
    }
}

impl Peer {
    /// Whether this peer may ask once more in this second.
    pub(super) fn may_find(&mut self, now: Time) -> bool {
        self.finds.allows(now, FINDS_PER_SECOND)
    }

    /// Smooths the round-trip time as RFC 6298 §2 does.
    fn measure(&mut self, now: Time, seq: u32, held_us: u32) {
        let (sent_seq, sent_at) = self.sent[seq as usize % BEATS_REMEMBERED];
        if sent_seq != seq {
            return;
        }
        let rtt = now
            .since(sent_at)
            .saturating_sub(Duration::from_micros(held_us.into()));
        self.rtt = (self.rtt * 7 + rtt) / 8;
    }
}
