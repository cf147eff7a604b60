//! Encoders in, players out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use astral_proto::record::StreamState;
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
use super::{Served, catalog, parse, served, served_with, sound};
use crate::store::{LiveEvent, StartAt};

async fn playing(script: impl IntoIterator<Item = LiveEvent>) -> Served {
    let script: VecDeque<_> = script.into_iter().collect();
    served_with("127.0.0.1:0", |_, fake| fake.script = script).await
}

fn count(body: &[u8], kind: &[u8; 4]) -> usize {
    body.windows(4).filter(|w| w == kind).count()
}

#[tokio::test]
async fn encoders_are_let_in_by_their_key_alone() {
    let node = served().await;
    for method in ["PUT", "POST"] {
        assert_eq!(
            node.ask(method, "/ingest/good", "", "ftyp and more")
                .await
                .status,
            204
        );
        node.ask(method, "/ingest/none", "", "ftyp")
            .await
            .is_problem(403);
        node.ask(method, "/ingest/busy", "", "ftyp")
            .await
            .is_problem(409);
        node.ask(method, "/ingest/good", "", "junk")
            .await
            .is_problem(415);
        node.ask(method, "/ingest/good", "", "ftypbad")
            .await
            .is_problem(422);
    }
    let chunked = format!(
        "PUT /ingest/good HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n4\r\nftyp\r\n0\r\n\r\n",
        node.at
    );
    assert_eq!(node.raw(chunked.as_bytes()).await.status, 204);
}

