//! Opens a store, proves that it works, and reads from it.
//!
//! Enters: the store's configuration
//! Leaves: [`Store`], or one sentence that says what is wrong with which setting
//! Never:  starts on a store that cannot be written, read and deleted from
//! Time:   none
//! Spec:   none

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use tokio::sync::watch;

use super::bucket::{Bucket, SKEWED, reason};
use super::claim::{Refused, claim};
use super::config::{Config, SpoolPlace};
use super::health::Health;
use super::location::{Location, Service};
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
    #[error("{table}.url: found {found:?}, which {complaint}")]
    Url {
        /// The table of settings.
        table: &'static str,
        /// The value found.
        found: String,
        /// What is wrong with it.
        complaint: String,
    },
    /// The bucket cannot be used.
    #[error("{table}.url: cannot {attempted} {url}: {reason}; {advice}")]
    Bucket {
        /// The table of settings.
        table: &'static str,
        /// The store.
        url: String,
        /// What failed.
        attempted: &'static str,
        /// What the service or the system said.
        reason: String,
        /// What to look at.
        advice: String,
        /// Whether the service was not there, or had a bad day, rather than that a setting is wrong.
        is_away: bool,
    },
    /// The place is not this program's.
    #[error("{table}.url: {url} {complaint}")]
    NotOurs {
        /// The table of settings.
        table: &'static str,
        /// The store.
        url: String,
        /// What was found, and what to do.
        complaint: String,
    },
    /// The spool cannot be used.
    #[error("store.spool: {0}")]
    Spool(String),
    /// The folder cannot be used.
    #[error("{table}.url: cannot {attempted} the folder {}: {reason}", folder.display())]
    Folder {
        /// The table of settings.
        table: &'static str,
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
    pub(crate) fn of(what: &impl fmt::Display, error: &object_store::Error) -> Self {
        let (what, reason) = (what.to_string(), reason(error));
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
    /// Until when it is read last, because it could not be read.
    pub(super) away: Arc<watch::Sender<Option<Instant>>>,
    /// The one that is written beside it.
    pub(super) second: Option<Arc<Self>>,
}

impl Store {
    /// Creates the folder if need be, and writes, reads, lists and deletes a small object in the store, and in the
    /// second one if there is one. Of two stores one may be away; the other is begun with.
    ///
    /// # Errors
    ///
    /// [`Error`]; each names the setting and says what the system or the service said.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let Some(second) = config.of_second() else {
            return Self::open_one(config, true).await;
        };
        let one = async |config: &Config| Self::open_one(config.clone(), true).await;
        let both = futures_util::future::join(one(&config), one(&second)).await;
        let (first, second) = match both {
            (Err(Error::Bucket { is_away: true, .. }), Err(error)) => return Err(error),
            (Err(error @ Error::Bucket { is_away: true, .. }), Ok(second)) => {
                (Self::open_away(config, &error).await?, second)
            }
            (Ok(first), Err(error @ Error::Bucket { is_away: true, .. })) => {
                (first, Self::open_away(second, &error).await?)
            }
            (first, second) => (first?, second?),
        };
        Ok(first.with_second(second))
    }

    /// Opens a store without trying it: it is away. It is tried when it is back, before anything is written there.
    async fn open_away(config: Config, error: &Error) -> Result<Self, Error> {
        tracing::warn!(%error, "this store is away; what it is to have waits, and the other is begun with");
        Self::open_one(config, false).await
    }

    pub(crate) fn with_second(self, second: Self) -> Self {
        let second = Some(Arc::new(second));
        Self { second, ..self }
    }

    async fn open_one(config: Config, is_tried: bool) -> Result<Self, Error> {
        let location = location(&config)?;
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
                match is_tried {
                    true => Self::open_bucket(config, store).await,
                    false => {
                        let bucket = Bucket::new(store, true).untried(config.clone());
                        Ok(Self::with_bucket(bucket, config, None))
                    }
                }
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
        let second = config.of_second();
        let first = Self::open_one_to_read(config).await?;
        Ok(match second {
            Some(second) => first.with_second(Self::open_one_to_read(second).await?),
            None => first,
        })
    }

    async fn open_one_to_read(config: Config) -> Result<Self, Error> {
        let location = location(&config)?;
        let table = config.table;
        match location {
            Location::Folder(folder) => {
                let failed = |reason: String| Error::Folder {
                    table,
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
                table,
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
        let table = config.table;
        let failed = |attempted, reason| Error::Folder {
            table,
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
        probe::basics(&store, probe::nonce())
            .await
            .map_err(|(attempted, error)| failed(attempted, reason(&error)))?;
        let bucket = Bucket::new(Arc::new(store), false);
        // A folder knows how to create what is not there.
        let conditional = Conditional::Enforced { bare_tags: false };
        let claimed = claim(bucket.store(), &bucket, conditional).await;
        claimed.map_err(|refused| match refused {
            Refused::Failed { attempted, error } => failed(attempted, reason(&error)),
            refused => not_ours(&config, &refused),
        })?;
        Ok(Self::with_bucket(bucket, config, Some(folder)))
    }

    async fn open_bucket(config: Config, store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        let bucket = Bucket::new(store, true);
        let conditional = try_out(&config, &bucket).await?;
        Ok(Self::with_bucket(bucket.remote(conditional), config, None))
    }

    pub(crate) fn with_bucket(bucket: Bucket, config: Config, root: Option<PathBuf>) -> Self {
        let health = Health {
            is_second: config.table != Config::default().table,
            ..Health::default()
        };
        Self {
            bucket,
            config,
            root,
            spool: None,
            health: Arc::new(watch::Sender::new(health)),
            writers: Arc::default(),
            away: Arc::default(),
            second: None,
        }
    }

    /// A store on any backend.
    #[cfg(test)]
    pub(crate) fn on(backend: Arc<dyn ObjectStore>) -> Self {
        Self::with_bucket(Bucket::new(backend, true), Config::default(), None)
    }

    /// The table of settings that says where this store is.
    #[must_use]
    pub const fn table(&self) -> &'static str {
        self.config.table
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
        tokio::spawn(Arc::clone(&shared).watch(worker.run()));
        if let Some(spool) = self.spool.clone() {
            tokio::spawn(spooler::run(Arc::clone(&shared), spool));
        }
        writers.insert(stream, Arc::clone(&shared));
        (shared, attached)
    }

    /// The writer of `stream`, if there is one.
    pub(crate) fn writing(&self, stream: &StreamName) -> Option<Arc<Shared>> {
        let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.get(stream).cloned()
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

    /// The newest version of `key` that waits to be stored.
    pub(super) async fn waiting(&self, key: &ObjectKey) -> Option<Payload> {
        let shared = self.writing(&key.stream)?;
        let write = shared.lock().queue.get(key)?;
        let Some(id) = write.from else {
            return Some(write.put.body);
        };
        let spool = Arc::clone(self.spool.as_ref()?);
        Some(spool.read_later(&key.stream, id).await?.body)
    }
}

/// Tries a store across the network, and takes its place: what it does with a condition.
pub(super) async fn try_out(config: &Config, bucket: &Bucket) -> Result<Conditional, Error> {
    let tried = probe::all(bucket.store()).await;
    let conditional = tried.map_err(|failed| bucket_failed(config, failed))?;
    let claimed = claim(bucket.store(), bucket, conditional).await;
    claimed.map_err(|refused| match refused {
        Refused::Failed { attempted, error } => bucket_failed(config, (attempted, error)),
        refused => not_ours(config, &refused),
    })?;
    if conditional == Conditional::Ignored {
        tracing::warn!(url = %config.url, "this store does not enforce conditional writes: after a \
            request that timed out, an outdated playlist may stand for the length of a segment");
    }
    tracing::info!(url = %config.url, ?conditional, "store open");
    Ok(conditional)
}

fn not_ours(config: &Config, refused: &Refused) -> Error {
    Error::NotOurs {
        table: config.table,
        url: config.url.clone(),
        complaint: refused.to_string(),
    }
}

fn bucket_failed(config: &Config, (attempted, error): probe::Failed) -> Error {
    let reason = reason(&error);
    let table = config.table;
    let is_away = matches!(error, object_store::Error::Generic { .. }) && reason != SKEWED.1;
    let service = match location(config) {
        Ok(Location::Bucket { service, .. }) => service,
        _ => Service::S3,
    };
    let settings = service.settings(table);
    let advice = match &error {
        _ if reason == SKEWED.1 => "set this machine's clock, for instance with NTP".to_owned(),
        object_store::Error::Unauthenticated { .. }
        | object_store::Error::PermissionDenied { .. } => {
            let credentials = service.credentials();
            format!(
                "check the credentials ({credentials}) and what they may do: read, write, list and delete"
            )
        }
        object_store::Error::NotFound { .. } => {
            format!("check that the bucket exists, its name, {settings}")
        }
        _ => format!("check {settings}, the credentials and the network"),
    };
    Error::Bucket {
        table,
        is_away,
        url: config.url.clone(),
        attempted,
        reason,
        advice,
    }
}

fn location(config: &Config) -> Result<Location, Error> {
    config.url.parse().map_err(|complaint| Error::Url {
        table: config.table,
        found: config.url.clone(),
        complaint,
    })
}
