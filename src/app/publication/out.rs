//! Puts what the packager puts out where it can be fetched.
//!
//! Enters: outputs of the packager, in order
//! Leaves: objects and manifests in the [`Stream`], the same in the store's queue, in order
//! Never:  waits for the store's disk: its queue is what bounds it
//! Time:   the samples'
//! Spec:   docs/architecture.md

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::app::dvr::Dvr;
use crate::app::latency::Passage;
use crate::app::shows::Recording;
use crate::app::status::RenditionStatus;
use crate::app::stream::Stream;
use crate::app::version::{low_latency, manifest};
use crate::id::{PartIndex, PeriodId, RenditionName, SegmentNumber};
use crate::media::{Item, ObjectKey, Payload, Rendition};
use crate::package::{Outline, Output, Snapshot, dash, hls};
use crate::serve::{Object, Version, cache, document};
use crate::store::{Put, Writers};
use crate::time::Ticks;

/// More parts than a segment can have: thirty seconds of the shortest.
const MAX_PARTS: u32 = 1_000;

/// Where a broadcast goes: memory and the store.
pub(super) struct Out {
    pub(super) stream: Arc<Stream>,
    /// In the packager's order: a rendition keeps its index.
    pub(super) renditions: Vec<Rendition>,
    /// The packager's index of each rendition, in the transcoder's order: pictures first.
    pub(super) order: Vec<usize>,
    pub(super) writer: Writers,
    /// The record of what is kept, where anything is: of each store what that has.
    pub(super) recordings: Vec<Recording>,
    /// What viewers can go back to beyond the list, where they can.
    pub(super) dvr: Option<Dvr>,
    pub(super) segment: Duration,
    /// What the multivariant playlist and the MPD were made of last.
    pub(super) outline: Option<Outline>,
    /// What the manifests said last, so that only changed ones are published again.
    pub(super) texts: Vec<(Item, String)>,
    /// The same of what the store got.
    pub(super) stored: Vec<(Item, String)>,
    /// What the stored manifests list.
    pub(super) listed: Range<u64>,
}

impl Out {
    pub(super) fn publish(&mut self, output: Output) {
        match output {
            Output::InitSegment {
                rendition,
                period,
                payload,
            } => {
                let Some(name) = self.name(rendition) else {
                    return;
                };
                let item = Item::Init(name, period);
                let object = Arc::new(Object::new(payload.clone()));
                self.stream.insert(item.clone(), object);
                self.store(item, payload, cache::Lifetime::Immutable);
            }
            Output::Part {
                rendition,
                segment,
                part,
                payload,
                ..
            } => {
                let Some(name) = self.name(rendition) else {
                    return;
                };
                let object = Arc::new(Object::new(payload));
                self.stream.insert(Item::Part(name, segment, part), object);
            }
            Output::Segment {
                rendition,
                segment,
                payload,
                ..
            } => {
                let Some(name) = self.name(rendition) else {
                    return;
                };
                let item = Item::Segment(name, segment);
                let object = Arc::new(Object::new(payload.clone()));
                self.stream.insert(item.clone(), object);
                self.stream.segments.fetch_add(1, Ordering::Relaxed);
                self.store(item, payload, cache::Lifetime::Immutable);
            }
            Output::WindowChanged(snapshot) => self.publish_manifests(&snapshot),
            Output::Evicted { rendition, segment } => self.evict(rendition, segment),
            Output::PeriodEvicted { period } => self.evict_period(period),
        }
    }

    /// Renders what the snapshot says, and publishes what differs from the last time.
    ///
    /// Every media playlist is rendered again with every part of any rendition, so that what it reports of the
    /// others is as fresh as itself. That takes some 20 µs each; compressing and hashing wait for who asks.
    fn publish_manifests(&mut self, snapshot: &Snapshot) {
        let mut changed = Vec::new();
        for (index, rendition) in self.renditions.iter().enumerate() {
            let item = Item::Media(rendition.name.clone());
            let text = hls::media::render(snapshot, index);
            if let Some(text) = text.filter(|text| is_new(&mut self.texts, &item, text)) {
                let version = low_latency(snapshot, index, &item, text);
                changed.push((item, version));
            }
        }
        let outline = snapshot.outline();
        if self.outline.as_ref() != Some(&outline) {
            self.outline = Some(outline);
            for (item, text) in top_manifests(snapshot) {
                if let Some(text) = text.filter(|text| is_new(&mut self.texts, &item, text)) {
                    changed.push((item.clone(), Version::plain(manifest(&item, text))));
                }
            }
        }
        self.reach_back(snapshot, &mut changed);
        self.stream
            .publish(changed, self.segment, snapshot.is_ended());
        self.tell(snapshot);
        self.store_manifests(snapshot);
        for (recording, writer) in self.recordings.iter_mut().zip(self.writer.each()) {
            recording.note(writer, snapshot);
        }
    }

    /// Adds to the manifests that `changed` those that reach further back.
    fn reach_back(&mut self, snapshot: &Snapshot, changed: &mut Vec<(Item, Version)>) {
        let Some(dvr) = &mut self.dvr else {
            return;
        };
        dvr.follow(snapshot);
        let resumed = self.recordings.first_mut();
        let resumed = resumed.and_then(Recording::take_resumed);
        if let Some(show) = resumed {
            dvr.resume(show, &self.renditions);
        }
        changed.extend(dvr.versions(snapshot, changed, &self.texts));
    }

