//! Stamps of 33 bits, which begin anew every 26.5 hours, to times that do not.

/// Stamps count modulo this.
const WRAP: i64 = 1 << 33;

/// The time base of one program: all of its streams share it, so that those whose
/// first stamps lie on both sides of a wrap stay together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock(Option<i64>);

impl Clock {
    /// The time of a stamp: the one nearest to the last.
    pub(super) fn unwrap(&mut self, stamp: u64) -> i64 {
        let stamp = stamp as i64 % WRAP;
        let time = match self.0 {
            None => stamp,
            Some(last) => last.saturating_add(difference(stamp, last)),
        };
        self.0 = Some(time);
        time
    }
}

/// `a - b` modulo 2³³, as the nearest signed number.
pub(super) fn difference(a: i64, b: i64) -> i64 {
    let forward = a.wrapping_sub(b).rem_euclid(WRAP);
    if forward >= WRAP / 2 {
        forward - WRAP
    } else {
        forward
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_over_the_wrap_and_back_again() {
        let mut clock = Clock::default();
        let stamps = [(1u64 << 33) - 3_000, 0, 3_000, (1 << 33) - 1];
        let times = stamps.map(|stamp| clock.unwrap(stamp) - WRAP);
        assert_eq!(times, [-3_000, 0, 3_000, -1]);
    }

    #[test]
    fn days_go_by_without_a_step() {
        let mut clock = Clock::default();
        for second in 0..200_000i64 {
            let stamp = (second * 90_000).rem_euclid(WRAP) as u64;
            assert_eq!(clock.unwrap(stamp), second * 90_000);
        }
    }
}
