//! The facts about encoders that a session depends on, each as one case.

use proptest::prelude::*;

use super::*;

/// A client that writes chunks of 128 bytes and reads the replies.
struct Client {
    session: Session,
    writer: ChunkWriter,
    replies: ChunkReader,
    unread: BytesMut,
}

impl Client {
    /// Handshake done.
    fn new() -> Self {
        let mut session = Session::new(Limits::default());
        let mut hello = vec![0; 1 + 2 * 1536];
        hello[0] = 3;
        assert_eq!(session.feed(&hello), Ok(vec![]));
        assert_eq!(session.take_output().len(), 1 + 2 * 1536);
        Self {
            session,
            writer: ChunkWriter::default(),
            replies: ChunkReader::new(&Limits::default()),
            unread: BytesMut::new(),
        }
    }

    fn connected() -> Self {
        let mut client = Self::new();
        let app = Value::object([("app", Value::text("live/?a=b"))]);
        client
            .call(0, &[Value::text("connect"), Value::Number(1.0), app])
            .unwrap();
        client.replies();
        client
    }

    fn asked() -> Self {
        let mut client = Self::connected();
        let events = client.name_command("publish", 5.0, "good1?x=1").unwrap();
        let (app, key) = ("live".into(), "good1".into());
        assert_eq!(events, [Event::Publish { app, key }]);
        client
    }

    fn publishing() -> Self {
        let mut client = Self::asked();
        client.session.accept_publish();
        client.replies();
        client
    }

    fn send(&mut self, kind: u8, stream_id: u32, payload: &[u8]) -> Result<Vec<Event>, RtmpError> {
        let mut bytes = BytesMut::new();
        let message = Message {
            csid: 8,
            timestamp: 7,
            kind,
            stream_id,
            payload: Bytes::copy_from_slice(payload),
        };
        self.writer.write(&mut bytes, &message);
        self.session.feed(&bytes)
    }

    fn call(&mut self, stream_id: u32, values: &[Value]) -> Result<Vec<Event>, RtmpError> {
        self.send(kind::COMMAND_AMF0, stream_id, &amf0::encode(values))
    }

    fn name_command(
        &mut self,
        command: &str,
        transaction: f64,
        name: &str,
    ) -> Result<Vec<Event>, RtmpError> {
        let values = [
            Value::text(command),
            Value::Number(transaction),
            Value::Null,
            Value::text(name),
        ];
        self.call(1, &values)
    }

    fn replies(&mut self) -> Vec<Message> {
        self.unread.extend_from_slice(&self.session.take_output());
        let mut messages = Vec::new();
        while let Some(message) = self.replies.next(&mut self.unread).unwrap() {
            if message.kind == kind::SET_CHUNK_SIZE {
                self.replies
                    .set_chunk_size(be32(&message).unwrap())
                    .unwrap();
            }
            messages.push(message);
        }
        messages
    }

    /// Names of the commands in the replies, with their status codes and stream ids.
    fn commands(&mut self) -> Vec<(String, String, u32)> {
        let replies = self.replies();
        let commands = replies
            .iter()
            .filter(|reply| reply.kind == kind::COMMAND_AMF0);
        commands
            .map(|reply| {
                let values = amf0::decode(&reply.payload, amf0::Limits::default()).unwrap();
                let code = values
                    .get(3)
                    .and_then(|value| value.field("code")?.as_text());
                let name = values[0].as_text().unwrap().to_owned();
                (name, code.unwrap_or_default().to_owned(), reply.stream_id)
            })
            .collect()
    }
}

fn command(name: &str, code: &str, stream_id: u32) -> (String, String, u32) {
    (name.into(), code.into(), stream_id)
}

#[test]
fn connect_is_answered_with_windows_chunk_size_and_result() {
    let mut client = Client::new();
    let app = Value::object([("app", Value::text("live"))]);
    let connect = [Value::text("connect"), Value::Number(1.0), app];
    assert_eq!(client.call(0, &connect), Ok(vec![]));
    let kinds: Vec<u8> = client.replies().iter().map(|reply| reply.kind).collect();
    assert_eq!(kinds, [5, 6, 1, 20]);
    assert_eq!(
        client.call(0, &connect),
        Err(RtmpError::OutOfOrder("connect"))
    );
}

#[test]
fn the_result_of_connect_lists_the_codecs_of_enhanced_rtmp() {
    let reply = command::connected(1.0);
    let codecs = reply[3].field("fourCcList");
    let expected = Value::Array(vec![Value::text("avc1"), Value::text("mp4a")]);
    assert_eq!(codecs, Some(&expected));
    assert_eq!(reply[3].field("capsEx"), Some(&Value::Number(0.0)));
}

