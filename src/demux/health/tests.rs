use std::num::NonZeroU32;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::{aac, h264 as codec};
use crate::media::TrackInfo;
use crate::time::{FrameRate, Span, Ticks};

const START_US: i64 = 1_795_000_000_000_000;
const VIDEO: TrackId = TrackId::new(NonZeroU32::MIN);
const AUDIO: TrackId = TrackId::new(NonZeroU32::new(2).expect("not zero"));
const AVCC: &[u8] = &[
    0x01, 0x64, 0x00, 0x1F, 0xFF, 0xE1, 0x00, 0x1A, 0x67, 0x64, 0x00, 0x1F, 0xAC, 0xD9, 0x80, 0x50,
    0x05, 0xBB, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xC0, 0xF1, 0x83,
    0x19, 0xA0, 0x01, 0x00, 0x05, 0x68, 0xE9, 0x7B, 0x2C, 0x8B, 0xFD, 0xF8, 0xF8, 0x00,
];
const IDR: &[u8] = &[0, 0, 0, 3, 0x65, 0b1000_1000, 0x80];
const P: &[u8] = &[0, 0, 0, 2, 0x41, 0b1110_0000];
const B: &[u8] = &[0, 0, 0, 2, 0x01, 0b1010_0000];
const RECOVERY: &[u8] = &[
    0,
    0,
    0,
    5,
    6,
    6,
    1,
    0xC4,
    0x80,
    0,
    0,
    0,
    3,
    0x41,
    0b1000_1000,
    0x80,
];

/// A source at 30 frames per second, as it is told to be.
#[derive(Clone, Copy)]
struct Source {
    /// Frames from key frame to key frame.
    gop: i64,
    open_gop: bool,
    b_frames: bool,
    sound: bool,
    /// How much later sound arrives, in milliseconds.
    sound_lag_ms: i64,
    /// Every so many frames one is left out; 0: none.
    drop_every: i64,
    /// Whether key frames are all that is sent of pictures.
    keys_alone: bool,
    /// Ticks by which every other frame is early.
    uneven: i64,
    /// Bytes of a frame.
    bytes: usize,
    /// Every so many seconds nothing arrives for 1.5 s, and then all at once; 0: never.
    stall_every: i64,
}

const CLEAN: Source = Source {
    gop: 60,
    open_gop: false,
    b_frames: false,
    sound: true,
    sound_lag_ms: 40,
    drop_every: 0,
    keys_alone: false,
    uneven: 0,
    bytes: 12_000,
    stall_every: 0,
};

/// A checkup with all that it told.
struct Run {
    checkup: Checkup,
    told: Vec<Change>,
    sound: i64,
}

impl Run {
    fn new(source: Source) -> Self {
        let mut run = Self {
            checkup: Checkup::new(),
            told: Vec::new(),
            sound: 0,
        };
        run.checkup.set_top_rung(Some(2_800_000));
        let avcc = codec::Config::parse_avcc(Bytes::from_static(AVCC)).expect("valid");
        let asc = aac::Config::parse_asc(Bytes::from_static(&[0x11, 0x90])).expect("valid");
        let video = TrackInfo {
            id: VIDEO,
            timescale: Timescale::VIDEO_90K,
            codec: CodecConfig::H264(avcc),
        };
        let timescale = Timescale::new(48_000).expect("not zero");
        let audio = TrackInfo {
            id: AUDIO,
            timescale,
            codec: CodecConfig::Aac(asc),
        };
        run.tell(&Output::Track(video), 0);
        run.tell(&Output::FrameRate(FrameRate::new(30, 1).expect("valid")), 0);
        if source.sound {
            run.tell(&Output::Track(audio), 0);
        }
        run
    }

    fn tell(&mut self, output: &Output, now_us: i64) {
        let now = WallTime::from_micros(START_US + now_us);
        self.checkup.observe(output, now);
        self.told.extend(self.checkup.examine(now));
    }

    /// Sends the seconds from `from` to `until`.
    fn send(&mut self, source: Source, from: i64, until: i64) {
        for n in from * 30..until * 30 {
            let at_us = n * 1_000_000 / 30;
            let second = at_us / 1_000_000;
            let stalls = source.stall_every > 0 && second % source.stall_every == 1;
            let now_us = if stalls {
                (second + 1) * 1_000_000 + 500_000
            } else {
                at_us + 20_000
            };
            let now_us = now_us.max(self.checkup.arrivals_us());
            let dropped = source.drop_every > 0 && n % source.drop_every == 1
                || source.keys_alone && n % source.gop != 0;
            if !dropped {
                self.picture(source, n, now_us);
            }
            while source.sound
                && self.sound * 1_024 * 1_000 / 48 + source.sound_lag_ms * 1_000 <= at_us
            {
                let dts = Ticks::new(START_US / 1_000_000 * 48_000 + self.sound * 1_024);
                let (duration, data) = (Span::new(1_024), Bytes::from_static(&[1]));
                let sample = Sample {
                    dts,
                    pts: dts,
                    duration,
                    keyframe: true,
                    data,
                };
                self.tell(
                    &Output::Sample {
                        track: AUDIO,
                        sample,
                    },
                    now_us,
                );
                self.sound += 1;
            }
        }
    }

