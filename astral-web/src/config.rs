//! What astral-web is told: flags, environment and settings file, merged to a [`Config`].
//!
//! Every option is at once a flag (`--listen`), an environment variable
//! (`ASTRAL_WEB_LISTEN`, lists separated by spaces) and a key of the TOML settings
//! file, spelt like the flag. A flag wins over the environment, that over the file,
//! and that over the default. So options hold no default of their own: it would hide
//! the file.

mod network;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Deserializer, de};

pub use network::Network;

/// Port unless another is given.
const PORT: u16 = 8080;
/// Longest settings file, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1024 * 1024;

/// What the command line asks for.
#[derive(Debug)]
pub enum Task {
    /// Serve the directory and the pages.
    Serve(Config),
    /// Make certificates for development.
    DevCerts(DevCerts),
}

/// What a serving astral-web is told, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// TCP address to serve; default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// File of the directory.
    pub directory: PathBuf,
    /// Certificate chain and key; `None` is plain HTTP, the default.
    pub tls: Option<TlsFiles>,
    /// Proxies whose word on the caller's address counts; default none.
    pub trusted_proxies: Vec<Network>,
    /// Where to write the ready file; default nowhere.
    pub ready_file: Option<PathBuf>,
    /// How log lines look; default text.
    pub log_format: LogFormat,
    /// What is logged: -1 warnings, 0 also news (the default), 1 also requests, 2 everything.
    pub verbosity: i8,
}

/// Where the server's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those that lead to its CA.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Task {
    /// Reads flags, environment and settings file of this process. Wrong flags end it
    /// with exit code 2, `--help` and `--version` with 0.
    ///
    /// # Errors
    /// The settings file cannot be read or has an unknown key or a wrong value, options
    /// contradict each other, or there is no place for the directory.
    pub fn load() -> anyhow::Result<Self> {
        Args::parse().into_task()
    }
}

/// Command line of `astral-web`.
#[derive(Debug, Parser)]
#[command(
    name = "astral-web",
    version,
    args_conflicts_with_subcommands = true,
    about = "Directory of Astral's nodes and streams, from which nodes bootstrap, and its pages",
    after_help = "Every option can stand in the settings file under the name of its flag, and in the \
                  environment variable shown. Precedence: flag, environment, file, default."
)]
struct Args {
    /// Settings file (TOML), one key per option; unknown keys are an error
    #[arg(short, long, value_name = "FILE", env = "ASTRAL_WEB_SETTINGS")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a development CA and a certificate of this server, for HTTPS without a public name
    DevCerts(DevCerts),
}

/// `astral-web dev-certs`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct DevCerts {
    /// Folder for ca.pem, ca.key, server.pem and server.key
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub out: PathBuf,
    /// Replace what is there; whoever trusts the old CA must be told of the new one
    #[arg(long)]
    pub force: bool,
    /// Further host names and IP addresses of the server, besides localhost, 127.0.0.1 and ::1
    #[arg(value_name = "HOST")]
    pub hosts: Vec<String>,
}

impl Args {
    fn into_task(self) -> anyhow::Result<Task> {
        if let Some(Command::DevCerts(certs)) = self.command {
            return Ok(Task::DevCerts(certs));
        }
        let file = self.settings.as_deref().map(Options::read).transpose()?;
        let options = self.options.or(file.unwrap_or_default());
        options.complete().map(Task::Serve)
    }
}

