//! Opens a store, proves that it works, and reads from it.
//!
//! Enters: the store's configuration
//! Leaves: [`Store`], or one sentence that says what is wrong with which setting
//! Never:  starts on a store that cannot be written, read and deleted from
//! Time:   none
//! Spec:   none

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use tokio::sync::watch;

use super::bucket::{Bucket, SKEWED, reason};
use super::config::{Config, SpoolPlace};
use super::health::Health;
use super::location::Location;
use super::probe::{self, Conditional};
use super::queue::{Limits, Queue};
use super::remote;
use super::shared::Shared;
use super::spool::Spool;
use super::spooler;
use super::writer::{BroadcastWriter, Reports, Worker};
use crate::id::StreamName;
use crate::media::{ObjectKey, Payload};

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
    /// The spool cannot be used.
    #[error("store.spool: {0}")]
    Spool(String),
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

impl ReadFailed {
    pub(crate) const fn new(what: String, reason: String) -> Self {
        Self { what, reason }
    }
}

/// An open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    bucket: Bucket,
    config: Config,
    root: Option<PathBuf>,
    spool: Option<Arc<Spool>>,
    health: Reports,
    writers: Arc<Mutex<HashMap<StreamName, Arc<Shared>>>>,
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
        let is_remote = matches!(location, Location::Bucket { .. });
        let store = match location {
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
        };
        match store?.spool_folder(is_remote) {
            (store, Some(folder)) => store.with_spool(folder).await,
            (store, None) => Ok(store),
        }
    }

    /// Where the spool is to be.
    fn spool_folder(self, is_remote: bool) -> (Self, Option<PathBuf>) {
        let folder = match &self.config.spool {
            SpoolPlace::Auto => is_remote.then(|| PathBuf::from("./spool")),
            SpoolPlace::Off => None,
            SpoolPlace::Folder(folder) => Some(folder.clone()),
        };
        (self, folder)
    }

    /// The same store with a spool in `folder`. What an earlier process left there begins to be stored.
    pub(crate) async fn with_spool(mut self, folder: PathBuf) -> Result<Self, Error> {
        let address = format!("{} {}", self.config.url, self.config.endpoint);
        let limits = (self.config.spool_max_bytes, self.config.fsync);
        let opened =
            tokio::task::spawn_blocking(move || Spool::open(&folder, address.trim_end(), limits));
        let opened = opened
            .await
            .map_err(|error| Error::Spool(error.to_string()))?;
        let (spool, left) = opened.map_err(|error| Error::Spool(error.to_string()))?;
        self.spool = Some(spool);
        for stream in left {
            self.writer_of(stream, |_| ());
        }
        Ok(self)
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
        let bucket = Bucket::new(store, true).remote(conditional);
        Ok(Self::with_bucket(bucket, config, None))
    }

    pub(crate) fn with_bucket(bucket: Bucket, config: Config, root: Option<PathBuf>) -> Self {
        Self {
            bucket,
            config,
            root,
            spool: None,
            health: Arc::new(watch::Sender::new(Health::default())),
            writers: Arc::default(),
        }
    }

    /// Its spool.
    #[cfg(test)]
    pub(crate) const fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    pub(crate) const fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// How the store is doing, now and at every change.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A writer for a broadcast of `stream`; what an earlier one could not store yet goes before it. Returns at once,
    /// whatever the store does.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn broadcast(&self, stream: StreamName) -> BroadcastWriter {
        let (shared, run) = self.writer_of(stream, |shared| shared.attach().unwrap_or_default());
        BroadcastWriter::new(shared, run, self.config.leftover_grace)
    }

    /// The writer of `stream`, which runs, and what `attach` makes of it before it may end.
    fn writer_of<T>(&self, stream: StreamName, attach: impl Fn(&Shared) -> T) -> (Arc<Shared>, T) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|_, shared| !shared.lock().has_ended);
        if let Some(shared) = writers.get(&stream)
            && !shared.is_stopped()
        {
            let attached = attach(shared);
            return (Arc::clone(shared), attached);
        }
        let limits = Limits {
            memory_bytes: self.config.max_waiting_bytes,
            spool_age: self.spool.is_some().then_some(self.config.spool_age),
            lateness: self.bucket.lateness(),
        };
        let mut queue = Queue::new(limits);
        if self.config.keep.is_on() {
            queue.keep_archive();
        }
        let shared = Shared::new(stream.clone(), queue, Arc::clone(&self.health));
        let shared = Arc::new(shared);
        let attached = attach(&shared);
        let worker = Worker::new(
            Arc::clone(&shared),
            self.bucket.clone(),
            self.spool.clone(),
            self.root.clone(),
        );
        tokio::spawn(worker.run());
        if let Some(spool) = self.spool.clone() {
            tokio::spawn(spooler::run(Arc::clone(&shared), spool));
        }
        writers.insert(stream, Arc::clone(&shared));
        (shared, attached)
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

    async fn read(
        &self,
        key: &ObjectKey,
        range: Option<Range<u64>>,
    ) -> Result<Option<Payload>, ReadFailed> {
        if let Some(waiting) = self.waiting(key).await {
            return Ok(Some(
                range.map_or_else(|| waiting.clone(), |range| waiting.slice(range)),
            ));
        }
        let read = self.bucket.get(key, range).await;
        read.map_err(|error| ReadFailed {
            what: key.to_string(),
            reason: reason(&error),
        })
    }

    /// The newest version of `key` that waits to be stored.
    async fn waiting(&self, key: &ObjectKey) -> Option<Payload> {
        let shared = {
            let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(writers.get(&key.stream)?)
        };
        let write = shared.lock().queue.get(key)?;
        let Some(id) = write.from else {
            return Some(write.put.body);
        };
        let spool = Arc::clone(self.spool.as_ref()?);
        Some(spool.read_later(&key.stream, id).await?.body)
    }
}

fn bucket_failed(config: &Config, (attempted, error): probe::Failed) -> Error {
    let reason = reason(&error);
    let advice = match &error {
        _ if reason == SKEWED.1 => "set this machine's clock, for instance with NTP",
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
        reason,
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
