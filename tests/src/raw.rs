//! Bytes as no client of good manners would send them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Sends bytes over TCP and gives back what came until the other side closed.
///
/// `None` if it had not closed in time.
pub async fn tcp(authority: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut socket = TcpStream::connect(authority)
        .await
        .expect("the port is open");
    // The other side may close while we still write.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    // A reset is a way to close, too.
    timeout(ANSWER_WITHIN, read).await.ok().map(|_| answer)
}

/// Sends one HTTP request as it stands; gives status and whole answer.
pub async fn http(authority: &str, request: &str) -> (u16, String) {
    let answer = tcp(authority, request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer.expect("the node answers")).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no HTTP answer to {request:?}: {answer:?}")),
        answer,
    )
}

/// Sends datagrams.
pub async fn udp(address: &str, datagrams: impl IntoIterator<Item = Vec<u8>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for datagram in datagrams {
        socket
            .send_to(&datagram, address)
            .await
            .expect("loopback takes it");
        tokio::task::yield_now().await;
    }
}

/// Bytes without meaning that are the same in every run (SplitMix64).
pub struct Noise(pub u64);

impl Noise {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::from_fn(|| Some(self.number().to_le_bytes()));
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}
