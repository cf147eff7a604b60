//! The driver: the only owner of the overlay, and the hands that carry out what
//! it decides.
//!
//! Everything reaches it through one bounded inbox. It never awaits a peer: what
//! a peer does not take at once becomes a closed connection. Routes that the
//! overlay sets are tasks of their own; no video byte passes through here.

mod apply;
mod dial;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use astral_proto::ids::{StreamId, TicketId};
use astral_proto::overlay::{ConnId, Description, DialId, Event, Overlay, Progress, Time};
use astral_proto::record::{Address, SignedStream};
use astral_proto::wire::control::Fetch;
use astral_proto::wire::heartbeat::Supply;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::lock::lock;
use crate::store::StreamStore;
use crate::transport::Prober;
use crate::transport::connection::{Intake, Link};
use crate::uplink::Uplink;

/// Events that wait for the driver. It handles some 10⁵ a second; peers that
/// fill it are slowed down by their own connections' tasks waiting.
const INBOX: usize = 4096;
/// Events handled before timers get their turn.
const BATCH: usize = 256;
/// How often the overlay hears how far the stores are.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// And how fresh that is when a timer runs out: a timer judges parents by it.
const PROGRESS_FRESH: Duration = Duration::from_millis(10);
/// An encoder that has sent nothing for this long is no source for now.
const SILENT_AFTER: Duration = Duration::from_millis(400);

type Inspect = Box<dyn FnOnce(&Overlay, Time) + Send>;

enum Input {
    Event(Box<Event>, String),
    Connected {
        conn: quinn::Connection,
        dial: Option<DialId>,
    },
    Inspect(Inspect),
}

/// Where events for the driver go.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: mpsc::Sender<Input>,
}

impl Inbox {
    /// Hands an event over, with the words for the log that belong to it.
    pub(crate) async fn event(&self, event: Event, words: String) {
        // A driver that is gone needs no events.
        let _ = self.sender.send(Input::Event(Box::new(event), words)).await;
    }

    /// Hands a connection over whose handshake is done.
    pub(crate) async fn connected(&self, conn: quinn::Connection, dial: Option<DialId>) {
        let _ = self.sender.send(Input::Connected { conn, dial }).await;
    }

    /// Looks at the overlay; `None` if the driver has ended.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Overlay, Time) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let inspect: Inspect = Box::new(move |overlay, now| {
            // Whoever asked may have gone.
            let _ = answer.send(look(overlay, now));
        });
        self.sender.send(Input::Inspect(inspect)).await.ok()?;
        answered.await.ok()
    }
}

/// The stores of all streams that are held, shared with the HTTP side.
#[derive(Default)]
pub(crate) struct Stores {
    by_id: Mutex<HashMap<StreamId, Arc<StreamStore>>>,
}

impl Stores {
    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<StreamStore>>> {
        lock(&self.by_id)
    }

    /// The store of a stream, if one is kept.
    pub(crate) fn of(&self, id: StreamId) -> Option<Arc<StreamStore>> {
        self.lock().get(&id).cloned()
    }

    /// The store of a stream, made if there is none, told what its record says.
    pub(crate) fn open(&self, record: &SignedStream) -> Arc<StreamStore> {
        let value = record.value();
        let id = value.id();
        let store = self
            .lock()
            .entry(id)
            .or_insert_with(|| StreamStore::new(id, value.key))
            .clone();
        store.require_epoch(value.epoch);
        store.set_state(value.state);
        store
    }

    /// Keeps a store that was made elsewhere.
    pub(crate) fn insert(&self, store: Arc<StreamStore>) {
        self.lock().insert(store.id(), store);
    }

    pub(crate) fn remove(&self, id: StreamId) -> Option<Arc<StreamStore>> {
        self.lock().remove(&id)
    }

    /// Every store that is kept.
    pub(crate) fn all(&self) -> Vec<Arc<StreamStore>> {
        self.lock().values().cloned().collect()
    }
}

/// Bytes that went over a ticket, and when it was looked at last.
#[derive(Clone)]
pub(crate) enum Traffic {
    /// Sent by this node.
    Out(Arc<AtomicU64>),
    /// Taken in.
    In(Arc<Intake>),
}

/// Counters by ticket, for the API.
pub(crate) type TrafficTable = Arc<Mutex<HashMap<TicketId, Traffic>>>;

struct Route {
    task: AbortHandle,
    fetches: mpsc::Sender<Fetch>,
}

/// What the driver is made of.
pub(crate) struct Driver {
    overlay: Overlay,
    started: Instant,
    inputs: mpsc::Receiver<Input>,
    inbox: Inbox,
    endpoint: quinn::Endpoint,
    uplink: Arc<Uplink>,
    stores: Arc<Stores>,
    traffic: TrafficTable,
    links: HashMap<ConnId, Link>,
    routes: HashMap<(ConnId, TicketId), Route>,
    conn_count: u64,
    reported: Instant,
    /// Streams whose stores lacked frames at the last look.
    lacking: HashSet<StreamId>,
    tasks: JoinSet<()>,
    feeds: JoinSet<()>,
    changes: watch::Sender<u64>,
    left: watch::Sender<bool>,
    described: watch::Sender<Option<Description>>,
    prober: Prober,
}

