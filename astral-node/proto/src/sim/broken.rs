//! The system broken on purpose, one way at a time, and nodes that lie: so that each rule
//! is seen to be noticed when it is not kept.

use std::time::Duration;

use super::scenario::Lie;
use crate::ids::NodeId;
use crate::overlay::{Action, Event};
use crate::wire::control::{Have, Message};
use crate::wire::heartbeat::Heartbeat;

/// A way in which the system is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nodes promise more than they can upload.
    Limitless,
    /// Nodes see no further up a path than to who told of it, and do not wonder that
    /// nothing comes.
    Blind,
    /// Routes are not ended when heartbeats stay away.
    Immortal,
    /// Nobody looks for another parent.
    Idle,
    /// A new parent is not told what is there already.
    Forgetful,
    /// Stores take frames in twice, and pass them on twice.
    Careless,
    /// A random number that is not from the seed.
    Chance,
}

impl Broken {
    /// What the overlay is told instead.
    pub(super) fn event(self, mut event: Event) -> Event {
        if self == Self::Blind {
            if let Event::Received { message, .. } = &mut event {
                forget_path(message);
            } else if let Event::Progress { progress, .. } = &mut event {
                // As if that were what is usual.
                progress.gap = Duration::from_secs(10);
            }
        }
        if self == Self::Limitless
            && let Event::Limit { bps } = &mut event
        {
            *bps = None;
        }
        event
    }

    /// What is done instead; nothing, if it is left out.
    pub(super) fn action(self, mut action: Action, wanted_before: bool) -> Option<Action> {
        match (self, &mut action) {
            (Self::Immortal, Action::ClearRoute { .. }) => None,
            (Self::Idle, Action::Confirm { .. } | Action::Activate { .. }) if wanted_before => None,
            (Self::Forgetful, Action::SetRoute { have, .. }) => {
                *have = Have::default();
                Some(action)
            }
            _ => Some(action),
        }
    }
}

fn forget_path(message: &mut Message) {
    if let Some(path) = path_of(message) {
        let above = path.len().saturating_sub(1);
        path.drain(..above);
    }
}

fn path_of(message: &mut Message) -> Option<&mut Vec<NodeId>> {
    if let Message::TicketOffer(offer) = message {
        Some(&mut offer.path)
    } else if let Message::TicketAccepted(accepted) = message {
        Some(&mut accepted.path)
    } else if let Message::PathUpdate(update) = message {
        Some(&mut update.path)
    } else {
        None
    }
}

impl Lie {
    /// What a liar sends instead.
    pub(super) fn message(self, own: NodeId, publisher: NodeId, message: &mut Message) {
        if matches!(self, Self::Path | Self::Nothing)
            && let Some(path) = path_of(message)
        {
            *path = vec![publisher, own];
        }
        if !matches!(self, Self::Delay | Self::Nothing | Self::Newest) {
            return;
        }
        if let Message::TicketOffer(offer) = message {
            offer.delay_us = 0;
            offer.spare_bps = 1_000_000_000;
        } else if let Message::PathUpdate(update) = message {
            update.delay_us = 0;
        }
    }

    /// What a liar's heartbeats say instead.
    pub(super) fn beat(self, beat: &mut Heartbeat) {
        if matches!(self, Self::Delay | Self::Nothing | Self::Newest) {
            beat.spare_bps = 1_000_000_000;
        }
        for ticket in &mut beat.tickets {
            match self {
                Self::Delay => ticket.delay_us = 0,
                Self::Nothing | Self::Newest => {
                    ticket.delay_us = 0;
                    ticket.newest.0 += 100;
                    ticket.supply = crate::wire::heartbeat::Supply::Ok;
                }
                Self::Path | Self::Clock => {}
            }
        }
    }
}
