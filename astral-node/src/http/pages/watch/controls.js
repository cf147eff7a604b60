// Buttons, keys, volume, full screen and picture-in-picture.

import { $, memory } from '../common/dom.js';

/** How long the controls stay when nothing moves. Milliseconds. */
const SHOWN_MS = 3_000;
const VOLUME_STEP = 0.05;

/** `current()` gives the player of the moment, `render` shows what has changed. */
export class Controls {
  constructor(video, stage, current, render) {
    this.video = video;
    this.stage = stage;
    this.current = current;
    this.render = render;
    this.recallVolume();
    this.wire();
    this.hideByItself();
  }

  wire() {
    const click = (id, act) => $(id).addEventListener('click', act);
    click('overlay-button', () => this.togglePlay());
    click('play', () => this.togglePlay());
    click('mute', () => this.toggleMute());
    click('unmute', () => this.toggleMute());
    click('live', () => this.current().goLive('asked for'));
    click('fullscreen', () => this.toggleFullscreen());
    click('pip', () => this.togglePip());
    click('show-stats', () => this.toggleStats());
    $('pip').hidden = !document.pictureInPictureEnabled;
    $('volume').addEventListener('input', (event) => this.setVolume(Number(event.target.value)));
    // A touch shows the controls; it does not pause.
    this.video.addEventListener('click', (event) => event.pointerType !== 'touch' && this.togglePlay());
    this.video.addEventListener('dblclick', () => this.toggleFullscreen());
    document.addEventListener('keydown', (event) => this.key(event));
  }

  togglePlay() {
    const player = this.current();
    if (player.state === 'idle') player.start();
    else if (player.blocked) player.play();
    else if (player.wantPlay) player.pause();
    else player.resume();
    this.render();
  }

  toggleMute() {
    const { video } = this;
    video.muted = !video.muted;
    if (!video.muted && video.volume === 0) this.setVolume(1);
    // Without a click Chromium answers by pausing: `play` then mutes again.
    const player = this.current();
    if (player.wantPlay && player.started) player.play();
    this.render();
  }

  setVolume(volume) {
    this.video.volume = Math.min(1, Math.max(0, volume));
    $('volume').value = String(this.video.volume);
    memory.write('volume', String(this.video.volume));
    if (this.video.muted !== (this.video.volume === 0)) this.toggleMute();
  }

  recallVolume() {
    const volume = Number.parseFloat(memory.read('volume') ?? '');
    if (volume > 0 && volume <= 1) this.video.volume = volume;
    $('volume').value = String(this.video.volume);
  }

  toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.stage.requestFullscreen) this.stage.requestFullscreen().catch(() => {});
    else this.video.webkitEnterFullscreen?.();
  }

  togglePip() {
    if (document.pictureInPictureElement) document.exitPictureInPicture();
    else this.video.requestPictureInPicture?.().catch(() => {});
  }

  toggleStats() {
    const stats = $('stats');
    stats.open = !stats.open;
    if (stats.open) stats.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, select')) return;
    const acts = {
      ' ': () => this.togglePlay(),
      k: () => this.togglePlay(),
      m: () => this.toggleMute(),
      f: () => this.toggleFullscreen(),
      p: () => this.togglePip(),
      l: () => this.current().goLive('asked for'),
      s: () => this.toggleStats(),
      arrowup: () => this.setVolume(this.video.volume + VOLUME_STEP),
      arrowdown: () => this.setVolume(this.video.volume - VOLUME_STEP),
    };
    const act = acts[event.key.toLowerCase()];
    if (!act || (event.key === ' ' && event.target.closest('button, summary, a'))) return;
    event.preventDefault();
    act();
  }

  /** Controls show while the pointer moves or the keyboard is in them, and go after a while. */
  hideByItself() {
    let timer = 0;
    const show = () => {
      this.stage.classList.add('active');
      clearTimeout(timer);
      timer = setTimeout(() => this.stage.classList.remove('active'), SHOWN_MS);
    };
    for (const name of ['pointermove', 'pointerdown', 'focusin', 'keydown']) this.stage.addEventListener(name, show);
    show();
  }
}
