// The player: one WebSocket in, one SourceBuffer out.
//
// Decides what to append and when to connect again; where to be on the timeline is control.js. Deliberately does not
// repair media: the node stretches frames over holes and fills in silence; what still arrives broken is jumped.
//
//   idle ──► connecting ──► buffering ──► playing ◄──► stalled        paused (by the viewer) · missing (404)
//                 ▲              ▲            │                        refused (other errors) · unsupported
//                 └── reconnect ─┴── rebuild ─┘   the buffer plays on while the link is away

import { Buffer, Source } from './buffer.js';
import { Control } from './control.js';
import { Link, RETRY_MS } from './link.js';
import { errors, note, noteError } from './log.js';
import { Media } from './media.js';

/** Time between two looks at the buffer. Milliseconds. */
const TICK_MS = 50;
/** Pause after which the link is closed; a paused buffer fills up at 157 MB (measured). Milliseconds. */
const PARK_AFTER_MS = 10_000;
/** How long something that has just happened is news. Milliseconds. */
const NEWS_MS = 5_000;

export class Player {
  /** `target`: seconds behind the newest frame. `blocked(reason)` is called when this way of playing leads nowhere. */
  constructor(video, { slug, target, blocked }) {
    this.video = video;
    this.slug = slug;
    this.target = target;
    this.state = 'idle';
    this.stream = null;
    this.message = null;
    this.edgeMs = null;
    this.bitrateBps = null;
    this.epoch = null;
    this.wantPlay = true;
    this.blocked = false;
    this.parked = false;
    this.pausedAt = null;
    this.news = null;
    this.count = { reconnects: 0, waiting: 0, jumps: 0, seeks: 0, rebuilds: 0, gaps: 0, skipped: 0 };
    this.stalledMs = 0;
    this.stalledAt = null;
    this.firstPlayingMs = null;
    this.frameGapMaxMs = 0;
    this.lastPresented = null;
    this.everOpened = false;
    this.lastTick = 0;
    this.rebuildsInARow = 0;
    this.forget();
    this.link = new Link({
      url: () => this.url(),
      opened: () => this.opened(),
      text: (text) => this.text(text),
      binary: (bytes) => this.binary(bytes),
      lost: (reason) => this.lost(reason),
      blocked: () => blocked('WebSockets do not get through to the node'),
    });
  }

  /** Whether this browser can play in this way at all. */
  static possible() {
    return Boolean(Source);
  }

  /** What is known of the media in the buffer is forgotten with the buffer. */
  forget() {
    this.media = new Media();
    this.control = new Control(this);
    this.pendingInit = null;
  }

  get started() {
    return this.control.started;
  }

  get connected() {
    return this.link.open;
  }

  start() {
    this.setState('connecting');
    this.buffer = this.newBuffer();
    this.listen();
    this.link.connect();
    this.ticking = setInterval(() => this.tick(), TICK_MS);
    this.watchFrames();
  }

  /** Gives the element back, so that another way of playing can have it. */
  close() {
    clearInterval(this.ticking);
    this.listening?.abort();
    this.link.close();
    this.buffer?.close();
    this.video.removeAttribute('src');
  }

  newBuffer() {
    const buffer = new Buffer(this.video, {
      broken: (reason) => buffer === this.buffer && this.rebuild(reason),
      full: (reason) => buffer === this.buffer && this.rejoin(reason),
    });
    return buffer;
  }

  setState(state) {
    if (state === this.state) return;
    note('state', { from: this.state, to: state });
    this.state = state;
  }

  tell(text) {
    note('news', text);
    this.news = { text, until: performance.now() + NEWS_MS };
  }

  // ── what the node sends ──

  url() {
    const from = this.media.resumeAt();
    const url = new URL(`/live/${encodeURIComponent(this.slug)}/ws`, location.href);
    url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    url.searchParams.set('target_ms', String(Math.round(this.target * 1000)));
    if (from !== null) url.searchParams.set('from_ms', String(from));
    note('connect', from === null ? null : { from_ms: from });
    return url;
  }

  opened() {
    note('open');
    if (this.everOpened) this.count.reconnects++;
    this.everOpened = true;
    this.edgeMs = null;
  }

  lost(reason) {
    note('lost', reason);
    this.pendingInit = null;
    if (this.stream?.state === 'ended') return RETRY_MS.ended;
    return this.state === 'missing' || this.state === 'refused' ? RETRY_MS.most : 0;
  }

