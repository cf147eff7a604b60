// Figures in words, the same on every page.

export const short = (uuid) => (uuid ? uuid.slice(0, 8) : '–');

export const count = (n) => (Number.isFinite(n) ? n.toLocaleString('en') : '–');

/** `1 hop`, `2 hops`. */
export const many = (n, one) => `${count(n)} ${one}${n === 1 ? '' : 's'}`;

/** A rate in bit/s. */
export function rate(bps) {
  if (!Number.isFinite(bps)) return '–';
  if (bps >= 1e9) return `${(bps / 1e9).toFixed(2)} Gbit/s`;
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bps / 1e3)} kbit/s`;
}

/** Bytes carried. */
export function bytes(n) {
  if (!Number.isFinite(n)) return '–';
  for (const [unit, size] of [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]]) {
    if (n >= size) return `${(n / size).toFixed(n >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${n} B`;
}

export const seconds = (ms) => (Number.isFinite(ms) ? `${(ms / 1000).toFixed(1)} s` : '–');

/** How long ago or how long, in the largest unit that fits. */
export function span(ms) {
  if (!Number.isFinite(ms)) return '–';
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export const since = (time) => span(Date.now() - Date.parse(time));

export const STATES = { live: 'Live', waiting: 'Encoder away', paused: 'Paused', ended: 'Ended' };

/** Picture and sound in a line: `1280×720 · avc1.64001f, opus`. */
export function tracks(list) {
  const video = list.find((track) => track.width);
  const codecs = list.map((track) => track.codec).filter(Boolean).join(', ');
  return [video && `${video.width}×${video.height}`, codecs].filter(Boolean).join(' · ') || '–';
}
