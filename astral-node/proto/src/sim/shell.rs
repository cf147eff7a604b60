//! The shell around each overlay: its actions carried out, its events brought to it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::link::{End, HANDSHAKE, IDLE};
use super::node::{Held, Intake, Route, Store, address_of, index_of, record_of};
use super::{Broken, Happening, Sim};
use crate::ids::{NodeId, PublicKey, StreamId};
use crate::limits::CONNECTIONS_MAX;
use crate::overlay::{Action, Change, ConnId, Description, DialId, Event, Target, Time};
use crate::record::{Address, SignedStream};
use crate::wire::CloseCode;
use crate::wire::control::{Confirm, Have, Message, TicketActivate, TicketConfirm};
use crate::wire::heartbeat::Heartbeat;

/// IP, UDP and QUIC around a datagram: 20 + 8 + some 30 bytes.
const PACKET_OVERHEAD: usize = 58;
/// For how long a firewall takes packets for replies to one that was sent (Linux's connection
/// tracking, UDP that was not answered).
const REPLIES_FOR: Duration = Duration::from_secs(30);
/// How often a driver tells the overlay how far its stores are.
const TICK: Duration = Duration::from_millis(100);

impl Sim {
    // Events

    /// Brings an event to a node's overlay, and does what it says.
    pub(super) fn event(&mut self, index: u32, event: Event) {
        let now = self.now;
        let broken = self.broken;
        let node = &mut self.nodes[index as usize];
        let Some(overlay) = node.overlay.as_mut() else {
            return;
        };
        if self.trace.contains(&index) && !matches!(event, Event::Progress { .. }) {
            eprintln!("{:>10} {index:>6} ◄ {event:?}", now.0);
        }
        let event = match broken {
            Some(broken) => broken.event(event),
            None => event,
        };
        let actions = overlay.handle(now, event);
        for action in actions {
            self.carry_out(index, action);
        }
        self.set_alarm(index);
    }

    pub(super) fn wake(&mut self, index: u32) {
        let now = self.now;
        if self.nodes[index as usize].wake != now {
            return;
        }
        // The timers that are due now expire below: until then nobody sets the alarm for them.
        self.refresh(index);
        self.nodes[index as usize].wake = Time(u64::MAX);
        let Some(overlay) = self.nodes[index as usize].overlay.as_mut() else {
            return;
        };
        let actions = overlay.handle_timeout(now);
        for action in actions {
            self.carry_out(index, action);
        }
        self.set_alarm(index);
    }

    /// Has the node woken when its next timer is due.
    fn set_alarm(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let next = node.overlay.as_ref().and_then(|o| o.poll_timeout());
        if let Some((at, _)) = next.filter(|(at, _)| *at < node.wake) {
            let at = at.max(self.now);
            node.wake = at;
            self.queue.push(at, Happening::Wake(index));
        }
    }

    /// Tells the overlay how far the stores are.
    pub(super) fn refresh(&mut self, index: u32) {
        for at in 0..self.nodes[index as usize].stores.len() {
            let store = &self.nodes[index as usize].stores[at];
            let source = &self.sources[store.stream as usize];
            let progress = match &store.media {
                Held::Flow(flow) => flow.progress(self.now, &source.programme),
                Held::Exact(exact) => exact.progress(self.now, &source.programme),
            };
            let stream = source.id;
            if let Some(progress) = progress {
                self.event(index, Event::Progress { stream, progress });
            }
        }
    }

    pub(super) fn tick(&mut self, index: u32) {
        if !self.nodes[index as usize].is_alive() {
            return;
        }
        self.refresh(index);
        if self.is_exact() {
            self.queue
                .push(self.now.after(TICK), Happening::Tick(index));
        }
    }

    // Connections

    fn dial(&mut self, from: u32, dial: DialId, target: &Target) {
        let to = target.addresses.iter().find_map(|at| index_of(at));
        let to = to.filter(|to| (*to as usize) < self.nodes.len() && *to != from);
        if let Some(to) = to {
            self.open_wall(from, to);
        }
        let reached = to.filter(|to| self.gets_through(from, *to));
        match reached {
            Some(to) => {
                let takes = self.distance(from, to) * 2;
                let happening = Happening::Handshake { from, to, dial };
                self.queue.push(self.now.after(takes), happening);
            }
            None => {
                let happening = Happening::DialFailed { node: from, dial };
                self.queue.push(self.now.after(HANDSHAKE), happening);
            }
        }
    }

    /// Whether a packet of a stranger arrives.
    fn reaches(&self, from: u32, to: u32) -> bool {
        let (a, b) = (&self.nodes[from as usize], &self.nodes[to as usize]);
        b.is_alive() && !b.firewalled && a.apart == b.apart
    }

