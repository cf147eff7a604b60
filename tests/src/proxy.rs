//! A UDP proxy that counts: what a node sends, to the byte and the millisecond.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

/// Stands before a node: whoever dials the proxy gets through to it.
pub struct CountingProxy {
    /// Where to dial.
    pub address: SocketAddr,
    sent: Arc<Mutex<Vec<(Instant, usize)>>>,
    task: JoinHandle<()>,
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CountingProxy {
    /// Passes everything on to `node`, and what it answers back.
    pub async fn before(node: &str) -> Self {
        let node: SocketAddr = node.parse().expect("an address");
        let door = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = door.local_addr().expect("bound");
        let sent = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(Arc::new(door), node, sent.clone()));
        Self {
            address,
            sent,
            task,
        }
    }

    /// Bytes that the node sent in each window of `width`, sliding by a tenth of it,
    /// from now back over `span`.
    pub fn windows(&self, width: Duration, span: Duration) -> Vec<usize> {
        let end = Instant::now();
        let sent = self.sent.lock().expect("no panic").clone();
        let steps = (span - width).as_millis() / (width.as_millis() / 10);
        let window = |step: u32| {
            let to = end - width / 10 * step;
            let from = to - width;
            let within = sent.iter().filter(|(at, _)| *at > from && *at <= to);
            within.map(|(_, bytes)| bytes).sum()
        };
        (0..=steps as u32).map(window).collect()
    }
}

async fn serve(door: Arc<UdpSocket>, node: SocketAddr, sent: Arc<Mutex<Vec<(Instant, usize)>>>) {
    let mut callers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut ways_back = JoinSet::new();
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok((len, caller)) = door.recv_from(&mut datagram).await else {
            continue;
        };
        let way = match callers.entry(caller) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
                socket.connect(node).await.expect("loopback");
                let socket = Arc::new(socket);
                ways_back.spawn(back(socket.clone(), door.clone(), caller, sent.clone()));
                new.insert(socket)
            }
        };
        let _ = way.send(&datagram[..len]).await;
    }
}

async fn back(
    from: Arc<UdpSocket>,
    door: Arc<UdpSocket>,
    caller: SocketAddr,
    sent: Arc<Mutex<Vec<(Instant, usize)>>>,
) {
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok(len) = from.recv(&mut datagram).await else {
            continue;
        };
        sent.lock().expect("no panic").push((Instant::now(), len));
        let _ = door.send_to(&datagram[..len], caller).await;
    }
}
