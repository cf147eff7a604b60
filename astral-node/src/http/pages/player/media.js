// What is known of the media that were received: which times of each track, where keyframes and holes are.

import { readInit, readPiece } from './boxes.js';
import { note, noteError } from './log.js';

/** Keyframes remembered: more than a trimmed buffer holds. */
const KEYS_MAX = 2_000;
/** A piece this far behind what was received belongs to a timeline that began anew. Seconds. */
const REWIND_S = 30;
/** The same when the node says that its newest frame is this far behind; a change of source costs less. Seconds. */
const REWIND_EDGE_S = 4;
/** Space between two pieces of a track that is a hole, and not rounding. Seconds. */
const HOLE_S = 0.05;

export class Media {
  constructor() {
    this.tracks = new Map();
    this.initBytes = null;
    this.initMime = null;
    this.received = new Map();
    this.newest = null;
    this.keys = [];
    this.videoHoles = [];
    this.firstPieceAt = null;
  }

  hasVideo() {
    return [...this.tracks.values()].some((track) => track.video);
  }

  /**
   * Takes an init segment: `'same'` as before, `'other tracks'` that no SourceBuffer can take in, or `'new'`.
   *
   * An init segment makes MSE wait for a keyframe, so the one it has already is not appended again: the pieces of a
   * new connection then continue those of the last one without a seam.
   */
  init(mime, bytes) {
    if (mime === this.initMime && sameBytes(bytes, this.initBytes)) return 'same';
    const kinds = (tracks) => [...tracks.values()].map((track) => track.video).sort().join();
    const tracks = readInit(bytes);
    if (this.tracks.size > 0 && kinds(tracks) !== kinds(this.tracks)) return 'other tracks';
    this.tracks = tracks;
    this.received.clear();
    this.initMime = mime;
    this.initBytes = bytes;
    return 'new';
  }

  /** Takes a piece: `'held'` already, from a timeline that has `'rewound'`, or `'new'`. */
  piece(bytes, edgeMs) {
    const parts = this.read(bytes);
    if (parts.length > 0 && parts.every((part) => this.held(part))) {
      return parts.some((part) => this.rewound(part, edgeMs)) ? 'rewound' : 'held';
    }
    for (const part of parts) this.take(part);
    this.firstPieceAt ??= performance.now();
    return 'new';
  }

  read(bytes) {
    try {
      return readPiece(bytes, this.tracks);
    } catch (error) {
      noteError(`piece: ${error.message}`);
      return [];
    }
  }

  /** Received before: a node that goes on from `from_ms` starts at the beginning of that group. */
  held(part) {
    return part.end <= (this.received.get(part.id) ?? -Infinity) + 0.002;
  }

  /** The node's newest frame is older than what was received, so this is not a repetition. */
  rewound(part, edgeMs) {
    const received = this.received.get(part.id);
    return part.end < received - REWIND_S || (edgeMs !== null && edgeMs / 1000 < received - REWIND_EDGE_S);
  }

  take(part) {
    const before = this.received.get(part.id);
    if (before !== undefined && part.start - before > HOLE_S) {
      note('hole', { video: part.video, from: before, to: part.start });
      if (part.video) this.videoHoles = [...this.videoHoles.slice(-20), part.start];
    }
    this.received.set(part.id, part.end);
    if (part.video || this.newest === null || !this.hasVideo()) {
      this.newest = Math.max(this.newest ?? 0, part.shown);
    }
    this.keys.push(...part.keys);
    if (this.keys.length > KEYS_MAX) this.keys.splice(0, this.keys.length - KEYS_MAX);
  }

  /** The time, in ms, up to which every track has arrived; null when there is nothing to go on from. */
  resumeAt() {
    if (this.received.size === 0 || this.received.size < this.tracks.size) return null;
    return Math.floor(Math.min(...this.received.values()) * 1000);
  }

  /** Where the first frame that decodes is: after a hole in the video the buffer claims an earlier start (measured). */
  firstPicture(range) {
    const key = this.keys.find((time) => time >= range.start - 0.02);
    const broken = this.videoHoles.some((end) => Math.abs(end - range.start) < 0.5);
    return 0.001 + (broken && key < range.end - 0.1 ? Math.max(key, range.start) : range.start);
  }

  /** The newest keyframe up to `limit`; what is before it may be forgotten. Removing goes on to the next keyframe:
   *  cut anywhere else, a long GOP would lose what is being played. */
  cutBefore(limit) {
    if (!this.hasVideo()) return limit;
    let cut = -1;
    while (cut + 1 < this.keys.length && this.keys[cut + 1] <= limit) cut++;
    const to = this.keys[cut];
    if (cut > 0) this.keys.splice(0, cut);
    return to;
  }
}

function sameBytes(a, b) {
  return b !== null && a.length === b.length && a.every((byte, i) => byte === b[i]);
}
