//! A relay: takes streams in from an honest publisher and forwards them, tampering.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use astral_proto::ids::{NodeId, StreamId};
use astral_proto::record::SignedStream;
use astral_proto::wire::control::Message;
use tokio::task::JoinSet;

use super::child::{Tickets, keep};
use super::identity::Identity;
use super::link::{Endpoint, Link, LinkError};
use super::parent::Parent;
use super::shelf::Shelf;
use super::tamper::Tamper;

/// How a connection of an honest node to the relay ended.
#[derive(Clone, Debug)]
pub struct Farewell {
    /// The node.
    pub peer: NodeId,
    /// Its close code and words, if it gave any.
    pub close: Option<(u64, String)>,
    /// Time since the relay had struck, if it had.
    pub after: Option<Duration>,
}

/// A relay that runs.
pub struct Relay {
    /// Its endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Its dealings with children.
    pub parent: Arc<Parent>,
    /// Connections that were made to it.
    pub arrivals: Arc<AtomicU64>,
    farewells: Arc<Mutex<Vec<Farewell>>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Takes in these streams of the node at `from`, and serves whoever comes.
    pub async fn start(
        identity: Identity,
        from: SocketAddr,
        streams: &[StreamId],
        tamper: Tamper,
    ) -> Result<Self, LinkError> {
        let endpoint = Arc::new(Endpoint::bind(identity));
        let mut link = endpoint.dial(from).await?;
        let (shelf, tickets) = (Shelf::default(), Tickets::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(link.conn.clone(), tickets.clone(), shelf.clone()));
        let mut path = Vec::new();
        for stream in streams {
            let record = link.find(*stream).await?;
            let key = record.value().key;
            shelf.record(record);
            let accepted = link.ticket(*stream).await?;
            path = accepted.path;
            let entry = (*stream, key);
            tickets.lock().expect("no panic").insert(accepted.id, entry);
        }
        tasks.spawn(listen(link, shelf.clone()));
        path.push(endpoint.id());
        Ok(Self::serve(endpoint, shelf, path, tamper, tasks))
    }

    /// Serves whoever comes from a shelf that something else fills.
    pub fn serve(
        endpoint: Arc<Endpoint>,
        shelf: Shelf,
        path: Vec<NodeId>,
        tamper: Tamper,
        mut tasks: JoinSet<()>,
    ) -> Self {
        let parent = Arc::new(Parent {
            shelf,
            path,
            tamper,
            requests: AtomicU64::new(0),
        });
        let (arrivals, farewells) = (Arc::<AtomicU64>::default(), Arc::default());
        let host = Host {
            endpoint: endpoint.clone(),
            parent: parent.clone(),
            arrivals: arrivals.clone(),
            farewells: Arc::clone(&farewells),
        };
        tasks.spawn(host.run());
        Self {
            endpoint,
            parent,
            arrivals,
            farewells,
            _tasks: tasks,
        }
    }

    /// Connections that have ended.
    pub fn farewells(&self) -> Vec<Farewell> {
        self.farewells.lock().expect("no panic").clone()
    }

    /// Requests for tickets so far.
    pub fn requests(&self) -> u64 {
        self.parent.requests.load(Ordering::Relaxed)
    }
}

struct Host {
    endpoint: Arc<Endpoint>,
    parent: Arc<Parent>,
    arrivals: Arc<AtomicU64>,
    farewells: Arc<Mutex<Vec<Farewell>>>,
}

impl Host {
    async fn run(self) {
        let mut guests = JoinSet::new();
        while let Some(accepted) = self.endpoint.accept().await {
            self.arrivals.fetch_add(1, Ordering::Relaxed);
            let Ok(link) = accepted else { continue };
            let (parent, farewells) = (self.parent.clone(), self.farewells.clone());
            guests.spawn(async move {
                let peer = link.peer;
                let close = parent.clone().serve(link).await;
                let after = parent.tamper.struck().map(|(at, ..)| at.elapsed());
                let farewell = Farewell { peer, close, after };
                farewells.lock().expect("no panic").push(farewell);
            });
        }
    }
}

/// Keeps the records of what the publisher goes on to announce.
async fn listen(mut link: Link, shelf: Shelf) {
    let mut seen = BTreeMap::new();
    while let Ok(message) = link.hear().await {
        let Message::Announce(announce) = message else {
            continue;
        };
        for bytes in announce.records {
            if let Ok(record) = SignedStream::decode(&bytes.0)
                && seen.insert(record.value().id(), record.value().seq) != Some(record.value().seq)
            {
                shelf.record(record);
            }
        }
    }
}
