//! Chunks to messages and back (RTMP 1.0 §5.3).
//!
//! The reader keeps no more than the payload that has arrived: a chunk is taken
//! piece by piece, so that its size, up to 16 MiB, costs nothing by itself.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::Limits;

/// Chunk size of both sides until they agree on another (§5.4.1).
const DEFAULT_CHUNK_SIZE: usize = 128;
/// Greatest chunk size: no message is longer (§5.4.1).
const CHUNK_SIZE_MAX: u32 = 0xff_ffff;
/// Timestamp field that says "see the extended timestamp" (§5.3.1.3).
const EXTENDED: u32 = 0xff_ffff;

/// One whole RTMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Chunk stream it came on.
    pub csid: u32,
    /// Milliseconds, modulo 2³².
    pub timestamp: u32,
    /// Message type id (§6.1).
    pub kind: u8,
    /// Message stream id.
    pub stream_id: u32,
    /// The body.
    pub payload: Bytes,
}

/// Why bytes are not chunks that we take. None of them can be recovered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// A new message began on a chunk stream whose last one is unfinished.
    #[error("chunk stream {0} begins a message within another one")]
    Overlap(u32),
    /// A header that refers to an earlier one, without an earlier one.
    #[error("chunk stream {0} refers to a header that was never sent")]
    NoHeader(u32),
    /// More chunk streams than [`Limits::chunk_streams`].
    #[error("too many chunk streams")]
    TooManyStreams,
    /// A message longer than allowed at this stage; carries its length in bytes.
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
    /// Unfinished messages exceed [`Limits::held`].
    #[error("unfinished messages hold too many bytes")]
    HeldTooMuch,
    /// A chunk size of 0.
    #[error("chunk size 0")]
    ChunkSize,
}

/// Turns bytes into messages.
#[derive(Debug)]
pub struct ChunkReader {
    chunk_size: usize,
    message_max: usize,
    streams_max: usize,
    held_max: usize,
    held: usize,
    streams: BTreeMap<u32, ChunkStream>,
    /// The chunk that is being read, and what is missing of it.
    open: Option<(u32, usize)>,
}

#[derive(Debug, Default)]
struct ChunkStream {
    timestamp: u32,
    delta: u32,
    /// The extended timestamp of the last header that had one; type 3 repeats it.
    extended: Option<u32>,
    length: usize,
    kind: u8,
    stream_id: u32,
    /// `Some` while a message is unfinished.
    partial: Option<Vec<u8>>,
}

/// A chunk header as it stands in the bytes.
struct Header {
    csid: u32,
    format: u8,
    /// Timestamp or delta, the extended one if there is one.
    time: u32,
    extended: Option<u32>,
    length: usize,
    kind: u8,
    stream_id: u32,
    /// Bytes it takes.
    size: usize,
}

impl ChunkReader {
    /// A reader that takes messages as long as before a publisher is accepted.
    pub fn new(limits: &Limits) -> Self {
        Self {
            chunk_size: DEFAULT_CHUNK_SIZE,
            message_max: limits.message_before_publish,
            streams_max: limits.chunk_streams,
            held_max: limits.held,
            held: 0,
            streams: BTreeMap::new(),
            open: None,
        }
    }

    /// Sets the longest message taken from now on, bytes.
    pub fn set_message_max(&mut self, bytes: usize) {
        self.message_max = bytes;
    }

    /// Takes the peer's chunk size; sizes above 16 MiB mean 16 MiB (§5.4.1).
    ///
    /// # Errors
    /// [`ChunkError::ChunkSize`] for 0.
    pub fn set_chunk_size(&mut self, size: u32) -> Result<(), ChunkError> {
        match (size & 0x7fff_ffff).min(CHUNK_SIZE_MAX) {
            0 => Err(ChunkError::ChunkSize),
            size => {
                self.chunk_size = size as usize;
                Ok(())
            }
        }
    }

