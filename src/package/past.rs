//! What an earlier run left published of the broadcast that a packager goes on with.
//!
//! Enters: the playlists that it left, which segments are stored, its init segments
//! Leaves: [`Past`], and the segments to be listed before the first new one
//! Never:  reads a store; media
//! Time:   the grid's: a segment's place follows from its number; of what its source cuts, what the playlists
//! of before say
//! Spec:   [HLS] §6.2.1, §4.4.4.3, §4.4.4.7

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use super::cut::Cutter;
use super::hls::Listing;
use super::snapshot::Segment;
use crate::id::{PeriodId, RenditionName, SegmentNumber};
use crate::media::{Payload, Rendition};
use crate::time::{Span, Ticks, Timescale};

/// The published rest of an earlier run that did not end, but broke off.
#[derive(Clone, Debug)]
pub struct Past {
    /// The one that says most of what has left the list, and all of them.
    listing: Listing,
    listings: BTreeMap<RenditionName, Listing>,
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
    /// brought to its end: then nothing goes on. What an earlier broadcast ended with, of renditions that the last
    /// one had not, says nothing of that.
    #[must_use]
    pub fn of(mut listings: Vec<(RenditionName, Listing)>) -> Option<Self> {
        // Playlists are stored one after another; the newest of them says what has left the list.
        let open = listings.iter().filter(|(_, listing)| !listing.ended);
        let newest = open.max_by_key(|(_, listing)| listing.first)?;
        let listing = newest.1.clone();
        listings.retain(|(_, other)| !other.ended || other.end > listing.first);
        if listings.iter().any(|(_, listing)| listing.ended) {
            return None;
        }
        Some(Self {
            period: listing.last_period()?,
            listing,
            listings: listings.into_iter().collect(),
            renditions: BTreeMap::new(),
        })
    }

    /// The period that the run was in.
    #[must_use]
    pub const fn period(&self) -> PeriodId {
        self.period
    }

    /// Whether another period was before it, listed or not.
    pub(super) fn has_discontinuity(&self) -> bool {
        self.listing.discontinuity_sequence > 0
            || self
                .listing
                .is_discontinuity(SegmentNumber::new(self.period.get()))
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

    /// The segments `numbers` of `rendition`, gaps where none is stored. Of one that was not there before nothing
    /// is, not even an init segment: its gaps name that of `current`, the period that begins.
    pub(super) fn segments(
        &self,
        (rendition, current): (&Rendition, PeriodId),
        cutter: &Cutter,
        numbers: Range<u64>,
    ) -> Vec<Segment> {
        let left = self.renditions.get(&rendition.name);
        let is_stored = |number| left.is_some_and(|left| left.segments.contains(&number));
        let listing = self.listing.clone().from(SegmentNumber::new(numbers.start));
        // One that was not there in an earlier period has another init segment for its gaps.
        let own = self.listings.get(&rendition.name);
        numbers
            .map(SegmentNumber::new)
            .map(|number| {
                let own = own.and_then(|own| own.period_of(number));
                let before = || {
                    own.or_else(|| listing.period_of(number))
                        .unwrap_or(self.period)
                };
                let period = left.map_or(current, |_| before());
                Segment {
                    period,
                    discontinuity: listing.is_discontinuity(number),
                    ..absent(cutter, number, period, !is_stored(number))
                }
            })
            .collect()
    }

    /// The segments `numbers` of `rendition` with the lengths and dates that they were listed with, gaps where
    /// none is stored, or it was stored and never listed.
    pub(super) fn segments_as_listed(
        &self,
        (rendition, current): (&Rendition, PeriodId),
        cutter: &Cutter,
        numbers: Range<u64>,
    ) -> Vec<Segment> {
        let listing = self.listings.get(&rendition.name).unwrap_or(&self.listing);
        let time_of = |number| {
            listing
                .time_of(number)
                .or_else(|| self.listing.time_of(number))
        };
        let scale = Timescale::MICROS;
        let mut before: Option<(Ticks, Span)> = None;
        let mut segments = self.segments((rendition, current), cutter, numbers);
        for segment in &mut segments {
            let listed = time_of(segment.number);
            let (start, duration) = match (listed, before) {
                (Some((date, length)), _) => (date.to_ticks(scale), length),
                (None, Some((start, length))) => {
                    (start.checked_add(length).unwrap_or(start), length)
                }
                // Before what is known the grid says as much as anything.
                (None, None) => {
                    let start = segment.begins().rescale_nearest(scale);
                    let end = segment.ends().rescale_nearest(scale);
                    (start, end.since(start).unwrap_or_default())
                }
            };
            segment.gap |= listed.is_none();
            (segment.scale, segment.start, segment.duration) = (scale, start, duration);
            before = Some((start, duration));
        }
        segments
    }

    /// EXT-X-TARGETDURATION of the earlier run.
    pub(super) fn target_duration_s(&self) -> Option<u32> {
        let targets = self
            .listings
            .values()
            .map(|listing| listing.target_duration_s);
        targets.flatten().max()
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
        scale: cutter.scale(),
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
