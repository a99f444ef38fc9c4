//! Compares whole outputs with what is committed in `fixtures/golden/<case>/`.
//!
//! Enters: invented samples, the same in every run
//! Leaves: every file of a case as committed; `HEADWATER_UPDATE_GOLDEN=1` rewrites them instead
//! Never:  media files, encoders, the network
//! Time:   the epoch timeline from segment 897600000 on
//! Spec:   [HLS], [DASH], [CMAF]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use headwater::codec::video::{Colour, Dimensions, PixelAspect};
use headwater::codec::{aac, h264, opus};
use headwater::id::{PeriodId, SegmentNumber};
use headwater::media::{CodecConfig, Rendition, Sample};
use headwater::package::{Config, Cuts, Output, Packager, Snapshot, dash, hls};
use headwater::time::{FrameRate, Span, Ticks, Timescale};

const FIRST: u64 = 897_600_000;

fn video(name: &str, (width, height): (u32, u32), rate: FrameRate, target_bps: u64) -> Rendition {
    let avcc = [
        1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 4, 0x68, 0xee, 0x3c, 0x80,
        0xfd, 0xf8, 0xf8, 0,
    ];
    Rendition {
        name: name.parse().expect("valid"),
        timescale: Timescale::VIDEO_90K,
        codec: CodecConfig::H264(h264::Config {
            avcc: avcc.to_vec().into(),
            profile: 0x64,
            compatibility: 0,
            level: 0x1f,
            dimensions: Dimensions { width, height },
            pixel_aspect: PixelAspect::SQUARE,
            colour: Colour {
                primaries: 1,
                transfer: 1,
                matrix: 1,
                full_range: false,
            },
            declared_rate: None,
        }),
        frame_rate: Some(rate),
        target_bps,
    }
}

fn sound(name: &str, codec: CodecConfig, target_bps: u64) -> Rendition {
    Rendition {
        name: name.parse().expect("valid"),
        timescale: Timescale::new(48_000).expect("not zero"),
        codec,
        frame_rate: None,
        target_bps,
    }
}

fn aac_lc() -> CodecConfig {
    CodecConfig::Aac(aac::Config {
        asc: vec![0x11, 0x90].into(),
        object_type: 2,
        sample_rate: 48_000,
        channels: 2,
        frame_samples: 1_024,
    })
}

/// Packages `segments` segments of 2 s, every sample of the size that its rendition aims at.
fn package(config: &Config, renditions: &[Rendition], segments: u64) -> Vec<Output> {
    let mut packager =
        Packager::new(config, PeriodId::new(FIRST), renditions.to_vec()).expect("valid");
    let mut outputs = Vec::new();
    for number in FIRST..FIRST + segments {
        for (index, rendition) in renditions.iter().enumerate() {
            for sample in segment(rendition, number) {
                packager.push(index, sample).expect("accepted");
                outputs.extend(std::iter::from_fn(|| packager.poll_output()));
            }
        }
    }
    outputs.extend(packager.finish().expect("finished"));
    outputs
}

fn segment(rendition: &Rendition, number: u64) -> Vec<Sample> {
    let scale = u64::from(rendition.timescale.get());
    let at = |slot: u64| match rendition.frame_rate {
        Some(rate) => rate.slot_start(i64::try_from(slot).expect("fits"), rendition.timescale),
        None => Ticks::new(i64::try_from(slot * frame_samples(rendition)).expect("fits")),
    };
    let first_slot = |number: u64| match rendition.frame_rate {
        Some(rate) => (number * 2 * u64::from(rate.num())).div_ceil(u64::from(rate.den())),
        None => (number * 2 * scale).div_ceil(frame_samples(rendition)),
    };
    let begin = first_slot(number);
    let sample = |slot: u64| {
        let duration = at(slot + 1).since(at(slot)).expect("forward");
        let bytes = rendition.target_bps * duration.get() / scale / 8;
        let bytes = usize::try_from(bytes).expect("small");
        Sample {
            dts: at(slot),
            pts: at(slot),
            duration,
            keyframe: slot == begin || rendition.frame_rate.is_none(),
            data: vec![u8::try_from(slot % 251).expect("small"); bytes].into(),
        }
    };
    (begin..first_slot(number + 1)).map(sample).collect()
}

fn frame_samples(rendition: &Rendition) -> u64 {
    match &rendition.codec {
        CodecConfig::Aac(config) => config.frame_samples.into(),
        _ => 960,
    }
}

