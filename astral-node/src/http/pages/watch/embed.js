// This page in others: the snippet to embed it, and the word to the site that opened it.

import { note } from '../player/log.js';

/** An iframe of this page. The id and not the slug: a slug may mean another stream to another node. */
export function snippet(stream, slug) {
  const url = new URL(`/watch/${encodeURIComponent(stream?.id ?? slug)}?embed`, location.href);
  const allow = 'autoplay; fullscreen; picture-in-picture';
  const title = escape(stream?.name ?? slug);
  return `<iframe src="${url}" title="${title}" width="640" height="360" style="border:0" allow="${allow}"></iframe>`;
}

/** The snippet is HTML to be pasted elsewhere; names come from strangers. */
function escape(text) {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/**
 * Tells the site that opened this page (`?from=ORIGIN`) that the node runs, once it does. Nothing in it is secret; the
 * browser delivers it to that origin only.
 */
export function tellOpener(from, stream) {
  if (!window.opener || !from) return;
  let origin;
  try {
    origin = new URL(from);
  } catch {
    return;
  }
  if (!['http:', 'https:'].includes(origin.protocol)) return;
  window.opener.postMessage({ astral: 'running', stream: stream.id }, origin.origin);
  note('told opener', origin.origin);
}
