//! How people write an upload limit: `20mbit`, `2.5MB/s`, `500kbit/s`, `0`, `unlimited`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// Highest limit, in bit/s: above any network card, so a larger one is a slip.
const LIMIT_BPS_MAX: u64 = 1_000_000_000_000;

/// Most upload that a node may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamLimit {
    /// Not given: 8 Mbit/s. Finding out from use what there is comes with a later version.
    Learnt,
    /// None.
    Unlimited,
    /// In bit/s; 0 means that the node never forwards.
    Bps(u64),
}

/// Why a text is no upload limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a rate: write a number and bit, kbit, mbit, gbit (or B, kB, MB, GB for bytes) \
     per second, like 20mbit or 2.5MB/s, or 0, or unlimited"
)]
pub struct RateError(String);

impl FromStr for UpstreamLimit {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        match text.trim() {
            "learnt" => Ok(Self::Learnt),
            "unlimited" => Ok(Self::Unlimited),
            rate => bps(rate)
                .map(Self::Bps)
                .ok_or_else(|| RateError(text.to_owned())),
        }
    }
}

fn bps(text: &str) -> Option<u64> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().ok()?;
    let rate = (number * bits_in(unit.trim_start())?).round();
    // Casting saturates, and the bound is far below where f64 skips whole numbers.
    (rate <= LIMIT_BPS_MAX as f64).then_some(rate as u64)
}

/// Bits in one `unit` with its decimal prefix; nothing stands for bits. Only the
/// case of the letter that means bit or byte matters.
fn bits_in(unit: &str) -> Option<f64> {
    let unit = unit.strip_suffix("/s").unwrap_or(unit);
    let (factor, unit) = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('k') => (1e3, &unit[1..]),
        Some('m') => (1e6, &unit[1..]),
        Some('g') => (1e9, &unit[1..]),
        _ => (1.0, unit),
    };
    match unit {
        "B" | "Bps" | "byte" | "bytes" => Some(factor * 8.0),
        "" if factor == 1.0 => Some(1.0),
        "b" | "bps" | "bit" | "bits" => Some(factor),
        _ => None,
    }
}

impl fmt::Display for UpstreamLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learnt => f.write_str("learnt"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Bps(bps) => write!(f, "{bps}bit/s"),
        }
    }
}

impl<'de> Deserialize<'de> for UpstreamLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rate;
        impl de::Visitor<'_> for Rate {
            type Value = UpstreamLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate like \"20mbit\", or a number of bit/s")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<UpstreamLimit, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, bps: i64) -> Result<UpstreamLimit, E> {
                self.visit_str(&bps.to_string())
            }

            fn visit_u64<E: de::Error>(self, bps: u64) -> Result<UpstreamLimit, E> {
                self.visit_str(&bps.to_string())
            }
        }
        deserializer.deserialize_any(Rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_the_way_people_write_them() {
        for (text, bps) in [
            ("20mbit", 20_000_000),
            ("20Mbit/s", 20_000_000),
            ("2.5MB/s", 20_000_000),
            ("500kbit/s", 500_000),
            ("500 kbit/s", 500_000),
            ("1gbit", 1_000_000_000),
            ("3mbps", 3_000_000),
            ("3MBps", 24_000_000),
            ("64000", 64_000),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(UpstreamLimit::Bps(bps)), "{text}");
        }
        assert_eq!("unlimited".parse(), Ok(UpstreamLimit::Unlimited));
        assert_eq!("learnt".parse(), Ok(UpstreamLimit::Learnt));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_an_example() {
        for text in [
            "",
            "fast",
            "-1mbit",
            "1.2.3mbit",
            "20m",
            "5mélo",
            "1e3",
            "2tbit",
            "9999999gbit",
            ".",
        ] {
            let error = text.parse::<UpstreamLimit>().unwrap_err();
            assert!(error.to_string().contains("20mbit"), "{text}");
        }
    }

    #[test]
    fn written_limit_is_read_back() {
        for limit in [
            UpstreamLimit::Learnt,
            UpstreamLimit::Unlimited,
            UpstreamLimit::Bps(12_345),
        ] {
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
    }
}
