//! What outlives the live window: finding it, adding to it and removing it, without listing all of it.
//!
//! Enters: streams, shows, keys
//! Leaves: names of what there is; the outcome of writes and deletions
//! Never:  a listing that grows with the archive: shows are listed, and what is newer than a given segment
//! Time:   none
//! Spec:   docs/recordings.md

use std::fmt;

use futures_util::StreamExt;
use futures_util::stream;
use object_store::PutMode;

use super::bucket::reason;
use super::names::named_by;
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
    For(std::time::Duration),
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

impl Store {
    /// The streams of which anything is stored.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn streams(&self) -> Result<Vec<StreamName>, ReadFailed> {
        let streams = self.bucket().streams().await;
        streams.map_err(|error| failed(&"the streams", &error))
    }

    /// Everything that is stored of `stream`.
    #[cfg(test)]
    pub(crate) async fn all(&self, stream: &StreamName) -> std::collections::BTreeSet<ObjectKey> {
        self.bucket().list(stream).await.unwrap_or_default()
    }

    /// The shows of `stream` that have a record, ascending.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn shows(&self, stream: &StreamName) -> Result<Vec<SegmentNumber>, ReadFailed> {
        let children = self.bucket().children(stream).await;
        let (keys, _) = children.map_err(|error| failed(&stream, &error))?;
        let show = |key: ObjectKey| match key.item {
            Item::Show(first) => Some(first),
            _ => None,
        };
        let mut shows: Vec<_> = keys.into_iter().filter_map(show).collect();
        shows.sort_unstable();
        Ok(shows)
    }

    /// The segments of `rendition` from `first` on that are stored, and no older ones.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn segments_from(
        &self,
        stream: &StreamName,
        rendition: &RenditionName,
        first: SegmentNumber,
    ) -> Result<Vec<SegmentNumber>, ReadFailed> {
        let keys = self.bucket().list_rendition(stream, rendition, Some(first));
        let keys = keys.await.map_err(|error| failed(&stream, &error))?;
        let number = |key: ObjectKey| match key.item {
            Item::Segment(_, number) if number >= first => Some(number),
            _ => None,
        };
        Ok(keys.into_iter().filter_map(number).collect())
    }

    /// The oldest segment that the stored live playlist of `rendition` names; `None` if it names none.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn first_listed(
        &self,
        stream: &StreamName,
        rendition: &RenditionName,
    ) -> Result<Option<SegmentNumber>, ReadFailed> {
        let key = ObjectKey::new(stream.clone(), Item::Media(rendition.clone()));
        let Some(text) = self.get(&key).await? else {
            return Ok(None);
        };
        let names = named_by(&key, &text.to_bytes());
        let number = |key: &ObjectKey| match key.item {
            Item::Segment(_, number) => Some(number),
            _ => None,
        };
        Ok(names.iter().filter_map(number).min())
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

fn failed(what: &impl fmt::Display, error: &object_store::Error) -> ReadFailed {
    ReadFailed::new(what.to_string(), reason(error))
}
