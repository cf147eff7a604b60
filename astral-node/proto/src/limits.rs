//! Every bound on what a peer may send or make a node hold.
//!
//! A peer that passes one of them is not heard further: the connection closes
//! with the code that WIRE.md gives.

/// Longest control message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest header of a frame on the wire, signature included, in bytes: 8 MiB of
/// payload are 512 chunk hashes of 32 bytes, and 256 bytes hold all else.
pub const FRAME_HEADER_BYTES_MAX: usize = 512 * 32 + 256;
/// Largest payload of one frame, in bytes (a UHD keyframe is about 2 MiB).
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Payload bytes that one hash in a frame's header vouches for: what a relay
/// verifies and passes on before the frame is complete.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Highest track number.
pub const TRACK_MAX: u8 = 63;
/// Frames in one track's part of a group: 10 s at 400 frames/s.
pub const GROUP_FRAMES_MAX: u32 = 4096;
/// Payload bytes of one group over all tracks, in bytes; the segmenter cuts before.
pub const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024 + FRAME_BYTES_MAX;
/// Nodes on a path from the publisher.
pub const PATH_MAX: usize = 32;
/// Records in one message.
pub const RECORDS_PER_MESSAGE: usize = 32;
/// Stream records that a node holds.
pub const STREAM_RECORDS_MAX: usize = 4096;
/// Node records that a node holds.
pub const NODE_RECORDS_MAX: usize = 4096;
/// Longest signed record, in bytes.
pub const RECORD_BYTES_MAX: usize = 4096;
/// Characters of a stream's name (any language).
pub const NAME_CHARS_MAX: usize = 100;
/// Characters of a stream's description.
pub const DESCRIPTION_CHARS_MAX: usize = 1000;
/// Streams of which a supernode's record gives counts: with the longest of all other
/// fields the record stays under [`RECORD_BYTES_MAX`].
pub const LOAD_STREAMS_MAX: usize = 16;
/// Addresses in a record or a referral.
pub const ADDRESSES_MAX: usize = 8;
/// Referrals in a refusal.
pub const REFERRALS_MAX: usize = 8;
/// Peers asked for one stream at a time.
pub const ASKED_AT_ONCE: usize = 8;
/// Tickets on one connection, in each direction.
pub const TICKETS_PER_PEER: usize = 64;
/// Tickets listed in one heartbeat: what fits a 1,200-byte datagram.
pub const HEARTBEAT_TICKETS_MAX: usize = 24;
/// Open groups per track in `have`.
pub const HAVE_GROUPS_MAX: usize = 4;
/// Classes of delay in what a node says of its audience.
pub const DELAY_CLASSES: usize = 16;
/// Frames asked for in one `Fetch`.
pub const FETCH_FRAMES_MAX: u32 = 256;
/// Established connections of a node.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections from one IP address that is not loopback.
pub const CONNECTIONS_PER_IP_MAX: usize = 32;
/// Requests for a stream this node lacks that wait for it to arrive.
pub const WAITING_REQUESTS_MAX: usize = 64;
