//! The one UDP socket of a node, client and server at once.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use astral_proto::ids::{SecretKey, sha256};
use astral_proto::limits::CONNECTIONS_MAX;
use aws_lc_rs::hmac;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{
    ClientConfig, ConnectError, Connecting, Connection, ConnectionError, ConnectionId,
    ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, Runtime as _,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Prober;
use super::socket::ShapedSocket;
use super::tls::{Identity, SERVER_NAME};
use super::tolerant::TolerantConfig;
use crate::config::{Config, Congestion, PORT};
use crate::uplink::Uplink;

/// Bytes asked of the kernel for each direction: with its default, a burst of 50 streams
/// to one socket lost 32 % of its packets (measured on loopback).
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Round trip assumed before the first is measured: quinn's 333 ms makes a lost first
/// packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(80);
/// Silence after which a connection is gone. Only a backstop: heartbeats notice within
/// 1,125 ms between parents and children.
const IDLE_TIMEOUT_MS: u32 = 10_000;
/// Silence after which a connection shows that it lives: three times before the peer
/// would give it up, and often enough for the shortest NAT timers (RFC 4787: 120 s).
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bidirectional streams that a peer may have open: control.
const BIDI_STREAMS_MAX: u32 = 1;
/// Unidirectional streams that a peer may have open before it holds any ticket of ours:
/// raised with the tickets. A stream is one group of one track.
pub(crate) const UNI_STREAMS_MAX: u32 = 32;
/// Bytes that a peer may have in flight to us on one stream: 100 Mbit/s at 160 ms.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes that a peer may have in flight to us on all streams of a connection.
const RECEIVE_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes written to a connection and not acknowledged: twice 50 Mbit/s at 160 ms. What
/// waits *unsent* is bounded far lower, by who writes.
const SEND_WINDOW_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes of datagrams (heartbeats) that wait, in each direction: some fifty.
const DATAGRAM_BUFFER_BYTES: usize = 64 * 1024;
/// Length of our connection ids: no two of a node are alike.
const CONNECTION_ID_BYTES: usize = 8;
/// One probe finds whether the usual 1,452 bytes pass; quinn's default takes four for 1,436,
/// which a node that many ask for a place pays for each of them, of the upload that feeds its
/// children. Where they do not pass (most tunnels), packets stay at 1,200.
const MTU_STEP: u16 = 130;
/// Incoming connections that wait to be looked at.
const INCOMING_MAX: usize = 256;
/// Bytes that may come for one of those before it is accepted: a few packets.
const INCOMING_BYTES_MAX: u64 = 16 * 1024;

/// Why a node has no endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The address is taken, not ours, or not allowed.
    #[error("udp {address}: {source}; give another with --quic")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error("the node's certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("tls could not be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It could not be begun.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// It took longer than 5 s.
    #[error("handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
}

/// Opens the node's endpoint, for both directions; returns it with its real address, and
/// what dials others back in its name.
///
/// # Errors
/// The address cannot be bound, or the key is refused.
pub(crate) fn bind(
    config: &Config,
    key: &SecretKey,
    uplink: Arc<Uplink>,
) -> Result<(Endpoint, SocketAddr, Prober), BindError> {
    let (socket, address) = open_socket(config.quic)?;
    let failed = |source| BindError::Socket { address, source };
    let socket = TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
    let socket = Arc::new(ShapedSocket::new(socket, uplink.clone()));
    let identity = Identity::new(key)?;
    let transport = Arc::new(transport(config.congestion));
    let mut endpoint = Endpoint::new_with_abstract_socket(
        endpoint_config(key),
        Some(server(&identity, &transport)?),
        socket,
        Arc::new(TokioRuntime),
    )
    .map_err(failed)?;
    let client = client(&identity, &transport)?;
    endpoint.set_default_client_config(client.clone());
    Ok((endpoint, address, Prober::new(client, uplink)))
}

