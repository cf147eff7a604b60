// The player for where media cannot come over a WebSocket: hls.js on LL-HLS, or Apple's own HLS.
//
// Has the face of player.js. What the stream is, the node's API says where it may; elsewhere only the playlist does.

import { errors, note, noteError } from './log.js';

/** Time between two looks at the stream. Milliseconds. */
const LOOK_MS = 2_000;
/** Wait before trying again after the end of hls.js's own patience. Milliseconds. */
const RETRY_MS = 2_000;

export class HlsPlayer {
  constructor(video, { slug, target, native }) {
    this.video = video;
    this.slug = slug;
    this.target = target;
    this.native = native;
    this.state = 'idle';
    this.stream = null;
    this.message = null;
    this.news = null;
    this.wantPlay = true;
    this.blocked = false;
    this.parked = false;
    this.started = false;
    this.everOpened = false;
    this.connected = false;
    this.stalledAt = null;
    this.firstPlayingMs = null;
    this.bitrateBps = null;
    this.count = { waiting: 0, rebuilds: 0 };
    this.hls = null;
  }

  static native(video) {
    return video.canPlayType('application/vnd.apple.mpegurl') !== '';
  }

  get playlist() {
    return `/live/${encodeURIComponent(this.slug)}/index.m3u8`;
  }

  async start() {
    this.setState('connecting');
    this.listen();
    this.look();
    this.looking = setInterval(() => this.look(), LOOK_MS);
    if (this.native) this.load();
    else await this.attach();
  }

  setState(state) {
    if (state === this.state) return;
    note('state', { from: this.state, to: state });
    this.state = state;
  }

  load() {
    this.video.src = this.playlist;
    this.play();
  }

