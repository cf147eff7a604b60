//! Schemathesis against a running program: whether it is as its `/openapi.json` says.

use std::process::Stdio;

use tokio::process::Command;

use crate::places;

/// The tool is told to end after so many seconds.
const SECONDS: &str = "25";

/// Asks all that the document at `base` describes, but paths that match `exclude` and the
/// shutdown; panics with the tool's own words if something answers otherwise. `leave_out`
/// names checks that make no sense there.
pub async fn check(base: &str, token: Option<&str>, exclude: &str, leave_out: &[&str]) {
    let seed = std::env::var("SEED").unwrap_or_else(|_| "1".to_owned());
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(places::schemathesis());
    command
        .arg("--config-file")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis.toml"))
        .arg("run")
        .arg(format!("{base}/openapi.json"))
        .args(["--exclude-path-regex", exclude])
        .args(["--exclude-operation-id", "delete_node"])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "10", "--workers", "4"])
        .args(["--max-time", SECONDS, "--seed", &seed, "--no-color"])
        .current_dir(folder.path())
        .stdin(Stdio::null());
    for check in leave_out {
        command.args(["--exclude-checks", check]);
    }
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let output = command.output().await.expect("schemathesis starts");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}");
    assert!(words.contains("passed"), "it has tested something: {words}");
    println!("{words}");
}
