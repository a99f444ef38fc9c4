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
//! is written on the condition that the one seen last is still there. Who loses looks what is there now, and
//! the queue tries again with what is then its newest.

use std::collections::BTreeMap;

use object_store::{Error, PutMode};
use tokio::sync::Mutex;

use super::bucket::Bucket;
use super::probe::{Conditional, version_of};
use super::queue::Put;
use crate::media::ObjectKey;

/// Writes for one broadcast.
#[derive(Debug)]
pub(crate) struct Guard {
    bucket: Bucket,
    /// The entity tags of the manifests as last seen; `None` where there was none.
    seen: Mutex<BTreeMap<ObjectKey, Option<String>>>,
}

impl Guard {
    pub(crate) fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            seen: Mutex::default(),
        }
    }

    /// Writes one object. At most one write per key is under way at a time.
    pub(crate) async fn put(&self, put: &Put) -> Result<(), Error> {
        let bare_tags = match self.bucket.conditional() {
            Conditional::Enforced { bare_tags } if put.key.item.is_manifest() => bare_tags,
            _ => return self.bucket.put(put, PutMode::Overwrite).await.map(drop),
        };
        let seen = self.seen.lock().await.get(&put.key).cloned();
        let seen = match seen {
            Some(seen) => seen,
            None => self.bucket.tag(&put.key).await?,
        };
        let mode = seen.map_or(PutMode::Create, |tag| {
            PutMode::Update(version_of(&tag, bare_tags))
        });
        match self.bucket.put(put, mode).await {
            Ok(tag) => {
                // A store that gives no tag with a write is asked before the next one.
                let mut seen = self.seen.lock().await;
                match tag {
                    Some(tag) => seen.insert(put.key.clone(), Some(tag)),
                    None => seen.remove(&put.key),
                };
                Ok(())
            }
            Err(error) => {
                self.seen.lock().await.remove(&put.key);
                Err(error)
            }
        }
    }
}
