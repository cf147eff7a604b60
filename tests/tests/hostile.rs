//! Bad input is refused in clear words, and nobody else notices.

use std::time::Duration;

use astral_proto::api::{Ingest, Problem};
use astral_tests::api::{Answer, Api};
use astral_tests::chain::Chain;
use astral_tests::ffmpeg::{Clip, Encoder, assert_tail, packets};
use astral_tests::process::{Launch, Node};
use astral_tests::raw::{Noise, http, tcp, udp};
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::s;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// What a node may hold more after a storm than before it.
const MEMORY_GROWTH_MAX: u64 = 64 << 20;

async fn node() -> Node {
    Launch::new("node").start().await
}

/// A refusal must be a problem that says something.
fn assert_problem(answer: &Answer, status: u16) -> Problem {
    assert_eq!(answer.status, status, "{answer}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem: Problem = serde_json::from_slice(&answer.body).expect("a problem");
    assert_eq!(problem.status, status);
    assert!(
        problem.detail.len() > 10,
        "`{}` says nothing",
        problem.detail
    );
    problem
}

async fn ask(
    api: &Api,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = hyper::Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", &api.authority);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    api.send(request.body(body).expect("a request"))
        .await
        .expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_allowed_get_the_documented_status() {
    let _turn = turn::shared().await;
    let node = node().await;
    let api = &node.api;
    let bearer = format!("Bearer {}", api.token);
    let json = ("content-type", "application/json");
    let right = ("authorization", bearer.as_str());
    let wrong = ("authorization", "Bearer 0123456789abcdef");
    let new = r#"{"name":"x"}"#;
    let post = || Method::POST;
    let streams = "/api/v1/streams";

    assert_problem(
        &ask(api, Method::GET, "/api/v1/streams/nobody-has-this", &[], "").await,
        404,
    );
    assert_problem(&ask(api, Method::GET, "/no/such/path", &[], "").await, 404);
    assert_problem(
        &ask(api, Method::PUT, streams, &[right, json], new).await,
        405,
    );
    assert_problem(
        &ask(
            api,
            post(),
            streams,
            &[right, json],
            r#"{"name":"x","colour":1}"#,
        )
        .await,
        422,
    );
    assert_problem(
        &ask(api, post(), streams, &[right, json], r#"{"name":""}"#).await,
        422,
    );
    assert_problem(
        &ask(api, post(), streams, &[right, json], r#"{"name":"#).await,
        400,
    );
    assert_problem(
        &ask(
            api,
            post(),
            streams,
            &[right, ("content-type", "text/plain")],
            new,
        )
        .await,
        415,
    );
    assert_problem(&ask(api, post(), streams, &[json], new).await, 401);
    assert_problem(&ask(api, post(), streams, &[wrong, json], new).await, 401);
    assert_problem(
        &ask(api, Method::DELETE, "/api/v1/node", &[wrong], "").await,
        401,
    );
    let foreign_host = ("host", "evil.example");
    assert_problem(
        &ask(api, Method::GET, "/api/v1/node", &[foreign_host, right], "").await,
        421,
    );
    assert_problem(
        &ask(api, Method::GET, "/health", &[foreign_host], "").await,
        421,
    );
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let origin = ("origin", origin);
        assert_problem(
            &ask(api, Method::GET, "/api/v1/node", &[origin], "").await,
            403,
        );
        assert_problem(
            &ask(api, post(), streams, &[origin, right, json], new).await,
            403,
        );
        assert_problem(
            &ask(api, Method::GET, "/live/x/stream.mp4", &[origin], "").await,
            403,
        );
    }
    let cross = ("sec-fetch-site", "cross-site");
    assert_problem(
        &ask(api, Method::GET, "/api/v1/node", &[cross], "").await,
        403,
    );
    assert_problem(
        &ask(api, Method::GET, "/live/x/stream.mp4", &[cross], "").await,
        403,
    );
    assert_problem(
        &ask(api, Method::GET, "/api/v1/ping?bytes=8388609", &[], "").await,
        413,
    );
    let long = "x".repeat(8 * 1024 * 1024 + 1);
    assert_problem(
        &ask(api, post(), "/api/v1/ping", &[right], &long).await,
        413,
    );
    assert_problem(
        &ask(api, post(), "/ingest/no-such-key", &[], "bytes").await,
        403,
    );

    let ok = ask(api, Method::GET, "/api/v1/ping?bytes=8388608", &[], "").await;
    assert_eq!((ok.status.as_u16(), ok.body.len()), (200, 8_388_608));
    assert_eq!(ask(api, Method::GET, "/health", &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_checked_and_taken_once() {
    let _turn = turn::shared().await;
    let node = node().await;
    node.api.publish("My Show").await;
    let again = node
        .api
        .call(
            Method::POST,
            "/streams",
            &serde_json::json!({"name": "my show"}),
        )
        .await;
    assert_problem(&again, 409);
    let long = "x".repeat(101);
    let answer = node
        .api
        .call(Method::POST, "/streams", &serde_json::json!({"name": long}))
        .await;
    assert_problem(&answer, 422);
    let (stream, _) = node.api.publish("日本語の番組").await;
    assert!(stream.slug.starts_with("stream~"), "{}", stream.slug);
    assert_eq!(node.api.stream(&stream.slug).await.id, stream.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_with_a_wrong_stream_key_is_told_so() {
    let _turn = turn::shared().await;
    let node = node().await;
    let (_, ingest) = node.api.publish("Keyed").await;
    let rtmp = format!("{}/not-the-key", ingest.rtmp_url.as_ref().expect("RTMP"));
    let mut encoder = Encoder::rtmp_to(Clip::small(12), &rtmp);
    let status = encoder.end(s(20)).await;
    println!("ffmpeg by RTMP: {status}: {}", encoder.words());
    assert!(!status.success());
    assert!(
        encoder.words().contains("key"),
        "ffmpeg says why: {}",
        encoder.words()
    );

    let http_url = ingest.http_url.replace(&ingest.stream_key, "not-the-key");
    let mut encoder = Encoder::put(Clip::small(12), &Ingest { http_url, ..ingest });
    let status = encoder.end(s(30)).await;
    println!("ffmpeg by HTTP: {status}: {}", encoder.words());
    assert!(
        !status.success(),
        "ffmpeg notices that it is refused: {}",
        encoder.words()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_media_over_http_is_refused() {
    let _turn = turn::shared().await;
    let node = node().await;
    let (stream, ingest) = node.api.publish("Broken Media").await;
    let path = format!("/ingest/{}", ingest.stream_key);
    let clip = std::fs::read(Clip::small(12).path()).expect("the clip");
    let noise = Noise(7).bytes(300_000);
    let huge_box = [&u32::MAX.to_be_bytes()[..], b"moof", &[0; 2000]].concat();
    let ftyp = b"\0\0\0\x18ftypiso6\0\0\0\0iso6mp41";
    let cases: [(&str, Vec<u8>, &[u16]); 5] = [
        ("noise", noise.clone(), &[415]),
        ("text", b"GET / HTTP/1.1\r\n\r\n".repeat(100), &[415]),
        // Not fragmented, and cut off in the middle of its media.
        (
            "a truncated plain MP4",
            clip[..clip.len() / 2].to_vec(),
            &[400, 415, 422],
        ),
        (
            "a box of 4 GiB",
            [ftyp, &huge_box[..]].concat(),
            &[422, 413],
        ),
        (
            "noise behind ftyp",
            [ftyp, &noise[..]].concat(),
            &[422, 413],
        ),
    ];
    for (what, body, expected) in cases {
        let request = node
            .api
            .request(Method::PUT, &path)
            .body(Full::new(Bytes::from(body)));
        let answer = node.api.send(request.expect("a request")).await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        println!("{what}: {answer}");
        let status = answer.status.as_u16();
        assert!(expected.contains(&status), "{what}: {answer}");
        assert_problem(&answer, status);
    }
    let state = serde_json::to_value(node.api.stream(&stream.slug).await.state).expect("a word");
    assert_eq!(state, "waiting", "nothing of that made the stream live");
}

/// Everything bad at once, for a while.
async fn storm(node: &Node, stream_key: &str) {
    let (rtmp, http_at) = (
        node.ready.rtmp.clone().expect("RTMP"),
        node.ready.http.clone(),
    );
    let mut noise = Noise(42);
    for round in 0..6 {
        let answer = tcp(&rtmp, &noise.bytes(20_000)).await;
        assert!(answer.is_some(), "RTMP closes on noise");
        // A handshake of the right form, and noise behind it.
        let handshake = [&[3][..], &noise.bytes(1536 * 2), &noise.bytes(50_000)].concat();
        assert!(
            tcp(&rtmp, &handshake).await.is_some(),
            "RTMP closes on noise after its handshake"
        );
        assert!(
            tcp(&http_at, &noise.bytes(20_000)).await.is_some(),
            "HTTP closes on noise"
        );
        let sizes = [1, 20, 100, 1_200, 1_472, 9_000];
        let datagrams: Vec<_> = (0..2_000)
            .map(|n| noise.bytes(sizes[n % sizes.len()]))
            .collect();
        udp(&node.ready.quic, datagrams).await;
        // Long headers of QUIC version 1 that are none inside.
        let initials: Vec<_> = (0..2_000).map(|_| initial(&mut noise)).collect();
        udp(&node.ready.quic, initials).await;
        let head = format!("PUT /ingest/{stream_key} HTTP/1.1\r\nHost: {http_at}\r\n");
        let (status, _) = http(
            &http_at,
            &format!("{head}Content-Length: 4\r\nConnection: close\r\n\r\nabcd"),
        )
        .await;
        assert!((400..500).contains(&status), "round {round}: {status}");
        let (status, _) = http(
            &http_at,
            &format!("{head}X: {}\r\n\r\n", "y".repeat(200_000)),
        )
        .await;
        assert!((400..500).contains(&status), "round {round}: {status}");
    }
}

/// The head of a QUIC Initial packet (RFC 9000 §17.2.2) of full size, then noise.
fn initial(noise: &mut Noise) -> Vec<u8> {
    let ids = [
        &[8][..],
        &noise.bytes(8),
        &[8],
        &noise.bytes(8),
        &[0, 0x44, 0x90],
    ]
    .concat();
    let head = [&[0xc3, 0, 0, 0, 1][..], &ids].concat();
    let rest = noise.bytes(1_200 - head.len());
    [head, rest].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_noise_neither_hurts_a_stream_nor_fills_memory() {
    let _turn = turn::alone().await;
    let clip = Clip::small(20);
    let chain = Chain::start("In The Storm").await;
    let nodes = [&chain.publisher, &chain.relay, &chain.viewer];
    // A second stream of the same node is what the storm aims at.
    let (_, other) = chain.publisher.api.publish("The Target").await;
    let recording = Recording::start(&chain.viewer.api, chain.slug(), "");
    let mut encoder = Encoder::rtmp(clip, &chain.ingest);
    recording
        .wait("pieces", s(20), |came| came.fragments.len() > 60)
        .await;
    let before = nodes.map(Node::memory);

    // Connections that say nothing, and hold on.
    let mut idle = Vec::new();
    for _ in 0..50 {
        for port in [
            chain.publisher.ready.rtmp.as_ref().expect("RTMP"),
            &chain.publisher.ready.http,
        ] {
            let mut socket = TcpStream::connect(port).await.expect("the port is open");
            socket.write_all(&[3]).await.expect("one byte");
            idle.push(socket);
        }
    }
    storm(&chain.publisher, &other.stream_key).await;
    storm(&chain.relay, &other.stream_key).await;
    let after = nodes.map(Node::memory);
    encoder.finish(clip).await;
    recording.wait_quiet(s(3), s(30)).await;
    drop(idle);

    let dir = tempfile::tempdir().expect("a temporary folder");
    let came = recording.save(dir.path(), "came.mp4");
    let video = packets(&came, "v:0");
    assert_eq!(
        assert_tail("video in the storm", &packets(&clip.path(), "v:0"), &video),
        0
    );
    for (node, (before, after)) in ["publisher", "relay", "viewer"]
        .iter()
        .zip(before.iter().zip(after))
    {
        println!("{node}: {} → {} MiB", before >> 20, after >> 20);
        assert!(
            after < before + MEMORY_GROWTH_MAX,
            "{node}: {before} → {after} bytes"
        );
    }
    let local = chain.viewer.api.stream(chain.slug()).await.local;
    assert_eq!((local.frames_lost, local.switches), (0, 0), "{local:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_are_bounded_and_a_peer_still_gets_in() {
    let _turn = turn::shared().await;
    let node = node().await;
    let before = node.memory();
    let mut noise = Noise(3);
    let initials: Vec<_> = (0..10_000).map(|_| initial(&mut noise)).collect();
    udp(&node.ready.quic, initials).await;
    let after = node.memory();
    println!(
        "10,000 false initial packets: {} → {} MiB",
        before >> 20,
        after >> 20
    );
    assert!(after < before + MEMORY_GROWTH_MAX);
    let (stream, _) = node.api.publish("Still Here").await;
    let other = Launch::new("other").peer(&node).start().await;
    let found = astral_tests::wait::until("the stream", Duration::from_secs(15), async || {
        other.api.try_stream(&stream.id.to_string()).await
    });
    assert_eq!(found.await.id, stream.id);
}
