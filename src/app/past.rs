//! Reads from the store what a run that broke off left published of a stream.
//!
//! Enters: the store, and what it holds
//! Leaves: a [`Past`] for the packager that goes on, and whether there may have been more than is stored
//! Never:  fails: what cannot be read is as if it were not there
//! Time:   none
//! Spec:   docs/resilience.md

use std::collections::BTreeSet;
use std::time::Duration;

use crate::app::shows;
use crate::id::{RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::Past;
use crate::package::hls::{self, Listing};
use crate::store::{Inventory, ReadFailed, Store, Writers};
use crate::time::WallTime;

/// How long a broadcast waits for it: its first part is worth more than the end of the run before.
const LIMIT: Duration = Duration::from_secs(3);

/// What is known of the last run.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// What it left published; nothing if it came to its end, or nothing can be read.
    pub(super) past: Option<Past>,
    /// Whether it is known to have come to its end, so that all that it published is stored.
    pub(super) has_ended: bool,
    /// The newest segment of which a playlist says when it was, and that.
    pub(super) dated: Option<(SegmentNumber, WallTime)>,
}

/// What is left of `stream`, of which `inventory` is stored.
pub(super) async fn read(store: &Store, stream: &StreamName, inventory: &Inventory) -> Left {
    let error = match tokio::time::timeout(LIMIT, try_read(store, inventory)).await {
        Ok(Ok(left)) => return left,
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(%stream, %error, "what the last run listed is not listed any more");
    Left::default()
}

/// Tells `writers` where what is recorded ends of a stream of which `inventory` is stored, as far as that can be
/// said: of what comes after it nothing is kept.
pub(super) async fn tell_recorded(store: &Store, inventory: &Inventory, writers: &Writers) {
    let each = store.each();
    let told = each
        .iter()
        .zip(writers.each())
        .map(async |(store, writer)| {
            let read = shows::recorded_end(store, inventory.keys());
            if let Ok(Some(end)) = tokio::time::timeout(LIMIT, read).await {
                writer.recorded_below(end);
            }
        });
    futures_util::future::join_all(told).await;
}

async fn try_read(store: &Store, inventory: &Inventory) -> Result<Left, ReadFailed> {
    let keys = inventory.keys();
    let (mut listings, mut is_whole_all) = (Vec::new(), true);
    for key in keys {
        if let Item::Media(name) = &key.item
            && let Some(text) = store.get(key).await?
        {
            let text = text.to_bytes();
            let text = String::from_utf8_lossy(&text);
            let listing = hls::parse(&text);
            if !is_whole(&text, listing.is_some()) {
                is_whole_all = false;
                tracing::warn!(%key, "this playlist was cut short, or is another program's: \
                    what it listed and cannot be read is gone on without");
            }
            listings.extend(listing.map(|listing| (name.clone(), listing)));
        }
    }
    let dated = listings
        .iter()
        .filter_map(|(_, listing)| listing.last_time());
    let dated = dated.max();
    let has_ended = is_whole_all && has_ended(&listings, inventory.highest_segment());
    let past = match Past::of(listings) {
        Some(past) => Some(complete(past, store, keys).await?),
        None => None,
    };
    Ok(Left {
        past,
        has_ended,
        dated,
    })
}

/// Whether the run that left `listings` came to its end: they all say so, and nothing newer is stored than they
/// list. `highest` is the newest.
fn has_ended(listings: &[(RenditionName, Listing)], highest: Option<SegmentNumber>) -> bool {
    let end = listings.iter().map(|(_, listing)| listing.end).max();
    let is_listed = highest.is_none_or(|highest| Some(highest) < end);
    is_listed && listings.iter().all(|(_, listing)| listing.ended)
}

/// Adds what is stored of its renditions to `past`.
async fn complete(
    mut past: Past,
    store: &Store,
    keys: &BTreeSet<ObjectKey>,
) -> Result<Past, ReadFailed> {
    for key in keys {
        let Item::Init(name, period) = &key.item else {
            continue;
        };
        if *period != past.period() {
            continue;
        }
        let Some(init) = store.get(key).await? else {
            continue;
        };
        let first = past.first();
        let number = |key: &ObjectKey| match &key.item {
            Item::Segment(of, number) if of == name && *number >= first => Some(*number),
            _ => None,
        };
        past.add(
            name.clone(),
            init.to_bytes(),
            keys.iter().filter_map(number),
        );
    }
    Ok(past)
}

/// Whether `playlist`, of which what it lists could be read if `is_read`, is as somebody wrote it who knows ours,
/// though it need not list anything yet.
fn is_whole(playlist: &str, is_read: bool) -> bool {
    let lists = || playlist.lines().any(|line| line.ends_with(".m4s"));
    playlist.starts_with("#EXTM3U\n") && playlist.ends_with('\n') && (is_read || !lists())
}

#[cfg(test)]
mod tests {
    use super::{SegmentNumber, hls};

    fn is_whole(playlist: &str) -> bool {
        super::is_whole(playlist, hls::parse(playlist).is_some())
    }

    #[test]
    fn a_playlist_that_was_cut_or_is_not_ours_is_not_whole() {
        let ours = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n\
            #EXT-X-MAP:URI=\"init-7.mp4\"\n#EXTINF:2.000000,\n7.m4s\n";
        assert!(is_whole(ours));
        let (empty, _) = ours.split_once("#EXTINF").expect("a segment");
        assert!(is_whole(empty), "nothing is listed yet");
        let (head, _) = ours.split_once("X-TARGET").expect("a head");
        for text in [
            "",
            "<html>\n",
            "#EXTM3U\n7.m4s\n",
            ours.trim_end_matches("4s\n"),
            head,
            &ours.replace("7.m4s", "9.m4s"),
        ] {
            assert!(!is_whole(text), "{text}");
        }
    }

    /// The numbers that such a run used last are known: none is used again by one that goes on.
    #[test]
    fn a_run_has_ended_whose_playlists_all_say_so_and_list_the_newest() {
        let of = |name: &str, number: u64, end: &str| {
            let text = format!(
                "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:{number}\n#EXT-X-MAP:URI=\"init-{number}.mp4\"\n\
                 #EXTINF:2.000000,\n{number}.m4s\n{end}"
            );
            (
                name.parse().expect("valid"),
                hls::parse(&text).expect("ours"),
            )
        };
        let has_ended = |listings: &[_], highest: Option<u64>| {
            super::has_ended(listings, highest.map(SegmentNumber::new))
        };
        let ended = of("v1080", 7, "#EXT-X-ENDLIST\n");
        let alone = std::slice::from_ref(&ended);
        assert!(has_ended(alone, Some(7)));
        assert!(has_ended(&[], None), "there was none");
        assert!(
            !has_ended(&[], Some(7)),
            "it died before its first playlist"
        );
        assert!(!has_ended(alone, Some(8)));
        let open = of("v720", 9, "");
        assert!(!has_ended(&[ended, open], Some(9)));
    }
}
