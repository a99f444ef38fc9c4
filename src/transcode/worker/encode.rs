//! The encode side: one pipeline for all rungs of pictures, one for all of sound. They never change
//! while the broadcast lives.
//!
//! Enters: slots and blocks of the conductor
//! Leaves: [`Item`]s: access units at their exact places
//! Never:  copies pixels: a slot is a reference to the decoded frame with another time
//! Time:   running time zero is the first slot (pictures) or the first sample fed (sound)
//! Spec:   pipelines/README.md

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use gst::prelude::*;

use super::Error;
use super::clock::{AudioClock, Origin, VideoClock};
use super::decode::colour_caps;
use super::output::Item;
use crate::codec::annexb::{self, LengthPrefixed, LengthSize};
use crate::codec::h264::NalType;
use crate::codec::video::Dimensions;
use crate::codec::{aac, av1, h264, opus, vp9};
use crate::media::{CodecConfig, Sample};
use crate::time::{FrameRate, Ticks};
use crate::transcode::conductor::{PCM_FRAME_BYTES, Slot};
use crate::transcode::ladder::{Plan, VideoPlan};
use crate::transcode::template::{AudioCodec, KeyframePolicy, VideoCodec};

/// Frames that wait for all encoders. They are references to decoded frames.
const MAX_QUEUED_FRAMES: u64 = 4;
/// Frames that wait for one lane of encoders, so that one that starts slowly does not hold up the others.
const MAX_QUEUED_PER_LANE: u32 = 8;
/// Blocks of sound that wait for their encoders.
const MAX_QUEUED_BLOCKS: u64 = 16;
/// Access units that wait in an encoder's sink.
const MAX_QUEUED_OUTPUT: u32 = 4;

