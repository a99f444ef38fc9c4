//! What a broadcast's record says while it goes on, in a store in memory.

use super::*;
use crate::app::shows::tests::{Counting, open};
use crate::media::Sample;
use crate::package::made_up;
use crate::package::{Config, Output, Packager};
use crate::serve::cache::Lifetime;
use crate::store::Put;
use crate::time::{Span, Ticks};

use std::sync::Arc;

/// The first segment, and how many samples of sound one has, about.
const FIRST: u64 = 900_000_000;
const SAMPLES: u64 = 94;

/// A broadcast of sound, what is stored of it, and its record.
struct Broadcast {
    store: Store,
    writer: BroadcastWriter,
    packager: Packager,
    made: u64,
    recording: Recording,
}

fn demo() -> StreamName {
    "demo".parse().expect("a name")
}

fn put(store_key: &str, body: impl Into<crate::media::Payload>) -> Put {
    Put {
        key: store_key.parse().expect("a key"),
        body: body.into(),
        content_type: "".into(),
        cache_control: Lifetime::Never.cache_control().into(),
    }
}

impl Broadcast {
    fn begin(store: Store, first: u64, keep: Keep) -> Self {
        let mut writer = store.broadcast(demo());
        writer.begin();
        let sound = vec![made_up::aac("a128", 96_000)];
        let number = SegmentNumber::new(first);
        let packager = Packager::after(&Config::default(), number, sound, None).expect("valid");
        let snapshot = packager.snapshot();
        let recording = Recording::begin(&store, &demo(), keep, &snapshot, number);
        Self {
            store,
            writer,
            packager,
            made: (first * 2 * 48_000).div_ceil(1_024),
            recording,
        }
    }

    /// A segment more is made and stored, and the record told of it, at its time.
    async fn go_on(&mut self) {
        for _ in 0..SAMPLES {
            let at = Ticks::new(i64::try_from(self.made * 1_024).expect("fits"));
            let sample = Sample {
                dts: at,
                pts: at,
                duration: Span::new(1_024),
                keyframe: true,
                data: b"sound".to_vec().into(),
            };
            self.packager.push(0, sample).expect("in order");
            self.made += 1;
        }
        while let Some(output) = self.packager.poll_output() {
            let (item, body) = match output {
                Output::InitSegment {
                    period, payload, ..
                } => (format!("init-{period}.mp4"), payload),
                Output::Segment {
                    segment, payload, ..
                } => (format!("{segment}.m4s"), payload),
                _ => continue,
            };
            self.writer
                .put(put(&format!("live/demo/a128/{item}"), body));
        }
        let patience = Duration::from_secs(30);
        assert!(self.writer.flush(patience).await, "stored");
        self.note().await;
        assert!(self.writer.flush(patience).await, "stored");
    }

    async fn note(&mut self) {
        let snapshot = self.packager.snapshot();
        let micros = i64::try_from(self.made * 1_024 / 48 * 1_000).expect("fits");
        let now = WallTime::from_micros(micros);
        // What an earlier broadcast left is looked for in a task of its own.
        while self.recording.left.is_some() {
            tokio::task::yield_now().await;
            self.recording.note_at(&self.writer, &snapshot, now);
        }
        self.recording.note_at(&self.writer, &snapshot, now);
    }

