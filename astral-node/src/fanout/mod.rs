//! Fan-out: what is in the store goes to a child, under a ticket, one uni stream
//! per track and group, while the group is still being made.
//!
//! Each group is a task with its own cursor over shared bytes: nothing is copied
//! per child, and nothing here parses media. What may be sent when is decided by
//! the [`Uplink`]: control, then audio, then video; children in turn, chunk by
//! chunk. A child that has just come **catches up** in order, and its parent keeps the
//! upload that this takes; from then on it is **level**, and the newest group goes first
//! as soon as an older one is late. A level child that cannot keep up loses discardable
//! frames, then the rest of a late group, never its connection. What it missed for another
//! reason it asks for by `Fetch`, and gets once.

mod group;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use astral_media::track::TrackKind;
use astral_proto::ids::TicketId;
use astral_proto::overlay::ConnId;
use astral_proto::wire::control::{Fetch, Have, HaveGroup};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lock::lock;
use crate::store::{Group, StreamStore};
use crate::uplink::{Class, Loan, Uplink};
use pace::Pace;

/// Track 0 carries the catalog.
const CATALOG: u8 = 0;

/// Frames asked for that are being sent at one time, to one child.
const ANSWERS_MAX: usize = 8;
/// A child catches up in order for this long at the most; then what is live goes first.
const CATCH_UP_MAX: Duration = Duration::from_secs(4);
/// A child that was too slow is sent nothing that it asks for, for this long: what it
/// lacks was left out on purpose.
const TOO_SLOW: Duration = Duration::from_secs(2);

/// One ticket that this node serves.
pub(crate) struct Feed {
    pub(crate) conn: quinn::Connection,
    pub(crate) id: ConnId,
    pub(crate) ticket: TicketId,
    pub(crate) store: Arc<StreamStore>,
    pub(crate) uplink: Arc<Uplink>,
    /// Payload bytes written under this ticket.
    pub(crate) bytes: Arc<AtomicU64>,
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
    state: Mutex<State>,
}

/// How a child keeps up.
#[derive(Default)]
struct State {
    /// Since when it catches up; none once it is level with the stream.
    catches_up: Option<Instant>,
    /// Upload that is kept for it until then.
    loan: Option<Loan>,
    /// When something was left out last, as the child was too slow for it.
    left_out: Option<Instant>,
}

/// Where the sending of a track has got to.
#[derive(Default)]
struct Sent {
    catalog: Option<(u32, u64)>,
    /// Groups begun, by track; those that the store has forgotten are forgotten here.
    groups: BTreeMap<u8, BTreeSet<u64>>,
    /// Groups on their way, and up to which frame they were written.
    under_way: BTreeMap<(u8, u64), Arc<AtomicU32>>,
    answers: usize,
}

/// What a task was for, said at its end.
enum Ended {
    Group(u8, u64),
    Answer,
}

impl Feed {
    fn route(self) -> Arc<Route> {
        Arc::new(Route {
            pace: Pace::new(self.conn.clone()),
            conn: self.conn,
            id: self.id,
            ticket: self.ticket,
            store: self.store,
            uplink: self.uplink,
            bytes: self.bytes,
            state: Mutex::default(),
        })
    }

    /// Serves the ticket until it is dropped or the connection ends: everything after
    /// what the child has, and the frames that it asks for.
    pub(crate) async fn run(self, have: Have, mut fetches: mpsc::Receiver<Fetch>) {
        let mut changes = self.store.watch();
        let mut sent = Sent::default();
        let route = self.route();
        route.state().catches_up = Some(Instant::now());
        let mut start = have.from_group;
        let mut tasks = JoinSet::new();
        loop {
            changes.borrow_and_update();
            route.open_new(&mut sent, &mut start, &have, &mut tasks);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Some(ended) = tasks.join_next() => sent.ended(ended.ok()),
                Some(fetch) = fetches.recv() => route.answer(&mut sent, fetch, &mut tasks),
                _ = route.conn.closed() => return,
            }
        }
    }

    /// Sends frames to a child that is fed by somebody else.
    pub(crate) async fn answer(self, fetch: Fetch) {
        if let Some((group, class)) = asked_for(&self.store, &fetch) {
            group::answer(self.route(), group, fetch, class).await;
        }
    }
}

impl Sent {
    fn ended(&mut self, ended: Option<Ended>) {
        match ended {
            Some(Ended::Group(track, number)) => {
                self.under_way.remove(&(track, number));
            }
            Some(Ended::Answer) => self.answers -= 1,
            None => {}
        }
    }
}

impl Route {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the child is still on its way to what is live.
    pub(super) fn catches_up(&self) -> bool {
        let mut state = self.state();
        let since = state.catches_up;
        let over = since.is_some_and(|since| since.elapsed() > CATCH_UP_MAX);
        if over {
            state.catches_up = None;
            state.loan = None;
        }
        state.catches_up.is_some()
    }

    /// The child has what is live.
    pub(super) fn note_level(&self) {
        let mut state = self.state();
        if state.catches_up.take().is_some() {
            state.loan = None;
        }
    }

