//! Who may publish a stream: one encoder at a time, and a newer one replaces it.
//!
//! An encoder that was replaced usually reconnects by itself after two seconds, and
//! two of them would throw each other out for ever. So the address that was replaced is
//! refused for [`REPLACED_FOR`], while an encoder at another address holds the slot and
//! is not silent. From the same address the newer one always wins: it is the same
//! encoder after its connection broke, or its user knows both.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an address that was replaced is refused.
pub(super) const REPLACED_FOR: Duration = Duration::from_secs(30);
/// Time without media after which the holder of a slot counts as silent.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Replaced addresses that are remembered.
const REPLACED_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Slot {
    holder: Option<Holder>,
    replaced: Vec<(IpAddr, Instant)>,
    ended_cleanly: bool,
    last_session: u64,
}

#[derive(Debug)]
struct Holder {
    session: u64,
    from: IpAddr,
    heard_at: Instant,
    replaced: CancellationToken,
}

impl Slot {
    /// A number for a new session, by which it is known here.
    pub(super) fn number_session(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }

    /// How long an encoder at this address is still refused.
    pub(super) fn refuses(&mut self, from: IpAddr, now: Instant) -> Option<Duration> {
        self.replaced.retain(|(_, until)| *until > now);
        let holder = self.holder.as_ref()?;
        let is_silent = now.saturating_duration_since(holder.heard_at) >= SILENT_AFTER;
        if is_silent || holder.from == from.to_canonical() {
            return None;
        }
        let from = from.to_canonical();
        let replaced = self.replaced.iter().find(|(address, _)| *address == from);
        replaced.map(|(_, until)| until.saturating_duration_since(now))
    }

    /// Gives the slot to a session; whoever held it is replaced.
    pub(super) fn take(
        &mut self,
        session: u64,
        from: SocketAddr,
        replaced: CancellationToken,
        now: Instant,
    ) {
        let from = from.ip().to_canonical();
        self.replaced.retain(|(address, _)| *address != from);
        let holder = Holder {
            session,
            from,
            heard_at: now,
            replaced,
        };
        if let Some(before) = self.holder.replace(holder) {
            before.replaced.cancel();
            if before.from != from {
                self.replaced.truncate(REPLACED_MAX - 1);
                self.replaced.insert(0, (before.from, now + REPLACED_FOR));
            }
        }
    }

    /// Whether this session holds the slot; it has just been heard of.
    pub(super) fn holds(&mut self, session: u64, now: Instant) -> bool {
        match &mut self.holder {
            Some(holder) if holder.session == session => {
                holder.heard_at = now;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Frees the slot if this session holds it.
    pub(super) fn release(&mut self, session: u64, clean: bool) -> bool {
        let held = matches!(&self.holder, Some(holder) if holder.session == session);
        if held {
            self.holder = None;
            self.replaced.clear();
            self.ended_cleanly = clean;
        }
        held
    }

    /// Throws the holder out for good.
    pub(super) fn clear(&mut self) {
        if let Some(holder) = self.holder.take() {
            holder.replaced.cancel();
        }
        self.ended_cleanly = true;
    }

    pub(super) fn is_taken(&self) -> bool {
        self.holder.is_some()
    }

    pub(super) fn ended_cleanly(&self) -> bool {
        self.ended_cleanly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 5_000)
    }

    fn take(slot: &mut Slot, from: &str, now: Instant) -> (u64, CancellationToken) {
        let (session, token) = (slot.number_session(), CancellationToken::new());
        slot.take(session, at(from), token.clone(), now);
        (session, token)
    }

    #[test]
    fn replaced_address_is_refused_for_thirty_seconds_while_the_other_one_sends() {
        let start = Instant::now();
        let mut slot = Slot::default();
        let (first, token) = take(&mut slot, "10.0.0.1", start);
        let (second, _) = take(&mut slot, "10.0.0.2", start);
        assert!(token.is_cancelled());
        assert!(!slot.holds(first, start) && slot.holds(second, start));

        let refused = slot.refuses(at("10.0.0.1").ip(), start);
        assert_eq!(refused, Some(REPLACED_FOR));
        let mapped = slot.refuses(at("::ffff:10.0.0.1").ip(), start);
        assert_eq!(
            mapped,
            Some(REPLACED_FOR),
            "the same address in IPv6's clothes"
        );
        assert_eq!(slot.refuses(at("10.0.0.3").ip(), start), None);

        let silent = start + SILENT_AFTER;
        assert_eq!(slot.refuses(at("10.0.0.1").ip(), silent), None);
        let later = start + REPLACED_FOR;
        slot.holds(second, later);
        assert_eq!(slot.refuses(at("10.0.0.1").ip(), later), None);
    }

    #[test]
    fn replaced_address_may_come_back_once_the_slot_is_free() {
        let start = Instant::now();
        let mut slot = Slot::default();
        let (first, _) = take(&mut slot, "10.0.0.1", start);
        let (second, _) = take(&mut slot, "10.0.0.2", start);
        assert!(!slot.release(first, false), "an old session frees nothing");
        assert!(slot.release(second, true));
        assert!(slot.ended_cleanly());
        assert_eq!(slot.refuses(at("10.0.0.1").ip(), start), None);
    }

    #[test]
    fn newer_connection_from_the_same_address_always_wins() {
        let start = Instant::now();
        let mut slot = Slot::default();
        let (_, token) = take(&mut slot, "10.0.0.1", start);
        take(&mut slot, "10.0.0.1", start);
        assert!(token.is_cancelled());
        assert_eq!(slot.refuses(at("10.0.0.1").ip(), start), None);
    }
}
