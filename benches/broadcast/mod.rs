//! An invented broadcast with the real packager and the real origin: what benches of serving share.
//!
//! Four rungs of pictures at 30 frames per second and one of sound, at rates of the default ladder,
//! whose samples are all alike: nobody here looks into them.

#![allow(dead_code, reason = "every bench uses its own part of this")]
#![allow(clippy::expect_used, reason = "a bench may fail loudly")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use headwater::codec::video::{Colour, Dimensions, PixelAspect};
use headwater::codec::{aac, h264};
use headwater::id::{PeriodId, StreamName};
use headwater::media::{CodecConfig, Item, ObjectKey, Payload, Rendition, Sample};
use headwater::package::{Config, Output, Packager, Snapshot, hls};
use headwater::serve::blocking::Edge;
use headwater::serve::{
    self, Assets, Document, Found, Live, Object, Origin, Server, StoreFailed, Stored, Version,
};
use headwater::time::{FrameRate, Span, Ticks, Timescale, WallTime};
use tokio::sync::watch;

/// The number of the first segment.
pub(crate) const FIRST: u64 = 897_600_000;
/// Lines and kilobits per second of each rung.
const RUNGS: [(u32, u64); 4] = [(720, 2_800), (480, 1_300), (360, 750), (240, 400)];
/// Kilobits per second of the sound.
const SOUND_KBPS: u64 = 128;

/// What is published, as the server's wiring keeps it.
#[derive(Default)]
pub(crate) struct Published {
    objects: RwLock<HashMap<Item, Arc<Object>>>,
    feeds: RwLock<HashMap<Item, Arc<watch::Sender<Arc<Live>>>>>,
}

impl Origin for Published {
    fn manifest(&self, key: &ObjectKey) -> Found {
        let feeds = self.feeds.read().expect("lock");
        let feed = feeds.get(&key.item);
        feed.map_or(Found::Missing, |feed| Found::Live(feed.subscribe()))
    }

    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.objects.read().expect("lock").get(&key.item).cloned()
    }

    fn stored<'a>(
        &'a self,
        _: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Option<Stored>, StoreFailed>> {
        async { Ok(None) }.boxed()
    }

    fn streams(&self) -> Bytes {
        Bytes::new()
    }

    fn stream(&self, _: &StreamName) -> Option<Bytes> {
        None
    }

    fn server(&self) -> Bytes {
        Bytes::new()
    }

    fn metrics(&self) -> Bytes {
        Bytes::new()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn now(&self) -> WallTime {
        WallTime::from_micros(0)
    }
}

fn pictures((lines, kbps): (u32, u64)) -> Rendition {
    let avcc = [
        1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 4, 0x68, 0xee, 0x3c, 0x80,
        0xfd, 0xf8, 0xf8, 0,
    ];
    Rendition {
        name: format!("v{lines}").parse().expect("valid"),
        timescale: Timescale::VIDEO_90K,
        codec: CodecConfig::H264(h264::Config {
            avcc: avcc.to_vec().into(),
            profile: 0x64,
            compatibility: 0,
            level: 0x1f,
            dimensions: Dimensions {
                width: lines * 16 / 9 / 2 * 2,
                height: lines,
            },
            pixel_aspect: PixelAspect::SQUARE,
            colour: Colour::UNSPECIFIED,
            declared_rate: None,
        }),
        frame_rate: FrameRate::new(30, 1),
        target_bps: kbps * 1_000,
    }
}

fn renditions() -> Vec<Rendition> {
    let sound = Rendition {
        name: format!("a{SOUND_KBPS}").parse().expect("valid"),
        timescale: Timescale::new(48_000).expect("not zero"),
        codec: CodecConfig::Aac(aac::Config {
            asc: vec![0x11, 0x90].into(),
            object_type: 2,
            sample_rate: 48_000,
            channels: 2,
            frame_samples: 1_024,
        }),
        frame_rate: None,
        target_bps: SOUND_KBPS * 1_000,
    };
    RUNGS.into_iter().map(pictures).chain([sound]).collect()
}

/// A broadcast at the pace of its owner.
pub(crate) struct Broadcast {
    packager: Packager,
    renditions: Vec<Rendition>,
    /// The next frame of each rendition, counted from the epoch.
    next: Vec<u64>,
    payloads: Vec<Bytes>,
    /// Where it can be fetched.
    pub(crate) published: Arc<Published>,
    segment_ms: u64,
    /// How far it has come, in microseconds.
    micros: u64,
}

