//! Numbers for people: rates, durations, sizes.

use std::time::Duration;

/// A rate in bit/s with the unit that leaves one to three digits before the point.
pub(crate) fn rate(bps: u64) -> String {
    scaled(bps, 1_000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

/// A size in bytes, in powers of 1,000.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1_000, &["B", "kB", "MB", "GB", "TB"])
}

/// A value with one decimal below ten of its unit, none above.
fn scaled(value: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut scale = 1;
    // Compares with the rounded value, so that 999,950 is "1.0 M", not "1000 k".
    while unit + 1 < units.len() && value.saturating_add(scale / 2) / scale >= step {
        unit += 1;
        scale *= step;
    }
    let exact = value as f64 / scale as f64;
    if unit == 0 || exact >= 9.95 {
        format!("{exact:.0} {}", units[unit])
    } else {
        format!("{exact:.1} {}", units[unit])
    }
}

/// A duration as `4 s`, `3:07 min`, `1:02:03 h` or `2 d 03:04 h`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let rest = seconds % 60;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes}:{rest:02} min"),
        3_600..86_400 => format!("{hours}:{minutes:02}:{rest:02} h"),
        86_400.. => format!("{days} d {hours:02}:{minutes:02} h"),
    }
}

/// Time since a moment in RFC 3339 UTC, as the API writes it; none if it is not one.
pub(crate) fn since(moment: &str, now_unix: u64) -> Option<Duration> {
    let then = unix_seconds(moment)?;
    Some(Duration::from_secs(now_unix.saturating_sub(then)))
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:SS[.fraction]Z`.
fn unix_seconds(moment: &str) -> Option<u64> {
    let (date, time) = moment.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let mut time = time.split([':', '.']).map(str::parse::<u64>);
    let mut next = || date.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let mut next = || time.next()?.ok();
    let (hour, minute, second) = (next()?, next()?, next()?);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_to(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01, counted in years that begin in March, so that the leap
/// day is the last of its year.
fn days_to(year: u64, month: u64, day: u64) -> u64 {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_few_digits_and_the_right_unit() {
        let cases = [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1_000, "1.0 kbit/s"),
            (612_000, "612 kbit/s"),
            (999_949, "1.0 Mbit/s"),
            (2_460_000, "2.5 Mbit/s"),
            (9_960_000, "10 Mbit/s"),
            (3_000_000_000, "3.0 Gbit/s"),
        ];
        for (bps, text) in cases {
            assert_eq!(rate(bps), text);
        }
        assert_eq!(size(1_234_567), "1.2 MB");
        assert_eq!(size(u64::MAX), "18446744 TB");
    }

    #[test]
    fn durations_show_what_matters() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(text(0), "0 s");
        assert_eq!(text(59), "59 s");
        assert_eq!(text(187), "3:07 min");
        assert_eq!(text(3_723), "1:02:03 h");
        assert_eq!(text(2 * 86_400 + 3 * 3_600 + 4 * 60), "2 d 03:04 h");
    }

    #[test]
    fn moments_of_the_api_are_understood() {
        assert_eq!(unix_seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_seconds("2000-02-29T12:00:00Z"), Some(951_825_600));
        assert_eq!(unix_seconds("2026-11-22T21:29:01.5Z"), Some(1_795_382_941));
        assert_eq!(unix_seconds("yesterday"), None);
        assert_eq!(unix_seconds("2026-13-01T00:00:00Z"), None);
        let then = since("1970-01-01T00:01:00Z", 90);
        assert_eq!(then, Some(Duration::from_secs(30)));
    }
}
