//! The simulator: many nodes in virtual time (DESIGN §10).
//!
//! Every node runs the real [`Overlay`], and every message and heartbeat goes through the
//! real codec. What is modelled is the rest of the shell: connections with latency, jitter
//! and loss, uplinks with a rate, firewalls, partitions, video that follows the routes
//! which the overlay sets, and people who come and go. One thread, no clock, one seed: the
//! same scenario gives the same run, event by event, and its digest proves it.
//!
//! Deliberately absent: opinions of the overlay about itself. Rules are checked on what
//! happens between nodes (`check`), and each was seen to fail on code that was broken on
//! purpose (`broken`).
//!
//! ```text
//!  queue ──► happen ──► Overlay::handle ──► shell: carry out ──► links, uplinks ──► queue
//!                                              └─► routes, tickets ──► flow | exact video
//! ```

mod broken;
mod check;
mod crowd;
mod dice;
mod exact;
mod flow;
mod link;
mod measure;
mod media;
mod node;
mod programme;
mod queue;
mod scenario;
mod shell;
#[cfg(test)]
mod tests;
mod web;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

pub use broken::Broken;
pub use measure::{Judged, Point, Report, Spread, Violation, Worst};
pub use scenario::{Contacts, Expect, Fault, Hostile, Lie, Media, Scenario, Trouble, Who};

use crate::ids::{NodeId, StreamId, TicketId};
use crate::overlay::{DialId, Event, Overlay, Time};
use crate::record::SignedStream;
use crate::wire::CloseCode;
use check::{Checks, Tree};
use dice::Dice;
use exact::Chunk;
use link::{End, Links};
use measure::Tally;
use node::Node;
use programme::Programme;
use queue::Queue;
use web::Web;

/// A run begins here, so that no moment is the one that means "unknown".
const START: Time = Time(1_000_000);
/// The publisher is up this long before the first viewer comes.
const AHEAD: Duration = Duration::from_secs(3);

/// Something that happens.
#[derive(Debug)]
enum Happening {
    /// A node's timers are due.
    Wake(u32),
    /// A node's store is looked at, as its driver does.
    Tick(u32),
    /// A node starts.
    Join(u32, Contacts),
    /// A node goes.
    Leave {
        node: u32,
        abrupt: bool,
    },
    /// A frozen node goes on.
    Thaw(u32),
    /// The first flight of a handshake reaches the node that was dialled.
    Handshake {
        from: u32,
        to: u32,
        dial: DialId,
    },
    /// It was not answered.
    DialFailed {
        node: u32,
        dial: DialId,
    },
    /// The node that was dialled knows the connection.
    Accepted(End),
    /// A control message arrives.
    Message(End, Bytes),
    /// A heartbeat arrives.
    Beat(End, Bytes),
    /// The other side has closed.
    Closed(End, Option<CloseCode>),
    /// Video runs, or stops, under a ticket.
    Flow(End, TicketId, Option<Running>),
    /// A route begins with a group that is there by now.
    Begin(End, TicketId),
    /// The publisher's next frame.
    Frame(u32, u32),
    /// A chunk arrives.
    Chunk(End, TicketId, Chunk),
    /// An uplink can send.
    Uplink(u32),
    /// A dial back for another node has come to an end.
    Probed(u32, End, u64, bool),
    /// astral-web answers.
    Web(u32),
    /// A supernode's record is renewed at astral-web.
    Listed(u32),
    /// A publisher signs its stream's record anew.
    Renew(u32),
    /// A fault of the scenario.
    Fault(usize),
    /// A partition ends, or connections across it do.
    Heal,
    CutOff,
    /// Rules are checked.
    Look,
    /// A second is over.
    Second,
}

/// A flow that arrives.
#[derive(Clone, Copy, Debug)]
struct Running {
    delay_us: u32,
    speed: f32,
}

