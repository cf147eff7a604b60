// The streams, live ones first, and what can be done with each.

import { $, confirmed, copy, el, keyed, put } from '../common/dom.js';
import { STATES, count, many, rate, short, since, tracks } from '../common/format.js';

const ORDER = ['live', 'paused', 'waiting', 'ended'];

/** `act(method, path, body, said)` asks the node, and tells what came of it. */
export class Streams {
  constructor(act) {
    this.act = act;
  }

  render(model) {
    this.me = model.me;
    this.model = model;
    const list = [...model.now.stream.values()].sort((a, b) => this.rank(a) - this.rank(b) || a.name.localeCompare(b.name));
    keyed($('streams'), list, (stream) => stream.id, (stream) => this.make(stream), (card, stream) => this.update(card, stream));
    $('no-streams').hidden = list.length > 0;
    put('streams-count', list.length > 0 ? String(list.length) : '');
  }

  isOwn(stream) {
    return stream.publisher === this.me?.uuid;
  }

  rank(stream) {
    return ORDER.indexOf(stream.state) * 4 + (this.isOwn(stream) ? 0 : stream.local.receiving ? 1 : 2);
  }

  make(first) {
    let stream = first;
    const path = () => `/streams/${stream.id}`;
    const parts = {
      pill: el('span', { class: 'pill' }),
      name: el('a', { class: 'name' }),
      about: el('p', { class: 'small soft about' }),
      does: el('p', { class: 'does' }),
      figures: el('p', { class: 'small soft figure' }),
    };
    const button = (text, act, kind = '') => el('button', { type: 'button', class: `tight ${kind}`, click: act }, text);
    parts.pause = button('Pause', () => this.act('PATCH', path(), { paused: stream.state !== 'paused' }));
    parts.send = el('a', { class: 'button tight' }, 'How to send');
    parts.take = button('Receive', () =>
      stream.local.receiving
        ? this.act('DELETE', `${path()}/ticket`, undefined, `“${stream.name}” is not received any more.`)
        : this.act('POST', `${path()}/tickets`, {}, `This node receives “${stream.name}”.`),
    );
    parts.share = el('button', { type: 'button', class: 'tight', click: () => copy(stream.share, parts.share) }, el('span', { class: 'label', 'aria-live': 'polite' }, 'Copy share link'));
    parts.end = confirmed(button('End', () => {}, 'danger'), 'End for everyone?', () => this.act('DELETE', path(), undefined, `“${stream.name}” has ended.`));
    parts.seed = el('select', { class: 'seed', 'aria-label': 'Seed to a node', change: () => this.seed(stream, parts.seed) });
    parts.update = (now) => (stream = now);
    const actions = el('div', { class: 'acts' }, parts.pause, parts.take, parts.send, parts.share, parts.seed, parts.end);
    const card = el('li', { class: 'stream' }, el('div', { class: 'title' }, parts.pill, parts.name), parts.about, parts.does, parts.figures, actions);
    card.parts = parts;
    return card;
  }

  update(card, stream) {
    const { parts } = card;
    const own = this.isOwn(stream);
    parts.update(stream);
    card.dataset.state = stream.state;
    parts.pill.dataset.state = stream.state;
    put(parts.pill, STATES[stream.state]);
    put(parts.name, stream.name);
    const watch = `/watch/${encodeURIComponent(stream.id)}`;
    if (parts.name.getAttribute('href') !== watch) parts.name.href = watch;
    put(parts.about, stream.description);
    parts.about.hidden = !stream.description;
    put(parts.does, this.role(stream, own));
    put(parts.figures, this.figures(stream));
    put(parts.pause, stream.state === 'paused' ? 'Resume' : 'Pause');
    put(parts.take, stream.local.receiving ? 'Stop receiving' : 'Receive');
    parts.send.href = `/publish?stream=${encodeURIComponent(stream.id)}`;
    parts.pause.hidden = parts.send.hidden = parts.end.hidden = !own || stream.state === 'ended';
    parts.take.hidden = own;
    parts.share.hidden = !stream.share;
    this.updateSeed(parts.seed, own || stream.local.receiving);
  }

  /** What this node does for it. */
  role(stream, own) {
    const children = [...this.model.now.ticket.values()].filter((ticket) => ticket.stream.id === stream.id && ticket.source === this.me?.uuid && ticket.state === 'active').length;
    const feeds = children > 0 ? ` and feeds ${many(children, 'node')}` : '';
    if (own) return `This node publishes it${feeds}.`;
    const { receiving, parent, standby } = stream.local;
    if (!receiving) return 'Known, not received.';
    const from = parent ? `from ${short(parent)}` : 'from nobody yet';
    return `This node receives it ${from}${standby ? `, with ${short(standby)} as standby` : ''}${feeds}.`;
  }

  figures(stream) {
    const viewers = many(stream.viewers, 'viewer');
    const way = stream.local.receiving ? `${many(stream.local.hops, 'hop')}, ${Math.round(stream.local.latency_ms)} ms` : null;
    const lost = stream.local.frames_lost > 0 ? `${count(stream.local.frames_lost)} frames lost` : null;
    const live = stream.state === 'live';
    const audience = stream.audience && stream.audience.viewers > 0 ? `audience at most ${Math.round(stream.audience.delay_p99_ms)} ms away, ${stream.audience.depth} deep, ${stream.audience.stalls} stalls in the last minute` : null;
    return [live && tracks(stream.tracks), live && rate(stream.bitrate_bps), viewers, audience, way, lost, `since ${since(stream.started_at)}`, stream.unlisted && 'unlisted', stream.slug].filter(Boolean).join(' · ');
  }

  updateSeed(menu, possible) {
    const others = [...this.model.now.node.values()].filter((node) => !node.self && node.connected);
    menu.hidden = !possible || others.length === 0;
    const ids = others.map((node) => node.uuid).join();
    if (menu.hidden || menu.dataset.ids === ids || menu === document.activeElement) return;
    menu.dataset.ids = ids;
    menu.replaceChildren(new Option('Seed to…', ''), ...others.map((node) => new Option(node.name, node.uuid)));
  }

  async seed(stream, menu) {
    const destination = menu.value;
    const name = menu.selectedOptions[0]?.text;
    menu.value = '';
    if (destination) await this.act('POST', `/streams/${stream.id}/tickets`, { destination }, `“${stream.name}” is offered to ${name}.`);
  }
}
