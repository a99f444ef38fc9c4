//! Sample entries of a film, and the FLV bodies of their codecs.
//!
//! Enters: a file that a person chose; access units
//! Leaves: [`Codec`]s with their records; bodies: legacy for H.264 and AAC, enhanced for all others
//! Never:  more of the file in memory than sample descriptions
//! Spec:   [ISOBMFF] §4.2, §8.5.2, §12; [NALFF], [AV1ISOBMFF], [VP9MP4], [OPUSMP4]; [FLV] §E.4, [ERTMP] v2

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use mp4::Mp4Track;

use crate::codec::{hevc, opus};
use crate::media::MediaKind;

/// The longest sample description that is read: records are hundreds of bytes.
const MAX_DESCRIPTION_BYTES: u64 = 256 << 10;
/// Boxes beside each other: a file of that many tracks or top-level boxes is no film of a person's.
const MAX_BOXES: usize = 4_096;
/// Bytes of a sample entry before its boxes.
const VISUAL_HEAD_BYTES: usize = 78;
const AUDIO_HEAD_BYTES: usize = 28;

/// What an enhanced video message begins with, beside frame and packet type.
const IS_ENHANCED: u8 = 0x80;
/// The sound format of an enhanced audio message.
const ENHANCED_SOUND: u8 = 0x90;
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const CODED_FRAMES_X: u8 = 3;

/// A codec that is published, with what a decoder has to know first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// H.264, with the body of `avcC`.
    H264(Bytes),
    /// HEVC, with the body of `hvcC`.
    Hevc(Bytes),
    /// AV1, with the body of `av1C`.
    Av1(Bytes),
    /// VP9, with the body of `vpcC` behind version and flags.
    Vp9(Bytes),
    /// AAC-LC, with the `AudioSpecificConfig`.
    Aac(Bytes),
    /// Opus, with the identification header.
    Opus(Bytes),
}

impl Codec {
    /// Of pictures or of sound.
    #[must_use]
    pub const fn kind(&self) -> MediaKind {
        match self {
            Self::H264(_) | Self::Hevc(_) | Self::Av1(_) | Self::Vp9(_) => MediaKind::Video,
            Self::Aac(_) | Self::Opus(_) => MediaKind::Audio,
        }
    }

    /// The FourCC of Enhanced RTMP; `None` for what is sent under its old number.
    #[must_use]
    pub const fn fourcc(&self) -> Option<&'static [u8; 4]> {
        match self {
            Self::H264(_) | Self::Aac(_) => None,
            Self::Hevc(_) => Some(b"hvc1"),
            Self::Av1(_) => Some(b"av01"),
            Self::Vp9(_) => Some(b"vp09"),
            Self::Opus(_) => Some(b"Opus"),
        }
    }

    /// What `onMetaData` calls it: the old number, or the FourCC as one.
    pub(in crate::publish) fn number(&self) -> u32 {
        match (self, self.fourcc()) {
            (_, Some(fourcc)) => u32::from_be_bytes(*fourcc),
            (Self::H264(_), _) => 7,
            _ => 10,
        }
    }

    const fn record(&self) -> &Bytes {
        match self {
            Self::H264(record)
            | Self::Hevc(record)
            | Self::Av1(record)
            | Self::Vp9(record)
            | Self::Aac(record)
            | Self::Opus(record) => record,
        }
    }

    /// Channels of sound, where the record says how many.
    pub(super) fn channels(&self) -> Option<u16> {
        match self {
            Self::Aac(asc) => match asc.get(1)? >> 3 & 0x0F {
                0 => None,
                7 => Some(8),
                count => Some(count.into()),
            },
            Self::Opus(head) => head.get(9).copied().map(u16::from),
            _ => None,
        }
    }

    /// The body of the sequence header.
    pub(super) fn header(&self) -> Bytes {
        let mut body = BytesMut::new();
        match (self, self.fourcc()) {
            (Self::H264(_), _) => body.put_slice(&[0x17, 0, 0, 0, 0]),
            (_, None) => body.put_slice(&[0xAF, 0]),
            (_, Some(fourcc)) => {
                body.put_u8(self.first_byte(true, SEQUENCE_START));
                body.put_slice(fourcc);
            }
        }
        body.put_slice(self.record());
        body.freeze()
    }

    /// The body of one access unit, shown `offset_ms` after it is decoded.
    pub(super) fn body(&self, keyframe: bool, offset_ms: i64, data: &[u8]) -> Bytes {
        let mut body = BytesMut::with_capacity(data.len() + 8);
        let [.., a, b, c] = offset_ms.to_be_bytes();
        match (self, self.fourcc()) {
            (Self::H264(_), _) => {
                body.put_slice(&[if keyframe { 0x17 } else { 0x27 }, 1, a, b, c]);
            }
            (_, None) => body.put_slice(&[0xAF, 1]),
            (Self::Hevc(_), Some(fourcc)) if offset_ms != 0 => {
                body.put_u8(self.first_byte(keyframe, CODED_FRAMES));
                body.put_slice(fourcc);
                body.put_slice(&[a, b, c]);
            }
            (_, Some(fourcc)) => {
                let packet = match self {
                    Self::Hevc(_) => CODED_FRAMES_X,
                    _ => CODED_FRAMES,
                };
                body.put_u8(self.first_byte(keyframe, packet));
                body.put_slice(fourcc);
            }
        }
        body.put_slice(data);
        body.freeze()
    }

    const fn first_byte(&self, keyframe: bool, packet: u8) -> u8 {
        match self.kind() {
            MediaKind::Video => IS_ENHANCED | if keyframe { 0x10 } else { 0x20 } | packet,
            MediaKind::Audio => ENHANCED_SOUND | packet,
        }
    }
}

