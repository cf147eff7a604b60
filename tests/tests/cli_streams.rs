//! `astral` with streams that flow: watching, sending a file, the demo.

use std::process::{Command, Stdio};

use astral_tests::cli::{Guarded, command, says};
use astral_tests::ffmpeg::{Clip, Encoder, packets};
use astral_tests::places;
use astral_tests::process::{Launch, clean};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};

#[tokio::test(flavor = "multi_thread")]
async fn watch_writes_the_stream_to_a_file_and_stop_ends_it() {
    let _turn = turn::shared().await;
    let publisher = Launch::new("publisher").start().await;
    let (stream, ingest) = publisher.api.publish("Recorded").await;
    let _encoder = Encoder::rtmp(Clip::small(30), &ingest);
    let viewer = Launch::new("viewer").peer(&publisher).start().await;
    until("the stream", s(15), async || {
        viewer.api.try_stream("recorded").await
    })
    .await;

    let file = viewer.data_dir().join("recorded.mp4");
    let mut command = command(&viewer.data_dir(), &["watch", "recorded", "--output"]);
    let mut recorder = Guarded::start(command.arg(&file));
    until("a recording", s(20), async || {
        let bytes = file.metadata().map(|file| file.len()).unwrap_or(0);
        check(bytes > 150_000, format!("{bytes} bytes"))
    })
    .await;
    recorder.interrupt().await;
    let frames = packets(&file, "v:0").len();
    println!("{frames} pictures recorded");
    assert!(frames > 30, "{frames}");
    says(&viewer, &["stop", "recorded"]).await;
    until("the end of the ticket", s(5), async || {
        check(
            publisher.api.tickets(&stream.slug).await.is_empty(),
            "a ticket",
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_sends_a_file_in_real_time() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    let clip = Clip::small(12).path();
    let mut command = command(&node.data_dir(), &["publish", "From A File"]);
    command.arg(&clip).arg("--loop").stdout(Stdio::null());
    let mut sender = Guarded::start(&mut command);
    // Longer than the clip, so that the seam of the loop is in it: 30 pictures and some 24
    // bundles of sound a second.
    until("14 s of frames", s(40), async || {
        let stream = node.api.try_stream("from-a-file").await?;
        let frames = stream.local.frames_received;
        check(frames > 14 * 54, format!("{frames} frames"))
    })
    .await;
    let stream = node.api.stream("from-a-file").await;
    assert_eq!(stream.tracks.len(), 2, "{:?}", stream.tracks);
    assert_eq!(stream.local.frames_lost, 0);
    assert_eq!(
        sender.interrupt().await,
        Some(0),
        "Ctrl-C is the way to end it"
    );
}

/// README's first command, once it is built: astral-web, three nodes in a row that find each
/// other through it, and nothing left behind.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_feeds_a_viewer_through_a_relay_and_cleans_up() {
    let _turn = turn::shared().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(places::astral());
    clean(&mut command);
    command
        .args(["demo", "--no-open", "--seconds", "12"])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = running.await.expect("no panic").expect("astral starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("/watch/astral-demo"), "no page: {said}");
    assert!(
        said.contains("/streams/astral-demo"),
        "no page of astral-web: {said}"
    );
    let last = said.lines().rfind(|line| line.starts_with("viewer"));
    let last = last.expect("a line for the viewer");
    assert!(
        last.contains("from relay") && last.contains("2 hops"),
        "{last}"
    );
    assert!(!last.contains(" 0 frames"), "{last}");
    let left = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(
        left, 0,
        "the demo leaves nothing in the folder for temporary files"
    );
}
