//! MP4 files, for publishing them: progressive or fragmented, `moov` first or last.
//!
//! Samples come in the order of their decoding times over all tracks, read one by
//! one. In memory are the `moov`, a place for each fragment, and one sample. The
//! file's first `moov` counts; those that follow it are passed over.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};

use mp4_atom::{Moof, Moov};
use thiserror::Error;

use crate::fmp4::boxes::{BoxHeader, MAX_HEADER};
use crate::fmp4::demux::MAX_BOX;
use crate::fmp4::fragment::plan_fragment;
use crate::fmp4::table::SampleTable;
use crate::fmp4::track::{MoovTracks, Planned};
use crate::fmp4::{Fmp4Error, FourCc, IgnoredTrack};
use crate::source::{SourceEvent, SourceTrack};

/// Most bytes of a file's `moov`: enough for about ten hours with sound.
pub const MAX_MOOV: u64 = 64 << 20;
/// Most fragments of a file; each takes 32 bytes of memory.
pub const MAX_FRAGMENTS: usize = 2_000_000;

/// Why a file was refused.
#[derive(Debug, Error)]
pub enum FileError {
    /// Reading failed.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    /// Its content is not taken.
    #[error(transparent)]
    Mp4(#[from] Fmp4Error),
    /// There is no `moov` anywhere.
    #[error("the file has no `moov`: it is not MP4, or its recording was cut off")]
    NoMoov,
    /// More than [`MAX_FRAGMENTS`].
    #[error("the file has more than 2000000 fragments")]
    TooManyFragments,
}

/// An MP4 file, read from front to back.
///
/// As an iterator it gives what a demuxer would: tracks, samples, then
/// [`SourceEvent::End`]. It ends after the first error.
#[derive(Debug)]
pub struct Mp4File<R> {
    reader: R,
    length: u64,
    tracks: MoovTracks,
    cursors: Vec<Cursor>,
    fragments: Vec<BoxHeader>,
    events: VecDeque<SourceEvent>,
    sample: Vec<u8>,
    ended: bool,
}

/// How far one track has been read.
#[derive(Debug)]
struct Cursor {
    table: SampleTable,
    next_fragment: usize,
    plan: VecDeque<Planned>,
}

impl<R: Read + Seek> Mp4File<R> {
    /// Looks through the boxes of a file and reads its `moov`.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open(mut reader: R) -> Result<Self, FileError> {
        let length = reader.seek(SeekFrom::End(0))?;
        let scan = scan(&mut reader, length)?;
        let (header, moov) = scan.moov.ok_or(FileError::NoMoov)?;
        let mut tracks = MoovTracks::read(&moov, &header)?;
        let mut first = Vec::new();
        let mut cursors = Vec::new();
        for track in &mut tracks.tracks {
            track.announce(&mut first);
            let of_track = |trak: &&mp4_atom::Trak| trak.tkhd.track_id == track.id;
            let trak = moov.trak.iter().find(of_track);
            let trak = trak.ok_or(FileError::NoMoov)?;
            cursors.push(Cursor {
                table: SampleTable::new(&trak.mdia.minf.stbl, header),
                next_fragment: 0,
                plan: VecDeque::new(),
            });
        }
        Ok(Self {
            reader,
            length,
            tracks,
            cursors,
            fragments: scan.fragments,
            events: first.into(),
            sample: Vec::new(),
            ended: false,
        })
    }

    /// The tracks as they are now; those without parameter sets in the `moov` are
    /// missing until their first picture.
    pub fn tracks(&self) -> Vec<SourceTrack> {
        let tracks = self.tracks.tracks.iter();
        tracks.filter_map(|track| track.source_track()).collect()
    }

    /// Tracks that are left out because their codec is not carried.
    pub fn ignored(&self) -> &[IgnoredTrack] {
        &self.tracks.ignored
    }