/// The first sample entry of one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) track_id: u32,
    kind: [u8; 4],
    body: Bytes,
}

impl Entry {
    /// What it holds; `None` for a codec that is not published, the name of the box that does not add up
    /// for one that is.
    pub(super) fn codec(
        &self,
        track: &Mp4Track,
    ) -> Result<Option<Codec>, (MediaKind, &'static str)> {
        let video = |name| self.record(VISUAL_HEAD_BYTES, name, MediaKind::Video);
        Ok(Some(match &self.kind {
            b"avc1" => Codec::H264(video("avcC")?),
            b"hvc1" | b"hev1" => {
                let record = video("hvcC")?;
                let config = hevc::Config::parse_hvcc(record.clone());
                config.map_err(|_| (MediaKind::Video, "hvcC"))?;
                Codec::Hevc(record)
            }
            b"av01" => Codec::Av1(video("av1C")?),
            b"vp09" => {
                let boxed = video("vpcC")?;
                if boxed.len() < 12 {
                    return Err((MediaKind::Video, "vpcC"));
                }
                Codec::Vp9(boxed.slice(4..))
            }
            b"mp4a" => return Ok(audio_config(track).map(Codec::Aac)),
            b"Opus" => {
                let record = self.record(AUDIO_HEAD_BYTES, "dOps", MediaKind::Audio)?;
                let config = opus::Config::parse_dops(&record);
                let config = config.map_err(|_| (MediaKind::Audio, "dOps"))?;
                Codec::Opus(Bytes::copy_from_slice(&config.write_head()))
            }
            _ => return Ok(None),
        }))
    }

    /// The body of the box `name` behind `head` bytes of the entry.
    fn record(
        &self,
        head: usize,
        name: &'static str,
        kind: MediaKind,
    ) -> Result<Bytes, (MediaKind, &'static str)> {
        let mut at = head;
        while let Some(([a, b, c, d, found @ ..], _)) = self
            .body
            .get(at..)
            .and_then(|rest| rest.split_first_chunk::<8>())
        {
            let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let end = at.saturating_add(size);
            if size < 8 || end > self.body.len() {
                break;
            }
            if found == name.as_bytes() {
                return Ok(self.body.slice(at + 8..end));
            }
            at = end;
        }
        Err((kind, name))
    }

    /// Width and height of pictures.
    pub(super) fn size(&self) -> (u16, u16) {
        (self.number(24), self.number(26))
    }

    /// Channels of sound; many writers put 2 whatever they are.
    pub(super) fn channels(&self) -> u16 {
        self.number(16)
    }

