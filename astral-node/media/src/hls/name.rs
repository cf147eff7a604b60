//! The names of files below `/live/{slug}/`.

use std::fmt;
use std::str::FromStr;

/// Longest file name, in bytes: `part-63-` and two numbers of 20 and 10 digits.
const FILE_NAME_MAX: usize = 64;

/// A file that a playlist names; all but playlists never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `index.m3u8`: which renditions there are.
    Master,
    /// `track-1.m3u8`: the segments of a track.
    Playlist {
        /// Track number.
        track: u8,
    },
    /// `init-1-7.mp4`: how to decode a track in an epoch.
    Init {
        /// Track number.
        track: u8,
        /// Epoch.
        epoch: u32,
    },
    /// `seg-1-42.m4s`: a track's part of a group.
    Segment {
        /// Track number.
        track: u8,
        /// Media sequence number.
        sequence: u64,
    },
    /// `part-1-42-3.m4s`: some frames of it.
    Part {
        /// Track number.
        track: u8,
        /// Media sequence number.
        sequence: u64,
        /// Number within the segment, from 0.
        part: u32,
    },
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => write!(f, "index.m3u8"),
            Self::Playlist { track } => write!(f, "track-{track}.m3u8"),
            Self::Init { track, epoch } => write!(f, "init-{track}-{epoch}.mp4"),
            Self::Segment { track, sequence } => write!(f, "seg-{track}-{sequence}.m4s"),
            Self::Part {
                track,
                sequence,
                part,
            } => write!(f, "part-{track}-{sequence}-{part}.m4s"),
        }
    }
}

/// It is no name that a playlist has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFile;

impl FromStr for File {
    type Err = NoFile;

    /// Reads a name in the one form in which it is written.
    fn from_str(text: &str) -> Result<Self, NoFile> {
        if text.len() > FILE_NAME_MAX {
            return Err(NoFile);
        }
        let file = parse(text).ok_or(NoFile)?;
        // Leading zeros and signs would give one file two names.
        (file.to_string() == text).then_some(file).ok_or(NoFile)
    }
}

fn parse(text: &str) -> Option<File> {
    let (stem, ending) = text.split_once('.')?;
    let mut words = stem.split('-');
    let kind = words.next()?;
    let mut number = || words.next().map(str::parse::<u64>)?.ok();
    let file = match (kind, ending) {
        ("index", "m3u8") => File::Master,
        ("track", "m3u8") => File::Playlist {
            track: number()?.try_into().ok()?,
        },
        ("init", "mp4") => File::Init {
            track: number()?.try_into().ok()?,
            epoch: number()?.try_into().ok()?,
        },
        ("seg", "m4s") => File::Segment {
            track: number()?.try_into().ok()?,
            sequence: number()?,
        },
        ("part", "m4s") => File::Part {
            track: number()?.try_into().ok()?,
            sequence: number()?,
            part: number()?.try_into().ok()?,
        },
        _ => return None,
    };
    words.next().is_none().then_some(file)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_in_no_other_form() {
        for text in [
            "index.m3u8",
            "track-1.m3u8",
            "init-2-7.mp4",
            "seg-1-42.m4s",
            "part-63-18446744073709551615-4294967295.m4s",
        ] {
            assert_eq!(text.parse::<File>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "index",
            "index-1.m3u8",
            "track-01.m3u8",
            "track-+1.m3u8",
            "track-256.m3u8",
            "seg-1.m4s",
            "seg-1-2-3.m4s",
            "part-1-2-3.mp4",
            "part-1-2-4294967296.m4s",
            "../index.m3u8",
        ] {
            assert_eq!(text.parse::<File>(), Err(NoFile), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = text.parse::<File>();
        }
    }
}
