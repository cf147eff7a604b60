//! A node: everything started, wired up, and ended in good order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use astral_proto::api::Ready;
use astral_proto::ids::{NodeId, SecretKey};
use astral_proto::link::PeerAddress;
use astral_proto::overlay::{self, Event, Overlay, Target};
use astral_proto::record::{Address, NodeRecord, Role, SignedNode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::bootstrap::Identity;
use crate::config::{AcceptSeeds, Config, LiveSettings, Supernode, UpstreamLimit};
use crate::driver::{Driver, Started, Stores, TrafficTable};
use crate::handle::{Handle, Inner};
use crate::ingest::Registry;
use crate::ready::{ReadyFiles, token};
use crate::storage::Storage;
use crate::transport::endpoint::HandshakeError;
use crate::transport::{Admission, Gatekeeper};
use crate::uplink::Uplink;
use crate::{bootstrap, http, ingest, logging, transport, whereabouts};

/// Upload limit while none is given and none is learnt, in bit/s.
pub(crate) const UPLOAD_START_BPS: u64 = 8_000_000;
/// The first bootstrap round counts as done after this at the latest.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// A node that leaves in good order is gone within this; then it just goes.
const LEAVE_WITHIN: Duration = Duration::from_millis(3_200);
/// Time for the last words on every connection.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// HTTP requests that run get this long to end.
const HTTP_WITHIN: Duration = Duration::from_millis(500);

/// Unix time in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as u64
}

/// 32 bytes from the operating system's generator.
///
/// # Errors
/// If it has none, which leaves nothing to go on with.
pub(crate) fn random_seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(seed)
}

/// A node that listens, but does not run yet.
pub struct Node {
    handle: Handle,
    driver: Driver,
    started: Started,
    endpoint: quinn::Endpoint,
    http: TcpListener,
    rtmp: Option<TcpListener>,
    ready_files: ReadyFiles,
    trust: Arc<rustls::ClientConfig>,
}

