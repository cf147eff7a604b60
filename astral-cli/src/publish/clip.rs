//! A film as fragmented MP4, frame by frame, perhaps round and round.
//!
//! A thread reads the file, ahead by a bounded number of pieces, so that a slow
//! disk does not disturb the pace of sending. Stamps go on from round to round
//! (see [`super::timeline`]).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use astral_media::catalog::Catalog;
use astral_media::fmp4::mux;
use astral_media::frame::{Frame, pack_audio};
use astral_media::source::{Sample, SourceEvent};
use astral_media::track::{Track, TrackKind};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::film::{self, Film, Kind};
use super::namer::Namer;
use super::source::Piece;
use super::timeline::{Rounds, Span, since_zero};
use crate::failure::Failure;

/// Pieces read ahead: about a second.
const AHEAD: usize = 96;
/// Samples looked at before the first is sent, to know each track and its start.
const LOOKED_AT_MAX: usize = 512;

/// A file under way.
pub(crate) struct Clip {
    head: Bytes,
    pieces: mpsc::Receiver<anyhow::Result<Piece>>,
    /// What is sent next must be an entry.
    resync: bool,
}

impl Clip {
    /// Opens a file, to be sent once or again and again.
    ///
    /// # Errors
    /// It cannot be read, or is no MP4, MPEG-TS or FLV with a codec that is carried.
    pub(crate) fn file(path: &Path, repeat: bool) -> Result<Self, Failure> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        // A round begins with a handle of the same file, also if another took its name.
        let open = move || film::open(BufReader::new(file.try_clone()?));
        Self::start(open, repeat, true)
            .map_err(|error| Failure::Other(error.context(format!("cannot send {shown}"))))
    }

    /// A clip in memory, again and again.
    pub(crate) fn bundled(bytes: &'static [u8]) -> Result<Self, Failure> {
        Ok(Self::start(
            move || film::open(Cursor::new(bytes)),
            true,
            true,
        )?)
    }

    /// MPEG-TS or FLV that paces itself, from its start.
    pub(crate) fn piped<R: Read + Send + 'static>(kind: Kind, reader: R) -> Result<Self, Failure> {
        let reader = std::sync::Mutex::new(Some(reader));
        let open = move || {
            let reader = reader.lock().ok().and_then(|mut reader| reader.take());
            let reader = reader.context("a pipe can be read once only")?;
            film::stream(kind, reader)
        };
        Self::start(open, false, false)
            .map_err(|error| Failure::Other(error.context("cannot send standard input")))
    }

    /// `paced` pieces say when they are due; others are sent as they come.
    fn start<O>(open: O, repeat: bool, paced: bool) -> anyhow::Result<Self>
    where
        O: Fn() -> anyhow::Result<Box<dyn Film>> + Send + 'static,
    {
        let mut reel = Reel::open(open, repeat)?;
        let head = mux::init_segment(&reel.catalog);
        let (out, pieces) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            // Ends when the file does, or when nobody takes pieces any more.
            while let Some(mut piece) = reel.next().transpose() {
                if let (false, Ok(piece)) = (paced, &mut piece) {
                    piece.at = None;
                }
                let failed = piece.is_err();
                if out.blocking_send(piece).is_err() || failed {
                    break;
                }
            }
        });
        Ok(Self {
            head,
            pieces,
            resync: false,
        })
    }

    /// The initialisation segment.
    pub(crate) fn head(&self) -> Bytes {
        self.head.clone()
    }

    /// The next fragment; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        loop {
            let Some(piece) = self.pieces.recv().await.transpose()? else {
                return Ok(None);
            };
            if self.resync && !piece.entry {
                continue;
            }
            self.resync = false;
            return Ok(Some(piece));
        }
    }

    /// The connection was lost: goes on at the next keyframe.
    pub(crate) fn restart(&mut self) {
        self.resync = true;
    }
}

/// The file, read frame by frame.
struct Reel<O> {
    open: O,
    film: Box<dyn Film>,
    repeat: bool,
    catalog: Catalog,
    lanes: Vec<Lane>,
    /// Samples that were looked at when the file was opened.
    looked_at: VecDeque<Sample>,
    rounds: Rounds,
    round: u64,
    namer: Namer,
}

/// One track on its way through the file.
struct Lane {
    source_id: u32,
    track: Track,
    span: Span,
    /// The sample before, and its end, in this round.
    last: Option<i64>,
    end: i64,
    /// Last distance between two samples, for those that do not say how long they last.
    distance: u32,
}

