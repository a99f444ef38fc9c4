use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{
    FIRST, Run, aac_at, config, fragments, playlists_keep_their_word, value, video,
};
use super::*;
use crate::package::snapshot::Segment;
use crate::package::{ConfigError, dash, hls};
use crate::time::Ticks;

/// The longest segment that the tests' sources make.
const LONGEST_MS: u32 = 4_000;
const CUTS: Cuts = Cuts::Source {
    longest_ms: LONGEST_MS,
};

/// What a source sends without changing: pictures and, at the same time, sound.
#[derive(Clone, Debug)]
pub(super) struct Take {
    /// How long after the end of the one before it begins, in milliseconds.
    pub(super) after_ms: i64,
    /// How many numbers are left out before it.
    pub(super) skipped: u64,
    pub(super) fps: u32,
    pub(super) sound: u32,
    /// The frames of each segment.
    pub(super) segments: Vec<u32>,
    /// Segments, by rendition and place, that nothing came for, and whether a cut told of them all the same.
    pub(super) lost: Vec<(usize, usize, bool)>,
}

impl Take {
    pub(super) fn new(fps: u32, sound: u32, segments: &[u32]) -> Self {
        Self {
            after_ms: 0,
            skipped: 0,
            fps,
            sound,
            segments: segments.to_vec(),
            lost: Vec::new(),
        }
    }

    pub(super) fn renditions(&self) -> Vec<Rendition> {
        let rate = (self.fps, 1);
        let sound = aac_at("acopy", self.sound);
        vec![video("vcopy", rate), video("v360", rate), sound]
    }

    fn length_ms(&self) -> i64 {
        let frames: u32 = self.segments.iter().sum();
        i64::from(frames) * 1_000 / i64::from(self.fps)
    }

    /// What happens, in order, if it begins at `start_ms` with segment `first`.
    fn script(&self, start_ms: i64, first: u64) -> Vec<Event> {
        let mut frames = 0;
        let mut cuts: Vec<_> = [0]
            .into_iter()
            .chain(self.segments.iter().copied())
            .collect();
        cuts.iter_mut().for_each(|cut| {
            frames += *cut;
            *cut = frames;
        });
        let cuts: Vec<_> = cuts
            .iter()
            .map(|f| start_ms + i64::from(*f) * 1_000 / i64::from(self.fps))
            .collect();
        let mut events = Vec::new();
        for rendition in 0..3 {
            let (scale, step) = match rendition {
                2 => (i64::from(self.sound), 1_024),
                _ => (90_000, 90_000 / i64::from(self.fps)),
            };
            let origin = if rendition == 2 {
                0
            } else {
                start_ms * scale / 1_000
            };
            // The first sample at or after an instant.
            let at = |ms: i64| {
                let ticks = ms * scale - origin * 1_000;
                origin + (ticks + step * 1_000 - 1).div_euclid(step * 1_000) * step
            };
            for (place, pair) in cuts.windows(2).enumerate() {
                let lost = self
                    .lost
                    .iter()
                    .find(|(r, p, _)| (*r, *p) == (rendition, place));
                let (mut dts, end) = (at(pair[0]), at(pair[1]));
                let nanos = |dts: i64| i128::from(dts) * 1_000_000_000 / i128::from(scale);
                if lost.is_none_or(|(_, _, told)| *told) {
                    let number = SegmentNumber::new(first + place as u64);
                    events.push((nanos(dts), Event::Cut(rendition, number)));
                }
                let mut keyframe = true;
                while dts < end && lost.is_none() {
                    let sample = Sample {
                        dts: Ticks::new(dts),
                        pts: Ticks::new(dts),
                        duration: Span::new(step.unsigned_abs()),
                        keyframe,
                        data: vec![7; 40].into(),
                    };
                    events.push((nanos(dts), Event::Sample(rendition, sample)));
                    keyframe = rendition == 2;
                    dts += step;
                }
            }
        }
        // Stable, so that a cut stays before its sample.
        events.sort_by_key(|(at, _)| *at);
        events.into_iter().map(|(_, event)| event).collect()
    }
}

#[derive(Clone, Debug)]
enum Event {
    Cut(usize, SegmentNumber),
    Sample(usize, Sample),
}

