//! Frames of a live stream to fragmented MP4 for one viewer, losses bridged.
//!
//! While nothing is lost, its output is [`init_segment`] and one [`fragment`] per
//! frame, byte for byte. When frames are missing, players stop unless helped:
//!
//! * pictures missing: nothing goes out up to the next keyframe, which then starts
//!   where the last picture ended and lasts as much longer (one continuous range);
//! * sound missing: silent frames fill the gap once the next sound arrives.
//!
//! It begins with a keyframe; sound from before it is left out. It does not sort
//! frames, wait, or notice lost pictures by itself: the reader, which does, says so
//! with [`LiveMuxer::lost`].

use bytes::Bytes;

use super::mux::{MuxError, fragment, init_segment};
use crate::catalog::Catalog;
use crate::frame::{Frame, MAX_AUDIO_UNITS, pack_audio};
use crate::track::{Track, TrackKind};

/// Longest gap in sound that is filled with silence, in seconds.
///
/// The timeline keeps gaps of a source up to 10 s; a longer one is a jump, and
/// players seek over it.
pub const MAX_SILENCE_S: i64 = 10;

/// Bytes to append to what the viewer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// An initialisation segment, or one `moof` with its `mdat`.
    pub bytes: Bytes,
    /// It is an initialisation segment; the other fields then mean nothing.
    pub init: bool,
    /// Track number; 0 for an initialisation segment.
    pub track: u8,
    /// A viewer could start here: a video keyframe, or any sound.
    pub keyframe: bool,
    /// Decoding time on the stream's timeline, in milliseconds, rounded down.
    pub dts_ms: i64,
    /// Duration in milliseconds, rounded down.
    pub duration_ms: i64,
}

/// Makes pieces of the frames of a stream, in the order they are given.
#[derive(Clone, Debug, Default)]
pub struct LiveMuxer {
    epoch: Option<u32>,
    tracks: Vec<LiveTrack>,
    /// Time of the first keyframe in nanoseconds, once it was there.
    started: Option<i128>,
}

#[derive(Clone, Debug)]
struct LiveTrack {
    track: Track,
    /// End of the last frame written, in ticks.
    end: Option<i64>,
    /// Nothing may be written up to the next keyframe.
    waiting: bool,
    /// Frames went missing since the last one written.
    lost: bool,
}

impl LiveMuxer {
    /// A muxer that waits for its catalog.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a catalog, the first or a later one: before the first frame it describes.
    ///
    /// An initialisation segment is appended to `out` if tracks are not as they were.
    /// Video tracks that changed begin again with a keyframe.
    pub fn catalog(&mut self, catalog: &Catalog, out: &mut Vec<Piece>) {
        self.epoch = Some(catalog.epoch);
        let same = self.tracks.iter().map(|live| &live.track);
        if same.eq(&catalog.tracks) {
            return;
        }
        let before = std::mem::take(&mut self.tracks);
        let tracks = catalog.tracks.iter();
        self.tracks = tracks.map(|track| LiveTrack::new(track, &before)).collect();
        out.push(Piece {
            bytes: init_segment(catalog),
            init: true,
            track: 0,
            keyframe: false,
            dts_ms: 0,
            duration_ms: 0,
        });
    }

    /// Takes the next frame and appends what comes of it to `out`.
    ///
    /// Frames of another epoch than the catalog's, of unknown tracks, and those that
    /// wait for a keyframe are passed over.
    ///
    /// # Errors
    /// [`MuxError`] if the frame cannot be written; the muxer goes on without it.
    pub fn frame(&mut self, frame: &Frame, out: &mut Vec<Piece>) -> Result<(), MuxError> {
        if self.epoch != Some(frame.epoch) {
            return Ok(());
        }
        let Some(index) = self.index_of(frame.track) else {
            return Ok(());
        };
        match self.tracks[index].track.config.kind() {
            TrackKind::Video => self.video(index, frame, out),
            TrackKind::Audio => self.audio(index, frame, out),
        }
    }

    /// Says that frames of a track are missing before the next one given.
    ///
    /// Lost sound shows by its times, so this matters for pictures only.
    pub fn lost(&mut self, track: u8) {
        if let Some(index) = self.index_of(track) {
            let live = &mut self.tracks[index];
            if live.track.config.kind() == TrackKind::Video {
                live.waiting = true;
                live.lost = true;
            }
        }
    }

    fn index_of(&self, track: u8) -> Option<usize> {
        self.tracks.iter().position(|live| live.track.id == track)
    }

    fn has_video(&self) -> bool {
        let mut kinds = self.tracks.iter().map(|live| live.track.config.kind());
        kinds.any(|kind| kind == TrackKind::Video)
    }

    fn video(&mut self, index: usize, frame: &Frame, out: &mut Vec<Piece>) -> Result<(), MuxError> {
        let live = &mut self.tracks[index];
        if live.waiting && !frame.keyframe {
            return Ok(());
        }
        let mut frame = frame.clone();
        if live.lost {
            live.stretch(&mut frame);
        }
        live.write(&frame, out)?;
        live.waiting = false;
        live.lost = false;
        let start = nanoseconds(frame.dts, live.track.timescale);
        self.started.get_or_insert(start);
        Ok(())
    }

