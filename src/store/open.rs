//! Opens a store, proves that it works, and reads from it.
//!
//! Enters: the store's configuration
//! Leaves: [`Store`], or one sentence that says what is wrong with which setting
//! Never:  starts on a store that cannot be written, read and deleted from
//! Time:   none
//! Spec:   none

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::{Mutex, watch};

use super::bucket::{Bucket, reason};
use super::health::Health;
use super::names::named_by;
use super::queue::Queue;
use super::writer::{BroadcastWriter, Running};
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey, Payload};

/// What the probe writes, reads and deletes.
const PROBE: &str = "headwater-probe";

/// How media is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where: a folder, or a `file://` URL of one.
    pub url: String,
    /// Whether an object counts as stored only when the disk has it, not when the system's memory
    /// has it. Without it a power loss may leave a playlist whose segments are empty files; with it
    /// a segment of 500 kB costs about half a millisecond more, behind the live path.
    pub fsync: bool,
    /// The most bytes that one broadcast may have waiting to be written: at 10 Mbit/s in all,
    /// about a minute.
    pub max_waiting_bytes: u64,
    /// How long what an earlier broadcast of the same name left behind is kept after no stored
    /// playlist names it any more, so that players in the middle of it are not cut off.
    pub leftover_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "./data".to_owned(),
            fsync: true,
            max_waiting_bytes: 64 * 1024 * 1024,
            leftover_grace: Duration::from_secs(60),
        }
    }
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is of no kind that is known.
    #[error("store.url must be a folder or a file:// URL of one, found {found:?}")]
    Url {
        /// The value found.
        found: String,
    },
    /// The folder cannot be used.
    #[error("store.url: cannot {attempted} the folder {}: {reason}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What failed.
        attempted: &'static str,
        /// What the system said.
        reason: String,
    },
}

/// An object could not be read, which is not the same as not being there.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from the store: {reason}")]
pub struct ReadFailed {
    what: String,
    reason: String,
}

/// An open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    bucket: Bucket,
    config: Config,
    root: Option<PathBuf>,
    health: Arc<watch::Sender<Health>>,
    writers: Arc<Mutex<HashMap<StreamName, Running>>>,
}

impl Store {
    /// Creates the folder if need be, and writes, reads and deletes a small object in it.
    ///
    /// # Errors
    ///
    /// [`Error::Url`], [`Error::Folder`]; each names the setting and says what the system said.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let folder = folder_of(&config.url)?;
        let failed = |attempted, reason| Error::Folder {
            folder: folder.clone(),
            attempted,
            reason,
        };
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(|error| failed("create", error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| failed("open", reason(&error)))?
            .with_fsync(config.fsync);
        probe(&store)
            .await
            .map_err(|(attempted, error)| failed(attempted, reason(&error)))?;
        let bucket = Bucket::new(Arc::new(store), false);
        Ok(Self::with_bucket(bucket, config, Some(folder)))
    }

    pub(crate) fn with_bucket(bucket: Bucket, config: Config, root: Option<PathBuf>) -> Self {
        Self {
            bucket,
            config,
            root,
            health: Arc::new(watch::Sender::new(Health::default())),
            writers: Arc::default(),
        }
    }

    /// How the store is doing, now and at every change.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Begins to write a broadcast of `stream`. An earlier writer of the same stream is stopped first,
    /// so that nothing old lands after something new. What an earlier broadcast left is looked
    /// through and removed once nothing stored names it; if it cannot be looked through, it stays.
    pub async fn broadcast(&self, stream: StreamName) -> BroadcastWriter {
        // The lock is not held while anything waits for a disk: one that hangs holds up its own stream.
        let earlier = {
            let mut writers = self.writers.lock().await;
            writers.retain(|_, running| !running.is_finished());
            writers.remove(&stream)
        };
        if let Some(earlier) = earlier {
            earlier.stop().await;
        }
        self.sweep(&stream).await;
        let (found, named) = match self.look_through(&stream).await {
            Ok(inventory) => inventory,
            Err(error) => {
                tracing::warn!(%stream, %error, "what an earlier broadcast stored stays");
                Default::default()
            }
        };
        let leftover_at = tokio::time::Instant::now().into_std() + self.config.leftover_grace;
        let queue = Queue::new(self.config.max_waiting_bytes, found, named, leftover_at);
        let (writer, running) = BroadcastWriter::start(
            stream.clone(),
            queue,
            self.bucket.clone(),
            Arc::clone(&self.health),
        );
        let replaced = self.writers.lock().await.insert(stream, running);
        if let Some(replaced) = replaced {
            replaced.stop().await;
        }
        writer
    }

