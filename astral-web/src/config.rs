//! What astral-web is told: flags and environment (`ASTRAL_WEB_<NAME>`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::{ArgAction, Parser, ValueEnum};

/// Directory of Astral's nodes and streams, from which nodes bootstrap, and its pages.
#[derive(Clone, Debug, Parser)]
#[command(name = "astral-web", version)]
pub struct Config {
    /// IP:port (TCP) to serve; port 0 picks a free one
    #[arg(long, value_name = "ADDR", env = "ASTRAL_WEB_LISTEN", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))]
    pub listen: SocketAddr,
    /// Where records are kept: redb:PATH
    /// [default: redb:$XDG_STATE_HOME/astral-web/directory.redb, else below ~/.local/state]
    #[arg(long, value_name = "redb:PATH", env = "ASTRAL_WEB_DIRECTORY")]
    pub directory: Option<Place>,
    /// Write the ready file (JSON: pid, http, version) here
    #[arg(long, value_name = "FILE", env = "ASTRAL_WEB_READY_FILE")]
    pub ready_file: Option<PathBuf>,
    /// How log lines look (on standard error)
    #[arg(
        long,
        value_enum,
        env = "ASTRAL_WEB_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// Log more: -v requests, -vv everything (RUST_LOG, if set, decides instead)
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Log only warnings and errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A directory's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(PathBuf);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("redb:") {
            Some(path) if !path.is_empty() => Ok(Self(path.into())),
            Some(_) | None => Err(format!("`{text}` is not redb:PATH")),
        }
    }
}

impl Config {
    /// The file of the directory.
    ///
    /// # Errors
    /// None is given, and there is no folder to put it.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(Place(path)) = &self.directory {
            return Ok(path.clone());
        }
        let absolute = |name| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.filter(|path| Path::is_absolute(path))
        };
        absolute("XDG_STATE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/state")))
            .map(|state| state.join("astral-web/directory.redb"))
            .context("no folder: neither XDG_STATE_HOME nor HOME is set; give --directory")
    }
}
