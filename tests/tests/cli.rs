//! `astral`, as a person calls it.

use std::process::{Command, Output, Stdio};

use astral_proto::api::{List, Stream};
use astral_tests::ffmpeg::{Clip, Encoder, packets};
use astral_tests::places;
use astral_tests::process::{Launch, Node, clean};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use serde_json::Value;

/// Runs `astral` for the node of this folder.
async fn astral(data_dir: &std::path::Path, words: &[&str]) -> Output {
    let mut command = Command::new(places::astral());
    clean(&mut command);
    command
        .arg("--data-dir")
        .arg(data_dir)
        .args(words)
        .stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    running.await.expect("no panic").expect("astral starts")
}

/// What it prints when all goes well.
async fn says(node: &Node, words: &[&str]) -> String {
    let output = astral(&node.data_dir(), words).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "astral {words:?}: {}: {errors}",
        output.status
    );
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn status_streams_and_publish_say_what_the_node_knows() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    assert!(
        says(&node, &["status"])
            .await
            .contains(&node.id().to_string())
    );
    let status: Value =
        serde_json::from_str(&says(&node, &["status", "--json"]).await).expect("JSON");
    assert!(status.to_string().contains(&node.id().to_string()));

    let recipes = says(&node, &["publish", "My Show"]).await;
    let stream = node.api.stream("my-show").await;
    let ingest = stream.ingest.clone().expect("one's own stream");
    for wanted in [
        &ingest.stream_key,
        ingest.rtmp_url.as_ref().expect("RTMP"),
        &stream.share,
    ] {
        assert!(
            recipes.contains(wanted.as_str()),
            "{wanted} is not in\n{recipes}"
        );
    }
    assert!(
        recipes.contains("ffmpeg") && recipes.contains("OBS"),
        "{recipes}"
    );
    let listed = says(&node, &["streams", "--json"]).await;
    let listed: List<Stream> = serde_json::from_str(&listed).expect("the API's own JSON");
    assert_eq!(listed.items.len(), 1);
    assert_eq!(listed.items[0].id, stream.id);
    assert!(says(&node, &["streams"]).await.contains("my-show"));
    assert!(says(&node, &["tickets", "--json"]).await.contains("items"));

    let url = says(&node, &["watch", "my-show", "--print-url"]).await;
    assert_eq!(
        url.trim(),
        node.api
            .url(&format!("/watch/{}", watch_name(&url, &stream)))
    );
    assert!(
        says(&node, &["url", "my-show"])
            .await
            .contains("/stream.mp4")
    );
    says(&node, &["unpublish", "my-show"]).await;
    assert!(node.api.try_stream("my-show").await.is_err());
}

/// Links name a stream by slug or by id.
fn watch_name(url: &str, stream: &Stream) -> String {
    let id = stream.id.to_string();
    if url.contains(&id) {
        id
    } else {
        stream.slug.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_an_absent_node_from_an_unknown_stream() {
    let _turn = turn::shared().await;
    let nowhere = tempfile::tempdir().expect("a temporary folder");
    let output = astral(nowhere.path(), &["status"]).await;
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(
        words.contains("astral-node"),
        "it says how to start one: {words}"
    );

    let node = Launch::new("node").start().await;
    for words in [
        ["watch", "no-such-show"],
        ["stop", "no-such-show"],
        ["unpublish", "no-such-show"],
    ] {
        let output = astral(&node.data_dir(), &words).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{words:?}: {errors}");
        assert!(errors.contains("no-such-show"), "{errors}");
    }
    let output = astral(&node.data_dir(), &["dance"]).await;
    assert_eq!(output.status.code(), Some(2));
    says(&node, &["publish", "Twice"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_is_reported_as_not_reachable() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    node.kill();
    let output = astral(&node.data_dir(), &["status"]).await;
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

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
    let mut command = Command::new(places::astral());
    clean(&mut command);
    command
        .arg("--data-dir")
        .arg(viewer.data_dir())
        .args(["watch", "recorded", "--output"]);
    let recorder = command
        .arg(&file)
        .stdin(Stdio::null())
        .spawn()
        .expect("astral starts");
    let mut recorder = scopeguard(recorder);
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
    let mut command = Command::new(places::astral());
    clean(&mut command);
    command
        .arg("--data-dir")
        .arg(node.data_dir())
        .args(["publish", "From A File"]);
    command
        .arg(&clip)
        .arg("--loop")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut sender = scopeguard(command.spawn().expect("astral starts"));
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

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_the_node() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    says(&node, &["shutdown"]).await;
    assert_eq!(node.exit(s(5)).await.code(), Some(0));
}

/// A child that does not outlive its test.
struct Guarded(std::process::Child);

fn scopeguard(child: std::process::Child) -> Guarded {
    Guarded(child)
}

impl Guarded {
    /// Ctrl-C; gives the exit code.
    async fn interrupt(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let ended = until("its end", s(10), async || match self.0.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs"),
            Err(_) => Err("it cannot be waited for"),
        });
        ended.await.code()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// README's first command, once it is built: three nodes in a row, and nothing left behind.
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
