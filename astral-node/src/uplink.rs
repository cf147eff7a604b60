//! The upload limit, and whose turn it is to use it (DESIGN §6).
//!
//! Two layers. **Turns** (`turns.rs`): who wants to write media asks for leave with
//! [`Uplink::acquire`], and a token bucket gives it out in order of class, child and
//! group; this *is* the scheduler, there is none behind it. **Gate** (`gate.rs`): at
//! the UDP socket every byte is counted, acknowledgements and retransmissions too, and
//! nothing passes that would bring a sliding second over the limit. Turns are given at
//! [`TURNS_PERCENT`] of the limit, so that the gate seldom shuts and the order of turns
//! is the order on the wire.
//!
//! Media is paid for when its turn comes. What the socket then reports eats what was
//! prepaid, and the excess (headers, acknowledgements, repairs) is charged to the
//! bucket, so that it slows the next turns.
//!
//! Deliberately absent: deciding who is a child, and what the limit is.

mod gate;
mod pace;
mod turns;
mod usage;

use crate::lock::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use gate::Gate;
use turns::{Turn, Turns};
use usage::Usage;

/// Share of the limit that turns are given at, in percent: the rest is for what is sent
/// without a turn, and with [`turns::DEPTH`] a second of turns is no more than the limit.
const TURNS_PERCENT: u64 = 95;
/// In `Uplink::limit`: none.
const UNLIMITED: u64 = u64::MAX;
/// Longest that a shut gate is believed, as the limit may have risen meanwhile.
const GATE_RECHECK: Duration = Duration::from_millis(50);

/// What is written; what comes first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Messages between nodes, and the catalog.
    Control,
    /// Sound: little, and missed at once.
    Audio,
    /// Pictures.
    Video,
}

/// A node's upload: shared by the socket and everyone who writes media.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// In bit/s, or [`UNLIMITED`].
    limit_bps: AtomicU64,
    sent: AtomicU64,
    /// Bits of this second that are kept for children that catch up.
    lent: Arc<AtomicU64>,
    usage: Usage,
    gate: Mutex<Gate>,
    turns: Mutex<Turns>,
}

