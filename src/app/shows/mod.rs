//! What is kept of broadcasts: recording it, finding it again, closing it and removing it.
//!
//! Enters: what is published and stored; who asks for a stretch; the time
//! Leaves: records of shows in the store, manifests of any stretch of them
//! Never:  media: segments stay where they are
//! Time:   the wall clock, against that of the media
//! Spec:   docs/recordings.md

mod library;
mod manifests;
mod recording;
mod sweep;

pub(super) use library::Library;
pub(super) use recording::Recording;
pub(super) use sweep::run as sweep;

use crate::media::ObjectKey;
use crate::package::show::Show;
use crate::store::{ReadFailed, Store};

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
