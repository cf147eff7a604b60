//! A real astral-web in a folder of its own, and a client.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test program uses its part"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use astral_proto::ids::{NodeId, SecretKey};
use astral_proto::record::{
    Address, NodeRecord, Role, SignedNode, SignedStream, StreamRecord, StreamState,
};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

pub struct Server {
    client: Client<HttpConnector, Full<Bytes>>,
    child: Child,
    url: String,
    folder: Option<TempDir>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astral-web"));
    command
        .args(["--listen", "127.0.0.1:0", "--directory"])
        .arg(format!("redb:{}", folder.join("directory.redb").display()))
        .arg("--ready-file")
        .arg(folder.join("ready.json"));
    command
}

impl Server {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Behind a proxy on loopback, so that a test can call from any address.
    pub fn behind_proxy() -> Self {
        Self::start_as(tempfile::tempdir().unwrap(), |command| {
            command.args(["--trusted-proxy", "127.0.0.1"]);
        })
    }

    pub fn start_in(folder: TempDir) -> Self {
        Self::start_as(folder, |_| ())
    }

    pub fn start_as(folder: TempDir, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(folder.path());
        change(&mut command);
        Self::run(folder, command)
    }

    pub fn run(folder: TempDir, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let at = line.rfind(" http").expect("a line with the address") + 1;
        let url = line[at..].trim().trim_end_matches('/').to_owned();
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            child,
            url,
            folder: Some(folder),
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib * 1024
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, and gives the exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn ready_file(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("ready.json")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.take().unwrap()
    }

    pub fn terminate(mut self) -> (TempDir, Option<i32>) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let code = self.child.wait().unwrap().code();
        (self.folder.take().unwrap(), code)
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let client = &self.client;
        let (parts, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        let kind = [("content-type", "application/json")];
        self.ask("POST", path, &kind, body.as_bytes().to_vec())
            .await
    }

    /// A submission as it comes through the proxy from `ip`.
    pub async fn post_from(&self, ip: &str, path: &str, body: &str) -> Answer {
        let headers = [
            ("content-type", "application/json"),
            ("x-forwarded-for", ip),
        ];
        self.ask("POST", path, &headers, body.as_bytes().to_vec())
            .await
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &[], vec![]).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn submission(record: &[u8]) -> String {
    json!({"record": BASE64URL_NOPAD.encode(record)}).to_string()
}

/// A key of its own for each number.
pub fn key(number: u32) -> SecretKey {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(seed)
}

pub fn node(seed: u8, seq: u64, address: &str, removed: Option<bool>) -> SignedNode {
    node_of(
        &SecretKey::from_seed([seed; 32]),
        seed,
        seq,
        address,
        removed,
    )
}

pub fn node_of(
    key: &SecretKey,
    seed: u8,
    seq: u64,
    address: &str,
    removed: Option<bool>,
) -> SignedNode {
    let record = NodeRecord {
        key: key.public(),
        seq,
        addresses: vec![Address::canonical(address.parse().unwrap())],
        role: Role::Supernode,
        alias: None,
        name: Some(format!("node {seed}")),
        software: Some("0.1.0".into()),
        public_http: None,
        removed,
        load: None,
    };
    SignedNode::sign(record, key)
}

pub fn stream(seed: u8, seq: u64, change: impl FnOnce(&mut StreamRecord)) -> SignedStream {
    let key = SecretKey::from_seed([seed; 32]);
    let mut record = StreamRecord {
        key: key.public(),
        seq,
        name: "My show".into(),
        description: None,
        publisher: NodeId::of(&key.public()),
        unlisted: None,
        epoch: 1,
        started_at_ms: 1_700_000_000_000,
        state: StreamState::Live,
        bitrate_bps: Some(4_000_000),
        tracks: vec![],
        viewers: Some(2),
    };
    change(&mut record);
    SignedStream::sign(record, &key)
}
