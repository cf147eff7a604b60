//! Starts, stops and crashes.

mod common;

use std::time::{Duration, Instant};

use common::{Server, command, key, node, node_of, stream, submission};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

#[tokio::test]
async fn records_outlive_a_kill_and_so_does_the_memory_of_their_seq() {
    let server = Server::start();
    let record = submission(node(1, 5, "127.0.0.1:9000", None).wire());
    assert_eq!(server.post("/api/v1/nodes", &record).await.status, 201);
    let show = submission(stream(2, 5, |_| ()).wire());
    assert_eq!(server.post("/api/v1/streams", &show).await.status, 201);
    let server = Server::start_in(server.kill());
    assert_eq!(
        server.get("/api/v1/nodes").await["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        server.get("/api/v1/streams/my-show").await["name"],
        "My show"
    );
    assert_eq!(server.post("/api/v1/nodes", &record).await.status, 409);
}

#[test]
fn ready_file_is_there_while_it_serves_and_a_clean_stop_is_exit_0() {
    let server = Server::start();
    let path = server.ready_file();
    let ready: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(ready["pid"], json!(server.pid()));
    assert!(ready["http"].as_str().unwrap().starts_with("127.0.0.1:"));
    let (_folder, code) = server.terminate();
    assert_eq!(code, Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn stop_waits_for_nobody_longer_than_five_seconds_and_a_second_signal_for_nobody() {
    let slow = async |server: &Server| {
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        let head = b"POST /api/v1/ping HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nslow";
        socket.write_all(head).await.unwrap();
        // An answer on another connection shows that the slow one was read before.
        assert_eq!(server.ask("GET", "/health", &[], vec![]).await.status, 200);
        socket
    };
    let server = Server::start();
    let _socket = slow(&server).await;
    let begun = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );

    let server = Server::start();
    let _socket = slow(&server).await;
    server.signal("TERM");
    // Once it listens no more, it has seen the first.
    while TcpStream::connect(server.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.signal("INT");
    assert_eq!(server.wait(), Some(1));
}

#[tokio::test]
async fn full_disk_hides_nothing_and_loses_nothing_that_was_kept() {
    let server = Server::start();
    let first = submission(node(1, 1, "127.0.0.1:9000", None).wire());
    assert_eq!(server.post("/api/v1/nodes", &first).await.status, 201);
    let folder = server.kill();
    let path = folder.path().join("directory.redb");
    let size = std::fs::metadata(&path).unwrap().len();
    let log = folder.path().join("web.log");
    let mut limited = std::process::Command::new("sh");
    // A file that may not grow: what a full disk is to a program that keeps one file.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", size / 512);
    let plain = command(folder.path());
    limited
        .args(["-c", &script])
        .arg(plain.get_program())
        .args(plain.get_args());
    limited.stderr(std::fs::File::create(&log).unwrap());
    let server = Server::run(folder, limited);
    let mut last = 0;
    for number in 0..2_000 {
        let record = node_of(&key(number), 1, 1, "127.0.0.1:9000", None);
        let answer = server
            .post("/api/v1/nodes", &submission(record.wire()))
            .await;
        assert_eq!(answer.status, 201, "{number}");
        last = number;
        let text = server.ask("GET", "/metrics", &[], vec![]).await;
        if !text.text().contains("directory_failures_total 0\n") {
            break;
        }
    }
    let words = std::fs::read_to_string(&log).unwrap();
    assert!(words.contains("is the disk full?"), "after {last}: {words}");
    let listed = server.get("/api/v1/nodes?limit=1000").await;
    assert!(listed["items"].as_array().unwrap().len() as u32 > last.min(900));
    let server = Server::start_in(server.kill());
    assert_eq!(server.post("/api/v1/nodes", &first).await.status, 409);
}

#[test]
fn damaged_directory_is_left_as_it_is_with_clear_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("directory.redb");
    let damaged = vec![7; 10_000];
    std::fs::write(&path, &damaged).unwrap();
    let output = command(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("damaged"), "{words}");
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
}

#[test]
fn second_one_on_the_same_directory_says_so() {
    let server = Server::start();
    let folder = server.ready_file().parent().unwrap().to_owned();
    let output = command(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("another astral-web is using it"), "{words}");
}

#[test]
fn directory_of_a_newer_version_is_left_as_it_is_with_clear_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("directory.redb");
    let database = redb::Database::create(&path).unwrap();
    let begun = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    begun
        .open_table(meta)
        .unwrap()
        .insert("version", 2)
        .unwrap();
    begun.commit().unwrap();
    drop(database);
    let before = std::fs::read(&path).unwrap();
    let output = command(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("newer astral-web (layout 2)"), "{words}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
