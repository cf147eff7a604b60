//! A conformance check for low-latency HLS: every rule of the low-latency profile of
//! draft-pantos-hls-rfc8216bis (appendix B.1) and of Apple's authoring specification §14
//! that a playlist shows by itself or against the one before.
//!
//! Written apart from the node's own writer, from the specification alone.

use std::collections::BTreeMap;

/// A part as a playlist lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Where it is.
    pub uri: String,
    /// Seconds.
    pub duration: f64,
    /// A decoder can start with it.
    pub independent: bool,
    /// It cannot be had.
    pub gap: bool,
}

/// A segment as a playlist lists it; the last one may have parts only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Media sequence number.
    pub sequence: u64,
    /// Discontinuity number.
    pub discontinuity: u64,
    /// Where it is, once it is whole.
    pub uri: Option<String>,
    /// Seconds, once it is whole.
    pub duration: Option<f64>,
    /// `EXT-X-PROGRAM-DATE-TIME` in seconds since 1970.
    pub wall: Option<f64>,
    /// It cannot be had.
    pub gap: bool,
    /// The initialisation that it needs.
    pub map: Option<String>,
    /// Its parts, as far as they are listed.
    pub parts: Vec<Part>,
}

/// A media playlist.
#[derive(Clone, Debug, Default)]
pub struct Media {
    /// `EXT-X-TARGETDURATION`, seconds.
    pub target: f64,
    /// `PART-TARGET`, seconds.
    pub part_target: f64,
    /// `PART-HOLD-BACK`, seconds.
    pub part_hold_back: f64,
    /// The segments.
    pub segments: Vec<Segment>,
    /// What a player may ask for ahead of time.
    pub hint: Option<String>,
    /// `EXT-X-RENDITION-REPORT`: playlist, segment and part.
    pub reports: Vec<(String, u64, Option<u64>)>,
    /// `EXT-X-ENDLIST`.
    pub ended: bool,
}

/// Attributes of a tag, quotes taken off.
fn attributes(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"').expect("a closing quote");
                (value, next.strip_prefix(',').unwrap_or(next))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        let twice = found.insert(name.to_owned(), value.to_owned());
        assert!(twice.is_none(), "attribute {name} stands twice in {text}");
        rest = next;
    }
    found
}

