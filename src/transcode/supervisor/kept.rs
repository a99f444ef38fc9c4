//! The source samples that a new worker would have to see again.
//!
//! Enters: tracks and samples as they are fed, how far delivery has come
//! Leaves: the same, in the order in which they came, from the last place where a decoder may begin
//! Never:  copies media; more than [`MAX_BYTES`] or [`MAX_MS`] of it
//! Time:   positions of the source, which are those of the renditions
//! Spec:   none

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::VecDeque;

use super::Input;
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Sample, TrackInfo};
use crate::time::{MediaTime, Timescale};

/// The most bytes that are kept, with what it takes to keep them: ten seconds, the longest usual GOP, at 25 Mbit/s.
const MAX_BYTES: usize = 32 << 20;
/// The longest stretch of one track that is kept, in milliseconds: the longest usual GOP, and as much again for
/// a worker that hangs before it is given up. More could not be caught up with in time anyway.
const MAX_MS: i64 = 25_000;
/// The most ends of sources that are kept: a switch of inputs every two seconds, as long as samples are.
const MAX_DETACHED: usize = 16;
/// Access units are kept and forgotten in pieces of at least this length, in milliseconds.
const MIN_PIECE_MS: i64 = 250;
/// How long before the first sample that is missing a decoder begins, in milliseconds: a picture may take the
/// slot beside its own, and sound is encoded for some access units before it is wanted.
const LEAD_MS: i64 = 500;

/// How far the renditions of each kind have been delivered, the slowest of them; `None` where there are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) video: Option<MediaTime>,
    pub(super) audio: Option<MediaTime>,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    video: Lane,
    audio: Lane,
    /// What the next input is numbered with, so that both lanes can be put back into one order.
    next: u64,
    /// When sources went, the newest last.
    detached: VecDeque<u64>,
}

/// What is kept of one kind.
#[derive(Debug, Default)]
struct Lane {
    track: Option<Announced>,
    pieces: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Announced {
    number: u64,
    info: TrackInfo,
}

/// Samples from one place where decoding may begin up to another.
#[derive(Debug)]
struct Piece {
    track: Announced,
    begin_ms: i64,
    samples: Vec<(u64, Sample)>,
    bytes: usize,
}

impl Kept {
    /// Keeps what is about to be fed.
    pub(super) fn push(&mut self, input: &Input) {
        let number = self.next;
        self.next += 1;
        match input {
            Input::Track(info) => self.lane(info.codec.kind()).announce(number, info),
            Input::Sample(track, sample) => {
                if self.video.is_of(*track) {
                    self.video.push(number, sample);
                } else if self.audio.is_of(*track) {
                    self.audio.push(number, sample);
                }
                self.bound();
            }
            // The time is told again, and a source that has gone leaves the last of its pictures to be held.
            Input::Clock(_) => {}
            Input::Detach => {
                self.detached.push_back(number);
                if self.detached.len() > MAX_DETACHED {
                    self.detached.pop_front();
                }
                // What comes next announces its tracks again, even if they are the same.
                (self.video.track, self.audio.track) = (None, None);
            }
        }
    }

    fn bound(&mut self) {
        while self.video.bytes + self.audio.bytes > MAX_BYTES {
            if self.video.bytes >= self.audio.bytes {
                self.video.forget_oldest();
            } else {
                self.audio.forget_oldest();
            }
        }
    }

    /// Forgets what is not needed to go on from `reached`.
    pub(super) fn forget(&mut self, reached: Reached) {
        self.video.forget_before(reached.video);
        self.audio.forget_before(reached.audio);
    }

    /// Forgets every sample: what comes next is kept from where decoding may begin.
    pub(super) fn skip(&mut self) {
        for lane in [&mut self.video, &mut self.audio] {
            while lane.forget_oldest() {}
        }
    }

    /// Whether a worker that is given [`Self::inputs`] can decode the pictures that follow.
    pub(super) fn has_pictures(&self) -> bool {
        !self.video.pieces.is_empty()
    }

