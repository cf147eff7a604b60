//! A parent in waiting, and the change to it (DESIGN §6, *Failover*).
//!
//! ```text
//!          accepted as standby           parent lost, or quiet and not answering
//!  none ──────────────────────► held ──────────────────────────────────────────► parent
//!   ▲                            │ lost, cancelled, or come under the same parent
//!   └────────────────────────────┘
//! ```
//!
//! The standby holds a promise and a connection, so a change costs one message:
//! `TicketActivate` says what this node has, and the standby sends what is newer.
//! A parent that may still send is heard until the new one sends what is newest.
//!
//! **Who repairs.** A parent that is quiet for longer than usual is asked, by a
//! heartbeat that it answers at once. One that does not answer is left. One that
//! answers and holds nothing newer waits for its own parent: then the break is
//! further up, its neighbours there repair it, and this node keeps still for as
//! long as that may take.

use std::time::Duration;

use super::event::{Action, Change, ConnId, Time};
use super::search::{Parent, STALL, Stream};
use super::{Overlay, Timer};
use crate::ids::{NodeId, StreamId, TicketId};
use crate::limits::PATH_MAX;
use crate::wire::control::{Reason, Referral};
use crate::wire::heartbeat::Supply;

/// A standby is looked for this long after a parent was found, jittered: a crowd
/// that joins at once must not ask twice at once.
const SEEK_AFTER: Duration = Duration::from_millis(300);
/// First wait before a standby is looked for again.
const SEEK_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait before a standby is looked for again.
const SEEK_MAX: Duration = Duration::from_secs(15);
/// A standby that would fail with the parent's parents is looked to be replaced after this.
const IMPROVE_AFTER: Duration = Duration::from_secs(20);
/// A parent is suspected after this share of the usual longest gap, in percent …
const SUSPECT_PERCENT: u32 = 150;
/// … and this much for jitter,
const SUSPECT_JITTER: Duration = Duration::from_millis(50);
/// or after this while it is not known what is usual;
const SUSPECT_NEW: Duration = Duration::from_millis(300);
/// but not before this,
const SUSPECT_MIN: Duration = Duration::from_millis(100);
/// and not later than this.
const SUSPECT_MAX: Duration = Duration::from_secs(2);
/// A parent that is asked answers within two round trips and this: what a busy
/// machine takes to run a thread.
const ANSWER_WITHIN: Duration = Duration::from_millis(50);
/// A parent that answers, and holds nothing newer either, is given this long and
/// up to half as much again: its own parent may be gone, and it is the one to act.
const PATIENCE: Duration = Duration::from_millis(800);
/// One that says so itself is given this long: it has to notice, and its standby to answer.
/// Who moves before hangs its branch elsewhere for nothing.
const REPAIR: Duration = Duration::from_millis(700);
/// And up to this much longer: two siblings do not move at once.
const SPREAD: Duration = Duration::from_millis(300);
/// One that has more and does not send it is left after this, or four usual gaps.
const BEHIND: Duration = Duration::from_millis(600);
/// It is kept for this long if nobody is ready to take its place: a link that has become too
/// narrow is better than none.
const BEHIND_ALONE: Duration = Duration::from_secs(5);
/// Meanwhile others are asked this often.
const ASK_OTHERS: Duration = Duration::from_millis(500);
/// A parent of which nothing has come at all is given this long while the standby has
/// more: whoever has the stream sends its catalog at once,
const CATALOG_BELIED: Duration = Duration::from_millis(1_500);
/// and this long if there is no standby to tell, and nothing has come of anybody.
const CATALOG: Duration = Duration::from_secs(3);
/// A parent that has not begun with pictures is given this long while the standby has more:
/// for most streams time enough until the next keyframe.
const FIRST_BELIED: Duration = Duration::from_secs(5);
/// A former parent is let go after this, should the new one not have caught up.
const FORMER: Duration = Duration::from_secs(3);
/// And it is the parent again after this if it goes on, and nothing at all comes from the
/// new one.
const MISTAKE: Duration = Duration::from_secs(1);

