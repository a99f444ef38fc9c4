use proptest::prelude::*;

use super::tests::{
    FIRST, Run, config, drive, fragments, playlists_keep_their_word, shown, value, video,
};
use super::*;
use crate::package::snapshot::Segment;
use crate::package::window::tests::aac;
use crate::package::{dash, hls};
use crate::time::Grid;

/// Which samples an encoder left out: from a slot on, counted from the start of the broadcast, so many.
#[derive(Clone, Copy, Debug)]
struct Hole {
    rendition: usize,
    from: usize,
    count: usize,
}

fn hole() -> impl Strategy<Value = Hole> {
    let few = 1_usize..5;
    let many = 1_usize..200;
    (0_usize..2, 1_usize..300, prop_oneof![3 => few, 1 => many]).prop_map(
        |(rendition, from, count)| Hole {
            rendition,
            from,
            count,
        },
    )
}

/// Says of which part it was not published before the next one was made, of segments in the making.
fn withheld_part(run: &Run) -> Option<(usize, SegmentNumber, PartIndex)> {
    let mut made = vec![None; run.renditions.len()];
    for output in &run.outputs {
        match output {
            Output::Part {
                rendition,
                segment,
                part,
                ..
            } => {
                if let Some((last, index)) = made[*rendition].replace((*segment, *part))
                    && last == *segment
                {
                    return Some((*rendition, last, index));
                }
            }
            Output::WindowChanged(snapshot) => {
                for (rendition, made) in made.iter_mut().enumerate() {
                    made.take_if(|made| snapshot.last_part(rendition) >= Some(*made));
                }
            }
            _ => {}
        }
    }
    None
}

