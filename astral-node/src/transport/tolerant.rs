//! CUBIC that bears what a link loses by itself.
//!
//! CUBIC (RFC 9438) takes every loss for congestion: at 2 % of random loss its window is
//! smaller than a stream needs. Here it is told of losses only while they are more than
//! [`BORNE`] of what was sent lately; a queue that overflows soon loses more. (BBR version 3
//! does the same at 2 % of a round trip.) What it does then is CUBIC's own affair. Pacing is
//! quinn's.
//!
//! quinn's BBR is no way out: it never leaves its startup while the application is the limit,
//! as a live stream mostly is, and its window is all that was ever acknowledged meanwhile.
//! Where a link shrinks, it sends that at once, and nothing gets through for seconds.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Of so many bytes one may be lost.
///
/// Twice what a bad radio link loses (5 %); scenario `tests/rough.rs` has both sides of it.
const BORNE: u64 = 10;
/// Bytes that are remembered at most: 128 packets. Of fewer, 5 % of loss by chance looks
/// like 10 % too often; more take too long to show that a link has shrunk.
const MEMORY_BYTES: u64 = 128 * 1_200;

/// Makes [`Tolerant`] ones.
#[derive(Debug, Default)]
pub(super) struct TolerantConfig;

impl ControllerFactory for TolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Tolerant::new(now, current_mtu))
    }
}

struct Tolerant {
    cubic: Box<dyn Controller>,
    /// Of the last ones, as is `lost_bytes`: both are halved when they are too many.
    acked_bytes: u64,
    lost_bytes: u64,
}

impl Tolerant {
    fn new(now: Instant, current_mtu: u16) -> Self {
        let cubic = Arc::new(CubicConfig::default());
        Self {
            cubic: cubic.build(now, current_mtu),
            // Nothing is known against the link yet.
            acked_bytes: MEMORY_BYTES / 2,
            lost_bytes: 0,
        }
    }

    fn note(&mut self, acked_bytes: u64, lost_bytes: u64) {
        self.acked_bytes += acked_bytes;
        self.lost_bytes += lost_bytes;
        if self.acked_bytes + self.lost_bytes > MEMORY_BYTES {
            self.acked_bytes /= 2;
            self.lost_bytes /= 2;
        }
    }

    fn is_too_much(&self) -> bool {
        self.lost_bytes * BORNE > self.acked_bytes + self.lost_bytes
    }
}

impl Controller for Tolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.note(bytes, 0);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.note(0, lost_bytes);
        // A router's own word (ECN) loses nothing.
        if is_persistent_congestion || lost_bytes == 0 || self.is_too_much() {
            self.cubic
                .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            ..*self
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Window at first and after 100 flights of 50 packets, of which each loses `lost`.
    fn window_after(lost: u32) -> (u64, u64) {
        let start = Instant::now();
        let mut controller = Tolerant::new(start, 1_200);
        for flight in 0..100 {
            let sent = start + Duration::from_millis(100) * flight;
            for _ in 0..lost {
                let now = sent + Duration::from_millis(50);
                controller.on_congestion_event(now, sent, false, 1_200);
            }
            controller.note(u64::from(50 - lost) * 1_200, 0);
        }
        (controller.initial_window(), controller.window())
    }

    #[test]
    fn losses_of_a_bad_link_leave_the_window_as_it_was() {
        let (before, after) = window_after(2);
        assert_eq!(after, before);
    }

    #[test]
    fn losses_of_a_link_that_is_too_narrow_shrink_it() {
        let (before, after) = window_after(15);
        assert!(after < before / 2, "{after} of {before}");
    }

    #[test]
    fn a_router_that_marks_packets_is_heard_at_once() {
        let now = Instant::now();
        let mut controller = Tolerant::new(now, 1_200);
        controller.on_congestion_event(now, now, false, 0);
        assert!(controller.window() < controller.initial_window());
    }
}
