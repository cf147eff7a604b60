//! A uni stream that comes in: one track's part of one group, verified item by
//! item and chunk by chunk before anything of it reaches the store.

use std::sync::Arc;
use std::time::Duration;

use astral_proto::overlay::Event;
use astral_proto::wire::media::{
    FrameHeader, GroupEnd, GroupHeader, Item, Signed, chunk_count, chunk_range, item_len,
};
use astral_proto::wire::{CloseCode, Reader, WireError};
use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::{Intake, Shared};
use crate::store::{Admit, StoreError};

/// A ticket may be answered with media before its acceptance has been read.
const TICKET_WITHIN: Duration = Duration::from_secs(1);
/// Nothing on a uni stream for this long ends it: groups last 10 s at the most,
/// and an encoder that pauses keeps its group open.
const SILENCE: Duration = Duration::from_secs(90);
/// Bytes asked of the transport at a time.
const READ_BYTES: usize = 64 * 1024;

/// Why a uni stream is not read to its end.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    /// The transport, or the peer's reset.
    #[error("{0}")]
    Read(#[from] quinn::ReadError),
    /// It stops in the middle of something.
    #[error("ends inside an item")]
    Cut,
    /// No byte for [`SILENCE`].
    #[error("silent for too long")]
    Silent,
    /// The ticket is not, or no longer, expected.
    #[error("its ticket is not known")]
    NoTicket,
    /// Bytes that are not what the protocol or the publisher says.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// An item that does not belong into the group that the header names.
    #[error("{0} does not belong here")]
    Stray(&'static str),
    /// Refused by the store.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl ReceiveError {
    /// Whether only a peer that lies, or passes on what it did not verify, does this.
    fn is_blame(&self) -> bool {
        match self {
            Self::Wire(_) | Self::Stray(_) => true,
            Self::Store(error) => matches!(
                error,
                StoreError::BadChunk { .. }
                    | StoreError::UnknownTrack(_)
                    | StoreError::Limit { .. }
            ),
            Self::Read(_) | Self::Cut | Self::Silent | Self::NoTicket => false,
        }
    }
}

/// Reads one uni stream to its end.
pub(crate) async fn group(shared: Arc<Shared>, recv: quinn::RecvStream) {
    let mut input = Input {
        recv,
        buffer: BytesMut::new(),
    };
    let (code, error) = match open(&shared, &mut input).await {
        Ok((header, intake)) => match read(&shared, &mut input, &header, &intake).await {
            Ok(()) => return,
            Err(error) => {
                if error.is_blame() {
                    blame(&shared, &intake, &error).await;
                }
                (CloseCode::Late, error)
            }
        },
        Err(error) => (CloseCode::TicketEnded, error),
    };
    debug!(conn = shared.id.0, %error, "uni stream not read to its end");
    let _ = input.recv.stop((code as u32).into());
}

/// Reads the group header and finds out what its ticket is for.
async fn open(
    shared: &Shared,
    input: &mut Input,
) -> Result<(GroupHeader, Arc<Intake>), ReceiveError> {
    let header = input.header().await?;
    let mut expecting = shared.expecting();
    let wait = async {
        loop {
            if let Some(intake) = shared.intake(header.ticket) {
                return intake;
            }
            if expecting.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let intake = timeout(TICKET_WITHIN, wait)
        .await
        .map_err(|_| ReceiveError::NoTicket)?;
    Ok((header, intake))
}

async fn blame(shared: &Shared, intake: &Intake, error: &ReceiveError) {
    intake.store.note_refused();
    let peer = shared.conn.remote_address();
    warn!(conn = shared.id.0, %peer, %error, "media refused");
    let event = Event::BadMedia {
        conn: shared.id,
        stream: intake.store.id(),
    };
    shared.inbox.event(event, error.to_string()).await;
}

async fn read(
    shared: &Shared,
    input: &mut Input,
    header: &GroupHeader,
    intake: &Arc<Intake>,
) -> Result<(), ReceiveError> {
    let mut next = (header.first_frame, header.first_chunk);
    while let Some(wire) = input.item().await? {
        if shared.intake(header.ticket).is_none() {
            return Err(ReceiveError::NoTicket);
        }
        intake.count(wire.len());
        match Item::decode(wire, intake.store.id(), intake.store.key())? {
            Item::Frame(frame) => {
                check_frame(header, &frame.value, next.0)?;
                let first_chunk = if frame.value.index == next.0 {
                    next.1
                } else {
                    0
                };
                next = (frame.value.index + 1, 0);
                let index = frame.value.index;
                self::frame(input, intake, frame, first_chunk).await?;
                if let Some(level) = intake.note_frame(header.track, header.group, index) {
                    let (conn, ticket) = (shared.id, header.ticket);
                    let event = Event::Came {
                        conn,
                        ticket,
                        level,
                    };
                    shared.inbox.event(event, String::new()).await;
                }
            }
            Item::End(end) => {
                check_end(header, &end.value)?;
                intake.store.end_group(end)?;
            }
        }
    }
    Ok(())
}

/// Frames of a uni stream belong to its group and come in order.
fn check_frame(header: &GroupHeader, frame: &FrameHeader, next: u32) -> Result<(), ReceiveError> {
    let named = (header.track, header.epoch, header.group);
    if (frame.track, frame.epoch, frame.group) != named || frame.index < next {
        return Err(ReceiveError::Stray("a frame"));
    }
    Ok(())
}

fn check_end(header: &GroupHeader, end: &GroupEnd) -> Result<(), ReceiveError> {
    if (end.track, end.epoch, end.group) != (header.track, header.epoch, header.group) {
        return Err(ReceiveError::Stray("a group's end"));
    }
    Ok(())
}

/// Hands a frame to the store, chunk by chunk as they come.
async fn frame(
    input: &mut Input,
    intake: &Intake,
    frame: Signed<FrameHeader>,
    first_chunk: u32,
) -> Result<(), ReceiveError> {
    let header = frame.value.clone();
    let wanted = match intake.store.begin_frame(frame)? {
        Admit::Wanted { next_chunk } => next_chunk,
        Admit::Have | Admit::Old => u32::MAX,
    };
    let len = header.len as usize;
    for chunk in first_chunk..chunk_count(len) as u32 {
        let bytes = input.take(chunk_range(len, chunk as usize).len()).await?;
        intake.count(bytes.len());
        if chunk >= wanted {
            let (track, group, index) = (header.track, header.group, header.index);
            intake.store.push_chunk(track, group, index, chunk, bytes)?;
        }
    }
    Ok(())
}

/// The uni stream's bytes, buffered.
struct Input {
    recv: quinn::RecvStream,
    buffer: BytesMut,
}

impl Input {
    /// Reads more; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, ReceiveError> {
        let read = timeout(SILENCE, self.recv.read_chunk(READ_BYTES, true)).await;
        match read.map_err(|_| ReceiveError::Silent)?? {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn take(&mut self, count: usize) -> Result<Bytes, ReceiveError> {
        while self.buffer.len() < count {
            if !self.fill().await? {
                return Err(ReceiveError::Cut);
            }
        }
        // A copy of its own size: a slice would keep the whole read buffer alive.
        let bytes = Bytes::copy_from_slice(&self.buffer[..count]);
        bytes::Buf::advance(&mut self.buffer, count);
        Ok(bytes)
    }

    async fn header(&mut self) -> Result<GroupHeader, ReceiveError> {
        loop {
            let mut reader = Reader::new(&self.buffer);
            match GroupHeader::decode(&mut reader) {
                Ok(header) => {
                    let len = reader.position();
                    bytes::Buf::advance(&mut self.buffer, len);
                    return Ok(header);
                }
                Err(WireError::Truncated { .. }) if self.buffer.len() < GroupHeader::BYTES_MAX => {}
                Err(error) => return Err(error.into()),
            }
            if !self.fill().await? {
                return Err(ReceiveError::Cut);
            }
        }
    }

    /// The next item's bytes; `None` at the end of the stream.
    async fn item(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        loop {
            if let Some(len) = item_len(&self.buffer)? {
                return self.take(len).await.map(Some);
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(ReceiveError::Cut)
                };
            }
        }
    }
}
