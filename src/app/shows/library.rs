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
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::held::{Asking, Found, Kept, Listed, Made, Reading};
use super::manifests;
use crate::app::status::{ShowStatus, ShowsStatus};
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::show::{Show, Stretch, StretchError};
use crate::serve::shelf::Shelf;
use crate::serve::shows::Page;
use crate::serve::stretch::Asked;
use crate::serve::{Clip, Document, Growth, NoClip, StoreFailed};
use crate::store::Store;

/// Memory for what is read, in bytes, where nothing else is said: a quarter of it for records, some thousand, another
/// for manifests of stretches, and the rest for playlists that reach further back, of a day some 6 MB for each rendition.
pub(in crate::app) const MAX_BYTES: u64 = 128 * 1024 * 1024;

/// Memory for what lists of shows say of each, in bytes: some thousand.
const MAX_LISTED_BYTES: u64 = 1024 * 1024;

/// How long a playlist that reaches further back stays after somebody asked for it, whoever else asks: players do
/// with every segment.
const HELD: Duration = Duration::from_secs(10);

/// Records and lists that may be read at once.
const MAX_READS: usize = 16;

/// Manifests that may be rendered at once, each on a thread on which nobody waits: a playlist of two days takes some
/// milliseconds of a processor, an MPD that names as many segments one by one far more.
const MAX_RENDERINGS: usize = 4;

/// Stretches that may be put together at once: each holds the records of its shows.
const MAX_STRETCHES: usize = 16;

/// The most that the records of one stretch may have together, in bytes.
const MAX_STRETCH_BYTES: u64 = 32 * 1024 * 1024;

/// The most shows of one stretch.
const MAX_SHOWS: usize = 64;

/// What is kept, read on demand. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::app) struct Library {
    pub(super) store: Store,
    /// Records and lists.
    pub(super) shelf: Arc<Shelf<Reading>>,
    /// Playlists that reach further back: they are large, and made anew at some cost.
    pub(super) reaching: Arc<Shelf<Reading>>,
    /// Manifests of stretches: rendered, and compressed, once for all who ask for the same.
    pub(super) clips: Arc<Shelf<Made, Asking>>,
    listed: Arc<Shelf<Listed>>,
    pub(super) reads: Arc<Semaphore>,
    stretches: Arc<Semaphore>,
    pub(super) renderings: Arc<Semaphore>,
}

impl Library {
    /// What is kept in `store`, of which about `max_bytes` stay in memory.
    pub(in crate::app) fn new(store: Store, max_bytes: u64) -> Self {
        let quarter = max_bytes / 4;
        Self {
            store,
            shelf: Arc::new(Shelf::new(quarter)),
            reaching: Arc::new(Shelf::holding(max_bytes - 2 * quarter, HELD)),
            clips: Arc::new(Shelf::new(quarter)),
            listed: Arc::new(Shelf::new(MAX_LISTED_BYTES)),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            stretches: Arc::new(Semaphore::new(MAX_STRETCHES)),
            renderings: Arc::new(Semaphore::new(MAX_RENDERINGS)),
        }
    }

    /// The manifest `key` of the stretch `asked`, or of all of the show that `key` names.
    pub(in crate::app) async fn clip(
        &self,
        key: &ObjectKey,
        asked: Option<Asked>,
    ) -> Result<Clip, NoClip> {
        let missing = |text: &str| NoClip::Missing(text.to_owned());
        if let Item::Dvr | Item::DvrMpd | Item::DvrMedia(_) = &key.item {
            // Those who ask for it share it, and hold nothing else.
            return self.reaching(key).await;
        }
        let (asked, first) = match (&key.item, asked) {
            (
                Item::ShowMultivariant(first) | Item::ShowMpd(first) | Item::ShowMedia(_, first),
                _,
            ) => (None, *first),
            (_, Some(asked)) => (Some(asked), SegmentNumber::new(0)),
            (_, None) => return Err(missing("nothing here, or not any more")),
        };
        let make = async move |library: Self, key: ObjectKey, before| match asked {
            Some(asked) => {
                let shows = library.between(&key.stream, asked).await?;
                let file = format!("index.m3u8?{asked}");
                library
                    .render(&key, (shows, before), Some(asked), file)
                    .await
            }
            None => {
                let show = library.kept(&key.stream, first).await?;
                let show = show.ok_or_else(|| missing("there is no such show"))?;
                let file = manifests::file(&show.show);
                library.render(&key, (vec![show], before), None, file).await
            }
        };
        self.shared(key, asked, make).await
    }

