//! The decode side: one small pipeline per track, rebuilt whenever the track changes.
//!
//! Enters: [`TrackInfo`]s and access units of the source
//! Leaves: [`Event`]s: frames at the plan's size and layout, blocks at the plan's sample rate
//! Never:  copies pixels where the source already has the plan's size
//! Time:   positions of the source; GStreamer's running time begins an hour before the first segment
//! Spec:   none

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;

use super::clock::Origin;
use super::conduct::Event;
use super::{Error, log};
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Sample, TrackInfo};
use crate::time::Timescale;
use crate::transcode::ladder::Plan;

/// Access units that wait for a decoder: enough to keep it busy, few enough to add no latency.
const MAX_QUEUED: u64 = 16;
/// How long a decoder may take to deliver what it holds before it is given up.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// How often a stalled or failed decoder is looked at while it drains.
const DRAIN_STEP: Duration = Duration::from_millis(100);
/// How old a decoder that has failed must be before another one is tried.
const REOPEN_AFTER: Duration = Duration::from_secs(5);

/// The decoders of all tracks of a source.
pub(super) struct Decoders {
    plan: Plan,
    origin: Origin,
    events: SyncSender<Event>,
    /// The colour of the first frame: what every later one is converted to.
    pinned: Arc<OnceLock<gst_video::VideoInfo>>,
    open: Vec<Decoder>,
}

struct Decoder {
    begun: Instant,
    track: TrackInfo,
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    drained: Receiver<()>,
    /// Set when it can decode no more.
    failed: Arc<AtomicBool>,
    /// Whether it was given anything.
    is_fed: bool,
    /// Set while it has shown nothing whole, because it did not begin with a key frame.
    is_partial: Arc<AtomicBool>,
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // A pipeline that will not stop is stopped by the end of the process.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Decoders {
    pub(super) fn new(plan: &Plan, origin: Origin, events: SyncSender<Event>) -> Self {
        Self {
            plan: plan.clone(),
            origin,
            events,
            pinned: Arc::new(OnceLock::new()),
            open: Vec::new(),
        }
    }

    /// Begins a track, or changes it: what the decoder before it holds is delivered first. A second
    /// track of a kind takes the place of the first.
    pub(super) fn open(&mut self, info: &TrackInfo) -> Result<(), Error> {
        let kind = info.codec.kind();
        let is_same = |decoder: &Decoder| decoder.track == *info && !decoder.has_failed();
        if self.open.iter().any(is_same) {
            return Ok(());
        }
        if let Some(index) = self
            .open
            .iter()
            .position(|decoder| decoder.track.codec.kind() == kind)
        {
            self.open.swap_remove(index).drain();
        }
        let is_wanted = match kind {
            MediaKind::Video => self.plan.video.is_some(),
            MediaKind::Audio => self.plan.audio.is_some(),
        };
        if !is_wanted {
            return Ok(());
        }
        let decoder = match kind {
            MediaKind::Video => self.open_video(info)?,
            MediaKind::Audio => self.open_audio(info)?,
        };
        self.open.push(decoder);
        Ok(())
    }

