//! The sockets and timers round the media crate's RTMP session.
//!
//! ```text
//!  accept ─► handshake ─► publish? ─► media … ─► FCUnpublish ─► read to the end
//!            5 s a half   10 s        30 s         │             ≤ 3 s
//!                            └─ refused, replaced ─┴─► write, half-close, drain ≤ 2 s
//! ```
//!
//! The end of the bytes without `FCUnpublish` is no clean end: encoders that crash or
//! lose the network come back. A refusal is written and the connection then read for a
//! while, or the reset that unread bytes cause would destroy the reply.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use astral_media::flv::FlvDemuxer;
use astral_media::rtmp::{self, Event, Limits, RtmpError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Refusal, Registry, SILENCE, Session, SessionError};

/// Connections at a time; further ones are closed at once. Each may hold some 6 MiB.
const CONNECTIONS_MAX: usize = 64;
/// Time for each half of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Bytes of the handshake's first half, and of both (RTMP 1.0 §5.2).
const HANDSHAKE_HALF: u64 = 1 + 1536;
const HANDSHAKE_WHOLE: u64 = HANDSHAKE_HALF + 1536;
/// Time from the connection to `publish`.
const PUBLISH: Duration = Duration::from_secs(10);
/// Time for one write.
const WRITE: Duration = Duration::from_secs(10);
/// Time between pings, which keep middleboxes and encoders awake.
const PING: Duration = Duration::from_secs(5);
/// How long a refused encoder is read, so that it sees why.
const DRAIN_REFUSED: Duration = Duration::from_secs(2);
/// How long one that said good-bye is read: GStreamer calls an earlier close an error.
const DRAIN_ENDED: Duration = Duration::from_secs(3);
/// Wait after a failed `accept`, such as for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// An acknowledgement that is due waits this long for the socket to be empty.
const ACKNOWLEDGE: Duration = Duration::from_millis(100);
/// Bytes read at a time.
const PIECE: usize = 16 * 1024;

