//! The harness of the end-to-end tests: it starts the real programs and looks at
//! them from outside, as DESIGN §8 promises they look.
//!
//! It decides nothing about what is right; the tests in `tests/` do. Everything here
//! waits on conditions with generous bounds, works on free ports and in temporary
//! folders, and ends only processes it started itself.
//!
//! What must be there beforehand: the binaries of the workspace, `ffmpeg`, and
//! Chromium. Whatever is missing fails the test and says which command brings it.

pub mod api;
pub mod ask;
pub mod axe;
pub mod bench;
pub mod capture;
pub mod cdp;
pub mod chain;
pub mod chaos;
pub mod cli;
pub mod ertmp;
pub mod events;
pub mod ffmpeg;
pub mod fmp4;
pub mod hls;
pub mod hostile;
pub mod media;
pub mod netns;
pub mod places;
pub mod player;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod recording;
pub mod rough;
pub mod schemathesis;
pub mod synthetic;
pub mod terminal;
pub mod turn;
pub mod village;
pub mod wait;
pub mod web;