impl Broadcast {
    /// A broadcast that nothing is there of yet.
    pub(crate) fn begin(config: &Config) -> Self {
        let renditions = renditions();
        let segment_ms = u64::from(config.segment_ms.get());
        let packager = Packager::new(config, PeriodId::new(FIRST), renditions.clone());
        let first = FIRST * segment_ms;
        let is_sound = |rendition: &Rendition| rendition.frame_rate.is_none();
        let length = |rendition: &Rendition| {
            if is_sound(rendition) {
                (1_024, 48)
            } else {
                (3_000, 90)
            }
        };
        let next = renditions
            .iter()
            .map(length)
            .map(|(length, per_ms)| (first * per_ms).div_ceil(length));
        let payload = |rendition: &Rendition| {
            let (length, per_ms) = length(rendition);
            let bytes = rendition.target_bps * length / (per_ms * 8_000);
            Bytes::from(vec![0x5a; usize::try_from(bytes).expect("small")])
        };
        Self {
            packager: packager.expect("valid"),
            next: next.collect(),
            payloads: renditions.iter().map(payload).collect(),
            renditions,
            published: Arc::default(),
            segment_ms,
            micros: 0,
        }
    }

    /// Pushes everything that begins in the next `length`, the best pictures first.
    pub(crate) fn advance(&mut self, length: Duration) {
        let until = self.micros + u64::try_from(length.as_micros()).expect("short");
        // A part at a time: no rendition may lead the others by segments.
        while self.micros < until {
            self.micros = until.min(self.micros + 333_334);
            for index in 0..self.renditions.len() {
                self.push(index);
            }
        }
    }

    fn push(&mut self, index: usize) {
        let end = FIRST * self.segment_ms * 1_000 + self.micros;
        let is_sound = index + 1 == self.renditions.len();
        let (length, scale) = if is_sound {
            (1_024, 48_000)
        } else {
            (3_000, 90_000)
        };
        while u128::from(self.next[index] * length) * 1_000_000
            < u128::from(end) * u128::from(scale)
        {
            let slot = self.next[index];
            self.next[index] += 1;
            let at = Ticks::new(i64::try_from(slot * length).expect("fits"));
            let sample = Sample {
                dts: at,
                pts: at,
                duration: Span::new(length),
                keyframe: is_sound
                    || (slot * length * 1_000 / scale).is_multiple_of(self.segment_ms),
                data: self.payloads[index].clone(),
            };
            self.packager.push(index, sample).expect("accepted");
            while let Some(output) = self.packager.poll_output() {
                self.publish(output);
            }
        }
    }

    fn publish(&self, output: Output) {
        let name = |index: usize| self.renditions[index].name.clone();
        let put = |item: Item, payload: Payload| {
            let object = Arc::new(Object::new(payload));
            let mut objects = self.published.objects.write().expect("lock");
            objects.insert(item, object);
        };
        match output {
            Output::InitSegment {
                rendition,
                period,
                payload,
            } => put(Item::Init(name(rendition), period), payload),
            Output::Part {
                rendition,
                segment,
                part,
                payload,
                ..
            } => put(Item::Part(name(rendition), segment, part), payload),
            Output::Segment {
                rendition,
                segment,
                payload,
                ..
            } => put(Item::Segment(name(rendition), segment), payload),
            Output::WindowChanged(snapshot) => self.publish_playlists(&snapshot),
            _ => {}
        }
    }

    fn publish_playlists(&self, snapshot: &Snapshot) {
        for (index, rendition) in self.renditions.iter().enumerate() {
            let item = Item::Media(rendition.name.clone());
            let Some(text) = hls::media::render(snapshot, index) else {
                continue;
            };
            let manifest = |text: String| Arc::new(Document::manifest(&item, text.into()));
            let delta = hls::media::render_delta(snapshot, index).map(manifest);
            let version = match edge(snapshot, index) {
                Some(edge) => Version::low_latency(manifest(text), delta, edge),
                None => Version::plain(manifest(text)),
            };
            let feed = self
                .published
                .feeds
                .read()
                .expect("lock")
                .get(&item)
                .cloned();
            if let Some(feed) = feed {
                feed.send_if_modified(|live| {
                    let (next, moved) = live.followed_by(version);
                    *live = Arc::new(next);
                    moved
                });
            } else {
                let feed = Arc::new(watch::Sender::new(Arc::new(Live::new(version))));
                self.published
                    .feeds
                    .write()
                    .expect("lock")
                    .insert(item, feed);
            }
        }
    }
}

fn edge(snapshot: &Snapshot, index: usize) -> Option<Edge> {
    let presentation = snapshot.presentation();
    if !presentation.config.low_latency.is_on() {
        return None;
    }
    let (segment, part) = snapshot.next_part(index)?;
    let last = snapshot.segments(index).next_back();
    let last_parts = last.map_or(0, |segment| segment.parts.len());
    Some(Edge {
        segment,
        part,
        last_parts: u32::try_from(last_parts).expect("few"),
        target_duration: Duration::from_secs(presentation.target_duration_s.into()),
        part_target: Duration::from_micros(presentation.part_target.as_micros()),
    })
}

/// Serves `published` on a free port until the process ends.
///
/// Must be called within a tokio runtime.
pub(crate) fn serve(published: &Arc<Published>) -> SocketAddr {
    let server = Server::bind(serve::Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..serve::Config::default()
    })
    .expect("a free port");
    let address = server.local_addr();
    let origin = Arc::clone(published);
    tokio::spawn(server.run(origin, Assets::new(&[]), std::future::pending()));
    address
}

/// Nanoseconds that the threads of process `pid` have run, those that live now.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}
