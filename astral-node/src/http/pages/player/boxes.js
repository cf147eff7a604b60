// Just enough of ISO/IEC 14496-12 to know which times a piece of fragmented MP4 covers and where keyframes are.

function* boxes(view, from, to) {
  for (let at = from; at + 8 <= to; ) {
    let size = view.getUint32(at);
    let head = 8;
    if (size === 1 && at + 16 <= to) {
      size = Number(view.getBigUint64(at + 8));
      head = 16;
    }
    if (size === 0) size = to - at;
    if (size < head || at + size > to) return;
    const type = String.fromCharCode(...[4, 5, 6, 7].map((i) => view.getUint8(at + i)));
    yield { type, body: at + head, end: at + size };
    at += size;
  }
}

function findBox(view, box, ...path) {
  for (const type of path) {
    let found = null;
    for (const inner of boxes(view, box.body, box.end)) {
      if (inner.type === type) {
        found = inner;
        break;
      }
    }
    if (!found) return null;
    box = found;
  }
  return box;
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The tracks of an initialisation segment, by track id. */
export function readInit(bytes) {
  const view = viewOf(bytes);
  const tracks = new Map();
  const moov = findBox(view, { body: 0, end: bytes.length }, 'moov');
  if (!moov) return tracks;
  const version = (box) => view.getUint8(box.body);
  for (const trak of boxes(view, moov.body, moov.end)) {
    if (trak.type !== 'trak') continue;
    const tkhd = findBox(view, trak, 'tkhd');
    const mdhd = findBox(view, trak, 'mdia', 'mdhd');
    const hdlr = findBox(view, trak, 'mdia', 'hdlr');
    if (!tkhd || !mdhd || !hdlr) continue;
    tracks.set(view.getUint32(tkhd.body + (version(tkhd) ? 20 : 12)), {
      video: view.getUint32(hdlr.body + 8) === 0x76696465, // 'vide'
      timescale: view.getUint32(mdhd.body + (version(mdhd) ? 20 : 12)) || 1,
      duration: 0,
      flags: 0,
    });
  }
  const mvex = findBox(view, moov, 'mvex');
  for (const trex of mvex ? boxes(view, mvex.body, mvex.end) : []) {
    const track = trex.type === 'trex' && tracks.get(view.getUint32(trex.body + 4));
    if (!track) continue;
    track.duration = view.getUint32(trex.body + 12);
    track.flags = view.getUint32(trex.body + 20);
  }
  return tracks;
}

/** Per track fragment of a piece: times in seconds on the stream's timeline, and the keyframes' times. */
export function readPiece(bytes, tracks) {
  const view = viewOf(bytes);
  const parts = [];
  for (const moof of boxes(view, 0, bytes.length)) {
    if (moof.type !== 'moof') continue;
    for (const traf of boxes(view, moof.body, moof.end)) {
      const part = traf.type === 'traf' && readTraf(view, traf, tracks);
      if (part) parts.push(part);
    }
  }
  return parts;
}

function readTraf(view, traf, tracks) {
  const tfhd = findBox(view, traf, 'tfhd');
  const tfdt = findBox(view, traf, 'tfdt');
  const id = tfhd && view.getUint32(tfhd.body + 4);
  const track = tracks.get(id);
  if (!track || !tfdt) return null;

  const has = view.getUint32(tfhd.body) & 0xffffff;
  let at = tfhd.body + 8 + (has & 0x1 ? 8 : 0) + (has & 0x2 ? 4 : 0);
  let { duration, flags } = track;
  if (has & 0x8) (duration = view.getUint32(at)), (at += 4);
  if (has & 0x10) at += 4;
  if (has & 0x20) flags = view.getUint32(at);

  const start = view.getUint8(tfdt.body) ? Number(view.getBigUint64(tfdt.body + 4)) : view.getUint32(tfdt.body + 4);
  let dts = start;
  let shown = 0;
  const keys = [];
  for (const trun of boxes(view, traf.body, traf.end)) {
    if (trun.type !== 'trun') continue;
    const bits = view.getUint32(trun.body) & 0xffffff;
    const count = view.getUint32(trun.body + 4);
    let p = trun.body + 8 + (bits & 0x1 ? 4 : 0);
    let first = null;
    if (bits & 0x4) (first = view.getUint32(p)), (p += 4);
    for (let i = 0; i < count; i++) {
      let own = duration;
      let sample = i === 0 && first !== null ? first : flags;
      let offset = 0;
      if (bits & 0x100) (own = view.getUint32(p)), (p += 4);
      if (bits & 0x200) p += 4;
      if (bits & 0x400) (sample = view.getUint32(p)), (p += 4);
      if (bits & 0x800) (offset = view.getInt32(p)), (p += 4);
      if (track.video && !(sample & 0x10000)) keys.push((dts + offset) / track.timescale);
      dts += own;
      shown = Math.max(shown, (dts + offset) / track.timescale);
    }
  }
  return { id, video: track.video, start: start / track.timescale, end: dts / track.timescale, shown, keys };
}
