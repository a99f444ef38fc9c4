//! What becomes of the sound of a broadcast when a transcoder with pictures is to take over, and cannot.
//!
//! Enters: what two transcoders say, made up
//! Leaves: a failure for every sample of sound that was not stored in its place
//! Never:  a worker
//! Time:   a broadcast's timeline of the test's own; tokio's clock where one is waited for
//! Spec:   docs/resilience.md

use std::ops::Range;
use std::path::Path;

use tokio::task::JoinHandle;

use super::*;
use crate::package::made_up;
use crate::time::{Span, Ticks};
use crate::transcode::{Output, ladder};

/// The first segment.
const FIRST: u64 = 900_000_000;
const SOUNDS: [&str; 2] = ["a128", "a96"];

fn sound(name: &str) -> Rendition {
    made_up::aac(name, 96_000)
}

fn pictures() -> Rendition {
    made_up::h264("v180", 320, 180)
}

/// The number of the first sample of sound that begins `ms` after the broadcast, or later.
fn slot(ms: i64) -> i64 {
    let begin = i64::try_from(FIRST).expect("small") * 2_000;
    ((begin + ms) * 48 + 1_023) / 1_024
}

/// The sound of `rendition` between two milliseconds of the broadcast. Each sample says which it is.
fn heard(rendition: usize, name: &str, ms: Range<i64>) -> Vec<Output> {
    let slots = slot(ms.start)..slot(ms.end);
    let sample = |slot: i64| Output::Sample {
        rendition,
        sample: Sample {
            dts: Ticks::new(slot * 1_024),
            pts: Ticks::new(slot * 1_024),
            duration: Span::new(1_024),
            keyframe: true,
            data: format!("<{name} {slot}>").into_bytes().into(),
        },
    };
    slots.map(sample).collect()
}

/// The pictures likewise.
fn seen(ms: Range<i64>) -> Vec<Output> {
    let begin = i64::try_from(FIRST).expect("small") * 60;
    let frames = begin + ms.start * 30 / 1_000..begin + ms.end * 30 / 1_000;
    let sample = |frame: i64| {
        let at = Ticks::new(frame * 3_000);
        let sample = Sample {
            dts: at,
            pts: at,
            duration: Span::new(3_000),
            keyframe: frame % 60 == 0,
            data: vec![0; 40].into(),
        };
        Output::Sample {
            rendition: 0,
            sample,
        }
    };
    frames.map(sample).collect()
}

/// Says `outputs`, and waits until all of it is heard.
async fn say(to: &mpsc::Sender<Output>, outputs: impl IntoIterator<Item = Output>) {
    for output in outputs {
        to.send(output).await.expect("somebody listens");
    }
    while to.capacity() < to.max_capacity() {
        tokio::task::yield_now().await;
    }
}

/// A broadcast of sound that is published, and a transcoder with pictures that is to take over.
struct Show {
    folder: tempfile::TempDir,
    stream: Arc<Stream>,
    current: mpsc::Sender<Output>,
    next: mpsc::Sender<Output>,
    offer: mpsc::Sender<Outputs>,
    told: mpsc::Receiver<Told>,
    publishing: JoinHandle<Result<(), Error>>,
}

impl Show {
    /// The first `ms` of the sound, and a transcoder that has said nothing yet.
    async fn begin(ms: i64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let context = Arc::new(Context::made_up(folder.path()).await);
        let store = context.store.clone();
        let stream = Arc::new(Stream::new("film".parse().expect("a name")));
        let writer = store.writers(stream.name());
        let (offer, come) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(4);
        let successors = Successors { come, told: tell };
        let shown = Arc::clone(&stream);
        let clock = SteadyClock::begin(wall_now(), Duration::ZERO);
        let stream = (stream, clock, context.config.package.clone());
        let publication = Publication::new(context, stream, (None, writer), successors);
        let (current, outputs) = Outputs::said();
        let publishing = tokio::spawn(publication.run(outputs));
        let renditions = SOUNDS.map(sound).to_vec();
        let cuts = transcode::Cuts::Grid;
        say(&current, [Output::Opened { renditions, cuts }]).await;
        let (next, _) = Outputs::said();
        let mut show = Self {
            folder,
            stream: shown,
            current,
            next,
            offer,
            told,
            publishing,
        };
        show.hear(0..ms).await;
        show.offer_next().await;
        show
    }

