//! The demo's nodes: child processes in one temporary folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use astral_proto::ids::NodeId;
use futures_util::future::{join_all, select_all};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Api;
use crate::failure::Failure;
use crate::home::{self, Choice};
use crate::programs;

/// Time for a node to be ready.
const START: Duration = Duration::from_secs(15);
/// Time for a node to end by itself: it says 5 s.
const LEAVE: Duration = Duration::from_secs(6);
/// Pause between two looks for a ready file.
const LOOK: Duration = Duration::from_millis(30);
/// Lines of a log that are shown when its node fails.
const LOG_LINES: usize = 8;

/// A node of the demo that is ready.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// What it is in the demo.
    pub(super) name: &'static str,
    /// Its id.
    pub(super) uuid: NodeId,
    /// `host:port` of QUIC.
    pub(super) quic: String,
    /// Its data folder.
    pub(super) folder: PathBuf,
    /// Its API.
    pub(super) api: Api,
}

/// The processes and their folder.
pub(super) struct Lab {
    program: PathBuf,
    folder: TempDir,
    running: Vec<Running>,
}

struct Running {
    name: &'static str,
    child: Child,
    folder: PathBuf,
}

impl Lab {
    /// Finds the program of the node and makes the folder.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            program: programs::find("astral-node")?,
            folder: tempfile::Builder::new().prefix("astral-demo-").tempdir()?,
            running: Vec::new(),
        })
    }

    /// Starts a node on free loopback ports, and waits until it is ready.
    pub(super) async fn start(
        &mut self,
        name: &'static str,
        options: &[&str],
    ) -> Result<Member, Failure> {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder)?;
        let log = File::create(log_of(&folder))?;
        let mut command = Command::new(&self.program);
        for (variable, _) in std::env::vars_os() {
            // The user's settings for a node of theirs are not for these.
            if variable.to_string_lossy().starts_with("ASTRAL_NODE") {
                command.env_remove(variable);
            }
        }
        for listener in ["--http", "--quic", "--rtmp"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let child = command
            .arg("--data-dir")
            .arg(&folder)
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Failure::other(format!("cannot start {}: {error}", self.program.display()))
            })?;
        self.running.push(Running {
            name,
            child,
            folder: folder.clone(),
        });
        self.ready(name, folder).await
    }

    /// Waits for the ready file of the node that was started last.
    async fn ready(&mut self, name: &'static str, folder: PathBuf) -> Result<Member, Failure> {
        let deadline = Instant::now() + START;
        let path = folder.join("node.json");
        let running = self.running.last_mut();
        let running = running.ok_or_else(|| Failure::other("no node was started"))?;
        loop {
            if let Ok(ready) = home::read_ready(&path) {
                return Ok(Member {
                    name,
                    uuid: ready.uuid,
                    quic: ready.quic,
                    api: api_of(&folder)?,
                    folder,
                });
            }
            if let Some(status) = running.child.try_wait()? {
                return Err(running.failed(&format!("ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(running.failed(&format!("was not ready within {} s", START.as_secs())));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until a node ends that should not.
    pub(super) async fn died(&mut self) -> Failure {
        let ends = self
            .running
            .iter_mut()
            .map(|running| Box::pin(running.child.wait()));
        let (status, index, _) = select_all(ends).await;
        let words = match status {
            Ok(status) => format!("ended with {status}"),
            Err(error) => format!("is lost: {error}"),
        };
        self.running[index].failed(&words)
    }

    /// Asks all nodes to leave, ends those that do not, and removes the folder.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        join_all(self.running.iter_mut().map(Running::leave)).await;
        Ok(self.folder.close()?)
    }
}

impl Running {
    /// Asks the node to shut down; ends our own child if it does not.
    async fn leave(&mut self) {
        if let Ok(api) = api_of(&self.folder) {
            // A node that Ctrl-C has reached already does not answer any more.
            let _ = timeout(LEAVE, api.delete(&["node"])).await;
        }
        if timeout(LEAVE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Words for a node that failed, with the end of its log.
    fn failed(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(log_of(&self.folder)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        let name = self.name;
        Failure::other(format!("the {name} {what}; the end of its log:\n  {tail}"))
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log.txt")
}

fn api_of(folder: &Path) -> Result<Api, Failure> {
    let choice = Choice {
        node: None,
        data_dir: Some(folder.to_owned()),
    };
    Ok(Api::new(home::locate(&choice, home::environment)?))
}
