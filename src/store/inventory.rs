//! Finds out what is stored of a stream, in a time that does not grow with its archive.
//!
//! Enters: a store, a stream
//! Leaves: its manifests, what they name, and every object from the oldest one that they name on
//! Never:  lists what is older than that, unless asked for all of it
//! Time:   none
//! Spec:   none
//!
//! Two round trips and a page or two of listing, for all renditions at once: a store lists by name, names of segments
//! are numbers of one length, and `init-…` and `index.m3u8` come after all digits.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use object_store::Error;

use super::bucket::Bucket;
use super::names::{first_number, last_number, named_by};
use crate::id::{RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};

/// More renditions than a ladder has.
const MAX_RENDITIONS: usize = 64;

/// What is stored of a stream, or will be before anything new.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    keys: BTreeSet<ObjectKey>,
    is_known: bool,
}

impl Inventory {
    pub(crate) const fn new(keys: BTreeSet<ObjectKey>, is_known: bool) -> Self {
        Self { keys, is_known }
    }

    /// Whether the store has said what it holds; if not, these are only the objects that wait to be stored.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.is_known
    }

    /// The objects: all manifests and init segments, and the media that is listed or newer.
    #[must_use]
    pub const fn keys(&self) -> &BTreeSet<ObjectKey> {
        &self.keys
    }

    /// The highest number of a segment; a broadcast that takes the name again begins after it.
    #[must_use]
    pub fn highest_segment(&self) -> Option<SegmentNumber> {
        last_number(&self.keys)
    }
}

/// The objects of one folder, and what its playlists name.
pub(crate) type Found = (
    BTreeSet<ObjectKey>,
    BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
);

/// Looks through the folder of `stream`.
///
/// # Errors
///
/// What the store said.
pub(crate) async fn take(bucket: &Bucket, stream: &StreamName) -> Result<Found, Error> {
    let (mut found, renditions) = bucket.children(stream).await?;
    // Records and manifests of shows name what lies beyond the window, and are not to be read one by one.
    let live = found.iter().filter(|key| !key.item.is_of_show());
    let top = live.cloned().map(|key| read(bucket, key));
    let top = try_join_all(top.collect::<Vec<_>>());
    let below = renditions.into_iter().take(MAX_RENDITIONS);
    let below = below.map(|rendition| rendition_of(bucket, stream, rendition));
    let below = try_join_all(below.collect::<Vec<_>>());
    let (top, below) = futures_util::future::try_join(top, below).await?;
    let mut named: BTreeMap<_, _> = top.into_iter().flatten().collect();
    for (keys, names) in below {
        found.extend(keys);
        named.extend(names);
    }
    Ok((found, named))
}

async fn rendition_of(
    bucket: &Bucket,
    stream: &StreamName,
    rendition: RenditionName,
) -> Result<Found, Error> {
    let playlist = ObjectKey::new(stream.clone(), Item::Media(rendition.clone()));
    let names: BTreeMap<_, _> = read(bucket, playlist).await?.into_iter().collect();
    let first = names.values().filter_map(first_number).min();
    let found = bucket.list_rendition(stream, &rendition, first).await?;
    Ok((found, names))
}

/// What the manifest `key` names; `None` where there is none.
async fn read(
    bucket: &Bucket,
    key: ObjectKey,
) -> Result<Option<(ObjectKey, BTreeSet<ObjectKey>)>, Error> {
    let text = bucket.get(&key, None).await?;
    Ok(text.map(|text| {
        let names = named_by(&key, &text.to_bytes());
        (key, names)
    }))
}
