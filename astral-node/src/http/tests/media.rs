//! Encoders in, players out.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use astral_proto::ids::{SecretKey, StreamId};
use astral_proto::overlay::Event;
use astral_proto::record::{SignedStream, StreamRecord, StreamState};
use astral_proto::wire::heartbeat::Supply;
use astral_proto::wire::media::{FrameHeader, Signed};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::guard::Guard;
use super::super::live::egress::Egress;
use super::super::{App, Caller};
use super::encoder::{Encoder, GOP, SMALL, TINY, catalog, clip, feed, frame, pictures};
use super::{Reply, Served, pair, served, until};
use crate::store::StreamStore;

const MP4: &str = "/live/my-show/stream.mp4";

fn count(body: &[u8], kind: &[u8; 4]) -> usize {
    body.windows(4).filter(|w| w == kind).count()
}

#[tokio::test]
async fn encoders_are_let_in_by_their_key_alone() {
    let node = served().await;
    let path = format!("/ingest/{}", node.key("my-show").await);
    for method in ["PUT", "POST"] {
        let reply = node.ask(method, "/ingest/none", "", "ftyp").await;
        reply.is_problem(403);
        for (body, status) in [
            ("", 422),
            ("junk that goes on", 415),
            ("\x47 is how MPEG-TS begins", 415),
            ("\0\0\0\x10ftypiso6\0\0\0\0\0\0\0\x09mdat!", 422),
        ] {
            let reply = node.ask(method, &path, "", body).await;
            reply.is_problem(status);
        }
    }
    feed(&node, &clip(SMALL, GOP)).await;
    let codec = async || {
        let shown = node.get("/api/v1/streams/my-show").await.json();
        shown["tracks"][0]["codec"] == "avc1.4d401e"
    };
    until(codec).await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_encoder_wins_and_the_others_are_told() {
    let node = served().await;
    let state = |state: &'static str| {
        let node = &node;
        async move {
            let is_so = async || node.get("/api/v1/streams/my-show").await.json()["state"] == state;
            until(is_so).await;
        }
    };
    let mut first = Encoder::start(&node, "my-show").await;
    first.send(&clip(SMALL, GOP)).await;
    state("live").await;
    let mut second = Encoder::start(&node, "my-show").await;
    second.send(&clip(SMALL, GOP)).await;
    first.told().await.is_problem(409);
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut encoder = Encoder::start(&node, "my-show").await;
        encoder.send(b"\0").await;
        idle.push(encoder);
    }
    let path = format!("/ingest/{}", node.key("my-show").await);
    until(async || node.ask("PUT", &path, "", "").await.status == 409).await;
    node.handle
        .unpublish(node.handle.stream("my-show").await.unwrap().id)
        .await
        .unwrap();
    second.told().await.is_problem(409);
}

#[tokio::test]
async fn expectations_are_met_only_if_the_body_is_wanted() {
    let node = served().await;
    let key = node.key("my-show").await;
    let body = clip(SMALL, GOP);
    for (key, first) in [(key.as_str(), "100"), ("none", "403")] {
        let mut socket = TcpStream::connect(node.at).await.unwrap();
        let head = format!(
            "PUT /ingest/{key} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            node.at,
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        socket.read_exact(&mut start).await.unwrap();
        assert_eq!(std::str::from_utf8(&start[9..]).unwrap(), first);
        if first == "100" {
            socket.read_exact(&mut [0; 13]).await.unwrap();
            socket.write_all(&body).await.unwrap();
            assert_eq!(Reply::read(socket).await.status, 204);
        }
    }
}

#[tokio::test]
async fn mp4_starts_at_a_keyframe_and_goes_on_as_the_encoder_does() {
    let node = served().await;
    let mut encoder = Encoder::start(&node, "my-show").await;
    encoder.send(&clip(SMALL, 2 * GOP + 5)).await;
    let store = store(&node).await;
    until(async || store.newest().end_ms >= 2_400).await;
    let mut socket = node.open(&format!("{MP4}?target_ms=100")).await;
    let mut seen = Vec::new();
    read_until(&mut socket, &mut seen, |seen| count(seen, b"mdat") >= 4).await;
    // The third GOP is the newest that is as old as was asked for.
    let moof = seen.windows(4).position(|w| w == b"tfdt").unwrap();
    assert_eq!(seen[moof + 8..moof + 16], 2_000u64.to_be_bytes());
    let media = seen.windows(4).position(|w| w == b"mdat").unwrap();
    assert_eq!(seen[media + 8], 0x65, "an IDR slice");
    let before = count(&seen, b"mdat");
    encoder.send(&pictures(2 * GOP + 5..4 * GOP, 8)).await;
    read_until(&mut socket, &mut seen, |seen| {
        count(seen, b"mdat") >= before + GOP as usize
    })
    .await;
    assert_eq!(count(&seen, b"moov"), 1);
}

async fn read_until(socket: &mut TcpStream, seen: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) {
    while !enough(seen) {
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read_buf(seen)).await;
        assert_ne!(read.expect("media goes on").unwrap(), 0, "the answer ended");
    }
}

