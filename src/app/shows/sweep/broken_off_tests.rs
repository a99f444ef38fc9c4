//! What removing a show leaves when it is broken off, at each request in turn.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use tokio::sync::watch;

use super::*;
use crate::app::shows::tests::{Counting, open, put};

/// The first segment of what is to go, and of the show after it, which stays.
const FIRST: u64 = 800_000_000;
const NEXT: u64 = FIRST + 1_000;

/// What there is: a show of two periods with other renditions each, of `lengths` segments; one that follows it.
struct Kept {
    backend: Arc<Counting>,
    /// What stays: the other show, and what the live playlist names, if there is one.
    stays: BTreeSet<String>,
}

fn period(first: u64, end: u64, names: &[&str]) -> String {
    let tracks = names.iter().map(|name| {
        format!(
            "{{\"name\":\"{name}\",\"video\":true,\"codecs\":\"avc1\",\"timescale\":90000,\"frame\":[1,30],\
             \"peak_bps\":1,\"average_bps\":1,\"stored\":[[{first},{end}]]}}"
        )
    });
    let tracks: Vec<_> = tracks.collect();
    let tracks = tracks.join(",");
    format!("{{\"period\":{first},\"first\":{first},\"renditions\":[{tracks}]}}")
}

fn record(first: u64, end: u64, periods: &str) -> String {
    format!(
        "{{\"format\":\"headwater-show\",\"version\":1,\"first\":{first},\"from\":{first},\"end\":{end},\
         \"swept\":{first},\"begins\":\"\",\"ends\":\"\",\"ended\":true,\"segment_ms\":2000,\
         \"target_duration\":2,\"independent\":true,\"periods\":[{periods}]}}"
    )
}

impl Kept {
    /// The last two segments are listed, if any are to be.
    async fn new(lengths: [u64; 2], is_listed: bool) -> Self {
        Self::on(Counting::default(), lengths, is_listed).await
    }

    async fn on(backend: Counting, lengths: [u64; 2], is_listed: bool) -> Self {
        let backend = Arc::new(backend);
        let change = FIRST + lengths[0];
        let end = change + lengths[1];
        let periods = [
            (FIRST, change, &["v1080", "v720"][..]),
            (change, end, &["v720", "a128"]),
            (NEXT, NEXT + 3, &["v720"]),
        ];
        let mut stays = BTreeSet::new();
        for (first, end, names) in periods {
            for name in names {
                let numbers = first..end;
                let segments = numbers.map(|number| format!("live/demo/{name}/{number}.m4s"));
                let init = format!("live/demo/{name}/init-{first}.mp4");
                for key in segments.chain([init]) {
                    if first == NEXT {
                        stays.insert(key.clone());
                    }
                    put(&backend, key, "x".to_owned()).await;
                }
            }
        }
        let [a, b, c] = periods.map(|(first, end, names)| period(first, end, names));
        let texts = [
            (FIRST, record(FIRST, end, &format!("{a},{b}"))),
            (NEXT, record(NEXT, NEXT + 3, &c)),
        ];
        for (first, text) in texts {
            put(&backend, format!("live/demo/show-{first}.json"), text).await;
        }
        stays.insert(format!("live/demo/show-{NEXT}.json"));
        if is_listed {
            // Of the other rendition the same stays.
            for name in ["v720", "a128"] {
                let init = format!("live/demo/{name}/init-{change}.mp4");
                let numbers = end - 2..end;
                let segments = numbers.map(|number| format!("live/demo/{name}/{number}.m4s"));
                stays.extend(segments.chain([init]));
            }
            let text = format!(
                "#EXTM3U\n#EXT-X-MAP:URI=\"init-{change}.mp4\"\n#EXTINF:2,\n{}.m4s\n#EXTINF:2,\n{}.m4s\n\
                 #EXT-X-ENDLIST\n",
                end - 2,
                end - 1
            );
            let playlist = "live/demo/v720/index.m3u8".to_owned();
            put(&backend, playlist.clone(), text).await;
            stays.insert(playlist);
        }
        Self { backend, stays }
    }

