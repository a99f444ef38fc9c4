//! The tables that say where a file's samples are, and the `moov` around them.
//!
//! Enters: runs of samples as they are appended to the file
//! Leaves: `moov`
//! Never:  bytes of samples
//! Time:   decode times in the track's timescale; lengths of the movie in [`MOVIE_SCALE`]
//! Spec:   [ISOBMFF] §8.5, §8.6, §8.7

use bytes::Bytes;

use super::fragments::{Init, Run};
use super::{MOVIE_SCALE, MovieError, Track};
use crate::time::{MediaTime, Ticks};

/// The matrix that changes nothing.
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];

/// What is known of a track's samples.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Where the first sample is decoded.
    pub(super) first: Option<Ticks>,
    /// Where the last sample is decoded, and its own length.
    last: Option<(Ticks, u32)>,
    /// How many samples in a row have which length, but the last sample.
    lengths: Vec<(u32, u32)>,
    /// How many in a row have which composition offset.
    offsets: Vec<(u32, i32)>,
    sizes: Vec<u32>,
    /// The numbers of the sync samples, from one.
    syncs: Vec<u32>,
    /// Where each chunk begins, how many samples it has, and of which description.
    chunks: Vec<(u64, u32, u32)>,
}

impl Tables {
    /// Adds a run of samples that begins at `start`, and whose bytes stand at `at` in the file.
    pub(super) fn add(
        &mut self,
        run: &Run,
        start: Ticks,
        (at, description): (u64, u32),
    ) -> Result<(), MovieError> {
        let mut time = start.get();
        for sample in &run.samples {
            if let Some((last, _)) = self.last {
                // Samples that would go back, where sections meet, are put right behind each other.
                time = time.max(last.get() + 1);
                let length = u32::try_from(time - last.get()).map_err(|_| MovieError::TooLong)?;
                count(&mut self.lengths, length);
            }
            self.first.get_or_insert_with(|| Ticks::new(time));
            self.last = Some((Ticks::new(time), sample.duration));
            count(&mut self.offsets, sample.offset);
            self.sizes.push(sample.size);
            let number = u32::try_from(self.sizes.len()).map_err(|_| MovieError::TooLong)?;
            if sample.sync {
                self.syncs.push(number);
            }
            time += i64::from(sample.duration);
        }
        let samples = u32::try_from(run.samples.len()).map_err(|_| MovieError::TooLong)?;
        if samples > 0 {
            self.chunks.push((at, samples, description));
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Option<Ticks> {
        let (last, length) = self.last?;
        Some(Ticks::new(last.get() + i64::from(length)))
    }
}

/// Adds one more `value` to runs of equal ones.
fn count<T: PartialEq>(runs: &mut Vec<(u32, T)>, value: T) {
    match runs.last_mut() {
        Some((count, last)) if *last == value && *count < u32::MAX => *count += 1,
        _ => runs.push((1, value)),
    }
}

/// The `moov` of `tracks`, in which the instant `zero` of their line is the beginning.
pub(super) fn write_movie(tracks: &[Track], zero: MediaTime) -> Result<Vec<u8>, MovieError> {
    let there = || tracks.iter().filter(|track| !track.tables.sizes.is_empty());
    let lengths = there().map(|track| span(zero, track.ends()));
    let length = lengths.max().unwrap_or(0);
    let mut out = Vec::new();
    write_box(&mut out, b"moov", |out| {
        write_full(out, b"mvhd", 0x0100_0000, |out| {
            put(out, &[0_u64; 2]);
            out.extend_from_slice(&MOVIE_SCALE.get().to_be_bytes());
            put(out, &[length]);
            put32(out, &[0x0001_0000, 0x0100_0000, 0, 0]);
            put32(out, &MATRIX);
            put32(out, &[0; 6]);
            let next = u32::try_from(tracks.len()).unwrap_or(u32::MAX - 1) + 1;
            put32(out, &[next]);
        });
        for (id, track) in (1..).zip(there()) {
            if let Some(init) = &track.init {
                write_track(out, id, (track, init), zero);
            }
        }
    });
    if u32::try_from(out.len()).is_err() {
        return Err(MovieError::TooLong);
    }
    Ok(out)
}

/// From `zero` to `time`, in [`MOVIE_SCALE`].
fn span(zero: MediaTime, time: Option<MediaTime>) -> u64 {
    let zero = zero.rescale_nearest(MOVIE_SCALE);
    let time = time.map_or(zero, |time| time.rescale_nearest(MOVIE_SCALE));
    time.since(zero).map_or(0, crate::time::Span::get)
}

fn write_track(out: &mut Vec<u8>, id: u32, (track, init): (&Track, &Init), zero: MediaTime) {
    let (delay, end) = (span(zero, track.begins()), span(zero, track.ends()));
    let tables = &track.tables;
    let length = match (tables.first, tables.end()) {
        (Some(first), Some(end)) => end.since(first).map_or(0, crate::time::Span::get),
        _ => 0,
    };
    write_box(out, b"trak", |out| {
        // Enabled, in the movie.
        write_full(out, b"tkhd", 0x0100_0003, |out| {
            put(out, &[0; 2]);
            put32(out, &[id, 0]);
            put(out, &[end]);
            out.extend_from_slice(&init.header);
        });
        if delay > 0 {
            write_box(out, b"edts", |out| {
                write_full(out, b"elst", 0x0100_0000, |out| {
                    put32(out, &[2]);
                    put(out, &[delay, u64::MAX]);
                    put32(out, &[0x0001_0000]);
                    put(out, &[end - delay, 0]);
                    put32(out, &[0x0001_0000]);
                });
            });
        }
        write_box(out, b"mdia", |out| {
            write_full(out, b"mdhd", 0x0100_0000, |out| {
                put(out, &[0; 2]);
                put32(out, &[init.timescale.get()]);
                put(out, &[length]);
                out.extend_from_slice(&init.language);
            });
            out.extend_from_slice(&init.handler);
            write_box(out, b"minf", |out| {
                out.extend_from_slice(&init.media_header);
                out.extend_from_slice(&init.data_information);
                write_box(out, b"stbl", |out| write_tables(out, track));
            });
        });
    });
}

fn write_tables(out: &mut Vec<u8>, track: &Track) {
    let tables = &track.tables;
    write_full(out, b"stsd", 0, |out| {
        put32(out, &[len(&track.descriptions)]);
        track
            .descriptions
            .iter()
            .for_each(|entry: &Bytes| out.extend_from_slice(entry));
    });
    let mut lengths = tables.lengths.clone();
    if let Some((_, length)) = tables.last {
        count(&mut lengths, length);
    }
    write_full(out, b"stts", 0, |out| {
        put32(out, &[len(&lengths)]);
        lengths
            .iter()
            .for_each(|(count, length)| put32(out, &[*count, *length]));
    });
    if tables.offsets.iter().any(|(_, offset)| *offset != 0) {
        write_full(out, b"ctts", 0x0100_0000, |out| {
            put32(out, &[len(&tables.offsets)]);
            for (count, offset) in &tables.offsets {
                put32(out, &[*count]);
                out.extend_from_slice(&offset.to_be_bytes());
            }
        });
    }
    // Without the table every sample is one.
    if tables.syncs.len() < tables.sizes.len() {
        write_full(out, b"stss", 0, |out| {
            put32(out, &[len(&tables.syncs)]);
            put32(out, &tables.syncs);
        });
    }
    let mut alike: Vec<(u32, u32, u32)> = Vec::new();
    for (number, (_, samples, description)) in (1_u32..).zip(&tables.chunks) {
        let same = |last: &(u32, u32, u32)| (last.1, last.2) == (*samples, *description);
        if !alike.last().is_some_and(same) {
            alike.push((number, *samples, *description));
        }
    }
    write_full(out, b"stsc", 0, |out| {
        put32(out, &[len(&alike)]);
        alike
            .iter()
            .for_each(|(first, samples, of)| put32(out, &[*first, *samples, *of]));
    });
    write_full(out, b"stsz", 0, |out| {
        put32(out, &[0, len(&tables.sizes)]);
        put32(out, &tables.sizes);
    });
    write_full(out, b"co64", 0, |out| {
        put32(out, &[len(&tables.chunks)]);
        tables.chunks.iter().for_each(|(at, _, _)| put(out, &[*at]));
    });
}

fn len<T>(entries: &[T]) -> u32 {
    u32::try_from(entries.len()).unwrap_or(u32::MAX)
}

fn put32(out: &mut Vec<u8>, values: &[u32]) {
    values
        .iter()
        .for_each(|value| out.extend_from_slice(&value.to_be_bytes()));
}

fn put(out: &mut Vec<u8>, values: &[u64]) {
    values
        .iter()
        .for_each(|value| out.extend_from_slice(&value.to_be_bytes()));
}

/// Writes a box around what `write` writes.
pub(super) fn write_box(out: &mut Vec<u8>, kind: &[u8; 4], write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    write(out);
    // Longer ones are refused as a whole.
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// A box that begins with its version and flags.
fn write_full(out: &mut Vec<u8>, kind: &[u8; 4], version: u32, write: impl FnOnce(&mut Vec<u8>)) {
    write_box(out, kind, |out| {
        put32(out, &[version]);
        write(out);
    });
}
