use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const FIRST: u64 = 897_601_951;

fn name(text: &str) -> RenditionName {
    text.parse().expect("a name")
}

fn ranges(of: &[Range<u64>]) -> Ranges {
    Ranges::new(of.to_vec()).expect("apart")
}

fn frame(num: u32, den: u32) -> (NonZeroU32, NonZeroU32) {
    let part = |value| NonZeroU32::new(value).expect("not zero");
    (part(num), part(den))
}

fn video(text: &str, stored: &[Range<u64>]) -> Track {
    Track {
        name: name(text),
        kind: MediaKind::Video,
        codecs: "avc1.64001F".to_owned(),
        timescale: Timescale::VIDEO_90K,
        frame: frame(1_001, 30_000),
        picture: Some(Picture {
            width: 1_280,
            height: 720,
            sar: (1, 1),
        }),
        frame_rate: FrameRate::new(30_000, 1_001),
        sound: None,
        peak_bps: 3_000_000,
        average_bps: 2_500_000,
        stored: ranges(stored),
        odd: BTreeMap::new(),
    }
}

fn audio(stored: &[Range<u64>]) -> Track {
    Track {
        name: name("a128"),
        kind: MediaKind::Audio,
        codecs: "mp4a.40.2".to_owned(),
        timescale: Timescale::new(48_000).expect("not zero"),
        frame: frame(1_024, 48_000),
        picture: None,
        frame_rate: None,
        sound: Some((48_000, 2)),
        peak_bps: 140_000,
        average_bps: 128_000,
        stored: ranges(stored),
        odd: BTreeMap::new(),
    }
}

/// A show of `count` segments, of which those in `holes` are not stored, the last of which is short.
fn show(count: u64, holes: &[(bool, bool)]) -> Show {
    let end = FIRST + count;
    let lacks = |pick: fn(&(bool, bool)) -> bool| {
        let mut set = Ranges::default();
        for (index, hole) in (0..count).zip(holes.iter().chain(std::iter::repeat(&(false, false))))
        {
            if !pick(hole) || index + 1 == count {
                set.insert(FIRST + index);
            }
        }
        set
    };
    let mut tracks = vec![video("v720", &[]), audio(&[])];
    tracks[0].stored = lacks(|hole| hole.0);
    tracks[1].stored = lacks(|hole| hole.1);
    for track in &mut tracks {
        let (start, length) = track.place(grid(), end - 1);
        let half = Span::new(length.get() / 2);
        track.odd.insert(end - 1, (start, half));
    }
    Show {
        first: SegmentNumber::new(FIRST),
        segment_ms: NonZeroU32::new(2_000).expect("not zero"),
        target_duration_s: 2,
        independent: true,
        offered: FIRST..end,
        swept: FIRST,
        ended: true,
        reach_ms: 0,
        chapters: vec![Chapter {
            period: PeriodId::new(FIRST),
            first: FIRST,
            tracks,
        }],
    }
}

fn grid() -> Grid {
    Grid::new(NonZeroU32::new(2_000).expect("not zero"))
}

fn at(segment: u64, micros: i64) -> WallTime {
    let start = i64::try_from(segment * 2_000_000).expect("fits");
    WallTime::from_micros(start + micros)
}

/// What a media playlist lists: number, length in microseconds, whether it is a gap; and its date.
fn listed(text: &str) -> (Vec<(u64, u64, bool)>, WallTime) {
    let (mut found, mut date) = (Vec::new(), None);
    let (mut length, mut gap) = (0, false);
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("#EXTINF:") {
            let value = value.trim_end_matches(',').replace('.', "");
            length = value.parse().expect("a number");
        } else if let Some(value) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
            date = date.or_else(|| value.parse().ok());
        } else if line == "#EXT-X-GAP" {
            gap = true;
        } else if let Some(number) = line.strip_suffix(".m4s") {
            found.push((number.parse().expect("a number"), length, gap));
            gap = false;
        }
    }
    (found, date.expect("dated"))
}

/// What follows `attribute="` in `text`, up to the next quote, each time.
fn values<'t>(text: &'t str, attribute: &str) -> Vec<&'t str> {
    let marker = format!(" {attribute}=\"");
    let rests = text.split(marker.as_str()).skip(1);
    rests.filter_map(|rest| rest.split('"').next()).collect()
}

fn millis(text: &str) -> u64 {
    let seconds = text.trim_start_matches("PT").trim_end_matches('S');
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let whole: u64 = whole.parse().expect("a number");
    let fraction: u64 = format!("{fraction:0<3}").parse().expect("a number");
    whole * 1_000 + fraction
}

