//! The queue, step by step.

use bytes::Bytes;
use proptest::prelude::*;

use super::retry::{FIRST_PAUSE, MAX_PAUSE};
use super::*;
#[path = "model_tests.rs"]
mod model;

use crate::id::{RenditionName, SegmentNumber, StreamName};
use crate::store::names::named_by;

const SEGMENT_BYTES: usize = 100;

fn stream() -> StreamName {
    "demo".parse().expect("a name")
}

fn key(path: &str) -> ObjectKey {
    format!("live/demo/{path}").parse().expect("a key")
}

fn segment(rendition: &str, number: u64) -> ObjectKey {
    let rendition: RenditionName = rendition.parse().expect("a name");
    ObjectKey::new(
        stream(),
        Item::Segment(rendition, SegmentNumber::new(number)),
    )
}

fn put(key: ObjectKey, body: impl Into<Bytes>) -> Put {
    Put {
        key,
        body: Payload::from(body.into()),
        content_type: "text/plain".into(),
        cache_control: "no-store".into(),
    }
}

fn playlist(rendition: &str, period: u64, numbers: impl Iterator<Item = u64>) -> Put {
    let mut text = format!("#EXTM3U\n#EXT-X-MAP:URI=\"init-{period}.mp4\"\n");
    for number in numbers {
        text.push_str(&format!("#EXTINF:2,\n{number}.m4s\n"));
    }
    put(key(&format!("{rendition}/index.m3u8")), text)
}

/// A queue without a spool, for a folder that holds nothing.
fn fresh(memory_bytes: u64) -> Queue {
    let mut queue = Queue::new(Limits {
        memory_bytes,
        spool_age: None,
        lateness: Duration::ZERO,
    });
    queue.learn(BTreeSet::new(), BTreeMap::new(), Instant::now());
    queue
}

/// The paths of the next batch, which is reported as written; empty where there is nothing to write.
fn write_next(queue: &mut Queue, now: Instant) -> Vec<String> {
    let Step::Write(batch) = queue.next(now) else {
        return Vec::new();
    };
    queue.settle(&BTreeSet::new(), now);
    let path = |write: &Write| write.put.key.to_string().replace("live/demo/", "");
    batch.iter().map(path).collect()
}

/// The paths of everything that can be written, batch by batch.
fn write_all(queue: &mut Queue, now: Instant) -> Vec<Vec<String>> {
    let next = || Some(write_next(queue, now)).filter(|batch| !batch.is_empty());
    std::iter::from_fn(next).collect()
}

fn keys(batch: &[Write]) -> BTreeSet<ObjectKey> {
    batch.iter().map(|write| write.put.key.clone()).collect()
}

#[test]
fn objects_are_written_in_the_order_they_were_handed_over() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(playlist("v720", 1, 1..2), now);
    queue.push(put(key("index.m3u8"), "v720/index.m3u8"), now);
    assert_eq!(
        write_all(&mut queue, now),
        [
            vec!["v720/init-1.mp4", "v720/1.m4s"],
            vec!["v720/index.m3u8"],
            vec!["index.m3u8"]
        ],
        "each batch names only what an earlier one stored"
    );
    assert!(queue.is_flushed() && queue.memory_bytes() == 0);
}

#[test]
fn of_many_waiting_versions_the_oldest_and_the_newest_are_written() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    for number in 1..=9 {
        queue.push(put(segment("v720", number), "s"), now);
        queue.push(playlist("v720", 1, 1..number + 1), now);
    }
    let order = write_all(&mut queue, now).concat();
    let playlists = order.iter().filter(|path| path.ends_with("m3u8")).count();
    assert_eq!(playlists, 2);
    assert_eq!(order.get(2).map(String::as_str), Some("v720/index.m3u8"));
    assert_eq!(order.last().map(String::as_str), Some("v720/index.m3u8"));
    assert_eq!(queue.counts().superseded, 7);
}

#[test]
fn a_full_queue_loses_the_oldest_media_and_playlists_have_gaps_in_its_place() {
    let now = Instant::now();
    let mut queue = fresh(250);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    for number in 1..=3 {
        queue.push(put(segment("v720", number), vec![0; SEGMENT_BYTES]), now);
    }
    queue.push(playlist("v720", 1, 1..4), now);
    assert_eq!(queue.counts().lost, 2);
    assert_eq!(
        write_next(&mut queue, now),
        ["v720/init-1.mp4", "v720/3.m4s"]
    );
    let Step::Write(batch) = queue.next(now) else {
        panic!("the playlist");
    };
    let text = String::from_utf8(batch[0].put.body.to_bytes().to_vec()).expect("text");
    let gaps = "#EXTINF:2,\n#EXT-X-GAP\n1.m4s\n#EXTINF:2,\n#EXT-X-GAP\n2.m4s\n#EXTINF:2,\n3.m4s\n";
    assert!(text.ends_with(gaps), "{text}");
    queue.settle(&BTreeSet::new(), now);
    assert_eq!(queue.len(), 0);
}