    async fn shows(&self) -> Vec<Show> {
        let mut shows = Vec::new();
        for first in self.store.shows(&demo()).await.expect("listed") {
            let key = ObjectKey::new(demo(), Item::Show(first));
            let found = super::super::read(&self.store, &key).await.expect("read");
            shows.extend(found.map(|(show, _)| show));
        }
        shows
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_full_says_so_once_the_one_after_it_can_be_found() {
    let store = open(&Arc::new(Counting::default()));
    let mut broadcast = Broadcast::begin(store, FIRST, Keep::Forever);
    for _ in 0..5 {
        broadcast.go_on().await;
        // As long as one that is full, which is not written with every segment.
        broadcast.recording.bytes = 100 * BYTES_PER_SEGMENT;
    }
    let snapshot = broadcast.packager.snapshot();
    broadcast.recording.turn_over(&broadcast.writer, &snapshot);
    for _ in 0..4 {
        let patience = Duration::from_secs(30);
        assert!(broadcast.writer.flush(patience).await, "stored");
        let shows = broadcast.shows().await;
        if let [.., before, after] = shows.as_slice() {
            assert_eq!(before.offered().end, after.offered().start, "no hole");
        }
        let newest = shows.last().expect("recorded");
        assert!(!newest.is_ended(), "{newest:?}: the broadcast goes on");
        broadcast.go_on().await;
    }
    let shows = broadcast.shows().await;
    let ended: Vec<_> = shows.iter().map(Show::is_ended).collect();
    assert_eq!(ended, [true, false]);
    assert_eq!(shows[0].offered().end, shows[1].offered().start);
    let Broadcast {
        recording,
        writer,
        store,
        ..
    } = broadcast;
    let patience = Duration::from_secs(30);
    recording.finish(&writer, &snapshot, patience).await;
    assert!(writer.flush(patience).await, "stored");
    let last = shows[1].first();
    let key = ObjectKey::new(demo(), Item::Show(last));
    let last = super::super::read(&store, &key).await.expect("read");
    assert!(last.expect("there").0.is_ended());
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_was_about_to_remove_goes_when_the_broadcast_goes_on() {
    let store = open(&Arc::new(Counting::default()));
    let record = format!(
        "{{\"format\":\"headwater-show\",\"version\":1,\"first\":{FIRST},\"from\":{from},\"end\":{end},\
         \"swept\":{FIRST},\"begins\":\"\",\"ends\":\"\",\"ended\":false,\"segment_ms\":2000,\
         \"target_duration\":2,\"independent\":true,\"periods\":[{{\"period\":{FIRST},\"first\":{FIRST},\
         \"renditions\":[{{\"name\":\"a96\",\"video\":false,\"codecs\":\"mp4a.40.2\",\"timescale\":48000,\
         \"frame\":[1024,48000],\"peak_bps\":1,\"average_bps\":1,\"stored\":[]}}]}},\
         {{\"period\":{later},\"first\":{later},\"renditions\":[{{\"name\":\"a128\",\"video\":false,\
         \"codecs\":\"mp4a.40.2\",\"timescale\":48000,\"frame\":[1024,48000],\"peak_bps\":1,\
         \"average_bps\":1,\"stored\":[[{from},{end}]]}}]}}]}}",
        later = FIRST + 20,
        from = FIRST + 40,
        end = FIRST + 50,
    );
    let record_key = format!("live/demo/show-{FIRST}.json");
    let mut objects = vec![
        (record_key, record),
        (format!("live/demo/a96/init-{FIRST}.mp4"), String::new()),
    ];
    for number in FIRST..FIRST + 50 {
        let name = if number < FIRST + 20 { "a96" } else { "a128" };
        objects.push((format!("live/demo/{name}/{number}.m4s"), "x".to_owned()));
    }
    for (key, body) in objects {
        let put = put(&key, bytes::Bytes::from(body));
        store.put(&put).await.expect("stored");
    }
    let keep = Keep::For(Duration::from_secs(3_600));
    let mut broadcast = Broadcast::begin(store, FIRST + 52, keep);
    broadcast.recording.goes_on = true;
    let key = ObjectKey::new(demo(), Item::Show(SegmentNumber::new(FIRST)));
    let (show, _) = super::super::read(&broadcast.store, &key)
        .await
        .expect("read")
        .expect("there");
    let snapshot = broadcast.packager.snapshot();
    broadcast.recording.left = None;
    broadcast.recording.start(Some(show), &snapshot);
    for _ in 0..6 {
        broadcast.go_on().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let left = broadcast.store.all(&demo()).await;
    let old = left.iter().filter(|key| match key.item {
        Item::Segment(_, number) => number.get() < FIRST + 40,
        Item::Init(_, period) => period.get() == FIRST,
        _ => false,
    });
    assert_eq!(old.collect::<Vec<_>>(), Vec::<&ObjectKey>::new());
    let kept = (FIRST + 40..FIRST + 50).all(|number| {
        let name = "a128".parse().expect("a name");
        let item = Item::Segment(name, SegmentNumber::new(number));
        left.contains(&ObjectKey::new(demo(), item))
    });
    assert!(kept, "{left:?}");
}
