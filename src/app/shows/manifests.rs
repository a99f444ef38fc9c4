//! The objects that a show consists of beside its segments.
//!
//! Enters: a [`Show`]
//! Leaves: its record and its manifests as objects to be stored
//! Never:  what is not stored
//! Time:   none
//! Spec:   docs/recordings.md

use bytes::Bytes;

use crate::id::StreamName;
use crate::media::{Item, ObjectKey};
use crate::package::show::{Show, Stretch};
use crate::serve::{cache, document};
use crate::store::Put;

/// The record of `show`.
pub(super) fn record(stream: &StreamName, show: &Show) -> Put {
    let lifetime = if show.is_ended() {
        cache::Lifetime::Kept
    } else {
        cache::Lifetime::Changing
    };
    put(stream, Item::Show(show.first()), show.to_record(), lifetime)
}

/// The manifests that play all of `show` from any server: what they name before what names them.
pub(super) fn all(stream: &StreamName, show: &Show) -> Vec<Put> {
    let Ok(stretch) = Stretch::whole(show) else {
        return Vec::new();
    };
    let first = show.first();
    let media = stretch.renditions().into_iter().map(|rendition| {
        let text = stretch.media_playlist(&rendition);
        (Item::ShowMedia(rendition, first), text)
    });
    let others = [
        (
            Item::ShowMultivariant(first),
            stretch.multivariant_playlist(&file(show)),
        ),
        (Item::ShowMpd(first), stretch.mpd()),
    ];
    let lifetime = cache::Lifetime::Kept;
    let puts = media.chain(others);
    puts.filter_map(|(item, text)| Some(put(stream, item, text?, lifetime)))
        .collect()
}

/// The keys of [`all`], what names others first.
pub(super) fn keys(stream: &StreamName, show: &Show) -> Vec<ObjectKey> {
    let first = show.first();
    let renditions = show.renditions().into_iter();
    let media = renditions.map(|rendition| Item::ShowMedia(rendition, first));
    let items = [Item::ShowMultivariant(first), Item::ShowMpd(first)];
    let items = items.into_iter().chain(media);
    items
        .map(|item| ObjectKey::new(stream.clone(), item))
        .collect()
}

/// What the media playlists of `show` are called, in the folders of their renditions.
pub(super) fn file(show: &Show) -> String {
    format!("show-{}.m3u8", show.first())
}

fn put(stream: &StreamName, item: Item, text: String, lifetime: cache::Lifetime) -> Put {
    Put {
        content_type: document::content_type(&item).into(),
        cache_control: lifetime.cache_control().into(),
        key: ObjectKey::new(stream.clone(), item),
        body: Bytes::from(text).into(),
    }
}
