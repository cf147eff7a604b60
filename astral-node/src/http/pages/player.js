// The watch page's player: one WebSocket in, one SourceBuffer out.
//
// Decides what to append, where on the stream's timeline to be, and when to connect again. Deliberately does not
// repair media: the node stretches frames over holes and fills in silence; what still arrives broken is jumped.
// Holes are found by watching the buffered ranges, not by events: Chromium freezes the picture over a hole in the
// video alone for seconds without any event. The rules marked "measured" come from runs in Chromium 156.
//
//   idle ──► connecting ──► buffering ──► playing ◄──► stalled        paused (by the viewer) · missing (404)
//                 ▲              ▲            │                        refused (other errors) · unsupported
//                 └── reconnect ─┴── rebuild ─┘   the buffer plays on while the link is away

/** How far behind the newest frame to be. Seconds; `?latency=low` for talking with the audience. */
const TARGET_S = new URLSearchParams(location.search).get('latency') === 'low' ? 0.5 : 1.2;
/** Buffer above the target that is skipped with a seek; below it playing faster is less noticeable. Seconds. */
const SEEK_ABOVE_S = 1.5;
/** Fastest playback while catching up; above it speech sounds hurried. */
const RATE_MAX = 1.08;
/** Playback while the buffer is being rebuilt after a hole has eaten it. */
const RATE_MIN = 0.95;
/** Time between two looks at the buffer. Milliseconds. */
const TICK_MS = 50;
/** Media kept behind the playhead. Seconds; untrimmed, a tab grows by 0.3 MB/s (measured). */
const KEEP_BEHIND_S = 10;
/** Pause after which the link is closed; a paused buffer fills up at 157 MB (measured). Milliseconds. */
const PARK_AFTER_MS = 10_000;
/** Silence after which a link counts as dead; the node sends its state each second. Milliseconds. */
const SILENCE_MS = 5_000;
/** First and longest wait before connecting again. Milliseconds. */
const RETRY_MS = { first: 250, most: 2_000, ended: 5_000 };
/** Bytes waiting for the SourceBuffer above which the backlog is given up and the stream joined anew. */
const QUEUE_BYTES_MAX = 48 << 20;
/** Most bytes per append: one append at a time keeps the page responsive. */
const APPEND_BYTES_MAX = 1 << 20;
/** A piece this far behind what was received belongs to a timeline that began anew. Seconds. */
const REWIND_S = 30;
/** The same when the node says that its newest frame is this far behind; a change of source costs less. Seconds. */
const REWIND_EDGE_S = 4;

const EVENTS_MAX = 500;
const ERRORS_MAX = 50;
const KEYS_MAX = 2_000;

const page = new URLSearchParams(location.search);
const slug = document.querySelector('meta[name="astral-slug"]').content;
const livePath = `/live/${encodeURIComponent(slug)}`;
const Source = window.MediaSource ?? window.ManagedMediaSource;

const events = (window.astralEvents = []);
const errors = [];

function note(name, detail = null) {
  events.push({ t: Math.round(performance.now()), name, detail });
  if (events.length > EVENTS_MAX) events.splice(0, events.length - EVENTS_MAX);
}

function noteError(text) {
  note('error', text);
  errors.push(text);
  if (errors.length > ERRORS_MAX) errors.shift();
}

// ─── Boxes ──────────────────────────────────────────────────────────────────────────────────────────────────────
// Just enough of ISO/IEC 14496-12 to know which times a piece covers and where keyframes are.

function* boxes(view, from, to) {
  for (let at = from; at + 8 <= to; ) {
    let size = view.getUint32(at);
    let head = 8;
    if (size === 1 && at + 16 <= to) {
      size = Number(view.getBigUint64(at + 8));
      head = 16;
    }
    if (size === 0) size = to - at;
    if (size < head || at + size > to) return;
    const type = String.fromCharCode(...[4, 5, 6, 7].map((i) => view.getUint8(at + i)));
    yield { type, body: at + head, end: at + size };
    at += size;
  }
}

