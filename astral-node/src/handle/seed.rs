//! Offering streams to other nodes.

use std::time::Duration;

use astral_proto::api;
use astral_proto::ids::{NodeId, StreamId};
use astral_proto::overlay::{Event, SeedAnswer};
use astral_proto::wire::control::Reason;

use super::{ApiError, Handle, WATCH_WITHIN};

/// Wait for the carrier to ask this node for the stream, which it may have from elsewhere.
const FED_WITHIN: Duration = Duration::from_secs(2);

/// What came of an offer that was taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Seeded {
    /// The other node is fed from here now.
    New(api::Ticket),
    /// It was already.
    Already(api::Ticket),
    /// It gets the stream from another node, or waits for one to have room.
    Elsewhere,
}

impl Handle {
    /// Offers a stream to another node, which decides, and waits for what it says.
    ///
    /// # Errors
    /// [`ApiError::Unknown`] if the node is not known, [`ApiError::Refused`] with its reason
    /// if it does not take the stream, [`ApiError::NoRoom`] if it cannot be reached or says
    /// nothing within 5 s.
    pub async fn seed(&self, id: StreamId, node: NodeId) -> Result<Seeded, ApiError> {
        self.node_known(node).await?;
        let before = self.fed_ticket(id, node).await;
        self.tell(Event::Seed { node, stream: id }).await;
        let answered = self.seen(|| async {
            let inbox = &self.inner.inbox;
            let answer = inbox.inspect(move |overlay, _| overlay.seed_answer(node, id));
            match answer.await.flatten() {
                Some(SeedAnswer::Taken) => Some(Ok(())),
                Some(SeedAnswer::Refused(reason)) => Some(Err(refused(node, reason))),
                Some(SeedAnswer::Open) => None,
                None => Some(Err(ApiError::NoRoom("too many streams are offered".into()))),
            }
        });
        let silent = || ApiError::NoRoom(format!("node {node} does not answer"));
        tokio::time::timeout(WATCH_WITHIN, answered)
            .await
            .unwrap_or_else(|_| Err(silent()))?;
        if let Some(ticket) = before {
            return Ok(Seeded::Already(ticket));
        }
        let fed = self.seen(|| self.fed_ticket(id, node));
        let fed = tokio::time::timeout(FED_WITHIN, fed).await;
        Ok(fed.map_or(Seeded::Elsewhere, Seeded::New))
    }

    /// The ticket under which this node feeds another.
    async fn fed_ticket(&self, id: StreamId, node: NodeId) -> Option<api::Ticket> {
        let tickets = self.tickets().await;
        tickets.into_iter().find(|ticket| {
            let of_both = ticket.stream.id == id && ticket.destination == node;
            of_both && ticket.state == api::TicketState::Active
        })
    }
}

fn refused(node: NodeId, reason: Reason) -> ApiError {
    let words = if reason == Reason::Unwanted {
        "takes only streams that it asked for"
    } else {
        reason.words()
    };
    ApiError::Refused(format!("node {node} does not take it: {words}"))
}
