//! One connection to a peer: its control stream, its datagrams, and the uni
//! streams that come in. Events go to the driver; nothing here decides anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use astral_proto::ids::TicketId;
use astral_proto::overlay::{ConnId, Event};
use astral_proto::wire::CloseCode;
use astral_proto::wire::control::Message;
use astral_proto::wire::heartbeat::Heartbeat;
use bytes::BytesMut;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::endpoint::UNI_STREAMS_MAX;
use super::receive;
use crate::driver::Inbox;
use crate::lock::lock;
use crate::store::StreamStore;
use crate::uplink::{Class, Uplink};

/// Uni streams that each ticket adds to what a peer may have open: four groups of
/// picture and sound each.
const UNI_STREAMS_PER_TICKET: u32 = 8;
/// Control messages that wait for a peer; more, and the peer is too slow to keep.
const OUTBOX: usize = 256;
/// The control stream must be there within this of the handshake.
const CONTROL_WITHIN: Duration = Duration::from_secs(5);
/// Whoever sends is level once it has been among the newest for this long: with one frame it
/// may have been lucky, and be busy with its other children's keyframes before the next.
const STEADY: Duration = Duration::from_millis(250);
/// Bytes asked of the control stream at a time.
const READ_BYTES: usize = 8 * 1024;

/// What is taken in under a ticket.
pub(crate) struct Intake {
    /// Where it goes.
    pub(crate) store: Arc<StreamStore>,
    /// Payload bytes taken in under this ticket.
    pub(crate) bytes: AtomicU64,
    /// Whether anything has come under it.
    has_come: AtomicBool,
    /// Since when what comes is among the newest, and whether that was for long enough.
    in_front: Mutex<Option<Instant>>,
    is_level: AtomicBool,
}

/// The parts of a connection that driver and tasks share.
pub(crate) struct Shared {
    pub(crate) conn: quinn::Connection,
    pub(crate) id: ConnId,
    pub(crate) inbox: Inbox,
    pub(crate) uplink: Arc<Uplink>,
    expected: Mutex<HashMap<TicketId, Arc<Intake>>>,
    expecting: watch::Sender<()>,
}

/// The driver's end of a connection.
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
    outbox: mpsc::Sender<Message>,
}

impl Link {
    /// Starts the tasks of a connection whose handshake is done.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        id: ConnId,
        conn: quinn::Connection,
        outbound: bool,
        inbox: Inbox,
        uplink: Arc<Uplink>,
    ) -> Self {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let shared = Arc::new(Shared {
            conn,
            id,
            inbox,
            uplink,
            expected: Mutex::new(HashMap::new()),
            expecting: watch::Sender::new(()),
        });
        tasks.spawn(run(shared.clone(), outbound, messages));
        Self { shared, outbox }
    }

    /// Queues a control message; false if the peer is too slow.
    pub(crate) fn send(&self, message: Message) -> bool {
        self.outbox.try_send(message).is_ok()
    }

    /// Sends a heartbeat. One that finds no room is lost, as datagrams may be.
    pub(crate) fn beat(&self, beat: &Heartbeat) {
        if let Err(error) = self.shared.conn.send_datagram(beat.encode()) {
            debug!(conn = self.shared.id.0, %error, "heartbeat not sent");
        }
    }

    /// Takes in what comes under a ticket from now on.
    pub(crate) fn expect(&self, ticket: TicketId, store: Arc<StreamStore>) -> Arc<Intake> {
        let tickets = self.shared.lock().len() as u32 + 1;
        let streams = UNI_STREAMS_MAX + UNI_STREAMS_PER_TICKET * tickets;
        self.shared
            .conn
            .set_max_concurrent_uni_streams(streams.into());
        let intake = Arc::new(Intake {
            store,
            bytes: AtomicU64::new(0),
            has_come: AtomicBool::new(false),
            in_front: Mutex::new(None),
            is_level: AtomicBool::new(false),
        });
        self.shared.lock().insert(ticket, intake.clone());
        self.shared.expecting.send_replace(());
        intake
    }

    /// Refuses what comes under a ticket from now on.
    pub(crate) fn unexpect(&self, ticket: TicketId) {
        self.shared.lock().remove(&ticket);
        self.shared.expecting.send_replace(());
    }

    /// Closes the connection with a code and words for the peer.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.shared
            .conn
            .close((code as u32).into(), reason.as_bytes());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<TicketId, Arc<Intake>>> {
        lock(&self.expected)
    }

    /// What a ticket is for, if it is expected now.
    pub(crate) fn intake(&self, ticket: TicketId) -> Option<Arc<Intake>> {
        self.lock().get(&ticket).cloned()
    }

    /// Told whenever the expected tickets change.
    pub(crate) fn expecting(&self) -> watch::Receiver<()> {
        self.expecting.subscribe()
    }
}

