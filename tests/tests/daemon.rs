//! `astral-node --daemonize`, as an admin starts it from a terminal that goes away.

use std::fs;
use std::path::Path;
use std::process::Output;

use astral_proto::api::Ready;
use astral_tests::api::Api;
use astral_tests::process::Launch;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};

async fn run(launch: &Launch) -> Output {
    let mut command = launch.command();
    command.stdout(std::process::Stdio::piped());
    let running = tokio::task::spawn_blocking(move || command.output());
    running
        .await
        .expect("no panic")
        .expect("astral-node starts")
}

fn ready(dir: &Path) -> Ready {
    let text = fs::read(dir.join("node.json")).expect("the ready file is there");
    serde_json::from_slice(&text).expect("JSON")
}

/// Its session and controlling terminal (`proc(5)`, fields 6 and 7 of `stat`).
fn session_and_terminal(pid: u32) -> (u32, i32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[3].parse().unwrap(), fields[4].parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_the_background_listens_when_the_command_returns_and_logs_to_its_folder() {
    let _turn = turn::shared().await;
    let launch = Launch::new("daemon")
        .option("--daemonize=true", "-v")
        .option("--log-format", "json");
    let dir = launch.data_dir();
    let output = run(&launch).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{words}");
    let ready = ready(&dir);
    let api = Api::new(&ready.http, &ready.token);
    assert_eq!(api.node().await.uuid, ready.uuid);
    for address in [&ready.http, &ready.quic, ready.rtmp.as_ref().unwrap()] {
        assert!(said.contains(address.as_str()), "{address} in {said}");
    }
    assert_eq!(
        session_and_terminal(ready.pid),
        (ready.pid, 0),
        "its own session"
    );

    let log = fs::read_to_string(dir.join("astral-node.log")).expect("a log");
    let line = log.lines().next().expect("a line");
    assert!(line.starts_with('{'), "JSON as asked for: {line}");
    for address in [&ready.http, &ready.quic] {
        assert!(log.contains(address.as_str()), "{address} in {log}");
    }

    // A second one fails in the foreground, with its reason, and leaves the first alone.
    let second = run(&launch).await;
    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{words}");
    assert!(words.contains("another astral-node is running"), "{words}");
    assert_eq!(api.node().await.uuid, ready.uuid);

    let answer = api.delete("/node").await;
    assert_eq!(answer.status, 202, "{answer}");
    until("the end", s(10), async || {
        check(!dir.join("node.json").exists(), "the ready file is there")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_file_can_ask_for_the_background_too() {
    let _turn = turn::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    fs::write(&file, "daemonize = true\n").unwrap();
    let launch = Launch::new("daemon").option("--settings", file.display());
    let output = run(&launch).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let ready = ready(&launch.data_dir());
    let api = Api::new(&ready.http, &ready.token);
    assert_eq!(api.delete("/node").await.status, 202);
    until("the end", s(10), async || {
        check(
            !launch.data_dir().join("node.json").exists(),
            "the ready file",
        )
    })
    .await;
}
