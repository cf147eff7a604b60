// A small live plot: a few lines over the last minute, drawn on a canvas in the page's own colours.

/** Lines of a plot: `{name, colour (a CSS variable), dash}`. */
export class Plot {
  /** `unit(value)` words a value; `windowMs` is the time shown. */
  constructor(canvas, { lines, unit, windowMs = 60_000, floor = 1 }) {
    this.canvas = canvas;
    this.lines = lines;
    this.unit = unit;
    this.windowMs = windowMs;
    this.floor = floor;
    this.samples = [];
    canvas.setAttribute('role', 'img');
    this.label();
  }

  /** Adds one value per line (null where there is none) and draws. */
  push(values, now = performance.now()) {
    this.samples.push({ now, values });
    while (this.samples[0].now < now - this.windowMs) this.samples.shift();
    this.draw(now);
  }

  draw(now) {
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const pen = canvas.getContext('2d');
    const style = getComputedStyle(canvas);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${style.fontFamily}`;

    const top = this.top();
    const [left, right, up, down] = [4, width - 4, 16, height - 6];
    const x = (time) => right - ((now - time) / this.windowMs) * (right - left);
    const y = (value) => down - (Math.min(value, top) / top) * (down - up);

    pen.strokeStyle = style.getPropertyValue('--line');
    pen.fillStyle = style.getPropertyValue('--soft');
    pen.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      pen.beginPath();
      pen.moveTo(left, Math.round(y(top * part)) + 0.5);
      pen.lineTo(right, Math.round(y(top * part)) + 0.5);
      pen.stroke();
      if (part > 0) pen.fillText(this.unit(top * part), left, y(top * part) - 3);
    }
    this.lines.forEach((line, i) => this.line(pen, style, line, i, x, y));
    this.label();
  }

  line(pen, style, { colour, dash }, i, x, y) {
    pen.strokeStyle = style.getPropertyValue(colour);
    pen.lineWidth = 1.8;
    pen.lineJoin = 'round';
    pen.setLineDash(dash ?? []);
    pen.beginPath();
    let down = false;
    for (const { now, values } of this.samples) {
      const value = values[i];
      if (!Number.isFinite(value)) {
        down = false;
        continue;
      }
      if (down) pen.lineTo(x(now), y(value));
      else pen.moveTo(x(now), y(value));
      down = true;
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  /** The highest value shown: a round number above all samples. */
  top() {
    const values = this.samples.flatMap((sample) => sample.values).filter(Number.isFinite);
    const most = Math.max(this.floor, ...values) * 1.05;
    const power = 10 ** Math.floor(Math.log10(most));
    return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= most);
  }

  /** What the plot says, for those who do not see it; every few seconds is often enough. */
  label() {
    const last = this.samples.at(-1)?.values ?? [];
    const words = this.lines.map(({ name }, i) => `${name} ${Number.isFinite(last[i]) ? this.unit(last[i]) : 'not known'}`);
    const text = words.join(', ');
    if (this.canvas.getAttribute('aria-label') !== text) this.canvas.setAttribute('aria-label', text);
  }
}
