// How the node is set: what can be changed while it runs, and where everything else comes from.

import { api } from '../common/api.js';
import { $, el, put } from '../common/dom.js';

/** Words for the settings that people change; others are shown by their key. */
const WORDS = {
  upstream_limit: ['Upload limit', 'Most to spend on others: 20mbit, 2.5MB/s, 0, unlimited or learnt.'],
  name: ['Name', 'For others to read.'],
  supernode: ['Supernode', 'Whether this node serves others beyond what it watches.'],
  accept_seeds: ['Streams offered by others', 'Whether this node carries them; auto is while it is a supernode.'],
  allow_origin: ['Sites that may use this node', 'Web origins, one per line.'],
  verbosity: ['Detail of the log', '0 is usual; 1 and 2 say more, -1 less.'],
};
const CHOICES = { accept_seeds: ['auto', 'always', 'never'], supernode: ['auto', 'always', 'never'] };
const SOURCES = { default: 'default', file: 'settings file', saved: 'saved here', environment: 'environment', flag: 'command line' };

export class Settings {
  constructor() {
    $('settings-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.save();
    });
  }

  async load() {
    this.show(await api('GET', '/settings'));
  }

  show(settings) {
    this.settings = settings;
    const entries = Object.entries(settings);
    const place = (key) => (Object.keys(WORDS).indexOf(key) + 1 || Infinity);
    const open = entries.filter(([, setting]) => setting.changeable).sort(([a], [b]) => place(a) - place(b));
    const fixed = entries.filter(([, setting]) => !setting.changeable);
    $('settings-open').replaceChildren(...open.map(([key, setting]) => field(key, setting)));
    const rows = fixed.map(([key, { value, source }]) => el('div', {}, el('dt', {}, key), el('dd', {}, `${shown(value)} (${SOURCES[source] ?? source})`)));
    $('settings-fixed').replaceChildren(...rows);
  }

  async save() {
    const patch = {};
    for (const input of $('settings-open').querySelectorAll('[data-key]')) {
      const { key } = input.dataset;
      const { value } = this.settings[key];
      const wanted = read(input, value);
      if (shown(wanted) !== shown(value)) patch[key] = wanted;
    }
    if (Object.keys(patch).length === 0) {
      this.tell('Nothing has changed.', false);
      return;
    }
    try {
      this.show(await api('PATCH', '/settings', patch));
      this.tell('Saved, and in force.', false);
    } catch (error) {
      this.tell(error.message, true);
    }
  }

  tell(text, wrong) {
    put('settings-said', text);
    $('settings-said').className = wrong ? 'wrong' : 'soft small';
    if (!wrong) setTimeout(() => $('settings-said').textContent === text && put('settings-said', ''), 4_000);
  }
}

function shown(value) {
  if (value === null || value === undefined || value === '') return '–';
  return Array.isArray(value) ? value.join(', ') || '–' : String(value);
}

function field(key, { value, source }) {
  const [label, hint] = WORDS[key] ?? [key, ''];
  const id = `set-${key}`;
  const how = { id, 'data-key': key, 'aria-describedby': `${id}-hint` };
  const note = el('p', { id: `${id}-hint`, class: 'hint' }, [hint, source === 'default' ? '' : `From the ${SOURCES[source] ?? source}.`].filter(Boolean).join(' '));
  if (typeof value === 'boolean') {
    return el('div', {}, el('label', { class: 'check' }, el('input', { ...how, type: 'checkbox', checked: value }), label), note);
  }
  let input;
  if (CHOICES[key]) {
    input = el('select', how, ...CHOICES[key].map((choice) => new Option(choice, choice, choice === value, choice === value)));
  } else if (Array.isArray(value)) {
    input = el('textarea', { ...how, rows: Math.max(2, value.length), spellcheck: 'false' });
    input.value = value.join('\n');
  } else {
    input = el('input', { ...how, type: typeof value === 'number' ? 'number' : 'text', autocomplete: 'off' });
    input.value = value ?? '';
  }
  return el('div', {}, el('label', { for: id }, label), input, note);
}

/** In the type that the setting has; empty goes back to what holds without it. */
function read(input, before) {
  if (input.type === 'checkbox') return input.checked;
  const text = input.value.trim();
  if (Array.isArray(before)) return text.split(/\s+/).filter(Boolean);
  if (text === '') return null;
  return typeof before === 'number' && /^-?\d+$/.test(text) ? Number(text) : text;
}
