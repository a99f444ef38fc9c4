//! Finds what is kept of a stream between two instants, in the store alone.
//!
//! Enters: a stream, a stretch of it
//! Leaves: manifests of that stretch
//! Never:  a listing of segments; a record read twice for two who ask at once
//! Time:   the records': where shows lie follows from their numbers
//! Spec:   docs/recordings.md

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::manifests;
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::show::{Show, Stretch, StretchError};
use crate::serve::shelf::{Keep, Shelf};
use crate::serve::stretch::Asked;
use crate::serve::{Clip, Document, NoClip, StoreFailed};
use crate::store::Store;

/// How old a record may be that goes on, and the list of shows.
const FRESH: Duration = Duration::from_millis(500);

/// How old the record of a show may be that has ended: its oldest segments may go.
const ENDED_FRESH: Duration = Duration::from_secs(10);

/// Memory for records and lists, in bytes: some thousand.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Records and lists that may be read at once.
const MAX_READS: usize = 16;

/// Playlists that may be rendered at once: one of two days takes some milliseconds of a processor.
const MAX_RENDERINGS: usize = 4;

/// The most shows of one stretch.
const MAX_SHOWS: usize = 64;

/// The shows of a stream, or one of them.
#[derive(Clone, Debug)]
enum Found {
    Shows(Arc<Vec<SegmentNumber>>),
    Show(Arc<Show>),
    /// No record, or one that cannot be read.
    Nothing,
    Failed,
}

#[derive(Clone, Debug)]
struct Reading {
    found: Found,
    bytes: u64,
    at: Instant,
}

impl Keep for Reading {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let limit = match &self.found {
            Found::Show(show) if show.is_ended() => ENDED_FRESH,
            _ => FRESH,
        };
        now.duration_since(self.at) < limit
    }
}

/// What is kept, read on demand.
#[derive(Debug)]
pub(in crate::app) struct Library {
    store: Store,
    shelf: Arc<Shelf<Reading>>,
    reads: Arc<Semaphore>,
    renderings: Semaphore,
}

impl Library {
    /// What is kept in `store`.
    pub(in crate::app) fn new(store: Store) -> Self {
        Self {
            store,
            shelf: Arc::new(Shelf::new(MAX_BYTES)),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            renderings: Semaphore::new(MAX_RENDERINGS),
        }
    }

    /// The manifest `key` of the stretch `asked`, or of all of the show that `key` names.
    pub(in crate::app) async fn clip(
        &self,
        key: &ObjectKey,
        asked: Option<Asked>,
    ) -> Result<Clip, NoClip> {
        let missing = |text: &str| NoClip::Missing(text.to_owned());
        match (&key.item, asked) {
            (
                Item::ShowMultivariant(first) | Item::ShowMpd(first) | Item::ShowMedia(_, first),
                _,
            ) => {
                let show = self.show(&key.stream, *first).await?;
                let show = show.ok_or_else(|| missing("there is no such show"))?;
                let shows = [Show::clone(&show)];
                self.render(key, &shows, None, manifests::file(&show)).await
            }
            (_, Some(asked)) => {
                let shows = self.between(&key.stream, asked).await?;
                let file = format!("index.m3u8?{asked}");
                self.render(key, &shows, Some(asked), file).await
            }
            (_, None) => Err(missing("nothing here, or not any more")),
        }
    }

    async fn render(
        &self,
        key: &ObjectKey,
        shows: &[Show],
        asked: Option<Asked>,
        file: String,
    ) -> Result<Clip, NoClip> {
        let _permit = self.renderings.acquire().await;
        let stretch = match (asked, shows.first()) {
            (Some(asked), _) => Stretch::between(shows, asked.start, asked.end),
            (None, Some(show)) => Stretch::whole(show),
            (None, None) => Err(StretchError::Nothing),
        };
        let stretch = stretch.map_err(|error| match error {
            StretchError::Nothing => NoClip::Missing(error.to_string()),
            _ => NoClip::Refused(error.to_string()),
        })?;
        let text = match &key.item {
            Item::Multivariant | Item::ShowMultivariant(_) => stretch.multivariant_playlist(&file),
            Item::Mpd | Item::ShowMpd(_) => stretch.mpd(),
            Item::Media(name) | Item::ShowMedia(name, _) => stretch.media_playlist(name),
            Item::Init(..) | Item::Segment(..) | Item::Part(..) | Item::Show(_) => None,
        };
        let text = text.ok_or_else(|| {
            NoClip::Missing("nothing of that rendition is kept of that time".to_owned())
        })?;
        Ok(Clip {
            document: Arc::new(Document::manifest(&key.item, Bytes::from(text))),
            is_closed: stretch.is_closed(),
        })
    }

