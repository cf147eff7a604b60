//! Where things are: the workspace's binaries, scratch space, ffmpeg and Chromium.

use std::env;
use std::path::{Path, PathBuf};

/// Ends the message about every program that is missing.
const HOW_TO_INSTALL: &str = "`bash tests/setup.sh` installs what the tests need";

/// The folder of this build's binaries, such as `target/debug`.
fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("a test knows its own path");
    let deps = exe.ancestors().find(|dir| dir.ends_with("deps"));
    let dir = deps.and_then(Path::parent).or_else(|| exe.parent());
    dir.expect("a binary lies in a folder").to_owned()
}

/// `target/tmp`: clips and screenshots, kept between runs.
pub fn scratch() -> PathBuf {
    let profile = profile_dir();
    let target = profile
        .parent()
        .expect("the profile's folder lies in `target`");
    let dir = target.join("tmp");
    std::fs::create_dir_all(&dir).expect("a scratch folder");
    dir
}

/// A binary of the workspace: the one that `variable` names, else the one beside this test.
pub fn binary(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let path = profile_dir().join(name);
    assert!(
        path.is_file(),
        "{} is missing; `cargo build --workspace --bins` builds it, or {variable} names another",
        path.display()
    );
    path
}

/// `astral-node`.
pub fn astral_node() -> PathBuf {
    binary("astral-node", "ASTRAL_TESTS_NODE")
}

/// `astral-web`.
pub fn astral_web() -> PathBuf {
    binary("astral-web", "ASTRAL_TESTS_WEB")
}

/// `astral`.
pub fn astral() -> PathBuf {
    binary("astral", "ASTRAL_TESTS_CLI")
}

/// `ffmpeg`.
pub fn ffmpeg() -> PathBuf {
    program(&["ffmpeg"])
}

/// `schemathesis`, in a folder of its own below `target`.
pub fn schemathesis() -> PathBuf {
    if let Some(path) = env::var_os("ASTRAL_TESTS_SCHEMATHESIS") {
        return path.into();
    }
    let target = profile_dir().parent().map(Path::to_owned);
    let path = target
        .expect("a folder")
        .join("schemathesis/bin/schemathesis");
    assert!(path.is_file(), "no {}; {HOW_TO_INSTALL}", path.display());
    path
}

/// Chromium under one of its names.
pub fn chromium() -> PathBuf {
    if let Some(path) = env::var_os("ASTRAL_TESTS_CHROMIUM") {
        return path.into();
    }
    program(&[
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ])
}

fn program(names: &[&str]) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut all = env::split_paths(&path).flat_map(|dir| names.iter().map(move |n| dir.join(n)));
    let found = all.find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {} in PATH; {HOW_TO_INSTALL}", names[0]))
}

/// Whether the figures of a quiet machine are asked for (`ASTRAL_TESTS_STRICT=1`).
///
/// Two busy cores drop a frame now and then through no fault of ours. Without it, the
/// tests assert what must never happen anywhere, and print the exact figures.
pub fn strict() -> bool {
    env::var_os("ASTRAL_TESTS_STRICT").is_some_and(|value| value != "0")
}
