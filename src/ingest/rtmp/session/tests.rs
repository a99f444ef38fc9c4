#![expect(
    clippy::disallowed_methods,
    reason = "an instant to begin with has no other source"
)]

use std::collections::HashMap;

use proptest::prelude::*;
use rml_amf0::Amf0Value;
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::time::RtmpTimestamp;

use super::super::RefusalCode;
use super::*;
use crate::ingest::rtmp::amf;

/// A publisher that writes what it is told to.
struct Publisher {
    serializer: ChunkSerializer,
    wire: Vec<u8>,
}

impl Publisher {
    /// The handshake done, nothing else.
    fn new() -> Self {
        let mut wire = vec![3];
        wire.resize(HANDSHAKE_BYTES, 0);
        Self {
            serializer: ChunkSerializer::new(),
            wire,
        }
    }

    fn message(mut self, type_id: u8, stream_id: u32, time: u32, data: Vec<u8>) -> Self {
        let payload = MessagePayload {
            timestamp: RtmpTimestamp::new(time),
            type_id,
            message_stream_id: stream_id,
            data: data.into(),
        };
        let packet = self.serializer.serialize(&payload, false, false);
        self.wire.extend(packet.expect("small").bytes);
        self
    }

    fn values(self, type_id: u8, stream_id: u32, values: Vec<Amf0Value>) -> Self {
        let body = rml_amf0::serialize(&values).expect("small");
        self.message(type_id, stream_id, 0, body)
    }

    fn command(self, stream_id: u32, name: &str, rest: Vec<Amf0Value>) -> Self {
        let mut values = vec![text(name), Amf0Value::Number(1.0)];
        values.extend(rest);
        self.values(kind::COMMAND_AMF0, stream_id, values)
    }

    fn connect(self, app: &str) -> Self {
        let object = HashMap::from([
            ("app".to_owned(), text(app)),
            ("flashVer".to_owned(), text("FMLE/3.0")),
        ]);
        self.command(0, "connect", vec![Amf0Value::Object(object)])
    }

    fn publish(self, key: &str) -> Self {
        self.connect("live")
            .command(0, "createStream", vec![Amf0Value::Null])
            .command(1, "publish", vec![Amf0Value::Null, text(key), text("live")])
    }
}

fn text(text: &str) -> Amf0Value {
    Amf0Value::Utf8String(text.to_owned())
}

/// A session at the beginning, and its time.
fn session() -> (Session, Instant) {
    let now = Instant::now();
    (Session::new(Config::default(), now), now)
}

/// Events and sent bytes; requests are accepted, deadlines left out.
fn drain(session: &mut Session, now: Instant) -> (Vec<Event>, Vec<u8>, bool) {
    let (mut events, mut sent, mut closed) = (Vec::new(), Vec::new(), false);
    while let Some(output) = session.poll_output() {
        match output {
            Output::Send(bytes) => sent.extend(bytes),
            Output::Event(event) => {
                let asks = matches!(event, Event::Requested(_));
                events.push(event);
                if asks {
                    let _whatever = session.accept(now);
                }
            }
            Output::Deadline(_) => {}
            Output::Close => closed = true,
        }
    }
    (events, sent, closed)
}

fn run(publisher: &Publisher) -> (Result<(), Error>, Vec<Event>, String) {
    let (mut session, now) = session();
    let result = session.handle_bytes(&publisher.wire, now);
    let (events, sent, _) = drain(&mut session, now);
    (result, events, String::from_utf8_lossy(&sent).into_owned())
}

#[test]
fn a_publisher_is_asked_for_once_and_then_heard() {
    let publisher = Publisher::new()
        .publish("demo?token=1&x=?")
        .message(kind::AUDIO, 1, 5, vec![0xAF, 1])
        .message(kind::AUDIO, 1, 5, vec![])
        .message(kind::VIDEO, 1, 9, vec![0x17, 1])
        .command(
            1,
            "deleteStream",
            vec![Amf0Value::Null, Amf0Value::Number(1.0)],
        );
    let (result, events, sent) = run(&publisher);
    assert_eq!(result, Ok(()));
    let request = Request {
        stream_key: "demo".to_owned(),
        query: Some("token=1&x=?".to_owned()),
        encoder: Some("FMLE/3.0".to_owned()),
    };
    let data = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let expected = [
        Event::Requested(request),
        Event::Audio {
            timestamp_ms: 5,
            data: data(&[0xAF, 1]),
        },
        Event::Video {
            timestamp_ms: 9,
            data: data(&[0x17, 1]),
        },
        Event::Unpublished,
    ];
    assert_eq!(events, expected);
    assert!(sent.contains("NetConnection.Connect.Success"));
    assert!(sent.contains("NetStream.Publish.Start"));
}

