//! Video on its way: routes that the overlay set, and what runs over them.

use std::time::Duration;

use super::exact::{Chunk, Exact, Wish};
use super::flow::{Flow, Turn};
use super::link::End;
use super::node::{Held, Route};
use super::scenario::{Lie, Media};
use super::{Happening, Running, Sim};
use crate::ids::{StreamId, TicketId};
use crate::overlay::{Event, Time};
use crate::wire::control::Have;

/// What a relay takes to verify a chunk and pass it on.
const RELAY: Duration = Duration::from_micros(300);
/// A pause between chunks that counts as a gap.
const PAUSE: Duration = Duration::from_millis(150);
/// Packets of a chunk.
const CHUNK_PACKETS: u32 = 12;

impl Sim {
    pub(super) fn is_exact(&self) -> bool {
        self.scenario.media == Media::Exact
    }

    pub(super) fn empty_store(&self) -> Held {
        match self.scenario.media {
            Media::Exact => Held::Exact(Box::default()),
            Media::Flow => Held::Flow(Flow::default()),
        }
    }

    pub(super) fn have_of(&self, index: u32, id: StreamId) -> Have {
        let store = self
            .stream_index(id)
            .and_then(|stream| self.nodes[index as usize].store(stream));
        let Some(store) = store else {
            return Have::default();
        };
        let programme = &self.sources[store.stream as usize].programme;
        match &store.media {
            Held::Exact(exact) => exact.have(programme),
            Held::Flow(flow) => {
                let progress = flow.progress(self.now, programme);
                let from_group = progress.map(|progress| progress.newest.0 + 1);
                let groups = Vec::new();
                Have { groups, from_group }
            }
        }
    }

    pub(super) fn drop_store(&mut self, index: u32, id: StreamId) {
        if let Some(stream) = self.stream_index(id) {
            let node = &mut self.nodes[index as usize];
            node.stores.retain(|store| store.stream != stream);
        }
    }

    // Routes

    pub(super) fn set_route(&mut self, index: u32, route: Route) {
        let (end, ticket) = (route.end, route.ticket);
        let silent = self.nodes[index as usize].lie == Some(Lie::Nothing);
        self.nodes[index as usize].routes.push(route);
        if silent {
            return;
        }
        if self.is_exact() {
            let now = self.now;
            if let Some(uplink) = self.nodes[index as usize].uplink.as_mut() {
                uplink.open(now, (end, ticket));
            }
            self.send_backlog(index, end, ticket);
        } else {
            self.start_flow(index, end, ticket, 1.0e9);
        }
    }

    pub(super) fn clear_route(&mut self, index: u32, end: End, ticket: TicketId) {
        self.stop_flow(index, end, ticket);
        let node = &mut self.nodes[index as usize];
        node.routes
            .retain(|route| (route.end, route.ticket) != (end, ticket));
        if let Some(uplink) = node.uplink.as_mut() {
            uplink.remove(end, ticket);
        }
    }

    fn spare_bps(&self, index: u32) -> u64 {
        let node = &self.nodes[index as usize];
        let bitrate_bps = self.scenario.stream.bitrate_bps;
        node.limit_bps
            .saturating_sub(node.routes.len() as u64 * bitrate_bps)
    }

    // Flows

    /// Lets a flow run over a route, if there is one to pass on.
    fn start_flow(&mut self, index: u32, end: End, ticket: TicketId, speed: f64) {
        let node = &self.nodes[index as usize];
        let Some(at) = node
            .routes
            .iter()
            .position(|route| (route.end, route.ticket) == (end, ticket))
        else {
            return;
        };
        let route = &node.routes[at];
        let Some(Held::Flow(flow)) = node.store(route.stream).map(|store| &store.media) else {
            return;
        };
        let Some(delay_us) = flow.delay_us else {
            return;
        };
        // Who has nothing begins at a keyframe: this one if it can catch up, else the next.
        let has_nothing = route.have.from_group.is_none() && route.start.is_none();
        if has_nothing {
            let programme = &self.sources[route.stream as usize].programme;
            let media_us = programme.media_us(self.now).saturating_sub(delay_us.into());
            let group_us = programme.group_length().as_micros() as u64;
            let behind_us = media_us % group_us;
            let behind_bits = behind_us * programme.bitrate_bps / 1_000_000;
            self.nodes[index as usize].routes[at].start = Some(media_us / group_us + 1);
            if behind_bits > self.spare_bps(index) {
                let wait = Duration::from_micros(group_us - behind_us);
                let happening = Happening::Begin(end, ticket);
                return self.queue.push(self.now.after(wait), happening);
            }
        }
        let faster = 1.15 + self.spare_bps(index) as f64 / self.scenario.stream.bitrate_bps as f64;
        let speed = speed.min(faster).min(8.0);
        self.nodes[index as usize].routes[at]
            .runs
            .get_or_insert(self.now);
        let lag = self.lag(index, at);
        let Some(link) = self.links.at(end) else {
            return;
        };
        let latency = link.latency() + lag;
        let running = Running {
            delay_us: delay_us + latency.as_micros() as u32,
            speed: speed as f32,
        };
        self.send_flow(end, ticket, latency, Some(running));
    }