/// Packages `takes`, each but the first in a period of its own.
pub(super) fn play(packager: Packager, takes: &[Take]) -> Run {
    let mut outputs = Vec::new();
    let mut packager = packager;
    let mut first = packager.snapshot().period().first.get();
    let mut start_ms = i64::try_from(FIRST * 2_000).expect("fits") + 417;
    for (index, take) in takes.iter().enumerate() {
        if index > 0 {
            first += take.skipped;
            start_ms += take.after_ms;
            let changed = packager.change(take.renditions(), SegmentNumber::new(first));
            changed.expect("accepted");
        }
        for event in take.script(start_ms, first) {
            match event {
                Event::Cut(rendition, number) => packager.cut(rendition, number),
                Event::Sample(rendition, sample) => packager.push(rendition, sample),
            }
            .expect("accepted");
            outputs.extend(std::iter::from_fn(|| packager.poll_output()));
        }
        first += take.segments.len() as u64;
        start_ms += take.length_ms();
    }
    outputs.extend(packager.finish().expect("finished"));
    Run {
        outputs,
        renditions: takes[0].renditions(),
    }
}

fn packager(config: &Config, take: &Take, past: Option<&Past>) -> Packager {
    let first = SegmentNumber::new(FIRST);
    Packager::cut_by(CUTS, config, first, take.renditions(), past).expect("valid")
}

pub(super) fn run(config: &Config, takes: &[Take]) -> Run {
    play(packager(config, &takes[0], None), takes)
}

