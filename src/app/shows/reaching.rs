//! What reaches further back than a live stream's manifests, where only the store knows the stream.
//!
//! Enters: the stored live manifests, the records of shows
//! Leaves: the same manifests with what is behind them
//! Never:  what is behind written anew for every segment: what was made last is gone on with
//! Time:   how long ago a playlist changed tells whether its broadcast goes on
//! Spec:   docs/recordings.md

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::held::{Found, Reading};
use super::library::{Library, aside};
use crate::app::dvr;
use crate::id::StreamName;
use crate::media::{Item, ObjectKey};
use crate::package::dvr::{
    Behind, MAX_TIMELINE_SEGMENTS, depth_ms, mpd, mpd_of_cuts as dvr_of_cuts, multivariant, rising,
};
use crate::package::show::Show;
use crate::serve::stretch::Asked;
use crate::serve::{Clip, Document, Growth, NoClip, StoreFailed, Version, document};
use crate::store::Store;
use crate::time::WallTime;

/// How many target durations a live manifest may stay the same before its broadcast counts as cut off.
const STALLED_TARGETS: u32 = 3;

/// A manifest that reaches further back, and what it was made of.
#[derive(Clone, Debug)]
pub(super) struct Reaching {
    live: Bytes,
    /// What changes while the broadcast goes on: the live media playlist, for an MPD too.
    moving: Bytes,
    /// When that was first seen as it is.
    changed: Instant,
    behind: Behind,
    first: u64,
    /// What the record offered.
    offered: Range<u64>,
    version: Version,
}

impl Reaching {
    /// Bytes of memory, about: the lines, what it was made of, and the whole of it with its compressed forms.
    fn bytes(&self) -> u64 {
        let text = self.version.document().text().len();
        let all = self.live.len() + self.moving.len() + text / 2 * 3;
        48 * self.behind.len() + all as u64
    }
}

/// What is needed to make one.
#[derive(Clone)]
struct Parts {
    show: Arc<Show>,
    reach: Duration,
    /// For each that is read, as long as it is.
    reads: Arc<Semaphore>,
    /// Where the lines of hours are written.
    places: Arc<Semaphore>,
}

impl Library {
    /// The manifest `key` that reaches further back than the live one of its stream.
    pub(super) async fn reaching(&self, key: &ObjectKey) -> Result<Clip, NoClip> {
        let missing = || {
            let text = "viewers of this stream cannot go back (setting: archive.dvr)";
            NoClip::Missing(text.to_owned())
        };
        let show = self.newest(&key.stream).await?.ok_or_else(missing)?;
        let reach = show.reach().ok_or_else(missing)?;
        if show.is_ended() {
            let start = show.begins().max(show.ends().before(reach));
            let asked = Asked { start, end: None };
            let make = async move |library: Self, key: ObjectKey, before| {
                let file = "dvr.m3u8".to_owned();
                let shows = (vec![show.into()], before);
                library.render(&key, shows, Some(asked), file).await
            };
            return self.shared(key, Some(asked), make).await;
        }
        let target = show.target_duration();
        let read = |earlier: Option<Reading>| {
            let (store, key) = (self.store.clone(), key.clone());
            let parts = Parts {
                show,
                reach,
                reads: Arc::clone(&self.reads),
                places: Arc::clone(&self.renderings),
            };
            async move {
                let found = make(&store, &key, &parts, earlier).await;
                let bytes = match &found {
                    Found::Reaching(reaching) | Found::Failed(Some(reaching)) => reaching.bytes(),
                    _ => 0,
                };
                Reading {
                    found,
                    bytes,
                    at: Instant::now(),
                }
            }
        };
        match self.reaching.get(key, read).await.found {
            Found::Reaching(reaching) => {
                let version = &reaching.version;
                let limit = target.saturating_mul(STALLED_TARGETS) + Duration::from_secs(1);
                let has_ended = document::has_ended(&key.item, &reaching.live);
                Ok(Clip {
                    document: Arc::clone(version.document()),
                    delta: version.delta().cloned(),
                    growth: match reaching.changed.elapsed() <= limit {
                        _ if has_ended == Some(true) => Growth::Over,
                        true => Growth::Advancing,
                        false => Growth::Stalled,
                    },
                })
            }
            Found::Failed(_) => Err(StoreFailed.into()),
            _ => Err(missing()),
        }
    }
}