    /// Whether a dial does: a firewall takes packets from where something was sent for replies.
    fn gets_through(&self, from: u32, to: u32) -> bool {
        let (a, b) = (&self.nodes[from as usize], &self.nodes[to as usize]);
        let asked = |(whom, until): &(u32, Time)| *whom == from && *until > self.now;
        let lets_in = !b.firewalled || b.dialled.iter().any(asked);
        b.is_alive() && lets_in && a.apart == b.apart
    }

    /// A node dials another, and its firewall takes what comes from there for replies.
    fn open_wall(&mut self, from: u32, to: u32) {
        let now = self.now;
        let node = &mut self.nodes[from as usize];
        if node.firewalled {
            node.dialled
                .retain(|(whom, until)| *whom != to && *until > now);
            node.dialled.push((to, now.after(REPLIES_FOR)));
        }
    }

    fn distance(&self, a: u32, b: u32) -> Duration {
        let [a, b] = [a, b].map(|index| self.nodes[index as usize].spot);
        a.latency_to(b, &self.scenario.network)
    }

    pub(super) fn handshake(&mut self, from: u32, to: u32, dial: DialId) {
        let full = self.nodes[to as usize].ends.len() >= CONNECTIONS_MAX;
        if !self.gets_through(from, to) || full || !self.nodes[from as usize].is_alive() {
            return self.event(from, Event::DialFailed { dial });
        }
        let latency = self.distance(from, to);
        let end = self.links.add(self.now, [from, to], latency);
        self.nodes[from as usize].ends.push(end);
        self.nodes[to as usize].ends.push(end.other());
        let there = self.now.after(latency);
        if let Some(link) = self.links.at_mut(end) {
            link.in_order(end.other(), there);
        }
        self.queue.push(there, Happening::Accepted(end.other()));
        self.connected(end, to, Some(dial), latency);
    }

    pub(super) fn accepted(&mut self, end: End) {
        let Some(link) = self.links.at(end) else {
            return;
        };
        let ([from, _], latency) = (link.nodes(), link.latency());
        self.connected(end, from, None, latency);
    }

    fn connected(&mut self, end: End, peer: u32, dial: Option<DialId>, latency: Duration) {
        let Some(index) = self.links.node(end) else {
            return;
        };
        let event = Event::Connected {
            conn: end.conn(),
            key: self.nodes[peer as usize].key,
            remote: address_of(peer),
            dial,
            rtt: 2 * latency,
        };
        self.event(index, event);
    }

    /// A connection is gone at one end.
    pub(super) fn closed(&mut self, end: End, code: Option<CloseCode>) {
        let Some(index) = self.links.node(end) else {
            return;
        };
        if !self.links.drop_end(end) {
            return;
        }
        let conn = end.conn();
        self.forget_end(index, end);
        self.event(index, Event::Closed { conn, code });
    }

    /// Takes a connection out of a node's tables; what the overlay still has set ends
    /// with its own actions.
    fn forget_end(&mut self, index: u32, end: End) {
        self.nodes[index as usize]
            .ends
            .retain(|known| *known != end);
    }

    /// A node closes a connection.
    fn close(&mut self, end: End, code: CloseCode) {
        let Some(link) = self.links.at_mut(end) else {
            return;
        };
        let at = link.in_order(end.other(), self.now.after(link.latency()));
        self.queue
            .push(at, Happening::Closed(end.other(), Some(code)));
        self.queue.push(self.now, Happening::Closed(end, None));
    }

    /// A node is gone: with a word to everybody, or without one.
    pub(super) fn gone(&mut self, index: u32, abrupt: bool) {
        self.settle(index);
        self.stop_all(index);
        self.unlist(index);
        let node = &mut self.nodes[index as usize];
        node.overlay = None;
        let ends = std::mem::take(&mut node.ends);
        node.routes = Vec::new();
        node.intakes = Vec::new();
        node.stores = Vec::new();
        node.uplink = None;
        for end in ends {
            let latency = self.links.at(end).map_or(Duration::ZERO, |l| l.latency());
            let (wait, code) = match abrupt {
                true => (IDLE, None),
                false => (latency, Some(CloseCode::Leaving)),
            };
            let mut at = self.now.after(wait);
            if let Some(link) = self.links.at_mut(end) {
                at = link.in_order(end.other(), at);
            }
            self.links.drop_end(end);
            self.queue.push(at, Happening::Closed(end.other(), code));
        }
    }

    // Messages

