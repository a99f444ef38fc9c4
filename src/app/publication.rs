//! Carries what the packager puts out to where it can be fetched: memory first, the store behind.
//!
//! Enters: renditions once, then their samples, from the transcoder
//! Leaves: objects and manifests in the [`Stream`], the same in the store's queue, in order
//! Never:  waits for the store's disk: its queue is what bounds it
//! Time:   the samples'
//! Spec:   docs/architecture.md

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::app::clock::wall_now;
use crate::app::context::Context;
use crate::app::latency::Passage;
use crate::app::shows::Recording;
use crate::app::status::RenditionStatus;
use crate::app::stream::Stream;
use crate::id::{PartIndex, RenditionName, SegmentNumber};
use crate::media::{Item, ObjectKey, Payload, Rendition, Sample};
use crate::package::{self, Cuts, Output, Packager, Past, Snapshot, dash, hls};
use crate::serve::blocking::Edge;
use crate::serve::{Document, Object, Version, cache, document};
use crate::store::{BroadcastWriter, Put};
use crate::time::{Grid, Ticks};
use crate::transcode::{self, Outputs};

/// How long the end of a broadcast may take to be stored before the rest is left to the background.
const STORE_LIMIT: Duration = Duration::from_secs(10);

/// More parts than a segment can have: thirty seconds of the shortest.
const MAX_PARTS: u32 = 1_000;

