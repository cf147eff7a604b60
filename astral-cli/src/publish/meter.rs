//! The line that says how an upload goes.

use std::time::Duration;

use tokio::time::Instant;

use crate::format::{duration, rate, size};
use crate::term::Live;

/// How often the line changes.
const REFRESH: Duration = Duration::from_secs(1);

/// Counts what was sent, and shows it on a terminal.
pub(crate) struct Meter {
    line: Live,
    quiet: bool,
    begun: Instant,
    total: u64,
    since: Instant,
    recent: u64,
}

impl Meter {
    /// Starts at zero; says nothing at all if `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            line: Live::new(quiet),
            quiet,
            begun: now,
            total: 0,
            since: now,
            recent: 0,
        }
    }

    /// Counts bytes that went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.total += bytes as u64;
        self.recent += bytes as u64;
        let passed = self.since.elapsed();
        if passed < REFRESH {
            return;
        }
        let bps = (self.recent as f64 * 8.0 / passed.as_secs_f64()) as u64;
        let elapsed = duration(self.begun.elapsed());
        self.line.set(&format!("sending  {elapsed}  {}", rate(bps)));
        self.since = Instant::now();
        self.recent = 0;
    }

    /// Says something that happened.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.quiet {
            self.line.note(text);
        }
    }

    /// What was sent in all.
    pub(crate) fn sum(&self) -> String {
        format!("{} in {}", size(self.total), duration(self.begun.elapsed()))
    }
}
