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
    look_after(store, keep, (&stream, &|| busy), &mut due)
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
    let text = format!("#EXTM3U\n#EXT-X-MAP:URI=\"init-{period}.mp4\"\n{listed}#EXT-X-ENDLIST\n");
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
    let keep = Keep::For(SECOND * 60);
    let looked = look_after(&store, keep, (&stream, &Busy::default), &mut due).await;
    looked.expect("the store works");
    let left = keys(&store).await;
    assert_eq!(left.len(), 3 + 3, "{left:?}");
    let at = due.get(&SegmentNumber::new(first)).expect("some time");
    assert!(*at > wall_now().after(SECOND * 500), "{at}");
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