/// All encoders of pictures.
pub(super) struct VideoEncoder {
    pipeline: gst::Pipeline,
    clock: VideoClock,
    /// The sources of every divisor: rungs of half the rate get every second slot.
    sources: Vec<(u32, gst_app::AppSrc)>,
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
        plan: &Plan,
        (origin, resume): (Origin, &[Ticks]),
        info: &gst_video::VideoInfo,
        outputs: &SyncSender<Item>,
    ) -> Result<Self, Error> {
        let video = plan.video.as_ref().ok_or(Error::Order)?;
        let pipeline = launch(&video_launch(video, info))?;
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
        for (index, rung) in video.rungs.iter().enumerate() {
            let clock = VideoClock::new(video.rate, rung.divisor, origin).ok_or(Error::Order)?;
            let clock = resume
                .get(index)
                .map_or(clock, |at| clock.resuming(*at, video.keyframes, plan.grid));
            if let Some(begin) = clock.skipped() {
                skip_until(&pipeline, index, begin);
            }
            let mut writer = VideoWriter {
                rendition: index,
                codec: video.codec,
                clock,
                count: 0,
            };
            deliver(&pipeline, index, index, outputs, move |sample| {
                writer.write(sample)
            })?;
        }
        let failed = outputs.clone();
        watch(&pipeline, move |error| {
            let _ = failed.send(Item::Failed(error));
        });
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self {
            pipeline,
            clock,
            sources,
        })
    }

    /// Encodes one slot. Waits while the encoders are behind.
    pub(super) fn push(&self, slot: &Slot<gst::Buffer>) -> Result<(), Error> {
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

    /// Ends the pictures; what the encoders hold still comes.
    pub(super) fn finish(&self) -> Result<(), Error> {
        for (_, source) in &self.sources {
            source.end_of_stream().map_err(|_| Error::Stopped)?;
        }
        Ok(())
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

fn video_launch(video: &VideoPlan, info: &gst_video::VideoInfo) -> String {
    let colour = colour_caps(info);
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (divisor, lanes) in by_divisor(video) {
        let _ = write!(text, "appsrc name=in{divisor} ! tee name=t{divisor} ");
        for (lane, rungs) in lanes {
            let _ = write!(
                text,
                "t{divisor}. ! queue max-size-buffers={MAX_QUEUED_PER_LANE} max-size-bytes=0 \
                 max-size-time=0 ! tee name=lane{divisor}_{lane} "
            );
            for index in rungs {
                let Some(rung) = video.rungs.get(index) else {
                    continue;
                };
                let scale = scale_launch(rung.dimensions, video.canvas, &colour);
                let _ = write!(
                    text,
                    "lane{divisor}_{lane}. ! identity name=rung{index} silent=true {scale}! {} \
                     ! appsink name=out{index} ",
                    rung.encoder
                );
            }
        }
    }
    text
}

fn scale_launch(size: Dimensions, canvas: Dimensions, colour: &str) -> String {
    if size == canvas {
        return String::new();
    }
    format!(
        "! videoscale add-borders=false ! video/x-raw,format=I420,width={},height={},\
         pixel-aspect-ratio=1/1{colour} ",
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

/// Asks every encoder behind `source` for a key frame at each buffer that carries the mark. Not at
/// the very first one, which is one anyway: x264enc 1.22 would ignore all later requests.
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
        if seen > 0 && buffer.flags().contains(gst::BufferFlags::MARKER) {
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

/// Keeps from the encoder of rung `index` what lies before `begin`, and every request for a key frame until
/// its first frame, which is one anyway.
fn skip_until(pipeline: &gst::Pipeline, index: usize, begin: gst::ClockTime) {
    let rung = pipeline.by_name(&format!("rung{index}"));
    let Some(pad) = rung.and_then(|rung| rung.static_pad("sink")) else {
        return;
    };
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| match &info.data {
        Some(gst::PadProbeData::Buffer(buffer)) => {
            if buffer.pts().is_some_and(|pts| pts < begin) {
                gst::PadProbeReturn::Handled
            } else {
                gst::PadProbeReturn::Remove
            }
        }
        Some(gst::PadProbeData::Event(event)) if gst_video::ForceKeyUnitEvent::is(event) => {
            gst::PadProbeReturn::Handled
        }
        _ => gst::PadProbeReturn::Ok,
    });
}

/// What an encoder's callback makes of one buffer.
struct Written {
    sample: Option<Sample>,
    /// The configuration, with the first buffer.
    codec: Option<CodecConfig>,
}

/// One rung's access units, in decode order.
struct VideoWriter {
    rendition: usize,
    codec: VideoCodec,
    clock: VideoClock,
    count: i64,
}

impl VideoWriter {
    fn write(&mut self, sample: &gst::Sample) -> Result<Written, Error> {
        let rendition = self.rendition;
        let broken = |text: &str| {
            let text = text.to_owned();
            Error::Configuration { rendition, text }
        };
        let buffer = sample.buffer().ok_or_else(|| broken("no buffer"))?;
        let pts = running_pts(sample).ok_or_else(|| broken("no timestamp"))?;
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let (slot, shown) = (self.clock.slot_at(self.count), self.clock.slot_of(pts));
        if keyframe && slot != shown {
            return Err(Error::Slot {
                rendition,
                expected: slot,
                found: shown,
            });
        }
        let mut data = bytes_of(buffer).ok_or_else(|| broken("unreadable"))?;
        match self.codec {
            VideoCodec::Av1 => {
                data = av1::strip_temporal_delimiters(&data).map_err(|e| broken(&e.to_string()))?;
            }
            VideoCodec::H264 if keyframe => data = without_parameter_sets(&data),
            VideoCodec::H264 | VideoCodec::Vp9 => {}
        }
        let codec = if self.count == 0 {
            let config = self.configuration(sample, &data);
            Some(config.map_err(|text| broken(&text))?)
        } else {
            None
        };
        self.count += 1;
        Ok(Written {
            codec,
            sample: Some(Sample {
                dts: self.clock.position(slot),
                pts: self.clock.position(shown),
                duration: self.clock.duration(slot),
                keyframe,
                data,
            }),
        })
    }

    fn configuration(&self, sample: &gst::Sample, data: &Bytes) -> Result<CodecConfig, String> {
        match self.codec {
            VideoCodec::H264 => {
                let avcc = codec_data(sample).ok_or("no avcC in the caps")?;
                let config = h264::Config::parse_avcc(avcc).map_err(|e| e.to_string())?;
                Ok(CodecConfig::H264(config))
            }
            VideoCodec::Vp9 => {
                let config = vp9::Config::parse_key_frame(data, self.clock.rate());
                Ok(CodecConfig::Vp9(config.map_err(|e| e.to_string())?))
            }
            VideoCodec::Av1 => {
                let config = av1::Config::from_temporal_unit(data);
                Ok(CodecConfig::Av1(config.map_err(|e| e.to_string())?))
            }
        }
    }
}

/// A key frame's access unit without the parameter sets that encoders repeat in it: in an `avc1` track
/// they are in the sample entry alone ([NALFF] §5.4.2.1.2).
fn without_parameter_sets(data: &Bytes) -> Bytes {
    let is_set = |nal: &&[u8]| matches!(h264::nal_type(nal), Some(NalType::Sps | NalType::Pps));
    let nals = || LengthPrefixed::new(data, LengthSize::Four).map_while(Result::ok);
    if nals().any(|nal| is_set(&nal)) {
        annexb::join(nals().filter(|nal| !is_set(nal)))
    } else {
        data.clone()
    }
}

/// All encoders of sound.
pub(super) struct AudioEncoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    clock: AudioClock,
    fed: u64,
}

impl Drop for AudioEncoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl AudioEncoder {
    /// Builds and starts the encoders.
    pub(super) fn new(
        plan: &Plan,
        clock: AudioClock,
        outputs: &SyncSender<Item>,
    ) -> Result<Self, Error> {
        let audio = &plan.audio;
        let mut text = "appsrc name=in ! tee name=t ".to_owned();
        for (index, rung) in audio.rungs.iter().enumerate() {
            let _ = write!(
                text,
                "t. ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=1000000000 \
                 ! {} ! appsink name=out{index} ",
                rung.encoder
            );
        }
        let pipeline = launch(&text)?;
        let rate = i32::try_from(audio.sample_rate).map_err(|_| Error::Order)?;
        let caps = gst::Caps::builder("audio/x-raw")
            .field("format", "F32LE")
            .field("layout", "interleaved")
            .field("rate", rate)
            .field("channels", 2_i32)
            .field("channel-mask", gst::Bitmask::new(3))
            .build();
        let source = source(&pipeline, "in", &caps, MAX_QUEUED_BLOCKS)?;
        let before = plan.video.as_ref().map_or(0, |video| video.rungs.len());
        for index in 0..audio.rungs.len() {
            let (codec, mut count) = (audio.codec, 0_i64);
            let rendition = before + index;
            deliver(&pipeline, index, rendition, outputs, move |sample| {
                let written = write_audio(rendition, codec, clock, count, sample);
                count += 1;
                written
            })?;
        }
        let failed = outputs.clone();
        watch(&pipeline, move |error| {
            let _ = failed.send(Item::Failed(error));
        });
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self {
            pipeline,
            source,
            clock,
            fed: 0,
        })
    }

    /// Encodes one block. Waits while the encoders are behind.
    pub(super) fn push(&mut self, block: Bytes) -> Result<(), Error> {
        let begin = self.clock.running(self.fed);
        self.fed += (block.len() / PCM_FRAME_BYTES) as u64;
        let end = self.clock.running(self.fed);
        let mut buffer = gst::Buffer::from_slice(block);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(begin);
            buffer.set_duration(end.saturating_sub(begin));
        }
        let pushed = self.source.push_buffer(buffer);
        pushed.map(|_| ()).map_err(|_| Error::Stopped)
    }

    /// Ends the sound; what the encoders hold still comes.
    pub(super) fn finish(&self) -> Result<(), Error> {
        let ended = self.source.end_of_stream();
        ended.map(|_| ()).map_err(|_| Error::Stopped)
    }
}

fn write_audio(
    rendition: usize,
    codec: AudioCodec,
    clock: AudioClock,
    count: i64,
    sample: &gst::Sample,
) -> Result<Written, Error> {
    let broken = |text: String| Error::Configuration { rendition, text };
    let data = sample.buffer().and_then(bytes_of);
    let data = data.ok_or_else(|| broken("unreadable".to_owned()))?;
    let config = if count == 0 {
        Some(match codec {
            AudioCodec::Aac => {
                let asc =
                    codec_data(sample).ok_or_else(|| broken("no codec_data in the caps".into()))?;
                let config = aac::Config::parse_asc(asc);
                CodecConfig::Aac(config.map_err(|e| broken(e.to_string()))?)
            }
            // Positions are those of the decoded sound already: nothing is left to be skipped.
            AudioCodec::Opus => CodecConfig::Opus(opus::Config {
                channels: 2,
                pre_skip: 0,
                input_sample_rate: clock.scale().get(),
            }),
        })
    } else {
        None
    };
    let sample = clock.position(count).map(|dts| Sample {
        dts,
        pts: dts,
        duration: clock.duration(),
        keyframe: true,
        data,
    });
    Ok(Written {
        sample,
        codec: config,
    })
}

/// Sends what sink `out<index>` of `pipeline` delivers as samples of `rendition`.
fn deliver(
    pipeline: &gst::Pipeline,
    index: usize,
    rendition: usize,
    outputs: &SyncSender<Item>,
    mut write: impl FnMut(&gst::Sample) -> Result<Written, Error> + Send + 'static,
) -> Result<(), Error> {
    let sink = sink(pipeline, &format!("out{index}"))?;
    sink.set_max_buffers(MAX_QUEUED_OUTPUT);
    let (items, ended) = (outputs.clone(), outputs.clone());
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
                let _ = ended.send(Item::Ended);
            })
            .build(),
    );
    Ok(())
}

/// The presentation time of a buffer on the encode side's timeline. Encoders with B-frames shift
/// their segment, so the buffer's own number means nothing without it.
fn running_pts(sample: &gst::Sample) -> Option<gst::ClockTime> {
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    match segment.to_running_time_full(sample.buffer()?.pts()?)? {
        gst::Signed::Positive(time) => Some(time),
        gst::Signed::Negative(_) => None,
    }
}

fn bytes_of(buffer: &gst::BufferRef) -> Option<Bytes> {
    let map = buffer.map_readable().ok()?;
    Some(Bytes::copy_from_slice(&map))
}

fn codec_data(sample: &gst::Sample) -> Option<Bytes> {
    let data = sample
        .caps()?
        .structure(0)?
        .get::<gst::Buffer>("codec_data");
    let data = data.ok()?;
    bytes_of(&data)
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
