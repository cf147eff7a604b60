// The figures below the picture, and the statistics panel with its plots.

import { $, put } from '../common/dom.js';
import { count, many, rate, seconds, short } from '../common/format.js';
import { Plot } from '../common/plot.js';

/** Time between two samples of the plots. Milliseconds. */
const SAMPLE_MS = 500;

export class Stats {
  constructor() {
    const time = [
      { name: 'latency', colour: '--accent' },
      { name: 'buffer', colour: '--second' },
      { name: 'target', colour: '--soft', dash: [4, 4] },
    ];
    this.time = new Plot($('plot-time'), { lines: time, unit: (s) => `${s.toFixed(1)} s`, floor: 1 });
    this.rate = new Plot($('plot-rate'), { lines: [{ name: 'bitrate', colour: '--accent' }], unit: rate, floor: 1e6 });
    this.sampledAt = 0;
  }

  render(stats, stream, player) {
    const local = stream?.local;
    put('latency', seconds(stats.latencyMs ?? NaN));
    put('bitrate', rate(stats.bitrateBps ?? NaN));
    put('resolution', stats.width ? `${stats.width}×${stats.height}` : '–');
    put('viewers', count(stream?.viewers));
    put('hops', local ? count(local.hops) : '–');
    put('parent', ...feeder(local));
    this.sample(stats, player);
    if (!$('stats').open) return;
    put('s-buffer', `${stats.bufferS.toFixed(2)} s, target ${(stats.targetMs / 1000).toFixed(1)} s`);
    put('s-rate', `${stats.playbackRate.toFixed(2)}×`);
    put('s-stalls', `${stats.waitingEvents}, ${seconds(stats.stalledMs)} in all`);
    put('s-freeze', `${stats.frameGapMaxMs} ms`);
    put('s-dropped', `${count(stats.droppedFrames)} of ${count(stats.totalFrames)}`);
    put('s-jumps', `${stats.jumps} over holes, ${stats.seeks} to the live edge`);
    put('s-reconnects', count(stats.reconnects));
    put('s-received', count(local?.frames_received));
    put('s-lost', count(local?.frames_lost));
    put('s-path', local ? `${many(local.hops, 'hop')}, ${Math.round(local.latency_ms)} ms` : '–');
    put('s-standby', local?.standby ? short(local.standby) : 'none', local?.standby ?? '');
    put('s-switches', count(local?.switches));
    put('s-epoch', count(stats.epoch));
    put('s-codecs', (stream?.tracks ?? []).map((track) => track.codec).filter(Boolean).join(', ') || '–');
    put('s-engine', { mse: 'Media Source Extensions', hls: 'LL-HLS by hls.js', native: 'HLS of this device' }[stats.engine]);
  }

  /** Sampled also while the panel is closed: whoever opens it wants to see what has just happened. */
  sample(stats, player) {
    const now = performance.now();
    if (now - this.sampledAt < SAMPLE_MS || document.hidden) return;
    this.sampledAt = now;
    const known = player.started;
    this.time.push([stats.latencyMs === null ? null : stats.latencyMs / 1000, known ? stats.bufferS : null, stats.targetMs / 1000], now);
    this.rate.push([known ? stats.bitrateBps : null], now);
  }
}

/** In words and in full who feeds this node. */
function feeder(local) {
  if (!local) return ['–', ''];
  if (local.parent) return [short(local.parent), local.parent];
  return local.hops === 0 || local.receiving === false ? ['this node', 'published on this node'] : ['looking…', ''];
}
