//! Nodes that know nothing but the address of an astral-web, all real processes.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use astral_proto::api::{Role, Stream};
use astral_tests::api::Api;
use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::places;
use astral_tests::process::{Launch, Node, clean};
use astral_tests::wait::{check, s, until};
use tempfile::TempDir;

/// An astral-web; started again, it has the same address and an empty directory.
struct Web {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl Web {
    async fn start(address: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("directory.redb");
        let log = std::fs::File::create(folder.path().join("web.log")).unwrap();
        let mut command = Command::new(places::astral_web());
        clean(&mut command);
        command.args(["--listen", &address, "--directory"]);
        command.arg(format!("redb:{}", place.display()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let web = Self {
            child: command.spawn().expect("astral-web starts"),
            address,
            _folder: folder,
        };
        until("astral-web answers", s(30), async || {
            web.api().try_get("/api/v1/bootstrap").await
        })
        .await;
        web
    }

    async fn new() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        Self::start(address).await
    }

    fn api(&self) -> Api {
        Api::new(&self.address, "")
    }

    fn launch(&self, name: &'static str) -> Launch {
        let url = format!("http://{}", self.address);
        Launch::new(name).option("--web", url)
    }

    /// Kills it and starts it anew without what it knew.
    async fn lose(mut self) -> Self {
        self.end();
        let address = self.address.clone();
        drop(self);
        Self::start(address).await
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until who comes new is told of the stream, and of somebody to ask for it.
    async fn lists(&self, stream: &Stream) {
        until("the stream is on astral-web", s(30), async || {
            let answer = self.api().try_get("/api/v1/bootstrap").await?;
            let text = answer.to_string();
            let supernodes = text.contains("\"role\":\"supernode\"");
            check(supernodes && text.contains(&stream.id.to_string()), text)
        })
        .await;
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.end();
    }
}

async fn knows(node: &Node, stream: &Stream) {
    until("the stream is listed", s(20), async || {
        node.api.try_stream(&stream.id.to_string()).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_find_each_other_through_the_web_alone_and_survive_its_loss() {
    let web = Web::new().await;
    let publisher = web.launch("publisher").limit("100mbit").start().await;
    let (stream, ingest) = publisher.api.publish("By the web").await;
    let _encoder = Encoder::rtmp(Clip::small(60), &ingest);
    let first = web.launch("first").start().await;
    let second = web.launch("second").start().await;
    web.lists(&stream).await;
    for node in [&first, &second] {
        knows(node, &stream).await;
        join(node, &stream).await;
        flows(node, &stream).await;
    }
    let mut supernodes = 0;
    for node in [&publisher, &first, &second] {
        supernodes += usize::from(node.api.node().await.role == Role::Supernode);
    }
    assert!(supernodes > 0, "one of them is a supernode");

    let web = web.lose().await;
    web.lists(&stream).await;
    flows(&second, &stream).await;
    let late = web.launch("late").start().await;
    knows(&late, &stream).await;
    join(&late, &stream).await;
    flows(&late, &stream).await;
}