#[tokio::test]
async fn expectations_are_met_only_if_the_body_is_wanted() {
    let node = served().await;
    for (key, first) in [("good", "100"), ("none", "403")] {
        let mut socket = TcpStream::connect(node.at).await.unwrap();
        let head = format!(
            "PUT /ingest/{key} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\n\
             Content-Length: 4\r\n\r\n",
            node.at
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        socket.read_exact(&mut start).await.unwrap();
        assert_eq!(std::str::from_utf8(&start[9..]).unwrap(), first);
        if key == "good" {
            socket.write_all(b"ftyp").await.unwrap();
            let mut rest = [0; 64];
            let len = socket.read(&mut rest).await.unwrap();
            let rest = String::from_utf8_lossy(&rest[..len]).into_owned();
            assert!(
                rest.contains("204") || socket.read_u8().await.is_ok(),
                "{rest}"
            );
        }
    }
}

#[tokio::test]
async fn mp4_ends_at_a_new_configuration_unless_wanted_in_line() {
    let script = || {
        [
            catalog(1, 48_000),
            sound(1, 0, 4),
            catalog(2, 48_000),
            sound(2, 1, 4),
            catalog(3, 44_100),
            sound(3, 2, 4),
            LiveEvent::State(StreamState::Ended),
        ]
    };
    let node = playing(script()).await;
    let reply = node.get("/live/my-show/stream.mp4").await;
    assert_eq!(reply.header("content-type"), Some("video/mp4"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(
        (count(&reply.body, b"moov"), count(&reply.body, b"moof")),
        (1, 2)
    );
    let reply = node
        .get("/live/my-show/stream.mp4?inline=1&target_ms=500")
        .await;
    assert_eq!(
        (count(&reply.body, b"moov"), count(&reply.body, b"moof")),
        (2, 3)
    );
    assert_eq!(
        node.handle.fake().starts,
        [
            StartAt::Live { target_ms: 1200 },
            StartAt::Live { target_ms: 500 }
        ]
    );
    assert_eq!(node.handle.fake().readers, 0);
}

#[tokio::test]
async fn asking_about_media_does_not_start_it() {
    let node = playing([catalog(1, 48_000)]).await;
    let reply = node.ask("HEAD", "/live/my-show/stream.mp4", "", "").await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("content-type"), Some("video/mp4"));
    assert!(node.handle.fake().starts.is_empty());
    node.get("/live/my-show/stream.mp4?from_ms=x")
        .await
        .is_problem(422);
}

#[tokio::test]
async fn without_room_or_content_media_is_503() {
    let node = served().await;
    let reply = node.get("/live/my-show/stream.mp4").await;
    reply.is_problem(503);
    assert!(reply.header("retry-after").is_some());
    let node = playing([LiveEvent::State(StreamState::Ended)]).await;
    node.get("/live/my-show/stream.mp4").await.is_problem(503);
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

/// The next messages of these types; binary ones are `moov` or `moof`.
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
async fn socket_tells_configuration_media_and_holes_in_order() {
    let lost = LiveEvent::Lost {
        track: 1,
        group: 7,
        from: 1,
        count: 375,
    };
    let node = playing([
        catalog(1, 48_000),
        sound(1, 0, 4),
        lost,
        sound(1, 1_500, 4),
        catalog(2, 44_100),
        sound(2, 1_600, 4),
    ])
    .await;
    let mut socket = socket(&node, "/live/my-show/ws?from_ms=-5").await;
    let (kind, state) = told(&mut socket, &[]).await;
    assert_eq!(
        (kind.as_str(), &state["stream"]["slug"]),
        ("state", &"my-show".into())
    );
    assert!(state["edge_ms"].is_null());
    let but = &["state"][..];
    let (kind, init) = told(&mut socket, but).await;
    assert_eq!((kind.as_str(), &init["epoch"]), ("init", &1.into()));
    assert_eq!(init["mime"], "audio/mp4; codecs=\"mp4a.40.2\"");
    for expected in ["moov", "moof"] {
        assert_eq!(told(&mut socket, but).await.0, expected);
    }
    let (kind, gap) = told(&mut socket, but).await;
    assert_eq!(kind, "gap");
    assert_eq!(
        (&gap["track"], &gap["from_ms"], &gap["to_ms"]),
        (&1.into(), &21.into(), &32_000.into())
    );
    assert_eq!(told(&mut socket, but).await.0, "moof");
    assert_eq!(told(&mut socket, but).await.1["epoch"], 2);
    assert_eq!(node.handle.fake().starts, [StartAt::FromMs(-5)]);
}

#[tokio::test]
async fn socket_tells_state_at_each_change_and_each_second() {
    let node = playing([catalog(1, 48_000)]).await;
    let mut socket = socket(&node, "/live/my-show/ws").await;
    let but = &["init", "moov"][..];
    told(&mut socket, but).await;
    let (_, steady) = told(&mut socket, but).await;
    assert_eq!(
        (&steady["edge_ms"], &steady["bitrate_bps"]),
        (&4000.into(), &2_000_000.into())
    );
    assert!(steady["stream"].get("ingest").is_none());
    node.handle.fake().streams[0].viewers = 5;
    let before = std::time::Instant::now();
    node.handle.bump();
    assert_eq!(told(&mut socket, but).await.1["stream"]["viewers"], 5);
    assert!(before.elapsed().as_millis() < 700);
}

#[tokio::test]
async fn socket_says_what_is_wrong_and_closes() {
    let node = served().await;
    for (path, status) in [
        ("/live/none/ws", 404),
        ("/live/twins/ws", 409),
        ("/live/my-show/ws", 503),
    ] {
        let mut socket = socket(&node, path).await;
        let (kind, error) = told(&mut socket, &["state"]).await;
        assert_eq!((kind.as_str(), &error["status"]), ("error", &status.into()));
        assert!(error["detail"].is_string() && error["title"].is_string());
        assert_eq!(told(&mut socket, &[]).await.0, "close");
    }
    assert_eq!(node.get("/live/my-show/ws").await.status, 400);
}

#[tokio::test]
async fn readers_are_given_back_when_players_go() {
    let node = playing([catalog(1, 48_000), sound(1, 0, 4)]).await;
    let mut socket = socket(&node, "/live/my-show/ws").await;
    while told(&mut socket, &[]).await.0 != "moof" {}
    assert_eq!(node.handle.fake().readers, 1);
    drop(socket);
    let mut mp4 = TcpStream::connect(node.at).await.unwrap();
    let head = format!(
        "GET /live/my-show/stream.mp4 HTTP/1.1\r\nHost: {}\r\n\r\n",
        node.at
    );
    mp4.write_all(head.as_bytes()).await.unwrap();
    let mut some = [0; 64];
    mp4.read_exact(&mut some).await.unwrap();
    assert_eq!(parse(&some).status, 200);
    drop(mp4);
    while node.handle.fake().readers > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
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
    let charged = || node.handle.uplink().charged.load(Ordering::Relaxed);
    Egress::new(&app, &caller).charge(0, 100).await;
    assert_eq!(charged(), 0);
    caller.peer = ([192, 0, 2, 1], 9).into();
    Egress::new(&app, &caller).charge(0, 100).await;
    assert_eq!(charged(), 100);
}
