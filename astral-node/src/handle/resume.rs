//! What a node takes up again after a restart, and how it remembers it meanwhile.
//!
//! Peers, the meaning of slugs and the whereabouts of wanted streams are written down
//! every [`REMEMBER_EVERY`] if they have changed, so that a killed node knows them too.
//! That a stream is wanted is durable before the caller hears that it is received.

use std::collections::BTreeMap;
use std::time::Duration;

use astral_proto::ids::{NodeId, StreamId};
use astral_proto::overlay::{Event, Overlay, PeerView, Target, Why};
use astral_proto::record::StreamState;
use tracing::{info, warn};

use super::{ApiError, Handle, lock};
use crate::node::unix_ms;
use crate::storage::{RememberedPeer, RememberedSlug, Storage, StorageError, WantedStream};

/// What a killed node may have forgotten is not older than this.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);
/// A peer's row says to within this when it was connected last.
const PEER_ROW_EVERY_MS: u64 = 60_000;
/// Longest wait before the network is asked again for a stream that is wanted.
const ASK_MAX: Duration = Duration::from_secs(10);
/// First wait; doubles up to [`ASK_MAX`].
const ASK_FIRST: Duration = Duration::from_millis(250);

/// What was written down already.
#[derive(Default)]
struct Written {
    peers: BTreeMap<NodeId, RememberedPeer>,
    slugs: BTreeMap<String, StreamId>,
    wanted: BTreeMap<StreamId, WantedStream>,
}

/// What the overlay knows of all that now.
struct Look {
    peers: Vec<PeerView>,
    slugs: Vec<(String, StreamId)>,
    wanted: Vec<(StreamId, WantedStream)>,
    /// Carried for others.
    carried: Vec<StreamId>,
    over: Vec<StreamId>,
}

impl Handle {
    /// Takes up what an earlier life left. What cannot be read is done without.
    pub(crate) async fn resume(&self) {
        let mut written = Written::default();
        let peers = self.stored(Storage::peers).await;
        let targets = peers.iter().map(|(node, peer)| target(*node, peer));
        let targets = targets.collect();
        self.tell(Event::Remembered { targets }).await;
        written.peers.extend(peers);

        let slugs = self.stored(Storage::slugs).await;
        written.slugs = slugs.into_iter().map(|s| (s.slug, s.stream)).collect();
        // The newest are kept if there are too many.
        let slugs = written.slugs.clone().into_iter().collect();
        self.tell(Event::Named { slugs }).await;

        written.wanted = self.stored(Storage::wanted).await;
        for (stream, wanted) in &written.wanted {
            let why = match wanted.carried {
                Some(true) => Why::Seed,
                _ => Why::Watch,
            };
            lock(&self.inner.state.wanted).insert(*stream, why);
            let (handle, stream) = (self.clone(), *stream);
            let nodes = wanted.nodes.clone();
            self.inner
                .tasks
                .spawn(async move { handle.take_up(stream, why, nodes).await });
        }
        let handle = self.clone();
        self.inner
            .tasks
            .spawn(async move { handle.keep_in_mind(written).await });
    }