/// What the rest of the node keeps of the driver.
pub(crate) struct Started {
    pub(crate) inbox: Inbox,
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) left: watch::Receiver<bool>,
    /// What the node's record is to say.
    pub(crate) described: watch::Receiver<Option<Description>>,
}

impl Driver {
    /// Makes the driver and the handles to it; run it with [`Driver::run`].
    pub(crate) fn new(
        make: impl FnOnce(Time) -> Overlay,
        endpoint: quinn::Endpoint,
        prober: Prober,
        uplink: Arc<Uplink>,
        stores: Arc<Stores>,
        traffic: TrafficTable,
    ) -> (Self, Started) {
        let (sender, inputs) = mpsc::channel(INBOX);
        let inbox = Inbox { sender };
        let changes = watch::Sender::new(0);
        let left = watch::Sender::new(false);
        let described = watch::Sender::new(None);
        let started = Started {
            inbox: inbox.clone(),
            changes: changes.subscribe(),
            left: left.subscribe(),
            described: described.subscribe(),
        };
        let driver = Self {
            overlay: make(Time(0)),
            started: Instant::now(),
            inputs,
            inbox,
            endpoint,
            uplink,
            stores,
            traffic,
            links: HashMap::new(),
            routes: HashMap::new(),
            conn_count: 0,
            reported: Instant::now(),
            lacking: HashSet::new(),
            tasks: JoinSet::new(),
            feeds: JoinSet::new(),
            changes,
            left,
            described,
            prober,
        };
        (driver, started)
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    /// Runs for as long as the node does.
    pub(crate) async fn run(mut self) {
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(BATCH);
        loop {
            let due = self.overlay.poll_timeout().map(|(at, _)| at);
            let timer = async {
                match due {
                    Some(at) => {
                        let at = self.started + Duration::from_micros(at.0);
                        tokio::time::sleep_until(at).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.inputs.recv_many(&mut inputs, BATCH) => if received == 0 { return },
                () = timer => {}
                _ = progress.tick() => self.report_progress(),
                Some(_) = self.tasks.join_next() => {}
                Some(_) = self.feeds.join_next() => {}
            }
            for input in inputs.drain(..) {
                self.take(input);
            }
            self.time_out();
        }
    }

    fn time_out(&mut self) {
        let now = self.now();
        if self.overlay.poll_timeout().is_none_or(|(at, _)| at > now) {
            return;
        }
        if self.reported.elapsed() >= PROGRESS_FRESH {
            self.report_progress();
        }
        let actions = self.overlay.handle_timeout(now);
        self.apply(actions);
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event, words) => {
                self.log(&event, &words);
                self.handle(*event);
            }
            Input::Connected { conn, dial } => self.connected(conn, dial),
            Input::Inspect(look) => look(&self.overlay, self.now()),
        }
    }

    fn handle(&mut self, event: Event) {
        let closed = if let Event::Closed { conn, .. } = &event {
            Some(*conn)
        } else {
            None
        };
        let now = self.now();
        let actions = self.overlay.handle(now, event);
        self.apply(actions);
        if let Some(conn) = closed {
            self.links.remove(&conn);
        }
    }

    fn connected(&mut self, conn: quinn::Connection, dial: Option<DialId>) {
        let Some(key) = crate::transport::peer_key(&conn) else {
            conn.close(
                (astral_proto::wire::CloseCode::Identity as u32).into(),
                b"no certificate",
            );
            return;
        };
        self.conn_count += 1;
        let id = ConnId(self.conn_count);
        let remote = Address::canonical(conn.remote_address());
        let rtt = conn.rtt();
        let link = Link::start(
            &mut self.tasks,
            id,
            conn,
            dial.is_some(),
            self.inbox.clone(),
            self.uplink.clone(),
        );
        self.links.insert(id, link);
        self.handle(Event::Connected {
            conn: id,
            key,
            remote,
            dial,
            rtt,
        });
    }

    fn time_of(&self, at: Option<Instant>) -> Time {
        let since = at.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(self.started)
        });
        Time(since.as_micros() as u64)
    }

    /// Tells the overlay what a store lacks, and once that it lacks nothing any more.
    fn report_holes(&mut self, store: &StreamStore) {
        let (stream, holes) = (store.id(), store.holes());
        let tells = if holes.is_empty() {
            self.lacking.remove(&stream)
        } else {
            self.lacking.insert(stream);
            true
        };
        if tells {
            self.handle(Event::Missing { stream, holes });
        }
    }

    /// Tells the overlay how far each store is.
    fn report_progress(&mut self) {
        self.reported = Instant::now();
        for store in self.stores.all() {
            let (newest, stats) = (store.newest(), store.stats());
            let progress = Progress {
                epoch: newest.epoch,
                newest: (newest.group, newest.frames),
                peak_bps: stats.peak_bps,
                last: self.time_of(stats.last_chunk_at),
                gap: stats.usual_gap,
                lost: stats.lost,
            };
            self.handle(Event::Progress {
                stream: store.id(),
                progress,
            });
            self.report_holes(&store);
            // Only what this node publishes listens to this.
            let silent = stats
                .last_chunk_at
                .is_none_or(|at| at.elapsed() > SILENT_AFTER);
            let supply = if silent { Supply::NoSource } else { Supply::Ok };
            self.handle(Event::Supply {
                stream: store.id(),
                supply,
            });
        }
    }
}
