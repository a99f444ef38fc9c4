//! Closes shows that broke off, and removes what has been kept for long enough.
//!
//! Enters: the store, how long things are kept, the time
//! Leaves: records that say the truth; room
//! Never:  touches a show that goes on, a segment that a live playlist names, a record that it cannot read
//! Time:   the wall clock, against that of the media
//! Spec:   docs/recordings.md
//!
//! Everything follows from the records: segments are removed by number, some hundred at a time, and after each
//! step the record says how far it is. What is interrupted goes on where it was, and what was removed twice
//! harms nobody, so that several nodes may do this at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tokio::sync::watch;

use super::manifests;
use crate::app::clock::wall_now;
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::show::Show;
use crate::store::{Keep, ReadFailed, Store, WriteFailed};
use crate::time::WallTime;

/// For how long nothing may have been stored of a show before it counts as broken off.
const QUIET: Duration = Duration::from_secs(60);

/// How often it is looked after: within these, an eighth of the time that things are kept.
const MIN_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How many numbers are removed between two versions of the record.
const STEP: u64 = 200;

/// How far behind a broadcast that begins an earlier one may lie for it to be the same show: the longest that
/// publishers stay away without ending it.
const MAX_RESUMED_SEGMENTS: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Read(#[from] ReadFailed),
    #[error(transparent)]
    Write(#[from] WriteFailed),
}

/// When each show is to be looked at again.
type Due = BTreeMap<(StreamName, SegmentNumber), WallTime>;

/// Looks after what is kept in `store` until `stopped`. `is_live` says of which streams broadcasts go on here.
pub(in crate::app) async fn run(
    store: Store,
    keep: Keep,
    is_live: impl Fn(&StreamName) -> bool + Send,
    mut stopped: watch::Receiver<bool>,
) {
    let pause = match keep {
        Keep::Window => return,
        Keep::For(keep) => (keep / 8).clamp(MIN_PAUSE, MAX_PAUSE),
        Keep::Forever => MAX_PAUSE,
    };
    let mut due = Due::new();
    loop {
        let pass = pass(&store, keep, &is_live, &mut due);
        tokio::select! {
            () = pass => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

async fn pass(store: &Store, keep: Keep, is_live: &impl Fn(&StreamName) -> bool, due: &mut Due) {
    let streams = match store.streams().await {
        Ok(streams) => streams,
        Err(error) => {
            tracing::warn!(%error, "recordings cannot be looked after");
            return;
        }
    };
    for stream in streams {
        let live = is_live(&stream);
        if let Err(error) = stream_pass(store, keep, (&stream, live), due).await {
            tracing::warn!(%stream, %error, "recordings are looked after later");
        }
    }
}

async fn stream_pass(
    store: &Store,
    keep: Keep,
    (stream, live): (&StreamName, bool),
    due: &mut Due,
) -> Result<(), Failed> {
    let shows = store.shows(stream).await?;
    let now = wall_now();
    for (index, first) in shows.iter().enumerate() {
        let place = (stream.clone(), *first);
        let is_last = index + 1 == shows.len();
        if due.get(&place).is_some_and(|due| *due > now) || (live && is_last) {
            continue;
        }
        let key = ObjectKey::new(stream.clone(), Item::Show(*first));
        let Some((mut show, _)) = super::read(store, &key).await? else {
            // Said once; it is looked at again after a restart.
            due.insert(place, WallTime::from_micros(i64::MAX));
            continue;
        };
        if !show.is_ended() && !close(store, stream, &mut show, now).await? {
            continue;
        }
        let gone_at = match keep {
            Keep::For(keep) => later(show.ends(), keep),
            Keep::Window | Keep::Forever => WallTime::from_micros(i64::MAX),
        };
        if gone_at > now {
            due.insert(place, gone_at);
            continue;
        }
        let next = shows.get(index + 1).copied();
        if remove(store, stream, &mut show, next).await? {
            tracing::info!(%stream, show = %first, "removed: kept for long enough");
            due.remove(&place);
        }
    }
    Ok(())
}

fn later(time: WallTime, by: Duration) -> WallTime {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    WallTime::from_micros(time.as_micros().saturating_add(by))
}

/// Closes `show` if nothing has been added to it for long; whether it is closed.
async fn close(
    store: &Store,
    stream: &StreamName,
    show: &mut Show,
    now: WallTime,
) -> Result<bool, Failed> {
    if later(show.ends(), QUIET) > now {
        return Ok(false);
    }
    adopt(store, stream, show, None).await?;
    // Somebody writes it after all.
    if later(show.ends(), QUIET) > now {
        return Ok(false);
    }
    store_closed(store, stream, show).await?;
    Ok(true)
}

async fn store_closed(store: &Store, stream: &StreamName, show: &mut Show) -> Result<(), Failed> {
    show.end();
    for put in manifests::all(stream, show) {
        store.put(&put).await?;
    }
    store.put(&manifests::record(stream, show)).await?;
    tracing::info!(%stream, show = %show.first(), "a show that broke off is closed");
    Ok(())
}

/// Takes what is stored beyond what the record knows into it, up to `end`: it is written behind.
async fn adopt(
    store: &Store,
    stream: &StreamName,
    show: &mut Show,
    end: Option<SegmentNumber>,
) -> Result<(), Failed> {
    // A rendition may be behind the others.
    let known = SegmentNumber::new(show.offered().end);
    for rendition in show.renditions() {
        let found = store.segments_from(stream, &rendition, known).await?;
        for number in found {
            if end.is_none_or(|end| number < end) {
                show.adopt(&rendition, number);
            }
        }
    }
    Ok(())
}

/// The newest show of `stream`, if it broke off and a broadcast that begins with segment `first` goes on with it.
/// One that broke off and is not gone on with is closed.
pub(super) async fn last_open(
    store: &Store,
    stream: &StreamName,
    first: SegmentNumber,
    goes_on: bool,
) -> Option<Show> {
    match find_last_open(store, stream, first, goes_on).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%stream, %error, "the show before this one is closed later");
            None
        }
    }
}

async fn find_last_open(
    store: &Store,
    stream: &StreamName,
    first: SegmentNumber,
    goes_on: bool,
) -> Result<Option<Show>, Failed> {
    let shows = store.shows(stream).await?;
    let Some(last) = shows.into_iter().rfind(|show| *show < first) else {
        return Ok(None);
    };
    let key = ObjectKey::new(stream.clone(), Item::Show(last));
    let found = super::read(store, &key).await?;
    let Some((mut show, _)) = found.filter(|(show, _)| !show.is_ended()) else {
        return Ok(None);
    };
    adopt(store, stream, &mut show, Some(first)).await?;
    let is_near = show.offered().end.saturating_add(MAX_RESUMED_SEGMENTS) >= first.get();
    if goes_on && is_near {
        return Ok(Some(show));
    }
    store_closed(store, stream, &mut show).await?;
    Ok(None)
}

/// Removes `show`, whatever a live playlist does not name; whether all of it is gone.
async fn remove(
    store: &Store,
    stream: &StreamName,
    show: &mut Show,
    next: Option<SegmentNumber>,
) -> Result<bool, Failed> {
    let key = |item| ObjectKey::new(stream.clone(), item);
    for manifest in manifests::keys(stream, show) {
        store.delete(vec![manifest]).await?;
    }
    let numbers = show.unswept().start..show.offered().end;
    let mut end = numbers.end;
    for rendition in show.renditions() {
        let listed = store.first_listed(stream, &rendition).await?;
        let listed = listed
            .map(SegmentNumber::get)
            .filter(|n| numbers.contains(n));
        end = end.min(listed.unwrap_or(end));
    }
    let renditions = show.renditions();
    let inits: Vec<_> = show
        .init_segments()
        .map(|(name, period)| (name.clone(), period))
        .collect();
    while show.unswept().start < end {
        let step = step_of(show, end);
        show.withdraw_below(step.end);
        store.put(&manifests::record(stream, show)).await?;
        let segments = step.clone().flat_map(|number| {
            let number = SegmentNumber::new(number);
            let renditions = renditions.iter();
            renditions.map(move |name| Item::Segment(name.clone(), number))
        });
        store.delete(segments.map(key).collect()).await?;
        show.sweep_below(step.end);
    }
    if end < numbers.end {
        // The record stays, for the rest: the last list of a stream that nobody has published since.
        store.put(&manifests::record(stream, show)).await?;
        return Ok(false);
    }
    // A show that went on after a full record needs what began with it.
    let mut needed = Vec::new();
    if let Some(next) = next
        && let Some((next, _)) = super::read(store, &key(Item::Show(next))).await?
    {
        needed = next.init_segments().map(|(_, period)| period).collect();
    }
    let inits = inits
        .into_iter()
        .filter(|(_, period)| !needed.contains(period));
    let inits = inits.map(|(name, period)| key(Item::Init(name, period)));
    store.delete(inits.collect()).await?;
    store.delete(vec![key(Item::Show(show.first()))]).await?;
    Ok(true)
}

fn step_of(show: &Show, end: u64) -> Range<u64> {
    let start = show.unswept().start;
    start..end.min(start + STEP)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::{self, Put};

    const SECOND: Duration = Duration::from_secs(1);

    async fn memory() -> Store {
        let config = store::Config {
            url: "memory://".to_owned(),
            ..store::Config::default()
        };
        Store::open(config).await.expect("opens")
    }

    fn put(key: &str, body: String) -> Put {
        Put {
            key: key.parse().expect("a key"),
            body: Bytes::from(body).into(),
            content_type: "".into(),
            cache_control: "".into(),
        }
    }

    /// The record of a show of one rendition, and its objects.
    async fn fill(store: &Store, numbers: Range<u64>, known: u64, ended: bool) {
        let (first, end) = (numbers.start, numbers.end);
        let record = format!(
            "{{\"format\":\"headwater-show\",\"version\":1,\"first\":{first},\"from\":{first},\"end\":{known},\
             \"swept\":{first},\"begins\":\"\",\"ends\":\"\",\"ended\":{ended},\"segment_ms\":2000,\
             \"target_duration\":2,\"independent\":true,\"periods\":[{{\"period\":{first},\"first\":{first},\
             \"renditions\":[{{\"name\":\"v720\",\"video\":true,\"codecs\":\"avc1.64001F\",\"timescale\":90000,\
             \"frame\":[1,30],\"peak_bps\":1,\"average_bps\":1,\"stored\":[[{first},{known}]]}}]}}]}}"
        );
        let mut puts = vec![
            put(&format!("live/demo/show-{first}.json"), record),
            put(&format!("live/demo/v720/init-{first}.mp4"), String::new()),
        ];
        for number in first..end {
            puts.push(put(&format!("live/demo/v720/{number}.m4s"), String::new()));
        }
        for put in puts {
            store.put(&put).await.expect("stored");
        }
    }

    async fn keys(store: &Store) -> Vec<String> {
        let stream = "demo".parse().expect("a name");
        let keys = store.all(&stream).await;
        let mut keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    }

    fn now_number() -> u64 {
        u64::try_from(wall_now().as_micros()).expect("after 1970") / 2_000_000
    }

    #[tokio::test]
    async fn a_show_that_broke_off_is_closed_with_what_came_after_its_record() {
        let store = memory().await;
        let first = now_number() - 500;
        fill(&store, first..first + 30, first + 20, false).await;
        pass(&store, Keep::Forever, &|_| false, &mut Due::new()).await;
        let key = format!("live/demo/show-{first}.json")
            .parse()
            .expect("a key");
        let (show, _) = super::super::read(&store, &key)
            .await
            .expect("read")
            .expect("there");
        assert!(show.is_ended());
        assert_eq!(show.offered(), first..first + 30);
        let found = keys(&store).await;
        for name in ["show-{}.m3u8", "show-{}.mpd", "v720/show-{}.m3u8"] {
            let key = format!("live/demo/{}", name.replace("{}", &first.to_string()));
            assert!(found.contains(&key), "{key}");
        }
    }

    #[tokio::test]
    async fn what_was_kept_for_long_enough_goes_but_not_what_a_live_playlist_names() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 450, first + 450, true).await;
        let last = first + 447;
        let text = format!(
            "#EXTM3U\n#EXT-X-MAP:URI=\"init-{first}.mp4\"\n#EXTINF:2.0,\n{last}.m4s\n#EXT-X-ENDLIST\n"
        );
        let playlist = put("live/demo/v720/index.m3u8", text);
        store.put(&playlist).await.expect("stored");
        let mut due = Due::new();
        // Not yet.
        pass(&store, Keep::For(SECOND * 20_000), &|_| false, &mut due).await;
        assert_eq!(keys(&store).await.len(), 453);
        due.clear();
        // Somebody writes it.
        pass(&store, Keep::For(SECOND * 60), &|_| true, &mut due).await;
        assert_eq!(keys(&store).await.len(), 453);
        pass(&store, Keep::For(SECOND * 60), &|_| false, &mut due).await;
        let left = keys(&store).await;
        let segments = left.iter().filter(|key| key.ends_with(".m4s")).count();
        assert_eq!((segments, left.len()), (3, 6), "{left:?}");
        // The name is published again, and the list is another one.
        let stream: StreamName = "demo".parse().expect("a name");
        store.delete(vec![playlist.key]).await.expect("deleted");
        pass(&store, Keep::For(SECOND * 60), &|_| false, &mut due).await;
        assert_eq!(keys(&store).await, Vec::<String>::new(), "{stream}");
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_left_with_all_that_it_may_name() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 3, first + 3, true).await;
        let record = format!("live/demo/show-{first}.json");
        store
            .put(&put(
                &record,
                "{\"format\":\"other\",\"version\":1}".to_owned(),
            ))
            .await
            .expect("stored");
        pass(&store, Keep::For(SECOND), &|_| false, &mut Due::new()).await;
        assert_eq!(keys(&store).await.len(), 5);
    }
}
