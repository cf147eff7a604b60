// Where picture and sound come from: camera, screen or a file, as a MediaStream.

/** What the browser is asked for at each height. */
const SIZES = { 480: [854, 480], 720: [1280, 720], 1080: [1920, 1080] };

/** Cameras and microphones with names; names are empty before the first permission. */
export async function devices() {
  const all = await navigator.mediaDevices.enumerateDevices();
  const named = (kind, word) =>
    all.filter((device) => device.kind === kind && device.deviceId).map(({ deviceId, label }, i) => ({ id: deviceId, label: label || `${word} ${i + 1}` }));
  return { cameras: named('videoinput', 'Camera'), microphones: named('audioinput', 'Microphone') };
}

/**
 * Opens a source: `{stream, stop}`. `kind` is `camera`, `screen` or `file`; `camera` and `microphone` are device ids,
 * empty for the browser's choice, `none` for none.
 */
export async function open({ kind, camera, microphone, height, file, loop }) {
  if (kind === 'file') return openFile(file, loop);
  const stream = kind === 'screen' ? await openScreen(microphone, height) : await openCamera(camera, microphone, height);
  return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}

function openCamera(camera, microphone, height) {
  const [width, tall] = SIZES[height];
  const video = { width: { ideal: width }, height: { ideal: tall }, frameRate: { ideal: 30, max: 30 }, ...(camera && { deviceId: { exact: camera } }) };
  return navigator.mediaDevices.getUserMedia({ video: camera === 'none' ? false : video, audio: sound(microphone) });
}

/** The screen's own sound where the browser can have it, else the microphone's: one sound track is sent. */
async function openScreen(microphone, height) {
  const [width, tall] = SIZES[height];
  const video = { width: { max: width }, height: { max: tall }, frameRate: { max: 30 } };
  const stream = await navigator.mediaDevices.getDisplayMedia({ video, audio: true });
  if (stream.getAudioTracks().length === 0 && microphone !== 'none') {
    const voice = await navigator.mediaDevices.getUserMedia({ audio: sound(microphone) }).catch(() => null);
    voice?.getAudioTracks().forEach((track) => stream.addTrack(track));
  }
  return stream;
}

function sound(microphone) {
  if (microphone === 'none') return false;
  return microphone ? { deviceId: { exact: microphone } } : true;
}

/** A file plays in an element that nobody sees, and what it plays is captured. */
async function openFile(file, loop) {
  if (!file) throw new Error('Choose a file first.');
  const player = document.createElement('video');
  player.src = URL.createObjectURL(file);
  player.loop = loop;
  player.playsInline = true;
  const stop = () => {
    player.pause();
    URL.revokeObjectURL(player.src);
    player.removeAttribute('src');
  };
  try {
    await new Promise((resolve, reject) => {
      player.oncanplay = resolve;
      player.onerror = () => reject(new Error('This browser cannot play that file.'));
    });
    // Its sound goes into the capture; through the speakers it would come back by the microphone.
    const stream = player.captureStream();
    await player.play();
    await tracksOf(stream, player);
    return { stream: silenced(stream, player), stop, ended: new Promise((resolve) => (player.onended = resolve)) };
  } catch (error) {
    stop();
    throw error;
  }
}

/** Tracks come with the first frames. */
async function tracksOf(stream, player) {
  const wanted = (player.videoWidth > 0 ? 1 : 0) + 1;
  const until = performance.now() + 500;
  while (stream.getTracks().length < wanted && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
  if (stream.getTracks().length === 0) throw new Error('There is neither picture nor sound in that file.');
}

/** `muted` leaves the captured sound as it is in Chromium; only the speakers are silent. */
function silenced(stream, player) {
  player.muted = true;
  return stream;
}
