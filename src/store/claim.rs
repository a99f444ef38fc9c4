//! Sees to it that the place of a store is this program's, and says so there.
//!
//! Enters: a store
//! Leaves: the same with a small object at its root that says whose it is; or why it is not to be used
//! Never:  writes where another program does, unless an operator has said that it may
//! Time:   none
//! Spec:   docs/storage.md, docs/adr/0008-say-whose-a-store-is.md
//!
//! Where the object is, reading it is all. Where it is not, what is there decides: nothing, or what an earlier release
//! left without one, is taken; anything else is not.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};
use serde::Deserialize;

use super::bucket::{Bucket, reason};
use super::inventory;
use super::probe::{Conditional, PROBE};
use crate::media::{Item, ObjectKey};

/// What the object is called, beside the folder of all streams.
pub(crate) const MARKER: &str = "headwater-store.json";

/// What it says of itself, and which layout of everything else it stands for.
const FORMAT: &str = "headwater-store";
const VERSION: u32 = 1;

/// The longest one that is read.
const MAX_MARKER_BYTES: u64 = 4_096;

/// The most streams that are looked at for what an earlier release left.
const MAX_STREAMS: usize = 64;

/// The most records of each that are.
const MAX_RECORDS: usize = 4;

/// What a record of a show begins with.
const RECORD: &[u8] = b"{\"format\":\"headwater-show\"";

/// Why a place is not to be used, as the rest of a sentence that begins with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "is used by something else: found {found:?} there, and no {MARKER} that says that it is Headwater's. \
         Nothing was written over. Name an empty folder or prefix; or, if Headwater is to share this one, put an \
         empty {MARKER} there"
    )]
    Used { found: String },
    #[error(
        "has a {MARKER} that Headwater did not write ({why}). Nothing was written over. Name another folder or \
         prefix; or, if this one is Headwater's, remove that {MARKER}"
    )]
    Foreign { why: String },
    #[error(
        "was laid out by a later release: its {MARKER} has version {found}, this one knows {VERSION}"
    )]
    Later { found: u32 },
    #[error("cannot {attempted} it: {}", reason(.error))]
    Failed {
        attempted: &'static str,
        error: Error,
    },
}

#[derive(Deserialize)]
struct Marker {
    format: String,
    version: u32,
}

/// Takes the place of `bucket`, which is on `store`, for this program.
///
/// # Errors
///
/// [`Refused`]: it is another's, or could not be asked.
pub(crate) async fn claim(
    store: &dyn ObjectStore,
    bucket: &Bucket,
    conditional: Conditional,
) -> Result<(), Refused> {
    if read(store).await? {
        return Ok(());
    }
    let failed = |attempted| move |error| Refused::Failed { attempted, error };
    if !holds_ours(bucket).await.map_err(failed("read from"))? {
        let found = anything(store, bucket).await.map_err(failed("list"))?;
        if let Some(found) = found {
            return Err(Refused::Used { found });
        }
    }
    // Another one may have begun at the same time: what it has written says the same.
    let mode = match conditional {
        Conditional::Enforced { .. } => PutMode::Create,
        Conditional::Ignored => PutMode::Overwrite,
    };
    let mut attributes = Attributes::new();
    if bucket.keeps_attributes() {
        attributes.insert(Attribute::ContentType, "application/json".into());
    }
    let options = PutOptions {
        attributes,
        mode,
        ..PutOptions::default()
    };
    let text = format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}\n");
    let path = Path::from(MARKER);
    match store.put_opts(&path, text.into(), options).await {
        Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(failed("write to")(error)),
    }
}

/// Whether there is a marker, of ours or of an operator who says that the place may be shared.
async fn read(store: &dyn ObjectStore) -> Result<bool, Refused> {
    let failed = |error| Refused::Failed {
        attempted: "read from",
        error,
    };
    let found = match store.get(&Path::from(MARKER)).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    if found.meta.size > MAX_MARKER_BYTES {
        let why = format!("it has {} bytes", found.meta.size);
        return Err(Refused::Foreign { why });
    }
    let text = found.bytes().await.map_err(failed)?;
    check(&text).map(|()| true)
}

fn check(text: &Bytes) -> Result<(), Refused> {
    if text.trim_ascii().is_empty() {
        return Ok(());
    }
    let marker: Marker = serde_json::from_slice(text).map_err(|error| Refused::Foreign {
        why: error.to_string(),
    })?;
    match (marker.format.as_str(), marker.version) {
        (FORMAT, VERSION) => Ok(()),
        (FORMAT, found) => Err(Refused::Later { found }),
        (found, _) => {
            let found: String = found.chars().take(64).collect();
            let why = format!("its format is {found:?}");
            Err(Refused::Foreign { why })
        }
    }
}