#[test]
fn a_record_reads_back_as_itself() {
    let show = show(40, &[(false, false), (true, false), (true, true)]);
    let text = show.to_record();
    assert_eq!(Show::from_record(text.as_bytes()), Ok(show));
    assert!(text.len() < 2_000, "{} bytes", text.len());
}

#[test]
fn a_record_that_cannot_be_is_refused_with_its_reason() {
    let text = show(40, &[]).to_record();
    let with = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        Show::from_record(changed.as_bytes())
            .expect_err(to)
            .to_string()
    };
    for (from, to, said) in [
        ("headwater-show", "other", "the work of another program"),
        ("\"version\":1", "\"version\":2", "of a later release"),
        ("\"segment_ms\":2000", "\"segment_ms\":0", "it is no record"),
        (
            "\"segment_ms\":2000",
            "\"segment_ms\":1",
            "its segment_ms cannot be",
        ),
        ("\"from\":897601951", "\"from\":5", "its from cannot be"),
        (
            "\"timescale\":90000",
            "\"timescale\":0",
            "its timescale cannot be",
        ),
        ("\"v720\"", "\"../x\"", "its name cannot be"),
        ("\"a128\"", "\"v720\"", "its renditions cannot be"),
        ("avc1.64001F", "a\\\"b", "its codecs cannot be"),
        ("[[897601951,", "[[997601951,", "its stored cannot be"),
        ("\"periods\":[", "\"periods\":5,\"x\":[", "it is no record"),
    ] {
        let error = with(from, to);
        assert!(error.contains(said), "{to}: {error}");
    }
    for text in ["", "{}", "null", "[1]", "\u{0}"] {
        assert!(Show::from_record(text.as_bytes()).is_err());
    }
}

#[test]
fn what_is_withdrawn_is_offered_no_more_and_stays_to_be_swept() {
    let mut show = show(40, &[]);
    show.withdraw_below(FIRST + 10);
    assert_eq!(show.offered(), FIRST + 10..FIRST + 40);
    assert_eq!(show.unswept(), FIRST..FIRST + 10);
    assert!(!show.has(&name("v720"), FIRST + 9) && show.has(&name("v720"), FIRST + 10));
    show.sweep_below(FIRST + 99);
    assert_eq!(show.unswept(), FIRST + 10..FIRST + 10);
    assert_eq!(Show::from_record(show.to_record().as_bytes()), Ok(show));
}

#[test]
fn a_period_stays_in_the_record_until_nothing_of_it_is_left() {
    let mut show = show(40, &[]);
    let mut later = show.chapters[0].clone();
    (later.first, later.period) = (FIRST + 20, PeriodId::new(FIRST + 20));
    later.tracks.truncate(1);
    show.chapters.push(later);
    let before = show.renditions();
    show.withdraw_below(FIRST + 30);
    assert_eq!(show.renditions(), before);
    assert!(show.inits_below(FIRST + 19).is_empty());
    let gone = ["v720", "a128"].map(|text| (name(text), PeriodId::new(FIRST)));
    assert_eq!(show.inits_below(FIRST + 20), gone);
    show.sweep_below(FIRST + 19);
    let text = show.to_record();
    assert_eq!(Show::from_record(text.as_bytes()), Ok(show.clone()));
    assert_eq!(show.renditions(), before);
    show.sweep_below(FIRST + 20);
    assert_eq!(show.renditions(), [name("v720")]);
    // Of a period that two chapters have, the second one needs it.
    show.chapters.insert(0, show.chapters[0].clone());
    show.chapters[0].first = FIRST;
    assert!(show.inits_below(FIRST + 20).is_empty());
}

#[test]
fn a_stretch_that_grows_says_so_and_one_that_cannot_be_is_refused() {
    let mut shows = [show(40, &[])];
    shows[0].ended = false;
    let start = at(FIRST + 3, 0);
    let growing = Stretch::between(&shows, start, None).expect("kept");
    let text = growing.media_playlist(&name("a128")).expect("kept");
    assert!(
        text.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n") && !text.contains("ENDLIST"),
        "{text}"
    );
    assert!(text.contains("#EXT-X-START:TIME-OFFSET=0\n"), "{text}");
    let mpd = growing.mpd().expect("kept");
    assert!(
        mpd.contains("type=\"dynamic\"") && mpd.contains("<UTCTiming"),
        "{mpd}"
    );
    // Until a moment that has passed.
    let closed = Stretch::between(&shows, start, Some(at(FIRST + 9, 0))).expect("kept");
    assert!(closed.is_closed());
    assert!(
        !Stretch::between(&shows, start, Some(at(FIRST + 99, 0)))
            .expect("kept")
            .is_closed()
    );
    for (start, end, error) in [
        (at(FIRST, 0), at(FIRST, 0), StretchError::Reversed),
        (at(FIRST - 9, 0), at(FIRST - 1, 0), StretchError::Nothing),
        (at(FIRST + 50, 0), at(FIRST + 60, 0), StretchError::Nothing),
    ] {
        let found = Stretch::between(&shows, start, Some(end));
        assert_eq!(found.map(|_| ()), Err(error));
    }
    assert!(matches!(
        Stretch::whole(&show(MAX_STRETCH_SEGMENTS + 1, &[])),
        Err(StretchError::TooLong { .. })
    ));
}

