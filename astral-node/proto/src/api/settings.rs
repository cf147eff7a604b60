//! Settings of a running node: what holds, where it comes from, what can be changed.
//!
//! Keys are those of the settings file in snake_case (`upstream_limit`), with
//! `verbosity` for what `verbose` and `quiet` come to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    Number(i64),
    /// Words, a path or an address.
    Text(String),
    /// Several of them.
    List(Vec<String>),
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
