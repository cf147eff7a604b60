//! TEMPORARY stand-in, replaced at the merge: an unlimited uplink that counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Class {
    Video,
}

/// Upload budget.
#[derive(Default)]
pub(crate) struct Uplink {
    pub(crate) charged: AtomicU64,
}

impl Uplink {
    #[expect(clippy::unused_async, reason = "stands in for one that waits")]
    pub(crate) async fn acquire(&self, _: Class, _child: u64, _group: u64, _bytes: usize) {}

    pub(crate) fn on_sent_elsewhere(&self, bytes: usize) {
        self.charged.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
