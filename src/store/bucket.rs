//! The one place that talks to object_store.
//!
//! Enters: keys and bytes
//! Leaves: the outcome of each operation, and errors in the words of the system
//! Never:  retries, order
//! Spec:   none

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, PutPayload,
};
use tokio::sync::{OnceCell, Semaphore};

use super::config::Config;
use super::open;
use super::probe::Conditional;
use super::queue::Put;
use crate::id::{RenditionName, SegmentNumber, StreamName};
use crate::media::{ObjectKey, Payload};

/// The largest object that is read back. A segment has a few megabytes; what is larger was not
/// written by this program.
const MAX_OBJECT_BYTES: u64 = 64 * 1024 * 1024;

/// The most objects of one stream that are looked at, about a day of five renditions; beyond that a
/// folder is an archive that is not ours to tidy.
pub(crate) const MAX_LISTED: usize = 250_000;

/// The most objects that are written to a store at once, of all streams together. Segments lie on one grid, so that
/// those of every stream are complete at the same moment.
pub(crate) const MAX_UPLOADS: usize = 64;

/// What is written to a folder at once, where that takes joining: some pictures.
const BLOCK_BYTES: usize = 128 * 1024;

/// How long a write may go on in a service after its client has gone: they end their own work within a minute.
const MAX_LATENESS: Duration = Duration::from_secs(120);

/// A store of objects, of whichever kind.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// Whether it keeps Content-Type and Cache-Control. Folders do not, and refuse them.
    keeps_attributes: bool,
    /// What it does with a condition, once it was tried.
    conditional: Arc<OnceCell<Conditional>>,
    /// Where it is, for one that was away when it was opened and is tried when it is back.
    config: Option<Arc<Config>>,
    uploads: Arc<Semaphore>,
    /// Whether a network lies between.
    is_remote: bool,
}

