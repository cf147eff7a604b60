// What the node tells: the state of everything, and in words what has just changed.

import { STATES, short } from '../common/format.js';

/** After a connect everything comes as `added`; when nothing has come for so long, that was all. Milliseconds. */
const SETTLED_MS = 300;
/** Events kept in the list. */
export const LOG_MAX = 100;

const key = { node: (node) => node.uuid, stream: (stream) => stream.id, ticket: (ticket) => ticket.id };

const empty = () => ({ node: new Map(), stream: new Map(), ticket: new Map() });

export class Model {
  /** `changed` is called after every change of `now` or `log`. */
  constructor(changed) {
    this.changed = changed;
    this.now = empty();
    this.log = [];
    this.loading = null;
    this.known = false;
  }

  get me() {
    return [...this.now.node.values()].find((node) => node.self) ?? null;
  }

  /** A new connection: what it does not name any more is gone. The node itself is always named. */
  begin() {
    clearTimeout(this.timer);
    this.loading = empty();
  }

  settleSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.now = this.loading;
      this.loading = null;
      this.known = true;
      this.changed();
    }, SETTLED_MS);
  }

  take(kind, data) {
    const item = data[kind];
    if (!item || !key[kind]) return;
    if (this.loading) {
      this.loading[kind].set(key[kind](item), item);
      this.settleSoon();
      return;
    }
    const all = this.now[kind];
    const before = all.get(key[kind](item));
    if (data.change === 'removed') all.delete(key[kind](item));
    else all.set(key[kind](item), item);
    for (const text of words(kind, data.change, before, item)) this.note(text);
    this.changed();
  }

  note(text) {
    this.log.unshift({ id: `${Date.now()}-${Math.random()}`, at: new Date(), text });
    this.log.length = Math.min(this.log.length, LOG_MAX);
  }
}

/** What a change means to a person; often nothing. */
export function words(kind, change, before, now) {
  if (kind === 'stream') return streamWords(change, before, now);
  if (kind === 'ticket') return ticketWords(change, before, now);
  return nodeWords(change, before, now);
}

function streamWords(change, before, now) {
  const name = `“${now.name}”`;
  if (change === 'added') return [`Stream ${name} is known here (${STATES[now.state].toLowerCase()})`];
  if (change === 'removed') return [`Stream ${name} is gone`];
  const said = [];
  if (before.state !== now.state) said.push(`Stream ${name}: ${STATES[now.state].toLowerCase()}`);
  else if (before.epoch !== now.epoch && now.epoch > 0) said.push(`Stream ${name} goes on in epoch ${now.epoch}: its encoder started anew`);
  const [was, is] = [before.local, now.local];
  if (was.parent !== is.parent && is.parent) said.push(`${name} now comes from ${short(is.parent)}${was.parent ? `, no longer from ${short(was.parent)}` : ''}`);
  else if (was.receiving && !is.receiving) said.push(`${name} is not received any more`);
  return said;
}

function ticketWords(change, before, now) {
  const edge = `${short(now.source)} → ${short(now.destination)} for ${now.stream.slug}`;
  if (change === 'added') return [`Ticket ${edge}: ${now.state}`];
  if (change === 'removed') return [`Ticket ${edge} is over${now.reason ? `: ${now.reason}` : ''}`];
  return before.state === now.state ? [] : [`Ticket ${edge}: ${now.state}${now.reason ? `, ${now.reason}` : ''}`];
}

function nodeWords(change, before, now) {
  const who = now.self ? 'This node' : `Node ${now.name}`;
  if (change === 'added') return now.self ? [] : [`${who} is known here`];
  if (change === 'removed') return [`${who} is forgotten`];
  const said = [];
  if (before.role !== now.role) said.push(`${who} is now a ${now.role}`);
  if (!now.self && before.connected !== now.connected) said.push(`${who} is ${now.connected ? 'connected' : 'not connected any more'}`);
  if (before.primary_supernode !== now.primary_supernode && now.self && now.primary_supernode) said.push(`Registered with supernode ${short(now.primary_supernode)}`);
  return said;
}