    /// Forgets the unfinished message of a chunk stream (§5.4.2).
    pub fn abort(&mut self, csid: u32) {
        if let Some(stream) = self.streams.get_mut(&csid) {
            self.held -= stream.partial.take().map_or(0, |partial| partial.len());
        }
    }

    /// Bytes of unfinished messages.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The next whole message of `input`, of which it leaves at most a part of a header.
    ///
    /// # Errors
    /// [`ChunkError`]; the connection is of no use after it.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Message>, ChunkError> {
        loop {
            let (csid, missing) = match self.open {
                Some(open) => open,
                None => match self.header(input)? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            let piece = input.split_to(missing.min(input.len()));
            self.open = Some((csid, missing - piece.len()));
            self.append(csid, &piece)?;
            if piece.len() < missing {
                return Ok(None);
            }
            self.open = None;
            if let Some(message) = self.finish(csid) {
                return Ok(Some(message));
            }
        }
    }

    /// Consumes a header; returns its chunk stream and the length of its chunk.
    fn header(&mut self, input: &mut BytesMut) -> Result<Option<(u32, usize)>, ChunkError> {
        let Some(header) = self.parse(input)? else {
            return Ok(None);
        };
        input.advance(header.size);
        let csid = header.csid;
        let chunk_size = self.chunk_size;
        let stream = self.streams.entry(csid).or_default();
        if stream.partial.is_none() {
            stream.begin(&header);
        }
        if stream.length > self.message_max {
            return Err(ChunkError::TooLong(stream.length));
        }
        let have = stream.partial.get_or_insert_default().len();
        Ok(Some((csid, (stream.length - have).min(chunk_size))))
    }

    /// Reads a header without consuming it; `None` if it is not whole yet.
    fn parse(&self, input: &[u8]) -> Result<Option<Header>, ChunkError> {
        let Some((format, csid, basic)) = basic_header(input) else {
            return Ok(None);
        };
        let stream = self.streams.get(&csid);
        self.check(format, csid, stream)?;
        let Some(mut header) = message_header(&input[basic..], format, csid, stream) else {
            return Ok(None);
        };
        header.size += basic;
        Ok(Some(header))
    }

    fn check(&self, format: u8, csid: u32, stream: Option<&ChunkStream>) -> Result<(), ChunkError> {
        match stream {
            Some(stream) if stream.partial.is_some() && format != 3 => {
                Err(ChunkError::Overlap(csid))
            }
            Some(_) => Ok(()),
            // librtmp opens chunk stream 2 with type 1; it lacks only the stream id, 0.
            None if format > 1 => Err(ChunkError::NoHeader(csid)),
            None if self.streams.len() >= self.streams_max => Err(ChunkError::TooManyStreams),
            None => Ok(()),
        }
    }

    fn append(&mut self, csid: u32, piece: &[u8]) -> Result<(), ChunkError> {
        if self.held + piece.len() > self.held_max {
            return Err(ChunkError::HeldTooMuch);
        }
        let Some(stream) = self.streams.get_mut(&csid) else {
            return Ok(());
        };
        self.held += piece.len();
        stream
            .partial
            .get_or_insert_default()
            .extend_from_slice(piece);
        Ok(())
    }

    /// The chunk stream's message, if its last chunk has come.
    fn finish(&mut self, csid: u32) -> Option<Message> {
        let stream = self.streams.get_mut(&csid)?;
        let payload = stream
            .partial
            .take_if(|partial| partial.len() >= stream.length)?;
        self.held -= payload.len();
        Some(Message {
            csid,
            timestamp: stream.timestamp,
            kind: stream.kind,
            stream_id: stream.stream_id,
            payload: payload.into(),
        })
    }
}

impl ChunkStream {
    /// Takes over the header of a message's first chunk.
    fn begin(&mut self, header: &Header) {
        match header.format {
            0 => (self.timestamp, self.delta) = (header.time, 0),
            1 | 2 => self.delta = header.time,
            // Type 3 repeats the delta: encoders with constant frame sizes rely on it.
            _ => {}
        }
        self.timestamp = self.timestamp.wrapping_add(self.delta);
        self.extended = header.extended;
        self.length = header.length;
        self.kind = header.kind;
        self.stream_id = header.stream_id;
    }
}

