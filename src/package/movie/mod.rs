//! Makes one ordinary MP4 of CMAF segments: the samples as they are, their tables at the end.
//!
//! Enters: init segments and segments of some renditions, in the order of their stretch
//! Leaves: what is to be written, piece by piece; at the end the `moov`
//! Never:  a sample's bytes changed; a file read back
//! Time:   a file begins at zero; sections follow each other without the time between them
//! Spec:   [ISOBMFF] §8.4 to §8.8

mod fragments;
mod tables;

use bytes::Bytes;

use fragments::{Init, Run};
use tables::Tables;

use crate::time::{MediaTime, Span, Ticks, Timescale};

/// Bytes of the head: `ftyp`, then the head of an `mdat` whose length is not known yet.
const HEAD_BYTES: u64 = 28 + 16;

/// Where in the file the length of the `mdat` stands, as 64 bits.
pub const MDAT_LENGTH_AT: u64 = 28 + 8;

/// The scale of the movie's own times.
const MOVIE_SCALE: Timescale = Timescale::VIDEO_90K;

/// Why segments make no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MovieError {
    /// An init segment or a segment is not what it should be.
    #[error("{what} is damaged, or not of this program's making")]
    Damaged {
        /// Which box.
        what: &'static str,
    },
    /// A rendition's timescale changed on the way.
    #[error(
        "the clock of a rendition changes on the way; export the parts before and after by themselves"
    )]
    Timescale,
    /// More samples or bytes than a table holds.
    #[error("it is too long for one file; export it in parts")]
    TooLong,
}

/// Where a segment begins and how long its samples are together, by its own word; `None` if it is none of this
/// program's making.
#[must_use]
pub fn place_of(segment: &Bytes) -> Option<(Ticks, Span)> {
    let runs = Run::all(segment).ok()?;
    let start = runs.first()?.start;
    let lengths = runs.iter().flat_map(|run| &run.samples);
    let length: u64 = lengths.map(|sample| u64::from(sample.duration)).sum();
    Some((start, Span::new(length)))
}

/// A file in the making.
#[derive(Debug)]
pub struct Movie {
    tracks: Vec<Track>,
    /// Bytes of the file so far.
    length: u64,
    /// Where the section lies on the segments' line, and where in the file.
    section: (MediaTime, MediaTime),
}

#[derive(Debug, Default)]
struct Track {
    init: Option<Init>,
    /// What the decoder needs, each once: the entries of `stsd`.
    descriptions: Vec<Bytes>,
    description: u32,
    tables: Tables,
}

impl Movie {
    /// A file of `tracks` renditions, and its head.
    #[must_use]
    pub fn new(tracks: usize) -> (Self, Bytes) {
        let mut head = Vec::new();
        tables::write_box(&mut head, b"ftyp", |out| {
            out.extend_from_slice(b"isom\0\0\0\0isomiso6mp41");
        });
        // A length of one says that the true one follows as 64 bits.
        head.extend_from_slice(&[0, 0, 0, 1]);
        head.extend_from_slice(b"mdat\0\0\0\0\0\0\0\0");
        let zero = Ticks::ZERO.at(MOVIE_SCALE);
        let movie = Self {
            tracks: (0..tracks).map(|_| Track::default()).collect(),
            length: HEAD_BYTES,
            section: (zero, zero),
        };
        (movie, head.into())
    }

    /// What follows begins at `begins` on the segments' line, and in the file where everything so far has ended.
    pub fn begin_section(&mut self, begins: MediaTime) {
        let ends = self.tracks.iter().filter_map(Track::ends);
        let end = ends.max_by(|a, b| a.cmp_instant(*b));
        let is_first = end.is_none();
        let end = end.unwrap_or(begins);
        self.section = if is_first {
            (begins, begins)
        } else {
            (begins, end)
        };
    }

    /// What follows of `track` needs this init segment.
    ///
    /// # Errors
    ///
    /// [`MovieError`]
    pub fn init(&mut self, track: usize, init: &Bytes) -> Result<(), MovieError> {
        let Some(track) = self.tracks.get_mut(track) else {
            return Ok(());
        };
        let init = Init::read(init)?;
        let same_scale = |known: &Init| known.timescale == init.timescale;
        if !track.init.as_ref().is_none_or(same_scale) {
            return Err(MovieError::Timescale);
        }
        let known = track
            .descriptions
            .iter()
            .position(|known| *known == init.description);
        let index = known.unwrap_or_else(|| {
            track.descriptions.push(init.description.clone());
            track.descriptions.len() - 1
        });
        track.description = u32::try_from(index + 1).map_err(|_| MovieError::TooLong)?;
        track.init.get_or_insert(init);
        Ok(())
    }

    /// Adds a segment of `track`: what is to be appended to the file.
    ///
    /// # Errors
    ///
    /// [`MovieError`]
    pub fn segment(&mut self, track: usize, segment: &Bytes) -> Result<Vec<Bytes>, MovieError> {
        let (from, to) = self.section;
        let Some(track) = self.tracks.get_mut(track) else {
            return Ok(Vec::new());
        };
        let Some(init) = &track.init else {
            return Err(MovieError::Damaged {
                what: "a stretch without an init segment",
            });
        };
        let scale = init.timescale;
        let moved = to.rescale_nearest(scale).delta(from.rescale_nearest(scale));
        let mut pieces = Vec::new();
        for run in Run::all(segment)? {
            let start = run.start.checked_offset(moved).ok_or(MovieError::TooLong)?;
            track
                .tables
                .add(&run, start, (self.length, track.description))?;
            self.length += run.data.len() as u64;
            pieces.push(run.data);
        }
        Ok(pieces)
    }

    /// What is to be appended at the end, and the length of the `mdat`, to be written at [`MDAT_LENGTH_AT`].
    ///
    /// # Errors
    ///
    /// [`MovieError::TooLong`]
    pub fn finish(self) -> Result<(Bytes, u64), MovieError> {
        let begins = self.tracks.iter().filter_map(Track::begins);
        let zero = begins.min_by(|a, b| a.cmp_instant(*b));
        let zero = zero.unwrap_or(Ticks::ZERO.at(MOVIE_SCALE));
        let moov = tables::write_movie(&self.tracks, zero)?;
        Ok((moov.into(), self.length - (HEAD_BYTES - 16)))
    }
}

impl Track {
    fn begins(&self) -> Option<MediaTime> {
        let scale = self.init.as_ref()?.timescale;
        Some(self.tables.first?.at(scale))
    }

    fn ends(&self) -> Option<MediaTime> {
        let scale = self.init.as_ref()?.timescale;
        Some(self.tables.end()?.at(scale))
    }
}

#[cfg(test)]
mod tests;
