// The node's JSON API, as its own pages call it.
//
// Changes carry the guard value that the page came with. A page that came without one (`--require-token`, or a
// `--http` that others can reach) takes that of the last page in this tab, such as one that a one-time link opened, or
// asks for the node's token, and keeps it for this tab.

const own = document.querySelector('meta[name="astral-guard"]')?.content ?? '';
if (own) keep('guard', own);

function kept(name) {
  try {
    return sessionStorage.getItem(`astral.${name}`) ?? '';
  } catch {
    return '';
  }
}

function keep(name, value) {
  try {
    sessionStorage.setItem(`astral.${name}`, value);
  } catch {
    // Without storage it is asked for on every page.
  }
}

export function useToken(text) {
  keep('token', text);
}

function credentials() {
  if (own) return { 'x-astral-guard': own };
  if (kept('token')) return { authorization: `Bearer ${kept('token')}` };
  return kept('guard') ? { 'x-astral-guard': kept('guard') } : {};
}

/** An answer that says no, in the node's words; status 0 when the node does not answer at all. */
export class ApiError extends Error {
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
  }
}

export async function api(method, path, body) {
  const headers = { ...credentials() };
  if (body !== undefined) headers['content-type'] = 'application/json';
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, { method, headers, cache: 'no-store', body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError(0, 'No answer', 'The node does not answer. Is it running?');
  }
  if (answer.status === 204 || answer.status === 202) return null;
  const value = await answer.json().catch(() => null);
  if (answer.ok) return value;
  throw new ApiError(answer.status, value?.title ?? 'Error', value?.detail ?? `The node answered ${answer.status}.`);
}

/**
 * Server-sent events, for ever: `on(kind, data)` per event; `status('open' | 'lost' | 'closed')` as the connection goes.
 * Read by fetch, since EventSource cannot carry the guard value.
 */
export async function events(on, status) {
  for (let wait = 500; ; wait = Math.min(wait * 1.6, 5_000)) {
    try {
      const answer = await fetch('/api/v1/events', { headers: credentials(), cache: 'no-store' });
      if (answer.status === 401 || answer.status === 403) {
        status('closed');
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      status('open');
      wait = 500;
      await readEvents(answer.body, on);
    } catch {
      // Told below, as a clean end is.
    }
    status('lost');
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** WHATWG HTML §9.2.6, as far as the node uses it. */
async function readEvents(body, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split('\n\n');
    text = blocks.pop();
    for (const block of blocks) {
      let kind = 'message';
      let data = '';
      for (const line of block.split('\n')) {
        if (line.startsWith('event:')) kind = line.slice(6).trim();
        else if (line.startsWith('data:')) data += line.slice(5).trimStart();
      }
      if (data) on(kind, JSON.parse(data));
    }
  }
}
