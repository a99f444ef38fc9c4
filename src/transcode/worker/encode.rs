//! The encoders of pictures: one pipeline for all rungs, which knows nothing of the source's changes.
//!
//! Enters: slots of the conductor
//! Leaves: [`Item`]s: access units at their exact places
//! Never:  copies pixels: a slot is a reference to the decoded frame with another time
//! Time:   as `clock` counts it
//! Spec:   pipelines/README.md

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use gst::prelude::*;

use super::Error;
use super::access::Written;
use super::clock::{Origin, VideoClock};
use super::decode::colour_caps;
use super::follow::Places;
use super::output::Item;
use super::rungs::{Rungs, stop_mark};
use crate::codec::video::Dimensions;
use crate::id::SegmentNumber;
use crate::time::{FrameRate, Grid, Ticks, Timescale};
use crate::transcode::conductor::{Place, Slot};
use crate::transcode::ladder::{Plan, VideoPlan};
use crate::transcode::overload::{LATE_US, Load};
use crate::transcode::template::KeyframePolicy;

/// Frames that wait for all encoders. They are references to decoded frames.
const MAX_QUEUED_FRAMES: u64 = 4;
/// The fewest and the most frames that wait for one lane of encoders. Between them, twice as many as make it
/// late, so that it is seen to be late before it holds up the others.
const QUEUED_PER_LANE: (i64, i64) = (8, 64);
/// Access units that wait in an encoder's sink.
const MAX_QUEUED_OUTPUT: u32 = 4;

/// All encoders of pictures.
pub(super) struct VideoEncoder {
    pipeline: gst::Pipeline,
    clock: VideoClock,
    grid: Grid,
    /// The sources of every divisor: rungs of half the rate get every second slot.
    sources: Vec<(u32, gst_app::AppSrc)>,
    rungs: Rungs,
}

impl Drop for VideoEncoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl VideoEncoder {
    /// Builds and starts the encoders for frames like `info`. They begin at the origin, or, where an
    /// earlier worker's renditions go on, each at its own slot.
    pub(super) fn new(
        (plan, places): (&Plan, Option<&Places>),
        (origin, resume): (Origin, &[Ticks]),
        info: &gst_video::VideoInfo,
        outputs: &SyncSender<Item>,
    ) -> Result<Self, Error> {
        let video = plan.video.as_ref().ok_or(Error::Order)?;
        let pipeline = launch(&lanes_launch(video))?;
        let clock = VideoClock::new(video.rate, 1, origin).ok_or(Error::Order)?;
        let mut sources = Vec::new();
        for divisor in by_divisor(video).into_keys() {
            let rate = VideoClock::new(video.rate, divisor, origin).ok_or(Error::Order)?;
            let caps = frame_caps(info, rate.rate())?;
            let source = source(&pipeline, &format!("in{divisor}"), &caps, MAX_QUEUED_FRAMES)?;
            if video.keyframes == KeyframePolicy::Forced {
                force_keyframes(&source);
            }
            sources.push((divisor, source));
        }
        let mut rungs = Rungs::new(video.rate, outputs);
        let colour = colour_caps(info);
        for (index, rung) in video.rungs.iter().enumerate() {
            let clock = VideoClock::new(video.rate, rung.divisor, origin).ok_or(Error::Order)?;
            let resume = resume.get(index).filter(|_| places.is_none());
            let clock = resume.map_or(clock, |at| clock.resuming(*at, video.keyframes, plan.grid));
            let scale = scale_launch(rung.dimensions, video.canvas, &colour);
            let text = format!("{scale}{} ! appsink name=out{index}", rung.encoder);
            let bin = gst::parse::bin_from_description(&text, true)?;
            let places = places.cloned();
            rungs.add(&pipeline, (video, rung, plan), &bin, (clock, places))?;
        }
        let failed = outputs.clone();
        watch(&pipeline, move |error| {
            let _ = failed.send(Item::Failed(error));
        });
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self {
            pipeline,
            clock,
            grid: plan.grid,
            sources,
            rungs,
        })
    }

    /// Takes note that slot `index` is due, which is about to be pushed.
    pub(super) fn expect(&mut self, index: i64) {
        self.rungs.expect(index);
    }

    /// Has each rung that goes on from `resume` begin with the picture at `place`, if that is the first to be
    /// shown there or later.
    pub(super) fn begin_from(&mut self, resume: &[Ticks], place: Place) {
        for (index, from) in resume.iter().enumerate() {
            let begins = place.pts >= *from;
            self.rungs.begin_from(index, place.slot, begins);
        }
    }

    /// Encodes one slot. Waits while there is no room for it.
    pub(super) fn push(&mut self, slot: &Slot<gst::Buffer>) -> Result<(), Error> {
        if slot.cut {
            self.rungs.begin_segment(self.segment_of(slot.index))?;
        }
        self.rungs.give(slot.index);
        for (divisor, source) in &self.sources {
            if slot.index % i64::from(*divisor) != 0 {
                continue;
            }
            let begin = self.clock.running(slot.index);
            let end = self.clock.running(slot.index + i64::from(*divisor));
            let mut buffer = slot.frame.copy();
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_pts(begin);
                buffer.set_dts(gst::ClockTime::NONE);
                buffer.set_duration(end.saturating_sub(begin));
                buffer.unset_flags(gst::BufferFlags::all());
                if slot.cut {
                    buffer.set_flags(gst::BufferFlags::MARKER);
                }
            }
            source.push_buffer(buffer).map_err(|_| Error::Stopped)?;
        }
        Ok(())
    }

    /// Nothing comes for a while: what the encoders hold is to come out.
    pub(super) fn stop(&mut self) -> Result<(), Error> {
        self.rungs.stop();
        for (_, source) in &self.sources {
            let pushed = source.push_buffer(stop_mark());
            pushed.map_err(|_| Error::Stopped)?;
        }
        Ok(())
    }

    /// Something comes again, a key frame first.
    pub(super) fn go_on(&mut self) -> Result<(), Error> {
        self.rungs.go_on()
    }

    /// Looks whether the encoders keep up with the clock, and does something about it if not. `true` if
    /// that has changed what is encoded. What was expected last was due `since` ago, if pushing has taken so long.
    pub(super) fn look(&mut self, since: Duration) -> Result<bool, Error> {
        self.rungs.look(since)
    }

    /// How they keep up with the clock.
    pub(super) fn load(&self) -> Load {
        self.rungs.load()
    }

    /// Ends the pictures; what the encoders hold still comes.
    pub(super) fn finish(&self) -> Result<(), Error> {
        self.rungs.finish()?;
        for (_, source) in &self.sources {
            source.end_of_stream().map_err(|_| Error::Stopped)?;
        }
        Ok(())
    }

    fn segment_of(&self, slot: i64) -> SegmentNumber {
        let at = self.clock.position(slot);
        self.grid.segment_at(at.at(Timescale::VIDEO_90K))
    }
}

