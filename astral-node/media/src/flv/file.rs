//! FLV files and HTTP bodies: a header, then tags (FLV §E.2, §E.4.1).

use bytes::{Buf, BytesMut};

use super::{FlvDemuxer, FlvError};
use crate::rtmp::{Metadata, amf0};
use crate::source::SourceEvent;
use crate::track::TrackKind;

/// Longest tag body, bytes; as long as an RTMP message.
const TAG_BYTES_MAX: usize = 4 << 20;
/// Longest file header, bytes; all known ones have 9.
const HEADER_BYTES_MAX: usize = 1024;
/// Bytes of a tag header, and of the size behind each tag.
const TAG_HEADER: usize = 11;
const BACK_POINTER: usize = 4;

/// Turns the bytes of an FLV file, in any pieces, into events.
///
/// Holds at most one tag (4 MiB) and the piece that is being read.
#[derive(Debug, Default)]
pub struct FlvFile {
    input: BytesMut,
    in_tags: bool,
    demuxer: FlvDemuxer,
}

/// A tag header: type, flags, length of the body, milliseconds.
struct Header {
    kind: u8,
    length: usize,
    timestamp_ms: u32,
}

impl FlvFile {
    /// A parser at the start of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends what they amount to.
    ///
    /// # Errors
    /// [`FlvError`] that [is fatal](FlvError::is_fatal); single broken tags are skipped.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<SourceEvent>) -> Result<(), FlvError> {
        self.input.extend_from_slice(bytes);
        if !self.in_tags && !self.file_header()? {
            return Ok(());
        }
        while self.tag(out)? {}
        Ok(())
    }

    /// Takes the end of the file; a tag that is not whole is dropped.
    pub fn finish(&mut self, out: &mut Vec<SourceEvent>) {
        self.input.clear();
        out.push(SourceEvent::End);
    }

    /// Consumes the file header and the first back pointer; false while they are not whole.
    fn file_header(&mut self) -> Result<bool, FlvError> {
        let seen = self.input.len().min(4);
        if !b"FLV\x01".starts_with(&self.input[..seen]) {
            return Err(FlvError::NotFlv);
        }
        let Some(&length) = self.input.get(5..).and_then(<[u8]>::first_chunk) else {
            return Ok(false);
        };
        let length = u32::from_be_bytes(length) as usize;
        if !(9..=HEADER_BYTES_MAX).contains(&length) {
            return Err(FlvError::NotFlv);
        }
        if self.input.len() < length + BACK_POINTER {
            return Ok(false);
        }
        self.input.advance(length + BACK_POINTER);
        self.in_tags = true;
        Ok(true)
    }

    /// Consumes a tag; false while it is not whole.
    fn tag(&mut self, out: &mut Vec<SourceEvent>) -> Result<bool, FlvError> {
        let Some(header) = self.header()? else {
            return Ok(false);
        };
        if self.input.len() < TAG_HEADER + header.length + BACK_POINTER {
            return Ok(false);
        }
        self.input.advance(TAG_HEADER);
        let body = self.input.split_to(header.length);
        self.input.advance(BACK_POINTER);
        match self.body(&header, &body, out) {
            Err(error) if error.is_fatal() => Err(error),
            Ok(()) | Err(_) => Ok(true),
        }
    }

    fn header(&self) -> Result<Option<Header>, FlvError> {
        let Some(&[flags, l2, l1, l0, t2, t1, t0, t3, _, _, _]) = self.input.first_chunk() else {
            return Ok(None);
        };
        if flags & 0x20 != 0 {
            return Err(FlvError::Encrypted);
        }
        let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        if length > TAG_BYTES_MAX {
            return Err(FlvError::TagTooLong(length));
        }
        Ok(Some(Header {
            kind: flags & 0x1f,
            length,
            timestamp_ms: u32::from_be_bytes([t3, t2, t1, t0]),
        }))
    }

    fn body(
        &mut self,
        header: &Header,
        body: &[u8],
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), FlvError> {
        let kind = match header.kind {
            8 => TrackKind::Audio,
            9 => TrackKind::Video,
            18 => {
                self.script(body, out);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.demuxer.push(kind, header.timestamp_ms, body, out)
    }

    /// Metadata are hints: what cannot be read is not there.
    fn script(&mut self, body: &[u8], out: &mut Vec<SourceEvent>) {
        let values = amf0::decode(body, amf0::Limits::default()).unwrap_or_default();
        if let Some(metadata) = Metadata::from_values(&values) {
            self.demuxer.metadata(&metadata, out);
        }
    }
}
