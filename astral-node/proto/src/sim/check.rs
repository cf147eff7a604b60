//! What must hold whatever happens, looked at from outside the system: by routes that are
//! set, heartbeats that arrived and video that came, never by what the overlay thinks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::Links;
use super::measure::Violation;
use super::node::{Held, Node};
use super::scenario::{Lie, Scenario};
use crate::overlay::Time;

/// How often the rules are looked at.
pub(super) const EVERY: Duration = Duration::from_millis(250);
/// A loop must be broken within this.
const LOOP_MAX: Duration = Duration::from_secs(2);
/// A route ends within this of the last heartbeat: the expiry, and what it takes to look.
const EXPIRY_MAX: Duration = Duration::from_millis(1_125 + 400);
/// A former parent may be heard for three seconds more.
const INTAKE_MAX: Duration = Duration::from_millis(1_125 + 3_000 + 400);
/// Video that comes less often than this does not come.
const COMING: Duration = Duration::from_millis(1_500);
/// A scenario that expects so many to be served has upload for everybody.
const ENOUGH_FOR_ALL: f64 = 0.995;
/// Breaches that are told one by one.
const TOLD: usize = 40;

/// The rules, and who has broken them.
#[derive(Debug, Default)]
pub(super) struct Checks {
    looped: BTreeMap<u32, Time>,
    starved: BTreeMap<u32, Time>,
    told_starved: BTreeMap<u32, Time>,
    /// When the last thing went wrong on purpose.
    pub(super) last_fault: Time,
    pub(super) broken: BTreeMap<String, u64>,
    pub(super) violations: Vec<Violation>,
}

/// Nobody.
pub(super) const NOBODY: u32 = u32::MAX;

/// Who is fed by whom, as routes and tickets say.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) parents: Vec<u32>,
    /// Hops from a publisher; none for those in no tree.
    pub(super) depths: Vec<Option<u32>>,
}

impl Tree {
    /// The tree of one stream.
    pub(super) fn of(nodes: &[Node], links: &Links, stream: u32) -> Self {
        let parents: Vec<u32> = nodes
            .iter()
            .map(|node| parent_of(nodes, links, node, stream))
            .collect();
        let mut depths = vec![None; nodes.len()];
        let source = |index: usize| nodes[index].store(stream).is_some_and(|store| store.own);
        for index in 0..nodes.len() {
            depth_of(index, &parents, &mut depths, &source);
        }
        Self { parents, depths }
    }

    /// Nodes that are fed by themselves in the end.
    fn looped(&self) -> Vec<u32> {
        let mut state = vec![0u32; self.parents.len()];
        let mut found = Vec::new();
        for start in 0..self.parents.len() {
            let mark = start as u32 + 1;
            let mut at = start as u32;
            while at != NOBODY && state[at as usize] == 0 {
                state[at as usize] = mark;
                at = self.parents[at as usize];
            }
            if at != NOBODY && state[at as usize] == mark {
                let first = at;
                loop {
                    found.push(at);
                    at = self.parents[at as usize];
                    if at == first {
                        break;
                    }
                }
            }
        }
        found
    }
}

fn parent_of(nodes: &[Node], links: &Links, node: &Node, stream: u32) -> u32 {
    let feeds = |intake: &super::node::Intake| {
        let other = intake.end.other();
        let parent = links.node(other)?;
        let set = nodes[parent as usize].route(other, intake.ticket)?;
        Some((set.set, parent))
    };
    let intakes = node.intakes.iter().filter(|intake| intake.stream == stream);
    let newest = intakes.filter_map(feeds).max();
    newest.map_or(NOBODY, |(_, parent)| parent)
}

fn depth_of(
    index: usize,
    parents: &[u32],
    depths: &mut [Option<u32>],
    source: &dyn Fn(usize) -> bool,
) {
    let mut way = Vec::new();
    let mut at = index;
    while depths[at].is_none() && !source(at) && parents[at] != NOBODY && way.len() < 256 {
        way.push(at);
        at = parents[at] as usize;
    }
    if source(at) {
        depths[at] = Some(0);
    }
    let Some(mut depth) = depths[at] else { return };
    for below in way.into_iter().rev() {
        depth += 1;
        depths[below] = Some(depth);
    }
}

impl Checks {
    pub(super) fn report(&mut self, at: Time, check: &str, node: u32, what: String) {
        *self.broken.entry(check.to_owned()).or_default() += 1;
        if self.violations.len() < TOLD {
            self.violations.push(Violation {
                at_s: at.0 as f64 / 1e6,
                check: check.to_owned(),
                node,
                what,
            });
        }
    }

