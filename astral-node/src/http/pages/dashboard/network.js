// This node in the network: itself, its upload, its tickets, and the nodes it knows.

import { $, confirmed, el, keyed, put } from '../common/dom.js';
import { bytes, count, many, rate, short, since } from '../common/format.js';
import { Plot } from '../common/plot.js';
import { picture } from './picture.js';

const REACH = { reachable: 'can be reached', unreachable: 'cannot be reached', unknown: 'not known yet', local: 'this machine and network only' };
const ROLES = { node: 'Node', supernode: 'Supernode' };

export class Network {
  constructor(act) {
    this.act = act;
    const lines = [{ name: 'upload', colour: '--accent' }, { name: 'limit', colour: '--soft', dash: [4, 4] }];
    this.upload = new Plot($('upload'), { lines, unit: rate, windowMs: 120_000, floor: 1e6 });
  }

  render(model) {
    const { me } = model;
    if (me) this.self(me, model);
    this.tickets(model);
    this.nodes(model);
  }

  self(me, model) {
    put('me-name', me.name);
    put('me-role', ROLES[me.role] ?? me.role);
    put('me-id', me.uuid);
    put('me-addresses', me.addresses.join(', ') || 'none yet');
    const supernode = me.primary_supernode && model.now.node.get(me.primary_supernode);
    put('me-supernode', me.role === 'supernode' ? 'it is one' : me.primary_supernode ? (supernode?.name ?? short(me.primary_supernode)) : 'none yet', me.primary_supernode ?? '');
    put('me-children', count(me.children));
    this.outside(me);
    put('me-version', me.version);
    put('me-limit', me.upload_limit_bps === null ? 'unlimited' : rate(me.upload_limit_bps));
    put('me-used', rate(me.upload_used_bps ?? NaN));
    const warnings = me.warnings ?? [];
    $('warnings').hidden = warnings.length === 0;
    keyed($('warnings'), warnings, (text) => text, () => el('li'), (item, text) => put(item, text));
  }

  /** Whether others can reach it, why it is what it is, and what would help. */
  outside({ reachability, registered, role, role_reason: reason }) {
    const row = (id, text) => {
      $(id).parentElement.hidden = !text;
      put(id, text || '–');
    };
    row('me-registered', role === 'supernode' && Number.isFinite(registered) ? count(registered) : '');
    row('me-reachable', REACH[reachability?.state] ?? '');
    const words = [reason, reachability?.why, reachability?.help].filter(Boolean);
    put('me-why', [...new Set(words)].join(' '));
    $('me-why').hidden = words.length === 0;
  }

  /** Once a second, whether or not something has changed. */
  sample(me) {
    if (me && !document.hidden) this.upload.push([me.upload_used_bps, me.upload_limit_bps]);
  }

  tickets(model) {
    const all = [...model.now.ticket.values()].filter((ticket) => ticket.state !== 'ended');
    all.sort((a, b) => a.stream.slug.localeCompare(b.stream.slug) || a.created_at.localeCompare(b.created_at));
    const name = (id) => model.now.node.get(id)?.name ?? short(id);
    picture($('picture'), all, model.me?.uuid, name);
    $('no-tickets').hidden = all.length > 0;
    $('tickets-table').hidden = all.length === 0;
    keyed($('tickets'), all, (ticket) => ticket.id, (ticket) => this.ticketRow(ticket), (row, ticket) => this.updateTicket(row, ticket, model));
  }

  ticketRow(first) {
    const cell = (label, child) => el('td', { 'data-label': label }, child);
    const parts = { stream: el('a'), way: el('span'), pill: el('span', { class: 'pill' }), path: el('span'), sent: el('span', { class: 'figure' }) };
    const revoke = confirmed(el('button', { type: 'button', class: 'tight quiet danger' }, 'Revoke'), 'Sure?', () =>
      this.act('DELETE', `/streams/${first.stream.id}/tickets/${first.id}`, undefined, 'The ticket is revoked.'),
    );
    const row = el('tr', {}, cell('Stream', parts.stream), cell('From and to', parts.way), cell('State', parts.pill), cell('Path', parts.path), cell('Carried', parts.sent), cell('', revoke));
    row.parts = parts;
    return row;
  }

  updateTicket(row, ticket, model) {
    const { parts } = row;
    const me = model.me?.uuid;
    const name = (id) => (id === me ? 'this node' : (model.now.node.get(id)?.name ?? short(id)));
    put(parts.stream, ticket.stream.slug);
    parts.stream.href = `/watch/${encodeURIComponent(ticket.stream.id)}`;
    put(parts.way, `${name(ticket.source)} → ${name(ticket.destination)}`, `${ticket.source} → ${ticket.destination}`);
    parts.pill.dataset.state = ticket.state;
    put(parts.pill, ticket.state);
    put(parts.path, many(ticket.hops, 'hop'), ticket.path.map(short).join(' → '));
    put(parts.sent, `${rate(ticket.bitrate_bps)}, ${bytes(ticket.bytes)}`);
  }

  nodes(model) {
    const all = [...model.now.node.values()].filter((node) => !node.self);
    all.sort((a, b) => Number(b.connected) - Number(a.connected) || a.role.localeCompare(b.role) * -1 || a.name.localeCompare(b.name));
    $('no-nodes').hidden = all.length > 0;
    $('nodes-table').hidden = all.length === 0;
    keyed($('nodes'), all, (node) => node.uuid, (node) => this.nodeRow(node), (row, node) => this.updateNode(row, node));
  }

  nodeRow(first) {
    const cell = (label, child) => el('td', { 'data-label': label }, child);
    const parts = { dot: el('span', { class: 'dot' }), name: el('span'), role: el('span'), rtt: el('span', { class: 'figure' }), upload: el('span', { class: 'figure' }), where: el('span', { class: 'id' }), seen: el('span') };
    const forget = confirmed(el('button', { type: 'button', class: 'tight quiet danger' }, 'Forget'), 'Sure?', () =>
      this.act('DELETE', `/nodes/${first.uuid}`, undefined, `${first.name} is forgotten until it is heard of again.`),
    );
    const who = el('span', { class: 'who' }, parts.dot, parts.name);
    const row = el('tr', {}, cell('Node', who), cell('Role', parts.role), cell('Round trip', parts.rtt), cell('Upload', parts.upload), cell('Address', parts.where), cell('Heard of', parts.seen), cell('', forget));
    row.parts = parts;
    return row;
  }

  updateNode(row, node) {
    const { parts } = row;
    parts.dot.dataset.on = String(node.connected);
    put(parts.name, node.name, node.uuid);
    put(parts.role, `${ROLES[node.role] ?? node.role}${node.connected ? '' : ', not connected'}`);
    put(parts.rtt, node.rtt_ms === null ? '–' : `${node.rtt_ms.toFixed(1)} ms`);
    put(parts.upload, node.upload_used_bps === null ? '–' : `${rate(node.upload_used_bps)} of ${node.upload_limit_bps === null ? 'no limit' : rate(node.upload_limit_bps)}`);
    put(parts.where, node.addresses.join(' ') || '–');
    // When it was heard of moves all the time, and alone is no event.
    put(parts.seen, node.connected ? 'now' : `${since(node.last_seen)} ago`);
  }
}