function findBox(view, box, ...path) {
  for (const type of path) {
    let found = null;
    for (const inner of boxes(view, box.body, box.end)) {
      if (inner.type === type) {
        found = inner;
        break;
      }
    }
    if (!found) return null;
    box = found;
  }
  return box;
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The tracks of an initialisation segment, by track id. */
function readInit(bytes) {
  const view = viewOf(bytes);
  const tracks = new Map();
  const moov = findBox(view, { body: 0, end: bytes.length }, 'moov');
  if (!moov) return tracks;
  const version = (box) => view.getUint8(box.body);
  for (const trak of boxes(view, moov.body, moov.end)) {
    if (trak.type !== 'trak') continue;
    const tkhd = findBox(view, trak, 'tkhd');
    const mdhd = findBox(view, trak, 'mdia', 'mdhd');
    const hdlr = findBox(view, trak, 'mdia', 'hdlr');
    if (!tkhd || !mdhd || !hdlr) continue;
    tracks.set(view.getUint32(tkhd.body + (version(tkhd) ? 20 : 12)), {
      video: view.getUint32(hdlr.body + 8) === 0x76696465, // 'vide'
      timescale: view.getUint32(mdhd.body + (version(mdhd) ? 20 : 12)) || 1,
      duration: 0,
      flags: 0,
    });
  }
  const mvex = findBox(view, moov, 'mvex');
  for (const trex of mvex ? boxes(view, mvex.body, mvex.end) : []) {
    const track = trex.type === 'trex' && tracks.get(view.getUint32(trex.body + 4));
    if (!track) continue;
    track.duration = view.getUint32(trex.body + 12);
    track.flags = view.getUint32(trex.body + 20);
  }
  return tracks;
}

/** Per track fragment of a piece: times in seconds on the stream's timeline, and the keyframes' times. */
function readPiece(bytes, tracks) {
  const view = viewOf(bytes);
  const parts = [];
  for (const moof of boxes(view, 0, bytes.length)) {
    if (moof.type !== 'moof') continue;
    for (const traf of boxes(view, moof.body, moof.end)) {
      const part = traf.type === 'traf' && readTraf(view, traf, tracks);
      if (part) parts.push(part);
    }
  }
  return parts;
}

function readTraf(view, traf, tracks) {
  const tfhd = findBox(view, traf, 'tfhd');
  const tfdt = findBox(view, traf, 'tfdt');
  const id = tfhd && view.getUint32(tfhd.body + 4);
  const track = tracks.get(id);
  if (!track || !tfdt) return null;

  const has = view.getUint32(tfhd.body) & 0xffffff;
  let at = tfhd.body + 8 + (has & 0x1 ? 8 : 0) + (has & 0x2 ? 4 : 0);
  let { duration, flags } = track;
  if (has & 0x8) (duration = view.getUint32(at)), (at += 4);
  if (has & 0x10) at += 4;
  if (has & 0x20) flags = view.getUint32(at);

  const start = view.getUint8(tfdt.body) ? Number(view.getBigUint64(tfdt.body + 4)) : view.getUint32(tfdt.body + 4);
  let dts = start;
  let shown = 0;
  const keys = [];
  for (const trun of boxes(view, traf.body, traf.end)) {
    if (trun.type !== 'trun') continue;
    const bits = view.getUint32(trun.body) & 0xffffff;
    const count = view.getUint32(trun.body + 4);
    let p = trun.body + 8 + (bits & 0x1 ? 4 : 0);
    let first = null;
    if (bits & 0x4) (first = view.getUint32(p)), (p += 4);
    for (let i = 0; i < count; i++) {
      let own = duration;
      let sample = i === 0 && first !== null ? first : flags;
      let offset = 0;
      if (bits & 0x100) (own = view.getUint32(p)), (p += 4);
      if (bits & 0x200) p += 4;
      if (bits & 0x400) (sample = view.getUint32(p)), (p += 4);
      if (bits & 0x800) (offset = view.getInt32(p)), (p += 4);
      if (track.video && !(sample & 0x10000)) keys.push((dts + offset) / track.timescale);
      dts += own;
      shown = Math.max(shown, (dts + offset) / track.timescale);
    }
  }
  return { id, video: track.video, start: start / track.timescale, end: dts / track.timescale, shown, keys };
}

// ─── Buffer ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** The MediaSource and its one SourceBuffer, with one queue for everything that may only happen one at a time. */
class Buffer {
  constructor(video, { broken, full }) {
    this.video = video;
    this.broken = broken;
    this.full = full;
    this.queue = [];
    this.queuedBytes = 0;
    this.mime = null;
    this.sourceBuffer = null;
    this.quotaHits = 0;
    this.source = new Source();
    this.url = URL.createObjectURL(this.source);
    this.source.addEventListener('sourceopen', () => this.pump());
    video.disableRemotePlayback = true; // what a ManagedMediaSource asks for
    video.src = this.url;
  }

  close() {
    this.queue = [];
    this.source = null;
    URL.revokeObjectURL(this.url);
  }

  push(op) {
    this.queue.push(op);
    this.queuedBytes += op.bytes?.length ?? 0;
    if (this.queuedBytes > QUEUE_BYTES_MAX) this.full('too much waiting to be appended');
    else this.pump();
  }

  init(mime, bytes) {
    this.push({ kind: 'init', mime, bytes });
  }

  append(bytes) {
    this.push({ kind: 'append', bytes });
  }

  remove(from, to) {
    this.push({ kind: 'remove', from, to });
  }

  /** Forgets what is waiting and what is held. */
  flush() {
    this.queue = [];
    this.queuedBytes = 0;
    if (this.sourceBuffer) this.remove(0, Infinity);
  }

  get idle() {
    return this.queue.length === 0 && !this.sourceBuffer?.updating;
  }

  pump() {
    if (this.source?.readyState !== 'open' || this.sourceBuffer?.updating || this.queue.length === 0) return;
    const op = this.queue.shift();
    this.queuedBytes -= op.bytes?.length ?? 0;
    try {
      this.run(op);
      if (op.kind === 'append') this.quotaHits = 0;
    } catch (error) {
      if (error.name === 'QuotaExceededError') this.makeRoom(op);
      else this.broken(`${op.kind}: ${error.name}: ${error.message}`);
    }
  }

  run(op) {
    if (op.kind === 'remove') {
      this.sourceBuffer.remove(op.from, op.to);
      return;
    }
    if (op.kind === 'init') {
      if (!this.sourceBuffer) this.addSourceBuffer(op.mime);
      else if (op.mime !== this.mime) this.sourceBuffer.changeType(op.mime);
      this.mime = op.mime;
    } else {
      this.gather(op);
    }
    this.sourceBuffer.appendBuffer(op.bytes);
  }

  addSourceBuffer(mime) {
    const source = this.source;
    this.sourceBuffer = source.addSourceBuffer(mime);
    this.sourceBuffer.mode = 'segments';
    this.sourceBuffer.addEventListener('updateend', () => this.pump());
    this.sourceBuffer.addEventListener('error', () => source === this.source && this.broken('append refused'));
  }

  /** Takes the appends that queue behind `op` along: appending is paid per call. */
  gather(op) {
    let bytes = op.bytes.length;
    let n = 0;
    while (n < this.queue.length && this.queue[n].kind === 'append' && bytes + this.queue[n].bytes.length <= APPEND_BYTES_MAX) {
      bytes += this.queue[n++].bytes.length;
    }
    if (n === 0) return;
    const whole = new Uint8Array(bytes);
    let at = 0;
    for (const { bytes: piece } of [op, ...this.queue.splice(0, n)]) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.queuedBytes -= bytes - op.bytes.length;
    op.bytes = whole;
  }

  makeRoom(op) {
    note('quota', { hits: ++this.quotaHits });
    const end = this.video.currentTime - 1;
    if (this.quotaHits > 1 || end <= 0) {
      this.full('the browser gives the buffer no more room');
      return;
    }
    this.queue.unshift({ kind: 'remove', from: 0, to: end }, op);
    this.queuedBytes += op.bytes.length;
    this.pump();
  }
}

// ─── Link ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** One WebSocket at a time; calls back with what arrives, and connects again by itself until `close`. */
class Link {
  constructor(handlers) {
    this.handlers = handlers;
    this.socket = null;
    this.timer = 0;
    this.wait = RETRY_MS.first;
    this.heardAt = 0;
    this.open = false;
    this.wanted = false;
  }

  connect() {
    this.drop();
    this.wanted = true;
    const from = this.handlers.resumeAt();
    const url = new URL(`${livePath}/ws`, location.href);
    url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    if (from !== null) url.searchParams.set('from_ms', String(from));
    note('connect', from === null ? null : { from_ms: from });

    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    this.heardAt = performance.now();
    const mine = (handle) => (event) => socket === this.socket && handle(event);
    socket.onopen = mine(() => {
      this.open = true;
      this.heardAt = performance.now();
      this.handlers.opened();
    });
    socket.onmessage = mine(({ data }) => {
      this.heardAt = performance.now();
      if (typeof data === 'string') this.handlers.text(data);
      else this.handlers.binary(new Uint8Array(data));
    });
    socket.onclose = mine((event) => this.lost(`closed ${event.code} ${event.reason}`.trim()));
  }

  /** Media flows: the next break starts with the shortest wait. */
  proved() {
    this.wait = RETRY_MS.first;
  }

  check(now) {
    if (this.socket && now - this.heardAt > SILENCE_MS) this.lost(`silent for ${SILENCE_MS} ms`);
  }

  lost(reason) {
    this.drop();
    if (!this.wanted) return;
    const wait = Math.max(this.wait, this.handlers.lost(reason) ?? 0);
    this.wait = Math.min(RETRY_MS.most, this.wait * 1.5);
    this.timer = setTimeout(() => this.connect(), wait * (0.8 + 0.2 * Math.random()));
  }

  hurry() {
    if (this.wanted && !this.socket) this.connect();
  }

  close() {
    this.wanted = false;
    this.drop();
  }

  drop() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    this.open = false;
    socket?.close();
  }
}

