//! What outlives the live window: finding it, adding to it and removing it, without listing all of it.
//!
//! Enters: streams, shows, keys
//! Leaves: names of what there is; the outcome of writes and deletions
//! Never:  a listing that grows with the archive: streams and shows are listed, and nothing else
//! Time:   none
//! Spec:   docs/recordings.md

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream;
use object_store::PutMode;

use super::bucket::reason;
use super::names::{first_number, last_number, named_by};
use super::open::{ReadFailed, Store};
use super::queue::Put;
use crate::id::{RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};

/// How long segments stay after they left the live window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// They go at once.
    #[default]
    Window,
    /// This long, then the oldest go.
    For(Duration),
    /// Until somebody else removes them.
    Forever,
}

impl Keep {
    /// Whether anything is kept that has left the window.
    #[must_use]
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Window)
    }
}

/// How often [`Store::drained`] looks.
const DRAIN_LOOK: Duration = Duration::from_millis(200);

/// Deletions under way at once.
const MAX_DELETIONS: usize = 16;

/// An object could not be written or deleted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempted} {key} in the store: {reason}")]
pub struct WriteFailed {
    attempted: &'static str,
    key: ObjectKey,
    reason: String,
}

/// What is said and done here concerns this store alone, unless it says otherwise: see [`Store::each`].
impl Store {
    /// The streams of which anything is stored.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn streams(&self) -> Result<Vec<StreamName>, ReadFailed> {
        let streams = self.bucket().streams().await;
        streams.map_err(|error| ReadFailed::of(&"the streams", &error))
    }

    /// Everything that is stored of `stream`.
    #[cfg(test)]
    pub(crate) async fn all(&self, stream: &StreamName) -> BTreeSet<ObjectKey> {
        self.bucket().list(stream).await.unwrap_or_default()
    }

    /// The shows of `stream` that have a record in either store, ascending.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when no store could say.
    pub async fn shows(&self, stream: &StreamName) -> Result<Vec<SegmentNumber>, ReadFailed> {
        let Some(second) = self.second.as_deref() else {
            return self.shows_here(stream).await;
        };
        let both = join(self.shows_here(stream), second.shows_here(stream));
        match both.await {
            (Ok(mut shows), Ok(others)) => {
                shows.extend(others);
                shows.sort_unstable();
                shows.dedup();
                Ok(shows)
            }
            (Ok(shows), Err(_)) | (Err(_), Ok(shows)) => Ok(shows),
            (Err(error), Err(_)) => Err(error),
        }
    }

    async fn shows_here(&self, stream: &StreamName) -> Result<Vec<SegmentNumber>, ReadFailed> {
        let children = self.bucket().children(stream).await;
        let (keys, _) = children.map_err(|error| ReadFailed::of(&stream, &error))?;
        let show = |key: ObjectKey| match key.item {
            Item::Show(first) => Some(first),
            _ => None,
        };
        let mut shows: Vec<_> = keys.into_iter().filter_map(show).collect();
        shows.sort_unstable();
        Ok(shows)
    }

    /// The oldest and the newest segment that the live playlist of `rendition` names, as it is stored, or in any
    /// version that waits here to be; `None` if it names none.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn listed(
        &self,
        stream: &StreamName,
        rendition: &RenditionName,
    ) -> Result<Option<(SegmentNumber, SegmentNumber)>, ReadFailed> {
        let names = self.named_by_live(stream, rendition).await?;
        Ok(first_number(&names).zip(last_number(&names)))
    }

    /// Whether the live playlist of its rendition names `key`, as it is stored, or in any version that waits here to
    /// be: then it may not be removed.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn is_listed(&self, key: &ObjectKey) -> Result<bool, ReadFailed> {
        let Some(rendition) = key.item.rendition() else {
            return Ok(false);
        };
        let names = self.named_by_live(&key.stream, rendition).await?;
        Ok(names.contains(key))
    }

    async fn named_by_live(
        &self,
        stream: &StreamName,
        rendition: &RenditionName,
    ) -> Result<BTreeSet<ObjectKey>, ReadFailed> {
        let key = ObjectKey::new(stream.clone(), Item::Media(rendition.clone()));
        // What waits comes after what is stored, which players still have.
        let text = self.bucket().get(&key, None).await;
        let text = text.map_err(|error| ReadFailed::of(&key, &error))?;
        let stored = text.map(|text| named_by(&key, &text.to_bytes()));
        let mut names = stored.unwrap_or_default();
        names.extend(self.named_here(&key));
        Ok(names)
    }

    /// What the versions of the manifest `key` name that were stored by this process, or wait to be.
    fn named_here(&self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let Some(shared) = self.writing(&key.stream) else {
            return BTreeSet::new();
        };
        let state = shared.lock();
        let here = state.queue.named().filter(|(of, _)| *of == key);
        here.flat_map(|(_, names)| names.iter().cloned()).collect()
    }

    /// Whether anything of `stream` waits here to be stored, or may: its broadcasts may be over.
    #[must_use]
    pub fn is_draining(&self, stream: &StreamName) -> bool {
        // Until it has learned what is stored, it does not know what was left in the spool.
        self.writing(stream).is_some_and(|shared| {
            let state = shared.lock();
            !state.has_ended && (!*shared.learned.borrow() || !state.queue.is_flushed())
        })
    }

    /// Waits until what waits here now of `stream` is stored or given up, however long that takes.
    pub async fn drained(&self, stream: &StreamName) {
        let Some(shared) = self.writing(stream) else {
            return;
        };
        let mut learned = shared.learned.subscribe();
        if learned.wait_for(|learned| *learned).await.is_err() {
            return;
        }
        let end = shared.lock().queue.end();
        loop {
            {
                let state = shared.lock();
                if state.has_ended || !state.queue.waits_before(end) {
                    return;
                }
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Writes an object at once, and over whatever is there.
    ///
    /// # Errors
    ///
    /// [`WriteFailed`]
    pub async fn put(&self, put: &Put) -> Result<(), WriteFailed> {
        let written = self.bucket().put(put, PutMode::Overwrite).await;
        written.map(drop).map_err(|error| WriteFailed {
            attempted: "write",
            key: put.key.clone(),
            reason: reason(&error),
        })
    }

    /// Deletes objects; that one is not there is no failure.
    ///
    /// # Errors
    ///
    /// [`WriteFailed`] of the first that could not be deleted; the others may be or not.
    pub async fn delete(&self, keys: Vec<ObjectKey>) -> Result<(), WriteFailed> {
        let delete = |key: ObjectKey| async move {
            let deleted = self.bucket().delete(&key).await;
            deleted.map_err(|error| WriteFailed {
                attempted: "delete",
                reason: reason(&error),
                key,
            })
        };
        let mut deletions =
            stream::iter(keys.into_iter().map(delete)).buffer_unordered(MAX_DELETIONS);
        while let Some(deleted) = deletions.next().await {
            deleted?;
        }
        Ok(())
    }
}
