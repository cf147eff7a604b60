//! What a node is told: flags, environment and settings file, merged to a [`Config`].
//!
//! Every option is at once a flag (`--upstream-limit 20mbit`), an environment
//! variable (`ASTRAL_NODE_UPSTREAM_LIMIT`, lists separated by spaces) and a key of
//! the TOML settings file, spelt like the flag (`upstream-limit = "20mbit"`, lists
//! as arrays) or, as the API spells it, with `_` for `-`. A flag wins over the
//! environment, that over the file, and that over the default. So options hold no
//! default of their own: it would hide the file.

mod live;
mod rate;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use astral_proto::api::Source;
use astral_proto::ids::NodeId;
use astral_proto::limits::NAME_CHARS_MAX;
use astral_proto::link::PeerAddress;
use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use serde::{Deserialize, Deserializer, de};

pub(crate) use live::{ChangeError, LiveSettings};
pub use rate::{RateError, UpstreamLimit};

/// Port of the HTTP API and of QUIC unless another is given.
pub(crate) const PORT: u16 = 8000;
/// Port of RTMP unless another is given: the one that encoders assume.
const RTMP_PORT: u16 = 1935;
/// Most astral-webs: each is asked for ever, and a handful outlives any of them.
pub(crate) const WEBS_MAX: usize = 8;
/// Longest settings file, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1024 * 1024;

/// What a node is told, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the node keeps its key, its streams and its ready file.
    pub data_dir: PathBuf,
    /// TCP address of the HTTP API and the pages; default `127.0.0.1:8000`.
    pub http: SocketAddr,
    /// UDP address of QUIC; `None`: `[::]:8000`, or `0.0.0.0:8000` where there is no IPv6.
    pub quic: Option<SocketAddr>,
    /// TCP address of RTMP; `None` is off; default `127.0.0.1:1935`.
    pub rtmp: Option<SocketAddr>,
    /// Whether a taken RTMP address is an error: only if it was asked for.
    pub rtmp_required: bool,
    /// Alias to run under, for several nodes on one box; default none.
    pub uuid: Option<NodeId>,
    /// Most upload to spend; default [`UpstreamLimit::Learnt`].
    pub upstream_limit: UpstreamLimit,
    /// astral-webs to bootstrap from: URLs without a final slash, at most 8.
    pub web: Vec<String>,
    /// PEM file of certificates that https astral-webs may be signed by, besides the
    /// system's; default none.
    pub web_ca: Option<PathBuf>,
    /// Nodes to bootstrap from.
    pub peers: Vec<PeerAddress>,
    /// Whether this node may be a supernode; default [`Supernode::Auto`].
    pub supernode: Supernode,
    /// Which streams that others offer this node carries; default [`AcceptSeeds::Auto`].
    pub accept_seeds: AcceptSeeds,
    /// `host:port` to tell others, besides what they see.
    pub advertise: Vec<String>,
    /// Web origins that may call the local API and play, besides those of `web`
    /// ([`Config::origins`] has both).
    pub allow_origin: Vec<String>,
    /// Where strangers' browsers may play streams from this node, without a final slash.
    pub public_http: Option<String>,
    /// Where to write the ready file too, besides the data folder.
    pub ready_file: Option<PathBuf>,
    /// Whether the node detaches from the terminal and logs to its data folder; default no.
    pub daemonize: bool,
    /// How log lines look; default text.
    pub log_format: LogFormat,
    /// What is logged: -1 warnings, 0 also news (the default), 1 also state changes, 2 everything.
    pub verbosity: i8,
    /// Congestion controller of QUIC; default tolerant. Over two links of 2 % loss CUBIC
    /// lost 4 of 10 pictures, the tolerant one none (`tests/benches/README.md`).
    pub congestion: Congestion,
    /// Whether the node's pages ask for the token too; default no.
    pub require_token: bool,
    /// Name of this node for people; default none.
    pub name: Option<String>,
    /// Where options come from, by their key in snake_case; the default where one is absent.
    pub sources: BTreeMap<&'static str, Source>,
}

