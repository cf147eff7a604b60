//! `--daemonize`: the node goes on without the terminal that it was started from.
//!
//! A process with threads cannot fork, so the program is started once more, in a
//! session of its own and with the log of the data folder for its output. The one in
//! the foreground waits until that one listens, or has failed, and says which.

use std::env;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use astral_proto::api::Ready;

use crate::config::Config;
use crate::ready;
use crate::storage::make_dir;

/// Set in the environment of the process that is the node; no option.
const DETACHED: &str = "ASTRAL_NODE_DETACHED";
/// Longest that a node may take until it listens; a large database on a slow disk takes seconds.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How often the ready file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Most of the log that a failed start shows, in bytes.
const WORDS_MAX: u64 = 4 * 1024;

/// Where a detached node logs.
pub(crate) fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("astral-node.log")
}

/// Whether this process is the one that [`start`] has started.
pub fn is_detached() -> bool {
    env::var_os(DETACHED).is_some()
}

/// In the process that [`start`] has started: leaves the terminal's session, so that
/// its end and its Ctrl-C are none of the node's business.
pub fn detach() {
    if is_detached() {
        // It fails only for the leader of a session, which has no other terminal.
        let _ = rustix::process::setsid();
    }
}

/// Starts the node in the background; returns once it listens, having said where.
///
/// # Errors
/// With the node's own words, if it ended or does not get ready within 60 s.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let path = log_path(&config.data_dir);
    let log = || format!("log {}", path.display());
    make_dir(&config.data_dir).with_context(|| config.data_dir.display().to_string())?;
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(log)?;
    let begin = file.metadata().with_context(log)?.len();
    let mut child = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(file.try_clone().with_context(log)?)
        .stderr(file)
        .spawn()
        .context("the node cannot be started in the background")?;
    let ready = match wait(&mut child, &config.data_dir) {
        Ok(ready) => ready,
        Err(error) => {
            let words = written_since(&path, begin).unwrap_or_default();
            return Err(error.context(format!("{} ({})", words.trim_end(), log())));
        }
    };
    say(&ready, &path).context("standard output")
}

/// Waits for the ready file of this very process.
fn wait(child: &mut Child, data_dir: &Path) -> anyhow::Result<Ready> {
    let end = Instant::now() + START_WITHIN;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the node ended at once ({status})");
        }
        // A node that was killed has left its file behind.
        if let Some(ready) = ready::read(data_dir).filter(|ready| ready.pid == child.id()) {
            return Ok(ready);
        }
        if Instant::now() >= end {
            child.kill()?;
            bail!("the node did not get ready within {START_WITHIN:?}");
        }
        sleep(LOOK_EVERY);
    }
}

/// The end of what the node has written.
fn written_since(path: &Path, begin: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(end.saturating_sub(WORDS_MAX))))?;
    let mut words = Vec::new();
    file.take(WORDS_MAX).read_to_end(&mut words)?;
    Ok(String::from_utf8_lossy(&words).into_owned())
}

fn say(ready: &Ready, log: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "http {}", ready.http)?;
    writeln!(out, "quic {}", ready.quic)?;
    if let Some(rtmp) = &ready.rtmp {
        writeln!(out, "rtmp {rtmp}")?;
    }
    writeln!(out, "process {}, log {}", ready.pid, log.display())
}
