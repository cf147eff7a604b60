//! Each odd or hostile chunk sequence that broke another implementation.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;

fn reader() -> ChunkReader {
    ChunkReader::new(&Limits::default())
}

fn publishing() -> ChunkReader {
    let mut reader = reader();
    reader.set_message_max(Limits::default().message);
    reader
}

/// Type 0 header on a one-byte chunk stream.
fn full(csid: u8, timestamp: u32, length: u32) -> Vec<u8> {
    let mut out = vec![csid];
    out.put_uint(timestamp.into(), 3);
    out.put_uint(length.into(), 3);
    out.put_u8(9);
    out.put_u32_le(1);
    out
}

fn read_all(reader: &mut ChunkReader, bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    let mut input = BytesMut::from(bytes);
    let mut messages = Vec::new();
    while let Some(message) = reader.next(&mut input)? {
        messages.push(message);
    }
    Ok(messages)
}

fn stamps(bytes: &[u8]) -> Vec<u32> {
    let messages = read_all(&mut reader(), bytes).unwrap();
    messages.iter().map(|message| message.timestamp).collect()
}

#[test]
fn a_header_in_the_middle_of_a_message_is_an_overlap() {
    for format in [0x00, 0x40, 0x80] {
        let mut bytes = full(4, 0, 300);
        bytes.extend([1; 128]);
        bytes.push(4 | format);
        bytes.extend([0; 11]);
        assert_eq!(
            read_all(&mut reader(), &bytes),
            Err(ChunkError::Overlap(4)),
            "format {format:#x}"
        );
    }
}

#[test]
fn type_3_that_starts_a_message_adds_the_delta() {
    let mut bytes = full(4, 1000, 1);
    bytes.push(1);
    bytes.extend([0x84, 0, 0, 20, 2]);
    bytes.extend([0xc4, 3, 0xc4, 4]);
    assert_eq!(stamps(&bytes), [1000, 1020, 1040, 1060]);
}

#[test]
fn type_3_right_after_type_0_repeats_the_stamp() {
    let mut bytes = full(4, 1000, 1);
    bytes.extend([1, 0xc4, 2]);
    assert_eq!(stamps(&bytes), [1000, 1000]);
}

#[test]
fn timestamps_wrap_at_32_bits() {
    let mut bytes = full(4, EXTENDED, 1);
    bytes.extend(0xffff_fff0_u32.to_be_bytes());
    bytes.push(1);
    bytes.extend([0x84, 0, 0, 0x20, 2]);
    bytes.extend([0x44, 0, 0, 0x20, 0, 0, 1, 9, 3]);
    assert_eq!(stamps(&bytes), [0xffff_fff0, 0x10, 0x30]);
}

#[test]
fn a_repeated_extended_timestamp_is_consumed_only_if_equal() {
    let stamp = 16_779_189_u32.to_be_bytes();
    for repeated in [true, false] {
        let mut bytes = full(4, EXTENDED, 130);
        bytes.extend(stamp);
        bytes.extend([7; 128]);
        bytes.push(0xc4);
        if repeated {
            bytes.extend(stamp);
        }
        bytes.extend([8; 2]);
        let messages = read_all(&mut reader(), &bytes).unwrap();
        assert_eq!(messages.len(), 1, "repeated: {repeated}");
        assert_eq!(messages[0].timestamp, 16_779_189);
        assert_eq!(messages[0].payload[126..], [7, 7, 8, 8]);
    }
}

#[test]
fn an_extended_delta_is_added() {
    let mut bytes = full(4, 5, 1);
    bytes.push(1);
    bytes.extend([0x84, 0xff, 0xff, 0xff]);
    bytes.extend(0x0100_0000_u32.to_be_bytes());
    bytes.push(2);
    assert_eq!(stamps(&bytes), [5, 0x0100_0005]);
}

#[test]
fn an_unknown_chunk_stream_needs_a_full_header() {
    assert_eq!(
        read_all(&mut reader(), &[0xc5]),
        Err(ChunkError::NoHeader(5))
    );
    assert_eq!(
        read_all(&mut reader(), &[0x85]),
        Err(ChunkError::NoHeader(5))
    );
}

#[test]
fn librtmp_may_open_a_chunk_stream_with_type_1() {
    let bytes = [0x42, 0, 0, 7, 0, 0, 1, 4, 9];
    let messages = read_all(&mut reader(), &bytes).unwrap();
    assert_eq!((messages[0].timestamp, messages[0].stream_id), (7, 0));
}

#[test]
fn a_seventeenth_chunk_stream_is_refused() {
    let mut reader = reader();
    for csid in 2..18 {
        assert_eq!(read_all(&mut reader, &full(csid, 0, 9)), Ok(vec![]));
        reader.abort(csid.into());
        reader.open = None;
    }
    let result = read_all(&mut reader, &full(18, 0, 9));
    assert_eq!(result, Err(ChunkError::TooManyStreams));
}

