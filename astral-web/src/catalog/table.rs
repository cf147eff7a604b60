//! Records of one kind: leases, order, and bounds.
//!
//! Two parts: *live* rows, with the indexes that lists are read from, and *marks*: the
//! highest `seq` of what is gone, kept for [`REMEMBERED_MS`], so that a record which was
//! replaced, withdrawn or forgotten by its owner cannot be played back. Reading costs
//! what is shown, not what is remembered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use astral_proto::ids::sha256;
use astral_proto::record::{Record, SignedRecord};
use uuid::Uuid;

use super::Refusal;

/// How long a record counts from first sight of its `seq`, in milliseconds; nodes
/// renew at a third of it (DESIGN §7).
pub(crate) const LEASE_MS: u64 = 30_000;
/// How long the highest `seq` is remembered after its lease, in milliseconds (DESIGN §3).
pub(crate) const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;
/// Live rows of a table: at most 4 KiB each, so 200 MB if strangers of 800 networks filled
/// it to the brim.
const ROWS_MAX: usize = 50_000;
/// Marks of a table, about 150 bytes each; beyond that the oldest is forgotten.
const MARKS_MAX: usize = 200_000;

/// What a table must know of a record.
pub(crate) trait Kind: Record {
    /// Live records that the callers of one prefix may have.
    const PER_PREFIX: usize;
    /// The id that its key gives.
    fn uuid(&self) -> Uuid;
    /// Order among the records of one id.
    fn seq(&self) -> u64;
    /// What lists are ordered by.
    fn name(&self) -> &str;
    /// Whether its owner has withdrawn it.
    fn is_tombstone(&self) -> bool;
    /// What comes first where only some are shown.
    fn rank(&self) -> u64;
    /// What it can be found by besides its id.
    fn slug(&self) -> Option<String>;
}

/// The network that a caller is counted under: /24, or /48 of IPv6. `None` is loopback,
/// where limits by address would only hit one's own machine.
pub(crate) type Prefix = Option<[u8; 7]>;

/// The prefix of a canonical address.
pub(crate) fn prefix(ip: IpAddr) -> Prefix {
    let mut bytes = [0; 7];
    match ip {
        _ if ip.is_loopback() => return None,
        IpAddr::V4(ip) => {
            bytes[0] = 4;
            bytes[1..4].copy_from_slice(&ip.octets()[..3]);
        }
        IpAddr::V6(ip) => {
            bytes[0] = 6;
            bytes[1..].copy_from_slice(&ip.octets()[..6]);
        }
    }
    Some(bytes)
}

/// A row's place in the order of a list: its name, then its id.
pub(crate) type Place = (String, Uuid);

/// A live record and what is known of it here. Times are Unix milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Row<T> {
    pub(crate) record: SignedRecord<T>,
    /// When the id was first seen under its present name.
    pub(crate) since: u64,
    /// When this `seq` came.
    pub(crate) renewed: u64,
    /// End of the lease.
    pub(crate) expires: u64,
    pub(crate) prefix: Prefix,
}

/// What is left of a record that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    /// As a row's.
    pub(crate) since: u64,
    /// Digest of the name that `since` is about.
    pub(crate) name: u64,
    /// When it is forgotten.
    pub(crate) until: u64,
}

/// A name's digest: a mark need not keep 100 characters of four bytes.
pub(crate) fn digest(name: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&sha256(name.as_bytes())[..8]);
    u64::from_be_bytes(bytes)
}

/// What is known of an id, for whoever keeps it.
pub(crate) enum Entry<'a, T> {
    Live(&'a Row<T>),
    Gone(Mark),
    Unknown,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    New,
    Renewed,
}

/// All records of one kind.
#[derive(Debug)]
pub(crate) struct Table<T> {
    rows: BTreeMap<Uuid, Row<T>>,
    by_name: BTreeSet<Place>,
    by_rank: BTreeSet<(Reverse<u64>, Uuid)>,
    by_slug: BTreeSet<(String, u64, Uuid)>,
    by_prefix: BTreeSet<(Prefix, Uuid)>,
    by_expiry: BTreeSet<(u64, Uuid)>,
    marks: BTreeMap<Uuid, Mark>,
    by_end: BTreeSet<(u64, Uuid)>,
    changed: BTreeSet<Uuid>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            by_name: BTreeSet::new(),
            by_rank: BTreeSet::new(),
            by_slug: BTreeSet::new(),
            by_prefix: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            marks: BTreeMap::new(),
            by_end: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }
}

impl<T: Kind> Table<T> {
    /// How many are live, as of the last [`Self::expire`].
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many are remembered.
    pub(crate) fn marks(&self) -> usize {
        self.marks.len()
    }

    pub(crate) fn row(&self, id: Uuid) -> Option<&Row<T>> {
        self.rows.get(&id)
    }