    fn picture(&mut self, source: Source, n: i64, now_us: i64) {
        let begins = n % source.gop == 0;
        let keyframe = begins && (n == 0 || !source.open_gop);
        let head = match (keyframe, begins) {
            (true, _) => IDR,
            (_, true) => RECOVERY,
            _ if source.b_frames && n % 3 != 0 => B,
            _ => P,
        };
        let mut data = head.to_vec();
        // One more NAL unit, of filler.
        let filler = u32::try_from(source.bytes).expect("small");
        data.extend(filler.to_be_bytes());
        data.resize(data.len() + source.bytes, 0x0C);
        let early = if n % 2 == 1 { source.uneven } else { 0 };
        let dts = START_US / 1_000_000 * 90_000 + n * 3_000 - early;
        let offset = if source.b_frames {
            match n % 3 {
                0 => 6_000,
                1 => 0,
                _ => -3_000,
            }
        } else {
            0
        };
        let sample = Sample {
            dts: Ticks::new(dts),
            pts: Ticks::new(dts + offset),
            duration: Span::new(3_000),
            keyframe,
            data: data.into(),
        };
        self.tell(
            &Output::Sample {
                track: VIDEO,
                sample,
            },
            now_us,
        );
    }

    fn found(&self) -> Vec<&'static str> {
        self.checkup
            .findings()
            .map(|finding| finding.kind.id())
            .collect()
    }
}

impl Checkup {
    fn arrivals_us(&self) -> i64 {
        self.looked_us.map_or(0, |looked| looked - START_US)
    }
}

const ROWS: [(&[&str], Source); 12] = [
    (&[], CLEAN),
    (&[], Source { gop: 120, ..CLEAN }),
    (&["keyframe_interval"], Source { gop: 300, ..CLEAN }),
    (
        &["open_gop"],
        Source {
            open_gop: true,
            ..CLEAN
        },
    ),
    (
        &["b_frames"],
        Source {
            b_frames: true,
            ..CLEAN
        },
    ),
    (
        &["no_sound"],
        Source {
            sound: false,
            ..CLEAN
        },
    ),
    (
        &["sound_late"],
        Source {
            sound_lag_ms: 2_500,
            ..CLEAN
        },
    ),
    (
        &["frames_missing"],
        Source {
            drop_every: 20,
            ..CLEAN
        },
    ),
    // As much as a narrow way leaves, which more bits would not mend.
    (
        &["frames_missing"],
        Source {
            keys_alone: true,
            ..CLEAN
        },
    ),
    (
        &["frame_rate_uneven"],
        Source {
            uneven: 1_200,
            ..CLEAN
        },
    ),
    (
        &["bitrate_low"],
        Source {
            bytes: 3_000,
            ..CLEAN
        },
    ),
    (
        &["uplink_stalls"],
        Source {
            stall_every: 12,
            ..CLEAN
        },
    ),
];

#[test]
fn each_fault_is_found_and_nothing_else() {
    for (expected, source) in ROWS {
        let mut run = Run::new(source);
        run.send(source, 0, 45);
        assert_eq!(run.found(), expected);
        assert_eq!(run.told.len(), expected.len(), "{:?}", run.told);
        for finding in run.checkup.findings() {
            let text = finding.to_string();
            assert!(
                text.contains("In OBS: ") && text.contains(&finding.found),
                "{text}"
            );
        }
    }
}

#[test]
fn what_was_mended_is_told_once_and_gone() {
    let bad = Source {
        gop: 300,
        sound: false,
        ..CLEAN
    };
    let mut run = Run::new(CLEAN);
    run.send(bad, 0, 30);
    assert_eq!(run.found(), ["no_sound", "keyframe_interval"]);
    let finding = run.checkup.findings().nth(1).cloned().expect("two");
    assert_eq!(
        (finding.found.as_str(), finding.expected.as_str()),
        ("one every 10.0 s", "2 s, at most 4 s")
    );
    run.sound = 30 * 48_000 / 1_024;
    run.send(CLEAN, 30, 70);
    assert_eq!(run.found(), [""; 0]);
    let mended: Vec<&Change> = run
        .told
        .iter()
        .filter(|change| matches!(change, Change::Mended(_)))
        .collect();
    assert_eq!((run.told.len(), mended.len()), (4, 2), "{:?}", run.told);
}