    /// What `make` makes of a stretch, after what it made last, for all who ask for it.
    pub(super) async fn shared<F>(
        &self,
        key: &ObjectKey,
        asked: Option<Asked>,
        make: impl FnOnce(Self, ObjectKey, Option<Made>) -> F + Send + 'static,
    ) -> Result<Clip, NoClip>
    where
        F: Future<Output = Result<Made, NoClip>> + Send + 'static,
    {
        let asking = Asking {
            key: key.clone(),
            asked,
        };
        if let Some(made) = self.clips.peek(&asking) {
            return made.clip;
        }
        // Before anything is read: what waits holds nothing, and goes with whoever asks. Who joins a making under way
        // gives its place back at once.
        let (library, key) = (self.clone(), key.clone());
        let permit = Arc::clone(&self.stretches).acquire_owned().await;
        let read = |before| async move {
            let _permit = permit;
            let made = make(library, key, before).await;
            made.unwrap_or_else(|reason| Made {
                clip: Err(reason),
                of: Vec::new(),
                at: Instant::now(),
            })
        };
        self.clips.get(&asking, read).await.clip
    }

    pub(super) async fn render(
        &self,
        key: &ObjectKey,
        (kept, before): (Vec<Kept>, Option<Made>),
        asked: Option<Asked>,
        file: String,
    ) -> Result<Made, NoClip> {
        let key = key.clone();
        let read_at = kept.iter().map(|show| show.at).min();
        let mut of = kept.clone();
        let clip = match before.and_then(|before| before.of_same(&kept)) {
            Some(same) => same,
            None => {
                let clip = aside(&self.renderings, move || {
                    rendered(&key, &kept, asked, &file)
                });
                clip.await.unwrap_or(Err(NoClip::Store(StoreFailed)))?
            }
        };
        let read_at = read_at.filter(|_| clip.growth == Growth::Final);
        if clip.growth != Growth::Over {
            of.clear();
        }
        Ok(Made {
            clip: Ok(clip),
            of,
            at: read_at.unwrap_or_else(Instant::now),
        })
    }

    /// The shows that lie between the instants of `asked`, ascending.
    pub(in crate::app) async fn between(
        &self,
        stream: &StreamName,
        asked: Asked,
    ) -> Result<Vec<Kept>, NoClip> {
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
        let (mut found, mut total) = (Vec::new(), 0);
        for first in firsts.iter().skip(range.start.saturating_sub(1)) {
            let Some(kept) = self.kept(stream, *first).await? else {
                continue;
            };
            if asked.end.is_some_and(|end| kept.show.begins() >= end) {
                break;
            }
            total += kept.bytes;
            if total > MAX_STRETCH_BYTES {
                let text =
                    "the records of that stretch are too long together; ask for less".to_owned();
                return Err(NoClip::Refused(text));
            }
            if found.len() == MAX_SHOWS {
                let text = format!("a stretch has at most {MAX_SHOWS} shows");
                return Err(NoClip::Refused(text));
            }
            found.push(kept);
        }
        Ok(found)
    }

