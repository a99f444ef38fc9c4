//! What an earlier run left published of the broadcast that a packager goes on with.
//!
//! Enters: the playlists that it left, which segments are stored, its init segments
//! Leaves: [`Past`], and the segments to be listed before the first new one
//! Never:  reads a store; media
//! Time:   the grid's: a segment's place follows from its number
//! Spec:   [HLS] §6.2.1, §4.4.4.3, §4.4.4.7

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use super::cut::Cutter;
use super::hls::Listing;
use super::window::Segment;
use crate::id::{PeriodId, RenditionName, SegmentNumber};
use crate::media::{Payload, Rendition};

/// The published rest of an earlier run that did not end, but broke off.
#[derive(Clone, Debug)]
pub struct Past {
    listing: Listing,
    period: PeriodId,
    renditions: BTreeMap<RenditionName, Left>,
}

/// What is stored of one rendition.
#[derive(Clone, Debug, Default)]
struct Left {
    init: Bytes,
    segments: BTreeSet<SegmentNumber>,
}

impl Past {
    /// The rest of the run that left `listings`, one of each rendition. `None` if there are none, or it was
    /// brought to its end: then nothing goes on.
    #[must_use]
    pub fn of(listings: Vec<Listing>) -> Option<Self> {
        if listings.iter().any(|listing| listing.ended) {
            return None;
        }
        // Playlists are stored one after another; the newest of them says what has left the list.
        let listing = listings.into_iter().max_by_key(|listing| listing.first)?;
        Some(Self {
            period: listing.last_period()?,
            listing,
            renditions: BTreeMap::new(),
        })
    }

    /// The period that the run was in.
    #[must_use]
    pub const fn period(&self) -> PeriodId {
        self.period
    }

    /// The oldest segment that may be listed.
    #[must_use]
    pub const fn first(&self) -> SegmentNumber {
        self.listing.first
    }

    /// Adds a rendition: its init segment of [`Self::period`], and what is stored of it.
    pub fn add(
        &mut self,
        name: RenditionName,
        init: Bytes,
        segments: impl IntoIterator<Item = SegmentNumber>,
    ) {
        let segments = segments.into_iter().collect();
        self.renditions.insert(name, Left { init, segments });
    }

    /// Whether the renditions of before are those of now, to the last byte of their init segments: then the
    /// period goes on.
    pub(super) fn is_same(&self, renditions: &[Rendition], init_segments: &[Payload]) -> bool {
        let mut both = renditions.iter().zip(init_segments);
        self.renditions.len() == renditions.len()
            && both.all(|(rendition, init)| {
                let left = self.renditions.get(&rendition.name);
                left.is_some_and(|left| left.init == init.to_bytes())
            })
    }

    /// What is to be listed before segment `first` in a window of `window` segments; `None` if nothing of it
    /// is left. A segment counts as left if any of `renditions` has it.
    pub(super) fn numbers(
        &self,
        renditions: &[Rendition],
        first: SegmentNumber,
        window: u64,
    ) -> Option<Range<u64>> {
        let oldest = first.get().saturating_sub(window);
        let oldest = oldest.max(self.listing.first.get());
        let names = renditions.iter().map(|rendition| &rendition.name);
        let stored = names.filter_map(|name| self.renditions.get(name));
        let mut numbers = stored.flat_map(|left| &left.segments);
        let range = oldest..first.get();
        // The one that leaves the list with the first new segment does not count.
        let kept = oldest.max((first.get() + 1).saturating_sub(window))..first.get();
        numbers
            .any(|number| kept.contains(&number.get()))
            .then_some(range)
    }

    /// The segments `numbers` of `rendition`, gaps where none is stored.
    pub(super) fn segments(
        &self,
        rendition: &Rendition,
        cutter: &Cutter,
        numbers: Range<u64>,
    ) -> Vec<Segment> {
        let left = self.renditions.get(&rendition.name);
        let is_stored = |number| left.is_some_and(|left| left.segments.contains(&number));
        let listing = self.listing.clone().from(SegmentNumber::new(numbers.start));
        numbers
            .map(SegmentNumber::new)
            .map(|number| {
                let period = listing.period_of(number).unwrap_or(self.period);
                Segment {
                    period,
                    discontinuity: listing.is_discontinuity(number),
                    ..absent(cutter, number, period, !is_stored(number))
                }
            })
            .collect()
    }

    /// EXT-X-DISCONTINUITY-SEQUENCE of a list that begins with `first`.
    pub(super) fn discontinuity_sequence(&self, first: u64) -> u64 {
        let listing = self.listing.clone().from(SegmentNumber::new(first));
        listing.discontinuity_sequence
    }
}

/// Segment `number` without its media: because there is none, or because it is in the store.
pub(super) fn absent(
    cutter: &Cutter,
    number: SegmentNumber,
    period: PeriodId,
    gap: bool,
) -> Segment {
    let (start, end) = (cutter.start_of(number), cutter.start_of(number.next()));
    Segment {
        number,
        start,
        duration: end.since(start).unwrap_or_default(),
        independent: true,
        parts: Vec::new(),
        payload: Payload::default(),
        period,
        discontinuity: false,
        gap,
    }
}
