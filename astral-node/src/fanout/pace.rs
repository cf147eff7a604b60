//! Keeps the bytes that a child's connection holds but has not sent below a
//! bound, so that what is newest is never far behind what is queued.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::lock::lock;

/// Most bytes written to one child and not yet sent.
const UNSENT_MAX: u64 = 64 * 1024;
/// How often a full child is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Counts what was written against what quinn's own statistics say was sent.
pub(super) struct Pace {
    conn: quinn::Connection,
    state: Mutex<State>,
}

struct State {
    unsent: u64,
    sent: u64,
}

impl Pace {
    pub(super) fn new(conn: quinn::Connection) -> Self {
        let sent = conn.stats().udp_tx.bytes;
        Self {
            conn,
            state: Mutex::new(State { unsent: 0, sent }),
        }
    }

    /// Waits until there is room for more.
    pub(super) async fn room(&self) {
        while self.unsent() > UNSENT_MAX {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Counts bytes that were written.
    pub(super) fn wrote(&self, bytes: usize) {
        self.lock().unsent += bytes as u64;
    }

    /// Headers and retransmissions count as sent too, so this errs towards zero
    /// and is never stuck.
    fn unsent(&self) -> u64 {
        if self.lock().unsent <= UNSENT_MAX {
            return 0;
        }
        let sent = self.conn.stats().udp_tx.bytes;
        let mut state = self.lock();
        let newly = sent.saturating_sub(state.sent);
        state.sent = state.sent.max(sent);
        state.unsent = state.unsent.saturating_sub(newly);
        state.unsent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
