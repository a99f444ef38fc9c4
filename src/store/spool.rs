//! Keeps on a disk of this machine what the store has not taken yet.
//!
//! Enters: objects that wait; at a start, what an earlier process left in the folder
//! Leaves: the same, whole or not at all
//! Never:  decides what is kept or given up: `queue` does
//! Time:   the age of a file, for what an earlier process left
//! Spec:   none
//!
//! ```text
//! <spool>/<hash of the store's address>/lock      held while a process uses it
//!                                      /store     the address, for people
//!                                      /<stream>/<number>.put
//! ```
//!
//! What is left for one store never lands in another. A file counts once it is whole (`record`), so that none is
//! renamed into place; its number says when it was written, and none is used twice.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::queue::{MAX_SPOOLED_OBJECTS, Put, Restored, SpoolId};
use super::record::{self, Header, PREFIX_BYTES};
use crate::id::StreamName;

/// The end of a file's name.
const SUFFIX: &str = "put";

/// The most streams whose leftovers are taken up at a start: more than a server carries at once.
const MAX_STREAMS: usize = 1_024;

/// The longest body that is read back; what is longer was not written by this program.
const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;

/// Why a spool cannot be used, as the rest of a sentence that begins with its setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Unusable {
    #[error("cannot {attempted} {}: {error}; name a folder that can be written, or \"off\"", folder.display())]
    Folder {
        folder: PathBuf,
        attempted: &'static str,
        error: io::Error,
    },
    #[error("{} is in use by another Headwater; name another folder for this one", folder.display())]
    InUse { folder: PathBuf },
}

/// The spool of one store.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    next: AtomicU64,
    used: AtomicU64,
    max_bytes: u64,
    fsync: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl Spool {
    /// Opens the spool in `folder` of the store at `address`, and says of which streams something is left there. Blocks.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub(crate) fn open(
        folder: &Path,
        address: &str,
        (max_bytes, fsync): (u64, bool),
    ) -> Result<(Arc<Self>, Vec<StreamName>), Unusable> {
        let folder = folder.join(format!("{:016x}", xxh3_64(address.as_bytes())));
        let failed = |attempted| {
            let folder = folder.clone();
            move |error| Unusable::Folder {
                folder,
                attempted,
                error,
            }
        };
        fs::create_dir_all(&folder).map_err(failed("create"))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(failed("write to"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Unusable::InUse { folder }),
            Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
        }
        fs::write(folder.join("store"), format!("{address}\n")).map_err(failed("write to"))?;
        let found = look_through(&folder).map_err(failed("read"))?;
        let spool = Self {
            folder,
            next: AtomicU64::new(found.last.map_or(0, |last| last + 1)),
            used: AtomicU64::new(found.bytes),
            max_bytes,
            fsync,
            _lock: lock,
        };
        Ok((Arc::new(spool), found.streams))
    }

    /// Bytes that may still be written.
    pub(crate) fn room(&self) -> u64 {
        self.max_bytes
            .saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Writes `put`, of `stream`. Blocks.
    ///
    /// # Errors
    ///
    /// What the system said; nothing is left of it then.
    pub(crate) fn write(&self, stream: &StreamName, put: &Put) -> io::Result<SpoolId> {
        let header = record::header(put).ok_or(io::ErrorKind::InvalidInput)?;
        let id = SpoolId(self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.path(stream, id);
        self.used.fetch_add(put.body.len(), Ordering::Relaxed);
        let written = self.write_file(&path, &header, put);
        if written.is_err() {
            self.used.fetch_sub(put.body.len(), Ordering::Relaxed);
            // It would be found torn at the next start.
            let _ = fs::remove_file(&path);
        }
        written.map(|()| id)
    }

    fn write_file(&self, path: &Path, header: &[u8], put: &Put) -> io::Result<()> {
        let create = || File::options().create_new(true).write(true).open(path);
        let mut file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
                create()?
            }
            created => created?,
        };
        file.write_all(header)?;
        for piece in put.body.pieces() {
            file.write_all(piece)?;
        }
        if self.fsync {
            file.sync_data()?;
        }
        Ok(())
    }

    /// Reads the object `id` of `stream`; `None` if it is not whole. Blocks.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn read(&self, stream: &StreamName, id: SpoolId) -> io::Result<Option<Put>> {
        let mut file = File::open(self.path(stream, id))?;
        let Some(header) = read_header(&mut file)? else {
            return Ok(None);
        };
        if header.body_len > MAX_BODY_BYTES {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(usize::try_from(header.body_len).unwrap_or(0));
        // One byte more than there should be shows a file that is too long.
        file.take(header.body_len + 1).read_to_end(&mut body)?;
        Ok(header.with_body(Bytes::from(body)))
    }

    /// [`Self::read`] for who must not be blocked; `None` whatever is wrong.
    pub(crate) async fn read_later(
        self: Arc<Self>,
        stream: &StreamName,
        id: SpoolId,
    ) -> Option<Put> {
        let of = stream.clone();
        let read = tokio::task::spawn_blocking(move || self.read(&of, id)).await;
        read.unwrap_or_else(|error| Err(io::Error::other(error)))
            .unwrap_or_else(|error| {
                tracing::warn!(%stream, %error, "the spool cannot be read");
                None
            })
    }

    /// Deletes the objects `ids` of `stream`. Blocks.
    pub(crate) fn discard(&self, stream: &StreamName, ids: &[SpoolId]) {
        for id in ids {
            let path = self.path(stream, *id);
            let len = body_len(&path);
            match fs::remove_file(&path) {
                Ok(()) => {
                    self.used.fetch_sub(len, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a file of the spool stays");
                }
            }
        }
    }

    /// What is left of `stream`, in the order in which it was written; what is torn is deleted. Bodies of media
    /// stay on the disk. Blocks.
    pub(crate) fn load(&self, stream: &StreamName) -> Vec<Restored> {
        let mut ids: Vec<_> = files(&self.folder.join(stream.to_string()))
            .filter_map(|path| id_of(&path))
            .collect();
        ids.sort_unstable();
        let mut left = Vec::new();
        let mut torn = Vec::new();
        for id in ids {
            match self.restore(stream, id) {
                Ok(Some(restored)) if left.len() < MAX_SPOOLED_OBJECTS => left.push(restored),
                Ok(_) => torn.push(id),
                Err(error) => {
                    tracing::warn!(%stream, %error, "what the spool holds cannot be read");
                }
            }
        }
        if !torn.is_empty() {
            tracing::warn!(%stream, files = torn.len(), "files of the spool were not whole and are dropped");
            self.discard(stream, &torn);
        }
        left
    }

    fn restore(&self, stream: &StreamName, id: SpoolId) -> io::Result<Option<Restored>> {
        let mut file = File::open(self.path(stream, id))?;
        let meta = file.metadata()?;
        let Some(header) = read_header(&mut file)? else {
            return Ok(None);
        };
        let is_ours = header.put.key.stream == *stream;
        let is_long_enough = meta.len() >= header.body_len && header.body_len <= MAX_BODY_BYTES;
        let at = io::Seek::stream_position(&mut file)?;
        if !is_ours || !is_long_enough || meta.len() != at + header.body_len {
            return Ok(None);
        }
        let len = header.body_len;
        let put = if header.put.may_be_lost() {
            // The hash of its body is looked at when it is written.
            header.put
        } else {
            match self.read(stream, id)? {
                Some(put) => put,
                None => return Ok(None),
            }
        };
        Ok(Some(Restored {
            id,
            put,
            len,
            since: written_at(&meta),
        }))
    }

    fn path(&self, stream: &StreamName, id: SpoolId) -> PathBuf {
        let name = format!("{:020}.{SUFFIX}", id.0);
        self.folder.join(stream.to_string()).join(name)
    }
}

