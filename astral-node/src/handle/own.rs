//! This node's own streams: made, kept, signed anew, paused, ended.

use std::sync::Arc;
use std::time::Duration;

use astral_proto::api;
use astral_proto::ids::{SecretKey, StreamId};
use astral_proto::overlay::Event;
use astral_proto::record::{SignedStream, StreamRecord, StreamState};
use astral_proto::slug::{check_name, slug_of};
use astral_proto::wire::heartbeat::Supply;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{ApiError, Handle, lock};
use crate::ingest::SourceState;
use crate::node::{random_seed, unix_ms};
use crate::storage::OwnStream;
use crate::store::StreamStore;

/// A record is signed anew this often: a third of its lease.
const RENEW: Duration = Duration::from_secs(10);
/// Changes within this time make one record.
const SETTLE: Duration = Duration::from_millis(50);
/// Characters of a stream key: 24 hexadecimal digits are 96 bits.
const STREAM_KEY_BYTES: usize = 12;
/// Characters of a description.
const DESCRIPTION_MAX: usize = astral_proto::limits::DESCRIPTION_CHARS_MAX;

/// A stream that this node publishes.
pub(super) struct Own {
    key: Arc<SecretKey>,
    stream: OwnStream,
    end: CancellationToken,
}

impl Handle {
    pub(super) fn is_own(&self, id: StreamId) -> bool {
        lock(&self.inner.state.own).contains_key(&id)
    }

    /// Streams that this node publishes.
    pub(crate) fn own_ids(&self) -> Vec<StreamId> {
        lock(&self.inner.state.own).keys().copied().collect()
    }

    /// Takes up the streams that the data folder remembers.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn restore_streams(&self) -> anyhow::Result<()> {
        for stream in self.inner.storage.streams()? {
            info!(name = stream.name, "stream is published again");
            self.start_own(stream);
        }
        Ok(())
    }

    /// Publishes a stream.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] names, [`ApiError::NameTaken`], [`ApiError::Failed`] storage.
    pub async fn publish(&self, new: api::NewStream) -> Result<api::Stream, ApiError> {
        check_name(&new.name).map_err(|error| ApiError::Invalid(error.to_string()))?;
        let description = new.description.filter(|text| !text.is_empty());
        if description
            .as_ref()
            .is_some_and(|text| text.chars().count() > DESCRIPTION_MAX)
        {
            let words = format!("a description has at most {DESCRIPTION_MAX} characters");
            return Err(ApiError::Invalid(words));
        }
        let failed = |error: &dyn std::fmt::Display| ApiError::Failed(error.to_string());
        let seed = random_seed().map_err(|error| failed(&error))?;
        let secret = random_seed().map_err(|error| failed(&error))?;
        let stream = OwnStream {
            seed,
            name: new.name,
            description,
            unlisted: new.unlisted,
            stream_key: secret[..STREAM_KEY_BYTES]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
            started_at_ms: unix_ms(),
            paused: false,
            record_seq: 0,
            marks: Default::default(),
        };
        let (id, handle) = (stream.id(), self.clone());
        // A task of its own: whoever asked may go away, and half a stream must not stay.
        let made = self
            .inner
            .tasks
            .spawn(async move { handle.make(stream).await });
        made.await.map_err(|error| failed(&error))??;
        self.stream_by_id(id).await
    }

    async fn make(&self, stream: OwnStream) -> Result<(), ApiError> {
        self.claim(&stream)?;
        if let Err(error) = self.save(stream.clone()).await {
            lock(&self.inner.state.own).remove(&stream.id());
            return Err(error);
        }
        info!(stream = %stream.id(), name = stream.name, "stream is published");
        self.start_own(stream);
        Ok(())
    }

    /// Takes the name of a new stream, so that no other can have it while it is saved.
    fn claim(&self, stream: &OwnStream) -> Result<(), ApiError> {
        let id = stream.id();
        let slug = slug_of(&stream.name, id);
        let mut streams = lock(&self.inner.state.own);
        let taken = streams.iter().find(|(other, own)| {
            own.stream.name == stream.name || slug_of(&own.stream.name, **other) == slug
        });
        if let Some((_, own)) = taken {
            return Err(ApiError::NameTaken(own.stream.name.clone()));
        }
        streams.insert(id, Own::new(stream.clone()));
        Ok(())
    }

    async fn save(&self, stream: OwnStream) -> Result<(), ApiError> {
        let storage = self.inner.storage.clone();
        let saved = tokio::task::spawn_blocking(move || storage.put_stream(&stream)).await;
        match saved {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ApiError::Failed(error.to_string())),
            Err(error) => Err(ApiError::Failed(error.to_string())),
        }
    }

    fn start_own(&self, stream: OwnStream) {
        let id = stream.id();
        let store = StreamStore::new(id, stream.key().public());
        self.inner.stores.insert(store.clone());
        self.inner.registry.insert(stream.clone(), store);
        let end = lock(&self.inner.state.own)
            .entry(id)
            .or_insert_with(|| Own::new(stream))
            .end
            .clone();
        let source = self
            .inner
            .registry
            .state(id)
            .expect("it was inserted above");
        self.inner
            .tasks
            .spawn(keep_signed(self.clone(), id, source, end));
    }

    /// Pauses a stream of this node or resumes it.
    ///
    /// # Errors
    /// [`ApiError::NotOwn`], [`ApiError::Failed`].
    pub async fn set_paused(&self, id: StreamId, paused: bool) -> Result<api::Stream, ApiError> {
        let stream = {
            let mut own = lock(&self.inner.state.own);
            let own = own.get_mut(&id).ok_or(ApiError::NotOwn)?;
            own.stream.paused = paused;
            own.stream.clone()
        };
        self.inner.registry.set_paused(id, paused);
        info!(stream = %id, paused, "stream is paused or goes on");
        self.save(stream).await?;
        self.sign(id).await;
        self.stream_by_id(id).await
    }

    /// Ends a stream of this node for good.
    ///
    /// # Errors
    /// [`ApiError::NotOwn`], [`ApiError::Failed`].
    pub async fn unpublish(&self, id: StreamId) -> Result<(), ApiError> {
        let own = lock(&self.inner.state.own)
            .remove(&id)
            .ok_or(ApiError::NotOwn)?;
        own.end.cancel();
        info!(stream = %id, name = own.stream.name, "stream is over: its owner has ended it");
        let source = self.source(id);
        self.inner.registry.remove(id);
        let record = own.record(self, id, StreamState::Ended, &source, 0);
        self.tell(Event::Unpublish { record }).await;
        let storage = self.inner.storage.clone();
        match tokio::task::spawn_blocking(move || storage.remove_stream(id)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ApiError::Failed(error.to_string())),
            Err(error) => Err(ApiError::Failed(error.to_string())),
        }
    }

    /// Where an encoder sends a stream of this node.
    pub(crate) fn ingest_of(&self, id: StreamId) -> Option<api::Ingest> {
        let key = lock(&self.inner.state.own)
            .get(&id)?
            .stream
            .stream_key
            .clone();
        let addresses = &self.inner.addresses;
        Some(api::Ingest {
            rtmp_url: addresses
                .rtmp
                .map(|rtmp| format!("rtmp://{}/live", reachable(rtmp))),
            http_url: format!("http://{}/ingest/{key}", reachable(addresses.http)),
            stream_key: key,
        })
    }

    fn source(&self, id: StreamId) -> SourceState {
        self.inner
            .registry
            .state(id)
            .map(|state| state.borrow().clone())
            .unwrap_or_default()
    }

    /// Signs a record of what the stream is now, and tells the overlay.
    pub(crate) async fn sign(&self, id: StreamId) {
        let source = self.source(id);
        let audience = self
            .inner
            .inbox
            .inspect(move |overlay, now| overlay.stream_view(now, id).map(|view| view.viewers));
        let viewers = audience.await.flatten().unwrap_or(0);
        let signed = {
            let mut own = lock(&self.inner.state.own);
            own.get_mut(&id).map(|own| {
                let state = own.state(&source);
                let record = own.record(self, id, state, &source, viewers);
                own.stream.record_seq = record.value().seq;
                (record, state)
            })
        };
        let Some((record, state)) = signed else {
            return;
        };
        let (storage, seq) = (self.inner.storage.clone(), record.value().seq);
        let raised =
            tokio::task::spawn_blocking(move || storage.raise_stream_record_seq(id, seq)).await;
        if let Ok(Err(error)) = raised {
            debug!(stream = %id, %error, "the record's number could not be stored");
        }
        let supply = if state == StreamState::Live {
            Supply::Ok
        } else {
            Supply::NoSource
        };
        self.tell(Event::Publish { record, supply }).await;
    }
}