/// A phone that was put away for half a minute, in the middle of a GOP, and went on with the same connection.
#[test]
fn hole_is_a_stall_and_nothing_else() {
    for moved in [None, Some(Repair::Reanchored { by_ms: 30_000 })] {
        let mut run = Run::new(CLEAN);
        run.send(CLEAN, 0, 61);
        assert_eq!(run.found(), [""; 0]);
        if let Some(repair) = moved {
            run.tell(&Output::Repair(repair), 91_000_000);
        }
        run.sound = 91 * 48_000 / 1_024;
        run.send(CLEAN, 91, 125);
        let told = |kind| {
            run.told
                .iter()
                .any(|told| matches!(told, Change::Found(found) if found.kind == kind))
        };
        let expected = 1 + usize::from(moved.is_some());
        assert_eq!(run.told.len(), expected, "{:?}", run.told);
        assert!(told(Kind::UplinkStalls));
        assert_eq!(told(Kind::StaysBehind), moved.is_some());
        assert_eq!(run.checkup.figures().keyframe_interval_ms, Some(2_000));
    }
}

#[test]
fn pictures_that_are_moved_are_neither_missing_nor_uneven() {
    for by_ms in [900, -2_000] {
        let mut run = Run::new(CLEAN);
        run.send(CLEAN, 0, 31);
        run.tell(&Output::Repair(Repair::Reanchored { by_ms }), 31_000_000);
        // All of it comes as ever, and lies elsewhere; what lies behind what was there is squeezed together.
        let at = |n: i64| START_US / 1_000_000 * 90_000 + n * 3_000;
        let mut last = at(31 * 30 - 1);
        for n in 31 * 30..60 * 30 {
            last = (at(n) + by_ms * 90).max(last + 1);
            let dts = Ticks::new(last);
            let sample = Sample {
                dts,
                pts: dts,
                duration: Span::new(3_000),
                keyframe: n % 60 == 0,
                data: vec![0; 12_000].into(),
            };
            let track = VIDEO;
            run.tell(&Output::Sample { track, sample }, n * 1_000_000 / 30);
        }
        let found = |change: &Change| match change {
            Change::Found(finding) => Some(finding.kind.id()),
            Change::Mended(_) => None,
        };
        let told: Vec<_> = run.told.iter().filter_map(found).collect();
        let expected: &[&str] = if by_ms > 0 {
            &["no_sound", "stays_behind"]
        } else {
            &["no_sound"]
        };
        assert!(told.iter().all(|told| expected.contains(told)), "{told:?}");
    }
}

#[test]
fn track_is_missing_for_as_long_as_the_other_comes_without_it() {
    let mut run = Run::new(CLEAN);
    run.send(CLEAN, 0, 20);
    let mute = Source {
        sound: false,
        ..CLEAN
    };
    run.send(mute, 20, 22);
    // Nothing comes, and then pictures alone.
    run.send(mute, 40, 41);
    assert!(!run.found().contains(&"no_sound"));
    run.send(mute, 41, 44);
    assert!(run.found().contains(&"no_sound"));
}

#[test]
fn repairs_and_drift_are_told() {
    let mut run = Run::new(CLEAN);
    run.send(CLEAN, 0, 20);
    run.tell(&Output::Repair(Repair::ClockJump { by_ms: 9 }), 20_000_000);
    run.tell(
        &Output::Repair(Repair::Reanchored { by_ms: 2_000 }),
        20_000_000,
    );
    run.tell(&Output::Repair(Repair::Slewed { by_ms: 30 }), 20_000_000);
    run.checkup.set_drift(Some(-180));
    run.send(CLEAN, 20, 25);
    assert_eq!(run.found(), ["stays_behind", "clock_jumps", "clock_drift"]);
    run.checkup.set_drift(Some(20));
    run.send(CLEAN, 25, 100);
    assert_eq!(run.found(), [""; 0]);
}

#[test]
fn other_tracks_are_told_once_and_for_all() {
    let mut run = Run::new(CLEAN);
    run.send(CLEAN, 0, 5);
    for kind in [MediaKind::Audio, MediaKind::Video] {
        let reason = DropReason::OtherTrack;
        run.tell(&Output::Repair(Repair::Dropped { kind, reason }), 5_000_000);
    }
    run.send(CLEAN, 5, 40);
    assert_eq!(run.found(), ["other_tracks"]);
    assert_eq!(run.told.len(), 1, "{:?}", run.told);
    let finding = run.checkup.findings().next().expect("one");
    assert_eq!(finding.found, "several of pictures and of sound");
}

