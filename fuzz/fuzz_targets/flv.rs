//! Feeds rows of FLV messages to the demuxer and checks the promises of its outputs.
//!
//! Enters: bytes, read as records of kind (1), stamp (4), wait in ms (2), length (1), body
//! Leaves: nothing, or a crash
//! Never:  network
//! Spec:   [FLV] annex E.4

#![no_main]

use bytes::Bytes;
use headwater::demux::check_invariants;
use headwater::demux::flv::{Demuxer, Message};
use headwater::time::WallTime;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut demuxer = Demuxer::new();
    let mut outputs = Vec::new();
    let mut now_ms = 1_795_000_000_000_i64;
    let mut rest = data;
    while let Some(([kind, s0, s1, s2, s3, w0, w1, length], after)) = rest.split_first_chunk::<8>()
    {
        let (body, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        now_ms += i64::from(u16::from_be_bytes([*w0, *w1]));
        let timestamp_ms = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        let data = Bytes::copy_from_slice(body);
        let message = match kind % 3 {
            0 => Message::Video { timestamp_ms, data },
            1 => Message::Audio { timestamp_ms, data },
            _ => Message::Metadata {
                frame_rate_millihertz: Some(timestamp_ms),
                width: None,
                height: None,
            },
        };
        let _ = demuxer.push(message, WallTime::from_micros(now_ms * 1_000));
        while let Some(output) = demuxer.poll_output() {
            outputs.push(output);
        }
    }
    assert_eq!(check_invariants(&outputs), Ok(()));
});