    async fn stored<T: Default + Send + 'static>(
        &self,
        read: fn(&Storage) -> Result<T, StorageError>,
    ) -> T {
        let storage = self.inner.storage.clone();
        match tokio::task::spawn_blocking(move || read(&storage)).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => {
                warn!(%error, "what was remembered cannot be read");
                T::default()
            }
            Err(_) => T::default(),
        }
    }

    /// Finds a stream again that was being received, for as long as it takes.
    async fn take_up(&self, stream: StreamId, why: Why, nodes: Vec<(NodeId, Vec<String>)>) {
        info!(%stream, "stream was asked for earlier: looking for it");
        for (node, addresses) in nodes {
            let target = Target {
                node: Some(node),
                addresses,
            };
            self.tell(Event::Bootstrap { target }).await;
        }
        let stop = self.inner.shutdown.clone();
        let mut wait = ASK_FIRST;
        while lock(&self.inner.state.wanted).contains_key(&stream) {
            let known = self
                .inner
                .inbox
                .inspect(move |overlay, _| overlay.record_of(stream).is_some());
            if known.await == Some(true) {
                return self.tell(Event::Want { stream, why }).await;
            }
            let (id, slug) = (Some(stream), None);
            self.tell(Event::Find { id, slug }).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(ASK_MAX),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Makes it durable that a stream is wanted here.
    pub(super) async fn keep_wanted(&self, stream: StreamId, why: Why) {
        lock(&self.inner.state.wanted).insert(stream, why);
        let whereabouts = self
            .inner
            .inbox
            .inspect(move |overlay, _| whereabouts(overlay, stream));
        let wanted = WantedStream {
            nodes: whereabouts.await.unwrap_or_default(),
            carried: carried(why),
        };
        self.put(move |storage| storage.put_wanted(stream, Some(&wanted)))
            .await;
    }

    /// Makes it durable that a stream is not wanted any more; tells whether it was.
    pub(super) async fn drop_wanted(&self, stream: StreamId) -> bool {
        let was = lock(&self.inner.state.wanted).remove(&stream).is_some();
        if was {
            self.put(move |storage| storage.put_wanted(stream, None))
                .await;
        }
        was
    }

    /// Forgets a peer for good.
    ///
    /// # Errors
    /// [`ApiError::Failed`] if the data folder cannot be written.
    pub(super) async fn forget_peer(&self, node: NodeId) -> Result<(), ApiError> {
        if self.put(move |storage| storage.forget_peer(node)).await {
            return Ok(());
        }
        Err(ApiError::Failed("the data folder cannot be written".into()))
    }

    /// Writes in the background; the storage itself says what fails, and since when.
    async fn put(
        &self,
        write: impl FnOnce(&Storage) -> Result<(), StorageError> + Send + 'static,
    ) -> bool {
        let storage = self.inner.storage.clone();
        let done = tokio::task::spawn_blocking(move || write(&storage)).await;
        matches!(done, Ok(Ok(())))
    }

    /// Writes down what changes, until the node ends.
    async fn keep_in_mind(&self, mut written: Written) {
        let stop = self.inner.shutdown.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(REMEMBER_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let wanted = lock(&self.inner.state.wanted).clone();
            let look = self
                .inner
                .inbox
                .inspect(move |overlay, _| look(overlay, &wanted));
            let Some(look) = look.await else { return };
            for stream in &look.over {
                self.drop_wanted(*stream).await;
            }
            for stream in &look.carried {
                let known = lock(&self.inner.state.wanted).contains_key(stream);
                if !known {
                    self.keep_wanted(*stream, Why::Seed).await;
                }
            }
            self.write_down(look, &mut written).await;
        }
    }

    async fn write_down(&self, look: Look, written: &mut Written) {
        let now = unix_ms();
        let peers = changed_peers(&look.peers, &written.peers, now);
        if !peers.is_empty() {
            let rows = peers.clone();
            if self.put(move |storage| storage.put_peers(&rows)).await {
                written.peers.extend(peers);
            }
        }
        let is_new = |(slug, stream): &(String, StreamId)| written.slugs.get(slug) != Some(stream);
        let slugs: Vec<_> = look.slugs.into_iter().filter(is_new).collect();
        if !slugs.is_empty() {
            let rows: Vec<_> = slugs
                .iter()
                .map(|(slug, stream)| RememberedSlug {
                    slug: slug.clone(),
                    stream: *stream,
                    seen_ms: now,
                })
                .collect();
            if self.put(move |storage| storage.put_slugs(&rows)).await {
                written.slugs.extend(slugs);
            }
        }
        for (stream, wanted) in look.wanted {
            // Who has nothing to say of where it is does not take back what was known.
            if wanted.nodes.is_empty() || written.wanted.get(&stream) == Some(&wanted) {
                continue;
            }
            let row = wanted.clone();
            if self
                .put(move |storage| storage.put_wanted(stream, Some(&row)))
                .await
            {
                written.wanted.insert(stream, wanted);
            }
        }
    }
}

fn target(node: NodeId, peer: &RememberedPeer) -> Target {
    Target {
        node: Some(node),
        addresses: peer.addresses.clone(),
    }
}

fn look(overlay: &Overlay, wanted: &BTreeMap<StreamId, Why>) -> Look {
    let is_over = |stream: &&StreamId| {
        let record = overlay.record_of(**stream);
        record.is_some_and(|record| record.value().state == StreamState::Ended)
    };
    Look {
        peers: overlay.peers_view(),
        slugs: overlay.slugs_view(),
        carried: overlay.carried().collect(),
        over: wanted.keys().filter(is_over).copied().collect(),
        wanted: wanted
            .iter()
            .map(|(stream, why)| {
                let nodes = whereabouts(overlay, *stream);
                let carried = carried(*why);
                (*stream, WantedStream { nodes, carried })
            })
            .collect(),
    }
}

/// As a row says it.
fn carried(why: Why) -> Option<bool> {
    (why == Why::Seed).then_some(true)
}

/// Nodes that have a stream, and where they are: its publisher and who feeds it here.
fn whereabouts(overlay: &Overlay, stream: StreamId) -> Vec<(NodeId, Vec<String>)> {
    let publisher = overlay
        .record_of(stream)
        .map(|record| record.value().publisher);
    let mut nodes: Vec<NodeId> = publisher.into_iter().collect();
    nodes.extend(overlay.parent_of(stream).filter(|p| Some(*p) != publisher));
    nodes
        .into_iter()
        .map(|node| {
            let addresses = overlay.addresses_of(node);
            let texts = addresses.iter().map(|address| address.0.to_string());
            (node, texts.collect::<Vec<_>>())
        })
        .filter(|(_, addresses)| !addresses.is_empty())
        .collect()
}

/// Connected peers whose row is not there, has changed, or has become old.
fn changed_peers(
    peers: &[PeerView],
    written: &BTreeMap<NodeId, RememberedPeer>,
    now_ms: u64,
) -> BTreeMap<NodeId, RememberedPeer> {
    let connected = peers
        .iter()
        .filter(|peer| peer.rtt.is_some() && !peer.addresses.is_empty());
    let rows = connected.map(|peer| {
        let addresses = peer.addresses.iter().map(|a| a.0.to_string()).collect();
        let connected_ms = now_ms;
        let row = RememberedPeer {
            addresses,
            connected_ms,
        };
        (peer.node, row)
    });
    rows.filter(|(node, row)| {
        written.get(node).is_none_or(|known| {
            known.addresses != row.addresses
                || row.connected_ms.saturating_sub(known.connected_ms) >= PEER_ROW_EVERY_MS
        })
    })
    .collect()
}
