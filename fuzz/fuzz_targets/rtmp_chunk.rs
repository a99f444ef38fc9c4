//! Any bytes, read whole and in pieces: the same messages, within the limits.

#![no_main]

use headwater::ingest::rtmp::chunk::{ChunkReader, Error, MAX_PARTIAL_MESSAGES, Message};
use libfuzzer_sys::fuzz_target;

const MAX_MESSAGE_BYTES: u32 = 4_096;

fn gather(wire: &[u8], step: usize) -> (Vec<Message>, Option<Error>) {
    let mut reader = ChunkReader::new(MAX_MESSAGE_BYTES);
    let mut messages = Vec::new();
    for mut piece in wire.chunks(step) {
        loop {
            let held = reader.partial_bytes();
            assert!(held <= MAX_MESSAGE_BYTES as usize * MAX_PARTIAL_MESSAGES);
            match reader.read(&mut piece) {
                Ok(Some(message)) => {
                    assert!(message.data.len() <= MAX_MESSAGE_BYTES as usize);
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(piece.is_empty());
    }
    assert_eq!(reader.offset(), wire.len() as u64);
    (messages, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((step, wire)) = input.split_first() else {
        return;
    };
    let step = usize::from(*step).max(1);
    assert_eq!(gather(wire, step), gather(wire, wire.len().max(1)));
});