    fn number(&self, at: usize) -> u16 {
        let bytes = self.body.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
    }
}

/// The `AudioSpecificConfig` of AAC-LC at one of the listed rates; `None` for any other.
fn audio_config(track: &Mp4Track) -> Option<Bytes> {
    const AAC_LC: u8 = 2;
    let mp4a = track.trak.mdia.minf.stbl.stsd.mp4a.as_ref()?;
    let specific = &mp4a.esds.as_ref()?.es_desc.dec_config.dec_specific;
    let (rate, channels) = (specific.freq_index, specific.chan_conf);
    if specific.profile != AAC_LC || rate > 12 || channels > 15 {
        return None;
    }
    Some(Bytes::copy_from_slice(&[
        AAC_LC << 3 | rate >> 1,
        (rate & 1) << 7 | channels << 3,
    ]))
}

/// The first sample entry of every track of a file of `size` bytes, as far as its boxes add up. The `mp4` crate
/// reads the tables, and of these only what it knows.
pub(super) fn read(file: &mut File, size: u64) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let Some(moov) = find(file, 0..size, b"moov")? else {
        return Ok(entries);
    };
    for (kind, trak) in boxes(file, moov)? {
        if &kind != b"trak" {
            continue;
        }
        let Some(track_id) = track_id(file, trak.clone())? else {
            continue;
        };
        let mut inner = Some(trak);
        for step in [b"mdia", b"minf", b"stbl", b"stsd"] {
            inner = match inner {
                Some(range) => find(file, range, step)?,
                None => None,
            };
        }
        let Some(stsd) = inner.filter(|stsd| stsd.end - stsd.start <= MAX_DESCRIPTION_BYTES) else {
            continue;
        };
        // version, flags and count stand before the first entry
        let first = boxes(file, stsd.start.saturating_add(8)..stsd.end)?;
        if let Some((kind, range)) = first.into_iter().next() {
            entries.push(Entry {
                track_id,
                kind,
                body: read_range(file, range)?.into(),
            });
        }
    }
    Ok(entries)
}

fn track_id(file: &mut File, trak: Range<u64>) -> io::Result<Option<u32>> {
    let Some(tkhd) = find(file, trak, b"tkhd")? else {
        return Ok(None);
    };
    let head = read_range(file, tkhd.start..tkhd.end.min(tkhd.start + 24))?;
    let at = if head.first() == Some(&1) { 20 } else { 12 };
    let bytes = head.get(at..).and_then(|rest| rest.first_chunk());
    Ok(bytes.map(|bytes| u32::from_be_bytes(*bytes)))
}

fn find(file: &mut File, within: Range<u64>, kind: &[u8; 4]) -> io::Result<Option<Range<u64>>> {
    let found = boxes(file, within)?.into_iter().find(|(k, _)| k == kind);
    Ok(found.map(|(_, range)| range))
}

/// Kinds and bodies of the boxes in a row, up to one that does not add up.
fn boxes(file: &mut File, within: Range<u64>) -> io::Result<Vec<([u8; 4], Range<u64>)>> {
    let mut found = Vec::new();
    let mut at = within.start;
    while within.end.saturating_sub(at) >= 8 && found.len() < MAX_BOXES {
        let head = read_range(file, at..within.end.min(at + 16))?;
        let Some(([a, b, c, d, kind @ ..], large)) = head.split_first_chunk::<8>() else {
            break;
        };
        let (size, head_bytes) = match u32::from_be_bytes([*a, *b, *c, *d]) {
            0 => (within.end - at, 8),
            1 => (
                large
                    .first_chunk()
                    .map_or(0, |large| u64::from_be_bytes(*large)),
                16,
            ),
            size => (u64::from(size), 8),
        };
        let end = at.saturating_add(size);
        if size < head_bytes || end > within.end {
            break;
        }
        found.push((*kind, at + head_bytes..end));
        at = end;
    }
    Ok(found)
}

/// Bytes of the file, a description at most.
fn read_range(file: &mut File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(range.start))?;
    file.take(length.min(MAX_DESCRIPTION_BYTES))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