/// Packages what a source cuts that turns, two and a half seconds late, into another: other pictures, another
/// rate of both. Segments are of unequal length, between the places of the grid; the sound of one is lost.
fn package_turn(config: &Config, turns: &[(Vec<Rendition>, &[u64])]) -> Vec<Output> {
    let cuts = Cuts::Source { longest_ms: 3_000 };
    let number = SegmentNumber::new(FIRST);
    let mut packager =
        Packager::cut_by(cuts, config, number, turns[0].0.clone(), None).expect("valid");
    let (mut outputs, mut number) = (Vec::new(), FIRST);
    // In milliseconds: every cut falls on a frame.
    let mut now = FIRST * 2_000 + 400;
    for (index, (renditions, lengths)) in turns.iter().enumerate() {
        if index > 0 {
            now += 2_500;
            let first = SegmentNumber::new(number);
            packager
                .change(renditions.clone(), first)
                .expect("accepted");
        }
        for (place, length) in lengths.iter().enumerate() {
            for (index, rendition) in renditions.iter().enumerate() {
                packager
                    .cut(index, SegmentNumber::new(number))
                    .expect("accepted");
                let lost = (index, place) == (1, 2);
                for sample in stretch(rendition, now..now + length)
                    .into_iter()
                    .filter(|_| !lost)
                {
                    packager.push(index, sample).expect("accepted");
                    outputs.extend(std::iter::from_fn(|| packager.poll_output()));
                }
            }
            (number, now) = (number + 1, now + length);
        }
    }
    outputs.extend(packager.finish().expect("finished"));
    outputs
}

/// The samples from the first at or after one millisecond to the last before another.
fn stretch(rendition: &Rendition, millis: Range<u64>) -> Vec<Sample> {
    let scale = u64::from(rendition.timescale.get());
    let length = match rendition.frame_rate {
        Some(rate) => scale * u64::from(rate.den()) / u64::from(rate.num()),
        None => frame_samples(rendition),
    };
    let slot = |at: u64| (at * scale).div_ceil(1_000 * length);
    let begin = slot(millis.start);
    let sample = |slot: u64| {
        let at = Ticks::new(i64::try_from(slot * length).expect("fits"));
        let bytes = rendition.target_bps * length / scale / 8;
        Sample {
            dts: at,
            pts: at,
            duration: Span::new(length),
            keyframe: slot == begin || rendition.frame_rate.is_none(),
            data: vec![7; usize::try_from(bytes).expect("small")].into(),
        }
    };
    (begin..slot(millis.end)).map(sample).collect()
}

/// Every text that can be rendered from a snapshot, by file name.
fn render(label: &str, snapshot: &Snapshot, files: &mut BTreeMap<String, String>) {
    let mut add = |name: String, text: Option<String>| {
        if let Some(text) = text {
            files.insert(format!("{label}/{name}"), text);
        }
    };
    add("index.m3u8".to_owned(), hls::multivariant::render(snapshot));
    add("manifest.mpd".to_owned(), dash::mpd::render(snapshot));
    add("ending.mpd".to_owned(), dash::mpd::render_ending(snapshot));
    for (index, rendition) in snapshot.period().renditions.iter().enumerate() {
        let name = &rendition.name;
        add(format!("{name}.m3u8"), hls::media::render(snapshot, index));
        if snapshot.presentation().config.low_latency.is_on() {
            let text = hls::media::render_delta(snapshot, index);
            add(format!("{name}.delta.m3u8"), text);
        }
    }
}

/// The boxes of an init segment or at the head of a part, sixteen bytes a line.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for byte in line {
            write!(text, "{byte:02x} ").expect("written");
        }
        text.push('\n');
    }
    text
}

/// One line that says what came out.
fn line(output: &Output, renditions: &[Rendition]) -> String {
    let name = |index: &usize| &renditions[*index].name;
    match output {
        Output::InitSegment {
            rendition,
            period,
            payload,
        } => format!("init {} {period} {}", name(rendition), payload.len()),
        Output::Part {
            rendition,
            segment,
            part,
            payload,
            duration,
            independent,
        } => {
            let (name, length, bytes) = (name(rendition), duration.get(), payload.len());
            format!("part {name} {segment}.{part} {length} {bytes} {independent}")
        }
        Output::Segment {
            rendition,
            segment,
            payload,
            duration,
            start,
        } => {
            let (start, length) = (start.ticks().get(), duration.get());
            let bytes = payload.len();
            format!(
                "segment {} {segment} {start} {length} {bytes}",
                name(rendition)
            )
        }
        Output::WindowChanged(snapshot) => {
            let (listed, ended) = (snapshot.listed(), snapshot.is_ended());
            format!("window {listed:?} ended={ended}")
        }
        Output::Evicted { rendition, segment } => format!("evicted {} {segment}", name(rendition)),
        Output::PeriodEvicted { period } => format!("evicted period {period}"),
    }
}

