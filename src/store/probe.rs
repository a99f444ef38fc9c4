//! Finds out what a store can do before anything depends on it.
//!
//! Enters: a store
//! Leaves: whether it can be used, and whether it keeps conditions ([`Conditional`])
//! Never:  leaves its objects behind, unless it cannot delete
//! Time:   none; the store's client has limits
//! Spec:   none

use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};

/// What the probe's objects are called; the process and the time follow.
pub(crate) const PROBE: &str = "headwater-probe";

/// What a store does with a write that asks for a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditional {
    /// Refuses it where the object has changed since.
    Enforced {
        /// Whether it wants an entity tag without its quotes, as Ceph does.
        bare_tags: bool,
    },
    /// Does not know it, or takes it and writes all the same.
    Ignored,
}

/// What did not work, as the end of "cannot".
pub(crate) type Failed = (&'static str, Error);

/// Tries all that is asked of a store across the network.
pub(crate) async fn all(store: &dyn ObjectStore) -> Result<Conditional, Failed> {
    let nonce = nonce();
    basics(store, nonce).await?;
    listing(store, nonce).await?;
    Ok(conditional(store, nonce).await)
}

/// Distinguishes this probe's objects from another's.
pub(crate) fn nonce() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.as_nanos());
    let process = u64::from(std::process::id());
    xxhash_rust::xxh3::xxh3_64_with_seed(&nanos.to_le_bytes(), process)
}

/// Writes, reads and deletes a small object.
pub(crate) async fn basics(store: &dyn ObjectStore, nonce: u64) -> Result<(), Failed> {
    // Without a folder of its own, which would stay behind on a disk.
    let path = Path::from(format!("{PROBE}-{nonce:016x}"));
    let content = Bytes::from_static(b"written to see whether it can be\n");
    write(store, &path, &content).await?;
    let read = async { store.get(&path).await?.bytes().await };
    let read = read.await.map_err(|e| ("read from", e))?;
    if read != content {
        return Err(("read from", lied("what was read is not what was written")));
    }
    delete(store, &path).await
}

/// Lists a small object.
async fn listing(store: &dyn ObjectStore, nonce: u64) -> Result<(), Failed> {
    let folder = Path::from(format!("{PROBE}-{nonce:016x}"));
    let path = folder.clone().join("listed");
    write(store, &path, &Bytes::from_static(b"listed\n")).await?;
    match store.list(Some(&folder)).next().await {
        Some(Ok(_)) => delete(store, &path).await,
        Some(Err(error)) => Err(("list", error)),
        None => Err(("list", lied("what was written is not listed"))),
    }
}

async fn write(store: &dyn ObjectStore, path: &Path, content: &Bytes) -> Result<(), Failed> {
    let payload = PutPayload::from(content.clone());
    let written = store.put(path, payload).await;
    written.map(drop).map_err(|error| ("write to", error))
}

async fn delete(store: &dyn ObjectStore, path: &Path) -> Result<(), Failed> {
    let deleted = store.delete(path).await;
    deleted.map_err(|error| ("delete from", error))
}

fn lied(text: &'static str) -> Error {
    let (store, source) = ("probe", io::Error::other(text).into());
    Error::Generic { store, source }
}

/// Tries whether a manifest can be kept from overwriting a newer one.
///
/// Several services take the condition and ignore it, so that only a write that must fail tells.
async fn conditional(store: &dyn ObjectStore, nonce: u64) -> Conditional {
    let path = Path::from(format!("{PROBE}-{nonce:016x}/conditional"));
    let found = try_conditions(store, &path).await;
    // One that cannot delete has been refused before.
    let _ = store.delete(&path).await;
    found
}

async fn try_conditions(store: &dyn ObjectStore, path: &Path) -> Conditional {
    let put = async |text: &'static str, mode: PutMode| {
        let payload = PutPayload::from_static(text.as_bytes());
        store.put_opts(path, payload, PutOptions::from(mode)).await
    };
    let Ok(first) = put("1", PutMode::Create).await else {
        return Conditional::Ignored;
    };
    if !matches!(
        put("2", PutMode::Create).await,
        Err(Error::AlreadyExists { .. })
    ) {
        return Conditional::Ignored;
    }
    let Some(tag) = first.e_tag else {
        return Conditional::Ignored;
    };
    for bare_tags in [false, true] {
        let version = version_of(&tag, bare_tags);
        // What is right must be taken, and the same once more, being outdated, must not.
        if put("3", PutMode::Update(version.clone())).await.is_ok() {
            let outdated = put("4", PutMode::Update(version)).await;
            return match outdated {
                Err(Error::Precondition { .. }) => Conditional::Enforced { bare_tags },
                _ => Conditional::Ignored,
            };
        }
    }
    Conditional::Ignored
}

/// The condition "still the one with `tag`".
pub(crate) fn version_of(tag: &str, bare: bool) -> UpdateVersion {
    let tag = if bare { tag.trim_matches('"') } else { tag };
    UpdateVersion {
        e_tag: Some(tag.to_owned()),
        version: None,
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn memory_keeps_conditions_and_nothing_is_left_behind() {
        let store = InMemory::new();
        basics(&store, 7).await.expect("works");
        listing(&store, 7).await.expect("works");
        let found = conditional(&store, 7).await;
        assert!(matches!(found, Conditional::Enforced { .. }), "{found:?}");
        assert_eq!(store.list(None).count().await, 0);
    }
}
