use proptest::prelude::*;

use super::*;
use crate::time::{Ticks, Timescale};

const FIRST: u64 = 897_600_000;

fn period(number: u64) -> PeriodId {
    PeriodId::new(number)
}

/// Segment `number` of a broadcast whose periods begin at `breaks`, without what is in `gaps`.
fn gone(number: u64, breaks: &[u64], gaps: &[u64]) -> Gone {
    let at = |number: u64| {
        let ticks = i64::try_from(number * 180_000).expect("fits");
        Ticks::new(ticks).at(Timescale::VIDEO_90K)
    };
    let begun = breaks.iter().rev().find(|first| **first <= number);
    Gone {
        number,
        begins: at(number),
        length: Span::new(180_000),
        period: period(begun.copied().unwrap_or(FIRST)),
        discontinuity: breaks.contains(&number),
        gap: gaps.contains(&number),
    }
}

/// The live playlist that lists `numbers`, as the packager writes it; a delta update that skips `skipped`.
fn live(
    numbers: std::ops::Range<u64>,
    breaks: &[u64],
    gaps: &[u64],
    skipped: Option<u64>,
) -> String {
    let first = gone(numbers.start, breaks, gaps);
    let before = breaks
        .iter()
        .filter(|first| **first < numbers.start)
        .count();
    let version = if skipped.is_some() { 9 } else { 6 };
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:2\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.000000,HOLD-BACK=6.0,CAN-SKIP-UNTIL=12.0\n\
         #EXT-X-PART-INF:PART-TARGET=0.333333\n#EXT-X-MEDIA-SEQUENCE:{}\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:{before}\n#EXT-X-INDEPENDENT-SEGMENTS\n\
         #EXT-X-MAP:URI=\"init-{}.mp4\"\n",
        numbers.start, first.period
    );
    if let Some(skipped) = skipped {
        let _ = writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
    }
    let mut known = first.period;
    for number in numbers.start + skipped.unwrap_or(0)..numbers.end {
        let segment = gone(number, breaks, gaps);
        if segment.discontinuity {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if segment.period != known {
            known = segment.period;
            let _ = writeln!(text, "#EXT-X-MAP:URI=\"init-{known}.mp4\"");
        }
        let date = segment.begins.to_wall();
        let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{date}");
        if segment.gap {
            text.push_str("#EXT-X-GAP\n");
        }
        let _ = writeln!(text, "#EXTINF:2.000000,\n{number}.m4s");
    }
    let date = gone(numbers.end, breaks, gaps).begins.to_wall();
    let _ = writeln!(
        text,
        "#EXT-X-PROGRAM-DATE-TIME:{date}\n#EXT-X-PART:DURATION=0.333333,URI=\"{0}.0.m4s\",INDEPENDENT=YES\n\
         #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{0}.1.m4s\"\n\
         #EXT-X-RENDITION-REPORT:URI=\"../a128/index.m3u8\",LAST-MSN={0},LAST-PART=0",
        numbers.end
    );
    text
}

fn text(pieces: &[Bytes]) -> String {
    let all: Vec<u8> = pieces.concat();
    String::from_utf8(all).expect("text")
}

/// What a player makes of a playlist: of each number its period, how many discontinuities precede it, whether it
/// is a gap and its date, which it counts on from the last one.
fn read(text: &str) -> Vec<(u64, String, u64, bool, Option<i64>)> {
    let (mut number, mut map, mut breaks) = (0, String::new(), 0);
    let (mut gap, mut date, mut found) = (false, None, Vec::new());
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
            number = value.parse().expect("a number");
        } else if let Some(value) = line.strip_prefix("#EXT-X-SKIP:SKIPPED-SEGMENTS=") {
            number += value.parse::<u64>().expect("a number");
        } else if let Some(value) = line.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:") {
            breaks = value.parse().expect("a number");
        } else if line == "#EXT-X-DISCONTINUITY" {
            breaks += 1;
        } else if line.starts_with("#EXT-X-MAP:") {
            map = line.to_owned();
        } else if let Some(value) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
            let at: WallTime = value.parse().expect("a date");
            date = Some(at.as_micros());
        } else if line == "#EXT-X-GAP" {
            gap = true;
        } else if !line.starts_with('#') {
            assert_eq!(line, format!("{number}.m4s"), "{text}");
            found.push((number, map.clone(), breaks, gap, date));
            date = date.map(|date| date + 2_000_000);
            (gap, number) = (false, number + 1);
        }
    }
    found
}

