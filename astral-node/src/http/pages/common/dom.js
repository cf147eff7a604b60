// The few things that every page does with its elements. Text is always set as text: names come from strangers.

export const $ = (id) => document.getElementById(id);

/** Sets text, only if it changed: screen readers read changes. */
export function put(target, text, title) {
  const element = typeof target === 'string' ? $(target) : target;
  if (element.textContent !== text) element.textContent = text;
  if (title !== undefined && element.title !== title) element.title = title;
}

/** An element with attributes (functions are listeners), and children that are elements or text. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** One of the page's symbols. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Copies text, and says so on the button for a moment. */
export async function copy(text, button) {
  const label = button.querySelector('.label') ?? button;
  const before = (button.dataset.label ??= label.textContent);
  put(label, (await toClipboard(text)) ? 'Copied' : 'Press Ctrl+C');
  setTimeout(() => put(label, before), 2_000);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard on an insecure origin, or in a frame: the old way.
    const area = el('textarea', { readonly: true, class: 'off-screen', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

/** What this browser remembers of the page; in frames and private windows there may be nothing to remember with. */
export const memory = {
  read(name) {
    try {
      return localStorage.getItem(`astral.${name}`);
    } catch {
      return null;
    }
  },
  write(name, value) {
    try {
      localStorage.setItem(`astral.${name}`, value);
    } catch {
      // It will be asked for again.
    }
  },
};

/** Rows of a list or table by key, kept across renders, so that focus and hover stay where they are. */
export function keyed(parent, items, key, make, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let child = before.get(id);
    if (child) before.delete(id);
    else {
      child = make(item);
      child.dataset.key = id;
    }
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const gone of before.values()) gone.remove();
}

/** How long a button waits for its second click. Milliseconds. */
const SURE_MS = 4_000;

/** A button that acts on the second click: the first makes it ask. Never a dialog. */
export function confirmed(button, question, act) {
  const label = button.textContent;
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    delete button.dataset.sure;
    put(button, label);
  };
  button.addEventListener('click', () => {
    if (button.dataset.sure) {
      calm();
      act();
      return;
    }
    button.dataset.sure = 'asked';
    put(button, question);
    timer = setTimeout(calm, SURE_MS);
  });
  button.addEventListener('blur', calm);
  return button;
}