fn take() -> impl Strategy<Value = Take> {
    let lost = prop::collection::vec((0_usize..3, 0_usize..5, any::<bool>()), 0..3);
    (
        (0_i64..9_000, 0_u64..4),
        prop::sample::select(vec![24_u32, 25, 30, 50]),
        prop::sample::select(vec![44_100_u32, 48_000]),
        prop::collection::vec(2_000_u32..4_000, 1..6),
        prop_oneof![2 => Just(Vec::new()), 1 => lost],
    )
        .prop_map(|((after_ms, skipped), fps, sound, lengths, lost)| Take {
            after_ms,
            skipped,
            fps,
            sound,
            // Two seconds or more, in whole frames.
            segments: lengths
                .iter()
                .map(|ms| (ms * fps).div_ceil(1_000))
                .collect(),
            lost,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_broadcast_that_changes_holds_every_promise(
        takes in prop::collection::vec(take(), 1..5), low_latency in any::<bool>(),
    ) {
        let config = config(2_000, low_latency);
        let run = run(&config, &takes);
        let lost = takes.iter().any(|take| !take.lost.is_empty());
        playlists_keep_their_word(&run)?;
        numbers_go_up_by_one(&run)?;
        periods_are_marked_alike(&run)?;
        init_segments_are_there_while_named(&run)?;
        media_is_where_the_playlist_says(&run)?;
        parts_are_even(&run, low_latency)?;
        mpd_lists_the_same(&run)?;
        if !lost {
            hints_come_true(&run)?;
        }
    }
}

/// No number twice, none missing, in no playlist; each has its media or is a gap.
fn numbers_go_up_by_one(run: &Run) -> Result<(), TestCaseError> {
    let mut known: BTreeMap<(usize, u64), String> = BTreeMap::new();
    let mut end = FIRST;
    for snapshot in run.snapshots() {
        prop_assert!(snapshot.listed().end >= end);
        end = snapshot.listed().end;
        for rendition in 0..3 {
            let all: Vec<_> = snapshot.segments(rendition).collect();
            prop_assert!(
                all.windows(2)
                    .all(|two| two[0].number.next() == two[1].number)
            );
            for segment in all {
                prop_assert_eq!(segment.gap, segment.payload.is_empty());
                let words = format!(
                    "{:?}",
                    (
                        segment.start,
                        segment.duration,
                        segment.period,
                        segment.discontinuity,
                        segment.gap,
                        segment.scale
                    )
                );
                let before = known.insert((rendition, segment.number.get()), words.clone());
                prop_assert!(before.is_none_or(|before| before == words));
            }
        }
    }
    let last = run.snapshots().last().expect("some");
    let kept = |rendition| last.segments(rendition).next_back().map(|s| s.number);
    prop_assert!(kept(0) == kept(1) && kept(0) == kept(2));
    let mut made: BTreeMap<(usize, u64), u32> = BTreeMap::new();
    for output in &run.outputs {
        if let Output::Segment {
            rendition, segment, ..
        } = output
        {
            *made.entry((*rendition, segment.get())).or_default() += 1;
        }
    }
    prop_assert!(made.values().all(|count| *count == 1));
    Ok(())
}

/// The same discontinuities at the same numbers everywhere, with the sequence that counts those that left.
fn periods_are_marked_alike(run: &Run) -> Result<(), TestCaseError> {
    for snapshot in run.snapshots().filter(|s| !s.listed().is_empty()) {
        let listed = snapshot.listed();
        let marks = |rendition| {
            let marked = snapshot
                .listed_segments(rendition)
                .filter(|s| s.discontinuity);
            marked.map(|s| s.number.get()).collect::<Vec<_>>()
        };
        prop_assert_eq!(marks(0), marks(1));
        prop_assert_eq!(marks(0), marks(2));
        let text = hls::media::render(snapshot, 0).expect("listed");
        prop_assert!(!text.contains("INDEPENDENT-SEGMENTS"));
        let before = run
            .snapshots()
            .flat_map(|s| s.listed_segments(0).cloned().collect::<Vec<_>>());
        let gone: std::collections::BTreeSet<_> = before
            .filter(|s| s.discontinuity && s.number.get() < listed.start)
            .map(|s| s.number)
            .collect();
        prop_assert_eq!(snapshot.discontinuity_sequence(), gone.len() as u64);
    }
    Ok(())
}

/// What a segment says of its start and length is so, and in a period the next goes on from there.
/// Init segments come before what names them, and are gone once nothing does.
fn init_segments_are_there_while_named(run: &Run) -> Result<(), TestCaseError> {
    let mut there = BTreeMap::new();
    for output in &run.outputs {
        match output {
            Output::InitSegment { period, .. } => *there.entry(*period).or_insert(0) += 1,
            Output::PeriodEvicted { period } => {
                prop_assert_eq!(there.remove(period), Some(3), "{}", period);
            }
            Output::WindowChanged(snapshot) => {
                for text in (0..3).filter_map(|r| hls::media::render(snapshot, r)) {
                    for name in text.split("URI=\"init-").skip(1) {
                        let period = name.split('.').next().and_then(|n| n.parse().ok());
                        let period = PeriodId::new(period.expect("number"));
                        prop_assert!(there.contains_key(&period), "{}", period);
                    }
                }
            }
            _ => {}
        }
    }
    let end = run.snapshots().last().expect("some");
    let kept: Vec<_> = end.periods().map(|period| period.id).collect();
    prop_assert_eq!(there.keys().copied().collect::<Vec<_>>(), kept);
    Ok(())
}

fn media_is_where_the_playlist_says(run: &Run) -> Result<(), TestCaseError> {
    for rendition in 0..3 {
        let mut ends: BTreeMap<u64, (u64, PeriodId)> = BTreeMap::new();
        let last = run
            .snapshots()
            .flat_map(|s| s.segments(rendition).cloned().collect::<Vec<_>>());
        let all: BTreeMap<u64, Arc<Segment>> = last.map(|s| (s.number.get(), s)).collect();
        for (number, segment) in &all {
            let start = u64::try_from(segment.start.get()).expect("positive");
            let end = start + segment.duration.get();
            ends.insert(*number, (end, segment.period));
            if segment.gap {
                continue;
            }
            let media = fragments(&segment.payload.to_bytes());
            prop_assert_eq!(media.first().map(|(at, _)| *at), Some(start));
            let samples_end = media.last().map(|(at, length)| at + length);
            prop_assert_eq!(samples_end, Some(end));
            let before = number
                .checked_sub(1)
                .and_then(|n| Some((ends.get(&n)?, all.get(&n)?)));
            if let Some(((before, period), one)) = before
                && *period == segment.period
                && !one.gap
            {
                prop_assert_eq!(*before, start, "{} of {}", number, rendition);
            }
        }
    }
    Ok(())
}

/// Every part but a segment's last has 85 to 100 % of what was announced, if anything was.
fn parts_are_even(run: &Run, low_latency: bool) -> Result<(), TestCaseError> {
    let first = run.snapshots().next().expect("some");
    let target = first.presentation().part_target.as_micros();
    prop_assert_eq!(first.presentation().config.low_latency.is_on(), low_latency);
    for snapshot in run.snapshots() {
        for segment in (0..3).flat_map(|r| snapshot.segments(r)).filter(|s| !s.gap) {
            let scale = u64::from(segment.scale.get());
            let sum: u64 = segment.parts.iter().map(|part| part.duration.get()).sum();
            prop_assert_eq!(sum, segment.duration.get());
            for (index, part) in segment.parts.iter().enumerate() {
                let micros = part.duration.get() * 1_000_000;
                prop_assert!(micros <= target * scale);
                let last = index + 1 == segment.parts.len();
                prop_assert!(last || micros * 100 >= target * scale * 85);
            }
        }
    }
    Ok(())
}

/// What is hinted is the next part, but where the source breaks off.
fn hints_come_true(run: &Run) -> Result<(), TestCaseError> {
    let mut hinted: [Option<(SegmentNumber, PartIndex)>; 3] = [None; 3];
    for output in &run.outputs {
        match output {
            Output::Part {
                rendition,
                segment,
                part,
                ..
            } => {
                let hint = hinted[*rendition].take();
                prop_assert!(
                    hint.is_none_or(|hint| hint == (*segment, *part)),
                    "{:?}",
                    hint
                );
            }
            // A period may begin with a later number than the one that was expected.
            Output::InitSegment { rendition, .. } => hinted[*rendition] = None,
            Output::WindowChanged(snapshot)
                if snapshot.presentation().config.low_latency.is_on() =>
            {
                for (rendition, hint) in hinted.iter_mut().enumerate() {
                    *hint = snapshot.hint(rendition);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `name="value"` in a line of an MPD.
fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.find(&format!(" {name}=\""))? + name.len() + 3;
    line.get(at..)?.split('"').next()
}

/// Numbers, times and lengths of one representation's timeline.
fn timeline(period: &str, name: &str) -> Vec<(u64, i64, u64)> {
    let Some((_, tail)) = period.split_once(&format!("<Representation id=\"{name}\"")) else {
        return Vec::new();
    };
    let mine = tail.split("</Representation>").next().unwrap_or("");
    let mut number = 0;
    let mut found = Vec::new();
    for line in mine.lines() {
        if let Some(first) = attribute(line, "startNumber") {
            number = first.parse().expect("number");
        }
        if line.contains("<S ") {
            let get = |name| attribute(line, name).and_then(|text| text.parse::<i64>().ok());
            let (at, length) = (get("t").expect("t"), get("d").expect("d"));
            for more in 0..=get("r").unwrap_or(0) {
                let length_ticks = u64::try_from(length).expect("positive");
                found.push((number, at + more * length, length_ticks));
                number += 1;
            }
        }
    }
    found
}

/// The MPD lists what the playlists list, by the media's own times, and says when it says something new.
fn mpd_lists_the_same(run: &Run) -> Result<(), TestCaseError> {
    let mut before: Option<(String, String)> = None;
    let mut starts: BTreeMap<String, String> = BTreeMap::new();
    for snapshot in run.snapshots() {
        let Some(text) = dash::mpd::render(snapshot) else {
            continue;
        };
        let root = text.lines().nth(1).unwrap_or("");
        if let (Some(published), false) = (attribute(root, "publishTime"), snapshot.is_ended()) {
            if let Some((known, last)) = &before
                && *known != text
            {
                prop_assert!(published > last.as_str(), "{} after {}", published, last);
            }
            before = Some((text.clone(), published.to_owned()));
        }
        for period in text.split("  <Period ").skip(1) {
            let head = format!(" {}", period.lines().next().unwrap_or(""));
            let id = attribute(&head, "id").expect("id").to_owned();
            let start = attribute(&head, "start").expect("start").to_owned();
            if !snapshot.is_ended() {
                let known = starts.entry(id.clone()).or_insert_with(|| start.clone());
                prop_assert_eq!(&*known, &start, "period {} moved", id);
            }
            for (index, name) in ["vcopy", "v360", "acopy"].iter().enumerate() {
                let found = timeline(period, name);
                let listed = snapshot.listed_segments(index);
                let listed = listed.filter(|s| s.period.to_string() == id && !s.gap);
                for segment in listed {
                    let wanted = (
                        segment.number.get(),
                        segment.start.get(),
                        segment.duration.get(),
                    );
                    prop_assert!(found.contains(&wanted), "{:?} in {:?}", wanted, found);
                }
                prop_assert!(found.windows(2).all(|two| two[0].0 + 1 == two[1].0));
            }
        }
    }
    Ok(())
}

/// A source that turns from 30 to 25 frames and from 48 to 44.1 kHz, after two seconds of nothing.
fn turned() -> Vec<Take> {
    let mut after = Take::new(25, 44_100, &[50, 60, 50]);
    after.after_ms = 2_000;
    vec![Take::new(30, 48_000, &[60, 75, 60]), after]
}

#[test]
fn a_change_is_a_discontinuity_at_one_number_everywhere() {
    let run = run(&config(2_000, false), &turned());
    let live = run.snapshots().filter(|s| !s.is_ended());
    let last = live.last().expect("some");
    let first = FIRST + 3;
    for rendition in 0..3 {
        let text = hls::media::render(last, rendition).expect("listed");
        let mark = format!("#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-{first}.mp4\"\n");
        assert_eq!(text.matches(&mark).count(), 1, "{text}");
        assert_eq!(value(&text, "#EXT-X-DISCONTINUITY-SEQUENCE:"), "0");
        assert_eq!(value(&text, "#EXT-X-TARGETDURATION:"), "4");
        assert!(text.contains(&format!("init-{FIRST}.mp4")), "{text}");
    }
    let inits = run.outputs.iter().filter_map(|output| match output {
        Output::InitSegment {
            rendition, period, ..
        } => Some((*rendition, period.get())),
        _ => None,
    });
    let expected: Vec<_> = [FIRST, first]
        .iter()
        .flat_map(|p| (0..3).map(move |r| (r, *p)))
        .collect();
    assert_eq!(inits.collect::<Vec<_>>(), expected);
    let period = PeriodId::new(FIRST);
    assert!(
        last.init_segment(0, period).is_some(),
        "of the period before"
    );
}

#[test]
fn mpd_of_a_change_has_two_periods_and_closes_the_first() {
    let run = run(&config(2_000, true), &turned());
    let texts: Vec<_> = run
        .snapshots()
        .filter_map(|s| dash::mpd::render(s))
        .collect();
    let live = texts
        .iter()
        .rfind(|text| text.contains("dynamic"))
        .expect("some");
    assert_eq!(live.matches("<Period ").count(), 2, "{live}");
    assert!(!live.contains("availabilityTimeOffset"), "{live}");
    // 417 ms after the first segment's place on a line that begins with second two.
    let zero = FIRST * 2 - 2;
    let starts = [format!("PT{zero}.417S"), format!("PT{}.917S", zero + 8)];
    for (start, length) in starts.iter().zip([" duration=\"PT6.5", ""]) {
        assert!(
            live.contains(&format!("start=\"{start}\"{length}")),
            "{live}"
        );
    }
    let ended = texts.last().expect("some");
    assert!(ended.contains("type=\"static\""), "{ended}");
    assert!(ended.contains("start=\"PT0S\" duration=\"PT6.5"), "{ended}");
    assert_eq!(ended.matches("<Period ").count(), 2, "{ended}");
    let last = run.snapshots().last().expect("some");
    let ending = dash::mpd::render_ending(last).expect("ended");
    assert!(ending.contains("dynamic") && ending.contains("mediaPresentationDuration"));
    assert!(!ending.contains("minimumUpdatePeriod"), "{ending}");
}

#[test]
fn sound_that_vanishes_is_gaps_as_long_as_the_pictures() {
    let mut take = Take::new(30, 48_000, &[60, 90, 60, 60]);
    take.lost = vec![(2, 1, true), (2, 2, false)];
    let run = run(&config(2_000, false), &[take]);
    let last = run.snapshots().last().expect("some");
    let gaps: Vec<_> = last
        .segments(2)
        .map(|s| (s.gap, s.duration.seconds(s.scale).to_string()))
        .collect();
    let is_gap: Vec<_> = gaps.iter().map(|(gap, _)| *gap).collect();
    assert_eq!(is_gap, [false, true, true, false]);
    let near =
        |text: &str, seconds: f64| (text.parse::<f64>().expect("seconds") - seconds).abs() < 0.03;
    assert!(near(&gaps[1].1, 3.0) && near(&gaps[2].1, 2.0), "{gaps:?}");
}

#[test]
fn a_list_of_short_segments_still_lasts_three_targets() {
    let config = Config {
        window_segments: 6,
        kept_segments: 7,
        ..config(2_000, false)
    };
    let mut after = Take::new(30, 48_000, &[30; 30]);
    after.after_ms = 40;
    let run = run(&config, &[Take::new(30, 48_000, &[120]), after]);
    let live = run.snapshots().filter(|s| !s.is_ended());
    let last = live.last().expect("some");
    // Of a second each; sound, which begins up to an access unit later, may need one more.
    let count = last.listed().end - last.listed().start;
    assert!((12..=13).contains(&count), "{count}");
}

#[test]
fn what_does_not_suit_parts_has_none() {
    let mut renditions = Take::new(30, 48_000, &[60]).renditions();
    let first = SegmentNumber::new(FIRST);
    let asked = config(2_000, true);
    let made = |renditions: Vec<Rendition>| {
        Packager::cut_by(CUTS, &asked, first, renditions, None).expect("valid")
    };
    assert!(made(renditions.clone()).is_low_latency());
    renditions[0].frame_rate = None;
    assert!(!made(renditions).is_low_latency());
}

#[test]
fn cuts_and_changes_that_make_no_sense_are_refused() {
    let take = Take::new(30, 48_000, &[60]);
    let mut packager = packager(&config(2_000, false), &take, None);
    let number = |offset: u64| SegmentNumber::new(FIRST + offset);
    let sample = |at: i64, frames: u64| Sample {
        dts: Ticks::new(at),
        pts: Ticks::new(at),
        duration: Span::new(frames * 3_000),
        keyframe: false,
        data: vec![0; 9].into(),
    };
    let at = i64::try_from(FIRST * 180_000).expect("fits");
    assert!(matches!(
        packager.push(0, sample(at, 1)),
        Err(Error::NotCut { .. })
    ));
    packager.cut(0, number(0)).expect("the first");
    assert!(matches!(
        packager.cut(0, number(0)),
        Err(Error::NumberUsed { .. })
    ));
    assert!(matches!(
        packager.cut(3, number(1)),
        Err(Error::UnknownRendition { .. })
    ));
    assert!(matches!(
        packager.cut(0, number(MAX_GAPS + 1)),
        Err(Error::TooManyGaps { .. })
    ));
    packager
        .push(0, sample(at, 1))
        .expect("no key frame is asked for");
    for second in 0..4 {
        packager
            .push(0, sample(at + 3_000 + second * 90_000, 30))
            .expect("four seconds");
    }
    let long = packager.push(0, sample(at + 3_000 + 4 * 90_000, 30));
    assert!(matches!(long, Err(Error::SegmentTooLong { .. })));
    assert!(matches!(
        packager.change(take.renditions(), number(0)),
        Err(Error::NumberUsed { .. })
    ));
    let mut others = take.renditions();
    others.swap(0, 2);
    assert!(matches!(
        packager.change(others, number(1)),
        Err(Error::OtherRenditions { .. })
    ));
    let grid = Packager::after(&config(2_000, false), number(0), take.renditions(), None);
    let mut grid = grid.expect("valid");
    assert_eq!(grid.cut(0, number(0)), Err(Error::NotSourceCut));
    assert_eq!(
        grid.change(take.renditions(), number(1)),
        Err(Error::NotSourceCut)
    );
    let bad = Config {
        window_segments: 1,
        ..config(2_000, false)
    };
    let bad = Packager::cut_by(CUTS, &bad, number(0), take.renditions(), None);
    assert!(matches!(
        bad,
        Err(Error::Config(ConfigError::WindowLength { .. }))
    ));
}

/// What a run listed that broke off, of which three segments are stored, and the run after it.
fn resumed(low_latency: bool) -> (Vec<String>, Run) {
    let before = [Take::new(30, 48_000, &[60, 90, 75, 60])];
    let config = config(2_000, low_latency);
    let old = run(&config, &before);
    let live = old.snapshots().filter(|s| !s.is_ended());
    let broken_off = live.last().expect("some");
    let texts: Vec<_> = (0..3)
        .map(|r| hls::media::render_plain(broken_off, r).expect("listed"))
        .collect();
    let names: Vec<_> = before[0]
        .renditions()
        .iter()
        .map(|r| r.name.clone())
        .collect();
    let listings = names.iter().zip(&texts);
    let listings = listings.map(|(name, text)| (name.clone(), hls::parse(text).expect("ours")));
    let mut past = Past::of(listings.collect()).expect("not ended");
    for name in &names {
        let stored = (FIRST..FIRST + 3).map(SegmentNumber::new);
        past.add(name.clone(), bytes::Bytes::new(), stored);
    }
    let first = SegmentNumber::new(RESUMED);
    let cuts = Cuts::Source { longest_ms: 2_000 };
    let packager = Packager::cut_by(cuts, &config, first, before[0].renditions(), Some(&past));
    let after = play(
        packager.expect("valid"),
        &[Take::new(30, 48_000, &[60, 60])],
    );
    (texts, after)
}

/// The first segment of the run after.
const RESUMED: u64 = FIRST + 5;

#[test]
fn after_a_crash_what_is_missing_lists_its_parts_with_the_lengths_of_before() {
    let (_, after) = resumed(true);
    for rendition in 0..3 {
        let first = after.snapshots().next().expect("some");
        let text = hls::media::render(first, rendition).expect("listed");
        assert_eq!(text.matches("#EXT-X-GAP").count(), 2, "{text}");
        let seconds = |text: &str| text.parse::<f64>().expect("a number");
        let target = seconds(value(&text, "#EXT-X-PART-INF:PART-TARGET="));
        let mut length = 0.0;
        let mut count = 0;
        for line in text.lines() {
            if let Some(part) = line.strip_prefix("#EXT-X-PART:DURATION=") {
                let (said, rest) = part.split_once(',').expect("more");
                assert!(rest.ends_with(",GAP=YES"), "{line}");
                assert!(seconds(said) <= target, "{line}");
                (length, count) = (length + seconds(said), count + 1);
            } else if let Some(said) = line.strip_prefix("#EXTINF:") {
                let said = seconds(said.trim_end_matches(','));
                assert!(count == 0 || (length - said).abs() < 0.000_1, "{text}");
                (length, count) = (0.0, 0);
            }
        }
        let listed = |number: u64| text.contains(&format!("URI=\"{number}.0.m4s\""));
        assert_eq!([2, 3, 4].map(|n| listed(FIRST + n)), [false, true, true]);
    }
}

#[test]
fn after_a_crash_what_was_listed_keeps_its_lengths_and_dates() {
    let (texts, after) = resumed(false);
    for (rendition, listed) in texts.iter().enumerate() {
        let text = hls::media::render(after.snapshots().last().expect("some"), rendition);
        let text = text.expect("listed");
        let lines = |text: &str| {
            let kept = text
                .lines()
                .filter(|l| l.contains("DATE-TIME") || l.contains("EXTINF"));
            kept.map(str::to_owned).collect::<Vec<_>>()
        };
        let (then, now) = (lines(listed), lines(&text));
        assert_eq!(then[..6], now[..6], "{text}");
        assert_eq!(value(&text, "#EXT-X-TARGETDURATION:"), "4", "as it was");
        assert_eq!(text.matches("#EXT-X-GAP").count(), 2, "{text}");
        let mark = format!("#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-{RESUMED}.mp4\"\n");
        assert!(text.contains(&mark), "always another period: {text}");
    }
    let mpd = after
        .snapshots()
        .filter_map(|s| dash::mpd::render(s))
        .last()
        .expect("there");
    assert_eq!(mpd.matches("<Period ").count(), 1, "{mpd}");
}