    /// Gives one access unit of `track`. Waits while the decoder is behind. A track whose decoder has failed
    /// is like one that sends nothing, until it changes or a key frame finds a new decoder.
    pub(super) fn push(&mut self, track: TrackId, sample: &Sample) -> Result<(), Error> {
        if sample.keyframe {
            self.reopen(track)?;
        }
        let mut open = self.open.iter_mut();
        let Some(decoder) = open.find(|decoder| decoder.track.id == track) else {
            return Ok(());
        };
        if !std::mem::replace(&mut decoder.is_fed, true) {
            let is_partial = !sample.keyframe;
            decoder.is_partial.store(is_partial, Ordering::Release);
        }
        let scale = decoder.track.timescale;
        let running = |ticks: crate::time::Ticks| self.origin.to_running(ticks.at(scale));
        let Some(pts) = running(sample.pts) else {
            return Ok(());
        };
        let mut buffer = gst::Buffer::from_slice(sample.data.clone());
        if let Some(buffer) = buffer.get_mut() {
            // No decode time: where a picture is shown before it is decoded, GStreamer's parsers would move it.
            buffer.set_pts(pts);
            if !sample.keyframe {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        match decoder.source.push_buffer(buffer) {
            Err(_) if !decoder.has_failed() => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Puts another decoder in the place of that of `track`, if it has failed and is not new itself.
    fn reopen(&mut self, track: TrackId) -> Result<(), Error> {
        let has_failed = |decoder: &&Decoder| {
            let is_new = decoder.begun.elapsed() < REOPEN_AFTER;
            decoder.track.id == track && decoder.has_failed() && !is_new
        };
        match self.open.iter().find(has_failed) {
            Some(decoder) => {
                let info = decoder.track.clone();
                self.open(&info)
            }
            None => Ok(()),
        }
    }

    /// Delivers everything that the decoders hold.
    pub(super) fn finish(&mut self) {
        for decoder in self.open.drain(..) {
            decoder.drain();
        }
    }

    fn open_video(&self, info: &TrackInfo) -> Result<Decoder, Error> {
        let (caps, chain) = video_decoder(&info.codec)?;
        let canvas = self.plan.video.as_ref().map(|video| video.canvas);
        let canvas = canvas.ok_or(Error::Order)?;
        let whole = whole_pictures(&info.codec);
        let colour = self.pinned.get().map_or_else(String::new, colour_caps);
        let launch = format!(
            "appsrc name=in ! {chain}{whole} ! videoconvertscale add-borders=true \
             ! video/x-raw,format=I420,width={},height={},pixel-aspect-ratio=1/1{colour} \
             ! appsink name=out",
            canvas.width, canvas.height,
        );
        let (events, origin) = (self.events.clone(), self.origin);
        let pinned = Arc::clone(&self.pinned);
        let mut known: Option<(gst::Caps, gst_video::VideoInfo)> = None;
        let is_partial = Arc::new(AtomicBool::new(false));
        let is_still_partial = Arc::clone(&is_partial);
        let mut decoder = start(info, &caps, &launch, move |sample| {
            let caps = sample.caps_owned().ok_or(gst::FlowError::NotNegotiated)?;
            if known.as_ref().is_none_or(|(before, _)| *before != caps) {
                let info = gst_video::VideoInfo::from_caps(&caps);
                let info = info.map_err(|_| gst::FlowError::NotNegotiated)?;
                let _ = pinned.set(info.clone());
                known = Some((caps, info));
            }
            let (_, info) = known.as_ref().ok_or(gst::FlowError::NotNegotiated)?;
            let buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
            let Some(pts) = buffer.pts() else {
                return Ok(());
            };
            let is_whole = !is_still_partial.load(Ordering::Acquire)
                || !buffer.flags().contains(gst::BufferFlags::CORRUPTED);
            if is_whole {
                is_still_partial.store(false, Ordering::Release);
            }
            let event = Event::Frame {
                position: origin.of_running(pts, Timescale::VIDEO_90K),
                buffer,
                info: info.clone(),
                is_whole,
            };
            events.send(event).map_err(|_| gst::FlowError::Eos)
        })?;
        decoder.is_partial = is_partial;
        Ok(decoder)
    }

    fn open_audio(&self, info: &TrackInfo) -> Result<Decoder, Error> {
        let (caps, chain) = audio_decoder(&info.codec)?;
        let rate = self.plan.audio.as_ref().map(|audio| audio.sample_rate);
        let rate = rate.ok_or(Error::Order)?;
        let launch = format!(
            "appsrc name=in ! {chain} ! audioconvert ! audioresample \
             ! audio/x-raw,format=F32LE,layout=interleaved,channels=2,rate={rate} \
             ! appsink name=out",
        );
        let scale = Timescale::new(rate).ok_or(Error::Order)?;
        let (events, origin) = (self.events.clone(), self.origin);
        events
            .send(Event::SoundBegins)
            .map_err(|_| Error::Stopped)?;
        start(info, &caps, &launch, move |sample| {
            let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
            let Some(pts) = buffer.pts() else {
                return Ok(());
            };
            let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            let event = Event::Pcm {
                position: origin.of_running(pts, scale),
                pcm: Bytes::copy_from_slice(&map),
            };
            events.send(event).map_err(|_| gst::FlowError::Eos)
        })
    }
}

impl Decoder {
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Ends the track and waits until everything it holds was delivered.
    fn drain(self) {
        if self.has_failed() || self.source.end_of_stream().is_err() {
            return;
        }
        let steps = DRAIN_LIMIT.as_millis() / DRAIN_STEP.as_millis();
        for _ in 0..steps {
            match self.drained.recv_timeout(DRAIN_STEP) {
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                _ => return,
            }
        }
        log("a decoder did not deliver its last frames");
    }
}

/// Builds and starts the pipeline `launch` for `info`, whose output goes to `deliver`.
fn start(
    info: &TrackInfo,
    caps: &gst::Caps,
    launch: &str,
    mut deliver: impl FnMut(&gst::Sample) -> Result<(), gst::FlowError> + Send + 'static,
) -> Result<Decoder, Error> {
    let pipeline = super::encode::launch(launch)?;
    let source = super::encode::source(&pipeline, "in", caps, MAX_QUEUED)?;
    // A live source makes the decoder work without a delay of whole frames per thread.
    source.set_is_live(true);
    let sink = super::encode::sink(&pipeline, "out")?;
    sink.set_max_buffers(1);
    let (done, drained) = channel();
    let ended = done.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                deliver(&sample).map(|()| gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                let _ = done.send(());
            })
            .build(),
    );
    accept_video_meta(&sink);
    let failed = Arc::new(AtomicBool::new(false));
    let (failing, failing_pipeline) = (Arc::clone(&failed), pipeline.downgrade());
    super::encode::watch(&pipeline, move |error| {
        if failing.swap(true, Ordering::AcqRel) {
            return;
        }
        log(&format!("decoder: {error}"));
        let _ = ended.send(());
        // Whoever waits for room in its queue is let go. Not on this thread, which is the pipeline's own.
        let pipeline = failing_pipeline.clone();
        std::thread::spawn(move || {
            let _ = pipeline.upgrade().map(|p| p.set_state(gst::State::Null));
        });
    });
    pipeline.set_state(gst::State::Playing)?;
    Ok(Decoder {
        begun: Instant::now(),
        track: info.clone(),
        pipeline,
        source,
        drained,
        failed,
        is_fed: false,
        is_partial: Arc::default(),
    })
}

/// Tells the decoder that padded frames are welcome, so that it decodes straight into them.
fn accept_video_meta(sink: &gst_app::AppSink) {
    let Some(pad) = sink.static_pad("sink") else {
        return;
    };
    pad.add_probe(
        gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH,
        |_, info| {
            let Some(query) = info.query_mut() else {
                return gst::PadProbeReturn::Ok;
            };
            if let gst::QueryViewMut::Allocation(allocation) = query.view_mut() {
                allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        },
    );
}

/// Caps fields that pin the colour of `info`. Without them GStreamer guesses it from the number of
/// lines and converts between its guesses.
pub(super) fn colour_caps(info: &gst_video::VideoInfo) -> String {
    let colour = format!(",colorimetry=(string){}", info.colorimetry());
    let site = info.chroma_site();
    // Of pictures that come in RGB it is unknown, and has no name: the bindings would read a null pointer.
    if site.is_empty() {
        colour
    } else {
        format!("{colour},chroma-site=(string){}", site.to_str())
    }
}

/// What a decoder is fed with, and the chains of elements that decode it: the first whose last element is
/// there is taken. The doctor asks for the same ones: [`crate::transcode::SOURCE_DECODERS`].
fn video_decoder(codec: &CodecConfig) -> Result<(gst::Caps, &'static str), Error> {
    let data = |record: &Bytes| gst::Buffer::from_slice(record.clone());
    let (caps, chains): (_, &[_]) = match codec {
        CodecConfig::H264(config) => {
            let caps = gst::Caps::builder("video/x-h264")
                .field("stream-format", "avc")
                .field("alignment", "au")
                .field("codec_data", data(&config.avcc));
            let chains = &["h264parse ! avdec_h264 max-errors=-1"];
            (caps.build(), chains)
        }
        CodecConfig::Hevc(config) => {
            let caps = gst::Caps::builder("video/x-h265")
                .field("stream-format", "hvc1")
                .field("alignment", "au")
                .field("codec_data", data(&config.hvcc));
            let chains = &[
                "h265parse ! avdec_h265 max-errors=-1",
                "h265parse ! libde265dec",
            ];
            (caps.build(), chains)
        }
        CodecConfig::Av1(config) => {
            let caps = gst::Caps::builder("video/x-av1")
                .field("stream-format", "obu-stream")
                .field("alignment", "tu")
                .field("codec_data", data(&config.av1c));
            (caps.build(), &["av1parse ! dav1ddec", "av1parse ! av1dec"])
        }
        CodecConfig::Vp9(config) => {
            let side = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
            let caps = gst::Caps::builder("video/x-vp9")
                .field("width", side(config.dimensions.width))
                .field("height", side(config.dimensions.height));
            (caps.build(), &["avdec_vp9 max-errors=-1", "vp9dec"])
        }
        other => return Err(unsupported(other)),
    };
    Ok((caps, first_there(chains).ok_or_else(|| unsupported(codec))?))
}

/// What makes whole pictures of two fields, which nobody can watch woven: one picture of each pair, from the lines
/// of the upper one. The methods that look at more than one field misread the padded frames of decoders. Pictures
/// that were coded whole pass as they are.
fn whole_pictures(codec: &CodecConfig) -> &'static str {
    const DEINTERLACE: &str = " ! deinterlace fields=top method=linear";
    let has_fields = matches!(codec, CodecConfig::H264(config) if config.may_have_fields());
    if has_fields && gst::ElementFactory::find("deinterlace").is_some() {
        DEINTERLACE
    } else {
        ""
    }
}

/// As [`video_decoder`].
fn audio_decoder(codec: &CodecConfig) -> Result<(gst::Caps, &'static str), Error> {
    let (caps, chains): (_, &[_]) = match codec {
        CodecConfig::Aac(config) => {
            let caps = gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4_i32)
                .field("stream-format", "raw")
                .field("codec_data", gst::Buffer::from_slice(config.asc.clone()));
            (caps.build(), &["aacparse ! avdec_aac max-errors=-1"])
        }
        CodecConfig::Opus(config) => {
            // Without a header: a decoder that is given one drops what the encoder added in front, and the
            // stamps of publishers are those of the sound with it.
            let caps = gst::Caps::builder("audio/x-opus")
                .field("channel-mapping-family", 0_i32)
                .field("channels", i32::from(config.channels))
                .field("rate", 48_000_i32);
            (caps.build(), &["opusdec", "avdec_opus max-errors=-1"])
        }
        other => return Err(unsupported(other)),
    };
    Ok((caps, first_there(chains).ok_or_else(|| unsupported(codec))?))
}

/// The first chain whose last element, the decoder, this machine has.
fn first_there(chains: &[&'static str]) -> Option<&'static str> {
    chains.iter().copied().find(|chain| {
        let decoder = chain.rsplit("! ").next().unwrap_or_default();
        let name = decoder.split(' ').next().unwrap_or_default();
        gst::ElementFactory::find(name).is_some()
    })
}

fn unsupported(codec: &CodecConfig) -> Error {
    let (name, package) = match codec {
        CodecConfig::H264(_) => ("H.264", "gstreamer1.0-libav"),
        CodecConfig::Hevc(_) => ("HEVC", "gstreamer1.0-libav"),
        CodecConfig::Av1(_) => ("AV1", "gstreamer1.0-plugins-bad"),
        CodecConfig::Vp9(_) => ("VP9", "gstreamer1.0-plugins-good"),
        CodecConfig::Aac(_) => ("AAC", "gstreamer1.0-libav"),
        CodecConfig::Opus(_) => ("Opus", "gstreamer1.0-plugins-base"),
    };
    Error::Unsupported { name, package }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_names_what_is_known() {
        gst::init().expect("GStreamer is there");
        let of_rgb = ",colorimetry=(string)2:4:0:0";
        for colour in [
            of_rgb,
            ",colorimetry=(string)bt709,chroma-site=(string)mpeg2",
        ] {
            let caps = format!("video/x-raw,format=I420,width=64,height=64{colour}");
            let caps = caps.parse::<gst::Caps>().expect("caps");
            let info = gst_video::VideoInfo::from_caps(&caps).expect("raw pictures");
            assert_eq!(colour_caps(&info), colour);
        }
    }
}
