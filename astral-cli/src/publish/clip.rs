//! A file (or a pipe) as fragmented MP4, frame by frame, perhaps round and round.
//!
//! A thread reads the file, ahead by a bounded number of pieces, so that a slow
//! disk does not disturb the pace of sending. Stamps go on from round to round
//! (see [`super::timeline`]).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use astral_media::catalog::Catalog;
use astral_media::fmp4::mux;
use astral_media::frame::{Frame, pack_audio};
use astral_media::source::{Sample, SourceEvent};
use astral_media::track::{Track, TrackKind};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::container::{Container, Kind, Pipe};
use super::namer::Namer;
use super::source::Piece;
use super::timeline::{Rounds, Span, since_zero};
use crate::failure::Failure;

/// Pieces read ahead: about a second.
const AHEAD: usize = 96;
/// Samples looked at before the first is sent, to know each track and its start.
const LOOKED_AT_MAX: usize = 512;
/// Seconds of one track after which no other is waited for, where none may come.
const LOOKED_AT_S: i64 = 2;

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
    /// It cannot be read, or has no codec that is carried.
    pub(crate) fn file(path: &Path, repeat: bool) -> Result<Self, Failure> {
        let shown = path.display();
        let mut file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let failed =
            |error: anyhow::Error| Failure::Other(error.context(format!("cannot send {shown}")));
        let kind = Kind::of_file(&mut file).map_err(failed)?;
        // A round begins with a handle of the same file, also if another took its name.
        let open = move || {
            let mut file = file.try_clone()?;
            file.rewind()?;
            Ok(BufReader::new(file))
        };
        Self::start(kind, open, repeat, true).map_err(failed)
    }

    /// Standard input of a kind that is read from front to back, at its own pace.
    ///
    /// # Errors
    /// It has no codec that is carried.
    pub(super) fn pipe(kind: Kind) -> Result<Self, Failure> {
        let clip = Self::start(kind, || Ok(Pipe::new()), false, false);
        clip.map_err(|error| Failure::Other(error.context("cannot send standard input")))
    }

    /// A clip in memory, again and again.
    pub(crate) fn bundled(bytes: &'static [u8]) -> Result<Self, Failure> {
        let open = move || Ok(Cursor::new(bytes));
        Ok(Self::start(Kind::Mp4, open, true, true)?)
    }

    fn start<R, O>(kind: Kind, open: O, repeat: bool, paced: bool) -> anyhow::Result<Self>
    where
        R: Read + Seek + Send + 'static,
        O: Fn() -> io::Result<R> + Send + 'static,
    {
        let mut reel = Reel::open(kind, open, repeat)?;
        reel.paced = paced;
        let head = mux::init_segment(&reel.catalog);
        let (out, pieces) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            // Ends when the file does, or when nobody takes pieces any more.
            while let Some(piece) = reel.next().transpose() {
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
struct Reel<R, O> {
    kind: Kind,
    open: O,
    file: Container<R>,
    repeat: bool,
    /// Frames are to be sent at their times; else they come at them.
    paced: bool,
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
    /// End of the sample before, in this round.
    end: i64,
    /// Decoding time of the sample before, and the time between two.
    before: Option<i64>,
    step: u32,
}

impl<R: Read + Seek, O: Fn() -> io::Result<R>> Reel<R, O> {
    fn open(kind: Kind, open: O, repeat: bool) -> anyhow::Result<Self> {
        let mut file = Container::open(kind, open()?)?;
        let (lanes, looked_at) = look_at(&mut file)?;
        if lanes.is_empty() {
            let has = match file.ignored().join(", ") {
                codecs if codecs.is_empty() => "nothing else either".to_owned(),
                codecs => codecs,
            };
            bail!("it has no H.264, H.265, AV1, AAC or Opus track (it has: {has})");
        }
        let spans: Vec<Span> = lanes.iter().map(|lane| lane.span).collect();
        let rounds = Rounds::of(&spans).ok_or_else(|| anyhow!("it has no frames"))?;
        let tracks: Vec<Track> = lanes.iter().map(|lane| lane.track.clone()).collect();
        let pictures = tracks.iter().any(|t| t.config.kind() == TrackKind::Video);
        Ok(Self {
            kind,
            open,
            file,
            repeat,
            paced: true,
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
            match self.file.next_event()? {
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
        self.round += 1;
        self.file = Container::open(self.kind, (self.open)()?)?;
        for lane in &mut self.lanes {
            lane.before = None;
        }
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
            at: self.paced.then_some(at),
            entry: name.entry,
        }))
    }
}

impl Lane {
    /// Takes the first two samples' distance for the first one's length.
    fn learn_step(&mut self, dts: i64) {
        if self.step == 0 {
            self.step = u32::try_from(dts - self.span.start).unwrap_or(0);
        }
        self.end = dts;
    }

    /// How long a sample lasts: sound by its codec, pictures as the file says, else as
    /// long as the one before.
    fn duration_of(&mut self, sample: &Sample) -> u32 {
        if let Some(before) = self.before.replace(sample.dts) {
            self.step = u32::try_from(sample.dts - before).unwrap_or(self.step);
        }
        let by_codec = self.track.audio_frame_ticks(&sample.data);
        by_codec.or(sample.duration).unwrap_or(self.step)
    }
}

/// Reads the beginning of a file: its tracks, and where each begins.
fn look_at<R: Read + Seek>(
    file: &mut Container<R>,
) -> anyhow::Result<(Vec<Lane>, VecDeque<Sample>)> {
    let mut tracks = Vec::new();
    let mut samples: VecDeque<Sample> = VecDeque::new();
    let mut lanes: Vec<Lane> = Vec::new();
    let is_wanting = |file: &Container<R>, lanes: &[Lane]| match lanes {
        [] => true,
        [first, ..] => {
            let long =
                (first.end - first.span.start) > LOOKED_AT_S * i64::from(first.track.timescale);
            lanes.len() < file.expected() && !(file.is_pushed() && long)
        }
    };
    while samples.len() < LOOKED_AT_MAX && is_wanting(file, &lanes) {
        match file.next_event()? {
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
                        end: sample.dts,
                        before: None,
                        step: 0,
                    });
                }
                let lane = lanes.iter_mut().find(|lane| lane.source_id == sample.track);
                if let Some(lane) = lane {
                    lane.learn_step(sample.dts);
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
        let mut reel = Reel::open(Kind::Mp4, || Ok(Cursor::new(CLIP)), true).unwrap();
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
    fn files_without_a_stream_are_refused_with_words() {
        let refused = |kind, bytes: &'static [u8]| {
            let reel = Reel::open(kind, move || Ok(Cursor::new(bytes)), false);
            format!("{:#}", reel.err().unwrap())
        };
        assert!(refused(Kind::Flv, b"FLV\x01\x05\0\0\0\x09\0\0\0\0").contains("no H.264"));
        assert!(refused(Kind::Ts, &[0x47; 188 * 8]).len() > 5);
        assert!(refused(Kind::Mp4, b"hello, I am a text").len() > 5);
    }
}
