//! What a stream is made of: a clip that is paced here, or standard input.

use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{Chain, Stdin as Pipe};

use super::clip::Clip;
use super::stdin::Stdin;
use crate::failure::Failure;

/// Bytes to send, and when.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Whole boxes of a clip, or anything of standard input.
    pub(crate) bytes: Bytes,
    /// Time on the clip's own timeline; none: as soon as it is there.
    pub(crate) at: Option<Duration>,
    /// A new connection can begin here.
    pub(crate) entry: bool,
}

/// Where the bytes come from.
pub(crate) enum Source {
    /// A file, perhaps round and round, or MPEG-TS or FLV from standard input.
    Clip(Clip),
    /// Fragmented MP4 that paces itself.
    Stdin(Box<Stdin<Chain<Cursor<Vec<u8>>, Pipe>>>),
}

impl Source {
    /// What every connection begins with.
    pub(crate) fn head(&self) -> Bytes {
        match self {
            Self::Clip(clip) => clip.head(),
            Self::Stdin(stdin) => stdin.head(),
        }
    }

    /// What comes next; none at the end. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        match self {
            Self::Clip(clip) => clip.next().await,
            Self::Stdin(stdin) => Ok(stdin.next().await?.map(|bytes| Piece {
                bytes,
                at: None,
                entry: false,
            })),
        }
    }

    /// The connection was lost: goes on where a new one can begin.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Clip(clip) => clip.restart(),
            Self::Stdin(stdin) => stdin.restart(),
        }
    }
}
