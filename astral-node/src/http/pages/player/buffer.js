// The browser's media buffer, with one queue for everything that may only happen one at a time.

import { note } from './log.js';

/** Bytes waiting for the SourceBuffer above which the backlog is given up and the stream joined anew. */
const QUEUE_BYTES_MAX = 48 << 20;
/** Most bytes per append: one append at a time keeps the page responsive. */
const APPEND_BYTES_MAX = 1 << 20;

export const Source = window.MediaSource ?? window.ManagedMediaSource;

/** The MediaSource and its one SourceBuffer, with one queue for everything that may only happen one at a time. */
export class Buffer {
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