async fn make(store: &Store, key: &ObjectKey, parts: &Parts, earlier: Option<Reading>) -> Found {
    let stream = &key.stream;
    let live = match &key.item {
        Item::DvrMedia(name) => Item::Media(name.clone()),
        Item::DvrMpd => Item::Mpd,
        _ => Item::Multivariant,
    };
    let live = ObjectKey::new(stream.clone(), live);
    let earlier = match earlier.map(|reading| reading.found) {
        Some(Found::Reaching(earlier)) => Some(earlier),
        Some(Found::Failed(earlier)) => earlier,
        _ => None,
    };
    let text = match get(store, &live, parts).await {
        Ok(Some(text)) => text,
        Ok(None) => return Found::Nothing,
        Err(StoreFailed) => return Found::Failed(earlier),
    };
    let moving = match &key.item {
        Item::DvrMedia(_) => text.clone(),
        Item::DvrMpd => match playlist_beside(store, stream, parts, &text).await {
            Ok(playlist) => playlist,
            Err(StoreFailed) => return Found::Failed(earlier),
        },
        // It names playlists, which say themselves whether they go on.
        _ => Bytes::new(),
    };
    let (first, offered) = (parts.show.first().get(), parts.show.offered());
    // All that it is made of is the same: so is it. To a playlist the record adds nothing but with a segment.
    let is_same = |e: &&Arc<Reaching>| {
        let is_playlist = matches!(key.item, Item::DvrMedia(_));
        let is_record_same = e.first == first && (is_playlist || e.offered == offered);
        // Of one that moves with nothing, that it is made anew says that it goes on.
        e.live == text && e.moving == moving && !moving.is_empty() && is_record_same
    };
    if let Some(same) = earlier.as_ref().filter(is_same) {
        return Found::Reaching(Arc::clone(same));
    }
    let work = (key.clone(), parts.clone(), earlier.clone());
    let live = (text.clone(), moving.clone());
    let made = aside(&parts.places, move || {
        let (key, parts, earlier) = work;
        made_of(&key, &parts, live, earlier.as_deref())
    });
    let Some((behind, version)) = made.await.flatten() else {
        return Found::Nothing;
    };
    let same = earlier.filter(|earlier| earlier.moving == moving && !moving.is_empty());
    Found::Reaching(Arc::new(Reaching {
        live: text,
        changed: same.map_or_else(Instant::now, |earlier| earlier.changed),
        moving,
        behind,
        first,
        offered,
        version,
    }))
}

/// What reaches further back than the live manifest, of which `earlier` was made last; `moving` is the playlist beside.
fn made_of(
    key: &ObjectKey,
    parts: &Parts,
    (live, moving): (Bytes, Bytes),
    earlier: Option<&Reaching>,
) -> Option<(Behind, Version)> {
    let text = match &key.item {
        Item::DvrMedia(_) => return Some(media(key, parts, &live, earlier)),
        Item::DvrMpd => {
            let text = mpd_of(parts, &moving, &String::from_utf8_lossy(&live))?;
            let before = earlier.map_or(&[][..], |earlier| earlier.version.document().text());
            rising(text, &String::from_utf8_lossy(before))
        }
        _ => multivariant(&String::from_utf8_lossy(&live)),
    };
    let document = Document::manifest(&key.item, text.into());
    let version = Version::plain(Arc::new(document));
    Some((Behind::new(parts.reach), version))
}

/// What is stored of a live manifest.
async fn get(store: &Store, key: &ObjectKey, parts: &Parts) -> Result<Option<Bytes>, StoreFailed> {
    // Only while it is read: what is then made of it takes another place, and records are waited for by everybody.
    let _permit = parts.reads.acquire().await;
    let found = store.get(key).await.map_err(|error| {
        tracing::warn!(%key, %error, "a live manifest cannot be read");
        StoreFailed
    })?;
    Ok(found.map(|text| text.to_bytes()))
}

