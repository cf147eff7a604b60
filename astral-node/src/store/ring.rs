//! What a stream's store admits, keeps and forgets.

use std::collections::BTreeMap;
use std::sync::Arc;

use astral_media::catalog::{Catalog, MAX_CATALOG};
use astral_media::hls::Segment;
use astral_proto::limits::{GROUP_BYTES_MAX, HAVE_GROUPS_MAX};
use astral_proto::record::StreamState;
use astral_proto::wire::control::{Have, HaveGroup};
use astral_proto::wire::media::{FrameHeader, GroupEnd, Signed};
use bytes::Bytes;
use tokio::time::Instant;

use super::group::{Appended, GROUP_OVERHEAD, frame_cost};
use super::rate::{Gaps, Rate};
use super::{
    Admit, BYTES_MAX, GROUP_NUMBER_MAX, GROUPS_KEPT, GROUPS_MAX, Group, LATE_EPOCH, MEDIA_KEPT_MS,
    Newest, PENDING_BYTES_MAX, PENDING_GROUPS_MAX, Stats, StoreError,
};

/// Catalogs under way at a time.
const CATALOGS_OPEN_MAX: usize = 4;
/// Bytes of one group over all tracks, bookkeeping of 8,000 frames included.
const NUMBER_BYTES_MAX: usize = GROUP_BYTES_MAX + 8 * 1024 * 1024;

/// Counts that tell whom to wake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) opened: u64,
    pub(super) progress: u64,
}

/// All tracks' parts of one group.
pub(super) struct Number {
    pub(super) epoch: u32,
    pub(super) tracks: BTreeMap<u8, Arc<Group>>,
    /// The frames of all tracks in the order in which a muxer writes them.
    pub(super) orders: BTreeMap<u32, (u8, u32)>,
    /// Earliest decoding time seen.
    pub(super) start_ms: Option<i64>,
    pub(super) first_complete_at: Option<Instant>,
    /// Bytes held, and bytes that the headers here announce in all.
    held: usize,
    claimed: usize,
}

impl Number {
    fn new(epoch: u32) -> Self {
        Self {
            epoch,
            tracks: BTreeMap::new(),
            orders: BTreeMap::new(),
            start_ms: None,
            first_complete_at: None,
            held: 0,
            claimed: 0,
        }
    }
}

#[derive(Default)]
struct Pending {
    epoch: u32,
    numbers: BTreeMap<u64, Number>,
}

impl Pending {
    fn held(&self) -> usize {
        self.numbers.values().map(|number| number.held).sum()
    }
}

/// The state behind a store's lock.
pub(super) struct Ring {
    pub(super) changes: Changes,
    pub(super) state: StreamState,
    /// Catalogs of the epochs that have groups here, and of the current one.
    pub(super) catalogs: BTreeMap<u32, Arc<Catalog>>,
    pub(super) numbers: BTreeMap<u64, Number>,
    /// Lowest group number that is taken in; below it all is forgotten.
    pub(super) floor: u64,
    pub(super) newest_end_ms: i64,
    epoch_min: u32,
    switched_at: Instant,
    catalog_group: Option<Arc<Group>>,
    catalogs_open: BTreeMap<(u32, u64), Arc<Group>>,
    pending: Pending,
    held: usize,
    /// The group that this store began with, which it may have entered in the middle.
    pub(super) first_number: Option<u64>,
    frames: u64,
    bytes: u64,
    lost: u64,
    lost_groups: u64,
    rate: Rate,
    gaps: Gaps,
    /// Segments that were listed as gaps, by track and group number: they stay so.
    pub(super) given_up: BTreeMap<(u8, u64), Segment>,
}