#[test]
fn release_and_fc_publish_are_confirmed_only_if_a_transaction_asks() {
    let mut client = Client::connected();
    client.name_command("releaseStream", 2.0, "good1").unwrap();
    client.name_command("FCPublish", 3.0, "good1").unwrap();
    let start = "NetStream.Publish.Start";
    assert_eq!(
        client.commands(),
        [
            command("_result", "", 0),
            command("_result", "", 0),
            command("onFCPublish", start, 0)
        ]
    );
    client.name_command("releaseStream", 0.0, "good1").unwrap();
    client.name_command("FCPublish", 0.0, "good1").unwrap();
    assert_eq!(client.commands(), [command("onFCPublish", start, 0)]);
}

#[test]
fn accepting_writes_the_status_on_the_streams_own_id() {
    let mut client = Client::asked();
    client.session.accept_publish();
    let replies = client.replies();
    assert_eq!(replies[0].payload[..], [0, 0, 0, 0, 0, 1]);
    assert_eq!(replies[1].stream_id, 1);
}

#[test]
fn a_refusal_carries_its_code_and_sentence_and_makes_deaf() {
    for (code, text) in [
        (RefusalCode::Denied, "NetStream.Publish.Denied"),
        (RefusalCode::BadName, "NetStream.Publish.BadName"),
    ] {
        let mut client = Client::asked();
        let description = "The stream key is not known.".into();
        client
            .session
            .refuse_publish(&Refusal { code, description });
        assert_eq!(client.commands(), [command("onStatus", text, 1)]);
        client.session.accept_publish();
        assert_eq!(client.send(kind::VIDEO, 1, &[1]), Ok(vec![]));
        assert_eq!(client.name_command("publish", 6.0, "good1"), Ok(vec![]));
        assert!(client.replies().is_empty());
    }
}

#[test]
fn media_count_only_between_acceptance_and_fc_unpublish() {
    let mut client = Client::asked();
    assert_eq!(client.send(kind::VIDEO, 1, &[1]), Ok(vec![]));
    client.session.accept_publish();
    let media = Event::Media {
        kind: TrackKind::Video,
        timestamp: 7,
        payload: Bytes::from_static(&[1]),
    };
    assert_eq!(client.send(kind::VIDEO, 1, &[1]), Ok(vec![media]));
    assert_eq!(client.send(kind::AUDIO, 1, &[]), Ok(vec![]));
    assert_eq!(
        client.name_command("FCUnpublish", 6.0, "good1"),
        Ok(vec![Event::Unpublish])
    );
    assert_eq!(client.send(kind::AUDIO, 1, &[1]), Ok(vec![]));
    assert_eq!(client.name_command("deleteStream", 7.0, "1"), Ok(vec![]));
}

#[test]
fn delete_stream_may_carry_a_name_instead_of_a_number() {
    let mut client = Client::publishing();
    assert_eq!(
        client.name_command("deleteStream", 0.0, "good1"),
        Ok(vec![Event::Unpublish])
    );
}

#[test]
fn a_replaced_publisher_is_told_so() {
    let mut client = Client::publishing();
    let code = RefusalCode::BadName.as_str();
    client.session.end_with(code, "Another encoder took over.");
    assert_eq!(client.commands(), [command("onStatus", code, 1)]);
    assert_eq!(client.send(kind::VIDEO, 1, &[1]), Ok(vec![]));
}

#[test]
fn a_player_is_refused_politely() {
    let mut client = Client::connected();
    assert_eq!(
        client.name_command("play", 0.0, "x"),
        Ok(vec![Event::PlayRefused])
    );
    assert_eq!(
        client.commands(),
        [command("onStatus", "NetStream.Play.Failed", 1)]
    );
}

#[test]
fn unknown_commands_get_no_answer() {
    let mut client = Client::connected();
    for name in ["_checkbw", "getStreamLength", "FCSubscribe"] {
        assert_eq!(client.name_command(name, 4.0, "x"), Ok(vec![]));
    }
    assert!(client.replies().is_empty());
}