    /// Another transcoder that has said nothing yet.
    async fn offer_next(&mut self) {
        let (next, outputs) = Outputs::said();
        self.next = next;
        self.offer.send(outputs).await.expect("somebody listens");
        while self.offer.capacity() == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Both sounds of the transcoder on air.
    async fn hear(&self, ms: Range<i64>) {
        for (rendition, name) in SOUNDS.into_iter().enumerate() {
            say(&self.current, heard(rendition, name, ms.clone())).await;
        }
    }

    /// What the next transcoder says it makes.
    async fn open_next(&self) {
        let mut renditions = vec![pictures()];
        renditions.extend(SOUNDS.map(sound));
        let cuts = transcode::Cuts::Grid;
        say(&self.next, [Output::Opened { renditions, cuts }]).await;
    }

    /// The same of the next one, with its pictures.
    async fn make_next(&self, ms: Range<i64>) {
        say(&self.next, seen(ms.clone())).await;
        for (index, name) in SOUNDS.into_iter().enumerate() {
            say(&self.next, heard(index + 1, name, ms.clone())).await;
        }
    }

    /// The end of the broadcast; the stored samples of both sounds are those up to `ms`, each once.
    async fn assert_whole(self, ms: i64) -> tempfile::TempDir {
        self.publishing.await.expect("no panic").expect("published");
        for name in SOUNDS {
            let expected: Vec<_> = (slot(0)..slot(ms)).collect();
            assert_eq!(stored(self.folder.path(), name), expected, "{name}");
        }
        self.folder
    }
}

/// The numbers of the samples that are stored of `name`, in order.
fn stored(folder: &Path, name: &str) -> Vec<i64> {
    let folder = folder.join("live/film").join(name);
    let entries = std::fs::read_dir(&folder).expect("stored");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "m4s"))
        .collect();
    segments.sort();
    let mut all = String::new();
    for path in segments {
        let bytes = std::fs::read(path).expect("stored");
        all.push_str(&String::from_utf8_lossy(&bytes));
    }
    let begin = format!("<{name} ");
    let samples = all.split(&begin).skip(1);
    let number = |rest: &str| rest.split('>').next().and_then(|n| n.parse().ok());
    samples
        .map(|rest| number(rest).expect("a number"))
        .collect()
}

/// A broadcast that pictures have come to with the fourth second.
async fn taken_over() -> Show {
    let mut show = Show::begin(3_000).await;
    show.open_next().await;
    show.make_next(2_000..4_000).await;
    show.hear(3_000..4_000).await;
    assert_eq!(show.told.recv().await, Some(Told::TookOver));
    show
}

#[tokio::test]
async fn pictures_take_over_and_no_sample_of_the_sound_is_missing_or_doubled() {
    let show = taken_over().await;
    show.make_next(4_000..7_000).await;
    say(&show.next, [Output::Finished]).await;
    let folder = show.assert_whole(7_000).await;
    let first = folder
        .path()
        .join(format!("live/film/v180/{}.m4s", FIRST + 2));
    assert!(first.exists());
}

/// What a transcoder that is of no use says last.
type LastWord = fn() -> Option<Output>;

const LAST_WORDS: [(&str, LastWord); 5] = [
    ("its workers die", || {
        Some(Output::Failed(transcode::Error::Stalled))
    }),
    ("its first worker dies", || {
        let (cause, skipped) = (transcode::Error::Stalled, false);
        Some(Output::Restarted { cause, skipped })
    }),
    ("it cannot be planned", || {
        Some(Output::Failed(ladder::Error::Empty.into()))
    }),
    ("it has no pictures", || {
        let renditions = SOUNDS.map(sound).to_vec();
        let cuts = transcode::Cuts::Grid;
        Some(Output::Opened { renditions, cuts })
    }),
    ("it never gives anything", || None),
];

