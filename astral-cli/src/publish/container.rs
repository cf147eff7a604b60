//! The kinds of files that are sent: MP4, FLV and MPEG-TS, told by their first bytes.
//!
//! MP4 needs to be read here and there; the other two are read from front to back, and
//! so may come through a pipe.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use anyhow::bail;
use astral_media::file::Mp4File;
use astral_media::flv::FlvFile;
use astral_media::source::SourceEvent;
use astral_media::ts::TsDemuxer;

/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// Tracks to wait for where nothing says how many there are: picture and sound.
const TRACKS_EXPECTED: usize = 2;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Mp4,
    Flv,
    Ts,
}

impl Kind {
    /// The kind of a file by its first bytes; what is not known is left to the MP4
    /// reader, which has words for it.
    ///
    /// # Errors
    /// It is known, and not taken.
    pub(super) fn of(first: &[u8]) -> anyhow::Result<Self> {
        Ok(match first {
            [b'F', b'L', b'V', ..] => Self::Flv,
            [0x47, ..] => Self::Ts,
            [0x1a, 0x45, 0xdf, 0xa3, ..] => bail!(
                "it is Matroska or WebM, and MP4, FLV and MPEG-TS are taken here; convert it \
                 with `ffmpeg -i FILE -c copy out.mp4`"
            ),
            _ => Self::Mp4,
        })
    }

    /// The kind of a file, which is then at its beginning again.
    pub(super) fn of_file(reader: &mut (impl Read + Seek)) -> anyhow::Result<Self> {
        let mut first = [0; 8];
        let read = reader.read(&mut first)?;
        reader.seek(SeekFrom::Start(0))?;
        Self::of(&first[..read])
    }
}

/// A file that is read sample by sample.
pub(super) enum Container<R> {
    Mp4(Mp4File<R>),
    Pushed(Pushed<R>),
}

/// A file that is read from front to back.
pub(super) struct Pushed<R> {
    reader: R,
    demuxer: Demuxer,
    events: VecDeque<SourceEvent>,
    ended: bool,
    expected: usize,
}

enum Demuxer {
    Flv(Box<FlvFile>),
    Ts(Box<TsDemuxer>),
}

impl<R: Read + Seek> Container<R> {
    /// A file of this kind, at its beginning.
    pub(super) fn open(kind: Kind, reader: R) -> anyhow::Result<Self> {
        let demuxer = match kind {
            Kind::Mp4 => return Ok(Self::Mp4(Mp4File::open(reader)?)),
            Kind::Flv => Demuxer::Flv(Box::new(FlvFile::new())),
            Kind::Ts => Demuxer::Ts(Box::new(TsDemuxer::new())),
        };
        Ok(Self::Pushed(Pushed {
            reader,
            demuxer,
            events: VecDeque::new(),
            ended: false,
            expected: TRACKS_EXPECTED,
        }))
    }

    /// The next track or sample; none after the end.
    pub(super) fn next_event(&mut self) -> anyhow::Result<Option<SourceEvent>> {
        match self {
            Self::Mp4(file) => Ok(file.next_event()?),
            Self::Pushed(file) => file.next_event(),
        }
    }

    /// How many tracks there will be.
    pub(super) fn expected(&self) -> usize {
        match self {
            Self::Mp4(file) => file.tracks().len(),
            Self::Pushed(file) => file.expected,
        }
    }

    /// Whether tracks may come late, so that nobody must wait long for them.
    pub(super) fn is_pushed(&self) -> bool {
        matches!(self, Self::Pushed(_))
    }

    /// Codecs of the tracks that are left out.
    pub(super) fn ignored(&self) -> Vec<String> {
        match self {
            Self::Mp4(file) => file.ignored().iter().map(|t| t.codec.to_string()).collect(),
            Self::Pushed(_) => Vec::new(),
        }
    }
}

impl<R: Read> Pushed<R> {
    fn next_event(&mut self) -> anyhow::Result<Option<SourceEvent>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if let SourceEvent::Promised { video, audio } = event {
                    self.expected = (usize::from(video) + usize::from(audio)).max(1);
                }
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut bytes = vec![0; READ];
        let read = match self.reader.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            read => read?,
        };
        let mut out = Vec::new();
        self.ended = read == 0;
        match &mut self.demuxer {
            Demuxer::Flv(demuxer) if self.ended => demuxer.finish(&mut out),
            Demuxer::Flv(demuxer) => demuxer.push(&bytes[..read], &mut out)?,
            Demuxer::Ts(demuxer) if self.ended => demuxer.finish(&mut out)?,
            Demuxer::Ts(demuxer) => demuxer.push(&bytes[..read], &mut out)?,
        }
        self.events.extend(out);
        Ok(())
    }
}

/// Standard input, which cannot be read here and there.
pub(super) struct Pipe(io::Stdin);

impl Pipe {
    /// Standard input, whatever of it has been looked at.
    pub(super) fn new() -> Self {
        Self(io::stdin())
    }

    /// Its first bytes, which stay to be read.
    pub(super) fn peek() -> io::Result<Vec<u8>> {
        use std::io::BufRead as _;
        let mut stdin = io::stdin().lock();
        Ok(stdin.fill_buf()?.iter().copied().take(8).collect())
    }
}

impl Read for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Seek for Pipe {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::NotSeekable.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        assert_eq!(Kind::of(b"FLV\x01\x05").unwrap(), Kind::Flv);
        assert_eq!(Kind::of(b"\x47\x40\x11\x10").unwrap(), Kind::Ts);
        assert_eq!(Kind::of(b"\0\0\0\x20ftypisom").unwrap(), Kind::Mp4);
        let refused = Kind::of(b"\x1a\x45\xdf\xa3").unwrap_err();
        assert!(refused.to_string().contains("WebM"));
    }
}