#[test]
fn messages_before_publish_are_at_most_64_kib() {
    let result = read_all(&mut reader(), &full(4, 0, 65_537));
    assert_eq!(result, Err(ChunkError::TooLong(65_537)));
    let result = read_all(&mut publishing(), &full(4, 0, (4 << 20) + 1));
    assert_eq!(result, Err(ChunkError::TooLong((4 << 20) + 1)));
    assert!(read_all(&mut publishing(), &full(4, 0, 4 << 20)).is_ok());
}

#[test]
fn sixteen_partial_messages_stop_at_the_held_budget() {
    let mut reader = publishing();
    reader.set_chunk_size((4 << 20) - 1).unwrap();
    let (mut held, mut result) = (0, Ok(vec![]));
    for csid in 3..19 {
        let mut bytes = full(csid, 0, 4 << 20);
        bytes.resize(bytes.len() + (4 << 20) - 1, 0);
        result = read_all(&mut reader, &bytes);
        held = held.max(reader.held());
        if result.is_err() {
            break;
        }
    }
    assert_eq!(result, Err(ChunkError::HeldTooMuch));
    assert!(held <= 6 << 20);
}

#[test]
fn a_great_chunk_size_holds_only_what_arrived() {
    let mut reader = publishing();
    reader.set_chunk_size(0x7fff_ffff).unwrap();
    assert_eq!(reader.chunk_size, 0xff_ffff);
    let mut bytes = full(4, 0, 4 << 20);
    bytes.extend([0; 1000]);
    assert_eq!(read_all(&mut reader, &bytes), Ok(vec![]));
    assert_eq!(reader.held(), 1000);
}

#[test]
fn chunk_size_0_is_refused_and_1_works() {
    let mut reader = reader();
    assert_eq!(reader.set_chunk_size(0), Err(ChunkError::ChunkSize));
    reader.set_chunk_size(1).unwrap();
    let mut bytes = full(4, 0, 3);
    bytes.extend([1, 0xc4, 2, 0xc4, 3]);
    let messages = read_all(&mut reader, &bytes).unwrap();
    assert_eq!(messages[0].payload[..], [1, 2, 3]);
}

#[test]
fn abort_forgets_the_unfinished_message() {
    let mut reader = reader();
    let mut bytes = full(4, 0, 300);
    bytes.extend([1; 128]);
    assert_eq!(read_all(&mut reader, &bytes), Ok(vec![]));
    reader.abort(4);
    assert_eq!(reader.held(), 0);
    let mut bytes = full(4, 0, 1);
    bytes.push(9);
    assert_eq!(read_all(&mut reader, &bytes).unwrap().len(), 1);
}

#[test]
fn an_empty_message_is_a_message() {
    let messages = read_all(&mut reader(), &full(4, 0, 0)).unwrap();
    assert!(messages[0].payload.is_empty());
}

#[test]
fn long_chunk_stream_ids_are_read() {
    for (basic, csid) in [(vec![0, 10], 74), (vec![1, 10, 1], 330)] {
        let mut bytes = basic;
        bytes.extend(&full(3, 0, 1)[1..]);
        bytes.push(0);
        assert_eq!(read_all(&mut reader(), &bytes).unwrap()[0].csid, csid);
    }
}

fn message() -> impl Strategy<Value = Message> {
    let payload = prop::collection::vec(any::<u8>(), 1..900);
    (2u32..16, any::<u32>(), any::<u8>(), payload).prop_map(|(csid, timestamp, kind, payload)| {
        Message {
            csid,
            timestamp,
            kind,
            stream_id: 1,
            payload: payload.into(),
        }
    })
}

proptest! {
    #[test]
    fn what_the_writer_writes_is_read_in_any_pieces(
        messages in prop::collection::vec(message(), 1..8),
        chunk_size in 1usize..600,
        piece in 1usize..200,
    ) {
        let (mut bytes, mut writer, mut reader) = (BytesMut::new(), ChunkWriter::default(), reader());
        writer.set_chunk_size(chunk_size);
        reader.set_chunk_size(chunk_size as u32).unwrap();
        messages.iter().for_each(|message| writer.write(&mut bytes, message));
        let (mut read, mut input) = (Vec::new(), BytesMut::new());
        for piece in bytes.chunks(piece) {
            input.put_slice(piece);
            while let Some(message) = reader.next(&mut input).unwrap() {
                read.push(message);
            }
        }
        prop_assert_eq!(read, messages);
        prop_assert_eq!(reader.held(), 0);
    }

    #[test]
    fn changed_bytes_never_panic_and_never_hold_more_than_allowed(
        messages in prop::collection::vec(message(), 1..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
    ) {
        let (mut bytes, writer, mut reader) = (BytesMut::new(), ChunkWriter::default(), reader());
        messages.iter().for_each(|message| writer.write(&mut bytes, message));
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = read_all(&mut reader, &bytes);
        let held: usize = reader.streams.values().filter_map(|stream| stream.partial.as_ref()).map(Vec::len).sum();
        prop_assert_eq!(held, reader.held());
        prop_assert!(held <= Limits::default().held);
    }
}