    fn send(&mut self, index: u32, end: End, mut message: Message) {
        if let Some(lie) = self.nodes[index as usize].lie {
            let publisher = self.sources[0].publisher;
            lie.message(self.nodes[index as usize].id, publisher, &mut message);
        }
        let bytes = message.encode();
        let Some(link) = self.links.at_mut(end) else {
            return;
        };
        let packets = bytes.len().div_ceil(1_200) as u32;
        let takes = link.reliable(&self.scenario.network, &mut self.network, packets);
        let at = link.in_order(end.other(), self.now.after(takes));
        let cut = link.cut;
        let size = bytes.len() + PACKET_OVERHEAD * packets as usize;
        self.spend(index, message.name(), size);
        if cut {
            return self.held.push((end.other(), bytes));
        }
        self.queue.push(at, Happening::Message(end.other(), bytes));
    }

    pub(super) fn message_arrives(&mut self, end: End, bytes: Bytes) {
        let Some(link) = self.links.at(end) else {
            return;
        };
        if link.cut {
            return self.held.push((end, bytes));
        }
        let Some(index) = self.links.node(end) else {
            return;
        };
        self.note(index, 1, &bytes);
        let mut buffer = BytesMut::from(&bytes[..]);
        match Message::decode(&mut buffer) {
            Ok(Some(message)) => {
                let conn = end.conn();
                self.event(index, Event::Received { conn, message });
            }
            Ok(None) => {}
            Err(error) => {
                let what = format!("a message that cannot be read: {error}");
                self.checks.report(self.now, "codec", index, what);
            }
        }
    }

    fn beat(&mut self, index: u32, end: End, mut beat: Heartbeat) {
        if let Some(lie) = self.nodes[index as usize].lie {
            lie.beat(&mut beat);
        }
        let bytes = beat.encode();
        let Some(link) = self.links.at(end) else {
            return;
        };
        let cut = link.cut;
        let takes = link.datagram(&self.scenario.network, &mut self.network);
        self.spend(index, "Heartbeat", bytes.len() + PACKET_OVERHEAD);
        if let Some(takes) = takes.filter(|_| !cut) {
            let at = self.now.after(takes);
            self.queue.push(at, Happening::Beat(end.other(), bytes));
        }
    }

    pub(super) fn beat_arrives(&mut self, end: End, bytes: &[u8]) {
        let now = self.now;
        let Some(link) = self.links.at_mut(end) else {
            return;
        };
        if link.cut {
            return;
        }
        link.hear(end, now);
        let Some(index) = self.links.node(end) else {
            return;
        };
        self.note(index, 2, bytes);
        match Heartbeat::decode(bytes) {
            Ok(Some(beat)) => {
                let conn = end.conn();
                self.event(index, Event::Beat { conn, beat });
            }
            Ok(None) => {}
            Err(error) => {
                let what = format!("a heartbeat that cannot be read: {error}");
                self.checks.report(self.now, "codec", index, what);
            }
        }
    }

    /// Counts bytes that are not video, and the time they take at the uplink.
    fn spend(&mut self, index: u32, what: &'static str, bytes: usize) {
        *self.tally.said.entry(what).or_default() += bytes as u64;
        let node = &mut self.nodes[index as usize];
        node.control_bytes += bytes as u64;
        if let Some(uplink) = node.uplink.as_mut() {
            uplink.charge(self.now, bytes);
        }
    }

    // Actions

    fn carry_out(&mut self, index: u32, action: Action) {
        if self.trace.contains(&index) {
            eprintln!("{:>10} {index:>6} ► {action:?}", self.now.0);
        }
        let Some(action) = self.as_broken(index, action) else {
            return;
        };
        match action {
            Action::Dial { dial, target } => self.dial(index, dial, &target),
            Action::Send { conn, message } => self.send(index, End::of(conn), message),
            Action::Confirm {
                conn,
                stream,
                confirm,
            } => self.confirm(index, End::of(conn), stream, confirm),
            Action::Activate {
                conn,
                ticket,
                stream,
            } => {
                let have = self.have_of(index, stream);
                let message = TicketActivate { id: ticket, have }.into();
                self.send(index, End::of(conn), message);
            }
            Action::Beat { conn, beat } => self.beat(index, End::of(conn), beat),
            Action::Close { conn, code, .. } => self.close(End::of(conn), code),
            Action::Open { record } => self.open(index, &record),
            Action::Drop { stream } => self.drop_store(index, stream),
            Action::SetRoute {
                conn,
                ticket,
                stream,
                have,
            } => {
                if let Some(stream) = self.stream_index(stream) {
                    let route = Route {
                        end: End::of(conn),
                        ticket,
                        stream,
                        have,
                        set: self.now,
                        start: None,
                        runs: None,
                    };
                    self.set_route(index, route);
                }
            }
            // No store here tells of holes (`Event::Missing`), so that nobody fetches.
            Action::Serve { .. } => {}
            Action::ClearRoute { conn, ticket } => self.clear_route(index, End::of(conn), ticket),
            Action::Expect {
                conn,
                ticket,
                stream,
            } => {
                if let Some(stream) = self.stream_index(stream) {
                    self.expect(index, conn, ticket, stream);
                }
            }
            Action::Unexpect { conn, ticket } => {
                let node = &mut self.nodes[index as usize];
                node.intakes
                    .retain(|intake| (intake.end, intake.ticket) != (End::of(conn), ticket));
                self.reflow(index, 1.0);
            }
            Action::Changed(change) => self.changed(index, &change),
            Action::Sign(said) => self.sign(index, said),
            Action::Probe {
                conn,
                query,
                key,
                address,
            } => self.probe(index, (conn, query), key, address),
            Action::Left => self.gone(index, false),
        }
    }

