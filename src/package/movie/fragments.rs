//! Reads what a file is made of back from init segments and segments.
//!
//! Enters: bytes from a store that anyone may have written to
//! Leaves: the parts of an init segment; the samples of a segment
//! Never:  a length that the bytes do not have
//! Time:   `tfdt`, in the rendition's timescale
//! Spec:   [ISOBMFF] §8.8

use bytes::Bytes;
use mp4_atom::{DecodeMaybe, Moof, Traf, TrunEntry};

use super::MovieError;
use crate::time::{Ticks, Timescale};

/// More samples than a fragment has: half a minute at a thousand a second.
const MAX_RUN_SAMPLES: usize = 65_536;

/// The flag of a sample that is no sync sample.
const NON_SYNC: u32 = 0x0001_0000;

/// What an init segment says of its only track.
#[derive(Clone, Debug)]
pub(super) struct Init {
    pub(super) timescale: Timescale,
    /// The end of `tkhd`, from behind the duration: volume, matrix, size.
    pub(super) header: Bytes,
    /// Language, as `mdhd` ends.
    pub(super) language: Bytes,
    /// `hdlr`, `vmhd` or `smhd`, and `dinf`, whole.
    pub(super) handler: Bytes,
    pub(super) media_header: Bytes,
    pub(super) data_information: Bytes,
    /// The entry of `stsd`.
    pub(super) description: Bytes,
}

impl Init {
    pub(super) fn read(init: &Bytes) -> Result<Self, MovieError> {
        let moov = inside(init, b"moov", 0)?;
        let trak = inside(&moov, b"trak", 0)?;
        let tkhd = inside(&trak, b"tkhd", 0)?;
        let mdia = inside(&trak, b"mdia", 0)?;
        let mdhd = inside(&mdia, b"mdhd", 0)?;
        let minf = inside(&mdia, b"minf", 0)?;
        let stbl = inside(&minf, b"stbl", 0)?;
        let is_long = mdhd.first() == Some(&1);
        let at = if is_long { 20 } else { 12 };
        let timescale = mdhd.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let timescale = timescale.map(u32::from_be_bytes).and_then(Timescale::new);
        Ok(Self {
            timescale: timescale.ok_or(MovieError::Damaged { what: "mdhd" })?,
            header: tail(&tkhd, 60, "tkhd")?,
            language: tail(&mdhd, 4, "mdhd")?,
            handler: whole(&mdia, b"hdlr")?,
            media_header: whole(&minf, b"vmhd").or_else(|_| whole(&minf, b"smhd"))?,
            data_information: whole(&minf, b"dinf")?,
            // Behind version, flags and the number of entries.
            description: inside(&stbl, b"stsd", 8)?,
        })
    }
}

/// A sample, its bytes aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) duration: u32,
    pub(super) size: u32,
    pub(super) offset: i32,
    pub(super) sync: bool,
}

/// The samples of one fragment.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) start: Ticks,
    pub(super) samples: Vec<Entry>,
    pub(super) data: Bytes,
}

impl Run {
    /// Those of a segment.
    pub(super) fn all(segment: &Bytes) -> Result<Vec<Self>, MovieError> {
        let mut runs = Vec::new();
        let mut pending: Option<(Ticks, Vec<Entry>)> = None;
        for (kind, all, head) in boxes(segment) {
            if kind == *b"moof" {
                pending = Some(read_moof(&all)?);
            } else if kind == *b"mdat"
                && let Some((start, samples)) = pending.take()
            {
                let data = all.slice(head..);
                let total: u64 = samples.iter().map(|sample| u64::from(sample.size)).sum();
                if total != data.len() as u64 {
                    return Err(MovieError::Damaged { what: "mdat" });
                }
                runs.push(Self {
                    start,
                    samples,
                    data,
                });
            }
        }
        if runs.is_empty() {
            return Err(MovieError::Damaged { what: "a segment" });
        }
        Ok(runs)
    }
}

fn read_moof(bytes: &Bytes) -> Result<(Ticks, Vec<Entry>), MovieError> {
    const DAMAGED: MovieError = MovieError::Damaged { what: "moof" };
    let moof = Moof::decode_maybe(&mut bytes.as_ref()).ok().flatten();
    let moof = moof.ok_or(DAMAGED)?;
    let [
        Traf {
            tfhd,
            tfdt: Some(tfdt),
            trun,
            ..
        },
    ] = moof.traf.as_slice()
    else {
        return Err(DAMAGED);
    };
    let mut samples = Vec::new();
    for entry in trun.iter().flat_map(|run| run.samples.iter()) {
        let entry: TrunEntry = entry;
        if samples.len() == MAX_RUN_SAMPLES {
            return Err(DAMAGED);
        }
        let flags = entry.flags.or(tfhd.default_sample_flags).unwrap_or(0);
        samples.push(Entry {
            duration: entry
                .duration
                .or(tfhd.default_sample_duration)
                .ok_or(DAMAGED)?,
            size: entry.size.or(tfhd.default_sample_size).ok_or(DAMAGED)?,
            offset: i32::try_from(entry.cts.unwrap_or(0)).map_err(|_| DAMAGED)?,
            sync: flags & NON_SYNC == 0,
        });
    }
    let start = i64::try_from(tfdt.base_media_decode_time).map_err(|_| DAMAGED)?;
    Ok((Ticks::new(start), samples))
}

/// The boxes in `bytes`: kind, all of it, and how many bytes its head has.
fn boxes(bytes: &Bytes) -> impl Iterator<Item = ([u8; 4], Bytes, usize)> {
    let bytes = bytes.clone();
    let mut at = 0;
    std::iter::from_fn(move || {
        let head: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
        let [a, b, c, d, kind @ ..] = head;
        let (mut length, mut head) = (u64::from(u32::from_be_bytes([a, b, c, d])), 8);
        if length == 1 {
            let long: [u8; 8] = bytes.get(at + 8..at + 16)?.try_into().ok()?;
            (length, head) = (u64::from_be_bytes(long), 16);
        }
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        if end < at + head || end > bytes.len() {
            return None;
        }
        let found = bytes.slice(at..end);
        at = end;
        Some((kind, found, head))
    })
}

fn find(bytes: &Bytes, wanted: &[u8; 4]) -> Result<(Bytes, usize), MovieError> {
    let mut found = boxes(bytes).filter(|(kind, _, _)| kind == wanted);
    let damaged = MovieError::Damaged {
        what: "an init segment",
    };
    found
        .next()
        .map(|(_, all, head)| (all, head))
        .ok_or(damaged)
}

fn whole(bytes: &Bytes, wanted: &[u8; 4]) -> Result<Bytes, MovieError> {
    find(bytes, wanted).map(|(all, _)| all)
}

/// What is in a box, without its first `skipped` bytes.
fn inside(bytes: &Bytes, wanted: &[u8; 4], skipped: usize) -> Result<Bytes, MovieError> {
    let (all, head) = find(bytes, wanted)?;
    if all.len() < head + skipped {
        return Err(MovieError::Damaged {
            what: "an init segment",
        });
    }
    Ok(all.slice(head + skipped..))
}

fn tail(bytes: &Bytes, count: usize, what: &'static str) -> Result<Bytes, MovieError> {
    let from = bytes.len().checked_sub(count);
    from.map(|from| bytes.slice(from..))
        .ok_or(MovieError::Damaged { what })
}
