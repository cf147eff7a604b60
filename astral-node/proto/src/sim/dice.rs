//! Randomness of a run: everything follows from the seed.

use std::time::Duration;

use crate::overlay::random::Random;

/// A source of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Dice(Random);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        // Seeds that differ by one bit are to give runs that differ in all.
        let mut random = Random::new(seed);
        Self(Random::new(random.next()))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// Between 0 and 1, both not quite.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.unit() < of
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % (most.as_micros() as u64 + 1))
    }

    /// Exponentially distributed, as the time from one arrival of a Poisson process to the next.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }

    /// Lognormally distributed, by the method of Box and Muller (1958).
    pub(super) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let (u, v) = (self.unit(), self.unit());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        median * (normal * sigma).exp()
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lognormal_sessions_have_the_median_and_the_mean_that_theory_gives() {
        let mut dice = Dice::new(3);
        let mut drawn: Vec<f64> = (0..20_001).map(|_| dice.lognormal(8.0, 1.6)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        drawn.sort_by(f64::total_cmp);
        assert!((drawn[10_000] - 8.0).abs() < 0.5, "{}", drawn[10_000]);
        // 8 · e^(1.6²/2) = 28.8
        assert!((24.0..34.0).contains(&mean), "{mean}");
    }
}
