//! Records of one kind: leases, order, and bounds.
//!
//! A row is kept for [`REMEMBERED_MS`] after its lease, so that a record which was
//! replaced, withdrawn or forgotten by its owner cannot be played back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use astral_proto::record::{Record, SignedRecord};
use uuid::Uuid;

use super::Refusal;

/// How long a record counts from first sight of its `seq`, in milliseconds; nodes
/// renew at a third of it (DESIGN §7).
pub(crate) const LEASE_MS: u64 = 30_000;
/// How long the highest `seq` is remembered after its lease, in milliseconds (DESIGN §3).
const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;
/// Rows of a table: at most 4 KiB each, so 400 MB if a stranger filled it to the brim.
const ROWS_MAX: usize = 100_000;

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

/// A record and what is known of it here. Times are Unix milliseconds.
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

impl<T: Kind> Row<T> {
    pub(crate) fn is_live(&self, now: u64) -> bool {
        now < self.expires && !self.record.value().is_tombstone()
    }
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
    by_name: BTreeSet<(String, Uuid)>,
    by_expiry: BTreeSet<(u64, Uuid)>,
    by_prefix: BTreeSet<(Prefix, Uuid)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            by_name: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            by_prefix: BTreeSet::new(),
        }
    }
}

impl<T: Kind> Table<T> {
    pub(crate) fn row(&self, id: Uuid) -> Option<&Row<T>> {
        self.rows.get(&id)
    }

    /// Live rows by name, then id, from behind `after`.
    pub(crate) fn live_after(
        &self,
        after: Option<(String, Uuid)>,
        now: u64,
    ) -> impl Iterator<Item = &Row<T>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let ids = self.by_name.range((from, Unbounded));
        ids.filter_map(|(_, id)| self.rows.get(id))
            .filter(move |row| row.is_live(now))
    }

    /// Takes a record in at `now` from a caller of `prefix`; gives the ids of rows that had
    /// to go for it.
    ///
    /// # Errors
    /// It is not newer than what is known, or there is no room.
    pub(crate) fn submit(
        &mut self,
        record: SignedRecord<T>,
        prefix: Prefix,
        now: u64,
    ) -> Result<(Taken, Vec<Uuid>), Refusal> {
        let mut gone = self.forget(now);
        let id = record.value().uuid();
        let known = self.rows.get(&id);
        if known.is_some_and(|row| record.value().seq() <= row.record.value().seq()) {
            return Err(Refusal::Stale);
        }
        let was_live = known.is_some_and(|row| row.is_live(now));
        let since = known
            .filter(|row| row.record.value().name() == record.value().name())
            .map_or(now, |row| row.since);
        if !record.value().is_tombstone() && prefix.is_some() {
            let others = self
                .by_prefix
                .range((prefix, Uuid::nil())..=(prefix, Uuid::max()));
            let live = others
                .filter(|(_, other)| *other != id && self.rows[other].is_live(now))
                .take(T::PER_PREFIX)
                .count();
            if live == T::PER_PREFIX {
                return Err(Refusal::Crowded(T::PER_PREFIX));
            }
        }
        if known.is_none() && self.rows.len() >= ROWS_MAX {
            match self.by_expiry.first() {
                Some(&(expires, oldest)) if expires <= now => {
                    self.remove(oldest);
                    gone.push(oldest);
                }
                Some(_) | None => return Err(Refusal::Full),
            }
        }
        self.insert(Row {
            record,
            since,
            renewed: now,
            expires: now + LEASE_MS,
            prefix,
        });
        let taken = if was_live { Taken::Renewed } else { Taken::New };
        Ok((taken, gone))
    }

    /// Puts a row in the place of the one of its id.
    pub(crate) fn insert(&mut self, row: Row<T>) {
        let id = row.record.value().uuid();
        self.remove(id);
        self.by_name
            .insert((row.record.value().name().to_owned(), id));
        self.by_expiry.insert((row.expires, id));
        self.by_prefix.insert((row.prefix, id));
        self.rows.insert(id, row);
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(row) = self.rows.remove(&id) {
            self.by_name
                .remove(&(row.record.value().name().to_owned(), id));
            self.by_expiry.remove(&(row.expires, id));
            self.by_prefix.remove(&(row.prefix, id));
        }
    }

    fn forget(&mut self, now: u64) -> Vec<Uuid> {
        let mut gone = Vec::new();
        while let Some(&(expires, id)) = self.by_expiry.first() {
            if expires + REMEMBERED_MS > now {
                break;
            }
            self.remove(id);
            gone.push(id);
        }
        gone
    }
}
