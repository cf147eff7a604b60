//! Pictures, as numbers for the templates: these put them into SVG, escaped like all text.

use std::f64::consts::PI;

use astral_proto::ids::{StreamId, sha256};

use crate::history::Point;

/// Colours of covers, each a class of the style sheet.
const HUES: u8 = 8;
/// A curve's own coordinates.
const CURVE_WIDTH: f64 = 600.0;
const CURVE_HEIGHT: f64 = 140.0;
/// Room between two bubbles' centres; neighbours are at least 1.54 of it apart.
const STEP: f64 = 20.0;

/// A stream's cover: a tree of its own, since no picture of the video passes through here.
pub(super) struct Cover {
    pub(super) hue: u8,
    pub(super) lines: Vec<[f64; 4]>,
    pub(super) dots: Vec<[f64; 3]>,
}

impl Cover {
    pub(super) fn new(id: StreamId) -> Self {
        let bytes = sha256(id.0.as_bytes());
        let jitter = |at: usize, by: f64| (f64::from(bytes[at]) / 255.0 - 0.5) * by;
        let root = [46.0, 60.0 + jitter(1, 30.0), 9.0];
        let mut dots = vec![root];
        let mut lines = Vec::new();
        for branch in 0..3 {
            let y = 24.0 + 36.0 * branch as f64 + jitter(2 + branch, 18.0);
            let inner = [138.0 + jitter(5 + branch, 44.0), y, 6.0];
            lines.push([root[0], root[1], inner[0], inner[1]]);
            for leaf in 0..2 {
                let at = 8 + branch * 2 + leaf;
                let x = 252.0 + jitter(at, 70.0);
                let y = y - 9.0 + 18.0 * leaf as f64 + jitter(at + 6, 10.0);
                let y = y.clamp(10.0, 110.0);
                let size = 2.5 + f64::from(bytes[at + 12] % 3);
                lines.push([inner[0], inner[1], x, y]);
                dots.push([x, y, size]);
            }
            dots.push(inner);
        }
        let rounded = |value: &mut f64| *value = (*value * 10.0).round() / 10.0;
        dots.iter_mut().flatten().for_each(rounded);
        lines.iter_mut().flatten().for_each(rounded);
        Self {
            hue: bytes[0] % HUES,
            lines,
            dots,
        }
    }
}

/// How many watched over time.
pub(super) struct Curve {
    /// A path along the points.
    pub(super) line: String,
    /// The same, closed along the bottom.
    pub(super) area: String,
    pub(super) peak: u64,
    /// How long ago it begins, in words.
    pub(super) since: String,
}

impl Curve {
    /// `None` until there is something to see.
    pub(super) fn new(points: &[Point], now: u64, viewers: u64) -> Option<Self> {
        let first = points.first()?.0;
        let span = now.saturating_sub(first);
        if points.len() < 3 || span < 10_000 {
            return None;
        }
        let mut points = points.to_vec();
        points.push((now, viewers));
        let peak = points.iter().map(|point| point.1).max().unwrap_or(0);
        let mut line = String::new();
        for (at, (time, viewers)) in points.iter().enumerate() {
            let x = time.saturating_sub(first) as f64 / span as f64 * CURVE_WIDTH;
            let y =
                CURVE_HEIGHT - 6.0 - *viewers as f64 / peak.max(1) as f64 * (CURVE_HEIGHT - 16.0);
            let step = if at == 0 { 'M' } else { 'L' };
            line.push_str(&format!("{step}{x:.1} {y:.1}"));
        }
        let area = format!("{line}L{CURVE_WIDTH} {CURVE_HEIGHT}L0 {CURVE_HEIGHT}Z");
        let since = match span / 60_000 {
            0 => "a minute ago".to_owned(),
            minutes @ 1..120 => format!("{minutes} min ago"),
            minutes => format!("{} h ago", minutes / 60),
        };
        Some(Self {
            line,
            area,
            peak,
            since,
        })
    }
}

/// A circle of a picture, with what it stands for.
pub(super) struct Bubble {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) radius: f64,
    pub(super) title: String,
    /// What stands in it, if there is room.
    pub(super) label: String,
    /// How full it is: 0 to 4; 5 is not known.
    pub(super) level: u8,
}

/// Circles like the seeds of a sunflower, the first in the middle. No two overlap, however
/// many they are.
pub(super) struct Bubbles {
    pub(super) all: Vec<Bubble>,
    /// From the middle to the edge.
    pub(super) half: f64,
}

