//! The overlay: who is connected to whom, and who feeds whom (DESIGN §6).
//!
//! A deterministic state machine: events and the time go in, actions come out.
//! It has no sockets, no clock and no randomness of its own, so the same code
//! runs in a node and in a simulator. No video byte passes through it: it tells
//! the shell which routes to set.
//!
//! ```text
//!            TicketRequest            TicketConfirm
//!  idle ───────────────────► asking ───────────────► confirming
//!   ▲    offers, referrals     ▲ │                     │   │
//!   │                          │ └── nobody: back-off  │   │ accepted
//!   │ unwanted                 └────── refused ────────┘   ▼
//!   └──────────────────────────────────────────────────  active
//!                              parent lost: asking again
//! ```
//!
//! One `impl` block per concern: `peers` (connections, heartbeats), `search`
//! (the child's side of tickets), `standby`
//! (failover), `improve` (moving up), `holes` (frames that did not come), `feeds` (the
//! parent's side), `displace` (who goes before whom), `gossip` (records), `audience` (how viewers are served), `supernodes` (who is one),
//! `registration` (with which), `mesh` (what they tell each other), `pull` (what they
//! fetch for others), `seeding` (what they offer each other), `reach` (whether strangers
//! can connect), `introduce` (who cannot be dialled, dials), `view` (what the API shows).

mod allowance;
mod audience;
mod budget;
mod displace;
mod event;
mod feeds;
mod gossip;
mod holes;
mod improve;
mod introduce;
mod linger;
mod mesh;
mod peers;
mod pull;
pub(crate) mod random;
mod reach;
mod records;
mod registration;
mod remembered;
mod search;
mod seeding;
mod standby;
mod supernodes;
mod timer;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use audience::Audience;
pub use budget::{RATE_UNKNOWN_BPS, charge};
pub use event::{
    Action, Change, ConnId, Description, DialId, Event, Hole, Progress, Target, Time, Why,
};
pub use reach::Standing;
pub use records::{KnownNode, KnownStream, LEASE, Records, Resolved};
pub use seeding::{Consent, SeedAnswer};
pub use supernodes::{Mode, RoleReason};
pub use view::{FeedView, IntakeView, PeerView, PlaceView, StreamView, TicketView};

use crate::ids::{NodeId, StreamId, TicketId};
use crate::record::{Address, SignedNode};
use budget::Budget;
use feeds::Feed;
use introduce::Introductions;
use peers::{Ban, Bootstrap, Dial, Peer, Pending};
use pull::Pulls;
use random::Random;
use reach::Reach;
use remembered::Remembered;
use search::Stream;
use seeding::Seeding;
use supernodes::Supernodes;
use timer::TimerTable;

/// A wake-up this late means that this node slept: its deadlines move, and it
/// does not declare its peers dead.
const SLEPT: Duration = Duration::from_millis(500);

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Hello(ConnId),
    Beat(ConnId),
    Expiry(ConnId),
    Search(StreamId),
    Stall(StreamId),
    Improve(StreamId),
    Redial(usize),
    Remembered,
    Recharge,
    Spread,
    Greet(ConnId),
    Sweep,
    Supernodes,
    Introduce(NodeId),
    Pull(StreamId),
    Audience,
    Leave,
}

impl Timer {
    fn name(self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Beat(_) => "beat",
            Self::Expiry(_) => "expiry",
            Self::Search(_) => "search",
            Self::Stall(_) => "stall",
            Self::Improve(_) => "improve",
            Self::Redial(_) => "redial",
            Self::Remembered => "remembered",
            Self::Recharge => "recharge",
            Self::Spread => "spread",
            Self::Greet(_) => "greet",
            Self::Sweep => "sweep",
            Self::Supernodes => "supernodes",
            Self::Introduce(_) => "introduce",
            Self::Pull(_) => "pull",
            Self::Audience => "audience",
            Self::Leave => "leave",
        }
    }
}

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// Id that the node goes by.
    pub id: NodeId,
    /// Its own signed record.
    pub record: SignedNode,
    /// Upload limit in bit/s; `None`: unlimited.
    pub upload_limit_bps: Option<u64>,
    /// Whether it says what it gives to others, and moves up for it; only runs that show
    /// what that is good for go without.
    pub contributes: bool,
    /// Seed of its randomness (jitter, ticket numbers).
    pub seed: u64,
}

