//! Media playlists as text.

use std::fmt::Write as _;

use super::File;

/// Parts of segments that end further back than this many target durations are not
/// listed any more (rfc8216bis §6.2.2).
const PARTS_WITHIN: u64 = 3;
/// Segments that end further back than this many target durations may be skipped in an
/// update (rfc8216bis §4.4.3.8: at least six).
const SKIP_AFTER: u64 = 6;
/// Players stay this many part targets behind (rfc8216bis §4.4.3.8 and Apple's
/// authoring specification 14.3: at least three).
const HOLD_BACK_PARTS: u64 = 3;

/// How far a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// More of it is to come.
    Open,
    /// All of it is there.
    Whole,
    /// Frames are missing that will not come any more.
    Gap,
}

/// One group of one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Media sequence number.
    pub sequence: u64,
    /// Epoch.
    pub epoch: u32,
    /// How far it is.
    pub state: State,
    /// The publisher's wall clock at its start, Unix milliseconds.
    pub wall_ms: i64,
    /// Duration in microseconds; of an open one, so far.
    pub micros: u64,
    /// Duration in microseconds of each of its complete parts, and whether a decoder can
    /// start with it.
    pub parts: Vec<(u64, bool)>,
    /// It begins with a keyframe.
    pub independent: bool,
}

/// How far another rendition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its track.
    pub track: u8,
    /// Media sequence number of its last segment, which may be open.
    pub sequence: u64,
    /// Its last part.
    pub part: Option<u32>,
}

/// What a media playlist says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Playlist {
    /// The track.
    pub track: u8,
    /// Longest segment, milliseconds.
    pub target_ms: u32,
    /// Longest part, milliseconds.
    pub part_target_ms: u32,
    /// The segments, in order, their numbers without a gap; only the last may be open.
    pub segments: Vec<Segment>,
    /// No more will come.
    pub ended: bool,
    /// The other renditions.
    pub reports: Vec<Report>,
}

impl Playlist {
    /// Whether it has what a blocking request asks for (rfc8216bis §6.2.5.2): the segment
    /// or, of an open one, the part. A part beyond those of a finished segment is the
    /// first of the next one.
    pub fn has(&self, sequence: u64, part: Option<u32>) -> bool {
        if self.ended {
            return true;
        }
        let Some(last) = self.segments.last() else {
            return false;
        };
        let open = last.state == State::Open;
        if last.sequence != sequence {
            let finished = self.segments.iter().find(|one| one.sequence == sequence);
            let beyond = finished.zip(part).is_some_and(|(finished, part)| {
                finished.state == State::Whole && part as usize >= finished.parts.len()
            });
            return last.sequence > sequence
                && (!beyond || last.sequence > sequence + 1 || !last.parts.is_empty() || !open);
        }
        match part {
            None => !open,
            Some(part) => (part as usize) < last.parts.len() || last.state == State::Gap,
        }
    }

    /// The playlist as text; `skip`: old segments may be left out (`_HLS_skip`).
    pub fn text(&self, skip: bool) -> String {
        let mut out = String::with_capacity(4096);
        self.head(&mut out);
        let skipped = if skip { self.skippable() } else { 0 };
        if skipped > 0 {
            line(
                &mut out,
                format_args!("#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}"),
            );
        }
        let parts_from = self.behind(PARTS_WITHIN);
        let mut epoch = self.segments.first().map(|first| first.epoch);
        let mut map = None;
        for (index, segment) in self.segments.iter().enumerate() {
            let before = epoch.replace(segment.epoch).unwrap_or(segment.epoch);
            if index < skipped {
                // An update goes on with the map that the skipped ones had.
                map = Some(segment.epoch);
                continue;
            }
            for _ in before..segment.epoch {
                out.push_str("#EXT-X-DISCONTINUITY\n");
            }
            self.segment(&mut out, segment, index >= parts_from, &mut map);
        }
        self.tail(&mut out);
        out
    }