/// The node that would feed this one, should the parent fail.
#[derive(Debug)]
pub(super) struct Standby {
    pub(super) conn: ConnId,
    pub(super) node: NodeId,
    pub(super) ticket: TicketId,
    pub(super) path: Vec<NodeId>,
    pub(super) delay_us: u32,
    pub(super) supply: Supply,
    /// Whether it has no upload to keep its promise with, as it says.
    pub(super) full: bool,
    pub(super) newest: (u64, u32),
    pub(super) since: Time,
    /// Others that hold the stream, as it says.
    pub(super) others: Vec<Referral>,
}

/// The parent before this one, whose frames still count until newer ones come.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) parent: Parent,
    since: Time,
}

/// A pause that is longer than usual.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    /// When the parent was asked last.
    asked: Time,
    /// Whether it has answered since.
    answered: bool,
    /// This node's share of jitter, in 1/1024: two siblings do not move at once.
    jitter: u32,
    /// When others were last asked to take its place.
    others_asked: Option<Time>,
}

/// Whether a parent with this path stands in another branch than `parent`: the
/// source itself is in every branch.
pub(super) fn is_apart(path: &[NodeId], parent: NodeId) -> bool {
    !path.iter().skip(1).any(|node| *node == parent)
}

/// Nodes that are on both ways from the source, which itself does not count.
pub(super) fn shared_ancestors(path: &[NodeId], other: &[NodeId]) -> usize {
    let below = path.iter().skip(1);
    below.filter(|node| other.contains(node)).count()
}

impl Stream {
    /// Whether nobody would feed this node, should the parent fail.
    pub(super) fn lacks_standby(&self) -> bool {
        self.standby.as_ref().is_none_or(|standby| standby.full)
    }

    /// Whether most of the nodes above the standby are above the parent, too.
    pub(super) fn has_poor_standby(&self) -> bool {
        let (Some(parent), Some(standby)) = (&self.parent, &self.standby) else {
            return false;
        };
        let above = standby.path.len().saturating_sub(2);
        2 * shared_ancestors(&standby.path, &parent.path) > above
    }

    /// How long a pause may be before the parent is suspected.
    fn suspicion(&self) -> Duration {
        if self.progress.gap.is_zero() {
            return SUSPECT_NEW;
        }
        let usual = self.progress.gap * SUSPECT_PERCENT / 100 + SUSPECT_JITTER;
        usual.clamp(SUSPECT_MIN, SUSPECT_MAX)
    }
}

impl Quiet {
    fn spread(self, over: Duration) -> Duration {
        over * self.jitter / 1024
    }
}

impl Overlay {
    /// Has a standby looked for soon, if there is none.
    pub(super) fn seek_standby_soon(&mut self, now: Time, id: StreamId) {
        let wait = self.random.jitter(SEEK_AFTER);
        self.seek_standby_after(now, id, wait);
    }

    /// Nobody would be one: the search goes on, but ever more seldom.
    pub(super) fn seek_standby_later(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let base = SEEK_AGAIN.saturating_mul(1 << stream.standby_attempt.min(8));
        stream.standby_attempt += 1;
        let wait = self.random.jitter(base.min(SEEK_MAX));
        self.seek_standby_after(now, id, wait);
    }

    fn seek_standby_after(&mut self, now: Time, id: StreamId, wait: Duration) {
        let lacks = |stream: &&Stream| {
            stream.parent.is_some() && stream.lacks_standby() && stream.search.is_none()
        };
        if self.streams.get(&id).filter(lacks).is_some() {
            self.timers.set(Timer::Search(id), now.after(wait));
        }
    }