#[test]
fn open_gops_of_hevc_are_those_with_pictures_that_have_to_be_left_out() {
    let unit = |kind: u8| vec![0, 0, 0, 4, kind << 1, 1, 0b1110_0000, 0x80];
    for (leading, expected) in [(None, 0), (Some(6), 0), (Some(8), 10)] {
        let mut pictures = Pictures::default();
        for n in 0..300 {
            let kind = match (n % 30, leading) {
                (0, _) => 21,
                (1..=3, Some(kind)) => kind,
                _ => 1,
            };
            let at = Ticks::new(n * 3_000);
            let sample = Sample {
                dts: at,
                pts: at,
                duration: Span::new(3_000),
                keyframe: kind == 21,
                data: unit(kind).into(),
            };
            pictures.push(&sample, hevc::picture(&sample.data));
        }
        let found = pictures.open_gops().map(|(found, _)| found);
        let text = format!("{expected} GOPs in 10 s that need pictures before them");
        assert_eq!(found, (expected > 0).then_some(text));
    }
}

#[test]
fn pictures_of_a_broadcast_without_any_are_told() {
    let mut run = Run::new(CLEAN);
    run.checkup.set_without_pictures(true);
    run.send(CLEAN, 0, 5);
    assert_eq!(run.found(), [""; 0], "they are about to be taken in");
    run.send(CLEAN, 5, 10);
    assert_eq!(run.found(), ["pictures_left_out"]);
    run.checkup.set_without_pictures(false);
    run.send(CLEAN, 10, 25);
    assert_eq!(run.found(), [""; 0]);
}

#[test]
fn after_a_time_without_pictures_nothing_is_said_of_their_coding() {
    let away = Source {
        gop: 1_000_000,
        keys_alone: true,
        ..CLEAN
    };
    let mut run = Run::new(CLEAN);
    run.send(CLEAN, 0, 10);
    run.send(away, 10, 50);
    assert_eq!(run.found(), ["no_picture"]);
    run.send(CLEAN, 50, 90);
    let found = |change: &Change| match change {
        Change::Found(finding) => Some(finding.kind),
        Change::Mended(_) => None,
    };
    let found: Vec<Kind> = run.told.iter().filter_map(found).collect();
    assert_eq!(found, [Kind::NoPicture]);
}

#[test]
fn every_kind_has_its_own_name_and_its_words() {
    let page = include_str!("../../../docs/health.md");
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let heading = format!("## `{}` ({})", kind.id(), kind.severity().as_str());
        for text in [&heading, kind.problem(), kind.obs(), kind.ffmpeg()] {
            assert!(page.contains(text), "docs/health.md does not say: {text}");
        }
        assert!(
            Kind::ALL
                .iter()
                .skip(at + 1)
                .all(|other| other.id() != kind.id())
        );
        assert!(!kind.problem().is_empty() && !kind.obs().is_empty() && !kind.ffmpeg().is_empty());
        assert!(
            !kind.problem().ends_with('.') && !kind.obs().ends_with('.'),
            "{}",
            kind.id()
        );
    }
}

proptest! {
    /// Whatever comes, a kind is told in turns: found, mended, found.
    #[test]
    fn nothing_is_told_twice(rows in prop::collection::vec((0_i64..400, 0_i64..3_000_000, 0_u8..5, any::<bool>()), 1..300)) {
        let mut run = Run::new(CLEAN);
        let (mut dts, mut now_us) = (START_US / 1_000_000 * 90_000, 0);
        for (step, wait, what, keyframe) in rows {
            (dts, now_us) = (dts + step * step, now_us + wait);
            let data = Bytes::from_static([IDR, P, B, RECOVERY, &[]][usize::from(what)]);
            let sample = Sample { dts: Ticks::new(dts), pts: Ticks::new(dts + step), duration: Span::new(1), keyframe, data };
            run.tell(&Output::Sample { track: VIDEO, sample }, now_us);
        }
        let mut open: Vec<Kind> = Vec::new();
        for change in &run.told {
            match change {
                Change::Found(finding) => {
                    prop_assert!(!open.contains(&finding.kind));
                    open.push(finding.kind);
                }
                Change::Mended(kind) => {
                    prop_assert!(open.contains(kind));
                    open.retain(|other| other != kind);
                }
            }
        }
        prop_assert_eq!(open.len(), run.checkup.findings().count());
    }
}

#[test]
fn key_frames_farther_apart_than_copied_segments_are_told() {
    let findings = |copied_ms| {
        let mut run = Run::new(CLEAN);
        run.checkup.set_copied_segment(copied_ms);
        run.send(Source { gop: 90, ..CLEAN }, 0, 20);
        run.found()
    };
    assert!(findings(None).is_empty());
    assert!(findings(Some(3_000)).is_empty());
    assert_eq!(findings(Some(2_000)), ["keyframe_interval"]);
}
