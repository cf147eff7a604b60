//! A film's frames, whatever container they are in: MP4, MPEG-TS or FLV, told by its
//! first bytes.

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{bail, ensure};
use astral_media::file::Mp4File;
use astral_media::flv::FlvFile;
use astral_media::source::SourceEvent;
use astral_media::ts::{TsDemuxer, looks_like_ts};

/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// Bytes that tell what a film is.
pub(super) const SNIFFED: usize = 2048;
/// Tracks of a film that does not say how many it has.
const TRACKS_USUAL: usize = 2;

/// Frames in an order in which they can be sent.
pub(super) trait Film: Send {
    /// The next track or frame; none after the end.
    fn next_event(&mut self) -> anyhow::Result<Option<SourceEvent>>;

    /// How many tracks it has, as far as is known.
    fn expected(&self) -> usize;

    /// Codecs of tracks that are left out.
    fn ignored(&self) -> Vec<String>;
}

/// What the first bytes of a film are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// MP4, fragmented or not.
    Mp4,
    /// MPEG-TS, from wherever it begins.
    Ts,
    /// FLV.
    Flv,
    /// Something else, by a name for people.
    Other(&'static str),
}

impl Kind {
    /// The kind of what begins so; [`SNIFFED`] bytes are enough.
    pub(super) fn of(head: &[u8]) -> Self {
        match head {
            [b'F', b'L', b'V', ..] => Self::Flv,
            [0x1a, 0x45, 0xdf, 0xa3, ..] => Self::Other("Matroska or WebM"),
            [b'R', b'I', b'F', b'F', ..] => Self::Other("AVI or WAV"),
            _ if looks_like_ts(head) == Some(true) => Self::Ts,
            _ => Self::Mp4,
        }
    }
}

/// Opens a film that can be sought in.
pub(super) fn open<R: Read + Seek + Send + 'static>(
    mut reader: R,
) -> anyhow::Result<Box<dyn Film>> {
    reader.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    reader
        .by_ref()
        .take(SNIFFED as u64)
        .read_to_end(&mut head)?;
    reader.seek(SeekFrom::Start(0))?;
    match Kind::of(&head) {
        Kind::Mp4 => Ok(Box::new(Mp4File::open(reader)?)),
        Kind::Other(what) => bail!(
            "it is {what}, and only MP4, MPEG-TS and FLV are taken here; convert it with \
             `ffmpeg -i FILE -c copy out.mp4`"
        ),
        kind @ (Kind::Ts | Kind::Flv) => stream(kind, reader),
    }
}

/// Reads a film of this kind as it comes.
pub(super) fn stream<R: Read + Send + 'static>(
    kind: Kind,
    reader: R,
) -> anyhow::Result<Box<dyn Film>> {
    ensure!(
        matches!(kind, Kind::Ts | Kind::Flv),
        "it must be MPEG-TS or FLV"
    );
    let parser = match kind {
        Kind::Flv => Parser::Flv(Box::default()),
        Kind::Ts | Kind::Mp4 | Kind::Other(_) => Parser::Ts(Box::default()),
    };
    Ok(Box::new(Stream {
        reader,
        parser,
        events: VecDeque::new(),
        promised: TRACKS_USUAL,
        ended: false,
    }))
}

impl<R: Read + Seek + Send> Film for Mp4File<R> {
    fn next_event(&mut self) -> anyhow::Result<Option<SourceEvent>> {
        Ok(Self::next_event(self)?)
    }

    fn expected(&self) -> usize {
        self.tracks().len()
    }

    fn ignored(&self) -> Vec<String> {
        let ignored = Self::ignored(self).iter();
        ignored.map(|track| track.codec.to_string()).collect()
    }
}

enum Parser {
    Ts(Box<TsDemuxer>),
    Flv(Box<FlvFile>),
}

/// A film that is parsed while it is read.
struct Stream<R> {
    reader: R,
    parser: Parser,
    events: VecDeque<SourceEvent>,
    promised: usize,
    ended: bool,
}

impl<R: Read> Stream<R> {
    fn read(&mut self) -> anyhow::Result<()> {
        let mut bytes = vec![0; READ];
        let read = self.reader.read(&mut bytes)?;
        let mut events = Vec::new();
        match (&mut self.parser, read) {
            (Parser::Ts(demuxer), 0) => demuxer.finish(&mut events)?,
            (Parser::Flv(file), 0) => file.finish(&mut events),
            (Parser::Ts(demuxer), _) => demuxer.push(&bytes[..read], &mut events)?,
            (Parser::Flv(file), _) => file.push(&bytes[..read], &mut events)?,
        }
        self.ended = read == 0;
        self.events.extend(events);
        Ok(())
    }
}

impl<R: Read + Send> Film for Stream<R> {
    fn next_event(&mut self) -> anyhow::Result<Option<SourceEvent>> {
        while self.events.is_empty() && !self.ended {
            self.read()?;
        }
        let event = self.events.pop_front();
        if let Some(SourceEvent::Promised { video, audio }) = &event {
            self.promised = usize::from(*video) + usize::from(*audio);
        }
        Ok(event)
    }

    fn expected(&self) -> usize {
        self.promised
    }

    fn ignored(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn films_are_told_by_their_first_bytes() {
        let mut ts = vec![0; SNIFFED];
        (0..SNIFFED).step_by(188).for_each(|at| ts[at] = 0x47);
        assert_eq!(Kind::of(&ts), Kind::Ts);
        assert_eq!(Kind::of(&ts[77..]), Kind::Ts, "from within a packet");
        assert_eq!(Kind::of(b"FLV\x01\x05\0\0\0\x09"), Kind::Flv);
        assert_eq!(Kind::of(b"\0\0\0\x18ftypisom"), Kind::Mp4);
        let matroska = Kind::of(&[0x1a, 0x45, 0xdf, 0xa3]);
        assert_eq!(matroska, Kind::Other("Matroska or WebM"));
    }
}