    /// Where the last sample lies that is kept: of pictures, if there are any.
    pub(super) fn end(&self) -> Option<MediaTime> {
        let end = |lane: &Lane| {
            let piece = lane.pieces.back()?;
            let (_, last) = piece.samples.last()?;
            Some(last.dts.at(piece.track.info.timescale))
        };
        end(&self.video).or_else(|| end(&self.audio))
    }

    /// Where the picture `sample` lies, in milliseconds, if a decoder that begins there tells what it shows whole from
    /// what it does not.
    pub(super) fn recoverable_ms(&self, sample: &Sample) -> Option<i64> {
        let info = &self.video.track.as_ref()?.info;
        let tells = matches!(info.codec, CodecConfig::H264(_));
        tells.then(|| millis(sample.dts.at(info.timescale)))
    }

    /// Whether `track` is one of pictures.
    pub(super) fn is_video(&self, track: TrackId) -> bool {
        self.video.is_of(track)
    }

    /// All that is kept, in the order in which it came.
    pub(super) fn inputs(&self) -> Vec<Input> {
        let mut all: Vec<(u64, Input)> = Vec::new();
        for lane in [&self.video, &self.audio] {
            let tracks = lane.pieces.iter().map(|piece| &piece.track);
            let mut tracks: Vec<&Announced> = tracks.chain(&lane.track).collect();
            tracks.dedup_by_key(|track| track.number);
            all.extend(tracks.iter().map(|track| {
                let info = track.info.clone();
                (track.number, Input::Track(info))
            }));
            for piece in &lane.pieces {
                let id = piece.track.info.id;
                let samples = piece.samples.iter();
                all.extend(samples.map(|(number, sample)| {
                    let sample = sample.clone();
                    (*number, Input::Sample(id, sample))
                }));
            }
        }
        // What went before everything that is kept has nothing to end.
        let first = all.iter().map(|(number, _)| *number).min();
        let gone = self
            .detached
            .iter()
            .filter(|number| first.is_some_and(|first| first < **number));
        let gone: Vec<_> = gone.map(|number| (*number, Input::Detach)).collect();
        all.extend(gone);
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, input)| input).collect()
    }

    const fn lane(&mut self, kind: MediaKind) -> &mut Lane {
        match kind {
            MediaKind::Video => &mut self.video,
            MediaKind::Audio => &mut self.audio,
        }
    }
}

impl Lane {
    fn is_of(&self, track: TrackId) -> bool {
        let known = self.track.as_ref();
        known.is_some_and(|known| known.info.id == track)
    }

    fn announce(&mut self, number: u64, info: &TrackInfo) {
        if self.track.as_ref().is_none_or(|known| known.info != *info) {
            let info = info.clone();
            self.track = Some(Announced { number, info });
        }
    }

    fn push(&mut self, number: u64, sample: &Sample) {
        let Some(track) = &self.track else { return };
        let at_ms = millis(sample.pts.at(track.info.timescale));
        let is_new = |piece: &Piece| {
            piece.track.number != track.number
                || at_ms.saturating_sub(piece.begin_ms) >= MIN_PIECE_MS
        };
        if sample.keyframe && self.pieces.back().is_none_or(is_new) {
            self.pieces.push_back(Piece {
                track: track.clone(),
                begin_ms: at_ms,
                samples: Vec::new(),
                bytes: 0,
            });
        }
        let same = |piece: &&mut Piece| piece.track.number == track.number;
        if let Some(piece) = self.pieces.back_mut().filter(same) {
            piece.samples.push((number, sample.clone()));
            piece.bytes += size(sample);
            self.bytes += size(sample);
        }
        while let Some(oldest) = self.pieces.front()
            && at_ms.saturating_sub(oldest.begin_ms) > MAX_MS
        {
            self.forget_oldest();
        }
    }

