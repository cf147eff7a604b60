// The publish page: choose, look, go live, stop.
//
//   idle ──preview──► ready ──go live──► starting ──► on air ◄──► away        stop and errors lead back to idle
//
// The key of a stream never leaves the node's own pages; it goes to the node in the socket's first message.

import { api } from '../common/api.js';
import { $, copy, put } from '../common/dom.js';
import { bytes, count, rate, span } from '../common/format.js';
import { unlocked } from '../common/lock.js';
import { Plot } from '../common/plot.js';
import { devices, open } from './capture.js';
import { Encoder, VIDEO, missing } from './encoder.js';
import { Recipes } from './recipes.js';
import { Uplink } from './uplink.js';

/** Time between two looks at the figures. Milliseconds. */
const LOOK_MS = 500;
/** Time between two questions for the viewers. Milliseconds. */
const VIEWERS_MS = 2_000;
/** Lowest rate when the way to the node is crowded, and how fast the rate comes back. */
const LOWEST_BPS = 300_000;
const RAISE_MS = 10_000;

const recipes = new Recipes();
const plot = new Plot($('plot'), {
  lines: [{ name: 'sent', colour: '--accent' }, { name: 'chosen', colour: '--soft', dash: [4, 4] }],
  unit: rate,
  floor: 500_000,
});

let me = null;
let streams = [];
let source = null;
let session = null;

const chosen = () => streams.find((stream) => stream.id === $('stream').value) ?? null;
const kind = () => document.querySelector('input[name="kind"]:checked').value;

// ── streams ──

async function loadStreams(select) {
  const list = await api('GET', '/streams?limit=1000');
  streams = list.items.filter((stream) => stream.publisher === me.uuid && stream.ingest);
  const menu = $('stream');
  const before = select ?? menu.value;
  menu.replaceChildren(new Option('New stream…', ''), ...streams.map((stream) => new Option(stream.name, stream.id)));
  menu.value = streams.some((stream) => stream.id === before) ? before : '';
  showStream();
}

function showStream() {
  $('new-stream').hidden = chosen() !== null;
  recipes.show(chosen());
}

/** The chosen stream, made now if it is a new one. */
async function theStream() {
  if (chosen()) return chosen();
  const name = $('name').value.trim();
  if (!name) {
    $('name').focus();
    throw new Error('The stream needs a name.');
  }
  const description = $('description').value.trim();
  const made = await api('POST', '/streams', { name, ...(description && { description }), unlisted: $('unlisted').checked });
  $('name').value = $('description').value = '';
  await loadStreams(made.id);
  return made;
}

// ── the source ──

function wish() {
  const height = Number($('height').value);
  return { kind: kind(), camera: $('camera').value, microphone: $('microphone').value, height, file: $('file').files[0], loop: $('loop').checked };
}

async function look() {
  closeSource();
  const opened = await open(wish());
  source = opened;
  $('video').srcObject = opened.stream;
  $('preview').classList.toggle('mirrored', kind() === 'camera');
  const sees = opened.stream.getVideoTracks().length > 0;
  $('empty').hidden = sees;
  if (!sees) put('empty-text', 'Sound only.');
  meter(opened.stream);
  for (const track of opened.stream.getTracks()) track.addEventListener('ended', () => opened === source && ended());
  opened.ended?.then(() => opened === source && ended());
  await nameDevices();
}

/** The source is over: the screen's own “stop sharing”, a camera unplugged, a file at its end. */
function ended() {
  if (session) stop('The source has ended.');
  else closeSource();
}

function closeSource() {
  source?.stop();
  source?.meter?.();
  source = null;
  $('video').srcObject = null;
  $('level').hidden = true;
  $('empty').hidden = false;
  put('empty-text', 'Choose a source, then look at the preview.');
}

/** Shows that there is sound, before anybody else hears that there is none. */
function meter(stream) {
  if (stream.getAudioTracks().length === 0) return;
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    $('level').value = Math.min(1, Math.sqrt(power) * 3);
  }, 100);
  $('level').hidden = false;
  source.meter = () => {
    clearInterval(timer);
    context.close();
  };
}