    /// A node says something else of itself from now on.
    fn sign(&mut self, index: u32, said: Description) {
        let node = &mut self.nodes[index as usize];
        let was = node.role();
        node.said = Some(Box::new(said));
        node.seq += 1;
        let record = record_of(index, node.seq, node.said.as_deref());
        let role = node.role();
        self.event(index, Event::Identity { record });
        if role != was {
            self.unlist(index);
            self.list(index);
        }
    }

    /// Dials back for another node, from a socket that nothing was sent from before.
    fn probe(&mut self, index: u32, asked: (ConnId, u64), key: PublicKey, address: Address) {
        let to = index_of(&address.0.to_string());
        let to = to.filter(|to| (*to as usize) < self.nodes.len());
        let to = to.filter(|to| self.reaches(index, *to));
        let to = to.filter(|to| self.nodes[*to as usize].id == NodeId::of(&key));
        let takes = match to {
            Some(to) => 2 * self.distance(index, to),
            None => HANDSHAKE,
        };
        let (end, query) = (End::of(asked.0), asked.1);
        let reachable = to.is_some();
        let happening = Happening::Probed(index, end, query, reachable);
        self.queue.push(self.now.after(takes), happening);
    }

    fn as_broken(&self, index: u32, action: Action) -> Option<Action> {
        let Some(broken) = self.broken else {
            return Some(action);
        };
        let stores = &self.nodes[index as usize].stores;
        broken.action(action, stores.iter().any(|store| store.first.is_some()))
    }

    fn confirm(&mut self, index: u32, end: End, stream: StreamId, confirm: Confirm) {
        let have = match confirm {
            Confirm::Active => self.have_of(index, stream),
            Confirm::Standby(_) => Have::default(),
        };
        let message = TicketConfirm {
            stream,
            confirm,
            have,
        };
        self.send(index, end, message.into());
    }

    fn expect(&mut self, index: u32, conn: ConnId, ticket: crate::ids::TicketId, stream: u32) {
        let intake = Intake {
            end: End::of(conn),
            ticket,
            stream,
            set: self.now,
            delay_us: None,
            came: None,
        };
        self.nodes[index as usize].intakes.push(intake);
    }

    fn open(&mut self, index: u32, record: &SignedStream) {
        let id = record.value().id();
        let Some(stream) = self.stream_index(id) else {
            return;
        };
        if self.nodes[index as usize].store(stream).is_some() {
            return;
        }
        let store = Store {
            stream,
            own: self.sources[stream as usize].publisher == self.nodes[index as usize].id,
            wanted: self.now,
            accepted: None,
            first: None,
            last: self.now,
            media: self.empty_store(),
        };
        self.nodes[index as usize].stores.push(store);
    }

    fn changed(&mut self, index: u32, change: &Change) {
        match change {
            Change::Parent(id, _) => {
                let Some(stream) = self.stream_index(*id) else {
                    return;
                };
                let now = self.now;
                self.tally.switches += 1;
                self.nodes[index as usize].switches += 1;
                let store = self.nodes[index as usize].store_mut(stream);
                let Some(store) = store.filter(|store| store.accepted.is_none()) else {
                    return;
                };
                store.accepted = Some(now);
                let wanted = store.wanted;
                self.tally.join.add(now.since(wanted));
            }
            // The stream is heard of: now it can be asked for.
            Change::Stream(id) => self.want_if_known(index, *id),
            Change::PeerJoined(_)
            | Change::PeerLeft(_)
            | Change::ParentLost(..)
            | Change::NoRoom(..)
            | Change::Promised(..)
            | Change::Ready(..)
            | Change::Ended(..)
            | Change::Registered(_)
            | Change::Banned(..) => {}
        }
    }

    pub(super) fn stream_index(&self, id: StreamId) -> Option<u32> {
        let found = |source: &super::Source| source.id == id;
        self.sources.iter().position(found).map(|at| at as u32)
    }

    pub(super) fn broken_stores(&self) -> bool {
        self.broken == Some(Broken::Careless)
    }
}
