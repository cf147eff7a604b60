//! Settings of a running node: what holds, where it comes from, what can be changed.
//!
//! Keys are those of the settings file in snake_case (`upstream_limit`), with
//! `verbosity` for what `verbose` and `quiet` come to.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};

/// `GET /settings`: every option by its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Settings(pub BTreeMap<String, Setting>);

/// One option as it holds now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Setting {
    /// Its value; `null` if it has none.
    pub value: Option<SettingValue>,
    /// Where the value comes from.
    pub source: Source,
    /// Whether `PATCH /settings` can change it now.
    pub changeable: bool,
}

/// `PATCH /settings`: new values by key; `null` goes back to the layer below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
// A map of nullable choices is more than the derive can express.
#[cfg_attr(feature = "openapi", schema(value_type = Object))]
#[serde(transparent)]
pub struct SettingsPatch(pub BTreeMap<String, Option<SettingValue>>);

/// A value in JSON's own types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum SettingValue {
    /// Yes or no.
    Switch(bool),
    /// A whole number; rates in bit/s.
    #[serde(deserialize_with = "whole")]
    Number(i64),
    /// Words, a path or an address.
    Text(String),
    /// Several of them.
    List(Vec<String>),
}

/// A whole number, which in JSON may also be written `5.0` or `5e6`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Whole;

    impl de::Visitor<'_> for Whole {
        type Value = i64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
            Ok(number)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
            i64::try_from(number).map_err(E::custom)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<i64, E> {
            // Beyond this f64 skips whole numbers.
            let exact = number.fract() == 0.0 && number.abs() < (1_u64 << 53) as f64;
            match exact {
                true => Ok(number as i64),
                false => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
            }
        }
    }

    deserializer.deserialize_any(Whole)
}

impl std::fmt::Display for SettingValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Switch(on) => on.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::List(list) => f.write_str(&list.join(" ")),
        }
    }
}

/// The layer that a value comes from; a later one in this order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The settings file.
    File,
    /// `PATCH /settings`, kept over restarts.
    Saved,
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}