#[test]
fn shows_in_a_row_are_played_one_after_the_other() {
    let mut later = show(6, &[]);
    for bound in [
        &mut later.offered.start,
        &mut later.offered.end,
        &mut later.swept,
    ] {
        *bound += 100;
    }
    later.first = SegmentNumber::new(FIRST + 100);
    later.chapters[0].first += 100;
    later.chapters[0].period = PeriodId::new(FIRST + 100);
    for track in &mut later.chapters[0].tracks {
        track.stored = Ranges::default();
        (FIRST + 100..FIRST + 106).for_each(|number| track.stored.insert(number));
        track.odd.clear();
    }
    let shows = [show(5, &[]), later];
    let both = Stretch::between(&shows, at(FIRST, 0), Some(at(FIRST + 103, 0))).expect("kept");
    let text = both.media_playlist(&name("v720")).expect("kept");
    let numbers: Vec<_> = listed(&text)
        .0
        .iter()
        .map(|entry| entry.0 - FIRST)
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 100, 101, 102]);
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    assert_eq!(text.matches("#EXT-X-MAP").count(), 2);
    let mpd = both.mpd().expect("kept");
    assert_eq!(values(&mpd, "start").len(), 2, "{mpd}");
    // The last frame of the first ends a little off the grid.
    let total = millis(values(&mpd, "mediaPresentationDuration")[0]);
    assert!((15_000..15_040).contains(&total), "{total}");
}

proptest! {
    #[test]
    fn any_stretch_is_tiled_by_its_segments_in_hls_and_dash_alike(
        count in 1_u64..60,
        holes in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..60),
        from in -5_000_000_i64..130_000_000, length in 1_i64..130_000_000,
    ) {
        let shows = [show(count, &holes)];
        let (start, end) = (at(FIRST, from), at(FIRST, from + length));
        let Ok(stretch) = Stretch::between(&shows, start, Some(end)) else {
            return Ok(());
        };
        prop_assert!(stretch.is_closed());
        let mut totals = Vec::new();
        let mut numbers = Vec::new();
        for rendition in ["v720", "a128"] {
            let text = stretch.media_playlist(&name(rendition)).expect("kept");
            prop_assert!(text.ends_with("#EXT-X-ENDLIST\n"));
            let (segments, date) = listed(&text);
            // They follow each other, and what is not stored is a gap.
            for (number, length, gap) in &segments {
                prop_assert_eq!(*gap, !shows[0].has(&name(rendition), *number));
                prop_assert!(*length <= 2_050_000, "{}", length);
            }
            prop_assert!(segments.windows(2).all(|pair| pair[0].0 < pair[1].0));
            // No more than a segment before what was asked for, and a frame after.
            let early = start.as_micros() - date.as_micros();
            prop_assert!(early <= 2_050_000, "{}", early);
            numbers.push(segments.iter().map(|segment| segment.0).collect::<Vec<_>>());
            totals.push(segments.iter().map(|segment| segment.1).collect::<Vec<_>>());
        }
        prop_assert_eq!(&numbers[0], &numbers[1]);
        let mpd = stretch.mpd().expect("kept");
        let total = millis(values(&mpd, "mediaPresentationDuration")[0]);
        let periods: u64 = values(&mpd, "duration").iter()
            .filter(|value| value.starts_with("PT")).map(|value| millis(value)).sum();
        prop_assert_eq!(total, periods);
        let playable = playable(&shows[0], &numbers[0]);
        // Each section ends up to a frame off the grid.
        let sections = text_sections(&playable);
        for lengths in totals {
            let each = numbers[0].iter().zip(&lengths).filter(|(number, _)| playable.contains(number));
            let length: u64 = each.map(|(_, length)| length).sum();
            prop_assert!(length.abs_diff(total * 1_000) <= 60_000 * sections, "{} {}", length, total);
        }
        // The MPD's templates give those of them that players get over, and name nothing that is not stored.
        let mut given = Vec::new();
        for period in mpd.split("  <Period ").skip(1) {
            let length = millis(values(&format!(" {period}"), "duration")[0]);
            let sets: Vec<_> = period.split("<AdaptationSet ").skip(1).collect();
            prop_assert!(!sets.is_empty(), "{}", mpd);
            for (index, set) in sets.into_iter().enumerate() {
                let first: u64 = values(set, "startNumber")[0].parse().expect("a number");
                let named = first..first + length.div_ceil(2_000);
                let (_, id) = set.split_once("<Representation ").expect("one");
                let id = id.trim_start_matches("id=\"").split('"').next().expect("an id");
                for number in named.clone() {
                    prop_assert!(shows[0].has(&name(id), number), "{} {}\n{}", id, number, mpd);
                }
                given.extend(named.filter(|_| index == 0));
            }
        }
        prop_assert_eq!(&given, &playable);
    }

    #[test]
    fn no_text_is_too_strange_for_a_record(text in "[\\[\\]{}\":,a-z0-9]{0,200}", cut in 0_usize..1_000) {
        let _ = Show::from_record(text.as_bytes());
        let record = show(9, &[]).to_record();
        let _ = Show::from_record(&record.as_bytes()[..cut.min(record.len())]);
    }
}