impl Bucket {
    /// A bucket of this machine, without conditional writes.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, keeps_attributes: bool) -> Self {
        Self {
            store,
            keeps_attributes,
            conditional: Arc::new(OnceCell::new_with(Some(Conditional::Ignored))),
            config: None,
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            is_remote: false,
        }
    }

    /// The same bucket across a network, of which this is known.
    pub(crate) fn remote(self, conditional: Conditional) -> Self {
        Self {
            conditional: Arc::new(OnceCell::new_with(Some(conditional))),
            is_remote: true,
            ..self
        }
    }

    /// The same bucket, of which nothing is known: it is away. It is tried before anything is written there.
    pub(crate) fn untried(self, config: Config) -> Self {
        Self {
            conditional: Arc::default(),
            config: Some(Arc::new(config)),
            is_remote: true,
            ..self
        }
    }

    /// Whether it keeps Content-Type and Cache-Control.
    pub(crate) const fn keeps_attributes(&self) -> bool {
        self.keeps_attributes
    }

    /// How long a write that was given up may still be carried out.
    pub(crate) const fn lateness(&self) -> Duration {
        if self.is_remote {
            MAX_LATENESS
        } else {
            Duration::ZERO
        }
    }

    /// What it does with a condition. One that was away is tried now, and fails as long as it is, or if it cannot
    /// be used.
    pub(crate) async fn conditional(&self) -> Result<Conditional, Error> {
        let tried = self.conditional.get_or_try_init(|| async {
            let Some(config) = &self.config else {
                return Ok(Conditional::Ignored);
            };
            let tried = open::try_out(config, self).await;
            tried.map_err(|error| Error::Generic {
                store: "trial",
                source: error.into(),
            })
        });
        tried.await.copied()
    }

    /// Writes an object and returns its entity tag, if the store says it.
    pub(crate) async fn put(&self, put: &Put, mode: PutMode) -> Result<Option<String>, Error> {
        self.conditional().await?;
        let mut attributes = Attributes::new();
        if self.keeps_attributes {
            attributes.insert(Attribute::ContentType, put.content_type.to_string().into());
            attributes.insert(
                Attribute::CacheControl,
                put.cache_control.to_string().into(),
            );
        }
        let options = PutOptions {
            attributes,
            mode,
            ..PutOptions::default()
        };
        let payload: PutPayload = match self.is_remote {
            true => put.body.pieces().iter().cloned().collect(),
            false => blocks(put.body.pieces()).collect(),
        };
        let path = path_of(&put.key);
        let _place = self.uploads.acquire().await;
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
        let found = self.get_tagged(key, range).await?;
        Ok(found.map(|(body, _)| body))
    }

    /// The same with its entity tag, if the store says it.
    pub(crate) async fn get_tagged(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<(Payload, Option<String>)>, Error> {
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
        let tag = found.meta.e_tag.clone();
        Ok(Some((found.bytes().await?.into(), tag)))
    }

    /// Deletes the object; that there is none is no failure.
    pub(crate) async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.conditional().await?;
        match self.store.delete(&path_of(key)).await {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What it is on.
    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// The path of any object below `folder`.
    pub(crate) async fn first_below(&self, folder: &str) -> Result<Option<String>, Error> {
        let mut listing = self.store.list(Some(&Path::from(folder)));
        let found = listing.next().await.transpose()?;
        Ok(found.map(|object| object.location.to_string()))
    }

    /// The streams that have a folder.
    pub(crate) async fn streams(&self) -> Result<Vec<StreamName>, Error> {
        let folder = Path::from(ObjectKey::ROOT);
        let listed = match self.store.list_with_delimiter(Some(&folder)).await {
            Err(Error::NotFound { .. }) => return Ok(Vec::new()),
            listed => listed?,
        };
        let folders = listed.common_prefixes.into_iter();
        let names = folders.filter_map(|folder| folder.filename()?.parse().ok());
        Ok(names.collect())
    }

    /// The objects of `stream` that belong to no rendition, and the renditions that have a folder.
    pub(crate) async fn children(
        &self,
        stream: &StreamName,
    ) -> Result<(BTreeSet<ObjectKey>, Vec<RenditionName>), Error> {
        let folder = Path::from(ObjectKey::folder(stream));
        let listed = match self.store.list_with_delimiter(Some(&folder)).await {
            Err(Error::NotFound { .. }) => return Ok(Default::default()),
            listed => listed?,
        };
        let objects = listed.objects.into_iter();
        let keys = objects.filter_map(|object| object.location.as_ref().parse().ok());
        let folders = listed.common_prefixes.into_iter();
        let names = folders.filter_map(|folder| folder.filename()?.parse().ok());
        Ok((keys.collect(), names.collect()))
    }

    /// The objects of a rendition, at `most` so many: all but segments before `first`, or all.
    pub(crate) async fn list_rendition(
        &self,
        stream: &StreamName,
        rendition: &RenditionName,
        first: Option<SegmentNumber>,
        most: usize,
    ) -> Result<BTreeSet<ObjectKey>, Error> {
        let folder = Path::from(ObjectKey::folder(stream)).join(rendition.to_string());
        let listing = match first {
            // The name of the segment without its end comes right before it.
            Some(first) => {
                let before = folder.clone().join(first.to_string());
                self.store.list_with_offset(Some(&folder), &before)
            }
            None => self.store.list(Some(&folder)),
        };
        keys_of(listing, most).await
    }

    /// Every object of `stream`; what has no name of ours is skipped.
    pub(crate) async fn list(&self, stream: &StreamName) -> Result<BTreeSet<ObjectKey>, Error> {
        let folder = Path::from(ObjectKey::folder(stream));
        keys_of(self.store.list(Some(&folder)), MAX_LISTED).await
    }
}

/// `pieces` joined where they are small: a folder's client writes each by itself, and a segment has one for each sample.
fn blocks(pieces: &[Bytes]) -> impl Iterator<Item = Bytes> {
    let mut rest = pieces;
    std::iter::from_fn(move || {
        let (first, mut after) = rest.split_first()?;
        let mut len = first.len();
        while let Some((next, later)) = after.split_first()
            && len + next.len() <= BLOCK_BYTES
        {
            (len, after) = (len + next.len(), later);
        }
        let count = rest.len() - after.len();
        let (these, _) = rest.split_at(count);
        rest = after;
        Some(match these {
            [only] => only.clone(),
            several => several.concat().into(),
        })
    })
}

async fn keys_of(
    listing: BoxStream<'static, Result<ObjectMeta, Error>>,
    most: usize,
) -> Result<BTreeSet<ObjectKey>, Error> {
    let mut keys = BTreeSet::new();
    let mut listing = listing.take(most);
    while let Some(object) = listing.next().await {
        match object {
            Ok(object) => keys.extend(object.location.as_ref().parse::<ObjectKey>().ok()),
            // Removed while it was listed.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

fn path_of(key: &ObjectKey) -> Path {
    Path::from(key.to_string())
}

/// What a service that compares clocks says when they differ too much, and what to do about it.
pub(crate) const SKEWED: (&str, &str) = (
    "RequestTimeTooSkewed",
    "this machine's clock and the store's differ by more than the store allows (RequestTimeTooSkewed)",
);

/// What the system or the service said, without the layers it was wrapped in.
pub(crate) fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let said = innermost.to_string();
    if said.contains(SKEWED.0) {
        return SKEWED.1.to_owned();
    }
    told(&said).unwrap_or(said)
}

/// The most of a service's own words that is handed on.
const MAX_TOLD_CHARS: usize = 300;

/// What a service tells in XML: the first line of its message, and its code.
fn told(said: &str) -> Option<String> {
    let element = |name: &str| {
        let (_, rest) = said.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        let line = text.trim().lines().next()?;
        Some(line.chars().take(MAX_TOLD_CHARS).collect::<String>())
    };
    let code = element("Code")?;
    Some(match element("Message") {
        Some(message) => format!("{message} ({code})"),
        None => code,
    })
}

/// Whether a disk has no room for what was to be written.
pub(crate) fn is_full(error: &Error) -> bool {
    let mut innermost: &(dyn StdError + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let kind = innermost.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{BLOCK_BYTES, blocks, told};

    proptest! {
        #[test]
        fn blocks_are_the_same_bytes_in_fewer_pieces(
            lens in proptest::collection::vec(0_usize..3 * BLOCK_BYTES / 2, 0..12), seed in any::<u8>(),
        ) {
            let piece = |len: &usize| Bytes::from(vec![seed ^ u8::try_from(len % 251).expect("small"); *len]);
            let pieces: Vec<_> = lens.iter().map(piece).collect();
            let blocks: Vec<_> = blocks(&pieces).collect();
            prop_assert_eq!(blocks.concat(), pieces.concat());
            let pairs = blocks.windows(2).map(|pair| pair.iter().map(Bytes::len).sum::<usize>());
            for both in pairs {
                prop_assert!(both > BLOCK_BYTES);
            }
        }
    }

    #[test]
    fn what_a_service_tells_is_one_line_with_its_code() {
        let azure = "Server returned non-2xx status code: 404 Not Found: <?xml version=\"1.0\"?>\n<Error>\n  \
            <Code>ContainerNotFound</Code>\n  <Message>The specified container does not exist.\nRequestId:d1\n\
            Time:2026</Message>\n</Error>";
        let ceph =
            "<Error><Code>NoSuchBucket</Code><BucketName>x</BucketName><Message></Message></Error>";
        for (said, expected) in [
            (
                azure,
                Some("The specified container does not exist. (ContainerNotFound)"),
            ),
            (ceph, Some("NoSuchBucket")),
            ("<Error><Code>cut off", None),
            ("connection refused", None),
        ] {
            assert_eq!(told(said).as_deref(), expected, "{said}");
        }
    }
}
