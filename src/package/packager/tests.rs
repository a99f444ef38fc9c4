use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::media::CodecConfig;
use crate::media::part_tests::RATES;
use crate::package::window::tests::{aac, h264};
use crate::package::{dash, hls};
use crate::time::{FrameRate, Grid, MediaTime, Timescale};

pub(super) const FIRST: u64 = 897_600_000;

/// Everything that came out, in order, and the snapshots among it.
pub(super) struct Run {
    pub(super) outputs: Vec<Output>,
    pub(super) renditions: Vec<Rendition>,
}

pub(super) fn config(segment_ms: u32, low_latency: bool) -> Config {
    Config {
        segment_ms: NonZeroU32::new(segment_ms).expect("not zero"),
        low_latency: low_latency.into(),
        ..Config::default()
    }
}

pub(super) fn video(name: &str, rate: (u32, u32)) -> Rendition {
    Rendition {
        frame_rate: FrameRate::new(rate.0, rate.1),
        ..h264(name, 1_280, 720)
    }
}

pub(super) fn aac_at(name: &str, sample_rate: u32) -> Rendition {
    let mut rendition = aac(name, 128_000);
    rendition.timescale = Timescale::new(sample_rate).expect("not zero");
    let CodecConfig::Aac(config) = &mut rendition.codec else {
        unreachable!("AAC");
    };
    config.sample_rate = sample_rate;
    if sample_rate == 44_100 {
        config.asc = vec![0x12, 0x10].into();
    }
    rendition
}

/// The samples of a rendition on the grid, from the start of segment `first`.
fn samples(config: &Config, rendition: &Rendition, first: u64) -> impl Iterator<Item = Sample> {
    let grid = Grid::new(config.segment_ms);
    let scale = rendition.timescale;
    let start = grid.start_of(SegmentNumber::new(first), scale).at(scale);
    let rate = rendition.frame_rate;
    let at = move |slot: i64| match rate {
        Some(rate) => rate.slot_start(slot, scale),
        None => Ticks::new(slot * 1_024),
    };
    let slot = match rate {
        Some(rate) => {
            let near = rate.nearest_slot(start) - 2;
            (near..).find(|s| at(*s) >= start.ticks()).expect("found")
        }
        None => (start.ticks().get() + 1_023) / 1_024,
    };
    let mut last = None;
    (slot..).map(move |slot| {
        let number = grid.segment_at(at(slot).at(scale));
        let begins = last != Some(number);
        last = Some(number);
        Sample {
            dts: at(slot),
            pts: at(slot),
            duration: at(slot + 1).since(at(slot)).expect("forward"),
            keyframe: begins || rate.is_none(),
            data: vec![u8::try_from(slot % 251).expect("small"); 40].into(),
        }
    })
}

/// Pushes `segments` segments of every rendition, interleaved by time.
fn run(config: &Config, renditions: &[Rendition], segments: u64) -> Run {
    let packager = Packager::new(config, PeriodId::new(FIRST), renditions.to_vec());
    drive(packager.expect("valid"), FIRST..FIRST + segments, |_, s| {
        Some(s)
    })
}

/// Pushes what `encode` makes of the samples of `segments` to `packager`, to its end.
pub(super) fn drive(
    mut packager: Packager,
    segments: Range<u64>,
    encode: impl FnMut(usize, Sample) -> Option<Sample>,
) -> Run {
    let renditions = packager.snapshot().period().renditions.clone();
    let mut outputs = feed(&mut packager, segments, encode);
    outputs.extend(packager.finish().expect("finished"));
    Run {
        outputs,
        renditions,
    }
}

/// Pushes what `encode` makes of the samples of `segments` to `packager`; what comes out.
pub(super) fn feed(
    packager: &mut Packager,
    segments: Range<u64>,
    mut encode: impl FnMut(usize, Sample) -> Option<Sample>,
) -> Vec<Output> {
    let config = &packager.presentation().config.clone();
    let renditions = &packager.snapshot().period().renditions.clone();
    let mut queues: Vec<_> = renditions
        .iter()
        .map(|r| samples(config, r, segments.start).peekable())
        .collect();
    let mut outputs = Vec::new();
    while let Some(output) = packager.poll_output() {
        outputs.push(output);
    }
    let grid = Grid::new(config.segment_ms);
    loop {
        let instant = |index: usize, sample: &Sample| sample.dts.at(renditions[index].timescale);
        let mut best: Option<(usize, MediaTime)> = None;
        for (index, queue) in queues.iter_mut().enumerate() {
            let time = instant(index, queue.peek().expect("endless"));
            if best.is_none_or(|(_, found)| time.cmp_instant(found).is_lt()) {
                best = Some((index, time));
            }
        }
        let (index, time) = best.expect("some");
        if grid.segment_at(time).get() >= segments.end {
            break;
        }
        let sample = queues[index].next().expect("endless");
        if let Some(sample) = encode(index, sample) {
            packager.push(index, sample).expect("accepted");
        }
        while let Some(output) = packager.poll_output() {
            outputs.push(output);
        }
    }
    outputs
}

