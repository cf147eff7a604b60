//! A stream, put into words for people.

use std::time::{Duration, SystemTime};

use astral_proto::api::web::WebStream;
use astral_proto::api::{StreamState, Track};

use super::picture::{Cover, Curve};
use crate::catalog::Catalog;
use crate::history::History;

/// What the list shows of a stream.
pub(super) struct Card {
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) publisher: String,
    pub(super) state: &'static str,
    /// The state in a sentence, where it is not plain.
    pub(super) says: &'static str,
    pub(super) bitrate: String,
    pub(super) viewers: u64,
    pub(super) watching: String,
    pub(super) uptime: String,
    pub(super) started_at: String,
    pub(super) format: String,
    pub(super) cover: Cover,
    pub(super) curve: Option<Curve>,
}

impl Card {
    pub(super) fn new(stream: &WebStream, catalog: &Catalog, history: &History, now: u64) -> Self {
        let publisher = catalog.nodes.row(stream.publisher.0);
        let name = publisher.and_then(|row| row.record.value().name.clone());
        let name = name.filter(|name| !name.trim().is_empty());
        let (state, says) = match stream.state {
            StreamState::Live => ("live", ""),
            StreamState::Waiting => (
                "waiting",
                "The encoder is away. It goes on when it is back.",
            ),
            StreamState::Paused => ("paused", "The publisher has paused it."),
            StreamState::Ended => ("ended", "It is over."),
        };
        Self {
            slug: stream.slug.clone(),
            name: stream.name.clone(),
            description: stream.description.clone(),
            publisher: name.unwrap_or_else(|| format!("node {}", stream.publisher.short())),
            state,
            says,
            bitrate: rate(stream.bitrate_bps),
            viewers: stream.viewers,
            watching: count(stream.viewers),
            uptime: uptime(&stream.started_at),
            started_at: stream.started_at.clone(),
            format: format_of(&stream.tracks),
            cover: Cover::new(stream.id),
            curve: Curve::new(history.of(stream.id), now, stream.viewers),
        }
    }
}

/// A rate for people; nothing while it is not known.
pub(super) fn rate(bps: u64) -> String {
    match bps {
        0 => String::new(),
        1..1_000_000 => format!("{} kbit/s", bps.div_ceil(1_000)),
        _ => format!("{}.{} Mbit/s", bps / 1_000_000, bps / 100_000 % 10),
    }
}

/// A number with thin spaces between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// How long something lasts already.
fn uptime(started_at: &str) -> String {
    let since = humantime::parse_rfc3339(started_at).ok();
    let since = since.and_then(|at| SystemTime::now().duration_since(at).ok());
    let minutes = since.map_or(0, |since: Duration| since.as_secs() / 60);
    match minutes {
        0 => "just started".to_owned(),
        1..60 => format!("{minutes} min"),
        60..2880 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} days", minutes / 1440),
    }
}

/// Picture and sound in a few words.
fn format_of(tracks: &[Track]) -> String {
    let words = tracks.iter().map(|track| {
        let codec = codec(&track.codec);
        match (track.width, track.height, track.sample_rate) {
            (Some(width), Some(height), _) => format!("{width} × {height} {codec}"),
            (_, _, Some(rate)) => format!("{} kHz {codec}", f64::from(rate) / 1000.0),
            _ => codec,
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The name of a codec that people know (RFC 6381 has the others).
fn codec(codec: &str) -> String {
    let family = codec.split('.').next().unwrap_or("");
    let known = match family {
        "avc1" | "avc3" => "H.264",
        "hvc1" | "hev1" => "H.265",
        "av01" => "AV1",
        "mp4a" => "AAC",
        "opus" | "Opus" => "Opus",
        other => other,
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        assert_eq!(rate(0), "");
        assert_eq!(rate(300_000), "300 kbit/s");
        assert_eq!(rate(4_250_000), "4.2 Mbit/s");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(codec("avc1.64001f"), "H.264");
    }
}
