//! A browser's own encoder: what it announces in JSON, and its coded frames.
//!
//! ```text
//!  page                                          node
//!   │ {"key":…,"tracks":[{…}]}            ──►     │ Registry::open, tracks configured
//!   │                     ◄──   {"ok":true,…}     │
//!   │ frame, frame, …  (media/packets)    ──►     │ Session
//!   │ {"config":{…}}   a track anew       ──►     │
//!   │                     ◄──   {"need_key":true} │ nothing can be begun without a keyframe
//!   │ {"end":true}     a clean end        ──►     │
//! ```
//!
//! Decides what the messages mean; the socket they come by is `http/ingest_ws`.

use std::net::SocketAddr;
use std::time::Duration;

use astral_media::packets::{PacketError, PacketSource};
use astral_media::source::SourceEvent;
use astral_proto::ids::StreamId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Refusal, Registry, Session, SessionError, SourceState};

/// Longest JSON message, bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Time between two requests for a keyframe: encoders answer within a frame or two.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Broken frames in a row after which the encoder is not believed.
const BROKEN_MAX: u32 = 30;

/// Why a browser's encoder is sent away, in words for its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramesError {
    /// No stream has this key.
    #[error("{}", Refusal::UnknownKey)]
    UnknownKey,
    /// A codec that is not carried, or a configuration that cannot be used.
    #[error("{0}")]
    Unsupported(String),
    /// A message that is not what it should be.
    #[error("{0}")]
    Malformed(String),
    /// A frame above the limit.
    #[error("{0}")]
    TooLong(String),
    /// Another encoder holds the stream, or has taken it over.
    #[error("{0}")]
    Busy(String),
    /// The stream was ended on this node.
    #[error("{}", SessionError::Removed)]
    Removed,
    /// This node could not do its part.
    #[error("{0}")]
    Failed(String),
}

impl From<Refusal> for FramesError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownKey => Self::UnknownKey,
            Refusal::Replaced(_) | Refusal::TooMany => Self::Busy(refusal.to_string()),
        }
    }
}

impl From<SessionError> for FramesError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Replaced => Self::Busy(error.to_string()),
            SessionError::Removed => Self::Removed,
            SessionError::Unsupported(words) => Self::Unsupported(words),
            SessionError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<PacketError> for FramesError {
    fn from(error: PacketError) -> Self {
        let words = error.to_string();
        match error {
            PacketError::UnsupportedCodec(_)
            | PacketError::Configuration { .. }
            | PacketError::TooManyTracks => Self::Unsupported(words),
            PacketError::TooLong(_) => Self::TooLong(words),
            PacketError::Truncated(_)
            | PacketError::UnknownTrack(_)
            | PacketError::Time(_)
            | PacketError::Broken { .. } => Self::Malformed(words),
        }
    }
}

/// The first message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    key: String,
    tracks: Vec<Announced>,
}

/// A track in words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Announced {
    id: u8,
    codec: String,
    #[serde(default)]
    config: String,
    #[serde(default)]
    channels: u8,
    /// Said again by the codec string and the configuration, which count.
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
    #[serde(default, rename = "width")]
    _width: Option<u32>,
    #[serde(default, rename = "height")]
    _height: Option<u32>,
    #[serde(default, rename = "sample_rate")]
    _sample_rate: Option<u32>,
}

/// A later JSON message; exactly one of these.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Word {
    Config(Announced),
    End(bool),
}

/// What a JSON message amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// There is more to come.
    More,
    /// The encoder says that it is over.
    End,
}

/// A browser's encoder that was let in.
pub(crate) struct FrameSource {
    session: Session,
    source: PacketSource,
    events: Vec<SourceEvent>,
    has_video: bool,
    /// A keyframe of the running picture has come.
    keyed: bool,
    asked_at: Option<Instant>,
    broken: u32,
}

impl FrameSource {
    /// Takes the first message.
    ///
    /// # Errors
    /// [`FramesError`], with words for the page.
    pub(crate) async fn open(
        registry: &Registry,
        text: &str,
        from: SocketAddr,
    ) -> Result<Self, FramesError> {
        let hello: Hello = parse(text)?;
        if hello.tracks.is_empty() {
            return Err(FramesError::Malformed("no tracks are announced".to_owned()));
        }
        let mut opened = Self {
            session: registry.open(&hello.key, from)?,
            source: PacketSource::new(),
            events: Vec::new(),
            has_video: false,
            keyed: false,
            asked_at: None,
            broken: 0,
        };
        let (video, audio) = kinds(&hello.tracks);
        opened.events.push(SourceEvent::Promised { video, audio });
        for track in &hello.tracks {
            opened.configure(track)?;
        }
        opened.flush().await?;
        Ok(opened)
    }