/// Whether a release that wrote no marker has left anything: a playlist that names an init segment as ours are
/// called, or a record.
async fn holds_ours(bucket: &Bucket) -> Result<bool, Error> {
    for stream in bucket.streams().await?.into_iter().take(MAX_STREAMS) {
        let named = inventory::named(bucket, &stream).await?;
        let mut names = named.values().flatten();
        if names.any(|key| matches!(key.item, Item::Init(..))) {
            return Ok(true);
        }
        let (keys, _) = bucket.children(&stream).await?;
        let records = keys.iter().filter(|key| matches!(key.item, Item::Show(_)));
        for record in records.take(MAX_RECORDS) {
            let text = bucket.get(record, Some(0..RECORD.len() as u64)).await?;
            if text.is_some_and(|text| text.to_bytes().starts_with(RECORD)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The name of anything that is there and matters.
async fn anything(store: &dyn ObjectStore, bucket: &Bucket) -> Result<Option<String>, Error> {
    if let Some(found) = bucket.first_below(ObjectKey::ROOT).await? {
        return Ok(Some(found));
    }
    let root = store.list_with_delimiter(None).await?;
    let objects = root.objects.into_iter().map(|object| object.location);
    let names = objects.chain(root.common_prefixes);
    let names = names.map(|path| path.to_string());
    Ok(names.into_iter().find(|name| matters(name)))
}

/// Whether something else is where `name` is, at the root. A folder of ours may be there and empty, a probe may have
/// been left, and what a system keeps in every folder is nobody's.
fn matters(name: &str) -> bool {
    let is_ours = name == ObjectKey::ROOT || name.starts_with(PROBE);
    !name.is_empty() && !is_ours && !name.starts_with('.') && name != "lost+found"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;

    const ENFORCED: Conditional = Conditional::Enforced { bare_tags: false };
    const PLAYLIST: &str = "#EXTM3U\n#EXT-X-MAP:URI=\"init-7.mp4\"\n#EXTINF:2,\n7.m4s\n";

    async fn holding(objects: &[(&str, &str)]) -> Arc<InMemory> {
        let store = Arc::new(InMemory::new());
        for (path, body) in objects {
            let body = PutPayload::from((*body).to_owned());
            store.put(&Path::from(*path), body).await.expect("stored");
        }
        store
    }

    async fn claimed(store: &Arc<InMemory>, conditional: Conditional) -> Result<(), String> {
        let bucket = Bucket::new(Arc::<InMemory>::clone(store), true);
        let claimed = claim(&**store, &bucket, conditional).await;
        claimed.map_err(|refused| refused.to_string())
    }

    async fn text(store: &InMemory) -> Option<String> {
        let found = store.get(&Path::from(MARKER)).await.ok()?;
        let bytes = found.bytes().await.expect("read");
        Some(String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn an_empty_place_is_taken_and_is_ours_whatever_comes_beside() {
        for conditional in [ENFORCED, Conditional::Ignored] {
            let left = [("headwater-probe-12", ""), (".DS_Store", "")];
            let store = holding(&left).await;
            assert_eq!(claimed(&store, conditional).await, Ok(()));
            let marker = text(&store).await.expect("there");
            assert_eq!(marker, "{\"format\":\"headwater-store\",\"version\":1}\n");
            for path in ["photo.jpg", "live/other/seg.ts"] {
                let body = PutPayload::from_static(b"x");
                store.put(&Path::from(path), body).await.expect("stored");
            }
            assert_eq!(claimed(&store, conditional).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn a_place_that_something_else_uses_is_refused_and_left_as_it_is() {
        for (path, body) in [
            ("photo.jpg", "x"),
            ("backup/monday.tar", "x"),
            ("live/cam/seg1.ts", "x"),
            // Names of ours, and not our words.
            ("live/cam/index.m3u8", "#EXTM3U\n#EXTINF:2,\nseg1.ts\n"),
            ("live/cam/v720/index.m3u8", "#EXTM3U\n#EXTINF:2,\n1.m4s\n"),
            ("live/cam/show-7.json", "{\"title\":\"x\"}"),
        ] {
            let store = holding(&[(path, body)]).await;
            let refused = claimed(&store, ENFORCED).await.expect_err(path);
            let top = path.split('/').next().expect("a name");
            assert!(
                refused.contains(top) && refused.contains(MARKER),
                "{refused}"
            );
            assert_eq!(store.list(None).count().await, 1, "{path}");
            // An operator says that it may be shared.
            let consent = PutPayload::from_static(b"\n");
            let marker = Path::from(MARKER);
            store.put(&marker, consent).await.expect("stored");
            assert_eq!(claimed(&store, ENFORCED).await, Ok(()), "{path}");
        }
    }

    #[tokio::test]
    async fn what_an_earlier_release_left_is_taken_over() {
        let record = "{\"format\":\"headwater-show\",\"version\":1}";
        for objects in [
            [("live/film/v720/index.m3u8", PLAYLIST), ("index.html", "x")],
            [("live/film/show-7.json", record), ("live/other/x.ts", "x")],
        ] {
            let store = holding(&objects).await;
            assert_eq!(claimed(&store, ENFORCED).await, Ok(()));
            assert!(text(&store).await.is_some());
        }
    }

    #[tokio::test]
    async fn a_marker_of_something_else_or_of_a_later_release_is_refused() {
        for (body, told) in [
            ("hello", "did not write"),
            ("{\"format\":\"other\",\"version\":1}", "\"other\""),
            (
                "{\"format\":\"headwater-store\",\"version\":2}",
                "version 2",
            ),
            (&"x".repeat(5_000), "5000 bytes"),
        ] {
            let store = holding(&[(MARKER, body)]).await;
            let refused = claimed(&store, ENFORCED).await.expect_err(body);
            assert!(refused.contains(told), "{refused}");
            assert_eq!(text(&store).await.as_deref(), Some(body));
        }
    }
}
