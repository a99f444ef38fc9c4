use proptest::prelude::*;

use super::*;

const MAX: u32 = 1 << 20;

fn be24(value: u32) -> [u8; 3] {
    let [_, a, b, c] = value.to_be_bytes();
    [a, b, c]
}

/// A whole header of type 0 on a chunk stream below 64.
fn header0(csid: u8, timestamp: u32, length: u32, type_id: u8) -> Vec<u8> {
    let mut bytes = vec![csid];
    bytes.extend(be24(timestamp.min(EXTENDED)));
    bytes.extend(be24(length));
    bytes.push(type_id);
    bytes.extend(1_u32.to_le_bytes());
    if timestamp >= EXTENDED {
        bytes.extend(timestamp.to_be_bytes());
    }
    bytes
}

fn read_all(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<Message>, Error> {
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input)? {
        messages.push(message);
    }
    assert!(input.is_empty(), "all input is taken");
    Ok(messages)
}

fn read(input: &[u8]) -> Result<Vec<Message>, Error> {
    read_all(&mut ChunkReader::new(MAX), input)
}

fn set_chunk_size(size: u32) -> Vec<u8> {
    let mut bytes = header0(2, 0, 4, kind::SET_CHUNK_SIZE);
    bytes.extend(size.to_be_bytes());
    bytes
}

#[test]
fn interleaved_chunks_go_to_their_own_messages() {
    let (video, audio) = (vec![0x17; 300], vec![0xAF; 200]);
    let mut wire = header0(4, 7, 300, kind::VIDEO);
    wire.extend(&video[..128]);
    wire.extend(header0(5, 8, 200, kind::AUDIO));
    wire.extend(&audio[..128]);
    wire.push(0xC4);
    wire.extend(&video[128..256]);
    wire.push(0xC5);
    wire.extend(&audio[128..]);
    wire.push(0xC4);
    wire.extend(&video[256..]);
    let messages = read(&wire).expect("legal");
    assert_eq!(messages.len(), 2);
    assert_eq!(
        (messages[0].timestamp_ms, &messages[0].data[..]),
        (8, &audio[..])
    );
    assert_eq!(
        (messages[1].timestamp_ms, &messages[1].data[..]),
        (7, &video[..])
    );
}

#[test]
fn chunk_streams_of_two_and_three_byte_ids_are_read() {
    for (id, csid) in [
        (vec![0, 0], 64),
        (vec![0, 255], 319),
        (vec![1, 255, 255], 65_599),
    ] {
        let mut wire = id;
        wire.extend(&header0(3, 5, 1, kind::AUDIO)[1..]);
        wire.push(9);
        let mut reader = ChunkReader::new(MAX);
        assert_eq!(read_all(&mut reader, &wire).expect("legal").len(), 1);
        assert_eq!(reader.streams[0].csid, csid);
    }
}

#[test]
fn deltas_add_up_and_wrap() {
    let mut wire = header0(4, u32::MAX - 9, 1, kind::AUDIO);
    wire.push(1);
    // Type 1 with a delta of 20, type 2 with 30, type 3 repeats it.
    wire.extend([0x44, 0, 0, 20, 0, 0, 1, kind::AUDIO, 2]);
    wire.extend([0x84, 0, 0, 30, 3]);
    wire.extend([0xC4, 4]);
    let times: Vec<_> = read(&wire)
        .expect("legal")
        .iter()
        .map(|m| m.timestamp_ms)
        .collect();
    assert_eq!(times, [u32::MAX - 9, 10, 40, 70]);
}

/// 300 bytes at a time that needs the extended field, with and without it on the continuations.
fn extended(timestamp: u32, repeated: bool, body: &[u8; 300]) -> Vec<u8> {
    let mut wire = header0(4, timestamp, 300, kind::VIDEO);
    for (at, piece) in body.chunks(128).enumerate() {
        if at > 0 {
            wire.push(0xC4);
            if repeated {
                wire.extend(timestamp.to_be_bytes());
            }
        }
        wire.extend(piece);
    }
    wire
}

