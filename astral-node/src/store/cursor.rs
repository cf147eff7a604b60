//! A reader of one group, chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Group;
use super::group::Found;

/// What a [`GroupCursor`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A frame's header; its chunks follow, from the first that was asked for.
    Header {
        /// Position in the group.
        index: u32,
        /// Kind, length, body and signature as on the wire.
        wire: Bytes,
        /// A decoder can start here.
        keyframe: bool,
        /// No other frame refers to it.
        discardable: bool,
        /// Length of the payload in bytes.
        len: u32,
    },
    /// The next chunk of the frame.
    Chunk {
        /// The chunk.
        bytes: Bytes,
        /// Whether it is the frame's last.
        last: bool,
    },
    /// The group is over; nothing comes after it.
    End {
        /// Kind, length, body and signature as on the wire.
        wire: Bytes,
    },
    /// The rest cannot be had: forgotten, or the stream moved on without it. If the
    /// group is not [`Group::is_gone`], a new cursor from where this one stopped
    /// may find later frames.
    Gone,
}

/// A reader of one group.
pub(crate) struct GroupCursor {
    group: Arc<Group>,
    changed: watch::Receiver<()>,
    frame: u32,
    chunk: u32,
    header_sent: bool,
}

impl GroupCursor {
    pub(super) fn new(
        group: Arc<Group>,
        changed: watch::Receiver<()>,
        frame: u32,
        chunk: u32,
    ) -> Self {
        Self {
            group,
            changed,
            frame,
            chunk,
            header_sent: false,
        }
    }

    /// The group it reads.
    #[cfg(test)]
    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Frame and chunk that come next.
    #[cfg(test)]
    pub(crate) fn position(&self) -> (u32, u32) {
        (self.frame, self.chunk)
    }

    /// The next piece, as soon as it is there. Cancel safe.
    pub(crate) async fn next(&mut self) -> Piece {
        loop {
            self.changed.borrow_and_update();
            match self.look() {
                Ok(piece) => return piece,
                Err(None) => self.wait().await,
                Err(Some(until)) => {
                    // Either way the place is looked at again.
                    let _ = tokio::time::timeout_at(until, self.wait()).await;
                }
            }
        }
    }

    /// The next chunk of the current frame, if it is there and not longer than `most`.
    pub(crate) fn ready_chunk(&mut self, most: usize) -> Option<Bytes> {
        if !self.header_sent {
            return None;
        }
        let found = self
            .group
            .look(self.frame, self.chunk, true, Instant::now());
        let Found::Chunk { bytes, last } = found else {
            return None;
        };
        if bytes.len() > most {
            return None;
        }
        self.chunk += 1;
        if last {
            self.go_to(self.frame + 1);
        }
        Some(bytes)
    }

    /// Leaves the rest of the current frame out.
    pub(crate) fn skip_frame(&mut self) {
        if self.header_sent {
            self.go_to(self.frame + 1);
        }
    }

    /// A piece that is there now, or until when to wait for one.
    fn look(&mut self) -> Result<Piece, Option<Instant>> {
        loop {
            let now = Instant::now();
            match self
                .group
                .look(self.frame, self.chunk, self.header_sent, now)
            {
                Found::Header {
                    wire,
                    keyframe,
                    discardable,
                    len,
                } => {
                    let index = self.frame;
                    self.header_sent = true;
                    if self.chunk as usize >= astral_proto::wire::media::chunk_count(len as usize) {
                        self.go_to(index + 1);
                    }
                    return Ok(Piece::Header {
                        index,
                        wire,
                        keyframe,
                        discardable,
                        len,
                    });
                }
                Found::Chunk { bytes, last } => {
                    self.chunk += 1;
                    if last {
                        self.go_to(self.frame + 1);
                    }
                    return Ok(Piece::Chunk { bytes, last });
                }
                Found::End(wire) => return Ok(Piece::End { wire }),
                Found::Gone => return Ok(Piece::Gone),
                Found::Skip(next) => self.go_to(next),
                Found::Wait(until) => return Err(until),
            }
        }
    }

    fn go_to(&mut self, frame: u32) {
        self.frame = frame;
        self.chunk = 0;
        self.header_sent = false;
    }

    async fn wait(&mut self) {
        // The group holds the sender and is held here, so that it cannot be closed.
        let _ = self.changed.changed().await;
    }
}
