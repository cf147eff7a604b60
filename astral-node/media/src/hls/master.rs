//! The multivariant playlist: one variant, its sound as a rendition of its own.

use std::fmt::Write as _;

use super::File;
use crate::catalog::Catalog;
use crate::track::{Track, TrackKind};

/// The multivariant playlist of a stream with this catalog, whose highest rate is
/// `bandwidth_bps`.
pub fn master(catalog: &Catalog, bandwidth_bps: u64) -> String {
    let is_sound = |track: &&Track| track.config.kind() == TrackKind::Audio;
    let sound: Vec<_> = catalog.tracks.iter().filter(is_sound).collect();
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let Some(main) = catalog.main() else {
        return out;
    };
    let as_rendition = catalog.video().is_some() && !sound.is_empty();
    if as_rendition {
        for (index, track) in sound.iter().enumerate() {
            let default = if index == 0 { "YES" } else { "NO" };
            let channels = track.config.sound().map_or(2, |(_, channels)| channels);
            let (uri, number) = (File::Playlist { track: track.id }, index + 1);
            let _ = writeln!(
                out,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"sound\",NAME=\"Sound {number}\",\
                 DEFAULT={default},AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{uri}\""
            );
        }
    }
    let codecs: Vec<_> = std::iter::once(main)
        .chain(sound.first().copied().filter(|_| as_rendition))
        .map(|track| track.config.codec_string())
        .collect();
    let codecs = codecs.join(",");
    let bandwidth = bandwidth_bps.max(1);
    let _ = write!(
        out,
        "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},CODECS=\"{codecs}\""
    );
    if let Some((width, height)) = main.config.size() {
        let _ = write!(out, ",RESOLUTION={width}x{height}");
    }
    if as_rendition {
        out.push_str(",AUDIO=\"sound\"");
    }
    let _ = writeln!(out, "\n{}", File::Playlist { track: main.id });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::sample;

    #[test]
    fn picture_and_sound_are_one_variant_with_a_rendition() {
        let text = master(&sample(), 4_000_000);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["#EXTM3U", "#EXT-X-VERSION:9"]);
        assert!(lines[3].starts_with("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"sound\""));
        assert!(lines[3].ends_with("URI=\"track-2.m3u8\""));
        assert!(lines[4].contains("BANDWIDTH=4000000") && lines[4].ends_with("AUDIO=\"sound\""));
        assert_eq!(lines[5], "track-1.m3u8");
    }

    #[test]
    fn stream_of_sound_alone_is_a_variant() {
        let mut catalog = sample();
        catalog.tracks.remove(0);
        let text = master(&catalog, 0);
        assert!(!text.contains("EXT-X-MEDIA") && !text.contains("RESOLUTION"));
        assert!(text.ends_with("\ntrack-2.m3u8\n"));
    }
}
