//! What a hostile relay does to one frame in the middle of a group.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use astral_proto::ids::{SecretKey, StreamId};
use astral_proto::wire::media::{FrameHeader, GroupEnd, ITEM_FRAME, ITEM_GROUP_END, Signed};
use astral_proto::wire::put_varint;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::time::Instant;

use super::shelf::{Entry, Name, Shelf};

/// A way to break the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// None.
    Honest,
    /// A payload byte is another.
    FlipPayload,
    /// A byte of a signed header is another.
    FlipHeader,
    /// A byte of a signature is another.
    FlipSignature,
    /// The track in a group header is out of range.
    BadGroupHeader,
    /// The end of a payload is left out, and the next frame follows.
    TruncateFrame,
    /// The uni stream ends in the middle of a group.
    CutShort,
    /// The same, with a group end of the relay's own making.
    CutForgedEnd,
    /// The same, with the genuine end of another group.
    CutForeignEnd,
    /// A whole group of an older epoch is sent under its own name.
    ReplayEpoch,
    /// A frame of an older epoch stands among those of a newer one.
    ReplayRenamed,
    /// Two frames change places.
    Reorder,
    /// A frame of an earlier group.
    SwapGroups,
    /// The catalog's frame among those of the picture.
    SwapTracks,
    /// A frame of another stream.
    OtherStream,
    /// A frame of the relay's own making, signed with its own key.
    ForgedFrame,
    /// A header that is said to have 2⁴⁰ bytes.
    OversizedItem,
    /// A frame of more than 8 MiB, signed by the relay.
    OversizedFrame,
    /// A header that never ends.
    EndlessHeader,
    /// An item of no known kind.
    UnknownKind,
}

impl Mode {
    /// All that an honest node notices at once, since no honest relay does it.
    pub const NOTICED: [Self; 16] = [
        Self::FlipPayload,
        Self::FlipHeader,
        Self::FlipSignature,
        Self::TruncateFrame,
        Self::CutForgedEnd,
        Self::CutForeignEnd,
        Self::ReplayRenamed,
        Self::Reorder,
        Self::SwapGroups,
        Self::SwapTracks,
        Self::OtherStream,
        Self::ForgedFrame,
        Self::OversizedItem,
        Self::OversizedFrame,
        Self::EndlessHeader,
        Self::UnknownKind,
    ];
    /// What an honest relay may be the cause of, too: it must do no harm.
    pub const BORNE: [Self; 3] = [Self::CutShort, Self::ReplayEpoch, Self::BadGroupHeader];
}

/// What goes onto a uni stream in place of a frame.
#[derive(Debug)]
pub struct Deed {
    /// The bytes.
    pub bytes: Vec<Bytes>,
    /// What follows.
    pub then: Then,
}

/// What a relay does after its deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Goes on with the next frame.
    GoOn,
    /// Goes on with the one after the next, which is part of the deed.
    Skip,
    /// Ends the uni stream.
    Finish,
    /// Sends zeros for ever.
    Zeros,
}

/// A mode, and when it strikes: once, after so many frames.
pub struct Tamper {
    mode: Mode,
    after: u64,
    key: SecretKey,
    sent: AtomicU64,
    struck: Mutex<Option<(Instant, Name, u32)>>,
    sent_after: AtomicU64,
}

