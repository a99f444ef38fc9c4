//! What real encoders sent, byte for byte, through the session and the demuxer.
//!
//! Enters: `fixtures/rtmp/*.bin`: all that one encoder sent over one connection, handshake included
//! Leaves: tracks, rates and counts of samples, equal however the bytes were cut
//! Never:  sockets, the clock

#![cfg(test)]

use std::path::Path;
use std::time::{Duration, Instant};

use headwater::demux::flv::{AUDIO_TRACK, Demuxer, Message, VIDEO_TRACK};
use headwater::demux::{DropReason, Output, Repair, check_invariants};
use headwater::id::TrackId;
use headwater::ingest::rtmp::session::{self, Event, Session};
use headwater::ingest::rtmp::{Config, Metadata};
use headwater::media::{CodecString, MediaKind, TrackInfo};
use headwater::time::{FrameRate, WallTime};

/// When the replay takes place, in milliseconds of the epoch.
const BEGIN_MS: i64 = 1_795_000_000_000;

/// What a connection came to.
#[derive(Debug, PartialEq)]
struct Replay {
    stream_key: String,
    metadata: Vec<Metadata>,
    unpublished: bool,
    outputs: Vec<Output>,
}

impl Replay {
    /// Feeds `fixtures/rtmp/<name>` in pieces of `step` bytes.
    fn of(name: &str, step: usize) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/rtmp")
            .join(name);
        let wire = std::fs::read(path).expect("a fixture");
        let mut now = Instant::now();
        let mut session = Session::new(Config::default(), now);
        let mut demuxer = Demuxer::new();
        let mut replay = Self {
            stream_key: String::new(),
            metadata: Vec::new(),
            unpublished: false,
            outputs: Vec::new(),
        };
        for piece in wire.chunks(step) {
            now += Duration::from_micros(1);
            session.handle_bytes(piece, now).expect("a sound session");
            while let Some(output) = session.poll_output() {
                let session::Output::Event(event) = output else {
                    continue;
                };
                if let Event::Requested(request) = &event {
                    replay.stream_key.clone_from(&request.stream_key);
                    session.accept(now).expect("a sound session");
                }
                replay.take(event, &mut demuxer);
            }
        }
        replay
    }

    fn take(&mut self, event: Event, demuxer: &mut Demuxer) {
        let message = match event {
            Event::Video { timestamp_ms, data } => Message::Video { timestamp_ms, data },
            Event::Audio { timestamp_ms, data } => Message::Audio { timestamp_ms, data },
            Event::Metadata(metadata) => {
                let message = Message::Metadata {
                    frame_rate_millihertz: metadata.frame_rate_millihertz,
                    width: metadata.width,
                    height: metadata.height,
                };
                self.metadata.push(metadata);
                message
            }
            Event::Unpublished => return self.unpublished = true,
            Event::Requested(_) => return,
        };
        // As on a network without delay: everything arrives when it was stamped.
        let stamp_ms = match &message {
            Message::Video { timestamp_ms, .. } | Message::Audio { timestamp_ms, .. } => {
                *timestamp_ms
            }
            Message::Metadata { .. } => 0,
        };
        let now = WallTime::from_micros((BEGIN_MS + i64::from(stamp_ms)) * 1_000);
        demuxer.push(message, now).expect("sound media");
        while let Some(output) = demuxer.poll_output() {
            self.outputs.push(output);
        }
    }

    fn track(&self, wanted: TrackId) -> &TrackInfo {
        let mut found = self.outputs.iter().filter_map(|output| match output {
            Output::Track(info) if info.id == wanted => Some(info),
            _ => None,
        });
        let info = found.next().expect("the track");
        assert_eq!(found.next(), None, "announced once");
        info
    }

    fn samples(&self, wanted: TrackId) -> usize {
        let of_track =
            |output: &&Output| matches!(output, Output::Sample { track, .. } if *track == wanted);
        self.outputs.iter().filter(of_track).count()
    }

    fn reordered(&self) -> bool {
        self.outputs.iter().any(|output| {
            matches!(output, Output::Sample { track, sample }
                if *track == VIDEO_TRACK && sample.composition_offset().get() != 0)
        })
    }
}