#[test]
fn publish_needs_no_mode_and_connect_may_carry_a_slash_or_query() {
    for app in ["live", "live/", "/live", "live?x=y"] {
        let publisher = Publisher::new()
            .connect(app)
            .command(0, "createStream", vec![])
            .command(1, "publish", vec![Amf0Value::Null, text("demo")]);
        assert!(
            matches!(run(&publisher).1[..], [Event::Requested(_)]),
            "{app}"
        );
    }
}

#[test]
fn capabilities_are_told_to_those_who_tell_theirs() {
    let connect = |extra: Option<(&str, Amf0Value)>| {
        let mut object = HashMap::from([("app".to_owned(), text("live"))]);
        object.extend(extra.map(|(name, value)| (name.to_owned(), value)));
        let command = Publisher::new().command(0, "connect", vec![Amf0Value::Object(object)]);
        let (result, _, said) = run(&command);
        assert_eq!(result, Ok(()));
        said
    };
    let plain = connect(None);
    assert!(plain.contains("NetConnection.Connect.Success"));
    assert!(!plain.contains("avc1") && !plain.contains("capsEx"));
    let fourccs = Amf0Value::StrictArray(vec![text("vvc1"), text("avc1")]);
    for extra in [("fourCcList", fourccs), ("capsEx", Amf0Value::Number(15.0))] {
        let said = connect(Some(extra));
        for codec in ["avc1", "hvc1", "av01", "vp09", "mp4a", "Opus"] {
            assert_eq!(said.matches(codec).count(), 2, "{codec} in {said:?}");
        }
        for name in [
            "fourCcList",
            "videoFourCcInfoMap",
            "audioFourCcInfoMap",
            "capsEx",
        ] {
            assert!(said.contains(name), "{name} in {said:?}");
        }
        assert!(!said.contains("vvc1"));
    }
}

#[test]
fn a_wrong_application_is_told_so() {
    let (result, events, sent) = run(&Publisher::new().connect("vod"));
    assert_eq!(
        result,
        Err(Error::App {
            found: "vod".to_owned()
        })
    );
    assert!(events.is_empty());
    assert!(sent.contains("NetConnection.Connect.Rejected"));
    assert!(sent.contains("no application \"vod\""));
}

#[test]
fn a_refusal_is_the_last_word() {
    let (mut session, now) = session();
    let publisher = Publisher::new().publish("demo");
    session.handle_bytes(&publisher.wire, now).expect("legal");
    while !matches!(
        session.poll_output(),
        Some(Output::Event(Event::Requested(_)))
    ) {}
    let refusal = Refusal {
        code: RefusalCode::BadName,
        description: "\u{1F600}".repeat(9_000),
    };
    session.refuse(&refusal);
    let (_, sent, closed) = drain(&mut session, now);
    assert!(String::from_utf8_lossy(&sent).contains("NetStream.Publish.BadName"));
    assert!(sent.len() < 4_096 && closed);
    session.handle_bytes(&publisher.wire, now).expect("ignored");
    assert_eq!(session.poll_output(), None);
}

#[test]
fn what_comes_while_a_decision_is_awaited_waits_for_it() {
    let (mut session, now) = session();
    let publisher = Publisher::new().publish("demo");
    session.handle_bytes(&publisher.wire, now).expect("legal");
    let begin = publisher.wire.len();
    let publisher = publisher.message(kind::VIDEO, 1, 9, vec![0x17, 1]);
    session
        .handle_bytes(&publisher.wire[begin..], now)
        .expect("legal");
    assert!(matches!(
        drain(&mut session, now).0[..],
        [Event::Requested(_), Event::Video { .. }]
    ));
    let (mut session, now) = self::session();
    session
        .handle_bytes(&publisher.wire[..begin], now)
        .expect("legal");
    let much = vec![0; MAX_HELD_BYTES + 1];
    assert!(matches!(
        session.handle_bytes(&much, now),
        Err(Error::Held { .. })
    ));
}

