//! A real astral-web as a child process.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use astral_proto::api::Stream;
use tempfile::TempDir;

use crate::api::Api;
use crate::places;
use crate::process::{Launch, clean, tail};
use crate::wait::{check, s, until};

/// Longest start; a cold, busy machine takes seconds.
const START_WITHIN: Duration = s(30);

/// An astral-web; started again, it has the same address.
pub struct Web {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Web {
    /// One with an empty directory, on a free port.
    pub async fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("its address").to_string();
        drop(free);
        let folder = tempfile::Builder::new().prefix("astral-test-").tempdir();
        Self::run(address, folder.expect("a temporary folder")).await
    }

    async fn run(address: String, folder: TempDir) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.path().join("web.log"))
            .expect("a log file");
        let mut command = Command::new(places::astral_web());
        clean(&mut command);
        let place = folder.path().join("directory.redb");
        command.args(["--listen", &address, "--directory"]);
        command.arg(format!("redb:{}", place.display()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let web = Self {
            child: command.spawn().expect("astral-web starts"),
            address,
            folder,
        };
        until("astral-web answers", START_WITHIN, async || {
            web.api().try_get("/api/v1/bootstrap").await
        })
        .await;
        web
    }

    /// Its API; nothing of it needs a token.
    pub fn api(&self) -> Api {
        Api::new(&self.address, "")
    }

    /// A node that is told of nothing but this.
    pub fn launch(&self, name: &'static str) -> Launch {
        let url = format!("http://{}", self.address);
        Launch::new(name).option("--web", url)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again on what it knew.
    pub async fn restart(mut self) -> Self {
        self.kill();
        let (address, folder) = (self.address.clone(), self.take_folder());
        Self::run(address, folder).await
    }

    /// Kills it and starts it anew without what it knew.
    pub async fn lose(mut self) -> Self {
        self.kill();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::run(self.address.clone(), folder).await
    }

    fn take_folder(&mut self) -> TempDir {
        let empty = tempfile::tempdir().expect("a temporary folder");
        std::mem::replace(&mut self.folder, empty)
    }

    /// A page or an answer as text, whatever its status.
    pub async fn text(&self, path: &str) -> Result<String, String> {
        let answer = self.api().try_get(path).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Waits until who comes new is told of the stream, and of somebody to ask for it.
    pub async fn lists(&self, stream: &Stream) {
        until("the stream is on astral-web", s(30), async || {
            let text = self.text("/api/v1/bootstrap").await?;
            let supernodes = text.contains("\"role\":\"supernode\"");
            check(supernodes && text.contains(&stream.id.to_string()), text)
        })
        .await;
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("web.log")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("── astral-web ──\n{}", tail(&self.log()));
        }
    }
}
