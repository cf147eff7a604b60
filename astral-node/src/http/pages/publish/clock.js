// One clock for picture and sound.
//
// Chromium stamps a camera's pictures by the machine's clock and a microphone's sound by the page's (measured: 2,607 s
// apart). What belongs together is what arrives together: the least delay ever seen of each track stands for none.

/** Offsets of two tracks this close belong to one clock, and are not touched apart. Microseconds. */
const SAME_CLOCK_US = 1_000_000;

export class Clock {
  constructor() {
    this.offsets = new Map();
    this.fixed = false;
  }

  /** A frame with this stamp has just arrived. */
  seen(track, stampUs, nowUs = performance.now() * 1000) {
    if (!this.fixed) this.offsets.set(track, Math.min(this.offsets.get(track) ?? Infinity, nowUs - stampUs));
  }

  /** From here on stamps must not move any more. */
  fix() {
    if (this.fixed) return;
    this.fixed = true;
    const all = [...this.offsets.values()];
    const same = Math.max(...all) - Math.min(...all) < SAME_CLOCK_US;
    if (same) for (const track of this.offsets.keys()) this.offsets.set(track, Math.min(...all));
  }

  /** The stamp on the common clock. */
  at(track, stampUs) {
    return Math.round(stampUs + (this.offsets.get(track) ?? 0));
  }
}
