//! Uni streams: the group header, signed frame headers, chunks and group ends.
//!
//! A uni stream carries one track's part of one group for one ticket:
//! [`GroupHeader`], then [`Item`]s. A frame's payload follows its header
//! directly, from the chunk that the group header names for the first frame.
//! Whoever forwards a frame passes header and signature on as they are: only the
//! publisher can make them.

use bytes::{BufMut, Bytes, BytesMut};

use super::varint::{put_signed, put_varint};
use super::{Reader, WireError};
use crate::ids::{
    Domain, PublicKey, SIGNATURE_LEN, SecretKey, Signature, StreamId, TicketId, sha256,
};
use crate::limits::{
    CHUNK_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX, GROUP_FRAMES_MAX, TRACK_MAX,
};

/// First bytes of a uni stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The ticket under which it is sent.
    pub ticket: TicketId,
    /// Track number; 0 is the catalog.
    pub track: u8,
    /// Epoch of the frames.
    pub epoch: u32,
    /// Group number; for the catalog its version.
    pub group: u64,
    /// First frame that follows.
    pub first_frame: u32,
    /// First chunk of that frame that follows (its header comes all the same).
    pub first_chunk: u32,
    /// Version of the catalog, within the epoch, that these frames need.
    pub catalog: u32,
}

impl GroupHeader {
    /// Longest encoding in bytes.
    pub const BYTES_MAX: usize = 8 + 1 + 5 * 8;

    /// Appends the header.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u64(self.ticket.0);
        out.put_u8(self.track);
        put_varint(out, u64::from(self.epoch));
        put_varint(out, self.group);
        put_varint(out, u64::from(self.first_frame));
        put_varint(out, u64::from(self.first_chunk));
        put_varint(out, u64::from(self.catalog));
    }

    /// Reads a header off the front.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if more bytes are needed; a limit that is passed.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut ticket = [0; 8];
        ticket.copy_from_slice(reader.take("group header: ticket", 8)?);
        Ok(Self {
            ticket: TicketId(u64::from_be_bytes(ticket)),
            track: track(reader, "group header: track")?,
            epoch: reader.u32("group header: epoch")?,
            group: reader.varint("group header: group")?,
            first_frame: reader
                .varint_up_to("group header: first frame", u64::from(GROUP_FRAMES_MAX))?
                as u32,
            first_chunk: reader.varint_up_to(
                "group header: first chunk",
                chunk_count(FRAME_BYTES_MAX) as u64,
            )? as u32,
            catalog: reader.u32("group header: catalog")?,
        })
    }
}

fn track(reader: &mut Reader<'_>, what: &'static str) -> Result<u8, WireError> {
    let value = reader.u8(what)?;
    if value > TRACK_MAX {
        return Err(WireError::TooLarge {
            what,
            value: value.into(),
            limit: TRACK_MAX.into(),
        });
    }
    Ok(value)
}

/// Chunks of a payload of `len` bytes; an empty payload has none.
pub fn chunk_count(len: usize) -> usize {
    len.div_ceil(CHUNK_BYTES)
}

/// Where chunk `index` of a payload of `len` bytes lies.
pub fn chunk_range(len: usize, index: usize) -> std::ops::Range<usize> {
    let start = (index * CHUNK_BYTES).min(len);
    start..(start + CHUNK_BYTES).min(len)
}

/// What the publisher says and signs about one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Track number; 0 is the catalog.
    pub track: u8,
    /// Epoch.
    pub epoch: u32,
    /// Group number.
    pub group: u64,
    /// Position in the track's part of the group, from 0.
    pub index: u32,
    /// Position among the frames of all tracks of the group, from 0.
    pub order: u32,
    /// Decoding time on the stream's timeline, in ticks of the track's timescale.
    pub dts: i64,
    /// Presentation time minus decoding time, in ticks.
    pub cts: i32,
    /// Expected duration in ticks.
    pub duration: u32,
    /// A decoder can start here.
    pub keyframe: bool,
    /// No other frame refers to it.
    pub discardable: bool,
    /// Opens a group that had to be cut without a keyframe.
    pub no_keyframe: bool,
    /// Payload length in bytes.
    pub len: u32,
    /// SHA-256 of each [`CHUNK_BYTES`] of the payload.
    pub chunks: Vec<[u8; 32]>,
}

