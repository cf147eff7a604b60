//! A real astral-web as a child process.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use astral_proto::api::Stream;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::api::Api;
use crate::places;
use crate::process::{Launch, clean, tail};
use crate::wait::{check, s, until};

/// Longest start; a cold, busy machine takes seconds.
const START_WITHIN: Duration = s(30);

/// Folder of its certificates, if it has any.
const CERTS: &str = "certs";

/// An astral-web; started again, it has the same address.
pub struct Web {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Web {
    /// One with an empty directory, on a free port.
    pub async fn start() -> Self {
        Self::run(free_port(), folder()).await
    }

    /// The same over HTTPS, with certificates of its own making.
    pub async fn start_https() -> Self {
        let folder = folder();
        let mut command = Command::new(places::astral_web());
        clean(&mut command);
        command
            .args(["dev-certs", "--out"])
            .arg(folder.path().join(CERTS));
        let made = command.output().expect("astral-web starts");
        assert!(made.status.success(), "{made:?}");
        Self::run(free_port(), folder).await
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
        let certs = folder.path().join(CERTS);
        let secure = certs.exists();
        if secure {
            command.arg("--tls-cert").arg(certs.join("server.pem"));
            command.arg("--tls-key").arg(certs.join("server.key"));
        }
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
            if secure {
                let connected = TcpStream::connect(&web.address).await;
                return connected.map(drop).map_err(|error| error.to_string());
            }
            web.api().try_get("/api/v1/bootstrap").await.map(drop)
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
        let scheme = if self.ca().is_some() { "https" } else { "http" };
        Launch::new(name).option("--web", format!("{scheme}://{}", self.address))
    }

    /// The authority that its certificate is of, if it has one.
    pub fn ca(&self) -> Option<PathBuf> {
        let ca = self.folder.path().join(CERTS).join("ca.pem");
        ca.exists().then_some(ca)
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
        Self::run(self.address.clone(), folder()).await
    }

    fn take_folder(&mut self) -> TempDir {
        std::mem::replace(&mut self.folder, folder())
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

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("astral-test-").tempdir();
    folder.expect("a temporary folder")
}

fn free_port() -> String {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    free.local_addr().expect("its address").to_string()
}

impl Drop for Web {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("── astral-web ──\n{}", tail(&self.log()));
        }
    }
}