#[test]
fn extended_timestamps_are_read_whether_or_not_continuations_repeat_them() {
    for repeated in [true, false] {
        for timestamp in [EXTENDED - 1, EXTENDED, EXTENDED + 1, u32::MAX] {
            let mut body = [0x5A; 300];
            // The first payload bytes of a continuation look like the timestamp, but for the last.
            body[128..131].copy_from_slice(&timestamp.to_be_bytes()[..3]);
            let wire = extended(timestamp, repeated && timestamp >= EXTENDED, &body);
            for step in [1, 2, 3, wire.len()] {
                let mut reader = ChunkReader::new(MAX);
                let mut messages = Vec::new();
                for piece in wire.chunks(step) {
                    messages.extend(read_all(&mut reader, piece).expect("legal"));
                }
                assert_eq!(messages.len(), 1);
                assert_eq!(messages[0].timestamp_ms, timestamp);
                assert_eq!(messages[0].data[..], body[..]);
            }
        }
    }
}

#[test]
fn abort_drops_the_unfinished_message_only() {
    let mut wire = header0(4, 0, 300, kind::VIDEO);
    wire.extend([1; 128]);
    wire.extend(header0(2, 0, 4, kind::ABORT));
    wire.extend(4_u32.to_be_bytes());
    wire.extend(header0(4, 9, 2, kind::AUDIO));
    wire.extend([7, 7]);
    let mut reader = ChunkReader::new(MAX);
    let messages = read_all(&mut reader, &wire).expect("legal");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].data[..], [7, 7]);
    assert_eq!(reader.partial_bytes(), 0);
}

#[test]
fn chunk_size_is_obeyed_and_checked() {
    let mut wire = set_chunk_size(1_000);
    wire.extend(header0(4, 0, 900, kind::VIDEO));
    wire.extend([3; 900]);
    assert_eq!(read(&wire).expect("legal")[0].data.len(), 900);
    for found in [0, 1 << 31, u32::MAX] {
        assert_eq!(
            read(&set_chunk_size(found)),
            Err(Error::ChunkSize { found })
        );
    }
    assert!(read(&set_chunk_size(i32::MAX.unsigned_abs())).is_ok());
    let short = [&header0(2, 0, 2, kind::SET_CHUNK_SIZE)[..], &[0, 0]].concat();
    assert!(matches!(read(&short), Err(Error::ControlLength { .. })));
}

#[test]
fn what_cannot_be_is_refused() {
    assert_eq!(read(&[0xC4]), Err(Error::NoHeader { csid: 4, format: 3 }));
    assert_eq!(
        read(&[0x84, 0, 0, 0]),
        Err(Error::NoHeader { csid: 4, format: 2 })
    );
    let long = header0(4, 0, MAX + 1, kind::VIDEO);
    assert!(matches!(read(&long), Err(Error::MessageTooLong { .. })));
    let mut wire = header0(4, 0, 300, kind::VIDEO);
    wire.extend([1; 128]);
    wire.extend(header0(4, 0, 20, kind::VIDEO));
    assert!(matches!(
        read(&wire),
        Err(Error::Interrupted {
            held_bytes: 128,
            ..
        })
    ));
    let streams = (3..64).flat_map(|csid| {
        let mut wire = header0(csid, 0, 1, kind::AUDIO);
        wire.push(0);
        wire
    });
    let streams: Vec<u8> = streams.collect();
    assert!(matches!(
        read(&streams),
        Err(Error::TooManyChunkStreams { .. })
    ));
}

#[test]
fn an_error_stays() {
    let mut reader = ChunkReader::new(MAX);
    let error = read_all(&mut reader, &[0xC4]).expect_err("no header");
    assert_eq!(read_all(&mut reader, &header0(4, 0, 0, 8)), Err(error));
}

