//! Offering streams to other nodes.

use std::time::Duration;

use astral_proto::api;
use astral_proto::ids::{NodeId, StreamId};
use astral_proto::overlay::{Event, SeedAnswer};
use astral_proto::wire::control::Reason;

use super::{ApiError, FIND_EVERY, Handle, WATCH_WITHIN};

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
        let mut changes = self.changes();
        self.tell(Event::Seed { node, stream: id }).await;
        let answered = async {
            loop {
                let answer = self
                    .inner
                    .inbox
                    .inspect(move |overlay, _| overlay.seed_answer(node, id));
                match answer.await.flatten() {
                    Some(SeedAnswer::Taken) => return Ok(()),
                    Some(SeedAnswer::Refused(reason)) => return Err(refused(node, reason)),
                    Some(SeedAnswer::Open) => {}
                    None => return Err(ApiError::NoRoom("too many streams are offered".into())),
                }
                let _ = tokio::time::timeout(FIND_EVERY, changes.changed()).await;
            }
        };
        let silent = || ApiError::NoRoom(format!("node {node} does not answer"));
        tokio::time::timeout(WATCH_WITHIN, answered)
            .await
            .unwrap_or_else(|_| Err(silent()))?;
        if let Some(ticket) = before {
            return Ok(Seeded::Already(ticket));
        }
        let fed = async {
            loop {
                if let Some(ticket) = self.fed_ticket(id, node).await {
                    return ticket;
                }
                let _ = tokio::time::timeout(FIND_EVERY, changes.changed()).await;
            }
        };
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