/// The state machine of one node.
#[derive(Debug)]
pub struct Overlay {
    id: NodeId,
    contributes: bool,
    record: SignedNode,
    random: Random,
    timers: TimerTable<Timer>,
    pending: BTreeMap<ConnId, Pending>,
    peers: BTreeMap<ConnId, Peer>,
    by_node: BTreeMap<NodeId, ConnId>,
    dials: BTreeMap<DialId, Dial>,
    dial_count: u64,
    bootstraps: Vec<Bootstrap>,
    remembered: Remembered,
    banned: BTreeMap<Ban, Time>,
    /// Streams of which others are to hear, and those who need not, since they told of it.
    news: BTreeMap<StreamId, BTreeSet<ConnId>>,
    records: Records,
    streams: BTreeMap<StreamId, Stream>,
    feeds: BTreeMap<TicketId, Feed>,
    /// The same by connection: a heartbeat to each of many children looks at its own only.
    feeds_on: BTreeMap<ConnId, BTreeSet<TicketId>>,
    budget: Budget,
    query_count: u64,
    supernodes: Supernodes,
    reach: Reach,
    introductions: Introductions,
    pulls: Pulls,
    seeding: Seeding,
    leaving: bool,
    actions: VecDeque<Action>,
}

impl Overlay {
    /// A node that knows nobody yet.
    pub fn new(now: Time, config: Config) -> Self {
        let mut timers = TimerTable::new();
        timers.set(Timer::Recharge, now.after(budget::RECHARGE_EVERY));
        timers.set(Timer::Sweep, now.after(LEASE));
        timers.set(Timer::Audience, now.after(audience::TELL_EVERY));
        Self {
            id: config.id,
            contributes: config.contributes,
            supernodes: Supernodes::new(config.record.value().role),
            reach: Reach::default(),
            introductions: Introductions::default(),
            pulls: Pulls::default(),
            seeding: Seeding::default(),
            record: config.record,
            random: Random::new(config.seed),
            timers,
            pending: BTreeMap::new(),
            peers: BTreeMap::new(),
            by_node: BTreeMap::new(),
            dials: BTreeMap::new(),
            dial_count: 0,
            bootstraps: Vec::new(),
            remembered: Remembered::default(),
            banned: BTreeMap::new(),
            news: BTreeMap::new(),
            records: Records::default(),
            streams: BTreeMap::new(),
            feeds: BTreeMap::new(),
            feeds_on: BTreeMap::new(),
            budget: Budget {
                limit_bps: config.upload_limit_bps,
                promised_bps: 0,
                reserved_bps: 0,
            },
            query_count: 0,
            leaving: false,
            actions: VecDeque::new(),
        }
    }

    /// Takes an event in and gives what is to be done, in order.
    pub fn handle(&mut self, now: Time, event: Event) -> impl Iterator<Item = Action> + use<> {
        self.notice_sleep(now);
        self.dispatch(now, event);
        std::mem::take(&mut self.actions).into_iter()
    }

