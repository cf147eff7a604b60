//! Nodes that know nothing but the URL of an astral-web; here that is a list in memory.

mod tls;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use astral_proto::api;
use astral_proto::api::web::{Bootstrap, Submission, WebNode, WebStream};
use astral_proto::ids::NodeId;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Config, Supernode};
use crate::lock::lock;
use crate::node::Node;

const WITHIN: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Lists {
    nodes: HashMap<NodeId, SignedNode>,
    streams: HashMap<StreamId, SignedStream>,
    /// Put into every answer as a stream's record.
    forged: Option<String>,
    unchanged: usize,
    /// Submissions to be refused as outdated.
    conflicts: usize,
}

type Shared = Arc<Mutex<Lists>>;

struct FakeWeb {
    lists: Shared,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl FakeWeb {
    async fn start(at: SocketAddr, lists: Shared) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/api/v1/bootstrap", get(bootstrap))
            .route("/api/v1/nodes", post(take_node))
            .route("/api/v1/streams", post(take_stream))
            .with_state(lists.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            lists,
            address,
            serving,
        }
    }

    async fn new() -> Self {
        Self::start(([127, 0, 0, 1], 0).into(), Shared::default()).await
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, Lists> {
        lock(&self.lists)
    }
}

async fn bootstrap(State(lists): State<Shared>, headers: HeaderMap) -> Response {
    let mut lists = lock(&lists);
    let record = |wire: &[u8]| URL_SAFE_NO_PAD.encode(wire);
    let supernodes = lists.nodes.iter().map(|(id, node)| WebNode {
        uuid: *id,
        name: String::new(),
        addresses: Vec::new(),
        role: api::Role::Supernode,
        version: String::new(),
        last_seen: String::new(),
        public_http: None,
        record: Some(record(node.wire())),
    });
    let streams = lists.streams.iter().map(|(id, stream)| WebStream {
        id: *id,
        slug: String::new(),
        name: stream.value().name.clone(),
        description: String::new(),
        publisher: stream.value().publisher,
        share: String::new(),
        state: api::StreamState::Waiting,
        tracks: Vec::new(),
        bitrate_bps: 0,
        started_at: String::new(),
        viewers: 0,
        epoch: stream.value().epoch,
        record: lists.forged.clone().unwrap_or(record(stream.wire())),
    });
    let answer = Bootstrap {
        address: "127.0.0.1".into(),
        supernodes: supernodes.collect(),
        streams: streams.collect(),
        lease_s: 30,
    };
    let body = serde_json::to_string(&answer).unwrap();
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let etag = format!("\"{:x}\"", hasher.finish());
    if headers
        .get("if-none-match")
        .is_some_and(|had| *had == *etag)
    {
        lists.unchanged += 1;
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([("etag", etag)], body).into_response()
}

fn wire(submission: &Submission) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(&submission.record).unwrap()
}

fn conflicts(lists: &mut Lists) -> bool {
    let refuse = lists.conflicts > 0;
    lists.conflicts = lists.conflicts.saturating_sub(1);
    refuse
}

async fn take_node(State(lists): State<Shared>, Json(body): Json<Submission>) -> StatusCode {
    let (mut lists, record) = (lock(&lists), SignedNode::decode(&wire(&body)).unwrap());
    let id = record.value().id();
    let known = lists.nodes.get(&id);
    let newer = known.is_none_or(|known| known.value().seq < record.value().seq);
    if conflicts(&mut lists) || !newer {
        return StatusCode::CONFLICT;
    }
    if record.value().removed == Some(true) {
        lists.nodes.remove(&id);
    } else {
        lists.nodes.insert(id, record);
    }
    StatusCode::OK
}

async fn take_stream(State(lists): State<Shared>, Json(body): Json<Submission>) -> StatusCode {
    let (mut lists, record) = (lock(&lists), SignedStream::decode(&wire(&body)).unwrap());
    let id = record.value().id();
    let known = lists.streams.get(&id);
    let newer = known.is_none_or(|known| known.value().seq < record.value().seq);
    if conflicts(&mut lists) || !newer {
        return StatusCode::CONFLICT;
    }
    lists.streams.insert(id, record);
    StatusCode::OK
}

struct Running {
    handle: Handle,
    stop: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
    _dir: TempDir,
}

impl Running {
    async fn start(web: &FakeWeb, supernode: Supernode) -> Self {
        let dir = TempDir::new().unwrap();
        let config = Config {
            web: vec![format!("http://{}", web.address)],
            supernode,
            ..Config::default_in(dir.path())
        };
        let node = Node::load(config).await.unwrap();
        let (handle, stop) = (node.handle(), CancellationToken::new());
        let ended = tokio::spawn(node.run(stop.clone().cancelled_owned()));
        Self {
            handle,
            stop,
            ended,
            _dir: dir,
        }
    }

