//! What is kept of broadcasts: recording it, finding it again, closing it and removing it.
//!
//! Enters: what is published and stored; who asks for a stretch; the time
//! Leaves: records of shows in the store, manifests of any stretch of them
//! Never:  media: segments stay where they are
//! Time:   the wall clock, against that of the media
//! Spec:   docs/recordings.md

mod held;
mod library;
mod manifests;
mod reaching;
mod recording;
mod sweep;
mod tail;
mod upkeep;

pub(super) use library::{Library, MAX_BYTES};
pub(super) use recording::Recording;
pub(super) use upkeep::Upkeep;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::id::{RenditionName, SegmentNumber};
use crate::media::{Item, ObjectKey};
use crate::package::show::Show;
use crate::store::{ReadFailed, Store};

/// Where the newest show among `keys` ends; `None` where there is none, or it goes on, or cannot be read.
pub(super) async fn recorded_end(
    store: &Store,
    keys: &BTreeSet<ObjectKey>,
) -> Option<SegmentNumber> {
    let shows = keys.iter().filter(|key| matches!(key.item, Item::Show(_)));
    let (show, _) = read(store, shows.max()?).await.ok()??;
    show.is_ended()
        .then(|| SegmentNumber::new(show.offered().end))
}

/// The segments with `numbers` of the renditions `names`.
fn segments(numbers: Range<u64>, names: &[RenditionName]) -> impl Iterator<Item = Item> {
    numbers.flat_map(move |number| {
        let number = SegmentNumber::new(number);
        let names = names.iter();
        names.map(move |name| Item::Segment(name.clone(), number))
    })
}

/// The show whose record is `key`, and how many bytes that has; `None` where there is none, or none that can be
/// read, of which the log says what is wrong.
async fn read(store: &Store, key: &ObjectKey) -> Result<Option<(Show, u64)>, ReadFailed> {
    let found = store.get(key).await.inspect_err(|error| {
        tracing::warn!(%key, %error, "a record cannot be read");
    })?;
    let Some(text) = found else {
        return Ok(None);
    };
    let text = text.to_bytes();
    match Show::from_record(&text) {
        Ok(show) => Ok(Some((show, text.len() as u64))),
        Err(error) => {
            tracing::warn!(%key, %error, "this record is left as it is, and what it names is not served");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
