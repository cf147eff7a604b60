//! MP4: fragments in and out, over nothing but bytes.
//!
//! * [`demux`] reads fragmented MP4 (ISO/IEC 14496-12) as it comes, in any pieces.
//! * [`mux`] writes an initialisation segment of a catalog and one fragment per frame,
//!   as a function of nothing else: two nodes write the same bytes.
//! * [`live`] is for one viewer of a live stream: it bridges losses.
//!
//! Files that can be sought in are [`crate::file`]'s.

pub mod boxes;
pub mod demux;
pub mod error;
pub(crate) mod fragment;
pub mod live;
pub mod mux;
mod repair;
pub(crate) mod table;
pub(crate) mod track;

pub use demux::Demuxer;
pub use error::{Fmp4Error, FourCc, IgnoredTrack};