    /// The object `key`; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Payload>, ReadFailed> {
        self.read(key, None).await
    }

    /// The bytes of `range` of the object `key`, cut at its end; `None` where there is no object.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say, or the range begins beyond the end.
    pub async fn get_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<Payload>, ReadFailed> {
        self.read(key, Some(range)).await
    }

    /// The highest number of a stored segment or part of `stream`; a broadcast that takes the name
    /// again begins after it. `None` where nothing is stored.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn highest_segment(
        &self,
        stream: &StreamName,
    ) -> Result<Option<SegmentNumber>, ReadFailed> {
        let number = |key: &ObjectKey| match key.item {
            Item::Segment(_, number) | Item::Part(_, number, _) => Some(number),
            _ => None,
        };
        Ok(self.keys(stream).await?.iter().filter_map(number).max())
    }

    /// What is stored of `stream`, in no order.
    ///
    /// # Errors
    ///
    /// [`ReadFailed`] when the store could not say.
    pub async fn keys(&self, stream: &StreamName) -> Result<Vec<ObjectKey>, ReadFailed> {
        let mut keys = Vec::new();
        let listed = self.bucket.list(stream, |key| keys.push(key));
        listed.await.map_err(|error| ReadFailed {
            what: ObjectKey::folder(stream),
            reason: reason(&error),
        })?;
        Ok(keys)
    }

    async fn read(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<Payload>, ReadFailed> {
        let read = self.bucket.get(key, range).await;
        read.map_err(|error| ReadFailed {
            what: key.to_string(),
            reason: reason(&error),
        })
    }

    /// What the folder of `stream` holds, and what each playlist in it names.
    async fn look_through(&self, stream: &StreamName) -> Result<Inventory, ReadFailed> {
        let found: BTreeSet<_> = self.keys(stream).await?.into_iter().collect();
        let mut named = BTreeMap::new();
        for key in found.iter().filter(|key| key.item.is_manifest()) {
            if let Some(text) = self.get(key).await? {
                named.insert(key.clone(), named_by(key, &text.to_bytes()));
            }
        }
        Ok((found, named))
    }

    /// Removes the half-written files that a crash left in the folder of `stream`: a `#` and a
    /// number follow their name, and no listing shows them.
    async fn sweep(&self, stream: &StreamName) {
        let Some(root) = &self.root else { return };
        let folder = root.join(ObjectKey::folder(stream));
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let Ok(mut entries) = tokio::fs::read_dir(&folder).await else {
                continue;
            };
            while let Ok(Some(entry)) = entries.next_entry().await {
                let name = entry.file_name();
                let staged = name.to_str().and_then(|name| name.rsplit_once('#'));
                let is_staged = staged
                    .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
                let is_folder = entry.file_type().await.is_ok_and(|kind| kind.is_dir());
                if is_folder {
                    folders.push(entry.path());
                } else if is_staged && let Err(error) = tokio::fs::remove_file(entry.path()).await {
                    tracing::warn!(%stream, %error, "a half-written file stays");
                }
            }
        }
    }
}

/// The objects of one folder, and what its playlists name.
type Inventory = (
    BTreeSet<ObjectKey>,
    BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
);

fn folder_of(url: &str) -> Result<PathBuf, Error> {
    let found = || Error::Url {
        found: url.to_owned(),
    };
    match url.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        None if !url.is_empty() => Ok(PathBuf::from(url)),
        _ => Err(found()),
    }
}

async fn probe(store: &dyn ObjectStore) -> Result<(), (&'static str, object_store::Error)> {
    let path = Path::from(format!("{PROBE}-{}", std::process::id()));
    let content = Bytes::from_static(b"written to see whether it can be\n");
    let payload = PutPayload::from(content.clone());
    store
        .put(&path, payload)
        .await
        .map_err(|error| ("write to", error))?;
    let read = async { store.get(&path).await?.bytes().await };
    let read = read.await.map_err(|error| ("read from", error))?;
    if read != content {
        let source = io::Error::other("what was read is not what was written");
        let store = "probe";
        return Err((
            "read from",
            object_store::Error::Generic {
                store,
                source: source.into(),
            },
        ));
    }
    let deleted = store.delete(&path).await;
    deleted.map_err(|error| ("delete from", error))
}