impl Intake {
    /// Notes a frame that has come. Some if the overlay is to hear of it: for the first
    /// one under this ticket, and once whoever sends has been level for [`STEADY`].
    pub(crate) fn note_frame(&self, track: u8, group: u64, index: u32) -> Option<bool> {
        if self.is_level.load(Ordering::Relaxed) {
            return None;
        }
        if self.store.is_front(track, group, index) {
            let since = *lock(&self.in_front).get_or_insert_with(Instant::now);
            if since.elapsed() >= STEADY {
                self.has_come.store(true, Ordering::Relaxed);
                return (!self.is_level.swap(true, Ordering::Relaxed)).then_some(true);
            }
        }
        (!self.has_come.swap(true, Ordering::Relaxed)).then_some(false)
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Runs until the connection is gone, then says so to the driver.
async fn run(shared: Arc<Shared>, outbound: bool, messages: mpsc::Receiver<Message>) {
    let reason = tokio::select! {
        reason = control(&shared, outbound, messages) => reason,
        reason = datagrams(&shared) => reason,
        reason = uni_streams(&shared) => reason,
        error = shared.conn.closed() => error.to_string(),
    };
    // Looked at before closing, which overwrites it.
    let given = shared.conn.close_reason();
    let code = if let Some(quinn::ConnectionError::ApplicationClosed(close)) = given {
        CloseCode::of(close.error_code.into())
    } else {
        None
    };
    let ended = (CloseCode::Protocol as u32).into();
    shared.conn.close(ended, reason.as_bytes());
    let conn = shared.id;
    shared
        .inbox
        .event(Event::Closed { conn, code }, reason)
        .await;
}

async fn control(shared: &Shared, outbound: bool, messages: mpsc::Receiver<Message>) -> String {
    let streams = async {
        if outbound {
            shared.conn.open_bi().await
        } else {
            shared.conn.accept_bi().await
        }
    };
    match timeout(CONTROL_WITHIN, streams).await {
        Ok(Ok((send, recv))) => {
            let _ = send.set_priority(i32::MAX);
            tokio::select! {
                reason = write_control(shared, send, messages) => reason,
                reason = read_control(shared, recv) => reason,
            }
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no control stream within 5 s".into(),
    }
}

async fn write_control(
    shared: &Shared,
    mut send: quinn::SendStream,
    mut messages: mpsc::Receiver<Message>,
) -> String {
    while let Some(message) = messages.recv().await {
        let bytes = message.encode();
        shared
            .uplink
            .acquire(Class::Control, shared.id.0, 0, bytes.len())
            .await;
        if let Err(error) = send.write_chunk(bytes).await {
            return error.to_string();
        }
    }
    // The driver has let go of the connection and closes it with its own words.
    std::future::pending().await
}

async fn read_control(shared: &Shared, mut recv: quinn::RecvStream) -> String {
    let mut buffer = BytesMut::new();
    loop {
        match Message::decode(&mut buffer) {
            Ok(Some(message)) => {
                let event = Event::Received {
                    conn: shared.id,
                    message,
                };
                shared.inbox.event(event, String::new()).await;
                continue;
            }
            Ok(None) => {}
            Err(error) => return format!("control message: {error}"),
        }
        match recv.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
            Ok(None) => return "the peer ended its control stream".into(),
            Err(error) => return error.to_string(),
        }
    }
}

async fn datagrams(shared: &Shared) -> String {
    loop {
        match shared.conn.read_datagram().await {
            Ok(bytes) => match Heartbeat::decode(&bytes) {
                Ok(Some(beat)) => {
                    let event = Event::Beat {
                        conn: shared.id,
                        beat,
                    };
                    shared.inbox.event(event, String::new()).await;
                }
                Ok(None) => {}
                Err(error) => return error.to_string(),
            },
            Err(error) => return error.to_string(),
        }
    }
}

/// Takes in uni streams; how many there are at a time is bounded by the
/// transport's configuration.
async fn uni_streams(shared: &Arc<Shared>) -> String {
    let mut groups = JoinSet::new();
    loop {
        tokio::select! {
            accepted = shared.conn.accept_uni() => match accepted {
                Ok(recv) => {
                    groups.spawn(receive::group(shared.clone(), recv));
                }
                Err(error) => return error.to_string(),
            },
            Some(_) = groups.join_next() => {}
        }
    }
}