/// Congestion controller of QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// CUBIC that takes losses for congestion only while they are more than one in ten.
    Tolerant,
    /// CUBIC (RFC 9438): too slow for video under random loss.
    Cubic,
    /// BBR version 1, which quinn calls experimental: keeps its rate under any loss, also
    /// when a link has become too narrow for it.
    Bbr,
}

/// Whether a node becomes a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supernode {
    /// While there is none.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// Whether a node carries streams that others offer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptSeeds {
    /// While it is a supernode.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
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

impl Config {
    /// Reads flags, environment and settings file of this process. Wrong flags end it
    /// with exit code 2, `--help` and `--version` with 0.
    ///
    /// # Errors
    /// The settings file cannot be read or has an unknown key or a wrong value, or
    /// there is no data folder to be found.
    pub fn load() -> anyhow::Result<Self> {
        Self::from_matches(&Args::command().get_matches())
    }

    fn from_matches(matches: &ArgMatches) -> anyhow::Result<Self> {
        let mut config = Args::from_arg_matches(matches)?.into_config()?;
        for id in Args::command()
            .get_arguments()
            .map(|arg| arg.get_id().as_str())
        {
            let source = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => Source::Flag,
                Some(ValueSource::EnvVariable) => Source::Environment,
                Some(_) | None => continue,
            };
            config.sources.extend(key_of(id).map(|key| (key, source)));
        }
        Ok(config)
    }

    /// The layer that decided an option.
    fn source(&self, key: &str) -> Source {
        let of = |key: &str| self.sources.get(key).copied().unwrap_or(Source::Default);
        match key {
            "verbosity" => of("verbose").max(of("quiet")).max(of(key)),
            key => of(key),
        }
    }

    /// For tests: everything in `dir`, on free ports of 127.0.0.1.
    pub fn default_in(dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            http: any,
            quic: Some(any),
            rtmp: Some(any),
            rtmp_required: true,
            ..Options::default().complete(dir.into())
        }
    }

    /// Every web origin that may call the local API and play: those that were allowed,
    /// and those of the astral-webs.
    pub fn origins(&self) -> Vec<String> {
        let mut origins = self.allow_origin.clone();
        for origin in self.web.iter().filter_map(|url| origin_of(url)) {
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        origins
    }
}

/// Scheme, host and port of an http(s) URL, in lower case as browsers send it.
fn origin_of(url: &str) -> Option<String> {
    let host = web_host(url)?;
    let path_at = host.find('/').unwrap_or(host.len());
    let end = url.len() - host.len() + path_at;
    Some(url[..end].to_ascii_lowercase())
}

/// Command line of `astral-node`.
#[derive(Debug, Parser)]
#[command(
    name = "astral-node",
    version,
    about = "Publishes, forwards and plays live streams, peer to peer",
    after_help = "Every option can stand in the settings file under the name of its flag, and in the \
                  environment variable shown. Precedence: flag, environment, what was changed while the node \
                  ran (astral settings), file, default."
)]
struct Args {
    /// Settings file (TOML), one key per option; unknown keys are an error
    #[arg(short, long, value_name = "FILE", env = "ASTRAL_NODE_SETTINGS")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl Args {
    fn into_config(self) -> anyhow::Result<Config> {
        let (file, keys) = match &self.settings {
            Some(path) => Options::read(path)?,
            None => Default::default(),
        };
        let options = self.options.or(file);
        let data_dir = match options.data_dir.clone() {
            Some(dir) => dir,
            None => default_data_dir(|name| std::env::var_os(name))?,
        };
        if options.web.as_ref().is_some_and(|l| l.len() > WEBS_MAX) {
            bail!("at most {WEBS_MAX} astral-webs can be given (--web)");
        }
        let mut config = options.complete(data_dir);
        config.sources = keys.into_iter().map(|key| (key, Source::File)).collect();
        Ok(config)
    }
}

/// The key in snake_case of an option in any spelling that clap or the file has for it.
fn key_of(id: &str) -> Option<&'static str> {
    live::keys()
        .chain(["verbose", "quiet"])
        .find(|key| *key == id)
}

