//! The bodies of FLV audio and video messages, legacy and enhanced.
//!
//! Enters: one message body, from anyone
//! Leaves: [`Video`] or [`Audio`], sharing the bytes
//! Never:  state, codecs' own bytes
//! Spec:   [FLV] annex E.4.2, E.4.3; [ERTMP] v2 "ExVideoTagHeader", "ExAudioTagHeader"

use bytes::{Buf, Bytes};

use super::{Error, FoundCodec};
use crate::media::MediaKind;

/// Modifiers of one enhanced message: two are defined; more are damage.
const MAX_MODIFIERS: usize = 16;

/// What a video message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Video {
    /// A decoder configuration record of H.264.
    SequenceHeader(Bytes),
    /// One access unit.
    Picture { composition_ms: i32, data: Bytes },
    /// End of sequence, command frames, colour metadata, empty messages.
    Nothing,
}

/// What an audio message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audio {
    /// An `AudioSpecificConfig`.
    SequenceHeader(Bytes),
    /// One access unit.
    Sound(Bytes),
    /// End of sequence, empty messages, channel maps.
    Nothing,
}

const VIDEO: MediaKind = MediaKind::Video;
const AUDIO: MediaKind = MediaKind::Audio;

/// Takes `N` bytes off the front.
fn take<const N: usize>(kind: MediaKind, data: &mut Bytes) -> Result<[u8; N], Error> {
    let Some(taken) = data.first_chunk::<N>().copied() else {
        return Err(Error::Cut {
            kind,
            left: data.len(),
            needed: N,
        });
    };
    data.advance(N);
    Ok(taken)
}

/// SI24, big-endian.
fn composition_ms(data: &mut Bytes) -> Result<i32, Error> {
    let [high, middle, low] = take(VIDEO, data)?;
    Ok(i32::from_be_bytes([high, middle, low, 0]) >> 8)
}

pub(super) fn parse_video(mut data: Bytes) -> Result<Video, Error> {
    if data.is_empty() {
        return Ok(Video::Nothing);
    }
    let [first] = take(VIDEO, &mut data)?;
    if first & 0x80 != 0 {
        return parse_enhanced_video(first, data);
    }
    if first >> 4 == 5 {
        return Ok(Video::Nothing); // command frame
    }
    if first & 15 != 7 {
        return Err(Error::UnsupportedCodec {
            kind: VIDEO,
            found: FoundCodec::Legacy(first & 15),
        });
    }
    let [packet] = take(VIDEO, &mut data)?;
    let composition_ms = composition_ms(&mut data)?;
    match packet {
        0 => Ok(Video::SequenceHeader(data)),
        1 => Ok(Video::Picture {
            composition_ms,
            data,
        }),
        2 => Ok(Video::Nothing),
        found => Err(Error::PacketType { kind: VIDEO, found }),
    }
}

fn parse_enhanced_video(first: u8, mut data: Bytes) -> Result<Video, Error> {
    let packet = skip_modifiers(VIDEO, first & 15, &mut data)?;
    if packet == 4 || first >> 4 & 7 == 5 {
        return Ok(Video::Nothing); // colour metadata, or a command frame, which has no FourCC
    }
    if packet == 6 {
        return Err(Error::Multitrack { kind: VIDEO });
    }
    let fourcc = take::<4>(VIDEO, &mut data)?;
    if &fourcc != b"avc1" {
        return Err(Error::UnsupportedCodec {
            kind: VIDEO,
            found: FoundCodec::FourCc(fourcc),
        });
    }
    match packet {
        0 => Ok(Video::SequenceHeader(data)),
        1 => Ok(Video::Picture {
            composition_ms: composition_ms(&mut data)?,
            data,
        }),
        2 => Ok(Video::Nothing),
        3 => Ok(Video::Picture {
            composition_ms: 0,
            data,
        }),
        found => Err(Error::PacketType { kind: VIDEO, found }),
    }
}

pub(super) fn parse_audio(mut data: Bytes) -> Result<Audio, Error> {
    if data.is_empty() {
        return Ok(Audio::Nothing); // a zero-length message stands for silence
    }
    let [first] = take(AUDIO, &mut data)?;
    match first >> 4 {
        9 => return parse_enhanced_audio(first, data),
        10 => {}
        found => {
            return Err(Error::UnsupportedCodec {
                kind: AUDIO,
                found: FoundCodec::Legacy(found),
            });
        }
    }
    if data.is_empty() {
        return Ok(Audio::Nothing);
    }
    match take(AUDIO, &mut data)? {
        [0] => Ok(Audio::SequenceHeader(data)),
        [1] if data.is_empty() => Ok(Audio::Nothing),
        [1] => Ok(Audio::Sound(data)),
        [found] => Err(Error::PacketType { kind: AUDIO, found }),
    }
}

fn parse_enhanced_audio(first: u8, mut data: Bytes) -> Result<Audio, Error> {
    let packet = skip_modifiers(AUDIO, first & 15, &mut data)?;
    if packet == 5 {
        return Err(Error::Multitrack { kind: AUDIO });
    }
    let fourcc = take::<4>(AUDIO, &mut data)?;
    if &fourcc != b"mp4a" {
        return Err(Error::UnsupportedCodec {
            kind: AUDIO,
            found: FoundCodec::FourCc(fourcc),
        });
    }
    match packet {
        0 => Ok(Audio::SequenceHeader(data)),
        1 if data.is_empty() => Ok(Audio::Nothing),
        1 => Ok(Audio::Sound(data)),
        2 | 4 => Ok(Audio::Nothing),
        found => Err(Error::PacketType { kind: AUDIO, found }),
    }
}

/// Passes over the modifiers in front of an enhanced message (nanosecond offsets, of no use to positions that
/// are regenerated); gives the packet type behind them.
fn skip_modifiers(kind: MediaKind, mut packet: u8, data: &mut Bytes) -> Result<u8, Error> {
    for _ in 0..MAX_MODIFIERS {
        if packet != 7 {
            return Ok(packet);
        }
        let [short] = take(kind, data)?;
        let mut size = usize::from(short) + 1;
        if size == 256 {
            size = usize::from(u16::from_be_bytes(take(kind, data)?)) + 1;
        }
        if data.len() < size {
            return Err(Error::Cut {
                kind,
                left: data.len(),
                needed: size,
            });
        }
        data.advance(size);
        let [types] = take(kind, data)?;
        packet = types & 15;
    }
    Err(Error::PacketType { kind, found: 7 })
}