    pub(crate) fn entry(&self, id: Uuid) -> Entry<'_, T> {
        match (self.rows.get(&id), self.marks.get(&id)) {
            (Some(row), _) => Entry::Live(row),
            (None, Some(mark)) => Entry::Gone(*mark),
            (None, None) => Entry::Unknown,
        }
    }

    /// Rows by name, then id, from behind `after`.
    pub(crate) fn after(&self, after: Option<Place>) -> impl Iterator<Item = &Row<T>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let places = self.by_name.range((from, Unbounded));
        places.filter_map(|(_, id)| self.rows.get(id))
    }

    /// Rows by rank, the highest first, down to `least`.
    pub(crate) fn ranked(&self, least: u64) -> impl Iterator<Item = &Row<T>> {
        let places = self.by_rank.range(..=(Reverse(least), Uuid::max()));
        places.filter_map(|(_, id)| self.rows.get(id))
    }

    /// Rows of a slug, the one seen first coming first.
    pub(crate) fn of_slug<'a>(
        &'a self,
        slug: &str,
    ) -> impl Iterator<Item = &'a Row<T>> + use<'a, T> {
        let slug = slug.to_owned();
        let places = self.by_slug.range((slug.clone(), 0, Uuid::nil())..);
        let places = places.take_while(move |(other, _, _)| *other == slug);
        places.filter_map(|(_, _, id)| self.rows.get(id))
    }

    /// Takes a record in at `now` from a caller of `prefix`.
    ///
    /// # Errors
    /// It is not newer than what is known, or there is no room.
    pub(crate) fn submit(
        &mut self,
        record: SignedRecord<T>,
        prefix: Prefix,
        now: u64,
    ) -> Result<Taken, Refusal> {
        self.expire(now);
        let (id, seq) = (record.value().uuid(), record.value().seq());
        let known = match self.entry(id) {
            Entry::Live(row) => {
                let value = row.record.value();
                Some((value.seq(), row.since, digest(value.name())))
            }
            Entry::Gone(mark) => Some((mark.seq, mark.since, mark.name)),
            Entry::Unknown => None,
        };
        if known.is_some_and(|(newest, _, _)| seq <= newest) {
            return Err(Refusal::Stale);
        }
        let name = digest(record.value().name());
        let since = known.filter(|(_, _, old)| *old == name);
        let since = since.map_or(now, |(_, since, _)| since);
        let was_live = self.rows.contains_key(&id);
        if record.value().is_tombstone() {
            // Of strangers' tombstones for what was never here, nothing needs to stay long.
            let until = now + LEASE_MS + if known.is_some() { REMEMBERED_MS } else { 0 };
            self.remove(id);
            self.mark(
                id,
                Mark {
                    seq,
                    since,
                    name,
                    until,
                },
            );
            return Ok(if was_live { Taken::Renewed } else { Taken::New });
        }
        self.room(id, prefix)?;
        self.insert(Row {
            record,
            since,
            renewed: now,
            expires: now + LEASE_MS,
            prefix,
        });
        Ok(if was_live { Taken::Renewed } else { Taken::New })
    }

    /// Whether there is a place for this id among those of its network, and among all.
    fn room(&self, id: Uuid, prefix: Prefix) -> Result<(), Refusal> {
        if prefix.is_some() {
            let places = (prefix, Uuid::nil())..=(prefix, Uuid::max());
            let others = self
                .by_prefix
                .range(places)
                .filter(|(_, other)| *other != id);
            if others.take(T::PER_PREFIX).count() == T::PER_PREFIX {
                return Err(Refusal::Crowded(T::PER_PREFIX));
            }
        }
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&id) {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Puts a row in the place of all that is known of its id.
    pub(crate) fn insert(&mut self, row: Row<T>) {
        let value = row.record.value();
        let (id, name) = (value.uuid(), value.name().to_owned());
        let (rank, slug) = (Reverse(value.rank()), value.slug());
        self.remove(id);
        self.unmark(id);
        self.by_name.insert((name, id));
        self.by_rank.insert((rank, id));
        self.by_slug.extend(slug.map(|slug| (slug, row.since, id)));
        self.by_prefix.insert((row.prefix, id));
        self.by_expiry.insert((row.expires, id));
        self.rows.insert(id, row);
        self.changed.insert(id);
    }

    /// Remembers what is gone.
    pub(crate) fn mark(&mut self, id: Uuid, mark: Mark) {
        self.unmark(id);
        if self.marks.len() >= MARKS_MAX
            && let Some((_, oldest)) = self.by_end.pop_first()
        {
            self.marks.remove(&oldest);
            self.changed.insert(oldest);
        }
        self.marks.insert(id, mark);
        self.by_end.insert((mark.until, id));
        self.changed.insert(id);
    }

    /// Lets go of what is over at `now`.
    pub(crate) fn expire(&mut self, now: u64) {
        while let Some(&(expires, id)) = self.by_expiry.first()
            && expires <= now
        {
            if let Some(row) = self.remove(id) {
                let value = row.record.value();
                let mark = Mark {
                    seq: value.seq(),
                    since: row.since,
                    name: digest(value.name()),
                    until: expires + REMEMBERED_MS,
                };
                self.mark(id, mark);
            }
        }
        while let Some(&(until, id)) = self.by_end.first()
            && until <= now
        {
            self.unmark(id);
            self.changed.insert(id);
        }
    }

    /// The ids whose entries are not as they were when this was asked last.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Uuid> {
        std::mem::take(&mut self.changed)
    }

    fn remove(&mut self, id: Uuid) -> Option<Row<T>> {
        let row = self.rows.remove(&id)?;
        let value = row.record.value();
        self.by_name.remove(&(value.name().to_owned(), id));
        self.by_rank.remove(&(Reverse(value.rank()), id));
        if let Some(slug) = value.slug() {
            self.by_slug.remove(&(slug, row.since, id));
        }
        self.by_prefix.remove(&(row.prefix, id));
        self.by_expiry.remove(&(row.expires, id));
        Some(row)
    }

    fn unmark(&mut self, id: Uuid) {
        if let Some(mark) = self.marks.remove(&id) {
            self.by_end.remove(&(mark.until, id));
        }
    }
}