/// With stateless resets (RFC 9000 §10.3) that survive a restart: their key comes from the
/// node's own, so that a peer of the process before is told at its next packet that the
/// connection is gone, and need not wait for [`IDLE_TIMEOUT_MS`].
fn endpoint_config(key: &SecretKey) -> EndpointConfig {
    let secret = sha256(&[&b"astral/1 stateless reset"[..], key.seed()].concat());
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
    config.cid_generator(|| Box::new(ConnectionIds));
    config
}

/// Random connection ids. quinn's own are marked with a key of the process, and those of
/// the process before would be dropped without a reset.
struct ConnectionIds;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        getrandom::fill(&mut id).expect("the node's keys were drawn from there, too");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Connects to `address`. The caller checks whom it has reached.
///
/// # Errors
/// Nobody there, no node there, or it took longer than 5 s.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<Connection, HandshakeError> {
    // An IPv4 socket refuses an IPv4 address in IPv6 dress; for an IPv6 socket quinn dresses it.
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    handshake(endpoint.connect(address, SERVER_NAME)?).await
}

/// Waits for the end of a handshake, in either direction.
///
/// # Errors
/// It failed, or took longer than 5 s.
pub(crate) async fn handshake(connecting: Connecting) -> Result<Connection, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting)
        .await
        .map_err(|_| HandshakeError::TimedOut)?
        .map_err(HandshakeError::from)
}

fn open_socket(wanted: Option<SocketAddr>) -> Result<(UdpSocket, SocketAddr), BindError> {
    let address = wanted.unwrap_or((Ipv6Addr::UNSPECIFIED, PORT).into());
    let opened = match udp_socket(address) {
        Err(error) if wanted.is_none() && has_no_ipv6(&error) => {
            udp_socket((Ipv4Addr::UNSPECIFIED, PORT).into())
        }
        opened => opened,
    };
    opened
        .and_then(|socket| {
            let real = socket.local_addr()?;
            Ok((socket, real))
        })
        .map_err(|source| BindError::Socket { address, source })
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 in, too, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    for set in [Socket::set_recv_buffer_size, Socket::set_send_buffer_size] {
        if let Err(error) = set(&socket, SOCKET_BUFFER_BYTES) {
            tracing::debug!(%error, "socket buffer not enlarged");
        }
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether the system has IPv6 switched off, in one of the ways it says so.
fn has_no_ipv6(error: &io::Error) -> bool {
    /// EAFNOSUPPORT, by platform.
    const NO_FAMILY: [i32; 3] = [97, 47, 10047];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.kind() == io::ErrorKind::Unsupported
        || error
            .raw_os_error()
            .is_some_and(|code| NO_FAMILY.contains(&code))
}

fn server(
    identity: &Identity,
    transport: &Arc<TransportConfig>,
) -> Result<ServerConfig, rustls::Error> {
    let mut server = ServerConfig::with_crypto(Arc::new(identity.server()?));
    server
        .transport_config(Arc::clone(transport))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * INCOMING_MAX as u64);
    Ok(server)
}

fn client(
    identity: &Identity,
    transport: &Arc<TransportConfig>,
) -> Result<ClientConfig, rustls::Error> {
    let mut client = ClientConfig::new(Arc::new(identity.client()?));
    client.transport_config(Arc::clone(transport));
    Ok(client)
}

fn transport(congestion: Congestion) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_STEP);
    transport
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(BIDI_STREAMS_MAX.into())
        .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(RECEIVE_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    match congestion {
        Congestion::Tolerant => transport.congestion_controller_factory(Arc::new(TolerantConfig)),
        Congestion::Cubic => {
            transport.congestion_controller_factory(Arc::new(CubicConfig::default()))
        }
        Congestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    transport
}

const _: () = assert!(INCOMING_MAX < CONNECTIONS_MAX, "the queue is the smaller");

#[cfg(test)]
mod tests;