    async fn publish(&self) -> StreamId {
        let stream = api::NewStream {
            name: "Show".into(),
            description: None,
            unlisted: false,
        };
        self.handle.publish(stream).await.unwrap().id
    }

    async fn lists(&self, id: StreamId) -> bool {
        self.handle.streams().await.iter().any(|s| s.id == id)
    }
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(WITHIN, waiting).await;
    waited.unwrap_or_else(|_| panic!("not within {WITHIN:?}: {what}"));
}

#[tokio::test]
async fn nodes_that_share_a_web_find_each_other_and_each_others_streams() {
    let web = FakeWeb::new().await;
    let first = Running::start(&web, Supernode::Auto).await;
    let id = first.publish().await;
    // The list has to say so: a second node that hears of none becomes one.
    until("the first is listed as a supernode", async || {
        let lists = web.lists();
        let listed = lists.nodes.get(&first.handle.id());
        listed.is_some_and(|node| node.value().role == Role::Supernode)
    })
    .await;
    let second = Running::start(&web, Supernode::Auto).await;
    until("the second registers with the first", async || {
        second.handle.node().await.primary_supernode == Some(first.handle.id())
    })
    .await;
    until("it lists the stream", async || second.lists(id).await).await;
    assert_eq!(second.handle.node().await.role, api::Role::Node);
    let nodes = second.handle.nodes().await;
    let shown = nodes.iter().find(|node| node.uuid == first.handle.id());
    assert_eq!(shown.unwrap().role, api::Role::Supernode);

    first.stop.cancel();
    first.ended.await.unwrap().unwrap();
    assert!(
        !web.lists().nodes.contains_key(&first.handle.id()),
        "gone from the list"
    );
}

#[tokio::test]
async fn web_that_was_killed_and_comes_back_empty_lists_the_stream_again() {
    let web = FakeWeb::new().await;
    let node = Running::start(&web, Supernode::Auto).await;
    let id = node.publish().await;
    let own = node.handle.id();
    until("listed", async || {
        let lists = web.lists();
        lists.streams.contains_key(&id) && lists.nodes.contains_key(&own)
    })
    .await;
    web.serving.abort();
    assert!(web.serving.await.unwrap_err().is_cancelled());
    let web = FakeWeb::start(web.address, Shared::default()).await;
    until("listed again", async || {
        let lists = web.lists();
        lists.streams.contains_key(&id) && lists.nodes.contains_key(&own)
    })
    .await;
    node.handle.unpublish(id).await.unwrap();
    until("its end is listed", async || {
        web.lists().streams[&id].value().state == StreamState::Ended
    })
    .await;
}

#[tokio::test]
async fn outdated_records_are_signed_anew_and_unchanged_answers_are_not_sent_twice() {
    let web = FakeWeb::new().await;
    web.lists().conflicts = 2;
    let node = Running::start(&web, Supernode::Always).await;
    let id = node.publish().await;
    until("listed", async || {
        let lists = web.lists();
        lists.streams.contains_key(&id) && lists.nodes.contains_key(&node.handle.id())
    })
    .await;
    let port = node.handle.inner().addresses.quic.port();
    let listed = web.lists().nodes[&node.handle.id()]
        .value()
        .addresses
        .clone();
    assert_eq!(listed, [Address(([127, 0, 0, 1], port).into())]);
    until("nothing new", async || web.lists().unchanged > 0).await;
}

#[tokio::test]
async fn record_that_does_not_verify_is_not_believed() {
    let web = FakeWeb::new().await;
    let publisher = Running::start(&web, Supernode::Never).await;
    let id = publisher.publish().await;
    let listed = async || web.lists().streams.contains_key(&id);
    until("listed", listed).await;
    let mut bytes = web.lists().streams[&id].wire().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    {
        let mut lists = web.lists();
        lists.forged = Some(URL_SAFE_NO_PAD.encode(bytes));
        lists.nodes.clear();
    }
    let other = Running::start(&web, Supernode::Never).await;
    until("it has asked", async || other.handle.is_ready()).await;
    assert!(!other.lists(id).await);
}