/// All files of a case: manifests at the start, in the middle and at the end, boxes, and the order of
/// outputs.
fn files(outputs: &[Output], renditions: &[Rendition]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut order = String::new();
    let mut snapshots: Vec<&Arc<Snapshot>> = Vec::new();
    for output in outputs {
        writeln!(order, "{}", line(output, renditions)).expect("written");
        match output {
            Output::InitSegment {
                rendition,
                period,
                payload,
            } => {
                let name = &renditions[*rendition].name;
                let file = match period.get() {
                    FIRST => format!("{name}.init.hex"),
                    period => format!("{name}.init-{period}.hex"),
                };
                files.insert(file, hex(&payload.to_bytes()));
            }
            Output::Part {
                rendition,
                segment,
                part,
                payload,
                ..
            } if segment.get() == FIRST && part.get() < 2 => {
                let file = format!("{}.part-{part}.hex", renditions[*rendition].name);
                files.insert(file, hex(&payload.pieces()[0]));
            }
            Output::WindowChanged(snapshot) => snapshots.push(snapshot),
            _ => {}
        }
    }
    files.insert("outputs.txt".to_owned(), order);
    let (middle, end) = (snapshots.len() * 2 / 3, snapshots.len() - 1);
    for (label, at) in [("first", 0), ("middle", middle), ("end", end)] {
        render(label, snapshots[at], &mut files);
    }
    files
}

fn compare(case: &str, files: &BTreeMap<String, String>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/golden")
        .join(case);
    if std::env::var_os("HEADWATER_UPDATE_GOLDEN").is_some() {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).expect("removed");
        }
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("folder");
            std::fs::write(path, text).expect("written");
        }
        return;
    }
    let mut committed = BTreeMap::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)
            .expect("case is committed")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(&folder)
                .expect("inside")
                .to_string_lossy()
                .into_owned();
            committed.insert(name, std::fs::read_to_string(&path).expect("text"));
        }
    }
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(files), "{case}");
    for (name, text) in files {
        assert_eq!(&committed[name], text, "{case}/{name}");
    }
}

#[test]
fn ladder_with_two_codecs_of_sound() {
    let rate = FrameRate::new(30, 1).expect("valid");
    let opus = CodecConfig::Opus(opus::Config {
        channels: 2,
        pre_skip: 312,
        input_sample_rate: 48_000,
    });
    let renditions = [
        video("v720", (1_280, 720), rate, 300_000),
        video("v360", (640, 360), rate, 90_000),
        sound("a128", aac_lc(), 16_000),
        sound("a64", aac_lc(), 8_000),
        sound("o96", opus, 12_000),
    ];
    let config = Config {
        low_latency: false.into(),
        ..Config::default()
    };
    let outputs = package(&config, &renditions, 13);
    compare("package_ladder", &files(&outputs, &renditions));
}

#[test]
fn low_latency_at_a_broken_frame_rate() {
    let rate = FrameRate::new(30_000, 1_001).expect("valid");
    let renditions = [
        video("v360", (640, 360), rate, 90_000),
        sound("a128", aac_lc(), 16_000),
    ];
    let config = Config {
        low_latency: true.into(),
        ..Config::default()
    };
    let outputs = package(&config, &renditions, 12);
    compare("package_low_latency", &files(&outputs, &renditions));
}

#[test]
fn sound_alone() {
    let renditions = [sound("a128", aac_lc(), 16_000)];
    let config = Config {
        low_latency: false.into(),
        window_segments: 6,
        kept_segments: 7,
        ..Config::default()
    };
    let outputs = package(&config, &renditions, 16);
    compare("package_sound_alone", &files(&outputs, &renditions));
}

#[test]
fn source_that_cuts_and_changes() {
    let [before, after] = [(30, (1_280, 720)), (25, (720, 1_280))].map(|(rate, size)| {
        let rate = FrameRate::new(rate, 1).expect("valid");
        vec![
            video("vcopy", size, rate, 90_000),
            sound("acopy", aac_lc(), 16_000),
        ]
    });
    let config = Config {
        window_segments: 8,
        ..Config::default()
    };
    let turns: [(_, &[u64]); 2] = [
        (before, &[2_000, 2_600, 2_000, 2_200, 3_000, 2_000]),
        (after.clone(), &[2_000, 2_400, 2_000, 2_800, 2_000, 2_000]),
    ];
    let outputs = package_turn(&config, &turns);
    compare("package_source_cut", &files(&outputs, &after));
}
