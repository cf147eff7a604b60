// How fast to play: the latency is held with spare buffer only, so slowly that nobody hears it.

/** Fastest playback while catching up; above it speech sounds hurried. */
const RATE_MAX = 1.08;
/** Playback while the buffer is being rebuilt after a hole has eaten it. */
const RATE_MIN = 0.95;
/** The least buffer of this long counts: single frames come and go. Milliseconds. */
const WINDOW_MS = 500;

/**
 * The rate for `least` seconds of buffer and a target. Between its two marks each of `catching` and `saving` stays as it
 * was, so that the rate does not flap. Saving is for a live source alone: one that is away fills no buffer.
 */
export function decide({ least, target, catching, saving, live }) {
  const over = least - target;
  if (over > 0.12) catching = true;
  else if (over < 0.02) catching = false;
  if (least < target * 0.6) saving = live;
  else if (least > target * 0.9) saving = false;
  let rate = 1;
  if (catching) rate = Math.min(RATE_MAX, Math.max(1.02, 1 + Math.round(over * 25) / 100));
  else if (saving) rate = RATE_MIN;
  return { rate, catching, saving };
}

export class Pace {
  constructor(target) {
    this.target = target;
    this.forget();
  }

  /** After a seek: what was measured before says nothing. */
  forget() {
    this.samples = [];
    this.catching = false;
    this.saving = false;
  }

  rate(ahead, live, now) {
    this.samples.push({ now, ahead });
    while (this.samples[0].now < now - WINDOW_MS) this.samples.shift();
    const least = Math.min(...this.samples.map((sample) => sample.ahead));
    const decided = decide({ least, target: this.target, catching: this.catching, saving: this.saving, live });
    this.catching = decided.catching;
    this.saving = decided.saving;
    return decided.rate;
  }
}