/// Type, chunk stream id and size of a basic header (§5.3.1.1).
fn basic_header(input: &[u8]) -> Option<(u8, u32, usize)> {
    let first = *input.first()?;
    let format = first >> 6;
    match first & 0x3f {
        0 => Some((format, 64 + u32::from(*input.get(1)?), 2)),
        1 => {
            let (low, high) = (*input.get(1)?, *input.get(2)?);
            Some((format, 64 + u32::from(low) + (u32::from(high) << 8), 3))
        }
        csid => Some((format, csid.into(), 1)),
    }
}

/// The message header and extended timestamp that follow a basic header (§5.3.1.2).
fn message_header(
    input: &[u8],
    format: u8,
    csid: u32,
    last: Option<&ChunkStream>,
) -> Option<Header> {
    let size = [11, 7, 3, 0][usize::from(format)];
    let fields = input.get(..size)?;
    let mut header = Header {
        csid,
        format,
        time: 0,
        extended: None,
        length: last.map_or(0, |last| last.length),
        kind: last.map_or(0, |last| last.kind),
        stream_id: last.map_or(0, |last| last.stream_id),
        size,
    };
    if format == 3 {
        header.extended = last.and_then(|last| last.extended);
        header.size = repeated_extension(input, header.extended)?;
        return Some(header);
    }
    header.time = be24(fields);
    if format < 2 {
        header.length = be24(&fields[3..]) as usize;
        header.kind = fields[6];
    }
    if format == 0 {
        header.stream_id = u32::from_le_bytes(*fields.last_chunk()?);
    }
    if header.time == EXTENDED {
        header.time = u32::from_be_bytes(*input[size..].first_chunk()?);
        header.extended = Some(header.time);
        header.size += 4;
    }
    Some(header)
}

/// Size of the extended timestamp that type 3 repeats, or does not: some encoders
/// leave it out, so it counts only if it is equal. `None` while that is open.
fn repeated_extension(input: &[u8], extended: Option<u32>) -> Option<usize> {
    let Some(expected) = extended.map(u32::to_be_bytes) else {
        return Some(0);
    };
    let seen = &input[..input.len().min(4)];
    match (expected.starts_with(seen), seen.len()) {
        (true, 4) => Some(4),
        (true, _) => None,
        (false, _) => Some(0),
    }
}

fn be24(bytes: &[u8]) -> u32 {
    (u32::from(bytes[0]) << 16) | (u32::from(bytes[1]) << 8) | u32::from(bytes[2])
}

/// Turns our messages into chunks; always with full headers, which are few.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: usize,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self {
            chunk_size: DEFAULT_CHUNK_SIZE,
        }
    }
}

impl ChunkWriter {
    /// Sets the size of the chunks from now on; the peer must have been told. At least 1 byte.
    pub fn set_chunk_size(&mut self, bytes: usize) {
        self.chunk_size = bytes.max(1);
    }

    /// Appends a message's chunks to `out`.
    ///
    /// `csid` is 2 to 63, `payload` under 16 MiB.
    pub fn write(&self, out: &mut BytesMut, message: &Message) {
        let csid = (message.csid & 0x3f) as u8;
        let extended = message.timestamp >= EXTENDED;
        out.put_u8(csid);
        out.put_uint(message.timestamp.min(EXTENDED).into(), 3);
        out.put_uint(message.payload.len() as u64, 3);
        out.put_u8(message.kind);
        out.put_u32_le(message.stream_id);
        for (index, chunk) in message.payload.chunks(self.chunk_size).enumerate() {
            if index > 0 {
                out.put_u8(0xc0 | csid);
            }
            if extended {
                out.put_u32(message.timestamp);
            }
            out.put_slice(chunk);
        }
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