impl Node {
    /// Opens the data folder, binds every listener and writes the ready file.
    ///
    /// # Errors
    /// What is in the way: the data folder, an address that is taken.
    pub async fn load(config: Config) -> anyhow::Result<Self> {
        let trust = bootstrap::trust(config.web_ca.as_deref(), &config.web)?;
        let storage = Storage::open(&config.data_dir)?;
        let settings = LiveSettings::new(config, storage.settings()?);
        let config = settings.now();
        logging::set_verbosity(config.verbosity);
        let key = storage.node_key()?;
        let id = config.uuid.unwrap_or_else(|| NodeId::of(&key.public()));
        let limit = limit_of(config.upstream_limit);
        let uplink = Arc::new(Uplink::new(limit));
        let (endpoint, quic, prober) = transport::endpoint::bind(&config, &key, uplink.clone())?;
        let http = TcpListener::bind(config.http)
            .await
            .with_context(|| format!("HTTP address {}", config.http))?;
        let rtmp = bind_rtmp(&config).await?;
        let addresses = Addresses {
            http: http.local_addr()?,
            quic,
            rtmp: rtmp.as_ref().map(TcpListener::local_addr).transpose()?,
        };
        let ready = Ready {
            pid: std::process::id(),
            uuid: id,
            http: addresses.http.to_string(),
            quic: quic.to_string(),
            rtmp: addresses.rtmp.map(|rtmp| rtmp.to_string()),
            token: token()?,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let record = node_record(&config, &key, &storage, quic)?;
        let identity = Arc::new(Identity::new(key, storage.clone(), record.value().clone()));
        let overlay_config = overlay::Config {
            id,
            record,
            upload_limit_bps: limit,
            contributes: true,
            seed: u64::from_le_bytes(random_seed()?[..8].try_into()?),
        };
        let (stores, traffic) = (Arc::new(Stores::default()), TrafficTable::default());
        let (driver, started) = Driver::new(
            |now| Overlay::new(now, overlay_config),
            endpoint.clone(),
            prober,
            uplink.clone(),
            stores.clone(),
            traffic.clone(),
        );
        let registry = Registry::durable(storage.clone());
        let handle = Handle::new(Inner {
            id,
            ready: ready.clone(),
            guard: token()?,
            addresses,
            identity,
            settings,
            storage,
            registry,
            uplink,
            stores,
            traffic,
            inbox: started.inbox.clone(),
            changes: started.changes.clone(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            state: Default::default(),
        });
        let config = handle.config();
        let ready_files =
            ReadyFiles::write(&config.data_dir, config.ready_file.as_deref(), &ready)?;
        Ok(Self {
            handle,
            driver,
            started,
            endpoint,
            http,
            rtmp,
            ready_files,
            trust,
        })
    }

    /// The node's handle, as its HTTP API uses it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown` completes or the API is told to end, then leaves in
    /// good order within 5 s.
    ///
    /// # Errors
    /// If the streams in the data folder cannot be read.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let handle = self.handle;
        let inner = handle.inner();
        let stop = inner.shutdown.clone();
        let tasks = inner.tasks.clone();
        for (what, address) in [
            ("http", Some(inner.addresses.http)),
            ("quic", Some(inner.addresses.quic)),
            ("rtmp", inner.addresses.rtmp),
        ] {
            if let Some(address) = address {
                info!(%address, "listening: {what}");
            }
        }
        let mut driver = tokio::spawn(self.driver.run());
        tasks.spawn(accept(self.endpoint.clone(), handle.clone()));
        handle.restore_streams()?;
        handle.bootstrap();
        handle.resume().await;
        let described = self.started.described.clone();
        let rounds = bootstrap::start(&handle, described, &self.trust);
        tasks.spawn(became_ready(handle.clone(), rounds));
        tasks.spawn(whereabouts::watch(handle.clone()));
        if let Some(rtmp) = self.rtmp {
            tasks.spawn(ingest::rtmp::serve(
                rtmp,
                inner.registry.clone(),
                stop.clone(),
            ));
        }
        let serving = tokio::spawn(http::serve(self.http, handle.clone(), stop.clone()));
        tokio::select! {
            () = shutdown => {}
            () = stop.cancelled() => {}
            ended = &mut driver => {
                ended.context("the driver has failed")?;
                anyhow::bail!("the driver has ended");
            }
        }
        info!("leaving: children move first");
        leave(&handle, self.started).await;
        stop.cancel();
        let _ = tokio::time::timeout(HTTP_WITHIN, serving).await;
        self.endpoint.close(
            (astral_proto::wire::CloseCode::Leaving as u32).into(),
            b"shutdown",
        );
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.endpoint.wait_idle()).await;
        driver.abort();
        tasks.close();
        let _ = tokio::time::timeout(CLOSE_WITHIN, tasks.wait()).await;
        drop(self.ready_files);
        info!("gone");
        Ok(())
    }
}

async fn leave(handle: &Handle, mut started: Started) {
    let inbox = &handle.inner().inbox;
    let leaving = async {
        inbox.event(Event::Leave, String::new()).await;
        // The driver's end says as much.
        let _ = started.left.wait_for(|left| *left).await;
    };
    let _ = tokio::time::timeout(LEAVE_WITHIN, leaving).await;
}

async fn became_ready(handle: Handle, mut rounds: watch::Receiver<usize>) {
    let consent = consent_of(handle.config().accept_seeds);
    let event = Event::Consent { consent };
    handle.inner().inbox.event(event, String::new()).await;
    let webs = handle.config().web.len();
    let first_round = async {
        loop {
            let tried = handle
                .inner()
                .inbox
                .inspect(|overlay, _| overlay.has_bootstrapped())
                .await;
            if tried != Some(false) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // An end of the tasks is an end of waiting too.
        let _ = rounds.wait_for(|done| *done >= webs).await;
    };
    let _ = tokio::time::timeout(READY_WITHIN, first_round).await;
    handle.set_ready();
    let mode = mode_of(handle.config().supernode);
    let event = Event::Supernodes { mode };
    handle.inner().inbox.event(event, String::new()).await;
}

/// Takes in connections: handshakes run apart, so that none holds up another.
async fn accept(endpoint: quinn::Endpoint, handle: Handle) {
    let stop = handle.inner().shutdown.clone();
    let gatekeeper = Gatekeeper::default();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = stop.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        match gatekeeper.admit(&incoming) {
            Admission::Accept(mut place) => {
                let inbox = handle.inner().inbox.clone();
                handle.inner().tasks.spawn(async move {
                    match shake_hands(incoming).await {
                        Ok(conn) => {
                            place.established();
                            inbox.connected(conn.clone(), None).await;
                            conn.closed().await;
                        }
                        Err(error) => debug!(%error, "handshake refused"),
                    }
                });
            }
            // It cannot be asked again for an address that it has proved.
            Admission::Retry => drop(incoming.retry()),
            Admission::Refuse => incoming.refuse(),
        }
    }
}

