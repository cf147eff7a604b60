//! Many light children in one process: they take in, count, and check nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use astral_proto::ids::{SecretKey, StreamId};
use tokio::task::JoinSet;

use crate::hostile::child::{Ended, Incoming, glance};
use crate::hostile::identity::Identity;
use crate::hostile::link::{Endpoint, unix_ns};
use crate::synthetic::{HEAD, Shape, read};

/// What an audience has counted.
#[derive(Default)]
pub struct Counts {
    /// Payload bytes.
    pub bytes: AtomicU64,
    measuring: AtomicBool,
    /// Per frame of every child: its number, when it was whole, and how late that was.
    arrivals: Mutex<Vec<(u64, u64, u64)>>,
}

impl Counts {
    fn frame(&self, head: &[u8], len: usize) {
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        if !self.measuring.load(Ordering::Relaxed) {
            return;
        }
        let Some((number, made)) = read(head) else {
            return;
        };
        let now = unix_ns();
        let late_us = now.saturating_sub(made) / 1_000;
        let mut arrivals = self.arrivals.lock().expect("no panic");
        arrivals.push((number, now, late_us));
    }

    /// Begins to note when frames come.
    pub fn measure(&self, on: bool) {
        self.measuring.store(on, Ordering::Relaxed);
    }

    /// Microseconds from a frame's making to its last byte here, in ascending order.
    pub fn delays(&self) -> Vec<u64> {
        let arrivals = self.arrivals.lock().expect("no panic");
        let mut delays: Vec<u64> = arrivals.iter().map(|(_, _, late)| *late).collect();
        delays.sort_unstable();
        delays
    }

    /// Microseconds by which every frame came later than the same frame came to `first`.
    pub fn behind(&self, first: &Self) -> Vec<u64> {
        let first = first.arrivals.lock().expect("no panic");
        let first: BTreeMap<u64, u64> = first.iter().map(|(n, at, _)| (*n, *at)).collect();
        let arrivals = self.arrivals.lock().expect("no panic");
        let both = arrivals.iter().filter_map(|(number, at, _)| {
            let first = first.get(number)?;
            Some(at.saturating_sub(*first) / 1_000)
        });
        let mut behind: Vec<u64> = both.collect();
        behind.sort_unstable();
        behind
    }
}

/// Children that run until they are told to leave.
pub struct Audience {
    /// What they have counted.
    pub counts: Arc<Counts>,
    endpoints: Vec<Endpoint>,
    tasks: JoinSet<()>,
}

impl Audience {
    fn new() -> Self {
        Self {
            counts: Arc::default(),
            endpoints: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Children of a node: each gets a ticket for the stream.
    pub async fn of_node(to: SocketAddr, stream: StreamId, children: usize) -> Self {
        let mut audience = Self::new();
        for child in 0..children {
            let endpoint = stranger(child);
            let link = endpoint.dial(to).await;
            let mut link = link.unwrap_or_else(|error| panic!("child {child}: {error}"));
            let accepted = link.ticket(stream).await;
            accepted.unwrap_or_else(|error| panic!("child {child}: {error}"));
            let counts = audience.counts.clone();
            audience.tasks.spawn(async move {
                // All of it: a control stream that is dropped ends the connection.
                let link = link;
                while let Ok(recv) = link.conn.accept_uni().await {
                    tokio::spawn(take_group(recv, counts.clone()));
                }
            });
            audience.endpoints.push(endpoint);
        }
        audience
    }

    /// Children of bare quinn.
    pub async fn of_bare(to: SocketAddr, shape: Shape, children: usize) -> Self {
        let mut audience = Self::new();
        for child in 0..children {
            let endpoint = stranger(child);
            let conn = endpoint.connect(to).await.expect("the sender answers");
            let counts = audience.counts.clone();
            audience.tasks.spawn(async move {
                while let Ok(recv) = conn.accept_uni().await {
                    tokio::spawn(take_bare(recv, shape, counts.clone()));
                }
            });
            audience.endpoints.push(endpoint);
        }
        audience
    }

    /// Closes all connections; the sender has been told when this returns.
    pub async fn leave(mut self) {
        for endpoint in &self.endpoints {
            endpoint.close().await;
        }
        self.tasks.shutdown().await;
    }
}

/// A node that nobody has seen before, with a socket of its own as viewers have.
fn stranger(child: usize) -> Endpoint {
    let mut seed = [0x33; 32];
    seed[..8].copy_from_slice(&(child as u64).to_be_bytes());
    seed[8..16].copy_from_slice(&unix_ns().to_be_bytes());
    Endpoint::bind(Identity::of(SecretKey::from_seed(seed)))
}

async fn take_group(recv: quinn::RecvStream, counts: Arc<Counts>) -> Result<(), Ended> {
    let mut incoming = Incoming::new(recv);
    incoming.header().await?;
    while let Some(item) = incoming.item().await? {
        let Some((track, len)) = glance(&item) else {
            continue;
        };
        let head = incoming.pass(len as usize, HEAD).await?;
        if track != 0 {
            counts.frame(&head, len as usize);
        }
    }
    Ok(())
}

async fn take_bare(
    recv: quinn::RecvStream,
    shape: Shape,
    counts: Arc<Counts>,
) -> Result<(), Ended> {
    let mut incoming = Incoming::new(recv);
    loop {
        let head = incoming.pass(shape.frame_bytes, HEAD).await?;
        counts.frame(&head, shape.frame_bytes);
    }
}