/// Those of `numbers` that have both pictures and sound, where others beside them have; and the last one.
fn playable(show: &Show, numbers: &[u64]) -> Vec<u64> {
    let kinds = |number| ["v720", "a128"].map(|rendition| show.has(&name(rendition), number));
    let mut found = Vec::new();
    for run in numbers.chunk_by(|before, after| before + 1 == *after) {
        let mut kept = run.to_vec();
        for kind in [0, 1] {
            if kept.iter().any(|number| kinds(*number)[kind]) {
                kept.retain(|number| kinds(*number)[kind]);
            }
        }
        found.extend(kept);
    }
    let mut lasts = numbers.iter().rev();
    if let (Some(last), Some(before)) = (lasts.next(), lasts.next())
        && found.last() == Some(before)
        && before + 1 == *last
    {
        found.push(*last);
    }
    found
}

/// How many runs of consecutive numbers there are.
fn text_sections(numbers: &[u64]) -> u64 {
    let breaks = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    1 + breaks.count() as u64
}

/// A record in which any number may be anything.
fn hostile(numbers: &[u64]) -> String {
    let low = |number: u64| number & u64::from(u32::MAX);
    let mut numbers = numbers.iter().cycle();
    let mut next = || *numbers.next().expect("not empty");
    let track = |next: &mut dyn FnMut() -> u64, name: &str| {
        format!(
            "{{\"name\":\"{name}\",\"video\":true,\"codecs\":\"avc1\",\"timescale\":{},\"frame\":[{},{}],\
             \"peak_bps\":{},\"average_bps\":{},\"stored\":[[{},{}]],\"odd\":[[{},{},{}],[{},{},{}]]}}",
            low(next()),
            low(next()).max(1),
            low(next()).max(1),
            next(),
            next(),
            FIRST,
            FIRST + 1 + next() % 50,
            FIRST + next() % 50,
            next().cast_signed(),
            next(),
            FIRST + next() % 50,
            next().cast_signed(),
            next(),
        )
    };
    let (one, two) = (track(&mut next, "v720"), track(&mut next, "v360"));
    let (three, four) = (track(&mut next, "v720"), track(&mut next, "v360"));
    format!(
        "{{\"format\":\"headwater-show\",\"version\":1,\"first\":{FIRST},\"from\":{FIRST},\"end\":{},\
         \"swept\":{FIRST},\"begins\":\"\",\"ends\":\"\",\"ended\":true,\"segment_ms\":{},\
         \"target_duration\":2,\"independent\":{},\"periods\":[\
         {{\"period\":{FIRST},\"first\":{FIRST},\"renditions\":[{one},{two}]}},\
         {{\"period\":{},\"first\":{},\"renditions\":[{three},{four}]}}]}}",
        FIRST + next() % 100,
        500 + next() % 29_500,
        next() % 2 == 0,
        next(),
        FIRST + 1 + next() % 30,
    )
}

/// Numbers at which sums and products go wrong, and ordinary ones.
fn awkward() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(90_000),
        Just(u64::MAX),
        Just(i64::MAX.cast_unsigned()),
        Just(i64::MIN.cast_unsigned()),
        Just(u64::from(u32::MAX)),
        any::<u64>(),
        0_u64..200_000_000_000_000,
    ]
}