    /// When [`Overlay::handle_timeout`] is due, and the name of the timer.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        self.timers.next().map(|(at, timer)| (at, timer.name()))
    }

    /// Lets every timer that is due expire.
    pub fn handle_timeout(&mut self, now: Time) -> impl Iterator<Item = Action> + use<> {
        self.notice_sleep(now);
        while let Some(timer) = self.timers.expire(now) {
            self.expire(now, timer);
        }
        std::mem::take(&mut self.actions).into_iter()
    }

    /// Moves all deadlines if this node slept over them.
    fn notice_sleep(&mut self, now: Time) {
        let late = self
            .timers
            .next()
            .map_or(Duration::ZERO, |(at, _)| now.since(at));
        if late <= SLEPT {
            return;
        }
        self.timers.shift(late);
        for peer in self.peers.values_mut() {
            peer.heard = peer.heard.after(late).min(now);
        }
        for stream in self.streams.values_mut() {
            stream.progressed = stream.progressed.after(late).min(now);
            stream.quiet = None;
        }
    }

    fn expire(&mut self, now: Time, timer: Timer) {
        match timer {
            Timer::Hello(conn) => self.hello_missing(conn),
            Timer::Beat(conn) => self.beat(now, conn),
            Timer::Expiry(conn) => self.check_expiry(now, conn),
            Timer::Search(stream) => self.search_due(now, stream),
            Timer::Stall(stream) => self.check_stall(now, stream),
            Timer::Improve(stream) => self.improve(now, stream),
            Timer::Redial(index) => self.redial(now, index),
            Timer::Remembered => self.dial_remembered(now),
            Timer::Recharge => {
                self.recharge(now);
                self.note_carried(now);
            }
            Timer::Spread => self.spread(now),
            Timer::Greet(conn) => self.greet(now, conn),
            Timer::Sweep => {
                self.records.sweep(now);
                self.banned.retain(|_, until| *until > now);
                self.timers.set(Timer::Sweep, now.after(LEASE));
            }
            Timer::Supernodes => self.review(now),
            Timer::Introduce(node) => self.introduce(now, node),
            Timer::Pull(stream) => self.check_pull(now, stream),
            Timer::Audience => self.tell_audiences(now),
            Timer::Leave => self.left(),
        }
    }

    fn dispatch(&mut self, now: Time, event: Event) {
        match event {
            Event::Connected {
                conn,
                key,
                remote,
                dial,
                rtt,
            } => {
                self.connected(now, conn, key, remote, dial, rtt);
            }
            Event::DialFailed { dial } => self.dial_failed(now, dial),
            Event::Closed { conn, code } => self.closed(now, conn, code),
            Event::Received { conn, message } => self.received(now, conn, message),
            Event::Beat { conn, beat } => self.beat_received(now, conn, beat),
            Event::Progress { stream, progress } => self.progressed(now, stream, progress),
            Event::Came {
                conn,
                ticket,
                level,
            } => self.came(conn, ticket, level),
            Event::Missing { stream, holes } => self.missing(now, stream, &holes),
            Event::BadMedia { conn, stream } => self.bad_media(now, conn, stream),
            Event::Publish { record, supply } => self.publish(now, record, supply),
            Event::Unpublish { record } => self.unpublish(now, record),
            Event::Supply { stream, supply } => self.supply_changed(now, stream, supply),
            Event::Want { stream, why } => self.want(now, stream, why),
            Event::Unwant { stream, why } => self.unwant(stream, why),
            Event::Seed { node, stream } => self.seed(node, stream),
            Event::Consent { consent } => self.take_consent(consent),
            Event::Find { id, slug } => self.find(id, slug),
            Event::Bootstrap { target } => self.bootstrap(now, target),
            Event::Remembered { targets } => self.remember(now, targets),
            Event::Named { slugs } => self.records.name_first(slugs),
            Event::Revoke { ticket } => self.revoke(now, ticket),
            Event::Forget { node } => self.forget(node),
            Event::Limit { bps } => self.budget.limit_bps = bps,
            Event::Identity { record } => self.identity(record),
            Event::Heard { nodes, streams } => self.heard(now, nodes, streams),
            Event::Supernodes { mode } => self.take_mode(now, mode),
            Event::Whereabouts { addresses } => self.whereabouts(now, addresses),
            Event::Probed {
                conn,
                query,
                reachable,
            } => self.probe_done(now, conn, query, reachable),
            Event::Leave => self.leave(now),
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn send(&mut self, conn: ConnId, message: impl Into<crate::wire::control::Message>) {
        self.act(Action::Send {
            conn,
            message: message.into(),
        });
    }

    fn changed(&mut self, change: Change) {
        self.act(Action::Changed(change));
    }

    /// Addresses that may be told to somebody at `to`: loopback ones stay on this machine.
    fn tellable(addresses: &[Address], to: Address) -> Vec<Address> {
        addresses
            .iter()
            .filter(|address| !address.is_loopback() || to.is_loopback())
            .take(crate::limits::ADDRESSES_MAX)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests;
