// This node's neighbourhood as a picture: who feeds it, and whom it feeds. The table below it says the same in words.

import { short } from '../common/format.js';

const SVG = 'http://www.w3.org/2000/svg';
/** Neighbours drawn per side; the table has them all. */
const MOST = 12;
const ROW = 34;
const [WIDTH, BOX, TALL] = [620, 150, 26];

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

/** One neighbour per side, however many tickets: in use if one is, else a standby. */
function sides(tickets, me) {
  const left = new Map();
  const right = new Map();
  for (const { source, destination, state } of tickets) {
    if (source === destination || !['active', 'standby'].includes(state)) continue;
    const [side, other] = destination === me ? [left, source] : source === me ? [right, destination] : [null, null];
    if (side && side.get(other) !== 'active') side.set(other, state);
  }
  return [left, right].map((side) => [...side].slice(0, MOST));
}

/** Draws into `svg`; nothing to draw hides it. */
export function picture(svg, tickets, me, name) {
  const [left, right] = sides(tickets, me);
  const what = JSON.stringify([left, right]);
  svg.toggleAttribute('hidden', left.length + right.length === 0);
  if (svg.dataset.what === what) return;
  svg.dataset.what = what;
  const height = Math.max(left.length, right.length, 1) * ROW;
  const middle = height / 2;
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${height}`);
  svg.replaceChildren();
  const at = (list, i) => middle + (i - (list.length - 1) / 2) * ROW;
  const centre = [(WIDTH - BOX) / 2, (WIDTH + BOX) / 2];
  left.forEach(([, state], i) => svg.append(edge(BOX, at(left, i), centre[0], middle, state)));
  right.forEach(([, state], i) => svg.append(edge(centre[1], middle, WIDTH - BOX, at(right, i), state)));
  left.forEach(([id], i) => svg.append(...box(0, at(left, i), name(id))));
  right.forEach(([id], i) => svg.append(...box(WIDTH - BOX, at(right, i), name(id))));
  svg.append(...box(centre[0], middle, 'this node', 'me'));
}

function edge(x1, y1, x2, y2, state) {
  const bend = (x2 - x1) / 2;
  return draw('path', { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, class: `edge ${state}` });
}

function box(x, y, text, kind = '') {
  const rect = draw('rect', { x: x + 1, y: y - TALL / 2, width: BOX - 2, height: TALL, rx: 7, class: `box ${kind}` });
  const words = text.length > 17 ? `${text.slice(0, 16)}…` : text || short(text);
  return [rect, draw('text', { x: x + BOX / 2, y: y + 4.5, 'text-anchor': 'middle', class: kind }, words)];
}
