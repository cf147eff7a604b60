//! Fan-out: what is in the store goes to a child, under a ticket, one uni stream
//! per track and group, while the group is still being made.
//!
//! Each group is a task with its own cursor over shared bytes: nothing is copied
//! per child, and nothing here parses media. What may be sent when is decided by
//! the [`Uplink`]: control, then audio, then video; children in turn, chunk by
//! chunk; the newest group of a child first. A child that cannot keep up loses
//! discardable frames, then the rest of a late group, never its connection.

mod group;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use astral_media::track::TrackKind;
use astral_proto::ids::TicketId;
use astral_proto::overlay::ConnId;
use astral_proto::wire::control::{Have, HaveGroup};
use tokio::task::JoinSet;

use crate::store::{Group, StreamStore};
use crate::uplink::{Class, Uplink};
use pace::Pace;

/// Track 0 carries the catalog.
const CATALOG: u8 = 0;

/// One ticket that this node serves.
pub(crate) struct Feed {
    pub(crate) conn: quinn::Connection,
    pub(crate) id: ConnId,
    pub(crate) ticket: TicketId,
    pub(crate) store: Arc<StreamStore>,
    pub(crate) uplink: Arc<Uplink>,
    /// Payload bytes written under this ticket.
    pub(crate) bytes: Arc<AtomicU64>,
    /// What the child holds already.
    pub(crate) have: Have,
}

/// What the tasks of one feed share.
pub(super) struct Route {
    conn: quinn::Connection,
    id: ConnId,
    ticket: TicketId,
    store: Arc<StreamStore>,
    uplink: Arc<Uplink>,
    bytes: Arc<AtomicU64>,
    pace: Pace,
}

/// Where the sending of a track has got to.
#[derive(Default)]
struct Sent {
    catalog: Option<(u32, u64)>,
    /// Groups begun, by track; those that the store has forgotten are forgotten here.
    groups: BTreeMap<u8, BTreeSet<u64>>,
}

impl Feed {
    /// Serves the ticket until it is dropped or the connection ends.
    pub(crate) async fn run(self) {
        let mut changes = self.store.watch();
        let mut sent = Sent::default();
        let route = Arc::new(Route {
            pace: Pace::new(self.conn.clone()),
            conn: self.conn,
            id: self.id,
            ticket: self.ticket,
            store: self.store,
            uplink: self.uplink,
            bytes: self.bytes,
        });
        let mut start = self.have.from_group;
        let mut groups = JoinSet::new();
        loop {
            changes.borrow_and_update();
            route.open_new(&mut sent, &mut start, &self.have, &mut groups);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Some(_) = groups.join_next() => {}
                _ = route.conn.closed() => return,
            }
        }
    }
}

impl Route {
    /// Starts a task for every group that is new since the last look.
    fn open_new(
        self: &Arc<Self>,
        sent: &mut Sent,
        start: &mut Option<u64>,
        have: &Have,
        groups: &mut JoinSet<()>,
    ) {
        self.open_catalog(sent, groups);
        let Some(catalog) = self.store.catalog() else {
            return;
        };
        let tracks: Vec<(u8, TrackKind)> = catalog
            .tracks
            .iter()
            .map(|track| (track.id, track.config.kind()))
            .collect();
        let Some(first) = self.first_group(start, &tracks) else {
            return;
        };
        for (track, kind) in tracks {
            let class = match kind {
                TrackKind::Audio => Class::Audio,
                TrackKind::Video => Class::Video,
            };
            let held_now = self.store.groups(track);
            let begun = sent.groups.entry(track).or_default();
            let oldest = held_now.first().map_or(0, |group| group.group);
            begun.retain(|number| *number >= oldest);
            for group in held_now {
                let held = have_of(have, track, group.group);
                let wanted = group.group >= first || held.is_some();
                if wanted && begun.insert(group.group) {
                    self.open(group, held, class, groups);
                }
            }
        }
    }

    fn open_catalog(self: &Arc<Self>, sent: &mut Sent, groups: &mut JoinSet<()>) {
        for group in self.store.groups(CATALOG) {
            let name = (group.epoch, group.group);
            if sent.catalog.is_none_or(|last| last < name) {
                sent.catalog = Some(name);
                self.open(group, None, Class::Control, groups);
            }
        }
    }

    fn open(
        self: &Arc<Self>,
        group: Arc<Group>,
        held: Option<&HaveGroup>,
        class: Class,
        groups: &mut JoinSet<()>,
    ) {
        let from = held.map_or((0, 0), |held| (held.frame, held.chunk));
        groups.spawn(group::send(self.clone(), group, from, class));
    }

    /// Upload that is left once the child has what is live, in bit/s.
    fn spare_bps(&self) -> u64 {
        let live_bps = self.store.stats().peak_bps;
        let taken_bps = self.uplink.used_bps().saturating_add(live_bps);
        let limit_bps = self.uplink.limit().unwrap_or(u64::MAX);
        limit_bps.saturating_sub(taken_bps)
    }

    /// Where a child without anything starts: at the newest group, if catching up
    /// from its keyframe takes under a second of what may be sent, else with the next.
    fn first_group(&self, start: &mut Option<u64>, tracks: &[(u8, TrackKind)]) -> Option<u64> {
        if start.is_some() {
            return *start;
        }
        let main = tracks
            .iter()
            .find(|(_, kind)| *kind == TrackKind::Video)
            .or(tracks.first())?;
        let newest = self.store.groups(main.0).into_iter().next_back()?;
        let behind_bits = newest.bytes() as u64 * 8;
        let a_second = self.spare_bps();
        let enters = newest.is_entry() == Some(true) && behind_bits <= a_second;
        *start = Some(if enters {
            newest.group
        } else {
            newest.group + 1
        });
        *start
    }
}

fn have_of(have: &Have, track: u8, group: u64) -> Option<&HaveGroup> {
    have.groups
        .iter()
        .find(|held| held.track == track && held.group == group)
}
