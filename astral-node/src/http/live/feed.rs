//! From a reader's frames to pieces of fragmented MP4, with the holes named.

use std::collections::VecDeque;

use astral_media::catalog::Catalog;
use astral_media::fmp4::live::{LiveMuxer, Piece};
use astral_media::frame::Frame;
use astral_proto::record::StreamState;
use bytes::Bytes;
use tracing::debug;

use crate::handle::{Live, ReaderGuard};
use crate::store::{LiveEvent, LiveReader};

/// What a player gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A new configuration: its init segment precedes all pieces made with it.
    Init {
        mime: String,
        epoch: u32,
        bytes: Bytes,
    },
    /// A whole moof+mdat.
    Piece { group: u64, bytes: Bytes },
    /// Frames are missing between these times.
    Gap { track: u8, from_ms: i64, to_ms: i64 },
}

/// A track as far as it was sent.
struct Sent {
    id: u8,
    timescale: u32,
    end_ms: Option<i64>,
    torn: bool,
}

/// One player's source; the node knows of the reader until it is dropped.
pub(super) struct Feed {
    reader: LiveReader,
    muxer: LiveMuxer,
    tracks: Vec<Sent>,
    ready: VecDeque<Part>,
    _guard: ReaderGuard,
}

impl Feed {
    pub(super) fn new(live: Live) -> Self {
        Self {
            reader: live.reader,
            muxer: LiveMuxer::new(),
            tracks: Vec::new(),
            ready: VecDeque::new(),
            _guard: live.guard,
        }
    }

    /// The next part; `None` when the stream is over.
    pub(super) async fn next(&mut self) -> Option<Part> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(part);
            }
            match self.reader.next().await {
                LiveEvent::Catalog(catalog) => self.configure(&catalog),
                LiveEvent::Frame(frame) => self.push(&frame),
                LiveEvent::Lost { track, .. } => self.lost(track),
                LiveEvent::State(StreamState::Ended) => return None,
                LiveEvent::State(
                    StreamState::Live | StreamState::Waiting | StreamState::Paused,
                ) => {}
            }
        }
    }

    fn configure(&mut self, catalog: &Catalog) {
        let mut pieces = Vec::new();
        self.muxer.catalog(catalog, &mut pieces);
        let before = std::mem::take(&mut self.tracks);
        let tracks = catalog.tracks.iter().map(|track| {
            let old = before.iter().find(|sent| sent.id == track.id);
            Sent {
                id: track.id,
                timescale: track.timescale,
                end_ms: old.and_then(|sent| sent.end_ms),
                torn: old.is_some_and(|sent| sent.torn),
            }
        });
        self.tracks = tracks.collect();
        let inits = pieces.into_iter().map(|piece| Part::Init {
            mime: catalog.mime(),
            epoch: catalog.epoch,
            bytes: piece.bytes,
        });
        self.ready.extend(inits);
    }

    fn lost(&mut self, track: u8) {
        self.muxer.lost(track);
        if let Some(sent) = self.tracks.iter_mut().find(|sent| sent.id == track) {
            sent.torn = true;
        }
    }

    fn push(&mut self, frame: &Frame) {
        let mut pieces = Vec::new();
        if let Err(error) = self.muxer.frame(frame, &mut pieces) {
            debug!(%error, track = frame.track, group = frame.group, "frame left out");
            self.lost(frame.track);
        }
        if !pieces.is_empty() {
            self.mend(frame);
        }
        for piece in pieces {
            self.note_end(&piece);
            self.ready.push_back(Part::Piece {
                group: frame.group,
                bytes: piece.bytes,
            });
        }
    }

    /// A hole ends with the first frame behind it that makes a piece: the muxer
    /// leaves out what no decoder can use.
    fn mend(&mut self, frame: &Frame) {
        let Some(sent) = self.tracks.iter_mut().find(|sent| sent.id == frame.track) else {
            return;
        };
        if std::mem::take(&mut sent.torn) {
            let to_ms = ms(frame.dts, sent.timescale);
            self.ready.push_back(Part::Gap {
                track: frame.track,
                from_ms: sent.end_ms.map_or(to_ms, |end_ms| end_ms.min(to_ms)),
                to_ms,
            });
        }
    }

    fn note_end(&mut self, piece: &Piece) {
        if let Some(sent) = self.tracks.iter_mut().find(|sent| sent.id == piece.track) {
            sent.end_ms = Some(piece.dts_ms.saturating_add(piece.duration_ms));
        }
    }
}

fn ms(ticks: i64, timescale: u32) -> i64 {
    let ms = (i128::from(ticks) * 1_000).div_euclid(i128::from(timescale.max(1)));
    i64::try_from(ms).unwrap_or(i64::MAX)
}
