//! Share links: `astral:STREAM-ID@host:port,host:port` (DESIGN §3).

use std::fmt;
use std::str::FromStr;

use crate::ids::{NodeId, StreamId};
use crate::limits::ADDRESSES_MAX;

/// A link that finds a stream without any directory: the id proves the stream,
/// the addresses lead to nodes that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareLink {
    /// The stream.
    pub stream: StreamId,
    /// `host:port` of nodes to ask.
    pub addresses: Vec<String>,
}

/// Why a text is no share link or peer address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Does not begin with `astral:`.
    #[error("a share link begins with `astral:`")]
    Scheme,
    /// The id is not a UUID.
    #[error("`{0}` is not a stream's id")]
    Id(String),
    /// An address without host or port.
    #[error("`{0}` is not host:port")]
    Address(String),
    /// More than [`ADDRESSES_MAX`].
    #[error("a share link has at most {ADDRESSES_MAX} addresses")]
    TooMany,
}

/// Checks `host:port`; IPv6 hosts stand in brackets.
fn host_port(text: &str) -> Result<String, LinkError> {
    let wrong = || LinkError::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let host_ok = !host.is_empty() && host.len() < 256 && (bracketed || !host.contains(':'));
    if !host_ok || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

impl FromStr for ShareLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let rest = text.strip_prefix("astral:").ok_or(LinkError::Scheme)?;
        let (id, addresses) = rest.split_once('@').unwrap_or((rest, ""));
        let stream = id.parse().map_err(|_| LinkError::Id(id.to_owned()))?;
        let addresses: Vec<String> = addresses
            .split(',')
            .filter(|part| !part.is_empty())
            .take(ADDRESSES_MAX + 1)
            .map(host_port)
            .collect::<Result<_, _>>()?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(LinkError::TooMany);
        }
        Ok(Self { stream, addresses })
    }
}

impl fmt::Display for ShareLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "astral:{}", self.stream)?;
        if self.addresses.is_empty() {
            return Ok(());
        }
        write!(f, "@{}", self.addresses.join(","))
    }
}

/// A node to bootstrap from: `host:port`, `UUID@host:port`, or a share link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// A node, by address, and by id if only that one will do.
    Node {
        /// The id that it must prove.
        node: Option<NodeId>,
        /// `host:port`.
        address: String,
    },
    /// The nodes of a share link.
    Link(ShareLink),
}

impl FromStr for PeerAddress {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        if text.starts_with("astral:") {
            return text.parse().map(Self::Link);
        }
        match text.split_once('@') {
            Some((id, address)) => {
                let node = id.parse().map_err(|_| LinkError::Id(id.to_owned()))?;
                Ok(Self::Node {
                    node: Some(node),
                    address: host_port(address)?,
                })
            }
            None => Ok(Self::Node {
                node: None,
                address: host_port(text)?,
            }),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node {
                node: Some(node),
                address,
            } => write!(f, "{node}@{address}"),
            Self::Node {
                node: None,
                address,
            } => f.write_str(address),
            Self::Link(link) => link.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_peers_survive_being_written() {
        let id = "8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f";
        for text in [
            format!("astral:{id}@127.0.0.1:8000,[::1]:9"),
            format!("astral:{id}"),
            format!("{id}@example.org:8000"),
            "example.org:8000".to_owned(),
        ] {
            let peer: PeerAddress = text.parse().unwrap();
            assert_eq!(peer.to_string(), text);
        }
    }

    #[test]
    fn wrong_ones_say_what_is_wrong() {
        let parse = |text: &str| text.parse::<PeerAddress>().unwrap_err();
        assert_eq!(
            parse("example.org"),
            LinkError::Address("example.org".into())
        );
        assert_eq!(parse("::1:80"), LinkError::Address("::1:80".into()));
        assert_eq!(parse("astral:x@a:1"), LinkError::Id("x".into()));
    }
}
