//! Settings of a running node: the configuration it was started with, and over it what
//! `PATCH /settings` saved.
//!
//! Flags and environment win over what is saved, and that over file and defaults: so a
//! key that was given by flag or environment cannot be changed here.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use astral_proto::api::{Setting, SettingValue, Settings, SettingsPatch, Source};
use clap::ValueEnum;
use tokio::sync::watch;
use tracing::warn;

use super::{Config, Name, Origin, UpstreamLimit};
use crate::lock::lock;

/// Origins that can be saved: each is compared with every request's.
const ORIGINS_MAX: usize = 64;

/// Values that `PATCH /settings` left, by key.
pub(crate) type Saved = BTreeMap<String, SettingValue>;

/// The settings of a running node.
#[derive(Debug)]
pub(crate) struct LiveSettings {
    base: Config,
    saved: Mutex<Saved>,
    now: watch::Sender<Arc<Config>>,
}

/// Why settings are not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    /// No such option.
    #[error("there is no setting `{0}`; GET /settings lists them")]
    Unknown(String),
    /// It is read when the node starts.
    #[error("`{0}` cannot be changed while the node runs: change the settings file and restart it")]
    Fixed(String),
    /// The value does not fit.
    #[error("{key}: {words}")]
    Invalid {
        /// The key.
        key: String,
        /// Why.
        words: String,
    },
    /// A stronger layer decides.
    #[error(
        "`{key}` was given by {layer}, which wins over what is saved: start the node without it"
    )]
    Overruled {
        /// The key.
        key: String,
        /// The layer, in words.
        layer: &'static str,
    },
}

/// A change that was checked, and is to be kept and applied.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) saved: Saved,
    config: Config,
}

impl LiveSettings {
    /// The settings of a node that was told `base`, and `saved` in an earlier life. What
    /// of that does not fit (any more) is left out, with a warning.
    pub(crate) fn new(base: Config, saved: Saved) -> Self {
        let config = with_saved(&base, &saved);
        Self {
            base,
            saved: Mutex::new(saved),
            now: watch::Sender::new(Arc::new(config)),
        }
    }

    /// What holds now.
    pub(crate) fn now(&self) -> Arc<Config> {
        self.now.borrow().clone()
    }

    /// What holds now, and what will.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Config>> {
        self.now.subscribe()
    }

    /// Every option as the API shows it.
    pub(crate) fn shown(&self) -> Settings {
        let (config, saved) = (self.now(), lock(&self.saved));
        let shown = OPTIONS.iter().map(|option| {
            let told = self.base.source(option.key);
            let is_saved = saved.contains_key(option.key);
            let setting = Setting {
                value: (option.show)(&config),
                source: if is_saved {
                    told.max(Source::Saved)
                } else {
                    told
                },
                changeable: option.set.is_some() && told < Source::Saved,
            };
            (option.key.to_owned(), setting)
        });
        Settings(shown.collect())
    }

    /// Checks a change: all of it is done, or nothing.
    ///
    /// # Errors
    /// The first key that cannot be changed so.
    pub(crate) fn check(&self, patch: &SettingsPatch) -> Result<Change, ChangeError> {
        let mut saved = lock(&self.saved).clone();
        for (key, value) in &patch.0 {
            let option = OPTIONS.iter().find(|option| option.key == key);
            let option = option.ok_or_else(|| ChangeError::Unknown(key.clone()))?;
            let set = option.set.ok_or_else(|| ChangeError::Fixed(key.clone()))?;
            let overruled = |layer| ChangeError::Overruled {
                key: key.clone(),
                layer,
            };
            match self.base.source(key) {
                Source::Flag => return Err(overruled("a flag")),
                Source::Environment => return Err(overruled("an environment variable")),
                Source::Default | Source::File | Source::Saved => {}
            }
            let Some(value) = value else {
                saved.remove(key);
                continue;
            };
            set(&mut self.base.clone(), value).map_err(|words| ChangeError::Invalid {
                key: key.clone(),
                words,
            })?;
            saved.insert(key.clone(), value.clone());
        }
        let config = with_saved(&self.base, &saved);
        Ok(Change { saved, config })
    }

    /// Makes a checked change hold; gives what held before.
    pub(crate) fn apply(&self, change: Change) -> Arc<Config> {
        *lock(&self.saved) = change.saved;
        self.now.send_replace(Arc::new(change.config))
    }
}

/// Keys of all options as the API knows them.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|option| option.key)
}

fn with_saved(base: &Config, saved: &Saved) -> Config {
    let mut config = base.clone();
    for (key, value) in saved {
        let option = OPTIONS.iter().find(|option| option.key == key);
        let Some(set) = option.and_then(|option| option.set) else {
            warn!(key, "saved setting is not known to this version");
            continue;
        };
        if base.source(key) > Source::Saved {
            continue;
        }
        if let Err(words) = set(&mut config, value) {
            warn!(key, %value, words, "saved setting does not fit");
        }
    }
    config
}

