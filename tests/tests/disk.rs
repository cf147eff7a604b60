//! A node whose disk is full, or whose database is spoilt.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use astral_proto::api::Ready;
use astral_tests::api::Api;
use astral_tests::ask::Ask;
use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::{Launch, clean};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};

/// A node that keeps its data on a file system of its own, of 4 MiB.
///
/// It is mounted in a namespace that only this process has, which takes no root.
struct Cramped {
    child: Child,
    api: Api,
    ready: Ready,
    /// The data folder, as seen from here.
    seen: PathBuf,
    _folder: tempfile::TempDir,
}

impl Cramped {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, ready_file) = (folder.path().join("data"), folder.path().join("ready.json"));
        fs::create_dir(&data).expect("a folder");
        let launch = Launch::new("cramped").limit("50mbit");
        let node = launch.command();
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-ec"])
            .arg("mount -t tmpfs -o size=4m none \"$1\"; shift; exec \"$@\"")
            .arg("sh")
            .arg(&data)
            .arg(node.get_program());
        // Its own folder in the place of the launch's.
        command.args(node.get_args().skip(2));
        command.arg("--data-dir").arg(&data);
        command.arg("--ready-file").arg(&ready_file);
        clean(&mut command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare (util-linux) starts");

        let ready: Ready = until("the ready file", s(30), async || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("no node in a namespace of its own: {status}");
            }
            let text = fs::read(&ready_file).map_err(|error| error.to_string())?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        })
        .await;
        let root = format!("/proc/{}/root", ready.pid);
        let seen = PathBuf::from(format!("{root}{}", data.display()));
        let api = Api::new(&ready.http, &ready.token);
        Self {
            child,
            api,
            ready,
            seen,
            _folder: folder,
        }
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.seen.join("filler");
        let mut file = File::create(&path).expect("a file");
        for size in [64 * 1024, 4 * 1024, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        path
    }

    async fn warnings(&self) -> Vec<String> {
        self.api.node().await.warnings
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_disk_is_full_streams_on_says_so_and_recovers() {
    let _turn = turn::shared().await;
    let publisher = Cramped::start().await;
    let (stream, ingest) = publisher.api.publish("Cramped").await;
    let _encoder = Encoder::rtmp(Clip::small(60), &ingest);
    let launch = Launch::new("viewer").option("--peer", &publisher.ready.quic);
    let viewer = launch.start().await;
    join(&viewer, &stream).await;
    flows(&viewer, &stream).await;

    let filler = publisher.fill();
    until("the warning", s(10), async || {
        let warnings = publisher.warnings().await;
        check(!warnings.is_empty(), "no warning")
    })
    .await;
    // Longer than what was durable beforehand.
    let before = viewer.api.stream("cramped").await.local;
    until("twelve seconds more of frames", s(40), async || {
        let local = viewer.api.stream("cramped").await.local;
        let more = local.frames_received - before.frames_received;
        check(more > 12 * 30, format!("{more} of them"))
    })
    .await;
    let after = viewer.api.stream("cramped").await;
    assert_eq!(after.local.frames_lost, 0, "{after:?}");

    fs::remove_file(filler).expect("room again");
    until("a new stream", s(20), async || {
        let more = Ask::new(&publisher.api, "POST /streams").json(r#"{"name":"One More"}"#);
        let answer = more.send().await;
        check(answer.status == 201, answer)
    })
    .await;
    assert_eq!(publisher.warnings().await, Vec::<String>::new());
}

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
