//! Other people's programs: encoders with the recipes that `astral publish` prints, and
//! players with the URLs that `astral url` prints.
//!
//! ffmpeg always runs. What else is not installed is left out with a line that says so;
//! OBS in a virtual screen is a command of its own: `tests/obs.sh`.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use astral_tests::chain::flows;
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::places;
use astral_tests::process::{Launch, Node, clean};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};

const CLIP: Clip = Clip::small(20);

/// How long players play: half a minute where the figures of a quiet machine are asked for.
fn played() -> u32 {
    if places::strict() { 30 } else { 3 }
}

/// Whether a program is there; says it if not.
fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

/// What `astral` prints.
async fn says(node: &Node, words: &[&str]) -> String {
    let mut command = Command::new(places::astral());
    clean(&mut command);
    command.arg("--data-dir").arg(node.data_dir()).args(words);
    let output = finish(command.stdin(Stdio::null()), s(60)).await;
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a program to its end and gives what it wrote; panics if it fails.
async fn finish(command: &mut Command, within: Duration) -> Output {
    let shown = format!("{command:?}");
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = tokio::time::timeout(within, waiting).await;
    let output = output.unwrap_or_else(|_| panic!("{shown} does not end"));
    let output = output.expect("no panic").expect("an end");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{shown}: {}: {words}",
        output.status
    );
    output
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Types a printed line, with a clip for its `INPUT`.
fn type_in(line: &str, clip: &Path) -> Running {
    let line = line.trim().replace("INPUT", &clip.display().to_string());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}")]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running(command.spawn().expect("a shell"))
}

/// Publishes with every printed line that begins so, each as a stream of its own, and
/// waits until another node has its frames.
async fn publish_with(program: &str, expected: usize) {
    let _turn = turn::shared().await;
    let publisher = Launch::new("publisher").limit("100mbit").start().await;
    let viewer = Launch::new("viewer").peer(&publisher).start().await;
    let clip = CLIP.path();
    for number in 0..expected {
        let name = format!("by {program} {number}");
        let printed = says(&publisher, &["publish", &name]).await;
        let lines = printed.lines().map(str::trim);
        let lines: Vec<_> = lines
            .filter(|line| line.starts_with(&format!("{program} ")))
            .collect();
        assert_eq!(lines.len(), expected, "{printed}");
        let stream = publisher.api.stream(&name.replace([' ', '.'], "-")).await;
        astral_tests::chain::join(&viewer, &stream).await;
        let encoder = type_in(lines[number], &clip);
        flows(&viewer, &stream).await;
        let shown = viewer.api.stream(&stream.id.to_string()).await;
        assert_eq!(shown.tracks.len(), 2, "{}: {shown:?}", lines[number]);
        println!("{}: {:?}", lines[number], shown.tracks);
        drop(encoder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_publishes_with_every_printed_recipe() {
    publish_with("ffmpeg", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_publishes_with_the_printed_recipe() {
    if has("gst-launch-1.0") {
        publish_with("gst-launch-1.0", 1).await;
    }
}

/// A stream that runs for as long as the clip, and the URLs that `astral url` prints.
async fn on_air() -> (Node, Encoder, Vec<String>) {
    let node = Launch::new("node").start().await;
    let (stream, ingest) = node.api.publish("On air").await;
    // Four players at most, one after the other.
    let encoder = Encoder::rtmp(Clip::small(20 + 4 * played()), &ingest);
    until("the stream", s(20), async || {
        let shown = node.api.stream(&stream.slug).await;
        check(shown.tracks.len() == 2, format!("{shown:?}"))
    })
    .await;
    let printed = says(&node, &["url", "on-air"]).await;
    let words = printed.split_whitespace().map(str::to_owned);
    let urls: Vec<_> = words.filter(|word| word.contains("/live/")).collect();
    assert!(urls.len() >= 2, "{printed}");
    (node, encoder, urls)
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_every_printed_url() {
    let _turn = turn::shared().await;
    let (_node, _encoder, urls) = on_air().await;
    for url in urls {
        let mut ffmpeg = Command::new(places::ffmpeg());
        let length = played().to_string();
        ffmpeg.args(["-nostdin", "-v", "error", "-t", &length, "-i", &url]);
        ffmpeg.args(["-f", "framecrc", "-"]);
        let output = finish(&mut ffmpeg, s(60)).await;
        let frames = String::from_utf8_lossy(&output.stdout);
        let of = |track: &str| {
            frames
                .lines()
                .filter(|line| line.starts_with(track))
                .count()
        };
        let least = 20 * played() as usize;
        assert!(of("0,") > least && of("1,") > least, "{url}: {frames}");
        println!("ffmpeg played {} pictures of {url}", of("0,"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mpv_plays_every_printed_url() {
    if !has("mpv") {
        return;
    }
    let _turn = turn::shared().await;
    let (_node, _encoder, urls) = on_air().await;
    for url in urls {
        let mut mpv = Command::new("mpv");
        mpv.args(["--no-config", "--vo=null", "--ao=null"])
            .arg(format!("--length={}", played()));
        mpv.args(["--term-status-msg=at ${=time-pos} video ${video-codec} audio ${audio-codec}"]);
        let output = finish(mpv.arg(&url), s(60)).await;
        let words = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(
            words.contains("video h264") && words.contains("audio aac"),
            "{url}: {words}"
        );
        println!("mpv played {url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vlc_plays_every_printed_url() {
    if !has("vlc") {
        return;
    }
    let _turn = turn::shared().await;
    let (_node, _encoder, urls) = on_air().await;
    let home = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(
        home.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .expect("our own folder");
    for url in urls {
        // VLC does not run as root.
        let mut vlc = if rustix::process::geteuid().is_root() {
            let mut nobody = Command::new("setpriv");
            nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "vlc"]);
            nobody
        } else {
            Command::new("vlc")
        };
        vlc.args(["-I", "dummy", "-vv", "--vout=dummy", "--aout=dummy"]);
        vlc.arg(format!("--run-time={}", played() + 1));
        vlc.args([&url, "vlc://quit"]).env("HOME", home.path());
        let output = finish(&mut vlc, s(60)).await;
        let words = String::from_utf8_lossy(&output.stderr);
        let decoders = words.contains("using video decoder module \"avcodec\"")
            && words.contains("using audio decoder module");
        let tail: Vec<_> = words.lines().rev().take(40).collect();
        assert!(decoders, "{url}: {tail:#?}");
        let late = words
            .lines()
            .filter(|line| line.contains("picture is too late"))
            .count();
        println!("VLC played {url}; {late} pictures were late");
    }
}