  text(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      noteError('message is not JSON');
      return;
    }
    if (message.type === 'init') this.pendingInit = message;
    else if (message.type === 'state') this.streamState(message);
    else if (message.type === 'error') this.refused(message);
    else if (message.type === 'gap') {
      this.count.gaps++;
      note('gap', message);
    }
  }

  streamState(message) {
    const before = this.stream;
    this.stream = message.stream ?? null;
    this.edgeMs = message.edge_ms ?? null;
    this.bitrateBps = message.bitrate_bps ?? this.stream?.bitrate_bps ?? null;
    if (before?.state !== this.stream?.state) note('stream', this.stream?.state);
    this.tellSwitch(before?.local, this.stream?.local);
    if (before && this.stream && before.id !== this.stream.id) this.rebuild('another stream has this name now');
    if (this.state === 'missing' || this.state === 'refused') {
      this.message = null;
      this.setState(this.started ? 'playing' : 'connecting');
    }
  }

  /** Where the node gets the stream from has changed. */
  tellSwitch(before, now) {
    const parent = now?.parent ?? null;
    if (before?.parent !== now?.parent) note('parent', parent);
    const switched = before && now && (now.switches > before.switches || (before.parent && parent && before.parent !== parent));
    if (switched) this.tell(parent ? `Switched to ${parent.slice(0, 8)}` : 'Looking for another source');
  }

  refused(message) {
    this.message = message;
    note('refused', message);
    // The node says this whenever it stops or its stream is over: the page goes on by itself.
    if (message.status !== 404 && message.status !== 503) noteError(`${message.status} ${message.title ?? ''}: ${message.detail ?? ''}`);
    if (!this.started || this.control.ahead() < 0.25) this.setState(message.status === 404 ? 'missing' : 'refused');
  }

  binary(bytes) {
    if (this.pendingInit) this.init(bytes);
    else this.piece(bytes);
    // Timers of a hidden tab run once a second or less; what arrives drives the control loop too.
    if (performance.now() - this.lastTick >= TICK_MS) this.tick();
  }

  init(bytes) {
    const { mime, epoch } = this.pendingInit;
    this.pendingInit = null;
    if (this.epoch !== null && epoch !== this.epoch) this.tell('The encoder started anew');
    this.epoch = epoch ?? this.epoch;
    if (!Source.isTypeSupported(mime)) {
      this.unsupported(`This browser cannot play ${mime}.`);
      return;
    }
    let kind = this.media.init(mime, bytes);
    if (kind === 'same') return;
    if (kind === 'other tracks') {
      // A SourceBuffer cannot gain or lose a track.
      note('tracks', mime);
      this.renewBuffer();
      kind = this.media.init(mime, bytes);
    }
    note('init', { mime, epoch, bytes: bytes.length });
    this.buffer.init(mime, bytes);
  }

  piece(bytes) {
    if (!this.media.initBytes) return; // left over from before a rebuild, or the node forgot the init segment
    const kind = this.media.piece(bytes, this.edgeMs);
    if (kind === 'rewound') this.rebuild('the timeline began anew');
    else if (kind === 'held') this.count.skipped++;
    else {
      this.link.proved();
      this.buffer.append(bytes);
    }
  }

  // ── the control loop ──

  tick() {
    const now = performance.now();
    this.lastTick = now;
    this.link.check(now);
    if (!this.buffer?.sourceBuffer) return;
    this.park(now);
    this.control.tick(now);
    if (!this.wantPlay) this.setState('paused');
    else if (this.started && (this.state === 'paused' || this.state === 'buffering')) this.setState('playing');
  }

  /** Whether the backlog that follows a connect or a silence has been taken in. */
  caughtUp() {
    if (!this.buffer.idle) return false;
    return this.edgeMs === null || this.media.newest === null || this.media.newest >= this.edgeMs / 1000 - 0.2;
  }

  live() {
    return this.stream?.state === 'live';
  }

  begun() {
    if (this.wantPlay) this.play();
  }

  healthy() {
    this.rebuildsInARow = 0;
  }

  // ── pausing, breaking, mending ──

  play() {
    this.video.play().then(
      () => (this.blocked = false),
      (error) => {
        if (error.name !== 'NotAllowedError') return;
        if (!this.video.muted) {
          this.video.muted = true;
          note('muted', 'the browser wants a click for sound');
          this.play();
        } else {
          this.blocked = true;
        }
      },
    );
  }

  resume() {
    this.wantPlay = true;
    this.pausedAt = null;
    if (this.parked) {
      this.parked = false;
      this.rejoin('back from a pause');
    } else {
      this.control.goLive('back from a pause', 0.5);
      this.play();
    }
  }

  pause() {
    this.wantPlay = false;
    this.video.pause();
  }

  goLive(why, slack = 0) {
    this.control.goLive(why, slack);
  }

  /** Paused for long, by the viewer or by the browser: stop receiving. */
  park(now) {
    if (!this.video.paused || !this.started || this.parked) {
      if (!this.video.paused) this.pausedAt = null;
      return;
    }
    this.pausedAt ??= now;
    if (now - this.pausedAt < PARK_AFTER_MS) return;
    note('parked');
    this.parked = true;
    this.link.close();
  }

  /** Joins live with an empty buffer; the last picture stays until the first new one. */
  rejoin(reason) {
    note('rejoin', reason);
    this.forget();
    this.buffer.flush();
    this.setState('buffering');
    this.link.connect();
  }

  /** Joins live with a new MediaSource: after a decoder error nothing less helps. */
  rebuild(reason) {
    noteError(`rebuild: ${reason}`);
    this.renewBuffer();
    this.setState('buffering');
    this.link.close();
    setTimeout(() => !this.parked && this.link.connect(), this.rebuildsInARow++ === 0 ? 0 : RETRY_MS.most);
  }

  renewBuffer() {
    this.count.rebuilds++;
    this.buffer.close();
    this.forget();
    this.buffer = this.newBuffer();
  }

  unsupported(reason) {
    noteError(reason);
    this.message = { title: 'Cannot be played here', detail: reason };
    this.setState('unsupported');
    this.link.close();
  }

  // ── what the browser reports ──

  listen() {
    const { video } = this;
    this.listening = new AbortController();
    const { signal } = this.listening;
    const on = (name, handle) => video.addEventListener(name, handle, { signal });
    on('playing', () => this.playing());
    on('waiting', () => this.waiting());
    on('seeked', () => note('seeked', video.currentTime));
    on('pause', () => {
      note('pause', { wanted: !this.wantPlay });
      this.lastPresented = null;
    });
    on('resize', () => note('resize', { width: video.videoWidth, height: video.videoHeight }));
    on('error', () => video.error && this.rebuild(`media error ${video.error.code}: ${video.error.message}`));
    document.addEventListener('visibilitychange', () => this.visibility(), { signal });
    window.addEventListener('online', () => this.link.hurry(), { signal });
  }

  playing() {
    note('playing', this.video.currentTime);
    this.control.underflow = false;
    this.firstPlayingMs ??= Math.round(performance.now());
    this.endStall();
    if (this.started) this.setState('playing');
  }

  waiting() {
    const seeking = this.video.seeking;
    note('waiting', { seeking, time: this.video.currentTime });
    if (this.firstPlayingMs === null || !this.started || this.video.paused) return;
    this.stalledAt ??= performance.now();
    if (seeking) return;
    this.count.waiting++;
    this.control.underflow = true;
    this.setState('stalled');
  }

  endStall() {
    if (this.stalledAt !== null) this.stalledMs += performance.now() - this.stalledAt;
    this.stalledAt = null;
  }

  /** Back in a tab that was hidden: to live, whatever the browser did meanwhile. */
  visibility() {
    note('visibility', document.visibilityState);
    this.lastPresented = null;
    this.control.progress = null;
    if (document.hidden) return;
    this.link.hurry();
    // Browsers pause silent video in hidden tabs on their own account.
    if (this.wantPlay && this.started && (this.video.paused || this.parked)) this.resume();
    if (this.wantPlay) this.goLive('visible again', 0.5);
  }

  /** Longest time without a new picture, while the tab is seen and the stream is on. */
  watchFrames() {
    if (!this.video.requestVideoFrameCallback) return;
    const frame = (now) => {
      const live = this.live() && this.wantPlay && !document.hidden;
      if (live && this.lastPresented !== null) this.frameGapMaxMs = Math.max(this.frameGapMaxMs, now - this.lastPresented);
      this.lastPresented = live ? now : null;
      this.video.requestVideoFrameCallback(frame);
    };
    this.video.requestVideoFrameCallback(frame);
  }

  // ── figures ──

  latencyMs() {
    const { newest } = this.media;
    if (!this.started || (this.edgeMs === null && newest === null)) return null;
    const edge = Math.max(this.edgeMs ?? 0, (newest ?? 0) * 1000);
    return Math.round(edge - this.video.currentTime * 1000 + (this.stream?.local?.latency_ms ?? 0));
  }

  stats() {
    const { video, stream, count } = this;
    const quality = video.getVideoPlaybackQuality?.();
    const now = performance.now();
    return {
      engine: 'mse',
      state: this.state,
      streamState: stream?.state ?? null,
      connected: this.connected,
      reconnects: count.reconnects,
      waitingEvents: count.waiting,
      stalledMs: Math.round(this.stalledMs + (this.stalledAt === null ? 0 : now - this.stalledAt)),
      droppedFrames: quality?.droppedVideoFrames ?? 0,
      totalFrames: quality?.totalVideoFrames ?? 0,
      frameGapMaxMs: Math.round(this.frameGapMaxMs),
      latencyMs: this.latencyMs(),
      targetMs: this.target * 1000,
      bufferS: this.buffer ? this.control.ahead() : 0,
      currentTime: video.currentTime,
      playbackRate: video.playbackRate,
      width: video.videoWidth,
      height: video.videoHeight,
      muted: video.muted,
      epoch: stream?.epoch ?? this.epoch,
      jumps: count.jumps,
      seeks: count.seeks,
      gaps: count.gaps,
      rebuilds: count.rebuilds,
      piecesSkipped: count.skipped,
      firstPlayingMs: this.firstPlayingMs,
      errors: [...errors],
      parent: stream?.local?.parent ?? null,
      standby: stream?.local?.standby ?? null,
      hops: stream?.local?.hops ?? null,
      switches: stream?.local?.switches ?? null,
      bitrateBps: this.bitrateBps,
    };
  }
}
