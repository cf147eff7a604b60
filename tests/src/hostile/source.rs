//! An honest publisher without a node: signs a synthetic stream onto a shelf.

use astral_proto::ids::{NodeId, SecretKey, StreamId};
use astral_proto::record::{SignedStream, StreamRecord, StreamState};
use astral_proto::wire::media::{FrameHeader, GroupEnd, Signed};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::link::unix_ns;
use super::shelf::{Entry, Shelf};
use crate::synthetic::{self, Shape};

/// A stream that is published.
pub struct Source {
    key: SecretKey,
    publisher: NodeId,
    name: String,
    shape: Shape,
    shelf: Shelf,
}

impl Source {
    /// A stream of this name by `publisher`, onto `shelf`; its key's seed is `seed`, repeated.
    pub fn new(seed: u8, name: &str, publisher: NodeId, shape: Shape, shelf: Shelf) -> Self {
        let source = Self {
            key: SecretKey::from_seed([seed; 32]),
            publisher,
            name: name.to_owned(),
            shape,
            shelf,
        };
        source.sign_record(1);
        source
    }

    /// Its id.
    pub fn id(&self) -> StreamId {
        StreamId::of(&self.key.public())
    }

    fn sign_record(&self, epoch: u32) {
        let record = StreamRecord {
            key: self.key.public(),
            seq: unix_ns() / 1_000_000,
            name: self.name.clone(),
            description: None,
            publisher: self.publisher,
            unlisted: None,
            epoch,
            started_at_ms: unix_ns() / 1_000_000,
            state: StreamState::Live,
            bitrate_bps: Some(4_000_000),
            tracks: vec![],
            viewers: None,
        };
        self.shelf.record(SignedStream::sign(record, &self.key));
    }

    /// Publishes in real time, with a new epoch every `epoch_groups` groups.
    pub async fn run(self, epoch_groups: u64) {
        let start = Instant::now();
        for number in 0.. {
            sleep_until(start + self.shape.due(number)).await;
            let group = number / self.shape.group_frames;
            let epoch = 1 + (group / epoch_groups) as u32;
            let index = (number % self.shape.group_frames) as u32;
            if index == 0 {
                self.open(epoch, group, group.is_multiple_of(epoch_groups));
            }
            self.push(epoch, group, index, number);
            if u64::from(index) + 1 == self.shape.group_frames {
                self.end(1, epoch, group, index + 1);
            }
        }
    }

    fn open(&self, epoch: u32, group: u64, new_epoch: bool) {
        if new_epoch {
            self.sign_record(epoch);
            let catalog = synthetic::catalog(1, epoch, group).encode();
            let payload = catalog.expect("a catalog");
            self.shelf.open((self.id(), 0, epoch, 1), 1);
            self.sign(
                FrameHeader {
                    keyframe: true,
                    ..self.header(0, epoch, 1, 0)
                },
                payload,
            );
            self.end(0, epoch, 1, 1);
        }
        self.shelf.open((self.id(), 1, epoch, group), 1);
    }

    fn push(&self, epoch: u32, group: u64, index: u32, number: u64) {
        let payload = synthetic::access_unit(self.shape, number);
        let header = FrameHeader {
            order: index,
            dts: (number * u64::from(self.shape.ticks())) as i64,
            duration: self.shape.ticks(),
            keyframe: index == 0,
            ..self.header(1, epoch, group, index)
        };
        self.sign(header, payload);
    }

    fn header(&self, track: u8, epoch: u32, group: u64, index: u32) -> FrameHeader {
        FrameHeader {
            track,
            epoch,
            group,
            index,
            order: 0,
            dts: 0,
            cts: 0,
            duration: 0,
            keyframe: false,
            discardable: false,
            no_keyframe: false,
            len: 0,
            chunks: vec![],
        }
    }

    fn sign(&self, header: FrameHeader, payload: Bytes) {
        let (len, chunks) = FrameHeader::digest(&payload);
        let header = FrameHeader {
            len,
            chunks,
            ..header
        };
        let signed = Signed::<FrameHeader>::sign(self.id(), &self.key, header);
        let header = signed.value;
        let name = (self.id(), header.track, header.epoch, header.group);
        let entry = Entry {
            header,
            wire: signed.wire,
            payload,
        };
        self.shelf.push(name, entry);
    }

    fn end(&self, track: u8, epoch: u32, group: u64, frames: u32) {
        let end = GroupEnd {
            track,
            epoch,
            group,
            frames,
        };
        let signed = Signed::<GroupEnd>::sign(self.id(), &self.key, end);
        self.shelf
            .end((self.id(), track, epoch, group), Some(signed.wire));
    }
}
