//! Bare quinn with the same live pattern: what a sender without tickets, signatures,
//! verification, heartbeats or a store would cost.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};

use crate::hostile::identity::Identity;
use crate::hostile::link::{socket, transport};
use crate::synthetic::{self, Shape};

/// The hidden mode of the benchmark's binary that runs [`send`].
pub const MODE: &str = "--bare-sender";
/// Frames that wait for a connection's task: a second.
const WAITING: usize = 32;

/// A sender in a process of its own, so that its processor time is counted as a node's is.
pub struct Sender {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Sender {
    /// Starts this binary again, in its hidden mode.
    pub fn start() -> Self {
        Self::start_as(MODE)
    }

    /// Starts this binary again, in a hidden mode in which it says where it listens.
    pub fn start_as(mode: &str) -> Self {
        let own = std::env::current_exe().expect("a program knows its own path");
        let child = Command::new(own).arg(mode).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the benchmark starts itself");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a line with the address");
        let address = line.trim().parse().expect("an address");
        Self { child, address }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Listens in this process, and says where to [`Sender::start_as`].
pub fn listen() -> quinn::Endpoint {
    let mut server = Identity::new(0x11).server();
    server.transport_config(Arc::new(transport()));
    let endpoint = quinn::Endpoint::new(
        quinn::EndpointConfig::default(),
        Some(server),
        socket(),
        Arc::new(quinn::TokioRuntime),
    );
    let endpoint = endpoint.expect("an endpoint");
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", endpoint.local_addr().expect("an address")).expect("a pipe");
    endpoint
}

/// Sends the live pattern to whoever connects, for ever: a uni stream per connection and
/// group, each frame when it is made.
pub async fn send(shape: Shape) {
    let endpoint = listen();
    let frames = broadcast::Sender::<(u64, Bytes)>::new(WAITING);
    let source = frames.clone();
    tokio::spawn(async move {
        let start = Instant::now();
        for number in 0.. {
            sleep_until(start + shape.due(number)).await;
            // Nobody may listen yet.
            let _ = source.send((number, synthetic::access_unit(shape, number)));
        }
    });
    while let Some(incoming) = endpoint.accept().await {
        let frames = frames.subscribe();
        tokio::spawn(async move {
            let conn = incoming.await.expect("the audience is honest");
            let _ = forward(conn, frames, shape).await;
        });
    }
}

async fn forward(
    conn: quinn::Connection,
    mut frames: broadcast::Receiver<(u64, Bytes)>,
    shape: Shape,
) -> Result<(), quinn::WriteError> {
    let mut stream: Option<quinn::SendStream> = None;
    while let Ok((number, payload)) = frames.recv().await {
        if number.is_multiple_of(shape.group_frames) {
            if let Some(mut old) = stream.take() {
                let _ = old.finish();
            }
            stream = Some(conn.open_uni().await?);
        }
        if let Some(stream) = &mut stream {
            stream.write_chunk(payload).await?;
        }
    }
    Ok(())
}
