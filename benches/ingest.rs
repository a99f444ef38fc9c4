//! How fast bytes of RTMP become messages, beside how fast the machine copies them.
//!
//! Enters: invented pictures in chunks of three sizes; what a real encoder sent
//! Leaves: gigabytes per second on one core, nanoseconds per sample with and without the ingest doctor, on
//!         standard output; failure below what a thousand publishers send, or if the doctor costs more than they
//!         can afford
//! Never:  disk while it is timed, network, other threads
//! Time:   the machine's monotonic clock around the loop
//! Spec:   none

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater::demux::Output as Demuxed;
use headwater::demux::flv::{Demuxer, Message};
use headwater::demux::health::Checkup;
use headwater::ingest::rtmp::Config;
use headwater::ingest::rtmp::chunk::ChunkReader;
use headwater::ingest::rtmp::session::{Event, Output, Session};
use headwater::time::WallTime;

/// A thousand publishers of 6 Mbit/s each, in gigabytes per second.
const MIN_GIGABYTES: f64 = 0.75;
/// When the recorded connection begins.
const START_US: i64 = 1_795_000_000_000_000;
/// One frame of 6 Mbit/s at 30 frames per second.
const FRAME_BYTES: usize = 6_000_000 / 8 / 30;
const FRAMES: usize = 4_000;
/// What one read from a socket may bring.
const READ_BYTES: usize = 64 * 1_024;

/// Pictures on chunk stream 6, in chunks of `chunk_bytes`.
fn wire(chunk_bytes: usize) -> Vec<u8> {
    let announced = u32::try_from(chunk_bytes).expect("small").to_be_bytes();
    let mut wire = vec![0x02, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    wire.extend(announced);
    let frame = vec![0x5a; FRAME_BYTES];
    let length = u32::try_from(FRAME_BYTES).expect("small").to_be_bytes();
    for _ in 0..FRAMES {
        wire.extend([
            0x06, 0, 0, 33, length[1], length[2], length[3], 9, 1, 0, 0, 0,
        ]);
        for (at, chunk) in frame.chunks(chunk_bytes).enumerate() {
            if at > 0 {
                wire.push(0xC6);
            }
            wire.extend(chunk);
        }
    }
    wire
}

/// Messages read.
fn read_chunks(wire: &[u8]) -> usize {
    let mut reader = ChunkReader::new(Config::default().max_message_bytes);
    let mut messages = 0;
    for mut piece in wire.chunks(READ_BYTES) {
        while let Some(message) = reader.read(&mut piece).expect("a sound stream") {
            black_box(message);
            messages += 1;
        }
    }
    messages
}

/// What the doctor may cost per sample, in nanoseconds. A thousand publishers send 80 000 samples in a second:
/// a twelfth of a core.
const MAX_DOCTOR_NS: f64 = 1_000.0;
/// How often the whole connection is replayed.
const ROUNDS: u32 = 400;

/// Samples of one whole connection; the doctor looks on if there is one.
fn replay(wire: &[u8], now: Instant, mut doctor: Option<Checkup>) -> u32 {
    let mut session = Session::new(Config::default(), now);
    let mut demuxer = Demuxer::new();
    let mut samples = 0;
    for piece in wire.chunks(READ_BYTES) {
        session.handle_bytes(piece, now).expect("a sound session");
        while let Some(output) = session.poll_output() {
            let message = match output {
                Output::Event(Event::Requested(_)) => {
                    session.accept(now).expect("a sound session");
                    continue;
                }
                Output::Event(Event::Video { timestamp_ms, data }) => {
                    Message::Video { timestamp_ms, data }
                }
                Output::Event(Event::Audio { timestamp_ms, data }) => {
                    Message::Audio { timestamp_ms, data }
                }
                _ => continue,
            };
            let (Message::Video { timestamp_ms, .. } | Message::Audio { timestamp_ms, .. }) =
                message
            else {
                continue;
            };
            // As if it had come in time.
            let arrives = START_US + i64::from(timestamp_ms) * 1_000;
            let arrives = WallTime::from_micros(arrives);
            demuxer.push(message, arrives).expect("sound media");
            while let Some(output) = demuxer.poll_output() {
                samples += u32::from(matches!(output, Demuxed::Sample { .. }));
                if let Some(doctor) = &mut doctor {
                    doctor.observe(&output, arrives);
                }
                black_box(output);
            }
            if let Some(doctor) = &mut doctor {
                black_box(doctor.examine(arrives));
            }
        }
    }
    samples
}

/// Replays whole connections; prints what a sample costs, and says whether the doctor is cheap enough.
#[expect(clippy::print_stdout, reason = "the figures are what a bench is for")]
fn whole_connections(wire: &[u8]) -> bool {
    let mut least = [f64::INFINITY; 2];
    let begin = Instant::now();
    let mut all = 0;
    // One beside the other, and the least of all: what the machine does meanwhile must not decide.
    for _ in 0..ROUNDS {
        for (doctor, least) in [None, Some(Checkup::new())].into_iter().zip(&mut least) {
            let begin = Instant::now();
            let samples = replay(wire, begin, doctor);
            *least = least.min(begin.elapsed().as_secs_f64() * 1e9 / f64::from(samples));
            all += samples;
        }
    }
    let elapsed = begin.elapsed();
    let bytes = wire.len() * usize::try_from(2 * ROUNDS).expect("small");
    println!(
        "ingest: whole connections at 300 kbit/s: {:.2} GB/s, {all} samples in {elapsed:.1?}",
        gigabytes(bytes, elapsed)
    );
    let [without, with] = least;
    println!(
        "ingest: {without:.0} ns per sample, {with:.0} ns with the doctor: {:.0} ns for it",
        with - without
    );
    with - without < MAX_DOCTOR_NS
}

fn gigabytes(bytes: usize, elapsed: Duration) -> f64 {
    let bytes = u32::try_from(bytes).expect("less than four gigabytes");
    f64::from(bytes) / elapsed.as_secs_f64() / 1e9
}

#[expect(clippy::print_stdout, reason = "the figures are what a bench is for")]
fn main() -> ExitCode {
    let mut passed = true;
    for chunk_bytes in [128, 4_096, 65_536] {
        let wire = wire(chunk_bytes);
        let begin = Instant::now();
        for piece in wire.chunks(FRAME_BYTES) {
            black_box(Bytes::copy_from_slice(piece));
        }
        let copied = gigabytes(wire.len(), begin.elapsed());
        let begin = Instant::now();
        assert_eq!(read_chunks(&wire), FRAMES);
        let read = gigabytes(wire.len(), begin.elapsed());
        println!(
            "ingest: chunks of {chunk_bytes}: {read:.2} GB/s, {:.2} of copying ({copied:.2} GB/s)",
            read / copied
        );
        // Chunks of 128 bytes are what a publisher sends that never says otherwise; none does for media.
        passed &= chunk_bytes < 4_096 || read > MIN_GIGABYTES;
    }
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/rtmp/obs_29.0.2_x264_cbr.bin"
    );
    let wire = std::fs::read(path).expect("the fixture");
    passed &= whole_connections(&wire);
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
