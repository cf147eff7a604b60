//! Nodes that were connected in an earlier life: dialled one after the other, and only
//! while hardly anybody is connected.
//!
//! Unlike bootstrap nodes, nobody is kept: whoever answers is one way into the network.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{Target, Time};
use super::peers::Dial;
use super::{Overlay, Timer};

/// Nodes that are remembered.
const REMEMBERED_MAX: usize = 256;
/// Peers with whom nobody else is looked for.
const PEERS_ENOUGH: usize = 4;
/// Time from one to the next in the first round; doubles with each round.
const APART_FIRST: Duration = Duration::from_millis(500);
/// Longest time from one to the next.
const APART_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether peers are still enough.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whom to try, and how often all were.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    targets: VecDeque<Target>,
    /// Tries so far; a round is over when all had theirs.
    tries: usize,
}

impl Overlay {
    /// Takes over who is remembered, the best first.
    pub(super) fn remember(&mut self, now: Time, targets: Vec<Target>) {
        self.remembered.targets = targets.into_iter().take(REMEMBERED_MAX).collect();
        self.timers.set(Timer::Remembered, now);
    }

    /// Dials the next one, if company is needed.
    pub(super) fn dial_remembered(&mut self, now: Time) {
        if self.leaving || self.remembered.targets.is_empty() {
            return;
        }
        let waiting = self.dials.len() + self.pending.len();
        let wait = if self.peers.len() >= PEERS_ENOUGH {
            // Who is alone again later begins anew.
            self.remembered.tries = 0;
            LOOK_EVERY
        } else if self.peers.len() + waiting >= PEERS_ENOUGH {
            APART_FIRST
        } else {
            self.try_next();
            let rounds = self.remembered.tries / self.remembered.targets.len();
            APART_FIRST
                .saturating_mul(1 << rounds.min(8))
                .min(APART_MAX)
        };
        let wait = self.random.jitter(wait);
        self.timers.set(Timer::Remembered, now.after(wait));
    }

    fn try_next(&mut self) {
        for _ in 0..self.remembered.targets.len() {
            let Some(target) = self.remembered.targets.pop_front() else {
                return;
            };
            self.remembered.targets.push_back(target.clone());
            self.remembered.tries += 1;
            let is_company = |node| {
                node == self.id || self.by_node.contains_key(&node) || self.is_dialling(node)
            };
            if target.node.is_some_and(is_company) {
                continue;
            }
            let dial = Dial {
                node: target.node,
                bootstrap: None,
                supernode: false,
            };
            self.dial(dial, target);
            return;
        }
    }
}
