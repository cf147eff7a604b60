//! Encoders' connections, and how their media become signed frames in the store.
//!
//! ```text
//!  frames ─┐
//!  rtmp   ─┤  SourceEvent              slot          marks durable
//!  http   ─┴──────────► Session ─► Segmenter ─► Publisher ─► sign ─► StreamStore
//!                          ▲                        ▲
//!                 Registry: by stream key           └ one per stream, outlives its sessions
//! ```
//!
//! **The slot** (DESIGN §4). One session at a time publishes a stream. A new one takes
//! the slot only when it has sent a configuration and a keyframe; until then, and if
//! it fails, the running one is untouched. See [`slot`].
//!
//! **One timeline.** Numbers and times go on from session to session exactly where the
//! last frame ended, and after a crash from the durable marks. See [`publisher`].
//!
//! Nothing here knows peers, records or the API: what the rest of the node has to know
//! about an encoder is in [`SourceState`].

pub(crate) mod frames;
pub(crate) mod http;
mod publisher;
pub(crate) mod rtmp;
mod session;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use astral_media::catalog::Catalog;
use astral_media::track::Track;
use astral_proto::ids::StreamId;
use astral_proto::record::{StreamState, TrackSummary};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lock::lock;
use crate::storage::{Marks, OwnStream, Storage};
use crate::store::StreamStore;
use publisher::Publisher;
pub(crate) use session::{Session, SessionError};
use slot::Slot;

/// Sessions of one stream at a time: the running one, its successor, and one that
/// went wrong. More are encoders left running by mistake.
const SESSIONS_PER_STREAM: usize = 4;
/// Time without a byte after which an encoder is taken for gone. Encoders that stall
/// for 10 s and go on are usual.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// Makes marks durable; called on a thread that may block.
pub(crate) type RaiseMarks =
    Arc<dyn Fn(StreamId, Marks) -> Result<(), MarksError> + Send + Sync + 'static>;

/// Marks could not be made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot note what is about to be signed: {0}")]
pub(crate) struct MarksError(pub(crate) String);

/// Why an encoder may not publish, in words for whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No stream of this node has the key.
    #[error("Unknown stream key. Copy it again from this node's publish page.")]
    UnknownKey,
    /// Another encoder took over from this address a moment ago, and is sending.
    #[error("Another encoder has taken over this stream. Stop it first, or wait {} s.", .0.as_secs() + 1)]
    Replaced(Duration),
    /// Too many encoders try to send this stream.
    #[error("Too many encoders are connected to this stream. Stop the others first.")]
    TooMany,
}

/// What the rest of the node has to know about a stream's encoder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceState {
    /// An encoder holds the slot and the stream is not paused: media are coming.
    pub(crate) live: bool,
    /// The last encoder said that it was over, or was told so; else it may come back.
    pub(crate) ended: bool,
    /// Current epoch; 0 before the first of this run.
    pub(crate) epoch: u32,
    /// Tracks of the current epoch.
    pub(crate) tracks: Vec<TrackSummary>,
    /// Bit/s as the catalog declares it, once it is known.
    pub(crate) bitrate_bps: Option<u64>,
}

/// This node's own streams by stream key; a clone is the same registry.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Shared>);

struct Shared {
    raise_marks: RaiseMarks,
    streams: Mutex<BTreeMap<StreamId, Own>>,
}

struct Own {
    stream_key: String,
    entry: Arc<Entry>,
}

/// One stream, as its sessions share it.
struct Entry {
    id: StreamId,
    raise_marks: RaiseMarks,
    inner: Mutex<Inner>,
    state: watch::Sender<SourceState>,
}

struct Inner {
    publisher: Publisher,
    slot: Slot,
    sessions: usize,
    paused: bool,
    /// Pauses so far.
    pauses: u64,
    removed: bool,
}

impl Registry {
    /// A registry without streams, whose marks go to `raise_marks`.
    pub(crate) fn new(raise_marks: RaiseMarks) -> Self {
        Self(Arc::new(Shared {
            raise_marks,
            streams: Mutex::default(),
        }))
    }

    /// A registry whose marks are kept in `storage`.
    pub(crate) fn durable(storage: Storage) -> Self {
        Self::new(Arc::new(move |id, marks| {
            let raised = storage.raise_marks(id, marks);
            raised.map_err(|error| MarksError(error.to_string()))
        }))
    }

