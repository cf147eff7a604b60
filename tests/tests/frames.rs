//! What a viewer gets is what the encoder sent, frame by frame.

use astral_proto::api::Ingest;
use astral_tests::chain::Chain;
use astral_tests::ffmpeg::{Clip, Encoder, assert_tail, packets};
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::s;

/// Sends a clip through three nodes and compares what comes out at the third.
async fn assert_exact(name: &str, clip: Clip, encode: fn(Clip, &Ingest) -> Encoder) {
    let _turn = turn::shared().await;
    let sent = clip.path();
    let chain = Chain::start(name).await;
    let recording = Recording::start(&chain.viewer.api, chain.slug(), "");
    let mut encoder = encode(clip, &chain.ingest);
    encoder.finish(clip).await;
    recording.wait_quiet(s(3), s(30)).await;

    let dir = tempfile::tempdir().expect("a temporary folder");
    let came = recording.save(dir.path(), "came.mp4");
    let (first_video, video) = compare(name, "v:0", &sent, &came);
    let (first_audio, audio) = compare(name, "a:0", &sent, &came);
    let local = chain.viewer.api.stream(chain.slug()).await.local;
    println!(
        "{name}: {video} pictures from number {first_video}, {audio} pieces of sound from number {first_audio}; {local:?}"
    );
    assert_eq!(first_video, 0, "from the first keyframe on");
    assert_eq!(video, clip.frames() as usize);
    // Sound from before the first picture is left out; B-frames move it by some frames.
    assert!(
        first_audio <= 6,
        "sound begins with the picture, not {first_audio} frames later"
    );
    assert_eq!(local.frames_lost, 0);
    recording.received().by_time();
}

fn compare(
    name: &str,
    track: &str,
    sent: &std::path::Path,
    came: &std::path::Path,
) -> (usize, usize) {
    let (sent, came) = (packets(sent, track), packets(came, track));
    (
        assert_tail(&format!("{name} {track}"), &sent, &came),
        came.len(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_that_ffmpeg_sends_by_rtmp_arrives_once() {
    assert_exact("Exact RTMP", Clip::small(12), Encoder::rtmp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_of_fragmented_mp4_over_http_arrives_once() {
    assert_exact("Exact fMP4", Clip::small(12), Encoder::put).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_arrives_when_keyframes_are_8_seconds_apart() {
    assert_exact("Exact OBS", Clip::small(20).gop(250), Encoder::rtmp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_arrives_when_there_are_b_frames() {
    assert_exact("Exact B-frames", Clip::small(12).b_frames(3), Encoder::rtmp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_of_720p_arrives_once() {
    assert_exact("Exact HD", Clip::hd(12), Encoder::rtmp).await;
}