    /// A page of the shows of `stream`, the newest first.
    pub(in crate::app) async fn list(
        &self,
        stream: &StreamName,
        page: Page,
    ) -> Result<ShowsStatus, StoreFailed> {
        let firsts = self.shows(stream).await?;
        let end = page.before.map_or(firsts.len(), |before| {
            firsts.partition_point(|first| *first < before)
        });
        let start = end.saturating_sub(page.limit);
        let wanted = firsts.get(start..end).unwrap_or_default();
        // Values, not references: the compiler does not see through those here.
        let wanted: Vec<_> = wanted.iter().rev().copied().collect();
        let wanted = wanted.into_iter().map(|first| self.listed(stream, first));
        let shows: Vec<_> = futures_util::stream::iter(wanted)
            .buffered(MAX_READS)
            .try_collect()
            .await?;
        let oldest = firsts.get(start).filter(|_| start > 0);
        Ok(ShowsStatus {
            shows: shows.into_iter().flatten().collect(),
            next: oldest.map(|first| first.get()),
        })
    }

    /// What a list says of a show. It stays in memory for longer than the record, which may be large.
    async fn listed(
        &self,
        stream: &StreamName,
        first: SegmentNumber,
    ) -> Result<Option<ShowStatus>, StoreFailed> {
        let key = ObjectKey::new(stream.clone(), Item::Show(first));
        if let Some(known) = self.listed.peek(&key) {
            return Ok(known.status);
        }
        let show = self.show(stream, first).await?;
        let path = |item| format!("/{}", ObjectKey::new(stream.clone(), item));
        let status = show.map(|show| ShowStatus {
            first: show.first().get(),
            begins: show.begins().to_string(),
            ends: show.ends().to_string(),
            ended: show.is_ended(),
            hls: path(Item::ShowMultivariant(show.first())),
            dash: path(Item::ShowMpd(show.first())),
            record: path(Item::Show(show.first())),
        });
        let listed = Listed {
            status,
            at: Instant::now(),
        };
        let listed = self.listed.get(&key, |_| std::future::ready(listed));
        Ok(listed.await.status)
    }