/// One layer of options: the command line with the environment, or a file.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// Run under this id: for several nodes on one box, honoured by nodes on the same box only
    /// [default: made from the node's key]
    #[arg(short, long, value_name = "UUID", env = "ASTRAL_NODE_UUID")]
    uuid: Option<NodeId>,

    /// Most upload to spend, per second: 20mbit, 2.5MB/s, 0 (never forward), unlimited
    /// [default: 8mbit]
    #[arg(
        short = 'l',
        long,
        value_name = "RATE",
        env = "ASTRAL_NODE_UPSTREAM_LIMIT"
    )]
    #[serde(alias = "upstream_limit")]
    upstream_limit: Option<UpstreamLimit>,

    /// IP:port (TCP) of the HTTP API and the pages; port 0 picks a free one
    /// [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR", env = "ASTRAL_NODE_HTTP")]
    http: Option<SocketAddr>,

    #[arg(
        long,
        value_name = "ADDR",
        env = "ASTRAL_NODE_QUIC",
        help = "IP:port (UDP) for other nodes; port 0 picks a free one [default: [::]:8000, or \
                0.0.0.0:8000 without IPv6]"
    )]
    quic: Option<SocketAddr>,

    /// IP:port (TCP) where encoders publish by RTMP, or off
    /// [default: 127.0.0.1:1935, and if it is taken, a warning]
    #[arg(long, value_name = "ADDR|off", env = "ASTRAL_NODE_RTMP")]
    rtmp: Option<Rtmp>,

    #[arg(
        help = "astral-web to bootstrap from, like http://live.example.org:8080; repeatable, at most 8",
        long,
        value_name = "URL",
        env = "ASTRAL_NODE_WEB",
        value_delimiter = ' '
    )]
    #[serde(deserialize_with = "texts")]
    web: Option<Vec<WebUrl>>,

    /// Trust this CA (PEM file), besides the system's, for an https astral-web: for development
    #[arg(long, value_name = "FILE", env = "ASTRAL_NODE_WEB_CA")]
    #[serde(alias = "web_ca")]
    web_ca: Option<PathBuf>,

    /// A node to bootstrap from: host:port, UUID@host:port or a share link; repeatable
    #[arg(
        long,
        value_name = "ADDR",
        env = "ASTRAL_NODE_PEER",
        value_delimiter = ' '
    )]
    #[serde(deserialize_with = "texts")]
    peer: Option<Vec<PeerAddress>>,

    /// Whether this node may register others and fetch streams for them: auto is when the network
    /// needs it and the node can be reached [default: auto]
    #[arg(long, value_enum, env = "ASTRAL_NODE_SUPERNODE")]
    supernode: Option<Supernode>,

    /// Whether this node receives and forwards streams that others offer it (`astral seed`): auto is
    /// while it is a supernode [default: auto]
    #[arg(long, value_enum, env = "ASTRAL_NODE_ACCEPT_SEEDS")]
    #[serde(alias = "accept_seeds")]
    accept_seeds: Option<AcceptSeeds>,

    /// host:port to tell others, when they cannot see where this node is reached; repeatable
    #[arg(
        long,
        value_name = "ADDR",
        env = "ASTRAL_NODE_ADVERTISE",
        value_delimiter = ' '
    )]
    #[serde(deserialize_with = "texts")]
    advertise: Option<Vec<HostPort>>,

    #[arg(
        help = "Web origin (https://example.org) that may call the local API and play; repeatable, \
                those of --web are included",
        long,
        value_name = "ORIGIN",
        env = "ASTRAL_NODE_ALLOW_ORIGIN",
        value_delimiter = ' '
    )]
    #[serde(alias = "allow_origin", deserialize_with = "texts")]
    allow_origin: Option<Vec<Origin>>,

    /// http(s) URL where strangers' browsers may play streams from this node; listed in its record
    #[arg(long, value_name = "URL", env = "ASTRAL_NODE_PUBLIC_HTTP")]
    #[serde(alias = "public_http", deserialize_with = "text")]
    public_http: Option<WebUrl>,

    /// Folder of the node's key, streams and ready file
    /// [default: $XDG_STATE_HOME/astral, else ~/.local/state/astral]
    #[arg(long, value_name = "DIR", env = "ASTRAL_NODE_DATA_DIR")]
    #[serde(alias = "data_dir")]
    data_dir: Option<PathBuf>,

    /// Write the ready file (addresses and token, JSON) here too
    #[arg(long, value_name = "FILE", env = "ASTRAL_NODE_READY_FILE")]
    #[serde(alias = "ready_file")]
    ready_file: Option<PathBuf>,

    /// Name of this node for people, at most 100 characters
    #[arg(long, value_name = "NAME", env = "ASTRAL_NODE_NAME")]
    #[serde(deserialize_with = "text")]
    name: Option<Name>,

    /// Congestion controller of QUIC: tolerant is cubic that bears one lost packet in ten, bbr
    /// (experimental) bears more than a narrow link does [default: tolerant]
    #[arg(long, value_enum, env = "ASTRAL_NODE_CONGESTION")]
    congestion: Option<Congestion>,

    /// Ask for the token of the ready file on the node's own pages too: for machines with other
    /// users [default: false]
    #[arg(
        long,
        value_name = "BOOL",
        env = "ASTRAL_NODE_REQUIRE_TOKEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    #[serde(alias = "require_token")]
    require_token: Option<bool>,

    /// Detach from the terminal and log to DATA-DIR/astral-node.log; returns once the node
    /// listens [default: false]
    #[arg(
        short = 'D',
        long,
        value_name = "BOOL",
        env = "ASTRAL_NODE_DAEMONIZE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    daemonize: Option<bool>,

    /// How log lines look (on standard error) [default: text]
    #[arg(long, value_enum, env = "ASTRAL_NODE_LOG_FORMAT")]
    #[serde(alias = "log_format")]
    log_format: Option<LogFormat>,

    /// Log more: -v state changes, -vv everything (RUST_LOG, if set, decides instead)
    #[arg(short, long, action = ArgAction::Count, env = "ASTRAL_NODE_VERBOSE")]
    verbose: u8,

    /// Log only warnings and errors [default: false]
    #[arg(
        short,
        long,
        value_name = "BOOL",
        env = "ASTRAL_NODE_QUIET",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    quiet: Option<bool>,
}

