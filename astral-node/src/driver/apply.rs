//! Carrying out the overlay's actions.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use astral_proto::ids::{StreamId, TicketId};
use astral_proto::overlay::{Action, Change, ConnId, Description, Event};
use astral_proto::record::StreamState;
use astral_proto::wire::CloseCode;
use astral_proto::wire::control::{Confirm, Fetch, Have, TicketActivate, TicketConfirm};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{Driver, Route, Traffic};
use crate::fanout::Feed;
use crate::lock::lock;

/// Requests for missed frames that wait for the task of a route.
const FETCHES: usize = 16;

impl Driver {
    pub(super) fn apply(&mut self, actions: impl Iterator<Item = Action>) {
        for action in actions {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Dial { dial, target } => {
                let (endpoint, inbox) = (self.endpoint.clone(), self.inbox.clone());
                self.tasks
                    .spawn(super::dial::dial(endpoint, inbox, dial, target));
            }
            Action::Send { conn, message } => self.send(conn, message),
            Action::Confirm {
                conn,
                stream,
                confirm,
            } => self.confirm(conn, stream, confirm),
            Action::Activate {
                conn,
                ticket,
                stream,
            } => {
                let have = self.have_of(stream);
                self.send(conn, TicketActivate { id: ticket, have }.into());
            }
            Action::Beat { conn, beat } => {
                if let Some(link) = self.links.get(&conn) {
                    link.beat(&beat);
                }
            }
            Action::Close { conn, code, reason } => {
                if let Some(link) = self.links.get(&conn) {
                    info!(conn = conn.0, ?code, reason, "closing connection");
                    link.close(code, &reason);
                }
            }
            Action::Open { record } => {
                self.stores.open(&record);
            }
            Action::Drop { stream } => {
                self.lacking.remove(&stream);
                // Readers of a store that is not filled any more come to an end.
                if let Some(store) = self.stores.remove(stream) {
                    store.set_state(StreamState::Ended);
                }
            }
            Action::SetRoute {
                conn,
                ticket,
                stream,
                have,
            } => {
                self.set_route(conn, ticket, stream, have);
            }
            Action::Serve {
                conn,
                stream,
                fetch,
            } => self.serve(conn, stream, fetch),
            Action::ClearRoute { conn, ticket } => {
                if let Some(route) = self.routes.remove(&(conn, ticket)) {
                    route.task.abort();
                }
                self.forget_traffic(ticket);
            }
            Action::Expect {
                conn,
                ticket,
                stream,
            } => self.expect(conn, ticket, stream),
            Action::Unexpect { conn, ticket } => {
                if let Some(link) = self.links.get(&conn) {
                    link.unexpect(ticket);
                }
                self.forget_traffic(ticket);
            }
            Action::Changed(change) => {
                announce(&change);
                self.changes.send_modify(|count| *count += 1);
            }
            Action::Sign(description) => self.describe(description),
            Action::Probe {
                conn,
                query,
                key,
                address,
            } => {
                let (prober, inbox) = (self.prober.clone(), self.inbox.clone());
                self.tasks.spawn(async move {
                    let reachable = prober.reaches(key, address.0).await;
                    let event = Event::Probed {
                        conn,
                        query,
                        reachable,
                    };
                    inbox.event(event, String::new()).await;
                });
            }
            Action::Left => {
                self.left.send_replace(true);
            }
        }
    }