    /// The newest show that can be read.
    pub(in crate::app) async fn newest(
        &self,
        stream: &StreamName,
    ) -> Result<Option<Arc<Show>>, NoClip> {
        for first in self.shows(stream).await?.iter().rev() {
            if let Some(show) = self.show(stream, *first).await? {
                return Ok(Some(show));
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
                        Found::Failed(None)
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
        let found = self.kept(stream, first).await?;
        Ok(found.map(|kept| kept.show))
    }

    async fn kept(
        &self,
        stream: &StreamName,
        first: SegmentNumber,
    ) -> Result<Option<Kept>, StoreFailed> {
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
        let reading = self.shelf.get(&key, read).await;
        let Reading { found, bytes, at } = reading;
        match found {
            Found::Show(show) => Ok(Some(Kept { show, bytes, at })),
            Found::Nothing => Ok(None),
            Found::Shows(_) | Found::Reaching(_) | Found::Failed(_) => Err(StoreFailed),
        }
    }
}

/// What `render` makes, in one of the `places` there are, on a thread on which nobody waits; `None` once the runtime
/// ends.
pub(super) async fn aside<T: Send + 'static>(
    places: &Arc<Semaphore>,
    render: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let place = Arc::clone(places).acquire_owned().await;
    let rendering = tokio::task::spawn_blocking(move || {
        let made = render();
        drop(place);
        made
    });
    match rendering.await {
        Ok(made) => Some(made),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// The manifest `key` of the stretch `asked` of `shows`, or of all of the one that there is; `file` is what the media
/// playlists are called.
fn rendered(
    key: &ObjectKey,
    shows: &[Kept],
    asked: Option<Asked>,
    file: &str,
) -> Result<Clip, NoClip> {
    let stretch = match (asked, shows.first()) {
        (Some(asked), _) => Stretch::between(shows, asked.start, asked.end),
        (None, Some(show)) => Stretch::whole(&show.show),
        (None, None) => Err(StretchError::Nothing),
    };
    let stretch = stretch.map_err(|error| match error {
        StretchError::Nothing => NoClip::Missing(error.to_string()),
        _ => NoClip::Refused(error.to_string()),
    })?;
    let text = match &key.item {
        Item::Multivariant | Item::ShowMultivariant(_) | Item::Dvr => {
            stretch.multivariant_playlist(file)
        }
        Item::Mpd | Item::ShowMpd(_) | Item::DvrMpd => stretch.mpd(),
        Item::Media(name) | Item::ShowMedia(name, _) | Item::DvrMedia(name) => {
            stretch.media_playlist(name)
        }
        Item::Init(..) | Item::Segment(..) | Item::Part(..) | Item::Show(_) => None,
    };
    let text = text.ok_or_else(|| {
        NoClip::Missing("nothing of that rendition is kept of that time".to_owned())
    })?;
    Ok(Clip {
        document: Arc::new(Document::manifest(&key.item, Bytes::from(text))),
        delta: None,
        growth: match (stretch.is_final(), stretch.is_closed()) {
            (true, _) => Growth::Final,
            (_, true) => Growth::Over,
            (_, false) => Growth::Advancing,
        },
    })
}

async fn read(store: &Store, key: &ObjectKey) -> (Found, u64) {
    match super::read(store, key).await {
        // What a record becomes in memory is about what it is as text.
        Ok(Some((show, bytes))) => (Found::Show(Arc::new(show)), bytes),
        Ok(None) => (Found::Nothing, 0),
        Err(_) => (Found::Failed(None), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::shows::tests::{Counting, fill, now_number, open};
    use crate::serve::shelf::Keep as _;
    use crate::time::WallTime;

    /// The playlist of `asked`, or of the whole show that begins with `first`, of a record that was read ten seconds ago,
    /// and the one that is made after it.
    async fn made(
        backend: &Arc<Counting>,
        first: u64,
        asked: Option<Asked>,
    ) -> ([Made; 2], Instant) {
        let library = Library::new(open(backend), MAX_BYTES);
        let stream: StreamName = "demo".parse().expect("a name");
        let first = SegmentNumber::new(first);
        let kept = library.kept(&stream, first).await.expect("read");
        let mut kept = kept.expect("there");
        let ago = Duration::from_secs(10);
        kept.at = kept.at.checked_sub(ago).expect("a clock that ran");
        let read_at = kept.at;
        let key = ObjectKey::new(stream, Item::ShowMultivariant(first));
        let make = async |before| {
            let shows = (vec![kept.clone()], before);
            let made = library.render(&key, shows, asked, String::new());
            made.await.expect("kept")
        };
        let made = make(None).await;
        let again = make(Some(made.clone())).await;
        ([made, again], read_at)
    }

    #[tokio::test]
    async fn a_manifest_is_no_older_than_its_record_and_what_may_go_on_is_looked_for_at_once() {
        let backend = Arc::new(Counting::default());
        let first = now_number() - 5_000;
        fill(&backend, "demo", first..first + 20, 0, true).await;
        let at =
            |number: u64| WallTime::from_micros(i64::try_from(number * 2_000_000).expect("fits"));
        let asked = |end: Option<u64>| Asked {
            start: at(first + 3),
            end: end.map(at),
        };
        for (asked, growth) in [
            (None, Growth::Final),
            (Some(asked(Some(first + 9))), Growth::Final),
            (Some(asked(Some(first + 4_000))), Growth::Over),
            (Some(asked(None)), Growth::Over),
        ] {
            let ([made, again], read_at) = made(&backend, first, asked).await;
            let clip = |made: &Made| made.clip.clone().expect("kept");
            assert_eq!(clip(&made).growth, growth, "{asked:?}");
            // What is looked for often is not rendered as often.
            let is_same = Arc::ptr_eq(&clip(&made).document, &clip(&again).document);
            assert_eq!(is_same, growth == Growth::Over, "{asked:?}");
            let is_fresh = |at: Instant, ms| made.is_fresh(at + Duration::from_millis(ms));
            match growth {
                Growth::Final => {
                    assert!(is_fresh(read_at, 9_900) && !is_fresh(read_at, 10_000));
                }
                _ => assert!(is_fresh(made.at, 400) && !is_fresh(made.at, 500)),
            }
        }
    }
}
