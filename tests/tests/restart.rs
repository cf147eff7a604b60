//! A publisher that is killed in mid-stream goes on where it was.

use astral_tests::chain::{Chain, flows};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::Launch;
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_publisher_goes_on_under_the_same_stream_and_viewers_play_on() {
    let _turn = turn::shared().await;
    let clip = Clip::small(40);
    let publisher = Launch::new("publisher").fixed_ports();
    let mut chain = Chain::start_with(publisher, "Killed").await;
    let encoder = Encoder::rtmp(clip, &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    let recording = Recording::start(&chain.viewer.api, chain.slug(), "inline=1&target_ms=0");
    recording
        .wait("five seconds", s(20), |came| {
            came.samples(1).max(came.samples(2)) > 150
        })
        .await;
    let before = chain.publisher.api.stream(chain.slug()).await;
    let (uuid, token) = (chain.publisher.id(), chain.publisher.ready.token.clone());

    chain.publisher = chain.publisher.restart().await;
    drop(encoder);
    assert_eq!(chain.publisher.id(), uuid, "a node is its key");
    assert_ne!(chain.publisher.ready.token, token, "a token is for one run");
    let restored = chain.publisher.api.stream(chain.slug()).await;
    assert_eq!(restored.id, before.id);
    assert_eq!(
        restored.ingest,
        Some(chain.ingest.clone()),
        "the encoder's URLs stay"
    );
    // A viewer's tree is there again before the encoder, or soon after it.
    let pieces_before = recording.received().fragments.len();
    let _encoder = Encoder::rtmp(clip, &chain.ingest);
    recording
        .wait("pieces of the new epoch", s(40), |came| {
            came.fragments.len() > pieces_before + 200
        })
        .await;
    let after = until("a newer epoch", s(10), async || {
        let stream = chain.viewer.api.stream(chain.slug()).await;
        if stream.epoch > before.epoch {
            Ok(stream)
        } else {
            Err(format!("{stream:?}"))
        }
    })
    .await;
    assert_eq!(after.id, before.id);

    let received = recording.received();
    assert_eq!(received.end, None, "the viewer's response goes on");
    // No time comes twice, so no frame of the new run stands where an old one stood.
    let pieces = received.by_time();
    let gap = pieces
        .values()
        .zip(pieces.values().skip(1))
        .map(|(a, b)| b.1.saturating_duration_since(a.1));
    println!(
        "epoch {} → {}, {} pieces, {} init segments, longest wait {:?}",
        before.epoch,
        after.epoch,
        pieces.len(),
        received.inits,
        gap.max().unwrap_or_default()
    );
    check_timeline(&received);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_relays_and_viewers_take_up_what_they_did_without_being_told() {
    let _turn = turn::shared().await;
    let clip = Clip::small(60);
    let publisher = Launch::new("publisher").fixed_ports();
    let mut chain = Chain::start_with(publisher, "Taken Up").await;
    let _encoder = Encoder::rtmp(clip, &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;

    chain.viewer = chain.viewer.restart_as(Launch::alone).await;
    taken_up(&chain.viewer, &chain.stream).await;
    // The relay's killing leaves the viewer to whoever else it knows.
    chain.relay = chain.relay.restart_as(Launch::alone).await;
    taken_up(&chain.relay, &chain.stream).await;
    taken_up(&chain.viewer, &chain.stream).await;
}

/// Waits until a node knows the stream again, and its frames flow.
async fn taken_up(node: &astral_tests::process::Node, stream: &astral_proto::api::Stream) {
    let slug = stream.id.to_string();
    let frames = until("the stream to arrive", s(30), async || {
        let local = node.api.try_stream(&slug).await?.local;
        check(local.receiving, format!("{local:?}"))?;
        Ok::<_, String>(local.frames_received)
    })
    .await;
    until("more frames", s(20), async || {
        let local = node.api.try_stream(&slug).await?.local;
        check(local.frames_received > frames + 30, format!("{local:?}"))
    })
    .await;
}

/// The timeline goes on within 4 s of where it was, in every track.
fn check_timeline(received: &astral_tests::recording::Received) {
    for (track, timescale) in [(1, 90_000_u64), (2, 48_000)] {
        let of_track = received
            .fragments
            .iter()
            .filter(|(fragment, _)| fragment.track == track);
        let times: Vec<u64> = of_track.map(|(fragment, _)| fragment.tfdt).collect();
        assert!(times.len() > 50, "track {track} has {} pieces", times.len());
        let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = steps.max().unwrap_or_default() as f64 / timescale as f64;
        println!("track {track}: longest step {longest:.3} s");
        assert!(longest <= 4.2, "track {track}: a step of {longest} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_for_its_encoder_and_goes_on_with_it() {
    let _turn = turn::shared().await;
    let clip = Clip::small(6);
    let chain = Chain::start("Encoder Away").await;
    let recording = Recording::start(&chain.viewer.api, chain.slug(), "inline=1&target_ms=0");
    Encoder::rtmp(clip, &chain.ingest).finish(clip).await;
    until("the stream to wait", s(20), async || {
        let stream = chain.viewer.api.stream(chain.slug()).await;
        let state = serde_json::to_value(stream.state).expect("a word");
        check(state == "waiting", state)
    })
    .await;
    sleep(s(1)).await;
    let first = recording.received().fragments.len();
    Encoder::rtmp(clip, &chain.ingest).finish(clip).await;
    recording
        .wait("as many again", s(20), |came| {
            came.fragments.len() >= 2 * first - 20
        })
        .await;
    let received = recording.received();
    assert_eq!(received.end, None);
    check_timeline(&received);
    received.by_time();
}
