//! Low-latency HLS (draft-pantos-hls-rfc8216bis, with its appendix B.1): which parts
//! and segments a track has, under which names, and the playlists that list them.
//!
//! A segment is a group, a part some frames of it, a discontinuity number an epoch.
//! All of it is a function of the publisher's names and times and of what is held: no
//! clock, no counter, no memory of earlier requests. So two nodes give the same bytes
//! the same name, and a player that changes from one to the other sees no change.
//!
//! ```text
//!   group 41 (whole)            group 42 (torn)       group 43 (open)
//!   part 0 │ part 1 │ part 2    EXT-X-GAP             part 0 │ part 1 │ hint: part 2
//! ```
//!
//! What it does not do: hold, wait for or verify frames (the store does), and answer
//! requests.

mod cut;
mod master;
mod name;
mod playlist;

pub use cut::{Part, Timing, cut, micros};
pub use master::master;
pub use name::File;
pub use playlist::{Playlist, Report, Segment, State};
