//! Starts, stops and crashes.

mod common;

use common::{Server, command, node, stream, submission};
use serde_json::{Value, json};

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
