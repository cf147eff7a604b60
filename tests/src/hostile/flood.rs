//! Handshakes that are begun and never finished.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{EndpointConfig, TransportConfig};

use super::identity::Identity;
use super::link::socket;

/// Datagrams between two rests, so that the receiver's socket does not overflow.
const BURST: usize = 50;

/// Sends the first datagram of `count` handshakes to `to`, and answers nothing.
///
/// Each is a whole QUIC Initial packet with a ClientHello, of a connection of its own.
pub async fn half_open(to: SocketAddr, count: usize) {
    let socket = socket();
    socket.set_nonblocking(true).expect("a socket");
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a socket");
    let mut config = Identity::new(0x77).client();
    config.transport_config(Arc::new(TransportConfig::default()));
    let now = std::time::Instant::now();
    for begun in 0..count {
        // An endpoint of its own each time, so that none of them is remembered.
        let mut endpoint =
            quinn_proto::Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let connected = endpoint.connect(now, config.clone(), to, "astral");
        let (_, mut conn) = connected.expect("a connection");
        let mut datagram = Vec::new();
        let transmit = conn.poll_transmit(now, 1, &mut datagram);
        let size = transmit.expect("a first datagram").size;
        socket
            .send_to(&datagram[..size], to)
            .await
            .expect("loopback takes it");
        if begun % BURST == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