/// What a folder holds.
struct Found {
    streams: Vec<StreamName>,
    last: Option<u64>,
    bytes: u64,
}

fn look_through(folder: &Path) -> io::Result<Found> {
    let mut found = Found {
        streams: Vec::new(),
        last: None,
        bytes: 0,
    };
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str);
        let Some(stream) = name.and_then(|name| name.parse::<StreamName>().ok()) else {
            continue;
        };
        if !path.is_dir() || found.streams.len() >= MAX_STREAMS {
            continue;
        }
        let mut has_files = false;
        for path in files(&path) {
            has_files = true;
            found.last = found.last.max(id_of(&path).map(|id| id.0));
            found.bytes += body_len(&path);
        }
        if has_files {
            found.streams.push(stream);
        }
    }
    found.streams.sort();
    Ok(found)
}

/// The files of the spool in `folder`.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| id_of(path).is_some())
}

fn id_of(path: &Path) -> Option<SpoolId> {
    let is_ours = path.extension()? == SUFFIX;
    let id = path.file_stem()?.to_str()?.parse().ok()?;
    is_ours.then_some(SpoolId(id))
}

/// Bytes of the body in the file at `path`, as its header says; those of the file if it does not say.
fn body_len(path: &Path) -> u64 {
    let header = File::open(path).and_then(|mut file| read_header(&mut file));
    match header {
        Ok(Some(header)) => header.body_len,
        _ => fs::metadata(path).map_or(0, |meta| meta.len()),
    }
}

/// The header that `file` begins with; `None` if it is not whole. The body is next.
fn read_header(file: &mut File) -> io::Result<Option<Header>> {
    let mut prefix = [0; PREFIX_BYTES];
    if !read_whole(file, &mut prefix)? {
        return Ok(None);
    }
    let Some(len) = record::rest_len(&prefix) else {
        return Ok(None);
    };
    let mut rest = vec![0; len];
    if !read_whole(file, &mut rest)? {
        return Ok(None);
    }
    Ok(record::parse(&prefix, &rest))
}

/// Whether `file` goes on for as long as `bytes`.
fn read_whole(file: &mut File, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// When a file was written, on the monotonic clock.
fn written_at(meta: &fs::Metadata) -> Instant {
    let modified = meta.modified().ok();
    let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
    let now = tokio::time::Instant::now().into_std();
    now.checked_sub(age.unwrap_or(Duration::ZERO))
        .unwrap_or(now)
}
