//! What leaves this machine over HTTP counts against the upload limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::{App, Caller};
use crate::uplink::{Class, Uplink};

/// Fair-queue keys of HTTP readers have this bit; peers' have not.
const READER_KEY: u64 = 1 << 63;

/// One reader's account; readers on this machine have none.
pub(in super::super) struct Egress {
    uplink: Option<Arc<Uplink>>,
    key: u64,
}

impl Egress {
    pub(in super::super) fn new(app: &App, caller: &Caller) -> Self {
        let away = !caller.peer.ip().is_loopback();
        Self {
            uplink: away.then(|| Arc::clone(app.handle.uplink())),
            key: READER_KEY | app.next_reader.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Waits until `bytes` of `group` may be sent, and counts them as sent: no UDP
    /// socket will report them.
    pub(in super::super) async fn charge(&self, group: u64, bytes: usize) {
        if let Some(uplink) = &self.uplink {
            uplink.acquire(Class::Video, self.key, group, bytes).await;
            uplink.on_sent_elsewhere(bytes);
        }
    }
}
