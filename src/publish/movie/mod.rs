//! An MP4 file to the messages that an encoder would send.
//!
//! Enters: a file that a person chose
//! Leaves: an index of its samples in decode order, their FLV bodies one by one
//! Never:  the whole file in memory; fragments, encryption, other codecs than those of [`Codec`]
//! Time:   nanoseconds from the earliest decode time, both tracks on one clock, edit lists applied
//! Spec:   [ISOBMFF] §8.6–8.7, [FLV] §E.4, [ERTMP] v2

mod entry;
mod index;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use mp4::{Mp4Reader, Mp4Track};

pub use self::entry::Codec;
use self::entry::Entry;
use self::index::{Places, Runs, edit_shift, frame_rate, nanos};
use crate::media::MediaKind;

/// Samples in one film: a day of 60 fps with its sound. The index costs 40 bytes for each.
const MAX_SAMPLES: u32 = 10_000_000;
/// The largest access unit: with its FLV header it has to fit an RTMP message.
const MAX_SAMPLE_BYTES: u32 = 8 << 20;

/// Where one access unit lies, in the file and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which track.
    pub kind: MediaKind,
    /// Decode time in nanoseconds from the earliest of the film.
    pub dts_ns: i64,
    /// Presentation time on the same clock; may be before `dts_ns` by an edit.
    pub pts_ns: i64,
    /// Whether decoding can begin here.
    pub keyframe: bool,
    /// Position in the file.
    pub offset: u64,
    /// Length in bytes.
    pub size: u32,
}

/// What a person's file may lack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MovieError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no MP4.
    #[error("{} is no MP4 that can be read: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: mp4::Error,
    },
    /// A table of the file does not add up.
    #[error("{}: table {table:?} of the {kind:?} track does not add up", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The track.
        kind: MediaKind,
        /// The box.
        table: &'static str,
    },
    /// No codec that is published in it, or nothing of it.
    #[error(
        "{} has no samples of H.264, HEVC, AV1, VP9, AAC-LC or Opus",
        path.display()
    )]
    NothingToPublish {
        /// The file.
        path: PathBuf,
    },
}

/// A film, ready to be played.
#[derive(Clone, Debug)]
pub struct Movie {
    path: PathBuf,
    samples: Vec<Sample>,
    length_ns: i64,
    video: Option<Video>,
    audio: Option<Audio>,
}

/// What the metadata says of the pictures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Video {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) frame_rate: f64,
    pub(super) codec: Codec,
}

/// What the metadata says of the sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Audio {
    pub(super) sample_rate: u32,
    pub(super) channels: u16,
    pub(super) codec: Codec,
}

impl Movie {
    /// Reads the index of the file at `path`. Blocks.
    ///
    /// # Errors
    /// Any [`MovieError`].
    pub fn open(path: &Path) -> Result<Self, MovieError> {
        let read_error = |source| MovieError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(read_error)?;
        let size = file.metadata().map_err(read_error)?.len();
        let entries = entry::read(&mut file, size).map_err(read_error)?;
        file.rewind().map_err(read_error)?;
        let reader = Mp4Reader::read_header(BufReader::new(file), size);
        let reader = reader.map_err(|source| MovieError::Format {
            path: path.to_owned(),
            source,
        })?;
        let movie_scale = reader.moov.mvhd.timescale;
        let mut movie = Self {
            path: path.to_owned(),
            samples: Vec::new(),
            length_ns: 0,
            video: None,
            audio: None,
        };
        let mut tracks: Vec<_> = reader.tracks().values().collect();
        tracks.sort_by_key(|track| track.track_id());
        for track in tracks {
            let Some(entry) = entries.iter().find(|e| e.track_id == track.track_id()) else {
                continue;
            };
            movie
                .add(track, entry, movie_scale)
                .map_err(|(kind, table)| MovieError::Table {
                    path: path.to_owned(),
                    kind,
                    table,
                })?;
        }
        movie.finish()
    }