impl Run {
    pub(super) fn snapshots(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.outputs.iter().filter_map(|output| match output {
            Output::WindowChanged(snapshot) => Some(snapshot),
            _ => None,
        })
    }

    pub(super) fn segments(&self, wanted: usize) -> Vec<(u64, Ticks, Span, &Payload)> {
        let of = |output| match output {
            &Output::Segment {
                rendition,
                segment,
                ref payload,
                duration,
                start,
            } if rendition == wanted => Some((segment.get(), start.ticks(), duration, payload)),
            _ => None,
        };
        self.outputs.iter().filter_map(of).collect()
    }
}

/// Every `tfdt` of a payload of fragments with the sum of the durations behind it.
pub(super) fn fragments(bytes: &[u8]) -> Vec<(u64, u64)> {
    use mp4_atom::{Any, DecodeMaybe};
    let mut rest = bytes;
    let mut found = Vec::new();
    while let Some(any) = Any::decode_maybe(&mut rest).expect("boxes") {
        if let Any::Moof(moof) = any {
            let traf = &moof.traf[0];
            let default = traf.tfhd.default_sample_duration;
            let run = &traf.trun[0].samples;
            let sum = run
                .iter()
                .map(|e| u64::from(e.duration.or(default).expect("given")));
            let base = traf.tfdt.as_ref().expect("tfdt").base_media_decode_time;
            found.push((base, sum.sum()));
        }
    }
    found
}

