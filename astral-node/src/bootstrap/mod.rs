//! Bootstrapping from astral-web: what it lists goes to the overlay, verified, and
//! what this node is and publishes is listed there, for as long as the node runs.

mod client;
mod connect;
mod identity;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use astral_proto::ids::StreamId;
use astral_proto::overlay::{Description, Event};
use astral_proto::record::{Address, Role, SignedNode, SignedStream, StreamState};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::handle::Handle;
use crate::node::own_addresses;
use client::{Answer, Client, Failure};
pub(crate) use connect::trust;
pub(crate) use identity::Identity;

/// How often astral-web is asked while no supernode is connected.
const SEEK_EVERY: Duration = Duration::from_secs(1);
/// How often otherwise, with jitter.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How often this node's record is signed anew there: a third of the lease.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Changes within this time go out together.
const SETTLE: Duration = Duration::from_millis(100);
/// Longest wait after failures; short, since a lost astral-web comes back empty.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// The last words may take this long.
const GOODBYE_WITHIN: Duration = Duration::from_millis(400);

/// Starts to keep the node's record, and a task for each astral-web. Gives the number
/// of those whose first round is over.
pub(crate) fn start(
    handle: &Handle,
    described: watch::Receiver<Option<Description>>,
    trust: &Arc<ClientConfig>,
) -> watch::Receiver<usize> {
    let identity = &handle.inner().identity;
    let tasks = &handle.inner().tasks;
    tasks.spawn(keep_described(handle.clone(), identity.clone(), described));
    let rounds = watch::Sender::new(0);
    let done = rounds.subscribe();
    for url in &handle.config().web {
        let client = Client::new(url, trust.clone());
        let web = Web::new(handle.clone(), identity.clone(), client);
        tasks.spawn(web.run(rounds.clone()));
    }
    done
}

