//! An endpoint of its own, and connections on which `Hello` has been said.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use astral_proto::ids::NodeId;
use astral_proto::record::{Address, NodeRecord, Role, SignedNode};
use astral_proto::wire::VERSION;
use astral_proto::wire::control::{Hello, Message, RecordBytes};
use astral_proto::wire::heartbeat::Heartbeat;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::identity::{Identity, peer_key};

/// Heartbeats between two that share a ticket (WIRE.md §3).
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for a handshake, a `Hello` or an answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Buffers of the UDP socket: the kernel's default loses packets of 50 streams.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Why there is no connection, or no more of one.
#[derive(Debug)]
pub enum LinkError {
    /// The connection failed, or was closed by the other side.
    Connection(quinn::ConnectionError),
    /// Anything else, in words.
    Other(String),
}

impl LinkError {
    /// The application's close code and words, if the peer closed with any.
    pub fn close(&self) -> Option<(u64, String)> {
        match self {
            Self::Connection(error) => close_of(error),
            Self::Other(_) => None,
        }
    }
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl From<quinn::ConnectionError> for LinkError {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Connection(error)
    }
}

fn other(words: impl std::fmt::Display) -> LinkError {
    LinkError::Other(words.to_string())
}

/// Code and words with which the peer closed a connection.
pub fn close_of(error: &quinn::ConnectionError) -> Option<(u64, String)> {
    let quinn::ConnectionError::ApplicationClosed(close) = error else {
        return None;
    };
    let words = String::from_utf8_lossy(&close.reason).into_owned();
    Some((close.error_code.into_inner(), words))
}

/// Unix time in nanoseconds.
pub fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64
}

/// A UDP socket with large buffers on a free port of 127.0.0.1.
pub fn socket() -> std::net::UdpSocket {
    let kind = (socket2::Domain::IPV4, socket2::Type::DGRAM);
    let socket = socket2::Socket::new(kind.0, kind.1, None).expect("a socket");
    socket
        .set_recv_buffer_size(SOCKET_BUFFER)
        .expect("a buffer");
    socket
        .set_send_buffer_size(SOCKET_BUFFER)
        .expect("a buffer");
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(&any.into()).expect("a free port");
    socket.into()
}

/// The transport settings of a node, as WIRE.md §1 gives them.
pub fn transport() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(Duration::from_secs(10)).expect("a duration");
    transport
        .initial_rtt(Duration::from_millis(80))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(Duration::from_secs(3)))
        .max_concurrent_bidi_streams(1u8.into())
        .max_concurrent_uni_streams(64u8.into())
        .stream_receive_window((2u32 << 20).into())
        .receive_window((8u32 << 20).into())
        .send_window(2 << 20);
    transport
}

