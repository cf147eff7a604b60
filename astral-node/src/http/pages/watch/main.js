// The watch page: which player plays, and what is shown around it.
//
// Query: `embed` (the player alone, for other sites), `controls=0`, `muted=0` (tries with sound), `autoplay=0` (joins
// after a click), `latency=low`, `engine=mse|hls|native` (else what the browser can), `from=ORIGIN` (who opened the page).

import { $, copy, put } from '../common/dom.js';
import { STATES, short } from '../common/format.js';
import { HlsPlayer } from '../player/hls.js';
import { note } from '../player/log.js';
import { Player } from '../player/player.js';
import { Controls } from './controls.js';
import { snippet, tellOpener } from './embed.js';
import { Stats } from './stats.js';
import { badge, overlay } from './words.js';

/** How far behind the newest frame to be. Seconds; low is for talking with the audience. */
const TARGET_S = { low: 0.5, normal: 1.2 };
/** Time between two renderings. Milliseconds. */
const RENDER_MS = 250;

const page = new URLSearchParams(location.search);
const meta = (name) => document.querySelector(`meta[name="astral-${name}"]`).content;
const slug = meta('slug');
const low = page.get('latency') === 'low';
const target = low ? TARGET_S.low : TARGET_S.normal;
const streamUrl = new URL(`/live/${encodeURIComponent(slug)}/stream.mp4`, location.href).href;

const video = $('video');
const stage = $('stage');
const says = (name) => page.get(name) !== '0' && page.get(name) !== 'false';

let player = choose(page.get('engine'));
let told = false;
const stats = new Stats();
new Controls(video, stage, () => player, render);
window.astralStats = () => player.stats();

function choose(engine) {
  const native = HlsPlayer.native(video);
  if (engine === 'hls' || engine === 'native') return new HlsPlayer(video, { slug, target, native: engine === 'native' });
  if (Player.possible()) return new Player(video, { slug, target, blocked: fallBack });
  return new HlsPlayer(video, { slug, target, native });
}

/** Media Source Extensions over a WebSocket lead nowhere: the same stream by HLS. */
function fallBack(reason) {
  note('fallback', reason);
  player.close();
  player = new HlsPlayer(video, { slug, target, native: false });
  player.start();
}

function render() {
  const now = player.stats();
  const stream = player.stream;
  renderStage(now);
  renderAbout(now, stream);
  stats.render(now, stream, player);
  if (stream && !told) {
    told = true;
    tellOpener(page.get('from'), stream);
  }
}

function renderStage(now) {
  const over = overlay(player, now, slug);
  const element = $('overlay');
  element.hidden = !over;
  if (over) {
    element.dataset.kind = over.kind;
    put('overlay-title', over.title);
    put('overlay-text', over.text);
    put('overlay-button-text', over.button ?? '');
    $('overlay-title').hidden = !over.title;
    $('overlay-button').hidden = !over.button;
    $('overlay-url').hidden = !over.url;
  }
  const said = badge(player, now);
  // What was said stays readable while it fades.
  if (said) put('badge-text', said.text);
  $('badge').dataset.kind = said?.kind ?? '';
  $('badge').classList.toggle('on', said !== null);

  const still = !player.wantPlay || player.state === 'idle';
  stage.classList.toggle('paused', still);
  stage.classList.toggle('muted', video.muted);
  $('unmute').hidden = !video.muted || !player.started || (over !== null && over.kind !== 'spin');
  $('play').setAttribute('aria-label', still ? 'Play' : 'Pause');
  $('mute').setAttribute('aria-label', video.muted ? 'Unmute' : 'Mute');

  const way = player.stream?.local?.latency_ms ?? 0;
  const late = now.latencyMs !== null && now.latencyMs - way > now.targetMs + 1000;
  $('live').classList.toggle('late', late || !now.connected || now.streamState !== 'live');
  $('live').disabled = !late;
}

function renderAbout(now, stream) {
  const state = now.streamState ?? 'unknown';
  $('pill').dataset.state = state;
  put('pill', STATES[state] ?? 'Looking…');
  if (!stream) return;
  const title = `${stream.name} · Astral`;
  if (document.title !== title) document.title = title;
  put('name', stream.name);
  put('description', stream.description ?? '');
  put('publisher', short(stream.publisher), stream.publisher ?? '');
  put('snippet', snippet(stream, slug));
  $('copy').disabled = !stream.share;
  if (stream.share) put('share', stream.share);
}

function prepare() {
  document.body.classList.toggle('embed', page.has('embed'));
  document.body.classList.toggle('page', !page.has('embed'));
  document.body.classList.toggle('bare', !says('controls'));
  $('nav').hidden = meta('guard') === '';
  if (!says('muted')) video.muted = false;
  put('vlc-url', streamUrl);
  put('overlay-url', streamUrl);
  put('snippet', snippet(null, slug));
  if (low) {
    $('other-latency').href = location.pathname;
    put('other-latency', 'Normal latency');
    put('latency-hint', 'A second further behind, with more in reserve.');
  }
  $('copy').addEventListener('click', () => copy($('share').textContent, $('copy')));
  for (const button of document.querySelectorAll('.copy-from')) {
    button.addEventListener('click', () => copy($(button.dataset.from).textContent, button));
  }
  $('stats').addEventListener('toggle', render);
}

prepare();
if (meta('joins') === 'at once' && says('autoplay')) player.start();
setInterval(render, RENDER_MS);
render();