    /// Adds a stream, or takes over a change of its stream key. Its numbers go on behind
    /// its marks: whatever was signed before stays below them.
    pub(crate) fn insert(&self, stream: OwnStream, store: Arc<StreamStore>) {
        let id = stream.id();
        let stream_key = stream.stream_key.clone();
        let mut streams = lock(&self.0.streams);
        if let Some(own) = streams.get_mut(&id) {
            own.stream_key = stream_key;
            return;
        }
        let entry = Arc::new(Entry {
            id,
            raise_marks: Arc::clone(&self.0.raise_marks),
            inner: Mutex::new(Inner {
                paused: stream.paused,
                publisher: Publisher::new(&stream, store),
                slot: Slot::default(),
                sessions: 0,
                pauses: 0,
                removed: false,
            }),
            state: watch::Sender::default(),
        });
        entry.lock().show_state(&entry.state);
        streams.insert(id, Own { stream_key, entry });
    }

    /// Ends a stream: its encoder is told, and its store is `Ended`.
    pub(crate) fn remove(&self, id: StreamId) {
        let own = lock(&self.0.streams).remove(&id);
        if let Some(own) = own {
            let mut inner = own.entry.lock();
            inner.removed = true;
            inner.publisher.close();
            inner.slot.clear();
            inner.show_state(&own.entry.state);
        }
    }

    /// Holds a stream back, or lets it go on. The encoder stays connected; nothing is
    /// signed or stored while paused, and the stream resumes in a new epoch with the
    /// encoder's next keyframe.
    pub(crate) fn set_paused(&self, id: StreamId, paused: bool) {
        if let Some(entry) = self.entry(id) {
            let mut inner = entry.lock();
            inner.paused = paused;
            if paused {
                inner.pauses += 1;
                inner.publisher.close();
            }
            inner.show_state(&entry.state);
        }
    }

    /// Lets an encoder begin with this stream key.
    ///
    /// # Errors
    /// [`Refusal`], with words for the encoder's user.
    pub(crate) fn open(&self, stream_key: &str, from: SocketAddr) -> Result<Session, Refusal> {
        let entry = self.by_key(stream_key).ok_or(Refusal::UnknownKey)?;
        {
            let mut inner = entry.lock();
            if let Some(wait) = inner.slot.refuses(from.ip(), Instant::now()) {
                return Err(Refusal::Replaced(wait));
            }
            if inner.sessions >= SESSIONS_PER_STREAM {
                return Err(Refusal::TooMany);
            }
            inner.sessions += 1;
        }
        Ok(Session::new(entry, from))
    }

    /// What is known about a stream's encoder; none if the stream is not here.
    pub(crate) fn state(&self, id: StreamId) -> Option<watch::Receiver<SourceState>> {
        Some(self.entry(id)?.state.subscribe())
    }

    fn entry(&self, id: StreamId) -> Option<Arc<Entry>> {
        let streams = lock(&self.0.streams);
        streams.get(&id).map(|own| Arc::clone(&own.entry))
    }

    /// Looks at all keys, and at all of each: how long it takes says nothing about them.
    fn by_key(&self, stream_key: &str) -> Option<Arc<Entry>> {
        let streams = lock(&self.0.streams);
        let mut found = None;
        for own in streams.values() {
            if is_same_secret(&own.stream_key, stream_key) {
                found = Some(Arc::clone(&own.entry));
            }
        }
        found
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    /// Tells everyone where the stream stands.
    fn show_state(&self, state: &watch::Sender<SourceState>) {
        let catalog = self.publisher.catalog();
        let has_source = self.slot.is_taken();
        let now = SourceState {
            live: has_source && !self.paused && !self.removed,
            ended: !has_source && self.slot.ended_cleanly(),
            epoch: catalog.map_or(0, |catalog| catalog.epoch),
            tracks: catalog.map_or(Vec::new(), summaries),
            bitrate_bps: catalog.and_then(|catalog| catalog.bitrate_bps.map(u64::from)),
        };
        self.publisher.store().set_state(match &now {
            _ if self.removed => StreamState::Ended,
            _ if self.paused => StreamState::Paused,
            now if now.live => StreamState::Live,
            _ => StreamState::Waiting,
        });
        state.send_if_modified(|before| {
            let is_new = *before != now;
            *before = now;
            is_new
        });
    }
}

fn summaries(catalog: &Catalog) -> Vec<TrackSummary> {
    catalog.tracks.iter().map(summary).collect()
}

fn summary(track: &Track) -> TrackSummary {
    let codec = track.config.codec_string();
    let (size, sound) = (track.config.size(), track.config.sound());
    TrackSummary {
        id: track.id,
        codec,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        sample_rate: sound.map(|(sample_rate, _)| sample_rate),
        channels: sound.map(|(_, channels)| channels),
    }
}

fn is_same_secret(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).map(|(a, b)| a ^ b);
    a.len() == b.len() && differences.fold(0, |all, one| all | one) == 0
}
