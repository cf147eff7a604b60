//! What one caller may ask: requests, and submissions that are refused.
//!
//! Counted by IP address, an IPv6 caller by its /64, which one customer of a provider
//! has whole. Loopback is not counted: all nodes of a machine share it. The method is
//! the generic cell rate algorithm: one time for each caller, that at which it has paid
//! for all it did. Who has paid is forgotten; from more callers at a time than
//! [`CALLERS_MAX`] the connection limits must do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::state::lock;

/// Callers that are counted at a time; about 5 MB.
const CALLERS_MAX: usize = 65_536;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Charge {
    /// Any request: 300 at once, 50 a second. A page asks each three seconds, a node
    /// without a supernode each second, so a whole school has room behind one address.
    Request,
    /// A submission that was refused: 30 at once, 30 a minute. An honest node has none.
    Refusal,
}

impl Charge {
    /// What one costs.
    const fn each(self) -> Duration {
        match self {
            Self::Request => Duration::from_millis(20),
            Self::Refusal => Duration::from_secs(2),
        }
    }

    /// What may be owed.
    const fn credit(self) -> Duration {
        match self {
            Self::Request => Duration::from_secs(6),
            Self::Refusal => Duration::from_secs(60),
        }
    }
}

/// Counts callers.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<BTreeMap<(Charge, IpAddr), Instant>>);

impl Limits {
    /// Charges a caller for `count`, unless that is more than it may owe.
    ///
    /// # Errors
    /// How long it must wait.
    pub(crate) fn charge(
        &self,
        charge: Charge,
        ip: IpAddr,
        count: u32,
        now: Instant,
    ) -> Result<(), Duration> {
        let Some(who) = subject(ip) else {
            return Ok(());
        };
        let mut paid = lock(&self.0);
        if paid.len() >= CALLERS_MAX && !paid.contains_key(&(charge, who)) {
            paid.retain(|_, at| *at > now);
            if paid.len() >= CALLERS_MAX {
                return Ok(());
            }
        }
        let at = paid.entry((charge, who)).or_insert(now);
        let after = (*at).max(now) + charge.each() * count;
        let owed = after - now;
        if owed > charge.credit() {
            return Err(owed - charge.credit());
        }
        *at = after;
        Ok(())
    }

    /// Whether a caller could be charged for one.
    ///
    /// # Errors
    /// How long it must wait.
    pub(crate) fn look(&self, charge: Charge, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let at = subject(ip).and_then(|who| lock(&self.0).get(&(charge, who)).copied());
        let owed = at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        match (owed + charge.each()).checked_sub(charge.credit()) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(wait),
        }
    }
}

/// Under what a caller is counted; `None` is not.
pub(crate) fn subject(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical() {
        ip if ip.is_loopback() => None,
        IpAddr::V6(ip) => {
            let network = u128::from(ip) & !u128::from(u64::MAX);
            Some(IpAddr::V6(network.into()))
        }
        ip @ IpAddr::V4(_) => Some(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn caller_has_a_burst_then_a_rate_and_others_are_not_touched() {
        let (limits, now) = (Limits::default(), Instant::now());
        let ask = |from: &str, at| limits.charge(Charge::Request, ip(from), 1, at);
        let granted = (0..1_000).filter(|_| ask("192.0.2.1", now).is_ok()).count();
        assert_eq!(granted, 300);
        assert_eq!(ask("192.0.2.1", now), Err(Duration::from_millis(20)));
        assert!(ask("192.0.2.2", now).is_ok());
        let later = now + Duration::from_secs(1);
        let granted = (0..1_000)
            .filter(|_| ask("192.0.2.1", later).is_ok())
            .count();
        assert_eq!(granted, 50);
        assert!((0..1_000).all(|_| ask("127.0.0.1", now).is_ok()));
    }

    #[test]
    fn refusals_bar_the_whole_network_of_an_ipv6_caller_and_are_forgiven() {
        let (limits, now) = (Limits::default(), Instant::now());
        for host in 0..30 {
            let from = ip(&format!("2001:db8::{host:x}"));
            assert!(limits.look(Charge::Refusal, from, now).is_ok(), "{host}");
            assert!(limits.charge(Charge::Refusal, from, 1, now).is_ok());
        }
        let other = ip("2001:db8::ffff");
        assert_eq!(
            limits.look(Charge::Refusal, other, now),
            Err(Duration::from_secs(2))
        );
        assert!(
            limits
                .look(Charge::Refusal, ip("2001:db8:0:1::"), now)
                .is_ok()
        );
        let later = now + Duration::from_secs(2);
        assert!(limits.look(Charge::Refusal, other, later).is_ok());
    }

    #[test]
    fn callers_beyond_the_most_are_not_counted_and_those_who_paid_are_forgotten() {
        let (limits, now) = (Limits::default(), Instant::now());
        for caller in 0..u32::try_from(CALLERS_MAX).unwrap() + 10 {
            let from = IpAddr::V4((0x0a00_0000 + caller).into());
            assert!(limits.charge(Charge::Refusal, from, 30, now).is_ok());
        }
        assert_eq!(lock(&limits.0).len(), CALLERS_MAX);
        let later = now + Duration::from_secs(61);
        assert!(
            limits
                .charge(Charge::Refusal, ip("192.0.2.1"), 1, later)
                .is_ok()
        );
        assert_eq!(lock(&limits.0).len(), 1);
    }
}