    fn forget_before(&mut self, reached: Option<MediaTime>) {
        let Some(reached) = reached else {
            while self.forget_oldest() {}
            return;
        };
        let needed_ms = millis(reached).saturating_sub(LEAD_MS);
        while let Some(second) = self.pieces.get(1)
            && second.begin_ms <= needed_ms
        {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest piece; whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.pieces.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, |piece| piece.bytes);
        oldest.is_some()
    }
}

/// What one sample takes in memory.
fn size(sample: &Sample) -> usize {
    size_of::<(u64, Sample)>() + sample.data.len()
}

fn millis(at: MediaTime) -> i64 {
    at.rescale_floor(Timescale::MILLIS).get()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::media::made_up;
    use crate::time::{Span, Ticks};

    const START_MS: i64 = 1_795_000_000_000;

    fn id(id: u32) -> TrackId {
        TrackId::new(NonZeroU32::new(id).expect("not zero"))
    }

    fn pictures(width: u32) -> Input {
        let height = 360;
        Input::Track(TrackInfo {
            id: id(1),
            timescale: Timescale::VIDEO_90K,
            codec: made_up::h264(width, height, None),
        })
    }

    fn sound() -> Input {
        Input::Track(TrackInfo {
            id: id(2),
            timescale: Timescale::MILLIS,
            codec: made_up::aac(48_000),
        })
    }

    /// The access unit of pictures at frame `n` of 25 per second, with a key frame every two seconds.
    fn picture(n: i64, bytes: usize) -> Input {
        sample(1, (START_MS + n * 40) * 90, n % 50 == 0, bytes)
    }

    fn block(n: i64) -> Input {
        sample(2, START_MS + n * 20, true, 100)
    }

    fn sample(track: u32, at: i64, keyframe: bool, bytes: usize) -> Input {
        let (dts, pts) = (Ticks::new(at), Ticks::new(at));
        let data = Bytes::from(vec![0; bytes]);
        let duration = Span::new(1);
        Input::Sample(
            id(track),
            Sample {
                dts,
                pts,
                duration,
                keyframe,
                data,
            },
        )
    }

    fn after_ms(ms: i64) -> Option<MediaTime> {
        Some(Ticks::new(START_MS + ms).at(Timescale::MILLIS))
    }

    /// What is kept, as the frames' numbers and letters for the tracks.
    fn said(kept: &Kept) -> Vec<String> {
        let text = |input: Input| match input {
            Input::Track(info) => match info.codec.dimensions() {
                Some(size) => format!("w{}", size.width),
                None => "sound".to_owned(),
            },
            Input::Sample(track, sample) if track == id(1) => {
                format!("v{}", (sample.pts.get() / 90 - START_MS) / 40)
            }
            Input::Sample(_, sample) => format!("a{}", (sample.pts.get() - START_MS) / 20),
            Input::Detach => "gone".to_owned(),
            Input::Clock(_) => "clock".to_owned(),
        };
        kept.inputs().into_iter().map(text).collect()
    }

    #[test]
    fn from_the_key_frame_before_the_slowest_rendition_on() {
        let mut kept = Kept::default();
        kept.push(&pictures(640));
        for n in 0..160 {
            kept.push(&picture(n, 10));
        }
        let video = |ms| Reached {
            video: after_ms(ms),
            audio: after_ms(ms),
        };
        for (reached_ms, first) in [(0, "v0"), (2_499, "v0"), (2_500, "v50"), (6_400, "v100")] {
            kept.forget(video(reached_ms));
            assert_eq!(said(&kept)[1], first, "{reached_ms}");
        }
    }

    #[test]
    fn a_change_of_the_track_stays_in_its_place() {
        let mut kept = Kept::default();
        kept.push(&pictures(640));
        kept.push(&sound());
        kept.push(&picture(0, 10));
        kept.push(&block(0));
        kept.push(&pictures(320));
        kept.push(&picture(1, 10));
        kept.push(&block(1));
        kept.push(&picture(50, 10));
        assert_eq!(
            said(&kept),
            ["w640", "sound", "v0", "a0", "w320", "a1", "v50"],
            "a picture that cannot be decoded without another is not kept"
        );
    }

    #[test]
    fn another_source_announces_its_tracks_again() {
        let mut kept = Kept::default();
        kept.push(&pictures(640));
        kept.push(&picture(0, 10));
        kept.push(&Input::Detach);
        assert_eq!(said(&kept), ["w640", "v0", "gone"]);
        kept.push(&pictures(640));
        kept.push(&picture(50, 10));
        assert_eq!(said(&kept), ["w640", "v0", "gone", "w640", "v50"]);
        // Back to the first, which begins with what it had sent meanwhile.
        kept.push(&Input::Detach);
        kept.push(&pictures(640));
        kept.push(&picture(50, 10));
        let (first, second) = (["w640", "v0", "gone"], ["w640", "v50", "gone"]);
        assert_eq!(
            said(&kept),
            [&first[..], &second, &["w640", "v50"]].concat()
        );
    }

    #[test]
    fn after_a_skip_pictures_are_kept_from_the_next_key_frame() {
        let mut kept = Kept::default();
        kept.push(&pictures(640));
        for n in 0..20 {
            kept.push(&picture(n, 10));
        }
        kept.skip();
        assert!(!kept.has_pictures());
        for n in 20..52 {
            kept.push(&picture(n, 10));
        }
        assert_eq!(said(&kept), ["w640", "v50", "v51"]);
    }

    #[test]
    fn a_kind_that_nothing_is_made_of_is_not_kept() {
        let mut kept = Kept::default();
        kept.push(&sound());
        kept.push(&pictures(640));
        kept.push(&picture(0, 10));
        kept.push(&block(0));
        kept.forget(Reached {
            video: None,
            audio: after_ms(0),
        });
        assert_eq!(said(&kept), ["sound", "w640", "a0"]);
    }

    #[test]
    fn however_small_samples_are_there_are_not_too_many() {
        let mut kept = Kept::default();
        kept.push(&pictures(640));
        for n in 0..800_000 {
            kept.push(&sample(1, START_MS * 90 + n, n % 50_000 == 0, 1));
        }
        let samples = kept.video.pieces.iter().map(|piece| piece.samples.len());
        assert!(samples.sum::<usize>() * size_of::<Sample>() <= MAX_BYTES);
    }

    proptest! {
        /// Whatever comes, it is bounded, in order, and begins where decoding may begin.
        #[test]
        fn what_is_kept_is_bounded_and_decodable(
            steps in prop::collection::vec((0_u8..10, 1_usize..3_000_000), 1..400),
        ) {
            let mut kept = Kept::default();
            kept.push(&pictures(640));
            kept.push(&sound());
            let (mut n, mut reached) = (0, 0);
            for (kind, bytes) in steps {
                match kind {
                    0 => { reached += 500; kept.forget(Reached { video: after_ms(reached), audio: after_ms(reached) }); }
                    1..=3 => kept.push(&block(2 * n)),
                    4 if bytes < 60_000 => kept.skip(),
                    _ => { n += 1; kept.push(&picture(n, bytes / 10)); }
                }
                prop_assert!(kept.video.bytes + kept.audio.bytes <= MAX_BYTES);
            }
            let all = kept.inputs();
            let bytes: usize = all.iter().map(|input| match input {
                Input::Sample(_, sample) => size(sample),
                _ => 0,
            }).sum();
            prop_assert_eq!(bytes, kept.video.bytes + kept.audio.bytes);
            let first = all.iter().find_map(|input| match input {
                Input::Sample(track, sample) if *track == id(1) => Some(sample.keyframe),
                _ => None,
            });
            prop_assert_ne!(first, Some(false));
            prop_assert_eq!(first.is_some(), kept.has_pictures());
        }
    }
}
