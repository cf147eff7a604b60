//! Strangers who send rubbish, and what honest nodes notice of it.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::time::{Duration, Instant};

use common::{Server, key, node, node_of, submission};
use futures_util::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bad records that are sent.
const COUNT: u32 = 10_000;
/// Those that are under way at a time.
const AT_ONCE: usize = 24;
/// What the server may grow by, once it has seen a tenth of them.
const GROWTH_MAX: u64 = 24 << 20;
/// An honest node is served within this, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(5);

/// The body of one bad record, and the status that it deserves.
fn bad(number: u32, known: &str) -> (String, u16) {
    let key = key(number);
    let signed = |address: &str| node_of(&key, 1, 1, address, None).wire().to_vec();
    match number % 4 {
        0 => {
            let mut forged = signed("127.0.0.1:9000");
            *forged.last_mut().unwrap() ^= 1;
            (submission(&forged), 422)
        }
        1 => (known.to_owned(), 409),
        2 => (submission(&[0; 5_000]), 413),
        _ => (submission(&signed("203.0.113.5:9000")), 422),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_bad_records_are_refused_each_for_its_reason_and_honest_nodes_are_served() {
    let server = Server::behind_proxy();
    let honest = "198.51.100.7";
    let renew = async |seq| {
        let record = node(1, seq, "198.51.100.7:8000", None);
        let begun = Instant::now();
        let body = submission(record.wire());
        let answer = server.post_from(honest, "/api/v1/nodes", &body).await;
        let status = answer.status.as_u16();
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        status
    };
    assert_eq!(renew(1).await, 201);
    let known = submission(node(2, 1, "127.0.0.1:9000", None).wire());
    assert_eq!(server.post("/api/v1/nodes", &known).await.status, 201);
    let flood = async |from: u32, to: u32| {
        let sent = stream::iter(from..to).map(async |number| {
            let (body, status) = bad(number, &known);
            let answer = server.post("/api/v1/nodes", &body).await;
            assert_eq!(answer.status, status, "{number}: {}", answer.text());
        });
        sent.buffer_unordered(AT_ONCE).collect::<()>().await;
    };
    let begun = Instant::now();
    flood(0, COUNT / 10).await;
    let before = server.memory();
    let done = std::cell::Cell::new(false);
    let rest = async {
        flood(COUNT / 10, COUNT).await;
        done.set(true);
    };
    let honestly = async {
        let mut seq = 1;
        while !done.get() {
            seq += 1;
            assert_eq!(renew(seq).await, 200);
        }
        seq
    };
    let ((), renewals) = tokio::join!(rest, honestly);
    let growth = server.memory().saturating_sub(before);
    println!(
        "{COUNT} in {:?}, {renewals} renewals meanwhile, memory {} KiB, grown by {} KiB",
        begun.elapsed(),
        before / 1024,
        growth / 1024
    );
    assert!(renewals > 5, "{renewals}");
    assert!(growth < GROWTH_MAX, "{growth}");
    let listed = server.get("/api/v1/nodes").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_one_stranger_is_answered_with_429_and_its_valid_records_are_sixteen() {
    let server = Server::behind_proxy();
    let sent = stream::iter(0..2_000u32).map(async |number| {
        let ip = format!("203.0.113.{}", number % 250);
        let record = node_of(&key(number), 1, 1, &format!("{ip}:1"), None);
        let body = submission(record.wire());
        server
            .post_from(&ip, "/api/v1/nodes", &body)
            .await
            .status
            .as_u16()
    });
    let statuses: Vec<u16> = sent.buffer_unordered(AT_ONCE).collect().await;
    let taken = statuses.iter().filter(|status| **status == 201).count();
    assert_eq!(taken, 16);
    assert!(statuses.iter().all(|status| matches!(status, 201 | 429)));
    let honest = node(1, 1, "198.51.100.7:8000", None);
    let body = submission(honest.wire());
    let answer = server
        .post_from("198.51.100.7", "/api/v1/nodes", &body)
        .await;
    assert_eq!(answer.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_with_many_silent_connections_leaves_room_for_others() {
    let server = Server::start();
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(
            tokio::net::TcpStream::connect(server.address())
                .await
                .unwrap(),
        );
    }
    let answer = server.ask("GET", "/health", &[], vec![]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_lives_on_after_a_body_that_nobody_wanted() {
    let server = Server::start();
    let mut socket = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    let body = "x".repeat(8_000);
    for round in 0..30 {
        let (method, path) = match round % 3 {
            0 => ("POST", "/api/v1/nodes"),
            1 => ("POST", "/api/v1/none"),
            _ => ("PUT", "/api/v1/streams"),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 8000\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        // As a client does whose body comes in a packet of its own.
        tokio::task::yield_now().await;
        socket.write_all(body.as_bytes()).await.unwrap();
        let status = answer(&mut socket).await;
        assert_eq!(status, [415, 404, 405][round % 3], "round {round}");
    }
}

/// The status of the next answer, which is read to its end.
async fn answer(socket: &mut tokio::net::TcpStream) -> u16 {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        bytes.push(socket.read_u8().await.expect("the connection lives"));
        if bytes.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(bytes).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length = length.expect("a length").parse().unwrap();
            break (head, length);
        }
    };
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    head[9..12].parse().unwrap()
}