impl Options {
    /// The options of a file, and which of them it gives.
    fn read(path: &Path) -> anyhow::Result<(Self, Vec<&'static str>)> {
        let wrong = || format!("settings file {}", path.display());
        let length = std::fs::metadata(path).with_context(wrong)?.len();
        if length > SETTINGS_BYTES_MAX {
            bail!("{} is larger than 1 MiB", wrong());
        }
        let text = std::fs::read_to_string(path).with_context(wrong)?;
        let options = toml::from_str(&text).with_context(wrong)?;
        let table: toml::Table = toml::from_str(&text).with_context(wrong)?;
        let keys = table
            .keys()
            .filter_map(|key| key_of(&key.replace('-', "_")));
        Ok((options, keys.collect()))
    }

    /// These options, and where they say nothing, those of a weaker layer.
    fn or(self, weaker: Self) -> Self {
        let louder = self.loudness().is_some();
        Self {
            uuid: self.uuid.or(weaker.uuid),
            upstream_limit: self.upstream_limit.or(weaker.upstream_limit),
            http: self.http.or(weaker.http),
            quic: self.quic.or(weaker.quic),
            rtmp: self.rtmp.or(weaker.rtmp),
            web: self.web.or(weaker.web),
            web_ca: self.web_ca.or(weaker.web_ca),
            peer: self.peer.or(weaker.peer),
            supernode: self.supernode.or(weaker.supernode),
            accept_seeds: self.accept_seeds.or(weaker.accept_seeds),
            advertise: self.advertise.or(weaker.advertise),
            allow_origin: self.allow_origin.or(weaker.allow_origin),
            public_http: self.public_http.or(weaker.public_http),
            data_dir: self.data_dir.or(weaker.data_dir),
            ready_file: self.ready_file.or(weaker.ready_file),
            name: self.name.or(weaker.name),
            congestion: self.congestion.or(weaker.congestion),
            require_token: self.require_token.or(weaker.require_token),
            daemonize: self.daemonize.or(weaker.daemonize),
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

    fn complete(self, data_dir: PathBuf) -> Config {
        let verbosity = self.loudness().unwrap_or(0);
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let texts = |list: Option<Vec<String>>| list.unwrap_or_default();
        let web = texts(self.web.map(|l| l.into_iter().map(|url| url.0).collect()));
        Config {
            verbosity,
            data_dir,
            http: self.http.unwrap_or(local(PORT)),
            quic: self.quic,
            rtmp_required: self.rtmp.is_some(),
            rtmp: self.rtmp.unwrap_or(Rtmp(Some(local(RTMP_PORT)))).0,
            uuid: self.uuid,
            upstream_limit: self.upstream_limit.unwrap_or(UpstreamLimit::Learnt),
            web,
            web_ca: self.web_ca,
            peers: self.peer.unwrap_or_default(),
            supernode: self.supernode.unwrap_or(Supernode::Auto),
            accept_seeds: self.accept_seeds.unwrap_or(AcceptSeeds::Auto),
            advertise: texts(self.advertise.map(|l| l.into_iter().map(|a| a.0).collect())),
            allow_origin: texts(
                self.allow_origin
                    .map(|l| l.into_iter().map(|o| o.0).collect()),
            ),
            public_http: self.public_http.map(|url| url.0),
            ready_file: self.ready_file,
            daemonize: self.daemonize.unwrap_or(false),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            congestion: self.congestion.unwrap_or(Congestion::Tolerant),
            require_token: self.require_token.unwrap_or(false),
            name: self.name.map(|name| name.0),
            sources: BTreeMap::new(),
        }
    }
}

/// `$XDG_STATE_HOME/astral`, or `~/.local/state/astral` where that is unset, empty or
/// relative (the XDG base directory specification has relative ones ignored).
fn default_data_dir(env: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<PathBuf> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|state| state.join("astral"))
        .context("no data folder: neither XDG_STATE_HOME nor HOME is set; give --data-dir")
}

/// An address for RTMP, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rtmp(Option<SocketAddr>);

impl FromStr for Rtmp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| format!("`{text}` is neither IP:port nor off"))
    }
}

