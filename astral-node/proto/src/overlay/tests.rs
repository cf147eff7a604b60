//! A virtual-time network of a few nodes: messages take a latency, connections
//! can be cut, nodes frozen or killed, and "video" is a number that the
//! publisher raises and that routes carry on.

mod audience;
mod displace;
mod failover;
mod holes;
mod liars;
mod mesh;
mod reach;
mod remembered;
mod seeding;
mod supernodes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::ids::{SecretKey, sha256};
use crate::record::{NodeRecord, Role, SignedNode, SignedStream, StreamRecord, StreamState};
use crate::wire::control::{Fetch, Message, Reason, TicketActivate, TicketConfirm};
use crate::wire::heartbeat::{Heartbeat, Supply};

const LATENCY: Duration = Duration::from_millis(10);
const FRAME: Duration = Duration::from_millis(33);

#[derive(Debug)]
enum Packet {
    Message(Message),
    Beat(Heartbeat),
    Closed(CloseCodeOrNone),
    Frame(StreamId, u32),
}
type CloseCodeOrNone = Option<crate::wire::CloseCode>;

struct Node {
    overlay: Overlay,
    key: SecretKey,
    alive: bool,
    frozen: bool,
    links: BTreeMap<ConnId, (usize, ConnId)>,
    routes: BTreeMap<TicketId, (ConnId, StreamId)>,
    expected: BTreeSet<(ConnId, TicketId)>,
    newest: BTreeMap<StreamId, u32>,
    left: bool,
    changes: Vec<Change>,
    served: Vec<Fetch>,
    lie: Option<Lie>,
    /// Sends no frames between these times, and lives.
    paused_for: Option<(Time, Time)>,
    /// When the last new frame came, and the longest time between two, once watched.
    gap: Option<(Time, Duration)>,
}

/// What a hostile node does; none of them passes any frame on.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Says what is true, beside that it offers anything.
    Mute,
    /// Says that the encoder is away.
    NoSource,
    /// Says that it is fed by the publisher, and has what nobody has.
    Path,
    /// A supernode that says that it has room, refuses everybody, and refers to nobody
    /// who is there.
    Room,
    /// A supernode that keeps what it knows to itself, and tells of its like only.
    Eclipse,
}

pub(super) struct Net {
    pub(super) now: Time,
    nodes: Vec<Node>,
    queue: BTreeMap<(Time, u64), (usize, ConnId, Packet)>,
    dials: BTreeMap<(Time, u64), (usize, DialId, Target)>,
    count: u64,
    /// Bytes and packets of messages and heartbeats so far.
    said: (u64, u64),
    digest: [u8; 32],
    stream_key: SecretKey,
    paused: bool,
    /// Whether the nodes are at public addresses, each in a network of its own.
    public: bool,
    /// Nodes that nobody can connect to who was not called first.
    walled: BTreeSet<usize>,
    /// Of whom heartbeats do not get to whom.
    beats_lost: Vec<(usize, usize)>,
}

pub(super) fn address(node: usize) -> Address {
    Address(format!("127.0.0.1:{}", 1000 + node).parse().unwrap())
}

/// The first record of a live stream, of which nobody knows the rate.
fn live(publisher: NodeId, key: &SecretKey, name: &str) -> StreamRecord {
    StreamRecord {
        key: key.public(),
        seq: 1,
        name: name.into(),
        description: None,
        publisher,
        unlisted: None,
        epoch: 1,
        started_at_ms: 0,
        state: StreamState::Live,
        bitrate_bps: None,
        tracks: vec![],
        viewers: None,
    }
}

impl Net {
    /// `limits[i]` is the upload limit of node `i`, in copies of the stream.
    pub(super) fn new(limits: &[u64]) -> Self {
        let nodes = limits.iter().enumerate().map(|(i, copies)| {
            let key = SecretKey::from_seed([i as u8 + 1; 32]);
            let record = NodeRecord {
                key: key.public(),
                seq: 1,
                addresses: vec![address(i)],
                role: Role::Node,
                alias: None,
                name: None,
                software: None,
                public_http: None,
                removed: None,
                load: None,
            };
            let config = Config {
                id: NodeId::of(&key.public()),
                record: SignedNode::sign(record, &key),
                upload_limit_bps: Some(copies * charge(1_000_000)),
                contributes: true,
                seed: i as u64,
            };
            Node {
                overlay: Overlay::new(Time(0), config),
                key,
                alive: true,
                frozen: false,
                links: BTreeMap::new(),
                routes: BTreeMap::new(),
                expected: BTreeSet::new(),
                newest: BTreeMap::new(),
                left: false,
                changes: Vec::new(),
                served: Vec::new(),
                lie: None,
                paused_for: None,
                gap: None,
            }
        });
        Self {
            now: Time(0),
            nodes: nodes.collect(),
            queue: BTreeMap::new(),
            dials: BTreeMap::new(),
            count: 0,
            said: (0, 0),
            digest: [0; 32],
            stream_key: SecretKey::from_seed([99; 32]),
            paused: false,
            public: false,
            walled: BTreeSet::new(),
            beats_lost: Vec::new(),
        }
    }

