//! Puts manifests so that one that lost its race never overwrites a newer one.
//!
//! Enters: objects to be written
//! Leaves: the same in the bucket
//! Never:  a manifest over one that it does not know, where the store can tell
//! Time:   none
//! Spec:   none
//!
//! An attempt that was given up after its time limit may still be carried out, after the next attempt or the next
//! version. Segments are the same whenever they are written; of manifests the older one would win. So each
//! is written on the condition that the one seen last is still there. Who loses looks what is there now: if that lists
//! as much as his own, another packager of the same input was faster, and it stays. Segments are written once, so
//! that what one of two packagers has stored does not change when the other comes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use object_store::{Error, PutMode};
use tokio::sync::Mutex;

use super::bucket::Bucket;
use super::names::{has_ended, last_listed, named_by};
use super::probe::{Conditional, version_of};
use super::queue::Put;
use crate::media::{Item, ObjectKey};

/// An entity tag; `None` where there is no object.
type Tag = Option<String>;

/// What a manifest names.
pub(crate) type Names = BTreeSet<ObjectKey>;

/// Writes for one broadcast.
#[derive(Debug)]
pub(crate) struct Guard {
    bucket: Bucket,
    /// The entity tags of the manifests as last seen.
    seen: Mutex<BTreeMap<ObjectKey, Tag>>,
}

impl Guard {
    pub(crate) fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            seen: Mutex::default(),
        }
    }

    /// Writes one object. At most one write per key is under way at a time. A playlist of which somebody else has
    /// stored a newer version is not written: what that names is returned.
    pub(crate) async fn put(&self, put: &Put) -> Result<Option<Names>, Error> {
        let Conditional::Enforced { bare_tags } = self.bucket.conditional().await? else {
            self.bucket.put(put, PutMode::Overwrite).await?;
            return Ok(None);
        };
        if !put.key.item.is_manifest() {
            return self.put_once(put).await;
        }
        let seen = self.seen.lock().await.remove(&put.key);
        if let Some(seen) = seen {
            match self.put_over(put, seen, bare_tags).await {
                Err(Error::Precondition { .. } | Error::AlreadyExists { .. }) => {}
                written => return written.map(|()| None),
            }
        }
        let (stored, tag) = self.look(&put.key).await?;
        if let Some(stored) = stored.filter(|stored| is_overtaken(put, stored)) {
            self.seen.lock().await.insert(put.key.clone(), tag);
            return Ok(Some(named_by(&put.key, &stored)));
        }
        self.put_over(put, tag, bare_tags).await.map(|()| None)
    }

    /// Media is the same whoever writes it, and stays as it was written first.
    async fn put_once(&self, put: &Put) -> Result<Option<Names>, Error> {
        match self.bucket.put(put, PutMode::Create).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a manifest if the one with `tag` is still there, or still none.
    async fn put_over(&self, put: &Put, tag: Tag, bare_tags: bool) -> Result<(), Error> {
        let mode = tag.map_or(PutMode::Create, |tag| {
            PutMode::Update(version_of(&tag, bare_tags))
        });
        // A store that gives no tag with a write is asked before the next one.
        if let Some(tag) = self.bucket.put(put, mode).await? {
            self.seen.lock().await.insert(put.key.clone(), Some(tag));
        }
        Ok(())
    }

    /// What is stored of a manifest: of a playlist the text, and the tag.
    async fn look(&self, key: &ObjectKey) -> Result<(Option<Bytes>, Tag), Error> {
        if !matches!(key.item, Item::Media(_)) {
            return Ok((None, self.bucket.tag(key).await?));
        }
        let found = self.bucket.get_tagged(key, None).await?;
        Ok(found.map_or((None, None), |(text, tag)| (Some(text.to_bytes()), tag)))
    }
}

/// Whether the `stored` version of a playlist lists as much as the one that is to be written, or more.
pub(super) fn is_overtaken(put: &Put, stored: &[u8]) -> bool {
    let age = |text: &[u8]| (last_listed(&put.key, text), has_ended(text));
    let (stored, ours) = (age(stored), age(&put.body.to_bytes()));
    stored.0.is_some() && stored >= ours
}
