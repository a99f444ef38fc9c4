//! The queue against a model of a store that fails, lies and is cut off at random.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::id::{RenditionName, SegmentNumber, StreamName};

const RENDITIONS: [&str; 2] = ["v720", "a128"];
/// Segments listed by a playlist of the model.
const LISTED: u64 = 3;
const GRACE: Duration = Duration::from_secs(20);
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
        content_type: "text/plain",
        cache_control: "no-store",
    }
}

fn playlist(rendition: &str, period: u64, numbers: impl Iterator<Item = u64>) -> Put {
    let mut text = format!("#EXTM3U\n#EXT-X-MAP:URI=\"init-{period}.mp4\"\n");
    for number in numbers {
        text.push_str(&format!("#EXTINF:2,\n{number}.m4s\n"));
    }
    put(key(&format!("{rendition}/index.m3u8")), text)
}

fn fresh(max_bytes: u64) -> Queue {
    Queue::new(max_bytes, BTreeSet::new(), BTreeMap::new(), Instant::now())
}

/// The paths of the next batch, which is reported as written; empty where there is nothing to write.
fn write_next(queue: &mut Queue, now: Instant) -> Vec<String> {
    let Step::Write(batch) = queue.next(now) else {
        return Vec::new();
    };
    queue.settle(&BTreeSet::new(), now);
    let path = |put: &Put| put.key.to_string().replace("live/demo/", "");
    batch.iter().map(path).collect()
}

/// The paths of everything that can be written, batch by batch.
fn write_all(queue: &mut Queue, now: Instant) -> Vec<Vec<String>> {
    let next = || Some(write_next(queue, now)).filter(|batch| !batch.is_empty());
    std::iter::from_fn(next).collect()
}

fn keys(batch: &[Put]) -> BTreeSet<ObjectKey> {
    batch.iter().map(|put| put.key.clone()).collect()
}

#[test]
fn objects_are_written_in_the_order_they_were_handed_over() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"));
    queue.push(put(segment("v720", 1), "s"));
    queue.push(playlist("v720", 1, 1..2));
    queue.push(put(key("index.m3u8"), "v720/index.m3u8"));
    assert_eq!(
        write_all(&mut queue, now),
        [
            vec!["v720/init-1.mp4", "v720/1.m4s"],
            vec!["v720/index.m3u8"],
            vec!["index.m3u8"]
        ],
        "each batch names only what an earlier one stored"
    );
    assert!(queue.is_flushed() && queue.bytes() == 0);
}

#[test]
fn of_many_waiting_versions_the_oldest_and_the_newest_are_written() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"));
    for number in 1..=9 {
        queue.push(put(segment("v720", number), "s"));
        queue.push(playlist("v720", 1, 1..number + 1));
    }
    let order = write_all(&mut queue, now).concat();
    let playlists = order.iter().filter(|path| path.ends_with("m3u8")).count();
    assert_eq!(playlists, 2);
    assert_eq!(order.get(2).map(String::as_str), Some("v720/index.m3u8"));
    assert_eq!(order.last().map(String::as_str), Some("v720/index.m3u8"));
    assert_eq!(queue.counts().superseded, 7);
}

