//! Waiting for conditions instead of sleeping.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Looks again and again until `look` gives a value; its error says what it sees.
///
/// Panics after `within` with `what` was waited for and what was last seen.
pub async fn until<T, E: Display>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + within;
    loop {
        let seen = match look().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(
            Instant::now() < end,
            "waited {within:?} for {what}; last seen: {seen}"
        );
        sleep(LOOK_EVERY).await;
    }
}

/// `Ok` if it holds, else what is seen instead.
pub fn check(holds: bool, seen: impl Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen.to_string()) }
}

/// Seconds.
pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