proptest! {
    #[test]
    fn whatever_a_record_says_of_times_nothing_that_is_made_of_it_overflows(
        numbers in proptest::collection::vec(awkward(), 40..80),
    ) {
        let Ok(mut show) = Show::from_record(hostile(&numbers).as_bytes()) else {
            return Ok(());
        };
        show.adopt(&name("v720"), SegmentNumber::new(FIRST + 60), None);
        let _ = (show.begins(), show.ends(), show.number_from(at(FIRST + 4, 0)));
        let shows = [show.clone(), show.clone()];
        let all = [
            Stretch::whole(&show),
            Stretch::between(&shows, at(FIRST, 5), None),
            Stretch::between(&shows, at(FIRST, 5), Some(at(FIRST + 30, 0))),
        ];
        for stretch in all.into_iter().flatten() {
            let _ = (stretch.mpd(), stretch.media_playlist(&name("v720")), stretch.length());
            let _ = (stretch.multivariant_playlist("index.m3u8"), stretch.runs().count());
        }
        show.withdraw_below(FIRST + 3);
        show.end();
        prop_assert!(Show::from_record(show.to_record().as_bytes()).is_ok());
    }
}

/// A show whose renditions lie where the source cuts, of which `odd` segments are stored.
fn cut_by_its_source(odd: u64) -> Show {
    let mut show = show(1, &[]);
    show.independent = false;
    show.ended = false;
    show.offered = FIRST..FIRST + odd;
    let all = show.offered.clone();
    for track in &mut show.chapters[0].tracks {
        track.stored = ranges(std::slice::from_ref(&all));
        let places = all
            .clone()
            .map(|number| (number, (Ticks::new(7), Span::new(9))));
        track.odd = places.collect();
    }
    show
}

#[test]
fn a_record_that_takes_in_its_tail_can_be_read_again_however_full_it_is() {
    let full = record::MAX_ODD as u64;
    let mut show = cut_by_its_source(full - 1);
    for number in FIRST + full - 1..FIRST + full + 5 {
        let place = Some((Ticks::new(11), Span::new(3)));
        show.adopt(&name("v720"), SegmentNumber::new(number), place);
    }
    let read = Show::from_record(show.to_record().as_bytes()).expect("a record");
    assert!(read.has(&name("v720"), FIRST + full - 1));
    assert!(!read.has(&name("v720"), FIRST + full));
}

#[test]
fn a_record_is_not_gone_on_with_where_it_has_no_room() {
    let mut show = show(1, &[]);
    let chapter = show.chapters[0].clone();
    let chapters = (0..record::MAX_CHAPTERS as u64 + 1).map(|index| Chapter {
        first: FIRST + index,
        period: PeriodId::new(FIRST + index),
        ..chapter.clone()
    });
    show.chapters = chapters.collect();
    assert!(!show.is_within_limits());
    show.chapters.pop();
    assert!(show.is_within_limits());
}

#[test]
fn a_record_that_is_all_holes_makes_no_manifest_that_fills_the_memory() {
    let mut show = show(1, &[]);
    let holes = 4_000;
    let each = (0..holes).map(|index| FIRST + 2 * index..FIRST + 2 * index + 1);
    let chapter = &mut show.chapters[0];
    chapter.tracks[0].stored = ranges(&each.collect::<Vec<_>>());
    show.offered = FIRST..FIRST + 2 * holes;
    let whole = Stretch::whole(&show).expect("some megabytes");
    assert!(whole.mpd().expect("rendered").len() < 10_000_000);
    let chapter = &mut show.chapters[0];
    for index in 0..62 {
        let mut track = video(&format!("v{index}"), &[]);
        track.stored = Ranges::default();
        chapter.tracks.push(track);
    }
    let refused = Stretch::whole(&show).map(drop);
    assert_eq!(refused, Err(StretchError::TooMuch));
}

proptest! {
    #[test]
    fn whatever_is_found_in_a_store_a_record_can_be_read_again(
        on_grid in any::<bool>(),
        found in proptest::collection::vec((0_u64..1 << 42, any::<i64>(), any::<u64>()), 0..20),
    ) {
        let mut show = cut_by_its_source(3);
        show.independent = on_grid;
        for (number, start, length) in found {
            let place = Some((Ticks::new(start), Span::new(length)));
            for name in [name("v720"), name("a128")] {
                show.adopt(&name, SegmentNumber::new(FIRST + number % 50), place);
                show.adopt(&name, SegmentNumber::new(number), place);
            }
        }
        show.offer_all();
        let read = Show::from_record(show.to_record().as_bytes());
        prop_assert_eq!(read, Ok(show));
    }
}
