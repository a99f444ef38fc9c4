//! The two tracks of a publisher: what their headers said, and what their access units say of themselves.
//!
//! Enters: records and access units of one codec, from an untrusted publisher
//! Leaves: the configuration to announce; access units as [`Sample`](crate::media::Sample)s hold them, and
//!         whether decoding can begin there
//! Never:  time
//! Spec:   [ERTMP] v2 "VideoPacketType", "AudioPacketType"; [NALFF] §5.3, §8.3; [AV1ISOBMFF] §2.4

use bytes::Bytes;

use super::Error;
use super::body::{AudioCodec, VideoCodec};
use crate::codec::annexb::{self, LengthSize};
use crate::codec::{aac, av1, h264, hevc, opus, vp9};
use crate::demux::DropReason;
use crate::media::CodecConfig;
use crate::time::{FrameRate, Timescale};

/// The rate that the level of VP9 follows where neither record nor metadata says one.
const ASSUMED_RATE: Option<FrameRate> = FrameRate::new(60, 1);

/// One access unit as it goes on.
pub(super) struct Unit {
    pub(super) data: Bytes,
    pub(super) keyframe: bool,
    /// Whether it had start codes in place of lengths.
    pub(super) rewritten: bool,
}

/// What of a track's header its samples need.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Header {
    H264(LengthSize),
    Hevc(LengthSize),
    Av1,
    /// The record, which lacks the size of the pictures.
    Vp9(Bytes),
}

/// The pictures' track once its sequence header came.
#[derive(Clone, Debug)]
pub(super) struct VideoTrack {
    header: Header,
    /// `None` until a key frame has said what the header did not.
    config: Option<CodecConfig>,
    pub(super) seen_keyframe: bool,
}

impl VideoTrack {
    /// The track that a header begins.
    pub(super) fn new(codec: VideoCodec, record: Bytes) -> Result<Self, Error> {
        let (header, config) = match codec {
            VideoCodec::H264 => {
                let header = Header::H264(h264::length_size(&record)?);
                let config = h264::Config::parse_avcc(record)?;
                (header, Some(CodecConfig::H264(config)))
            }
            VideoCodec::Hevc => {
                let header = Header::Hevc(hevc::length_size(&record)?);
                let config = hevc::Config::parse_hvcc(record)?;
                (header, Some(CodecConfig::Hevc(config)))
            }
            VideoCodec::Av1 => match av1::Config::parse_av1c(record) {
                Ok(config) => (Header::Av1, Some(CodecConfig::Av1(config))),
                // It may be left to the key frames.
                Err(av1::Error::NoSequenceHeader) => (Header::Av1, None),
                Err(error) => return Err(error.into()),
            },
            VideoCodec::Vp9 => {
                vp9::check_record(&record)?;
                (Header::Vp9(record), None)
            }
        };
        Ok(Self {
            header,
            config,
            seen_keyframe: false,
        })
    }

