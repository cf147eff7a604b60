//! Named frames: what the segmenter makes, the network carries and the muxers take.
//!
//! A video frame's payload is one access unit with length-prefixed NAL units.
//! An audio frame's payload is a *bundle* of one or more codec frames of equal
//! duration, each behind its length as a QUIC variable-length integer
//! (RFC 9000 §16): short frames would cost more to sign than to send.

use bytes::Bytes;

/// One coded picture, or some tens of milliseconds of sound, under its global name.
///
/// `(epoch, track, group, index)` names the frame everywhere and for ever; the
/// times are on the stream's one timeline, which goes on across epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Track number, from 1.
    pub track: u8,
    /// Epoch: changes when the encoder reconnects, is configured anew or jumps in time.
    pub epoch: u32,
    /// Group number; goes on across epochs, common to all tracks.
    pub group: u64,
    /// Position within this track's part of the group, from 0.
    pub index: u32,
    /// Position among all frames of all tracks of this group, from 0: the order
    /// in which a muxer writes them.
    pub order: u32,
    /// Decoding time in ticks of the track's timescale.
    pub dts: i64,
    /// Presentation time minus decoding time, in ticks.
    pub cts: i32,
    /// Expected duration in ticks; exact for audio and fMP4 sources, the last
    /// known distance for RTMP video. `dts` of the next frame is what counts.
    pub duration: u32,
    /// A decoder can start here.
    pub keyframe: bool,
    /// No other frame refers to this one: it goes first when there is no room.
    pub discardable: bool,
    /// First frame of a group that had to be cut without a keyframe.
    pub no_keyframe: bool,
    /// Coded bytes (see the module's words for their layout).
    pub payload: Bytes,
}