/// Why a broadcast cannot be published any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// The transcoder failed.
    #[error("{0}")]
    Transcode(#[from] transcode::Error),
    /// What the transcoder made cannot be packaged.
    #[error("the packager refused what the transcoder made: {0}")]
    Package(#[from] package::Error),
}

impl Error {
    /// Whether it is the source that cannot be used.
    pub(super) const fn is_source(&self) -> bool {
        matches!(self, Self::Transcode(transcode::Error::Ladder(_)))
    }
}

/// One broadcast on its way out.
pub(super) struct Publication {
    context: Arc<Context>,
    stream: Arc<Stream>,
    past: Option<Past>,
    /// Where it is stored, until it opens.
    writer: Option<BroadcastWriter>,
}

impl Publication {
    /// What is to be published of `stream`, after what `past` left, and stored by `writer`; nothing is yet.
    pub(super) const fn new(
        context: Arc<Context>,
        stream: Arc<Stream>,
        past: Option<Past>,
        writer: BroadcastWriter,
    ) -> Self {
        Self {
            context,
            stream,
            past,
            writer: Some(writer),
        }
    }

    /// Publishes what comes out of the transcoder until it ends, however it does.
    ///
    /// # Errors
    /// Why it ended before its source. What was made until then is closed properly all the same.
    pub(super) async fn run(mut self, mut outputs: Outputs) -> Result<(), Error> {
        let mut opened = None;
        let mut open: Option<Open> = None;
        let result = loop {
            let taken = match (outputs.next().await, &mut open) {
                (Some(transcode::Output::Opened { renditions, cuts }), _) => match cuts {
                    // The first sample tells where the grid begins.
                    transcode::Cuts::Grid => {
                        opened = Some(renditions);
                        Ok(())
                    }
                    transcode::Cuts::Source { first, longest_ms } => {
                        let cuts = Cuts::Source { longest_ms };
                        self.open(cuts, first, renditions)
                            .map(|begun| open = Some(begun))
                    }
                },
                (Some(transcode::Output::Sample { rendition, sample }), open) => {
                    let begun = opened.take().map_or(Ok(()), |renditions| {
                        let first = self.segment_of(renditions.get(rendition), &sample);
                        self.open(Cuts::Grid, first, renditions)
                            .map(|begun| *open = Some(begun))
                    });
                    begun.and_then(|()| in_open(open, |open| open.push(rendition, sample)))
                }
                (Some(transcode::Output::Cut { rendition, number }), open) => {
                    in_open(open, |open| open.cut(rendition, number))
                }
                (Some(transcode::Output::Period { renditions, first }), open) => {
                    in_open(open, |open| open.change(renditions, first))
                }
                (Some(transcode::Output::Conducted(conducted)), _) => {
                    self.stream.conduct(conducted, wall_now());
                    Ok(())
                }
                (
                    Some(transcode::Output::Rest {
                        rendition,
                        until,
                        soon,
                    }),
                    open,
                ) => in_open(open, |open| open.rest(rendition, until, soon)),
                (Some(transcode::Output::Load(load)), _) => {
                    self.stream.load(load);
                    Ok(())
                }
                (Some(transcode::Output::Restarted { cause, skipped }), _) => {
                    self.stream.worker_restarts.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(stream = %self.stream.name(), %cause, skipped, "the worker was restarted");
                    Ok(())
                }
                (Some(transcode::Output::Failed(error)), _) => break Err(error.into()),
                (Some(transcode::Output::Finished) | None, _) => break Ok(()),
            };
            if let Err(error) = taken {
                break Err(error.into());
            }
        };
        if let Some(open) = open {
            open.finish().await;
        }
        result
    }

    /// The segment of the grid that `sample` of `rendition` lies in.
    fn segment_of(&self, rendition: Option<&Rendition>, sample: &Sample) -> SegmentNumber {
        let grid = Grid::new(self.context.config.package.segment_ms);
        let at = rendition.map(|rendition| sample.dts.at(rendition.timescale));
        at.map_or(SegmentNumber::new(0), |at| grid.segment_at(at))
    }

    /// Opens the packager and the store; segment `first` names the period.
    fn open(
        &mut self,
        cuts: Cuts,
        first: SegmentNumber,
        renditions: Vec<Rendition>,
    ) -> Result<Open, package::Error> {
        let config = &self.context.config.package;
        let past = self.past.as_ref();
        let packager = Packager::cut_by(cuts, config, first, renditions.clone(), past)?;
        let name = self.stream.name();
        let new = || self.context.store.broadcast(name.clone());
        let mut writer = self.writer.take().unwrap_or_else(new);
        writer.begin();
        // What the last broadcast left in memory is in the store by now, or waits for it.
        self.stream.clear();
        let status = renditions
            .iter()
            .map(|r| RenditionStatus::of(r, 0, 0))
            .collect();
        self.stream.set_renditions(status);
        self.stream.encoding.begin();
        let names: Vec<_> = renditions.iter().map(|r| r.name.to_string()).collect();
        tracing::info!(stream = %self.stream.name(), renditions = names.join(" "), "ladder open");
        let presentation = packager.presentation();
        if config.low_latency.is_on() && !presentation.config.low_latency.is_on() {
            tracing::warn!(stream = %self.stream.name(), "low latency is off for this broadcast: \
                its frame rate is not constant, or has no part length in common with its sound");
        }
        let copied_ms = match cuts {
            Cuts::Grid => 0,
            Cuts::Source { longest_ms } => longest_ms,
        };
        let told = &self.stream.copied_segment_ms;
        told.store(copied_ms.into(), Ordering::Relaxed);
        let segment = Duration::from_millis(config.segment_ms.get().max(copied_ms).into());
        let snapshot = packager.snapshot();
        let keep = self.context.config.store.keep;
        let recording = keep.is_on().then(|| {
            let name = self.stream.name();
            Recording::begin(&self.context.store, name, keep, &snapshot, first)
        });
        let out = Out {
            stream: Arc::clone(&self.stream),
            renditions,
            writer,
            recording,
            segment,
            texts: Vec::new(),
            stored: Vec::new(),
            listed: 0..0,
        };
        out.keep(&snapshot);
        let mut open = Open {
            packager,
            out,
            begins: None,
        };
        open.drain();
        Ok(open)
    }
}

/// Does `what` with what is open; a transcoder says nothing of segments and samples before it is.
fn in_open(
    open: &mut Option<Open>,
    what: impl FnOnce(&mut Open) -> Result<(), package::Error>,
) -> Result<(), package::Error> {
    open.as_mut().map_or(Ok(()), what)
}

/// A broadcast whose renditions are known.
struct Open {
    packager: Packager,
    out: Out,
    /// The rendition whose next sample begins a segment, of a copied broadcast.
    begins: Option<usize>,
}

impl Open {
    fn push(&mut self, rendition: usize, sample: Sample) -> Result<(), package::Error> {
        let transcoded = Instant::now();
        let dts = sample.dts;
        if self.out.stream.is_vacant() {
            // The publisher is gone for good, and the transcoder drains.
            self.packager.close_soon();
        }
        if self.begins.take_if(|begins| *begins == rendition).is_some() && !sample.keyframe {
            let counter = &self.out.stream.keyless_segments;
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.packager.push(rendition, sample)?;
        let packaged = Instant::now();
        if self.drain() {
            let passage = Passage {
                transcoded,
                packaged,
                published: Instant::now(),
            };
            self.out.measure(rendition, dts, passage);
        }
        Ok(())
    }

    /// The next sample of `rendition` begins segment `number`.
    fn cut(&mut self, rendition: usize, number: SegmentNumber) -> Result<(), package::Error> {
        self.packager.cut(rendition, number)?;
        self.begins = Some(rendition);
        self.drain();
        Ok(())
    }

    /// Another period begins with segment `first`.
    fn change(
        &mut self,
        renditions: Vec<Rendition>,
        first: SegmentNumber,
    ) -> Result<(), package::Error> {
        self.out.renditions.clone_from(&renditions);
        self.packager.change(renditions, first)?;
        self.drain();
        Ok(())
    }

    /// `rendition` has nothing until segment `until`: from now on, or soon.
    fn rest(
        &mut self,
        rendition: usize,
        until: SegmentNumber,
        soon: bool,
    ) -> Result<(), package::Error> {
        if soon {
            self.packager.rest_soon(rendition, until);
        } else {
            self.packager.rest(rendition, until)?;
        }
        self.drain();
        Ok(())
    }

    /// Publishes what the packager has; whether a part is among it.
    fn drain(&mut self) -> bool {
        let mut has_part = false;
        while let Some(output) = self.packager.poll_output() {
            has_part |= matches!(output, Output::Part { .. });
            self.out.publish(output);
        }
        has_part
    }

    /// Closes what is open; the manifests say so, and all of it is stored.
    async fn finish(self) {
        let Self {
            packager, mut out, ..
        } = self;
        let mut last = packager.snapshot();
        match packager.finish() {
            Ok(outputs) => {
                for output in outputs {
                    if let Output::WindowChanged(snapshot) = &output {
                        last = Arc::clone(snapshot);
                    }
                    out.publish(output);
                }
            }
            Err(error) => {
                tracing::error!(stream = %out.stream.name(), %error, "the end is missing")
            }
        }
        if let Some(recording) = out.recording.take() {
            recording.finish(&out.writer, &last, STORE_LIMIT).await;
        }
        let left = out.writer.finish(STORE_LIMIT).await;
        if left.objects > 0 {
            tracing::warn!(stream = %out.stream.name(), objects = left.objects, bytes = left.bytes,
                spooled = left.spooled, "the store is behind; the rest of the broadcast is stored in the background");
        }
    }
}

/// Where a broadcast goes: memory and the store.
struct Out {
    stream: Arc<Stream>,
    renditions: Vec<Rendition>,
    writer: BroadcastWriter,
    /// The record of what is kept, where anything is.
    recording: Option<Recording>,
    segment: Duration,
    /// What the manifests said last, so that only changed ones are published again.
    texts: Vec<(Item, String)>,
    /// The same of what the store got.
    stored: Vec<(Item, String)>,
    /// What the stored manifests list.
    listed: Range<u64>,
}

impl Out {
    fn publish(&mut self, output: Output) {
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
        }
    }

    /// Renders what the snapshot says, and publishes what differs from the last time.
    ///
    /// Every playlist is rendered again with every part of any rendition, so that what it reports of the
    /// others is as fresh as itself. That takes some 20 µs each; compressing waits for who asks.
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
        let mpd = if snapshot.is_ended() {
            // Lets players that are still behind the live edge play to the end: the MPD in memory stays
            // dynamic and says how long the presentation has become. Who comes later gets the static
            // one from the store.
            dash::mpd::render_ending(snapshot)
        } else {
            dash::mpd::render(snapshot)
        };
        let multivariant = hls::multivariant::render(snapshot);
        for (item, text) in [(Item::Multivariant, multivariant), (Item::Mpd, mpd)] {
            if let Some(text) = text.filter(|text| is_new(&mut self.texts, &item, text)) {
                changed.push((item.clone(), Version::plain(manifest(&item, text))));
            }
        }
        self.stream
            .publish(changed, self.segment, snapshot.is_ended());
        self.tell(snapshot);
        self.store_manifests(snapshot);
        if let Some(recording) = &mut self.recording {
            recording.note(&self.writer, snapshot);
        }
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
    fn measure(&self, rendition: usize, dts: Ticks, passage: Passage) {
        if let Some(rendition) = self.renditions.get(rendition) {
            let at = dts.at(rendition.timescale).to_wall().as_micros();
            let kind = rendition.codec.kind();
            self.stream.latency.publish(kind, at, passage);
        }
    }

    fn tell(&self, snapshot: &Snapshot) {
        let measured = self
            .renditions
            .iter()
            .enumerate()
            .map(|(index, rendition)| {
                let rates = snapshot.rates(index);
                let (peak, average) = rates.map_or((0, 0), |r| (r.peak_bps, r.average_bps));
                RenditionStatus::of(rendition, peak, average)
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
        match &self.recording {
            // The record says how long it stays.
            Some(_) => self.writer.forget(&self.key(item)),
            None => self.writer.delete_after(self.key(item), Duration::ZERO),
        }
    }

    fn store(&self, item: Item, body: Payload, lifetime: cache::Lifetime) {
        self.writer.put(Put {
            content_type: document::content_type(&item).into(),
            cache_control: lifetime.cache_control().into(),
            key: self.key(item),
            body,
        });
    }

    /// Keeps what an earlier run left as long as it is listed.
    fn keep(&self, snapshot: &Snapshot) {
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

fn manifest(item: &Item, text: String) -> Arc<Document> {
    Arc::new(Document::manifest(item, Bytes::from(text)))
}

/// The playlist `text` of rendition `index` with what it takes to wait for its next version.
fn low_latency(snapshot: &Snapshot, index: usize, item: &Item, text: String) -> Version {
    let Some(edge) = edge(snapshot, index) else {
        return Version::plain(manifest(item, text));
    };
    let delta = hls::media::render_delta(snapshot, index);
    let delta = delta.filter(|delta| *delta != text);
    let delta = delta.map(|delta| manifest(item, delta));
    Version::low_latency(manifest(item, text), delta, edge)
}

/// The live edge of rendition `index`; `None` where players cannot wait at it.
fn edge(snapshot: &Snapshot, index: usize) -> Option<Edge> {
    let presentation = snapshot.presentation();
    if !presentation.config.low_latency.is_on() {
        return None;
    }
    let (segment, part) = snapshot.next_part(index)?;
    let last = snapshot.segments(index).next_back()?;
    Some(Edge {
        segment,
        part,
        last_parts: u32::try_from(last.parts.len()).unwrap_or(u32::MAX),
        target_duration: Duration::from_secs(presentation.target_duration_s.into()),
        part_target: Duration::from_micros(presentation.part_target.as_micros()),
    })
}