    /// Whether `other`, the track of a header that came now, is the same one as far as headers tell.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.config, &other.config) {
            (Some(before), Some(now)) => before == now,
            _ => self.header == other.header,
        }
    }

    /// Takes the size of lengths from `other`, which is the same track.
    pub(super) fn adopt_header(&mut self, other: Self) {
        self.header = other.header;
    }

    pub(super) const fn config(&self) -> Option<&CodecConfig> {
        self.config.as_ref()
    }

    pub(super) const fn codec(&self) -> VideoCodec {
        match self.header {
            Header::H264(_) => VideoCodec::H264,
            Header::Hevc(_) => VideoCodec::Hevc,
            Header::Av1 => VideoCodec::Av1,
            Header::Vp9(_) => VideoCodec::Vp9,
        }
    }

    /// One access unit as samples hold it, or why it is none. What a message says of itself is no help:
    /// recovery points of H.264, from which a decoder shows damage, are flagged like key frames.
    pub(super) fn unit(&self, data: Bytes) -> Result<Result<Unit, DropReason>, Error> {
        let (data, rewritten) = match &self.header {
            Header::H264(size) | Header::Hevc(size) => lengths_of_four(data, *size)?,
            Header::Av1 => (av1::strip_temporal_delimiters(&data)?, false),
            Header::Vp9(_) => (data, false),
        };
        let (has_picture, keyframe) = match &self.header {
            Header::H264(_) => (h264::contains_picture(&data), h264::contains_idr(&data)),
            Header::Hevc(_) => (
                hevc::contains_picture(&data),
                hevc::contains_random_access(&data),
            ),
            Header::Av1 => (
                av1::contains_frame(&data),
                av1::begins_with_key_frame(&data),
            ),
            Header::Vp9(_) => (!data.is_empty(), vp9::is_key_frame(&data)),
        };
        Ok(if has_picture {
            Ok(Unit {
                data,
                keyframe,
                rewritten,
            })
        } else {
            Err(DropReason::Empty)
        })
    }

    /// The configuration that the key frame `data` proves, if it is another one than before. `rate` is what
    /// the publisher declared.
    pub(super) fn learn(
        &mut self,
        data: &[u8],
        rate: Option<FrameRate>,
    ) -> Result<Option<&CodecConfig>, Error> {
        let found = match &self.header {
            Header::Av1 if self.config.is_none() => {
                CodecConfig::Av1(av1::Config::from_temporal_unit(data)?)
            }
            Header::Vp9(record) => {
                let rate = rate.or(ASSUMED_RATE).ok_or(vp9::Error::Record)?;
                CodecConfig::Vp9(vp9::Config::of_stream(record, data, rate)?)
            }
            _ => return Ok(None),
        };
        if self.config.as_ref() == Some(&found) {
            return Ok(None);
        }
        Ok(Some(self.config.insert(found)))
    }
}

/// A body in 4-byte lengths, and whether it had start codes instead, as some hardware encoders send it.
fn lengths_of_four(data: Bytes, size: LengthSize) -> Result<(Bytes, bool), Error> {
    match annexb::widen_lengths(&data, size) {
        Ok(data) => Ok((data, false)),
        Err(_) if annexb::is_start_coded(&data) => Ok((annexb::to_length_prefixed(&data), true)),
        Err(error) => Err(error.into()),
    }
}

/// What is known of the sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    Aac(aac::Config),
    /// `None` until a packet has said what an empty header left open.
    Opus(Option<opus::Config>),
}

impl Sound {
    /// The sound that a header begins; `None` for an empty one of AAC, which says nothing.
    pub(super) fn new(codec: AudioCodec, record: Bytes) -> Result<Option<Self>, Error> {
        Ok(match codec {
            AudioCodec::Aac if record.is_empty() => None,
            AudioCodec::Aac => Some(Self::Aac(aac::Config::parse_asc(record)?)),
            AudioCodec::Opus if record.is_empty() => Some(Self::Opus(None)),
            AudioCodec::Opus => Some(Self::Opus(Some(opus::Config::parse_head(&record)?))),
        })
    }

    /// Whether `now`, of a header that came now, says nothing new.
    pub(super) fn goes_on_as(&self, now: &Self) -> bool {
        self == now || matches!((self, now), (Self::Opus(_), Self::Opus(None)))
    }

    pub(super) const fn codec(&self) -> AudioCodec {
        match self {
            Self::Aac(_) => AudioCodec::Aac,
            Self::Opus(_) => AudioCodec::Opus,
        }
    }

    pub(super) fn config(&self) -> Option<CodecConfig> {
        match self {
            Self::Aac(config) => Some(CodecConfig::Aac(config.clone())),
            Self::Opus(config) => config.map(CodecConfig::Opus),
        }
    }

    pub(super) fn timescale(&self) -> Result<Timescale, Error> {
        let rate = match self {
            Self::Aac(config) => config.sample_rate,
            Self::Opus(_) => opus::SAMPLE_RATE,
        };
        let scale = Timescale::new(rate).ok_or(aac::Error::SampleRate { found: rate })?;
        Ok(scale)
    }

    /// Samples in the access unit `data`; `None` if it is none.
    pub(super) fn samples(&self, data: &[u8]) -> Option<u32> {
        match self {
            Self::Aac(config) => Some(config.frame_samples),
            Self::Opus(_) => opus::packet_samples(data),
        }
    }

    /// The configuration that the packet `data` proves, where none is known yet.
    pub(super) fn learn(&mut self, data: &[u8]) -> Option<CodecConfig> {
        let Self::Opus(config @ None) = self else {
            return None;
        };
        *config = opus::Config::of_packet(data);
        config.map(CodecConfig::Opus)
    }
}
