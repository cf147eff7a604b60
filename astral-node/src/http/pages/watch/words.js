// What the player says in words: one thing over the picture, and one in a small badge. Never a dialog.

/** The one thing to say over the picture, most important first; null when the picture speaks for itself. */
export function overlay(player, stats, slug) {
  const { state, message } = player;
  if (state === 'idle') return { kind: 'join', title: 'Watch this stream', text: 'Joining makes this node receive it.', button: 'Join' };
  if (state === 'unsupported') return { kind: 'error', title: message.title, text: message.detail, url: true };
  if (state === 'missing') return { kind: 'wait', title: 'No such stream yet', text: `Nobody announces “${slug}” at the moment. This page keeps looking.` };
  if (state === 'refused') return { kind: 'wait', title: message?.title || 'Not now', text: `${message?.detail || ''} Trying again.`.trim() };
  if (player.blocked) return { kind: 'join', title: 'Ready', text: 'The browser wants a click before it plays.', button: 'Play' };
  if (!player.wantPlay) return { kind: 'join', title: 'Paused', text: 'Playing again goes back to live.', button: 'Play' };
  const drained = stats.bufferS < 0.3;
  if (stats.streamState === 'waiting' && drained) return { kind: 'wait', title: 'The encoder is away', text: 'The stream goes on here as soon as it is back.' };
  if (stats.streamState === 'paused' && drained) return { kind: 'wait', title: 'The publisher paused the stream', text: 'It goes on here by itself.' };
  if (stats.streamState === 'ended' && drained) return { kind: 'calm', title: 'The stream has ended', text: 'Thank you for watching. Should it come back, it plays here.' };
  if (!player.started) return { kind: 'spin', title: '', text: stats.connected ? 'Joining…' : 'Connecting to the node…' };
  if (player.stalledAt !== null && performance.now() - player.stalledAt > 300) return { kind: 'spin', title: '', text: '' };
  return null;
}

/** What goes on behind the picture: `{kind, text}`, or null. */
export function badge(player, stats) {
  const quiet = ['idle', 'missing', 'refused', 'unsupported'].includes(player.state);
  const away = !stats.connected && !player.parked && player.everOpened && stats.streamState !== 'ended';
  if (away && !quiet) return { kind: 'away', text: 'Reconnecting…' };
  if (player.news && performance.now() < player.news.until) return { kind: 'news', text: player.news.text };
  return null;
}