proptest! {
    #[test]
    fn what_has_left_the_live_list_is_listed_before_it_whatever_happened_since(
        length in 20_u64..900, window in 6_u64..14, reach in 60_u64..1_200,
        breaks in proptest::collection::btree_set(1_u64..900, 0..5),
        gaps in proptest::collection::btree_set(0_u64..900, 0..9),
        cut in 0_u64..900,
    ) {
        let on = |set: &std::collections::BTreeSet<u64>| set.iter().map(|n| FIRST + n).collect::<Vec<_>>();
        let (breaks, gaps) = (on(&breaks), on(&gaps));
        let mut behind = Behind::new(Duration::from_secs(reach));
        let mut earlier = Behind::new(Duration::from_secs(reach));
        let end = FIRST + length;
        let start = end - window.min(length);
        // What came before a restart is known from elsewhere.
        let cut = FIRST + cut.min(start - FIRST);
        (FIRST..cut).for_each(|number| earlier.push(gone(number, &breaks, &gaps)));
        (cut..start).for_each(|number| behind.push(gone(number, &breaks, &gaps)));
        behind.put_before(earlier);
        let edge = gone(end, &breaks, &gaps).begins.to_wall();
        behind.trim(edge);
        let oldest = FIRST.max((end * 2 - reach) / 2).min(start);
        prop_assert_eq!(behind.len(), start - oldest);
        let whole = text(&playlist(&behind, &live(start..end, &breaks, &gaps, None)));
        let found = read(&whole);
        prop_assert_eq!(found.len() as u64, end - oldest, "{}", whole);
        for (number, map, count, gap, date) in &found {
            let segment = gone(*number, &breaks, &gaps);
            prop_assert_eq!(map, &format!("#EXT-X-MAP:URI=\"init-{}.mp4\"", segment.period));
            let before = breaks.iter().filter(|first| **first <= *number).count() as u64;
            prop_assert_eq!(*count, before, "{}: {}", number, whole);
            prop_assert_eq!(*gap, segment.gap);
            if let Some(date) = date {
                prop_assert_eq!(*date, segment.begins.to_wall().as_micros());
            }
        }
        prop_assert!(found[found.len().min(8) - 1].4.is_some(), "dated soon: {}", whole);
        prop_assert!(whole.contains("../a128/dvr.m3u8") && !whole.contains("index.m3u8"));
        // A delta update, by the live one or where there is none, lists the same segments at its end.
        for skipped in [None, Some(2)] {
            let live = live(start..end, &breaks, &gaps, skipped);
            let Some(delta) = delta(&behind, &live) else {
                prop_assert!(found.len() <= 6 && skipped.is_none());
                continue;
            };
            let delta = text(&delta);
            prop_assert!(delta.contains("#EXT-X-VERSION:9\n"), "{}", delta);
            let found_in_delta = read(&delta);
            match skipped {
                // What lasts for six target durations, and no more.
                None => prop_assert_eq!(found_in_delta.len(), 6, "{}", delta),
                Some(_) => prop_assert!(found_in_delta.len() >= 6.min(found.len()) - 2, "{}", delta),
            }
            let at = found.len() - found_in_delta.len();
            for (one, other) in found[at..].iter().zip(&found_in_delta) {
                // A client knows how many discontinuities it has left out.
                prop_assert_eq!((one.0, &one.1, one.3), (other.0, &other.1, other.3), "{}", delta);
            }
        }
    }
}