    /// Looks at everything.
    pub(super) fn look(
        &mut self,
        now: Time,
        scenario: &Scenario,
        nodes: &[Node],
        links: &Links,
        trees: &[Tree],
    ) {
        for tree in trees {
            self.loops(now, tree);
        }
        for (index, node) in nodes.iter().enumerate() {
            if !node.is_alive() || now.since(node.frozen_until) < INTAKE_MAX {
                continue;
            }
            let index = index as u32;
            self.budget(now, scenario, index, node);
            self.expiry(now, index, node, links);
            self.served(now, scenario, index, node);
            if node.lie == Some(Lie::Nothing) {
                self.liar(now, scenario, index, node, nodes, links);
            }
        }
    }

    fn loops(&mut self, now: Time, tree: &Tree) {
        let looped = tree.looped();
        self.looped.retain(|node, _| looped.contains(node));
        for node in looped {
            let since = *self.looped.entry(node).or_insert(now);
            if now.since(since) > LOOP_MAX {
                self.report(now, "loop", node, format!("since {:?}", now.since(since)));
                self.looped.insert(node, now);
            }
        }
    }

    fn budget(&mut self, now: Time, scenario: &Scenario, index: u32, node: &Node) {
        let sum_bps = node.routes.len() as u64 * scenario.stream.bitrate_bps;
        if sum_bps > node.limit_bps {
            let what = format!("{} children in {} bit/s", node.routes.len(), node.limit_bps);
            self.report(now, "budget", index, what);
        }
    }

    fn expiry(&mut self, now: Time, index: u32, node: &Node, links: &Links) {
        for route in &node.routes {
            let heard = links.at(route.end).map(|link| link.heard_at(route.end));
            let silent = now.since(heard.unwrap_or_default().max(route.set));
            if silent > EXPIRY_MAX {
                let what = format!("a route {silent:?} after the child's last heartbeat");
                self.report(now, "expiry", index, what);
            }
        }
        for intake in &node.intakes {
            let Some(link) = links.at(intake.end) else {
                continue;
            };
            let silent = now.since(link.heard_at(intake.end).max(intake.set));
            if silent > INTAKE_MAX {
                let what = format!("a ticket {silent:?} after the parent's last heartbeat");
                self.report(now, "expiry", index, what);
            }
        }
    }

    /// Whether video comes, or should.
    fn served(&mut self, now: Time, scenario: &Scenario, index: u32, node: &Node) {
        let expect = &scenario.expect;
        let starved = |store: &&super::node::Store| !store.own && !is_coming(now, store);
        let Some(store) = node.stores.iter().find(starved) else {
            self.starved.remove(&index);
            self.told_starved.remove(&index);
            return;
        };
        let within = Duration::from_secs_f64(match store.first {
            Some(_) => expect.served_within_s,
            None => expect.joined_within_s.max(expect.served_within_s),
        });
        let since = *self.starved.entry(index).or_insert(now);
        let base = since.max(self.last_fault).max(store.wanted);
        // The share is of one moment, in which somebody may be on the way from one parent to
        // the next; where there is upload for all, nobody is without for longer than that.
        let must = expect.served >= ENOUGH_FOR_ALL && node.lie.is_none() && !node.leaving;
        if must && now.since(base) > within && self.told_starved.insert(index, now).is_none() {
            let what = format!("no video for {:?}", now.since(since));
            self.report(now, "served", index, what);
        }
    }

    fn liar(
        &mut self,
        now: Time,
        scenario: &Scenario,
        index: u32,
        node: &Node,
        nodes: &[Node],
        links: &Links,
    ) {
        let Some(within) = scenario.expect.liars_out_s else {
            return;
        };
        for route in &node.routes {
            let child = links.node(route.end.other());
            let honest = child.filter(|child| nodes[*child as usize].lie.is_none());
            let Some(child) = honest else { continue };
            let counts = nodes[child as usize]
                .intakes
                .iter()
                .any(|intake| intake.ticket == route.ticket);
            if counts && now.since(route.set).as_secs_f64() > within {
                let what = format!("is fed nothing by {index} since {:?}", now.since(route.set));
                self.report(now, "liars", child, what);
            }
        }
    }
}

/// Whether a stream comes to a node.
pub(super) fn is_coming(now: Time, store: &super::node::Store) -> bool {
    match &store.media {
        Held::Flow(flow) => flow.delay_us.is_some(),
        Held::Exact(_) => store.first.is_some() && now.since(store.last) < COMING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_found_and_the_branches_that_hang_on_them_are_not_counted() {
        let tree = Tree {
            parents: vec![NOBODY, 0, 4, 2, 3, 4, NOBODY],
            depths: vec![],
        };
        let mut looped = tree.looped();
        looped.sort_unstable();
        assert_eq!(looped, [2, 3, 4]);
        let mut checks = Checks::default();
        for ms in (0..=2_500).step_by(250) {
            checks.loops(Time(ms * 1000), &tree);
        }
        assert_eq!(checks.broken.get("loop"), Some(&3));
    }
}
