//! One publisher's connection: what is asked, what is answered, which media come.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::amf0::{self, AmfError, Value};
use super::chunk::{ChunkError, ChunkReader, ChunkWriter, Message};
use super::command::{self, Command};
use super::handshake::{Handshake, WrongVersion};
use super::{Limits, Metadata};
use crate::track::TrackKind;

/// Bytes after which each side acknowledges, as other servers set it.
const WINDOW: u32 = 2_500_000;
/// Windows a client may ask for; outside of them, acknowledging would cost too much or never come.
const WINDOW_RANGE: (u32, u32) = (16 << 10, 16 << 20);
/// Our chunk size: every reply fits into one chunk.
const CHUNK_SIZE: u32 = 4096;

/// Chunk streams that we write on: control messages, and commands.
const CONTROL: u32 = 2;
const COMMANDS: u32 = 3;

/// Message types (RTMP 1.0 §5.4, §7.1).
mod kind {
    pub(super) const SET_CHUNK_SIZE: u8 = 1;
    pub(super) const ABORT: u8 = 2;
    pub(super) const ACKNOWLEDGEMENT: u8 = 3;
    pub(super) const USER_CONTROL: u8 = 4;
    pub(super) const WINDOW_SIZE: u8 = 5;
    pub(super) const PEER_BANDWIDTH: u8 = 6;
    pub(super) const AUDIO: u8 = 8;
    pub(super) const VIDEO: u8 = 9;
    pub(super) const DATA_AMF3: u8 = 15;
    pub(super) const COMMAND_AMF3: u8 = 17;
    pub(super) const DATA_AMF0: u8 = 18;
    pub(super) const COMMAND_AMF0: u8 = 20;
}

/// User control events (RTMP 1.0 §7.1.7).
mod user {
    pub(super) const STREAM_BEGIN: u16 = 0;
    pub(super) const PING_REQUEST: u16 = 6;
    pub(super) const PING_RESPONSE: u16 = 7;
}

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It asks to publish; answer with [`Session::accept_publish`] or [`Session::refuse_publish`].
    Publish {
        /// Application name of the URL, such as `live`.
        app: String,
        /// Stream key, without a `?query`; empty if it sent none.
        key: String,
    },
    /// One audio or video message of the accepted publisher, never empty.
    Media {
        /// Which of the two.
        kind: TrackKind,
        /// Milliseconds, modulo 2³²; compare by wrapping difference.
        timestamp: u32,
        /// An FLV tag body; owns its memory.
        payload: Bytes,
    },
    /// `onMetaData` of the accepted publisher; may be repeated many times.
    Metadata(Metadata),
    /// The publisher said that it is over. What comes later is ignored.
    Unpublish,
    /// It asked to play, and was told that this is not the place.
    PlayRefused,
    /// It answered the ping of this time.
    Pong {
        /// The `now_ms` given to [`Session::ping`].
        sent_ms: u32,
    },
}

/// Why a publisher may not publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which kind of refusal.
    pub code: RefusalCode,
    /// One short sentence for whoever runs the encoder, which shows it.
    pub description: String,
}

/// The kinds of refusal that encoders tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Unknown key.
    Denied,
    /// The name is in use.
    BadName,
}

impl RefusalCode {
    /// The code as it stands in `onStatus`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "NetStream.Publish.Denied",
            Self::BadName => "NetStream.Publish.BadName",
        }
    }
}