#[test]
fn a_segment_keeps_its_lines_when_it_leaves_the_live_list() {
    let (breaks, gaps) = ([FIRST + 9], [FIRST + 12, FIRST + 13]);
    let mut behind = Behind::new(Duration::from_secs(600));
    let mut before = String::new();
    for start in FIRST..FIRST + 40 {
        let now = text(&playlist(
            &behind,
            &live(start..start + 10, &breaks, &gaps, None),
        ));
        let segments = |text: &str| {
            let (_, after) = text.split_once("#EXT-X-MAP:").expect("a map");
            let (before, _) = after.rsplit_once(".m4s\n#EXT-X-P").expect("a segment");
            before.to_owned()
        };
        let (now, was) = (segments(&now), std::mem::take(&mut before));
        assert!(now.starts_with(&was), "{was}\n---\n{now}");
        before = now;
        behind.push(gone(start, &breaks, &gaps));
    }
}

#[test]
fn a_playlist_whose_numbers_cannot_be_does_no_harm() {
    let mut behind = Behind::new(Duration::from_secs(60));
    for number in 5..9 {
        behind.push(gone(number, &[], &[]));
    }
    for first in [9, u64::MAX] {
        let live = format!(
            "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{max}\n#EXT-X-MEDIA-SEQUENCE:{first}\n\
             #EXT-X-SKIP:SKIPPED-SEGMENTS={max}\n#EXTINF:2,\n{first}.m4s\n#EXTINF:2,\nx.m4s\n",
            max = u64::MAX
        );
        assert!(text(&playlist(&behind, &live)).contains("x.m4s"));
        assert!(delta(&behind, &live).is_some());
    }
}

#[test]
fn nothing_is_put_before_a_list_that_it_does_not_lead_up_to() {
    let mut behind = Behind::new(Duration::from_secs(600));
    (FIRST..FIRST + 30).for_each(|number| behind.push(gone(number, &[], &[])));
    let apart = text(&playlist(
        &behind,
        &live(FIRST + 31..FIRST + 41, &[], &[], None),
    ));
    assert_eq!(read(&apart).len(), 10);
    behind.push(gone(FIRST + 35, &[], &[]));
    assert_eq!((behind.len(), behind.next()), (1, Some(FIRST + 36)));
}

#[test]
fn an_mpd_says_how_far_back_it_reaches_and_when_that_changed() {
    let text =
        "<MPD publishTime=\"2026-11-20T13:17:02.000Z\" timeShiftBufferDepth=\"PT20S\" x=\"1\">";
    let later = WallTime::from_micros(1_795_203_902_500_000);
    let found = mpd(text, 3_600_500, later).expect("an MPD");
    assert_eq!(
        found,
        "<MPD publishTime=\"2026-11-20T19:45:02.500Z\" timeShiftBufferDepth=\"PT3600.500S\" x=\"1\">"
    );
    let same = mpd(&found, 3_600_500, WallTime::from_micros(0)).expect("an MPD");
    assert_eq!(same, found);
    assert_eq!(mpd("<MPD type=\"static\">", 1, later), None);
}

/// The times and lengths of the segments of `rendition` in an MPD, the number of the first, and how far back it
/// reaches.
fn timeline(mpd: &str, rendition: &str) -> (u64, Vec<(i64, i64)>, String) {
    let document = roxmltree::Document::parse(mpd).expect("XML");
    let root = document.root_element();
    let depth = root.attribute("timeShiftBufferDepth").expect("a depth");
    let mut all = document.descendants();
    let found = all.find(|node| node.attribute("id") == Some(rendition));
    let template = found.and_then(|found| found.first_element_child());
    let template = template.expect("a template");
    let number = |node: roxmltree::Node<'_, '_>, name: &str| {
        node.attribute(name)
            .map(|text| text.parse::<i64>().expect("a number"))
    };
    let (mut times, mut at) = (Vec::new(), 0);
    for run in template
        .descendants()
        .filter(|node| node.has_tag_name((run_space(), "S")))
    {
        at = number(run, "t").unwrap_or(at);
        let length = number(run, "d").expect("a length");
        for _ in 0..=number(run, "r").unwrap_or(0) {
            times.push((at, length));
            at += length;
        }
    }
    let first = number(template, "startNumber").expect("a number");
    (
        u64::try_from(first).expect("positive"),
        times,
        depth.to_owned(),
    )
}