impl Ring {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            changes: Changes::default(),
            state: StreamState::Waiting,
            catalogs: BTreeMap::new(),
            numbers: BTreeMap::new(),
            floor: 0,
            newest_end_ms: i64::MIN,
            epoch_min: 0,
            switched_at: now,
            catalog_group: None,
            catalogs_open: BTreeMap::new(),
            pending: Pending::default(),
            held: 0,
            first_number: None,
            frames: 0,
            bytes: 0,
            lost: 0,
            lost_groups: 0,
            rate: Rate::new(now),
            gaps: Gaps::default(),
            given_up: BTreeMap::new(),
        }
    }

    pub(super) fn begin_frame(
        &mut self,
        header: Signed<FrameHeader>,
        now: Instant,
    ) -> Result<Admit, StoreError> {
        let value = &header.value;
        if value.group > GROUP_NUMBER_MAX {
            return Err(StoreError::Limit {
                what: "group number",
            });
        }
        if value.track == 0 {
            return self.begin_catalog(header, now);
        }
        let (track, epoch, number) = (value.track, value.epoch, value.group);
        let Some(group) = self.place(track, epoch, number, now)? else {
            return Ok(Admit::Old);
        };
        let (index, order) = (value.index, value.order);
        let (cost, claim) = (frame_cost(&header), value.len as usize);
        let is_pending = self.is_pending(epoch);
        let start_ms = self.ms(epoch, track, value.dts);
        let wire_len = header.wire.len();

        let numbers = match is_pending {
            true => &mut self.pending.numbers,
            false => &mut self.numbers,
        };
        let entry = numbers.get_mut(&number).expect("the group has its place");
        if entry
            .orders
            .get(&order)
            .is_some_and(|at| *at != (track, index))
        {
            return Err(StoreError::Conflict {
                track,
                group: number,
                index,
            });
        }
        let is_new = !entry.orders.contains_key(&order);
        if is_new && entry.claimed + cost + claim > NUMBER_BYTES_MAX {
            return Err(StoreError::Limit {
                what: "bytes of one group",
            });
        }
        let admit = group.begin(header, now)?;
        if !is_new || admit == Admit::Old {
            return Ok(admit);
        }
        entry.orders.insert(order, (track, index));
        entry.claimed += cost + claim;
        entry.held += cost;
        if entry.start_ms.is_none() || start_ms < entry.start_ms {
            entry.start_ms = start_ms;
        }
        if admit == Admit::Have {
            entry.first_complete_at.get_or_insert(now);
        }
        self.changes.progress += 1;
        self.bytes += wire_len as u64;
        self.rate.arrived(now, wire_len);
        if let Some(start_ms) = start_ms {
            self.rate.media(start_ms, wire_len + claim);
        }
        if is_pending {
            return Ok(admit);
        }
        self.held += cost;
        if admit == Admit::Have {
            self.completed(&group, index);
        }
        self.evict();
        Ok(if group.is_gone() { Admit::Old } else { admit })
    }

    /// The group where a frame or an end belongs, made if need be; none if it is forgotten.
    fn place(
        &mut self,
        track: u8,
        epoch: u32,
        number: u64,
        now: Instant,
    ) -> Result<Option<Arc<Group>>, StoreError> {
        let current = self.epoch();
        if epoch < self.epoch_min.max(current.unwrap_or(0)) {
            return self.place_late(track, epoch, number, now).map(Some);
        }
        if self.is_pending(epoch) {
            return self.place_pending(track, epoch, number).map(Some);
        }
        if number < self.floor {
            return Ok(None);
        }
        let catalog = &self.catalogs[&epoch];
        if catalog.track(track).is_none() {
            return Err(StoreError::UnknownTrack(track));
        }
        let version = catalog.version;
        let entry = match self.numbers.get_mut(&number) {
            Some(entry) if entry.epoch != epoch => {
                return Err(StoreError::Conflict {
                    track,
                    group: number,
                    index: 0,
                });
            }
            Some(entry) => entry,
            None => {
                self.first_number.get_or_insert(number);
                self.numbers.entry(number).or_insert(Number::new(epoch))
            }
        };
        if let Some(group) = entry.tracks.get(&track) {
            return Ok(Some(Arc::clone(group)));
        }
        let group = Group::new(track, epoch, number);
        group.set_catalog(version);
        entry.tracks.insert(track, Arc::clone(&group));
        entry.held += GROUP_OVERHEAD;
        self.held += GROUP_OVERHEAD;
        self.opened(&group, now);
        self.evict();
        Ok((!group.is_gone()).then_some(group))
    }

    /// A group of the epoch just before: only while it is open, and not for long.
    fn place_late(
        &self,
        track: u8,
        epoch: u32,
        number: u64,
        now: Instant,
    ) -> Result<Arc<Group>, StoreError> {
        let current = self.epoch().unwrap_or(0).max(self.epoch_min);
        let late = now.saturating_duration_since(self.switched_at) < LATE_EPOCH;
        let before = self.catalogs.range(..current).next_back();
        let open = self.numbers.get(&number).filter(|entry| {
            late && entry.epoch == epoch && before.is_some_and(|(before, _)| *before == epoch)
        });
        open.and_then(|entry| entry.tracks.get(&track))
            .cloned()
            .ok_or(StoreError::OldEpoch { epoch, current })
    }

    fn place_pending(
        &mut self,
        track: u8,
        epoch: u32,
        number: u64,
    ) -> Result<Arc<Group>, StoreError> {
        if epoch > self.pending.epoch {
            self.pending = Pending {
                epoch,
                numbers: BTreeMap::new(),
            };
        }
        let numbers = self.pending.numbers.len();
        let has = self.pending.numbers.contains_key(&number);
        if epoch < self.pending.epoch
            || self.pending.held() >= PENDING_BYTES_MAX
            || (!has && numbers >= PENDING_GROUPS_MAX)
        {
            return Err(StoreError::CatalogMissing { epoch });
        }
        let entry = self.pending.numbers.entry(number);
        let entry = entry.or_insert_with(|| Number::new(epoch));
        let group = entry.tracks.entry(track).or_insert_with(|| {
            entry.held += GROUP_OVERHEAD;
            Group::new(track, epoch, number)
        });
        Ok(Arc::clone(group))
    }

    /// Whether the epoch is newer than any whose catalog is here.
    fn is_pending(&self, epoch: u32) -> bool {
        self.epoch().is_none_or(|current| epoch > current)
    }

    fn opened(&mut self, group: &Arc<Group>, now: Instant) {
        self.changes.opened += 1;
        self.changes.progress += 1;
        for entry in self.numbers.range(..group.group).map(|(_, entry)| entry) {
            if let Some(older) = entry.tracks.get(&group.track) {
                older.supersede(now);
            }
        }
        let mut later = self.numbers.range(group.group + 1..);
        if later.any(|(_, entry)| entry.tracks.contains_key(&group.track)) {
            group.supersede(now);
        }
    }

    /// Groups that a chunk could be for: for the catalog there may be one per epoch.
    pub(super) fn candidates(&self, track: u8, number: u64) -> Vec<Arc<Group>> {
        if track == 0 {
            let open = self.catalogs_open.iter().rev();
            let named = open.filter(|((_, version), _)| *version == number);
            return named.map(|(_, group)| Arc::clone(group)).collect();
        }
        [&self.numbers, &self.pending.numbers]
            .into_iter()
            .filter_map(|numbers| numbers.get(&number)?.tracks.get(&track))
            .cloned()
            .collect()
    }

    pub(super) fn find(&self, epoch: u32, track: u8, number: u64) -> Option<Arc<Group>> {
        let mut found = self.candidates(track, number).into_iter();
        found.find(|group| group.epoch == epoch)
    }

    /// Refuses a chunk that there is no room for.
    pub(super) fn make_room(&self, group: &Group, bytes: usize) -> Result<(), StoreError> {
        let pending = group.track != 0 && self.is_pending(group.epoch);
        if pending && self.pending.held() + bytes > PENDING_BYTES_MAX {
            return Err(StoreError::CatalogMissing { epoch: group.epoch });
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        group: &Arc<Group>,
        index: u32,
        chunk: u32,
        bytes: Bytes,
        now: Instant,
    ) -> Result<(), StoreError> {
        let len = bytes.len();
        let appended = group.append(index, chunk, bytes, now);
        if appended == Appended::Nothing {
            return Ok(());
        }
        self.gaps.note(now);
        self.bytes += len as u64;
        self.rate.arrived(now, len);
        if group.track == 0 {
            return match appended {
                Appended::Frame => self.install_catalog(group, now),
                Appended::Chunk | Appended::Nothing => Ok(()),
            };
        }
        let pending = self.is_pending(group.epoch);
        let numbers = match pending {
            true => &mut self.pending.numbers,
            false => &mut self.numbers,
        };
        let entry = numbers.get_mut(&group.group);
        let Some(entry) = entry.filter(|entry| entry.epoch == group.epoch) else {
            return Ok(());
        };
        entry.held += len;
        if appended == Appended::Frame {
            entry.first_complete_at.get_or_insert(now);
            self.changes.progress += 1;
        }
        if !pending {
            self.held += len;
            if appended == Appended::Frame {
                self.completed(group, index);
            }
            self.evict();
        }
        Ok(())
    }

    fn completed(&mut self, group: &Group, index: u32) {
        self.frames += 1;
        if let Some((dts, duration, _)) = group.times(index) {
            let end = dts.saturating_add(i64::from(duration));
            let end_ms = self.ms(group.epoch, group.track, end);
            self.newest_end_ms = self.newest_end_ms.max(end_ms.unwrap_or(i64::MIN));
        }
    }

    pub(super) fn end_group(
        &mut self,
        end: Signed<GroupEnd>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let GroupEnd {
            track,
            epoch,
            group: number,
            ..
        } = end.value;
        if number > GROUP_NUMBER_MAX {
            return Err(StoreError::Limit {
                what: "group number",
            });
        }
        let group = if track == 0 {
            let newest = self.catalog_group.clone();
            let newest = newest.filter(|group| (group.epoch, group.group) == (epoch, number));
            newest.or_else(|| self.catalogs_open.get(&(epoch, number)).cloned())
        } else {
            self.place(track, epoch, number, now)?
        };
        if let Some(group) = group
            && group.end(end, now)?
        {
            self.changes.progress += 1;
        }
        Ok(())
    }

    fn begin_catalog(
        &mut self,
        header: Signed<FrameHeader>,
        now: Instant,
    ) -> Result<Admit, StoreError> {
        let (epoch, version) = (header.value.epoch, header.value.group);
        if let Some(newest) = &self.catalog_group {
            match (epoch, version).cmp(&(newest.epoch, newest.group)) {
                std::cmp::Ordering::Less if epoch == newest.epoch => return Ok(Admit::Old),
                std::cmp::Ordering::Less => {
                    let current = newest.epoch;
                    return Err(StoreError::OldEpoch { epoch, current });
                }
                std::cmp::Ordering::Equal => return newest.begin(header, now),
                std::cmp::Ordering::Greater => {}
            }
        }
        if epoch < self.epoch_min {
            let current = self.epoch_min;
            return Err(StoreError::OldEpoch { epoch, current });
        }
        let len = header.value.len as usize;
        if len == 0 || header.value.index != 0 {
            return Err(StoreError::BadCatalog("a catalog is one frame".to_owned()));
        }
        if len > MAX_CATALOG {
            return Err(StoreError::Limit { what: "catalog" });
        }
        let open = &mut self.catalogs_open;
        let group = open
            .entry((epoch, version))
            .or_insert_with(|| Group::new(0, epoch, version));
        let group = Arc::clone(group);
        if open.len() > CATALOGS_OPEN_MAX {
            open.pop_first();
        }
        group.begin(header, now)
    }

    fn install_catalog(&mut self, group: &Arc<Group>, now: Instant) -> Result<(), StoreError> {
        self.catalogs_open.remove(&(group.epoch, group.group));
        let (_, payload) = group.whole(0).expect("its last chunk has just come");
        let catalog =
            Catalog::decode(&payload).map_err(|e| StoreError::BadCatalog(e.to_string()))?;
        if (catalog.epoch, u64::from(catalog.version)) != (group.epoch, group.group) {
            let what = "it has another epoch or version than its name";
            return Err(StoreError::BadCatalog(what.to_owned()));
        }
        let newest = self.catalog_group.as_ref();
        if newest.is_some_and(|newest| (newest.epoch, newest.group) >= (group.epoch, group.group)) {
            return Ok(());
        }
        let epoch_before = self.epoch();
        self.catalogs.insert(group.epoch, Arc::new(catalog));
        group.set_catalog(group.group as u32);
        if let Some(before) = self.catalog_group.replace(Arc::clone(group)) {
            before.evict();
        }
        self.changes.opened += 1;
        self.changes.progress += 1;
        if epoch_before != Some(group.epoch) {
            self.switched_at = now;
            self.promote(group.epoch, now);
        }
        Ok(())
    }

    /// What waited for this epoch's catalog becomes visible.
    fn promote(&mut self, epoch: u32, now: Instant) {
        if self.pending.epoch > epoch {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.epoch != epoch {
            return;
        }
        let catalog = Arc::clone(&self.catalogs[&epoch]);
        for (number, mut entry) in pending.numbers {
            entry
                .tracks
                .retain(|track, _| catalog.track(*track).is_some());
            let tracks = &entry.tracks;
            entry
                .orders
                .retain(|_, (track, _)| tracks.contains_key(track));
            if number < self.floor || tracks.is_empty() || self.numbers.contains_key(&number) {
                continue;
            }
            self.promote_number(number, entry, catalog.version, now);
        }
        self.evict();
    }

    fn promote_number(&mut self, number: u64, mut entry: Number, version: u32, now: Instant) {
        let mut start_ms = None;
        for (track, index) in entry.orders.values() {
            let Some((dts, _, complete)) = entry.tracks[track].times(*index) else {
                continue;
            };
            let at = self.ms(entry.epoch, *track, dts);
            start_ms = start_ms.into_iter().chain(at).min();
            if complete {
                self.completed(&entry.tracks[track], *index);
            }
        }
        entry.start_ms = start_ms;
        self.held += entry.held;
        self.first_number.get_or_insert(number);
        let groups: Vec<_> = entry.tracks.values().cloned().collect();
        self.numbers.insert(number, entry);
        for group in groups {
            group.set_catalog(version);
            self.opened(&group, now);
        }
    }

    fn evict(&mut self) {
        while self.numbers.len() > 1 {
            let second = self.numbers.values().nth(1).and_then(|next| next.start_ms);
            let kept_from = self.newest_end_ms.saturating_sub(MEDIA_KEPT_MS);
            let is_old = self.numbers.len() > GROUPS_KEPT
                && second.is_some_and(|start_ms| start_ms <= kept_from);
            if !is_old && self.held <= BYTES_MAX && self.numbers.len() <= GROUPS_MAX {
                return;
            }
            let Some((number, entry)) = self.numbers.pop_first() else {
                return;
            };
            self.forget(number, &entry);
        }
    }

    fn forget(&mut self, number: u64, entry: &Number) {
        self.floor = number + 1;
        self.held -= entry.held;
        let from_start = self.first_number != Some(number);
        for group in entry.tracks.values() {
            self.lost += group.holes(from_start);
            group.evict();
        }
        if let Some((&next, follower)) = self.numbers.first_key_value()
            && follower.epoch == entry.epoch
        {
            self.lost_groups += next - number - 1;
        }
        let current = self.epoch();
        let numbers = &self.numbers;
        self.catalogs.retain(|epoch, _| {
            current == Some(*epoch) || numbers.values().any(|entry| entry.epoch == *epoch)
        });
        self.changes.opened += 1;
        self.changes.progress += 1;
    }

    pub(super) fn require_epoch(&mut self, epoch: u32, now: Instant) {
        if self
            .epoch()
            .is_some_and(|current| epoch > current.max(self.epoch_min))
        {
            self.switched_at = now;
        }
        self.epoch_min = self.epoch_min.max(epoch);
    }

    pub(super) fn set_state(&mut self, state: StreamState) {
        if self.state != state {
            self.state = state;
            self.changes.opened += 1;
            self.changes.progress += 1;
        }
    }

    fn epoch(&self) -> Option<u32> {
        self.catalogs.last_key_value().map(|(epoch, _)| *epoch)
    }

    pub(super) fn catalog(&self) -> Option<Arc<Catalog>> {
        self.catalogs
            .last_key_value()
            .map(|(_, catalog)| Arc::clone(catalog))
    }

    /// A time in ticks of a track as milliseconds on the timeline.
    pub(super) fn ms(&self, epoch: u32, track: u8, ticks: i64) -> Option<i64> {
        let timescale = self.catalogs.get(&epoch)?.track(track)?.timescale;
        let ms = i128::from(ticks) * 1000 / i128::from(timescale.max(1));
        Some(ms.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }

    /// The track whose keyframes cut the groups: the first video track, else the first.
    pub(super) fn main_track(&self, epoch: u32) -> Option<u8> {
        let main = self.catalogs.get(&epoch)?.main();
        main.map(|track| track.id)
    }

    pub(super) fn newest(&self) -> Newest {
        let Some((&number, entry)) = self.numbers.last_key_value() else {
            return Newest {
                epoch: self.epoch().unwrap_or(0),
                ..Newest::default()
            };
        };
        let main = self.main_track(entry.epoch);
        let main = main.and_then(|track| entry.tracks.get(&track));
        Newest {
            epoch: self.epoch().unwrap_or(0),
            group: number,
            frames: main.map_or(0, |group| group.reach()),
            end_ms: match self.newest_end_ms {
                i64::MIN => 0,
                end_ms => end_ms,
            },
        }
    }

    pub(super) fn stats(&mut self, now: Instant) -> Stats {
        let (bitrate_bps, peak_bps) = self.rate.bps(now);
        let mut lost = self.lost;
        let mut lost_groups = self.lost_groups;
        let mut before: Option<(u64, u32)> = None;
        for (&number, entry) in &self.numbers {
            let from_start = self.first_number != Some(number);
            let groups = entry.tracks.values();
            lost += groups.map(|group| group.lost(from_start, now)).sum::<u64>();
            if let Some((last, epoch)) = before
                && epoch == entry.epoch
            {
                lost_groups += number - last - 1;
            }
            before = Some((number, entry.epoch));
        }
        Stats {
            frames: self.frames,
            bytes: self.bytes,
            lost,
            lost_groups,
            bitrate_bps,
            peak_bps,
            last_chunk_at: self.gaps.last(),
            usual_gap: self.gaps.usual(),
            held: self.held + self.pending.held(),
            forwarded: 0,
            refused: 0,
        }
    }

    pub(super) fn open_groups(&self) -> Have {
        let Some(&newest) = self.numbers.keys().next_back() else {
            return Have::default();
        };
        let mut groups = Vec::new();
        for (&number, entry) in self.numbers.iter().rev().take(HAVE_GROUPS_MAX).rev() {
            let Some(catalog) = self.catalogs.get(&entry.epoch) else {
                continue;
            };
            let tracks = catalog.tracks.iter().map(|track| track.id);
            for track in tracks {
                let missing = match entry.tracks.get(&track) {
                    Some(group) => group.missing(),
                    None => Some((0, 0)),
                };
                groups.extend(missing.map(|(frame, chunk)| HaveGroup {
                    track,
                    group: number,
                    frame,
                    chunk,
                }));
            }
        }
        Have {
            groups,
            from_group: Some(newest + 1),
        }
    }

    pub(super) fn groups(&self, track: u8) -> Vec<Arc<Group>> {
        if track == 0 {
            return self.catalog_group.iter().cloned().collect();
        }
        let groups = self.numbers.values();
        groups
            .filter_map(|entry| entry.tracks.get(&track).cloned())
            .collect()
    }

    pub(super) fn group(&self, track: u8, number: u64) -> Option<Arc<Group>> {
        if track == 0 {
            let newest = self.catalog_group.clone();
            return newest.filter(|group| group.group == number);
        }
        self.numbers.get(&number)?.tracks.get(&track).cloned()
    }
}