    fn audio(&mut self, index: usize, frame: &Frame, out: &mut Vec<Piece>) -> Result<(), MuxError> {
        let has_video = self.has_video();
        let live = &mut self.tracks[index];
        if has_video && live.end.is_none() {
            let time = nanoseconds(frame.dts, live.track.timescale);
            if self.started.is_none_or(|started| time < started) {
                return Ok(());
            }
        }
        live.fill_with_silence(frame, out)?;
        live.write(frame, out)
    }
}

impl LiveTrack {
    /// A track as the catalog has it; its position goes on from `before`.
    fn new(track: &Track, before: &[Self]) -> Self {
        let earlier = before
            .iter()
            .find(|live| live.track.id == track.id && live.track.timescale == track.timescale);
        let unchanged = earlier.filter(|live| live.track == *track);
        Self {
            track: track.clone(),
            end: earlier.and_then(|live| live.end),
            waiting: unchanged.map_or(track.config.kind() == TrackKind::Video, |live| live.waiting),
            lost: unchanged.is_some_and(|live| live.lost),
        }
    }

    /// Lets the frame start where the last one ended, and end where it would.
    fn stretch(&self, frame: &mut Frame) {
        let Some(end) = self.end.filter(|&end| end < frame.dts) else {
            return;
        };
        let gap = frame.dts - end;
        let stretched = gap.saturating_add(frame.duration.into());
        frame.duration = u32::try_from(stretched).unwrap_or(u32::MAX);
        frame.dts = end;
    }

    fn fill_with_silence(&self, next: &Frame, out: &mut Vec<Piece>) -> Result<(), MuxError> {
        let (Some(end), Some(silence)) = (self.end, self.track.config.silence()) else {
            return Ok(());
        };
        let Some(unit) = self.track.audio_frame_ticks(silence) else {
            return Ok(());
        };
        let (gap, unit) = (next.dts.saturating_sub(end), i64::from(unit));
        if gap <= unit || gap > MAX_SILENCE_S * i64::from(self.track.timescale) {
            return Ok(());
        }
        let mut start = end;
        while next.dts - start >= unit {
            let units = ((next.dts - start) / unit).min(MAX_AUDIO_UNITS as i64);
            let left = next.dts - start - units * unit;
            // What is less than a frame goes to the last bundle.
            let duration = units * unit + if left < unit { left } else { 0 };
            let mut frame = next.clone();
            frame.dts = start;
            frame.duration = u32::try_from(duration).unwrap_or(u32::MAX);
            frame.payload = pack_audio(&vec![Bytes::from_static(silence); units as usize]);
            out.push(self.piece(&frame)?);
            start += duration;
        }
        Ok(())
    }

    fn write(&mut self, frame: &Frame, out: &mut Vec<Piece>) -> Result<(), MuxError> {
        out.push(self.piece(frame)?);
        self.end = frame.dts.checked_add(frame.duration.into());
        Ok(())
    }

    fn piece(&self, frame: &Frame) -> Result<Piece, MuxError> {
        Ok(Piece {
            bytes: fragment(&self.track, frame)?,
            init: false,
            track: frame.track,
            keyframe: frame.keyframe || self.track.config.kind() == TrackKind::Audio,
            dts_ms: milliseconds(frame.dts, self.track.timescale),
            duration_ms: milliseconds(frame.duration.into(), self.track.timescale),
        })
    }
}

fn nanoseconds(ticks: i64, timescale: u32) -> i128 {
    (i128::from(ticks) * 1_000_000_000).div_euclid(i128::from(timescale.max(1)))
}

