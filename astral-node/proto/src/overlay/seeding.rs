//! Seeding: a stream is offered to another node, which decides whether to carry it.
//!
//! ```text
//!   offerer ── Seed{record} ──► carrier     a supernode with upload to spare, or
//!   offerer ◄── Seeded{reason?} ──          whoever consents to it
//!   offerer ◄── TicketRequest ──            and then as for any other stream
//! ```
//!
//! A carrier receives the stream until it ends, or its owner stops it. One that carries as
//! many as it may lets those go that nobody has been fed from for long.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Overlay;
use super::event::{Change, ConnId, Time, Why};
use crate::ids::{NodeId, StreamId};
use crate::record::{Role, SignedStream};
use crate::wire::control::{Reason, RecordBytes, Seed, Seeded};

/// Streams that are carried for others at one time.
const CARRIED_MAX: usize = 32;
/// A carried stream from which nobody has been fed for so long makes room for another.
const UNUSED: Duration = Duration::from_secs(600);
/// Offers that one peer may make in a second.
const OFFERS_PER_SECOND: u32 = 2;
/// Offers of this node whose answers are remembered.
const OFFERS_MAX: usize = 64;

/// Whose word is enough for this node to carry a stream that it did not ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consent {
    /// Anybody's, while it is a supernode.
    #[default]
    Auto,
    /// Anybody's.
    Always,
    /// Nobody's.
    Never,
}

/// What has become of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedAnswer {
    /// Not answered yet.
    Open,
    /// The stream is carried there.
    Taken,
    /// It is not.
    Refused(Reason),
}

#[derive(Debug)]
struct Offer {
    query: u64,
    sent: bool,
    answer: SeedAnswer,
}

/// What this node offers, and what it carries for others.
#[derive(Debug, Default)]
pub(super) struct Seeding {
    consent: Consent,
    offers: BTreeMap<(NodeId, StreamId), Offer>,
    /// When somebody was last fed from a carried stream, or it was taken.
    used: BTreeMap<StreamId, Time>,
}

impl Overlay {
    pub(super) fn take_consent(&mut self, consent: Consent) {
        self.seeding.consent = consent;
    }

    // The offerer's side

