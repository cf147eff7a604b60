//! The HTTP side over real sockets, spoken to byte by byte.

mod abuse;
mod media;
mod routes;
mod safety;

use std::net::SocketAddr;
use std::sync::Arc;

use astral_media::catalog::Catalog;
use astral_media::frame::{Frame, pack_audio};
use astral_media::track::{CodecConfig, Track};
use astral_proto::api;
use astral_proto::ids::{NodeId, StreamId};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::Config;
use crate::handle::{Fake, Handle};
use crate::store::LiveEvent;

const TOKEN: &str = "Authorization: Bearer the-token\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
/// Id of the first stream, which is this node's own.
const OWN: u128 = 0x8c2f_9a54_13d0_8e2b_9f00_3a5b_6c7d_8e9f;

/// A served node; it stops when dropped.
struct Served {
    at: SocketAddr,
    handle: Handle,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    _stop: DropGuard,
}

async fn served() -> Served {
    served_with("127.0.0.1:0", |_, _| {}).await
}

async fn served_with(bind: &str, change: impl FnOnce(&mut Config, &mut Fake)) -> Served {
    let listener = TcpListener::bind(bind).await.unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
    let mut config = Config {
        http: at,
        allow_origin: vec!["https://site.example".into()],
        public_http: Some("https://public.example/astral".into()),
        require_token: false,
    };
    let mut fake = Fake {
        nodes: vec![node(1), node(2)],
        streams: vec![stream("My Show", OWN), stream("Other", OWN + 1)],
        own: vec![StreamId(uuid::Uuid::from_u128(OWN))],
        tickets: vec![ticket("00000000000000aa")],
        ready: true,
        ..Fake::default()
    };
    change(&mut config, &mut fake);
    let handle = Handle::pretend(config, fake);
    let stop = CancellationToken::new();
    let task = tokio::spawn(super::serve(listener, handle.clone(), stop.clone()));
    let _stop = stop.clone().drop_guard();
    Served {
        at,
        handle,
        stop,
        task,
        _stop,
    }
}

fn node(n: u128) -> api::Node {
    api::Node {
        uuid: NodeId(uuid::Uuid::from_u128(n)),
        name: format!("node {n}"),
        addresses: Vec::new(),
        role: api::Role::Node,
        primary_supernode: None,
        is_self: n == 1,
        rtt_ms: None,
        upload_limit_bps: None,
        upload_used_bps: None,
        children: 0,
        version: "0".into(),
        last_seen: "2026-01-01T00:00:00Z".into(),
        connected: false,
    }
}

fn stream(name: &str, id: u128) -> api::Stream {
    let id = StreamId(uuid::Uuid::from_u128(id));
    api::Stream {
        slug: astral_proto::slug::slug_of(name, id),
        id,
        name: name.into(),
        description: String::new(),
        unlisted: false,
        publisher: node(1).uuid,
        share: format!("astral:{id}"),
        state: api::StreamState::Live,
        tracks: Vec::new(),
        bitrate_bps: 0,
        started_at: "2026-01-01T00:00:00Z".into(),
        viewers: 0,
        epoch: 1,
        local: api::Local::default(),
        ingest: None,
    }
}

fn ticket(id: &str) -> api::Ticket {
    api::Ticket {
        id: id.into(),
        stream: api::TicketStream {
            id: StreamId(uuid::Uuid::from_u128(OWN)),
            slug: "my-show".into(),
        },
        source: node(1).uuid,
        destination: node(2).uuid,
        state: api::TicketState::Active,
        reason: None,
        hops: 1,
        path: Vec::new(),
        created_at: String::new(),
        expires_at: String::new(),
        bytes: 0,
        bitrate_bps: 0,
    }
}

/// A stream of sound alone: it begins anywhere.
fn catalog(epoch: u32, sample_rate: u32) -> LiveEvent {
    LiveEvent::Catalog(Arc::new(Catalog {
        version: 1,
        epoch,
        first_group: 0,
        first_sequence: 0,
        target_duration_ms: None,
        part_target_ms: 200,
        timeline_start_ms: 0,
        wall_clock_start_ms: 0,
        bitrate_bps: None,
        tracks: vec![Track {
            id: 1,
            timescale: sample_rate,
            config: CodecConfig::Aac {
                asc: Bytes::from_static(&[0x11, 0x90]),
                sample_rate,
                channels: 2,
            },
        }],
    }))
}

fn sound(epoch: u32, number: i64, len: usize) -> LiveEvent {
    LiveEvent::Frame(Frame {
        track: 1,
        epoch,
        group: 7,
        index: number as u32,
        order: number as u32,
        dts: number * 1024,
        cts: 0,
        duration: 1024,
        keyframe: true,
        discardable: false,
        no_keyframe: false,
        payload: pack_audio(&[vec![0x21; len].into()]),
    })
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
    }
}

impl Served {
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
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        parse(&all)
    }
}

fn parse(all: &[u8]) -> Reply {
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
    Reply { status, head, body }
}