const FLAG_KEYFRAME: u8 = 1;
const FLAG_DISCARDABLE: u8 = 2;
const FLAG_NO_KEYFRAME: u8 = 4;

impl FrameHeader {
    /// Length and chunk hashes of this payload.
    pub fn digest(payload: &[u8]) -> (u32, Vec<[u8; 32]>) {
        (
            payload.len() as u32,
            payload.chunks(CHUNK_BYTES).map(sha256).collect(),
        )
    }

    fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(self.track);
        put_varint(out, u64::from(self.epoch));
        put_varint(out, self.group);
        put_varint(out, u64::from(self.index));
        put_varint(out, u64::from(self.order));
        put_signed(out, self.dts);
        put_signed(out, i64::from(self.cts));
        put_varint(out, u64::from(self.duration));
        let flag = |set, bit| if set { bit } else { 0 };
        out.put_u8(
            flag(self.keyframe, FLAG_KEYFRAME)
                | flag(self.discardable, FLAG_DISCARDABLE)
                | flag(self.no_keyframe, FLAG_NO_KEYFRAME),
        );
        put_varint(out, u64::from(self.len));
        for hash in &self.chunks {
            out.put_slice(hash);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        let track = track(reader, "frame: track")?;
        let epoch = reader.u32("frame: epoch")?;
        let group = reader.varint("frame: group")?;
        let index = frame_index(reader, "frame: index")?;
        let order = reader.varint_up_to(
            "frame: order",
            u64::from(GROUP_FRAMES_MAX) * u64::from(TRACK_MAX),
        )? as u32;
        let dts = reader.signed("frame: dts")?;
        let cts = reader.signed("frame: cts")?;
        let cts = i32::try_from(cts).map_err(|_| WireError::Invalid {
            what: "frame: cts",
            value: cts.unsigned_abs(),
        })?;
        let duration = reader.u32("frame: duration")?;
        let flags = reader.u8("frame: flags")?;
        let len = reader.varint_up_to("frame: length", FRAME_BYTES_MAX as u64)? as u32;
        let hashes = reader.take("frame: chunk hashes", chunk_count(len as usize) * 32)?;
        reader.end("frame header")?;
        let chunks = hashes
            .chunks_exact(32)
            .map(|hash| <[u8; 32]>::try_from(hash).expect("chunks_exact gives 32 bytes"))
            .collect();
        Ok(Self {
            track,
            epoch,
            group,
            index,
            order,
            dts,
            cts,
            duration,
            keyframe: flags & FLAG_KEYFRAME != 0,
            discardable: flags & FLAG_DISCARDABLE != 0,
            no_keyframe: flags & FLAG_NO_KEYFRAME != 0,
            len,
            chunks,
        })
    }

    /// Whether `bytes` are chunk `index` of the payload.
    pub fn chunk_verifies(&self, index: usize, bytes: &[u8]) -> bool {
        self.chunks
            .get(index)
            .is_some_and(|hash| *hash == sha256(bytes))
    }
}

fn frame_index(reader: &mut Reader<'_>, what: &'static str) -> Result<u32, WireError> {
    reader
        .varint_up_to(what, u64::from(GROUP_FRAMES_MAX - 1))
        .map(|value| value as u32)
}

/// What the publisher signs when a group closes: how many frames it has, so that
/// nobody can cut it short unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEnd {
    /// Track number.
    pub track: u8,
    /// Epoch.
    pub epoch: u32,
    /// Group number.
    pub group: u64,
    /// Frames of this track in the group.
    pub frames: u32,
}