/// What a fixture holds.
struct Expected {
    name: &'static str,
    stream_key: &'static str,
    encoder: &'static str,
    metadata_messages: usize,
    /// Of pictures and of sound, as manifests name them.
    codecs: [&'static str; 2],
    size: (u32, u32),
    channels: u8,
    pictures: usize,
    sounds: usize,
    /// Whether pictures are shown in another order than they are decoded in.
    reordered: bool,
    repairs: &'static [Repair],
}

/// Two pictures and an access unit of sound, each stamped like the one before.
const NUDGED: [Repair; 3] = [
    nudged(MediaKind::Video),
    nudged(MediaKind::Video),
    nudged(MediaKind::Audio),
];

const fn nudged(kind: MediaKind) -> Repair {
    Repair::Nudged { kind }
}

fn check(expected: &Expected) {
    let replay = Replay::of(expected.name, 1_460);
    assert_eq!(replay.stream_key, expected.stream_key);
    assert!(replay.unpublished, "said goodbye");
    assert_eq!(check_invariants(&replay.outputs), Ok(()));

    let encoders: Vec<_> = replay
        .metadata
        .iter()
        .map(|metadata| metadata.encoder.as_deref())
        .collect();
    assert_eq!(
        encoders,
        vec![Some(expected.encoder); expected.metadata_messages]
    );

    let [video, audio] = [VIDEO_TRACK, AUDIO_TRACK].map(|id| &replay.track(id).codec);
    let codecs = [video, audio].map(CodecString::of);
    assert_eq!(codecs.each_ref().map(CodecString::as_str), expected.codecs);
    let size = video.dimensions().map(|size| (size.width, size.height));
    assert_eq!(size, Some(expected.size));
    assert_eq!(audio.audio(), Some((48_000, expected.channels)));

    let rates: Vec<_> = replay
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::FrameRate(rate) => Some(*rate),
            _ => None,
        })
        .collect();
    assert_eq!(rates, Vec::from_iter(FrameRate::new(30, 1)));
    let counts = (replay.samples(VIDEO_TRACK), replay.samples(AUDIO_TRACK));
    assert_eq!(counts, (expected.pictures, expected.sounds));
    assert_eq!(replay.reordered(), expected.reordered);
    let repairs: Vec<_> = replay
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::Repair(repair) => Some(*repair),
            _ => None,
        })
        .collect();
    assert_eq!(repairs, expected.repairs);

    for step in [1, 97, 65_536, 1 << 20] {
        assert!(Replay::of(expected.name, step) == replay, "cut at {step}");
    }
}

#[test]
fn obs_is_taken() {
    check(&Expected {
        name: "obs_29.0.2_x264_cbr.bin",
        stream_key: "obs",
        encoder: "obs-output module (libobs version 29.0.2.1-1+b1)",
        metadata_messages: 1,
        codecs: ["avc1.64001E", "mp4a.40.2"],
        size: (640, 360),
        channels: 2,
        pictures: 155,
        sounds: 240,
        reordered: true,
        repairs: &[],
    });
}

#[test]
fn ffmpeg_is_taken() {
    check(&Expected {
        name: "ffmpeg_5.1.9_b_frames.bin",
        stream_key: "cap_ffmpeg",
        encoder: "Lavf59.27.100",
        metadata_messages: 1,
        codecs: ["avc1.64000D", "mp4a.40.2"],
        size: (320, 180),
        channels: 6,
        pictures: 120,
        sounds: 189,
        reordered: true,
        repairs: &[],
    });
}

#[test]
fn rtmp2sink_is_taken() {
    check(&Expected {
        name: "rtmp2sink_1.22.0_stamps_clipped.bin",
        stream_key: "cap_rtmp2sink",
        encoder: "GStreamer 1.22.0 FLV muxer",
        metadata_messages: 21,
        codecs: ["avc1.64000D", "mp4a.40.2"],
        size: (320, 180),
        channels: 6,
        pictures: 120,
        sounds: 188,
        reordered: true,
        repairs: &NUDGED,
    });
}

#[test]
fn rtmpsink_is_taken() {
    check(&Expected {
        name: "rtmpsink_1.22.0_metadata_repeated.bin",
        stream_key: "cap_rtmpsink",
        encoder: "GStreamer 1.22.0 FLV muxer",
        metadata_messages: 21,
        codecs: ["avc1.64000D", "mp4a.40.2"],
        size: (320, 180),
        channels: 6,
        pictures: 120,
        sounds: 188,
        reordered: true,
        repairs: &NUDGED,
    });
}

/// What ffmpeg 9 sends of codecs that only Enhanced RTMP has.
const ENHANCED: Expected = Expected {
    name: "",
    stream_key: "",
    encoder: "Lavf63.1.102",
    metadata_messages: 1,
    codecs: ["", ""],
    size: (160, 90),
    channels: 2,
    pictures: 90,
    sounds: 142,
    reordered: false,
    repairs: &[],
};

#[test]
fn hevc_and_opus_are_taken() {
    check(&Expected {
        name: "ffmpeg_9.0.2_hevc_opus.bin",
        stream_key: "ff9_hevc",
        codecs: ["hvc1.1.6.L30.90", "opus"],
        sounds: 151,
        reordered: true,
        ..ENHANCED
    });
}

#[test]
fn av1_and_opus_in_mono_are_taken() {
    check(&Expected {
        name: "ffmpeg_9.0.2_av1_opus_mono.bin",
        stream_key: "ff9_av1",
        codecs: ["av01.0.00M.08", "opus"],
        channels: 1,
        sounds: 151,
        ..ENHANCED
    });
}

#[test]
fn vp9_is_taken() {
    check(&Expected {
        name: "ffmpeg_9.0.2_vp9_aac.bin",
        stream_key: "ff9_vp9",
        codecs: ["vp09.00.10.08", "mp4a.40.2"],
        ..ENHANCED
    });
}

#[test]
fn of_two_tracks_of_sound_the_first_is_taken() {
    check(&Expected {
        name: "ffmpeg_9.0.2_two_tracks_of_sound.bin",
        stream_key: "ff9_multi",
        codecs: ["avc1.42C00B", "mp4a.40.2"],
        repairs: &[Repair::Dropped {
            kind: MediaKind::Audio,
            reason: DropReason::OtherTrack,
        }],
        ..ENHANCED
    });
}
