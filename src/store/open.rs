//! Opens a store, proves that it works, and reads from it.
//!
//! Enters: the store's configuration
//! Leaves: [`Store`], or one sentence that says what is wrong with which setting
//! Never:  starts on a store that cannot be written, read and deleted from
//! Time:   none
//! Spec:   none

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use tokio::sync::{Mutex, watch};

use super::bucket::{Bucket, reason};
use super::health::Health;
use super::location::Location;
use super::names::named_by;
use super::probe::{self, Conditional};
use super::queue::Queue;
use super::remote;
use super::writer::{BroadcastWriter, Running};
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey, Payload};

/// How media is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where: a folder, a `file://` URL of one, `s3://`, `gs://` or `az://` with a bucket and a prefix, or
    /// `memory://`.
    pub url: String,
    /// The address of the service that speaks S3, `https://host:port`; empty for Amazon's own.
    pub endpoint: String,
    /// The region of an S3 bucket; empty for that of the environment or the profile.
    pub region: String,
    /// Where an S3 address names the bucket.
    pub addressing: Addressing,
    /// How long one request to a store across the network may take. What has failed is tried again.
    pub timeout: Duration,
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

/// Where an S3 address names the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// In the path where there is an endpoint, in the host name otherwise.
    Auto,
    /// In the path: what services of one's own understand.
    Path,
    /// In the host name.
    Host,
}

impl Addressing {
    /// All, with the names they have in a configuration.
    pub const ALL: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("path", Self::Path),
        ("host", Self::Host),
    ];
}

impl Config {
    /// What is wrong with a store's URL, as the rest of a sentence that begins with it.
    ///
    /// # Errors
    ///
    /// Just that.
    pub fn check_url(url: &str) -> Result<(), String> {
        url.parse::<Location>().map(drop)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "./data".to_owned(),
            endpoint: String::new(),
            region: String::new(),
            addressing: Addressing::Auto,
            timeout: Duration::from_secs(5),
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
    /// The URL cannot be understood.
    #[error("store.url: found {found:?}, which {complaint}")]
    Url {
        /// The value found.
        found: String,
        /// What is wrong with it.
        complaint: String,
    },
    /// The bucket cannot be used.
    #[error("store.url: cannot {attempted} {url}: {reason}; {advice}")]
    Bucket {
        /// The store.
        url: String,
        /// What failed.
        attempted: &'static str,
        /// What the service or the system said.
        reason: String,
        /// What to look at.
        advice: &'static str,
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
    /// Creates the folder if need be, and writes, reads, lists and deletes a small object in the store.
    ///
    /// # Errors
    ///
    /// [`Error`]; each names the setting and says what the system or the service said.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let location = config.url.parse().map_err(|complaint| Error::Url {
            found: config.url.clone(),
            complaint,
        })?;
        match location {
            Location::Folder(folder) => Self::open_folder(config, folder).await,
            Location::Memory => {
                let bucket = Bucket::new(Arc::new(InMemory::new()), true);
                Ok(Self::with_bucket(bucket, config, None))
            }
            Location::Bucket {
                service,
                bucket,
                prefix,
            } => {
                let store = remote::build(&config, service, &bucket)
                    .map_err(|error| bucket_failed(&config, ("reach", error)))?;
                let store = Arc::new(PrefixStore::new(store, prefix));
                Self::open_bucket(config, store).await
            }
        }
    }

    /// Opens a store that is only read: nothing is created, written or tried out, so that the right to read
    /// is enough.
    ///
    /// # Errors
    ///
    /// [`Error`]: the setting makes no sense, or the folder is not there.
    pub async fn open_to_read(config: Config) -> Result<Self, Error> {
        let location = config.url.parse().map_err(|complaint| Error::Url {
            found: config.url.clone(),
            complaint,
        })?;
        match location {
            Location::Folder(folder) => {
                let failed = |reason: String| Error::Folder {
                    folder: folder.clone(),
                    attempted: "read",
                    reason,
                };
                let found = tokio::fs::metadata(&folder).await;
                found.map_err(|error| failed(error.to_string()))?;
                let store = LocalFileSystem::new_with_prefix(&folder);
                let store = store.map_err(|error| failed(reason(&error)))?;
                let bucket = Bucket::new(Arc::new(store), false);
                Ok(Self::with_bucket(bucket, config, Some(folder)))
            }
            Location::Memory => Err(Error::Url {
                found: config.url.clone(),
                complaint: "is memory of its own, where nobody else writes".to_owned(),
            }),
            Location::Bucket {
                service,
                bucket,
                prefix,
            } => {
                let store = remote::build(&config, service, &bucket)
                    .map_err(|error| bucket_failed(&config, ("reach", error)))?;
                let bucket = Bucket::new(Arc::new(PrefixStore::new(store, prefix)), true);
                Ok(Self::with_bucket(bucket, config, None))
            }
        }
    }

    async fn open_folder(config: Config, folder: PathBuf) -> Result<Self, Error> {
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
        probe::basics(&store, nonce())
            .await
            .map_err(|(attempted, error)| failed(attempted, reason(&error)))?;
        let bucket = Bucket::new(Arc::new(store), false);
        Ok(Self::with_bucket(bucket, config, Some(folder)))
    }

    async fn open_bucket(config: Config, store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        let tried = async {
            probe::basics(&store, nonce()).await?;
            probe::listing(&store, nonce()).await
        };
        tried
            .await
            .map_err(|failed| bucket_failed(&config, failed))?;
        let conditional = probe::conditional(&store, nonce()).await;
        if conditional == Conditional::Ignored {
            tracing::warn!(url = %config.url, "this store does not enforce conditional writes: after a \
                request that timed out, an outdated playlist may stand for the length of a segment");
        }
        tracing::info!(url = %config.url, ?conditional, "store open");
        let bucket = Bucket::new(store, true).with_conditional(conditional);
        Ok(Self::with_bucket(bucket, config, None))
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

fn bucket_failed(config: &Config, (attempted, error): probe::Failed) -> Error {
    let advice = match &error {
        object_store::Error::Unauthenticated { .. }
        | object_store::Error::PermissionDenied { .. } => {
            "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and what \
             they may do: read, write, list and delete"
        }
        object_store::Error::NotFound { .. } => {
            "check that the bucket exists, its name, store.region and store.endpoint"
        }
        _ => "check store.endpoint, store.region, the credentials and the network",
    };
    Error::Bucket {
        url: config.url.clone(),
        attempted,
        reason: reason(&error),
        advice,
    }
}

/// Distinguishes this probe's objects from another's.
fn nonce() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.as_nanos());
    let process = u64::from(std::process::id());
    xxhash_rust::xxh3::xxh3_64_with_seed(&nanos.to_le_bytes(), process)
}