async fn store(node: &Served) -> Arc<StreamStore> {
    let id = node.handle.stream("my-show").await.unwrap().id;
    node.handle.inner().stores.of(id).unwrap()
}

#[tokio::test]
async fn mp4_ends_at_a_new_configuration_unless_wanted_in_line() {
    let node = served().await;
    for avcc in [SMALL, SMALL, TINY] {
        feed(&node, &clip(avcc, GOP)).await;
    }
    let reply = node.get(&format!("{MP4}?from_ms=0")).await;
    assert_eq!(reply.header("content-type"), Some("video/mp4"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let counts = |body: &[u8]| (count(body, b"moov"), count(body, b"moof"));
    assert_eq!(counts(&reply.body), (1, 2 * GOP as usize));
    let mut socket = node.open(&format!("{MP4}?inline=1&from_ms=0")).await;
    let id = node.handle.stream("my-show").await.unwrap().id;
    node.handle.unpublish(id).await.unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert_eq!(counts(&rest), (2, 3 * GOP as usize));
    until(async || node.handle.readers() == 0).await;
}

#[tokio::test]
async fn asking_about_media_does_not_start_it() {
    let (node, _other) = pair().await;
    let path = "/live/other/stream.mp4";
    let reply = node.ask("HEAD", path, "", "").await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("content-type"), Some("video/mp4"));
    let wrong = format!("{path}?from_ms=x");
    node.get(&wrong).await.is_problem(422);
    assert!(node.handle.tickets().await.is_empty());
    assert_eq!(node.handle.readers(), 0);
}

#[tokio::test]
async fn asking_for_media_of_another_node_makes_this_one_receive_it() {
    let (node, other) = pair().await;
    let mut encoder = Encoder::start(&other, "other").await;
    encoder.send(&clip(SMALL, 3 * GOP)).await;
    let mut socket = node.open("/live/other/stream.mp4").await;
    encoder.send(&pictures(3 * GOP..6 * GOP, 8)).await;
    let mut seen = Vec::new();
    let enough = |seen: &[u8]| count(seen, b"moof") >= GOP as usize;
    read_until(&mut socket, &mut seen, enough).await;
    let shown = node.get("/api/v1/streams/other").await.json();
    assert_eq!(shown["local"]["receiving"], true);
}

#[tokio::test(start_paused = true)]
async fn media_without_content_is_503() {
    let node = served().await;
    node.get(MP4).await.is_problem(503);
    assert_eq!(node.handle.readers(), 0);
}

async fn socket(node: &Served, path: &str) -> impl Stream<Item = Message> + Unpin {
    let mut request = format!("ws://{}{path}", node.at)
        .into_client_request()
        .unwrap();
    let origin = format!("http://{}", node.at).parse().unwrap();
    request.headers_mut().insert("origin", origin);
    let tcp = TcpStream::connect(node.at).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(request, tcp).await.unwrap();
    socket.filter_map(|message| std::future::ready(message.ok()))
}

/// The next message of another type than these; binary ones are `moov` or `moof`.
async fn told(socket: &mut (impl Stream<Item = Message> + Unpin), but: &[&str]) -> (String, Value) {
    loop {
        let (kind, value) = match socket.next().await.expect("the socket is open") {
            Message::Text(text) => {
                let value: Value = serde_json::from_str(&text).unwrap();
                (value["type"].as_str().unwrap().to_owned(), value)
            }
            Message::Binary(bytes) if count(&bytes, b"moov") == 1 => {
                ("moov".to_owned(), Value::Null)
            }
            Message::Binary(bytes) => {
                assert_eq!((&bytes[4..8], count(&bytes, b"mdat")), (&b"moof"[..], 1));
                ("moof".to_owned(), Value::Null)
            }
            Message::Close(_) => ("close".to_owned(), Value::Null),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        if !but.contains(&kind.as_str()) {
            return (kind, value);
        }
    }
}

#[tokio::test]
async fn socket_tells_configurations_and_media_in_order() {
    let node = served().await;
    feed(&node, &clip(SMALL, GOP)).await;
    feed(&node, &clip(TINY, GOP)).await;
    let mut socket = socket(&node, "/live/my-show/ws?from_ms=-5").await;
    let (kind, state) = told(&mut socket, &[]).await;
    assert_eq!(
        (kind.as_str(), &state["stream"]["slug"]),
        ("state", &"my-show".into())
    );
    assert!(state["edge_ms"].is_null());
    let but = &["state"][..];
    for (epoch, codec) in [(1, "avc1.4d401e"), (2, "avc1.42c00a")] {
        let (kind, init) = told(&mut socket, but).await;
        assert_eq!((kind.as_str(), &init["epoch"]), ("init", &epoch.into()));
        assert_eq!(init["mime"], format!("video/mp4; codecs=\"{codec}\""));
        assert_eq!(told(&mut socket, but).await.0, "moov");
        for _ in 0..GOP {
            assert_eq!(told(&mut socket, but).await.0, "moof");
        }
    }
}

/// A stream of this node whose frames the test signs itself.
struct Signer {
    key: SecretKey,
    id: StreamId,
    store: Arc<StreamStore>,
}

impl Signer {
    async fn publish(node: &Served, name: &str) -> Self {
        let key = SecretKey::from_seed([7; 32]);
        let record = StreamRecord {
            key: key.public(),
            seq: 1,
            name: name.into(),
            description: None,
            publisher: node.handle.id(),
            unlisted: None,
            epoch: 1,
            started_at_ms: 0,
            state: StreamState::Live,
            bitrate_bps: None,
            tracks: Vec::new(),
            viewers: None,
        };
        let id = record.id();
        let record = SignedStream::sign(record, &key);
        let store = node.handle.inner().stores.open(&record);
        let supply = Supply::Ok;
        let inbox = &node.handle.inner().inbox;
        inbox
            .event(Event::Publish { record, supply }, String::new())
            .await;
        let signer = Self { key, id, store };
        let mut first = frame(0, 0);
        first.track = 0;
        first.payload = catalog(SMALL).encode().unwrap();
        signer.push(first);
        signer
    }

    fn push(&self, frame: astral_media::frame::Frame) {
        let header = crate::store::header_of(&frame, FrameHeader::digest(&frame.payload));
        let signed = Signed::<FrameHeader>::sign(self.id, &self.key, header);
        let payload: Bytes = frame.payload;
        self.store.push_frame(signed, &payload).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn socket_names_holes_by_their_times() {
    let node = served().await;
    let source = Signer::publish(&node, "Holes").await;
    // Pictures 2 to 4 of the first GOP never come; 5 to 9 are of no use without them.
    for n in (0..2).chain(5..GOP + 2) {
        source.push(frame(n, 8));
    }
    let mut socket = socket(&node, "/live/holes/ws?from_ms=0").await;
    let but = &["state", "init", "moov"][..];
    assert_eq!(told(&mut socket, but).await.0, "moof");
    assert_eq!(told(&mut socket, but).await.0, "moof");
    let (kind, gap) = told(&mut socket, but).await;
    assert_eq!(
        (kind.as_str(), &gap["track"], &gap["from_ms"], &gap["to_ms"]),
        ("gap", &1.into(), &200.into(), &1_000.into())
    );
    assert_eq!(told(&mut socket, but).await.0, "moof");
}

#[tokio::test]
async fn socket_tells_state_at_each_change_and_each_second() {
    let node = served().await;
    feed(&node, &clip(SMALL, 2 * GOP)).await;
    let mut socket = socket(&node, "/live/my-show/ws").await;
    let but = &["init", "moov", "moof"][..];
    told(&mut socket, but).await;
    let (_, steady) = told(&mut socket, but).await;
    assert_eq!(steady["edge_ms"], 2_000);
    assert!(steady["bitrate_bps"].is_u64());
    assert!(steady["stream"].get("ingest").is_none());
    let before = Instant::now();
    let id = node.handle.stream("my-show").await.unwrap().id;
    node.handle.set_paused(id, true).await.unwrap();
    while told(&mut socket, but).await.1["stream"]["state"] != "paused" {}
    assert!(before.elapsed() < Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn socket_says_what_is_wrong_and_closes() {
    let node = served().await;
    let mut socket = socket(&node, "/live/none/ws").await;
    let (kind, error) = told(&mut socket, &["state"]).await;
    assert_eq!((kind.as_str(), &error["status"]), ("error", &404.into()));
    assert!(error["detail"].is_string() && error["title"].is_string());
    assert_eq!(told(&mut socket, &[]).await.0, "close");
    assert_eq!(node.get("/live/my-show/ws").await.status, 400);
    node.get("/live/my-show/ws?from_ms=x").await.is_problem(422);
}

#[tokio::test]
async fn sockets_are_told_that_the_node_stops() {
    let node = served().await;
    let mut socket = socket(&node, "/live/my-show/ws").await;
    told(&mut socket, &[]).await;
    node.stop.cancel();
    let (kind, error) = told(&mut socket, &["state"]).await;
    assert_eq!((kind.as_str(), &error["status"]), ("error", &503.into()));
    assert_eq!(told(&mut socket, &[]).await.0, "close");
}

#[tokio::test]
async fn readers_are_given_back_when_players_go() {
    let node = served().await;
    feed(&node, &clip(SMALL, GOP)).await;
    let mut socket = socket(&node, "/live/my-show/ws").await;
    while told(&mut socket, &[]).await.0 != "moof" {}
    assert_eq!(node.handle.readers(), 1);
    drop(socket);
    let mp4 = node.open(MP4).await;
    until(async || node.handle.readers() == 1).await;
    drop(mp4);
    until(async || node.handle.readers() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_leaves_the_machine_is_charged_to_the_upload_limit() {
    let node = served().await;
    let app = App {
        guard: Guard::new(&node.handle, node.at),
        handle: node.handle.clone(),
        stop: CancellationToken::new(),
        kill: CancellationToken::new(),
        tasks: TaskTracker::new(),
        next_reader: AtomicU64::new(0),
    };
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let mut caller = Caller {
        peer: ([127, 0, 0, 1], 9).into(),
        local: [127, 0, 0, 1].into(),
        _place: Arc::new(place),
    };
    let charged = async || {
        tokio::time::advance(Duration::from_millis(100)).await;
        node.handle.uplink().used_bps()
    };
    Egress::new(&app, &caller).charge(0, 100).await;
    assert_eq!(charged().await, 0);
    caller.peer = ([192, 0, 2, 1], 9).into();
    Egress::new(&app, &caller).charge(0, 100).await;
    assert_eq!(charged().await, 800);
}