impl Tamper {
    /// Strikes after `after` frames, with a key of its own where one is needed.
    pub fn new(mode: Mode, after: u64) -> Self {
        Self {
            mode,
            after,
            key: SecretKey::from_seed([0x66; 32]),
            sent: AtomicU64::new(0),
            struck: Mutex::new(None),
            sent_after: AtomicU64::new(0),
        }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// When it struck, and in place of which frame.
    pub fn struck(&self) -> Option<(Instant, Name, u32)> {
        *self.struck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames sent since.
    pub fn sent_after(&self) -> u64 {
        self.sent_after.load(Ordering::Relaxed)
    }

    /// Frames sent before.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the next group header is the one to spoil.
    pub fn spoils_group(&self, name: Name) -> bool {
        let due = self.mode == Mode::BadGroupHeader && self.is_due(name);
        due && self.strike(name, 0)
    }

    /// Whether a group of an older epoch is to be sent now.
    pub fn replays_group(&self, name: Name, shelf: &Shelf) -> Option<Name> {
        let is_due = self.mode == Mode::ReplayEpoch && self.is_due(name);
        let old = is_due.then(|| older(name, shelf)).flatten()?;
        self.strike(name, 0).then_some(old)
    }

    /// Whether this frame is to be held until the next one is there.
    pub fn waits(&self, name: Name, entry: &Entry) -> bool {
        self.mode == Mode::Reorder && self.is_due(name) && entry.header.index >= 3
    }

    fn is_due(&self, name: Name) -> bool {
        name.1 != 0 && self.struck().is_none() && self.sent() >= self.after
    }

    fn strike(&self, name: Name, index: u32) -> bool {
        let mut struck = self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        if struck.is_some() {
            return false;
        }
        *struck = Some((Instant::now(), name, index));
        true
    }

    /// Counts a frame that is about to be sent; a deed if it is the one.
    pub fn turn(
        &self,
        name: Name,
        entry: &Entry,
        next: Option<Entry>,
        shelf: &Shelf,
    ) -> Option<Deed> {
        if name.1 != 0 {
            let count = match self.struck() {
                Some(_) => &self.sent_after,
                None => &self.sent,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Not the keyframe: what follows it must be seen to be missing.
        if !self.is_due(name) || entry.header.index < 3 {
            return None;
        }
        let deed = self.deed(name, entry, next, shelf)?;
        self.strike(name, entry.header.index).then_some(deed)
    }

    fn deed(&self, name: Name, entry: &Entry, next: Option<Entry>, shelf: &Shelf) -> Option<Deed> {
        let (wire, payload) = (entry.wire.clone(), entry.payload.clone());
        let go_on = |bytes| {
            Some(Deed {
                bytes,
                then: Then::GoOn,
            })
        };
        let finish = |end| {
            Some(Deed {
                bytes: vec![end],
                then: Then::Finish,
            })
        };
        let whole = |entry: Entry| go_on(vec![entry.wire, entry.payload]);
        match self.mode {
            Mode::Honest | Mode::BadGroupHeader | Mode::ReplayEpoch => None,
            Mode::FlipPayload => go_on(vec![wire, flipped(&payload, payload.len() - 10)]),
            Mode::FlipHeader => go_on(vec![flipped(&wire, 10), payload]),
            Mode::FlipSignature => go_on(vec![flipped(&wire, wire.len() - 1), payload]),
            Mode::TruncateFrame => go_on(vec![wire, payload.slice(..payload.len() - 100)]),
            Mode::CutShort => Some(Deed {
                bytes: vec![],
                then: Then::Finish,
            }),
            Mode::CutForgedEnd => finish(self.end(name, entry.header.index)),
            Mode::CutForeignEnd => finish(shelf.find_end(|other| {
                (other.0, other.1, other.2) == (name.0, name.1, name.2) && other.3 != name.3
            })?),
            Mode::ReplayRenamed => {
                let old = older(name, shelf)?;
                whole(
                    shelf.find(|other, held| {
                        *other == old && held.header.index == entry.header.index
                    })?,
                )
            }
            Mode::Reorder => {
                let next = next?;
                let bytes = vec![next.wire, next.payload, wire, payload];
                Some(Deed {
                    bytes,
                    then: Then::Skip,
                })
            }
            Mode::SwapGroups => whole(shelf.find(|other, held| {
                (other.0, other.1, other.2) == (name.0, name.1, name.2)
                    && other.3 < name.3
                    && held.header.index == entry.header.index
            })?),
            Mode::SwapTracks => whole(shelf.find(|other, _| other.0 == name.0 && other.1 == 0)?),
            Mode::OtherStream => whole(shelf.find(|other, _| other.0 != name.0 && other.1 != 0)?),
            Mode::ForgedFrame => {
                let payload = flipped(&payload, 20);
                let (len, chunks) = FrameHeader::digest(&payload);
                let header = FrameHeader {
                    len,
                    chunks,
                    ..entry.header.clone()
                };
                go_on(vec![self.seal(name.0, header), payload])
            }
            Mode::OversizedItem => go_on(vec![
                item_head(ITEM_FRAME, 1 << 40),
                Bytes::from(vec![0; 64]),
            ]),
            Mode::OversizedFrame => {
                let len = astral_proto::limits::FRAME_BYTES_MAX as u32 + 1;
                let header = FrameHeader {
                    len,
                    ..entry.header.clone()
                };
                go_on(vec![self.seal(name.0, header), payload])
            }
            Mode::EndlessHeader => Some(Deed {
                bytes: vec![item_head(ITEM_FRAME, 16_640)],
                then: Then::Zeros,
            }),
            Mode::UnknownKind => go_on(vec![item_head(9, 10), Bytes::from(vec![0; 74])]),
        }
    }

    fn seal(&self, stream: StreamId, header: FrameHeader) -> Bytes {
        Signed::<FrameHeader>::sign(stream, &self.key, header).wire
    }

    fn end(&self, name: Name, frames: u32) -> Bytes {
        let end = GroupEnd {
            track: name.1,
            epoch: name.2,
            group: name.3,
            frames,
        };
        let wire = Signed::<GroupEnd>::sign(name.0, &self.key, end).wire;
        assert_eq!(wire[0], ITEM_GROUP_END);
        wire
    }
}

/// A whole part of the same track of an older epoch.
fn older(name: Name, shelf: &Shelf) -> Option<Name> {
    let names = shelf.names(name.0).into_iter();
    names
        .rev()
        .find(|other| other.1 == name.1 && other.2 < name.2)
}

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = BytesMut::from(&bytes[..]);
    bytes[at] ^= 1;
    bytes.freeze()
}

fn item_head(kind: u8, len: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    put_varint(&mut out, len);
    out.freeze()
}