/// A stream, and who publishes it.
struct Source {
    id: StreamId,
    record: SignedStream,
    programme: Programme,
    publisher: NodeId,
}

/// A run.
pub struct Sim {
    scenario: Scenario,
    broken: Option<Broken>,
    now: Time,
    end: Time,
    queue: Queue<Happening>,
    /// Who comes and goes: the same, whatever the overlay does.
    crowd: Dice,
    network: Dice,
    nodes: Vec<Node>,
    by_id: BTreeMap<NodeId, u32>,
    links: Links,
    sources: Vec<Source>,
    web: Web,
    /// Control messages that wait for a partition to end.
    held: Vec<(End, Bytes)>,
    checks: Checks,
    tally: Tally,
    digest: [u64; 2],
    events: u64,
    trace: Vec<u32>,
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario) -> Report {
    Sim::new(scenario.clone(), None).run()
}

/// Runs a scenario with a system that is broken on purpose.
pub fn run_broken(scenario: &Scenario, broken: Broken) -> Report {
    Sim::new(scenario.clone(), Some(broken)).run()
}

impl Sim {
    /// A run that has not begun.
    pub fn new(scenario: Scenario, broken: Option<Broken>) -> Self {
        crate::record::memo::start();
        let seed = scenario.seed;
        let mut sim = Self {
            end: START.after(AHEAD + Duration::from_secs_f64(scenario.duration_s)),
            broken,
            now: START,
            queue: Queue::new(),
            crowd: Dice::new(seed),
            network: Dice::new(seed ^ 0x5eed),
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            links: Links::default(),
            sources: Vec::new(),
            web: Web::default(),
            held: Vec::new(),
            checks: Checks::default(),
            tally: Tally::default(),
            digest: [seed, !seed],
            events: 0,
            trace: Vec::new(),
            scenario,
        };
        sim.populate();
        sim
    }

    /// Prints what happens at these nodes, to find out why.
    pub fn trace(mut self, nodes: Vec<u32>) -> Self {
        self.trace = nodes;
        self
    }

    /// Runs to the end.
    pub fn run(mut self) -> Report {
        while let Some((at, what)) = self.queue.pop(self.end) {
            self.now = self.now.max(at);
            self.events += 1;
            self.happen(what);
        }
        self.now = self.end;
        let report = self.finish();
        crate::record::memo::stop();
        report
    }

    fn happen(&mut self, what: Happening) {
        if let Some(node) = self.at_node(&what)
            && self.nodes[node as usize].frozen_until > self.now
        {
            let until = self.nodes[node as usize].frozen_until;
            if matches!(what, Happening::Wake(_)) {
                let wake = &mut self.nodes[node as usize].wake;
                *wake = (*wake).max(until);
            }
            return self.queue.push(until, what);
        }
        match what {
            Happening::Wake(node) => self.wake(node),
            Happening::Tick(node) => self.tick(node),
            Happening::Join(node, contacts) => self.join(node, contacts),
            Happening::Leave { node, abrupt } => self.leave(node, abrupt),
            Happening::Thaw(node) => self.thaw(node),
            Happening::Handshake { from, to, dial } => self.handshake(from, to, dial),
            Happening::DialFailed { node, dial } => self.event(node, Event::DialFailed { dial }),
            Happening::Accepted(end) => self.accepted(end),
            Happening::Message(end, bytes) => self.message_arrives(end, bytes),
            Happening::Beat(end, bytes) => self.beat_arrives(end, &bytes),
            Happening::Closed(end, code) => self.closed(end, code),
            Happening::Flow(end, ticket, running) => self.flow_arrives(end, ticket, running),
            Happening::Begin(end, ticket) => self.begin_flow(end, ticket),
            Happening::Frame(stream, number) => self.publish_frame(stream, number),
            Happening::Chunk(end, ticket, chunk) => self.chunk_arrives(end, ticket, chunk),
            Happening::Uplink(node) => self.uplink(node),
            Happening::Probed(node, end, query, reachable) => {
                let conn = end.conn();
                let event = Event::Probed {
                    conn,
                    query,
                    reachable,
                };
                self.event(node, event);
            }
            Happening::Web(node) => self.ask_web(node),
            Happening::Listed(node) => self.list(node),
            Happening::Renew(stream) => self.renew(stream),
            Happening::Fault(index) => self.fault(index),
            Happening::Heal => self.heal(),
            Happening::CutOff => self.cut_off(),
            Happening::Look => self.look(),
            Happening::Second => self.second(),
        }
    }

