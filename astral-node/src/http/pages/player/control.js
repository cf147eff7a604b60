// Where on the timeline to be: begins, keeps the latency, jumps holes, frees what is stuck, trims.
//
// Holes are found by watching the buffered ranges, not by events: Chromium freezes the picture over a hole in the video
// alone for seconds without any event. The rules marked "measured" come from runs in Chromium 156.

import { note } from './log.js';
import { Pace } from './pace.js';

/** Buffer above the target that is skipped with a seek; below it playing faster is less noticeable. Seconds. */
const SEEK_ABOVE_S = 1.5;
/** Media kept behind the playhead. Seconds; untrimmed, a tab grows by 0.3 MB/s (measured). */
const KEEP_BEHIND_S = 10;
/** Shortest time between two seeks of one reason. Milliseconds. */
const SEEK_APART_MS = 1_000;

/** `player` gives `video`, `media`, `buffer`, `target`, `wantPlay`, `live()` and `caughtUp()`, and takes `begun`, `healthy` and `rebuild`. */
export class Control {
  constructor(player) {
    this.player = player;
    this.video = player.video;
    this.target = player.target;
    this.pace = new Pace(this.target);
    this.started = false;
    this.underflow = false;
    this.lastSeekAt = -Infinity;
    this.lastTrimAt = 0;
    this.spot = null;
    this.progress = null;
  }

  tick(now) {
    this.trim(now);
    if (!this.started) this.begin(now);
    else if (!this.video.paused && !this.video.seeking) this.keep(now);
    else if (this.video.seeking) this.unstick(now);
  }

  /** The range the playhead is in, or null. */
  range(time = this.video.currentTime) {
    const ranges = this.video.buffered;
    for (let i = 0; i < ranges.length; i++) {
      if (time >= ranges.start(i) - 0.02 && time <= ranges.end(i)) return { start: ranges.start(i), end: ranges.end(i) };
    }
    return null;
  }

  lastRange() {
    const ranges = this.video.buffered;
    const i = ranges.length - 1;
    return i < 0 ? null : { start: ranges.start(i), end: ranges.end(i) };
  }

  ahead() {
    const range = this.range();
    return range ? Math.max(0, range.end - this.video.currentTime) : 0;
  }

  /** Where to play in `range`: the target behind its end, and not before its first picture. */
  entry(range) {
    return Math.max(this.player.media.firstPicture(range), range.end - this.target);
  }

  begin(now) {
    const { player } = this;
    const range = this.lastRange();
    if (!range) return;
    player.setState('buffering');
    const length = range.end - player.media.firstPicture(range);
    const waited = now - player.media.firstPieceAt;
    const full = length >= this.target - 0.01 && (player.caughtUp() || waited > 500);
    const enough = length >= Math.min(0.5, this.target * 0.8) && waited > 700;
    if (!full && !enough) return;
    this.started = true;
    note('begin', { at: this.entry(range), length });
    this.move(this.entry(range), now);
    player.begun();
  }

  keep(now) {
    const time = this.video.currentTime;
    const last = this.lastRange();
    if (!last) return;
    const range = this.range(time);
    if (this.crossedHole(time, range, now) || this.jumpHole(time, range, now)) return;
    this.spot = range ? { time } : this.spot;

    const ahead = range ? range.end - time : 0;
    const may = this.player.caughtUp() && now - this.lastSeekAt > SEEK_APART_MS;
    if (this.underflow && ahead >= this.target && may) {
      // Left alone, Chromium asks for 0.75 s more audio before it goes on, and stays that much later (measured).
      this.underflow = false;
      this.seek(this.entry(last), 'underflow', now);
    } else if (last.end - time > this.target + SEEK_ABOVE_S && may) {
      this.seek(this.entry(last), 'late', now);
    } else {
      const rate = this.pace.rate(ahead, this.player.live(), now);
      if (this.video.playbackRate !== rate) this.video.playbackRate = rate;
      this.unstick(now);
    }
  }

  /** Playback went over a hole by itself (its audio went on): the picture stays frozen until a seek. */
  crossedHole(time, range, now) {
    if (!range || !this.spot || range.start <= this.spot.time + 0.05) return false;
    const from = this.spot.time;
    this.spot = null;
    this.player.count.jumps++;
    note('jump', { from, to: time, crossed: true });
    this.move(Math.max(time, this.player.media.firstPicture(range)), now);
    return true;
  }

  jumpHole(time, range, now) {
    // Early: the renderer stalls 0.1 s before the end of a range (measured), and comes back slowly.
    if (range && range.end - time > 0.15) return false;
    const ranges = this.video.buffered;
    for (let i = 0; i < ranges.length; i++) {
      const next = { start: ranges.start(i), end: ranges.end(i) };
      if (next.start <= time + 0.001) continue;
      const more = i + 1 < ranges.length;
      if (!more && next.end - next.start < Math.max(0.3, this.target / 2)) return false;
      const to = more ? this.player.media.firstPicture(next) : this.entry(next);
      this.player.count.jumps++;
      note('jump', { from: time, to });
      this.underflow = false;
      this.move(to, now);
      return true;
    }
    return false;
  }

  /** Nudges a playhead, a seek or a picture that does not move although there is media for it. */
  unstick(now) {
    const time = this.video.currentTime;
    const frames = this.video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
    const before = this.progress;
    if (!before) {
      this.progress = { time, frames, movedAt: now, picturedAt: now, nudges: 0 };
      return;
    }
    const moved = Math.abs(time - before.time) > 0.02;
    const pictured = frames !== before.frames || document.hidden || !this.player.media.hasVideo();
    if (moved) Object.assign(before, { time, movedAt: now });
    if (pictured) Object.assign(before, { frames, picturedAt: now });
    if (moved && pictured && now - this.lastSeekAt > 5000) {
      before.nudges = 0;
      this.player.healthy();
    }

    const stuck = now - before.movedAt > 2000 || (!this.video.seeking && now - before.picturedAt > 2500);
    if (!stuck || this.ahead() < Math.min(0.5, this.target * 0.8) || now - this.lastSeekAt < 2000) return;
    note('stuck', { time, seeking: this.video.seeking, readyState: this.video.readyState });
    Object.assign(before, { movedAt: now, picturedAt: now });
    if (++before.nudges > 3) this.player.rebuild('playback is stuck');
    else this.seek(this.entry(this.lastRange()), 'stuck', now);
  }

  /** To the live edge, if that is further than a moment away. */
  goLive(why, slack, now = performance.now()) {
    const last = this.lastRange();
    if (this.started && last && last.end - this.video.currentTime > this.target + slack) this.seek(this.entry(last), why, now);
  }

  seek(to, why, now) {
    this.player.count.seeks++;
    note('seek', { why, from: this.video.currentTime, to });
    this.move(to, now);
  }

  move(to, now) {
    this.lastSeekAt = now;
    this.pace.forget();
    this.spot = null;
    this.video.playbackRate = 1;
    this.video.currentTime = to;
  }

  trim(now) {
    if (now - this.lastTrimAt < 2000 || !this.started) return;
    this.lastTrimAt = now;
    const ranges = this.video.buffered;
    const limit = this.video.currentTime - KEEP_BEHIND_S;
    if (ranges.length === 0 || ranges.start(0) > limit) return;
    const to = this.player.media.cutBefore(limit);
    if (to !== undefined && to > ranges.start(0) + 0.5) this.player.buffer.remove(0, to);
  }
}