/** Names are there once something was permitted. */
async function nameDevices() {
  const { cameras, microphones } = await devices();
  for (const [id, list] of [['camera', cameras], ['microphone', microphones]]) {
    const menu = $(id);
    const before = menu.value;
    const fixed = [...menu.options].filter((option) => ['', 'none'].includes(option.value));
    menu.replaceChildren(fixed[0], ...list.filter((device) => device.id !== 'default').map((device) => new Option(device.label, device.id)), fixed[1]);
    menu.value = [...menu.options].some((option) => option.value === before) ? before : '';
  }
}

// ── on air ──

async function goLive() {
  if (!source) await look();
  const stream = await theStream();
  const bps = Number($('bitrate').value);
  const live = { stream, bps, startedAt: null, uplink: null, waiting: new Map(), lastBytes: 0, lastFrames: 0, lastAt: performance.now() };
  session = live;
  const { video, audio } = { video: source.stream.getVideoTracks()[0], audio: source.stream.getAudioTracks()[0] };
  const wanted = (video ? 1 : 0) + (audio ? 1 : 0);
  live.encoder = new Encoder(source.stream, {
    videoBps: bps,
    height: wish().height,
    config: (track) => configured(live, track, wanted),
    packet: (track, chunk) => live.uplink?.send(track, chunk, track === VIDEO, () => stamp(live, track, chunk)),
    failed: (error) => stop(error.message),
  });
  live.encoder.start();
  show('Starting…', 'waiting');
  live.timer = setInterval(() => figures(live), LOOK_MS);
  live.viewersTimer = setInterval(() => viewers(live), VIEWERS_MS);
  busy(true);
}

/** The node is told of all tracks at once: connects when each has its first configuration. */
function configured(live, track, wanted) {
  if (live !== session) return;
  if (live.uplink) {
    live.uplink.configure(track);
    return;
  }
  live.waiting.set(track.id, track);
  if (live.waiting.size < wanted) return;
  live.uplink = new Uplink(live.stream.ingest.stream_key, [...live.waiting.values()], {
    status: (state, words) => status(live, state, words),
    needKey: () => (live.encoder.wantKey = true),
    crowded: () => crowded(live),
  });
  live.uplink.bps = live.bps;
}

function stamp({ encoder }, track, chunk) {
  encoder.clock.fix();
  return encoder.clock.at(track, chunk.timestamp);
}

function status(live, state, words) {
  if (live !== session) return;
  if (state === 'sending') {
    live.startedAt ??= Date.now();
    show('On air', 'live');
  } else if (state === 'away') show('Reconnecting…', 'waiting');
  else if (state === 'over') stop(words);
}

/** The way to the node is too narrow: less for a while. */
function crowded(live) {
  live.crowdedAt = performance.now();
  live.encoder.setRate(Math.max(LOWEST_BPS, Math.round(live.encoder.videoBps * 0.75)));
}

function stop(words = '') {
  const live = session;
  session = null;
  if (live) {
    clearInterval(live.timer);
    clearInterval(live.viewersTimer);
    live.encoder.stop();
    live.uplink?.end();
  }
  closeSource();
  busy(false);
  put('wrong', words);
}

function show(text, state) {
  put('on-air', text);
  $('on-air').dataset.state = state;
}

function busy(live) {
  $('on-air').hidden = $('live-card').hidden = $('stop').hidden = !live;
  $('go').hidden = $('look').hidden = live;
  for (const id of ['camera', 'microphone', 'height', 'bitrate', 'stream', 'file', 'name', 'description', 'unlisted']) $(id).disabled = live;
  for (const radio of document.querySelectorAll('input[name="kind"]')) radio.disabled = live;
  if (live) $('watch-link').href = `/watch/${encodeURIComponent(session.stream.id)}`;
}

// ── figures ──