    /// Looks after it once; a broadcast begins when it is asked about for the time `begins`.
    async fn look(&self, begins: u64) {
        let store = open(&self.backend);
        let stream = "demo".parse().expect("a name");
        let asked = AtomicU64::new(0);
        let is_busy = || Busy {
            live: asked.fetch_add(1, Ordering::Relaxed) >= begins,
            draining: false,
        };
        let keep = Keep::For(later_than_next());
        // That it fails is what is tried.
        let _ = look_after(&store, keep, (&stream, &is_busy), &mut Due::new()).await;
    }

    async fn keys(&self) -> BTreeSet<String> {
        let listed = self.backend.inner.list(None);
        let keys = listed.map_ok(|object| object.location.to_string());
        keys.try_collect().await.expect("listed")
    }

    /// What stays is there, and all that a record offers.
    async fn check(&self, what: &str) -> BTreeSet<String> {
        let keys = self.keys().await;
        assert!(keys.is_superset(&self.stays), "{what}: {keys:?}");
        let store = open(&self.backend);
        let key = format!("live/demo/show-{FIRST}.json");
        let key = key.parse().expect("a key");
        let found = crate::app::shows::read(&store, &key).await;
        let Some((show, _)) = found.expect("read") else {
            assert!(!keys.contains(&key.to_string()), "{what}: it can be read");
            return keys;
        };
        let mut at = show.offered().start;
        while let Some(number) = show.next_stored(at) {
            for (name, number) in show.segments_in(number..number + 1) {
                let segment = format!("live/demo/{name}/{number}.m4s");
                assert!(keys.contains(&segment), "{what}: {segment} is offered");
            }
            at = number + 1;
        }
        keys
    }

    async fn check_gone(&self, what: &str) {
        // What only the list keeps has its record.
        let record = format!("live/demo/show-{FIRST}.json");
        let is_listed = self.stays.iter().any(|key| key.ends_with(".m3u8"));
        let mut left = self.check(what).await;
        assert_eq!(left.remove(&record), is_listed, "{what}");
        assert_eq!(left, self.stays, "{what}");
    }
}

/// So long that the show is to go and the next one to stay.
fn later_than_next() -> Duration {
    let next = WallTime::from_micros(i64::try_from((NEXT - 100) * 2_000_000).expect("fits"));
    let micros = wall_now().as_micros() - next.as_micros();
    Duration::from_micros(u64::try_from(micros).expect("long ago"))
}

/// How many requests lie between two that fail: of some six hundred not each is tried.
const TRIED: [([u64; 2], usize); 2] = [([3, 4], 1), ([202, 5], 23)];