/// A run whose encoders left out `holes`; after each comes a key frame.
fn with_holes(config: &Config, renditions: &[Rendition], holes: &[Hole]) -> Run {
    let packager = Packager::new(config, PeriodId::new(FIRST), renditions.to_vec());
    let mut counts = vec![0; renditions.len()];
    let mut broken = vec![false; renditions.len()];
    drive(
        packager.expect("valid"),
        FIRST..FIRST + 7,
        |index, sample| {
            let count = counts[index];
            counts[index] += 1;
            let is_in = |hole: &Hole| {
                hole.rendition == index && (hole.from..hole.from + hole.count).contains(&count)
            };
            let is_missing = holes.iter().any(is_in);
            let keyframe = sample.keyframe || broken[index];
            broken[index] = is_missing;
            (!is_missing).then_some(Sample { keyframe, ..sample })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every number is listed once, in order, at the place that the grid gives it; what is there is at its
    /// own time; what is not there is a gap; no part is too long.
    #[test]
    fn holes_move_nothing(
        holes in prop::collection::vec(hole(), 1..4), low_latency in any::<bool>(),
    ) {
        let config = config(2_000, low_latency);
        let renditions = [video("v720", (30, 1)), video("v360", (30, 1)), aac("a128", 128_000)];
        let run = with_holes(&config, &renditions, &holes);
        playlists_keep_their_word(&run)?;
        for rendition in 0..3 {
            let mut end = 0;
            for (number, start, duration, payload) in run.segments(rendition) {
                for (base, length) in fragments(&payload.to_bytes()) {
                    prop_assert!(base >= end, "overlap in {number}");
                    end = base + length;
                }
                let whole_end = u64::try_from(start.get()).expect("positive") + duration.get();
                prop_assert!(end <= whole_end, "{number} is longer than it says");
            }
        }
        let target = run.snapshots().next().expect("some").presentation().part_target;
        for output in &run.outputs {
            if let Output::Part { rendition, duration, .. } = output {
                let scale = run.renditions[*rendition].timescale;
                prop_assert!(*duration <= target.in_ticks(scale));
            }
        }
        let last = run.snapshots().last().expect("some");
        for rendition in 0..3 {
            let all: Vec<_> = last.segments(rendition).collect();
            for pair in all.windows(2) {
                prop_assert_eq!(pair[0].number.next(), pair[1].number);
                let end = pair[0].start.checked_add(pair[0].duration).expect("fits");
                prop_assert!(end <= pair[1].start);
                // Only what begins in the middle of its segment leaves a place.
                let begins = pair[1].start == Ticks::new(
                    Grid::new(config.segment_ms).start_of(pair[1].number, run.renditions[rendition].timescale).get());
                prop_assert!(end == pair[1].start || !begins);
            }
            prop_assert!(all.iter().all(|segment| segment.gap == segment.payload.is_empty()));
        }
    }
}

#[test]
fn a_few_missing_frames_are_the_last_one_shown_for_longer() {
    let config = config(2_000, false);
    let hole = Hole {
        rendition: 0,
        from: 14,
        count: 3,
    };
    let run = with_holes(&config, &[video("v720", (30, 1))], &[hole]);
    let (_, start, duration, payload) = run.segments(0)[0];
    let found = fragments(&payload.to_bytes());
    let begin = u64::try_from(start.get()).expect("positive");
    // Ten frames; then four, the hole of three and three more; then as ever.
    let starts: Vec<_> = found.iter().map(|(at, _)| (at - begin) / 3_000).collect();
    assert_eq!(starts, [0, 10, 20, 30, 40, 50]);
    let length: u64 = found.iter().map(|(_, length)| length).sum();
    assert_eq!((length, duration.get()), (180_000, 180_000));
}

/// What an encoder leaves out because the machine is too slow for it lies anywhere.
#[test]
fn a_hole_that_begins_where_a_part_has_no_room_is_no_step_in_decode_time() {
    let renditions = [video("v720", (30, 1)), aac("a128", 128_000)];
    // The third part, of ten frames, is full but for 8 ms; the last part ends in a hole.
    let holes = [(20, 8), (30, 2), (38, 3), (44, 11), (56, 4)].map(|(from, count)| Hole {
        rendition: 0,
        from,
        count,
    });
    let run = with_holes(&config(2_000, true), &renditions, &holes);
    let (_, start, duration, payload) = run.segments(0)[0];
    let begin = u64::try_from(start.get()).expect("positive");
    let found = fragments(&payload.to_bytes());
    let frames = found
        .iter()
        .map(|(at, length)| ((at - begin) / 3_000, length / 3_000));
    let expected: Vec<_> = (0..6).map(|part| (part * 10, 10)).collect();
    assert_eq!(frames.collect::<Vec<_>>(), expected, "{found:?}");
    assert_eq!(duration.get(), 180_000);
}

/// An encoder that has time for one picture of each part only.
#[test]
fn parts_of_one_picture_are_published_one_by_one() {
    let hole = |from| Hole {
        rendition: 0,
        from,
        count: 9,
    };
    let holes: Vec<_> = (61..300).step_by(10).map(hole).collect();
    let run = with_holes(&config(2_000, true), &[video("v720", (30, 1))], &holes);
    assert_eq!(withheld_part(&run), None);
}

/// Every part of `part` frames that a segment of `segment` frames would have without holes has one of those
/// that are there.
fn has_a_frame_in_each_part(holes: &[Hole], (segment, part): (usize, usize), slots: usize) -> bool {
    let is_there = |slot: usize| {
        let covers = |hole: &Hole| (hole.from..hole.from + hole.count).contains(&slot);
        !holes.iter().any(covers)
    };
    (0..slots).step_by(segment).all(|begin| {
        let parts = (begin..begin + segment).step_by(part);
        let mut parts = parts.map(|from| from..(from + part).min(begin + segment));
        is_there(begin) && parts.all(|mut part| part.any(is_there))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is left out: as long as there is a picture in every part, media are contiguous, in each part and
    /// from one to the next, the lengths said are those of the media, and every picture is shown at its own time.
    #[test]
    fn a_picture_in_every_part_is_enough_for_contiguous_media(
        holes in prop::collection::vec((1_usize..300, 1_usize..19), 1..40), low_latency in any::<bool>(),
        (num, den, segment, part) in prop::sample::select(vec![(30, 1, 60, 10), (25, 1, 50, 9)]),
    ) {
        let mut kept = Vec::new();
        for (from, count) in holes {
            kept.push(Hole { rendition: 0, from, count });
            if !has_a_frame_in_each_part(&kept, (segment, part), 7 * segment) {
                kept.pop();
            }
        }
        let config = config(2_000, low_latency);
        let renditions = [
            video("v720", (num, den)), video("v360", (num, den)), aac("a128", 128_000),
        ];
        let run = with_holes(&config, &renditions, &kept);
        playlists_keep_their_word(&run)?;
        prop_assert_eq!(withheld_part(&run).filter(|_| low_latency), None, "{:?}", kept);
        let mut next = None;
        for (number, start, duration, payload) in run.segments(0) {
            let (mut length, bytes) = (0, payload.to_bytes());
            for (base, lasts) in fragments(&bytes) {
                prop_assert!(next.is_none_or(|next| next == base), "{number}: {kept:?}");
                next = Some(base + lasts);
                length += lasts;
            }
            prop_assert_eq!(length, duration.get(), "{}: {:?}", number, kept);
            let begin = u64::try_from(start.get()).expect("positive");
            let frame = u64::from(90_000 * den / num);
            let slots = shown(&bytes).into_iter().map(|at| (at - begin) / frame);
            let first = usize::try_from(number - FIRST).expect("small") * segment;
            let is_there = |slot: &u64| {
                let slot = first + usize::try_from(*slot).expect("small");
                !kept.iter().any(|hole| (hole.from..hole.from + hole.count).contains(&slot))
            };
            let all = 0..u64::try_from(segment).expect("small");
            prop_assert_eq!(slots.collect::<Vec<_>>(), all.filter(is_there).collect::<Vec<_>>());
        }
    }
}

#[test]
fn segments_that_are_missing_as_a_whole_are_gaps() {
    let config = config(2_000, false);
    let hole = Hole {
        rendition: 0,
        from: 100,
        count: 140,
    };
    let run = with_holes(&config, &[video("v720", (30, 1))], &[hole]);
    let last = run.snapshots().last().expect("some");
    let text = hls::media::render(last, 0).expect("listed");
    let gaps: Vec<_> = last.segments(0).map(|segment| segment.gap).collect();
    assert_eq!(gaps, [false, false, true, true, false, false, false]);
    let gap = format!("#EXT-X-GAP\n#EXTINF:2.000000,\n{}.m4s\n", FIRST + 2);
    assert!(text.contains(&gap), "{text}");
    assert_eq!(text.matches("#EXTINF:2.000000").count(), 7, "{text}");
}

#[test]
fn an_mpd_of_what_is_over_begins_with_what_every_rendition_has() {
    let config = Config {
        window_segments: 6,
        kept_segments: 7,
        ..config(2_000, false)
    };
    let renditions = [
        video("v720", (30, 1)),
        video("v360", (30, 1)),
        aac("a128", 128_000),
    ];
    // What is listed begins with a segment of which there is no sound. Of one rendition there may be next to nothing.
    for is_poor in [false, true] {
        let packager = Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec());
        let grid = Grid::new(config.segment_ms);
        let encode = |rendition: usize, sample: Sample| {
            let at = sample.dts.at(renditions[rendition].timescale);
            let number = grid.segment_at(at).get();
            let lacks = match rendition {
                1 => is_poor && (FIRST + 1..FIRST + 7).contains(&number),
                2 => number == FIRST + 2,
                _ => false,
            };
            (!lacks).then_some(sample)
        };
        let run = drive(packager.expect("valid"), FIRST..FIRST + 8, encode);
        let last = run.snapshots().last().expect("some");
        assert_eq!(numbers(last, 2), [-2, 3, 4, 5, 6, 7]);
        let text = dash::mpd::render(last).expect("there");
        let first = format!("startNumber=\"{}\"", FIRST + 3);
        assert_eq!(text.matches(&first).count(), 2, "{text}");
        let length = "mediaPresentationDuration=\"PT10S\"";
        assert!(text.contains(length), "{text}");
    }
}

#[test]
fn rendition_that_rests_is_listed_as_gaps_and_holds_nothing_up() {
    let renditions = [video("v720", (30, 1)), video("v360", (30, 1))];
    let sample = |slot: i64| Sample {
        dts: Ticks::new(i64::try_from(FIRST).expect("small") * 180_000 + slot * 3_000),
        pts: Ticks::new(i64::try_from(FIRST).expect("small") * 180_000 + slot * 3_000),
        duration: Span::new(3_000),
        keyframe: slot % 60 == 0,
        data: vec![0; 10].into(),
    };
    for low_latency in [false, true] {
        let config = config(2_000, low_latency);
        let packager = Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec());
        let mut packager = packager.expect("valid");
        packager
            .rest(0, SegmentNumber::new(FIRST + 3))
            .expect("nothing to do");
        for slot in 0..300 {
            // The better one has nothing from the end of the first segment to the fourth, and says so before.
            if slot == 50 {
                packager.rest_soon(0, SegmentNumber::new(FIRST + 1));
            }
            if (60..240).contains(&slot) && slot % 60 == 0 {
                let until = FIRST + u64::try_from(slot).expect("small") / 60 + 1;
                while packager.poll_output().is_some() {}
                packager.rest(0, SegmentNumber::new(until)).expect("rests");
                // Who waits for the first part of it is told at once.
                let told = std::iter::from_fn(|| packager.poll_output());
                let told = told.filter_map(|output| match output {
                    Output::WindowChanged(snapshot) => snapshot.segments(0).next_back().cloned(),
                    _ => None,
                });
                let told = told
                    .last()
                    .map(|segment| (segment.number.get(), segment.gap));
                assert_eq!(told, low_latency.then_some((until - 1, true)), "{slot}");
                let text = hls::media::render(&packager.snapshot(), 0).expect("listed");
                let missing = "#EXT-X-PART:DURATION=0.333333,URI=\"{n}.0.m4s\",GAP=YES";
                let missing = missing.replace("{n}", &(until - 1).to_string());
                assert_eq!(text.contains(&missing), low_latency, "{text}");
                let snapshot = packager.snapshot();
                let part = snapshot.part(0, SegmentNumber::new(until - 1), PartIndex::new(0));
                assert!(part.is_none(), "{slot}");
                packager
                    .rest(0, SegmentNumber::new(until - 1))
                    .expect("no news");
            } else if !(60..240).contains(&slot) {
                packager.push(0, sample(slot)).expect("fits");
            }
            packager.push(1, sample(slot)).expect("fits");
            let snapshot = packager.snapshot();
            let listed = snapshot.listed().end - FIRST;
            assert_eq!(
                listed,
                u64::try_from((slot + 1) / 60).expect("small"),
                "{slot}"
            );
            // What is asked for before it is there has to come: nobody knows when the better one does again.
            if low_latency && slot >= 10 {
                let rests = (59..249).contains(&slot);
                assert_eq!(snapshot.hint(0).is_none(), rests, "{slot}");
                assert!(snapshot.hint(1).is_some(), "{slot}");
            }
        }
        let snapshot = packager.snapshot();
        assert_eq!(numbers(&snapshot, 0), [0, -1, -2, -3, 4]);
        assert_eq!(numbers(&snapshot, 1), [0, 1, 2, 3, 4]);
    }
}

/// What a run that broke off left: the segments `stored` of its renditions and the playlist that listed all of
/// them from the first on.
fn past(renditions: &[Rendition], stored: &[u64], listed: Range<u64>) -> Past {
    let config = config(2_000, false);
    let packager = Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec());
    let packager = packager.expect("valid");
    let inits = packager.snapshot().period().init_segments.clone();
    let mut text = format!(
        "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-MAP:URI=\"init-{FIRST}.mp4\"\n",
        listed.start
    );
    for number in listed {
        text += &format!("#EXTINF:2.000000,\n{number}.m4s\n");
    }
    let listing = (renditions[0].name.clone(), hls::parse(&text).expect("ours"));
    let mut past = Past::of(vec![listing]).expect("not ended");
    for (rendition, init) in renditions.iter().zip(&inits) {
        let numbers = stored.iter().map(|number| SegmentNumber::new(*number));
        past.add(rendition.name.clone(), init.to_bytes(), numbers);
    }
    past
}

fn after(past: &Past, first: u64, renditions: &[Rendition]) -> Run {
    after_with(past, first, renditions, false)
}

fn after_with(past: &Past, first: u64, renditions: &[Rendition], low_latency: bool) -> Run {
    let config = Config {
        window_segments: 6,
        kept_segments: 7,
        ..config(2_000, low_latency)
    };
    let renditions = renditions.to_vec();
    let packager = Packager::after(&config, SegmentNumber::new(first), renditions, Some(past));
    drive(packager.expect("valid"), first..first + 20, |_, s| Some(s))
}

/// The numbers of a playlist, a gap as a negative one.
fn numbers(snapshot: &Snapshot, rendition: usize) -> Vec<i64> {
    let number = |segment: &Arc<Segment>| {
        let number = i64::try_from(segment.number.get() - FIRST).expect("small");
        if segment.gap { -number } else { number }
    };
    snapshot.listed_segments(rendition).map(number).collect()
}

#[test]
fn what_an_earlier_run_listed_is_listed_first() {
    let renditions = [
        video("v720", (30, 1)),
        video("v360", (30, 1)),
        aac("a128", 128_000),
    ];
    let stored: Vec<_> = (FIRST + 1..FIRST + 8).collect();
    let past = past(&renditions, &stored, FIRST + 1..FIRST + 7);
    let run = after(&past, FIRST + 10, &renditions);
    let lists: Vec<_> = run.snapshots().map(|s| numbers(s, 0)).collect();
    assert_eq!(
        lists[0],
        [4, 5, 6, 7, -8, -9],
        "before anything of the new run"
    );
    assert_eq!(lists[1], [5, 6, 7, -8, -9, 10]);
    assert_eq!(lists[6], [10, 11, 12, 13, 14, 15]);
    let first = run.snapshots().next().expect("some");
    let text = hls::media::render(first, 0).expect("listed");
    assert!(!text.contains("DISCONTINUITY"), "{text}");
    assert!(text.contains(&format!("init-{FIRST}.mp4")), "{text}");
    assert_eq!(text.matches("#EXT-X-GAP").count(), 2, "{text}");
    let dates: Vec<_> = text.lines().filter(|l| l.contains("DATE-TIME")).collect();
    assert!(dates.is_sorted() && dates.len() == 6, "{text}");
    playlists_keep_their_word(&run).expect("kept");
    // What left the window is removed in its turn, gaps without a word.
    let evicted = run.outputs.iter().filter_map(|output| match output {
        Output::Evicted {
            rendition: 0,
            segment,
        } => Some(segment.get() - FIRST),
        _ => None,
    });
    let evicted: Vec<_> = evicted.collect();
    assert_eq!(evicted[..5], [4, 5, 6, 7, 10]);
}

/// In a static MPD dash.js and Shaka Player stop for good at a segment that is not there.
#[test]
fn an_mpd_of_what_is_over_names_nothing_that_is_not_there() {
    let config = Config {
        window_segments: 8,
        kept_segments: 9,
        ..config(2_000, false)
    };
    let renditions = [
        video("v720", (30, 1)),
        video("v360", (30, 1)),
        aac("a128", 128_000),
    ];
    let packager = Packager::new(&config, PeriodId::new(FIRST), renditions.to_vec());
    let grid = Grid::new(config.segment_ms);
    let encode = |rendition: usize, sample: Sample| {
        let at = sample.dts.at(renditions[rendition].timescale);
        let lacks = match grid.segment_at(at).get() - FIRST {
            2 | 3 => rendition == 0,
            5 => true,
            _ => false,
        };
        (!lacks).then_some(sample)
    };
    let run = drive(packager.expect("valid"), FIRST..FIRST + 8, encode);
    let last = run.snapshots().last().expect("some");
    assert_eq!(numbers(last, 0), [0, 1, -2, -3, 4, -5, 6, 7]);
    let text = dash::mpd::render(last).expect("there");
    let heads: Vec<_> = text
        .lines()
        .filter(|line| line.contains("<Period "))
        .map(str::trim)
        .collect();
    let head = |id: u64, start: u64, length: u64| {
        format!(
            "<Period id=\"{}\" start=\"PT{start}S\" duration=\"PT{length}S\">",
            FIRST + id
        )
    };
    assert_eq!(
        heads,
        [head(0, 0, 4), head(2, 4, 4), head(4, 8, 2), head(6, 10, 4)],
        "{text}"
    );
    assert_eq!(text.matches("id=\"v720\"").count(), 3, "{text}");
    assert_eq!(text.matches("id=\"v360\"").count(), 4, "{text}");
    assert!(
        text.contains("mediaPresentationDuration=\"PT14S\""),
        "{text}"
    );
}

/// hls.js goes from part to part, and saw no gap after a restart for as long as parts of what followed were listed.
#[test]
fn what_is_missing_after_a_restart_lists_its_parts_as_far_back_as_parts_are_listed() {
    let renditions = [
        video("v720", (30, 1)),
        video("v360", (30, 1)),
        aac("a128", 128_000),
    ];
    let stored: Vec<_> = (FIRST..FIRST + 8).collect();
    let past = past(&renditions, &stored, FIRST..FIRST + 8);
    let run = after_with(&past, FIRST + 12, &renditions, true);
    playlists_keep_their_word(&run).expect("kept");
    let parts_of = |text: &str, number: u64| {
        let name = format!("URI=\"{}.", FIRST + number);
        let parts = text.lines().filter(|line| line.contains(&name));
        let parts: Vec<_> = parts.map(ToOwned::to_owned).collect();
        let missing = parts.iter().all(|part| part.ends_with(",GAP=YES"));
        assert!(missing, "{parts:?}");
        parts.len()
    };
    for rendition in 0..3 {
        let first = run.snapshots().next().expect("some");
        let text = hls::media::render(first, rendition).expect("listed");
        let counts: Vec<_> = (6..12).map(|number| parts_of(&text, number)).collect();
        // Three segments of sound are not always six seconds.
        let from = if rendition == 2 { 2 } else { 3 };
        assert!(counts[..from].iter().all(|count| *count == 0), "{text}");
        assert!(
            counts[3..].iter().all(|count| [6, 7].contains(count)),
            "{text}"
        );
        let last = first.last_part(rendition).expect("a part");
        assert_eq!(last.0.get(), FIRST + 11);
        assert!(first.part(rendition, last.0, last.1).is_none());
        assert!(first.hint(rendition).is_none(), "it may take a while");
        // With parts of what follows in the list, they are there still.
        let open = run
            .snapshots()
            .find(|s| s.open_segment(rendition).is_some());
        let text = hls::media::render(open.expect("some"), rendition).expect("listed");
        assert!(parts_of(&text, 11) >= 6, "{text}");
        let plain = hls::media::render_plain(first, rendition).expect("listed");
        assert!(!plain.contains("#EXT-X-PART"), "{plain}");
    }
}

#[test]
fn another_ladder_is_another_period() {
    let before = [video("v720", (30, 1)), aac("a128", 128_000)];
    let now = [video("v360", (30, 1)), aac("a128", 128_000)];
    let stored: Vec<_> = (FIRST..FIRST + 4).collect();
    let past = past(&before, &stored, FIRST..FIRST + 4);
    let run = after(&past, FIRST + 5, &now);
    for (index, snapshot) in run.snapshots().take(8).enumerate() {
        let [new, old] = [0, 1].map(|r| hls::media::render(snapshot, r).expect("listed"));
        for text in [&new, &old] {
            let mark = format!(
                "#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-{}.mp4\"\n",
                FIRST + 5
            );
            let (marks, sequence) = match index {
                // Before the first of the new period there is nothing to mark; after it left, nothing any more.
                0 => (0, ""),
                7 => (0, "1"),
                _ => (1, "0"),
            };
            assert_eq!(
                value(text, "#EXT-X-DISCONTINUITY-SEQUENCE:"),
                sequence,
                "{index}: {text}"
            );
            // At the head of the list the map comes first.
            let found = text.matches("#EXT-X-DISCONTINUITY\n").count();
            assert_eq!(found, marks, "{index}: {text}");
            assert!(index != 1 || text.contains(&mark), "{text}");
        }
        if index == 0 {
            assert_eq!(
                numbers(snapshot, 0),
                [0, -1, -2, -3, -4],
                "a rung that was not there"
            );
            let missing = format!("init-{FIRST}.mp4");
            assert!(!new.contains(&missing), "it was never made: {new}");
            assert_eq!(numbers(snapshot, 1), [0, 1, 2, 3, -4]);
        }
    }
}

#[test]
fn what_is_too_old_is_not_gone_on_from() {
    let renditions = [video("v720", (30, 1))];
    let stored: Vec<_> = (FIRST..FIRST + 4).collect();
    let past = past(&renditions, &stored, FIRST..FIRST + 4);
    // With the first new segment the last old one would leave a window of six.
    for (first, listed) in [(FIRST + 8, 6), (FIRST + 9, 1), (FIRST + 500, 1)] {
        let run = after(&past, first, &renditions);
        let first = run.snapshots().next().expect("some");
        assert_eq!(first.listed_segments(0).count(), listed);
    }
}

#[test]
fn a_run_that_ended_is_not_gone_on_from() {
    let text = format!(
        "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{FIRST}\n#EXT-X-MAP:URI=\"init-{FIRST}.mp4\"\n\
         #EXTINF:2.000000,\n{FIRST}.m4s\n"
    );
    let read = |name: &str, text: &str| {
        (
            name.parse().expect("valid"),
            hls::parse(text).expect("ours"),
        )
    };
    let open = read("v720", &text);
    let ended = read("a128", &format!("{text}#EXT-X-ENDLIST\n"));
    assert!(Past::of(vec![open.clone()]).is_some());
    assert!(Past::of(vec![open.clone(), ended.clone()]).is_none());
    // Another rendition of the show before, whose playlist is still there.
    let number = |text: &str, number: u64| text.replace(&FIRST.to_string(), &number.to_string());
    let later = read("v720", &number(&text, FIRST + 1));
    let past = Past::of(vec![ended.clone(), later]).expect("it broke off");
    assert_eq!(past.first().get(), FIRST + 1);
    // One that broke off and was gone on from, without it, to the end.
    let older = read("v1080", &number(&text, FIRST - 1));
    assert!(Past::of(vec![older, ended]).is_none());
}
