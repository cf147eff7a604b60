//! Groups of streams in memory, to forward: every track's part with its frames in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use astral_proto::ids::StreamId;
use astral_proto::record::SignedStream;
use astral_proto::wire::media::FrameHeader;
use bytes::Bytes;
use tokio::sync::watch;

/// Parts that are kept; a test needs the last few seconds.
const PARTS_MAX: usize = 256;

/// Where a part belongs: stream, track, epoch, group.
pub type Name = (StreamId, u8, u32, u64);

/// A frame as it travels.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the publisher says of it.
    pub header: FrameHeader,
    /// The same, signed, with the item's kind and length.
    pub wire: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

/// One track's part of one group.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Catalog version that it needs.
    pub catalog: u32,
    /// Its frames so far.
    pub entries: Vec<Entry>,
    /// Its signed end.
    pub end: Option<Bytes>,
    /// Nothing more will come.
    pub over: bool,
}

#[derive(Default)]
struct Held {
    records: BTreeMap<StreamId, SignedStream>,
    parts: BTreeMap<Name, Part>,
}

/// What a peer holds.
#[derive(Clone)]
pub struct Shelf {
    held: Arc<Mutex<Held>>,
    changed: watch::Sender<u64>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            held: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told of every change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self, edit: impl FnOnce(&mut Held)) {
        edit(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Keeps a stream's newest record.
    pub fn record(&self, record: SignedStream) {
        self.change(|held| {
            let id = record.value().id();
            let known = held.records.get(&id).map(|known| known.value().seq);
            if known.is_none_or(|seq| seq < record.value().seq) {
                held.records.insert(id, record);
            }
        });
    }

    /// All records.
    pub fn records(&self) -> Vec<SignedStream> {
        self.lock().records.values().cloned().collect()
    }

    /// A stream's record.
    pub fn record_of(&self, stream: StreamId) -> Option<SignedStream> {
        self.lock().records.get(&stream).cloned()
    }

    /// Opens a part.
    pub fn open(&self, name: Name, catalog: u32) {
        self.change(|held| {
            held.parts.entry(name).or_default().catalog = catalog;
            while held.parts.len() > PARTS_MAX {
                let oldest = held.parts.keys().min_by_key(|name| (name.1 == 0, name.3));
                let oldest = *oldest.expect("it is not empty");
                held.parts.remove(&oldest);
            }
        });
    }

    /// Adds a frame to a part.
    pub fn push(&self, name: Name, entry: Entry) {
        self.change(|held| held.parts.entry(name).or_default().entries.push(entry));
    }

    /// Ends a part, with its signed end if there is one.
    pub fn end(&self, name: Name, end: Option<Bytes>) {
        self.change(|held| {
            let part = held.parts.entry(name).or_default();
            part.end = part.end.take().or(end);
            part.over = true;
        });
    }

    /// The names of a stream's parts, oldest group first.
    pub fn names(&self, stream: StreamId) -> Vec<Name> {
        let held = self.lock();
        let mut names: Vec<Name> = held
            .parts
            .keys()
            .filter(|name| name.0 == stream)
            .copied()
            .collect();
        names.sort_unstable_by_key(|name| (name.2, name.3, name.1));
        names
    }

    /// Catalog version of a part.
    pub fn catalog_of(&self, name: Name) -> u32 {
        self.lock().parts.get(&name).map_or(0, |part| part.catalog)
    }

    /// A frame of a part: the frame, or none yet and whether the part is over.
    pub fn entry(&self, name: Name, index: usize) -> Result<Entry, Option<Option<Bytes>>> {
        let held = self.lock();
        let Some(part) = held.parts.get(&name) else {
            return Err(Some(None));
        };
        match part.entries.get(index) {
            Some(entry) => Ok(entry.clone()),
            None if part.over => Err(Some(part.end.clone())),
            None => Err(None),
        }
    }

    /// Some frame for which `wanted` holds.
    pub fn find(&self, wanted: impl Fn(&Name, &Entry) -> bool) -> Option<Entry> {
        let held = self.lock();
        let mut all = held
            .parts
            .iter()
            .flat_map(|(name, part)| part.entries.iter().map(move |entry| (name, entry)));
        all.find(|(name, entry)| wanted(name, entry))
            .map(|(_, entry)| entry.clone())
    }

    /// Some signed group end for which `wanted` holds.
    pub fn find_end(&self, wanted: impl Fn(&Name) -> bool) -> Option<Bytes> {
        let held = self.lock();
        let mut all = held.parts.iter().filter(|(name, _)| wanted(name));
        all.find_map(|(_, part)| part.end.clone())
    }
}
