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
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

pub struct Server {
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

    pub fn start_in(folder: TempDir) -> Self {
        let mut child = command(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let at = line.find("http://").expect("a line with the address");
        let url = line[at..].trim().trim_end_matches('/').to_owned();
        Self {
            child,
            url,
            folder: Some(folder),
        }
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
        let client = Client::builder(TokioExecutor::new()).build_http();
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

pub fn node(seed: u8, seq: u64, address: &str, removed: Option<bool>) -> SignedNode {
    let key = SecretKey::from_seed([seed; 32]);
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
    SignedNode::sign(record, &key)
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
