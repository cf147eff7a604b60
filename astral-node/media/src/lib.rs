//! Media of Astral, apart from all I/O: bytes in, bytes out.
//!
//! An encoder's bytes (RTMP, FLV tags, fragmented MP4, MPEG-TS, a browser's frames) become [`source::SourceEvent`]s,
//! the [`segmenter`] puts them on the stream's one timeline and names them
//! (epoch, track, group, frame), and [`fmp4::mux`] and [`ts::mux`] make fragmented MP4
//! and MPEG-TS of named frames at the edge. No sockets, no clock, no tasks, no peers, no signatures.
//!
//! Every parser here reads strangers' bytes: each has a size limit, returns a
//! typed error that says what was wrong and where, and never panics.

pub mod aac;
pub mod av1;
mod bits;
pub mod catalog;
pub mod codec;
pub mod file;
pub mod flv;
pub mod fmp4;
pub mod frame;
pub mod h264;
pub mod h265;
pub mod hls;
pub mod nal;
pub mod opus;
pub mod packets;
pub mod rtmp;
pub mod segmenter;
pub mod source;
pub mod timeline;
pub mod track;
pub mod ts;