/// Why a connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RtmpError {
    /// The first byte is not plain RTMP's version 3.
    #[error("not plain RTMP: version byte {0:#04x}")]
    Version(u8),
    /// The chunks cannot be read.
    #[error("broken chunk: {0}")]
    Chunk(#[from] ChunkError),
    /// A command cannot be read.
    #[error("broken command: {0}")]
    Command(#[from] AmfError),
    /// A control message is shorter than its type asks for; carries the type.
    #[error("control message of type {0} is cut short")]
    Control(u8),
    /// A second `connect`, or a command that needs one before it.
    #[error("command {0:?} out of order")]
    OutOfOrder(&'static str),
    /// The client asks faster than it reads the replies.
    #[error("replies are not being read")]
    OutputFull,
}

impl From<WrongVersion> for RtmpError {
    fn from(WrongVersion(version): WrongVersion) -> Self {
        Self::Version(version)
    }
}

/// How far the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// `connect` is awaited.
    New,
    /// `publish` is awaited.
    Connected { app: String },
    /// The shell is to answer a `publish` on this message stream.
    Asked { stream_id: u32 },
    /// Media come.
    Publishing { stream_id: u32 },
    /// Refused, replaced or over: nothing counts any more.
    Deaf,
}

/// The server's side of one connection, without I/O.
///
/// After each [`feed`](Self::feed), [`accept_publish`](Self::accept_publish) and the like,
/// write [`take_output`](Self::take_output) to the socket.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    handshake: Handshake,
    input: BytesMut,
    output: BytesMut,
    reader: ChunkReader,
    writer: ChunkWriter,
    stage: Stage,
    streams_created: u32,
    window: u32,
    received: u32,
    acknowledged: u32,
}