function figures(live) {
  const now = performance.now();
  const { uplink, encoder } = live;
  const seconds = (now - live.lastAt) / 1000;
  const sent = uplink ? ((uplink.count.bytes - live.lastBytes) * 8) / seconds : 0;
  const fps = (encoder.count.encoded - live.lastFrames) / seconds;
  live.average = live.average === undefined ? sent : live.average * 0.7 + sent * 0.3;
  live.averageFps = live.averageFps === undefined ? fps : live.averageFps * 0.7 + fps * 0.3;
  Object.assign(live, { lastAt: now, lastBytes: uplink?.count.bytes ?? 0, lastFrames: encoder.count.encoded });
  if (live.crowdedAt && now - live.crowdedAt > RAISE_MS) {
    live.crowdedAt = encoder.videoBps < live.bps ? now : 0;
    encoder.setRate(Math.min(live.bps, Math.round(encoder.videoBps * 1.25)));
  }
  plot.push([live.average, live.bps], now);
  put('f-time', live.startedAt ? span(Date.now() - live.startedAt) : '–');
  put('f-rate', `${rate(live.average)}, ${bytes(uplink?.count.bytes ?? 0)}`);
  put('f-picture', encoder.size ? `${encoder.size.width}×${encoder.size.height}` : 'none');
  put('f-fps', encoder.size ? live.averageFps.toFixed(0) : '–');
  put('f-dropped', count(encoder.count.dropped + (uplink?.count.dropped ?? 0)));
  put('f-queue', bytes(uplink?.socket.bufferedAmount ?? 0));
  put('f-reconnects', count(uplink?.count.reconnects ?? 0));
}

async function viewers(live) {
  const stream = await api('GET', `/streams/${live.stream.id}`).catch(() => null);
  if (stream && live === session) put('f-viewers', count(stream.viewers));
}

/** For tests, and for people who look closely. */
window.astralPublish = () => ({
  state: session ? $('on-air').textContent : 'idle',
  sent: session?.uplink?.count ?? null,
  encoded: session?.encoder.count ?? null,
  epoch: session?.uplink?.epoch ?? null,
  wrong: $('wrong').textContent,
});

// ── wiring ──

/** Runs what a person asked for; what goes wrong is said where they look. */
async function attempt(act) {
  put('wrong', '');
  for (const id of ['look', 'go', 'create']) $(id).disabled = true;
  try {
    await act();
  } catch (error) {
    if (!session) closeSource();
    put('wrong', words(error));
  }
  for (const id of ['look', 'go', 'create']) $(id).disabled = false;
  if (missing()) $('look').disabled = $('go').disabled = true;
}

function words(error) {
  if (error.name === 'NotAllowedError') return 'The browser was not allowed to use that source. Allow it beside the address, and try again.';
  if (error.name === 'NotFoundError') return 'There is no such device here.';
  if (error.name === 'NotReadableError') return 'The device is used by another program.';
  if (error.name === 'OverconstrainedError') return 'That device is gone. Choose another.';
  return error.message;
}

function showKind() {
  for (const part of document.querySelectorAll('[data-for]')) part.hidden = !part.dataset.for.split(' ').includes(kind());
  if (source && !session) closeSource();
}

function wire() {
  $('form').addEventListener('submit', (event) => {
    event.preventDefault();
    attempt(goLive);
  });
  $('look').addEventListener('click', () => attempt(look));
  $('stop').addEventListener('click', () => stop());
  $('create').addEventListener('click', () => attempt(theStream));
  $('stream').addEventListener('change', showStream);
  for (const radio of document.querySelectorAll('input[name="kind"]')) radio.addEventListener('change', showKind);
  for (const id of ['camera', 'microphone', 'height', 'file', 'loop']) $(id).addEventListener('change', () => source && !session && attempt(look));
  $('share').addEventListener('click', () => copy(session?.stream.share ?? '', $('share')));
  showKind();
  const why = missing();
  $('unable').hidden = !why;
  put('unable', why ? `${why} OBS and ffmpeg work everywhere, see below.` : '');
  $('look').disabled = $('go').disabled = Boolean(why);
}

wire();
me = await unlocked([$('left'), $('right'), $('below')]);
await loadStreams(new URLSearchParams(location.search).get('stream'));
if (navigator.mediaDevices) nameDevices().catch(() => {});
