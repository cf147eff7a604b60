// The browser's own encoders (WebCodecs): frames of a MediaStream become H.264 and Opus.
//
// Every frame is closed, whatever happens: an open one holds a buffer of the camera, and there are few. Nothing waits: a
// frame that the encoder has no time for is dropped.

import { Clock } from './clock.js';

/** Time between two keyframes. Microseconds. */
const KEY_EVERY_US = 1_000_000;
/** Frames waiting in the encoder above which new ones are dropped. */
const QUEUE_MAX = 3;
const AUDIO_BPS = 128_000;
/** Profiles from best to safest; the level is 4.0, for 1080p at 30 pictures a second. */
const PROFILES = ['avc1.640028', 'avc1.4d0028', 'avc1.42e028'];

export const VIDEO = 1;
export const AUDIO = 2;

/** Whether this browser can be an encoder, else why not. */
export function missing() {
  if (!window.isSecureContext) return 'Browsers allow cameras only on https and on this machine (http://127.0.0.1).';
  if (!window.VideoEncoder || !window.AudioEncoder) return 'This browser has no encoder for pages (WebCodecs).';
  if (!window.MediaStreamTrackProcessor) return 'This browser does not hand frames to pages (MediaStreamTrackProcessor). Chrome, Edge and Chromium do.';
  return null;
}

/** Calls back with `config(track)` whenever a track's configuration is new, then `packet(track id, chunk)`. */
export class Encoder {
  constructor(stream, { videoBps, height, config, packet, failed }) {
    this.stream = stream;
    this.videoBps = videoBps;
    this.height = height;
    this.handlers = { config, packet, failed };
    this.count = { encoded: 0, dropped: 0 };
    this.size = null;
    this.wantKey = true;
    this.lastKeyUs = -Infinity;
    this.running = true;
    this.readers = [];
    this.clock = new Clock();
  }

  get tracks() {
    return { video: this.stream.getVideoTracks()[0] ?? null, audio: this.stream.getAudioTracks()[0] ?? null };
  }

  start() {
    const { video, audio } = this.tracks;
    if (video) this.read(VIDEO, video, (frame) => this.picture(frame));
    if (audio) this.read(AUDIO, audio, (data) => this.sound(data));
  }

  async read(id, track, take) {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    this.readers.push(reader);
    try {
      while (this.running) {
        const { done, value } = await reader.read();
        if (done) return;
        this.clock.seen(id, value.timestamp);
        try {
          await take(value);
        } finally {
          value.close();
        }
      }
    } catch (error) {
      this.fail(error);
    }
  }

  async picture(frame) {
    const size = fit(frame.displayWidth, frame.displayHeight, this.height);
    if (!this.video || this.size.width !== size.width || this.size.height !== size.height) await this.configureVideo(size);
    if (!this.running) return;
    if (this.video.encodeQueueSize > QUEUE_MAX) {
      this.count.dropped++;
      return;
    }
    const keyFrame = this.wantKey || frame.timestamp - this.lastKeyUs >= KEY_EVERY_US || frame.timestamp < this.lastKeyUs;
    if (keyFrame) {
      this.lastKeyUs = frame.timestamp;
      this.wantKey = false;
    }
    this.video.encode(frame, { keyFrame });
  }

  async configureVideo(size) {
    this.size = size;
    this.video ??= new VideoEncoder({
      output: (chunk, metadata) => this.output(VIDEO, chunk, metadata),
      error: (error) => this.fail(error),
    });
    this.videoConfig = await supported(size, this.videoBps);
    if (!this.running) return;
    this.video.configure(this.videoConfig);
    this.wantKey = true;
  }

  /** Changes the rate while it runs; the picture goes on. */
  setRate(bps) {
    if (bps === this.videoBps || this.video?.state !== 'configured') return;
    this.videoBps = bps;
    this.videoConfig = { ...this.videoConfig, bitrate: bps };
    this.video.configure(this.videoConfig);
    this.wantKey = true;
  }

  sound(data) {
    if (!this.audio) {
      this.audio = new AudioEncoder({
        output: (chunk, metadata) => this.output(AUDIO, chunk, metadata),
        error: (error) => this.fail(error),
      });
      this.channels = Math.min(2, data.numberOfChannels);
      this.audio.configure({ codec: 'opus', sampleRate: data.sampleRate, numberOfChannels: this.channels, bitrate: AUDIO_BPS, opus: { frameDuration: 20_000 } });
    }
    if (this.audio.encodeQueueSize <= 10 * QUEUE_MAX) this.audio.encode(data);
  }

  output(track, chunk, metadata) {
    const decoder = metadata?.decoderConfig;
    if (decoder) this.handlers.config(track === VIDEO ? this.videoTrack(decoder) : this.audioTrack(decoder));
    if (track === VIDEO) this.count.encoded++;
    this.handlers.packet(track, chunk);
  }

  videoTrack({ codec, codedWidth, codedHeight, description }) {
    return { id: VIDEO, kind: 'video', codec, width: codedWidth, height: codedHeight, config: base64(description) };
  }

  audioTrack({ numberOfChannels, description }) {
    return { id: AUDIO, kind: 'audio', codec: 'opus', sample_rate: 48_000, channels: numberOfChannels, config: base64(description) };
  }

  fail(error) {
    if (!this.running) return;
    this.stop();
    this.handlers.failed(error);
  }

  stop() {
    this.running = false;
    for (const reader of this.readers) reader.cancel().catch(() => {});
    for (const encoder of [this.video, this.audio]) if (encoder && encoder.state !== 'closed') encoder.close();
  }
}

/** At most this high, with the same sides' ratio, and even, as H.264 wants it. */
export function fit(width, height, most) {
  const scale = Math.min(1, most / Math.min(width, height));
  const even = (pixels) => Math.max(2, Math.round((pixels * scale) / 2) * 2);
  return { width: even(width), height: even(height) };
}

async function supported(size, bitrate) {
  for (const codec of PROFILES) {
    const config = { codec, ...size, bitrate, framerate: 30, latencyMode: 'realtime', avc: { format: 'avc' } };
    const answer = await VideoEncoder.isConfigSupported(config).catch(() => null);
    if (answer?.supported) return config;
  }
  throw new Error(`This browser cannot encode H.264 of ${size.width}×${size.height}.`);
}

function base64(description) {
  if (!description) return '';
  const bytes = ArrayBuffer.isView(description)
    ? new Uint8Array(description.buffer, description.byteOffset, description.byteLength)
    : new Uint8Array(description);
  return btoa(String.fromCharCode(...bytes));
}
