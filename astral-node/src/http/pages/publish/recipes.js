// How to send a stream with other programs. The stream key is a secret: hidden until it is asked for.

import { $, copy, put } from '../common/dom.js';

const HIDDEN = '••••••••••••••••';

/** Lines to copy for one stream, with `key` where the secret stands. */
function lines({ ingest, name }, key) {
  const http = ingest.http_url.replace(ingest.stream_key, key);
  const codecs = '-c:v libx264 -preset veryfast -tune zerolatency -g 60 -b:v 2500k -c:a aac -b:a 128k';
  const rtmp = ingest.rtmp_url && `${ingest.rtmp_url}/${key}`;
  return {
    'r-server': ingest.rtmp_url ?? '',
    'r-key': key,
    'r-rtmp': rtmp ? `ffmpeg -re -i INPUT ${codecs} -f flv ${quote(rtmp)}` : '',
    'r-http': `ffmpeg -re -i INPUT ${codecs} -f mp4 -movflags +cmaf+frag_keyframe -method PUT ${quote(http)}`,
    'r-cli': `astral publish ${quote(name)} FILE --loop`,
  };
}

/** For a shell. */
const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export class Recipes {
  constructor() {
    this.stream = null;
    this.shown = false;
    for (const button of document.querySelectorAll('[data-recipe]')) {
      button.addEventListener('click', () => copy(lines(this.stream, this.stream.ingest.stream_key)[button.dataset.recipe], button));
    }
    $('r-reveal').addEventListener('click', () => {
      this.shown = !this.shown;
      this.render();
    });
  }

  /** Shows those of `stream`, with the key hidden again if it is another one. */
  show(stream) {
    if (stream?.id !== this.stream?.id) this.shown = false;
    this.stream = stream;
    this.render();
  }

  render() {
    const ingest = this.stream?.ingest;
    $('recipes').hidden = !ingest;
    $('no-recipes').hidden = Boolean(ingest);
    if (!ingest) return;
    const key = this.shown ? ingest.stream_key : HIDDEN;
    for (const [id, text] of Object.entries(lines(this.stream, key))) put(id, text);
    put('r-reveal', this.shown ? 'Hide' : 'Show');
    $('r-reveal').setAttribute('aria-pressed', String(this.shown));
    for (const element of document.querySelectorAll('.rtmp-only')) element.hidden = !ingest.rtmp_url;
  }
}
