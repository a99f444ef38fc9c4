//! The queue against a model of a store and a spool that fail, lie, and are cut off at random.

use super::*;
use crate::store::guard::is_overtaken;
use crate::store::names::named_by;

const RENDITIONS: [&str; 2] = ["v720", "a128"];
/// Segments listed by a playlist of the model.
const LISTED: u64 = 3;
const GRACE: Duration = Duration::from_secs(20);
const LATENESS: Duration = Duration::from_secs(30);
const AGE: Duration = Duration::from_secs(90);

#[derive(Clone, Debug)]
enum Event {
    /// The packager cuts a segment on every rendition.
    Cut,
    /// A playlist comes that names what was never handed over.
    Rogue,
    /// The queue is asked for its next step, which ends so.
    Step(Outcome),
    /// A write that was given up is carried out now, if its condition still holds.
    Land(usize),
    /// What waits goes to the spool, whose disk may fail.
    Spool { hurry: bool, works: bool },
    /// The files that are of no use are deleted.
    Discard,
    /// A look through the folder is begun, if it is time.
    Look,
    /// That has come to its end, or failed.
    Tidy { works: bool },
    /// The broadcast ends; the next segment begins another one.
    End,
    /// Time passes.
    Pass(u64),
    /// The store is away from now on, or back.
    Away(bool),
    /// The process dies and another takes over; of the file written last, this much is not there, in 256ths. A
    /// broadcast may begin at once.
    Crash { torn: u8, begins: bool },
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Done,
    /// An error, and nothing was done.
    Failed,
    /// An error, and it was done all the same.
    FailedButDone,
    /// An error, and it may be done at any time.
    Late,
}

fn any_event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Done),
        2 => Just(Outcome::Failed),
        1 => Just(Outcome::FailedButDone),
        1 => Just(Outcome::Late),
    ];
    prop_oneof![
        12 => Just(Event::Cut),
        1 => Just(Event::Rogue),
        40 => outcome.prop_map(Event::Step),
        3 => any::<usize>().prop_map(Event::Land),
        6 => (any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(hurry, works)| Event::Spool { hurry, works }),
        4 => Just(Event::Discard),
        2 => Just(Event::Look),
        2 => prop::bool::weighted(0.8).prop_map(|works| Event::Tidy { works }),
        1 => Just(Event::End),
        12 => (0_u64..8_000).prop_map(Event::Pass),
        2 => any::<bool>().prop_map(Event::Away),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(torn, begins)| Event::Crash { torn, begins }),
    ]
}

/// A stored object, and which write it was.
#[derive(Clone, Debug)]
struct Stored {
    body: Bytes,
    version: u64,
}

/// A write that was given up.
#[derive(Clone, Debug)]
struct Pending {
    key: ObjectKey,
    body: Bytes,
    /// What must be stored still; nothing is asked where the store knows no conditions.
    condition: Option<Option<u64>>,
    until: Instant,
}

/// A file of the spool.
#[derive(Clone, Debug)]
struct Spooled {
    put: Put,
    since: Instant,
    torn: bool,
}

fn queue(limits: Limits, records: bool) -> Queue {
    let mut queue = Queue::new(limits);
    if records {
        queue.keep_archive();
    }
    queue
}

/// What manifests name.
type Named = BTreeMap<ObjectKey, BTreeSet<ObjectKey>>;

/// A broadcast, its queue, a store and a spool.
struct Model {
    now: Instant,
    limits: Limits,
    spool_bytes: u64,
    conditional: bool,
    queue: Queue,
    store: BTreeMap<ObjectKey, Stored>,
    /// The manifests as this process has seen them last, by which write they were.
    seen: BTreeMap<ObjectKey, u64>,
    /// What media and init segments were when they were stored first.
    once: BTreeMap<ObjectKey, Bytes>,
    writes: u64,
    late: Vec<Pending>,
    files: BTreeMap<SpoolId, Spooled>,
    away: bool,
    /// When the queue wants to be asked again.
    until: Option<Instant>,
    run: u64,
    period: Option<u64>,
    next: u64,
    /// Whether shows are recorded.
    records: bool,
    /// The look that is under way, and what it has seen.
    look: Option<(Look, BTreeSet<ObjectKey>, Named)>,
    /// When broadcasts began, and with which segment.
    begins: Vec<(Instant, u64)>,
    /// What was to be removed, and when.
    retired: BTreeMap<ObjectKey, Instant>,
    /// Whether the disk of the spool tore what a playlist cannot do without.
    lost_init: bool,
    /// The highest segment in a playlist that was handed over, and in one that was stored.
    ordered: BTreeMap<ObjectKey, u64>,
}

