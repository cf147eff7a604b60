//! The demo's programs: child processes in one temporary folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use astral_proto::ids::NodeId;
use futures_util::future::{join_all, select_all};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Api;
use crate::failure::Failure;
use crate::home::{self, Choice, Target};
use crate::programs;

/// Time for a program to be ready.
const START: Duration = Duration::from_secs(15);
/// Time for a program to end by itself: a node says 5 s.
const LEAVE: Duration = Duration::from_secs(6);
/// Pause between two looks for a ready file.
const LOOK: Duration = Duration::from_millis(30);
/// Lines of a log that are shown when its program fails.
const LOG_LINES: usize = 8;

/// A node of the demo that is ready.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// What it is in the demo.
    pub(super) name: &'static str,
    /// Its id.
    pub(super) uuid: NodeId,
    /// Its data folder.
    pub(super) folder: PathBuf,
    /// Its API.
    pub(super) api: Api,
}

/// The astral-web of the demo, ready.
#[derive(Clone, Debug)]
pub(super) struct Web {
    /// `http://host:port`, as nodes are told and people open.
    pub(super) url: String,
    /// Its public API, which has the node's form.
    pub(super) api: Api,
}

/// astral-web's ready file, as far as it matters here.
#[derive(Deserialize)]
struct WebReady {
    http: String,
}

/// The processes and their folder.
pub(super) struct Lab {
    node: PathBuf,
    web: PathBuf,
    folder: TempDir,
    running: Vec<Running>,
}

struct Running {
    name: &'static str,
    child: Child,
    folder: PathBuf,
}

impl Lab {
    /// Finds the programs and makes the folder.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            node: programs::find("astral-node")?,
            web: programs::find("astral-web")?,
            folder: tempfile::Builder::new().prefix("astral-demo-").tempdir()?,
            running: Vec::new(),
        })
    }

    /// Starts a node on loopback, and waits until it is ready; free ports, but that of
    /// HTTP if one is wanted.
    pub(super) async fn node(
        &mut self,
        name: &'static str,
        http: u16,
        options: &[&str],
    ) -> Result<Member, Failure> {
        let folder = self.folder_of(name)?;
        let mut command = Command::new(&self.node);
        command.arg("--http").arg(format!("127.0.0.1:{http}"));
        for listener in ["--quic", "--rtmp"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        command.arg("--data-dir").arg(&folder).args(options);
        let ready = folder.join("node.json");
        self.start(name, command, &folder)?;
        let ready = self.ready(|| home::read_ready(&ready).ok()).await?;
        Ok(Member {
            name,
            uuid: ready.uuid,
            api: api_of(&folder)?,
            folder,
        })
    }

    /// Starts an astral-web on a free port of loopback, and waits until it is ready.
    pub(super) async fn web(&mut self) -> Result<Web, Failure> {
        let name = "web";
        let folder = self.folder_of(name)?;
        let ready = folder.join("web.json");
        let place = format!("redb:{}", folder.join("directory.redb").display());
        let mut command = Command::new(&self.web);
        command.args(["--listen", "127.0.0.1:0", "--directory", &place]);
        command.arg("--ready-file").arg(&ready);
        self.start(name, command, &folder)?;
        let read = || serde_json::from_slice(&std::fs::read(&ready).ok()?).ok();
        let WebReady { http } = self.ready(read).await?;
        let api = Api::new(Target {
            authority: http.clone(),
            token: None,
            origin: "the demo's astral-web".to_owned(),
        });
        Ok(Web {
            url: format!("http://{http}"),
            api,
        })
    }

    fn folder_of(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.folder.path().join(name);
        // Of a first try that failed it may be there.
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn start(
        &mut self,
        name: &'static str,
        mut command: Command,
        folder: &Path,
    ) -> Result<(), Failure> {
        for (variable, _) in std::env::vars_os() {
            // The user's settings for programs of theirs are not for these.
            let text = variable.to_string_lossy();
            if text.starts_with("ASTRAL_NODE") || text.starts_with("ASTRAL_WEB") {
                command.env_remove(variable);
            }
        }
        let log = File::create(log_of(folder))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::other(format!("cannot start the {name}: {error}")))?;
        let folder = folder.to_owned();
        self.running.push(Running {
            name,
            child,
            folder,
        });
        Ok(())
    }

    /// Waits for the ready file of what was started last; what ends instead is no longer
    /// one of those that run.
    async fn ready<T>(&mut self, read: impl Fn() -> Option<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(ready) = read() {
                return Ok(ready);
            }
            let running = self.running.last_mut();
            let running = running.ok_or_else(|| Failure::other("nothing was started"))?;
            if let Some(status) = running.child.try_wait()? {
                let failure = running.failed(&format!("ended with {status}"));
                self.running.pop();
                return Err(failure);
            }
            if Instant::now() > deadline {
                return Err(running.failed(&format!("was not ready within {} s", START.as_secs())));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until a program ends that should not.
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

    /// Asks all to leave, ends those that do not, and removes the folder.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        join_all(self.running.iter_mut().map(Running::leave)).await;
        Ok(self.folder.close()?)
    }
}

impl Running {
    /// Asks the program to end; ends our own child if it does not.
    async fn leave(&mut self) {
        // Without an id it has ended, and been waited for, already.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM);
        }
        if timeout(LEAVE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Words for a program that failed, with the end of its log.
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