    fn head(&self, out: &mut String) {
        let (target_ms, part_ms) = (u64::from(self.target_ms), u64::from(self.part_target_ms));
        out.push_str("#EXTM3U\n#EXT-X-VERSION:9\n");
        if self.segments.iter().all(|one| one.independent) {
            out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        line(
            out,
            format_args!("#EXT-X-TARGETDURATION:{}", target_ms.div_ceil(1000)),
        );
        line(
            out,
            format_args!(
                "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={},\
                 HOLD-BACK={},PART-HOLD-BACK={}",
                seconds(SKIP_AFTER * target_ms.div_ceil(1000) * 1_000_000),
                seconds(3 * target_ms.div_ceil(1000) * 1_000_000),
                seconds(HOLD_BACK_PARTS * part_ms * 1_000),
            ),
        );
        line(
            out,
            format_args!("#EXT-X-PART-INF:PART-TARGET={}", seconds(part_ms * 1_000)),
        );
        let first = self.segments.first();
        let sequence = first.map_or(0, |first| first.sequence);
        line(out, format_args!("#EXT-X-MEDIA-SEQUENCE:{sequence}"));
        let epoch = first.map_or(0, |first| first.epoch);
        line(out, format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{epoch}"));
    }

    fn segment(&self, out: &mut String, segment: &Segment, parts: bool, map: &mut Option<u32>) {
        let (track, sequence) = (self.track, segment.sequence);
        if segment.state != State::Gap && *map != Some(segment.epoch) {
            *map = Some(segment.epoch);
            let init = File::Init {
                track,
                epoch: segment.epoch,
            };
            line(out, format_args!("#EXT-X-MAP:URI=\"{init}\""));
        }
        let wall = date(segment.wall_ms);
        line(out, format_args!("#EXT-X-PROGRAM-DATE-TIME:{wall}"));
        let listed = if parts { segment.parts.as_slice() } else { &[] };
        for (part, (micros, independent)) in (0u32..).zip(listed) {
            let uri = File::Part {
                track,
                sequence,
                part,
            };
            let independent = match independent {
                true => ",INDEPENDENT=YES",
                false => "",
            };
            // Of a gap, too, they are those that came: what was listed does not change.
            let duration = seconds(*micros);
            line(
                out,
                format_args!("#EXT-X-PART:DURATION={duration},URI=\"{uri}\"{independent}"),
            );
        }
        if segment.state == State::Open {
            return;
        }
        if segment.state == State::Gap {
            out.push_str("#EXT-X-GAP\n");
        }
        let uri = File::Segment { track, sequence };
        line(out, format_args!("#EXTINF:{},", seconds(segment.micros)));
        line(out, format_args!("{uri}"));
    }

    fn tail(&self, out: &mut String) {
        if self.ended {
            out.push_str("#EXT-X-ENDLIST\n");
            return;
        }
        if let Some(last) = self.segments.last() {
            let (sequence, part) = match last.state {
                State::Open => (last.sequence, last.parts.len() as u32),
                State::Whole | State::Gap => (last.sequence + 1, 0),
            };
            let next = File::Part {
                track: self.track,
                sequence,
                part,
            };
            line(
                out,
                format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{next}\""),
            );
        }
        for report in &self.reports {
            let uri = File::Playlist {
                track: report.track,
            };
            let sequence = report.sequence;
            let _ = write!(
                out,
                "#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={sequence}"
            );
            if let Some(part) = report.part {
                let _ = write!(out, ",LAST-PART={part}");
            }
            out.push('\n');
        }
    }

    /// How many segments an update may leave out.
    fn skippable(&self) -> usize {
        self.behind(SKIP_AFTER)
    }

    /// How many segments end further back than this many target durations.
    fn behind(&self, targets: u64) -> usize {
        let limit = targets * u64::from(self.target_ms.div_ceil(1000)) * 1_000_000;
        let mut after: u64 = 0;
        let newer = self.segments.iter().rev().take_while(|segment| {
            let near = after <= limit;
            after = after.saturating_add(segment.micros);
            near
        });
        self.segments.len() - newer.count()
    }
}

/// Microseconds as decimal seconds, five places as the specification's examples have.
fn seconds(micros: u64) -> String {
    let hundredths = micros / 10;
    format!("{}.{:05}", hundredths / 100_000, hundredths % 100_000)
}

/// ISO 8601 with milliseconds, UTC.
fn date(unix_ms: i64) -> String {
    let (days, ms) = (
        unix_ms.div_euclid(86_400_000),
        unix_ms.rem_euclid(86_400_000),
    );
    let (year, month, day) = civil(days);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, ms) = (ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn line(out: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(words);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u64, epoch: u32, state: State, parts: usize) -> Segment {
        Segment {
            sequence,
            epoch,
            state,
            wall_ms: 1_764_033_405_120 + sequence as i64 * 1_000,
            micros: 1_000_000,
            parts: (0..parts).map(|index| (200_000, index == 0)).collect(),
            independent: true,
        }
    }

    fn playlist(segments: Vec<Segment>) -> Playlist {
        Playlist {
            track: 1,
            target_ms: 1_500,
            part_target_ms: 215,
            segments,
            ended: false,
            reports: vec![Report {
                track: 2,
                sequence: 43,
                part: Some(1),
            }],
        }
    }

    #[test]
    fn segments_a_hole_an_epoch_and_an_open_segment_as_text() {
        let text = playlist(vec![
            segment(40, 3, State::Whole, 5),
            segment(41, 3, State::Gap, 1),
            segment(42, 5, State::Whole, 5),
            segment(43, 5, State::Open, 2),
        ])
        .text(false);
        let expected = "\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.00000,HOLD-BACK=6.00000,PART-HOLD-BACK=0.64500
#EXT-X-PART-INF:PART-TARGET=0.21500
#EXT-X-MEDIA-SEQUENCE:40
#EXT-X-DISCONTINUITY-SEQUENCE:3
#EXT-X-MAP:URI=\"init-1-3.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2025-11-25T01:17:25.120Z
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-40-0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-40-1.m4s\"
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-40-2.m4s\"
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-40-3.m4s\"
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-40-4.m4s\"
#EXTINF:1.00000,
seg-1-40.m4s
#EXT-X-PROGRAM-DATE-TIME:2025-11-25T01:17:26.120Z
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-41-0.m4s\",INDEPENDENT=YES
#EXT-X-GAP
#EXTINF:1.00000,
seg-1-41.m4s
#EXT-X-DISCONTINUITY
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"init-1-5.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2025-11-25T01:17:27.120Z
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-42-0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-42-1.m4s\"
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-42-2.m4s\"
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-42-3.m4s\"
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-42-4.m4s\"
#EXTINF:1.00000,
seg-1-42.m4s
#EXT-X-PROGRAM-DATE-TIME:2025-11-25T01:17:28.120Z
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-43-0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.20000,URI=\"part-1-43-1.m4s\"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-1-43-2.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"track-2.m3u8\",LAST-MSN=43,LAST-PART=1
";
        assert_eq!(text, expected);
    }

    #[test]
    fn update_skips_what_is_old_and_full_playlist_names_old_parts_no_more() {
        let mut segments: Vec<_> = (0..20).map(|n| segment(n, 1, State::Whole, 5)).collect();
        segments.push(segment(20, 1, State::Open, 1));
        let playlist = playlist(segments);
        let (full, update) = (playlist.text(false), playlist.text(true));
        assert_eq!(full.matches("#EXTINF").count(), 20);
        // Six target durations of 2 s are 12 segments, and the one that straddles.
        assert!(
            update.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=8\n"),
            "{update}"
        );
        assert_eq!(update.matches("#EXTINF").count(), 12);
        assert!(!update.contains("#EXT-X-MAP"));
        assert!(!full.contains("part-1-12-"), "{full}");
        assert!(full.contains("part-1-14-0.m4s"));
    }

    #[test]
    fn blocking_request_is_answered_once_its_part_or_segment_is_listed() {
        let open = playlist(vec![
            segment(40, 1, State::Whole, 5),
            segment(41, 1, State::Open, 2),
        ]);
        assert!(open.has(40, None) && open.has(40, Some(3)));
        assert!(open.has(40, Some(5)), "the first part of the next");
        assert!(open.has(41, Some(1)) && !open.has(41, Some(2)));
        assert!(!open.has(41, None) && !open.has(42, Some(0)));
        let closed = playlist(vec![segment(40, 1, State::Whole, 5)]);
        assert!(closed.has(40, None) && closed.has(40, Some(4)));
        assert!(!closed.has(40, Some(5)) && !closed.has(41, Some(0)));
        let gap = playlist(vec![segment(40, 1, State::Gap, 1)]);
        assert!(gap.has(40, Some(4)), "what is torn is not waited for");
        let mut ended = closed;
        ended.ended = true;
        assert!(ended.has(99, Some(0)));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(date(unix_ms), text);
        }
        date(i64::MIN);
        date(i64::MAX);
    }
}
