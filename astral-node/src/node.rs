//! TEMPORARY stand-in, replaced at the merge: a node that only pretends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use astral_proto::api;
use astral_proto::ids::{NodeId, StreamId};
use tokio::sync::watch;

use crate::config::Config;
use crate::ingest::Registry;
use crate::store::{LiveEvent, LiveReader, StartAt, StreamStore};
use crate::uplink::Uplink;

/// Why the node did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}")]
    Unknown(String),
    #[error("several streams have this name")]
    Ambiguous(Vec<String>),
    #[error("this node does not publish that stream")]
    NotOwn,
    #[error("this node already publishes a stream of that name")]
    NameTaken,
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NoRoom(String),
    #[error("{0}")]
    Refused(String),
}

/// What came of asking to watch.
#[derive(Debug)]
pub(crate) enum Watched {
    New(api::Ticket),
    Already(api::Ticket),
    Own,
}

/// One reader of a stream.
pub(crate) struct Live {
    pub(crate) reader: LiveReader,
    pub(crate) guard: ReaderGuard,
    pub(crate) store: Arc<StreamStore>,
}

/// Dropped when the reader goes.
pub(crate) struct ReaderGuard(Arc<Inner>);

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.0
            .fake
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .readers -= 1;
    }
}

/// What the pretended node is made of.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) nodes: Vec<api::Node>,
    pub(crate) streams: Vec<api::Stream>,
    pub(crate) own: Vec<StreamId>,
    pub(crate) tickets: Vec<api::Ticket>,
    pub(crate) watched: VecDeque<Result<Watched, ApiError>>,
    pub(crate) script: VecDeque<LiveEvent>,
    pub(crate) endless: bool,
    pub(crate) starts: Vec<StartAt>,
    pub(crate) readers: i32,
    pub(crate) calls: Vec<String>,
    pub(crate) ready: bool,
}

struct Inner {
    config: Config,
    fake: Mutex<Fake>,
    changes: watch::Sender<u64>,
    uplink: Arc<Uplink>,
    registry: Registry,
}

/// The node, as its HTTP side sees it.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Inner>);

#[expect(clippy::unused_async, reason = "stands in for one that waits")]
impl Handle {
    pub(crate) fn pretend(config: Config, fake: Fake) -> Self {
        Self(Arc::new(Inner {
            config,
            fake: Mutex::new(fake),
            changes: watch::Sender::new(0),
            uplink: Arc::default(),
            registry: Registry,
        }))
    }
    pub(crate) fn fake(&self) -> MutexGuard<'_, Fake> {
        self.0.fake.lock().unwrap_or_else(|e| e.into_inner())
    }
    pub(crate) fn bump(&self) {
        self.0.changes.send_modify(|n| *n += 1);
    }
    fn called(&self, what: String) {
        self.fake().calls.push(what);
    }
    pub(crate) async fn node(&self) -> api::Node {
        self.fake().nodes[0].clone()
    }
    pub(crate) async fn nodes(&self) -> Vec<api::Node> {
        self.fake().nodes.clone()
    }
    pub(crate) async fn forget(&self, id: NodeId) -> Result<(), ApiError> {
        if !self.fake().nodes.iter().any(|node| node.uuid == id) {
            return Err(ApiError::Unknown(format!("no node {id}")));
        }
        self.called(format!("forget {id}"));
        Ok(())
    }
    pub(crate) async fn streams(&self) -> Vec<api::Stream> {
        self.fake().streams.clone()
    }
    pub(crate) async fn stream(&self, text: &str) -> Result<api::Stream, ApiError> {
        if text == "twins" {
            return Err(ApiError::Ambiguous(vec![
                "twins~aaaaa".into(),
                "twins~bbbbb".into(),
            ]));
        }
        let link: Option<astral_proto::link::ShareLink> = text.parse().ok();
        self.fake()
            .streams
            .iter()
            .find(|s| {
                astral_proto::slug::names(text, &s.name, s.id)
                    || s.name == text
                    || link.as_ref().is_some_and(|link| link.stream == s.id)
            })
            .cloned()
            .ok_or_else(|| ApiError::Unknown(format!("no stream `{text}`")))
    }
    pub(crate) fn ingest_of(&self, id: StreamId) -> Option<api::Ingest> {
        self.fake().own.contains(&id).then(|| api::Ingest {
            rtmp_url: None,
            stream_key: "good".into(),
            http_url: "http://127.0.0.1:8000/ingest/good".into(),
        })
    }
    pub(crate) async fn publish(&self, new: api::NewStream) -> Result<api::Stream, ApiError> {
        if self.fake().streams.iter().any(|s| s.name == new.name) {
            return Err(ApiError::NameTaken);
        }
        let mut stream = self.fake().streams[0].clone();
        stream.name = new.name;
        Ok(stream)
    }
    pub(crate) async fn set_paused(
        &self,
        id: StreamId,
        paused: bool,
    ) -> Result<api::Stream, ApiError> {
        self.owned(id)?;
        let mut stream = self.stream(&id.to_string()).await?;
        if paused {
            stream.state = api::StreamState::Paused;
        }
        Ok(stream)
    }
    fn owned(&self, id: StreamId) -> Result<(), ApiError> {
        if self.fake().own.contains(&id) {
            Ok(())
        } else {
            Err(ApiError::NotOwn)
        }
    }
    pub(crate) async fn unpublish(&self, id: StreamId) -> Result<(), ApiError> {
        self.owned(id)?;
        self.called(format!("unpublish {id}"));
        Ok(())
    }
    pub(crate) async fn tickets(&self) -> Vec<api::Ticket> {
        self.fake().tickets.clone()
    }
    pub(crate) async fn watch(&self, _: StreamId) -> Result<Watched, ApiError> {
        self.fake().watched.pop_front().unwrap_or(Ok(Watched::Own))
    }
    pub(crate) async fn stop(&self, id: StreamId) -> Result<(), ApiError> {
        self.called(format!("stop {id}"));
        Ok(())
    }
    pub(crate) async fn seed(&self, _: StreamId, to: NodeId) -> Result<api::Ticket, ApiError> {
        if self.fake().nodes.iter().any(|node| node.uuid == to) {
            return Ok(self.fake().tickets[0].clone());
        }
        Err(ApiError::Refused("it does not want the stream".into()))
    }
    pub(crate) async fn revoke(&self, ticket: &str) -> Result<(), ApiError> {
        self.called(format!("revoke {ticket}"));
        Ok(())
    }
    pub(crate) async fn open_live(&self, _: StreamId, start: StartAt) -> Result<Live, ApiError> {
        let mut fake = self.fake();
        if fake.script.is_empty() {
            return Err(ApiError::NoRoom("nobody has room".into()));
        }
        fake.starts.push(start);
        fake.readers += 1;
        Ok(Live {
            reader: LiveReader {
                script: fake.script.clone(),
                endless: fake.endless,
            },
            guard: ReaderGuard(Arc::clone(&self.0)),
            store: Arc::new(StreamStore),
        })
    }
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }
    pub(crate) fn token(&self) -> &str {
        "the-token"
    }
    pub(crate) fn guard(&self) -> &str {
        "the-guard"
    }
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }
    pub(crate) fn is_ready(&self) -> bool {
        self.fake().ready
    }
    pub(crate) fn shutdown(&self) {
        self.called("shutdown".into());
    }
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
    pub(crate) fn uplink(&self) -> &Arc<Uplink> {
        &self.0.uplink
    }
}
