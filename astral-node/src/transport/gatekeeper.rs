//! Which incoming connections are taken on (DESIGN §5): it bounds what strangers can
//! make a node hold before they have proved anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use astral_proto::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_IP_MAX};
use quinn::Incoming;

use crate::lock::lock;

/// Handshakes in progress above which a newcomer first has to show, by a retry token
/// (RFC 9000 §8.1.2), that its address is real.
const HALF_OPEN_UNPROVED_MAX: usize = 64;

/// Counts incoming connections; clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gatekeeper {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    half_open: usize,
    /// By address, loopback apart.
    by_ip: BTreeMap<IpAddr, usize>,
}

/// What to do with an incoming connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Take it on, and keep this as long as it lives.
    Accept(Admitted),
    /// Have it prove its address ([`Incoming::retry`]).
    Retry,
    /// Turn it away ([`Incoming::refuse`]).
    Refuse,
}

/// A place among the connections; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Admitted {
    counts: Arc<Mutex<Counts>>,
    ip: Option<IpAddr>,
    half_open: bool,
}

impl Gatekeeper {
    /// Decides about `incoming`, and counts it if it is to be accepted.
    pub(crate) fn admit(&self, incoming: &Incoming) -> Admission {
        let proved = incoming.remote_address_validated();
        self.decide(incoming.remote_address(), proved || !incoming.may_retry())
    }

    fn decide(&self, remote: SocketAddr, proved: bool) -> Admission {
        let ip = remote.ip().to_canonical();
        let ip = (!ip.is_loopback()).then_some(ip);
        let mut counts = lock(&self.counts);
        let of_ip = ip.and_then(|ip| counts.by_ip.get(&ip)).copied();
        if counts.all >= CONNECTIONS_MAX || of_ip.unwrap_or(0) >= CONNECTIONS_PER_IP_MAX {
            return Admission::Refuse;
        }
        if counts.half_open >= HALF_OPEN_UNPROVED_MAX && !proved {
            return Admission::Retry;
        }
        counts.all += 1;
        counts.half_open += 1;
        if let Some(ip) = ip {
            *counts.by_ip.entry(ip).or_default() += 1;
        }
        Admission::Accept(Admitted {
            counts: Arc::clone(&self.counts),
            ip,
            half_open: true,
        })
    }
}

impl Admitted {
    /// The handshake is over.
    pub(crate) fn established(&mut self) {
        if std::mem::take(&mut self.half_open) {
            lock(&self.counts).half_open -= 1;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.established();
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        let Some(ip) = self.ip else {
            return;
        };
        if let Some(of_ip) = counts.by_ip.get_mut(&ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                counts.by_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(gatekeeper: &Gatekeeper, ip: &str, proved: bool) -> Option<Admitted> {
        match gatekeeper.decide(SocketAddr::new(ip.parse().unwrap(), 1), proved) {
            Admission::Accept(admitted) => Some(admitted),
            Admission::Retry | Admission::Refuse => None,
        }
    }

    #[test]
    fn one_address_has_few_places_and_loopback_many() {
        let gatekeeper = Gatekeeper::default();
        let take = |ip| accepted(&gatekeeper, ip, true);
        let mut held: Vec<_> = (0..CONNECTIONS_PER_IP_MAX)
            .map(|_| take("192.0.2.1").unwrap())
            .collect();
        assert!(take("192.0.2.1").is_none());
        assert!(take("::ffff:192.0.2.1").is_none(), "the same in IPv6 dress");
        assert!(take("192.0.2.2").is_some());
        held.pop();
        held.push(take("192.0.2.1").unwrap());
        held.extend((0..100).map(|_| take("127.0.0.1").unwrap()));
        drop(held);
        assert!(lock(&gatekeeper.counts).by_ip.is_empty());
        assert_eq!(lock(&gatekeeper.counts).all, 0);
    }

    #[test]
    fn many_handshakes_in_progress_make_newcomers_prove_their_address() {
        let gatekeeper = Gatekeeper::default();
        let mut held: Vec<_> = (0..HALF_OPEN_UNPROVED_MAX)
            .map(|_| accepted(&gatekeeper, "127.0.0.1", false).unwrap())
            .collect();
        let remote = "192.0.2.1:1".parse().unwrap();
        let asked = gatekeeper.decide(remote, false);
        assert!(matches!(asked, Admission::Retry));
        assert!(accepted(&gatekeeper, "192.0.2.1", true).is_some());
        held[0].established();
        held[0].established();
        assert!(accepted(&gatekeeper, "192.0.2.1", false).is_some());
    }

    #[test]
    fn full_node_refuses() {
        let gatekeeper = Gatekeeper::default();
        let take = || accepted(&gatekeeper, "127.0.0.1", true);
        let held: Vec<_> = (0..CONNECTIONS_MAX).map(|_| take().unwrap()).collect();
        assert!(take().is_none());
        drop(held);
        assert!(take().is_some());
    }
}