#[test]
fn window_size_0_is_clamped_and_acknowledged_by_halves() {
    let mut client = Client::publishing();
    client.send(kind::WINDOW_SIZE, 0, &[0; 4]).unwrap();
    assert_eq!(client.session.window, 16 << 10);
    client.replies();
    client.send(kind::VIDEO, 1, &[1; 9000]).unwrap();
    assert!(client.replies().is_empty(), "that is for who reads to say");
    client.session.acknowledge();
    let replies = client.replies();
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].kind, kind::ACKNOWLEDGEMENT);
    assert_eq!(be32(&replies[0]), Ok(client.session.received));
    client.send(kind::VIDEO, 1, &[1; 100]).unwrap();
    client.session.acknowledge();
    assert!(client.replies().is_empty());
}

#[test]
fn pings_go_both_ways() {
    let mut client = Client::publishing();
    client.session.ping(77);
    assert_eq!(client.replies()[0].payload[..], [0, 6, 0, 0, 0, 77]);
    let pong = client.send(kind::USER_CONTROL, 0, &[0, 7, 0, 0, 0, 77]);
    assert_eq!(pong, Ok(vec![Event::Pong { sent_ms: 77 }]));
    client
        .send(kind::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 5])
        .unwrap();
    assert_eq!(client.replies()[0].payload[..], [0, 7, 0, 0, 0, 5]);
}

#[test]
fn short_control_messages_are_errors() {
    for kind in [kind::SET_CHUNK_SIZE, kind::ABORT, kind::USER_CONTROL] {
        let mut client = Client::connected();
        assert_eq!(client.send(kind, 0, &[0]), Err(RtmpError::Control(kind)));
    }
}

#[test]
fn messages_may_be_longer_once_publishing() {
    let long = vec![0; 70_000];
    let mut client = Client::asked();
    let error = ChunkError::TooLong(70_000);
    assert_eq!(
        client.send(kind::VIDEO, 1, &long),
        Err(RtmpError::Chunk(error))
    );
    let mut client = Client::publishing();
    assert_eq!(client.send(kind::VIDEO, 1, &long).unwrap().len(), 1);
}

#[test]
fn the_command_that_aborted_another_server_is_an_error() {
    let mut client = Client::new();
    let mut bytes = amf0::encode(&[Value::text("x"), Value::Number(0.0)]);
    bytes.extend([0x0a, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(
        client.send(kind::COMMAND_AMF0, 0, &bytes),
        Err(RtmpError::Command(AmfError::Eof))
    );
}

#[test]
fn commands_may_come_in_amf3_messages() {
    let mut client = Client::connected();
    let mut bytes = vec![0];
    bytes.extend(amf0::encode(&[
        Value::text("createStream"),
        Value::Number(4.0),
    ]));
    client.send(kind::COMMAND_AMF3, 0, &bytes).unwrap();
    assert_eq!(client.commands(), [command("_result", "", 0)]);
}

#[test]
fn publishing_before_connecting_is_out_of_order() {
    let result = Client::new().name_command("publish", 1.0, "x");
    assert_eq!(result, Err(RtmpError::OutOfOrder("publish")));
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let mut client = Client::connected();
    let result = (0..100_000).find_map(|_| client.name_command("createStream", 1.0, "").err());
    assert_eq!(result, Some(RtmpError::OutputFull));
    assert!(client.session.output.len() < 260 << 10);
}

#[test]
fn metadata_are_passed_on_and_broken_ones_ignored() {
    let mut client = Client::publishing();
    let object = Value::object([("videocodecid", Value::Number(7.0))]);
    let values = amf0::encode(&[
        Value::text("@setDataFrame"),
        Value::text("onMetaData"),
        object,
    ]);
    let expected = Metadata {
        video: true,
        ..Metadata::default()
    };
    assert_eq!(
        client.send(kind::DATA_AMF0, 1, &values),
        Ok(vec![Event::Metadata(expected)])
    );
    assert_eq!(client.send(kind::DATA_AMF0, 1, &values[..40]), Ok(vec![]));
}

proptest! {
    #[test]
    fn any_messages_in_any_order_never_panic(
        messages in prop::collection::vec((0u8..23, prop::collection::vec(any::<u8>(), 0..200)), 0..30),
        accept in 0usize..30,
    ) {
        let mut client = Client::asked();
        for (index, (kind, payload)) in messages.into_iter().enumerate() {
            if index == accept {
                client.session.accept_publish();
            }
            if client.send(kind, 1, &payload).is_err() {
                break;
            }
        }
        prop_assert!(client.session.output.len() < Limits::default().output + 4096);
    }

    #[test]
    fn any_bytes_after_the_handshake_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut client = Client::new();
        let _ = client.session.feed(&bytes);
        prop_assert!(client.session.reader.held() <= bytes.len());
    }
}