/// Indices of rungs by divisor, and among those by lane.
fn by_divisor(video: &VideoPlan) -> BTreeMap<u32, BTreeMap<u32, Vec<usize>>> {
    let mut all: BTreeMap<u32, BTreeMap<u32, Vec<usize>>> = BTreeMap::new();
    for (index, rung) in video.rungs.iter().enumerate() {
        let lanes = all.entry(rung.divisor).or_default();
        lanes.entry(rung.lane).or_default().push(index);
    }
    all
}

/// Sources and lanes; the rungs are put behind the lanes' tees.
fn lanes_launch(video: &VideoPlan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (divisor, lanes) in by_divisor(video) {
        let slots = 2 * LATE_US * i64::from(video.rate.num())
            / (i64::from(video.rate.den()) * i64::from(divisor) * 1_000_000);
        let slots = slots.clamp(QUEUED_PER_LANE.0, QUEUED_PER_LANE.1);
        let _ = write!(text, "appsrc name=in{divisor} ! tee name=t{divisor} ");
        for lane in lanes.into_keys() {
            let _ = write!(
                text,
                "t{divisor}. ! queue max-size-buffers={slots} max-size-bytes=0 max-size-time=0 \
                 ! tee name=lane{divisor}_{lane} allow-not-linked=true "
            );
        }
    }
    text
}

fn scale_launch(size: Dimensions, canvas: Dimensions, colour: &str) -> String {
    if size == canvas {
        return String::new();
    }
    format!(
        "videoscale add-borders=false ! video/x-raw,format=I420,width={},height={},\
         pixel-aspect-ratio=1/1{colour} ! ",
        size.width, size.height
    )
}

/// What the conductor's frames are: the first decoded frame's caps at a constant rate.
fn frame_caps(info: &gst_video::VideoInfo, rate: FrameRate) -> Result<gst::Caps, Error> {
    let number = |value| i32::try_from(value).map_err(|_| Error::Order);
    let rate = gst::Fraction::new(number(rate.num())?, number(rate.den())?);
    let mut caps = info.to_caps().map_err(|_| Error::Order)?;
    let fields = caps.make_mut();
    fields.set("framerate", rate);
    fields.set("interlace-mode", "progressive");
    Ok(caps)
}

