//! The catalog, its directory, and the thread between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use astral_proto::record::{SignedNode, SignedRecord, SignedStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::catalog::{Catalog, Entry, Kind, Mark, Refusal, Row, Table, Taken};
use crate::directory::{Change, Directory, Kept, KeptMark, KindOf};
use crate::history::History;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Submissions that wait to be kept; more wait at the sender, each in its own request.
const QUEUE: usize = 1024;
/// How often what could not be kept is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What was submitted, and who waits until it is kept.
type Order = (Vec<Change>, oneshot::Sender<()>);

/// What all requests share.
pub(crate) struct State {
    catalog: Mutex<Catalog>,
    history: Mutex<History>,
    keep: mpsc::Sender<Order>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

/// What a lock guards is whole after a panic too: every change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl State {
    /// Reads `directory`, and keeps in it what comes from now on.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn load(directory: impl Directory) -> anyhow::Result<Self> {
        let mut catalog = Catalog::default();
        for (kind, id, kept) in directory.load()? {
            match kind {
                KindOf::Node => restore(&mut catalog.nodes, id, kept),
                KindOf::Stream => restore(&mut catalog.streams, id, kept),
            }
        }
        // What comes from there is there.
        catalog.nodes.take_changed();
        catalog.streams.take_changed();
        catalog.expire(now_ms());
        info!(
            nodes = catalog.nodes.len(),
            streams = catalog.streams.len(),
            "the directory is read"
        );
        let metrics = Metrics::default();
        let failures = metrics.directory_failures();
        let (keep, orders) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("directory".to_owned())
            .spawn(move || {
                Keeper {
                    directory,
                    pending: BTreeMap::new(),
                    failures,
                    failed: None,
                }
                .run(orders);
            })?;
        Ok(Self {
            catalog: Mutex::new(catalog),
            history: Mutex::default(),
            keep,
            limits: Limits::default(),
            metrics,
        })
    }

    /// The catalog as it is now.
    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        let mut catalog = lock(&self.catalog);
        catalog.expire(now_ms());
        catalog
    }

    /// How many watched each stream lately.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// Takes in a node's record; it is kept when this returns.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) async fn submit_node(
        &self,
        record: SignedNode,
        ip: IpAddr,
    ) -> Result<Taken, Refusal> {
        let (taken, changes) = {
            let mut catalog = self.catalog();
            let taken = catalog.submit_node(record, ip, now_ms())?;
            (taken, changes(&mut catalog))
        };
        self.kept(changes).await;
        Ok(taken)
    }

    /// Takes in a stream's record; it is kept when this returns.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) async fn submit_stream(
        &self,
        record: SignedStream,
        ip: IpAddr,
    ) -> Result<Taken, Refusal> {
        let (id, viewers) = (record.value().id(), record.value().viewers.unwrap_or(0));
        let (taken, changes) = {
            let mut catalog = self.catalog();
            let taken = catalog.submit_stream(record, ip, now_ms())?;
            let mut history = self.history();
            match catalog.streams.row(id.0) {
                Some(_) => history.add(id, now_ms(), viewers),
                None => history.forget(id),
            }
            drop(history);
            (taken, changes(&mut catalog))
        };
        self.kept(changes).await;
        Ok(taken)
    }

    /// Waits until the changes are durable, or known not to become so for now: a full
    /// disk makes nothing vanish from the lists, which live for half a minute anyway.
    async fn kept(&self, changes: Vec<Change>) {
        let (done, kept) = oneshot::channel();
        if self.keep.send((changes, done)).await.is_ok() {
            let _ = kept.await;
        }
    }
}

/// What has changed since this was asked last, as it is to be kept.
fn changes(catalog: &mut Catalog) -> Vec<Change> {
    let nodes = catalog.nodes.take_changed();
    let streams = catalog.streams.take_changed();
    let mut changes = kept(&catalog.nodes, KindOf::Node, nodes);
    changes.extend(kept(&catalog.streams, KindOf::Stream, streams));
    changes
}

fn kept<T: Kind>(table: &Table<T>, kind: KindOf, changed: BTreeSet<Uuid>) -> Vec<Change> {
    let kept = |id| match table.entry(id) {
        Entry::Live(row) => Some(Kept {
            record: row.record.wire().to_vec(),
            since: row.since,
            renewed: row.renewed,
            expires: row.expires,
            prefix: row.prefix,
            mark: None,
        }),
        Entry::Gone(Mark {
            seq,
            since,
            name,
            until,
        }) => Some(Kept {
            record: Vec::new(),
            since,
            renewed: 0,
            expires: until,
            prefix: None,
            mark: Some(KeptMark { seq, name }),
        }),
        Entry::Unknown => None,
    };
    changed.into_iter().map(|id| (kind, id, kept(id))).collect()
}

fn restore<T: Kind>(table: &mut Table<T>, id: Uuid, kept: Kept) {
    if let Some(KeptMark { seq, name }) = kept.mark {
        let mark = Mark {
            seq,
            since: kept.since,
            name,
            until: kept.expires,
        };
        return table.mark(id, mark);
    }
    match SignedRecord::decode(&kept.record) {
        Ok(record) => table.insert(Row {
            record,
            since: kept.since,
            renewed: kept.renewed,
            expires: kept.expires,
            prefix: kept.prefix,
        }),
        Err(error) => warn!(%error, "a kept record is left out"),
    }
}

/// Writes what is ordered, as much at once as has come: one sync for many records.
struct Keeper<D> {
    directory: D,
    /// What is not kept yet; bounded as the tables are, since it goes by id.
    pending: BTreeMap<(KindOf, Uuid), Option<Kept>>,
    failures: prometheus_client::metrics::counter::Counter,
    /// When writing failed last, while it has not succeeded since.
    failed: Option<Instant>,
}

impl<D: Directory> Keeper<D> {
    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some((changes, done)) = orders.blocking_recv() {
            let mut waiting = vec![done];
            self.add(changes);
            while waiting.len() < QUEUE
                && let Ok((changes, done)) = orders.try_recv()
            {
                self.add(changes);
                waiting.push(done);
            }
            // Nodes renew each few seconds, so an order comes soon after the pause.
            if self.failed.is_none_or(|at| at.elapsed() >= RETRY) {
                self.write();
            }
            for done in waiting {
                // Whoever does not wait any more has gone.
                let _ = done.send(());
            }
        }
    }

    fn add(&mut self, changes: Vec<Change>) {
        let changes = changes.into_iter();
        self.pending
            .extend(changes.map(|(kind, id, kept)| ((kind, id), kept)));
    }

    fn write(&mut self) {
        let changes = std::mem::take(&mut self.pending);
        match self.directory.keep(&changes) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    info!("the directory can be written again");
                }
            }
            Err(error) => {
                if self.failed.is_none() {
                    error!(
                        error = format!("{error:#}"),
                        "the directory cannot be written: records are listed, but forgotten at a \
                         restart; is the disk full?"
                    );
                }
                self.failures.inc();
                self.failed = Some(Instant::now());
                self.pending = changes;
            }
        }
    }
}