fn run_space() -> &'static str {
    "urn:mpeg:dash:schema:mpd:2011"
}

/// The live MPD of pictures and sound that the source cuts, as the packager writes it: `first` is what it lists
/// first, of a period that begins with `begins`.
fn live_of_cuts(begins: u64, first: u64) -> String {
    let set = |rendition: &str| {
        format!(
            "    <AdaptationSet id=\"1\">\n      <Representation id=\"{rendition}\" bandwidth=\"5\">\n        \
             <SegmentTemplate timescale=\"90000\" startNumber=\"{first}\" presentationTimeOffset=\"{}\" \
             media=\"$RepresentationID$/$Number$.m4s\">\n          <SegmentTimeline>\n            \
             <S t=\"{}\" d=\"180000\" r=\"5\"/>\n          </SegmentTimeline>\n        </SegmentTemplate>\n      \
             </Representation>\n    </AdaptationSet>\n",
            begins * 180_000,
            first * 180_000
        )
    };
    format!(
        "<MPD xmlns=\"{}\" type=\"dynamic\" publishTime=\"2026-11-20T13:17:02.000Z\" timeShiftBufferDepth=\"PT12.5S\">\n  \
         <Period id=\"{begins}\" start=\"PT0S\">\n{}{}  </Period>\n</MPD>\n",
        run_space(),
        set("vcopy"),
        set("acopy")
    )
}

#[test]
fn an_mpd_of_what_the_source_cuts_has_what_left_its_timelines_before_them() {
    let (begins, first) = (FIRST + 10, FIRST + 100);
    let mut all = [
        Behind::new(Duration::from_secs(600)),
        Behind::new(Duration::from_secs(600)),
    ];
    for number in FIRST..first {
        let gone = gone(number, &[begins], &[begins, begins + 1, FIRST + 50]);
        all.iter_mut().for_each(|behind| behind.push(gone));
    }
    // Sound that was cut elsewhere, but for where nothing is.
    all[1]
        .open
        .segments
        .iter_mut()
        .rev()
        .step_by(2)
        .for_each(|listed| {
            listed.length = Span::new(179_000);
        });
    let [pictures, sound] = &all;
    let behind = |name: &str| {
        if name == "vcopy" {
            Some(pictures)
        } else {
            Some(sound)
        }
    };
    let live = live_of_cuts(begins, first);
    let found = mpd_of_cuts(&live, behind, WallTime::from_micros(0)).expect("an MPD");
    // No further than the period, and nothing begins with a gap.
    let oldest = begins + 2;
    let expected = |number: u64| (i64::try_from(number * 180_000).expect("fits"), 180_000);
    let expected: Vec<_> = (oldest..first + 6).map(expected).collect();
    let (number, times, depth) = timeline(&found, "vcopy");
    assert_eq!((number, &times), (oldest, &expected), "{found}");
    assert_eq!(depth, format!("PT{}.500S", 12 + 2 * (first - oldest)));
    // All in one, and the live one.
    assert_eq!(
        found
            .split("acopy")
            .next()
            .expect("some")
            .matches("<S ")
            .count(),
        2,
        "{found}"
    );
    let (number, times, _) = timeline(&found, "acopy");
    assert_eq!(number, oldest);
    let begins = |times: &[(i64, i64)]| times.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!(begins(&times), begins(&expected), "{found}");
}

