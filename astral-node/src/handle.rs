//! The handle to a running node: what its HTTP API can ask of it.

mod own;
mod place;
mod resume;
mod seed;
mod settings;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use astral_proto::api;
use astral_proto::ids::{NodeId, StreamId, TicketId};
use astral_proto::link::{PeerAddress, ShareLink};
use astral_proto::overlay::{Event, Resolved, Why};
use astral_proto::record::Address;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bootstrap::Identity;
use crate::config::{Config, LiveSettings};
use crate::driver::{Inbox, Stores, TrafficTable};
use crate::ingest::Registry;
use crate::lock::lock;
use crate::node::{Addresses, targets};
use crate::storage::Storage;
pub(crate) use crate::store::Stats as StoreStats;
use crate::store::{LiveReader, StartAt, StreamStore};
use crate::uplink::Uplink;
use own::Own;
pub use seed::Seeded;

/// How long the network is asked for a stream that is not known here.
const FIND_WITHIN: Duration = Duration::from_secs(2);
/// How often it is asked meanwhile: share links may still be connecting.
const FIND_EVERY: Duration = Duration::from_millis(250);
/// How long a caller waits for somebody with room.
const WATCH_WITHIN: Duration = Duration::from_secs(5);
/// A stream that only players wanted is let go this long after the last.
const LINGER: Duration = Duration::from_secs(30);

/// Why a request to the node is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nothing of this name is known.
    #[error("{0}")]
    Unknown(String),
    /// The slug alone does not decide; these full slugs do.
    #[error("the slug is used by several streams: {}", .0.join(", "))]
    Ambiguous(Vec<String>),
    /// Only the publishing node may do this.
    #[error("the stream is published by another node")]
    NotOwn,
    /// A stream of this name is published here already.
    #[error("this node publishes a stream of the name `{0}` already")]
    NameTaken(String),
    /// Well-formed, but not acceptable.
    #[error("{0}")]
    Invalid(String),
    /// Nobody has room, with the reason of the last refusal.
    #[error("{0}")]
    NoRoom(String),
    /// It stands against something else that holds.
    #[error("{0}")]
    Conflict(String),
    /// The other node does not want it.
    #[error("{0}")]
    Refused(String),
    /// The node is about to end.
    #[error("the node is ending")]
    Ending,
    /// Its data folder fails.
    #[error("{0}")]
    Failed(String),
}

/// What came of a wish to receive a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// A ticket was got.
    New(api::Ticket),
    /// It is being received already.
    Already(api::Ticket),
    /// It is this node's own.
    Own,
}

/// What makes up a running node, shared.
pub(crate) struct Inner {
    pub(crate) id: NodeId,
    pub(crate) ready: api::Ready,
    pub(crate) guard: String,
    pub(crate) addresses: Addresses,
    pub(crate) identity: Arc<Identity>,
    pub(crate) settings: LiveSettings,
    pub(crate) storage: Storage,
    pub(crate) registry: Registry,
    pub(crate) uplink: Arc<Uplink>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) traffic: TrafficTable,
    pub(crate) inbox: Inbox,
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) state: State,
}

/// What changes while the node runs.
#[derive(Default)]
pub(crate) struct State {
    ready: AtomicBool,
    own: Mutex<HashMap<StreamId, Own>>,
    readers: Mutex<HashMap<StreamId, Readers>>,
    rates: Mutex<HashMap<TicketId, show::RateMark>>,
    /// Streams that were asked for, here or by who offered them, not only read by a player.
    wanted: Mutex<BTreeMap<StreamId, Why>>,
    /// Where a router forwards to this node.
    mapped: Mutex<Option<Address>>,
    /// Held while settings change: one change after the other.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Readers {
    count: usize,
    /// Counts up with each coming and going, so that an old farewell is void.
    turn: u64,
}

/// A running node, to be asked and told.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// A local reader of a stream.
pub(crate) struct Live {
    pub(crate) reader: LiveReader,
    pub(crate) store: Arc<StreamStore>,
    pub(crate) guard: ReaderGuard,
}

/// Keeps a stream wanted for as long as a local player reads it.
pub(crate) struct ReaderGuard {
    handle: Handle,
    stream: StreamId,
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.handle.reader_gone(self.stream);
    }
}

impl Handle {
    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// What the ready file says.
    pub fn ready(&self) -> &api::Ready {
        &self.inner.ready
    }

    /// Ends the node in good order.
    pub fn shutdown(&self) {
        self.inner.shutdown.cancel();
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    pub(crate) fn token(&self) -> &str {
        &self.inner.ready.token
    }

    pub(crate) fn guard(&self) -> &str {
        &self.inner.guard
    }

    /// What the node was told, as it holds now: parts of it change while it runs.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.inner.settings.now()
    }

    /// What each store holds and has taken in.
    pub(crate) fn store_stats(&self) -> Vec<(StreamId, StoreStats)> {
        let stores = self.inner.stores.all();
        stores
            .into_iter()
            .map(|store| (store.id(), store.stats()))
            .collect()
    }