#[tokio::test]
async fn sound_goes_on_unharmed_whatever_becomes_of_the_transcoder_with_pictures() {
    for (how, word) in LAST_WORDS {
        for has_begun in [false, true] {
            let mut show = Show::begin(3_000).await;
            if has_begun {
                show.open_next().await;
                show.make_next(2_000..3_000).await;
            }
            // One sound has come to where the pictures would begin, the other has not.
            say(&show.current, heard(0, SOUNDS[0], 3_000..4_500)).await;
            say(&show.current, heard(1, SOUNDS[1], 3_000..3_500)).await;
            if let Some(word) = word() {
                say(&show.next, [word]).await;
            } else {
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(31)).await;
                tokio::time::resume();
            }
            assert_eq!(show.told.recv().await, Some(Told::Failed), "{how}");
            say(&show.current, heard(0, SOUNDS[0], 4_500..8_500)).await;
            say(&show.current, heard(1, SOUNDS[1], 3_500..8_500)).await;
            say(&show.current, [Output::Finished]).await;
            assert!(show.told.recv().await.is_none(), "{how}: it is said once");
            let folder = show.assert_whole(8_500).await;
            assert!(!folder.path().join("live/film/v180").exists(), "{how}");
        }
    }
}

/// What [`taken_over`] gives; the sound of before has come to the sixth second, that of after to the fifth and a half.
async fn beyond_takeover() -> Show {
    let show = taken_over().await;
    show.hear(4_000..6_000).await;
    show.make_next(4_000..5_500).await;
    show
}

#[tokio::test]
async fn sound_goes_on_where_the_transcoder_with_pictures_dies_soon_after_it_took_over() {
    let mut show = beyond_takeover().await;
    let (cause, skipped) = (transcode::Error::Stalled, false);
    say(&show.next, [Output::Restarted { cause, skipped }]).await;
    let failed = transcode::Error::Stalled;
    say(&show.next, [Output::Failed(failed)]).await;
    assert_eq!(show.told.recv().await, Some(Told::FellBack));
    show.hear(6_000..13_000).await;
    let warning = show.stream.status().encoding.warning.expect("it is said");
    assert!(
        warning.contains("v180 rests, and only the sound is served"),
        "{warning}"
    );
    say(&show.current, [Output::Finished]).await;
    let folder = show.assert_whole(13_000).await;
    assert_gaps(&folder, &[(2, false), (3, true), (5, true)]);
}

/// Whether the segments of pictures of those numbers are listed as gaps.
fn assert_gaps(folder: &tempfile::TempDir, expected: &[(u64, bool)]) {
    let list = folder.path().join("live/film/v180/index.m3u8");
    let list = std::fs::read_to_string(list).expect("stored");
    for (number, is_gap) in expected {
        let number = FIRST + number;
        let (before, _) = list.split_once(&format!("{number}.m4s")).expect("listed");
        let tags = before.rsplit(".m4s").next().expect("something");
        assert_eq!(tags.contains("#EXT-X-GAP"), *is_gap, "{number}: {list}");
    }
}

#[tokio::test]
async fn pictures_that_were_given_up_are_tried_again_and_given_up_again() {
    let mut show = beyond_takeover().await;
    let failed = || Output::Failed(transcode::Error::Stalled);
    say(&show.next, [failed()]).await;
    assert_eq!(show.told.recv().await, Some(Told::FellBack));
    assert!(show.stream.lacks_pictures());
    let warning = |show: &Show| show.stream.status().encoding.warning;
    assert!(warning(&show).is_some_and(|said| said.contains("tried again within a minute")));
    show.hear(6_000..9_000).await;
    show.offer_next().await;
    show.open_next().await;
    show.make_next(8_000..11_000).await;
    show.hear(9_000..10_500).await;
    assert_eq!(show.told.recv().await, Some(Told::TookOver));
    assert!(!show.stream.lacks_pictures() && warning(&show).is_none());
    show.make_next(11_000..13_000).await;
    // They go once more, and come back for good.
    say(&show.next, [failed()]).await;
    assert_eq!(show.told.recv().await, Some(Told::FellBack));
    show.hear(10_500..15_000).await;
    show.offer_next().await;
    show.open_next().await;
    show.make_next(14_000..17_000).await;
    show.hear(15_000..16_500).await;
    assert_eq!(show.told.recv().await, Some(Told::TookOver));
    show.make_next(17_000..20_000).await;
    say(&show.next, [Output::Finished]).await;
    let folder = show.assert_whole(20_000).await;
    assert_gaps(
        &folder,
        &[
            (2, false),
            (4, true),
            (5, false),
            (7, true),
            (8, false),
            (9, false),
        ],
    );
}

/// How a transcoder that is on air comes to its end without having made anything.
const ENDS: [fn() -> Output; 2] = [
    || Output::Failed(transcode::Error::Stalled),
    // The last worker was to begin with the next key frame, and there is none.
    || Output::Finished,
];