/// When each sample of a payload of fragments is shown.
pub(super) fn shown(bytes: &[u8]) -> Vec<u64> {
    use mp4_atom::{Any, DecodeMaybe};
    let mut rest = bytes;
    let mut found = Vec::new();
    while let Some(any) = Any::decode_maybe(&mut rest).expect("boxes") {
        if let Any::Moof(moof) = any {
            let traf = &moof.traf[0];
            let mut at = traf.tfdt.as_ref().expect("tfdt").base_media_decode_time;
            for entry in traf.trun[0].samples.iter() {
                let offset = entry.cts.unwrap_or(0);
                found.push(at.checked_add_signed(offset).expect("positive"));
                let lasts = entry.duration.or(traf.tfhd.default_sample_duration);
                at += u64::from(lasts.expect("given"));
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_run_holds_every_promise(
        rate in prop::sample::select(RATES.to_vec()), sound in prop::sample::select(vec![44_100, 48_000]),
        segment_ms in prop::sample::select(vec![1_000_u32, 1_920, 2_000, 2_002]),
        low_latency in any::<bool>(), segments in 3_u64..9,
    ) {
        let config = config(segment_ms, low_latency);
        let renditions = [video("v720", rate), video("v360", rate), aac_at("a128", sound)];
        let run = run(&config, &renditions, segments);
        segments_tile_the_time_line(&run)?;
        cuts_are_equal_on_every_rung(&run)?;
        parts_make_up_their_segment(&run)?;
        lists_only_what_was_published(&run)?;
        playlists_keep_their_word(&run)?;
    }
}

fn segments_tile_the_time_line(run: &Run) -> Result<(), TestCaseError> {
    for rendition in 0..run.renditions.len() {
        let segments = run.segments(rendition);
        let mut next = None;
        for (number, start, duration, payload) in segments {
            prop_assert!(next.is_none_or(|(n, t)| (n, t) == (number, start)));
            next = Some((number + 1, start.checked_add(duration).expect("fits")));
            let mut at = u64::try_from(start.get()).expect("positive");
            for (base, length) in fragments(&payload.to_bytes()) {
                prop_assert_eq!(base, at);
                at += length;
            }
            let end = u64::try_from(start.get()).expect("positive") + duration.get();
            prop_assert_eq!(at, end);
        }
    }
    Ok(())
}

fn cuts_are_equal_on_every_rung(run: &Run) -> Result<(), TestCaseError> {
    let cuts = |rendition| {
        let cut = |(n, start, duration, _): &(u64, Ticks, Span, &Payload)| (*n, *start, *duration);
        run.segments(rendition).iter().map(cut).collect::<Vec<_>>()
    };
    prop_assert_eq!(cuts(0), cuts(1));
    Ok(())
}

fn parts_make_up_their_segment(run: &Run) -> Result<(), TestCaseError> {
    let target = run
        .snapshots()
        .next()
        .expect("some")
        .presentation()
        .part_target
        .as_micros();
    let mut held: Vec<Vec<(Payload, Span)>> = vec![Vec::new(); run.renditions.len()];
    for output in &run.outputs {
        match output {
            Output::Part {
                rendition,
                part,
                payload,
                duration,
                ..
            } => {
                prop_assert_eq!(part.get() as usize, held[*rendition].len());
                held[*rendition].push((payload.clone(), *duration));
            }
            Output::Segment {
                rendition, payload, ..
            } => {
                let parts = std::mem::take(&mut held[*rendition]);
                let joined = Payload::concat(parts.iter().map(|(payload, _)| payload));
                prop_assert_eq!(joined.to_bytes(), payload.to_bytes());
                let scale = u64::from(run.renditions[*rendition].timescale.get());
                for (index, (_, duration)) in parts.iter().enumerate() {
                    let micros = duration.get() * 1_000_000;
                    prop_assert!(micros <= target * scale);
                    let last = index + 1 == parts.len();
                    prop_assert!(last || (micros + 1_000_000) * 100 >= target * scale * 85);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn lists_only_what_was_published(run: &Run) -> Result<(), TestCaseError> {
    let mut published = std::collections::BTreeSet::new();
    for output in &run.outputs {
        match output {
            Output::Segment {
                rendition, segment, ..
            } => {
                published.insert((*rendition, segment.get()));
            }
            Output::Evicted { rendition, segment } => {
                prop_assert!(published.remove(&(*rendition, segment.get())));
            }
            Output::WindowChanged(snapshot) => {
                for rendition in 0..run.renditions.len() {
                    for number in snapshot.listed() {
                        prop_assert!(published.contains(&(rendition, number)));
                        let found = snapshot.segment(rendition, SegmentNumber::new(number));
                        prop_assert_eq!(found.map(|s| s.number.get()), Some(number));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn value<'a>(text: &'a str, tag: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(tag));
    line.unwrap_or("")
}

/// Who renders them only when their outline has changed misses nothing.
fn top_manifests_follow_their_outline(run: &Run) -> Result<(), TestCaseError> {
    let mut last = None;
    for snapshot in run.snapshots() {
        let texts = (
            hls::multivariant::render(snapshot),
            dash::mpd::render(snapshot),
        );
        let now = (snapshot.outline(), texts);
        if let Some((outline, texts)) = last.filter(|(outline, _)| *outline == now.0) {
            prop_assert_eq!(&now, &(outline, texts));
        }
        last = Some(now);
    }
    Ok(())
}

/// What the MPD says, and when it says that it changed.
fn published(snapshot: &Snapshot) -> Option<(String, String)> {
    let text = if snapshot.is_ended() {
        dash::mpd::render_ending(snapshot)
    } else {
        dash::mpd::render(snapshot)
    };
    let text = text?;
    let (_, at) = text.split_once(" publishTime=\"")?;
    let at = at.split('"').next()?.to_owned();
    Some((text, at))
}

/// Every MPD that is not the one before says that it is later.
pub(super) fn mpd_says_when_it_changed<'a>(
    snapshots: impl IntoIterator<Item = &'a Snapshot>,
) -> Result<(), TestCaseError> {
    let mut last: Option<(String, String)> = None;
    for (text, at) in snapshots.into_iter().filter_map(published) {
        if let Some((before, then)) = last.filter(|(before, _)| *before != text) {
            prop_assert!(at > then, "{} after {}:\n{}\n{}", at, then, before, text);
        }
        last = Some((text, at));
    }
    Ok(())
}

pub(super) fn playlists_keep_their_word(run: &Run) -> Result<(), TestCaseError> {
    top_manifests_follow_their_outline(run)?;
    mpd_says_when_it_changed(run.snapshots().map(AsRef::as_ref))?;
    let mut sequence = 0;
    let mut constants = None;
    let mut known: std::collections::BTreeMap<String, String> = Default::default();
    for snapshot in run.snapshots() {
        for rendition in 0..run.renditions.len() {
            let Some(text) = hls::media::render(snapshot, rendition) else {
                continue;
            };
            let found: u64 = value(&text, "#EXT-X-MEDIA-SEQUENCE:")
                .parse()
                .expect("number");
            prop_assert!(found >= sequence);
            sequence = found;
            let target = value(&text, "#EXT-X-TARGETDURATION:").to_owned();
            let now = Some((target.clone(), value(&text, "#EXT-X-PART-INF:").to_owned()));
            prop_assert!(constants.is_none() || constants == now);
            constants = now;
            let mut length = String::new();
            for line in text.lines() {
                if let Some(extinf) = line.strip_prefix("#EXTINF:") {
                    length = extinf.to_owned();
                    let seconds: f64 = extinf.trim_end_matches(',').parse().expect("number");
                    prop_assert!(seconds.round() <= target.parse::<f64>().expect("number"));
                } else if !line.starts_with('#') {
                    let key = format!("{rendition}/{line}");
                    let before = known.insert(key, length.clone());
                    prop_assert!(before.is_none_or(|before| before == length));
                }
            }
        }
        if !snapshot.is_ended() && !snapshot.listed().is_empty() {
            let listed = |r| {
                snapshot
                    .listed_segments(r)
                    .map(|s| s.number)
                    .collect::<Vec<_>>()
            };
            prop_assert_eq!(listed(0), listed(2));
        }
    }
    Ok(())
}

#[test]
fn playlist_is_there_with_the_first_whole_segment() {
    let config = config(2_000, false);
    let renditions = [video("v720", (30, 1)), aac("a128", 128_000)];
    let run = run(&config, &renditions, 2);
    let first = run.snapshots().next().expect("some");
    assert_eq!(first.listed(), FIRST..FIRST + 1);
    assert!(hls::multivariant::render(first).is_some());
    assert!(hls::media::render(first, 1).is_some());
}

#[test]
fn segments_leave_the_list_and_then_memory() {
    let config = Config {
        window_segments: 6,
        kept_segments: 7,
        ..config(1_000, false)
    };
    let run = run(&config, &[aac("a128", 128_000)], 20);
    let last = run.snapshots().last().expect("some");
    assert!(last.is_ended());
    assert_eq!(last.listed(), FIRST + 14..FIRST + 20);
    let evicted = run.outputs.iter().filter_map(|output| match output {
        Output::Evicted { segment, .. } => Some(segment.get()),
        _ => None,
    });
    assert_eq!(
        evicted.collect::<Vec<_>>(),
        (FIRST..FIRST + 7).collect::<Vec<_>>()
    );
    let kept = SegmentNumber::new(FIRST + 7);
    assert!(last.segment(0, kept).is_some());
    assert!(last.part(0, kept, PartIndex::new(0)).is_some());
    assert!(last.segment(0, SegmentNumber::new(FIRST + 6)).is_none());
}

#[test]
fn refused_samples_change_nothing() {
    let config = config(2_000, false);
    let rendition = video("v720", (30, 1));
    let good: Vec<_> = samples(&config, &rendition, FIRST).take(3).collect();
    let mut packager =
        Packager::new(&config, PeriodId::new(FIRST), vec![rendition]).expect("valid");
    let delta = Sample {
        keyframe: false,
        ..good[0].clone()
    };
    assert!(matches!(
        packager.push(0, delta),
        Err(Error::NoKeyframe { .. })
    ));
    assert!(matches!(
        packager.push(9, good[0].clone()),
        Err(Error::UnknownRendition { .. })
    ));
    let endless = Sample {
        duration: Span::new(u64::MAX),
        ..good[0].clone()
    };
    assert!(matches!(
        packager.push(0, endless),
        Err(Error::Timing { .. })
    ));
    packager.push(0, good[0].clone()).expect("good");
    assert!(matches!(
        packager.push(0, good[0].clone()),
        Err(Error::NotContiguous { .. })
    ));
    packager.push(0, good[1].clone()).expect("good");
}

#[test]
fn a_rendition_without_media_stops_the_others_in_bounded_memory() {
    let config = config(1_000, false);
    let renditions = [aac("a128", 128_000), aac("a64", 64_000)];
    let mut packager =
        Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec()).expect("valid");
    let refused =
        samples(&config, &renditions[0], FIRST).find_map(|sample| packager.push(0, sample).err());
    let behind = renditions[1].name.clone();
    assert!(matches!(refused, Some(Error::Stalled { behind: found, .. }) if found == behind));
}

#[test]
fn mpd_waits_for_the_delay_that_it_suggests_and_changes_only_with_the_stream() {
    let config = config(2_000, false);
    let renditions = [video("v720", (30, 1)), aac("a128", 128_000)];
    let run = run(&config, &renditions, 12);
    let texts: Vec<_> = run
        .snapshots()
        .map(|snapshot| dash::mpd::render(snapshot))
        .collect();
    assert_eq!(texts[0], None);
    assert_eq!(texts[1], None);
    assert!(texts[2].is_some());
    assert!(texts[2..11].iter().all(|text| *text == texts[2]));
    let last = texts.last().cloned().flatten().expect("there");
    assert!(last.contains("type=\"static\"") && last.contains("PT20S"));
}

#[test]
fn nothing_is_hinted_that_the_end_would_break() {
    let config = config(2_000, true);
    let renditions = [video("v720", (30, 1))];
    let mut packager = Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec());
    let packager = packager.as_mut().expect("valid");
    let text = |packager: &Packager| hls::media::render(&packager.snapshot(), 0).expect("listed");
    let hints = |text: &str| text.matches("PRELOAD-HINT").count();
    for (slot, sample) in samples(&config, &renditions[0], FIRST)
        .take(120)
        .enumerate()
    {
        if slot == 100 {
            packager.close_soon();
        }
        packager.push(0, sample).expect("accepted");
        if slot == 59 {
            assert!(text(packager).contains(&format!("URI=\"{}.0.m4s\"", FIRST + 1)));
        } else if slot == 99 {
            assert_eq!(hints(&text(packager)), 1, "while it lives");
        } else if slot == 118 {
            assert_eq!(hints(&text(packager)), 0, "the last part may have been it");
        }
    }
    let whole = text(packager);
    assert!(whole.contains(&format!("\n{}.m4s\n", FIRST + 1)), "{whole}");
    assert_eq!(hints(&whole), 0, "{whole}");
}

/// Pictures end half a second into a segment of which there is no sound.
#[test]
fn what_was_played_as_parts_is_in_the_list_at_the_end() {
    let config = config(2_000, true);
    let renditions = [video("v720", (30, 1)), aac_at("a96", 48_000)];
    let packager = Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec());
    let grid = Grid::new(config.segment_ms);
    let last = FIRST + 3;
    let run = drive(
        packager.expect("valid"),
        FIRST..last + 1,
        |index, sample| {
            let scale = renditions[index].timescale;
            let begins = grid.start_of(SegmentNumber::new(last), scale);
            let into = sample.dts.get() - begins.get();
            let limit = if index == 0 {
                i64::from(scale.get()) / 2
            } else {
                0
            };
            (into < limit).then_some(sample)
        },
    );
    let parts = run.outputs.iter().filter_map(|output| match output {
        Output::Part {
            rendition: 0,
            segment,
            part,
            ..
        } if segment.get() == last => Some(format!("URI=\"{segment}.{part}.m4s\"")),
        _ => None,
    });
    let end = run.snapshots().last().expect("some");
    assert!(end.is_ended());
    let [pictures, sound] = [0, 1].map(|r| hls::media::render(end, r).expect("listed"));
    let parts: Vec<_> = parts.collect();
    assert!(!parts.is_empty());
    for part in parts {
        assert!(pictures.contains(&part), "{part} of\n{pictures}");
    }
    assert!(
        pictures.contains(&format!("#EXTINF:0.500000,\n{last}.m4s\n#EXT-X-ENDLIST")),
        "{pictures}"
    );
    assert!(
        sound.contains(&format!("\n{}.m4s\n#EXT-X-ENDLIST", last - 1)),
        "{sound}"
    );
    let plain = hls::media::render_plain(end, 0).expect("listed");
    assert!(
        plain.contains(&format!("\n{last}.m4s\n#EXT-X-ENDLIST")),
        "{plain}"
    );
    // A template of numbers promises the same of every rendition.
    let mpd = dash::mpd::render(end).expect("some");
    assert!(mpd.contains("mediaPresentationDuration=\"PT6S\""), "{mpd}");
}

#[test]
fn delta_update_leaves_out_what_is_older_than_the_skip_boundary() {
    let config = config(2_000, true);
    let run = run(&config, &[video("v720", (30, 1))], 12);
    let edge = run.snapshots().filter(|s| !s.is_ended()).last();
    let edge = edge.expect("some");
    let full = hls::media::render(edge, 0).expect("full");
    let delta = hls::media::render_delta(edge, 0).expect("delta");
    let skipped: usize = value(&delta, "#EXT-X-SKIP:SKIPPED-SEGMENTS=")
        .parse()
        .expect("number");
    let count = |text: &str| text.matches("#EXTINF").count();
    assert_eq!(count(&full), count(&delta) + skipped);
    assert!(
        full.ends_with(
            delta
                .split_once("#EXT-X-PROGRAM")
                .map_or("", |(_, tail)| tail)
        )
    );
}
