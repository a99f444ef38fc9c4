//! What can be fetched of a stream from memory: the objects and manifests of its window.
//!
//! Enters: what the broadcast's task publishes
//! Leaves: objects and manifests for the origin
//! Never:  waits: no lock is held across an await, nor while those who wait are woken
//! Time:   `Instant` for staleness
//! Spec:   docs/architecture.md

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::app::stream::Stream;
use crate::id::SegmentNumber;
use crate::media::Item;
use crate::serve::{Found, Live, Object, Version};

/// A stream counts as stalled when its manifests have not moved for this many segment durations.
const STALLED_AFTER_SEGMENTS: u32 = 3;

/// What can be fetched from memory.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    manifests: HashMap<Item, Arc<watch::Sender<Arc<Live>>>>,
    objects: HashMap<Item, Arc<Object>>,
    pub(super) progress: Option<Progress>,
}

/// How the newest manifests came to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    advanced: Instant,
    segment: Duration,
    pub(super) ended: bool,
}

impl Stream {
    /// Makes an object fetchable.
    pub(in crate::app) fn insert(&self, item: Item, object: Arc<Object>) {
        self.catalog_mut(|catalog| catalog.objects.insert(item, object));
    }

    /// The highest number of a segment or part in memory.
    #[must_use]
    pub(in crate::app) fn highest_segment(&self) -> Option<SegmentNumber> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let number = |item: &Item| match item {
            Item::Segment(_, number) | Item::Part(_, number, _) => Some(*number),
            _ => None,
        };
        catalog.objects.keys().filter_map(number).max()
    }

    /// Drops objects from memory; the store still has them.
    pub(in crate::app) fn remove(&self, items: impl IntoIterator<Item = Item>) {
        self.catalog_mut(|catalog| {
            for item in items {
                catalog.objects.remove(&item);
            }
        });
    }

    /// Publishes new versions of manifests, and wakes who waits for them.
    pub(in crate::app) fn publish(
        &self,
        manifests: Vec<(Item, Version)>,
        segment: Duration,
        ended: bool,
    ) {
        let known: Vec<_> = self.catalog_mut(|catalog| {
            let feed = |(item, version): (Item, Version)| {
                if let Some(feed) = catalog.manifests.get(&item) {
                    return Some((Arc::clone(feed), version));
                }
                let feed = watch::Sender::new(Arc::new(Live::new(version)));
                catalog.manifests.insert(item, Arc::new(feed));
                None
            };
            manifests.into_iter().filter_map(feed).collect()
        });
        // Thousands may be woken: not while others wait for the lock.
        for (feed, version) in known {
            feed.send_if_modified(|live| {
                let (next, moved) = live.followed_by(version);
                *live = Arc::new(next);
                moved
            });
        }
        // Last, so that what is said to have ended says so itself.
        self.catalog_mut(|catalog| {
            catalog.progress = Some(Progress {
                advanced: Instant::now(),
                segment,
                ended,
            });
        });
    }

    /// Forgets everything that can be fetched: a new broadcast begins, or memory is given back.
    pub(in crate::app) fn clear(&self) {
        self.catalog_mut(|catalog| *catalog = Catalog::default());
        self.facts().renditions.clear();
    }

    /// The manifest `item`, if it is in memory.
    #[must_use]
    pub(in crate::app) fn manifest(&self, item: &Item) -> Found {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(feed), Some(progress)) = (catalog.manifests.get(item), catalog.progress) else {
            return Found::Missing;
        };
        if progress.ended {
            Found::Ended(Arc::clone(feed.borrow().newest().document()))
        } else if progress.is_stalled() {
            Found::Stalled {
                retry_after: progress.segment,
            }
        } else {
            Found::Live(feed.subscribe())
        }
    }

    /// Whether there is a manifest `item` in memory.
    #[must_use]
    pub(super) fn has(&self, item: &Item) -> bool {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.manifests.contains_key(item)
    }

    /// The object `item`, if it is in memory.
    #[must_use]
    pub(in crate::app) fn object(&self, item: &Item) -> Option<Arc<Object>> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.objects.get(item).cloned()
    }

    fn catalog_mut<T>(&self, change: impl FnOnce(&mut Catalog) -> T) -> T {
        change(&mut self.catalog.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress {
    pub(super) fn is_stalled(&self) -> bool {
        self.advanced.elapsed() > self.segment * STALLED_AFTER_SEGMENTS
    }
}