/// The media playlist `key`, of which `earlier` was made last.
fn media(
    key: &ObjectKey,
    parts: &Parts,
    live: &Bytes,
    earlier: Option<&Reaching>,
) -> (Behind, Version) {
    let show = &parts.show;
    let document = Arc::new(Document::manifest(&key.item, live.clone()));
    let plain = Version::plain(document);
    let text = String::from_utf8_lossy(live);
    let mut behind = Behind::new(parts.reach);
    if let (Item::DvrMedia(rendition), Some(listed)) = (&key.item, first_of(&text)) {
        let known = earlier.filter(|earlier| earlier.first == show.first().get());
        let known = known.filter(|earlier| earlier.behind.next().is_some_and(|n| n <= listed));
        let from = if let Some(known) = known {
            behind = known.behind.clone();
            behind.next().unwrap_or(listed)
        } else {
            show.number_within(parts.reach)
        };
        // A broadcast that has just gone on elsewhere is not known here yet.
        let from = from.max(listed.saturating_sub(MAX_BEHIND));
        show.gone(rendition, from..listed)
            .into_iter()
            .for_each(|gone| behind.push(gone));
        behind.trim(show.ends());
    }
    let version = dvr::media(&key.item, &behind, &plain);
    (behind, version)
}

/// More segments than anybody can go back: two days of the shortest.
const MAX_BEHIND: u64 = 350_000;

fn first_of(playlist: &str) -> Option<u64> {
    let mut lines = playlist.lines();
    lines.find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")?.parse().ok())
}

/// The live playlist beside the live MPD `mpd`: of what it names first, which need not be what the broadcast began with.
/// Empty where there is none.
async fn playlist_beside(
    store: &Store,
    stream: &StreamName,
    parts: &Parts,
    mpd: &[u8],
) -> Result<Bytes, StoreFailed> {
    match document::first_playlist(stream, mpd) {
        Some(key) => Ok(get(store, &key, parts).await?.unwrap_or_default()),
        None => Ok(Bytes::new()),
    }
}

/// The MPD that reaches as far back as there is something of the period that it describes; `playlist` is one of the
/// live ones beside it.
fn mpd_of(parts: &Parts, playlist: &[u8], live: &str) -> Option<String> {
    let show = &parts.show;
    if !show.is_on_grid() {
        return mpd_of_cuts(parts, live);
    }
    let playlist = String::from_utf8_lossy(playlist);
    let listed = playlist
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .count() as u64;
    let first = first_of(&playlist)?;
    let reach = u64::try_from(parts.reach.as_millis()).unwrap_or(u64::MAX);
    let step = show.segment_ms();
    let is_shorter = || depth_ms(live).is_some_and(|depth| depth < listed * step);
    if playlist.contains("\n#EXT-X-GAP\n") && is_shorter() {
        // Behind a hole players are to find their place again.
        return Some(live.to_owned());
    }
    let oldest = show.offered().start.max(show.last_period_first());
    let behind = first.saturating_sub(oldest).saturating_mul(step);
    let depth = behind.saturating_add(listed * step).min(reach);
    // The playlist may be stored before the record is.
    let ends_ms = first.saturating_add(listed).saturating_mul(step);
    let ends = WallTime::from_epoch(Duration::from_millis(ends_ms));
    mpd(live, depth, ends.max(show.ends()))
}

/// The same where the source cuts.
fn mpd_of_cuts(parts: &Parts, live: &str) -> Option<String> {
    let show = &parts.show;
    let from = show.number_within(parts.reach);
    let behind = show.last_renditions().filter_map(|name| {
        let listed = first_number(live, name.as_str())?;
        // It takes no more than these, however many there are.
        let from = from.max(listed.saturating_sub(MAX_TIMELINE_SEGMENTS as u64));
        let mut behind = Behind::new(parts.reach);
        let gone = show.gone(name, from..listed);
        gone.into_iter().for_each(|gone| behind.push(gone));
        Some((name.as_str(), behind))
    });
    let behind: BTreeMap<_, _> = behind.collect();
    dvr_of_cuts(live, |name| behind.get(name), show.ends())
}