#[test]
fn a_full_queue_loses_the_oldest_media_and_no_playlist_names_it() {
    let now = Instant::now();
    let mut queue = fresh(250);
    queue.push(put(key("v720/init-1.mp4"), "i"));
    for number in 1..=3 {
        queue.push(put(segment("v720", number), vec![0; SEGMENT_BYTES]));
    }
    queue.push(playlist("v720", 1, 1..4));
    let order = write_all(&mut queue, now).concat();
    assert_eq!(order, ["v720/init-1.mp4", "v720/3.m4s"]);
    assert_eq!(queue.counts().lost, 2);
    queue.push(playlist("v720", 1, 3..4));
    assert_eq!(write_next(&mut queue, now), ["v720/index.m3u8"]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_failing_object_is_tried_with_growing_pauses_and_then_lets_others_pass() {
    let begun = Instant::now();
    let mut now = begun;
    let mut queue = fresh(1_000_000);
    queue.push(put(segment("v720", 1), "s"));
    queue.push(put(segment("v720", 2), "s"));
    let mut pauses = Vec::new();
    let passed = loop {
        match queue.next(now) {
            Step::Write(batch) if batch[0].key == segment("v720", 1) => {
                queue.settle(&keys(&batch), now);
            }
            Step::Write(batch) => break batch[0].key.clone(),
            Step::Wait(Some(until)) => {
                pauses.push(until - now);
                now = until;
            }
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(passed, segment("v720", 2));
    assert!(pauses[0] <= FIRST_PAUSE && pauses[3] > pauses[0] * 4);
    assert!(pauses.iter().all(|pause| *pause <= MAX_PAUSE));
    assert!((30..=41).contains(&(now - begun).as_secs()));
    queue.settle(&BTreeSet::new(), now);
    assert_eq!(write_next(&mut queue, now), ["v720/1.m4s"]);
    assert_eq!(queue.counts().lost, 0);
}

#[test]
fn what_is_due_for_removal_before_it_is_written_is_given_up() {
    let now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(segment("v720", 1), "s"));
    queue.push(put(segment("v720", 2), "s"));
    queue.retire(segment("v720", 1), now);
    assert!(matches!(queue.next(now), Step::Delete(key) if key == segment("v720", 1)));
    queue.deleted(&segment("v720", 1));
    assert_eq!(write_next(&mut queue, now), ["v720/2.m4s"]);
    assert_eq!(queue.counts().lost, 1);
}

#[test]
fn an_init_segment_is_never_given_up_and_its_playlist_waits_for_it() {
    let mut now = Instant::now();
    let mut queue = fresh(1_000_000);
    queue.push(put(key("v720/init-1.mp4"), "i"));
    queue.push(put(segment("v720", 1), "s"));
    queue.push(playlist("v720", 1, 1..2));
    let mut written = Vec::new();
    for _ in 0..200 {
        match queue.next(now) {
            Step::Write(batch) => {
                let fails =
                    |put: &&Put| matches!(put.key.item, Item::Init(..)) && written.is_empty();
                let failed = batch.iter().filter(fails).cloned().collect::<Vec<_>>();
                queue.settle(&keys(&failed), now);
                let done = batch.iter().filter(|put| !keys(&failed).contains(&put.key));
                written.extend(done.map(|put| put.key.clone()));
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
    queue.push(put(key("v720/init-1.mp4"), "i"));
    queue.push(put(segment("v720", 1), "s"));
    queue.push(playlist("v720", 1, 1..2));
    write_all(&mut queue, now);
    queue.retire(segment("v720", 1), now);
    assert!(matches!(queue.next(now), Step::Wait(None)));
    queue.push(put(segment("v720", 2), "s"));
    queue.push(playlist("v720", 1, 2..3));
    write_all(&mut queue, now);
    assert!(matches!(queue.next(now), Step::Delete(key) if key == segment("v720", 1)));
}

#[derive(Clone, Debug)]
enum Event {
    /// The packager cuts a segment on every rendition.
    Cut,
    /// A playlist comes that names what was never handed over.
    Rogue,
    /// The queue is asked for its next step, which ends so.
    Step(Outcome),
    /// Time passes.
    Pass(u64),
    /// The process dies and another takes over.
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Done,
    /// An error, and nothing was done.
    Failed,
    /// An error, and it was done all the same.
    FailedButDone,
}

fn any_event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        5 => Just(Outcome::Done),
        2 => Just(Outcome::Failed),
        1 => Just(Outcome::FailedButDone),
    ];
    prop_oneof![
        12 => Just(Event::Cut),
        1 => Just(Event::Rogue),
        40 => outcome.prop_map(Event::Step),
        12 => (0_u64..8_000).prop_map(Event::Pass),
        1 => Just(Event::Crash),
    ]
}

/// A broadcast, its queue, and a store.
struct Model {
    now: Instant,
    max_bytes: u64,
    queue: Queue,
    store: BTreeMap<ObjectKey, Bytes>,
    period: Option<u64>,
    next: u64,
}

impl Model {
    fn new(max_bytes: u64) -> Self {
        Self {
            now: Instant::now(),
            max_bytes,
            queue: fresh(max_bytes),
            store: BTreeMap::new(),
            period: None,
            next: 100,
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Cut => self.cut(),
            Event::Rogue => self.queue.push(playlist("v720", 1, 1..5)),
            Event::Step(outcome) => {
                self.step(*outcome);
            }
            Event::Pass(millis) => self.now += Duration::from_millis(*millis),
            Event::Crash => self.crash(),
        }
    }

    fn cut(&mut self) {
        let number = self.next;
        self.next += 1;
        let first = self.period.is_none();
        let period = *self.period.get_or_insert(number);
        for rendition in RENDITIONS {
            if first {
                let init = key(&format!("{rendition}/init-{period}.mp4"));
                self.queue.push(put(init, "init"));
            }
            let body = vec![0; SEGMENT_BYTES];
            self.queue.push(put(segment(rendition, number), body));
        }
        let from = period.max((number + 1).saturating_sub(LISTED));
        for rendition in RENDITIONS {
            self.queue
                .push(playlist(rendition, period, from..number + 1));
            if from > period {
                let gone = segment(rendition, from - 1);
                self.queue.retire(gone, self.now + Duration::from_secs(6));
            }
        }
        if first {
            let text = "#EXTM3U\nv720/index.m3u8\na128/index.m3u8\n";
            self.queue.push(put(key("index.m3u8"), text));
            self.queue.push(put(key("manifest.mpd"), "<MPD/>"));
        }
    }

    fn step(&mut self, outcome: Outcome) -> bool {
        match (self.queue.next(self.now), outcome) {
            (Step::Write(batch), Outcome::Done) => self.write(&batch, 0),
            (Step::Write(batch), Outcome::Failed) => {
                // One of them fails, the others do not.
                let fails = usize::try_from(self.next).unwrap_or(0) % batch.len();
                let (done, failed): (Vec<_>, Vec<_>) = batch
                    .into_iter()
                    .enumerate()
                    .partition(|(at, _)| *at != fails);
                for (_, put) in done {
                    self.store.insert(put.key, put.body.to_bytes());
                }
                let failed: Vec<_> = failed.into_iter().map(|(_, put)| put).collect();
                self.queue.settle(&keys(&failed), self.now);
            }
            (Step::Write(batch), Outcome::FailedButDone) => self.write(&batch, batch.len()),
            (Step::Delete(key), Outcome::Done) => {
                self.store.remove(&key);
                self.queue.deleted(&key);
            }
            (Step::Delete(key), Outcome::Failed) => self.queue.delete_failed(&key, self.now),
            (Step::Delete(key), Outcome::FailedButDone) => {
                self.store.remove(&key);
                self.queue.delete_failed(&key, self.now);
            }
            (Step::Wait(_), _) => return false,
        }
        true
    }

    /// All of `batch` is done, the first `failed` of it with an error.
    fn write(&mut self, batch: &[Put], failed: usize) {
        for put in batch {
            self.store.insert(put.key.clone(), put.body.to_bytes());
        }
        let failed = keys(batch.get(..failed).unwrap_or_default());
        self.queue.settle(&failed, self.now);
    }

    fn named(&self) -> BTreeMap<ObjectKey, BTreeSet<ObjectKey>> {
        let manifests = self.store.iter().filter(|(key, _)| key.item.is_manifest());
        let named = manifests.map(|(key, text)| (key.clone(), named_by(key, text)));
        named.collect()
    }

    fn crash(&mut self) {
        let found = self.store.keys().cloned().collect();
        let leftover_at = self.now + GRACE;
        self.queue = Queue::new(self.max_bytes, found, self.named(), leftover_at);
        self.period = None;
        self.next += 3;
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (manifest, names) in self.named() {
            for name in names {
                prop_assert!(
                    self.store.contains_key(&name),
                    "{manifest} names {name}, which is not stored"
                );
            }
        }
        let waiting = self.queue.waiting.iter().chain(self.queue.held.values());
        let bytes: u64 = waiting.map(|put| put.body.len()).sum();
        prop_assert_eq!(self.queue.bytes(), bytes);
        prop_assert!(bytes <= self.max_bytes.max(2_000));
        Ok(())
    }

    fn settle(&mut self) {
        for _ in 0..2_000 {
            if !self.step(Outcome::Done) {
                self.now += Duration::from_secs(1);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_stored_playlist_ever_names_what_is_not_stored(
        events in proptest::collection::vec(any_event(), 0..150),
        max_bytes in prop_oneof![Just(500_u64), Just(1_000_000)],
    ) {
        let mut model = Model::new(max_bytes);
        for event in &events {
            model.apply(event);
            model.check()?;
        }
        // Once the store works again, the newest is stored and everything else goes.
        for _ in 0..2 * LISTED {
            model.cut();
            while model.step(Outcome::Done) {}
            model.now += Duration::from_secs(2);
            model.check()?;
        }
        model.settle();
        model.check()?;
        prop_assert_eq!(model.queue.len(), 0);
        let newest: BTreeSet<_> = RENDITIONS
            .iter()
            .flat_map(|r| (model.next - LISTED..model.next).map(|n| segment(r, n)))
            .collect();
        let is_segment = |key: &&ObjectKey| matches!(key.item, Item::Segment(..));
        let kept: BTreeSet<_> = model.store.keys().filter(is_segment).cloned().collect();
        prop_assert_eq!(kept, newest);
        let inits = model.store.keys().filter(|key| matches!(key.item, Item::Init(..)));
        prop_assert_eq!(inits.count(), RENDITIONS.len());
    }
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
    let mut queue = Queue::new(1_000, found, named, now);
    assert!(matches!(queue.next(now), Step::Wait(None)));
    queue.push(put(key("index.m3u8"), "#EXTM3U\n"));
    assert!(!write_next(&mut queue, now).is_empty());
    let mut gone = Vec::new();
    while let Step::Delete(key) = queue.next(now) {
        queue.deleted(&key);
        gone.push(key);
    }
    assert_eq!(gone.len(), 4);
    assert_eq!(gone[0], old.key, "the playlist goes before what it names");
}