    /// Offers a stream; [`Overlay::seed_answer`] says what comes of it.
    pub(super) fn seed(&mut self, node: NodeId, id: StreamId) {
        self.query_count += 1;
        let offer = Offer {
            query: self.query_count,
            sent: false,
            answer: SeedAnswer::Open,
        };
        let offers = &mut self.seeding.offers;
        offers.insert((node, id), offer);
        if offers.len() > OFFERS_MAX {
            let oldest = offers.iter().min_by_key(|(_, offer)| offer.query);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|key| offers.remove(&key));
        }
        match self.by_node.get(&node).copied() {
            Some(conn) => self.offer_seeds(conn),
            None => {
                let addresses = self.addresses_of(node).to_vec();
                self.meet(node, &addresses, false);
            }
        }
    }

    /// Tells a peer what is offered to it.
    pub(super) fn offer_seeds(&mut self, conn: ConnId) {
        let Some(node) = self.peers.get(&conn).map(|peer| peer.node) else {
            return;
        };
        let mut messages = Vec::new();
        for ((to, id), offer) in &mut self.seeding.offers {
            if *to != node || offer.sent {
                continue;
            }
            let Some(known) = self.records.stream(*id) else {
                continue;
            };
            offer.sent = true;
            messages.push(Seed {
                query: offer.query,
                record: RecordBytes(known.record.wire().clone()),
            });
        }
        for message in messages {
            self.send(conn, message);
        }
    }

    pub(super) fn seed_answered(&mut self, conn: ConnId, seeded: &Seeded) {
        let Some(node) = self.peers.get(&conn).map(|peer| peer.node) else {
            return;
        };
        let of_it = |((to, _), offer): &(&(NodeId, StreamId), &mut Offer)| {
            *to == node && offer.query == seeded.query
        };
        let found = self.seeding.offers.iter_mut().find(of_it);
        let Some(((_, id), offer)) = found else {
            return;
        };
        offer.answer = match seeded.reason {
            Some(reason) => SeedAnswer::Refused(reason),
            None => SeedAnswer::Taken,
        };
        let id = *id;
        self.changed(Change::Stream(id));
    }

    /// What has become of an offer of this node; `None` if none is remembered.
    pub fn seed_answer(&self, node: NodeId, id: StreamId) -> Option<SeedAnswer> {
        let offer = self.seeding.offers.get(&(node, id));
        offer.map(|offer| offer.answer)
    }

    // The carrier's side

    pub(super) fn seed_offered(&mut self, now: Time, conn: ConnId, seed: &Seed) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let reason = if peer.seeds.allows(now, OFFERS_PER_SECOND) {
            self.check_seed(now, conn, seed).err()
        } else {
            Some(Reason::Limit)
        };
        let query = seed.query;
        self.send(conn, Seeded { query, reason });
    }

    /// Takes the stream if it can be carried.
    fn check_seed(&mut self, now: Time, conn: ConnId, seed: &Seed) -> Result<(), Reason> {
        let consents = match self.seeding.consent {
            Consent::Auto => self.role() == Role::Supernode,
            Consent::Always => true,
            Consent::Never => false,
        };
        if self.leaving {
            return Err(Reason::Leaving);
        }
        if !consents {
            return Err(Reason::Unwanted);
        }
        if self.budget.never_forwards() {
            return Err(Reason::NotForwarding);
        }
        let said = SignedStream::glance(&seed.record.0);
        let id = said.ok_or(Reason::NoStream)?.id();
        self.announced(now, conn, std::slice::from_ref(&seed.record));
        if !self.records.is_live(now, id) {
            return Err(Reason::NoStream);
        }
        if self.is_carried(id) || self.streams.get(&id).is_some_and(|s| s.own.is_some()) {
            return Ok(());
        }
        if !self.budget.has_room(self.charge_of(id)) {
            return Err(Reason::Full);
        }
        if !self.has_place_to_carry(now) {
            return Err(Reason::Limit);
        }
        self.want(now, id, Why::Seed);
        // It may be far down the list of those that are asked.
        self.ask(id, conn);
        Ok(())
    }

    fn is_carried(&self, id: StreamId) -> bool {
        let stream = self.streams.get(&id);
        stream.is_some_and(|stream| stream.wanted.contains(&Why::Seed))
    }

    /// Streams that this node carries for others.
    pub fn carried(&self) -> impl Iterator<Item = StreamId> + '_ {
        let carried = self.streams.iter();
        let carried = carried.filter(|(_, stream)| stream.wanted.contains(&Why::Seed));
        carried.map(|(id, _)| *id)
    }

    /// Notes which carried streams somebody is fed from.
    pub(super) fn note_carried(&mut self, now: Time) {
        let carried: Vec<StreamId> = self.carried().collect();
        self.seeding.used.retain(|id, _| carried.contains(id));
        for id in carried {
            let fed = self.children_of(id) > 0;
            let used = self.seeding.used.entry(id).or_insert(now);
            if fed {
                *used = now;
            }
        }
    }

    /// Whether one more can be carried, if need be in place of one that nobody uses.
    fn has_place_to_carry(&mut self, now: Time) -> bool {
        self.note_carried(now);
        if self.seeding.used.len() < CARRIED_MAX {
            return true;
        }
        let oldest = self.seeding.used.iter().min_by_key(|(_, used)| **used);
        match oldest.map(|(id, used)| (*id, *used)) {
            Some((id, used)) if now.since(used) >= UNUSED => {
                self.seeding.used.remove(&id);
                self.unwant(id, Some(Why::Seed));
                true
            }
            _ => false,
        }
    }
}
