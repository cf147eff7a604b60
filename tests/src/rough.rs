//! A rough link: a UDP proxy that delays, loses, limits and cuts, each way for itself.
//!
//! In user space, so that it needs no rights and runs in CI. Datagrams pass one by one,
//! as they would on a real link (across a virtual one, a batch is one packet: one loss
//! would take ten).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Datagrams on their way at a time: 250 ms of 50 Mbit/s.
const IN_FLIGHT_MAX: usize = 2_000;
/// Most that waits before a link with a rate, as time at that rate: more is dropped.
const QUEUE: Duration = Duration::from_millis(200);

/// One way of a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Datagrams of a thousand that are lost.
    pub loss_permille: u32,
    /// Time that each takes; their order stays.
    pub delay: Duration,
    /// Most that passes, in bit/s.
    pub rate_bps: Option<u64>,
}

impl Way {
    /// Loses everything.
    pub const CUT: Self = Self {
        loss_permille: 1_000,
        delay: Duration::ZERO,
        rate_bps: None,
    };

    /// Loses so many of a thousand, and takes so long.
    pub fn rough(loss_permille: u32, delay: Duration) -> Self {
        Self {
            loss_permille,
            delay,
            rate_bps: None,
        }
    }
}

/// How a link is at the moment.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    to_node: Way,
    to_caller: Way,
}

/// Stands before a node: whoever dials it gets through to the node, as far as it lets.
pub struct RoughLink {
    /// Where to dial.
    pub address: SocketAddr,
    link: Arc<Mutex<Link>>,
    task: JoinHandle<()>,
}

impl Drop for RoughLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RoughLink {
    /// A link without faults to a node at this address.
    pub async fn before(node: &str) -> Self {
        let node: SocketAddr = node.parse().expect("an address");
        let door = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = door.local_addr().expect("bound");
        let link = Arc::new(Mutex::new(Link::default()));
        let task = tokio::spawn(serve(Arc::new(door), node, link.clone()));
        Self {
            address,
            link,
            task,
        }
    }

    /// How what the callers send gets to the node from now on.
    pub fn to_node(&self, way: Way) {
        self.lock().to_node = way;
    }

    /// How what the node sends gets to its callers.
    pub fn to_caller(&self, way: Way) {
        self.lock().to_caller = way;
    }

    /// The same both ways.
    pub fn both(&self, way: Way) {
        *self.lock() = Link {
            to_node: way,
            to_caller: way,
        };
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().expect("no panic")
    }
}

/// What datagrams of one way go through.
struct Lane {
    link: Arc<Mutex<Link>>,
    of: fn(&Link) -> Way,
    random: u64,
    free_at: Instant,
    queue: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Lane {
    fn new(
        link: Arc<Mutex<Link>>,
        of: fn(&Link) -> Way,
        queue: mpsc::Sender<(Instant, Vec<u8>)>,
        seed: u64,
    ) -> Self {
        Self {
            link,
            of,
            random: seed * 2 + 1,
            free_at: Instant::now(),
            queue,
        }
    }

    fn take(&mut self, datagram: &[u8]) {
        let way = (self.of)(&self.link.lock().expect("no panic"));
        // xorshift64: good enough for dice, and the same in every run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.random % 1_000 < u64::from(way.loss_permille) {
            return;
        }
        let now = Instant::now();
        if let Some(rate_bps) = way.rate_bps {
            let free_at = self.free_at.max(now);
            if free_at > now + QUEUE {
                return;
            }
            let takes = datagram.len() as f64 * 8.0 / rate_bps as f64;
            self.free_at = free_at + Duration::from_secs_f64(takes);
        } else {
            self.free_at = now;
        }
        // A lane that is full loses, as a link does.
        let _ = self
            .queue
            .try_send((self.free_at + way.delay, datagram.to_vec()));
    }
}

async fn serve(door: Arc<UdpSocket>, node: SocketAddr, link: Arc<Mutex<Link>>) {
    let mut callers: HashMap<SocketAddr, Lane> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok((len, caller)) = door.recv_from(&mut datagram).await else {
            continue;
        };
        if !callers.contains_key(&caller) {
            let seed = callers.len() as u64 * 2 + 7;
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            socket.connect(node).await.expect("loopback");
            let socket = Arc::new(socket);
            let (there, to_node) = mpsc::channel(IN_FLIGHT_MAX);
            let (back, to_caller) = mpsc::channel(IN_FLIGHT_MAX);
            tasks.spawn(deliver(to_node, socket.clone(), None));
            tasks.spawn(deliver(to_caller, door.clone(), Some(caller)));
            let lane = Lane::new(link.clone(), |link| link.to_caller, back, seed + 1);
            tasks.spawn(listen(socket, lane));
            let lane = Lane::new(link.clone(), |link| link.to_node, there, seed);
            callers.insert(caller, lane);
        }
        if let Some(lane) = callers.get_mut(&caller) {
            lane.take(&datagram[..len]);
        }
    }
}

async fn listen(from: Arc<UdpSocket>, mut lane: Lane) {
    let mut datagram = vec![0; 65_536];
    loop {
        if let Ok(len) = from.recv(&mut datagram).await {
            lane.take(&datagram[..len]);
        }
    }
}

async fn deliver(
    mut queue: mpsc::Receiver<(Instant, Vec<u8>)>,
    by: Arc<UdpSocket>,
    to: Option<SocketAddr>,
) {
    while let Some((due, datagram)) = queue.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let _ = match to {
            Some(to) => by.send_to(&datagram, to).await,
            None => by.send(&datagram).await,
        };
    }
}