/// A socket with an identity.
pub struct Endpoint {
    quinn: quinn::Endpoint,
    identity: Arc<Identity>,
    hello: RecordBytes,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Endpoint {
    /// Listens on a free port of 127.0.0.1.
    pub fn bind(identity: Identity) -> Self {
        let socket = socket();
        let address = socket.local_addr().expect("a bound socket");
        let (mut server, mut client) = (identity.server(), identity.client());
        let transport = Arc::new(transport());
        server.transport_config(transport.clone());
        client.transport_config(transport);
        let mut quinn = quinn::Endpoint::new(
            quinn::EndpointConfig::default(),
            Some(server),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .expect("an endpoint");
        quinn.set_default_client_config(client);
        let record = NodeRecord {
            key: identity.key.public(),
            seq: unix_ns() / 1_000_000,
            addresses: vec![Address(address)],
            role: Role::Node,
            alias: None,
            name: None,
            software: None,
            public_http: None,
            removed: None,
            load: None,
        };
        let record = SignedNode::sign(record, &identity.key);
        Self {
            quinn,
            identity: Arc::new(identity),
            hello: RecordBytes(record.wire().clone()),
            address,
        }
    }

    /// Says `Hello` with this record instead of its own.
    pub fn with_record(mut self, record: Bytes) -> Self {
        self.hello = RecordBytes(record);
        self
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// A bare connection, without a word said.
    pub async fn connect(&self, to: SocketAddr) -> Result<quinn::Connection, LinkError> {
        let connecting = self.quinn.connect(to, "astral").map_err(other)?;
        timeout(ANSWER_WITHIN, connecting)
            .await
            .map_err(|_| other("handshake too slow"))?
            .map_err(LinkError::from)
    }

    /// Dials a node and says `Hello`.
    pub async fn dial(&self, to: SocketAddr) -> Result<Link, LinkError> {
        let conn = self.connect(to).await?;
        let (send, recv) = conn.open_bi().await?;
        self.greet(conn, send, recv).await
    }

    /// Takes the next incoming connection; an error concerns that one only.
    pub async fn accept(&self) -> Option<Result<Link, LinkError>> {
        let incoming = self.quinn.accept().await?;
        Some(self.take(incoming).await)
    }

    async fn take(&self, incoming: quinn::Incoming) -> Result<Link, LinkError> {
        let conn = incoming.await?;
        let (send, recv) = timeout(ANSWER_WITHIN, conn.accept_bi())
            .await
            .map_err(|_| other("no control stream"))??;
        self.greet(conn, send, recv).await
    }

    async fn greet(
        &self,
        conn: quinn::Connection,
        mut send: quinn::SendStream,
        mut recv: quinn::RecvStream,
    ) -> Result<Link, LinkError> {
        let hello = Hello {
            version: VERSION,
            record: self.hello.clone(),
            observed: Some(Address(conn.remote_address())),
        };
        let first = async {
            send.write_all(&Message::from(hello).encode())
                .await
                .map_err(other)?;
            let mut buffer = BytesMut::new();
            let first = next(&mut recv, &mut buffer).await?;
            Ok::<_, LinkError>((first, buffer))
        };
        let answered = timeout(ANSWER_WITHIN, first).await;
        let answered = answered.unwrap_or_else(|_| Err(other("no Hello")));
        let (first, buffer) = match answered {
            Ok(answered) => answered,
            // What counts is why the other side hung up, if it did.
            Err(error) => {
                return Err(conn.close_reason().map_or(error, LinkError::Connection));
            }
        };
        let Message::Hello(hello) = first else {
            return Err(other(format!("{} instead of Hello", first.name())));
        };
        let record = SignedNode::decode(&hello.record.0).map_err(other)?;
        let key = peer_key(&conn);
        if record.value().key != key {
            return Err(other("Hello with another's record"));
        }
        let (messages, inbox) = mpsc::channel(256);
        tokio::spawn(read_on(recv, buffer, messages));
        tokio::spawn(beat(conn.clone()));
        Ok(Link {
            peer: record.value().id_for(Address(conn.remote_address())),
            record: hello.record.0,
            conn,
            send,
            inbox,
        })
    }

    /// Closes every connection and waits until the peers have been told.
    pub async fn close(&self) {
        self.quinn.close(0u8.into(), b"done");
        self.quinn.wait_idle().await;
    }
}

/// A connection on which both have said `Hello`.
pub struct Link {
    /// The connection.
    pub conn: quinn::Connection,
    /// The other node.
    pub peer: NodeId,
    /// Its signed record.
    pub record: Bytes,
    send: quinn::SendStream,
    inbox: mpsc::Receiver<Message>,
}

impl Link {
    /// Sends a message.
    pub async fn say(&mut self, message: impl Into<Message>) -> Result<(), LinkError> {
        self.raw(&message.into().encode()).await
    }

    /// Sends bytes on the control stream, whatever they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.send.write_all(bytes).await.map_err(other)
    }

    /// The next message; an error when the connection is gone.
    pub async fn hear(&mut self) -> Result<Message, LinkError> {
        match self.inbox.recv().await {
            Some(message) => Ok(message),
            None => Err(self.conn.closed().await.into()),
        }
    }

    /// The first message in which `pick` finds something; the others are dropped.
    pub async fn expect<T>(
        &mut self,
        mut pick: impl FnMut(&Message) -> Option<T>,
    ) -> Result<T, LinkError> {
        let search = async {
            loop {
                if let Some(found) = pick(&self.hear().await?) {
                    return Ok(found);
                }
            }
        };
        timeout(ANSWER_WITHIN, search)
            .await
            .unwrap_or_else(|_| Err(other("no answer")))
    }

    /// Waits until the connection is closed; the code and words of the peer, if it gave any.
    pub async fn closed(&self) -> Option<(u64, String)> {
        close_of(&self.conn.closed().await)
    }
}

async fn next(recv: &mut quinn::RecvStream, buffer: &mut BytesMut) -> Result<Message, LinkError> {
    loop {
        if let Some(message) = Message::decode(buffer).map_err(other)? {
            return Ok(message);
        }
        let chunk = recv.read_chunk(16 * 1024, true).await.map_err(other)?;
        let chunk = chunk.ok_or_else(|| other("control stream ended"))?;
        buffer.extend_from_slice(&chunk.bytes);
    }
}

async fn read_on(
    mut recv: quinn::RecvStream,
    mut buffer: BytesMut,
    messages: mpsc::Sender<Message>,
) {
    while let Ok(message) = next(&mut recv, &mut buffer).await {
        // Whoever does not listen misses the rest: a peer must not wait for us.
        let _ = messages.try_send(message);
    }
}

/// Says "I am here" until the connection is gone.
async fn beat(conn: quinn::Connection) {
    let mut every = tokio::time::interval(BEAT_EVERY);
    for seq in 1u32.. {
        tokio::select! {
            _ = every.tick() => {}
            _ = conn.closed() => return,
        }
        let beat = Heartbeat {
            seq,
            echo: None,
            spare_bps: 0,
            tickets: Vec::new(),
        };
        if conn.send_datagram(beat.encode()).is_err() {
            return;
        }
    }
}