impl<O: Fn() -> anyhow::Result<Box<dyn Film>>> Reel<O> {
    fn open(open: O, repeat: bool) -> anyhow::Result<Self> {
        let mut film = open()?;
        let (lanes, looked_at) = look_at(film.as_mut())?;
        if lanes.is_empty() {
            bail!(
                "it has no H.264, H.265, AV1, AAC or Opus track (it has: {})",
                film.ignored().join(", ")
            );
        }
        let spans: Vec<Span> = lanes.iter().map(|lane| lane.span).collect();
        let rounds = Rounds::of(&spans).ok_or_else(|| anyhow!("it has no frames"))?;
        let tracks: Vec<Track> = lanes.iter().map(|lane| lane.track.clone()).collect();
        let pictures = tracks.iter().any(|t| t.config.kind() == TrackKind::Video);
        Ok(Self {
            open,
            film,
            repeat,
            namer: Namer::new(tracks.len(), pictures),
            catalog: catalog(tracks),
            lanes,
            looked_at,
            rounds,
            round: 0,
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<Piece>> {
        loop {
            if let Some(sample) = self.next_sample()? {
                if let Some(piece) = self.piece(sample)? {
                    return Ok(Some(piece));
                }
                continue;
            }
            if !self.repeat {
                return Ok(None);
            }
            self.begin_round()?;
        }
    }

    /// The next sample of this round; none at its end.
    fn next_sample(&mut self) -> anyhow::Result<Option<Sample>> {
        if let Some(sample) = self.looked_at.pop_front() {
            return Ok(Some(sample));
        }
        loop {
            match self.film.next_event()? {
                Some(SourceEvent::Sample(sample)) => return Ok(Some(sample)),
                Some(SourceEvent::Track(track)) => {
                    let lane = self.lanes.iter().find(|lane| lane.source_id == track.id);
                    if lane.is_some_and(|lane| lane.track.config != track.config) {
                        bail!("its pictures or sound change their format on the way");
                    }
                }
                Some(SourceEvent::Promised { .. }) => {}
                Some(SourceEvent::End) | None => return Ok(None),
            }
        }
    }

    fn begin_round(&mut self) -> anyhow::Result<()> {
        if self.round == 0 {
            // Only now the ends of the tracks are known.
            for lane in &mut self.lanes {
                lane.span.end = lane.end;
            }
            let spans: Vec<Span> = self.lanes.iter().map(|lane| lane.span).collect();
            self.rounds = Rounds::of(&spans).ok_or_else(|| anyhow!("it has no length"))?;
        }
        for lane in &mut self.lanes {
            lane.last = None;
        }
        self.round += 1;
        self.film = (self.open)()?;
        Ok(())
    }

    /// Makes a fragment of a sample; none for tracks that are left out.
    fn piece(&mut self, sample: Sample) -> anyhow::Result<Option<Piece>> {
        let Some(index) = self
            .lanes
            .iter()
            .position(|lane| lane.source_id == sample.track)
        else {
            return Ok(None);
        };
        let lane = &mut self.lanes[index];
        let timescale = lane.track.timescale;
        let duration = lane.duration_of(&sample);
        lane.end = sample.dts.saturating_add(duration.into());
        let dts = sample
            .dts
            .saturating_add(self.rounds.offset(timescale, self.round))
            .max(0);
        let at = since_zero(dts, timescale);
        let audio = lane.track.config.kind() == TrackKind::Audio;
        let name = self.namer.name(index, !audio && sample.keyframe, at);
        let frame = Frame {
            track: lane.track.id,
            epoch: self.catalog.epoch,
            group: name.group,
            index: name.index,
            order: name.order,
            dts,
            cts: sample.cts,
            duration,
            keyframe: sample.keyframe,
            discardable: sample.discardable,
            no_keyframe: false,
            payload: if audio {
                pack_audio(&[sample.data])
            } else {
                sample.data
            },
        };
        let bytes = mux::fragment(&lane.track, &frame)?;
        Ok(Some(Piece {
            bytes,
            at: Some(at),
            entry: name.entry,
        }))
    }
}

impl Lane {
    /// How long a sample lasts: sound by its codec, pictures as the file says, else as
    /// long as the one before.
    fn duration_of(&mut self, sample: &Sample) -> u32 {
        let before = self.last.replace(sample.dts);
        let distance = before.and_then(|before| u32::try_from(sample.dts - before).ok());
        self.distance = distance.unwrap_or(self.distance);
        let by_codec = self.track.audio_frame_ticks(&sample.data);
        by_codec.or(sample.duration).unwrap_or(self.distance)
    }
}

/// Reads the beginning of a file: its tracks, and where each begins.
fn look_at(film: &mut dyn Film) -> anyhow::Result<(Vec<Lane>, VecDeque<Sample>)> {
    let mut tracks = Vec::new();
    let mut samples: VecDeque<Sample> = VecDeque::new();
    let mut lanes: Vec<Lane> = Vec::new();
    while samples.len() < LOOKED_AT_MAX && (lanes.is_empty() || lanes.len() < film.expected()) {
        match film.next_event()? {
            Some(SourceEvent::Promised { .. }) => {}
            Some(SourceEvent::Track(track)) => tracks.push(track),
            Some(SourceEvent::Sample(sample)) => {
                let known = lanes.iter().any(|lane| lane.source_id == sample.track);
                let track = tracks.iter().find(|track| track.id == sample.track);
                if let (false, Some(track)) = (known, track) {
                    let number = u8::try_from(lanes.len() + 1).context("too many tracks")?;
                    lanes.push(Lane {
                        source_id: track.id,
                        track: Track {
                            id: number,
                            timescale: track.timescale,
                            config: track.config.clone(),
                        },
                        // The end is a guess until the first round is over.
                        span: Span {
                            timescale: track.timescale,
                            start: sample.dts,
                            end: sample.dts + i64::from(track.timescale),
                        },
                        last: None,
                        end: sample.dts,
                        distance: track.timescale / 30,
                    });
                }
                samples.push_back(sample);
            }
            Some(SourceEvent::End) | None => break,
        }
    }
    Ok((lanes, samples))
}

/// The catalog of the file's tracks; the node makes its own of what arrives.
fn catalog(tracks: Vec<Track>) -> Catalog {
    Catalog {
        version: 1,
        epoch: 1,
        first_group: 0,
        first_sequence: 0,
        target_duration_ms: None,
        part_target_ms: 200,
        timeline_start_ms: 0,
        wall_clock_start_ms: 0,
        bitrate_bps: None,
        tracks,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use astral_media::fmp4::Demuxer;

    use super::*;

    const CLIP: &[u8] = include_bytes!("../../assets/clip.mp4");

    /// Samples of one track as (decoding time, duration).
    type Stamps = Vec<(i64, u32)>;

    fn sent(pieces: usize) -> (Vec<Piece>, Vec<Stamps>) {
        let mut reel = Reel::open(|| film::open(Cursor::new(CLIP)), true).unwrap();
        let mut demuxer = Demuxer::new();
        let mut events = Vec::new();
        demuxer
            .push(&mux::init_segment(&reel.catalog), &mut events)
            .unwrap();
        let mut sent = Vec::new();
        for _ in 0..pieces {
            let piece = reel.next().unwrap().unwrap();
            demuxer.push(&piece.bytes, &mut events).unwrap();
            sent.push(piece);
        }
        let mut stamps = vec![Stamps::new(), Stamps::new()];
        for event in events {
            if let SourceEvent::Sample(sample) = event {
                let track = sample.track as usize - 1;
                stamps[track].push((sample.dts, sample.duration.unwrap()));
            }
        }
        (sent, stamps)
    }

    #[test]
    fn the_clip_goes_round_without_a_seam_in_any_track() {
        let (_, tracks) = sent(3 * (480 + 750) + 100);
        for stamps in tracks {
            assert!(stamps.len() > 1_440);
            for pair in stamps.windows(2) {
                assert_eq!(pair[0].0 + i64::from(pair[0].1), pair[1].0);
            }
        }
    }

    #[test]
    fn entries_are_a_second_apart_and_pieces_in_order_of_time() {
        let (pieces, _) = sent(2 * (480 + 750));
        let entries: Vec<&Piece> = pieces.iter().filter(|piece| piece.entry).collect();
        assert_eq!(entries.len(), 32);
        for pair in entries.windows(2) {
            let gap = pair[1].at.unwrap() - pair[0].at.unwrap();
            assert!(gap.abs_diff(Duration::from_secs(1)) < Duration::from_micros(1));
        }
        // Sound of the next round may begin by its priming before the last picture.
        let slack = Duration::from_millis(40);
        assert!(
            pieces
                .windows(2)
                .all(|pair| pair[1].at.unwrap() + slack > pair[0].at.unwrap())
        );
    }

    #[test]
    fn other_files_are_named_in_the_refusal() {
        let refused = |bytes: &'static [u8]| {
            let reel = Reel::open(move || film::open(Cursor::new(bytes)), false);
            format!("{:#}", reel.err().unwrap())
        };
        assert!(refused(&[0x1a, 0x45, 0xdf, 0xa3]).contains("Matroska"));
        assert!(refused(b"FLV\x01\x05\0\0\0\x09").contains("no H.264"));
        assert!(refused(b"hello, I am a text").len() > 5);
    }
}