    /// What a frame waits for those that are sent to other children before it.
    fn lag(&self, index: u32, at: usize) -> Duration {
        let node = &self.nodes[index as usize];
        let frame_bits = self.scenario.stream.bitrate_bps / u64::from(self.scenario.stream.fps);
        let wait_us = frame_bits * 1_000_000 * (at as u64 + 1) / node.limit_bps.max(1);
        RELAY + Duration::from_micros(wait_us)
    }

    fn send_flow(&mut self, end: End, ticket: TicketId, wait: Duration, running: Option<Running>) {
        let Some(link) = self.links.at_mut(end) else {
            return;
        };
        if link.cut && running.is_some() {
            return;
        }
        // Not before the promise that it follows.
        let at = link.in_order(end.other(), self.now.after(wait));
        let happening = Happening::Flow(end.other(), ticket, running);
        self.queue.push(at, happening);
    }

    pub(super) fn begin_flow(&mut self, end: End, ticket: TicketId) {
        if let Some(index) = self.links.node(end) {
            self.start_flow(index, end, ticket, 1.0e9);
        }
    }

    pub(super) fn stop_flow(&mut self, index: u32, end: End, ticket: TicketId) {
        let bitrate_bps = self.scenario.stream.bitrate_bps as f64;
        let node = &mut self.nodes[index as usize];
        let is_it = |route: &&mut Route| (route.end, route.ticket) == (end, ticket);
        let Some(route) = node.routes.iter_mut().find(is_it) else {
            return;
        };
        let Some(since) = route.runs.take() else {
            return;
        };
        let seconds = self.now.since(since).as_secs_f64();
        node.media_bytes += (seconds * bitrate_bps / 8.0) as u64;
        let latency = self.links.at(end).map(super::link::Link::latency);
        if let Some(latency) = latency {
            self.send_flow(end, ticket, latency, None);
        }
    }

    /// Stops all that a node sends.
    pub(super) fn stop_all(&mut self, index: u32) {
        for (end, ticket) in self.routes_of(index) {
            self.stop_flow(index, end, ticket);
        }
    }

    pub(super) fn start_all(&mut self, index: u32, speed: f64) {
        if self.nodes[index as usize].lie == Some(Lie::Nothing) || self.is_exact() {
            return;
        }
        for (end, ticket) in self.routes_of(index) {
            self.start_flow(index, end, ticket, speed);
        }
    }

    fn routes_of(&self, index: u32) -> Vec<(End, TicketId)> {
        let routes = self.nodes[index as usize].routes.iter();
        routes.map(|route| (route.end, route.ticket)).collect()
    }

    pub(super) fn flow_arrives(&mut self, end: End, ticket: TicketId, running: Option<Running>) {
        let Some(index) = self.links.node(end) else {
            return;
        };
        let delay_us = running.map(|running| running.delay_us);
        self.note(index, 3, &delay_us.unwrap_or(u32::MAX).to_le_bytes());
        let Some(intake) = self.nodes[index as usize].intake_mut(end, ticket) else {
            return;
        };
        intake.delay_us = delay_us;
        self.reflow(index, running.map_or(1.0, |running| running.speed.into()));
        if running.is_some() {
            self.came(index, end, ticket, true);
        }
    }

