//! Standard input: fragmented MP4 that is passed on byte by byte. MPEG-TS and FLV are
//! told apart here, and read as files are.
//!
//! The bytes are only followed from box to box (ISO/IEC 14496-12 §4.2), to know
//! what a new connection must begin with: the head (all up to and with `moov`),
//! then a fragment.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::film::{Kind, SNIFFED};
use crate::failure::Failure;

/// Most bytes before the end of `moov`.
const HEAD_MAX: usize = 8 * 1024 * 1024;
/// Bytes read at a time.
const READ: usize = 64 * 1024;

/// What to do with what we cannot send.
const CONVERT: &str = "convert it on the way: ffmpeg -re -i INPUT -c copy -f mp4 \
     -movflags +cmaf+frag_keyframe -frag_duration 200000 - | astral publish NAME -";

/// Reads as much of an input as tells what it is; waits for it.
pub(super) fn sniff(mut input: impl Read) -> std::io::Result<(Kind, Vec<u8>)> {
    let mut head = vec![0; SNIFFED];
    let mut filled = 0;
    while filled < SNIFFED {
        let read = input.read(&mut head[filled..])?;
        filled += read;
        if read == 0 || is_told(&head[..filled]) {
            break;
        }
    }
    head.truncate(filled);
    Ok((Kind::of(&head), head))
}

/// Whether so few bytes are enough: all but a transport stream have a beginning.
fn is_told(head: &[u8]) -> bool {
    match Kind::of(head) {
        Kind::Flv | Kind::Other(_) | Kind::Ts => head.len() >= 4,
        Kind::Mp4 => head.get(4..8).is_some_and(is_box),
    }
}

fn is_box(kind: &[u8]) -> bool {
    matches!(kind, b"ftyp" | b"styp" | b"moov" | b"free" | b"skip")
}

/// Fragmented MP4 as it comes.
pub(crate) struct Stdin<R> {
    input: R,
    head: Bytes,
    unread: BytesMut,
    boxes: Boxes,
    /// What is passed on begins at a fragment, for a connection that is new.
    resync: bool,
}

impl<R: AsyncRead + Unpin> Stdin<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// What came instead of fragmented MP4, and what helps.
    pub(crate) async fn open(mut input: R) -> Result<Self, Failure> {
        let mut bytes = BytesMut::new();
        loop {
            match head_len(&bytes)? {
                Some(len) => {
                    let head = bytes.split_to(len).freeze();
                    return Ok(Self {
                        input,
                        head,
                        unread: bytes,
                        boxes: Boxes::default(),
                        resync: false,
                    });
                }
                None if bytes.len() > HEAD_MAX => {
                    return Err(unfit("an MP4 header of more than 8 MiB"));
                }
                None => {}
            }
            bytes.reserve(READ);
            if input.read_buf(&mut bytes).await? == 0 {
                return Err(unfit(if bytes.is_empty() {
                    "nothing"
                } else {
                    "an MP4 that breaks off in its header"
                }));
            }
        }
    }

    /// What every connection begins with.
    pub(crate) fn head(&self) -> Bytes {
        self.head.clone()
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if self.unread.is_empty() {
                self.unread.reserve(READ);
                if self.input.read_buf(&mut self.unread).await? == 0 {
                    return Ok(None);
                }
            }
            let mut bytes = self.unread.split().freeze();
            if !self.resync {
                self.boxes.pass(&bytes, false)?;
                return Ok(Some(bytes));
            }
            // `pass` stands before the fragment then, and has not counted it.
            if let Some(at) = self.boxes.pass(&bytes, true)? {
                self.resync = false;
                let rest = bytes.split_off(at);
                let mut again = BytesMut::from(&self.boxes.take_header()[..]);
                again.extend_from_slice(&rest);
                self.unread = again;
            }
        }
    }

    /// The connection was lost: goes on at the next fragment.
    pub(crate) fn restart(&mut self) {
        self.resync = true;
    }
}

/// Follows the top-level boxes of a stream.
#[derive(Debug, Default)]
struct Boxes {
    /// Bytes of the current box still to come; none: to the end of the input.
    left: u64,
    endless: bool,
    header: Vec<u8>,
}

impl Boxes {
    /// Passes over `bytes`; with `find` stops at the first fragment and answers
    /// where its header's part in `bytes` ends, the header being kept.
    fn pass(&mut self, bytes: &[u8], find: bool) -> Result<Option<usize>, Failure> {
        let mut at = 0;
        while at < bytes.len() && !self.endless {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX);
            let skipped = skipped.min(bytes.len() - at);
            at += skipped;
            self.left -= skipped as u64;
            while self.left == 0 && at < bytes.len() {
                self.header.push(bytes[at]);
                at += 1;
                let Some((kind, size)) = box_header(&self.header) else {
                    continue;
                };
                if find && (&kind == b"moof" || &kind == b"styp") {
                    return Ok(Some(at));
                }
                let body = size.checked_sub(self.header.len() as u64);
                self.endless = size == 0;
                if body.is_none() && !self.endless {
                    return Err(Failure::other("the MP4 on standard input is damaged"));
                }
                self.header.clear();
                self.left = body.unwrap_or(0);
                if self.endless {
                    break;
                }
            }
        }
        Ok(None)
    }

    fn take_header(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.header)
    }
}

/// Type and size of a box whose header is complete; size 0 reaches to the end.
fn box_header(bytes: &[u8]) -> Option<([u8; 4], u64)> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = bytes.get(4..8)?.try_into().ok()?;
    if size != 1 {
        return Some((kind, u64::from(size)));
    }
    let size = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
    // A large size of 0 means nothing; 1 is too small, and refused as such.
    Some((kind, size.max(1)))
}

