//! How a node starts and ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use astral_tests::chain::{Chain, flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::Launch;
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use rustix::process::Signal;

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_node_within_5_seconds_and_takes_the_ready_file_away() {
    let _turn = turn::shared().await;
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = Launch::new("node").start().await;
        node.api.publish("Short").await;
        let ready = node.data_dir().join("node.json");
        assert_eq!(
            fs::metadata(&ready)
                .expect("a ready file")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        node.signal(signal);
        let status = node.exit(s(5)).await;
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
        assert!(!ready.exists(), "the ready file stays behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_node_at_once() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    node.signal(Signal::TERM);
    node.signal(Signal::INT);
    node.exit(s(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_ends_a_node() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    let answer = node.api.delete("/node").await;
    assert_eq!(answer.status, 202, "{answer}");
    assert_eq!(node.exit(s(5)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forwards_and_serves_players_ends_in_time() {
    let _turn = turn::shared().await;
    let mut chain = Chain::start("Leaving").await;
    let _encoder = Encoder::rtmp(Clip::small(30), &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    let at_relay = Recording::start(&chain.relay.api, chain.slug(), "");
    at_relay
        .wait("pieces", s(10), |came| came.fragments.len() > 10)
        .await;
    chain.relay.signal(Signal::TERM);
    assert_eq!(chain.relay.exit(s(5)).await.code(), Some(0));
    until("the player to be told", s(5), async || {
        at_relay.received().end.clone().ok_or("it reads")
    })
    .await;

    // The viewer was told where else to go.
    let before = chain.viewer.api.stream(chain.slug()).await.local;
    until("the viewer's new parent", s(10), async || {
        let local = chain.viewer.api.stream(chain.slug()).await.local;
        let moved = local.parent == Some(chain.publisher.id());
        check(
            moved && local.frames_received > before.frames_received + 30,
            format!("{local:?}"),
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_folder_is_refused_and_says_why() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    let second = node
        .launch()
        .command()
        .output()
        .expect("astral-node starts");
    let words = String::from_utf8_lossy(&second.stderr);
    println!("{words}");
    assert_eq!(second.status.code(), Some(1), "{words}");
    assert!(
        words.contains("running") || words.contains("use"),
        "{words}"
    );
    assert!(
        words.contains(&*node.data_dir().to_string_lossy()),
        "it names the folder: {words}"
    );
    assert!(node.is_running());
    assert!(
        node.data_dir().join("node.json").exists(),
        "the first one's file stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_the_same_node_after_a_restart() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    let id = node.id();
    let (stream, ingest) = node.api.publish("Kept").await;
    let node = node.restart().await;
    assert_eq!(node.id(), id);
    let kept = node.api.stream("kept").await;
    assert_eq!(kept.id, stream.id);
    assert_eq!(kept.ingest.map(|i| i.stream_key), Some(ingest.stream_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_finds_another_way_when_its_parent_is_killed() {
    let _turn = turn::shared().await;
    let mut chain = Chain::start("Killed Relay").await;
    let _encoder = Encoder::rtmp(Clip::small(40), &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    chain.relay.kill();
    let before = chain
        .viewer
        .api
        .stream(chain.slug())
        .await
        .local
        .frames_received;
    until("another parent", s(20), async || {
        let local = chain.viewer.api.stream(chain.slug()).await.local;
        let moved = local.parent == Some(chain.publisher.id());
        check(
            moved && local.frames_received > before + 60,
            format!("{local:?}"),
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_watching_gives_the_place_free() {
    let _turn = turn::shared().await;
    let publisher = Launch::new("publisher").start().await;
    let (stream, ingest) = publisher.api.publish("Come And Go").await;
    let _encoder = Encoder::rtmp(Clip::small(30), &ingest);
    let viewer = Launch::new("viewer").peer(&publisher).start().await;
    let ticket = join(&viewer, &stream).await;
    assert_eq!(ticket.source, publisher.id());
    flows(&viewer, &stream).await;
    let again = viewer.api.watch(&stream.slug).await;
    assert_eq!(again.status, 200, "already receiving: {again}");
    let own = publisher.api.watch(&stream.slug).await;
    assert_eq!(
        (own.status.as_u16(), &own.body[..]),
        (200, &b"null"[..]),
        "one's own stream"
    );

    let answer = viewer
        .api
        .delete(&format!("/streams/{}/ticket", stream.slug))
        .await;
    assert_eq!(answer.status, 204, "{answer}");
    until("the ticket's end", s(5), async || {
        let tickets = publisher.api.tickets(&stream.slug).await;
        check(tickets.is_empty(), format!("{tickets:?}"))
    })
    .await;
    let twice = viewer
        .api
        .delete(&format!("/streams/{}/ticket", stream.slug))
        .await;
    assert_eq!(twice.status, 404, "{twice}");
}