#[test]
fn unfinished_messages_have_a_budget() {
    let mut reader = ChunkReader::new(1_000);
    read_all(&mut reader, &set_chunk_size(900)).expect("legal");
    let mut result = Ok(Vec::new());
    for csid in 3..6 {
        let mut wire = header0(csid, 0, 1_000, kind::VIDEO);
        wire.extend([1; 900]);
        result = read_all(&mut reader, &wire);
    }
    assert_eq!(result, Err(Error::PartialsTooLarge { max_bytes: 2_000 }));
}

#[test]
fn a_boasted_length_allocates_little() {
    let mut reader = ChunkReader::new(16 << 20);
    let mut wire = header0(4, 0, (16 << 20) - 1, kind::VIDEO);
    wire.push(1);
    read_all(&mut reader, &wire).expect("legal");
    assert!(reader.streams[0].data.capacity() <= 2 * FIRST_RESERVE_BYTES);
}

/// Messages as an independent serializer chunks them.
fn serialized(messages: &[(u8, u32, Vec<u8>)], chunk_bytes: u32) -> Vec<u8> {
    use rml_rtmp::chunk_io::ChunkSerializer;
    use rml_rtmp::messages::MessagePayload;
    use rml_rtmp::time::RtmpTimestamp;

    let mut serializer = ChunkSerializer::new();
    let size = serializer.set_max_chunk_size(chunk_bytes, RtmpTimestamp::new(0));
    let mut wire = size.expect("in range").bytes;
    for (type_id, timestamp, data) in messages {
        let payload = MessagePayload {
            timestamp: RtmpTimestamp::new(*timestamp),
            type_id: *type_id,
            message_stream_id: 1,
            data: data.clone().into(),
        };
        let packet = serializer.serialize(&payload, false, false);
        wire.extend(packet.expect("in range").bytes);
    }
    wire
}

fn any_message() -> impl Strategy<Value = (u8, u32, Vec<u8>)> {
    let kinds = prop_oneof![Just(kind::AUDIO), Just(kind::VIDEO), Just(kind::DATA_AMF0)];
    let times = prop_oneof![0_u32..1_000, 0x00FF_FFF0..0x0100_0010_u32];
    (kinds, times, proptest::collection::vec(any::<u8>(), 1..700))
}

proptest! {
    #[test]
    fn what_another_serializer_wrote_is_read_at_any_split(
        messages in proptest::collection::vec(any_message(), 0..12),
        chunk_bytes in 1_u32..400,
        cuts in proptest::collection::vec(1_usize..90, 1..40),
    ) {
        // Time that goes forward: that serializer writes no backward deltas.
        let mut messages = messages;
        messages.sort_by_key(|m| m.1);
        let wire = serialized(&messages, chunk_bytes);
        let mut reader = ChunkReader::new(MAX);
        let mut found = Vec::new();
        let (mut rest, mut cuts) = (&wire[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().expect("cycles")));
            found.extend(read_all(&mut reader, piece).expect("well-formed"));
            rest = after;
        }
        prop_assert_eq!(reader.offset(), wire.len() as u64);
        prop_assert_eq!(reader.partial_bytes(), 0);
        prop_assert_eq!(found.len(), messages.len());
        for (found, (type_id, timestamp, data)) in found.iter().zip(&messages) {
            prop_assert_eq!(found.type_id, *type_id);
            prop_assert_eq!(found.timestamp_ms, *timestamp);
            prop_assert_eq!(&found.data[..], &data[..]);
        }
    }

    #[test]
    fn any_bytes_give_the_same_at_any_split(
        wire in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..6, Just(0xC4), Just(0xFF)], 0..600),
        step in 1_usize..20,
    ) {
        let gather = |step: usize| {
            let mut reader = ChunkReader::new(200);
            let (mut messages, mut error) = (Vec::new(), None);
            for piece in wire.chunks(step) {
                let mut rest = piece;
                while error.is_none() {
                    match reader.read(&mut rest) {
                        Ok(Some(message)) => messages.push(message),
                        Ok(None) => break,
                        Err(e) => error = Some(e),
                    }
                }
                assert!(reader.partial_bytes() <= 400);
            }
            (messages, error)
        };
        prop_assert_eq!(gather(step), gather(wire.len().max(1)));
    }
}