type Show = fn(&Config) -> Option<SettingValue>;
type Set = fn(&mut Config, &SettingValue) -> Result<(), String>;

/// An option as the API knows it.
struct Shown {
    key: &'static str,
    show: Show,
    /// How it is changed, if it can be while the node runs.
    set: Option<Set>,
}

const fn fixed(key: &'static str, show: Show) -> Shown {
    let set = None;
    Shown { key, show, set }
}

const fn changeable(key: &'static str, show: Show, set: Set) -> Shown {
    let set = Some(set);
    Shown { key, show, set }
}

/// One of those that are for when something is done for others.
fn choice<T: ValueEnum>(value: &SettingValue) -> Result<T, String> {
    let choice = T::from_str(words(value)?, false);
    choice.map_err(|_| "takes auto, always or never".to_owned())
}

/// Every option but `settings` itself, by key.
const OPTIONS: &[Shown] = &[
    changeable(
        "accept_seeds",
        |c| word(c.accept_seeds),
        |c, value| {
            c.accept_seeds = choice(value)?;
            Ok(())
        },
    ),
    fixed("advertise", |c| list(&c.advertise)),
    changeable(
        "allow_origin",
        |c| list(&c.allow_origin),
        |c, value| {
            let SettingValue::List(list) = value else {
                return Err("takes a list of web origins".to_owned());
            };
            if list.len() > ORIGINS_MAX {
                return Err(format!("takes at most {ORIGINS_MAX} web origins"));
            }
            let origins = list.iter().map(|text| Ok(Origin::from_str(text)?.0));
            c.allow_origin = origins.collect::<Result<_, String>>()?;
            Ok(())
        },
    ),
    fixed("congestion", |c| word(c.congestion)),
    fixed("daemonize", |c| Some(SettingValue::Switch(c.daemonize))),
    fixed("data_dir", |c| text(c.data_dir.display())),
    fixed("http", |c| text(c.http)),
    fixed("log_format", |c| word(c.log_format)),
    changeable(
        "name",
        |c| c.name.as_ref().and_then(text),
        |c, value| {
            c.name = Some(Name::from_str(words(value)?)?.0);
            Ok(())
        },
    ),
    fixed("peer", |c| {
        Some(SettingValue::List(
            c.peers.iter().map(ToString::to_string).collect(),
        ))
    }),
    fixed("public_http", |c| c.public_http.as_ref().and_then(text)),
    fixed("quic", |c| c.quic.and_then(text)),
    fixed("ready_file", |c| text(c.ready_file.as_ref()?.display())),
    fixed("require_token", |c| {
        Some(SettingValue::Switch(c.require_token))
    }),
    fixed("rtmp", |c| match c.rtmp {
        Some(address) => text(address),
        None => text("off"),
    }),
    changeable(
        "supernode",
        |c| word(c.supernode),
        |c, value| {
            c.supernode = choice(value)?;
            Ok(())
        },
    ),
    changeable(
        "upstream_limit",
        |c| limit(c.upstream_limit),
        |c, value| {
            let limit = match value {
                SettingValue::Number(bps) => bps.to_string().parse(),
                SettingValue::Text(text) => text.parse(),
                SettingValue::Switch(_) | SettingValue::List(_) => {
                    return Err("takes a rate like \"20mbit\", or a number of bit/s".to_owned());
                }
            };
            c.upstream_limit = limit.map_err(|error: super::RateError| error.to_string())?;
            Ok(())
        },
    ),
    fixed("uuid", |c| c.uuid.and_then(text)),
    changeable(
        "verbosity",
        |c| Some(SettingValue::Number(c.verbosity.into())),
        |c, value| {
            match value {
                SettingValue::Number(number @ -1..=2) => c.verbosity = *number as i8,
                SettingValue::Number(_)
                | SettingValue::Switch(_)
                | SettingValue::Text(_)
                | SettingValue::List(_) => return Err("takes a number from -1 to 2".to_owned()),
            }
            Ok(())
        },
    ),
    fixed("web", |c| list(&c.web)),
    fixed("web_ca", |c| text(c.web_ca.as_ref()?.display())),
];

fn text(value: impl ToString) -> Option<SettingValue> {
    Some(SettingValue::Text(value.to_string()))
}

fn list(list: &[String]) -> Option<SettingValue> {
    Some(SettingValue::List(list.to_vec()))
}

fn word(value: impl ValueEnum) -> Option<SettingValue> {
    value
        .to_possible_value()
        .and_then(|word| text(word.get_name()))
}

fn limit(limit: UpstreamLimit) -> Option<SettingValue> {
    match limit {
        UpstreamLimit::Bps(bps) => i64::try_from(bps).ok().map(SettingValue::Number),
        UpstreamLimit::Learnt | UpstreamLimit::Unlimited => text(limit),
    }
}

fn words(value: &SettingValue) -> Result<&str, String> {
    match value {
        SettingValue::Text(text) => Ok(text),
        SettingValue::Switch(_) | SettingValue::Number(_) | SettingValue::List(_) => {
            Err("takes text".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