impl Bubbles {
    /// From size, title and level of each, in the order of their size.
    pub(super) fn new(items: Vec<(u32, String, u8)>) -> Self {
        let largest = items.iter().map(|item| item.0).max().unwrap_or(0);
        let golden = PI * (3.0 - 5f64.sqrt());
        let place = |(at, (size, title, level)): (usize, (u32, String, u8))| {
            let from = STEP * (at as f64 + 0.5).sqrt();
            let angle = at as f64 * golden;
            let share = if largest == 0 {
                0.4
            } else {
                (f64::from(size) / f64::from(largest)).sqrt()
            };
            let radius = STEP * (0.22 + 0.53 * share);
            let label = if radius > 9.0 && largest > 0 {
                size.to_string()
            } else {
                String::new()
            };
            Bubble {
                x: tenth(from * angle.cos()),
                y: tenth(from * angle.sin()),
                radius: tenth(radius),
                title,
                label,
                level,
            }
        };
        let all: Vec<_> = items.into_iter().enumerate().map(place).collect();
        let edge = STEP * ((all.len() as f64).sqrt() + 0.9);
        Self {
            all,
            half: tenth(edge.max(60.0)),
        }
    }
}

/// One branch of an audience: a supernode, and those who watch below it.
pub(super) struct Branch {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) radius: f64,
    /// The fan of those below.
    pub(super) fan: String,
    pub(super) title: String,
    pub(super) label: String,
}

/// A stream's way from its publisher (left) over supernodes to the audience (right):
/// further right is more hops, wider is more viewers.
pub(super) struct Tree {
    pub(super) branches: Vec<Branch>,
    pub(super) height: f64,
    pub(super) middle: f64,
}

/// What a supernode reports of a stream.
pub(super) struct Reported {
    pub(super) name: String,
    pub(super) viewers: u32,
    pub(super) depth: u8,
    pub(super) delay_ms: u32,
}

impl Tree {
    /// From reports, those with the most viewers first; at most so many are drawn.
    pub(super) fn new(reports: &[Reported]) -> Self {
        let most = reports
            .iter()
            .map(|one| one.viewers)
            .max()
            .unwrap_or(0)
            .max(1);
        let deepest = reports
            .iter()
            .map(|one| one.depth)
            .max()
            .unwrap_or(0)
            .max(1);
        let lane = 44.0;
        let height = lane * reports.len().max(1) as f64;
        let branch = |(at, one): (usize, &Reported)| {
            let y = lane * (at as f64 + 0.5);
            let x = 110.0 + 190.0 * f64::from(one.depth) / f64::from(deepest);
            let share = (f64::from(one.viewers) / f64::from(most)).sqrt();
            let half = 3.0 + 17.0 * share;
            let (from, to) = (x + 9.0, 560.0);
            let fan = format!(
                "M{from:.1} {y:.1}L{to} {:.1}Q{:.1} {y:.1} {to} {:.1}Z",
                y - half,
                to + 8.0,
                y + half
            );
            Branch {
                x: tenth(x),
                y: tenth(y),
                radius: tenth(4.5 + 4.5 * share),
                fan,
                title: format!(
                    "{}: {} watching, {} hops from the publisher, {} ms behind it",
                    one.name, one.viewers, one.depth, one.delay_ms
                ),
                label: one.viewers.to_string(),
            }
        };
        Self {
            branches: reports.iter().enumerate().map(branch).collect(),
            height,
            middle: height / 2.0,
        }
    }
}

/// A part of a whole as a ring's dash: how much of 100 is full.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 0,
        whole => (part.saturating_mul(100) / whole).min(100),
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn no_two_bubbles_touch_and_all_are_in_the_picture() {
        for count in [1, 2, 7, 60, 400] {
            let items = (0..count)
                .map(|at| (count - at, String::new(), 0))
                .collect();
            let bubbles = Bubbles::new(items);
            for (at, one) in bubbles.all.iter().enumerate() {
                let edge = one.x.hypot(one.y) + one.radius;
                assert!(edge <= bubbles.half + 0.1, "{count}: {at}");
                for other in &bubbles.all[..at] {
                    let apart = (one.x - other.x).hypot(one.y - other.y);
                    assert!(apart > one.radius + other.radius, "{count}: {at}, {apart}");
                }
            }
        }
    }

    #[test]
    fn curve_reaches_from_edge_to_edge_and_its_peak_to_the_top() {
        let points = [(0, 0), (10_000, 50), (20_000, 100), (30_000, 10)];
        let curve = Curve::new(&points, 60_000, 10).unwrap();
        assert_eq!(curve.peak, 100);
        assert!(curve.line.starts_with("M0.0 134.0L"), "{}", curve.line);
        assert!(curve.line.contains("L200.0 10.0"), "{}", curve.line);
        assert!(curve.line.contains("L600.0 "), "{}", curve.line);
        assert_eq!(curve.since, "1 min ago");
        assert!(Curve::new(&points[..2], 60_000, 0).is_none());
    }

    #[test]
    fn covers_differ_and_stay_within_their_frame() {
        let hues: std::collections::BTreeSet<u8> = (0..60u128)
            .map(|number| {
                let cover = Cover::new(StreamId(Uuid::from_u128(number)));
                for [x, y, radius] in &cover.dots {
                    assert!(x - radius > 0.0 && x + radius < 320.0, "{x}");
                    assert!(y - radius > 0.0 && y + radius < 120.0, "{y}");
                }
                cover.hue
            })
            .collect();
        assert_eq!(hues.len(), usize::from(HUES));
    }
}
