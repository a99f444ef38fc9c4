use super::tests::{FIRST, config, feed, mpd_says_when_it_changed, video};
use super::*;
use crate::package::window::tests::aac;
use crate::package::{dash, hls};

/// What `snapshot` leaves behind where its server dies: the playlists in the store, and what they list.
fn broken_off(snapshot: &Snapshot) -> Past {
    let renditions = &snapshot.period().renditions;
    let listings = renditions.iter().enumerate().map(|(index, rendition)| {
        let text = hls::media::render_plain(snapshot, index).expect("listed");
        (rendition.name.clone(), hls::parse(&text).expect("ours"))
    });
    let mut past = Past::of(listings.collect()).expect("it broke off");
    for (index, rendition) in renditions.iter().enumerate() {
        let init = snapshot.init_segment(index, past.period()).expect("kept");
        let stored = snapshot.segments(index).filter(|segment| !segment.gap);
        let numbers = stored.map(|segment| segment.number);
        past.add(rendition.name.clone(), init.to_bytes(), numbers);
    }
    past
}

/// The snapshots of a run that begins with segment `first`, after `past`, and has `count` segments.
fn going_on(
    past: Option<&Past>,
    (first, count): (u64, u64),
    renditions: &[Rendition],
) -> Vec<Arc<Snapshot>> {
    let number = SegmentNumber::new(first);
    let config = config(2_000, true);
    let packager = Packager::after(&config, number, renditions.to_vec(), past);
    let outputs = feed(
        &mut packager.expect("valid"),
        first..first + count,
        |_, s| Some(s),
    );
    let snapshots = outputs.into_iter().filter_map(|output| match output {
        Output::WindowChanged(snapshot) => Some(snapshot),
        _ => None,
    });
    snapshots.collect()
}

/// Two ladders of the same names: with another size of the pictures.
fn two_sizes() -> [Vec<Rendition>; 2] {
    let mut wide = video("v720", (30, 1));
    if let crate::media::CodecConfig::H264(codec) = &mut wide.codec {
        codec.dimensions.width = 960;
    }
    [video("v720", (30, 1)), wide].map(|pictures| vec![pictures, aac("a128", 128_000)])
}

#[test]
fn mpd_after_a_crash_is_later_than_the_one_before() {
    let [before, other] = two_sizes();
    for now in [&before, &other] {
        let mut all = going_on(None, (FIRST, 6), &before);
        for first in [FIRST + 7, FIRST + 14] {
            let past = broken_off(all.last().expect("some"));
            all.extend(going_on(Some(&past), (first, 6), now));
        }
        mpd_says_when_it_changed(all.iter().map(AsRef::as_ref)).expect("later");
    }
}

/// dash.js 5.2 that was refused a segment for a second and a half asks for nothing any more, until its place is farther
/// back than the MPD reaches.
#[test]
fn mpd_reaches_back_to_a_hole_and_not_over_it() {
    let [ladder, _] = two_sizes();
    let depth = |snapshot: &Arc<Snapshot>| {
        let text = dash::mpd::render(snapshot).expect("it goes on");
        let (_, depth) = text.split_once("timeShiftBufferDepth=\"PT")?;
        let (seconds, _) = depth.split_once("S\"")?;
        seconds.parse::<u64>().ok()
    };
    let window = u64::from(config(2_000, true).window_segments);
    let before = going_on(None, (FIRST, 6), &ladder);
    assert_eq!(depth(before.last().expect("some")), Some(2 * window));
    let past = broken_off(before.last().expect("some"));
    let first = FIRST + 8;
    let run = going_on(Some(&past), (first, window + 4), &ladder);
    for snapshot in &run {
        let there = snapshot.listed().end - first;
        let expected = if there == 0 {
            window
        } else {
            there.min(window)
        };
        assert_eq!(
            depth(snapshot),
            Some(2 * expected),
            "{there} after the hole"
        );
    }
    // Died again, there are two holes: the last one counts.
    let past = broken_off(&run[run.len() / 2]);
    let listed = run[run.len() / 2].listed();
    let run = going_on(Some(&past), (listed.end + 1, 2), &ladder);
    assert_eq!(depth(run.last().expect("some")), Some(4));
}

