use super::tests::{FIRST, aac_at, config, feed, mpd_says_when_it_changed, value, video};
use super::*;
use crate::package::window::tests::aac;
use crate::package::{dash, hls};
use crate::time::Timescale;

/// The number of the first segment with pictures.
const WIDE: u64 = FIRST + 5;

/// A broadcast of sound that pictures come to, with `after` segments of both.
struct Widened {
    outputs: Vec<Output>,
    packager: Packager,
}

fn widened(low_latency: bool, after: u64) -> Widened {
    let config = config(2_000, low_latency);
    let sound = aac("a96", 96_000);
    let mut packager = Packager::new(&config, PeriodId::new(FIRST), vec![sound.clone()]);
    let packager_ref = packager.as_mut().expect("valid");
    let mut outputs = feed(packager_ref, FIRST..WIDE, |_, s| Some(s));
    let all = vec![sound, video("v360", (30, 1)), video("v180", (30, 1))];
    let first = SegmentNumber::new(WIDE);
    packager_ref.widen(all, first).expect("ended before");
    outputs.extend(feed(packager_ref, WIDE..WIDE + after, |_, s| Some(s)));
    Widened {
        outputs,
        packager: packager.expect("valid"),
    }
}

impl Widened {
    fn last(&self) -> &Snapshot {
        let mut all = self.outputs.iter().rev();
        let found = all.find_map(|output| match output {
            Output::WindowChanged(snapshot) => Some(snapshot),
            _ => None,
        });
        found.expect("some")
    }

    fn playlist(&self, rendition: usize) -> String {
        hls::media::render(self.last(), rendition).expect("listed")
    }
}

/// What is listed before the first segment that has pictures, and from it on.
fn at_the_seam(text: &str) -> (&str, &str) {
    text.split_once("#EXT-X-DISCONTINUITY\n").expect("a seam")
}

#[test]
fn pictures_that_come_begin_a_period_on_every_rendition() {
    for low_latency in [false, true] {
        let run = widened(low_latency, 3);
        let lists = [0, 1, 2].map(|rendition| run.playlist(rendition));
        for text in &lists {
            assert_eq!(value(text, "#EXT-X-MEDIA-SEQUENCE:"), FIRST.to_string());
            let (before, after) = at_the_seam(text);
            assert_eq!(before.matches("#EXTINF").count(), 5, "{text}");
            let map = format!("#EXT-X-MAP:URI=\"init-{WIDE}.mp4\"\n");
            assert!(after.starts_with(&map), "{text}");
            assert!(!after.contains("#EXT-X-GAP"), "{text}");
        }
        let gaps = lists
            .each_ref()
            .map(|text| text.matches("#EXT-X-GAP").count());
        assert_eq!(gaps, [0, 5, 5], "sound is never missing");
        assert!(lists[0].contains(&format!("init-{FIRST}.mp4")));
        for new in &lists[1..] {
            let missing = format!("init-{FIRST}.mp4");
            assert!(!new.contains(&missing), "no such object was ever made");
        }
    }
}

#[test]
fn what_pictures_lack_before_they_came_has_its_parts_as_far_back_as_parts_are_listed() {
    for after in [0, 1] {
        let run = widened(true, after);
        for rendition in [1, 2] {
            let text = run.playlist(rendition);
            let counts = (FIRST..WIDE).map(|number| {
                let part = |index| format!("URI=\"{number}.{index}.m4s\",GAP=YES");
                let parts = (0..10).filter(|index| text.contains(&part(*index)));
                parts.count()
            });
            let counts: Vec<_> = counts.collect();
            let expected = match after {
                0 => [0, 0, 6, 6, 6],
                _ => [0, 0, 0, 6, 6],
            };
            assert_eq!(counts, expected, "{text}");
        }
    }
}