    /// The node that something happens at, if it is one that can be frozen.
    fn at_node(&self, what: &Happening) -> Option<u32> {
        match what {
            Happening::Wake(node) | Happening::Tick(node) | Happening::Uplink(node) => Some(*node),
            Happening::Message(end, _)
            | Happening::Beat(end, _)
            | Happening::Accepted(end)
            | Happening::Flow(end, _, Some(_))
            | Happening::Chunk(end, _, _) => self.links.node(*end),
            Happening::Join(..)
            | Happening::Leave { .. }
            | Happening::Thaw(_)
            | Happening::Handshake { .. }
            | Happening::DialFailed { .. }
            | Happening::Closed(..)
            | Happening::Flow(_, _, None)
            | Happening::Begin(..)
            | Happening::Frame(..)
            | Happening::Probed(..)
            | Happening::Web(_)
            | Happening::Listed(_)
            | Happening::Renew(_)
            | Happening::Fault(_)
            | Happening::Heal
            | Happening::CutOff
            | Happening::Look
            | Happening::Second => None,
        }
    }

    /// Folds a happening into the digest (a multiply-rotate hash, as good as needed to
    /// tell two runs apart).
    fn note(&mut self, node: u32, kind: u64, bytes: &[u8]) {
        let mut mix = |word: u64| {
            let [a, b] = &mut self.digest;
            *a = (a.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
            *b = b
                .wrapping_add(word)
                .rotate_left(23)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        };
        mix(self.now.0);
        mix((u64::from(node) << 8) | kind);
        for word in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..word.len()].copy_from_slice(word);
            mix(u64::from_le_bytes(eight));
        }
    }

    /// Checks the rules.
    fn look(&mut self) {
        let streams = 0..self.sources.len() as u32;
        let trees: Vec<Tree> = streams
            .map(|stream| Tree::of(&self.nodes, &self.links, stream))
            .collect();
        self.checks
            .look(self.now, &self.scenario, &self.nodes, &self.links, &trees);
        self.queue
            .push(self.now.after(check::EVERY), Happening::Look);
    }

    fn overlay(&self, node: u32) -> Option<&Overlay> {
        self.nodes[node as usize].overlay.as_deref()
    }

    fn finish(&mut self) -> Report {
        for node in 0..self.nodes.len() as u32 {
            self.settle(node);
        }
        let wanting = self.wanting();
        let served = wanting.iter().filter(|(_, served)| *served).count();
        self.tally.served = served as f64 / wanting.len().max(1) as f64;
        if self.tally.frames_doubled > 0 {
            let what = format!("{} frames twice", self.tally.frames_doubled);
            self.checks.report(self.now, "doubled", 0, what);
        }
        let start = START.after(AHEAD);
        let mut report = self.tally.report(self.end, start, &self.scenario.expect);
        report.scenario = self.scenario.name.clone();
        report.about = self.scenario.about.clone();
        (report.nodes, report.seed) = (self.scenario.nodes, self.scenario.seed);
        report.media = self.scenario.media;
        report.digest = format!("{:016x}{:016x}", self.digest[0], self.digest[1]);
        report.events = self.events;
        report.broken = std::mem::take(&mut self.checks.broken);
        report.violations = std::mem::take(&mut self.checks.violations);
        report
    }
}