#[tokio::test]
async fn what_a_removal_was_broken_off_over_by_the_store_goes_later() {
    for ((lengths, apart), is_listed) in TRIED.into_iter().flat_map(|t| [(t, false), (t, true)]) {
        for at in (0..).step_by(apart) {
            let kept = Kept::new(lengths, is_listed).await;
            let what = format!("{lengths:?}, at request {at}, listed: {is_listed}");
            let mut was_through = true;
            for _ in 0..3 {
                kept.backend.fail_after(at);
                kept.look(u64::MAX).await;
                was_through &= kept.backend.fail_no_more();
                kept.check(&what).await;
            }
            kept.look(u64::MAX).await;
            kept.check_gone(&what).await;
            if was_through {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_a_removal_was_broken_off_over_by_a_broadcast_goes_later() {
    for (lengths, apart) in TRIED {
        for begins in (1..60).step_by(apart.min(2)) {
            let kept = Kept::new(lengths, false).await;
            kept.look(begins).await;
            kept.check(&format!("{begins}")).await;
            kept.look(u64::MAX).await;
            kept.check_gone(&format!("{lengths:?}, {begins}")).await;
        }
    }
}

#[tokio::test]
async fn a_removal_that_is_broken_off_at_a_long_hole_leaves_a_record_that_can_be_read() {
    let backend = Arc::new(Counting::default());
    let far = FIRST + 50_000_000;
    let periods = [
        period(FIRST, FIRST + 2, &["v720"]),
        period(far, far + 2, &["v720"]),
    ];
    let text = record(FIRST, far + 2, &periods.join(","));
    put(&backend, format!("live/demo/show-{FIRST}.json"), text).await;
    for first in [FIRST, far] {
        for name in [
            format!("{first}.m4s"),
            format!("{}.m4s", first + 1),
            format!("init-{first}.mp4"),
        ] {
            put(&backend, format!("live/demo/v720/{name}"), String::new()).await;
        }
    }
    let kept = Kept {
        backend,
        stays: BTreeSet::new(),
    };
    let store = open(&kept.backend);
    let stream = "demo".parse().expect("a name");
    for at in 0..2_000 {
        kept.backend.fail_after(at);
        let keep = Keep::For(Duration::from_secs(1));
        let _ = look_after(&store, keep, (&stream, &Busy::default), &mut Due::new()).await;
        if kept.check(&format!("{at}")).await.is_empty() {
            return;
        }
    }
    panic!("{:?} is left", kept.keys().await);
}

/// A store of which playlists take so long to be read.
fn slow(seconds: u64) -> Counting {
    Counting {
        slow: Some(("get index.m3u8".to_owned(), Duration::from_secs(seconds))),
        ..Counting::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_for_long_enough_goes_though_each_playlist_takes_seconds_to_read() {
    // Three renditions, of which two or three are asked about again for the init segments.
    let kept = Kept::on(slow(4), [3, 4], true).await;
    kept.look(u64::MAX).await;
    kept.check_gone("a slow store").await;
}

#[tokio::test(start_paused = true)]
async fn a_record_stays_as_it_is_where_a_store_does_not_say_in_time_what_may_go() {
    let kept = Kept::on(slow(11), [3, 4], true).await;
    let record = Path::from(format!("live/demo/show-{FIRST}.json"));
    let before = kept.backend.inner.head(&record).await.expect("there");
    for _ in 0..3 {
        kept.look(u64::MAX).await;
    }
    let after = kept.backend.inner.head(&record).await.expect("there");
    assert_eq!((after.e_tag, after.size), (before.e_tag, before.size));
    let segments = kept.keys().await;
    let segments = segments.iter().filter(|key| key.ends_with(".m4s"));
    assert_eq!(segments.count(), 2 * 3 + 2 * 4 + 3);
}

#[tokio::test(start_paused = true)]
async fn what_another_node_has_made_of_a_record_meanwhile_is_not_taken_back() {
    let (go_on, hung) = watch::channel(true);
    let playlist = "live/demo/v720/index.m3u8";
    let kept = Counting {
        // So long that what was seen before the record was written says nothing any more.
        slow: Some(("put .json".to_owned(), Duration::from_secs(30))),
        hung: Some((format!("get {playlist}"), hung)),
        ..Counting::default()
    };
    let kept = Kept::on(kept, [3, 4], false).await;
    let other = record(
        FIRST,
        FIRST + 3,
        &period(FIRST, FIRST + 3, &["v1080", "v720"]),
    );
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        go_on.send_replace(false);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let key = format!("live/demo/show-{FIRST}.json");
        put(&kept.backend, key, other.clone()).await;
        let listed = format!("#EXTM3U\n#EXTINF:2,\n{FIRST}.m4s\n");
        put(&kept.backend, playlist.to_owned(), listed).await;
        go_on.send_replace(true);
    };
    tokio::join!(kept.look(u64::MAX), meanwhile);
    let at = Path::from(format!("live/demo/show-{FIRST}.json"));
    let found = kept.backend.inner.get(&at).await.expect("there");
    let found = found.bytes().await.expect("read");
    assert_eq!(String::from_utf8_lossy(&found), other);
}