/// Length of the head once it is complete.
fn head_len(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(first) = bytes.get(..8) else {
        return Ok(None);
    };
    if !is_box(&first[4..]) {
        return Err(unfit(match Kind::of(bytes) {
            Kind::Other(what) => what,
            Kind::Mp4 | Kind::Ts | Kind::Flv => "something else",
        }));
    }
    let mut at = 0;
    while let Some((kind, size)) = box_header(&bytes[at..]) {
        if &kind == b"mdat" || &kind == b"moof" {
            return Err(unfit("an MP4 whose header comes after its media"));
        }
        if size < 8 {
            return Err(unfit("a damaged MP4"));
        }
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| at.checked_add(size));
        let end = end.ok_or_else(|| unfit("a damaged MP4"))?;
        if &kind == b"moov" {
            let Some(moov) = bytes.get(at + 8..end) else {
                return Ok(None);
            };
            if !has_child(moov, b"mvex") {
                return Err(unfit("an MP4 that is not fragmented"));
            }
            return Ok(Some(end));
        }
        if end >= bytes.len() {
            return Ok(None);
        }
        at = end;
    }
    Ok(None)
}

/// Whether a box has a child of this kind.
fn has_child(mut body: &[u8], wanted: &[u8; 4]) -> bool {
    while let Some((kind, size)) = box_header(body) {
        if &kind == wanted {
            return true;
        }
        match usize::try_from(size) {
            Ok(size) if size >= 8 && size <= body.len() => body = &body[size..],
            Ok(_) | Err(_) => return false,
        }
    }
    false
}

fn unfit(what: &str) -> Failure {
    Failure::other(format!(
        "standard input must be fragmented MP4, MPEG-TS or FLV, and this is {what}; {CONVERT}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, body].concat()
    }

    fn head() -> Vec<u8> {
        let moov = [make(b"mvhd", &[0; 20]), make(b"mvex", &[])].concat();
        [make(b"ftyp", b"iso5"), make(b"moov", &moov)].concat()
    }

    async fn all(stdin: &mut Stdin<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(bytes) = stdin.next().await.unwrap() {
            out.extend_from_slice(&bytes);
        }
        out
    }

    #[tokio::test]
    async fn fragmented_mp4_is_passed_on_byte_by_byte() {
        let body = [make(b"moof", &[1; 30]), make(b"mdat", &[2; 99])].concat();
        let input = [head(), body.clone()].concat();
        let mut stdin = Stdin::open(&input[..]).await.unwrap();
        assert_eq!(stdin.head(), head());
        assert_eq!(all(&mut stdin).await, body);
    }

    #[tokio::test]
    async fn after_a_break_it_goes_on_at_a_fragment() {
        let first = [make(b"moof", &[1; 30]), make(b"mdat", &[2; 99])].concat();
        let second = [make(b"moof", &[3; 30]), make(b"mdat", &[4; 99])].concat();
        let large = [
            &1u32.to_be_bytes()[..],
            b"mdat",
            &20u64.to_be_bytes(),
            &[5; 4],
        ]
        .concat();
        let third = [make(b"styp", b"msdh"), second.clone()].concat();
        let input = [head(), first.clone(), large, third.clone()].concat();
        let mut stdin = Stdin::open(&input[..]).await.unwrap();
        // Only the head and a piece of the first fragment have gone out.
        stdin.boxes.pass(&first[..11], false).unwrap();
        let _sent = stdin.unread.split_to(11);
        stdin.restart();
        assert_eq!(all(&mut stdin).await, third);
    }

    #[test]
    fn fragments_are_found_however_the_bytes_are_cut() {
        let stream = [
            make(b"mdat", &[9; 5]),
            make(b"free", &[]),
            make(b"moof", &[7; 9]),
        ]
        .concat();
        let mut boxes = Boxes::default();
        let found = stream
            .iter()
            .position(|byte| boxes.pass(&[*byte], true).unwrap().is_some());
        assert_eq!(found, Some(13 + 8 + 7));
        assert_eq!(boxes.take_header(), make(b"moof", &[7; 9])[..8]);
    }

    #[test]
    fn no_more_is_waited_for_than_tells_what_it_is() {
        let told = |bytes: &[u8]| sniff(Read::chain(bytes, std::io::empty())).unwrap();
        assert_eq!(told(&head()).0, Kind::Mp4);
        assert_eq!(told(b"FLV\x01\x05").0, Kind::Flv);
        let mut ts = vec![0; 3 * SNIFFED];
        (0..ts.len()).step_by(188).for_each(|at| ts[at] = 0x47);
        let (kind, head) = told(&ts);
        assert_eq!((kind, head.len()), (Kind::Ts, SNIFFED));
    }

    #[tokio::test]
    async fn other_input_is_refused_with_words_that_help() {
        let plain = [
            make(b"ftyp", b"isom"),
            make(b"moov", &make(b"mvhd", &[0; 20])),
        ]
        .concat();
        let late = [make(b"ftyp", b"isom"), make(b"mdat", &[0; 20])].concat();
        let cases: [(&[u8], &str); 6] = [
            (b"", "nothing"),
            (&[7; 400], "something else"),
            (b"\x1a\x45\xdf\xa3\0\0\0\x09", "Matroska"),
            (&plain, "not fragmented"),
            (&late, "after its media"),
            (&head()[..30], "breaks off"),
        ];
        for (input, words) in cases {
            let Err(failure) = Stdin::open(input).await else {
                panic!("{words}: was taken");
            };
            let text = failure.to_string();
            assert!(text.contains(words) && text.contains("ffmpeg"), "{text}");
        }
    }
}
