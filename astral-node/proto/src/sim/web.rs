//! astral-web as far as nodes see it: a directory of supernodes and streams with leases.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node::{address_of, record_of};
use super::{Happening, Sim};
use crate::overlay::{Event, LEASE, Mode, Time};
use crate::record::{Address, Role, SignedNode, SignedStream};

/// A request and its answer.
const TAKES: Duration = Duration::from_millis(60);
/// How often a node without a supernode asks.
const SEEK_EVERY: Duration = Duration::from_secs(1);
/// How often one with a supernode does.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How often a record is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Supernodes in an answer.
const SAMPLE: usize = 16;

/// Nodes, with where they are, and streams.
type Answer = (Vec<(SignedNode, Vec<Address>)>, Vec<SignedStream>);

/// The directory.
#[derive(Debug, Default)]
pub(super) struct Web {
    /// Nodes that are listed, with their records, and until when.
    listed: BTreeMap<u32, (Time, SignedNode)>,
    pub(super) down_until: Time,
}

impl Sim {
    /// A node asks astral-web.
    pub(super) fn ask_web(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        if !node.is_alive() {
            return;
        }
        let island = node.island;
        let seeks = self
            .overlay(index)
            .is_some_and(|overlay| overlay.connected_supernodes() == 0);
        if self.now >= self.web.down_until {
            let (nodes, streams) = self.answer(island);
            self.event(index, Event::Heard { nodes, streams });
        }
        // The first round is over, good or bad.
        if !self.nodes[index as usize].asked_web {
            self.nodes[index as usize].asked_web = true;
            let mode = Mode::Auto;
            self.event(index, Event::Supernodes { mode });
        }
        let every = if seeks { SEEK_EVERY } else { ASK_EVERY };
        let wait = every / 2 + self.network.up_to(every / 2) + TAKES;
        self.queue.push(self.now.after(wait), Happening::Web(index));
    }

    fn answer(&mut self, island: u32) -> Answer {
        let now = self.now;
        self.web.listed.retain(|_, (until, _)| *until > now);
        let here = |index: &u32| self.nodes[*index as usize].island == island;
        let mut sample: Vec<u32> = self.web.listed.keys().copied().filter(here).collect();
        self.network.shuffle(&mut sample);
        sample.truncate(SAMPLE);
        let record = |index: u32| (self.web.listed[&index].1.clone(), vec![address_of(index)]);
        let nodes = sample.into_iter().map(record).collect();
        let source = &self.sources[island as usize % self.sources.len()];
        (nodes, vec![source.record.clone()])
    }

    /// A supernode or publisher lists itself, and goes on to.
    pub(super) fn list(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let lists = node.role() == Role::Supernode || node.is_publisher();
        if !node.is_alive() || !lists || self.scenario.joins.contacts != super::Contacts::Web {
            return;
        }
        if self.now >= self.web.down_until {
            let record = record_of(index, node.seq, node.said.as_deref());
            self.web
                .listed
                .insert(index, (self.now.after(LEASE), record));
        }
        let again = self.now.after(RENEW_EVERY);
        self.queue.push(again, Happening::Listed(index));
    }

    /// A node says goodbye to astral-web.
    pub(super) fn unlist(&mut self, index: u32) {
        self.web.listed.remove(&index);
    }
}