#[tokio::test]
async fn the_last_of_the_sound_is_there_though_the_source_ended_before_the_transcoder_failed() {
    for end in ENDS {
        for has_finished in [false, true] {
            let mut show = beyond_takeover().await;
            if has_finished {
                say(&show.current, [Output::Finished]).await;
            }
            let (cause, skipped) = (transcode::Error::Stalled, true);
            say(&show.next, [Output::Restarted { cause, skipped }, end()]).await;
            assert_eq!(show.told.recv().await, Some(Told::FellBack));
            if !has_finished {
                show.hear(6_000..6_500).await;
                say(&show.current, [Output::Finished]).await;
            }
            let whole = if has_finished { 6_000 } else { 6_500 };
            show.assert_whole(whole).await;
        }
    }
}

#[tokio::test]
async fn a_transcoder_of_before_that_fails_leaves_the_one_on_air_to_be_waited_for() {
    let mut show = beyond_takeover().await;
    let failed = transcode::Error::Stalled;
    say(&show.current, [Output::Failed(failed)]).await;
    assert_eq!(show.told.recv().await, Some(Told::Proven));
    show.make_next(5_500..6_000).await;
    say(&show.next, [Output::Finished]).await;
    assert_eq!(show.told.recv().await, None);
    show.assert_whole(6_000).await;
}

#[tokio::test]
async fn what_comes_to_its_end_together_does_so_with_its_pictures() {
    let mut show = beyond_takeover().await;
    say(&show.current, [Output::Finished]).await;
    show.make_next(5_500..6_000).await;
    say(&show.next, [Output::Finished]).await;
    assert_eq!(show.told.recv().await, None, "nothing has failed");
    assert!(show.stream.status().encoding.warning.is_none());
    let folder = show.assert_whole(6_000).await;
    let last = folder
        .path()
        .join(format!("live/film/v180/{}.m4s", FIRST + 2));
    assert!(last.exists());
}

#[tokio::test]
async fn a_transcoder_that_has_proven_itself_is_as_any_other() {
    let mut show = beyond_takeover().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(13)).await;
    tokio::time::resume();
    assert!(show.told.try_recv().is_err(), "it may hang");
    show.make_next(5_500..6_000).await;
    assert_eq!(show.told.recv().await, Some(Told::Proven));
    let failed = transcode::Error::Stalled;
    show.next.send(Output::Failed(failed)).await.expect("heard");
    let end = show.publishing.await.expect("no panic");
    assert!(matches!(
        end,
        Err(Error::Transcode(transcode::Error::Stalled))
    ));
}

#[tokio::test]
async fn who_listens_does_not_wait_for_a_transcoder_that_lags() {
    let mut show = Show::begin(7_000).await;
    show.open_next().await;
    // It would take over at the eighth second, and is at the third.
    show.make_next(2_000..3_000).await;
    show.hear(7_000..9_000).await;
    assert!(show.told.try_recv().is_err(), "the sound goes on");
    show.make_next(3_000..9_000).await;
    show.hear(9_000..10_000).await;
    assert_eq!(show.told.recv().await, Some(Told::TookOver));
    show.make_next(9_000..12_000).await;
    say(&show.next, [Output::Finished]).await;
    let folder = show.assert_whole(12_000).await;
    let has = |number: u64| {
        let path = format!("live/film/v180/{}.m4s", FIRST + number);
        folder.path().join(path).exists()
    };
    assert_eq!([4, 5].map(has), [false, true]);
}

#[tokio::test]
async fn a_rung_that_rests_where_pictures_begin_does_not_end_the_broadcast() {
    let mut show = Show::begin(3_000).await;
    show.open_next().await;
    show.make_next(2_000..3_000).await;
    let until = SegmentNumber::new(FIRST + 3);
    let rest = Output::Rest {
        rendition: 0,
        until,
        soon: false,
    };
    say(&show.next, [rest]).await;
    show.hear(3_000..4_000).await;
    assert_eq!(show.told.recv().await, Some(Told::TookOver));
    for (index, name) in SOUNDS.into_iter().enumerate() {
        say(&show.next, heard(index + 1, name, 3_000..9_000)).await;
    }
    say(&show.next, seen(6_000..9_000)).await;
    say(&show.next, [Output::Finished]).await;
    show.assert_whole(9_000).await;
}
