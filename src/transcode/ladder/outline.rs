//! What is known of a rendition before its encoder has spoken.
//!
//! Enters: a plan
//! Leaves: one [`Outline`] for each rendition, in the plan's order, pictures first
//! Never:  guesses what only an encoder knows
//! Time:   none
//! Spec:   none

use super::Plan;
use crate::id::RenditionName;
use crate::media::{CodecConfig, Rendition};
use crate::time::{FrameRate, Timescale};
use crate::transcode::template::{AudioCodec, VideoCodec};

/// A rendition but for its encoder's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    name: RenditionName,
    timescale: Timescale,
    frame_rate: Option<FrameRate>,
    target_bps: u64,
    coding: Coding,
}

/// What is known of the configuration.
#[derive(Clone, Copy, Debug)]
enum Coding {
    Video(VideoCodec),
    Aac {
        sample_rate: u32,
        frame_samples: u32,
    },
    Opus,
}

impl Plan {
    /// What the renditions will be.
    pub(crate) fn outlines(&self) -> Vec<Outline> {
        let video = self.video.iter().flat_map(|video| {
            video.rungs.iter().map(|rung| Outline {
                name: rung.name.clone(),
                timescale: Timescale::VIDEO_90K,
                frame_rate: video.rate.divided(rung.divisor),
                target_bps: rung.bitrate_bps,
                coding: Coding::Video(video.codec),
            })
        });
        let audio = self.audio.iter().flat_map(|audio| {
            let coding = match audio.codec {
                AudioCodec::Aac => Coding::Aac {
                    sample_rate: audio.sample_rate,
                    frame_samples: audio.frame_samples,
                },
                AudioCodec::Opus => Coding::Opus,
            };
            audio.rungs.iter().map(move |rung| Outline {
                name: rung.name.clone(),
                timescale: Timescale::new(audio.sample_rate).unwrap_or(Timescale::VIDEO_90K),
                frame_rate: None,
                target_bps: rung.bitrate_bps,
                coding,
            })
        });
        video.chain(audio).collect()
    }
}

impl Outline {
    /// The rendition, now that its configuration is known.
    #[cfg(feature = "gst")]
    pub(crate) fn rendition(&self, codec: CodecConfig) -> Rendition {
        Rendition {
            name: self.name.clone(),
            timescale: self.timescale,
            codec,
            frame_rate: self.frame_rate,
            target_bps: self.target_bps,
        }
    }

    /// Whether `rendition` is what was planned.
    pub(crate) fn fits(&self, rendition: &Rendition) -> bool {
        let is_coded_so = match (self.coding, &rendition.codec) {
            (Coding::Video(VideoCodec::H264), CodecConfig::H264(_))
            | (Coding::Video(VideoCodec::Vp9), CodecConfig::Vp9(_))
            | (Coding::Video(VideoCodec::Av1), CodecConfig::Av1(_))
            | (Coding::Opus, CodecConfig::Opus(_)) => true,
            (
                Coding::Aac {
                    sample_rate,
                    frame_samples,
                },
                CodecConfig::Aac(config),
                // Access units of the same length: what doubles the rate (HE-AAC) may say it or not.
            ) => {
                u64::from(config.frame_samples) * u64::from(sample_rate)
                    == u64::from(frame_samples) * u64::from(config.sample_rate)
            }
            _ => false,
        };
        is_coded_so
            && self.name == rendition.name
            && self.timescale == rendition.timescale
            && self.frame_rate == rendition.frame_rate
            && self.target_bps == rendition.target_bps
    }
}