    /// Looks what comes to a node now, and passes a change on.
    pub(super) fn reflow(&mut self, index: u32, speed: f64) {
        if self.is_exact() {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[index as usize];
        let mut turns = Vec::new();
        for store in node.stores.iter_mut().filter(|store| !store.own) {
            let of_it = node.intakes.iter().filter(|i| i.stream == store.stream);
            let delay_us = of_it.filter_map(|intake| intake.delay_us).min();
            let Held::Flow(flow) = &mut store.media else {
                continue;
            };
            let turn = flow.turn(now, delay_us, speed);
            if turn == Turn::Begins {
                store.first = Some(now);
                self.tally.first.add(now.since(store.wanted));
            }
            turns.push(turn);
        }
        for turn in turns {
            match turn {
                Turn::Same => continue,
                Turn::Stops => self.stop_all(index),
                Turn::Resumes(gap) => {
                    self.tally.resumed(gap);
                    self.start_all(index, speed);
                }
                Turn::Begins | Turn::Shifts => self.start_all(index, speed),
            }
            let soon = now.after(Duration::from_millis(50));
            self.queue.push(soon, Happening::Tick(index));
        }
    }

    // Chunks

    pub(super) fn publish_frame(&mut self, stream: u32, number: u32) {
        let source = &self.sources[stream as usize];
        let programme = &source.programme;
        let next = programme.published(number + 1);
        let sizes: Vec<u32> = programme.chunks(number).collect();
        let index = self.by_id[&source.publisher];
        self.queue.push(next, Happening::Frame(stream, number + 1));
        for (chunk, bytes) in sizes.into_iter().enumerate() {
            let chunk = Chunk {
                number,
                chunk: chunk as u8,
                bytes,
            };
            self.store_chunk(index, stream, chunk);
        }
    }

    pub(super) fn chunk_arrives(&mut self, end: End, ticket: TicketId, chunk: Chunk) {
        let Some(index) = self.links.node(end) else {
            return;
        };
        if self.links.at(end).is_none_or(|link| link.cut) {
            return;
        }
        let stream = self.nodes[index as usize]
            .intake_mut(end, ticket)
            .map(|intake| intake.stream);
        if let Some(stream) = stream {
            let name = (u64::from(chunk.number) << 8) | u64::from(chunk.chunk);
            self.note(index, 4, &name.to_le_bytes());
            self.store_chunk(index, stream, chunk);
            let store = self.nodes[index as usize].store(stream);
            let front = store.is_some_and(|store| match &store.media {
                Held::Exact(exact) => exact.is_front(chunk.number),
                Held::Flow(_) => false,
            });
            self.came(index, end, ticket, front);
        }
    }

    /// Tells the overlay of the first that comes under a ticket, and of the first of that
    /// which is among the newest.
    fn came(&mut self, index: u32, end: End, ticket: TicketId, level: bool) {
        let Some(intake) = self.nodes[index as usize].intake_mut(end, ticket) else {
            return;
        };
        if intake.came >= Some(level) {
            return;
        }
        intake.came = Some(level);
        let conn = end.conn();
        let event = Event::Came {
            conn,
            ticket,
            level,
        };
        self.event(index, event);
    }

    /// A chunk comes into a node's store, and goes on to its children.
    fn store_chunk(&mut self, index: u32, stream: u32, chunk: Chunk) {
        let (now, careless) = (self.now, self.broken_stores());
        let programme = &self.sources[stream as usize].programme;
        let node = &mut self.nodes[index as usize];
        let Some(store) = node.stores.iter_mut().find(|s| s.stream == stream) else {
            return;
        };
        let Held::Exact(exact) = &mut store.media else {
            return;
        };
        if !exact.take(now, programme, chunk, careless) {
            return;
        }
        let pause = now.since(store.last);
        if store.first.is_none() {
            store.first = Some(now);
            if !store.own {
                self.tally.first.add(now.since(store.wanted));
            }
        } else if pause > PAUSE && !store.own {
            self.tally.resumed(pause);
        }
        store.last = now;
        self.pass_on(index, stream, chunk);
    }

    fn pass_on(&mut self, index: u32, stream: u32, chunk: Chunk) {
        if self.nodes[index as usize].lie == Some(Lie::Nothing) {
            return;
        }
        for (end, ticket) in self.routes_of(index) {
            self.choose_start(index, end, ticket);
            let programme = &self.sources[stream as usize].programme;
            let node = &mut self.nodes[index as usize];
            let Some(route) = node.route(end, ticket) else {
                continue;
            };
            let wish = Wish {
                have: &route.have,
                start: route.start,
            };
            if route.stream != stream || !wish.includes(programme, chunk) {
                continue;
            }
            if let Some(uplink) = node.uplink.as_mut() {
                uplink.push(programme, (end, ticket), chunk);
            }
        }
        self.start_uplink(index);
    }

    fn send_backlog(&mut self, index: u32, end: End, ticket: TicketId) {
        self.choose_start(index, end, ticket);
        let node = &mut self.nodes[index as usize];
        let Some(route) = node
            .routes
            .iter()
            .find(|r| (r.end, r.ticket) == (end, ticket))
        else {
            return;
        };
        let programme = &self.sources[route.stream as usize].programme;
        let Some(exact) = exact_of(node, route.stream) else {
            return;
        };
        let wish = Wish {
            have: &route.have,
            start: route.start,
        };
        let backlog = exact.backlog(programme, &wish);
        if let Some(uplink) = node.uplink.as_mut() {
            for chunk in backlog {
                uplink.push(programme, (end, ticket), chunk);
            }
        }
        self.start_uplink(index);
    }

    /// Where a child begins that has nothing.
    fn choose_start(&mut self, index: u32, end: End, ticket: TicketId) {
        let node = &self.nodes[index as usize];
        let lent = node.uplink.as_ref().map_or(0, |uplink| uplink.lent());
        let spare_bps = self.spare_bps(index).saturating_sub(lent);
        let Some(route) = node.route(end, ticket) else {
            return;
        };
        if route.start.is_some() || route.have.from_group.is_some() {
            return;
        }
        let programme = &self.sources[route.stream as usize].programme;
        let entry = exact_of(node, route.stream).and_then(|e| e.entry(programme, spare_bps));
        let node = &mut self.nodes[index as usize];
        let is_it = |route: &&mut Route| (route.end, route.ticket) == (end, ticket);
        let Some((group, bits)) = entry else { return };
        if let Some(route) = node.routes.iter_mut().find(is_it) {
            route.start = Some(group);
        }
        if let Some(uplink) = node.uplink.as_mut() {
            uplink.lend((end, ticket), bits);
        }
    }

    fn start_uplink(&mut self, index: u32) {
        let now = self.now;
        let Some(uplink) = self.nodes[index as usize].uplink.as_mut() else {
            return;
        };
        if !uplink.busy {
            uplink.busy = true;
            let at = uplink.free_at.max(now);
            self.queue.push(at, Happening::Uplink(index));
        }
    }

    pub(super) fn uplink(&mut self, index: u32) {
        let now = self.now;
        let programme = &self.sources[0].programme;
        let node = &mut self.nodes[index as usize];
        let newest = node.stores.first().and_then(|store| match &store.media {
            Held::Exact(exact) => exact.newest_group(programme),
            Held::Flow(_) => None,
        });
        let Some(uplink) = node.uplink.as_mut() else {
            return;
        };
        if uplink.free_at > now {
            return self.queue.push(uplink.free_at, Happening::Uplink(index));
        }
        let Some((end, ticket, chunk, left)) = uplink.send(now, programme, newest.unwrap_or(0))
        else {
            uplink.busy = false;
            return;
        };
        node.media_bytes += u64::from(chunk.bytes);
        self.queue.push(left, Happening::Uplink(index));
        self.fly(end, ticket, chunk, left);
    }

    fn fly(&mut self, end: End, ticket: TicketId, chunk: Chunk, left: Time) {
        let Some(link) = self.links.at_mut(end) else {
            return;
        };
        let network = &self.scenario.network;
        let takes = link.reliable(network, &mut self.network, CHUNK_PACKETS);
        let at = left.after(takes + RELAY);
        // Not before the promise that it follows.
        let at = at.max(link.ordered_to(end.other()));
        self.queue
            .push(at, Happening::Chunk(end.other(), ticket, chunk));
    }
}

fn exact_of(node: &super::node::Node, stream: u32) -> Option<&Exact> {
    match &node.store(stream)?.media {
        Held::Exact(exact) => Some(exact),
        Held::Flow(_) => None,
    }
}