    /// Keeps a promise for the case that the parent fails.
    pub(super) fn hold(&mut self, now: Time, id: StreamId, standby: Standby) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let (conn, ticket) = (standby.conn, standby.ticket);
        stream.search = None;
        stream.standby_attempt = 0;
        let orphaned = stream.parent.is_none();
        let old = stream.standby.replace(standby);
        self.timers.clear(Timer::Search(id));
        if let Some(old) = old {
            self.let_go(old.conn, old.ticket, Reason::OtherChosen);
        }
        // Its first chunk may overtake whatever is said later.
        self.act(Action::Expect {
            conn,
            ticket,
            stream: id,
        });
        self.bind(now, conn);
        self.changed(Change::Stream(id));
        if orphaned {
            self.activate(now, id, None);
        } else {
            self.check_standby(now, id);
        }
    }

    /// Lets a standby go that has come under the parent, or under this node itself.
    pub(super) fn check_standby(&mut self, now: Time, id: StreamId) {
        let own = self.id;
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let (Some(parent), Some(standby)) = (&stream.parent, &stream.standby) else {
            return;
        };
        let looped = standby.path.contains(&own) || standby.path.len() >= PATH_MAX;
        if looped || standby.node == parent.node || !is_apart(&standby.path, parent.node) {
            return self.drop_standby(now, id, Reason::Loop);
        }
        if stream.has_poor_standby() && stream.search.is_none() {
            let wait = self.random.jitter(IMPROVE_AFTER);
            self.timers.set(Timer::Search(id), now.after(wait));
        }
    }

    /// Ends the standby's ticket, and has another looked for.
    pub(super) fn drop_standby(&mut self, now: Time, id: StreamId, reason: Reason) {
        let standby = self.streams.get_mut(&id).and_then(|s| s.standby.take());
        if let Some(standby) = standby {
            self.let_go(standby.conn, standby.ticket, reason);
            self.changed(Change::Stream(id));
            self.seek_standby_later(now, id);
        }
    }

    /// The standby has ended its ticket, or its connection has ended; false if the
    /// ticket is no standby's.
    pub(super) fn standby_gone(&mut self, now: Time, conn: ConnId, ticket: TicketId) -> bool {
        let is_it = |standby: &Standby| standby.conn == conn && standby.ticket == ticket;
        let found = self
            .streams
            .iter_mut()
            .find(|(_, stream)| stream.standby.as_ref().is_some_and(is_it));
        let Some((id, stream)) = found.map(|(id, stream)| (*id, stream)) else {
            return false;
        };
        stream.standby = None;
        self.act(Action::Unexpect { conn, ticket });
        self.changed(Change::Stream(id));
        self.seek_standby_later(now, id);
        true
    }

    /// Turns to the standby. `former`, the parent until now, is heard until the standby
    /// has caught up if it may still send; false if there is no standby.
    pub(super) fn activate(&mut self, now: Time, id: StreamId, former: Option<Parent>) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let Some(standby) = stream.standby.take() else {
            return false;
        };
        let (conn, node, ticket) = (standby.conn, standby.node, standby.ticket);
        stream.search = None;
        stream.quiet = None;
        stream.last_refusal = None;
        stream.parent = Some(Parent {
            conn,
            node,
            ticket,
            path: standby.path,
            delay_us: standby.delay_us,
            supply: standby.supply,
            newest: standby.newest,
            since: now,
            begun: stream.progress.newest > (0, 0),
            came: false,
            others: standby.others,
        });
        let older = stream.former.take();
        stream.former = former.map(|parent| Former { parent, since: now });
        self.timers.clear(Timer::Search(id));
        self.timers.set(Timer::Stall(id), now.after(SUSPECT_MIN));
        if let Some(older) = older {
            let (conn, ticket) = (older.parent.conn, older.parent.ticket);
            self.let_go(conn, ticket, Reason::OtherChosen);
        }
        self.act(Action::Activate {
            conn,
            ticket,
            stream: id,
        });
        self.bind(now, conn);
        self.changed(Change::Parent(id, node));
        self.tell_place(id);
        self.beat_children(now, id);
        self.seek_standby_soon(now, id);
        self.improve_soon(now, id);
        true
    }

    /// Hears the parent until now for as long as the new one has not caught up.
    pub(super) fn keep_former(&mut self, now: Time, id: StreamId, parent: Parent) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.former = Some(Former { parent, since: now });
        }
    }

    /// What is newest comes from elsewhere: the parent before this one has done its part.
    pub(super) fn let_former_go(&mut self, id: StreamId) {
        let former = self.streams.get_mut(&id).and_then(|s| s.former.take());
        if let Some(former) = former {
            let (conn, ticket) = (former.parent.conn, former.parent.ticket);
            self.let_go(conn, ticket, Reason::OtherChosen);
        }
    }

    /// The parent before this one has been heard for long enough. If the new one has sent
    /// nothing at all while the old one went on, the change was a mistake.
    fn judge_former(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let goes_on = now.since(stream.progressed) < stream.suspicion();
        let silent = stream.parent.as_ref().is_some_and(|parent| !parent.came);
        let leaves = |former: &Former| {
            let peer = self.peers.get(&former.parent.conn);
            peer.is_none_or(|peer| peer.leaving)
        };
        let back = stream.former.take_if(|f| goes_on && silent && !leaves(f));
        let Some(former) = back else {
            return self.let_former_go(id);
        };
        let node = former.parent.node;
        stream.switches += 1;
        let failed = stream.parent.replace(former.parent);
        if let Some(failed) = failed {
            self.blame(now, id, &failed);
            self.let_go(failed.conn, failed.ticket, Reason::Stalled);
            self.changed(Change::ParentLost(id, failed.node, Reason::Stalled));
        }
        self.changed(Change::Parent(id, node));
        self.tell_place(id);
        self.seek_standby_soon(now, id);
    }

    /// Looks whether the parent still does what it promised, and sets when to look again.
    pub(super) fn check_stall(&mut self, now: Time, id: StreamId) {
        let own = self.id;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let silent = stream.parent.as_ref().is_some_and(|parent| !parent.came);
        let goes_on = now.since(stream.progressed) < stream.suspicion();
        let given = if silent && goes_on { MISTAKE } else { FORMER };
        let old = |former: &Former| now.since(former.since) >= given;
        if stream.former.as_ref().is_some_and(old) {
            self.judge_former(now, id);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(parent) = stream.parent.as_ref() else {
            return;
        };
        if parent.path.contains(&own) {
            let node = parent.node;
            return self.lose_parent(now, id, node, Reason::Loop);
        }
        let base = stream.progressed.max(parent.since);
        let (quiet_for, suspicion) = (now.since(base), stream.suspicion());
        if quiet_for < suspicion {
            stream.quiet = None;
            self.timers.set(Timer::Stall(id), base.after(suspicion));
            return;
        }
        self.suspect(now, id, quiet_for);
    }

    /// The parent is quiet for longer than usual: asks it, or judges its answer.
    fn suspect(&mut self, now: Time, id: StreamId, quiet_for: Duration) {
        let jitter = (self.random.next() % 1024) as u32;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(parent) = stream.parent.as_ref() else {
            return;
        };
        let (conn, node) = (parent.conn, parent.node);
        let peer = self.peers.get(&conn);
        let heard = peer.map_or(Time(0), |peer| peer.heard);
        let answer_within = peer.map_or(Duration::ZERO, |peer| peer.rtt * 2) + ANSWER_WITHIN;
        let knows_source_away = parent.supply == Supply::NoSource;
        let Some(quiet) = stream.quiet.as_mut() else {
            stream.quiet = Some(Quiet {
                asked: now,
                answered: knows_source_away,
                jitter,
                others_asked: None,
            });
            let standby = stream.standby.as_ref().map(|standby| standby.conn);
            for asked in [Some(conn), standby].into_iter().flatten() {
                self.beat_now(now, asked);
            }
            self.timers
                .set(Timer::Stall(id), now.after(answer_within / 2));
            return;
        };
        let answers = heard > quiet.asked || knows_source_away;
        if answers {
            quiet.answered = true;
        } else if now.since(quiet.asked) >= answer_within {
            return self.leave_silent(now, id);
        }
        let quiet = *quiet;
        let asked_again = answers && now.since(quiet.asked) >= SUSPECT_MIN && !knows_source_away;
        if asked_again {
            stream.quiet = Some(Quiet {
                asked: now,
                ..quiet
            });
        }
        if quiet.answered && quiet_for >= self.patience(id, quiet) {
            if quiet_for >= BEHIND_ALONE || !self.is_behind_and_alone(id) {
                return self.lose_parent(now, id, node, Reason::Stalled);
            }
            self.ask_others(now, id);
        }
        // A question may be lost, and so may its answer: it is put twice.
        if asked_again || !answers {
            self.beat_now(now, conn);
        }
        let soon = now.after((answer_within / 2).min(SUSPECT_MIN));
        let due = quiet.asked.after(answer_within);
        let next = if answers { soon } else { soon.min(due) };
        self.timers.set(Timer::Stall(id), next);
    }

    /// Whether the parent has what this node lacks, and nobody is ready to take its place.
    fn is_behind_and_alone(&self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(&id).filter(|s| s.standby.is_none()) else {
            return false;
        };
        let behind = |parent: &Parent| {
            parent.came && parent.supply == Supply::Ok && parent.newest > stream.progress.newest
        };
        stream.parent.as_ref().is_some_and(behind)
    }

    /// Looks for another parent while the one that is quiet is kept.
    fn ask_others(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.seeks_parent() {
            return;
        }
        let due = |quiet: &&mut Quiet| {
            let asked = quiet.others_asked;
            asked.is_none_or(|asked| now.since(asked) >= ASK_OTHERS)
        };
        let Some(quiet) = stream.quiet.as_mut().filter(due) else {
            return;
        };
        quiet.others_asked = Some(now);
        let others = stream.parent.as_ref().map(|parent| parent.others.clone());
        self.replace_parent(now, id, &others.unwrap_or_default());
    }

    /// How long a parent that answers may send nothing.
    fn patience(&self, id: StreamId, quiet: Quiet) -> Duration {
        let Some(stream) = self.streams.get(&id) else {
            return Duration::MAX;
        };
        let Some(parent) = stream.parent.as_ref() else {
            return Duration::MAX;
        };
        let behind = parent.newest > stream.progress.newest;
        let gap_known = !stream.progress.gap.is_zero();
        // A standby stands in another branch: what it has, the source has sent.
        let ready = stream.standby.as_ref();
        let belied = ready.is_some_and(|standby| {
            standby.supply == Supply::Ok && standby.newest > stream.progress.newest
        });
        let nothing = stream.progress.last == Time::default();
        match parent.supply {
            Supply::Ok if !parent.begun && !parent.came && belied => CATALOG_BELIED,
            Supply::Ok if !parent.begun && !parent.came && nothing => CATALOG,
            Supply::Ok if !parent.begun && (belied || !parent.came) => FIRST_BELIED,
            Supply::NoSource if belied => STALL + quiet.spread(SPREAD),
            // It never sent anything, and the publisher itself says otherwise.
            Supply::NoSource if !parent.came && self.is_said_live(id) => 2 * STALL,
            Supply::Ok if !parent.begun => super::search::FIRST,
            Supply::Ok if behind && gap_known => BEHIND.max(stream.progress.gap * 4),
            Supply::Ok if behind => STALL + STALL / 2,
            Supply::Ok if gap_known => PATIENCE.max(stream.progress.gap * 4) + quiet.spread(SPREAD),
            Supply::Ok => super::search::SILENT,
            Supply::Repairing => REPAIR + quiet.spread(SPREAD),
            Supply::NoSource if self.is_said_live(id) => super::search::NO_SOURCE,
            Supply::NoSource => Duration::MAX,
        }
    }

    /// The parent neither sends nor answers: the standby takes over, or another is
    /// looked for, and the parent is heard for as long as it may come back.
    fn leave_silent(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // One that does not answer either may be gone, too, and one that is full refuses:
        // whoever is there first is it.
        let asked = stream.quiet.map(|quiet| quiet.asked);
        let answers = |standby: &&Standby| {
            let peer = self.peers.get(&standby.conn);
            !standby.full && peer.is_some_and(|peer| Some(peer.heard) > asked)
        };
        if stream.standby.as_ref().filter(answers).is_none() {
            if !stream.seeks_parent() {
                self.replace_parent(now, id, &[]);
            }
            self.timers.set(Timer::Stall(id), now.after(SUSPECT_MIN));
            return;
        }
        let former = stream.parent.take();
        stream.switches += 1;
        if let Some(parent) = &former {
            stream.look_up_to(&parent.others);
            self.blame(now, id, parent);
            self.changed(Change::ParentLost(id, parent.node, Reason::Stalled));
        }
        self.activate(now, id, former);
    }
}