impl GroupEnd {
    fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(self.track);
        put_varint(out, u64::from(self.epoch));
        put_varint(out, self.group);
        put_varint(out, u64::from(self.frames));
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let end = Self {
            track: track(&mut reader, "group end: track")?,
            epoch: reader.u32("group end: epoch")?,
            group: reader.varint("group end: group")?,
            frames: reader.varint_up_to("group end: frames", u64::from(GROUP_FRAMES_MAX))? as u32,
        };
        reader.end("group end")?;
        Ok(end)
    }
}

/// A signed thing in the form in which it travels and is stored: shared bytes
/// that a relay passes on untouched, beside what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    /// What was signed.
    pub value: T,
    /// Kind, length, body and signature as on the wire.
    pub wire: Bytes,
}

/// Kind byte of a frame on a uni stream.
pub const ITEM_FRAME: u8 = 1;
/// Kind byte of a group's end on a uni stream.
pub const ITEM_GROUP_END: u8 = 2;

fn seal(kind: u8, domain: Domain, stream: StreamId, key: &SecretKey, body: &[u8]) -> Bytes {
    let signature = key.sign(domain, &signed_bytes(stream, body));
    let mut wire = BytesMut::with_capacity(body.len() + SIGNATURE_LEN + 5);
    wire.put_u8(kind);
    put_varint(&mut wire, body.len() as u64);
    wire.put_slice(body);
    wire.put_slice(&signature.0);
    wire.freeze()
}

/// The stream's id stands in front of what is signed, and nowhere on the wire:
/// both ends of a ticket know it.
fn signed_bytes(stream: StreamId, body: &[u8]) -> Vec<u8> {
    [stream.0.as_bytes().as_slice(), body].concat()
}

impl Signed<FrameHeader> {
    /// Signs a header with the stream's key.
    pub fn sign(stream: StreamId, key: &SecretKey, header: FrameHeader) -> Self {
        let mut body = Vec::with_capacity(64 + header.chunks.len() * 32);
        header.encode(&mut body);
        let wire = seal(ITEM_FRAME, Domain::Frame, stream, key, &body);
        Self {
            value: header,
            wire,
        }
    }
}

impl Signed<GroupEnd> {
    /// Signs a group's end with the stream's key.
    pub fn sign(stream: StreamId, key: &SecretKey, end: GroupEnd) -> Self {
        let mut body = Vec::with_capacity(24);
        end.encode(&mut body);
        let wire = seal(ITEM_GROUP_END, Domain::GroupEnd, stream, key, &body);
        Self { value: end, wire }
    }
}

/// What stands on a uni stream behind the group header, payload apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A frame's header; its payload follows.
    Frame(Signed<FrameHeader>),
    /// The group is complete.
    End(Signed<GroupEnd>),
}