// ─── Player ─────────────────────────────────────────────────────────────────────────────────────────────────────

class Player {
  constructor(video) {
    this.video = video;
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
      resumeAt: () => this.resumeAt(),
      opened: () => this.opened(),
      text: (text) => this.text(text),
      binary: (bytes) => this.binary(bytes),
      lost: (reason) => this.lost(reason),
    });
    this.listen();
  }

  /** What is known of the media in the buffer; forgotten with the buffer. */
  forget() {
    this.tracks = new Map();
    this.pendingInit = null;
    this.initBytes = null;
    this.initMime = null;
    this.received = new Map();
    this.newest = null;
    this.keys = [];
    this.videoHoles = [];
    this.started = false;
    this.firstPieceAt = null;
    this.underflow = false;
    this.lastSeekAt = -Infinity;
    this.lastTrimAt = 0;
    this.spot = null;
    this.aheadWindow = [];
    this.catching = false;
    this.saving = false;
    this.progress = null;
  }

  start() {
    if (!Source) {
      this.unsupported('This browser has no Media Source Extensions.');
      return;
    }
    this.setState('connecting');
    this.buffer = this.newBuffer();
    this.link.connect();
    setInterval(() => this.tick(), TICK_MS);
    this.watchFrames();
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

  // ── what the node sends ──

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
    else if (message.type === 'gap') (this.count.gaps++, note('gap', message));
    else if (message.type === 'error') this.refused(message);
  }

  streamState(message) {
    const before = this.stream;
    this.stream = message.stream ?? null;
    this.edgeMs = message.edge_ms ?? null;
    this.bitrateBps = message.bitrate_bps ?? this.stream?.bitrate_bps ?? null;
    if (before?.state !== this.stream?.state) note('stream', this.stream?.state);
    if (before?.local?.parent !== this.stream?.local?.parent) note('parent', this.stream?.local?.parent ?? null);
    if (before && this.stream && before.id !== this.stream.id) this.rebuild('another stream has this name now');
    if (this.state === 'missing' || this.state === 'refused') {
      this.message = null;
      this.setState(this.started ? 'playing' : 'connecting');
    }
  }

  refused(message) {
    this.message = message;
    noteError(`${message.status} ${message.title ?? ''}: ${message.detail ?? ''}`);
    if (!this.started || this.ahead() < 0.25) this.setState(message.status === 404 ? 'missing' : 'refused');
  }

  binary(bytes) {
    if (this.pendingInit) this.init(bytes);
    else this.piece(bytes);
    const now = performance.now();
    // Timers of a hidden tab run once a second or less; what arrives drives the control loop too.
    if (now - this.lastTick >= TICK_MS) this.tick();
  }

  init(bytes) {
    const { mime, epoch } = this.pendingInit;
    this.pendingInit = null;
    this.epoch = epoch ?? this.epoch;
    if (!Source.isTypeSupported(mime)) {
      this.unsupported(`This browser cannot play ${mime}.`);
      return;
    }
    // An init segment makes MSE wait for a keyframe, so the one it has already is not appended again: the pieces
    // of this connection then continue those of the last one without a seam.
    if (mime === this.initMime && sameBytes(bytes, this.initBytes)) return;
    const kinds = (tracks) => [...tracks.values()].map((track) => track.video).sort().join();
    const tracks = readInit(bytes);
    if (this.tracks.size > 0 && kinds(tracks) !== kinds(this.tracks)) {
      // A SourceBuffer cannot gain or lose a track.
      note('tracks', [...tracks.keys()]);
      this.renewBuffer();
    }
    note('init', { mime, epoch, bytes: bytes.length });
    this.tracks = tracks;
    this.received.clear();
    this.initMime = mime;
    this.initBytes = bytes;
    this.buffer.init(mime, bytes);
  }

  piece(bytes) {
    if (!this.initBytes) return; // left over from before a rebuild, or the node forgot the init segment
    const parts = this.read(bytes);
    if (parts.length > 0 && parts.every((part) => this.held(part))) {
      if (parts.some((part) => this.rewound(part))) this.rebuild('the timeline began anew');
      else this.count.skipped++;
      return;
    }
    for (const part of parts) this.take(part);
    this.firstPieceAt ??= performance.now();
    this.link.proved();
    this.buffer.append(bytes);
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
  rewound(part) {
    const received = this.received.get(part.id);
    return part.end < received - REWIND_S || (this.edgeMs !== null && this.edgeMs / 1000 < received - REWIND_EDGE_S);
  }

  take(part) {
    const before = this.received.get(part.id);
    if (before !== undefined && part.start - before > 0.05) {
      note('hole', { video: part.video, from: before, to: part.start });
      if (part.video) this.videoHoles = [...this.videoHoles.slice(-20), part.start];
    }
    this.received.set(part.id, part.end);
    if (part.video || this.newest === null || ![...this.tracks.values()].some((track) => track.video)) {
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

  // ── the control loop ──

  tick() {
    const now = performance.now();
    this.lastTick = now;
    this.link.check(now);
    if (!this.buffer?.sourceBuffer) return;
    this.park(now);
    this.trim(now);
    if (!this.started) this.begin(now);
    else if (!this.video.paused && !this.video.seeking) this.keep(now);
    else if (this.video.seeking) this.unstick(now);
    if (!this.wantPlay) this.setState('paused');
    else if (this.started && (this.state === 'paused' || this.state === 'buffering')) this.setState('playing');
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

  /** Whether the backlog that follows a connect or a silence has been taken in. */
  caughtUp() {
    if (!this.buffer.idle) return false;
    return this.edgeMs === null || this.newest === null || this.newest >= this.edgeMs / 1000 - 0.2;
  }

  /** Where the first frame that decodes is: after a hole in the video the buffer claims an earlier start (measured). */
  firstPicture(range) {
    const key = this.keys.find((time) => time >= range.start - 0.02);
    const broken = this.videoHoles.some((end) => Math.abs(end - range.start) < 0.5);
    return 0.001 + (broken && key < range.end - 0.1 ? Math.max(key, range.start) : range.start);
  }

  /** Where to play in `range`: the target behind its end, and not before its first picture. */
  entry(range) {
    return Math.max(this.firstPicture(range), range.end - TARGET_S);
  }

  begin(now) {
    const range = this.lastRange();
    if (!range) return;
    this.setState('buffering');
    const length = range.end - this.firstPicture(range);
    const waited = now - this.firstPieceAt;
    const full = length >= TARGET_S - 0.01 && (this.caughtUp() || waited > 500);
    const enough = length >= Math.min(0.5, TARGET_S * 0.8) && waited > 700;
    if (!full && !enough) return;
    this.started = true;
    note('begin', { at: this.entry(range), length });
    this.move(this.entry(range), now);
    if (this.wantPlay) this.play();
  }

  keep(now) {
    const time = this.video.currentTime;
    const last = this.lastRange();
    if (!last) return;
    const range = this.range(time);
    if (this.crossedHole(time, range, now) || this.jumpHole(time, range, now)) return;
    this.spot = range ? { time } : this.spot;

    const behind = last.end - time;
    const ahead = range ? range.end - time : 0;
    if (this.underflow && ahead >= TARGET_S && this.caughtUp() && now - this.lastSeekAt > 1000) {
      // Left alone, Chromium asks for 0.75 s more audio before it goes on, and stays that much later (measured).
      this.underflow = false;
      this.seek(this.entry(last), 'underflow', now);
      return;
    }
    if (behind > TARGET_S + SEEK_ABOVE_S && this.caughtUp() && now - this.lastSeekAt > 1000) {
      this.seek(this.entry(last), 'late', now);
      return;
    }
    this.pace(ahead, now);
    this.unstick(now);
  }

  /** Playback went over a hole by itself (its audio went on): the picture stays frozen until a seek. */
  crossedHole(time, range, now) {
    if (!range || !this.spot || range.start <= this.spot.time + 0.05) return false;
    const from = this.spot.time;
    this.spot = null;
    this.count.jumps++;
    note('jump', { from, to: time, crossed: true });
    this.move(Math.max(time, this.firstPicture(range)), now);
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
      if (!more && next.end - next.start < Math.max(0.3, TARGET_S / 2)) return false;
      const to = more ? this.firstPicture(next) : this.entry(next);
      this.count.jumps++;
      note('jump', { from: time, to });
      this.underflow = false;
      this.move(to, now);
      return true;
    }
    return false;
  }

  /** The playback rate, from the least buffer of the last half second: single frames come and go. */
  pace(ahead, now) {
    const samples = this.aheadWindow;
    samples.push({ now, ahead });
    while (samples[0].now < now - 500) samples.shift();
    const least = Math.min(...samples.map((sample) => sample.ahead));
    const over = least - TARGET_S;
    if (over > 0.12) this.catching = true;
    else if (over < 0.02) this.catching = false;
    if (least < TARGET_S * 0.6) this.saving = this.stream?.state === 'live';
    else if (least > TARGET_S * 0.9) this.saving = false;
    let rate = 1;
    if (this.catching) rate = Math.min(RATE_MAX, Math.max(1.02, 1 + Math.round(over * 25) / 100));
    else if (this.saving) rate = RATE_MIN;
    if (this.video.playbackRate !== rate) this.video.playbackRate = rate;
  }

  /** Nudges a playhead, a seek or a picture that does not move although there is media for it. */
  unstick(now) {
    const time = this.video.currentTime;
    const frames = this.video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
    const before = this.progress;
    const moved = !before || Math.abs(time - before.time) > 0.02;
    const pictured = !before || frames !== before.frames || document.hidden || !this.hasVideo();
    if (!before) {
      this.progress = { time, frames, movedAt: now, picturedAt: now, nudges: 0 };
      return;
    }
    if (moved) Object.assign(before, { time, movedAt: now });
    if (pictured) Object.assign(before, { frames, picturedAt: now });
    if (moved && pictured && now - this.lastSeekAt > 5000) (before.nudges = 0, this.rebuildsInARow = 0);

    const stuck = now - before.movedAt > 2000 || (!this.video.seeking && now - before.picturedAt > 2500);
    if (!stuck || this.ahead() < Math.min(0.5, TARGET_S * 0.8) || now - this.lastSeekAt < 2000) return;
    note('stuck', { time, seeking: this.video.seeking, readyState: this.video.readyState });
    Object.assign(before, { movedAt: now, picturedAt: now });
    if (++before.nudges > 3) this.rebuild('playback is stuck');
    else this.seek(this.entry(this.lastRange()), 'stuck', now);
  }

  hasVideo() {
    return [...this.tracks.values()].some((track) => track.video);
  }

  seek(to, why, now) {
    this.count.seeks++;
    note('seek', { why, from: this.video.currentTime, to });
    this.move(to, now);
  }

  move(to, now) {
    this.lastSeekAt = now;
    this.aheadWindow = [];
    this.catching = false;
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
    // Removing goes on to the next keyframe: cut at one, or a long GOP would lose what is being played.
    let cut = -1;
    while (cut + 1 < this.keys.length && this.keys[cut + 1] <= limit) cut++;
    const to = this.hasVideo() ? this.keys[cut] : limit;
    if (to === undefined || to <= ranges.start(0) + 0.5) return;
    this.keys.splice(0, cut);
    this.buffer.remove(0, to);
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
      this.play();
    }
  }

  pause() {
    this.wantPlay = false;
    this.video.pause();
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
    const on = (name, handle) => video.addEventListener(name, handle);
    on('playing', () => this.playing());
    on('waiting', () => this.waiting());
    on('seeked', () => note('seeked', video.currentTime));
    on('pause', () => {
      note('pause', { wanted: !this.wantPlay });
      this.lastPresented = null;
    });
    on('resize', () => note('resize', { width: video.videoWidth, height: video.videoHeight }));
    on('error', () => video.error && this.rebuild(`media error ${video.error.code}: ${video.error.message}`));
    document.addEventListener('visibilitychange', () => this.visibility());
    window.addEventListener('online', () => this.link.hurry());
  }

  playing() {
    note('playing', video.currentTime);
    this.underflow = false;
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
    this.underflow = true;
    this.setState('stalled');
  }

  endStall() {
    if (this.stalledAt !== null) this.stalledMs += performance.now() - this.stalledAt;
    this.stalledAt = null;
  }

  visibility() {
    note('visibility', document.visibilityState);
    this.lastPresented = null;
    this.progress = null;
    if (document.hidden) return;
    this.link.hurry();
    // Browsers pause silent video in hidden tabs on their own account.
    if (this.wantPlay && this.started && (this.video.paused || this.parked)) this.resume();
    const last = this.lastRange();
    const now = performance.now();
    if (this.started && this.wantPlay && last && last.end - this.video.currentTime > TARGET_S + 0.5) {
      this.seek(this.entry(last), 'visible again', now);
    }
  }

  /** Longest time without a new picture, while the tab is seen and the stream is on. */
  watchFrames() {
    if (!this.video.requestVideoFrameCallback) return;
    const frame = (now) => {
      const live = this.stream?.state === 'live' && this.wantPlay && !document.hidden;
      if (live && this.lastPresented !== null) this.frameGapMaxMs = Math.max(this.frameGapMaxMs, now - this.lastPresented);
      this.lastPresented = live ? now : null;
      this.video.requestVideoFrameCallback(frame);
    };
    this.video.requestVideoFrameCallback(frame);
  }

  // ── figures ──

  latencyMs() {
    if (!this.started || (this.edgeMs === null && this.newest === null)) return null;
    const edge = Math.max(this.edgeMs ?? 0, (this.newest ?? 0) * 1000);
    return Math.round(edge - this.video.currentTime * 1000 + (this.stream?.local?.latency_ms ?? 0));
  }

  stats() {
    const { video, stream, count } = this;
    const quality = video.getVideoPlaybackQuality?.();
    return {
      state: this.state,
      streamState: stream?.state ?? null,
      connected: this.link.open,
      reconnects: count.reconnects,
      waitingEvents: count.waiting,
      stalledMs: Math.round(this.stalledMs + (this.stalledAt === null ? 0 : performance.now() - this.stalledAt)),
      droppedFrames: quality?.droppedVideoFrames ?? 0,
      totalFrames: quality?.totalVideoFrames ?? 0,
      frameGapMaxMs: Math.round(this.frameGapMaxMs),
      latencyMs: this.latencyMs(),
      targetMs: TARGET_S * 1000,
      bufferS: this.buffer ? this.ahead() : 0,
      currentTime: video.currentTime,
      playbackRate: video.playbackRate,
      width: video.videoWidth,
      height: video.videoHeight,
      muted: video.muted,
      epoch: this.stream?.epoch ?? this.epoch,
      jumps: count.jumps,
      seeks: count.seeks,
      gaps: count.gaps,
      rebuilds: count.rebuilds,
      piecesSkipped: count.skipped,
      firstPlayingMs: this.firstPlayingMs,
      errors: [...errors],
      parent: stream?.local?.parent ?? null,
      hops: stream?.local?.hops ?? null,
      bitrateBps: this.bitrateBps,
    };
  }
}

function sameBytes(a, b) {
  return b !== null && a.length === b.length && a.every((byte, i) => byte === b[i]);
}

// ─── Page ───────────────────────────────────────────────────────────────────────────────────────────────────────

const $ = (id) => document.getElementById(id);
const video = $('video');
const stage = $('stage');
const player = new Player(video);
const embedded = page.has('embed');
const streamUrl = new URL(`${livePath}/stream.mp4`, location.href).href;
window.astralStats = () => player.stats();

function put(id, text, title) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
  if (title !== undefined && element.title !== title) element.title = title;
}

