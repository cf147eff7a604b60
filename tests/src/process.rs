//! Real nodes as child processes.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use astral_proto::api::Ready;
use astral_proto::ids::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::api::Api;
use crate::places;
use crate::wait::{s, until};

/// Lines of a node's log that a failed test shows.
const TAIL_LINES: usize = 60;
/// Longest start; a cold, busy machine takes seconds.
const START_WITHIN: Duration = s(30);

/// How a node is to be started; every start of it uses the same folder.
#[derive(Clone)]
pub struct Launch {
    name: &'static str,
    folder: Arc<TempDir>,
    http: String,
    quic: String,
    rtmp: String,
    host: Option<String>,
    options: Vec<String>,
}

impl Launch {
    /// A node with a folder of its own and free ports of 127.0.0.1.
    pub fn new(name: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("astral-test-").tempdir();
        let any = || "127.0.0.1:0".to_owned();
        Self {
            name,
            folder: Arc::new(folder.expect("a temporary folder")),
            http: any(),
            quic: any(),
            rtmp: any(),
            host: None,
            options: Vec::new(),
        }
    }

    /// On a computer of its own ([`crate::netns`]) that has this address there.
    pub fn on(mut self, host: &str, address: &str) -> Self {
        self.host = Some(host.to_owned());
        self.quic = address.to_owned();
        self
    }

    /// One more option.
    pub fn option(mut self, name: &str, value: impl ToString) -> Self {
        self.options.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Bootstraps from this node.
    pub fn peer(self, node: &Node) -> Self {
        let address = node.ready.quic.clone();
        self.option("--peer", address)
    }

    /// Spends at most this much upload.
    pub fn limit(self, rate: impl ToString) -> Self {
        self.option("--upstream-limit", rate)
    }

    /// Tells it of no other node from now on.
    pub fn alone(mut self) -> Self {
        if let Some(at) = self.options.iter().position(|option| option == "--peer") {
            self.options.drain(at..at + 2);
            return self.alone();
        }
        self
    }

    /// Ports that stay the same from one start to the next.
    pub fn fixed_ports(mut self) -> Self {
        let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        self.http = tcp().expect("a free port").to_string();
        self.rtmp = tcp().expect("a free port").to_string();
        self.quic = udp.expect("a free port").to_string();
        self
    }

    /// `host:port` of its pages, if [`Self::fixed_ports`] has fixed it.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// The node's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The command line, without input or output.
    pub fn command(&self) -> Command {
        let mut command = program(&places::astral_node(), self.host.as_deref());
        command.arg("--data-dir").arg(self.data_dir());
        command.args([
            "--http", &self.http, "--quic", &self.quic, "--rtmp", &self.rtmp,
        ]);
        command
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts it, and waits until it says that it is ready.
    pub async fn start(self) -> Node {
        let log = self.folder.path().join(format!("{}.log", self.name));
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let child = self
            .command()
            .stderr(stderr)
            .spawn()
            .expect("astral-node starts");
        let mut starting = Starting {
            child: Some(child),
            log,
            launch: self,
        };
        let ready = until("the ready file", START_WITHIN, async || starting.ready()).await;
        let mut api = Api::new(&ready.http, &ready.token);
        api.host.clone_from(&starting.launch.host);
        let child = starting.child.take().expect("not yet taken");
        let node = Node {
            child,
            ready,
            api,
            log: starting.log.clone(),
            launch: starting.launch.clone(),
        };
        until("/ready", START_WITHIN, async || {
            let answer = node.api.try_get("/ready").await?;
            if answer.status == 200 {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        })
        .await;
        node
    }
}

/// A program that runs here, or on a computer of its own.
pub fn program(path: &Path, host: Option<&str>) -> Command {
    let mut command = match host {
        None => Command::new(path),
        // `ip` becomes the program: the process is the same.
        Some(host) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", host]).arg(path);
            command
        }
    };
    clean(&mut command);
    command
}

/// Takes away what the environment of the developer says about nodes.
pub fn clean(command: &mut Command) {
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("ASTRAL_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
}

/// A child that has not said yet that it is ready.
struct Starting {
    child: Option<Child>,
    log: PathBuf,
    launch: Launch,
}

impl Starting {
    fn ready(&mut self) -> Result<Ready, String> {
        let child = self.child.as_mut().expect("a child");
        if let Ok(Some(status)) = child.try_wait() {
            self.child = None;
            panic!(
                "{} ended at once: {status}\n{}",
                self.launch.name,
                tail(&self.log)
            );
        }
        let file = fs::read(self.launch.data_dir().join("node.json")).map_err(|e| e.to_string())?;
        let ready: Ready = serde_json::from_slice(&file).map_err(|error| error.to_string())?;
        // A node that was killed has left its file behind.
        if ready.pid == child.id() {
            Ok(ready)
        } else {
            Err("an old ready file".into())
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
            eprintln!(
                "{} did not get ready:\n{}",
                self.launch.name,
                tail(&self.log)
            );
        }
    }
}

/// A running node.
pub struct Node {
    child: Child,
    /// What its ready file says.
    pub ready: Ready,
    /// Its API, with the token.
    pub api: Api,
    log: PathBuf,
    launch: Launch,
}

impl Node {
    /// Its id.
    pub fn id(&self) -> NodeId {
        self.ready.uuid
    }

    /// How it was started.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.launch.data_dir()
    }

    /// What it has logged, from all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("the child is still ours to signal");
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Kills it and starts it again on the same folder.
    pub async fn restart(self) -> Self {
        self.restart_as(|launch| launch).await
    }

    /// The same with a changed command line.
    pub async fn restart_as(mut self, change: impl FnOnce(Launch) -> Launch) -> Self {
        self.kill();
        let launch = change(self.launch.clone());
        drop(self);
        launch.start().await
    }

    /// Waits for it to end by itself.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        until("the node's end", within, async || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err("it runs"),
                Err(_) => Err("it cannot be waited for"),
            }
        })
        .await
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("/proc has the node");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        let kib: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        kib * 1024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            eprintln!(
                "── {} ({}) ──\n{}",
                self.launch.name,
                self.ready.uuid,
                tail(&self.log)
            );
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The end of a log.
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error: io::Error| error.to_string());
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
