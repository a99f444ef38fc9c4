//! Finds out what is stored of a stream, in a time that does not grow with its archive.
//!
//! Enters: a store, a stream
//! Leaves: its manifests, what they name, and every object from the oldest one that they name on
//! Never:  lists what is older than that, unless asked for it; more folders, or objects, than are ours
//! Time:   none
//! Spec:   none
//!
//! Three round trips, the last for a page or two of listing, for all renditions at once: a store lists by name, names
//! of segments are numbers of one length, and `init-…` and `index.m3u8` come after all digits.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use object_store::Error;

use super::bucket::{Bucket, MAX_LISTED};
use super::names::{first_number, last_number, named_by};
use crate::id::{RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};

/// More renditions than a ladder has, and than a stream had in a while: so many of its folders are looked at.
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

    /// What several stores hold together; known where one has said it.
    pub(crate) fn of_all(each: impl Iterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for one in each {
            all.keys.extend(one.keys);
            all.is_known |= one.is_known;
        }
        all
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

/// Looks through the folder of `stream`: what its playlists list, and what is newer than that; and what is from
/// segment `from` on, if that is older.
///
/// # Errors
///
/// What the store said.
pub(crate) async fn take(
    bucket: &Bucket,
    stream: &StreamName,
    from: Option<SegmentNumber>,
) -> Result<Found, Error> {
    let (mut found, renditions) = children(bucket, stream).await?;
    let named = names(bucket, stream, (&found, &renditions)).await?;
    let first = |rendition: &RenditionName| {
        let playlist = ObjectKey::new(stream.clone(), Item::Media(rendition.clone()));
        first_number(named.get(&playlist)?)
    };
    // A rendition that there is no more has no playlist, and all that it ever had.
    let elsewhere = named.values().filter_map(first_number).min();
    let elsewhere = elsewhere.or_else(|| last_show(&found));
    let most = MAX_LISTED / renditions.len().max(1);
    let listed = renditions.iter().map(|rendition| {
        let first = first(rendition).or(elsewhere);
        let first = first.map(|first| from.map_or(first, |from| first.min(from)));
        bucket.list_rendition(stream, rendition, first, most)
    });
    for keys in try_join_all(listed.collect::<Vec<_>>()).await? {
        found.extend(keys);
    }
    Ok((found, named))
}

/// The objects of `stream` that belong to no rendition, and its renditions: not more than [`MAX_RENDITIONS`], those
/// first that the live multivariant playlist names.
async fn children(
    bucket: &Bucket,
    stream: &StreamName,
) -> Result<(BTreeSet<ObjectKey>, Vec<RenditionName>), Error> {
    let (found, mut renditions) = bucket.children(stream).await?;
    if renditions.len() <= MAX_RENDITIONS {
        return Ok((found, renditions));
    }
    tracing::debug!(%stream, folders = renditions.len(), limit = MAX_RENDITIONS,
        "more folders than renditions; some are not looked through for what no broadcast needs any more");
    let key = ObjectKey::new(stream.clone(), Item::Multivariant);
    let live = read(bucket, key).await?.map(|(_, names)| names);
    let live = live.unwrap_or_default();
    let is_live = |name: &RenditionName| {
        let playlist = Item::Media(name.clone());
        live.contains(&ObjectKey::new(stream.clone(), playlist))
    };
    renditions.sort_by_key(|name| !is_live(name));
    renditions.truncate(MAX_RENDITIONS);
    Ok((found, renditions))
}

/// The first segment of the newest show among `keys`.
fn last_show(keys: &BTreeSet<ObjectKey>) -> Option<SegmentNumber> {
    let show = |key: &ObjectKey| match key.item {
        Item::Show(first) => Some(first),
        _ => None,
    };
    keys.iter().filter_map(show).max()
}

/// What the live manifests of `stream` name.
///
/// # Errors
///
/// What the store said.
pub(crate) async fn named(
    bucket: &Bucket,
    stream: &StreamName,
) -> Result<BTreeMap<ObjectKey, BTreeSet<ObjectKey>>, Error> {
    let (found, renditions) = children(bucket, stream).await?;
    names(bucket, stream, (&found, &renditions)).await
}

async fn names(
    bucket: &Bucket,
    stream: &StreamName,
    (found, renditions): (&BTreeSet<ObjectKey>, &[RenditionName]),
) -> Result<BTreeMap<ObjectKey, BTreeSet<ObjectKey>>, Error> {
    // Records and manifests of shows name what lies beyond the window, and are not to be read one by one.
    let top = found.iter().filter(|key| !key.item.is_of_show()).cloned();
    let below = renditions.iter();
    let below = below.map(|name| ObjectKey::new(stream.clone(), Item::Media(name.clone())));
    let all = top.chain(below).map(|key| read(bucket, key));
    let all = try_join_all(all.collect::<Vec<_>>()).await?;
    Ok(all.into_iter().flatten().collect())
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