/// Runs `queue` for `time`; what `fails` says of is written in vain. What was tried, with the time of it.
fn run(
    queue: &mut Queue,
    now: &mut Instant,
    time: Duration,
    fails: impl Fn(&ObjectKey) -> bool,
) -> Vec<(Instant, ObjectKey, bool)> {
    let end = *now + time;
    let mut tried = Vec::new();
    while *now < end {
        match queue.next(*now) {
            Step::Write(batch) => {
                let failed: BTreeSet<_> = keys(&batch).into_iter().filter(&fails).collect();
                let outcome = |key: ObjectKey| (*now, key.clone(), !failed.contains(&key));
                tried.extend(keys(&batch).into_iter().map(outcome));
                queue.settle(&failed, *now);
            }
            Step::Wait(Some(until)) => *now = until,
            Step::Wait(None) => break,
            Step::Delete(key) => queue.deleted(&key),
        }
    }
    tried
}

#[test]
fn what_alone_fails_is_tried_with_growing_pauses_goes_to_the_back_and_is_given_up_there() {
    let begun = Instant::now();
    let mut now = begun;
    let mut queue = fresh(1_000_000);
    queue.push(put(segment("v720", 1), "s"), now);
    for number in 2..=20 {
        queue.push(put(segment("v720", number), "s"), now);
    }
    let fails = |key: &ObjectKey| *key == segment("v720", 1);
    let tried = run(&mut queue, &mut now, Duration::from_secs(120), fails);
    let at = |(at, key, _): &(Instant, ObjectKey, bool)| fails(key).then_some(*at);
    let attempts: Vec<_> = tried.iter().filter_map(at).collect();
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] <= FIRST_PAUSE && pauses[3] > pauses[0] * 4);
    assert!(pauses.iter().all(|pause| *pause <= MAX_PAUSE * 3));
    assert_eq!(
        queue.counts().lost,
        0,
        "nothing shows that it is not the store"
    );
    for number in 21..=40 {
        queue.push(put(segment("v720", number), "s"), now);
        run(&mut queue, &mut now, Duration::from_secs(10), fails);
    }
    let last = tried.iter().find(|(_, key, _)| *key == segment("v720", 20));
    let waited = last.expect("written").0 - begun;
    assert!((30..=41).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(queue.counts().lost, 1, "the one that nobody could write");
    assert_eq!(queue.counts().stored, 39);
    assert_eq!(queue.len(), 0);
}

#[test]
fn after_an_hour_without_a_store_everything_is_written_in_its_order() {
    let mut now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    for number in 1..=99 {
        queue.push(put(segment("v720", number), "s"), now);
    }
    let away = run(&mut queue, &mut now, Duration::from_secs(3_600), |_| true);
    assert!(away.len() > 700, "it is tried all along");
    let order = run(&mut queue, &mut now, Duration::from_secs(60), |_| false);
    let order: Vec<_> = order.into_iter().map(|(_, key, _)| key).collect();
    let segments = (1..=99).map(|number| segment("v720", number));
    let expected: Vec<_> = [key("v720/init-1.mp4")]
        .into_iter()
        .chain(segments)
        .collect();
    // Within a batch the order is that of the keys here.
    let batches = |keys: &[ObjectKey]| {
        let sorted = |keys: &[ObjectKey]| keys.iter().cloned().collect::<BTreeSet<_>>();
        let (first, rest) = keys.split_at(1);
        let rest = rest.chunks(MAX_BATCH).map(sorted);
        [sorted(first)].into_iter().chain(rest).collect::<Vec<_>>()
    };
    assert_eq!(batches(&order), batches(&expected));
    assert_eq!(queue.counts().lost, 0);
}

#[test]
fn what_is_due_for_removal_before_it_is_written_is_not_written() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(put(segment("v720", 2), "s"), now);
    queue.retire(segment("v720", 1), now);
    assert_eq!(write_next(&mut queue, now), ["v720/2.m4s"]);
    assert_eq!((queue.counts().lost, queue.counts().outdated), (0, 1));
    assert!(
        matches!(queue.next(now), Step::Wait(None)),
        "nothing to delete"
    );
}