fn number(attributes: &BTreeMap<String, String>, name: &str) -> f64 {
    let value = attributes.get(name);
    let value = value.unwrap_or_else(|| panic!("no {name} in {attributes:?}"));
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} is {value}"))
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:SS.mmmZ`; days are counted one by one, so that
/// no calendar formula is checked against itself.
fn wall(text: &str) -> f64 {
    let field = |range: std::ops::Range<usize>| -> u64 { text[range].parse().expect("a date") };
    let (year, month, day) = (field(0..4), field(5..7), field(8..10));
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut days: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    days += lengths[..month as usize - 1].iter().sum::<u64>() + day - 1;
    let seconds: f64 = text[17..].trim_end_matches('Z').parse().expect("seconds");
    (days * 86_400 + field(11..13) * 3_600 + field(14..16) * 60) as f64 + seconds
}

impl Media {
    /// Reads a playlist and checks what it shows by itself.
    ///
    /// # Panics
    /// With the rule that is broken.
    pub fn check(text: &str) -> Self {
        let media = Self::read(text);
        media.check_head(text);
        for segment in &media.segments {
            media.check_segment(segment);
        }
        for pair in media.segments.windows(2) {
            media.check_pair(&pair[0], &pair[1]);
        }
        assert!(
            media.ended || media.hint.is_some(),
            "no EXT-X-PRELOAD-HINT (B.1)\n{text}"
        );
        media
    }

    fn read(text: &str) -> Self {
        let mut media = Self::default();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#EXTM3U"), "§4.3.1.1");
        let mut next = Segment::default();
        let mut sequence = 0;
        let mut discontinuity = 0;
        let mut map = None;
        for line in lines {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-VERSION" => assert!(value.parse::<u32>().unwrap() >= 6, "EXT-X-MAP"),
                "#EXT-X-TARGETDURATION" => {
                    media.target = f64::from(value.parse::<u32>().expect("a whole number"));
                }
                "#EXT-X-PART-INF" => {
                    media.part_target = number(&attributes(value), "PART-TARGET");
                }
                "#EXT-X-SERVER-CONTROL" => media.read_control(value),
                "#EXT-X-MEDIA-SEQUENCE" => sequence = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => discontinuity = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY" => discontinuity += 1,
                "#EXT-X-MAP" => map = Some(attributes(value)["URI"].clone()),
                "#EXT-X-PROGRAM-DATE-TIME" => next.wall = Some(wall(value)),
                "#EXT-X-GAP" => next.gap = true,
                "#EXT-X-PART" => next.parts.push(part(value)),
                "#EXTINF" => {
                    next.duration = Some(value.trim_end_matches(',').parse().expect("seconds"));
                }
                "#EXT-X-PRELOAD-HINT" => {
                    assert_eq!(attributes(value)["TYPE"], "PART");
                    media.hint = Some(attributes(value)["URI"].clone());
                }
                "#EXT-X-RENDITION-REPORT" => {
                    let report = attributes(value);
                    media.reports.push((
                        report["URI"].clone(),
                        report["LAST-MSN"].parse().unwrap(),
                        report.get("LAST-PART").map(|part| part.parse().unwrap()),
                    ));
                }
                "#EXT-X-ENDLIST" => media.ended = true,
                "#EXT-X-INDEPENDENT-SEGMENTS" => {}
                _ if line.starts_with('#') => panic!("unknown tag {line}"),
                uri => {
                    next.uri = Some(uri.to_owned());
                    (next.sequence, next.discontinuity) = (sequence, discontinuity);
                    next.map = map.clone();
                    media.segments.push(std::mem::take(&mut next));
                    sequence += 1;
                }
            }
        }
        if !next.parts.is_empty() {
            (next.sequence, next.discontinuity) = (sequence, discontinuity);
            next.map = map;
            media.segments.push(next);
        }
        media
    }

    fn read_control(&mut self, value: &str) {
        let control = attributes(value);
        assert_eq!(control["CAN-BLOCK-RELOAD"], "YES", "B.1");
        self.part_hold_back = number(&control, "PART-HOLD-BACK");
        let (skip, hold) = (
            number(&control, "CAN-SKIP-UNTIL"),
            number(&control, "HOLD-BACK"),
        );
        assert!(
            skip >= 6.0 * self.target,
            "CAN-SKIP-UNTIL {skip} (§4.4.3.8)"
        );
        assert!(hold >= 3.0 * self.target, "HOLD-BACK {hold} (§4.4.3.8)");
    }

    fn check_head(&self, text: &str) {
        assert!(self.target >= 1.0 && self.part_target > 0.0, "{text}");
        assert!(
            self.part_hold_back >= 3.0 * self.part_target,
            "PART-HOLD-BACK under three parts (authoring 14.3)"
        );
        assert!(!self.segments.is_empty(), "nothing listed\n{text}");
        assert!(
            self.segments[0].map.is_some() || self.segments[0].gap,
            "EXT-X-MAP"
        );
    }

    fn check_segment(&self, segment: &Segment) {
        let name = segment.sequence;
        assert!(segment.wall.is_some(), "segment {name}: no date (B.1)");
        if let Some(duration) = segment.duration {
            assert!(
                duration.round() <= self.target,
                "segment {name} of {duration} s (§4.4.3.1)"
            );
        }
        for (index, part) in segment.parts.iter().enumerate() {
            let last = segment.duration.is_some() && index + 1 == segment.parts.len();
            let free = last || part.independent || part.gap;
            assert!(
                part.duration <= self.part_target + 1e-6,
                "{} of {} s is too long (§4.4.4.9)",
                part.uri,
                part.duration
            );
            assert!(
                free || part.duration >= 0.85 * self.part_target,
                "{} of {} s is under 85 % (§4.4.4.9)",
                part.uri,
                part.duration
            );
        }
        if let (Some(duration), false, false) =
            (segment.duration, segment.gap, segment.parts.is_empty())
        {
            let sum: f64 = segment.parts.iter().map(|part| part.duration).sum();
            assert!(
                (sum - duration).abs() < 0.001,
                "segment {name}: {sum} of {duration} s"
            );
        }
    }

    fn check_pair(&self, a: &Segment, b: &Segment) {
        let name = b.sequence;
        if a.discontinuity != b.discontinuity {
            assert!(b.gap || a.map != b.map, "segment {name}: no map of its own");
            return;
        }
        assert!(
            a.gap || b.gap || a.map == b.map,
            "segment {name}: another map"
        );
        if let (Some(from), Some(to), Some(length)) = (a.wall, b.wall, a.duration) {
            let off = (to - from - length).abs();
            assert!(off < 0.1, "segment {name} begins {off} s off (§4.4.4.6)");
        }
    }

    /// Checks that this playlist can follow that one.
    ///
    /// # Panics
    /// With the rule that is broken.
    pub fn check_after(&self, before: &Self) {
        assert!(
            (self.target - before.target).abs() < 1e-9,
            "§6.2.2: the target changed"
        );
        let first = |media: &Self| media.segments[0].sequence;
        assert!(first(self) >= first(before), "§6.2.2: numbers went back");
        for old in &before.segments {
            let Some(new) = self.segments.iter().find(|s| s.sequence == old.sequence) else {
                continue;
            };
            let name = old.sequence;
            assert_eq!(new.discontinuity, old.discontinuity, "segment {name}");
            if old.uri.is_some() {
                assert_eq!((&new.uri, new.duration), (&old.uri, old.duration));
            }
            if !new.parts.is_empty() {
                assert_eq!(new.parts[..old.parts.len()], old.parts, "segment {name}");
            }
        }
    }

    /// Number of the last segment and of its last part.
    pub fn end(&self) -> (u64, Option<u64>) {
        let last = self.segments.last().expect("a segment");
        let parts = last.parts.len() as u64;
        (last.sequence, parts.checked_sub(1))
    }

    /// The query that asks for what comes next.
    pub fn next(&self) -> String {
        let last = self.segments.last().expect("a segment");
        let (sequence, part) = match last.uri {
            Some(_) => (last.sequence + 1, 0),
            None => (last.sequence, last.parts.len()),
        };
        format!("_HLS_msn={sequence}&_HLS_part={part}")
    }
}

fn part(value: &str) -> Part {
    let part = attributes(value);
    let yes = |name: &str| part.get(name).is_some_and(|value| value == "YES");
    Part {
        uri: part["URI"].clone(),
        duration: number(&part, "DURATION"),
        independent: yes("INDEPENDENT"),
        gap: yes("GAP"),
    }
}

/// Playlists that a multivariant playlist names, the variant's first.
///
/// # Panics
/// If it is none.
pub fn renditions(text: &str) -> Vec<String> {
    assert!(text.starts_with("#EXTM3U\n"), "{text}");
    let mut found = Vec::new();
    let mut variant = false;
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("#EXT-X-STREAM-INF:") {
            let stream = attributes(value);
            assert!(number(&stream, "BANDWIDTH") > 0.0);
            assert!(!stream["CODECS"].is_empty(), "authoring 9.2");
            variant = true;
        } else if let Some(value) = line.strip_prefix("#EXT-X-MEDIA:") {
            found.push(attributes(value)["URI"].clone());
        } else if !line.starts_with('#') && variant {
            found.insert(0, line.to_owned());
        }
    }
    assert!(variant, "no variant in {text}");
    found
}
