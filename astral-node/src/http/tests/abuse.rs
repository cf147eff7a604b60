//! Peers that send nonsense, too slowly, or do not read; and stopping in the midst of it.
//!
//! Time is paused where a limit is waited for: it jumps ahead when nothing else goes on.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::encoder::{GOP, SMALL, clip, feed, init, pictures};
use super::{Reply, served, until};

/// Bytes of a picture of which [`players_that_do_not_read_are_cut_and_their_reader_given_back`]
/// sends more than the sockets of both sides hold.
const LARGE: usize = 200_000;

#[test]
fn nonsense_harms_nobody_else() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(served());
    let text = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2_000),
        "(GET|POST|PUT|OPTIONS) /[a-z0-9%/~?=&]{0,40} HTTP/1\\.[01]\r\n(Host: [ -~]{0,20}\r\n)?([A-Za-z-]{1,20}: [ -~]{0,30}\r\n){0,5}\r\n[ -~]{0,40}"
            .prop_map(String::into_bytes),
    ];
    proptest!(ProptestConfig::with_cases(200), |(bytes in text)| {
        runtime.block_on(async {
            let mut socket = TcpStream::connect(node.at).await.unwrap();
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
            let mut answer = Vec::new();
            let read = timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
            assert!(read.is_ok(), "hangs on {bytes:?}");
        });
    });
    assert_eq!(runtime.block_on(node.get("/health")).status, 200);
    runtime.block_on(async {
        node.stop.cancel();
        node.task.await.expect("the node did not panic").unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn heads_and_bodies_that_trickle_are_cut() {
    let node = served().await;
    let host = node.at;
    let key = node.key("my-show").await;
    let json = format!(
        "POST /api/v1/streams HTTP/1.1\r\nHost: {host}\r\n{}",
        node.json()
    );
    let length = "Content-Length: 50\r\n\r\n";
    for (start, most) in [
        ("GET /health HTTP/1.1\r\nHost: ".to_owned(), 12),
        (String::new(), 12),
        (format!("{json}{length}{{\"name\""), 25),
        (
            format!("POST /api/v1/ping HTTP/1.1\r\nHost: {host}\r\n{length}x"),
            45,
        ),
        (
            format!("PUT /ingest/{key} HTTP/1.1\r\nHost: {host}\r\n{length}ftyp"),
            45,
        ),
    ] {
        let mut socket = TcpStream::connect(node.at).await.unwrap();
        socket.write_all(start.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(most), socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "kept open: {start}");
    }
    assert_eq!(node.get("/health").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn players_that_do_not_read_are_cut_and_their_reader_given_back() {
    let node = served().await;
    let media = [init(SMALL), pictures(0..12 * GOP, LARGE)].concat();
    feed(&node, &media).await;
    let upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, headers, most) in [("stream.mp4", "", 40), ("ws", upgrade, 15)] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        let mut socket = socket.connect(node.at).await.unwrap();
        let head = format!(
            "GET /live/my-show/{path}?from_ms=0 HTTP/1.1\r\nHost: {}\r\n{headers}\r\n",
            node.at
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let start = Instant::now();
        until(async || node.handle.readers() == 1).await;
        while node.handle.readers() > 0 {
            sleep(Duration::from_millis(100)).await;
            let most = Duration::from_secs(most);
            assert!(start.elapsed() < most, "{path} is kept");
        }
    }
}

#[tokio::test]
async fn a_full_node_says_so() {
    let node = served().await;
    let mut held = Vec::new();
    for _ in 0..512 {
        held.push(TcpStream::connect(node.at).await.unwrap());
    }
    let mut extra = TcpStream::connect(node.at).await.unwrap();
    let mut answer = Vec::new();
    extra.read_to_end(&mut answer).await.unwrap();
    Reply::parse(&answer).is_problem(503);
    drop(held);
    while node.get("/health").await.status != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stopping_ends_endless_answers_in_time() {
    let node = served().await;
    feed(&node, &clip(SMALL, GOP)).await;
    let mut idle = TcpStream::connect(node.at).await.unwrap();
    let mut mp4 = node.open("/live/my-show/stream.mp4").await;
    let _stuck = node.open("/live/my-show/stream.mp4").await;
    node.stop.cancel();
    let reading = tokio::spawn(async move {
        let mut rest = Vec::new();
        mp4.read_to_end(&mut rest).await.map(|_| rest)
    });
    timeout(Duration::from_secs(4), node.task)
        .await
        .expect("it stops")
        .unwrap()
        .unwrap();
    let rest = reading.await.unwrap().unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the answer ends cleanly");
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