    /// The next track or sample; none after the end.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn next_event(&mut self) -> Result<Option<SourceEvent>, FileError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            match self.next_planned()? {
                Some(planned) => self.read_sample(&planned)?,
                None => {
                    self.ended = true;
                    self.events.push_back(SourceEvent::End);
                }
            }
        }
    }

    /// The earliest sample of those that are next in their tracks.
    fn next_planned(&mut self) -> Result<Option<Planned>, FileError> {
        for index in 0..self.cursors.len() {
            self.fill(index)?;
        }
        let heads = self.cursors.iter().enumerate();
        let earliest = heads
            .filter_map(|(index, cursor)| {
                let dts = i128::from(cursor.plan.front()?.dts);
                let timescale = i128::from(self.tracks.tracks[index].timescale);
                Some((dts * 1_000_000_000 / timescale, index))
            })
            .min();
        Ok(earliest.and_then(|(_, index)| self.cursors[index].plan.pop_front()))
    }

    /// Sees to it that a track's next sample is planned, if it has one.
    fn fill(&mut self, index: usize) -> Result<(), FileError> {
        while self.cursors[index].plan.is_empty() {
            let cursor = &mut self.cursors[index];
            let state = &mut self.tracks.tracks[index];
            if let Some(planned) = cursor.table.next(index, state)? {
                cursor.plan.push_back(planned);
                continue;
            }
            let Some(&header) = self.fragments.get(cursor.next_fragment) else {
                return Ok(());
            };
            cursor.next_fragment += 1;
            let body = read_body(&mut self.reader, &header, MAX_BOX)?;
            let moof: Moof = header.decode(&body)?;
            let mut plan = Vec::new();
            plan_fragment(&moof, &header, &mut self.tracks, Some(index), &mut plan)?;
            self.cursors[index].plan.extend(plan);
        }
        Ok(())
    }

    fn read_sample(&mut self, planned: &Planned) -> Result<(), FileError> {
        let end = planned.offset.checked_add(planned.size.into());
        if end.is_none_or(|end| end > self.length) {
            return Err(Fmp4Error::Truncated {
                kind: FourCc(*b"mdat"),
                offset: self.length,
            }
            .into());
        }
        self.reader.seek(SeekFrom::Start(planned.offset))?;
        self.sample.resize(planned.size as usize, 0);
        self.reader.read_exact(&mut self.sample)?;
        let mut out = Vec::new();
        self.tracks.tracks[planned.track].deliver(planned, &self.sample, &mut out)?;
        self.events.extend(out);
        Ok(())
    }
}

impl<R: Read + Seek> Iterator for Mp4File<R> {
    type Item = Result<SourceEvent, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.next_event();
        self.ended |= event.is_err();
        event.transpose()
    }
}

#[derive(Default)]
struct Scan {
    moov: Option<(BoxHeader, Moov)>,
    fragments: Vec<BoxHeader>,
}

/// Steps over the boxes of a file; a last box that is cut off ends it.
fn scan<R: Read + Seek>(reader: &mut R, length: u64) -> Result<Scan, FileError> {
    let mut found = Scan::default();
    let mut position = 0;
    while let Some(header) = read_header(reader, position, length)? {
        let end = header.end().unwrap_or(length);
        if end > length {
            break;
        }
        match &header.kind.0 {
            b"moov" if found.moov.is_none() => {
                let body = read_body(reader, &header, MAX_MOOV)?;
                found.moov = Some((header, header.decode(&body)?));
            }
            b"moof" if found.fragments.len() == MAX_FRAGMENTS => {
                return Err(FileError::TooManyFragments);
            }
            b"moof" => found.fragments.push(header),
            _ => {}
        }
        position = end;
    }
    Ok(found)
}

fn read_header<R: Read + Seek>(
    reader: &mut R,
    position: u64,
    length: u64,
) -> Result<Option<BoxHeader>, FileError> {
    let left = length.saturating_sub(position).min(MAX_HEADER as u64);
    let mut head = [0; MAX_HEADER];
    let head = &mut head[..left as usize];
    reader.seek(SeekFrom::Start(position))?;
    reader.read_exact(head)?;
    Ok(BoxHeader::parse(head, position)?)
}

fn read_body<R: Read + Seek>(
    reader: &mut R,
    header: &BoxHeader,
    limit: u64,
) -> Result<Vec<u8>, FileError> {
    let size = header.bounded_body(limit)?;
    reader.seek(SeekFrom::Start(header.body_offset()))?;
    let mut body = Vec::new();
    reader.by_ref().take(size).read_to_end(&mut body)?;
    Ok(body)
}