#[test]
fn an_init_segment_is_never_given_up_and_its_playlist_waits_for_it() {
    let mut now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(playlist("v720", 1, 1..2), now);
    let mut written = Vec::new();
    for _ in 0..200 {
        match queue.next(now) {
            Step::Write(batch) => {
                let is_init = |key: &ObjectKey| matches!(key.item, Item::Init(..));
                let (failed, done): (BTreeSet<_>, BTreeSet<_>) = keys(&batch)
                    .into_iter()
                    .partition(|key| is_init(key) && written.is_empty());
                queue.settle(&failed, now);
                written.extend(done);
            }
            Step::Wait(Some(until)) => now = until,
            Step::Wait(None) => break,
            Step::Delete(key) => panic!("{key}"),
        }
    }
    let order = [
        segment("v720", 1),
        key("v720/init-1.mp4"),
        key("v720/index.m3u8"),
    ];
    assert_eq!(written, order);
}

#[test]
fn nothing_is_deleted_while_a_stored_playlist_names_it() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(playlist("v720", 1, 1..2), now);
    write_all(&mut queue, now);
    queue.retire(segment("v720", 1), now);
    assert!(matches!(queue.next(now), Step::Wait(None)));
    queue.push(put(segment("v720", 2), "s"), now);
    queue.push(playlist("v720", 1, 2..3), now);
    write_all(&mut queue, now);
    assert!(matches!(queue.next(now), Step::Delete(key) if key == segment("v720", 1)));
}

#[test]
fn what_another_ladder_left_goes_once_the_new_multivariant_is_stored() {
    let now = Instant::now();
    let old = playlist("v1080", 1, 1..3);
    let named = BTreeMap::from([
        (old.key.clone(), named_by(&old.key, &old.body.to_bytes())),
        (key("index.m3u8"), BTreeSet::from([old.key.clone()])),
    ]);
    let found = BTreeSet::from([
        key("index.m3u8"),
        old.key.clone(),
        key("v1080/init-1.mp4"),
        segment("v1080", 1),
        segment("v1080", 2),
    ]);
    let mut queue = fresh(1_000);
    queue.learn(found.clone(), named.clone(), now);
    queue.begin(now, Duration::ZERO);
    let look = queue.take_tidying(now).expect("it is time");
    queue.tidy(look, (&found, named), now);
    assert!(matches!(queue.next(now), Step::Wait(None)));
    queue.push(put(key("index.m3u8"), "#EXTM3U\n"), now);
    assert!(!write_next(&mut queue, now).is_empty());
    let mut gone = Vec::new();
    while let Step::Delete(key) = queue.next(now) {
        queue.deleted(&key);
        gone.push(key);
    }
    assert_eq!(gone.len(), 4);
    assert_eq!(gone[0], old.key, "the playlist goes before what it names");
}

#[test]
fn media_beyond_the_last_show_goes_and_what_shows_have_stays() {
    let now = Instant::now();
    let list = playlist("v720", 1, 8..12);
    let names = named_by(&list.key, &list.body.to_bytes());
    let named = BTreeMap::from([(list.key.clone(), names)]);
    let media = (5..12).map(|number| segment("v720", number));
    let others = ["show-1.json", "v720/init-1.mp4", "v720/init-10.mp4"].map(key);
    let found: BTreeSet<_> = media.chain(others).chain([list.key]).collect();
    let mut queue = fresh(1_000);
    queue.learn(found.clone(), named.clone(), now);
    assert_eq!(queue.scope(), Scope::Near(None));
    queue.recorded_below(SegmentNumber::new(10));
    assert_eq!(queue.scope(), Scope::Near(Some(SegmentNumber::new(10))));
    queue.begin(now, Duration::ZERO);
    queue.push(put(key("v720/init-20.mp4"), "i"), now);
    queue.push(put(segment("v720", 20), "s"), now);
    let look = queue.take_tidying(now).expect("it is time");
    queue.tidy(look, (&found, named), now);
    queue.push(playlist("v720", 20, 20..21), now);
    let mut gone = BTreeSet::new();
    loop {
        match queue.next(now) {
            Step::Write(_) => queue.settle(&BTreeSet::new(), now),
            Step::Delete(key) => {
                queue.deleted(&key);
                gone.insert(key);
            }
            Step::Wait(_) => break,
        }
    }
    let media = [10, 11].map(|number| segment("v720", number));
    let expected = [key("v720/init-10.mp4")].into_iter().chain(media);
    assert_eq!(gone, expected.collect());
}

