//! Three nodes in a row, as most tests want them: publisher, relay, viewer.

use astral_proto::api::{Ingest, Stream, Ticket};

use crate::process::{Launch, Node};
use crate::wait::{check, s, until};

/// Room for one copy of a stream whose rate is not known yet (4 Mbit/s and a reserve of
/// 15 %), not for two: who comes second is fed by who came first.
pub const ONE_COPY: &str = "6mbit";

/// A publisher that feeds a relay that feeds a viewer.
pub struct Chain {
    pub publisher: Node,
    pub relay: Node,
    pub viewer: Node,
    pub stream: Stream,
    pub ingest: Ingest,
}

impl Chain {
    /// Starts the nodes, publishes a stream and joins it; the encoder is still to come.
    pub async fn start(name: &str) -> Self {
        Self::start_with(Launch::new("publisher"), name).await
    }

    /// The same with this publisher.
    pub async fn start_with(publisher: Launch, name: &str) -> Self {
        let publisher = publisher.limit(ONE_COPY).start().await;
        let relay = Launch::new("relay").peer(&publisher).start().await;
        let viewer = Launch::new("viewer").peer(&relay).start().await;
        let (stream, ingest) = publisher.api.publish(name).await;
        let chain = Self {
            publisher,
            relay,
            viewer,
            stream,
            ingest,
        };
        join(&chain.relay, &chain.stream).await;
        join(&chain.viewer, &chain.stream).await;
        chain.check_parents().await;
        chain
    }

    /// Name of the stream in URLs.
    pub fn slug(&self) -> &str {
        &self.stream.slug
    }

    async fn check_parents(&self) {
        let of_relay = self.relay.api.parent(self.slug()).await;
        assert_eq!(
            of_relay,
            Some(self.publisher.id()),
            "the publisher feeds the relay"
        );
        let of_viewer = self.viewer.api.parent(self.slug()).await;
        assert_eq!(
            of_viewer,
            Some(self.relay.id()),
            "the relay feeds the viewer"
        );
    }
}

/// Makes a node receive a stream, as soon as it has heard of it.
pub async fn join(node: &Node, stream: &Stream) -> Ticket {
    let slug = stream.id.to_string();
    until("the stream's record", s(15), async || {
        node.api.try_stream(&slug).await
    })
    .await;
    let answer = node.api.watch(&slug).await;
    assert_eq!(answer.status, 201, "{answer}");
    let ticket: Ticket = answer.json();
    assert_eq!(ticket.destination, node.id(), "the ticket is for who asked");
    ticket
}

/// Waits until the encoder's frames arrive at a node.
pub async fn flows(node: &Node, stream: &Stream) {
    let slug = stream.id.to_string();
    until("frames", s(20), async || {
        let local = node.api.stream(&slug).await.local;
        check(local.frames_received > 30, format!("{local:?}"))
    })
    .await;
}
