//! The programme: which frame is published when, and how large it is.

use std::time::Duration;

use super::dice::Dice;
use super::scenario::Stream;
use crate::limits::CHUNK_BYTES;
use crate::overlay::Time;

/// Track of the pictures.
pub(super) const VIDEO: u8 = 1;
/// Track of the sound.
pub(super) const AUDIO: u8 = 2;
/// Sound is bundled so that signatures stay cheap.
const AUDIO_BUNDLE: Duration = Duration::from_millis(40);
/// A keyframe is about this many times as large as other pictures.
const KEYFRAME: f64 = 8.0;
/// Signature, body and hash of a frame's first chunk on the wire, and QUIC around it.
pub(super) const FRAME_OVERHEAD: u32 = 200;

/// A frame of the group that repeats.
#[derive(Clone, Copy, Debug)]
struct Slot {
    at: Duration,
    track: u8,
    index: u32,
    bytes: u32,
}

/// Place of a frame: groups are numbered from 1, their frames from 0 in each track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) track: u8,
    pub(super) group: u64,
    pub(super) index: u32,
}

/// A stream's frames, numbered in the order in which they are published.
#[derive(Clone, Debug)]
pub(super) struct Programme {
    start: Time,
    group: Duration,
    slots: Vec<Slot>,
    video: Vec<u32>,
    audio: Vec<u32>,
    pub(super) bitrate_bps: u64,
    pub(super) frame: Duration,
}

impl Programme {
    pub(super) fn new(stream: &Stream, start: Time) -> Self {
        let group = Duration::from_secs_f64(stream.gop_s);
        let pictures = (stream.gop_s * f64::from(stream.fps)).round().max(1.0) as u32;
        let frame = group / pictures;
        let sounds = (group.as_micros() / AUDIO_BUNDLE.as_micros()) as u32;
        let audio_bytes = (stream.audio_bps as f64 * AUDIO_BUNDLE.as_secs_f64() / 8.0) as u32;
        let video_bps = stream.bitrate_bps.saturating_sub(stream.audio_bps);
        let video_bytes = video_bps as f64 * stream.gop_s / 8.0;
        let unit = video_bytes / (f64::from(pictures - 1) + KEYFRAME);
        let mut dice = Dice::new(7);
        let mut slots: Vec<Slot> = (0..pictures)
            .map(|index| {
                let vary = 0.7 + 0.6 * dice.unit();
                let size = if index == 0 {
                    unit * KEYFRAME
                } else {
                    unit * vary
                };
                Slot {
                    at: frame * index,
                    track: VIDEO,
                    index,
                    bytes: size as u32,
                }
            })
            .collect();
        slots.extend((0..sounds).map(|index| Slot {
            at: AUDIO_BUNDLE * index,
            track: AUDIO,
            index,
            bytes: audio_bytes,
        }));
        slots.sort_by_key(|slot| (slot.at, slot.track));
        let of = |track: u8| {
            let numbers = 0..slots.len() as u32;
            numbers
                .filter(|number| slots[*number as usize].track == track)
                .collect()
        };
        Self {
            start,
            group,
            video: of(VIDEO),
            audio: of(AUDIO),
            slots,
            bitrate_bps: stream.bitrate_bps,
            frame,
        }
    }

    fn per_group(&self) -> u32 {
        self.slots.len() as u32
    }

    fn slot(&self, number: u32) -> &Slot {
        &self.slots[(number % self.per_group()) as usize]
    }

    /// When a frame is published.
    pub(super) fn published(&self, number: u32) -> Time {
        let groups = self.group * (number / self.per_group());
        self.start.after(groups + self.slot(number).at)
    }

    pub(super) fn place(&self, number: u32) -> Place {
        let slot = self.slot(number);
        Place {
            track: slot.track,
            group: u64::from(number / self.per_group()) + 1,
            index: slot.index,
        }
    }

    /// The number of the frame at a place; that of the next group's first if the
    /// group has fewer frames.
    pub(super) fn number(&self, place: Place) -> u32 {
        let group = place.group.saturating_sub(1) as u32 * self.per_group();
        let of_track = if place.track == VIDEO {
            &self.video
        } else {
            &self.audio
        };
        let index = of_track.get(place.index as usize).copied();
        group + index.unwrap_or(self.per_group())
    }

    /// First frame of a group.
    pub(super) fn first_of(&self, group: u64) -> u32 {
        group.saturating_sub(1) as u32 * self.per_group()
    }

    pub(super) fn bytes(&self, number: u32) -> u32 {
        self.slot(number).bytes
    }

    /// Bytes of each chunk of a frame, its header in the first one.
    pub(super) fn chunks(&self, number: u32) -> impl Iterator<Item = u32> + use<> {
        let mut left = self.bytes(number);
        let mut overhead = FRAME_OVERHEAD;
        std::iter::from_fn(move || {
            let take = left.min(CHUNK_BYTES as u32);
            left -= take;
            (take > 0).then(|| take + std::mem::take(&mut overhead))
        })
    }

    /// Length of a group.
    pub(super) fn group_length(&self) -> Duration {
        self.group
    }

    /// Group and frames of it that are there, of the pictures published up to `media_us`
    /// microseconds of the programme.
    pub(super) fn newest(&self, media_us: u64) -> (u64, u32) {
        let group = self.group.as_micros() as u64;
        let inside = Duration::from_micros(media_us % group);
        let frames = (inside.as_micros() / self.frame.as_micros()) as u32 + 1;
        (media_us / group + 1, frames.min(self.video.len() as u32))
    }

    /// Microseconds of the programme that are published by `now`.
    pub(super) fn media_us(&self, now: Time) -> u64 {
        now.since(self.start).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_rate_and_each_its_place() {
        let stream = Stream::default();
        let programme = Programme::new(&stream, Time(0));
        let group = programme.first_of(2);
        let bytes: u64 = (0..group).map(|n| u64::from(programme.bytes(n))).sum();
        let bps = bytes as f64 * 8.0 / stream.gop_s;
        assert!((bps / 4e6 - 1.0).abs() < 0.05, "{bps}");
        for number in [0, 1, 57, group, group * 7 + 13] {
            assert_eq!(programme.number(programme.place(number)), number);
        }
        assert!(
            programme.chunks(0).count() > 4,
            "a keyframe has several chunks"
        );
        assert_eq!(programme.newest(2_050_000), (2, 2));
        assert_eq!(programme.published(group), Time(2_000_000));
    }
}
