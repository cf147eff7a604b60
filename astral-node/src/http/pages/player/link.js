// The connection to the node: one WebSocket at a time, which comes back by itself until it is closed.

import { note } from './log.js';

/** Silence after which a link counts as dead; the node sends its state each second. Milliseconds. */
const SILENCE_MS = 5_000;
/** First and longest wait before connecting again. Milliseconds. */
export const RETRY_MS = { first: 250, most: 2_000, ended: 5_000 };
/** Connections in a row that never opened, while the node answers otherwise, after which WebSockets are given up. */
const NEVER_OPENED_MAX = 3;

/** Calls back with what arrives: `url`, `opened`, `text`, `binary`, `lost`, and `blocked` when WebSockets do not get through. */
export class Link {
  constructor(handlers) {
    this.handlers = handlers;
    this.socket = null;
    this.timer = 0;
    this.wait = RETRY_MS.first;
    this.heardAt = 0;
    this.open = false;
    this.wanted = false;
    this.everOpened = false;
    this.neverOpened = 0;
  }

  connect() {
    this.drop();
    this.wanted = true;
    const socket = new WebSocket(this.handlers.url());
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    this.heardAt = performance.now();
    const mine = (handle) => (event) => socket === this.socket && handle(event);
    socket.onopen = mine(() => {
      this.open = true;
      this.everOpened = true;
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
    if (!this.open) this.doubt();
    this.drop();
    if (!this.wanted) return;
    const wait = Math.max(this.wait, this.handlers.lost(reason) ?? 0);
    this.wait = Math.min(RETRY_MS.most, this.wait * 1.5);
    this.timer = setTimeout(() => this.connect(), wait * (0.8 + 0.2 * Math.random()));
  }

  /** Some proxies let everything through but WebSockets. */
  async doubt() {
    if (this.everOpened) return;
    const answer = await fetch('/health', { cache: 'no-store' }).catch(() => null);
    if (!answer?.ok || this.everOpened) return;
    note('never opened', ++this.neverOpened);
    if (this.neverOpened === NEVER_OPENED_MAX && this.wanted) this.handlers.blocked();
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
