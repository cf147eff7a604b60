//! A node whose database is spoilt, or whose disk is full.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use astral_tests::chain::flows;
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::Launch;
use astral_tests::wait::{check, s, until};
use astral_tests::{netns, turn};
use hyper::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_database_is_left_as_it_is_and_named() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    node.api.publish("Kept").await;
    node.kill();
    let path = node.data_dir().join("node.redb");
    let whole = fs::read(&path).expect("a database");
    let mut spoilt = whole.clone();
    spoilt[..64].fill(0x5a);
    fs::write(&path, &spoilt).expect("it is ours");
    let output = node
        .launch()
        .command()
        .output()
        .expect("astral-node starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("node.redb") && words.contains("left as it is"),
        "{words}"
    );
    assert!(
        fs::read(&path).expect("a file") == spoilt,
        "not a byte is touched"
    );

    fs::write(&path, &whole).expect("the backup is put back");
    let node = node.restart().await;
    assert_eq!(node.api.stream("kept").await.name, "Kept");
}

/// A file system of few megabytes at a folder, as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
        let status = mount.arg(&folder).status().expect("mount");
        assert!(status.success(), "mount: {status}");
        Self(folder)
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.filler()).expect("it is there");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("fill")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_no_stream_and_is_named() {
    let _turn = turn::shared().await;
    if !netns::allowed() {
        return;
    }
    let launch = Launch::new("node").fixed_ports();
    let disk = SmallDisk::at(launch.data_dir());
    let node = launch.start().await;
    let (stream, ingest) = node.api.publish("Full Disk").await;
    let _encoder = Encoder::rtmp(Clip::small(120), &ingest);
    flows(&node, &stream).await;
    disk.fill();
    // The database has room within itself for some.
    let mut refused = None;
    for number in 0..400 {
        let new = json!({ "name": format!("Show {number}"), "description": "x".repeat(500) });
        let answer = node.api.call(Method::POST, "/streams", &new).await;
        if answer.status != 201 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("no disk is endless");
    assert_eq!(refused.status, 500, "{refused}");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    let log = node.log();
    assert!(log.contains("cannot be written; streams go on"), "{log}");
    let warnings = node.api.node().await.warnings;
    let says_so = warnings.iter().any(|w| w.contains("make room on its disk"));
    assert!(says_so, "{warnings:?}");
    let before = node.api.stream(&stream.slug).await.local.frames_received;
    // Far behind what was durable when the disk was full.
    until("the stream goes on", s(30), async || {
        let now = node.api.stream(&stream.slug).await;
        let goes_on = now.local.frames_received > before + 400;
        check(goes_on, format!("{:?} {:?}", now.state, now.local))
    })
    .await;

    // What a killed node has left is all that there is room for.
    let epoch = node.api.stream(&stream.slug).await.epoch;
    let node = node.restart().await;
    let _encoder = Encoder::rtmp(Clip::small(120), &ingest);
    flows(&node, &stream).await;
    let after = node.api.stream(&stream.slug).await;
    assert!(after.epoch > epoch, "{epoch} then {after:?}");

    disk.clear();
    let (later, _) = node.api.publish("Room Again").await;
    let node = node.restart().await;
    for slug in [&stream.slug, &later.slug] {
        node.api.stream(slug).await;
    }
    // Before the folder that it is in.
    drop(disk);
}