impl<'de> Deserialize<'de> for Rtmp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// `host:port` in a text of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort(String);

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(PeerAddress::Node {
                node: None,
                address,
            }) => Ok(Self(address)),
            Ok(_) | Err(_) => Err(format!("`{text}` is not host:port")),
        }
    }
}

/// A web origin (RFC 6454): scheme, host and port, and nothing behind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Browsers send origins in lower case.
        let origin = text.to_ascii_lowercase();
        match web_host(&origin) {
            Some(host) if is_authority(host) => Ok(Self(origin)),
            _ => Err(format!(
                "`{text}` is not a web origin like https://example.org or http://127.0.0.1:8080"
            )),
        }
    }
}

/// An http(s) URL, kept without its final slash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WebUrl(String);

impl FromStr for WebUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = text.trim_end_matches('/');
        match web_host(url) {
            Some(rest) if !rest.contains(['?', '#']) && has_authority(rest) => {
                Ok(Self(url.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is not a URL like https://live.example.org"
            )),
        }
    }
}

/// What follows `http://` or `https://`, if that is printable ASCII and not empty.
fn web_host(text: &str) -> Option<&str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    (rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && rest.bytes().all(|byte| byte.is_ascii_graphic()))
    .then_some(rest)
}

/// Whether `host` or `host:port` comes before the path.
fn has_authority(rest: &str) -> bool {
    is_authority(rest.split('/').next().unwrap_or(rest))
}

/// Whether it is `host` or `host:port`; IPv6 hosts stand in brackets.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let is_named = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    let is_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_named),
    };
    let is_port =
        |port: &str| port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_host && port.is_none_or(is_port)
}

/// A node's name: one line of 1 to 100 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return Err(format!("a name has 1 to {NAME_CHARS_MAX} characters"));
        }
        if name.chars().any(char::is_control) {
            return Err("a name has no control characters".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

fn text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

fn texts<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| text.parse().map_err(de::Error::custom))
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests;
