//! Where the node is: its ready file, its address, its token.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use astral_proto::api::Ready;
use http::Uri;

use crate::failure::Failure;

/// What to do when there is no node; ends every message of exit code 3.
const HOW_TO_START: &str = "Start one with `astral-node`, \
     or name another with --node http://HOST:PORT";

/// How the user names the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    /// `--node`.
    pub(crate) node: Option<String>,
    /// `--data-dir`.
    pub(crate) data_dir: Option<PathBuf>,
}

/// A node to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port` to connect to.
    pub(crate) authority: String,
    /// Token for changes, if one is known.
    pub(crate) token: Option<String>,
    /// Where the address comes from, for messages.
    pub(crate) origin: String,
}

impl Target {
    /// Words for a node that does not answer.
    pub(crate) fn unreachable(&self, why: &str) -> Failure {
        let Self {
            authority, origin, ..
        } = self;
        Failure::Unreachable(format!(
            "no node answers at {authority} ({origin}): {why}. {HOW_TO_START}"
        ))
    }
}

/// Reads an environment variable; one that is empty counts as unset.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Finds the node: `--node`, `--data-dir`, `$ASTRAL_NODE`, `$ASTRAL_NODE_DATA_DIR`,
/// the default data folder, in this order.
///
/// # Errors
/// Wrong usage, or that no node runs here.
pub(crate) fn locate(
    choice: &Choice,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Target, Failure> {
    let text = |name| env(name).and_then(|value| value.into_string().ok());
    let ready_path = ready_path(choice, &env)?;
    let named = match (&choice.node, &choice.data_dir) {
        (Some(node), _) => Some((node.clone(), "from --node")),
        (None, Some(_)) => None,
        (None, None) => text("ASTRAL_NODE").map(|node| (node, "from ASTRAL_NODE")),
    };
    let ready = read_ready(&ready_path);
    let Some((node, origin)) = named else {
        return from_ready(&ready_path, ready?);
    };
    let authority = authority_of(&node)?;
    let own = ready.ok().filter(|own| same_address(&own.http, &authority));
    Ok(Target {
        token: own.map(|own| own.token).or(text("ASTRAL_NODE_TOKEN")),
        origin: origin.to_owned(),
        authority,
    })
}

/// The ready file of the chosen data folder.
fn ready_path(
    choice: &Choice,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Failure> {
    let chosen = choice.data_dir.clone();
    let folder = chosen
        .or_else(|| env("ASTRAL_NODE_DATA_DIR").map(PathBuf::from))
        .or_else(|| env("XDG_STATE_HOME").map(|home| Path::new(&home).join("astral")))
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".local/state/astral")));
    folder
        .map(|folder| folder.join("node.json"))
        .ok_or_else(|| {
            let words = "neither HOME nor XDG_STATE_HOME is set; say --data-dir DIR";
            Failure::Usage(words.to_owned())
        })
}

/// Reads a ready file.
pub(crate) fn read_ready(path: &Path) -> Result<Ready, Failure> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| {
        Failure::Unreachable(if error.kind() == io::ErrorKind::NotFound {
            format!("no node runs here: there is no ready file {shown}. {HOW_TO_START}")
        } else {
            format!("cannot read the ready file {shown}: {error}")
        })
    })?;
    serde_json::from_slice(&text).map_err(|error| {
        Failure::Unreachable(format!("{shown} is not a node's ready file: {error}"))
    })
}

/// The node that wrote a ready file.
fn from_ready(path: &Path, ready: Ready) -> Result<Target, Failure> {
    let origin = format!("from {}, process {}", path.display(), ready.pid);
    Ok(Target {
        authority: authority_of(&ready.http)?,
        token: Some(ready.token),
        origin,
    })
}

/// `host:port` of `http://host:port/`, `host:port` or `host`; addresses that mean
/// "all of this machine" become loopback.
fn authority_of(node: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        Failure::Usage(format!(
            "`{node}` is not a node's address: {why}; it looks like http://127.0.0.1:8000"
        ))
    };
    let rest = match node.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return Err(wrong("a node speaks plain http")),
        None => node,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let uri: Uri = rest.parse().map_err(|_| wrong("it does not parse"))?;
    let authority = uri.authority().filter(|authority| *authority == rest);
    let authority = authority.ok_or_else(|| wrong("only host and port are wanted"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("only host and port are wanted"));
    }
    let port = authority.port_u16().unwrap_or(80);
    Ok(format!("{}:{port}", connectable(authority.host())))
}