const short = (uuid) => uuid.slice(0, 8);
const count = (n) => (Number.isFinite(n) ? n.toLocaleString('en') : '–');
const megabits = (bps) => (!Number.isFinite(bps) ? '–' : bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bps / 1e3)} kbit/s`);

const STATES = { live: 'Live', waiting: 'Encoder away', paused: 'Paused', ended: 'Ended' };

/** The one thing to say over the picture, most important first; null when the picture speaks for itself. */
function overlay(stats) {
  const { state, message } = player;
  if (state === 'idle') return { kind: 'join', title: 'Watch this stream', text: 'Joining makes this node receive it.', button: 'Join' };
  if (state === 'unsupported') return { kind: 'error', title: message.title, text: message.detail, url: true };
  if (state === 'missing') return { kind: 'wait', title: 'No such stream yet', text: `Nobody announces “${slug}” at the moment. This page keeps looking.` };
  if (state === 'refused') return { kind: 'wait', title: message.title || 'Not now', text: `${message.detail || ''} Trying again.`.trim() };
  if (player.blocked) return { kind: 'join', title: 'Ready', text: 'The browser wants a click before it plays.', button: 'Play' };
  if (!player.wantPlay) return { kind: 'join', title: 'Paused', text: 'Playing again goes back to live.', button: 'Play' };
  const drained = stats.bufferS < 0.3;
  if (stats.streamState === 'waiting' && drained) return { kind: 'wait', title: 'The encoder is away', text: 'The stream goes on here as soon as it is back.' };
  if (stats.streamState === 'paused' && drained) return { kind: 'wait', title: 'The publisher paused the stream', text: 'It goes on here by itself.' };
  if (stats.streamState === 'ended' && drained) return { kind: 'calm', title: 'The stream has ended', text: 'Thank you for watching. Should it come back, it plays here.' };
  if (!player.started) return { kind: 'spin', title: '', text: stats.connected ? 'Joining…' : 'Connecting to the node…' };
  if (player.stalledAt !== null && performance.now() - player.stalledAt > 300) return { kind: 'spin', title: '', text: '' };
  return null;
}

function badge(stats) {
  if (stats.connected || player.parked || !player.everOpened || stats.streamState === 'ended') return '';
  return ['idle', 'missing', 'refused', 'unsupported'].includes(player.state) ? '' : 'Reconnecting…';
}

function feeder(local) {
  if (!local) return ['–', ''];
  if (local.parent) return [short(local.parent), local.parent];
  return local.hops === 0 || local.receiving === false ? ['this node', 'published on this node'] : ['looking…', ''];
}

function render() {
  const stats = player.stats();
  const stream = player.stream;
  const local = stream?.local;

  const over = overlay(stats);
  const overElement = $('overlay');
  overElement.hidden = !over;
  if (over) {
    overElement.dataset.kind = over.kind;
    put('overlay-title', over.title);
    put('overlay-text', over.text);
    put('overlay-button-text', over.button ?? '');
    $('overlay-title').hidden = !over.title;
    $('overlay-button').hidden = !over.button;
    $('overlay-url').hidden = !over.url;
  }
  const away = badge(stats);
  put('badge-text', away);
  $('badge').classList.toggle('on', away !== '');
  const still = !player.wantPlay || player.state === 'idle';
  stage.classList.toggle('paused', still);
  stage.classList.toggle('muted', video.muted);
  $('unmute').hidden = !video.muted || !player.started || (over !== null && over.kind !== 'spin');
  $('play').setAttribute('aria-label', still ? 'Play' : 'Pause');
  $('mute').setAttribute('aria-label', video.muted ? 'Unmute' : 'Mute');

  const late = stats.latencyMs !== null && stats.latencyMs - (local?.latency_ms ?? 0) > TARGET_S * 1000 + 1000;
  const pill = stats.streamState ?? 'unknown';
  $('pill').dataset.state = pill;
  put('pill', STATES[pill] ?? 'Looking…');
  $('live').classList.toggle('late', late || !stats.connected || stats.streamState !== 'live');
  $('live').disabled = !late;

  if (stream) {
    document.title = `${stream.name} · Astral`;
    put('name', stream.name);
    put('description', stream.description ?? '');
    put('publisher', stream.publisher ? short(stream.publisher) : '–', stream.publisher ?? '');
    put('viewers', count(stream.viewers));
    $('copy').disabled = !stream.share;
    if (stream.share) put('share', stream.share);
  }
  put('latency', stats.latencyMs === null ? '–' : `${(stats.latencyMs / 1000).toFixed(1)} s`);
  put('bitrate', megabits(stats.bitrateBps));
  put('resolution', stats.width ? `${stats.width}×${stats.height}` : '–');
  put('hops', local ? count(local.hops) : '–');
  put('parent', ...feeder(local));

  if (!$('stats').open) return;
  put('s-received', count(local?.frames_received));
  put('s-lost', count(local?.frames_lost));
  put('s-dropped', `${count(stats.droppedFrames)} of ${count(stats.totalFrames)}`);
  put('s-buffer', `${stats.bufferS.toFixed(2)} s, target ${TARGET_S} s`);
  put('s-rate', `${stats.playbackRate.toFixed(2)}×`);
  put('s-stalls', `${stats.waitingEvents}, ${(stats.stalledMs / 1000).toFixed(1)} s in all`);
  put('s-freeze', `${stats.frameGapMaxMs} ms`);
  put('s-jumps', `${stats.jumps} holes, ${stats.seeks} to the live edge`);
  put('s-reconnects', `${stats.reconnects}, node changed source ${count(local?.switches)} times`);
  put('s-standby', local?.standby ? short(local.standby) : 'none', local?.standby ?? '');
  put('s-epoch', count(stats.epoch));
  put('s-codecs', (stream?.tracks ?? []).map((track) => track.codec).filter(Boolean).join(', ') || '–');
  put('s-path', local ? `${count(local.latency_ms)} ms from the publisher` : '–');
}

function togglePlay() {
  if (player.state === 'idle') player.start();
  else if (player.blocked) player.play();
  else if (player.wantPlay) player.pause();
  else player.resume();
  render();
}

function toggleMute() {
  video.muted = !video.muted;
  if (!video.muted && video.volume === 0) video.volume = 1;
  // Without a click Chromium answers by pausing: `play` then mutes again.
  if (player.wantPlay && player.started) player.play();
  render();
}

function goLive() {
  const last = player.lastRange();
  if (last && player.started) player.seek(player.entry(last), 'asked for', performance.now());
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.();
}

async function copyShare() {
  const text = $('share').textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard on an insecure origin: select it, so that copying by hand is one key.
    getSelection().selectAllChildren($('share'));
    done = document.execCommand('copy');
  }
  put('copy-text', done ? 'Copied' : 'Press Ctrl+C');
  setTimeout(() => put('copy-text', 'Copy share link'), 2000);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea')) return;
  const acts = { m: toggleMute, f: toggleFullscreen, ' ': togglePlay };
  const act = acts[event.key.toLowerCase()];
  if (!act || (event.key === ' ' && event.target.closest('button, summary, a'))) return;
  event.preventDefault();
  act();
}

/** Controls show while the pointer moves or the keyboard is in them, and go after three seconds. */
function showControls() {
  let timer = 0;
  const show = () => {
    stage.classList.add('active');
    clearTimeout(timer);
    timer = setTimeout(() => stage.classList.remove('active'), 3000);
  };
  for (const name of ['pointermove', 'pointerdown', 'focusin', 'keydown']) stage.addEventListener(name, show);
  show();
}

document.body.classList.toggle('embed', embedded);
put('name', slug);
put('vlc-url', streamUrl);
put('overlay-url', streamUrl);
$('overlay-button').addEventListener('click', togglePlay);
$('play').addEventListener('click', togglePlay);
$('mute').addEventListener('click', toggleMute);
$('unmute').addEventListener('click', toggleMute);
$('live').addEventListener('click', goLive);
$('fullscreen').addEventListener('click', toggleFullscreen);
$('copy').addEventListener('click', copyShare);
$('stats').addEventListener('toggle', render);
$('volume').addEventListener('input', (event) => {
  video.volume = Number(event.target.value);
  if (video.muted !== (video.volume === 0)) toggleMute();
});
video.addEventListener('click', (event) => {
  if (event.pointerType === 'touch') return;
  togglePlay();
});
video.addEventListener('dblclick', toggleFullscreen);
document.addEventListener('keydown', key);
showControls();
if (!embedded) player.start();
setInterval(render, 250);
render();