    /// Time from one loop's begin to the next: the end of the longer track.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.length_ns.unsigned_abs())
    }

    /// The samples in decode order over both tracks.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The FLV sequence headers: configuration first, by track.
    #[must_use]
    pub fn headers(&self) -> Vec<(MediaKind, Bytes)> {
        let kinds = [MediaKind::Video, MediaKind::Audio];
        let header = |kind| Some((kind, self.codec(kind)?.header()));
        kinds.into_iter().filter_map(header).collect()
    }

    /// The codec of the track of `kind`, if there is one.
    #[must_use]
    pub fn codec(&self, kind: MediaKind) -> Option<&Codec> {
        match kind {
            MediaKind::Video => self.video.as_ref().map(|video| &video.codec),
            MediaKind::Audio => self.audio.as_ref().map(|audio| &audio.codec),
        }
    }

    /// The FLV tag body of `sample`, whose access unit is `data`; empty if it is none of this film. The
    /// composition offset is the difference of the rounded times, so that rounding does not move the picture.
    #[must_use]
    pub fn body(&self, sample: &Sample, data: &[u8]) -> Bytes {
        let offset_ms = millis(sample.pts_ns) - millis(sample.dts_ns);
        let codec = self.codec(sample.kind);
        codec.map_or_else(Bytes::new, |codec| {
            codec.body(sample.keyframe, offset_ms, data)
        })
    }

    pub(super) const fn video(&self) -> Option<&Video> {
        self.video.as_ref()
    }

    pub(super) const fn audio(&self) -> Option<&Audio> {
        self.audio.as_ref()
    }

    /// A reader of access units, with a file handle of its own.
    ///
    /// # Errors
    /// What opening the file gives.
    pub fn reader(&self) -> io::Result<MovieReader> {
        let file = File::open(&self.path)?;
        Ok(MovieReader { file })
    }

    /// Adds a track; one of no codec that is published, or the second of its kind, is left out.
    fn add(
        &mut self,
        track: &Mp4Track,
        entry: &Entry,
        movie_scale: u32,
    ) -> Result<(), (MediaKind, &'static str)> {
        let Some(codec) = entry.codec(track)? else {
            return Ok(());
        };
        let kind = codec.kind();
        if self.codec(kind).is_some() {
            return Ok(());
        }
        match kind {
            MediaKind::Video => {
                let (width, height) = entry.size();
                self.video = Some(Video {
                    width,
                    height,
                    frame_rate: frame_rate(track),
                    codec,
                });
            }
            MediaKind::Audio => {
                self.audio = Some(Audio {
                    sample_rate: track.trak.mdia.mdhd.timescale,
                    channels: codec.channels().unwrap_or_else(|| entry.channels()),
                    codec,
                });
            }
        }
        if track.trak.mdia.mdhd.timescale == 0 {
            return Err((kind, "mdhd"));
        }
        let end = self
            .index(track, kind, movie_scale)
            .map_err(|table| (kind, table))?;
        self.length_ns = self.length_ns.max(end);
        Ok(())
    }

    /// Walks the sample tables side by side; gives the end of the track in nanoseconds.
    fn index(
        &mut self,
        track: &Mp4Track,
        kind: MediaKind,
        movie_scale: u32,
    ) -> Result<i64, &'static str> {
        let stbl = &track.trak.mdia.minf.stbl;
        let scale = track.trak.mdia.mdhd.timescale;
        let count = stbl.stsz.sample_count;
        if count > MAX_SAMPLES {
            return Err("stsz");
        }
        let shift = edit_shift(track, movie_scale).ok_or("elst")?;
        let deltas = stbl
            .stts
            .entries
            .iter()
            .map(|e| (e.sample_count, e.sample_delta));
        let mut deltas = Runs::new(deltas);
        let offsets = stbl.ctts.iter().flat_map(|c| &c.entries);
        let mut offsets = Runs::new(offsets.map(|e| (e.sample_count, e.sample_offset)));
        let mut places = Places::new(track);
        let mut dts = 0_i64;
        for index in 0..count {
            let size = match stbl.stsz.sample_size {
                0 => *stbl.stsz.sample_sizes.get(index as usize).ok_or("stsz")?,
                constant => constant,
            };
            if size > MAX_SAMPLE_BYTES {
                return Err("stsz");
            }
            let pts = dts.saturating_add(offsets.next().unwrap_or(0).into());
            let syncs = stbl.stss.as_ref();
            let number = index + 1;
            let keyframe = syncs.is_none_or(|s| s.entries.binary_search(&number).is_ok());
            self.samples.push(Sample {
                kind,
                dts_ns: nanos(dts, scale).saturating_add(shift),
                pts_ns: nanos(pts, scale).saturating_add(shift),
                keyframe,
                offset: places.next(size).ok_or("stsc")?,
                size,
            });
            dts = dts.saturating_add(deltas.next().ok_or("stts")?.into());
        }
        Ok(nanos(dts, scale).saturating_add(shift))
    }

    /// Brings the tracks into one order and onto a clock that begins at zero.
    fn finish(mut self) -> Result<Self, MovieError> {
        let Some(first) = self.samples.iter().map(|s| s.dts_ns).min() else {
            return Err(MovieError::NothingToPublish { path: self.path });
        };
        for sample in &mut self.samples {
            sample.dts_ns -= first;
            sample.pts_ns -= first;
        }
        self.length_ns -= first;
        // Pictures go first among equals, and tracks keep their own order: the sort is stable.
        self.samples.sort_by_key(|s| (s.dts_ns, s.kind));
        Ok(self)
    }
}