    pub(crate) fn uplink(&self) -> &Arc<Uplink> {
        &self.inner.uplink
    }

    /// Bumps whenever something changes that the API shows, from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.inner.changes.clone();
        // A clone has seen as little as its original, which nobody reads.
        changes.mark_unchanged();
        changes
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.inner.state.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn set_mapped(&self, address: Option<Address>) {
        *lock(&self.inner.state.mapped) = address;
    }

    pub(crate) fn set_ready(&self) {
        self.inner.state.ready.store(true, Ordering::Relaxed);
    }

    /// Local players that read now.
    #[cfg(test)]
    pub(crate) fn readers(&self) -> usize {
        let readers = lock(&self.inner.state.readers);
        readers.values().map(|readers| readers.count).sum()
    }

    async fn tell(&self, event: Event) {
        self.inner.inbox.event(event, String::new()).await;
    }

    /// Starts to dial the nodes of the settings.
    pub(crate) fn bootstrap(&self) {
        let targets: Vec<_> = self.config().peers.iter().flat_map(targets).collect();
        let handle = self.clone();
        self.inner.tasks.spawn(async move {
            for target in targets {
                handle.tell(Event::Bootstrap { target }).await;
            }
        });
    }

    /// Who a slug, full slug, id or share link means.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] after up to 2 s in which the network is asked,
    /// [`ApiError::Ambiguous`].
    pub async fn resolve(&self, text: &str) -> Result<StreamId, ApiError> {
        let link = text.parse::<ShareLink>().ok();
        let wanted = link
            .as_ref()
            .map_or(text.to_owned(), |link| link.stream.to_string());
        if let Some(found) = self.resolve_here(&wanted).await {
            return found;
        }
        if let Some(link) = link {
            for target in targets(&PeerAddress::Link(link)) {
                self.tell(Event::Bootstrap { target }).await;
            }
        }
        let id = wanted.parse::<StreamId>().ok();
        let slug = id.is_none().then(|| wanted.clone());
        let asked = async {
            let mut changes = self.changes();
            let mut ask = tokio::time::interval(FIND_EVERY);
            loop {
                tokio::select! {
                    _ = ask.tick() => self.tell(Event::Find { id, slug: slug.clone() }).await,
                    _ = changes.changed() => {}
                }
                if let Some(found) = self.resolve_here(&wanted).await {
                    return found;
                }
            }
        };
        let unknown = || ApiError::Unknown(format!("no stream `{text}` is known"));
        tokio::time::timeout(FIND_WITHIN, asked)
            .await
            .unwrap_or_else(|_| Err(unknown()))
    }

    async fn resolve_here(&self, text: &str) -> Option<Result<StreamId, ApiError>> {
        let text = text.to_owned();
        let resolved = self.inner.inbox.inspect(move |overlay, now| {
            let resolved = overlay.resolve(now, &text);
            let slugs = match &resolved {
                Resolved::Many(ids) => ids
                    .iter()
                    .filter_map(|id| overlay.record_of(*id))
                    .map(|r| astral_proto::slug::full_slug(&r.value().name, r.value().id()))
                    .collect(),
                Resolved::One(_) | Resolved::Unknown => Vec::new(),
            };
            (resolved, slugs)
        });
        match resolved.await {
            Some((Resolved::One(id), _)) => Some(Ok(id)),
            Some((Resolved::Many(_), slugs)) => Some(Err(ApiError::Ambiguous(slugs))),
            Some((Resolved::Unknown, _)) => None,
            None => Some(Err(ApiError::Ending)),
        }
    }

    /// Receives a stream here, and waits until it has a parent.
    ///
    /// # Errors
    /// [`ApiError::NoRoom`] with the reason if nobody promises it within 5 s.
    pub async fn watch(&self, id: StreamId) -> Result<Watched, ApiError> {
        if self.is_own(id) {
            return Ok(Watched::Own);
        }
        let before = self.intake_ticket(id).await;
        self.tell(Event::Want {
            stream: id,
            why: Why::Watch,
        })
        .await;
        if let Some(ticket) = before {
            self.keep_wanted(id, Why::Watch).await;
            return Ok(Watched::Already(ticket));
        }
        let active = self.seen(|| self.intake_ticket(id));
        match tokio::time::timeout(WATCH_WITHIN, active).await {
            Ok(ticket) => {
                self.keep_wanted(id, Why::Watch).await;
                Ok(Watched::New(ticket))
            }
            Err(_) => {
                let reason = self.why_not(id).await;
                // What was answered with a no is not gone on with behind the caller's back.
                self.tell(Event::Unwant {
                    stream: id,
                    why: Some(Why::Watch),
                })
                .await;
                Err(ApiError::NoRoom(reason))
            }
        }
    }

