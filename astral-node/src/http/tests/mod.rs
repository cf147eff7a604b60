//! The HTTP side of real nodes over real sockets, spoken to byte by byte.

mod abuse;
mod encoder;
mod events;
mod frames;
mod media;
mod metrics;
mod routes;
mod safety;
mod settings;
mod ts;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use astral_proto::api;
use astral_proto::ids::NodeId;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::handle::Handle;
use crate::node::Node;

const JSON: &str = "Content-Type: application/json\r\n";
/// Longest that [`until`] waits; failover and leaving take less.
const UNTIL_MAX: Duration = Duration::from_secs(10);

/// A running node. It ends with its test's runtime, or by `stop`.
struct Served {
    at: SocketAddr,
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    _dir: TempDir,
}

/// A node that publishes `My Show`.
async fn served() -> Served {
    served_with(|_| {}).await
}

async fn served_with(change: impl FnOnce(&mut Config)) -> Served {
    let node = started(change).await;
    node.publish("My Show").await;
    node
}

/// A node without streams.
async fn started(change: impl FnOnce(&mut Config)) -> Served {
    let dir = TempDir::new().unwrap();
    let mut config = Config {
        rtmp: None,
        allow_origin: vec!["https://site.example".into()],
        public_http: Some("https://public.example/astral".into()),
        ..Config::default_in(dir.path())
    };
    change(&mut config);
    let node = Node::load(config).await.unwrap();
    let handle = node.handle();
    let port = handle.inner().addresses.http.port();
    let stop = CancellationToken::new();
    let task = tokio::spawn(node.run(stop.clone().cancelled_owned()));
    Served {
        at: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        handle,
        stop,
        task,
        _dir: dir,
    }
}

/// A node that publishes `My Show` and knows another, which publishes `Other`.
async fn pair() -> (Served, Served) {
    pair_with(|_| {}).await
}

/// The same; `change` is for the other node.
async fn pair_with(change: impl FnOnce(&mut Config)) -> (Served, Served) {
    let other = started(|config| {
        config.name = Some("node 2".into());
        change(config);
    })
    .await;
    other.publish("Other").await;
    let node = served_with(|config| {
        config.name = Some("node 1".into());
        config.peers = vec![other.address()];
    })
    .await;
    until(async || node.handle.streams().await.len() == 2).await;
    (node, other)
}

/// Waits until something is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    let waited = timeout(UNTIL_MAX, async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it becomes so in time");
}

fn node_id(n: u128) -> NodeId {
    NodeId(uuid::Uuid::from_u128(n))
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Checks that it is a problem of this status, in form and content.
    #[track_caller]
    fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem: api::Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, status);
        assert!(!problem.detail.is_empty() && !problem.title.is_empty());
        assert_eq!(self.header("retry-after").is_some(), status == 503);
    }
}

impl Served {
    async fn publish(&self, name: &str) {
        let new = api::NewStream {
            name: name.into(),
            description: None,
            unlisted: false,
        };
        self.handle.publish(new).await.unwrap();
    }

    /// Where others find this node.
    fn address(&self) -> astral_proto::link::PeerAddress {
        self.handle.ready().quic.parse().unwrap()
    }

    /// The header line that shows this run's token.
    fn token(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.handle.token())
    }

    /// The header line that the node's own pages show.
    fn guard(&self) -> String {
        format!("X-Astral-Guard: {}\r\n", self.handle.guard())
    }

    /// Token and `Content-Type` of a change in JSON.
    fn json(&self) -> String {
        format!("{}{JSON}", self.token())
    }

    /// The stream key of one of this node's own streams.
    async fn key(&self, slug: &str) -> String {
        let id = self.handle.stream(slug).await.unwrap().id;
        self.handle.ingest_of(id).unwrap().stream_key
    }

    /// Sends a request with these header lines besides a right `Host`, and reads to the end.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let host = format!("Host: {}\r\n", self.at);
        self.ask_as(&host, method, path, headers, body).await
    }

    async fn ask_as(&self, host: &str, method: &str, path: &str, more: &str, body: &str) -> Reply {
        let length = match body.is_empty() {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let text = format!(
            "{method} {path} HTTP/1.1\r\n{host}{more}{length}Connection: close\r\n\r\n{body}"
        );
        self.raw(text.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "").await
    }

    async fn raw(&self, bytes: &[u8]) -> Reply {
        let mut socket = TcpStream::connect(self.at).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        Reply::read(socket).await
    }

    /// Asks for endless media, and reads only its first bytes.
    async fn open(&self, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.at).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.at
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        socket.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        socket
    }
}

impl Reply {
    /// Reads until the other side closes.
    async fn read(mut socket: TcpStream) -> Self {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        Self::parse(&all)
    }

    fn parse(all: &[u8]) -> Self {
        let split = all
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or(all.len());
        let head = String::from_utf8_lossy(&all[..split]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        let body = all.get(split + 4..).unwrap_or_default().to_vec();
        Self { status, head, body }
    }
}