/// Reads access units. Blocks.
#[derive(Debug)]
pub struct MovieReader {
    file: File,
}

impl MovieReader {
    /// The access unit of `sample`.
    ///
    /// # Errors
    /// What reading the file gives; the end of the file is one.
    pub fn read(&mut self, sample: &Sample) -> io::Result<Vec<u8>> {
        let mut data = vec![0; sample.size as usize];
        self.file.seek(SeekFrom::Start(sample.offset))?;
        self.file.read_exact(&mut data)?;
        Ok(data)
    }
}

/// Whole milliseconds at or before a time.
pub(super) const fn millis(nanos: i64) -> i64 {
    nanos.div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn film() -> Movie {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/media/bbb_720p30_12s.mp4");
        Movie::open(&path).expect("the fixture is whole")
    }

    #[test]
    fn the_film_is_indexed_in_decode_order_from_zero() {
        let movie = film();
        let samples = movie.samples();
        let of = |kind| samples.iter().filter(move |s| s.kind == kind);
        assert_eq!(
            (of(MediaKind::Video).count(), of(MediaKind::Audio).count()),
            (362, 564)
        );
        assert!(samples.windows(2).all(|w| w[0].dts_ns <= w[1].dts_ns));
        assert_eq!(samples[0].dts_ns, 0);
        let video = movie.video().expect("has pictures");
        assert_eq!((video.width, video.height), (1_280, 720));
        assert!((video.frame_rate - 30.0).abs() < 0.01);
        assert_eq!(
            movie.audio().map(|a| (a.sample_rate, a.channels)),
            Some((48_000, 6))
        );
    }

    #[test]
    fn reordered_pictures_are_shown_each_at_a_time_of_its_own() {
        let movie = film();
        let mut shown: Vec<_> = movie
            .samples()
            .iter()
            .filter(|s| s.kind == MediaKind::Video)
            .map(|s| s.pts_ns)
            .collect();
        assert!(!shown.is_sorted(), "the film has B-frames");
        shown.sort_unstable();
        let frame = 33_333_333;
        // The last GOP of the clip is cut short: the pictures that its last one refers past are missing.
        shown.truncate(355);
        assert!(shown.windows(2).all(|w| (w[1] - w[0] - frame).abs() <= 1));
    }

    #[test]
    fn every_access_unit_is_whole_nal_units() {
        let movie = film();
        let mut reader = movie.reader().expect("opens");
        for sample in movie
            .samples()
            .iter()
            .filter(|s| s.kind == MediaKind::Video)
        {
            let data = reader.read(sample).expect("in the file");
            let mut rest = &data[..];
            while let Some((length, after)) = rest.split_first_chunk() {
                rest = &after[u32::from_be_bytes(*length) as usize..];
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_film_is_refused() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (file, expected) in [("no such file", "cannot read"), ("Cargo.toml", "no MP4")] {
            let error = Movie::open(&here.join(file)).expect_err("no film");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn composition_offsets_are_signed() {
        let sample = Sample {
            kind: MediaKind::Video,
            dts_ns: 2_000_000,
            pts_ns: 0,
            keyframe: true,
            offset: 0,
            size: 1,
        };
        let expected = [0x17, 1, 0xFF, 0xFF, 0xFE, 9];
        assert_eq!(film().body(&sample, &[9])[..], expected);
    }
}
