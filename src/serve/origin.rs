//! What the origin has to know, as a trait that its owner implements.
//!
//! Enters: keys of objects
//! Leaves: what is published under them: from memory at once, from the store in a moment
//! Never:  HTTP
//! Time:   [`Origin::now`] is UTC
//! Spec:   docs/architecture.md

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::cache::{ETag, Encoding};
use super::document::Document;
use super::live::Feed;
use super::shows::Page;
use super::stretch::Asked;
use crate::id::StreamName;
use crate::media::{ObjectKey, Payload};
use crate::time::WallTime;

/// What is known of a manifest in memory.
#[derive(Clone, Debug)]
pub enum Found {
    /// It is live and advancing.
    Live(Feed),
    /// Its stream has not advanced for three target durations and has not ended. Answered with 503,
    /// so that a cache's failover or a player's can act.
    Stalled {
        /// When it is worth asking again; sent rounded up to whole seconds, at least one.
        retry_after: Duration,
    },
    /// It is complete and says so.
    Ended(Arc<Document>),
    /// Not in memory; the store is asked next.
    Missing,
}

/// One init segment, segment or part, with the tag of its bytes, computed at most once.
#[derive(Clone, Debug)]
pub struct Object {
    body: Payload,
    etag: OnceLock<ETag>,
}

impl Object {
    /// The object of `body`.
    #[must_use]
    pub const fn new(body: Payload) -> Self {
        let etag = OnceLock::new();
        Self { body, etag }
    }

    /// The bytes.
    #[must_use]
    pub const fn body(&self) -> &Payload {
        &self.body
    }

    /// The strong tag of the bytes. The first call reads every byte: of what is published, most is never asked
    /// for by a player, or only as a part or only as a segment.
    #[must_use]
    pub fn etag(&self) -> &ETag {
        self.etag
            .get_or_init(|| ETag::of(&self.body, Encoding::Identity))
    }
}

/// What the store has under a key.
#[derive(Clone, Debug)]
pub enum Stored {
    /// An init segment or a segment.
    Media(Arc<Object>),
    /// A manifest.
    Manifest {
        /// Its text.
        document: Arc<Document>,
        /// Whether its broadcast goes on, as far as can be told, if it has not ended.
        is_advancing: bool,
    },
}

impl Stored {
    /// What `key` names, from the bytes that are stored there.
    #[must_use]
    pub fn new(key: &ObjectKey, body: Payload, is_advancing: bool) -> Self {
        if key.item.is_manifest() {
            let document = Document::manifest(&key.item, body.to_bytes());
            Self::Manifest {
                document: Arc::new(document),
                is_advancing,
            }
        } else {
            Self::Media(Arc::new(Object::new(body)))
        }
    }
}

/// The store could not be asked. Why is the store's to report; the client is told 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store could not be read")]
pub struct StoreFailed;

/// A manifest of a stretch of what is kept.
#[derive(Clone, Debug)]
pub struct Clip {
    /// Its text.
    pub document: Arc<Document>,
    /// Its delta update, where it has one.
    pub delta: Option<Arc<Document>>,
    /// How it goes on.
    pub growth: Growth,
}

/// How a stretch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// Something is added to it again and again.
    Advancing,
    /// Nothing has been added to it for too long, and nobody has said that it is over.
    Stalled,
    /// It is over, unless somebody publishes the stream again.
    Over,
    /// Nothing will be added to it, whatever comes.
    Final,
}

impl Growth {
    /// Whether its manifest says that it is complete.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Over | Self::Final)
    }
}

/// Why there is no manifest of a stretch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoClip {
    /// It cannot be asked for; told to the client with 400.
    #[error("{0}")]
    Refused(String),
    /// There is nothing of it; told with 404.
    #[error("{0}")]
    Missing(String),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreFailed),
}

/// What is published. Every method but [`Self::stored`], [`Self::clip`] and [`Self::shows`] answers from memory without waiting.
pub trait Origin: Send + Sync + 'static {
    /// The manifest `key`, whose item is one. What a version of it names has to be there before it.
    fn manifest(&self, key: &ObjectKey) -> Found;

    /// The init segment, segment or part `key`, if it is in memory.
    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>>;

    /// Whatever is stored under `key`, asked when it is not in memory. `Ok(None)`: nothing is. How many of
    /// these may be under way at once is the owner's to bound.
    fn stored<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Option<Stored>, StoreFailed>>;

    /// The manifest `key` of the stretch `asked` of its stream; or, where `key` names a show's, of all that is kept
    /// of the show; or the one that reaches further back than what is live.
    /// Where nothing is kept, there is none.
    fn clip<'a>(
        &'a self,
        _key: &'a ObjectKey,
        _asked: Option<Asked>,
    ) -> BoxFuture<'a, Result<Clip, NoClip>> {
        let text = "nothing is kept here".to_owned();
        Box::pin(std::future::ready(Err(NoClip::Missing(text))))
    }

    /// All streams, as JSON.
    fn streams(&self) -> Bytes;

    /// One stream, as JSON; `None` where there is no such stream.
    fn stream(&self, name: &StreamName) -> Option<Bytes>;

    /// The shows of `name` that are kept, as JSON: the newest first, a page of them. None where there are none.
    fn shows<'a>(
        &'a self,
        _name: &'a StreamName,
        _page: Page,
    ) -> BoxFuture<'a, Result<Bytes, NoClip>> {
        let none = Bytes::from_static(b"{\"shows\":[],\"next\":null}");
        Box::pin(std::future::ready(Ok(none)))
    }

    /// The server, as JSON.
    fn server(&self) -> Bytes;

    /// All metrics, as OpenMetrics text.
    fn metrics(&self) -> Bytes;

    /// Whether everything is as it should be, or what is not and does not matter yet; one line for an operator.
    ///
    /// # Errors
    ///
    /// What is being lost, and why, in one line.
    fn ready(&self) -> Result<String, String>;

    /// The time of day in UTC.
    fn now(&self) -> WallTime;
}
