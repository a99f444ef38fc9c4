use super::source_tests::{Take, run};
use super::tests::{FIRST, Run, config};
use super::*;
use crate::id::RenditionName;
use crate::package::movie;
use crate::package::show::{Recorder, Show, Stretch};
use crate::time::MediaTime;

/// Three periods, cut by their source every three seconds: a second behind the grid more with each segment.
fn broadcast() -> Run {
    let take = |fps: u32, count: usize| Take::new(fps, 48_000, &vec![3 * fps; count]);
    let later = Take {
        after_ms: 700,
        skipped: 2,
        ..take(25, 40)
    };
    run(&config(2_000, false), &[take(30, 40), take(50, 40), later])
}

/// Where every segment lies, by its own bytes.
fn truth(run: &Run) -> Vec<(RenditionName, SegmentNumber, (Ticks, Span))> {
    let segment = |output: &Output| match output {
        Output::Segment {
            rendition,
            segment,
            payload,
            ..
        } => {
            let name = run.renditions[*rendition].name.clone();
            let place = movie::place_of(&payload.to_bytes()).expect("ours");
            Some((name, *segment, place))
        }
        _ => None,
    };
    run.outputs.iter().filter_map(segment).collect()
}

/// What a recorder makes of it that is told of what is stored after `lag` more snapshots.
fn recorded(run: &Run, lag: usize) -> Recorder {
    let snapshots: Vec<_> = run.snapshots().collect();
    let mut recorder = Recorder::begin(snapshots[0], SegmentNumber::new(FIRST));
    let mut waiting = VecDeque::new();
    let mut seen = 0;
    for output in &run.outputs {
        match output {
            Output::Segment {
                rendition, segment, ..
            } => {
                let name = run.renditions[*rendition].name.clone();
                waiting.push_back((seen, name, *segment));
            }
            Output::WindowChanged(snapshot) => {
                seen += 1;
                recorder.advance(snapshot);
                while waiting.front().is_some_and(|(at, ..)| at + lag < seen) {
                    let (_, name, number) = waiting.pop_front().expect("there");
                    recorder.stored(&name, number);
                }
                recorder.advance(snapshot);
            }
            _ => {}
        }
    }
    for (_, name, number) in waiting {
        recorder.stored(&name, number);
    }
    recorder.advance(snapshots[snapshots.len() - 1]);
    recorder
}

fn date_of(place: (Ticks, Span), run: &Run, name: &RenditionName) -> MediaTime {
    let found = run.renditions.iter().find(|r| r.name == *name);
    place.0.at(found.expect("there").timescale)
}

/// Every segment of `shows` in the playlists, with its date where one is given and its length.
fn lists_the_truth(run: &Run, shows: &[Show]) {
    let begin = shows[0].begins();
    let stretch = Stretch::between(shows, begin, None).expect("kept");
    for name in ["vcopy", "v360", "acopy"] {
        let name: RenditionName = name.parse().expect("a name");
        let text = stretch.media_playlist(&name).expect("kept");
        assert!(!text.contains("#EXT-X-GAP"), "{text}");
        let mut listed = Vec::new();
        let (mut date, mut length) = (None, 0.0);
        for line in text.lines() {
            if let Some(value) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
                date = Some(value.to_owned());
            } else if let Some(value) = line.strip_prefix("#EXTINF:") {
                length = value
                    .trim_end_matches(',')
                    .parse::<f64>()
                    .expect("a number");
            } else if let Some(number) = line.strip_suffix(".m4s") {
                let number: u64 = number.parse().expect("a number");
                listed.push((number, date.take(), length));
            }
        }
        let mine: Vec<_> = truth(run)
            .into_iter()
            .filter(|(of, ..)| *of == name)
            .collect();
        assert_eq!(listed.len(), mine.len(), "{text}");
        for ((number, date, length), (_, wanted, place)) in listed.iter().zip(&mine) {
            assert_eq!(*number, wanted.get());
            if let Some(date) = date {
                let expected = date_of(*place, run, &name).to_wall().to_string();
                assert_eq!(*date, expected, "{name} {number}");
            }
            assert!((2.9..3.1).contains(length), "{name} {number}: {length}");
        }
    }
}

#[test]
fn what_is_stored_long_after_it_left_the_window_lies_where_its_source_put_it() {
    let run = broadcast();
    for lag in [0, 1, 200, usize::MAX - 1_000] {
        let recorder = recorded(&run, lag);
        let mut show = recorder.show().clone();
        show.end();
        assert_eq!(show.offered(), FIRST..FIRST + 122, "lag {lag}");
        assert_eq!(
            Show::from_record(show.to_record().as_bytes()),
            Ok(show.clone())
        );
        let stretch = Stretch::whole(&show).expect("kept");
        let text = stretch
            .media_playlist(&"vcopy".parse().expect("a name"))
            .expect("kept");
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 2, "{text}");
        assert_eq!(text.matches("#EXT-X-MAP:").count(), 3, "{text}");
        let mpd = stretch.mpd().expect("kept");
        assert_eq!(mpd.matches("<Period ").count(), 3, "{mpd}");
        assert_eq!(mpd.matches("<SegmentTimeline>").count(), 9, "{mpd}");
        lists_the_truth(&run, &[show]);
    }
}

#[test]
fn a_record_that_is_full_goes_on_in_the_next_without_losing_or_repeating_anything() {
    let run = broadcast();
    let snapshots: Vec<_> = run.snapshots().collect();
    let mut recorder = Recorder::begin(snapshots[0], SegmentNumber::new(FIRST));
    let mut shows = Vec::new();
    let (mut seen, mut made) = (0, Vec::new());
    for output in &run.outputs {
        match output {
            Output::Segment {
                rendition, segment, ..
            } => {
                made.push((*rendition, *segment));
            }
            Output::WindowChanged(snapshot) => {
                recorder.advance(snapshot);
                for (rendition, segment) in made.drain(..) {
                    recorder.stored(&run.renditions[rendition].name, segment);
                }
                recorder.advance(snapshot);
                seen += 1;
                // At moments at which some renditions are ahead of the others too.
                if seen % 9 == 0 && !recorder.show().offered().is_empty() {
                    shows.push(recorder.turn_over(snapshot));
                }
            }
            _ => {}
        }
    }
    for (rendition, segment) in made {
        recorder.stored(&run.renditions[rendition].name, segment);
    }
    recorder.advance(snapshots[snapshots.len() - 1]);
    let mut last = recorder.show().clone();
    last.end();
    shows.push(last);
    assert!(shows.len() > 3, "{}", shows.len());
    assert!(
        shows
            .windows(2)
            .all(|two| two[0].offered().end == two[1].offered().start)
    );
    lists_the_truth(&run, &shows);
}

#[test]
fn a_broadcast_that_goes_on_after_a_crash_is_one_show_with_all_that_was_listed() {
    let run = broadcast();
    let recorder = recorded(&run, 0);
    let mut broken = recorder.show().clone();
    let (numbers, begins) = (broken.offered(), broken.begins());
    // Nothing is added to what is another length.
    let snapshot = run.snapshots().last().expect("some").clone();
    let next = SegmentNumber::new(numbers.end);
    let mut later = Recorder::begin(&snapshot, next);
    broken.end();
    assert!(!later.go_on_with(broken.clone(), &snapshot), "it has ended");
    let open = recorder.show().clone();
    assert!(later.go_on_with(open, &snapshot));
    assert_eq!(later.show().offered(), numbers);
    assert_eq!(later.show().begins(), begins);
    let mut show = later.show().clone();
    show.end();
    lists_the_truth(&run, &[show]);
}
