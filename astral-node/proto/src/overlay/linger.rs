//! Connections that nothing needs any more are closed by whoever dialled them.
//!
//! A search dials whomever it is referred to, and a node that has searched a few times
//! would else keep dozens of connections, each with its heartbeats.

use std::time::Duration;

use super::Overlay;
use super::event::{ConnId, Time};
use crate::record::Role;

/// A connection is kept for this long, whether it is needed or not.
const LINGER: Duration = Duration::from_secs(5);
/// Who asked for a stream may take up what it was offered for this long: it waits a second
/// for others, and a second for each that it confirms.
const ANSWERED: Duration = Duration::from_secs(3);
/// Peers that are kept anyhow: whom to ask first when a parent is lost.
const PEERS_KEPT: usize = 8;

impl Overlay {
    /// Whether a connection that no ticket runs on serves nothing else either.
    pub(super) fn is_superfluous(&self, now: Time, conn: ConnId) -> bool {
        let Some(peer) = self.peers.get(&conn) else {
            return false;
        };
        let kept = !peer.outbound
            || self.peers.len() <= PEERS_KEPT
            || now.since(peer.joined) < LINGER
            || self.role() == Role::Supernode
            || self.is_supernode(conn)
            || self.is_searched(conn)
            || peer.asked.is_some_and(|at| now.since(at) < ANSWERED);
        !kept && !self.is_bootstrap(peer.node)
    }

    /// Whether a search waits for what is said over this connection.
    fn is_searched(&self, conn: ConnId) -> bool {
        let mut searches = self.streams.values().filter_map(|s| s.search.as_ref());
        searches.any(|search| search.counts_on(conn))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::peers::Dial;
    use super::super::tests::{Net, address};
    use super::super::{Event, Target};
    use super::*;
    use crate::wire::control::TicketRequest;

    /// Has node 0 dial these, of its own accord.
    fn dial(net: &mut Net, nodes: Range<usize>) {
        for node in nodes {
            let dial = Dial {
                node: None,
                bootstrap: None,
                supernode: false,
            };
            let addresses = vec![address(node).0.to_string()];
            let node = None;
            net.overlay(0).dial(dial, Target { node, addresses });
        }
    }

    #[test]
    fn connections_that_nothing_needs_are_closed_by_whoever_dialled_and_a_few_are_kept() {
        let mut net = Net::new(&[1; 14]);
        net.bootstrap(0, 1);
        dial(&mut net, 2..14);
        let bps = None;
        net.event(0, Event::Limit { bps });
        net.run(Duration::from_secs(5));
        assert_eq!(net.overlay(0).peers.len(), 13);
        net.run(Duration::from_secs(10));
        assert_eq!(net.overlay(0).peers.len(), PEERS_KEPT);
        let bootstrap = net.id(1);
        assert!(net.overlay(0).by_node.contains_key(&bootstrap));
    }

    #[test]
    fn connection_over_which_somebody_asked_is_kept_while_the_answer_may_be_taken_up() {
        let mut net = Net::new(&[1; 14]);
        dial(&mut net, 1..14);
        net.run(Duration::from_secs(5));
        let (asker, stream) = (net.id(13), net.stream());
        let now = net.now.after(LINGER);
        let overlay = net.overlay(0);
        let conn = overlay.by_node[&asker];
        assert!(overlay.is_superfluous(now, conn));
        let message = TicketRequest {
            stream,
            carries: None,
            places: None,
        };
        let message = message.into();
        drop(overlay.handle(now, Event::Received { conn, message }));
        assert!(!overlay.is_superfluous(now.after(ANSWERED / 2), conn));
        assert!(overlay.is_superfluous(now.after(ANSWERED), conn));
    }
}
