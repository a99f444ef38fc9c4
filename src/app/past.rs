//! Reads from the store what a run that broke off left published of a stream.
//!
//! Enters: the store
//! Leaves: a [`Past`] for the packager that goes on
//! Never:  fails: what cannot be read is as if it were not there
//! Time:   none
//! Spec:   docs/resilience.md

use crate::id::StreamName;
use crate::media::{Item, ObjectKey};
use crate::package::Past;
use crate::package::hls;
use crate::store::{ReadFailed, Store};

/// What is left of `stream`; `None` if its last run came to its end, or nothing can be read.
pub(super) async fn read(store: &Store, stream: &StreamName) -> Option<Past> {
    try_read(store, stream).await.unwrap_or_else(|error| {
        tracing::warn!(%stream, %error, "what the last run listed is not listed any more");
        None
    })
}

async fn try_read(store: &Store, stream: &StreamName) -> Result<Option<Past>, ReadFailed> {
    let keys = store.keys(stream).await?;
    let mut listings = Vec::new();
    for key in &keys {
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
    for key in &keys {
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