async fn shake_hands(incoming: quinn::Incoming) -> Result<quinn::Connection, HandshakeError> {
    transport::endpoint::handshake(incoming.accept()?).await
}

/// Addresses that the node listens on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) rtmp: Option<SocketAddr>,
}

pub(crate) fn mode_of(supernode: Supernode) -> overlay::Mode {
    match supernode {
        Supernode::Auto => overlay::Mode::Auto,
        Supernode::Always => overlay::Mode::Always,
        Supernode::Never => overlay::Mode::Never,
    }
}

pub(crate) fn consent_of(accept: AcceptSeeds) -> overlay::Consent {
    match accept {
        AcceptSeeds::Auto => overlay::Consent::Auto,
        AcceptSeeds::Always => overlay::Consent::Always,
        AcceptSeeds::Never => overlay::Consent::Never,
    }
}

pub(crate) fn limit_of(limit: UpstreamLimit) -> Option<u64> {
    match limit {
        UpstreamLimit::Bps(bps) => Some(bps),
        UpstreamLimit::Unlimited => None,
        UpstreamLimit::Learnt => Some(UPLOAD_START_BPS),
    }
}

async fn bind_rtmp(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.rtmp else {
        return Ok(None);
    };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.rtmp_required => {
            Err(error).with_context(|| format!("RTMP address {address}"))
        }
        Err(error) => {
            warn!(%address, %error, "no RTMP: the address is taken; --rtmp chooses another");
            Ok(None)
        }
    }
}

fn node_record(
    config: &Config,
    key: &SecretKey,
    storage: &Storage,
    quic: SocketAddr,
) -> anyhow::Result<SignedNode> {
    let seq = unix_ms().max(storage.record_seq()?.saturating_add(1));
    // The clock alone makes it rise from one start to the next.
    if let Err(error) = storage.raise_record_seq(seq) {
        debug!(%error, "the number of the node's record could not be stored");
    }
    let record = NodeRecord {
        key: key.public(),
        seq,
        addresses: own_addresses(config, quic),
        role: Role::Node,
        alias: config.uuid,
        name: config.name.clone(),
        software: Some(format!("astral-node {}", env!("CARGO_PKG_VERSION"))),
        public_http: config.public_http.clone(),
        removed: None,
        load: None,
    };
    Ok(SignedNode::sign(record, key))
}

/// Where the node says it is: what it was told to say, what it is bound to, and
/// the address that its own packets leave from.
pub(crate) fn own_addresses(config: &Config, quic: SocketAddr) -> Vec<Address> {
    let told = config.advertise.iter().filter_map(|text| text.parse().ok());
    let bound: Vec<SocketAddr> = if quic.ip().is_unspecified() {
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), quic.port());
        outward_ip()
            .map(|ip| SocketAddr::new(ip, quic.port()))
            .into_iter()
            .chain([local])
            .collect()
    } else {
        vec![quic]
    };
    let mut addresses: Vec<Address> = told.chain(bound).map(Address::canonical).collect();
    addresses.dedup();
    addresses.truncate(astral_proto::limits::ADDRESSES_MAX);
    addresses
}

/// The source address that the routing table gives packets to the outside; no
/// packet is sent (192.0.2.0/24 is for documentation, RFC 5737).
fn outward_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// Whom to dial for a peer of the settings or a share link.
pub(crate) fn targets(peer: &PeerAddress) -> Vec<Target> {
    match peer {
        PeerAddress::Node { node, address } => {
            vec![Target {
                node: *node,
                addresses: vec![address.clone()],
            }]
        }
        PeerAddress::Link(link) => link
            .addresses
            .iter()
            .map(|address| Target {
                node: None,
                addresses: vec![address.clone()],
            })
            .collect(),
    }
}
