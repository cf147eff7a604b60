//! Names of frames within one upload; the node gives them others.

use std::time::Duration;

/// Without pictures a group is a second long.
const AUDIO_GROUP: Duration = Duration::from_secs(1);

/// Names frames as the muxer wants them: groups begin at keyframes.
pub(super) struct Namer {
    pictures: bool,
    group: Option<u64>,
    began: Duration,
    order: u32,
    indices: Vec<u32>,
}

/// A frame's name.
pub(super) struct Name {
    /// Group, from 0.
    pub(super) group: u64,
    /// Position within the track's part of the group.
    pub(super) index: u32,
    /// Position within the group.
    pub(super) order: u32,
    /// A new connection can begin with this frame.
    pub(super) entry: bool,
}

impl Namer {
    /// For so many tracks, with or without `pictures` among them.
    pub(super) fn new(tracks: usize, pictures: bool) -> Self {
        Self {
            pictures,
            group: None,
            began: Duration::ZERO,
            order: 0,
            indices: vec![0; tracks],
        }
    }

    /// The name of the next frame of `track`.
    pub(super) fn name(&mut self, track: usize, picture_key: bool, at: Duration) -> Name {
        let audio_due = !self.pictures && at.saturating_sub(self.began) >= AUDIO_GROUP;
        let entry = picture_key || audio_due || (!self.pictures && self.group.is_none());
        if entry || self.group.is_none() {
            self.group = Some(self.group.map_or(0, |group| group + 1));
            self.began = at;
            self.order = 0;
            self.indices.fill(0);
        }
        let name = Name {
            group: self.group.unwrap_or(0),
            index: self.indices[track],
            order: self.order,
            entry,
        };
        self.indices[track] += 1;
        self.order += 1;
        name
    }
}