/// Length in bytes of the item at the front of `bytes`, kind and signature
/// included; `None` while its head is incomplete.
///
/// # Errors
/// An unknown kind or a length over [`FRAME_HEADER_BYTES_MAX`].
pub fn item_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let mut reader = Reader::new(bytes);
    let Ok(kind) = reader.u8("item") else {
        return Ok(None);
    };
    if kind != ITEM_FRAME && kind != ITEM_GROUP_END {
        return Err(WireError::Invalid {
            what: "item kind",
            value: kind.into(),
        });
    }
    match reader.varint_up_to("item length", FRAME_HEADER_BYTES_MAX as u64) {
        Ok(len) => Ok(Some(reader.position() + len as usize + SIGNATURE_LEN)),
        Err(WireError::Truncated { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Item {
    /// Reads and verifies one whole item (see [`item_len`]).
    ///
    /// # Errors
    /// What is wrong with it; [`WireError::Signature`] if `key` did not sign it.
    pub fn decode(wire: Bytes, stream: StreamId, key: &PublicKey) -> Result<Self, WireError> {
        let mut reader = Reader::new(&wire);
        let kind = reader.u8("item")?;
        let len = reader.varint_up_to("item length", FRAME_HEADER_BYTES_MAX as u64)? as usize;
        let body = reader.take("item body", len)?;
        let mut signature = [0; SIGNATURE_LEN];
        signature.copy_from_slice(reader.take("item signature", SIGNATURE_LEN)?);
        reader.end("item")?;
        let (domain, what) = match kind {
            ITEM_FRAME => (Domain::Frame, "frame"),
            _ => (Domain::GroupEnd, "group end"),
        };
        if !key.verifies(domain, &signed_bytes(stream, body), &Signature(signature)) {
            return Err(WireError::Signature { what });
        }
        Ok(match domain {
            Domain::Frame => {
                let value = FrameHeader::decode(body)?;
                Self::Frame(Signed { value, wire })
            }
            Domain::GroupEnd | Domain::NodeRecord | Domain::StreamRecord => {
                let value = GroupEnd::decode(body)?;
                Self::End(Signed { value, wire })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream() -> (StreamId, SecretKey) {
        let key = SecretKey::from_seed([3; 32]);
        (StreamId::of(&key.public()), key)
    }

    fn header(payload: &[u8]) -> FrameHeader {
        let (len, chunks) = FrameHeader::digest(payload);
        FrameHeader {
            track: 1,
            epoch: 7,
            group: 1_000_000,
            index: 3,
            order: 9,
            dts: -90_000,
            cts: 3_000,
            duration: 3_003,
            keyframe: true,
            discardable: false,
            no_keyframe: false,
            len,
            chunks,
        }
    }

    #[test]
    fn signed_frame_survives_the_wire_and_its_chunks_verify() {
        let (id, key) = stream();
        let payload = vec![0x5a; CHUNK_BYTES + 10];
        let signed = Signed::<FrameHeader>::sign(id, &key, header(&payload));
        assert_eq!(item_len(&signed.wire), Ok(Some(signed.wire.len())));
        let Ok(Item::Frame(read)) = Item::decode(signed.wire.clone(), id, &key.public()) else {
            panic!("a frame")
        };
        assert_eq!(read, signed);
        assert!(
            read.value
                .chunk_verifies(1, &payload[chunk_range(payload.len(), 1)])
        );
        assert!(!read.value.chunk_verifies(0, &payload[1..]));
        assert!(!read.value.chunk_verifies(2, &[]));
    }

    #[test]
    fn a_flipped_bit_or_another_stream_is_refused() {
        let (id, key) = stream();
        let signed = Signed::<FrameHeader>::sign(id, &key, header(b"payload"));
        for at in 2..signed.wire.len() {
            let mut bytes = signed.wire.to_vec();
            bytes[at] ^= 1;
            assert!(
                Item::decode(bytes.into(), id, &key.public()).is_err(),
                "byte {at}"
            );
        }
        let other = StreamId::of(&SecretKey::from_seed([4; 32]).public());
        assert_eq!(
            Item::decode(signed.wire, other, &key.public()),
            Err(WireError::Signature { what: "frame" })
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (id, key) = stream();
            let _ = GroupHeader::decode(&mut Reader::new(&bytes));
            let _ = FrameHeader::decode(&bytes);
            let _ = GroupEnd::decode(&bytes);
            let _ = item_len(&bytes);
            let _ = Item::decode(bytes.into(), id, &key.public());
        }

        #[test]
        fn group_header_survives_the_wire(ticket: u64, track in 0..=TRACK_MAX, epoch: u32, group in 0u64..1 << 40, catalog: u32) {
            let header = GroupHeader { ticket: TicketId(ticket), track, epoch, group, first_frame: 5, first_chunk: 2, catalog };
            let mut out = Vec::new();
            header.encode(&mut out);
            prop_assert!(out.len() <= GroupHeader::BYTES_MAX);
            prop_assert_eq!(GroupHeader::decode(&mut Reader::new(&out)), Ok(header));
        }
    }
}