#[test]
fn gaps_with_which_the_live_list_begins_keep_the_numbers_right() {
    let first = FIRST + 50;
    let mut behind = Behind::new(Duration::from_secs(600));
    (FIRST..first - 3).for_each(|number| behind.push(gone(number, &[], &[])));
    let live = live_of_cuts(FIRST, first);
    let found = mpd_of_cuts(&live, |_| Some(&behind), WallTime::from_micros(0));
    let (number, times, _) = timeline(&found.expect("an MPD"), "vcopy");
    assert_eq!((number, times.len()), (FIRST, 56));
    let begins = i64::try_from(first * 180_000).expect("fits");
    assert_eq!(
        times[47..51],
        [-3, -2, -1, 0].map(|n| (begins + n * 180_000, 180_000))
    );
    // What does not lead up to the list is left out.
    behind.push(gone(first + 1, &[], &[]));
    let found = mpd_of_cuts(&live, |_| Some(&behind), WallTime::from_micros(0));
    assert_eq!(timeline(&found.expect("an MPD"), "vcopy").0, first);
    let ended = live.replace("timeShiftBufferDepth", "mediaPresentationDuration");
    assert_eq!(
        mpd_of_cuts(&ended, |_| None, WallTime::from_micros(0)),
        None
    );
}

#[test]
fn a_day_of_what_the_source_cuts_is_bounded() {
    let end = FIRST + 43_200;
    let mut behind = Behind::new(Duration::from_secs(86_400));
    for number in FIRST..end {
        let mut gone = gone(number, &[], &[]);
        gone.length = Span::new(180_000 - number % 2);
        behind.push(gone);
    }
    let live = live_of_cuts(FIRST, end);
    let found = mpd_of_cuts(&live, |_| Some(&behind), WallTime::from_micros(0)).expect("an MPD");
    let (number, times, _) = timeline(&found, "acopy");
    assert_eq!((number, times.len()), (end - 7_200, 7_206));
    assert!(found.len() < 700_000, "{}", found.len());
}

#[test]
fn a_list_that_is_not_reached_behind_yet_is_skipped_into_where_it_has_no_delta_of_its_own() {
    let behind = Behind::new(Duration::from_secs(600));
    // The init segment changes with a segment that is left out, or with the first that is not.
    for first_of_second in [FIRST + 2, FIRST + 4] {
        let live = live(FIRST..FIRST + 10, &[first_of_second], &[], None);
        let delta = text(&delta(&behind, &live).expect("twenty seconds, of which twelve stay"));
        assert!(
            delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=4\n"),
            "{delta}"
        );
        let found = read(&delta);
        assert_eq!(found.len(), 6, "{delta}");
        let map = format!("#EXT-X-MAP:URI=\"init-{first_of_second}.mp4\"");
        assert_eq!((found[0].0, &found[0].1), (FIRST + 4, &map), "{delta}");
        assert_eq!(delta.matches("#EXT-X-MAP:").count(), 2, "{delta}");
        let breaks = delta.matches("#EXT-X-DISCONTINUITY\n").count();
        assert_eq!(breaks, usize::from(first_of_second == FIRST + 4), "{delta}");
    }
    let short = live(FIRST..FIRST + 6, &[], &[], None);
    assert!(delta(&behind, &short).is_none());
}

#[test]
fn hours_are_small() {
    let mut behind = Behind::new(Duration::from_secs(4 * 3_600));
    let end = FIRST + 10_000;
    (FIRST..end).for_each(|number| behind.push(gone(number, &[], &[])));
    behind.trim(gone(end + 10, &[], &[]).begins.to_wall());
    assert_eq!(behind.len(), 7_190);
    let pieces = playlist(&behind, &live(end..end + 10, &[], &[], None));
    assert!(pieces.len() < 40, "{}", pieces.len());
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    assert!(bytes < 300_000, "{bytes}");
    let live = live(end..end + 10, &[], &[], Some(4));
    let delta: usize = delta(&behind, &live)
        .expect("some")
        .iter()
        .map(Bytes::len)
        .sum();
    assert!(delta < 2_000, "{delta}");
}