    fn describe(&mut self, description: Description) {
        let role = description.role;
        let before = self.described.send_replace(Some(description));
        if before.is_none_or(|before| before.role != role) {
            info!(?role, "role in the network");
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn send(&mut self, conn: ConnId, message: astral_proto::wire::control::Message) {
        let Some(link) = self.links.get(&conn) else {
            return;
        };
        debug!(conn = conn.0, message = message.name(), "send");
        if !link.send(message) {
            warn!(conn = conn.0, "peer does not take its control messages");
            link.close(CloseCode::Busy, "control messages are not taken");
        }
    }

    fn confirm(&mut self, conn: ConnId, stream: StreamId, confirm: Confirm) {
        // A standby is told where to go on when it is needed.
        let have = match confirm {
            Confirm::Active => self.have_of(stream),
            Confirm::Standby(_) => Have::default(),
        };
        self.send(
            conn,
            TicketConfirm {
                stream,
                confirm,
                have,
            }
            .into(),
        );
    }

    fn have_of(&self, stream: StreamId) -> Have {
        let store = self.stores.of(stream);
        store.map(|store| store.open_groups()).unwrap_or_default()
    }

    fn set_route(&mut self, conn: ConnId, ticket: TicketId, stream: StreamId, have: Have) {
        let bytes = Arc::new(AtomicU64::new(0));
        let Some(feed) = self.feed(conn, ticket, stream, bytes.clone()) else {
            return;
        };
        lock(&self.traffic).insert(ticket, Traffic::Out(bytes));
        let (fetches, asked) = mpsc::channel(FETCHES);
        let task = self.feeds.spawn(feed.run(have, asked));
        self.routes.insert((conn, ticket), Route { task, fetches });
    }

    fn feed(
        &self,
        conn: ConnId,
        ticket: TicketId,
        stream: StreamId,
        bytes: Arc<AtomicU64>,
    ) -> Option<Feed> {
        let link = self.links.get(&conn)?;
        Some(Feed {
            conn: link.shared.conn.clone(),
            id: conn,
            ticket,
            store: self.stores.of(stream)?,
            uplink: self.uplink.clone(),
            bytes,
        })
    }

    fn serve(&mut self, conn: ConnId, stream: StreamId, fetch: Fetch) {
        if let Some(route) = self.routes.get(&(conn, fetch.id)) {
            // Who asks faster than it can be answered asks again.
            let _ = route.fetches.try_send(fetch);
        } else if let Some(feed) = self.feed(conn, fetch.id, stream, Arc::default()) {
            self.feeds.spawn(feed.answer(fetch));
        }
    }

    fn expect(&mut self, conn: ConnId, ticket: TicketId, stream: StreamId) {
        let (Some(link), Some(store)) = (self.links.get(&conn), self.stores.of(stream)) else {
            return;
        };
        let intake = link.expect(ticket, store);
        lock(&self.traffic).insert(ticket, Traffic::In(intake));
    }

    fn forget_traffic(&mut self, ticket: TicketId) {
        lock(&self.traffic).remove(&ticket);
    }

    pub(super) fn log(&self, event: &Event, words: &str) {
        if let Event::Closed { conn, code } = event {
            info!(conn = conn.0, ?code, reason = words, "connection closed");
        } else if let Event::BadMedia { conn, stream } = event {
            warn!(conn = conn.0, %stream, reason = words, "peer sent bad media");
        } else if let Event::Received { conn, message } = event {
            debug!(conn = conn.0, message = message.name(), "received");
        }
    }
}

/// One sentence in the log for each thing that a user or an admin would ask about.
fn announce(change: &Change) {
    match change {
        Change::PeerJoined(node) => info!(%node, "peer connected"),
        Change::PeerLeft(node) => info!(%node, "peer gone"),
        Change::Stream(stream) => debug!(%stream, "stream record changed"),
        Change::Parent(stream, node) => info!(%stream, parent = %node, "stream arrives"),
        Change::ParentLost(stream, node, reason) => {
            info!(%stream, parent = %node, reason = reason.words(), "parent lost");
        }
        Change::NoRoom(stream, reason) => {
            info!(%stream, reason = reason.words(), "nobody has room for the stream yet");
        }
        Change::Promised(ticket, node) => info!(%ticket, child = %node, "ticket promised"),
        Change::Ready(ticket, node) => info!(%ticket, child = %node, "ready to feed"),
        Change::Ended(ticket, node, reason) => {
            info!(%ticket, child = %node, reason = reason.words(), "ticket ended");
        }
        Change::Banned(node, reason) => warn!(%node, reason, "peer is not served for a time"),
    }
}
