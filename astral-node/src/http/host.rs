//! Which `Host` may be asked for: the guard against DNS rebinding (DESIGN §8).
//!
//! A hostile page can make its own name lead to this machine, and its browser
//! then takes the node for that site. An IP literal cannot be made to lead
//! elsewhere, and `localhost` neither; any other name must be configured.

use std::net::{IpAddr, UdpSocket};

use hyper::header::HOST;
use hyper::http::request::Parts;

use super::problem::Failure;

/// The configured part of the rule.
#[derive(Debug)]
pub(super) struct Hosts {
    /// IP of `--http`.
    pub(super) bound: IpAddr,
    /// Host of `--public-http`, in lower case.
    pub(super) public: Option<String>,
}

impl Hosts {
    /// Whether `host` (without port, in lower case) is this node's, for a
    /// connection that arrived at `local`.
    pub(super) fn allows(&self, host: &str, local: IpAddr) -> bool {
        if matches!(host, "localhost" | "localhost.") || self.public.as_deref() == Some(host) {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let Ok(ip) = bare.unwrap_or(host).parse::<IpAddr>() else {
            return false;
        };
        let ip = ip.to_canonical();
        ip.is_loopback() || ip == local || ip == self.bound.to_canonical() || is_here(ip)
    }
}

/// Whether this machine has the address: only then can a socket be bound to it.
fn is_here(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && UdpSocket::bind((ip, 0)).is_ok()
}

/// The host that a request is for, as `host` or `host:port` in lower case.
///
/// # Errors
/// 400 if there is none, more than one, or it is none (RFC 9112 §3.2).
pub(super) fn asked(parts: &Parts) -> Result<String, Failure> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(Failure::malformed("a request has exactly one Host header"));
    };
    let named = field.to_str().unwrap_or("");
    // A target in absolute form counts instead of the header.
    let host = parts.uri.authority().map_or(named, |uri| uri.as_str());
    if split(named).is_none() || split(host).is_none() {
        return Err(Failure::malformed("the Host header is not host:port"));
    }
    Ok(host.to_ascii_lowercase())
}

/// `host` and port of an authority; IPv6 hosts keep their brackets.
pub(super) fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let bracket = authority.rfind(']');
    let colon = authority
        .rfind(':')
        .filter(|at| bracket.is_none_or(|b| *at > b));
    let (host, port) = match colon {
        Some(at) => (&authority[..at], Some(authority[at + 1..].parse().ok()?)),
        None => (authority, None),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let inside = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    let fits = match bracketed {
        true => host[1..host.len() - 1].chars().all(inside),
        false => host.chars().all(plain),
    };
    (!host.is_empty() && fits).then_some((host, port))
}

/// `scheme://host:port` in lower case and without a default port; `None` if `text` is no origin.
pub(super) fn origin(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/').to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let (host, port) = split(authority)?;
    match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => Some(format!("{scheme}://{host}")),
        (_, Some(port)) => Some(format!("{scheme}://{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_split_and_nonsense_is_none() {
        assert_eq!(split("localhost:8000"), Some(("localhost", Some(8000))));
        assert_eq!(split("[::1]:80"), Some(("[::1]", Some(80))));
        assert_eq!(split("[::1]"), Some(("[::1]", None)));
        for wrong in [
            "", ":80", "a:b", "a:99999", "a@b", "::1", "a b", "[x]:1", "a/b",
        ] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn origins_are_compared_without_case_and_default_port() {
        assert_eq!(
            origin("HTTP://A.example:80/").as_deref(),
            Some("http://a.example")
        );
        assert_eq!(
            origin("https://a.example:8443").as_deref(),
            Some("https://a.example:8443")
        );
        assert_eq!(origin("null"), None);
    }

    #[test]
    fn names_that_can_be_rebound_are_not_allowed() {
        let hosts = Hosts {
            bound: [127, 0, 0, 1].into(),
            public: Some("live.example".into()),
        };
        let local = [127, 0, 0, 1].into();
        for fine in [
            "localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "live.example",
        ] {
            assert!(hosts.allows(fine, local), "{fine}");
        }
        for wrong in [
            "evil.example",
            "192.0.2.7",
            "0.0.0.0",
            "localhost.evil.example",
            "[::]",
        ] {
            assert!(!hosts.allows(wrong, local), "{wrong}");
        }
        assert!(hosts.allows("192.0.2.7", [192, 0, 2, 7].into()));
    }
}