    /// Something is left out, as the child is too slow for it.
    pub(super) fn note_left_out(&self) {
        self.state().left_out = Some(Instant::now());
    }

    fn is_too_slow(&self) -> bool {
        let left_out = self.state().left_out;
        left_out.is_some_and(|at| at.elapsed() < TOO_SLOW)
    }

    /// Starts a task for every group that is new since the last look.
    fn open_new(
        self: &Arc<Self>,
        sent: &mut Sent,
        start: &mut Option<u64>,
        have: &Have,
        tasks: &mut JoinSet<Ended>,
    ) {
        self.open_catalog(sent, tasks);
        let Some(catalog) = self.store.catalog() else {
            return;
        };
        let Some(main) = catalog.main() else {
            return;
        };
        let Some(first) = self.first_group(start, main.id) else {
            return;
        };
        for track in &catalog.tracks {
            let class = class_for(track.config.kind());
            let held_now = self.store.groups(track.id);
            let begun = sent.groups.entry(track.id).or_default();
            let oldest = held_now.first().map_or(0, |group| group.group);
            begun.retain(|number| *number >= oldest);
            for group in held_now {
                let held = have_of(have, track.id, group.group);
                let wanted = group.group >= first || held.is_some();
                if wanted && begun.insert(group.group) {
                    let written: Arc<AtomicU32> = Arc::default();
                    let name = (track.id, group.group);
                    sent.under_way.insert(name, Arc::clone(&written));
                    let job = group::Job {
                        from: held.map_or((0, 0), |held| (held.frame, held.chunk)),
                        group,
                        class,
                        main: track.id == main.id,
                        written,
                    };
                    self.spawn(job, tasks);
                }
            }
        }
    }

    fn spawn(self: &Arc<Self>, job: group::Job, tasks: &mut JoinSet<Ended>) {
        let route = Arc::clone(self);
        tasks.spawn(async move {
            let ended = Ended::Group(job.group.track, job.group.group);
            group::send(route, job).await;
            ended
        });
    }

    fn open_catalog(self: &Arc<Self>, sent: &mut Sent, tasks: &mut JoinSet<Ended>) {
        for group in self.store.groups(CATALOG) {
            let name = (group.epoch, group.group);
            if sent.catalog.is_none_or(|last| last < name) {
                sent.catalog = Some(name);
                let job = group::Job {
                    group,
                    from: (0, 0),
                    class: Class::Control,
                    main: false,
                    written: Arc::default(),
                };
                self.spawn(job, tasks);
            }
        }
    }

    /// Sends frames that the child missed, unless they are on their way, or were left out
    /// on purpose.
    fn answer(self: &Arc<Self>, sent: &mut Sent, mut fetch: Fetch, tasks: &mut JoinSet<Ended>) {
        let Some((group, class)) = asked_for(&self.store, &fetch) else {
            return;
        };
        if let Some(written) = sent.under_way.get(&(fetch.track, fetch.group)) {
            let written = written.load(Ordering::Relaxed);
            let to_come = written == u32::MAX || fetch.first >= written;
            if to_come {
                return;
            }
            fetch.count = fetch.count.min(written - fetch.first);
        }
        if sent.answers >= ANSWERS_MAX || self.is_too_slow() {
            return;
        }
        sent.answers += 1;
        let route = Arc::clone(self);
        tasks.spawn(async move {
            group::answer(route, group, fetch, class).await;
            Ended::Answer
        });
    }

    /// Where a child without anything starts: at the newest group, if catching up
    /// from its keyframe takes under a second of what may be sent, else with the next.
    fn first_group(&self, start: &mut Option<u64>, main: u8) -> Option<u64> {
        if start.is_some() {
            return *start;
        }
        let newest = self.store.groups(main).into_iter().next_back()?;
        let number = newest.group;
        let enters = newest.is_entry() == Some(true) && self.borrow(self.store.bytes_of(number));
        *start = Some(if enters { number } else { number + 1 });
        *start
    }

    /// Keeps the upload that catching up with `bytes` within a second takes; false if
    /// there is none.
    fn borrow(&self, bytes: usize) -> bool {
        let live_bps = self.store.stats().peak_bps;
        let bits = live_bps.saturating_add(bytes as u64 * 8);
        let loan = self.uplink.borrow(bits);
        let lent = loan.is_some();
        self.state().loan = loan;
        lent
    }
}

fn have_of(have: &Have, track: u8, group: u64) -> Option<&HaveGroup> {
    have.groups
        .iter()
        .find(|held| held.track == track && held.group == group)
}

/// The group that frames are asked of, and how they are to be sent.
fn asked_for(store: &StreamStore, fetch: &Fetch) -> Option<(Arc<Group>, Class)> {
    let group = store.group(fetch.track, fetch.group)?;
    let kind = store.catalog()?.track(fetch.track)?.config.kind();
    Some((group, class_for(kind)))
}

fn class_for(kind: TrackKind) -> Class {
    match kind {
        TrackKind::Audio => Class::Audio,
        TrackKind::Video => Class::Video,
    }
}