#[test]
fn multivariant_playlist_has_pictures_with_their_sound() {
    let run = widened(true, 1);
    let text = hls::multivariant::render(run.last()).expect("listed");
    for wanted in ["v360/index.m3u8", "v180/index.m3u8", "TYPE=AUDIO"] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn sound_goes_on_without_a_hole_and_with_what_was_promised() {
    let run = widened(true, 3);
    let mut end = None;
    for output in &run.outputs {
        if let Output::Segment {
            rendition: 0,
            start,
            duration,
            ..
        } = output
        {
            assert!(end.is_none_or(|end| end == start.ticks()), "{start:?}");
            end = start.ticks().checked_add(*duration);
        }
    }
    let targets = run.outputs.iter().filter_map(|output| match output {
        Output::WindowChanged(snapshot) => Some({
            let told = snapshot.presentation();
            (told.part_target, told.target_duration_s)
        }),
        _ => None,
    });
    let mut targets: Vec<_> = targets.collect();
    targets.dedup();
    assert_eq!(targets.len(), 1, "{targets:?}");
}

#[test]
fn mpd_has_a_period_for_each_until_the_first_has_left_the_list() {
    let periods = |after| {
        let run = widened(false, after);
        let text = dash::mpd::render(run.last()).expect("enough");
        let ids = text.matches("<Period id=").count();
        (ids, text)
    };
    let (count, text) = periods(2);
    assert_eq!(count, 2, "{text}");
    let start = WIDE * 2 - 2;
    assert!(text.contains(&format!("<Period id=\"{FIRST}\" start=\"PT0S\">")));
    let second = format!("<Period id=\"{WIDE}\" start=\"PT{start}S\">");
    let template = format!(
        "startNumber=\"{WIDE}\" presentationTimeOffset=\"{}\" \
         initialization=\"$RepresentationID$/init-{WIDE}.mp4\"",
        WIDE * 2_000
    );
    assert!(text.contains(&second) && text.contains(&template), "{text}");
    let (count, text) = periods(40);
    assert_eq!(count, 1, "{text}");
    assert!(
        text.contains(&second) && text.contains(&template),
        "it stays where it is: {text}"
    );
    let run = widened(false, 40);
    let snapshots = run.outputs.iter().filter_map(|output| match output {
        Output::WindowChanged(snapshot) => Some(snapshot.as_ref()),
        _ => None,
    });
    mpd_says_when_it_changed(snapshots).expect("later");
}

#[test]
fn what_has_nothing_of_the_first_segment_with_pictures_has_a_gap_there_and_goes_on() {
    for low_latency in [false, true] {
        let mut run = widened(low_latency, 0);
        let grid = run.packager.presentation().grid();
        let is_first = |sample: &Sample| {
            let number = grid.segment_at(sample.dts.at(Timescale::VIDEO_90K));
            number.get() == WIDE
        };
        let wide = feed(&mut run.packager, WIDE..WIDE + 3, |rendition, sample| {
            Some(sample).filter(|sample| rendition != 2 || !is_first(sample))
        });
        run.outputs.extend(wide);
        let [whole, late] = [1, 2].map(|rendition| run.playlist(rendition));
        let (_, after) = at_the_seam(&whole);
        assert!(!after.contains("#EXT-X-GAP"), "{whole}");
        let (_, after) = at_the_seam(&late);
        let gap = format!("#EXT-X-GAP\n#EXTINF:2.000000,\n{WIDE}.m4s\n");
        assert!(after.contains(&gap), "{late}");
        assert_eq!(after.matches("#EXT-X-GAP").count(), 1, "{late}");
        assert_eq!(after.matches("#EXTINF").count(), 3, "{late}");
    }
}

#[test]
fn what_is_not_wider_or_comes_too_soon_changes_nothing() {
    let mut run = widened(true, 1);
    let packager = &mut run.packager;
    let all = packager.snapshot().period().renditions.clone();
    let next = SegmentNumber::new(WIDE + 2);
    let fewer = packager.widen(all[..2].to_vec(), next);
    assert!(matches!(fewer, Err(Error::OtherRenditions { .. })));
    let mut other = all.clone();
    other[0] = aac_at("a64", 48_000);
    let other = packager.widen(other, next);
    assert!(matches!(other, Err(Error::OtherRenditions { .. })));
    let used = packager.widen(all, SegmentNumber::new(WIDE));
    assert!(matches!(used, Err(Error::NumberUsed { .. })));
    assert_eq!(packager.snapshot().period().first.get(), WIDE);
}