    /// Looks again at every change until there is something.
    async fn seen<T, F: Future<Output = Option<T>>>(&self, look: impl Fn() -> F) -> T {
        let mut changes = self.changes();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            let _ = tokio::time::timeout(FIND_EVERY, changes.changed()).await;
        }
    }

    async fn why_not(&self, id: StreamId) -> String {
        let reason = self
            .inner
            .inbox
            .inspect(move |overlay, now| overlay.stream_view(now, id)?.intake?.last_refusal);
        match reason.await.flatten() {
            Some(reason) => format!("nobody can send the stream now: {}", reason.words()),
            None => "nobody who has the stream answers".into(),
        }
    }

    /// Stops receiving a stream.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] if it is not being received.
    pub async fn stop(&self, id: StreamId) -> Result<(), ApiError> {
        let held = self.inner.inbox.inspect(move |overlay, now| {
            overlay
                .stream_view(now, id)
                .is_some_and(|view| view.intake.is_some())
        });
        let was_wanted = self.drop_wanted(id).await;
        if held.await != Some(true) && !was_wanted {
            return Err(ApiError::Unknown("the stream is not being received".into()));
        }
        self.tell(Event::Unwant {
            stream: id,
            why: None,
        })
        .await;
        Ok(())
    }

    /// Ends one ticket.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] if there is none of this id.
    pub async fn revoke(&self, ticket: &str) -> Result<(), ApiError> {
        let unknown = || ApiError::Unknown(format!("no ticket `{ticket}`"));
        let id: TicketId = ticket.parse().map_err(|_| unknown())?;
        let known = self
            .inner
            .inbox
            .inspect(move |overlay, now| overlay.tickets_view(now).iter().any(|t| t.id == id));
        if known.await != Some(true) {
            return Err(unknown());
        }
        self.tell(Event::Revoke { ticket: id }).await;
        Ok(())
    }

    /// Forgets a node; it may come back when heard of again.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] if it is not known.
    pub async fn forget(&self, node: NodeId) -> Result<(), ApiError> {
        self.node_known(node).await?;
        self.forget_peer(node).await?;
        self.tell(Event::Forget { node }).await;
        Ok(())
    }

    async fn node_known(&self, node: NodeId) -> Result<(), ApiError> {
        let known = self
            .inner
            .inbox
            .inspect(move |overlay, _| overlay.peers_view().iter().any(|peer| peer.node == node));
        if known.await != Some(true) {
            return Err(ApiError::Unknown(format!("no node {node} is known")));
        }
        Ok(())
    }

    /// Opens a local reader; the stream is received for as long as it lives, and 30 s on.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] if the stream is not known.
    pub(crate) async fn open_live(&self, id: StreamId, start: StartAt) -> Result<Live, ApiError> {
        let guard = self.reader_came(id);
        if !self.is_own(id) {
            self.tell(Event::Want {
                stream: id,
                why: Why::Readers,
            })
            .await;
        }
        let record = self
            .inner
            .inbox
            .inspect(move |overlay, _| overlay.record_of(id).cloned())
            .await;
        let record = record
            .flatten()
            .ok_or_else(|| ApiError::Unknown(format!("no stream {id}")))?;
        // A store that is there has been told more than an own stream's record says yet.
        let stores = &self.inner.stores;
        let store = stores.of(id).unwrap_or_else(|| stores.open(&record));
        let reader = LiveReader::new(store.clone(), start);
        Ok(Live {
            reader,
            store,
            guard,
        })
    }

    fn reader_came(&self, stream: StreamId) -> ReaderGuard {
        let mut readers = lock(&self.inner.state.readers);
        let entry = readers.entry(stream).or_default();
        entry.count += 1;
        entry.turn += 1;
        ReaderGuard {
            handle: self.clone(),
            stream,
        }
    }

    fn reader_gone(&self, stream: StreamId) {
        let mut readers = lock(&self.inner.state.readers);
        let Some(entry) = readers.get_mut(&stream) else {
            return;
        };
        entry.count -= 1;
        entry.turn += 1;
        if entry.count > 0 {
            return;
        }
        let (turn, handle) = (entry.turn, self.clone());
        drop(readers);
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(LINGER) => handle.let_go(stream, turn).await,
                () = handle.inner.shutdown.cancelled() => {}
            }
        });
    }

    async fn let_go(&self, stream: StreamId, turn: u64) {
        let over = {
            let mut readers = lock(&self.inner.state.readers);
            let over = readers.get(&stream).is_some_and(|r| r.turn == turn);
            if over {
                readers.remove(&stream);
            }
            over
        };
        if over {
            self.tell(Event::Unwant {
                stream,
                why: Some(Why::Readers),
            })
            .await;
            // A reader that came meanwhile may have spoken before this farewell.
            if lock(&self.inner.state.readers).contains_key(&stream) {
                let why = Why::Readers;
                self.tell(Event::Want { stream, why }).await;
            }
        }
    }
}
