//! What encoders write that no reader takes, made good.

use super::boxes::MAX_HEADER;
use crate::av1::Av1Config;

/// Boxes around an `av1C`, from a `moov`'s body inwards, and how many bytes of each stand
/// before its own boxes: of `stsd` version, flags and count (ISO/IEC 14496-12 §8.5.2), of
/// the sample entry what every visual one has (§12.1.3).
const WAY: [(&[u8; 4], usize); 7] = [
    (b"trak", 0),
    (b"mdia", 0),
    (b"minf", 0),
    (b"stbl", 0),
    (b"stsd", 8),
    (b"av01", 78),
    (b"av1C", 0),
];
/// An `av1C` without a body.
const EMPTY: &[u8] = b"\0\0\0\x08av1C";

/// The body of a `moov` whose `av1C` boxes are empty, with ones that say nothing instead;
/// `None` if there is none such.
///
/// ffmpeg 5.1 knows the configuration of its own AV1 encoder only once a picture is
/// encoded, which is after the `moov` of a fragmented file. The sequence header is in
/// front of each key frame, too.
pub(crate) fn with_av1c(moov: &[u8]) -> Option<Vec<u8>> {
    let is_empty = moov.windows(EMPTY.len()).any(|window| window == EMPTY);
    is_empty.then(|| rebuilt(moov, &WAY))?
}

/// Boxes as they are, but for those on the way.
fn rebuilt(mut boxes: &[u8], way: &[(&[u8; 4], usize)]) -> Option<Vec<u8>> {
    let ((name, before), inner) = way.split_first()?;
    let mut out = Vec::with_capacity(boxes.len() + MAX_HEADER);
    while !boxes.is_empty() {
        let (head, _) = boxes.split_first_chunk::<8>()?;
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let (one, rest) = boxes.split_at_checked(usize::try_from(size).ok()?)?;
        boxes = rest;
        let body = one.get(8..)?;
        if head[4..] != name[..] {
            out.extend_from_slice(one);
            continue;
        }
        let body = match (inner.is_empty(), body.is_empty()) {
            (true, true) => Av1Config::empty().record().to_vec(),
            (true, false) => body.to_vec(),
            (false, _) => {
                let (fields, boxes) = body.split_at_checked(*before)?;
                [fields, &rebuilt(boxes, inner)?].concat()
            }
        };
        let size = u32::try_from(body.len() + 8).ok()?;
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&head[4..]);
        out.extend_from_slice(&body);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = body.len() as u32 + 8;
        [&size.to_be_bytes()[..], name, body].concat()
    }

    fn moov(av1c: &[u8]) -> Vec<u8> {
        let boxes = [boxed(b"av1C", av1c), boxed(b"fiel", &[1])].concat();
        let mut body = boxed(b"av01", &[&[0; 78][..], &boxes].concat());
        body = boxed(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1][..], &body].concat());
        for name in [b"stbl", b"minf", b"mdia", b"trak"] {
            body = boxed(name, &[boxed(b"free", b"x"), body].concat());
        }
        [boxed(b"mvhd", &[7; 100]), body].concat()
    }

    #[test]
    fn empty_record_gets_a_body_and_all_around_it_its_size() {
        assert_eq!(with_av1c(&moov(b"")), Some(moov(&[0x81, 0, 0, 0])));
        assert_eq!(with_av1c(&moov(&[0x81, 0, 12, 0])), None);
    }

    #[test]
    fn what_is_cut_off_anywhere_is_left_alone() {
        let whole = moov(b"");
        for end in 0..whole.len() {
            assert_eq!(with_av1c(&whole[..end]), None, "{end}");
        }
    }
}