/// Asks every encoder behind `source` for a key frame at each buffer that carries the mark.
fn force_keyframes(source: &gst_app::AppSrc) {
    let Some(pad) = source.static_pad("src") else {
        return;
    };
    let seen = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else {
            return gst::PadProbeReturn::Ok;
        };
        let seen = seen.fetch_add(1, Ordering::Relaxed);
        if buffer.flags().contains(gst::BufferFlags::MARKER) {
            let event = gst_video::DownstreamForceKeyUnitEvent::builder()
                .timestamp(buffer.pts())
                .running_time(buffer.pts())
                .stream_time(buffer.pts())
                .all_headers(false)
                .count(seen)
                .build();
            pad.push_event(event);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Sends what sink `out<index>` of `pipeline` delivers as samples of `rendition`, and its end if `ended` says
/// that this is the end of the rendition.
pub(super) fn deliver(
    pipeline: &gst::Pipeline,
    index: usize,
    (rendition, outputs): (usize, &SyncSender<Item>),
    mut write: impl FnMut(&gst::Sample) -> Result<Written, Error> + Send + 'static,
    ended: impl Fn() -> bool + Send + 'static,
) -> Result<(), Error> {
    let sink = sink(pipeline, &format!("out{index}"))?;
    sink.set_max_buffers(MAX_QUEUED_OUTPUT);
    let (items, end) = (outputs.clone(), outputs.clone());
    let mut pass = move |sample: &gst::Sample| -> Result<(), Item> {
        let written = write(sample).map_err(Item::Failed)?;
        let gone = |_| Item::Ended;
        if let Some(codec) = written.codec.map(Box::new) {
            items
                .send(Item::Opened { rendition, codec })
                .map_err(gone)?;
        }
        if let Some(sample) = written.sample {
            items
                .send(Item::Sample { rendition, sample })
                .map_err(gone)?;
        }
        Ok(())
    };
    let failed = outputs.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                pass(&sample).map_err(|item| {
                    let _ = failed.send(item);
                    gst::FlowError::Error
                })?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                if ended() {
                    let _ = end.send(Item::Ended);
                }
            })
            .build(),
    );
    Ok(())
}

/// The pipeline that `text` describes.
pub(super) fn launch(text: &str) -> Result<gst::Pipeline, Error> {
    let element = gst::parse::launch(text)?;
    element
        .downcast::<gst::Pipeline>()
        .map_err(|_| missing(text))
}

fn missing(name: &str) -> Error {
    Error::Element {
        element: name.to_owned(),
        text: "not found in the pipeline".to_owned(),
    }
}

/// The source called `name`, which makes its feeder wait once `max` buffers are queued.
pub(super) fn source(
    pipeline: &gst::Pipeline,
    name: &str,
    caps: &gst::Caps,
    max: u64,
) -> Result<gst_app::AppSrc, Error> {
    let element = pipeline.by_name(name).ok_or_else(|| missing(name))?;
    let source = element.downcast::<gst_app::AppSrc>();
    let source = source.map_err(|_| missing(name))?;
    source.set_caps(Some(caps));
    source.set_format(gst::Format::Time);
    source.set_block(true);
    source.set_max_buffers(max);
    source.set_max_bytes(0);
    Ok(source)
}

/// The sink called `name`, which delivers at once and never waits for a clock.
pub(super) fn sink(pipeline: &gst::Pipeline, name: &str) -> Result<gst_app::AppSink, Error> {
    let element = pipeline.by_name(name).ok_or_else(|| missing(name))?;
    let sink = element.downcast::<gst_app::AppSink>();
    let sink = sink.map_err(|_| missing(name))?;
    sink.set_sync(false);
    sink.set_async(false);
    sink.set_qos(false);
    sink.set_enable_last_sample(false);
    Ok(sink)
}

/// Calls `failed` when an element of `pipeline` reports an error.
pub(super) fn watch(pipeline: &gst::Pipeline, failed: impl Fn(Error) + Send + Sync + 'static) {
    let Some(bus) = pipeline.bus() else {
        return;
    };
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(error) = message.view() {
            let element = message
                .src()
                .map_or_else(|| "pipeline".to_owned(), |source| source.name().to_string());
            let text = error.error().to_string();
            failed(Error::Element { element, text });
        }
        gst::BusSyncReply::Drop
    });
}
