//! The upload budget: what has been promised against what may be spent.

use std::time::Duration;

/// What a ticket is charged with beyond the stream's rate: headers,
/// acknowledgements and retransmissions (15 %).
pub(super) const ADMISSION_PERCENT: u64 = 115;
/// A stream's rate while nothing is known of it, in bit/s.
pub const RATE_UNKNOWN_BPS: u64 = 4_000_000;
/// Promised sums are compared with the limit this often.
pub(super) const RECHARGE_EVERY: Duration = Duration::from_secs(1);

/// Highest rate that a stream is believed to have, in bit/s: a record can claim any.
pub(super) const RATE_MAX_BPS: u64 = 1_000_000_000;

/// What one ticket for a stream of this rate is charged with, in bit/s.
pub fn charge(rate_bps: u64) -> u64 {
    let rate_bps = rate_bps.min(RATE_MAX_BPS);
    let rate = if rate_bps == 0 {
        RATE_UNKNOWN_BPS
    } else {
        rate_bps
    };
    rate.saturating_mul(ADMISSION_PERCENT) / 100
}

/// How much upload there is to promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// bit/s; `None`: unlimited.
    pub(crate) limit_bps: Option<u64>,
    /// Sum of the charges of all that are fed, in bit/s.
    pub(crate) promised_bps: u64,
    /// What the worst single failure would add: the largest sum of charges of those
    /// whom this node is ready to feed and who share a parent, in bit/s.
    pub(crate) reserved_bps: u64,
}

/// Most that is said to be spare, in bit/s: what a varint in a heartbeat holds.
const SPARE_MAX_BPS: u64 = (1 << 61) - 1;

impl Budget {
    /// Upload that can still be promised, in bit/s.
    pub(crate) fn spare_bps(&self) -> u64 {
        let limit_bps = self.limit_bps.unwrap_or(SPARE_MAX_BPS);
        limit_bps
            .saturating_sub(self.promised_bps)
            .saturating_sub(self.reserved_bps)
            .min(SPARE_MAX_BPS)
    }

    /// Whether somebody can be fed now: who needs the stream now goes before who may
    /// need it one day.
    pub(crate) fn has_room(&self, charge_bps: u64) -> bool {
        let limit_bps = self.limit_bps.unwrap_or(u64::MAX);
        limit_bps.saturating_sub(self.promised_bps) >= charge_bps
    }

    pub(crate) fn never_forwards(&self) -> bool {
        self.limit_bps == Some(0)
    }

    /// Whether the rates themselves pass the limit: the margin that admission
    /// asks for is there to be used, so that one busy second ends no ticket.
    pub(crate) fn is_over(&self) -> bool {
        let rates_bps = self.promised_bps / ADMISSION_PERCENT * 100;
        self.limit_bps.is_some_and(|limit| rates_bps > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spare_fits_a_heartbeat_whatever_the_limit() {
        for limit_bps in [None, Some(u64::MAX), Some(1 << 62)] {
            let budget = Budget {
                limit_bps,
                promised_bps: 0,
                reserved_bps: 0,
            };
            assert_eq!(budget.spare_bps(), SPARE_MAX_BPS);
        }
    }
}