impl Uplink {
    /// An uplink of `limit` bit/s, or without limit. At 0 no media ever gets its turn,
    /// while the node's own messages pass freely.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        let now = Instant::now();
        let uplink = Self {
            limit_bps: AtomicU64::new(UNLIMITED),
            sent: AtomicU64::new(0),
            lent: Arc::default(),
            usage: Usage::new(now),
            gate: Mutex::new(Gate::new(now)),
            turns: Mutex::new(Turns::new(now)),
        };
        uplink.set_limit(limit);
        uplink
    }

    /// Changes the limit (bit/s), at once also for those who wait.
    pub(crate) fn set_limit(&self, limit: Option<u64>) {
        let bps = limit.map_or(UNLIMITED, |bps| bps.min(UNLIMITED - 1));
        self.limit_bps.store(bps, Ordering::Relaxed);
        lock(&self.gate).set_rate(bps);
        let rate = match bps {
            UNLIMITED => None,
            bps => Some(u64::try_from(
                u128::from(bps) * u128::from(TURNS_PERCENT) / 100,
            ))
            .map(|rate| rate.expect("a part of a u64 is one")),
        };
        lock(&self.turns).set_rate(rate);
    }

    /// The limit in bit/s.
    pub(crate) fn limit(&self) -> Option<u64> {
        match self.limit_bps.load(Ordering::Relaxed) {
            UNLIMITED => None,
            bps => Some(bps),
        }
    }

    /// What left this node in the last second (up to 50 ms ago), in bit/s.
    pub(crate) fn used_bps(&self) -> u64 {
        self.usage.last_second(Instant::now()) * 8
    }

    /// Keeps so many bits of one second's upload for a child that catches up, until the
    /// loan is dropped; none if they are not to be had beside what is sent now and what is
    /// kept for others.
    pub(crate) fn borrow(&self, bits: u64) -> Option<Loan> {
        let limit = self.limit_bps.load(Ordering::Relaxed);
        let spare = limit.saturating_sub(self.used_bps());
        let take = |lent: u64| lent.checked_add(bits).filter(|sum| *sum <= spare);
        let taken = self
            .lent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.ok().map(|_| Loan {
            lent: Arc::clone(&self.lent),
            bits,
        })
    }

    /// Waits for leave to write `bytes` for `child`: control, then audio, then video;
    /// within a class the children in turn; for one child the highest `rank` first. It is
    /// paid for when this returns; who is dropped before that leaves the queue.
    pub(crate) async fn acquire(&self, class: Class, child: u64, rank: u64, bytes: usize) {
        if self.limit().is_none() {
            return;
        }
        let place = lock(&self.turns).join(class, child, rank, bytes as u64);
        let waiting = Waiting {
            uplink: self,
            place,
        };
        loop {
            let turn = lock(&self.turns).turn(&waiting.place, Instant::now());
            match turn {
                Turn::Granted => return,
                Turn::At(time) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(time) => {}
                        () = waiting.place.called.notified() => {}
                    }
                }
                Turn::NotYet => waiting.place.called.notified().await,
            }
        }
    }

    /// Bytes sent so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Counts bytes that left this node past the UDP socket (HTTP to other hosts): they
    /// are not held back, but what is sent over QUIC makes room for them.
    pub(crate) fn on_sent_elsewhere(&self, bytes: usize) {
        if self.is_gated() {
            lock(&self.gate).charge(Instant::now(), bytes as u64);
        }
        self.on_sent(bytes);
    }

    /// Counts bytes that the gate let through and the socket took.
    pub(crate) fn on_sent(&self, bytes: usize) {
        let now = Instant::now();
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.usage.add(now, bytes as u64);
        if self.is_gated() {
            lock(&self.turns).on_sent(now, bytes as u64);
        }
    }

    /// Charges `bytes` to the gate if it is open. Who then cannot send gives them back
    /// by [`Uplink::give_back`].
    pub(crate) fn pass(&self, bytes: usize) -> bool {
        if !self.is_gated() {
            return true;
        }
        let now = Instant::now();
        let mut gate = lock(&self.gate);
        let open = gate.opens_at(now).is_none();
        if open {
            gate.charge(now, bytes as u64);
        }
        open
    }

    /// Takes back what [`Uplink::pass`] charged.
    pub(crate) fn give_back(&self, bytes: usize) {
        if self.is_gated() {
            lock(&self.gate).refund(bytes as u64);
        }
    }

    /// When to try the gate again; `None` while it is open.
    pub(crate) fn shut_until(&self) -> Option<Instant> {
        if !self.is_gated() {
            return None;
        }
        let now = Instant::now();
        let opens_at = lock(&self.gate).opens_at(now)?;
        Some(opens_at.min(now + GATE_RECHECK))
    }

    /// Most datagrams to hand to the socket as one, so that they are a small part of what
    /// may be sent at once.
    pub(crate) fn segments_max(&self) -> usize {
        if !self.is_gated() {
            return usize::MAX;
        }
        lock(&self.gate).segments_max()
    }

    /// Whether there is a limit that the socket has to keep. At 0 there is not: a node
    /// that never forwards must still acknowledge and ask.
    fn is_gated(&self) -> bool {
        !matches!(self.limit_bps.load(Ordering::Relaxed), 0 | UNLIMITED)
    }
}

/// Upload that is kept for a child while it catches up.
#[derive(Debug)]
pub(crate) struct Loan {
    lent: Arc<AtomicU64>,
    bits: u64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.lent.fetch_sub(self.bits, Ordering::Relaxed);
    }
}

/// A place in the queue, given up when dropped.
struct Waiting<'a> {
    uplink: &'a Uplink,
    place: turns::Place,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.uplink.turns).leave(&self.place);
    }
}

#[cfg(test)]
mod tests;