  async attach() {
    const { default: Hls } = await import('../vendor/hls.min.mjs');
    if (!Hls.isSupported()) {
      this.message = { title: 'Cannot be played here', detail: 'This browser has no Media Source Extensions.' };
      this.setState('unsupported');
      return;
    }
    const hls = new Hls({
      lowLatencyMode: true,
      backBufferLength: 10,
      maxLiveSyncPlaybackRate: 1.08,
      liveDurationInfinity: true,
    });
    this.hls = hls;
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      this.connected = this.everOpened = true;
      this.message = null;
      if (this.wantPlay) this.play();
    });
    hls.on(Hls.Events.LEVEL_LOADED, () => (this.connected = true));
    hls.on(Hls.Events.FRAG_LOADED, (_, { frag }) => {
      const bits = (frag.stats?.total ?? 0) * 8;
      if (frag.duration > 0 && frag.type === 'main') this.bitrateBps = Math.round(bits / frag.duration);
    });
    hls.on(Hls.Events.ERROR, (_, data) => this.failed(data, Hls));
    hls.loadSource(this.playlist);
    hls.attachMedia(this.video);
  }

  failed(data, Hls) {
    note('hls', { type: data.type, details: data.details, fatal: data.fatal });
    if (!data.fatal) return;
    this.connected = false;
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && this.count.rebuilds++ < 3) {
      this.hls.recoverMediaError();
      return;
    }
    const status = data.response?.code ?? 0;
    if (!this.started) {
      this.message = { title: 'Not now', detail: 'The node does not offer the stream at the moment.' };
      this.setState(status === 404 ? 'missing' : 'refused');
    }
    this.hls.destroy();
    setTimeout(() => this.attach().catch((error) => noteError(error.message)), RETRY_MS);
  }

  /** Strangers may not ask; then what is on is all there is to say. */
  async look() {
    const answer = await fetch(`/api/v1/streams/${encodeURIComponent(this.slug)}`).catch(() => null);
    if (answer?.ok) this.stream = await answer.json();
    else if (answer?.status === 404) this.stream = null;
    else if (answer?.status === 401 || answer?.status === 403) clearInterval(this.looking);
  }

  listen() {
    const on = (name, handle) => this.video.addEventListener(name, handle);
    on('playing', () => {
      note('playing', this.video.currentTime);
      this.started = this.connected = this.everOpened = true;
      this.firstPlayingMs ??= Math.round(performance.now());
      this.stalledAt = null;
      this.setState('playing');
    });
    on('waiting', () => {
      note('waiting', { seeking: this.video.seeking });
      if (!this.started || this.video.paused || this.video.seeking) return;
      this.count.waiting++;
      this.stalledAt ??= performance.now();
      this.setState('stalled');
    });
    if (this.native) {
      on('error', () => {
        this.connected = false;
        if (!this.started) this.setState('refused');
        setTimeout(() => this.load(), RETRY_MS);
      });
    }
    document.addEventListener('visibilitychange', () => !document.hidden && this.wantPlay && this.goLive('visible again', 0.5));
  }

  play() {
    this.video.play().then(
      () => (this.blocked = false),
      (error) => {
        if (error.name !== 'NotAllowedError') return;
        this.blocked = this.video.muted;
        if (this.video.muted) return;
        this.video.muted = true;
        this.play();
      },
    );
  }

  resume() {
    this.wantPlay = true;
    this.goLive('back from a pause');
    this.play();
  }

  pause() {
    this.wantPlay = false;
    this.video.pause();
    this.setState('paused');
  }

  goLive(why, slack = 0) {
    const position = this.hls ? this.hls.liveSyncPosition : this.edge();
    if (!this.started || !position || position - this.video.currentTime < slack) return;
    note('seek', { why, to: position });
    this.video.currentTime = position;
  }

  edge() {
    const { seekable } = this.video;
    return seekable.length ? seekable.end(seekable.length - 1) - this.target : null;
  }

  ahead() {
    const { buffered, currentTime } = this.video;
    for (let i = 0; i < buffered.length; i++) {
      if (currentTime >= buffered.start(i) - 0.02 && currentTime <= buffered.end(i)) return buffered.end(i) - currentTime;
    }
    return 0;
  }

  latencyMs() {
    const latency = this.hls?.latency;
    return this.started && latency > 0 ? Math.round(latency * 1000) : null;
  }

  /** Behind the publisher's wall clock, which is this machine's only in tests. */
  wallLatencyMs() {
    const playing = this.hls?.playingDate;
    return this.started && playing ? Date.now() - playing.getTime() : null;
  }

  stats() {
    const { video, stream } = this;
    const quality = video.getVideoPlaybackQuality?.();
    const live = this.started ? 'live' : null;
    return {
      engine: this.native ? 'native' : 'hls',
      state: this.state,
      streamState: stream?.state ?? live,
      connected: this.connected,
      reconnects: 0,
      waitingEvents: this.count.waiting,
      stalledMs: 0,
      droppedFrames: quality?.droppedVideoFrames ?? 0,
      totalFrames: quality?.totalVideoFrames ?? 0,
      frameGapMaxMs: 0,
      latencyMs: this.latencyMs(),
      wallLatencyMs: this.wallLatencyMs(),
      targetMs: Math.round((this.hls?.targetLatency ?? this.target) * 1000),
      bufferS: this.ahead(),
      currentTime: video.currentTime,
      playbackRate: video.playbackRate,
      width: video.videoWidth,
      height: video.videoHeight,
      muted: video.muted,
      epoch: stream?.epoch ?? null,
      jumps: 0,
      seeks: 0,
      gaps: 0,
      rebuilds: this.count.rebuilds,
      piecesSkipped: 0,
      firstPlayingMs: this.firstPlayingMs,
      errors: [...errors],
      parent: stream?.local?.parent ?? null,
      standby: stream?.local?.standby ?? null,
      hops: stream?.local?.hops ?? null,
      switches: stream?.local?.switches ?? null,
      bitrateBps: this.bitrateBps ?? stream?.bitrate_bps ?? null,
    };
  }
}