/// Takes encoders' connections until `shutdown`, and returns when the last is gone.
pub(crate) async fn serve(listener: TcpListener, registry: Registry, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "RTMP connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            warn!(%from, limit = CONNECTIONS_MAX, "too many RTMP connections");
            continue;
        };
        let connection = Connection::new(socket, from);
        let (registry, shutdown) = (registry.clone(), shutdown.clone());
        connections.spawn(async move {
            connection.run(&registry, &shutdown).await;
            drop(permit);
        });
    }
    while connections.join_next().await.is_some() {}
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the encoder is done")]
    Clean,
    #[error("the encoder closed the connection")]
    Closed,
    #[error("no {0} in time")]
    TimedOut(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Rtmp(#[from] RtmpError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("it asked to play")]
    Play,
    #[error("this node is shutting down")]
    Shutdown,
}

struct Connection {
    socket: TcpStream,
    from: SocketAddr,
    rtmp: rtmp::Session,
    demuxer: FlvDemuxer,
    opened_at: Instant,
    received: u64,
    heard_at: Instant,
    pinged_at: Instant,
    piece: Box<[u8]>,
}

impl Connection {
    fn new(socket: TcpStream, from: SocketAddr) -> Self {
        let now = Instant::now();
        Self {
            socket,
            from,
            rtmp: rtmp::Session::new(Limits::default()),
            demuxer: FlvDemuxer::new(),
            opened_at: now,
            received: 0,
            heard_at: now,
            pinged_at: now,
            piece: vec![0; PIECE].into(),
        }
    }

    async fn run(mut self, registry: &Registry, shutdown: &CancellationToken) {
        // A write is a reply; it should not wait for more.
        let _ = self.socket.set_nodelay(true);
        let mut session = None;
        let end = self.converse(registry, shutdown, &mut session).await;
        if let Some(session) = session {
            session.finish(matches!(end, End::Clean)).await;
        }
        info!(from = %self.from, reason = %end, "RTMP connection ended");
        self.say_good_bye(&end).await;
    }

    /// Talks until there is a reason to stop.
    async fn converse(
        &mut self,
        registry: &Registry,
        shutdown: &CancellationToken,
        session: &mut Option<Session>,
    ) -> End {
        loop {
            let events = match self.listen(session.as_ref(), shutdown).await {
                Ok(events) => events,
                Err(end) => return end,
            };
            for event in events {
                if let Err(end) = self.handle(event, registry, session).await {
                    return end;
                }
            }
            if let Err(end) = self.flush().await {
                return end;
            }
        }
    }

    /// The next bytes, and what they amount to.
    async fn listen(
        &mut self,
        session: Option<&Session>,
        shutdown: &CancellationToken,
    ) -> Result<Vec<Event>, End> {
        let (until, what) = self.deadline(session.is_some());
        let replaced = session.map(Session::replaced).unwrap_or_default();
        let is_asking = session.is_some();
        if is_asking && self.pinged_at.elapsed() >= PING {
            self.pinged_at = Instant::now();
            let since = self.opened_at.elapsed().as_millis();
            self.rtmp.ping(since as u32);
            self.flush().await?;
        }
        let next_ping = self.pinged_at + PING;
        let mut wake = if is_asking {
            until.min(next_ping)
        } else {
            until
        };
        if self.rtmp.owes_acknowledgement() {
            wake = wake.min(Instant::now() + ACKNOWLEDGE);
        }
        let read = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(End::Shutdown),
            () = replaced.cancelled() => {
                return Err(session.map_or(End::Closed, |session| session.over().into()));
            }
            read = timeout_at(wake, self.socket.read(&mut self.piece)) => read,
        };
        let Ok(read) = read else {
            return match Instant::now() >= until {
                true => Err(End::TimedOut(what)),
                false => {
                    self.rtmp.acknowledge();
                    Ok(Vec::new())
                }
            };
        };
        let count = read?;
        if count == 0 {
            return Err(End::Closed);
        }
        self.received += count as u64;
        self.heard_at = Instant::now();
        let events = self.rtmp.feed(&self.piece[..count])?;
        if count < self.piece.len() {
            self.rtmp.acknowledge();
        }
        Ok(events)
    }

    /// Until when something must have come, and what.
    fn deadline(&self, publishes: bool) -> (Instant, &'static str) {
        let publish = self.opened_at + PUBLISH;
        match self.received {
            _ if publishes => (self.heard_at + SILENCE, "media"),
            0..HANDSHAKE_HALF => (self.opened_at + HANDSHAKE, "handshake"),
            HANDSHAKE_HALF..HANDSHAKE_WHOLE => {
                (publish.min(self.opened_at + 2 * HANDSHAKE), "handshake")
            }
            _ => (publish, "publish"),
        }
    }

    async fn handle(
        &mut self,
        event: Event,
        registry: &Registry,
        session: &mut Option<Session>,
    ) -> Result<(), End> {
        let mut found = Vec::new();
        match event {
            Event::Publish { app, key } => {
                *session = Some(registry.open(&key, self.from).map_err(End::Refused)?);
                self.rtmp.accept_publish();
                info!(from = %self.from, app, "RTMP encoder connected");
            }
            Event::Media {
                kind,
                timestamp,
                payload,
            } => match self.demuxer.push(kind, timestamp, &payload, &mut found) {
                Err(error) if error.is_fatal() => {
                    return Err(SessionError::Unsupported(error.to_string()).into());
                }
                Err(error) => debug!(from = %self.from, %error, "FLV tag skipped"),
                Ok(()) => {}
            },
            Event::Metadata(metadata) => self.demuxer.metadata(&metadata, &mut found),
            Event::Unpublish => return Err(End::Clean),
            Event::PlayRefused => return Err(End::Play),
            Event::Pong { .. } => {}
        }
        if let Some(session) = session {
            for event in found {
                session.push(event).await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        let output = self.rtmp.take_output();
        if output.is_empty() {
            return Ok(());
        }
        match timeout(WRITE, self.socket.write_all(&output)).await {
            // Nobody hears the reply, yet the last frames may still wait to be read.
            Ok(_) => Ok(()),
            Err(_) => Err(End::TimedOut("room for a reply")),
        }
    }

    /// Tells the encoder why, as far as it can still be told.
    async fn say_good_bye(mut self, end: &End) {
        let code = "NetStream.Publish.Denied";
        let taken = "NetStream.Publish.BadName";
        let words = end.to_string();
        let drain = match end {
            End::Clean => DRAIN_ENDED,
            End::Closed | End::Io(_) | End::TimedOut(_) => return,
            End::Rtmp(_) | End::Play => DRAIN_REFUSED,
            End::Refused(Refusal::UnknownKey) | End::Shutdown => {
                self.rtmp.end_with(code, &words);
                DRAIN_REFUSED
            }
            End::Refused(Refusal::Replaced(_) | Refusal::TooMany) => {
                self.rtmp.end_with(taken, &words);
                DRAIN_REFUSED
            }
            End::Session(SessionError::Replaced) => {
                self.rtmp.end_with(taken, &words);
                DRAIN_REFUSED
            }
            End::Session(_) => {
                self.rtmp.end_with(code, &words);
                DRAIN_REFUSED
            }
        };
        if self.flush().await.is_err() {
            return;
        }
        // A client that said good-bye closes by itself; the others are told to.
        if !matches!(end, End::Clean) && self.socket.shutdown().await.is_err() {
            return;
        }
        let _ = timeout(drain, self.drain()).await;
    }

    /// Reads and forgets until the client closes.
    async fn drain(&mut self) {
        while matches!(self.socket.read(&mut self.piece).await, Ok(1..)) {}
    }
}