impl Model {
    fn new(limits: Limits, spool_bytes: u64, conditional: bool, records: bool) -> Self {
        let mut queue = queue(limits, records);
        queue.learn(BTreeSet::new(), BTreeMap::new(), Instant::now());
        queue.begin(Instant::now(), GRACE);
        Self {
            now: Instant::now(),
            limits,
            spool_bytes,
            conditional,
            queue,
            store: BTreeMap::new(),
            seen: BTreeMap::new(),
            once: BTreeMap::new(),
            writes: 0,
            late: Vec::new(),
            files: BTreeMap::new(),
            away: false,
            until: None,
            run: 0,
            period: None,
            next: 100,
            records,
            look: None,
            begins: Vec::new(),
            retired: BTreeMap::new(),
            lost_init: false,
            ordered: BTreeMap::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Cut => self.cut(),
            Event::Rogue => self.queue.push(playlist("v720", 1, 1..5), self.now),
            Event::Step(outcome) => {
                self.step(*outcome);
            }
            Event::Land(at) => self.land(*at),
            Event::Spool { hurry, works } => self.spool(*hurry, *works),
            Event::Discard => self.discard(),
            Event::Look => self.look(),
            Event::Tidy { works } => self.tidy(*works),
            Event::End => {
                self.next += u64::from(self.period.take().is_some());
            }
            Event::Pass(millis) => self.pass(Duration::from_millis(*millis)),
            Event::Away(away) => self.away = *away,
            Event::Crash { torn, begins } => self.crash(*torn, *begins),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.late.retain(|late| late.until > self.now);
    }

    fn cut(&mut self) {
        let first = self.period.is_none();
        if first {
            self.begin();
        }
        let number = self.next;
        self.next += 1;
        let period = *self.period.get_or_insert(number);
        for rendition in RENDITIONS {
            if first {
                let init = key(&format!("{rendition}/init-{period}.mp4"));
                self.queue
                    .push(put(init, format!("init of {}", self.run)), self.now);
            }
            let mut body = format!("{rendition} {number} {} ", self.run).into_bytes();
            body.resize(SEGMENT_BYTES, b'x');
            self.queue
                .push(put(segment(rendition, number), body), self.now);
        }
        let from = period.max((number + 1).saturating_sub(LISTED));
        for rendition in RENDITIONS {
            let list = playlist(rendition, period, from..number + 1);
            self.queue.push(list, self.now);
            if from > period {
                let gone = segment(rendition, from - 1);
                if self.records {
                    self.queue.forget(&gone);
                } else {
                    let due = self.now + Duration::from_secs(6);
                    self.retired.insert(gone.clone(), due);
                    self.queue.retire(gone, due);
                }
            }
        }
        if self.records {
            let record = key(&format!("show-{period}.json"));
            self.queue
                .push(put(record, format!("{period} to {number}")), self.now);
        }
        if first {
            let text = "#EXTM3U\nv720/index.m3u8\na128/index.m3u8\n";
            self.queue.push(put(key("index.m3u8"), text), self.now);
            self.queue
                .push(put(key("manifest.mpd"), "<MPD/>"), self.now);
        }
    }

    fn step(&mut self, outcome: Outcome) -> bool {
        let outcome = match outcome {
            Outcome::Done | Outcome::FailedButDone if self.away => Outcome::Failed,
            outcome => outcome,
        };
        match (self.queue.next(self.now), outcome) {
            (Step::Write(batch), outcome) => self.write(batch, outcome),
            (Step::Delete(key), Outcome::Done) => {
                self.check_removal(&key);
                self.store.remove(&key);
                self.queue.deleted(&key);
            }
            (Step::Delete(key), Outcome::Failed | Outcome::Late) => {
                self.queue.delete_failed(&key, self.now);
            }
            (Step::Delete(key), Outcome::FailedButDone) => {
                self.store.remove(&key);
                self.queue.delete_failed(&key, self.now);
            }
            (Step::Wait(until), _) => {
                self.until = until;
                return false;
            }
        }
        true
    }

    fn write(&mut self, batch: Vec<Write>, outcome: Outcome) {
        let mut failed = BTreeSet::new();
        let mut overtaken = Vec::new();
        // Where only some fail, it is not always the first.
        let failing = usize::try_from(self.next).unwrap_or(0) % batch.len();
        for (at, write) in batch.into_iter().enumerate() {
            let mut put = write.put;
            if let Some(id) = write.from {
                match self.files.get(&id) {
                    Some(file) if !file.torn => put.body = file.put.body.clone(),
                    _ => {
                        self.queue.unreadable(&put.key);
                        continue;
                    }
                }
            }
            let newer = self.newer_than(&put);
            let (key, body) = (put.key, put.body.to_bytes());
            let fails = self.away || at == failing;
            match outcome {
                Outcome::Failed if fails => {}
                Outcome::Late if fails => {
                    let there = self.store.get(&key).map(|stored| stored.version);
                    self.late.push(Pending {
                        condition: (self.conditional && key.item.is_manifest()).then_some(there),
                        until: self.now + LATENESS,
                        key: key.clone(),
                        body,
                    });
                }
                Outcome::FailedButDone => {
                    if newer.is_none() {
                        self.put(key.clone(), body);
                    }
                }
                Outcome::Done | Outcome::Failed | Outcome::Late => {
                    match newer {
                        Some(names) => overtaken.push((key, names)),
                        None => {
                            self.put(key.clone(), body);
                            self.seen.insert(key, self.writes);
                        }
                    }
                    continue;
                }
            }
            failed.insert(key);
        }
        self.queue.settle(&failed, self.now);
        for (key, names) in overtaken {
            self.queue.overtaken(&key, names);
        }
    }

    /// What the stored version of a playlist names, if somebody else has stored one that lists as much as `put`, or
    /// more: a store that knows conditions then keeps it.
    fn newer_than(&mut self, put: &Put) -> Option<BTreeSet<ObjectKey>> {
        let stored = self.store.get(&put.key)?;
        let is_list = matches!(put.key.item, Item::Media(_));
        let is_known = self.seen.get(&put.key) == Some(&stored.version);
        let keeps = self.conditional && is_list && !is_known && is_overtaken(put, &stored.body);
        if !keeps {
            return None;
        }
        self.seen.insert(put.key.clone(), stored.version);
        Some(named_by(&put.key, &stored.body))
    }

    fn put(&mut self, key: ObjectKey, body: Bytes) {
        self.writes += 1;
        let version = self.writes;
        self.store.insert(key, Stored { body, version });
    }

    fn land(&mut self, at: usize) {
        if self.late.is_empty() {
            return;
        }
        let late = self.late.remove(at % self.late.len());
        let there = self.store.get(&late.key).map(|stored| stored.version);
        if late.condition.is_none_or(|expected| expected == there) {
            self.put(late.key, late.body);
        }
    }

    fn spool(&mut self, hurry: bool, works: bool) {
        let used: u64 = self.files.values().map(|file| file.put.body.len()).sum();
        let room = self.spool_bytes.saturating_sub(used);
        for (place, put) in self.queue.take_for_spool(room, hurry, self.now) {
            let id = SpoolId(self.files.last_key_value().map_or(0, |(id, _)| id.0 + 1));
            if works {
                let since = self.now;
                let torn = false;
                self.files.insert(id, Spooled { put, since, torn });
            }
            if !self.queue.spooled(place, works.then_some(id)) {
                self.files.remove(&id);
            }
        }
        self.discard();
    }

    fn discard(&mut self) {
        for id in self.queue.take_discarded() {
            self.files.remove(&id);
        }
    }

    fn begin(&mut self) {
        self.queue.begin(self.now, GRACE);
        self.begins.push((self.now, self.next));
    }

    /// What an earlier broadcast left stays for a while after the next has begun: players are in the middle of it.
    fn check_removal(&self, key: &ObjectKey) {
        let may_go = |due: Instant| due <= self.now;
        let is_before = |first: u64| number_of(key).is_none_or(|number| number < first);
        let mut begins = self.begins.iter();
        let is_over = begins.any(|(at, first)| is_before(*first) && may_go(*at + GRACE));
        let is_due = self.retired.get(key).copied().is_some_and(may_go);
        assert!(is_due || is_over, "{key} was removed too early");
    }

    fn look(&mut self) {
        if let Some(look) = self.queue.take_tidying(self.now) {
            self.look = Some((look, self.store.keys().cloned().collect(), self.named()));
        }
    }

    fn tidy(&mut self, works: bool) {
        match self.look.take() {
            Some((look, found, named)) if works => {
                self.queue.tidy(look, (&found, named), self.now);
            }
            Some((look, ..)) => self.queue.tidy_later(look, self.now),
            None => {}
        }
    }

    fn named(&self) -> Named {
        let manifests = self.store.iter().filter(|(key, _)| key.item.is_manifest());
        let named = manifests.map(|(key, stored)| (key.clone(), named_by(key, &stored.body)));
        named.collect()
    }

    fn crash(&mut self, torn: u8, begins: bool) {
        // Its file is there, and was not written to the end.
        if torn < 64
            && let Some(mut last) = self.files.last_entry()
        {
            last.get_mut().torn = true;
            self.lost_init |= matches!(last.get().put.key.item, Item::Init(..));
        }
        self.look = None;
        self.retired.clear();
        self.run += 1;
        self.seen.clear();
        self.queue = queue(self.limits, self.records);
        let mut left = Vec::new();
        self.files.retain(|id, file| {
            let is_media = file.put.may_be_lost();
            // Of media only the header is read at once, and may be whole.
            if file.torn && (!is_media || torn.is_multiple_of(2)) {
                return false;
            }
            let body = if is_media {
                Payload::default()
            } else {
                file.put.body.clone()
            };
            left.push(Restored {
                id: *id,
                len: file.put.body.len(),
                since: file.since,
                put: Put {
                    body,
                    ..file.put.clone()
                },
            });
            true
        });
        self.queue.restore(left);
        self.queue
            .learn(self.store.keys().cloned().collect(), self.named(), self.now);
        self.period = None;
        self.begins.clear();
        self.next += 3;
        if begins {
            self.begin();
        }
    }

    /// The last segment that the newest version of each playlist in the spool names.
    fn spooled_edges(&self) -> BTreeMap<ObjectKey, u64> {
        let files = self.files.values();
        let playlists = files.filter(|file| matches!(file.put.key.item, Item::Media(_)));
        let edge = |file: &Spooled| {
            let key = &file.put.key;
            let names = named_by(key, &file.put.body.to_bytes());
            let edge = names.iter().filter_map(number_of).max();
            (key.clone(), edge.unwrap_or(0))
        };
        playlists.map(edge).collect()
    }

    /// The process is killed at this moment, and the next one only stores what is left.
    fn check_drain(&mut self) -> Result<(), TestCaseError> {
        let edges = self.spooled_edges();
        self.crash(u8::MAX, false);
        self.settle();
        self.check()?;
        for (playlist, expected) in edges {
            // One that names what was never handed over, or cannot be had any more, is never stored.
            if expected < 100 || self.lost_init {
                continue;
            }
            let stored = self.store.get(&playlist).map(|stored| edge(&stored.body));
            prop_assert!(
                stored >= Some(expected),
                "{playlist} ends with {stored:?}, the spool had {expected}"
            );
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for (manifest, names) in self.named() {
            let last = names.iter().filter_map(number_of).max().unwrap_or(0);
            for name in names {
                prop_assert!(
                    self.store.contains_key(&name),
                    "{manifest} names {name}, which is not stored"
                );
            }
            // Without conditions, what comes late may stand for a while.
            let newest = self.ordered.entry(manifest.clone()).or_default();
            if self.conditional {
                prop_assert!(
                    last == 0 || last >= *newest,
                    "{manifest} went back to {last}"
                );
            }
            *newest = last.max(*newest);
        }
        for (key, stored) in &self.store {
            if !key.item.is_manifest() {
                let once = self
                    .once
                    .entry(key.clone())
                    .or_insert_with(|| stored.body.clone());
                prop_assert_eq!(once, &stored.body, "{} changed", key);
            }
        }
        let in_memory = |entry: &Entry| entry.put.body.len();
        let waiting = self.queue.waiting.iter().map(|(_, entry)| in_memory(entry));
        let held = self.queue.held.values().map(in_memory);
        let bytes: u64 = waiting.chain(held).sum();
        prop_assert_eq!(self.queue.memory_bytes(), bytes);
        // Manifests and init segments are never given up, nor is what is under way.
        let exempt = 2_000 + SEGMENT_BYTES as u64 * 8;
        prop_assert!(bytes <= self.limits.memory_bytes + exempt);
        let used: u64 = self.files.values().map(|file| file.put.body.len()).sum();
        prop_assert!(used <= self.spool_bytes);
        let last = self.queue.last.keys();
        let mut kept_for_good =
            last.filter(|key| key.item.is_of_show() && !self.queue.late.contains_key(key));
        prop_assert_eq!(kept_for_good.next(), None, "its body stays in memory");
        Ok(())
    }

    fn settle(&mut self) {
        for _ in 0..4_000 {
            self.spool(false, true);
            self.look();
            self.tidy(true);
            if !self.step(Outcome::Done) {
                match self.until {
                    Some(until) => self.now = until.max(self.now),
                    None => break,
                }
            }
        }
    }
}

/// The last segment that the playlist `text` lists, gap or not.
fn edge(text: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(text);
    let numbers = text.lines().filter_map(|line| line.strip_suffix(".m4s"));
    let numbers = numbers.filter_map(|number| number.parse().ok());
    numbers.max().unwrap_or(0)
}

fn number_of(key: &ObjectKey) -> Option<u64> {
    match key.item {
        Item::Segment(_, number) => Some(number.get()),
        _ => None,
    }
}

fn any_limits() -> impl Strategy<Value = (Limits, u64, bool, bool)> {
    let memory = prop_oneof![Just(1_500_u64), Just(1_000_000)];
    let spool = prop_oneof![Just(None), Just(Some(700_u64)), Just(Some(1_000_000))];
    let kinds = (any::<bool>(), prop::bool::weighted(0.3));
    (memory, spool, kinds).prop_map(|(memory_bytes, spool, (conditional, records))| {
        let limits = Limits {
            memory_bytes,
            spool_age: spool.map(|_| AGE),
            lateness: LATENESS,
        };
        (limits, spool.unwrap_or(0), conditional, records)
    })
}

/// The numbers of the segments that are there.
fn numbers(model: &Model, rendition: &str) -> Vec<u64> {
    let of = |key: &ObjectKey| key.to_string().contains(rendition);
    let keys = model.store.keys().filter(|key| of(key));
    keys.filter_map(number_of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_stored_playlist_ever_names_what_is_not_stored_and_nothing_named_changes(
        events in proptest::collection::vec(any_event(), 0..150),
        (limits, spool_bytes, conditional, records) in any_limits(),
    ) {
        let mut model = Model::new(limits, spool_bytes, conditional, records);
        for event in &events {
            model.apply(event);
            model.check()?;
        }
        // Once the store works again, what was left is stored, then the newest, and everything else goes.
        model.away = false;
        model.late.clear();
        model.check_drain()?;
        for _ in 0..4 * LISTED {
            model.cut();
            while model.step(Outcome::Done) {}
            model.pass(Duration::from_secs(2));
            model.check()?;
        }
        model.settle();
        model.check()?;
        prop_assert_eq!(model.queue.len(), 0);
        model.discard();
        prop_assert!(model.files.is_empty(), "{:?}", model.files);
        let newest: Vec<_> = (model.next - LISTED..model.next).collect();
        for rendition in RENDITIONS {
            let there = numbers(&model, rendition);
            // What is recorded stays.
            let from = if records { there.len().saturating_sub(newest.len()) } else { 0 };
            prop_assert_eq!(&there[from..], &newest[..]);
        }
        if records {
            return Ok(());
        }
        let inits = model.store.keys().filter(|key| matches!(key.item, Item::Init(..)));
        prop_assert_eq!(inits.count(), RENDITIONS.len());
    }
}
