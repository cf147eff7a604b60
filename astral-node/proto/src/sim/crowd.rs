//! Who is there: nodes come, stay for a while, and go; and what goes wrong on purpose.

use std::time::Duration;

use super::check::{Tree, is_coming};
use super::exact::Uplink;
use super::flow::Flow;
use super::link::{End, IDLE, Spot};
use super::measure::{Point, Worst};
use super::node::{Held, Node, Store, address_of, key_of, record_of};
use super::programme::Programme;
use super::scenario::{Contacts, Lie, Trouble, Who};
use super::{AHEAD, Happening, START, Sim, Source};
use crate::ids::{NodeId, StreamId};
use crate::overlay::{Config, Event, Overlay, Target, Time, Why};
use crate::record::{Role, SignedStream, StreamRecord, StreamState};
use crate::wire::heartbeat::Supply;

/// Receivers that a new node is told of.
const TOLD: usize = 8;
/// How often a publisher signs its stream's record anew.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Between two of a flaky node's pauses.
const FREEZE_EVERY: Duration = Duration::from_millis(1_500);

impl Sim {
    // Arrivals

    /// Plans everything that does not depend on what the nodes do.
    pub(super) fn populate(&mut self) {
        let islands = self.scenario.network.islands.max(1);
        for island in 0..islands {
            self.found(island);
        }
        let count = self.scenario.nodes;
        let (over_s, contacts) = (self.scenario.joins.over_s, self.scenario.joins.contacts);
        self.invite(START.after(AHEAD), count, over_s, contacts);
        self.scale_uplinks();
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            let at = START.after(AHEAD + Duration::from_secs_f64(fault.at_s));
            self.queue.push(at, Happening::Fault(index));
        }
        self.queue.push(START.after(AHEAD), Happening::Look);
        let second = START.after(AHEAD + Duration::from_secs(1));
        self.queue.push(second, Happening::Second);
    }

    /// Founds an island: a publisher and its stream.
    fn found(&mut self, island: u32) {
        let bps = (self.scenario.upload.publisher_mbit * 1e6) as u64;
        let index = self.add(island, bps, false);
        let key = key_of(island, "stream");
        let programme = Programme::new(&self.scenario.stream, START);
        let source = Source {
            id: StreamId::of(&key.public()),
            record: self.stream_record(island, 1, &key, self.nodes[index as usize].id),
            programme,
            publisher: self.nodes[index as usize].id,
        };
        self.sources.push(source);
        self.queue
            .push(START, Happening::Join(index, self.scenario.joins.contacts));
    }

    fn stream_record(
        &self,
        stream: u32,
        seq: u64,
        key: &crate::ids::SecretKey,
        publisher: NodeId,
    ) -> SignedStream {
        let record = StreamRecord {
            key: key.public(),
            seq,
            name: format!("Show {stream}"),
            description: None,
            publisher,
            unlisted: None,
            epoch: 1,
            started_at_ms: 0,
            state: StreamState::Live,
            bitrate_bps: Some(self.scenario.stream.bitrate_bps),
            tracks: vec![],
            viewers: None,
        };
        SignedStream::sign(record, key)
    }

    fn invite(&mut self, from: Time, count: u32, over_s: f64, contacts: Contacts) {
        let islands = self.scenario.network.islands.max(1);
        let mean = over_s / f64::from(count.max(1));
        let mut at_s = 0.0;
        for number in 0..count {
            at_s += self.crowd.exponential(mean);
            let bps = self.draw_uplink();
            let index = self.add(number % islands, bps, true);
            let at = from.after(Duration::from_secs_f64(at_s.min(over_s)));
            self.queue.push(at, Happening::Join(index, contacts));
        }
    }

    fn draw_uplink(&mut self) -> u64 {
        let upload = &self.scenario.upload;
        let nothing = self.crowd.chance(upload.nothing);
        let mut left = self.crowd.unit();
        let drawn = upload.uplinks.iter().find(|uplink| {
            left -= uplink.share;
            left <= 0.0
        });
        let mbit = drawn
            .or(upload.uplinks.last())
            .map_or(0.0, |uplink| uplink.mbit);
        if nothing {
            return 0;
        }
        (mbit * 1e6 * upload.usable) as u64
    }

    fn add(&mut self, island: u32, limit_bps: u64, viewer: bool) -> u32 {
        let index = self.nodes.len() as u32;
        let network = &self.scenario.network;
        let reachable = match network.reachable {
            Some(count) => index <= count,
            None => !self.crowd.chance(network.firewalled),
        };
        let lie = self.scenario.hostile.as_ref().filter(|_| viewer);
        let lies = lie.filter(|hostile| self.crowd.chance(hostile.share));
        let lie = lies.and_then(|h| h.lies.get(self.crowd.below(h.lies.len())).copied());
        let key = key_of(index, "node").public();
        let node = Node {
            overlay: None,
            id: NodeId::of(&key),
            key,
            spot: Spot::random(&mut self.crowd),
            firewalled: viewer && !reachable,
            dialled: Vec::new(),
            island,
            apart: false,
            limit_bps,
            lie,
            said: None,
            seq: if lie == Some(Lie::Clock) {
                u64::MAX / 2
            } else {
                1
            },
            wake: Time(u64::MAX),
            frozen_until: Time(0),
            joined: Time(0),
            leaving: false,
            asked_web: false,
            wants_all: false,
            switches: 0,
            ends: Vec::new(),
            routes: Vec::new(),
            intakes: Vec::new(),
            stores: Vec::new(),
            uplink: None,
            control_bytes: 0,
            media_bytes: 0,
        };
        self.by_id.insert(node.id, index);
        self.nodes.push(node);
        index
    }

    /// Brings what all can upload to the share of the demand that the scenario asks for.
    fn scale_uplinks(&mut self) {
        let Some(ratio) = self.scenario.upload.supply_per_demand else {
            return;
        };
        // A ticket is charged at 1.15 times the rate, and only whole ones are given.
        let ticket = crate::overlay::charge(self.scenario.stream.bitrate_bps);
        let places = |nodes: &[Node], by: f64| -> u64 {
            let of = |node: &Node| (node.limit_bps as f64 * by) as u64 / ticket;
            nodes.iter().map(of).sum()
        };
        let want = (f64::from(self.scenario.nodes) * ratio) as u64;
        let (mut low, mut high) = (0.0, 64.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match places(&self.nodes, middle) < want {
                true => low = middle,
                false => high = middle,
            }
        }
        for node in &mut self.nodes {
            node.limit_bps = (node.limit_bps as f64 * high) as u64;
        }
        // All who have the same uplink get their next place at once: what that is too much
        // is taken from one after the other.
        let mut excess = places(&self.nodes, 1.0).saturating_sub(want);
        for node in self.nodes.iter_mut().rev() {
            if excess > 0 && node.limit_bps >= ticket {
                node.limit_bps -= ticket;
                excess -= 1;
            }
        }
    }

    pub(super) fn join(&mut self, index: u32, contacts: Contacts) {
        let now = self.now;
        let exact = self.is_exact();
        let node = &mut self.nodes[index as usize];
        let mut config = Config {
            id: node.id,
            record: record_of(index, node.seq, None),
            upload_limit_bps: Some(node.limit_bps),
            contributes: self.scenario.contributors_first,
            seed: (self.scenario.seed << 32) ^ u64::from(index),
        };
        if self.broken == Some(super::Broken::Chance) {
            // Where the allocator puts things is nothing that a seed decides.
            config.seed ^= u64::from(std::process::id());
        }
        node.overlay = Some(Box::new(Overlay::new(now, config)));
        node.joined = now;
        node.uplink = exact.then(|| Box::new(Uplink::new(node.limit_bps)));
        if self.broken == Some(super::Broken::Limitless) {
            self.event(index, Event::Limit { bps: None });
        }
        let addresses = vec![address_of(index)];
        self.event(index, Event::Whereabouts { addresses });
        let source = self
            .sources
            .iter()
            .position(|s| s.publisher == self.nodes[index as usize].id);
        match source {
            Some(stream) => self.publish(index, stream as u32),
            None => self.arrive(index, contacts),
        }
        if exact {
            self.queue.push(now, Happening::Tick(index));
        }
    }

    fn publish(&mut self, index: u32, stream: u32) {
        let media = match self.is_exact() {
            true => Held::Exact(Box::default()),
            false => Held::Flow(Flow::source(self.now)),
        };
        self.nodes[index as usize].stores.push(Store {
            stream,
            own: true,
            wanted: self.now,
            accepted: None,
            first: None,
            last: self.now,
            media,
        });
        self.renew(stream);
        if self.is_exact() {
            self.queue.push(self.now, Happening::Frame(stream, 0));
        }
        if self.scenario.joins.contacts == Contacts::Web {
            self.queue.push(self.now, Happening::Web(index));
            self.list(index);
        }
    }

    /// The stream's record is signed anew, before its lease is over.
    pub(super) fn renew(&mut self, stream: u32) {
        let source = &self.sources[stream as usize];
        let (publisher, seq) = (source.publisher, source.record.value().seq + 1);
        let record = self.stream_record(stream, seq, &key_of(stream, "stream"), publisher);
        self.sources[stream as usize].record = record.clone();
        let index = self.by_id[&publisher];
        let supply = Supply::Ok;
        self.event(index, Event::Publish { record, supply });
        self.queue
            .push(self.now.after(RENEW_EVERY), Happening::Renew(stream));
    }

    fn arrive(&mut self, index: u32, contacts: Contacts) {
        self.tally.joined += 1;
        if let Some(sessions) = self.scenario.sessions {
            let seconds = self
                .crowd
                .lognormal(sessions.median_min * 60.0, sessions.sigma);
            let abrupt = self.crowd.chance(sessions.abrupt);
            let at = self.now.after(Duration::from_secs_f64(seconds.min(1e6)));
            self.queue.push(
                at,
                Happening::Leave {
                    node: index,
                    abrupt,
                },
            );
        }
        let island = self.nodes[index as usize].island;
        match contacts {
            Contacts::Receivers => {
                let told = self.receivers(index);
                self.tell(index, told[0]);
                let target = |told: &u32| self.target(*told);
                let targets = told.iter().map(target).collect();
                self.event(index, Event::Remembered { targets });
            }
            Contacts::Publisher => {
                let publisher = self.sources[island as usize % self.sources.len()].publisher;
                self.tell(index, self.by_id[&publisher]);
            }
            Contacts::Web => {
                let soon = self.now.after(Duration::from_millis(60));
                return self.queue.push(soon, Happening::Web(index));
            }
        }
        let streams = vec![
            self.sources[island as usize % self.sources.len()]
                .record
                .clone(),
        ];
        let nodes = Vec::new();
        self.event(index, Event::Heard { nodes, streams });
    }

    fn tell(&mut self, index: u32, told: u32) {
        let target = self.target(told);
        self.event(index, Event::Bootstrap { target });
    }

    fn target(&self, index: u32) -> Target {
        let addresses = vec![address_of(index).0.to_string()];
        let node = Some(self.nodes[index as usize].id);
        Target { node, addresses }
    }

    /// Random nodes that receive the stream: what a tracker would tell.
    fn receivers(&mut self, index: u32) -> Vec<u32> {
        let island = self.nodes[index as usize].island;
        let mut told = Vec::new();
        for _ in 0..64 {
            if told.len() >= TOLD {
                break;
            }
            let other = self.crowd.below(self.nodes.len()) as u32;
            let node = &self.nodes[other as usize];
            let receives = node.stores.iter().any(|s| s.own || s.first.is_some());
            if node.is_alive()
                && receives
                && node.island == island
                && !node.firewalled
                && other != index
                && !told.contains(&other)
            {
                told.push(other);
            }
        }
        if told.is_empty() {
            let publisher = self.sources[island as usize % self.sources.len()].publisher;
            told.push(self.by_id[&publisher]);
        }
        told
    }

    /// A viewer asks for its island's stream as soon as it has heard of it.
    pub(super) fn want_if_known(&mut self, index: u32, id: StreamId) {
        let Some(stream) = self.stream_index(id) else {
            return;
        };
        let node = &self.nodes[index as usize];
        let wants = node.island as usize % self.sources.len() == stream as usize || node.wants_all;
        let held = node.store(stream).is_some();
        if !wants || held || node.leaving || node.is_publisher() {
            return;
        }
        let why = Why::Watch;
        self.event(index, Event::Want { stream: id, why });
    }

    // Departures

    pub(super) fn leave(&mut self, index: u32, abrupt: bool) {
        let node = &mut self.nodes[index as usize];
        if !node.is_alive() || node.leaving {
            return;
        }
        node.leaving = true;
        if abrupt {
            self.gone(index, true);
        } else {
            self.event(index, Event::Leave);
        }
        if self.scenario.sessions.is_some_and(|s| s.refill) && self.now >= START.after(AHEAD) {
            let island = self.nodes[index as usize].island;
            let bps = self.draw_uplink();
            let new = self.add(island, bps, true);
            let contacts = self.scenario.joins.contacts;
            self.queue.push(self.now, Happening::Join(new, contacts));
        }
    }

    /// Counts what a node has had and done.
    pub(super) fn settle(&mut self, index: u32) {
        if !self.nodes[index as usize].is_alive() {
            return;
        }
        self.stop_all(index);
        let now = self.now;
        let node = &mut self.nodes[index as usize];
        let control = std::mem::take(&mut node.control_bytes);
        let media = std::mem::take(&mut node.media_bytes);
        self.tally.control_bytes += control;
        self.tally.media_bytes += media;
        if node.is_publisher() {
            self.tally.publisher_bytes += media;
        }
        self.tally.node_seconds += now.since(node.joined).as_secs_f64();
        self.tally.switches_max = self.tally.switches_max.max(node.switches.saturating_sub(1));
        for store in node
            .stores
            .iter()
            .filter(|store| !store.own && node.lie.is_none())
        {
            let late_s = match &store.media {
                Held::Flow(flow) => {
                    let (all, late) = flow.played(now);
                    self.tally.played += all;
                    self.tally.late += late;
                    late as f64 / 1e6
                }
                Held::Exact(exact) => {
                    let programme = &self.sources[store.stream as usize].programme;
                    let (all, late, lost) = exact.played(now, programme);
                    self.tally.played += all;
                    self.tally.late += late + lost;
                    self.tally.frames_lost += lost;
                    self.tally.frames_doubled += exact.doubled;
                    self.tally.twice_bytes += exact.twice_bytes;
                    (late + lost) as f64 * programme.frame.as_secs_f64()
                }
            };
            let second = |at: Time| (at.0 as f64 / 1e4).round() / 100.0;
            self.tally.served(Worst {
                node: index,
                late_s,
                came_s: second(node.joined),
                left_s: second(now),
            });
        }
    }

    // Faults

    pub(super) fn fault(&mut self, fault: usize) {
        self.checks.last_fault = self.now;
        match self.scenario.faults[fault].what.clone() {
            Trouble::Leave {
                share,
                over_s,
                abrupt,
            } => self.mass_leave(share, over_s, abrupt),
            Trouble::Kill { who, count } => {
                for node in self.choose(who, count) {
                    let abrupt = true;
                    self.queue.push(self.now, Happening::Leave { node, abrupt });
                }
            }
            Trouble::Freeze {
                who,
                count,
                for_ms,
                times,
            } => self.freeze(who, count, Duration::from_millis(for_ms), times),
            Trouble::Partition { share, for_s } => {
                self.part(share, Duration::from_secs_f64(for_s));
            }
            Trouble::WebDown { for_s } => {
                self.web.down_until = self.now.after(Duration::from_secs_f64(for_s));
            }
            Trouble::Join {
                count,
                over_s,
                contacts,
            } => self.invite(self.now, count, over_s, contacts),
            Trouble::Meet { share } => self.meet(share),
        }
    }

    fn viewers(&self) -> Vec<u32> {
        let there =
            |(_, node): &(usize, &Node)| node.is_alive() && !node.is_publisher() && !node.leaving;
        let nodes = self.nodes.iter().enumerate().filter(there);
        nodes.map(|(index, _)| index as u32).collect()
    }

    fn mass_leave(&mut self, share: f64, over_s: f64, abrupt: f64) {
        let mut viewers = self.viewers();
        self.crowd.shuffle(&mut viewers);
        viewers.truncate((viewers.len() as f64 * share) as usize);
        let over = Duration::from_secs_f64(over_s);
        for node in viewers {
            let abrupt = self.crowd.chance(abrupt);
            let at = self.now.after(self.crowd.up_to(over));
            self.queue.push(at, Happening::Leave { node, abrupt });
        }
        self.checks.last_fault = self.now.after(over);
    }

    fn choose(&mut self, who: Who, count: Option<u32>) -> Vec<u32> {
        let mut viewers = self.viewers();
        self.crowd.shuffle(&mut viewers);
        let node = |index: &u32| &self.nodes[*index as usize];
        match who {
            Who::Supernodes => viewers.retain(|index| node(index).role() == Role::Supernode),
            Who::Parents => viewers.retain(|index| !node(index).routes.is_empty()),
            Who::ParentAndStandby => {
                return viewers
                    .iter()
                    .find_map(|index| self.parent_and_standby(*index))
                    .unwrap_or_default();
            }
        }
        viewers.truncate(count.unwrap_or(u32::MAX) as usize);
        viewers
    }

    /// The two nodes, neither the publisher, that a node counts on.
    fn parent_and_standby(&self, index: u32) -> Option<Vec<u32>> {
        let id = self.sources[0].record.value().id();
        let view = self.overlay(index)?.stream_view(self.now, id)?.intake?;
        let two = [view.parent?.0, view.standby?].map(|id| self.by_id[&id]);
        let viewers = two
            .iter()
            .all(|at| !self.nodes[*at as usize].is_publisher());
        viewers.then(|| two.to_vec())
    }

    fn freeze(&mut self, who: Who, count: u32, length: Duration, times: u32) {
        for index in self.choose(who, Some(count)) {
            self.nodes[index as usize].frozen_until = self.now.after(length);
            self.stop_all(index);
            self.queue
                .push(self.now.after(length), Happening::Thaw(index));
        }
        if times > 1 {
            let again = self.scenario.faults.len();
            let what = Trouble::Freeze {
                who,
                count,
                for_ms: length.as_millis() as u64,
                times: times - 1,
            };
            self.scenario.faults.push(super::Fault { at_s: 0.0, what });
            self.queue
                .push(self.now.after(FREEZE_EVERY), Happening::Fault(again));
        }
    }

    pub(super) fn thaw(&mut self, index: u32) {
        self.checks.last_fault = self.now;
        if self.nodes[index as usize].is_alive() {
            self.start_all(index, 1.0e9);
        }
    }

    fn part(&mut self, share: f64, length: Duration) {
        for index in self.viewers() {
            self.nodes[index as usize].apart = self.crowd.chance(share);
        }
        let nodes = &self.nodes;
        let crosses = |link: &super::link::Link| {
            let [a, b] = link.nodes().map(|index| nodes[index as usize].apart);
            a != b
        };
        for end in self.links.ends_where(crosses) {
            for end in [end, end.other()] {
                self.stop_routes_over(end);
            }
            if let Some(link) = self.links.at_mut(end) {
                link.cut = true;
            } else if let Some(link) = self.links.at_mut(end.other()) {
                link.cut = true;
            }
        }
        self.queue.push(self.now.after(length), Happening::Heal);
        if length > IDLE {
            self.queue.push(self.now.after(IDLE), Happening::CutOff);
        }
        self.checks.last_fault = self.now.after(length);
    }

    fn stop_routes_over(&mut self, end: End) {
        let Some(index) = self.links.node(end) else {
            return;
        };
        let routes = self.nodes[index as usize].routes.iter();
        let over: Vec<_> = routes.filter(|r| r.end == end).map(|r| r.ticket).collect();
        for ticket in over {
            self.stop_flow(index, end, ticket);
        }
    }

    /// Connections that were cut for too long are gone.
    pub(super) fn cut_off(&mut self) {
        for end in self.links.ends_where(|link| link.cut) {
            self.closed(end, None);
            self.closed(end.other(), None);
        }
    }

    pub(super) fn heal(&mut self) {
        for node in &mut self.nodes {
            node.apart = false;
        }
        for end in self.links.ends_where(|link| link.cut) {
            for end in [end, end.other()] {
                if let Some(link) = self.links.at_mut(end) {
                    link.cut = false;
                }
            }
            for end in [end, end.other()] {
                if let Some(index) = self.links.node(end) {
                    self.start_all(index, 1.0e9);
                }
            }
        }
        for (end, bytes) in std::mem::take(&mut self.held) {
            let soon = self.now.after(Duration::from_millis(50));
            self.queue.push(soon, Happening::Message(end, bytes));
        }
    }

    fn meet(&mut self, share: f64) {
        let islands = self.scenario.network.islands.max(1);
        let first_of = |sim: &Self, island: u32| {
            let viewers = sim.viewers();
            viewers
                .into_iter()
                .find(|index| sim.nodes[*index as usize].island == island)
        };
        for island in 1..islands {
            let (a, b) = (first_of(self, island - 1), first_of(self, island));
            if let Some((a, b)) = a.zip(b) {
                self.tell(a, b);
            }
        }
        for index in self.viewers() {
            if self.nodes[index as usize].island == 0 && self.crowd.chance(share) {
                self.nodes[index as usize].wants_all = true;
                let ids = self.sources.iter().map(|s| s.record.value().id());
                for id in ids.collect::<Vec<_>>() {
                    self.want_if_known(index, id);
                }
            }
        }
    }

    // Once a second

    /// Whoever wants a stream, and whether it comes.
    pub(super) fn wanting(&self) -> Vec<(u32, bool)> {
        let mut found = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if !node.is_alive() || node.is_publisher() || node.leaving || node.lie.is_some() {
                continue;
            }
            let comes = |store: &Store| is_coming(self.now, store);
            let served = !node.stores.is_empty() && node.stores.iter().all(comes);
            found.push((index as u32, served));
        }
        found
    }

    pub(super) fn second(&mut self) {
        let now = self.now;
        let wanting = self.wanting();
        let mut delays = super::measure::Histogram::default();
        for node in self.nodes.iter().filter(|node| node.is_alive()) {
            for store in node.stores.iter().filter(|store| !store.own) {
                let delay = match &store.media {
                    Held::Flow(flow) => flow.delay_us.map(|us| Duration::from_micros(us.into())),
                    Held::Exact(exact) => exact.delay(now),
                };
                if let Some(delay) = delay {
                    delays.add(delay);
                    self.tally.delay.add(delay);
                }
            }
        }
        let tree = Tree::of(&self.nodes, &self.links, 0);
        let depths = tree.depths.iter().flatten().filter(|depth| **depth > 0);
        let depth_max = depths.clone().max().copied().unwrap_or(0);
        self.tally.depth_sum += depths.clone().map(|depth| u64::from(*depth)).sum::<u64>();
        self.tally.depth_count += depths.count() as u64;
        self.tally.depth_max = self.tally.depth_max.max(depth_max);
        let alive = self.nodes.iter().filter(|node| node.is_alive());
        let count = alive.clone().count().max(1);
        let control: u64 = alive.clone().map(|node| node.control_bytes).sum();
        let control = control + self.tally.control_bytes;
        let fresh = control - std::mem::replace(&mut self.tally.control_before, control);
        let connections: usize = alive.clone().map(|node| node.ends.len()).sum();
        self.tally.connections = connections as f64 / count as f64;
        let is_super = |node: &&Node| node.role() == Role::Supernode;
        let at = |share: f64| (delays.at(share) * 10.0).round() / 10.0;
        let point = Point {
            at_s: now.since(START.after(AHEAD)).as_secs_f64().round(),
            wanting: wanting.len() as u32,
            served: wanting.iter().filter(|(_, served)| *served).count() as u32,
            delay_p50_ms: at(0.5),
            delay_p99_ms: at(0.99),
            depth_max,
            gaps: std::mem::take(&mut self.tally.gaps_this_second),
            publisher_copies: self.nodes[0].routes.len() as u32,
            supernodes: alive.clone().filter(is_super).count() as u32,
            control_bps: (fresh as f64 * 8.0 / count as f64).round(),
            connections_max: alive.map(|node| node.ends.len() as u32).max().unwrap_or(0),
        };
        self.tally.series.push(point);
        self.queue
            .push(now.after(Duration::from_secs(1)), Happening::Second);
    }
}