/// The number with which the timeline of `rendition` begins, that of its last period.
fn first_number(mpd: &str, rendition: &str) -> Option<u64> {
    let (_, rest) = mpd.rsplit_once(&format!("<Representation id=\"{rendition}\""))?;
    let (_, rest) = rest.split_once(" startNumber=\"")?;
    rest.split_once('"')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::store::{self, Put};

    async fn put(store: &Store, path: &str, body: &str) {
        let put = Put {
            key: format!("live/demo/{path}").parse().expect("a key"),
            body: Bytes::copy_from_slice(body.as_bytes()).into(),
            content_type: "".into(),
            cache_control: "".into(),
        };
        store.put(&put).await.expect("stored");
    }

    /// A period of one rendition of pictures that has `numbers`, and those in `odd` elsewhere than on the grid.
    fn period(name: &str, numbers: Range<u64>, odd: &[(u64, u64, u64)]) -> serde_json::Value {
        serde_json::json!({
            "period": numbers.start, "first": numbers.start,
            "renditions": [{
                "name": name, "video": true, "codecs": "avc1.64001F", "timescale": 90_000, "frame": [1, 30],
                "peak_bps": 1, "average_bps": 1, "stored": [[numbers.start, numbers.end]], "odd": odd,
            }],
        })
    }

    fn parts(periods: &[serde_json::Value], is_on_grid: bool) -> Parts {
        let record = serde_json::json!({
            "format": "headwater-show", "version": 1, "first": 100, "from": 100, "end": 200, "swept": 100,
            "begins": "", "ends": "", "ended": false, "dvr_ms": 60_000, "segment_ms": 2_000, "target_duration": 2,
            "independent": is_on_grid, "periods": periods,
        });
        let record = record.to_string();
        let show = Arc::new(Show::from_record(record.as_bytes()).expect("a record"));
        let reach = show.reach().expect("somebody can go back");
        Parts {
            show,
            reach,
            reads: Arc::new(Semaphore::new(1)),
            places: Arc::new(Semaphore::new(1)),
        }
    }

    fn playlist(last: u64) -> String {
        format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{0}\n#EXT-X-MAP:URI=\"init-100.mp4\"\n\
             #EXTINF:2.000000,\n{0}.m4s\n#EXTINF:2.000000,\n{last}.m4s\n",
            last - 1
        )
    }

    /// What was made earlier was made ten seconds ago.
    fn aged(found: Found) -> Reading {
        let Found::Reaching(reaching) = found else {
            panic!("{found:?}");
        };
        let ago = Duration::from_secs(10);
        let changed = reaching.changed.checked_sub(ago).expect("a clock that ran");
        let reaching = Arc::new(Reaching {
            changed,
            ..Reaching::clone(&reaching)
        });
        Reading {
            found: Found::Reaching(reaching),
            bytes: 0,
            at: changed,
        }
    }

    const MPD: &str = "<MPD type=\"dynamic\" publishTime=\"2026-11-20T20:15:00.000Z\" \
                       timeShiftBufferDepth=\"PT12S\"><Representation id=\"v720\"/></MPD>";

    async fn store() -> Store {
        let config = store::Config {
            url: "memory://".to_owned(),
            ..store::Config::default()
        };
        Store::open(config).await.expect("opens")
    }

    /// The `dvr.mpd` that is made of what `store` has.
    async fn dvr_mpd(store: &Store, parts: &Parts) -> String {
        let key: ObjectKey = "live/demo/dvr.mpd".parse().expect("a key");
        let Found::Reaching(made) = make(store, &key, parts, None).await else {
            panic!("made");
        };
        let text = made.version.document().text().to_vec();
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn an_mpd_reaches_back_to_where_the_ladder_changed() {
        let store = store().await;
        put(&store, "manifest.mpd", MPD).await;
        put(&store, "v720/index.m3u8", &playlist(200)).await;
        let parts = parts(
            &[
                period("v1080", 100..180, &[]),
                period("v720", 180..200, &[]),
            ],
            true,
        );
        let found = dvr_mpd(&store, &parts).await;
        // The 19 segments of this ladder that are not listed, and the two that are.
        assert!(
            found.contains("timeShiftBufferDepth=\"PT42.000S\""),
            "{found}"
        );
    }

    #[tokio::test]
    async fn an_mpd_behind_a_hole_reaches_no_further_than_the_live_one() {
        let store = store().await;
        let live = MPD.replace("PT12S", "PT2S");
        put(&store, "manifest.mpd", &live).await;
        let listed = playlist(200).replacen("#EXTINF", "#EXT-X-GAP\n#EXTINF", 1);
        put(&store, "v720/index.m3u8", &listed).await;
        let parts = parts(&[period("v720", 100..200, &[])], true);
        assert_eq!(dvr_mpd(&store, &parts).await, live);
    }

    #[tokio::test]
    async fn of_what_its_source_cuts_the_record_says_what_is_before_the_timelines() {
        let store = store().await;
        let mpd = "<MPD type=\"dynamic\" publishTime=\"2026-11-20T20:15:00.000Z\" timeShiftBufferDepth=\"PT12S\">\n\
             <Period id=\"100\" start=\"PT0S\">\n<Representation id=\"v720\" bandwidth=\"1\">\n\
             <SegmentTemplate timescale=\"90000\" startNumber=\"199\" presentationTimeOffset=\"100\">\n\
             <SegmentTimeline>\n<S t=\"39600000\" d=\"200000\"/>\n</SegmentTimeline>\n";
        put(&store, "manifest.mpd", mpd).await;
        put(&store, "v720/index.m3u8", &playlist(200)).await;
        // Of 2.222 s each, of which 60 s begin with the 27th from the end.
        let odd: Vec<_> = (100..200)
            .map(|n| (n, n * 200_000 - 200_000, 200_000))
            .collect();
        let parts = parts(&[period("v720", 100..200, &odd)], false);
        let found = dvr_mpd(&store, &parts).await;
        let first = 200 - 27;
        let expected = format!(
            "<S t=\"{}\" d=\"200000\" r=\"25\"/>",
            first * 200_000 - 200_000
        );
        assert!(found.contains(&expected), "{expected}: {found}");
        assert!(
            found.contains(&format!("startNumber=\"{first}\"")),
            "{found}"
        );
        assert!(
            found.contains("timeShiftBufferDepth=\"PT69.778S\""),
            "{found}"
        );
    }

    #[tokio::test]
    async fn an_mpd_of_what_is_still_the_same_is_the_one_that_was_made() {
        let store = store().await;
        let key: ObjectKey = "live/demo/dvr.mpd".parse().expect("a key");
        put(&store, "manifest.mpd", MPD).await;
        put(&store, "v720/index.m3u8", &playlist(200)).await;
        let parts_of = |end: u64| parts(&[period("v720", 100..end, &[])], true);
        let document = |found: &Found| match found {
            Found::Reaching(reaching) => Arc::clone(reaching.version.document()),
            found => panic!("{found:?}"),
        };
        let first = make(&store, &key, &parts_of(200), None).await;
        let earlier = || Some(aged(first.clone()));
        let same = make(&store, &key, &parts_of(200), earlier()).await;
        assert!(Arc::ptr_eq(&document(&first), &document(&same)));
        put(&store, "v720/index.m3u8", &playlist(201)).await;
        let moved = make(&store, &key, &parts_of(200), earlier()).await;
        assert!(!Arc::ptr_eq(&document(&first), &document(&moved)));
        // The playlist is as before; the record says more, or another one goes on.
        put(&store, "v720/index.m3u8", &playlist(200)).await;
        let mut longer = parts_of(200);
        let record = longer
            .show
            .to_record()
            .replace("\"end\":200", "\"end\":201");
        longer.show = Arc::new(Show::from_record(record.as_bytes()).expect("a record"));
        let recorded = make(&store, &key, &longer, earlier()).await;
        assert!(!Arc::ptr_eq(&document(&first), &document(&recorded)));
    }

    #[tokio::test]
    async fn an_mpd_that_was_made_before_the_store_failed_is_not_forgotten() {
        use super::super::tests::Counting;
        let inner = Arc::new(Counting::default());
        let store = Store::on(Arc::clone(&inner) as _);
        let key: ObjectKey = "live/demo/dvr.mpd".parse().expect("a key");
        put(&store, "manifest.mpd", MPD).await;
        put(&store, "v720/index.m3u8", &playlist(200)).await;
        let periods = [
            period("v1080", 100..180, &[]),
            period("v720", 180..200, &[]),
        ];
        let parts = parts(&periods, true);
        let published = |found: &Found| match found {
            Found::Reaching(made) => {
                let text = String::from_utf8_lossy(made.version.document().text()).into_owned();
                let (_, rest) = text.split_once("publishTime=\"").expect("it has one");
                rest.split('"').next().expect("a time").to_owned()
            }
            found => panic!("{found:?}"),
        };
        let first = make(&store, &key, &parts, None).await;
        put(&store, "v720/index.m3u8", &playlist(201)).await;
        // The MPD cannot be read, then the playlist beside it.
        let mut before = aged(first.clone());
        for readable in 0..2 {
            inner.fail_after(readable);
            let found = make(&store, &key, &parts, Some(before.clone())).await;
            assert!(!inner.fail_no_more(), "it was asked");
            assert!(matches!(found, Found::Failed(Some(_))), "{found:?}");
            before.found = found;
        }
        let next = make(&store, &key, &parts, Some(before)).await;
        assert!(published(&next) > published(&first), "{}", published(&next));
    }

    #[tokio::test]
    async fn what_does_not_move_any_more_is_known_by_the_playlist_for_an_mpd_too() {
        let store = store().await;
        put(&store, "manifest.mpd", MPD).await;
        put(&store, "v720/index.m3u8", &playlist(200)).await;
        let parts = parts(&[period("v720", 100..200, &[])], true);
        for path in ["v720/dvr.m3u8", "dvr.mpd"] {
            let key: ObjectKey = format!("live/demo/{path}").parse().expect("a key");
            put(&store, "v720/index.m3u8", &playlist(200)).await;
            let first = aged(make(&store, &key, &parts, None).await);
            let changed = |found: &Found| match found {
                Found::Reaching(reaching) => reaching.changed.elapsed(),
                found => panic!("{path}: {found:?}"),
            };
            let same = make(&store, &key, &parts, Some(first.clone())).await;
            assert!(changed(&same) >= Duration::from_secs(10), "{path}");
            put(&store, "v720/index.m3u8", &playlist(201)).await;
            let moved = make(&store, &key, &parts, Some(first)).await;
            assert!(changed(&moved) < Duration::from_secs(10), "{path}");
        }
    }

    #[tokio::test]
    async fn what_names_playlists_never_stands_still() {
        let store = store().await;
        put(&store, "index.m3u8", "#EXTM3U\nv720/index.m3u8\n").await;
        let parts = parts(&[period("v720", 100..200, &[])], true);
        let key: ObjectKey = "live/demo/dvr.m3u8".parse().expect("a key");
        let first = aged(make(&store, &key, &parts, None).await);
        let Found::Reaching(same) = make(&store, &key, &parts, Some(first)).await else {
            panic!("it is there");
        };
        assert!(same.changed.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn an_mpd_goes_on_though_what_the_broadcast_began_with_is_made_no_more() {
        let store = store().await;
        put(&store, "manifest.mpd", MPD).await;
        // A restart with another ladder; the list of what there was before is there for a while.
        let parts = parts(
            &[
                period("v1080", 100..150, &[]),
                period("v720", 150..200, &[]),
            ],
            true,
        );
        let key: ObjectKey = "live/demo/dvr.mpd".parse().expect("a key");
        let before: ObjectKey = "live/demo/v1080/index.m3u8".parse().expect("a key");
        put(&store, "v1080/index.m3u8", &playlist(149)).await;
        put(&store, "v720/index.m3u8", &playlist(200)).await;
        let first = aged(make(&store, &key, &parts, None).await);
        put(&store, "v720/index.m3u8", &playlist(201)).await;
        let moved = make(&store, &key, &parts, Some(first)).await;
        let Found::Reaching(moved) = moved else {
            panic!("{moved:?}");
        };
        assert!(moved.changed.elapsed() < Duration::from_secs(10));
        store.delete(vec![before]).await.expect("deleted");
        let without = make(&store, &key, &parts, None).await;
        assert!(matches!(without, Found::Reaching(_)), "{without:?}");
    }
}