/// A template of numbers has one init segment: it may not reach back to what another one is for.
#[test]
fn mpd_of_another_ladder_after_a_crash_begins_with_its_own_segments() {
    let [before, other] = two_sizes();
    let first = FIRST + 7;
    let past = broken_off(going_on(None, (FIRST, 6), &before).last().expect("some"));
    let run = going_on(Some(&past), (first, 3), &other);
    let start = (first - 1) * 2;
    let period = format!("<Period id=\"{first}\" start=\"PT{start}S\">");
    let template = format!(
        "startNumber=\"{first}\" presentationTimeOffset=\"{}\" \
         initialization=\"$RepresentationID$/init-{first}.mp4\"",
        first * 2_000
    );
    let is_ours = |text: &str| {
        text.matches("<Period ").count() == 1 && text.contains(&period) && text.contains(&template)
    };
    for snapshot in &run {
        let text = dash::mpd::render(snapshot);
        assert_eq!(
            text.is_some(),
            snapshot.listed().contains(&first),
            "{text:?}"
        );
        assert!(text.is_none_or(|text| is_ours(&text)));
    }
    // The same period goes on after another crash: where it begins does not change.
    let past = broken_off(run.last().expect("some"));
    for count in [1, 40] {
        let run = going_on(Some(&past), (first + 5, count), &other);
        for snapshot in [&run[0], &run[run.len() - 1]] {
            let text = dash::mpd::render(snapshot).expect("it goes on");
            assert!(is_ours(&text), "{text}");
        }
    }
}

#[test]
fn what_was_listed_keeps_its_init_segment_through_two_crashes_and_another_ladder() {
    let sound = || aac("a128", 128_000);
    let before = [sound(), video("v720", (30, 1))];
    let now = [sound(), video("v360", (30, 1))];
    let past = broken_off(going_on(None, (FIRST, 4), &before).last().expect("some"));
    let run = going_on(Some(&past), (FIRST + 5, 1), &now);
    let past = broken_off(run.last().expect("some"));
    let run = going_on(Some(&past), (FIRST + 7, 1), &now);
    let texts = [0, 1].map(|index| hls::media::render(&run[0], index).expect("listed"));
    let maps = texts.each_ref().map(|text| {
        let maps = text.lines().filter(|line| line.starts_with("#EXT-X-MAP"));
        maps.count()
    });
    let [first, second] = [FIRST, FIRST + 5].map(|n| format!("init-{n}.mp4\"\n"));
    assert_eq!(maps, [2, 2], "{texts:?}");
    assert!(texts[0].contains(&first) && texts[0].contains(&second));
    assert!(!texts[1].contains(&first), "that was never made");
}

#[test]
fn mpd_of_the_first_ladder_counts_from_where_it_did_after_a_crash() {
    let [ladder, _] = two_sizes();
    let past = broken_off(going_on(None, (FIRST, 6), &ladder).last().expect("some"));
    let run = going_on(Some(&past), (FIRST + 7, 1), &ladder);
    let text = dash::mpd::render(&run[0]).expect("it goes on");
    let period = format!("<Period id=\"{FIRST}\" start=\"PT0S\">");
    assert!(
        text.contains(&period) && text.contains("startNumber=\"1\""),
        "{text}"
    );
}

/// [DASH] §5.3.1.2: who compares publish times must not take the newer one for the one that it has.
#[test]
fn mpd_is_later_for_each_of_several_changes_at_one_time() {
    let renditions = ["v720", "v540", "v360"].map(|name| video(name, (30, 1)));
    let packager = Packager::new(
        &config(2_000, false),
        PeriodId::new(FIRST),
        renditions.to_vec(),
    );
    let mut packager = packager.expect("valid");
    let mut outputs = feed(&mut packager, FIRST..FIRST + 4, |_, s| Some(s));
    // Two rest, for as long; then peaks of segments with one number; then the end, before those are back.
    for rendition in [0, 1] {
        packager.rest_soon(rendition, SegmentNumber::new(FIRST + 6));
    }
    outputs.extend(feed(&mut packager, FIRST + 4..FIRST + 5, |_, sample| {
        let data = vec![0; 200_000].into();
        Some(Sample { data, ..sample })
    }));
    outputs.extend(packager.finish().expect("finished"));
    let snapshots = outputs.iter().filter_map(|output| match output {
        Output::WindowChanged(snapshot) => Some(snapshot.as_ref()),
        _ => None,
    });
    mpd_says_when_it_changed(snapshots).expect("later");
}