    /// Nodes at public addresses: what is nobody's business on loopback counts there.
    fn public(limits: &[u64]) -> Self {
        let mut net = Self::new(limits);
        net.public = true;
        for node in 0..limits.len() {
            let record = net.nodes[node].overlay.record.value().clone();
            let record = NodeRecord {
                seq: record.seq + 1,
                addresses: vec![net.at(node)],
                ..record
            };
            let record = SignedNode::sign(record, &net.nodes[node].key);
            net.event(node, Event::Identity { record });
            let addresses = vec![net.at(node)];
            net.event(node, Event::Whereabouts { addresses });
        }
        net
    }

    fn at(&self, node: usize) -> Address {
        if self.public {
            Address(format!("198.51.{node}.1:8000").parse().unwrap())
        } else {
            address(node)
        }
    }

    pub(super) fn stream(&self) -> StreamId {
        StreamId::of(&self.stream_key.public())
    }

    pub(super) fn overlay(&mut self, node: usize) -> &mut Overlay {
        &mut self.nodes[node].overlay
    }

    pub(super) fn id(&self, node: usize) -> NodeId {
        self.nodes[node].overlay.id()
    }

    pub(super) fn event(&mut self, node: usize, event: Event) {
        if !self.nodes[node].alive {
            return;
        }
        let actions: Vec<Action> = self.nodes[node].overlay.handle(self.now, event).collect();
        self.apply(node, actions);
    }