#[test]
fn what_is_forgotten_is_no_gap_in_a_playlist_that_waits() {
    let mut now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.keep_archive();
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(put(segment("v720", 2), "s"), now);
    queue.push(playlist("v720", 1, 1..3), now);
    write_next(&mut queue, now);
    let Step::Write(batch) = queue.next(now) else {
        panic!("the playlist");
    };
    queue.settle(&keys(&batch), now);
    // It waits while the window moves on.
    queue.forget(&segment("v720", 1));
    now += Duration::from_secs(1);
    let Step::Write(batch) = queue.next(now) else {
        panic!("the playlist again");
    };
    let text = String::from_utf8(batch[0].put.body.to_bytes().to_vec()).expect("text");
    assert!(!text.contains("#EXT-X-GAP"), "{text}");
    queue.settle(&BTreeSet::new(), now);
    assert!(queue.keys().contains(&segment("v720", 1)));
    queue.push(playlist("v720", 1, 2..3), now);
    write_all(&mut queue, now);
    assert!(!queue.keys().contains(&segment("v720", 1)));
}

#[test]
fn what_left_the_window_before_it_was_stored_is_not_thought_of_for_good() {
    let mut now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.keep_archive();
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(playlist("v720", 1, 1..2), now);
    write_all(&mut queue, now);
    // An outage of some length: of the playlists that wait, only the newest is written in the end.
    for number in 2..=60 {
        queue.push(put(segment("v720", number), "s"), now);
        queue.push(
            playlist("v720", 1, number.saturating_sub(2).max(1)..number + 1),
            now,
        );
        if number > 3 {
            queue.forget(&segment("v720", number - 3));
        }
        if let Step::Write(batch) = queue.next(now) {
            queue.settle(&keys(&batch), now);
        }
    }
    now += MAX_PAUSE;
    assert_eq!(write_all(&mut queue, now).concat().len(), 59 + 2);
    let media = queue
        .keys()
        .into_iter()
        .filter(|key| !key.item.is_manifest());
    let expected = [58, 59, 60].map(|number| segment("v720", number));
    let init = key("v720/init-1.mp4");
    assert_eq!(media.collect::<Vec<_>>(), [&[init], &expected[..]].concat());
}

#[test]
fn a_disk_that_is_full_is_relieved_of_what_has_left_the_window() {
    let mut now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(put(segment("v720", 2), "s"), now);
    queue.push(playlist("v720", 1, 2..3), now);
    write_all(&mut queue, now);
    queue.push(put(segment("v720", 3), "s"), now);
    let Step::Write(batch) = queue.next(now) else {
        panic!("the segment");
    };
    queue.settle(&keys(&batch), now);
    queue.retire(segment("v720", 1), now);
    assert!(matches!(queue.next(now), Step::Delete(key) if key == segment("v720", 1)));
    queue.deleted(&segment("v720", 1));
    now += MAX_PAUSE;
    assert_eq!(write_next(&mut queue, now), ["v720/3.m4s"]);
    // What is kept for those who have an older list goes before it is its time.
    queue.push(playlist("v720", 1, 3..4), now);
    write_all(&mut queue, now);
    queue.push(put(segment("v720", 4), "s"), now);
    let Step::Write(batch) = queue.next(now) else {
        panic!("the segment");
    };
    queue.settle(&keys(&batch), now);
    queue.make_room(now);
    assert!(matches!(queue.next(now), Step::Delete(key) if key == segment("v720", 2)));
    queue.deleted(&segment("v720", 2));
    now += MAX_PAUSE;
    assert_eq!(write_next(&mut queue, now), ["v720/4.m4s"]);
}

#[test]
fn nothing_is_deleted_while_a_playlist_that_waits_names_it() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"), now);
    queue.push(put(segment("v720", 1), "s"), now);
    queue.push(playlist("v720", 1, 1..2), now);
    assert_eq!(
        write_next(&mut queue, now),
        ["v720/init-1.mp4", "v720/1.m4s"]
    );
    // The disk is slow, and it is time already.
    queue.retire(segment("v720", 1), now);
    assert_eq!(write_next(&mut queue, now), ["v720/index.m3u8"]);
    assert!(queue.keys().contains(&segment("v720", 1)));
}
