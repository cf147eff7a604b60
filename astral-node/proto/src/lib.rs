//! What nodes say to each other and decide, apart from all I/O: ids and keys,
//! limits, the wire codec, signed records, the types of the HTTP API, and the
//! overlay state machine.
//!
//! Deliberately absent: sockets, tasks, the clock and randomness of its own.

pub mod api;
pub mod ids;
pub mod limits;
pub mod link;
pub mod overlay;
pub mod record;
#[cfg(feature = "sim")]
pub mod sim;
pub mod slug;
pub mod wire;
