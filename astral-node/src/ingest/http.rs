//! An encoder's bytes as the body of an HTTP request.
//!
//! What they are is told by their first bytes, since encoders send no usable
//! `Content-Type`: fragmented MP4, MPEG-TS or FLV. A body that ends is a clean end; one that
//! breaks off may be followed by another.

use std::fmt::Display;
use std::net::SocketAddr;

use astral_media::flv::{FlvError, FlvFile};
use astral_media::fmp4::{Demuxer, Fmp4Error};
use astral_media::source::SourceEvent;
use astral_media::ts::{TsDemuxer, TsError, looks_like_ts};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;

use super::{Refusal, Registry, SILENCE, Session, SessionError};

/// First bytes that tell what a body is: a box's size, type and brand.
const SNIFFED: usize = 12;

/// Why an encoder's bytes were not taken, in words for whoever sends them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IngestError {
    /// No stream has this key (403).
    #[error("{}", Refusal::UnknownKey)]
    UnknownKey,
    /// Another encoder holds the stream, or has taken it over (409).
    #[error("{0}")]
    Busy(String),
    /// The stream was ended on this node (409).
    #[error("{}", SessionError::Removed)]
    Removed,
    /// A container or codec that is not carried (415).
    #[error("{0}")]
    Unsupported(String),
    /// Bytes that are not what they began as (422).
    #[error("{0}")]
    Malformed(String),
    /// The body broke off, or nothing came for [`SILENCE`] (no answer reaches the sender).
    #[error("the body broke off: {0}")]
    Broken(String),
    /// This node could not do its part (503).
    #[error("{0}")]
    Failed(String),
}

impl From<Refusal> for IngestError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownKey => Self::UnknownKey,
            Refusal::Replaced(_) | Refusal::TooMany => Self::Busy(refusal.to_string()),
        }
    }
}

impl From<SessionError> for IngestError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Replaced => Self::Busy(error.to_string()),
            SessionError::Removed => Self::Removed,
            SessionError::Unsupported(words) => Self::Unsupported(words),
            SessionError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<FlvError> for IngestError {
    fn from(error: FlvError) -> Self {
        let words = error.to_string();
        match error {
            FlvError::UnsupportedCodec(_) | FlvError::Encrypted => Self::Unsupported(words),
            FlvError::Truncated
            | FlvError::VideoConfiguration(_)
            | FlvError::AudioConfiguration(_)
            | FlvError::Picture(_)
            | FlvError::NotFlv
            | FlvError::TagTooLong(_) => Self::Malformed(words),
        }
    }
}

impl From<TsError> for IngestError {
    fn from(error: TsError) -> Self {
        let words = error.to_string();
        match error {
            TsError::UnsupportedCodec(_) | TsError::Encrypted | TsError::PacketSize(_) => {
                Self::Unsupported(words)
            }
            TsError::NotTs(_) | TsError::NoProgram(_) | TsError::PesTooLong => {
                Self::Malformed(words)
            }
        }
    }
}

impl From<Fmp4Error> for IngestError {
    fn from(error: Fmp4Error) -> Self {
        let words = error.to_string();
        if matches!(
            error,
            Fmp4Error::Encrypted { .. } | Fmp4Error::UnsupportedCodec(_)
        ) {
            return Self::Unsupported(words);
        }
        if matches!(error, Fmp4Error::NoMoov { .. }) {
            return Self::Malformed(format!(
                "{words}: not a fragmented MP4. With ffmpeg: -f mp4 -movflags +cmaf+frag_keyframe"
            ));
        }
        Self::Malformed(words)
    }
}

/// Takes an encoder's bytes until they end; returns when the last frame is stored.
///
/// # Errors
/// [`IngestError`], with words for whoever sends.
pub(crate) async fn body<E: Display>(
    registry: &Registry,
    stream_key: &str,
    from: SocketAddr,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), IngestError> {
    let mut session = registry.open(stream_key, from)?;
    let taken = take(&mut session, body).await;
    session.finish(taken.is_ok()).await;
    taken
}

async fn take<E: Display>(
    session: &mut Session,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), IngestError> {
    let mut body = std::pin::pin!(body);
    let mut container = Container::Unknown(BytesMut::new());
    let replaced = session.replaced();
    let mut events = Vec::new();
    loop {
        let piece = tokio::select! {
            biased;
            () = replaced.cancelled() => return Err(session.over().into()),
            piece = timeout(SILENCE, body.next()) => piece,
        };
        let parsed = match piece {
            Err(_) => return Err(IngestError::Broken(format!("silent for {SILENCE:?}"))),
            Ok(Some(Err(error))) => return Err(IngestError::Broken(error.to_string())),
            Ok(Some(Ok(bytes))) => container.push(&bytes, &mut events).map(|()| false),
            Ok(None) => container.finish(&mut events).map(|()| true),
        };
        // What came before an error is whole, and is not lost with it.
        for event in events.drain(..) {
            session.push(event).await?;
        }
        if parsed? {
            return Ok(());
        }
    }
}

/// What a body turned out to be.
enum Container {
    /// Too little has come to tell.
    Unknown(BytesMut),
    Mp4(Box<Demuxer>),
    Flv(Box<FlvFile>),
    Ts(Box<TsDemuxer>),
}

impl Container {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<SourceEvent>) -> Result<(), IngestError> {
        match self {
            Self::Mp4(demuxer) => Ok(demuxer.push(bytes, events)?),
            Self::Flv(file) => Ok(file.push(bytes, events)?),
            Self::Ts(demuxer) => Ok(demuxer.push(bytes, events)?),
            Self::Unknown(head) => {
                head.extend_from_slice(bytes);
                let Some(container) = Self::of(head)? else {
                    return Ok(());
                };
                let head = std::mem::take(head);
                *self = container;
                self.push(&head, events)
            }
        }
    }

    fn finish(&mut self, events: &mut Vec<SourceEvent>) -> Result<(), IngestError> {
        match self {
            Self::Mp4(demuxer) => Ok(demuxer.finish(events)?),
            Self::Flv(file) => {
                file.finish(events);
                Ok(())
            }
            Self::Ts(demuxer) => Ok(demuxer.finish(events)?),
            Self::Unknown(head) if head.is_empty() => {
                Err(IngestError::Malformed("the body is empty".to_owned()))
            }
            Self::Unknown(_) => Err(unsupported("these bytes")),
        }
    }

    /// The container that begins so; none: too little has come to tell.
    fn of(head: &[u8]) -> Result<Option<Self>, IngestError> {
        if head.len() < SNIFFED {
            return Ok(None);
        }
        Ok(Some(match head {
            [b'F', b'L', b'V', ..] => Self::Flv(Box::default()),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] | [_, _, _, _, b's', b't', b'y', b'p', ..] => {
                Self::Mp4(Box::default())
            }
            [0x1a, 0x45, 0xdf, 0xa3, ..] => return Err(unsupported("Matroska or WebM")),
            // A transport stream may begin anywhere in a packet.
            _ => match looks_like_ts(head) {
                Some(true) => Self::Ts(Box::default()),
                Some(false) => return Err(unsupported("this container")),
                None => return Ok(None),
            },
        }))
    }
}

fn unsupported(what: &str) -> IngestError {
    IngestError::Unsupported(format!(
        "{what} cannot be taken here: send fragmented MP4, MPEG-TS or FLV"
    ))
}