fn milliseconds(ticks: i64, timescale: u32) -> i64 {
    let milliseconds = (i128::from(ticks) * 1000).div_euclid(i128::from(timescale.max(1)));
    i64::try_from(milliseconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Atom, Moof};

    use super::*;
    use crate::catalog::tests::sample;

    const VIDEO_TICKS: i64 = 512;
    const AUDIO_TICKS: i64 = 2048;

    fn video(number: i64) -> Frame {
        Frame {
            track: 1,
            epoch: 7,
            group: number as u64 / 10,
            index: number as u32 % 10,
            order: number as u32 % 10,
            dts: number * VIDEO_TICKS,
            cts: 0,
            duration: VIDEO_TICKS as u32,
            keyframe: number % 10 == 0,
            discardable: false,
            no_keyframe: false,
            payload: Bytes::from_static(b"\0\0\0\x02ab"),
        }
    }

    fn audio(number: i64) -> Frame {
        let unit = Bytes::from_static(&[0x21, 0]);
        Frame {
            track: 2,
            dts: number * AUDIO_TICKS,
            duration: AUDIO_TICKS as u32,
            keyframe: true,
            payload: pack_audio(&[unit.clone(), unit]),
            ..video(0)
        }
    }

    fn started() -> (LiveMuxer, Vec<Piece>) {
        let (mut muxer, mut out) = (LiveMuxer::new(), Vec::new());
        muxer.catalog(&sample(), &mut out);
        (muxer, out)
    }

    /// Start and duration of each sample, in ticks.
    fn times(piece: &Piece) -> Vec<(u64, u32)> {
        let moof_size = u32::from_be_bytes(piece.bytes[..4].try_into().unwrap()) as usize;
        let moof = Moof::decode_body(&mut &piece.bytes[8..moof_size]).unwrap();
        let traf = &moof.traf[0];
        let mut time = traf.tfdt.as_ref().unwrap().base_media_decode_time;
        let samples = traf.trun[0].samples.iter();
        samples
            .map(|sample| {
                let duration = sample.duration.unwrap();
                time += u64::from(duration);
                (time - u64::from(duration), duration)
            })
            .collect()
    }

    #[test]
    fn without_loss_the_pieces_are_those_of_the_stateless_muxer() {
        let catalog = sample();
        let (mut muxer, mut out) = started();
        let frames = [video(0), audio(0), video(1), video(2), audio(1)];
        let mut expected = vec![init_segment(&catalog)];
        for frame in &frames {
            muxer.frame(frame, &mut out).unwrap();
            let track = catalog.track(frame.track).unwrap();
            expected.push(fragment(track, frame).unwrap());
        }
        let bytes: Vec<_> = out.into_iter().map(|piece| piece.bytes).collect();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn it_begins_with_a_keyframe_and_no_sound_from_before_it() {
        let (mut muxer, mut out) = started();
        for frame in [video(8), audio(0), video(9), video(10), audio(6), audio(8)] {
            muxer.frame(&frame, &mut out).unwrap();
        }
        let tracks: Vec<_> = out
            .iter()
            .map(|piece| (piece.track, piece.dts_ms))
            .collect();
        assert_eq!(tracks, [(0, 0), (1, 333), (2, 341)]);
    }

    #[test]
    fn a_stream_of_sound_alone_begins_at_once() {
        let mut catalog = sample();
        catalog.tracks.remove(0);
        let (mut muxer, mut out) = (LiveMuxer::new(), Vec::new());
        muxer.catalog(&catalog, &mut out);
        muxer.frame(&audio(3), &mut out).unwrap();
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn the_keyframe_after_lost_pictures_is_stretched_over_the_gap() {
        let (mut muxer, mut out) = started();
        muxer.frame(&video(0), &mut out).unwrap();
        muxer.frame(&video(1), &mut out).unwrap();
        muxer.lost(1);
        for number in 5..12 {
            muxer.frame(&video(number), &mut out).unwrap();
        }
        let starts: Vec<_> = out[1..].iter().flat_map(times).collect();
        let gap = 10 * 512 - 1024;
        assert_eq!(
            starts,
            [(0, 512), (512, 512), (1024, gap + 512), (11 * 512, 512)]
        );
    }

    #[test]
    fn a_gap_in_sound_is_filled_with_silence_without_a_hole() {
        let (mut muxer, mut out) = started();
        muxer.frame(&video(0), &mut out).unwrap();
        muxer.frame(&audio(0), &mut out).unwrap();
        let mut late = audio(90);
        late.dts += 300;
        muxer.frame(&late, &mut out).unwrap();
        let samples: Vec<_> = out[2..].iter().flat_map(times).collect();
        for pair in samples.windows(2) {
            assert_eq!(pair[0].0 + u64::from(pair[0].1), pair[1].0);
        }
        assert_eq!(samples.len(), 2 + 178 + 2);
        assert_eq!(
            samples.last().map(|last| last.0),
            Some(late.dts as u64 + 1024)
        );
    }

    #[test]
    fn gaps_of_a_frame_or_of_more_than_ten_seconds_stay() {
        let (mut muxer, mut out) = started();
        muxer.frame(&video(0), &mut out).unwrap();
        for dts in [0, 2048 + 1024, 2048 * 2 + 1024 + 480_001] {
            let frame = Frame { dts, ..audio(0) };
            muxer.frame(&frame, &mut out).unwrap();
        }
        assert_eq!(out.len(), 2 + 3);
    }

    #[test]
    fn only_changed_tracks_make_a_new_initialisation_segment() {
        let (mut muxer, mut out) = started();
        muxer.frame(&video(0), &mut out).unwrap();
        let mut catalog = sample();
        (catalog.epoch, catalog.version) = (8, 4);
        muxer.catalog(&catalog, &mut out);
        assert_eq!(out.len(), 2);
        muxer.frame(&video(1), &mut out).unwrap();
        assert_eq!(out.len(), 2, "a frame of the old epoch");
        catalog.tracks[0].timescale = 90_000;
        muxer.catalog(&catalog, &mut out);
        assert!(out[2].init);
        let next = |number| Frame {
            epoch: 8,
            ..video(number)
        };
        muxer.frame(&next(1), &mut out).unwrap();
        muxer.frame(&next(10), &mut out).unwrap();
        assert_eq!(out.len(), 4);
    }
}
