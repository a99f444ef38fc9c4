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

use super::{manifests, tail};
use crate::app::clock::wall_now;
use crate::id::{PeriodId, RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::show::Show;
use crate::store::{Keep, ReadFailed, Store, WriteFailed};
use crate::time::WallTime;

/// For how long nothing may have been stored of a show before it counts as broken off.
const QUIET: Duration = Duration::from_secs(60);

/// How many numbers are removed between two versions of the record, and how often that at one look: so that one
/// show that says that it is very long does not keep the others waiting.
const STEP: u64 = 200;
const MAX_STEPS: usize = 50;

/// How long what a live playlist names is left alone: a list of a stream that is over stays as it is.
const LISTED_PAUSE: Duration = Duration::from_secs(600);

/// A hole that is longer than any of ours is not looked through for what the record does not know.
const MAX_HOLE: u64 = 10_000;

/// How far behind a broadcast that begins an earlier one may lie for it to be the same show: the longest that
/// publishers stay away without ending it.
const MAX_RESUMED_SEGMENTS: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Read(#[from] ReadFailed),
    #[error(transparent)]
    Write(#[from] WriteFailed),
}

/// When each show of a stream is to be looked at again.
pub(super) type Due = BTreeMap<SegmentNumber, WallTime>;

/// How a stream goes on here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    /// A broadcast adds to its newest show.
    pub(super) live: bool,
    /// What was made of it waits for the store, of whichever show.
    pub(super) draining: bool,
}

/// Looks after the shows of one stream.
pub(super) async fn look_after(
    store: &Store,
    keep: Keep,
    (stream, busy): (&StreamName, Busy),
    due: &mut Due,
) -> Result<(), Failed> {
    let shows = store.shows(stream).await?;
    due.retain(|first, _| shows.binary_search(first).is_ok());
    let now = wall_now();
    for (index, first) in shows.iter().enumerate() {
        let next = shows.get(index + 1).copied();
        if due.get(first).is_some_and(|due| *due > now) || (busy.live && next.is_none()) {
            continue;
        }
        let key = ObjectKey::new(stream.clone(), Item::Show(*first));
        let Some((mut show, _)) = super::read(store, &key).await? else {
            // Said once; it is looked at again after a restart.
            due.insert(*first, WallTime::from_micros(i64::MAX));
            continue;
        };
        if !show.is_ended()
            && (busy.draining || !close(store, stream, &mut show, (next, now)).await?)
        {
            continue;
        }
        let gone_at = match keep {
            Keep::For(keep) => later(show.ends(), keep),
            Keep::Window | Keep::Forever => WallTime::from_micros(i64::MAX),
        };
        if gone_at > now {
            due.insert(*first, gone_at);
            continue;
        }
        match remove(store, stream, &mut show, next).await? {
            Removed::All => {
                tracing::info!(%stream, show = %first, "removed: kept for long enough");
                due.remove(first);
            }
            Removed::Step => {}
            Removed::AllButListed => {
                due.insert(*first, later(now, LISTED_PAUSE));
            }
        }
    }
    Ok(())
}

fn later(time: WallTime, by: Duration) -> WallTime {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    WallTime::from_micros(time.as_micros().saturating_add(by))
}

/// Closes `show`, up to the `next` one, if nothing has been added to it for long; whether it is closed.
async fn close(
    store: &Store,
    stream: &StreamName,
    show: &mut Show,
    (next, now): (Option<SegmentNumber>, WallTime),
) -> Result<bool, Failed> {
    if later(show.ends(), QUIET) > now {
        return Ok(false);
    }
    let has_all = tail::adopt(store, stream, show, next).await?;
    // Somebody writes it after all.
    if later(show.latest(), QUIET) > now {
        return Ok(false);
    }
    if !has_all {
        // There is more than is taken in at one look.
        show.offer_all();
        store.put(&manifests::record(stream, show)).await?;
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
    let has_all = tail::adopt(store, stream, &mut show, Some(first)).await?;
    let is_near = show.offered().end.saturating_add(MAX_RESUMED_SEGMENTS) >= first.get();
    if goes_on && is_near {
        return Ok(Some(show));
    }
    if has_all {
        store_closed(store, stream, &mut show).await?;
    }
    Ok(None)
}

/// How much of a show is gone.
enum Removed {
    All,
    /// What is removed at one look.
    Step,
    /// All but what a live playlist names: the last one of a stream that nobody has published since.
    AllButListed,
}

/// Removes `show`, whatever a live playlist does not name.
async fn remove(
    store: &Store,
    stream: &StreamName,
    show: &mut Show,
    next: Option<SegmentNumber>,
) -> Result<Removed, Failed> {
    let key = |item| ObjectKey::new(stream.clone(), item);
    for manifest in manifests::keys(stream, show) {
        store.delete(vec![manifest]).await?;
    }
    let end = removable_end(store, stream, show).await?;
    let renditions = show.renditions();
    // Where two overlap, what both may offer goes with the later one.
    let own = next.map_or(u64::MAX, SegmentNumber::get);
    let mut steps = 0;
    while show.unswept().start < end && steps < MAX_STEPS {
        let step = step_of(show, end);
        let numbers = step.start..step.end.min(own);
        let segments = numbers.flat_map(|number| {
            let number = SegmentNumber::new(number);
            let renditions = renditions.iter();
            renditions.map(move |name| Item::Segment(name.clone(), number))
        });
        let segments: Vec<_> = segments.map(key).collect();
        let inits = show.withdraw_below(step.end);
        store.put(&manifests::record(stream, show)).await?;
        store.delete(segments).await?;
        remove_inits(store, stream, inits, next).await?;
        show.sweep_below(step.end);
        steps += 1;
    }
    let is_gone = show.unswept().start >= show.offered().end;
    let inits = show.init_segments();
    let inits = inits.map(|(name, period)| (name.clone(), period)).collect();
    if !is_gone || !remove_inits(store, stream, inits, next).await? {
        // The record stays, for the rest.
        store.put(&manifests::record(stream, show)).await?;
        let is_listed = is_gone || show.unswept().start >= end;
        return Ok(match is_listed {
            true => Removed::AllButListed,
            false => Removed::Step,
        });
    }
    store.delete(vec![key(Item::Show(show.first()))]).await?;
    Ok(Removed::All)
}

/// Removes init segments of a show whose segments are gone, but those that the `next` show goes on with, and those
/// that a live playlist names: the record after a full one is there later than the list. Whether none is left for
/// such a list.
async fn remove_inits(
    store: &Store,
    stream: &StreamName,
    inits: Vec<(RenditionName, PeriodId)>,
    next: Option<SegmentNumber>,
) -> Result<bool, Failed> {
    if inits.is_empty() {
        return Ok(true);
    }
    let key = |item| ObjectKey::new(stream.clone(), item);
    let next = match next {
        // One that cannot be read may name any of them.
        Some(next) => match super::read(store, &key(Item::Show(next))).await? {
            Some((next, _)) => Some(next),
            None => return Ok(true),
        },
        None => None,
    };
    let is_needed = |period: PeriodId| {
        let mut of_next = next.iter().flat_map(Show::init_segments);
        of_next.any(|(_, other)| other == period)
    };
    let inits = inits.into_iter().filter(|(_, period)| !is_needed(*period));
    let inits = inits.map(|(name, period)| key(Item::Init(name, period)));
    let (mut go, mut all_go) = (Vec::new(), true);
    for init in inits {
        match store.is_listed(&init).await? {
            true => all_go = false,
            false => go.push(init),
        }
    }
    store.delete(go).await?;
    Ok(all_go)
}

/// Up to which number `show` may go: what a live playlist lists stays, and what comes after it.
async fn removable_end(store: &Store, stream: &StreamName, show: &Show) -> Result<u64, ReadFailed> {
    let numbers = show.unswept().start..show.offered().end;
    let mut end = numbers.end;
    for rendition in show.renditions() {
        let listed = store.listed(stream, &rendition).await?;
        let (listed, last) = match listed {
            Some((first, last)) => (first.get(), last.get()),
            None => continue,
        };
        // A record that was full may end in the middle of the list, and the next one begin there.
        if listed < numbers.end && last >= numbers.start {
            end = end.min(listed.max(numbers.start));
        }
    }
    Ok(end)
}

/// The numbers that go next; none of a hole that is too long to be one of ours.
fn step_of(show: &Show, end: u64) -> Range<u64> {
    let mut start = show.unswept().start;
    if start >= show.offered().start {
        let next = show.next_stored(start).unwrap_or(end).min(end);
        if next > start.saturating_add(MAX_HOLE) {
            start = next;
        }
    }
    start..end.min(start.saturating_add(STEP))
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
            puts.push(put(&format!("live/demo/v720/{number}.m4s"), "x".to_owned()));
        }
        for put in puts {
            store.put(&put).await.expect("stored");
        }
    }

    /// Looks after the only stream once.
    async fn look(store: &Store, keep: Keep, live: bool) {
        let draining = false;
        look_at(store, keep, Busy { live, draining }).await;
    }

    async fn look_at(store: &Store, keep: Keep, busy: Busy) {
        let stream = "demo".parse().expect("a name");
        let mut due = Due::new();
        look_after(store, keep, (&stream, busy), &mut due)
            .await
            .expect("the store works");
    }

    async fn show(store: &Store, first: u64) -> Show {
        let key = format!("live/demo/show-{first}.json");
        let key = key.parse().expect("a key");
        let found = super::super::read(store, &key).await.expect("read");
        found.expect("there").0
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
        look(&store, Keep::Forever, false).await;
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
        // Not yet.
        look(&store, Keep::For(SECOND * 20_000), false).await;
        assert_eq!(keys(&store).await.len(), 453);
        // Somebody writes it.
        look(&store, Keep::For(SECOND * 60), true).await;
        assert_eq!(keys(&store).await.len(), 453);
        look(&store, Keep::For(SECOND * 60), false).await;
        let left = keys(&store).await;
        let segments = left.iter().filter(|key| key.ends_with(".m4s")).count();
        assert_eq!((segments, left.len()), (3, 6), "{left:?}");
        // The name is published again, and the list is another one.
        let stream: StreamName = "demo".parse().expect("a name");
        store.delete(vec![playlist.key]).await.expect("deleted");
        look(&store, Keep::For(SECOND * 60), false).await;
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
        look(&store, Keep::For(SECOND), false).await;
        assert_eq!(keys(&store).await.len(), 5);
    }

    #[tokio::test]
    async fn a_show_that_broke_off_ends_where_the_next_one_begins() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 30, first + 20, false).await;
        fill(&store, first + 35..first + 50, first + 40, false).await;
        look(&store, Keep::Forever, false).await;
        assert_eq!(show(&store, first).await.offered(), first..first + 30);
        let second = show(&store, first + 35).await;
        assert_eq!(second.offered(), first + 35..first + 50);
        assert!(second.is_ended() && show(&store, first).await.is_ended());
    }

    #[tokio::test]
    async fn what_a_live_playlist_lists_stays_though_a_record_was_full_in_the_middle_of_it() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 10, first + 10, true).await;
        fill(&store, first + 10..first + 17, first + 17, true).await;
        let listed: String = (first + 8..first + 16)
            .map(|number| format!("#EXTINF:2.0,\n{number}.m4s\n"))
            .collect();
        let text = format!("#EXTM3U\n{listed}#EXT-X-ENDLIST\n");
        let playlist = put("live/demo/v720/index.m3u8", text);
        store.put(&playlist).await.expect("stored");
        look(&store, Keep::For(SECOND * 60), false).await;
        let left = keys(&store).await;
        let segments: Vec<_> = left.iter().filter(|key| key.ends_with(".m4s")).collect();
        let expected: Vec<_> = (first + 8..first + 17)
            .map(|number| format!("live/demo/v720/{number}.m4s"))
            .collect();
        assert_eq!(segments, expected.iter().collect::<Vec<_>>());
    }

    /// A live playlist of `numbers`, whose init segment is that of the show `period`.
    async fn list(store: &Store, period: u64, numbers: Range<u64>) -> ObjectKey {
        let listed = numbers.map(|number| format!("#EXTINF:2.0,\n{number}.m4s\n"));
        let listed: String = listed.collect();
        let text =
            format!("#EXTM3U\n#EXT-X-MAP:URI=\"init-{period}.mp4\"\n{listed}#EXT-X-ENDLIST\n");
        let playlist = put("live/demo/v720/index.m3u8", text);
        store.put(&playlist).await.expect("stored");
        playlist.key
    }

    #[tokio::test]
    async fn an_init_segment_that_a_live_playlist_names_stays_while_the_next_record_is_missing() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 10, first + 10, true).await;
        let playlist = list(&store, first, first + 10..first + 16).await;
        let init = format!("live/demo/v720/init-{first}.mp4");
        for _ in 0..2 {
            look(&store, Keep::For(SECOND * 60), false).await;
            let left = keys(&store).await;
            assert!(left.contains(&init), "{left:?}");
            let segments = left.iter().filter(|key| key.ends_with(".m4s"));
            assert_eq!(segments.count(), 0, "{left:?}");
        }
        // Its record has stayed for it, and it goes with the list.
        store.delete(vec![playlist]).await.expect("deleted");
        look(&store, Keep::For(SECOND * 60), false).await;
        assert_eq!(keys(&store).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_the_next_show_offers_stays_though_this_one_reaches_into_it() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 30, first + 30, true).await;
        fill(&store, first + 20..first + 600, first + 600, true).await;
        look(&store, Keep::For(SECOND * 9_000), false).await;
        let left = keys(&store).await;
        let segments: Vec<_> = left.iter().filter(|key| key.ends_with(".m4s")).collect();
        assert_eq!(segments.len(), 580);
        let next = format!("live/demo/v720/{}.m4s", first + 20);
        assert_eq!(*segments[0], next);
        assert!(!left.contains(&format!("live/demo/show-{first}.json")));
    }

    #[tokio::test]
    async fn what_only_a_list_that_stays_keeps_is_not_looked_at_at_every_turn() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 10, first + 10, true).await;
        list(&store, first, first + 7..first + 10).await;
        let stream = "demo".parse().expect("a name");
        let mut due = Due::new();
        let busy = Busy::default();
        let keep = Keep::For(SECOND * 60);
        let looked = look_after(&store, keep, (&stream, busy), &mut due).await;
        looked.expect("the store works");
        let left = keys(&store).await;
        assert_eq!(left.len(), 3 + 3, "{left:?}");
        let at = due.get(&SegmentNumber::new(first)).expect("some time");
        assert!(*at > later(wall_now(), SECOND * 500), "{at}");
    }

    #[tokio::test]
    async fn an_init_segment_stays_for_a_next_record_that_cannot_be_read() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 10, first + 10, true).await;
        let next = format!("live/demo/show-{}.json", first + 10);
        let foreign = put(&next, "{\"format\":\"other\",\"version\":1}".to_owned());
        store.put(&foreign).await.expect("stored");
        look(&store, Keep::For(SECOND * 60), false).await;
        let init = format!("live/demo/v720/init-{first}.mp4");
        assert_eq!(keys(&store).await, [next, init]);
    }

    #[tokio::test]
    async fn init_segments_go_with_their_periods_though_one_look_is_not_enough() {
        let store = memory().await;
        let first = now_number() - 50_000;
        let firsts = [first, first + 8_000, first + 12_000];
        let periods = firsts.map(|first| {
            format!(
                "{{\"period\":{first},\"first\":{first},\"renditions\":[{{\"name\":\"v720\",\"video\":true,\
                 \"codecs\":\"avc1\",\"timescale\":90000,\"frame\":[1,30],\"peak_bps\":1,\
                 \"average_bps\":1,\"stored\":[[{first},{end}]]}}]}}",
                end = first + 1
            )
        });
        let record = format!(
            "{{\"format\":\"headwater-show\",\"version\":1,\"first\":{first},\"from\":{first},\"end\":{end},\
             \"swept\":{first},\"begins\":\"\",\"ends\":\"\",\"ended\":true,\"segment_ms\":2000,\
             \"target_duration\":2,\"independent\":true,\"periods\":[{}]}}",
            periods.join(","),
            end = first + 12_001,
        );
        let record = put(&format!("live/demo/show-{first}.json"), record);
        store.put(&record).await.expect("stored");
        for first in firsts {
            let init = put(&format!("live/demo/v720/init-{first}.mp4"), String::new());
            store.put(&init).await.expect("stored");
        }
        look(&store, Keep::For(SECOND), false).await;
        assert_eq!(show(&store, first).await.offered().start, first + 10_000);
        look(&store, Keep::For(SECOND), false).await;
        assert_eq!(keys(&store).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_show_that_something_may_still_be_added_to_is_not_closed() {
        let store = memory().await;
        let first = now_number() - 5_000;
        fill(&store, first..first + 30, first + 20, false).await;
        fill(&store, first + 40..first + 60, first + 50, false).await;
        let busy = |live, draining| look_at(&store, Keep::Forever, Busy { live, draining });
        busy(true, true).await;
        assert!(!show(&store, first).await.is_ended());
        // The newest one goes on, and nothing waits that the other one lacks.
        busy(true, false).await;
        assert!(show(&store, first).await.is_ended());
        assert!(!show(&store, first + 40).await.is_ended());
        // Its end waits for the store.
        busy(false, true).await;
        assert!(!show(&store, first + 40).await.is_ended());
        busy(false, false).await;
        assert!(show(&store, first + 40).await.is_ended());
    }

    #[tokio::test]
    async fn a_show_that_says_that_it_is_endless_is_left_after_some_steps() {
        let store = memory().await;
        let end = 120_000_000_000_u64;
        let record = format!(
            "{{\"format\":\"headwater-show\",\"version\":1,\"first\":0,\"from\":0,\"end\":{end},\"swept\":0,\
             \"begins\":\"\",\"ends\":\"\",\"ended\":true,\"segment_ms\":2000,\"target_duration\":2,\
             \"independent\":true,\"periods\":[{{\"period\":0,\"first\":0,\"renditions\":[{{\"name\":\"v720\",\
             \"video\":true,\"codecs\":\"avc1\",\"timescale\":90000,\"frame\":[1,30],\"peak_bps\":1,\
             \"average_bps\":1,\"stored\":[[5,7],[800000000,800000001],[800100000,{end}]],\
             \"odd\":[[{last},1,1]]}}]}}]}}",
            last = end - 1,
        );
        let record = put("live/demo/show-0.json", record);
        store.put(&record).await.expect("stored");
        look(&store, Keep::For(SECOND), false).await;
        let left = show(&store, 0).await;
        assert_eq!(left.offered().start, 800_100_000 + 48 * STEP);
    }
}
