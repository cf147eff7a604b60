// To the node: `/ingest/ws`, one message per coded frame. Comes back by itself when the connection breaks.

/** Header of a frame: track, flags, two spare bytes, time and duration in microseconds. */
const HEADER = 16;
const KEY = 1;
/** Unsent media above which pictures are dropped until a keyframe. Seconds. */
const BACKLOG_S = 0.5;
/** Wait before connecting again. Milliseconds. */
const RETRY_MS = { first: 250, most: 3_000 };
/** Codes after which it is no use to try again. */
const FINAL = [4001, 4002, 4003, 4009, 4010];

/** Calls back: `status(state, words)` with `connecting`, `sending`, `away` or `over`, `needKey()` and `crowded()`. */
export class Uplink {
  constructor(key, tracks, handlers) {
    this.key = key;
    this.tracks = tracks;
    this.handlers = handlers;
    this.wait = RETRY_MS.first;
    this.count = { bytes: 0, frames: 0, dropped: 0, reconnects: 0 };
    this.accepted = false;
    this.wanted = true;
    this.live = false;
    this.epoch = 0;
    this.bps = 2_000_000;
    this.connect();
  }

  connect() {
    if (!this.wanted) return;
    this.handlers.status(this.count.reconnects ? 'away' : 'connecting', '');
    const url = new URL('/ingest/ws', location.href);
    url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url, 'astral.ingest.1');
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    this.accepted = false;
    this.skipping = true;
    socket.onopen = () => socket.send(JSON.stringify({ key: this.key, tracks: this.tracks }));
    socket.onmessage = ({ data }) => socket === this.socket && this.told(JSON.parse(data));
    socket.onclose = (event) => socket === this.socket && this.closed(event);
  }

  told(message) {
    if (message.ok) {
      this.accepted = true;
      this.slug = message.slug;
      this.wait = RETRY_MS.first;
      this.handlers.status('sending', '');
      this.handlers.needKey();
    } else if (message.need_key) this.handlers.needKey();
    else if (message.state) {
      this.live = message.state.live;
      this.epoch = message.state.epoch;
    } else if (message.error) this.error = message.error;
  }

  closed({ code, reason }) {
    this.accepted = this.live = false;
    if (!this.wanted || FINAL.includes(code)) {
      this.wanted = false;
      this.handlers.status('over', this.error ?? reason ?? '');
      return;
    }
    this.count.reconnects++;
    this.handlers.status('away', '');
    setTimeout(() => this.connect(), this.wait);
    this.wait = Math.min(RETRY_MS.most, this.wait * 1.7);
  }

  /** A track was configured anew; the node applies it from the next keyframe on. */
  configure(track) {
    this.tracks = [...this.tracks.filter((other) => other.id !== track.id), track];
    if (this.accepted) this.socket.send(JSON.stringify({ config: track }));
  }

  /** `stamp()` is asked for only when the frame is sent. */
  send(track, chunk, isVideo, stamp) {
    if (!this.accepted) return;
    const key = chunk.type === 'key';
    if (isVideo && !this.admits(key)) {
      this.count.dropped++;
      return;
    }
    const bytes = new ArrayBuffer(HEADER + chunk.byteLength);
    const view = new DataView(bytes);
    view.setUint8(0, track);
    view.setUint8(1, key ? KEY : 0);
    view.setBigInt64(4, BigInt(stamp()));
    view.setUint32(12, Math.round(chunk.duration ?? 0));
    chunk.copyTo(new Uint8Array(bytes, HEADER));
    this.socket.send(bytes);
    this.count.bytes += bytes.byteLength;
    this.count.frames++;
  }

  /** After something was left out, nothing is of use before the next keyframe. */
  admits(key) {
    if (this.socket.bufferedAmount * 8 > this.bps * BACKLOG_S) {
      if (!this.skipping) this.handlers.crowded();
      this.skipping = true;
      return false;
    }
    if (this.skipping && !key) return false;
    this.skipping = false;
    return true;
  }

  /** Says that it is over: viewers are told at once, and not only when nothing comes. */
  end() {
    this.wanted = false;
    if (this.accepted) this.socket.send(JSON.stringify({ end: true }));
    else this.socket.close();
  }
}
