//! The one place that talks to object_store.
//!
//! Enters: keys and bytes
//! Leaves: the outcome of each operation, and errors in the words of the system
//! Never:  retries, order
//! Spec:   none

use std::error::Error as StdError;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload,
};

use super::probe::Conditional;
use super::queue::Put;
use crate::id::StreamName;
use crate::media::{ObjectKey, Payload};

/// The largest object that is read back. A segment has a few megabytes; what is larger was not
/// written by this program.
const MAX_OBJECT_BYTES: u64 = 64 * 1024 * 1024;

/// The most objects of one stream that are looked at, about a day of five renditions; beyond that a
/// folder is an archive that is not ours to tidy.
pub(crate) const MAX_LISTED: usize = 250_000;

/// A store of objects, of whichever kind.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// Whether it keeps Content-Type and Cache-Control. Folders do not, and refuse them.
    keeps_attributes: bool,
    conditional: Conditional,
}

impl Bucket {
    /// A bucket without conditional writes.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, keeps_attributes: bool) -> Self {
        Self {
            store,
            keeps_attributes,
            conditional: Conditional::Ignored,
        }
    }

    /// The same bucket, of which this is known.
    pub(crate) fn with_conditional(self, conditional: Conditional) -> Self {
        Self {
            conditional,
            ..self
        }
    }

    /// What it does with a condition.
    pub(crate) const fn conditional(&self) -> Conditional {
        self.conditional
    }

    /// Writes an object and returns its entity tag, if the store says it.
    pub(crate) async fn put(&self, put: &Put, mode: PutMode) -> Result<Option<String>, Error> {
        let mut attributes = Attributes::new();
        if self.keeps_attributes {
            attributes.insert(Attribute::ContentType, put.content_type.into());
            attributes.insert(Attribute::CacheControl, put.cache_control.into());
        }
        let options = PutOptions {
            attributes,
            mode,
            ..PutOptions::default()
        };
        let payload: PutPayload = put.body.pieces().iter().cloned().collect();
        let path = path_of(&put.key);
        let result = self.store.put_opts(&path, payload, options).await?;
        Ok(result.e_tag)
    }

    /// The entity tag of an object; `None` where there is none.
    pub(crate) async fn tag(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        match self.store.head(&path_of(key)).await {
            Ok(meta) => Ok(meta.e_tag),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The object, or `range` of it; `None` where there is none.
    pub(crate) async fn get(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<Payload>, Error> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(&path_of(key), options).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if found.range.end - found.range.start > MAX_OBJECT_BYTES {
            return Err(Error::Generic {
                store: "read",
                source: io::Error::from(io::ErrorKind::FileTooLarge).into(),
            });
        }
        Ok(Some(found.bytes().await?.into()))
    }

    /// Deletes the object; that there is none is no failure.
    pub(crate) async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        match self.store.delete(&path_of(key)).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Calls `each` with every object of `stream`, in no order; what has no name of ours is skipped.
    pub(crate) async fn list(
        &self,
        stream: &StreamName,
        mut each: impl FnMut(ObjectKey),
    ) -> Result<(), Error> {
        let folder = Path::from(ObjectKey::folder(stream));
        let mut listing = self.store.list(Some(&folder)).take(MAX_LISTED);
        while let Some(object) = listing.next().await {
            match object {
                Ok(object) => {
                    if let Ok(key) = object.location.as_ref().parse() {
                        each(key);
                    }
                }
                // Removed while it was listed.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn path_of(key: &ObjectKey) -> Path {
    Path::from(key.to_string())
}

/// What the system said, without the layers it was wrapped in.
pub(crate) fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
