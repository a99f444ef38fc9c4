//! The tables of a track, run by run.
//!
//! Enters: a track that the `mp4` crate has read
//! Leaves: where its samples lie, in the file and in time
//! Never:  bytes of samples
//! Time:   ticks of the track, and nanoseconds
//! Spec:   [ISOBMFF] §8.6, §8.7

use mp4::Mp4Track;

const NANOS: i128 = 1_000_000_000;

/// Ticks of a scale that is not zero, in nanoseconds.
pub(super) fn nanos(ticks: impl Into<i128>, scale: u32) -> i64 {
    let exact = (ticks.into() * NANOS).div_euclid(i128::from(scale.max(1)));
    i64::try_from(exact).unwrap_or(i64::MAX / 4)
}

/// Frames per second on average.
pub(super) fn frame_rate(track: &Mp4Track) -> f64 {
    let stbl = &track.trak.mdia.minf.stbl;
    let runs = stbl.stts.entries.iter();
    let ticks = runs.map(|run| f64::from(run.sample_count) * f64::from(run.sample_delta));
    let ticks = ticks.sum::<f64>().max(1.0);
    f64::from(stbl.stsz.sample_count) * f64::from(track.trak.mdia.mdhd.timescale) / ticks
}

/// How far the edit list moves the track: an empty edit delays it, the first real one begins inside
/// the media. Later edits are not followed.
pub(super) fn edit_shift(track: &Mp4Track, movie_scale: u32) -> Option<i64> {
    let edits = track.trak.edts.as_ref().and_then(|e| e.elst.as_ref());
    let mut shift = 0_i64;
    for edit in edits.iter().flat_map(|e| &e.entries) {
        let empty = edit.media_time == u64::from(u32::MAX) || edit.media_time == u64::MAX;
        if empty {
            let delay = i64::try_from(edit.segment_duration).ok()?;
            shift = shift.checked_add(nanos(delay, movie_scale))?;
        } else {
            let begin = i64::try_from(edit.media_time).ok()?;
            return shift.checked_sub(nanos(begin, track.trak.mdia.mdhd.timescale));
        }
    }
    Some(shift)
}

/// A run-length table unrolled.
pub(super) struct Runs<I, T> {
    runs: I,
    value: Option<T>,
    left: u32,
}

impl<T: Copy, I: Iterator<Item = (u32, T)>> Runs<I, T> {
    pub(super) const fn new(runs: I) -> Self {
        Self {
            runs,
            value: None,
            left: 0,
        }
    }

    pub(super) fn next(&mut self) -> Option<T> {
        while self.left == 0 {
            let (count, value) = self.runs.next()?;
            (self.left, self.value) = (count, Some(value));
        }
        self.left -= 1;
        self.value
    }
}

/// Positions of samples in the file, in order.
pub(super) struct Places<'a> {
    track: &'a Mp4Track,
    /// Chunks begun so far, in the sense of `stco`.
    chunk: u32,
    run: usize,
    left: u32,
    offset: u64,
}

impl<'a> Places<'a> {
    pub(super) const fn new(track: &'a Mp4Track) -> Self {
        Self {
            track,
            chunk: 0,
            run: 0,
            left: 0,
            offset: 0,
        }
    }

    pub(super) fn next(&mut self, size: u32) -> Option<u64> {
        let stbl = &self.track.trak.mdia.minf.stbl;
        let runs = &stbl.stsc.entries;
        while self.left == 0 {
            let index = self.chunk as usize;
            self.offset = match (&stbl.stco, &stbl.co64) {
                (Some(stco), _) => (*stco.entries.get(index)?).into(),
                (None, Some(co64)) => *co64.entries.get(index)?,
                (None, None) => return None,
            };
            self.chunk += 1;
            while runs
                .get(self.run + 1)
                .is_some_and(|r| r.first_chunk <= self.chunk)
            {
                self.run += 1;
            }
            self.left = runs.get(self.run)?.samples_per_chunk;
        }
        self.left -= 1;
        let offset = self.offset;
        self.offset = offset.checked_add(size.into())?;
        Some(offset)
    }
}
