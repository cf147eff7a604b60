//! One encoder's connection, whatever protocol it speaks.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use astral_media::segmenter::{SegmentError, Segmented, Segmenter, Start, Wall};
use astral_media::source::{SourceEvent, SourceTrack};
use astral_proto::ids::StreamId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::publisher::Prepared;
use super::{Entry, Inner, MarksError, SourceState};
use crate::storage::Marks;
use crate::store::StoreError;

/// Why an encoder's session is over, in words for whoever runs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// Another encoder has taken the slot.
    #[error("Another encoder has taken over this stream.")]
    Replaced,
    /// The stream was ended on this node.
    #[error("This stream has been ended.")]
    Removed,
    /// What it sends cannot be sent on.
    #[error("{0}")]
    Unsupported(String),
    /// This node could not do its part.
    #[error("This node cannot take the stream: {0}")]
    Failed(String),
}

impl From<SegmentError> for SessionError {
    fn from(error: SegmentError) -> Self {
        Self::Unsupported(error.to_string())
    }
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<MarksError> for SessionError {
    fn from(error: MarksError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// One encoder's connection. Dropping it is an unclean end: the encoder may come back.
pub(crate) struct Session {
    entry: Arc<Entry>,
    number: u64,
    from: SocketAddr,
    replaced: CancellationToken,
    has_slot: bool,
    segmenter: Option<Segmenter>,
    /// The newest configurations, for the segmenter after a pause.
    tracks: BTreeMap<u32, SourceTrack>,
    raising: Option<JoinHandle<Result<Marks, MarksError>>>,
    /// The stream's count of pauses when the segmenter was made.
    pauses: u64,
    released: bool,
}

/// Configurations remembered for the time after a pause; more tracks than this are not sent on.
const TRACKS_MAX: usize = 16;

impl Session {
    pub(super) fn new(entry: Arc<Entry>, from: SocketAddr) -> Self {
        let (number, pauses) = {
            let mut inner = entry.lock();
            (inner.slot.number_session(), inner.pauses)
        };
        Self {
            entry,
            number,
            from,
            replaced: CancellationToken::new(),
            has_slot: false,
            segmenter: None,
            tracks: BTreeMap::new(),
            raising: None,
            pauses,
            released: false,
        }
    }

    /// Takes the next event of the source: named, signed and stored when this returns.
    /// Not cancel safe: what was under way would be missing.
    ///
    /// # Errors
    /// [`SessionError`]: the encoder is to be told and disconnected.
    pub(crate) async fn push(&mut self, event: SourceEvent) -> Result<(), SessionError> {
        if let SourceEvent::Track(track) = &event
            && (self.tracks.len() < TRACKS_MAX || self.tracks.contains_key(&track.id))
        {
            self.tracks.insert(track.id, track.clone());
        }
        if self.is_held()? {
            return Ok(());
        }
        let mut items = VecDeque::new();
        let mut segmenter = self.take_segmenter(&mut items)?;
        items.extend(segmenter.push(wall_now(), event)?);
        if !self.has_slot && segmenter.ready() {
            let start = self.take_slot()?;
            items.extend(segmenter.begin(start)?);
        }
        self.segmenter = Some(segmenter);
        self.publish(items).await
    }

    /// Ends the session; `clean` if the encoder said that it was over.
    pub(crate) async fn finish(mut self, clean: bool) {
        if self.has_slot
            && self.is_held() == Ok(false)
            && let Some(mut segmenter) = self.segmenter.take()
        {
            // Who has been replaced meanwhile has nothing to end any more.
            let _ = self.publish(segmenter.finish().into()).await;
        }
        self.release(clean);
    }

    /// The stream that this session publishes.
    pub(crate) fn stream(&self) -> StreamId {
        self.entry.id
    }

    /// Where the stream stands.
    pub(crate) fn state(&self) -> watch::Receiver<SourceState> {
        self.entry.state.subscribe()
    }

    /// Cancelled when the session is over from this side; [`Self::over`] says why.
    pub(crate) fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }

    /// Why the session was ended from this side.
    pub(crate) fn over(&self) -> SessionError {
        match self.entry.lock().removed {
            true => SessionError::Removed,
            false => SessionError::Replaced,
        }
    }

    fn check(&self, inner: &mut Inner) -> Result<(), SessionError> {
        let holds = inner.slot.holds(self.number, Instant::now());
        match inner.removed {
            true => Err(SessionError::Removed),
            false if self.has_slot && !holds => Err(SessionError::Replaced),
            false => Ok(()),
        }
    }

    /// Whether the stream is paused. A pause ended the group that the segmenter was in,
    /// so that what comes after it needs a new one.
    fn is_held(&mut self) -> Result<bool, SessionError> {
        let (paused, pauses) = {
            let mut inner = self.entry.lock();
            self.check(&mut inner)?;
            (inner.paused, inner.pauses)
        };
        if paused || pauses != self.pauses {
            self.segmenter = None;
            self.pauses = pauses;
        }
        Ok(paused)
    }

    /// The segmenter of this session, or a new one: at the session's start, or after a
    /// pause, when what is known of the tracks is told again.
    fn take_segmenter(
        &mut self,
        items: &mut VecDeque<Segmented>,
    ) -> Result<Segmenter, SessionError> {
        if let Some(segmenter) = self.segmenter.take() {
            return Ok(segmenter);
        }
        let (options, start) = {
            let inner = self.entry.lock();
            (inner.publisher.options(), inner.publisher.next_start())
        };
        let mut segmenter = match self.has_slot {
            true => Segmenter::new(start, options),
            false => Segmenter::waiting(options),
        };
        for track in self.tracks.values() {
            items.extend(segmenter.push(wall_now(), SourceEvent::Track(track.clone()))?);
        }
        Ok(segmenter)
    }

    fn take_slot(&mut self) -> Result<Start, SessionError> {
        let now = Instant::now();
        let mut inner = self.entry.lock();
        self.check(&mut inner)?;
        if inner.slot.refuses(self.from.ip(), now).is_some() {
            return Err(SessionError::Replaced);
        }
        inner.publisher.close();
        let replaced = self.replaced.clone();
        inner.slot.take(self.number, self.from, replaced, now);
        inner.show_state(&self.entry.state);
        let start = inner.publisher.next_start();
        drop(inner);
        self.has_slot = true;
        Ok(start)
    }

    async fn publish(&mut self, items: VecDeque<Segmented>) -> Result<(), SessionError> {
        for item in items {
            let item = Prepared::new(item);
            while let Some(marks) = self.needs(&item)? {
                self.raise(marks).await?;
            }
            match self.commit(item)? {
                Committed::Held => return Ok(()),
                Committed::Stored(None) => {}
                Committed::Stored(Some(marks)) if self.raising.is_none() => {
                    self.start_raising(marks)
                }
                Committed::Stored(Some(_)) => self.note_raised().await?,
            }
        }
        Ok(())
    }

    /// The marks that this item still waits for.
    fn needs(&self, item: &Prepared) -> Result<Option<Marks>, SessionError> {
        let mut inner = self.entry.lock();
        self.check(&mut inner)?;
        Ok(inner.publisher.needs(item.item()))
    }

    /// Signs and stores an item whose marks are durable.
    fn commit(&self, item: Prepared) -> Result<Committed, SessionError> {
        let mut inner = self.entry.lock();
        self.check(&mut inner)?;
        if inner.paused || inner.pauses != self.pauses {
            return Ok(Committed::Held);
        }
        let is_catalog = matches!(item.item(), Segmented::Catalog(_));
        inner.publisher.publish(item)?;
        if is_catalog {
            inner.show_state(&self.entry.state);
        }
        Ok(Committed::Stored(inner.publisher.would_like()))
    }

    /// Waits for the raising that is under way, else for one of these marks.
    async fn raise(&mut self, marks: Marks) -> Result<(), SessionError> {
        if self.raising.is_none() {
            self.start_raising(marks);
        }
        let Some(raising) = self.raising.take() else {
            return Ok(());
        };
        let raised = raising
            .await
            .map_err(|error| MarksError(error.to_string()))??;
        self.entry.lock().publisher.raised(raised);
        Ok(())
    }

    /// Takes note of a raising that is done.
    async fn note_raised(&mut self) -> Result<(), SessionError> {
        match &self.raising {
            Some(raising) if raising.is_finished() => self.raise(Marks::default()).await,
            Some(_) | None => Ok(()),
        }
    }

    fn start_raising(&mut self, marks: Marks) {
        let (id, raise) = (self.entry.id, Arc::clone(&self.entry.raise_marks));
        self.raising = Some(tokio::task::spawn_blocking(move || {
            raise(id, marks).map(|()| marks)
        }));
    }

    fn release(&mut self, clean: bool) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        let mut inner = self.entry.lock();
        inner.sessions -= 1;
        if inner.slot.release(self.number, clean) {
            inner.publisher.close();
            inner.show_state(&self.entry.state);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.release(false);
    }
}

/// What became of an item.
enum Committed {
    /// It is stored; these marks should be raised meanwhile.
    Stored(Option<Marks>),
    /// The stream has been paused: nothing of this session's segmenter counts any more.
    Held,
}

fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Wall {
        unix_ms: since.map_or(0, |since| since.as_millis() as u64),
    }
}