/// One layer of options: the command line with the environment, or a file.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// IP:port (TCP) to serve; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "ASTRAL_WEB_LISTEN")]
    listen: Option<SocketAddr>,

    /// Where records are kept: redb:PATH
    /// [default: redb:$XDG_STATE_HOME/astral-web/directory.redb, else below ~/.local/state]
    #[arg(long, value_name = "redb:PATH", env = "ASTRAL_WEB_DIRECTORY")]
    #[serde(deserialize_with = "text")]
    directory: Option<Place>,

    /// Serve HTTPS with this certificate chain (PEM); needs --tls-key
    #[arg(long, value_name = "FILE", env = "ASTRAL_WEB_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// Private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE", env = "ASTRAL_WEB_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// Network (10.0.0.0/8, ::1) of proxies that say in X-Forwarded-For who calls; repeatable
    /// [default: nobody's word counts]
    #[arg(
        long,
        value_name = "CIDR",
        env = "ASTRAL_WEB_TRUSTED_PROXY",
        value_delimiter = ' '
    )]
    #[serde(deserialize_with = "texts")]
    trusted_proxy: Option<Vec<Network>>,

    /// Write the ready file (JSON: pid, http, version) here
    #[arg(long, value_name = "FILE", env = "ASTRAL_WEB_READY_FILE")]
    ready_file: Option<PathBuf>,

    /// How log lines look (on standard error) [default: text]
    #[arg(long, value_enum, env = "ASTRAL_WEB_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// Log more: -v requests, -vv everything (RUST_LOG, if set, decides instead)
    #[arg(short, long, action = ArgAction::Count, env = "ASTRAL_WEB_VERBOSE")]
    verbose: u8,

    /// Log only warnings and errors [default: false]
    #[arg(
        short,
        long,
        value_name = "BOOL",
        env = "ASTRAL_WEB_QUIET",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    quiet: Option<bool>,
}

impl Options {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let wrong = || format!("settings file {}", path.display());
        let length = std::fs::metadata(path).with_context(wrong)?.len();
        if length > SETTINGS_BYTES_MAX {
            bail!("{} is larger than 1 MiB", wrong());
        }
        let text = std::fs::read_to_string(path).with_context(wrong)?;
        toml::from_str(&text).with_context(wrong)
    }

    /// These options, and where they say nothing, those of a weaker layer.
    fn or(self, weaker: Self) -> Self {
        let louder = self.loudness().is_some();
        Self {
            listen: self.listen.or(weaker.listen),
            directory: self.directory.or(weaker.directory),
            tls_cert: self.tls_cert.or(weaker.tls_cert),
            tls_key: self.tls_key.or(weaker.tls_key),
            trusted_proxy: self.trusted_proxy.or(weaker.trusted_proxy),
            ready_file: self.ready_file.or(weaker.ready_file),
            log_format: self.log_format.or(weaker.log_format),
            // One setting in two words: `-v` must win over `quiet = true` of a file.
            verbose: if louder { self.verbose } else { weaker.verbose },
            quiet: if louder { self.quiet } else { weaker.quiet },
        }
    }

    fn loudness(&self) -> Option<i8> {
        match (self.quiet, self.verbose) {
            (Some(true), _) => Some(-1),
            (None, 0) => None,
            (Some(false) | None, verbose) => Some(i8::try_from(verbose.min(2)).unwrap_or(2)),
        }
    }

    fn complete(self) -> anyhow::Result<Config> {
        let verbosity = self.loudness().unwrap_or(0);
        let tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => bail!("--tls-cert needs --tls-key, the certificate's private key"),
            (None, Some(_)) => bail!("--tls-key needs --tls-cert, the certificate it belongs to"),
        };
        Ok(Config {
            listen: self
                .listen
                .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
            directory: match self.directory {
                Some(Place(path)) => path,
                None => default_directory(|name| std::env::var_os(name).map(PathBuf::from))?,
            },
            tls,
            trusted_proxies: self.trusted_proxy.unwrap_or_default(),
            ready_file: self.ready_file,
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            verbosity,
        })
    }
}

/// `$XDG_STATE_HOME/astral-web/directory.redb`, or below `~/.local/state` where that is
/// unset, empty or relative (the XDG base directory specification has relative ones ignored).
fn default_directory(env: impl Fn(&str) -> Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let absolute = |name| env(name).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|state| state.join("astral-web/directory.redb"))
        .context("no folder: neither XDG_STATE_HOME nor HOME is set; give --directory")
}

/// A directory's place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place(PathBuf);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("redb", path)) if !path.is_empty() => Ok(Self(path.into())),
            Some(("nats" | "tls", _)) => Err(format!(
                "`{text}`: a directory in NATS is not built yet; redb:PATH keeps it in a file of \
                 this machine"
            )),
            Some(_) | None => Err(format!("`{text}` is not redb:PATH")),
        }
    }
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

fn texts<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parsed: Result<Vec<T>, String> = texts.iter().map(|text| text.parse()).collect();
    parsed.map(Some).map_err(de::Error::custom)
}
