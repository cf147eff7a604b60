// What happened: the newest events and errors, for people who look closely and for tests.

const EVENTS_MAX = 500;
const ERRORS_MAX = 50;

const events = (window.astralEvents = []);
export const errors = [];

export function note(name, detail = null) {
  events.push({ t: Math.round(performance.now()), name, detail });
  if (events.length > EVENTS_MAX) events.splice(0, events.length - EVENTS_MAX);
}

export function noteError(text) {
  note('error', text);
  errors.push(text);
  if (errors.length > ERRORS_MAX) errors.shift();
}
