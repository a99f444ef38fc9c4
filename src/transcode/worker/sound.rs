//! The encoders of sound: one pipeline for all rungs, which never changes while the broadcast lives.
//!
//! Enters: blocks of the conductor
//! Leaves: [`Item`]s: access units at their exact places
//! Never:  pictures
//! Time:   running time zero is the first sample fed
//! Spec:   pipelines/README.md

use std::fmt::Write;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use gst::prelude::*;

use super::Error;
use super::access::{Written, bytes_of, codec_data};
use super::clock::AudioClock;
use super::encode::{deliver, launch, source, watch};
use super::output::Item;
use crate::codec::{aac, opus};
use crate::media::{CodecConfig, Sample};
use crate::transcode::conductor::PCM_FRAME_BYTES;
use crate::transcode::ladder::{AudioPlan, Plan};
use crate::transcode::template::AudioCodec;

/// Blocks of sound that wait for their encoders.
const MAX_QUEUED_BLOCKS: u64 = 16;

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
        (plan, audio): (&Plan, &AudioPlan),
        clock: AudioClock,
        outputs: &SyncSender<Item>,
    ) -> Result<Self, Error> {
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
            let write = move |sample: &gst::Sample| {
                let written = write_audio(rendition, codec, clock, count, sample);
                count += 1;
                written
            };
            deliver(&pipeline, index, (rendition, outputs), write, || true)?;
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