/// Signs the node's record anew whenever the overlay has something else to say in it.
async fn keep_described(
    handle: Handle,
    identity: Arc<Identity>,
    mut described: watch::Receiver<Option<Description>>,
) {
    let stop = handle.inner().shutdown.clone();
    loop {
        tokio::select! {
            changed = described.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let Some(description) = described.borrow_and_update().clone() else {
            continue;
        };
        let own = own_addresses(&handle.config(), handle.inner().addresses.quic);
        let record = identity.describe(description, own).await;
        let event = Event::Identity { record };
        handle.inner().inbox.event(event, String::new()).await;
    }
}

/// One astral-web, as this node deals with it.
struct Web {
    handle: Handle,
    identity: Arc<Identity>,
    client: Client,
    /// What it listed last, to be gone back to when it says that nothing is new.
    nodes: Vec<(SignedNode, Vec<Address>)>,
    /// How it sees this node.
    seen: Option<IpAddr>,
    asked: Option<Instant>,
    ask_after: Duration,
    listed: Option<(Instant, Role)>,
    streams: HashMap<StreamId, u64>,
    failures: u32,
}

/// What is to be listed.
struct Look {
    supernodes: usize,
    role: Role,
    own: Vec<SignedStream>,
    over: Vec<(StreamId, Option<SignedStream>)>,
}

impl Web {
    fn new(handle: Handle, identity: Arc<Identity>, client: Client) -> Self {
        Self {
            handle,
            identity,
            client,
            nodes: Vec::new(),
            seen: None,
            asked: None,
            ask_after: Duration::ZERO,
            listed: None,
            streams: HashMap::new(),
            failures: 0,
        }
    }

    async fn run(mut self, rounds: watch::Sender<usize>) {
        let stop = self.handle.inner().shutdown.clone();
        let mut changes = self.handle.changes();
        let mut first = true;
        loop {
            let result = tokio::select! {
                result = self.round() => result,
                () = stop.cancelled() => break,
            };
            self.note(result);
            if std::mem::take(&mut first) {
                rounds.send_modify(|count| *count += 1);
            }
            let failed = self.failures > 0;
            tokio::select! {
                () = tokio::time::sleep(self.wait()) => {}
                Ok(()) = changes.changed(), if !failed => tokio::time::sleep(SETTLE).await,
                () = stop.cancelled() => break,
            }
        }
        self.say_goodbye().await;
    }

    fn wait(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => LOOK_EVERY,
            Some(doublings) => {
                let wait = LOOK_EVERY.saturating_mul(1 << doublings.min(8));
                jittered(wait.min(BACK_OFF_MAX))
            }
        }
    }

    fn note(&mut self, result: Result<(), Failure>) {
        let url = self.client.url();
        match result {
            Ok(()) if self.failures > 0 => {
                info!(url, "astral-web answers again");
                self.failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.failures == 0 {
                    warn!(url, %error, "astral-web fails; trying on");
                } else {
                    debug!(url, %error, "astral-web still fails");
                }
                self.failures += 1;
                // It may have lost what it was told.
                self.asked = None;
                self.listed = None;
                self.streams.clear();
            }
        }
    }

    async fn round(&mut self) -> Result<(), Failure> {
        let Some(look) = self.look().await else {
            return Ok(());
        };
        let pause = if look.supernodes == 0 {
            SEEK_EVERY
        } else {
            self.ask_after
        };
        if self.asked.is_none_or(|asked| asked.elapsed() >= pause) {
            self.ask().await?;
        }
        self.list_node(&look).await?;
        self.list_streams(look).await
    }

    async fn look(&self) -> Option<Look> {
        let own = self.handle.own_ids();
        let over: Vec<StreamId> = self
            .streams
            .keys()
            .filter(|id| !own.contains(id))
            .copied()
            .collect();
        let inbox = &self.handle.inner().inbox;
        let look = inbox.inspect(move |overlay, _| Look {
            supernodes: overlay.connected_supernodes(),
            role: overlay.role(),
            own: own
                .into_iter()
                .filter_map(|id| overlay.record_of(id).cloned())
                .filter(|record| record.value().is_listed())
                .collect(),
            over: over
                .into_iter()
                .map(|id| (id, overlay.record_of(id).cloned()))
                .collect(),
        });
        look.await
    }

    /// Asks for nodes and streams, and tells the overlay.
    async fn ask(&mut self) -> Result<(), Failure> {
        let answer = self.client.bootstrap().await?;
        self.asked = Some(Instant::now());
        self.ask_after = jittered(ASK_EVERY);
        let streams = match answer {
            // The supernodes may be needed again all the same.
            Answer::Unchanged => Vec::new(),
            Answer::New(bootstrap) => {
                self.seen = bootstrap.address.parse().ok();
                let (nodes, streams) = client::verified(&bootstrap);
                self.nodes = nodes;
                streams
            }
        };
        let nodes = self.nodes.clone();
        let event = Event::Heard { nodes, streams };
        self.handle.inner().inbox.event(event, String::new()).await;
        Ok(())
    }

    /// Lists this node if others need it: supernodes and publishers. One that is no
    /// supernode any more says so.
    async fn list_node(&mut self, look: &Look) -> Result<(), Failure> {
        let was = self.listed.map(|(_, role)| role);
        let needed = look.role == Role::Supernode || !look.own.is_empty();
        let due = match self.listed {
            None => needed,
            Some((at, role)) if role == look.role => needed && at.elapsed() >= RENEW_EVERY,
            Some(_) => needed || was == Some(Role::Supernode),
        };
        let Some(seen) = self.seen.filter(|_| due) else {
            return Ok(());
        };
        let port = self.handle.inner().addresses.quic.port();
        let (role, address) = (look.role, Address::canonical((seen, port).into()));
        for last in [false, true] {
            // Of the addresses where others have reached it, those that astral-web sees.
            let signed = self.identity.sign(move |record| {
                record.role = role;
                let at = |known: &Address| known.0.ip() == address.0.ip();
                record.addresses.retain(at);
                if record.addresses.is_empty() {
                    record.addresses = vec![address];
                }
            });
            match self.client.post("nodes", signed.await.wire()).await {
                Err(Failure::Outdated) if !last => {}
                result => {
                    result?;
                    break;
                }
            }
        }
        self.listed = Some((Instant::now(), role));
        Ok(())
    }

    /// Lists records that are newer than those listed, tombstones too.
    async fn list_streams(&mut self, look: Look) -> Result<(), Failure> {
        for record in look.own {
            let (id, seq) = (record.value().id(), record.value().seq);
            if self.streams.get(&id).is_some_and(|listed| *listed >= seq) {
                continue;
            }
            match self.client.post("streams", record.wire()).await {
                Ok(()) => {
                    self.streams.insert(id, seq);
                }
                Err(Failure::Outdated) => {
                    // The record that is signed now goes out in the next round.
                    self.streams.insert(id, seq);
                    self.handle.sign(id).await;
                }
                Err(failure) => return Err(failure),
            }
        }
        for (id, record) in look.over {
            let ended = |record: &SignedStream| record.value().state == StreamState::Ended;
            if let Some(record) = record.filter(ended) {
                match self.client.post("streams", record.wire()).await {
                    Ok(()) | Err(Failure::Outdated) => {}
                    Err(failure) => return Err(failure),
                }
                self.streams.remove(&id);
            }
        }
        Ok(())
    }

    /// Takes this node off the list.
    async fn say_goodbye(self) {
        if self.listed.is_none() {
            return;
        }
        let farewell = async {
            let signed = self.identity.sign(|record| record.removed = Some(true));
            self.client.post("nodes", signed.await.wire()).await
        };
        match tokio::time::timeout(GOODBYE_WITHIN, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "astral-web was not told of the end"),
            Err(_) => debug!("astral-web was not told of the end in time"),
        }
    }
}

/// A wait between three quarters and five quarters of `base`: many nodes that lost the
/// same astral-web do not come back to it at one moment.
fn jittered(base: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness there is no jitter, and nothing worse.
    let _ = getrandom::fill(&mut byte);
    base * (384 + u32::from(byte[0])) / 512
}
