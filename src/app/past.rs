//! Reads from the store what a run that broke off left published of a stream.
//!
//! Enters: the store, and what it holds
//! Leaves: a [`Past`] for the packager that goes on
//! Never:  fails: what cannot be read is as if it were not there
//! Time:   none
//! Spec:   docs/resilience.md

use std::collections::BTreeSet;
use std::time::Duration;

use crate::app::shows;
use crate::id::StreamName;
use crate::media::{Item, ObjectKey};
use crate::package::Past;
use crate::package::hls;
use crate::store::{Inventory, ReadFailed, Store, Writers};

/// How long a broadcast waits for it: its first part is worth more than the end of the run before.
const LIMIT: Duration = Duration::from_secs(3);

/// What is left of `stream`, of which `inventory` is stored; `None` if its last run came to its end, or nothing can be read.
pub(super) async fn read(
    store: &Store,
    stream: &StreamName,
    inventory: &Inventory,
) -> Option<Past> {
    let error = match tokio::time::timeout(LIMIT, try_read(store, inventory.keys())).await {
        Ok(Ok(past)) => return past,
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(%stream, %error, "what the last run listed is not listed any more");
    None
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

async fn try_read(store: &Store, keys: &BTreeSet<ObjectKey>) -> Result<Option<Past>, ReadFailed> {
    let mut listings = Vec::new();
    for key in keys {
        if let Item::Media(name) = &key.item
            && let Some(text) = store.get(key).await?
        {
            let text = text.to_bytes();
            let listing = hls::parse(&String::from_utf8_lossy(&text));
            listings.extend(listing.map(|listing| (name.clone(), listing)));
        }
    }
    let Some(mut past) = Past::of(listings) else {
        return Ok(None);
    };
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
    Ok(Some(past))
}