    fn apply(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            let trace = format!("{:?} {node} {action:?}", self.now);
            self.digest = sha256(&[self.digest.as_slice(), trace.as_bytes()].concat());
            self.carry_out(node, action);
        }
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::Dial { dial, target } => {
                self.count += 1;
                self.dials
                    .insert((self.now.after(LATENCY), self.count), (node, dial, target));
            }
            Action::Send { conn, message } => {
                // What is said is what the wire can carry.
                let mut bytes = bytes::BytesMut::from(&message.encode()[..]);
                let message = Message::decode(&mut bytes).unwrap().unwrap();
                self.post(node, conn, Packet::Message(message));
            }
            Action::Confirm {
                conn,
                stream,
                confirm,
            } => {
                let have = Default::default();
                let message = TicketConfirm {
                    stream,
                    confirm,
                    have,
                }
                .into();
                self.post(node, conn, Packet::Message(message));
            }
            Action::Activate { conn, ticket, .. } => {
                let have = Default::default();
                let message = TicketActivate { id: ticket, have }.into();
                self.post(node, conn, Packet::Message(message));
            }
            Action::Beat { conn, beat } => self.post(node, conn, Packet::Beat(beat)),
            Action::Close { conn, code, .. } => {
                self.post(node, conn, Packet::Closed(Some(code)));
                self.nodes[node].links.remove(&conn);
                self.event(node, Event::Closed { conn, code: None });
            }
            Action::SetRoute {
                conn,
                ticket,
                stream,
                ..
            } => {
                self.nodes[node].routes.insert(ticket, (conn, stream));
            }
            Action::ClearRoute { ticket, .. } => {
                self.nodes[node].routes.remove(&ticket);
            }
            Action::Expect { conn, ticket, .. } => {
                self.nodes[node].expected.insert((conn, ticket));
            }
            Action::Unexpect { conn, ticket } => {
                self.nodes[node].expected.remove(&(conn, ticket));
            }
            Action::Sign(Description { role, load, .. }) => {
                let node_at = &self.nodes[node];
                let mut record = node_at.overlay.record.value().clone();
                (record.role, record.load, record.seq) = (role, load, record.seq + 1);
                if let (Some(Lie::Room), Some(load)) = (node_at.lie, &mut record.load) {
                    load.room = 1_000;
                }
                let record = SignedNode::sign(record, &node_at.key);
                self.event(node, Event::Identity { record });
            }
            Action::Serve { fetch, .. } => self.nodes[node].served.push(fetch),
            Action::Probe {
                conn,
                query,
                address,
                key,
            } => self.probe(node, conn, query, key, address),
            Action::Left => self.nodes[node].left = true,
            Action::Changed(change) => self.nodes[node].changes.push(change),
            Action::Open { .. } | Action::Drop { .. } => {}
        }
    }

    fn post(&mut self, from: usize, conn: ConnId, packet: Packet) {
        let Some(packet) = self.lied(from, packet) else {
            return;
        };
        let pause = self.nodes[from].paused_for;
        let pauses = pause.is_some_and(|(from, to)| (from..to).contains(&self.now));
        if pauses && !matches!(packet, Packet::Message(_)) {
            return;
        }
        let Some((to, there)) = self.nodes[from].links.get(&conn).copied() else {
            return;
        };
        if matches!(packet, Packet::Beat(_)) && self.beats_lost.contains(&(from, to)) {
            return;
        }
        let said = match &packet {
            Packet::Message(message) => Some(message.encode().len()),
            Packet::Beat(beat) => Some(beat.encode().len()),
            Packet::Closed(_) | Packet::Frame(..) => None,
        };
        if let Some(len) = said {
            self.said = (self.said.0 + len as u64, self.said.1 + 1);
        }
        self.count += 1;
        self.queue
            .insert((self.now.after(LATENCY), self.count), (to, there, packet));
    }

    fn connect(&mut self, from: usize, dial: DialId, target: &Target) {
        let to = (0..self.nodes.len()).find(|to| {
            target.addresses.contains(&self.at(*to).0.to_string())
                && target.node.is_none_or(|node| node == self.id(*to))
        });
        let open = |to: &usize| self.nodes[*to].alive && !self.walled.contains(to) && *to != from;
        let Some(to) = to.filter(open) else {
            return self.event(from, Event::DialFailed { dial });
        };
        self.count += 2;
        let (here, there) = (ConnId(self.count), ConnId(self.count + 1));
        self.nodes[from].links.insert(here, (to, there));
        self.nodes[to].links.insert(there, (from, here));
        let connected = |conn, key, remote, dial| Event::Connected {
            conn,
            key,
            remote,
            dial,
            rtt: 2 * LATENCY,
        };
        let (a, b) = (self.nodes[from].key.public(), self.nodes[to].key.public());
        let (at_from, at_to) = (self.at(from), self.at(to));
        self.event(from, connected(here, b, at_to, Some(dial)));
        self.event(to, connected(there, a, at_from, None));
    }

    /// Dials back from another port, and hangs up.
    fn probe(
        &mut self,
        from: usize,
        conn: ConnId,
        query: u64,
        key: crate::ids::PublicKey,
        at: Address,
    ) {
        let to = (0..self.nodes.len()).find(|to| self.at(*to) == at);
        let to = to.filter(|to| self.nodes[*to].alive && !self.walled.contains(to));
        let to = to.filter(|to| self.nodes[*to].key.public() == key);
        if let Some(to) = to {
            self.count += 1;
            let back = ConnId(self.count);
            let mut remote = self.at(from);
            remote.0.set_port(50_000);
            let connected = Event::Connected {
                conn: back,
                key: self.nodes[from].key.public(),
                remote,
                dial: None,
                rtt: 2 * LATENCY,
            };
            self.event(to, connected);
            let (conn, code) = (back, None);
            self.event(to, Event::Closed { conn, code });
        }
        let reachable = to.is_some();
        self.event(
            from,
            Event::Probed {
                conn,
                query,
                reachable,
            },
        );
    }

    /// Ends a process without a word; the others learn of it late, as by an idle timeout.
    fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        let mut next_frame = self.now.after(FRAME);
        while self.now < end {
            let timer = self
                .nodes
                .iter()
                .filter(|node| node.alive && !node.frozen)
                .filter_map(|node| node.overlay.poll_timeout())
                .map(|(at, _)| at)
                .min();
            let packet = self.queue.keys().next().map(|(at, _)| *at);
            let dial = self.dials.keys().next().map(|(at, _)| *at);
            let next = [timer, packet, dial, Some(next_frame), Some(end)];
            self.now = next.into_iter().flatten().min().unwrap().max(self.now);
            self.step();
            if self.now >= next_frame {
                self.publish_frame();
                next_frame = self.now.after(FRAME);
            }
        }
    }

    fn step(&mut self) {
        while let Some(key) = self
            .dials
            .keys()
            .next()
            .copied()
            .filter(|(at, _)| *at <= self.now)
        {
            let (node, dial, target) = self.dials.remove(&key).unwrap();
            self.connect(node, dial, &target);
        }
        while let Some(key) = self
            .queue
            .keys()
            .next()
            .copied()
            .filter(|(at, _)| *at <= self.now)
        {
            let (node, conn, packet) = self.queue.remove(&key).unwrap();
            if self.nodes[node].alive && !self.nodes[node].frozen {
                self.deliver(node, conn, packet);
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].alive && !self.nodes[node].frozen {
                let now = self.now;
                let actions: Vec<Action> = self.nodes[node].overlay.handle_timeout(now).collect();
                self.apply(node, actions);
            }
        }
    }

    fn deliver(&mut self, node: usize, conn: ConnId, packet: Packet) {
        if !self.nodes[node].links.contains_key(&conn) {
            return;
        }
        match packet {
            Packet::Message(message) => self.event(node, Event::Received { conn, message }),
            Packet::Beat(beat) => self.event(node, Event::Beat { conn, beat }),
            Packet::Closed(code) => {
                self.nodes[node].links.remove(&conn);
                self.event(node, Event::Closed { conn, code });
            }
            Packet::Frame(stream, frame) => {
                let mut under = self.nodes[node].expected.iter();
                let Some((_, ticket)) = under.find(|(c, _)| *c == conn).copied() else {
                    return;
                };
                self.frame(node, stream, frame);
                let level = self.nodes[node].newest[&stream] == frame;
                let came = Event::Came {
                    conn,
                    ticket,
                    level,
                };
                self.event(node, came);
            }
        }
    }

    fn publish_frame(&mut self) {
        let stream = self.stream();
        if self.nodes[0].alive && !self.nodes[0].frozen && !self.paused {
            let frame = self.nodes[0].newest.get(&stream).copied().unwrap_or(0) + 1;
            self.frame(0, stream, frame);
        }
    }

    fn frame(&mut self, node: usize, stream: StreamId, frame: u32) {
        let newest = self.nodes[node].newest.entry(stream).or_default();
        if frame <= *newest {
            return;
        }
        *newest = frame;
        let now = self.now;
        if let Some((last, longest)) = &mut self.nodes[node].gap {
            *longest = (*longest).max(now.since(*last));
            *last = now;
        }
        let progress = Progress {
            epoch: 1,
            newest: (u64::from(frame), 1),
            peak_bps: 1_000_000,
            last: self.now,
            gap: FRAME,
            lost: 0,
        };
        self.event(node, Event::Progress { stream, progress });
        let routes: Vec<ConnId> = self.nodes[node]
            .routes
            .values()
            .map(|(conn, _)| *conn)
            .collect();
        for conn in routes {
            self.post(node, conn, Packet::Frame(stream, frame));
        }
    }

    // What tests say

    pub(super) fn bootstrap(&mut self, node: usize, to: usize) {
        let addresses = vec![address(to).0.to_string()];
        self.event(
            node,
            Event::Bootstrap {
                target: Target {
                    node: None,
                    addresses,
                },
            },
        );
    }

    fn publish(&mut self) {
        let record = StreamRecord {
            bitrate_bps: Some(1_000_000),
            ..live(self.id(0), &self.stream_key, "Show")
        };
        let record = SignedStream::sign(record, &self.stream_key);
        self.event(
            0,
            Event::Publish {
                record,
                supply: Supply::Ok,
            },
        );
    }

    fn watch(&mut self, node: usize) {
        let stream = self.stream();
        self.event(
            node,
            Event::Want {
                stream,
                why: Why::Watch,
            },
        );
    }

    fn parent(&self, node: usize) -> Option<NodeId> {
        let view = self.nodes[node]
            .overlay
            .stream_view(self.now, self.stream())?;
        view.intake?.parent.map(|(node, _)| node)
    }

    fn newest(&self, node: usize) -> u32 {
        self.nodes[node]
            .newest
            .get(&self.stream())
            .copied()
            .unwrap_or(0)
    }

    fn watch_gap(&mut self, node: usize) {
        self.nodes[node].gap = Some((self.now, Duration::ZERO));
    }

    /// The longest time without a new frame since [`Net::watch_gap`].
    fn gap(&self, node: usize) -> Duration {
        let (last, longest) = self.nodes[node].gap.unwrap();
        longest.max(self.now.since(last))
    }

    /// No promise beyond the limit, no node in its own path, and frames arrive.
    fn check(&self, watchers: &[usize]) {
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
            let limit = node.overlay.budget.limit_bps.unwrap();
            assert!(
                node.overlay.promised_bps() <= limit,
                "node {i} promised too much"
            );
        }
        for &i in watchers {
            assert!(
                self.parent(i).is_some(),
                "node {i} has no parent: {:?}",
                self.nodes[i].changes
            );
            let behind = self.newest(0) - self.newest(i);
            assert!(behind <= 12, "node {i} is {behind} frames behind");
            let view = self.nodes[i]
                .overlay
                .stream_view(self.now, self.stream())
                .unwrap();
            let path = view.intake.unwrap().path;
            assert_eq!(
                path.iter().collect::<BTreeSet<_>>().len(),
                path.len(),
                "loop at {i}"
            );
        }
    }
}

