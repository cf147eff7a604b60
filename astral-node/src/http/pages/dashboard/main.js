// The dashboard: everything that this node does, as it happens, and everything that can be done to it.

import { api, events } from '../common/api.js';
import { $, confirmed, el, keyed, put } from '../common/dom.js';
import { unlocked } from '../common/lock.js';
import { Model } from './events.js';
import { Network } from './network.js';
import { Settings } from './settings.js';
import { Streams } from './streams.js';

/** How long what came of an action is shown. Milliseconds. */
const SAID_MS = 5_000;
const SAMPLE_MS = 1_000;

const model = new Model(() => soon());
const streams = new Streams(act);
const network = new Network(act);
const settings = new Settings();
let pending = false;
let gone = false;

/** Asks the node for something, and says what came of it. */
async function act(method, path, body, said = '') {
  try {
    const answer = await api(method, path, body);
    if (said) say(said, false);
    return answer ?? true;
  } catch (error) {
    say(error.message, true);
    return null;
  }
}

let saidTimer = 0;
function say(text, wrong) {
  put('said', text);
  $('said').dataset.kind = wrong ? 'wrong' : 'done';
  $('said').hidden = false;
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => ($('said').hidden = true), wrong ? 2 * SAID_MS : SAID_MS);
}

/** Many changes come at once; the page is drawn once for them. */
function soon() {
  if (pending) return;
  pending = true;
  setTimeout(() => {
    pending = false;
    render();
  }, 50);
}

function render() {
  if (!model.known) return;
  streams.render(model);
  network.render(model);
  const time = (at) => at.toLocaleTimeString('en-GB');
  const row = () => el('li', {}, el('time', { class: 'figure soft' }), el('span'));
  keyed($('log'), model.log, (event) => event.id, row, (item, event) => {
    put(item.firstChild, time(event.at));
    put(item.lastChild, event.text);
  });
  $('no-log').hidden = model.log.length > 0;
  if (model.me) document.title = `${model.me.name} · Astral`;
}

function connection(status) {
  if (status === 'open') model.begin();
  if (status === 'closed') {
    location.reload(); // the token is that of another run
    return;
  }
  $('offline').hidden = status === 'open';
  if (gone) put('offline', 'This node has been shut down. Start it again, and this page goes on.');
  else put('offline', 'The node does not answer. What you see is how it was; this page goes on by itself when it is back.');
  document.body.classList.toggle('stale', status !== 'open');
  if (status === 'open') {
    gone = false;
    settings.load().catch(() => {});
  }
}

/** A slug, an id or a share link of a stream that may not be known here yet. */
async function find(event) {
  event.preventDefault();
  const text = $('find').value.trim();
  if (!text) return;
  $('find-button').disabled = true;
  const stream = await act('GET', `/streams/${encodeURIComponent(text)}`);
  $('find-button').disabled = false;
  if (!stream) return;
  $('find').value = '';
  location.href = `/watch/${encodeURIComponent(stream.id)}`;
}

$('find-form').addEventListener('submit', find);
confirmed($('shutdown'), 'Really shut down?', async () => {
  gone = true;
  if (!(await act('DELETE', '/node', undefined, 'The node is shutting down.'))) gone = false;
});

await unlocked([$('content')]);
setInterval(() => network.sample(model.me), SAMPLE_MS);
// “Heard of 5 s ago” moves although nothing is told.
setInterval(soon, 5_000);
events((kind, data) => model.take(kind, data), connection);