/// An address as a program on this machine can use it.
fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

impl Own {
    fn new(stream: OwnStream) -> Self {
        Self {
            key: Arc::new(stream.key()),
            stream,
            end: CancellationToken::new(),
        }
    }

    fn state(&self, source: &SourceState) -> StreamState {
        match (self.stream.paused, source.live) {
            (true, _) => StreamState::Paused,
            (false, true) => StreamState::Live,
            (false, false) => StreamState::Waiting,
        }
    }

    fn record(
        &self,
        handle: &Handle,
        id: StreamId,
        state: StreamState,
        source: &SourceState,
        viewers: u32,
    ) -> SignedStream {
        let stats = handle
            .inner
            .stores
            .of(id)
            .map(|store| store.stats())
            .unwrap_or_default();
        let declared = source.bitrate_bps.unwrap_or(0);
        let measured = Some(stats.peak_bps.max(declared)).filter(|bps| *bps > 0);
        // Nothing of this run was signed yet: all that counts was signed before.
        let epoch = if source.epoch == 0 {
            self.stream.marks.epoch
        } else {
            source.epoch
        };
        let record = StreamRecord {
            key: self.key.public(),
            seq: unix_ms().max(self.stream.record_seq + 1),
            name: self.stream.name.clone(),
            description: self.stream.description.clone(),
            publisher: handle.inner.id,
            unlisted: self.stream.unlisted.then_some(true),
            epoch,
            started_at_ms: self.stream.started_at_ms,
            state,
            bitrate_bps: measured,
            tracks: source.tracks.clone(),
            viewers: Some(viewers.into()),
        };
        SignedStream::sign(record, &self.key)
    }
}

/// Signs the stream's record whenever something changes, and before it expires.
async fn keep_signed(
    handle: Handle,
    id: StreamId,
    mut source: watch::Receiver<SourceState>,
    end: CancellationToken,
) {
    loop {
        handle.sign(id).await;
        tokio::time::sleep(SETTLE).await;
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            result = source.changed() => if result.is_err() {
                return;
            },
            () = end.cancelled() => return,
            () = handle.inner.shutdown.cancelled() => return,
        }
    }
}