    /// Stores what names only what is stored: whole segments.
    fn store_manifests(&mut self, snapshot: &Snapshot) {
        if self.listed == snapshot.listed() && !snapshot.is_ended() {
            return;
        }
        self.listed = snapshot.listed();
        let lifetime = if snapshot.is_ended() {
            cache::Lifetime::Ended
        } else {
            cache::Lifetime::Changing
        };
        let media = self.renditions.iter().enumerate().map(|(index, r)| {
            let text = hls::media::render_plain(snapshot, index);
            (Item::Media(r.name.clone()), text)
        });
        let others = [
            (Item::Multivariant, hls::multivariant::render(snapshot)),
            (Item::Mpd, dash::mpd::render_plain(snapshot)),
        ];
        let all: Vec<_> = media.chain(others).collect();
        for (item, text) in all {
            if let Some(text) = text.filter(|text| is_new(&mut self.stored, &item, text)) {
                self.store(item, Bytes::from(text).into(), lifetime);
            }
        }
    }

    /// Counts how long the part took whose last sample is at `dts`.
    pub(super) fn measure(&self, rendition: usize, dts: Ticks, passage: Passage) {
        if let Some(rendition) = self.renditions.get(rendition) {
            let at = dts.at(rendition.timescale).to_wall().as_micros();
            let kind = rendition.codec.kind();
            self.stream.latency.publish(kind, at, passage);
        }
    }

    fn tell(&self, snapshot: &Snapshot) {
        let in_order = self.order.iter();
        let measured = in_order.filter_map(|index| {
            let rendition = self.renditions.get(*index)?;
            let rates = snapshot.rates(*index);
            let (peak, average) = rates.map_or((0, 0), |r| (r.peak_bps, r.average_bps));
            Some(RenditionStatus::of(rendition, peak, average))
        });
        self.stream.set_renditions(measured.collect());
    }

    fn evict(&self, rendition: usize, segment: SegmentNumber) {
        let Some(name) = self.name(rendition) else {
            return;
        };
        let parts = (0..MAX_PARTS)
            .map(|part| Item::Part(name.clone(), segment, PartIndex::new(part)))
            .take_while(|item| self.stream.object(item).is_some());
        let item = Item::Segment(name.clone(), segment);
        let gone: Vec<_> = parts.chain([item.clone()]).collect();
        self.stream.remove(gone);
        self.leave(item);
    }

    /// A source that changes often begins many periods.
    fn evict_period(&self, period: PeriodId) {
        let names = self.renditions.iter().map(|r| r.name.clone());
        let gone: Vec<_> = names.map(|name| Item::Init(name, period)).collect();
        self.stream.remove(gone.clone());
        gone.into_iter().for_each(|item| self.leave(item));
    }

    /// Nothing names `item` any more but the record, where there is one, which says how long it stays.
    fn leave(&self, item: Item) {
        if self.recordings.is_empty() {
            self.writer.delete_after(&self.key(item), Duration::ZERO);
        } else {
            self.writer.forget(&self.key(item));
        }
    }

    fn store(&self, item: Item, body: Payload, lifetime: cache::Lifetime) {
        self.writer.put(&Put {
            content_type: document::content_type(&item).into(),
            cache_control: lifetime.cache_control().into(),
            key: self.key(item),
            body,
        });
    }

    /// Keeps what an earlier run left as long as it is listed.
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        for (index, rendition) in self.renditions.iter().enumerate() {
            let left = snapshot.segments(index).filter(|segment| !segment.gap);
            for segment in left {
                let item = Item::Segment(rendition.name.clone(), segment.number);
                self.writer.keep(&self.key(item));
            }
        }
    }

    fn name(&self, rendition: usize) -> Option<RenditionName> {
        self.renditions
            .get(rendition)
            .map(|rendition| rendition.name.clone())
    }

    fn key(&self, item: Item) -> ObjectKey {
        ObjectKey::new(self.stream.name().clone(), item)
    }
}

/// The multivariant playlist and the MPD.
fn top_manifests(snapshot: &Snapshot) -> [(Item, Option<String>); 2] {
    let mpd = if snapshot.is_ended() {
        // Lets players that are still behind the live edge play to the end: the MPD in memory stays
        // dynamic and says how long the presentation has become. Who comes later gets the static
        // one from the store.
        dash::mpd::render_ending(snapshot)
    } else {
        dash::mpd::render(snapshot)
    };
    let multivariant = hls::multivariant::render(snapshot);
    [(Item::Multivariant, multivariant), (Item::Mpd, mpd)]
}

/// Whether `text` is not what `known` has of `item`; it then has.
fn is_new(known: &mut Vec<(Item, String)>, item: &Item, text: &str) -> bool {
    match known.iter_mut().find(|(other, _)| other == item) {
        Some((_, last)) if last == text => false,
        Some((_, last)) => {
            text.clone_into(last);
            true
        }
        None => {
            known.push((item.clone(), text.to_owned()));
            true
        }
    }
}