/// A publisher (node 0) that everybody knows, and watchers.
fn star(limits: &[u64]) -> Net {
    let mut net = Net::new(limits);
    for node in 1..limits.len() {
        net.bootstrap(node, 0);
    }
    net.run(Duration::from_secs(1));
    net.publish();
    net.run(Duration::from_millis(200));
    net
}

#[test]
fn second_viewer_is_referred_to_the_first_when_the_publisher_has_room_for_one() {
    let mut net = star(&[1, 1, 1]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    net.watch(2);
    net.run(Duration::from_secs(2));
    net.check(&[1, 2]);
    assert_eq!(net.parent(1), Some(net.id(0)));
    assert_eq!(net.parent(2), Some(net.id(1)));
    assert_eq!(net.nodes[0].overlay.children(), 1);
}

#[test]
fn connection_is_kept_while_an_answer_is_awaited_over_it() {
    let mut net = star(&[1; 14]);
    for node in 2..14 {
        let dial = peers::Dial {
            node: None,
            bootstrap: None,
            supernode: false,
        };
        let addresses = vec![address(node).0.to_string()];
        let target = Target {
            node: None,
            addresses,
        };
        net.overlay(1).dial(dial, target);
    }
    // So that what was to be done is done.
    net.event(1, Event::Limit { bps: None });
    net.run(Duration::from_secs(5));
    let later = net.now.after(Duration::from_secs(10));
    let kept = |net: &Net| {
        let overlay = &net.nodes[1].overlay;
        let conns = overlay.peers.keys();
        conns
            .filter(|conn| !overlay.is_superfluous(later, **conn))
            .count()
    };
    assert_eq!(kept(&net), 1, "the publisher, as a bootstrap node");
    net.watch(1);
    assert_eq!(kept(&net), crate::limits::ASKED_AT_ONCE);
    net.run(Duration::from_secs(3));
    assert_eq!(net.parent(1), Some(net.id(0)));
}

#[test]
fn renewed_record_is_not_told_to_those_who_told_of_it() {
    let mut net = star(&[4, 4, 4]);
    net.bootstrap(1, 2);
    net.run(Duration::from_secs(2));
    let key = SecretKey::from_seed([99; 32]);
    let mut record = net.nodes[1]
        .overlay
        .record_of(net.stream())
        .unwrap()
        .value()
        .clone();
    // Hears the news from some, and says to how many others it passes them on.
    let mut hear = |from: &[usize]| {
        record.seq += 1;
        let record = SignedStream::sign(record.clone(), &key);
        let records = vec![crate::wire::control::RecordBytes(record.wire().clone())];
        let ids: Vec<NodeId> = from.iter().map(|node| net.id(*node)).collect();
        let now = net.now;
        let overlay = net.overlay(1);
        for id in ids {
            let conn = overlay.by_node[&id];
            let message = crate::wire::control::Announce {
                records: records.clone(),
            }
            .into();
            let said = overlay.handle(now, Event::Received { conn, message });
            assert_eq!(said.filter(is_announce).count(), 0, "it waits for others");
        }
        let later = (1..=10).map(|tenth| now.after(Duration::from_millis(100) * tenth));
        later
            .flat_map(|at| overlay.handle_timeout(at))
            .filter(is_announce)
            .count()
    };
    assert_eq!(hear(&[0]), 1);
    assert_eq!(hear(&[0, 2]), 0);
}

fn is_announce(action: &Action) -> bool {
    matches!(
        action,
        Action::Send {
            message: Message::Announce(_),
            ..
        }
    )
}

#[test]
fn refusal_says_why_when_there_is_no_other_place() {
    let mut net = star(&[1, 0, 0]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    net.watch(2);
    net.run(Duration::from_secs(2));
    assert_eq!(net.parent(2), None);
    let refused = |change: &Change| {
        matches!(
            change,
            Change::NoRoom(_, Reason::Full | Reason::NotForwarding)
        )
    };
    assert!(
        net.nodes[2].changes.iter().any(refused),
        "{:?}",
        net.nodes[2].changes
    );
    // The place that comes free is found without being told.
    let stream = net.stream();
    net.event(
        1,
        Event::Unwant {
            stream,
            why: Some(Why::Watch),
        },
    );
    net.run(Duration::from_secs(3));
    net.check(&[2]);
}

#[test]
fn chain_of_eight_carries_the_stream() {
    let mut net = star(&[1; 9]);
    for node in 1..9 {
        net.watch(node);
        net.run(Duration::from_secs(4));
    }
    net.check(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let deepest = net.nodes.iter().filter_map(|node| {
        let view = node.overlay.stream_view(net.now, net.stream())?;
        Some(view.intake?.path.len())
    });
    assert_eq!(deepest.max(), Some(9));
}

#[test]
fn killed_parent_is_noticed_by_missed_heartbeats_and_replaced() {
    let mut net = star(&[1, 3, 1, 1]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    net.watch(2);
    net.watch(3);
    net.run(Duration::from_secs(2));
    net.check(&[1, 2, 3]);
    net.kill(1);
    net.run(Duration::from_secs(4));
    net.check(&[2, 3]);
    assert!(net.nodes[0].overlay.children() == 1);
}

/// Node 2 hears of everything from node 1 only, as a viewer does whose `--peer` is a relay.
fn row() -> Net {
    let mut net = Net::new(&[1, 1, 0]);
    net.bootstrap(1, 0);
    net.bootstrap(2, 1);
    net.run(Duration::from_secs(1));
    net.publish();
    net.run(Duration::from_millis(200));
    net.watch(1);
    net.run(Duration::from_secs(1));
    net.watch(2);
    net.run(Duration::from_secs(1));
    assert_eq!(net.parent(2), Some(net.id(1)));
    net.event(
        0,
        Event::Limit {
            bps: Some(2 * charge(1_000_000)),
        },
    );
    net
}

#[test]
fn publisher_is_found_when_the_only_peer_is_killed() {
    let mut net = row();
    net.kill(1);
    net.run(Duration::from_secs(5));
    assert_eq!(net.parent(2), Some(net.id(0)));
    net.check(&[2]);
}

#[test]
fn referrals_of_a_leaving_parent_are_followed() {
    let mut net = row();
    net.event(1, Event::Leave);
    net.run(Duration::from_secs(1));
    assert!(net.nodes[1].left, "its only child has moved");
    assert_eq!(net.parent(2), Some(net.id(0)));
    net.check(&[2]);
}

#[test]
fn frozen_parent_is_left_and_waking_up_late_blames_nobody() {
    let mut net = star(&[2, 1, 1]);
    net.watch(1);
    net.watch(2);
    net.run(Duration::from_secs(1));
    net.nodes[0].frozen = true;
    net.run(Duration::from_secs(3));
    // Its children may turn to each other for a moment, in vain.
    assert_ne!(net.parent(1), Some(net.id(0)));
    net.nodes[0].frozen = false;
    net.run(Duration::from_secs(5));
    net.check(&[1, 2]);
}

#[test]
fn leaving_node_is_served_from_until_its_children_have_moved() {
    let mut net = star(&[2, 2, 1]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    let stream = net.stream();
    // Node 2 is fed by node 1, since the publisher is full meanwhile.
    net.event(
        0,
        Event::Limit {
            bps: Some(charge(1_000_000)),
        },
    );
    net.watch(2);
    net.run(Duration::from_secs(2));
    assert_eq!(net.parent(2), Some(net.id(1)));
    net.event(
        0,
        Event::Limit {
            bps: Some(2 * charge(1_000_000)),
        },
    );
    net.event(1, Event::Leave);
    net.run(Duration::from_secs(1));
    assert!(net.nodes[1].left, "its only child has moved");
    net.check(&[2]);
    assert_eq!(net.parent(2), Some(net.id(0)));
    let view = net.nodes[2].overlay.stream_view(net.now, stream).unwrap();
    assert!(view.intake.unwrap().parent.is_some());
}

#[test]
fn silent_encoder_moves_nobody() {
    let mut net = star(&[1, 1, 1]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    net.watch(2);
    net.run(Duration::from_secs(1));
    let stream = net.stream();
    net.paused = true;
    net.event(
        0,
        Event::Supply {
            stream,
            supply: Supply::NoSource,
        },
    );
    net.run(Duration::from_secs(10));
    assert_eq!(net.parent(1), Some(net.id(0)));
    assert_eq!(net.parent(2), Some(net.id(1)));
    net.paused = false;
    net.event(
        0,
        Event::Supply {
            stream,
            supply: Supply::Ok,
        },
    );
    net.run(Duration::from_secs(1));
    net.check(&[1, 2]);
}

#[test]
fn peer_that_sent_bad_bytes_is_closed_and_not_asked_again() {
    let mut net = star(&[2, 2, 1]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    let stream = net.stream();
    let conn = *net.nodes[1].links.keys().next().unwrap();
    net.event(1, Event::BadMedia { conn, stream });
    net.run(Duration::from_secs(5));
    assert_eq!(net.parent(1), None);
    assert!(!net.nodes[1].overlay.by_node.contains_key(&net.id(0)));
}

#[test]
fn crossing_dials_end_as_one_connection() {
    let mut net = Net::new(&[1, 1]);
    net.bootstrap(0, 1);
    net.bootstrap(1, 0);
    net.run(Duration::from_secs(3));
    assert_eq!(net.nodes[0].overlay.peers.len(), 1);
    assert_eq!(net.nodes[1].overlay.peers.len(), 1);
    assert_eq!(net.nodes[0].links.len(), 1);
}

#[test]
fn unlisted_stream_is_found_by_its_id_only() {
    let mut net = Net::new(&[1, 1]);
    net.bootstrap(1, 0);
    net.run(Duration::from_secs(1));
    net.publish();
    let mut record = net.nodes[0]
        .overlay
        .record_of(net.stream())
        .unwrap()
        .value()
        .clone();
    record.seq = 2;
    record.unlisted = Some(true);
    record.key = SecretKey::from_seed([98; 32]).public();
    let hidden = SignedStream::sign(record, &SecretKey::from_seed([98; 32]));
    let id = hidden.value().id();
    net.event(
        0,
        Event::Publish {
            record: hidden,
            supply: Supply::Ok,
        },
    );
    net.event(
        1,
        Event::Find {
            id: None,
            slug: Some("show".into()),
        },
    );
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[1].overlay.streams_view(net.now).len(), 1);
    net.event(
        1,
        Event::Find {
            id: Some(id),
            slug: None,
        },
    );
    net.run(Duration::from_secs(1));
    assert_eq!(
        net.nodes[1].overlay.resolve(net.now, &id.to_string()),
        Resolved::One(id)
    );
    assert_eq!(net.nodes[1].overlay.streams_view(net.now).len(), 1);
}

fn churn(seed: u64) -> ([u8; 32], Net) {
    let mut random = Random::new(seed);
    let limits: Vec<u64> = (0..20)
        .map(|i| if i == 0 { 3 } else { random.next() % 4 })
        .collect();
    let mut net = star(&limits);
    for node in 1..20 {
        net.watch(node);
        net.run(Duration::from_millis(100));
    }
    for _ in 0..6 {
        let victim = 1 + random.next() as usize % 19;
        net.kill(victim);
        net.run(Duration::from_millis(random.next() % 2_000));
        net.check(&[]);
    }
    net.run(Duration::from_secs(10));
    (net.digest, net)
}

#[test]
fn survivors_are_served_after_churn_as_far_as_there_is_upload() {
    let first = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    for seed in first.map_or(0..12, |seed| seed..seed + 1) {
        let (_, net) = churn(seed);
        let alive: Vec<usize> = (1..20).filter(|i| net.nodes[*i].alive).collect();
        let served = alive.iter().filter(|i| net.parent(**i).is_some()).count();
        let places: u64 = std::iter::once(&0)
            .chain(alive.iter().filter(|i| net.parent(**i).is_some()))
            .map(|i| net.nodes[*i].overlay.budget.limit_bps.unwrap() / charge(1_000_000))
            .sum();
        let want = alive.len().min(places as usize);
        assert!(served >= want, "SEED={seed}: {served} of {want} served");
        net.check(&[]);
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    assert_eq!(churn(7).0, churn(7).0);
}

fn ticket_of(net: &Net, node: usize) -> TicketId {
    let view = net.nodes[node].overlay.stream_view(net.now, net.stream());
    let (_, ticket) = view.unwrap().intake.unwrap().parent.unwrap();
    ticket
}

#[test]
fn children_of_a_relay_that_cannot_repair_its_supply_move() {
    let mut net = star(&[1, 2, 1]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    net.watch(2);
    net.run(Duration::from_secs(1));
    assert_eq!(net.parent(2), Some(net.id(1)));
    // The publisher takes the relay's ticket back, and has room for another.
    let ticket = ticket_of(&net, 1);
    net.event(0, Event::Revoke { ticket });
    net.run(Duration::from_secs(3));
    net.check(&[2]);
    assert_eq!(net.parent(2), Some(net.id(0)));
}

#[test]
fn parent_that_begins_with_the_next_keyframe_is_waited_for() {
    let mut net = star(&[1, 1]);
    net.watch(1);
    net.run(Duration::from_secs(1));
    // It holds ever more, and sends nothing until its next group.
    let ticket = ticket_of(&net, 1);
    net.nodes[1].newest.clear();
    let (conn, stream) = net.nodes[0].routes.remove(&ticket).unwrap();
    net.nodes[1]
        .overlay
        .streams
        .get_mut(&stream)
        .unwrap()
        .parent
        .as_mut()
        .unwrap()
        .begun = false;
    net.run(Duration::from_secs(8));
    assert_eq!(net.nodes[1].overlay.streams[&stream].switches, 0);
    net.nodes[0].routes.insert(ticket, (conn, stream));
    net.run(Duration::from_secs(1));
    net.check(&[1]);
    // One that never sends is left.
    net.nodes[0].routes.clear();
    net.run(Duration::from_secs(13));
    assert!(net.nodes[1].overlay.streams[&stream].switches > 0);
}

#[test]
fn only_parent_is_kept_over_a_narrow_link_and_left_if_it_never_sends() {
    let mut net = star(&[1, 0]);
    net.watch(1);
    net.run(Duration::from_secs(2));
    let ticket = ticket_of(&net, 1);
    let route = net.nodes[0].routes.remove(&ticket).expect("it is fed");
    net.run(Duration::from_secs(3));
    net.nodes[0].routes.insert(ticket, route);
    net.run(Duration::from_secs(1));
    net.check(&[1]);
    assert_eq!(net.nodes[1].overlay.streams[&net.stream()].switches, 0);
    assert_eq!(ticket_of(&net, 1), ticket);
    net.nodes[0].routes.clear();
    net.run(Duration::from_secs(7));
    assert!(net.nodes[1].overlay.streams[&net.stream()].switches > 0);
}

#[test]
fn nothing_is_left_behind_when_nobody_wants_the_stream() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut net = star(&[2, 2, 2, 2]);
        for _ in 0..30 {
            let node = 1 + random.next() as usize % 3;
            let stream = net.stream();
            let event = match random.next() % 4 {
                0 | 1 => Event::Want {
                    stream,
                    why: Why::Watch,
                },
                2 => Event::Unwant {
                    stream,
                    why: Some(Why::Watch),
                },
                _ => Event::Unwant { stream, why: None },
            };
            net.event(node, event);
            net.run(Duration::from_millis(random.next() % 300));
        }
        let stream = net.stream();
        for node in 1..4 {
            net.event(node, Event::Unwant { stream, why: None });
        }
        net.run(Duration::from_secs(3));
        for (i, node) in net.nodes.iter().enumerate() {
            assert_eq!(node.overlay.promised_bps(), 0, "seed {seed} node {i}");
            assert!(
                node.overlay.feeds.is_empty() && node.routes.is_empty(),
                "seed {seed} {i}"
            );
            assert!(
                i == 0 || node.overlay.streams.is_empty(),
                "seed {seed} node {i}"
            );
            assert!(node.expected.is_empty(), "seed {seed} node {i}");
        }
    }
}

#[test]
fn news_of_many_streams_do_not_flood_a_peer() {
    let mut net = Net::new(&[1, 1, 1]);
    net.bootstrap(1, 0);
    net.bootstrap(2, 1);
    net.run(Duration::from_secs(1));
    let records: Vec<SignedStream> = (0..300u32)
        .map(|i| {
            let mut seed = [7; 32];
            seed[..4].copy_from_slice(&i.to_be_bytes());
            let key = SecretKey::from_seed(seed);
            let record = live(net.id(0), &key, &format!("Show {i}"));
            SignedStream::sign(record, &key)
        })
        .collect();
    let before = net.count;
    for record in records {
        net.event(
            0,
            Event::Publish {
                record,
                supply: Supply::Ok,
            },
        );
    }
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[2].overlay.streams_view(net.now).len(), 300);
    assert!(net.count - before < 100, "{} packets", net.count - before);
}