impl Session {
    /// A connection that has just been accepted.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            handshake: Handshake::Hello,
            input: BytesMut::new(),
            output: BytesMut::new(),
            reader: ChunkReader::new(&limits),
            writer: ChunkWriter::default(),
            stage: Stage::New,
            streams_created: 0,
            window: WINDOW,
            received: 0,
            acknowledged: 0,
        }
    }

    /// Takes bytes from the socket, in any pieces; returns what they amount to.
    ///
    /// # Errors
    /// [`RtmpError`]: write what [`take_output`](Self::take_output) has, then close.
    /// Events of the same piece that came before the error are lost with it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, RtmpError> {
        // Counted modulo 2³², as acknowledgements are.
        self.received = self.received.wrapping_add(bytes.len() as u32);
        self.input.extend_from_slice(bytes);
        let mut events = Vec::new();
        self.handshake.advance(&mut self.input, &mut self.output)?;
        if self.handshake == Handshake::Done {
            while let Some(message) = self.reader.next(&mut self.input)? {
                events.extend(self.message(message)?);
            }
        }
        Ok(events)
    }

    /// Bytes for the socket.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// Lets the publisher that asked begin. Does nothing if none asked.
    pub fn accept_publish(&mut self) {
        let Stage::Asked { stream_id } = self.stage else {
            return;
        };
        self.stage = Stage::Publishing { stream_id };
        self.reader.set_message_max(self.limits.message);
        self.user_control(user::STREAM_BEGIN, stream_id);
        let started = command::on_status("status", "NetStream.Publish.Start", "Publishing.");
        self.reply(stream_id, &started);
    }

    /// Turns the publisher that asked away. Does nothing if none asked.
    pub fn refuse_publish(&mut self, refusal: &Refusal) {
        if matches!(self.stage, Stage::Asked { .. }) {
            self.end_with(refusal.code.as_str(), &refusal.description);
        }
    }

    /// Tells a publisher, accepted or not, that it is over, such as
    /// [`RefusalCode::BadName`] to one that was replaced. What it still sends is ignored.
    pub fn end_with(&mut self, code: &str, description: &str) {
        let stream_id = match self.stage {
            Stage::Asked { stream_id } | Stage::Publishing { stream_id } => stream_id,
            Stage::New | Stage::Connected { .. } => 0,
            Stage::Deaf => return,
        };
        let status = command::on_status("error", code, description);
        self.reply(stream_id, &status);
        self.stage = Stage::Deaf;
    }

    /// Asks whether the client is there; [`Event::Pong`] brings `now_ms` back.
    pub fn ping(&mut self, now_ms: u32) {
        if self.handshake == Handshake::Done {
            self.user_control(user::PING_REQUEST, now_ms);
        }
    }

    /// Whether the client's window asks for an acknowledgement.
    pub fn owes_acknowledgement(&self) -> bool {
        self.received.wrapping_sub(self.acknowledged) >= self.window / 2
    }

    /// Acknowledges what came, if that is due. Best done when the socket has no more: an
    /// encoder that closes with an acknowledgement unread loses what its kernel had not
    /// sent yet.
    pub fn acknowledge(&mut self) {
        if self.owes_acknowledgement() {
            self.acknowledged = self.received;
            self.control(kind::ACKNOWLEDGEMENT, &self.received.to_be_bytes());
        }
    }

    fn message(&mut self, message: Message) -> Result<Option<Event>, RtmpError> {
        match message.kind {
            kind::SET_CHUNK_SIZE => self.reader.set_chunk_size(be32(&message)?)?,
            kind::ABORT => self.reader.abort(be32(&message)?),
            kind::WINDOW_SIZE => {
                self.window = be32(&message)?.clamp(WINDOW_RANGE.0, WINDOW_RANGE.1);
            }
            kind::USER_CONTROL => return self.user_event(&message),
            kind::AUDIO => return Ok(self.media(TrackKind::Audio, message)),
            kind::VIDEO => return Ok(self.media(TrackKind::Video, message)),
            kind::DATA_AMF0 | kind::DATA_AMF3 => return Ok(self.data(&message)),
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => return self.command(&message),
            // Acknowledgements and bandwidth limits say nothing to a receiver; aggregates
            // and shared objects are sent by no encoder of today.
            kind::ACKNOWLEDGEMENT | kind::PEER_BANDWIDTH => {}
            _ => {}
        }
        Ok(None)
    }

    fn media(&self, kind: TrackKind, message: Message) -> Option<Event> {
        let publishing = matches!(self.stage, Stage::Publishing { .. });
        (publishing && !message.payload.is_empty()).then_some(Event::Media {
            kind,
            timestamp: message.timestamp,
            payload: message.payload,
        })
    }

    /// Metadata are hints: what cannot be read is not there.
    fn data(&self, message: &Message) -> Option<Event> {
        if !matches!(self.stage, Stage::Publishing { .. }) {
            return None;
        }
        let values = amf0::decode(amf0_part(message), self.limits.amf).ok()?;
        Metadata::from_values(&values).map(Event::Metadata)
    }

    fn user_event(&mut self, message: &Message) -> Result<Option<Event>, RtmpError> {
        let short = RtmpError::Control(message.kind);
        let (event, data) = message.payload.split_first_chunk().ok_or(short.clone())?;
        let event = u16::from_be_bytes(*event);
        if event != user::PING_REQUEST && event != user::PING_RESPONSE {
            return Ok(None);
        }
        let value = u32::from_be_bytes(*data.first_chunk().ok_or(short)?);
        if event == user::PING_RESPONSE {
            return Ok(Some(Event::Pong { sent_ms: value }));
        }
        self.user_control(user::PING_RESPONSE, value);
        self.check_output()?;
        Ok(None)
    }

    fn command(&mut self, message: &Message) -> Result<Option<Event>, RtmpError> {
        if self.stage == Stage::Deaf {
            return Ok(None);
        }
        let command = Command::parse(amf0_part(message), self.limits.amf)?;
        let event = match command.name.as_str() {
            "connect" => self.connect(&command)?,
            "createStream" => self.create_stream(&command),
            "releaseStream" => self.confirm(&command),
            "FCPublish" => self.fc_publish(&command),
            "publish" => self.publish(&command, message.stream_id)?,
            "play" | "play2" => self.play(message.stream_id),
            "FCUnpublish" | "deleteStream" | "closeStream" => self.unpublish(&command),
            // `_checkbw`, `getStreamLength` and others expect nothing of us.
            _ => None,
        };
        self.check_output()?;
        Ok(event)
    }

    fn connect(&mut self, command: &Command) -> Result<Option<Event>, RtmpError> {
        if self.stage != Stage::New {
            return Err(RtmpError::OutOfOrder("connect"));
        }
        let app = command.object_text("app");
        self.stage = Stage::Connected { app };
        self.control(kind::WINDOW_SIZE, &WINDOW.to_be_bytes());
        let [a, b, c, d] = WINDOW.to_be_bytes();
        self.control(kind::PEER_BANDWIDTH, &[a, b, c, d, 2]);
        self.control(kind::SET_CHUNK_SIZE, &CHUNK_SIZE.to_be_bytes());
        self.writer.set_chunk_size(CHUNK_SIZE as usize);
        self.reply(0, &command::connected(command.transaction));
        Ok(None)
    }

    fn create_stream(&mut self, command: &Command) -> Option<Event> {
        self.streams_created = self.streams_created.saturating_add(1);
        let id = Value::Number(self.streams_created.into());
        self.reply(0, &command::result(command.transaction, id));
        None
    }

    fn confirm(&mut self, command: &Command) -> Option<Event> {
        if command.transaction != 0.0 {
            self.reply(0, &command::result(command.transaction, Value::Undefined));
        }
        None
    }

    fn fc_publish(&mut self, command: &Command) -> Option<Event> {
        self.confirm(command);
        self.reply(0, &command::on_fc("onFCPublish", "NetStream.Publish.Start"));
        None
    }

    fn publish(&mut self, command: &Command, stream_id: u32) -> Result<Option<Event>, RtmpError> {
        match &self.stage {
            Stage::Connected { app } => {
                let (app, key) = (app.clone(), command.stream_name());
                self.stage = Stage::Asked { stream_id };
                Ok(Some(Event::Publish { app, key }))
            }
            Stage::New | Stage::Asked { .. } | Stage::Publishing { .. } | Stage::Deaf => {
                Err(RtmpError::OutOfOrder("publish"))
            }
        }
    }

    fn play(&mut self, stream_id: u32) -> Option<Event> {
        let status = command::on_status(
            "error",
            "NetStream.Play.Failed",
            "This server only takes streams over RTMP. Open its watch page to play them.",
        );
        self.reply(stream_id, &status);
        self.stage = Stage::Deaf;
        Some(Event::PlayRefused)
    }

    /// Takes the first sign of the end: `deleteStream` may never arrive.
    fn unpublish(&mut self, command: &Command) -> Option<Event> {
        self.confirm(command);
        let Stage::Publishing { stream_id } = self.stage else {
            return None;
        };
        if command.name == "FCUnpublish" {
            let gone = command::on_fc("onFCUnpublish", "NetStream.Unpublish.Success");
            self.reply(0, &gone);
        }
        let code = "NetStream.Unpublish.Success";
        let status = command::on_status("status", code, "Unpublished.");
        self.reply(stream_id, &status);
        self.stage = Stage::Deaf;
        Some(Event::Unpublish)
    }

    fn check_output(&self) -> Result<(), RtmpError> {
        if self.output.len() > self.limits.output {
            return Err(RtmpError::OutputFull);
        }
        Ok(())
    }

    fn user_control(&mut self, event: u16, value: u32) {
        let mut payload = [0; 6];
        (&mut payload[..2]).put_u16(event);
        (&mut payload[2..]).put_u32(value);
        self.control(kind::USER_CONTROL, &payload);
    }

    fn control(&mut self, kind: u8, payload: &[u8]) {
        self.send(CONTROL, kind, 0, Bytes::copy_from_slice(payload));
    }

    fn reply(&mut self, stream_id: u32, values: &[Value]) {
        let payload = amf0::encode(values).into();
        self.send(COMMANDS, kind::COMMAND_AMF0, stream_id, payload);
    }

    fn send(&mut self, csid: u32, kind: u8, stream_id: u32, payload: Bytes) {
        let message = Message {
            csid,
            timestamp: 0,
            kind,
            stream_id,
            payload,
        };
        self.writer.write(&mut self.output, &message);
    }
}

/// The AMF0 values of a message: AMF3 messages put one byte before them.
fn amf0_part(message: &Message) -> &[u8] {
    let amf3 = matches!(message.kind, kind::COMMAND_AMF3 | kind::DATA_AMF3);
    match message.payload.split_first() {
        Some((0, rest)) if amf3 => rest,
        _ => &message.payload,
    }
}

fn be32(message: &Message) -> Result<u32, RtmpError> {
    let bytes = message.payload.first_chunk();
    let bytes = bytes.ok_or(RtmpError::Control(message.kind))?;
    Ok(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