    /// The shows that lie between the instants of `asked`, ascending.
    pub(in crate::app) async fn between(
        &self,
        stream: &StreamName,
        asked: Asked,
    ) -> Result<Vec<Show>, NoClip> {
        let firsts = self.shows(stream).await?;
        // The last show that begins at or before the start: the numbers of shows rise with time.
        let mut range = 0..firsts.len();
        while range.start < range.end {
            let middle = range.start + (range.end - range.start) / 2;
            let Some(first) = firsts.get(middle).copied() else {
                break;
            };
            let show = self.show(stream, first).await?;
            if show.is_none_or(|show| show.begins() <= asked.start) {
                range.start = middle + 1;
            } else {
                range.end = middle;
            }
        }
        let mut found = Vec::new();
        for first in firsts.iter().skip(range.start.saturating_sub(1)) {
            let Some(show) = self.show(stream, *first).await? else {
                continue;
            };
            if asked.end.is_some_and(|end| show.begins() >= end) {
                break;
            }
            if found.len() == MAX_SHOWS {
                let text = format!("a stretch has at most {MAX_SHOWS} shows");
                return Err(NoClip::Refused(text));
            }
            found.push(Show::clone(&show));
        }
        Ok(found)
    }

    /// The newest show that can be read.
    pub(in crate::app) async fn newest(&self, stream: &StreamName) -> Result<Option<Show>, NoClip> {
        for first in self.shows(stream).await?.iter().rev() {
            if let Some(show) = self.show(stream, *first).await? {
                return Ok(Some(Show::clone(&show)));
            }
        }
        Ok(None)
    }

    async fn shows(&self, stream: &StreamName) -> Result<Arc<Vec<SegmentNumber>>, StoreFailed> {
        let key = ObjectKey::new(stream.clone(), Item::Multivariant);
        let read = |_| {
            let (store, reads, stream) =
                (self.store.clone(), Arc::clone(&self.reads), stream.clone());
            async move {
                let _permit = reads.acquire().await;
                let found = match store.shows(&stream).await {
                    Ok(shows) => Found::Shows(Arc::new(shows)),
                    Err(error) => {
                        tracing::warn!(%stream, %error, "what is kept cannot be listed");
                        Found::Failed
                    }
                };
                let bytes = match &found {
                    Found::Shows(shows) => shows.len() as u64 * 8,
                    _ => 0,
                };
                let at = Instant::now();
                Reading { found, bytes, at }
            }
        };
        match self.shelf.get(&key, read).await.found {
            Found::Shows(shows) => Ok(shows),
            _ => Err(StoreFailed),
        }
    }

    async fn show(
        &self,
        stream: &StreamName,
        first: SegmentNumber,
    ) -> Result<Option<Arc<Show>>, StoreFailed> {
        let key = ObjectKey::new(stream.clone(), Item::Show(first));
        let read = |_| {
            let (store, reads, key) = (self.store.clone(), Arc::clone(&self.reads), key.clone());
            async move {
                let _permit = reads.acquire().await;
                let (found, bytes) = read(&store, &key).await;
                let at = Instant::now();
                Reading { found, bytes, at }
            }
        };
        match self.shelf.get(&key, read).await.found {
            Found::Show(show) => Ok(Some(show)),
            Found::Nothing => Ok(None),
            Found::Shows(_) | Found::Failed => Err(StoreFailed),
        }
    }
}

async fn read(store: &Store, key: &ObjectKey) -> (Found, u64) {
    match super::read(store, key).await {
        // What a record becomes in memory is about what it is as text.
        Ok(Some((show, bytes))) => (Found::Show(Arc::new(show)), bytes),
        Ok(None) => (Found::Nothing, 0),
        Err(_) => (Found::Failed, 0),
    }
}