    /// The stream that is sent.
    pub(crate) fn stream(&self) -> StreamId {
        self.session.stream()
    }

    /// Where the stream stands, as this encoder's page may want to show it.
    pub(crate) fn state(&self) -> watch::Receiver<SourceState> {
        self.session.state()
    }

    /// Cancelled when the session is over from this side; [`Self::over`] says why.
    pub(crate) fn replaced(&self) -> CancellationToken {
        self.session.replaced()
    }

    /// Why the session was ended from this side.
    pub(crate) fn over(&self) -> FramesError {
        self.session.over().into()
    }

    /// Takes a JSON message after the first.
    ///
    /// # Errors
    /// [`FramesError`]: the page is to be told and disconnected.
    pub(crate) async fn text(&mut self, text: &str) -> Result<Said, FramesError> {
        match parse::<Word>(text)? {
            Word::End(true) => return Ok(Said::End),
            Word::End(false) => {}
            Word::Config(track) => {
                self.configure(&track)?;
                self.flush().await?;
            }
        }
        Ok(Said::More)
    }

    /// Takes a coded frame. Not cancel safe, see [`Session::push`].
    ///
    /// # Errors
    /// [`FramesError`]: the page is to be told and disconnected.
    pub(crate) async fn binary(&mut self, message: &[u8]) -> Result<(), FramesError> {
        match self.source.message(message, &mut self.events) {
            Ok(()) => self.broken = 0,
            Err(error) if !error.is_fatal() && self.broken < BROKEN_MAX => {
                self.broken += 1;
                self.keyed = false;
            }
            Err(error) => return Err(error.into()),
        }
        let is_key = |event: &SourceEvent| matches!(event, SourceEvent::Sample(s) if s.keyframe);
        // Sound's frames all are keyframes: only those of a picture count.
        if self.events.iter().any(is_key) && !self.is_sound(message) {
            self.keyed = true;
        }
        self.flush().await
    }

    /// Whether to ask the page for a keyframe now.
    pub(crate) fn asks_for_key(&mut self) -> bool {
        let now = Instant::now();
        let recently = self.asked_at.is_some_and(|asked| now - asked < ASK_EVERY);
        let asks = self.has_video && !self.keyed && !recently;
        if asks {
            self.asked_at = Some(now);
        }
        asks
    }

    /// The stream goes on after a pause: only a keyframe can begin it.
    pub(crate) fn resumed(&mut self) {
        self.keyed = false;
        self.asked_at = None;
    }

    /// Ends the session; `clean` if the page said that it was over.
    pub(crate) async fn finish(self, clean: bool) {
        self.session.finish(clean).await;
    }

    fn configure(&mut self, track: &Announced) -> Result<(), FramesError> {
        let config = STANDARD.decode(&track.config).map_err(|_| {
            FramesError::Malformed(format!("the config of track {} is not base64", track.id))
        })?;
        self.source.configure(
            track.id,
            &track.codec,
            &config,
            track.channels,
            &mut self.events,
        )?;
        if is_video(track) {
            self.has_video = true;
            self.keyed = false;
        }
        Ok(())
    }

    fn is_sound(&self, message: &[u8]) -> bool {
        let track = message.first().copied().unwrap_or(0);
        self.source.is_sound(track)
    }

    async fn flush(&mut self) -> Result<(), FramesError> {
        for event in self.events.drain(..) {
            self.session.push(event).await?;
        }
        Ok(())
    }
}

fn kinds(tracks: &[Announced]) -> (bool, bool) {
    let video = tracks.iter().any(is_video);
    (video, tracks.iter().any(|track| !is_video(track)))
}

fn is_video(track: &Announced) -> bool {
    track.codec.starts_with("avc")
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, FramesError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(FramesError::TooLong(format!(
            "a message of {} bytes is too long",
            text.len()
        )));
    }
    serde_json::from_str(text).map_err(|error| FramesError::Malformed(error.to_string()))
}
