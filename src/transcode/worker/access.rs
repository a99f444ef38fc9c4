//! Makes samples of what encoders deliver.
//!
//! Enters: buffers of an encoder, in decode order, each with the slot of the frame that went in at its turn
//! Leaves: [`Sample`]s at their exact places; what the encoder is, with the first
//! Never:  a place that the grid does not have
//! Time:   running time in; the rendition's timescale, from the Unix epoch, out
//! Spec:   pipelines/README.md

use bytes::Bytes;

use super::Error;
use super::clock::VideoClock;
use super::follow::Places;
use crate::codec::annexb::{self, LengthPrefixed, LengthSize};
use crate::codec::h264::NalType;
use crate::codec::{av1, h264, vp9};
use crate::media::{CodecConfig, Sample};
use crate::transcode::template::VideoCodec;

/// What an encoder's callback makes of one buffer.
pub(super) struct Written {
    pub(super) sample: Option<Sample>,
    /// The configuration, with the first buffer.
    pub(super) codec: Option<CodecConfig>,
}

/// One rung's access units, in decode order.
pub(super) struct VideoWriter {
    pub(super) rendition: usize,
    pub(super) codec: VideoCodec,
    pub(super) clock: VideoClock,
    /// Where the pictures lie, if not in their slots, and how many slots of these one of the rung's is.
    pub(super) places: Option<(Places, i64)>,
    /// What the encoder said first; a later one of the same rung must say the same.
    pub(super) config: Option<CodecConfig>,
}

impl VideoWriter {
    /// The access unit in `sample`, which takes the place of `slot`.
    pub(super) fn write(
        &mut self,
        sample: &gst::Sample,
        (slot, is_first): (i64, bool),
    ) -> Result<Written, Error> {
        let rendition = self.rendition;
        let broken = |text: &str| {
            let text = text.to_owned();
            Error::Configuration { rendition, text }
        };
        let buffer = sample.buffer().ok_or_else(|| broken("no buffer"))?;
        let pts = running_pts(sample).ok_or_else(|| broken("no timestamp"))?;
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let shown = self.clock.slot_of(pts);
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
        let mut codec = None;
        if is_first {
            let config = self.configuration(sample, &data);
            let config = config.map_err(|text| broken(&text))?;
            match &self.config {
                None => codec = Some(config.clone()),
                Some(before) if *before == config => {}
                Some(_) => return Err(broken("an encoder that differs from the one before it")),
            }
            self.config = Some(config);
        }
        let (dts, pts) = match &self.places {
            None => (self.clock.position(slot), self.clock.position(shown)),
            Some((places, divisor)) => {
                let of = |slot: i64| places.of(slot.saturating_mul(*divisor));
                let both = of(slot).zip(of(shown));
                let (decoded, shown) = both.ok_or_else(|| broken("a picture without a place"))?;
                (decoded.dts, shown.pts)
            }
        };
        Ok(Written {
            codec,
            sample: Some(Sample {
                dts,
                pts,
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

/// The presentation time of a buffer on the encode side's timeline. Encoders with B-frames shift
/// their segment, so the buffer's own number means nothing without it.
fn running_pts(sample: &gst::Sample) -> Option<gst::ClockTime> {
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    match segment.to_running_time_full(sample.buffer()?.pts()?)? {
        gst::Signed::Positive(time) => Some(time),
        gst::Signed::Negative(_) => None,
    }
}

pub(super) fn bytes_of(buffer: &gst::BufferRef) -> Option<Bytes> {
    let map = buffer.map_readable().ok()?;
    Some(Bytes::copy_from_slice(&map))
}

pub(super) fn codec_data(sample: &gst::Sample) -> Option<Bytes> {
    let data = sample
        .caps()?
        .structure(0)?
        .get::<gst::Buffer>("codec_data");
    let data = data.ok()?;
    bytes_of(&data)
}
