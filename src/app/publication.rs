//! Carries what the packager puts out to where it can be fetched: memory first, the store behind.
//!
//! Enters: renditions once, then their samples, from the transcoder
//! Leaves: objects and manifests in the [`Stream`], the same in the store's queue, in order
//! Never:  waits for the store's disk: its queue is what bounds it
//! Time:   the samples'
//! Spec:   docs/architecture.md

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::app::context::Context;
use crate::app::status::RenditionStatus;
use crate::app::stream::Stream;
use crate::id::{PartIndex, PeriodId, RenditionName, SegmentNumber};
use crate::media::{Item, ObjectKey, Payload, Rendition, Sample};
use crate::package::{self, Output, Packager, Snapshot, dash, hls};
use crate::serve::{Document, Object, cache, document};
use crate::store::{BroadcastWriter, Put};
use crate::time::Grid;
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
}

impl Publication {
    /// What is to be published of `stream`; nothing is yet.
    pub(super) const fn new(context: Arc<Context>, stream: Arc<Stream>) -> Self {
        Self { context, stream }
    }

    /// Publishes what comes out of the transcoder until it ends, however it does.
    ///
    /// # Errors
    /// Why it ended before its source. What was made until then is closed properly all the same.
    pub(super) async fn run(self, mut outputs: Outputs) -> Result<(), Error> {
        let mut opened = Vec::new();
        let mut open: Option<Open> = None;
        let result = loop {
            match outputs.next().await {
                Some(transcode::Output::Opened(renditions)) => opened = renditions,
                Some(transcode::Output::Sample { rendition, sample }) => {
                    let open = match &mut open {
                        Some(open) => open,
                        None => open.insert(
                            self.open(std::mem::take(&mut opened), rendition, &sample)
                                .await?,
                        ),
                    };
                    if let Err(error) = open.push(rendition, sample) {
                        break Err(error.into());
                    }
                }
                Some(transcode::Output::Failed(error)) => break Err(error.into()),
                Some(transcode::Output::Finished) | None => break Ok(()),
            }
        };
        if let Some(open) = open {
            open.finish().await;
        }
        result
    }

    /// Opens the packager and the store with the first sample, whose segment names the period.
    async fn open(
        &self,
        renditions: Vec<Rendition>,
        index: usize,
        first: &Sample,
    ) -> Result<Open, package::Error> {
        let config = &self.context.config.package;
        let grid = Grid::new(config.segment_ms);
        let scale = renditions.get(index).map(|rendition| rendition.timescale);
        let number = scale.map_or(SegmentNumber::new(0), |scale| {
            grid.segment_at(first.dts.at(scale))
        });
        let packager = Packager::new(config, PeriodId::new(number.get()), renditions.clone())?;
        // What the last broadcast left in memory is in the store by now.
        self.stream.clear();
        let status = renditions
            .iter()
            .map(|r| RenditionStatus::of(r, 0, 0))
            .collect();
        self.stream.set_renditions(status);
        let names: Vec<_> = renditions.iter().map(|r| r.name.to_string()).collect();
        tracing::info!(stream = %self.stream.name(), renditions = names.join(" "), "ladder open");
        let out = Out {
            stream: Arc::clone(&self.stream),
            renditions,
            writer: self
                .context
                .store
                .broadcast(self.stream.name().clone())
                .await,
            segment: Duration::from_millis(config.segment_ms.get().into()),
            texts: Vec::new(),
        };
        let mut open = Open { packager, out };
        open.drain();
        Ok(open)
    }
}

/// A broadcast whose renditions are known.
struct Open {
    packager: Packager,
    out: Out,
}

impl Open {
    fn push(&mut self, rendition: usize, sample: Sample) -> Result<(), package::Error> {
        self.packager.push(rendition, sample)?;
        self.drain();
        Ok(())
    }

    fn drain(&mut self) {
        while let Some(output) = self.packager.poll_output() {
            self.out.publish(output);
        }
    }

    /// Closes what is open; the manifests say so, and all of it is stored.
    async fn finish(self) {
        let Self { packager, mut out } = self;
        match packager.finish() {
            Ok(outputs) => outputs.into_iter().for_each(|output| out.publish(output)),
            Err(error) => {
                tracing::error!(stream = %out.stream.name(), %error, "the end is missing")
            }
        }
        let left = out.writer.finish(STORE_LIMIT).await;
        if left.objects > 0 {
            tracing::warn!(stream = %out.stream.name(), objects = left.objects, bytes = left.bytes,
                "the store is behind; the rest of the broadcast is stored in the background");
        }
    }
}

/// Where a broadcast goes: memory and the store.
struct Out {
    stream: Arc<Stream>,
    renditions: Vec<Rendition>,
    writer: BroadcastWriter,
    segment: Duration,
    /// What the manifests said last, so that only changed ones are made again.
    texts: Vec<(Item, String)>,
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
    fn publish_manifests(&mut self, snapshot: &Snapshot) {
        let mut changed = Vec::new();
        for (item, text) in self.render(snapshot) {
            let known = self.texts.iter_mut().find(|(other, _)| *other == item);
            match known {
                Some((_, last)) if *last == text => continue,
                Some((_, last)) => last.clone_from(&text),
                None => self.texts.push((item.clone(), text.clone())),
            }
            let document = Arc::new(Document::manifest(&item, Bytes::from(text)));
            changed.push((item, document));
        }
        let stored: Vec<_> = changed
            .iter()
            .map(|(i, d)| (i.clone(), d.text().clone()))
            .collect();
        if snapshot.is_ended() {
            soften_end(&mut changed, snapshot);
        }
        self.stream
            .publish(changed, self.segment, snapshot.is_ended());
        self.tell(snapshot);
        let lifetime = if snapshot.is_ended() {
            cache::Lifetime::Ended
        } else {
            cache::Lifetime::Changing
        };
        for (item, text) in stored {
            self.store(item, text.into(), lifetime);
        }
    }

    /// All manifests of a snapshot, those that are named by others first.
    fn render(&self, snapshot: &Snapshot) -> Vec<(Item, String)> {
        let media = self
            .renditions
            .iter()
            .enumerate()
            .filter_map(|(index, rendition)| {
                Some((
                    Item::Media(rendition.name.clone()),
                    hls::media::render(snapshot, index)?,
                ))
            });
        let multivariant =
            hls::multivariant::render(snapshot).map(|text| (Item::Multivariant, text));
        let mpd = dash::mpd::render(snapshot).map(|text| (Item::Mpd, text));
        media.chain(multivariant).chain(mpd).collect()
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
        self.writer.delete_after(self.key(item), Duration::ZERO);
    }

    fn store(&self, item: Item, body: Payload, lifetime: cache::Lifetime) {
        self.writer.put(Put {
            content_type: document::content_type(&item),
            cache_control: lifetime.cache_control(),
            key: self.key(item),
            body,
        });
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

/// Lets players that are still behind the live edge play to the end: the MPD in memory stays dynamic
/// and says how long the presentation has become. Who comes later gets the static one from the store.
fn soften_end(manifests: &mut [(Item, Arc<Document>)], snapshot: &Snapshot) {
    let mpd = manifests.iter_mut().find(|(item, _)| *item == Item::Mpd);
    if let (Some((item, document)), Some(text)) = (mpd, dash::mpd::render_ending(snapshot)) {
        *document = Arc::new(Document::manifest(item, Bytes::from(text)));
    }
}
