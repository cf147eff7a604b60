//! A second, small implementation of `astral/1`, made to break its rules.
//!
//! It follows `astral-node/proto/WIRE.md` and shares only the codec with the node:
//! its endpoint, its tickets and its forwarding are its own. Each piece can be used
//! honestly (the benchmark's children are [`child`]s) or not ([`tamper`], [`flood`]).
//!
//! ```text
//!  publisher ──► child ──► shelf ──► parent ──► the honest node under test
//!  (or source ───────────►)            └ tamper
//! ```
//!
//! Deliberately absent: choosing between offers, upload limits, repair.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a small peer listens to few messages"
)]

pub mod child;
pub mod flood;
pub mod identity;
pub mod link;
pub mod parent;
pub mod relay;
pub mod shelf;
pub mod source;
pub mod tamper;