/// A host that one can connect to.
fn connectable(host: &str) -> String {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(_) | Err(_) => host.to_owned(),
    }
}

/// Whether two `host:port` are the same listener, all spellings of loopback being equal.
fn same_address(one: &str, other: &str) -> bool {
    let canonical = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.trim_matches(['[', ']']).to_lowercase().as_str() {
            "localhost" | "127.0.0.1" | "::1" | "0.0.0.0" | "::" => "loopback".to_owned(),
            host => host.to_owned(),
        };
        Some((host, port.parse::<u16>().ok()?))
    };
    matches!((canonical(one), canonical(other)), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = r#"{"pid":7,"uuid":"8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f",
        "http":"127.0.0.1:8123","quic":"127.0.0.1:8000","rtmp":null,"token":"secret","version":"0.1.0"}"#;

    fn folder_with_ready_file() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("node.json"), READY).unwrap();
        folder
    }

    fn no_env(_: &str) -> Option<OsString> {
        None
    }

    fn at(node: Option<&str>, folder: &Path) -> Choice {
        Choice {
            node: node.map(str::to_owned),
            data_dir: Some(folder.to_owned()),
        }
    }

    #[test]
    fn the_ready_file_gives_address_and_token() {
        let folder = folder_with_ready_file();
        let target = locate(&at(None, folder.path()), no_env).unwrap();
        assert_eq!(target.authority, "127.0.0.1:8123");
        assert_eq!(target.token.as_deref(), Some("secret"));
    }

    #[test]
    fn a_missing_ready_file_says_which_one_and_how_to_start_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let failure = locate(&at(None, folder.path()), no_env).unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        let text = failure.to_string();
        assert!(
            text.contains("node.json") && text.contains("`astral-node`"),
            "{text}"
        );
    }

    #[test]
    fn data_folders_are_found_in_the_order_of_the_node() {
        let find = |pairs: &[(&str, &str)]| {
            let env = |name: &str| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            ready_path(&Choice::default(), &env).unwrap()
        };
        let home = ("HOME", "/h");
        let state = ("XDG_STATE_HOME", "/s");
        let data = ("ASTRAL_NODE_DATA_DIR", "/d");
        assert_eq!(find(&[home]), Path::new("/h/.local/state/astral/node.json"));
        assert_eq!(find(&[home, state]), Path::new("/s/astral/node.json"));
        assert_eq!(find(&[home, state, data]), Path::new("/d/node.json"));
    }

    #[test]
    fn the_token_goes_only_to_the_node_that_wrote_it() {
        let folder = folder_with_ready_file();
        let token = |node| {
            locate(&at(Some(node), folder.path()), no_env)
                .unwrap()
                .token
        };
        assert_eq!(token("http://localhost:8123/").as_deref(), Some("secret"));
        assert_eq!(token("[::1]:8123").as_deref(), Some("secret"));
        assert_eq!(token("http://127.0.0.1:8124"), None);
        assert_eq!(token("http://example.org:8123"), None);
        let env = |name: &str| (name == "ASTRAL_NODE_TOKEN").then(|| OsString::from("other"));
        let target = locate(&at(Some("example.org:1"), folder.path()), env).unwrap();
        assert_eq!(target.token.as_deref(), Some("other"));
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let folder = folder_with_ready_file();
        let env = |name: &str| (name == "ASTRAL_NODE").then(|| OsString::from("example.org:9"));
        let target = locate(&at(None, folder.path()), env).unwrap();
        assert_eq!(target.authority, "127.0.0.1:8123");
        let home = |name: &str| match name {
            "HOME" => Some(OsString::from("/nowhere")),
            other => env(other),
        };
        let target = locate(&Choice::default(), home).unwrap();
        assert_eq!(target.authority, "example.org:9");
    }

    #[test]
    fn addresses_are_plain_http_hosts_and_ports() {
        assert_eq!(authority_of("0.0.0.0:80").unwrap(), "127.0.0.1:80");
        assert_eq!(authority_of("[::]:80").unwrap(), "[::1]:80");
        assert_eq!(authority_of("http://box").unwrap(), "box:80");
        for wrong in ["https://box", "http://box/api", "http://", "a b", "u@box:1"] {
            assert_eq!(authority_of(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