#[test]
fn aggregates_are_taken_apart() {
    let mut body = Vec::new();
    for (type_id, time, payload) in [(8_u8, 100_u8, 1_u8), (9, 120, 2), (18, 121, 5), (9, 140, 3)] {
        body.extend([
            type_id, 0, 0, 1, 0, 0, time, 0, 0, 0, 0, payload, 0, 0, 0, 12,
        ]);
    }
    let publisher = Publisher::new().publish("demo");
    let (result, events, _) = run(&publisher.message(kind::AGGREGATE, 1, 1_000, body.clone()));
    assert_eq!(result, Ok(()));
    let times = events.iter().filter_map(|event| match event {
        Event::Audio { timestamp_ms, .. } | Event::Video { timestamp_ms, .. } => {
            Some(*timestamp_ms)
        }
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [1_000, 1_020, 1_040]);
}

fn after_publish(type_id: u8, stream_id: u32, body: Vec<u8>) -> Result<(), Error> {
    let (mut session, now) = session();
    let publisher = Publisher::new().publish("demo");
    session.handle_bytes(&publisher.wire, now).expect("legal");
    drain(&mut session, now);
    let begin = publisher.wire.len();
    let publisher = publisher.message(type_id, stream_id, 0, body);
    session.handle_bytes(&publisher.wire[begin..], now)
}

#[test]
fn malformed_messages_close() {
    let cut = vec![9, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1];
    assert!(matches!(
        after_publish(kind::AGGREGATE, 1, cut),
        Err(Error::Aggregate { .. })
    ));
    let foreign = Error::ForeignStream {
        expected: 1,
        found: 2,
    };
    assert_eq!(after_publish(kind::VIDEO, 2, vec![1]), Err(foreign));
    assert_eq!(
        after_publish(kind::COMMAND_AMF0, 1, vec![5, 5]),
        Err(Error::ShortCommand { found: 2 })
    );
    assert_eq!(
        after_publish(kind::COMMAND_AMF0, 1, vec![5]),
        Err(Error::ShortCommand { found: 1 })
    );
    let bomb = [3, 0, 1, b'a'].repeat(5_000);
    let error = after_publish(kind::COMMAND_AMF3, 1, bomb.clone()).expect_err("a bomb");
    assert_eq!(error.fault(), Fault::Limit);
    assert_eq!(
        after_publish(kind::DATA_AMF0, 1, bomb),
        Err(Error::Amf {
            type_id: kind::DATA_AMF0,
            source: amf::Error::TooDeep { at: 64 },
        })
    );
    let nulls = after_publish(kind::COMMAND_AMF0, 0, vec![5; 1 << 20]).expect_err("a flood");
    assert_eq!(nulls.fault(), Fault::Limit);
    let again = Publisher::new()
        .publish("demo")
        .command(1, "publish", vec![]);
    assert!(matches!(run(&again).0, Ok(())));
}

#[test]
fn odd_data_is_no_reason_to_close() {
    let frame = [&[2, 0, 13][..], b"@setDataFrame"].concat();
    assert_eq!(after_publish(kind::DATA_AMF0, 1, frame.clone()), Ok(()));
    let bare = [&frame[..], &[2, 0, 10], b"onMetaData"].concat();
    assert_eq!(after_publish(kind::DATA_AMF0, 1, bare), Ok(()));
    assert_eq!(after_publish(kind::DATA_AMF3, 1, vec![0, 0x11]), Ok(()));
    assert_eq!(after_publish(kind::USER_CONTROL, 0, vec![0, 31]), Ok(()));
    assert_eq!(after_publish(kind::USER_CONTROL, 0, vec![]), Ok(()));
    assert_eq!(after_publish(99, 0, vec![1, 2, 3]), Ok(()));
}

#[test]
fn order_is_kept() {
    for (publisher, command) in [
        (
            Publisher::new().command(0, "createStream", vec![]),
            "createStream",
        ),
        (Publisher::new().connect("live").connect("live"), "connect"),
        (
            Publisher::new()
                .connect("live")
                .command(1, "publish", vec![]),
            "publish",
        ),
    ] {
        let result = run(&publisher).0;
        assert!(matches!(result, Err(Error::UnexpectedCommand { name, .. }) if name == command));
    }
    let early = Publisher::new()
        .connect("live")
        .message(kind::VIDEO, 0, 0, vec![1]);
    assert!(matches!(run(&early).0, Err(Error::UnexpectedMedia { .. })));
    let mut flood = Publisher::new().connect("live");
    for _ in 0..9 {
        flood = flood.command(0, "createStream", vec![]);
    }
    assert_eq!(run(&flood).0, Err(Error::TooManyStreams));
    let play = Publisher::new().connect("live").command(0, "play", vec![]);
    assert_eq!(run(&play).0, Err(Error::Play));
}

#[test]
fn a_handshake_of_another_version_closes() {
    let (mut session, now) = session();
    let result = session.handle_bytes(b"GET / HTTP/1.1\r\n\r\n", now);
    assert_eq!(result, Err(Error::Handshake { first_byte: b'G' }));
}

#[test]
fn pings_are_answered_and_bytes_acknowledged_in_total() {
    let (mut session, now) = session();
    let publisher = Publisher::new()
        .publish("demo")
        .message(kind::WINDOW_ACK_SIZE, 0, 0, 100_u32.to_be_bytes().to_vec())
        .message(kind::USER_CONTROL, 0, 0, vec![0, 6, 0, 0, 0, 77]);
    session.handle_bytes(&publisher.wire, now).expect("legal");
    let (_, sent, _) = drain(&mut session, now);
    let pong = [0, 7, 0, 0, 0, 77];
    assert!(sent.windows(6).any(|w| w == pong));
    let total = u32::try_from(publisher.wire.len() - HANDSHAKE_BYTES).expect("small");
    assert!(sent.ends_with(&total.to_be_bytes()));
}

#[test]
fn each_wait_has_its_deadline() {
    let config = Config::default();
    let publisher = Publisher::new()
        .publish("demo")
        .message(kind::VIDEO, 1, 0, vec![1]);
    let media = publisher.wire.len() - 1;
    let cases = [
        (0, config.handshake_timeout, "handshake"),
        (2_000, config.handshake_timeout, "handshake"),
        (
            HANDSHAKE_BYTES,
            config.handshake_timeout,
            "request to publish",
        ),
        (media, config.first_media_timeout, "media"),
        (media + 1, config.idle_timeout, "media"),
    ];
    for (bytes, after, expected) in cases {
        let (mut session, now) = session();
        session
            .handle_bytes(&publisher.wire[..bytes], now)
            .expect("legal");
        drain(&mut session, now);
        session
            .handle_timeout(now + after - Duration::from_millis(1))
            .expect("not yet");
        let error = Error::TimedOut { expected, after };
        assert_eq!(session.handle_timeout(now + after), Err(error));
    }
}

#[test]
fn a_deadline_that_moved_away_is_told_when_the_old_one_comes() {
    let (mut session, now) = session();
    let later = now + Duration::from_secs(3);
    assert_eq!(
        session.poll_output(),
        Some(Output::Deadline(now + Duration::from_secs(5)))
    );
    let wire = Publisher::new().wire;
    session.handle_bytes(&wire, later).expect("legal");
    while let Some(output) = session.poll_output() {
        assert!(matches!(output, Output::Send(_)));
    }
    session
        .handle_timeout(now + Duration::from_secs(5))
        .expect("moved");
    assert_eq!(
        session.poll_output(),
        Some(Output::Deadline(later + Duration::from_secs(5)))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_split_gives_the_same_events(cuts in proptest::collection::vec(1_usize..2_000, 1..20)) {
        let publisher = Publisher::new()
            .publish("demo")
            .values(kind::DATA_AMF0, 1, vec![
                text("onMetaData"),
                Amf0Value::Object(HashMap::from([("width".to_owned(), Amf0Value::Number(64.0))])),
            ])
            .message(kind::VIDEO, 1, 9, vec![0x17; 500])
            .message(kind::AUDIO, 1, 0x0100_0000, vec![0xAF; 300]);
        let whole = run(&publisher).1;
        prop_assert_eq!(whole.len(), 4);
        let (mut session, now) = session();
        let (mut rest, mut cuts, mut events) = (&publisher.wire[..], cuts.iter().cycle(), vec![]);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().expect("cycles")));
            session.handle_bytes(piece, now).expect("legal");
            events.extend(drain(&mut session, now).0);
            rest = after;
        }
        prop_assert_eq!(events, whole);
    }

    #[test]
    fn no_bytes_panic(
        at in 0_usize..3_500,
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..24], 0..2_000),
    ) {
        let publisher = Publisher::new().publish("demo").message(kind::VIDEO, 1, 0, vec![0; 200]);
        let mut wire = publisher.wire;
        wire.truncate(at);
        wire.extend(noise);
        let (mut session, now) = session();
        for piece in wire.chunks(700) {
            let result = session.handle_bytes(piece, now);
            let (_, _, closed) = drain(&mut session, now);
            prop_assert!(!closed || result.is_err() || session.phase() == "closed");
        }
    }
}
