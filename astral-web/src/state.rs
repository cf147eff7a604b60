//! The catalog, its directory, and the thread between them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use astral_proto::record::{SignedNode, SignedRecord, SignedStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};
use uuid::Uuid;

use crate::catalog::{Catalog, Kind, Refusal, Row, Table, Taken};
use crate::directory::{Change, Directory, Kept, KindOf};

/// Submissions that wait to be kept; more wait at the sender, each in its own request.
const QUEUE: usize = 1024;
/// Refused submissions that one address may make in [`WINDOW`].
const FAILURES_MAX: u32 = 30;
/// The same for loopback, which all nodes of a machine share.
const FAILURES_MAX_LOOPBACK: u32 = 300;
/// How long failures are counted.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose failures are counted; the rest are counted together.
const OFFENDERS_MAX: usize = 10_000;

type Order = (Vec<Change>, oneshot::Sender<bool>);

/// What all requests share.
pub(crate) struct State {
    catalog: Mutex<Catalog>,
    keep: mpsc::Sender<Order>,
    failures: Mutex<BTreeMap<IpAddr, (u32, Instant)>>,
}

/// Why a verified record is not taken.
pub(crate) enum Failed {
    Refused(Refusal),
    NotKept,
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        for (kind, kept) in directory.load()? {
            match kind {
                KindOf::Node => restore(&mut catalog.nodes, kept),
                KindOf::Stream => restore(&mut catalog.streams, kept),
            }
        }
        let (keep, orders) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("directory".to_owned())
            .spawn(move || write(directory, orders))?;
        Ok(Self {
            catalog: Mutex::new(catalog),
            keep,
            failures: Mutex::default(),
        })
    }

    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }

    /// Takes in a node's record, and keeps it.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn submit_node(
        &self,
        record: SignedNode,
        ip: IpAddr,
    ) -> Result<Taken, Failed> {
        let id = record.value().id().0;
        let (taken, changes) = {
            let mut catalog = self.catalog();
            let (taken, gone) = catalog
                .submit_node(record, ip, now_ms())
                .map_err(Failed::Refused)?;
            (taken, changes(&catalog.nodes, KindOf::Node, id, gone))
        };
        self.kept(changes).await.map(|()| taken)
    }

    /// Takes in a stream's record, and keeps it.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn submit_stream(
        &self,
        record: SignedStream,
        ip: IpAddr,
    ) -> Result<Taken, Failed> {
        let id = record.value().id().0;
        let (taken, changes) = {
            let mut catalog = self.catalog();
            let (taken, gone) = catalog
                .submit_stream(record, ip, now_ms())
                .map_err(Failed::Refused)?;
            (taken, changes(&catalog.streams, KindOf::Stream, id, gone))
        };
        self.kept(changes).await.map(|()| taken)
    }

    async fn kept(&self, changes: Vec<Change>) -> Result<(), Failed> {
        let (done, kept) = oneshot::channel();
        self.keep
            .send((changes, done))
            .await
            .map_err(|_| Failed::NotKept)?;
        match kept.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Failed::NotKept),
        }
    }

    /// Whether this address has failed too often lately.
    pub(crate) fn is_barred(&self, ip: IpAddr) -> bool {
        let most = if ip.is_loopback() {
            FAILURES_MAX_LOOPBACK
        } else {
            FAILURES_MAX
        };
        let failures = lock(&self.failures);
        let count = failures.get(&offender(ip, failures.len()));
        count.is_some_and(|(count, since)| *count >= most && since.elapsed() < WINDOW)
    }

    /// Counts a refused submission.
    pub(crate) fn failed(&self, ip: IpAddr) {
        let mut failures = lock(&self.failures);
        if failures.len() >= OFFENDERS_MAX {
            failures.retain(|_, (_, since)| since.elapsed() < WINDOW);
        }
        let who = if failures.contains_key(&subject(ip)) {
            subject(ip)
        } else {
            offender(ip, failures.len())
        };
        let entry = failures.entry(who).or_insert((0, Instant::now()));
        if entry.1.elapsed() >= WINDOW {
            *entry = (0, Instant::now());
        }
        entry.0 = entry.0.saturating_add(1);
    }
}

/// One customer of a provider has a whole /64 of IPv6.
fn subject(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => ip,
    }
}

fn offender(ip: IpAddr, counted: usize) -> IpAddr {
    if counted >= OFFENDERS_MAX {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    } else {
        subject(ip)
    }
}

fn changes<T: Kind>(table: &Table<T>, kind: KindOf, id: Uuid, gone: Vec<Uuid>) -> Vec<Change> {
    let mut changes: Vec<Change> = gone.into_iter().map(|id| (kind, id, None)).collect();
    let kept = table.row(id).map(|row| Kept {
        record: row.record.wire().to_vec(),
        since: row.since,
        renewed: row.renewed,
        expires: row.expires,
        prefix: row.prefix,
    });
    changes.push((kind, id, kept));
    changes
}

fn restore<T: Kind>(table: &mut Table<T>, kept: Kept) {
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

/// Keeps what is ordered, as much at once as has come: one sync for many records.
fn write(mut directory: impl Directory, mut orders: mpsc::Receiver<Order>) {
    while let Some((mut changes, done)) = orders.blocking_recv() {
        let mut waiting = vec![done];
        while waiting.len() < QUEUE
            && let Ok((more, done)) = orders.try_recv()
        {
            changes.extend(more);
            waiting.push(done);
        }
        let kept = directory.keep(&changes);
        if let Err(error) = &kept {
            error!(%error, "the directory cannot be written");
        }
        for done in waiting {
            // Whoever does not wait any more has gone.
            let _ = done.send(kept.is_ok());
        }
    }
}
