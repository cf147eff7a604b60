//! Who asks, and under which name they know this site.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName};
use hyper::http::request::Parts;

use crate::config::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Longest host that a page shows.
const HOST_BYTES_MAX: usize = 255;

/// Who asks: the canonical address of the connection's other end, or of whom a trusted
/// proxy speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) IpAddr);

/// Scheme, host and port by which the caller came here, like `https://live.example`.
#[derive(Clone, Debug)]
pub(super) struct Site(pub(super) String);

/// The caller of a request that came from `peer`.
///
/// Each proxy adds the address it saw at the right end, so from there the trusted ones
/// are passed over; what stands further left anybody may have written.
pub(super) fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Caller {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    let mut caller = peer.to_canonical();
    if !is_trusted(caller) {
        return Caller(caller);
    }
    let fields = headers.get_all(FORWARDED_FOR).iter();
    let entries: Vec<&str> = fields
        .flat_map(|field| field.to_str().unwrap_or("?").split(','))
        .collect();
    for entry in entries.iter().rev() {
        let Some(ip) = address(entry.trim()) else {
            break;
        };
        caller = ip;
        if !is_trusted(ip) {
            break;
        }
    }
    Caller(caller)
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = match entry.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if entry.matches(':').count() == 1 => entry.split(':').next()?,
        None => entry,
    };
    bare.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// The site as this request names it; no host that is none gets on a page.
pub(super) fn site(peer: IpAddr, parts: &Parts, tls: bool, trusted: &[Network]) -> Option<Site> {
    let host = parts.uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| parts.headers.get(HOST)?.to_str().ok())?;
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(plain) {
        return None;
    }
    let behind = trusted.iter().any(|network| network.contains(peer));
    let said = parts.headers.get(FORWARDED_PROTO).filter(|_| behind);
    let secure = tls || said.is_some_and(|proto| proto == "https");
    let scheme = if secure { "https" } else { "http" };
    Some(Site(format!("{scheme}://{}", host.to_ascii_lowercase())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, fields: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED_FOR, field.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        caller(peer.parse().unwrap(), &headers, &trusted)
            .0
            .to_string()
    }

    #[test]
    fn header_counts_only_from_a_trusted_proxy_and_only_what_that_one_added() {
        let claimed = ["203.0.113.5"];
        assert_eq!(seen("192.0.2.1", &claimed, &[]), "192.0.2.1");
        assert_eq!(seen("192.0.2.1", &claimed, &["10.0.0.0/8"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &claimed, &["10.0.0.0/8"]), "203.0.113.5");
        let forged = ["127.0.0.1, 203.0.113.5"];
        assert_eq!(seen("10.0.0.1", &forged, &["10.0.0.0/8"]), "203.0.113.5");
        let two = ["198.51.100.7", "203.0.113.5, 10.0.0.2"];
        assert_eq!(seen("10.0.0.1", &two, &["10.0.0.0/8"]), "203.0.113.5");
        assert_eq!(seen("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["unknown"], &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn addresses_are_read_in_every_form_that_proxies_write() {
        for (field, ip) in [
            ("2001:db8::5", "2001:db8::5"),
            ("[2001:db8::5]:443", "2001:db8::5"),
            ("[2001:db8::5]", "2001:db8::5"),
            ("203.0.113.5:80", "203.0.113.5"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
        ] {
            assert_eq!(seen("::1", &[field], &["::1"]), ip, "{field}");
            assert_eq!(
                seen("::ffff:10.0.0.1", &[field], &["10.0.0.1"]),
                ip,
                "{field}"
            );
        }
    }
}
