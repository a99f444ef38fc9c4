//! How far every rendition has been delivered, over all workers of one broadcast.
//!
//! Enters: what each worker says its renditions are, and their samples
//! Leaves: whether a sample is to be delivered; where the next worker's renditions go on
//! Never:  delivers a place twice
//! Time:   each rendition's timescale, from the Unix epoch
//! Spec:   none

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use super::kept::Reached;
use crate::id::SegmentNumber;
use crate::media::{MediaKind, Rendition, Sample};
use crate::time::{Grid, MediaTime, Span, Ticks, Timescale};

#[derive(Debug)]
pub(super) struct Progress {
    grid: Grid,
    first: SegmentNumber,
    /// Whether pictures take the places of the source's own.
    follows: bool,
    renditions: Vec<Rendition>,
    places: Vec<Place>,
}

/// Where one rendition is.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where the last sample that was delivered ends, in decode time.
    next: Ticks,
    /// Where the last picture that was delivered ends, in presentation time.
    shown: Ticks,
    /// Whether something was delivered at all.
    begun: bool,
    /// Whether a sample was held back, so that nothing can be decoded until the next key frame.
    broken: bool,
}

impl Progress {
    /// Nothing delivered yet of a broadcast that begins with segment `first`.
    pub(super) const fn new((grid, follows): (Grid, bool), first: SegmentNumber) -> Self {
        Self {
            grid,
            first,
            follows,
            renditions: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Takes what a worker says its renditions are. `Some(true)` if it is the first to say so, `None` if
    /// they are others than those of the worker before it.
    pub(super) fn open(&mut self, renditions: &[Rendition]) -> Option<bool> {
        if self.is_open() {
            return (self.renditions == renditions).then_some(false);
        }
        self.renditions = renditions.to_vec();
        let begin = |rendition: &Rendition| {
            let begin = self.begin(rendition, self.first);
            Place {
                next: begin,
                shown: begin,
                begun: false,
                broken: false,
            }
        };
        self.places = renditions.iter().map(begin).collect();
        Some(true)
    }

    /// Whether a worker has said what its renditions are.
    pub(super) const fn is_open(&self) -> bool {
        !self.renditions.is_empty()
    }

    /// What a worker said rendition `index` is.
    pub(super) fn rendition(&self, index: usize) -> Option<&Rendition> {
        self.renditions.get(index)
    }

    /// Whether `sample` is to be delivered: not if its place was delivered before, or if it cannot be decoded
    /// because one before it was not delivered.
    pub(super) fn admit(&mut self, rendition: usize, sample: &Sample) -> bool {
        let Some(place) = self.places.get_mut(rendition) else {
            return false;
        };
        place.broken &= !sample.keyframe;
        if sample.dts < place.next {
            place.broken = true;
        }
        if place.broken {
            return false;
        }
        // How long the source shows a picture is not known yet.
        let length = if self.follows {
            Span::new(1)
        } else {
            sample.duration
        };
        let end = |at: Ticks| at.checked_add(length).unwrap_or(at);
        place.next = end(sample.dts);
        place.shown = place.shown.max(end(sample.pts));
        place.begun = true;
        true
    }

    /// Takes note that a rendition has nothing more before segment `until`; whether that is news.
    pub(super) fn rest(&mut self, rendition: usize, until: SegmentNumber) -> bool {
        let begin = if self.follows {
            // Its segments are not the grid's: it is as far as the one that is furthest.
            self.places.iter().map(|place| place.next).max()
        } else {
            self.renditions.get(rendition).map(|r| self.begin(r, until))
        };
        let (Some(begin), Some(place)) = (begin, self.places.get_mut(rendition)) else {
            return false;
        };
        if begin <= place.next {
            return false;
        }
        (place.next, place.shown) = (begin, place.shown.max(begin));
        true
    }

    /// Where each rendition goes on: after the last picture shown, so that none is shown twice. Empty while
    /// nothing has been delivered.
    pub(super) fn resume(&self) -> Vec<Ticks> {
        if !self.places.iter().any(|place| place.begun) {
            return Vec::new();
        }
        let places = self.places.iter();
        places.map(|place| place.next.max(place.shown)).collect()
    }

    /// How far the slowest rendition of each kind is; `None` before the renditions are known.
    pub(super) fn reached(&self) -> Option<Reached> {
        self.is_open().then(|| Reached {
            video: self.slowest(MediaKind::Video),
            audio: self.slowest(MediaKind::Audio),
        })
    }

    fn slowest(&self, kind: MediaKind) -> Option<MediaTime> {
        let both = self.renditions.iter().zip(&self.places);
        let of_kind = both.filter(|(rendition, _)| rendition.codec.kind() == kind);
        let ends = of_kind.map(|(rendition, place)| place.next.at(rendition.timescale));
        ends.min_by(|a, b| a.cmp_instant(*b))
    }

    /// The first place of a rendition in segment `number`.
    fn begin(&self, rendition: &Rendition, number: SegmentNumber) -> Ticks {
        let start = self.grid.start_of(number, rendition.timescale);
        let Some(rate) = rendition.frame_rate.filter(|_| !self.follows) else {
            return start;
        };
        let scale = Timescale::VIDEO_90K;
        let slot = rate.slot_at_or_after(self.grid.start_of(number, scale).at(scale));
        rate.slot_start(slot, rendition.timescale)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;

    use super::*;
    use crate::codec::video::{Colour, Dimensions};
    use crate::codec::vp9;
    use crate::media::{CodecConfig, made_up};
    use crate::time::{FrameRate, Span};

    const FIRST: u64 = 897_000_000;
    const FRAME: i64 = 3_000;

    fn video(name: &str) -> Rendition {
        Rendition {
            name: name.parse().expect("legal"),
            timescale: Timescale::VIDEO_90K,
            codec: CodecConfig::Vp9(vp9::Config {
                profile: 0,
                level: 31,
                bit_depth: 8,
                chroma_subsampling: 1,
                dimensions: Dimensions {
                    width: 640,
                    height: 360,
                },
                colour: Colour::UNSPECIFIED,
            }),
            frame_rate: FrameRate::new(30, 1),
            target_bps: 1,
        }
    }

    fn audio() -> Rendition {
        Rendition {
            name: "a128".parse().expect("legal"),
            timescale: Timescale::new(48_000).expect("not zero"),
            codec: made_up::aac(48_000),
            frame_rate: None,
            target_bps: 1,
        }
    }

    fn sample(dts: i64, pts: i64, keyframe: bool) -> Sample {
        Sample {
            dts: Ticks::new(begin() + dts * FRAME),
            pts: Ticks::new(begin() + pts * FRAME),
            duration: Span::new(3_000),
            keyframe,
            data: Bytes::new(),
        }
    }

    const fn begin() -> i64 {
        1_794_000_000 * 90_000
    }

    fn progress() -> Progress {
        let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
        let mut progress = Progress::new((grid, false), SegmentNumber::new(FIRST));
        assert_eq!(
            progress.open(&[video("v360"), video("v180"), audio()]),
            Some(true)
        );
        progress
    }

    #[test]
    fn each_rendition_goes_on_where_it_ended() {
        let mut progress = progress();
        assert_eq!(progress.resume(), []);
        for n in 0..3 {
            assert!(progress.admit(0, &sample(n, n, n == 0)));
        }
        assert!(progress.admit(1, &sample(0, 0, true)));
        let at = |n| Ticks::new(begin() + n * FRAME);
        let sound = Ticks::new(begin() / 90 * 48);
        assert_eq!(progress.resume(), [at(3), at(1), sound]);
        let reached = progress.reached().expect("open");
        assert_eq!(reached.video.map(MediaTime::ticks), Some(at(1)));
    }

    #[test]
    fn pictures_shown_out_of_order_are_not_shown_again() {
        let mut progress = progress();
        // I P b: the second b is missing.
        for (dts, pts) in [(0, 0), (1, 3), (2, 1)] {
            assert!(progress.admit(0, &sample(dts, pts, dts == 0)));
        }
        assert_eq!(progress.resume()[0], Ticks::new(begin() + 4 * FRAME));
    }

    #[test]
    fn no_place_is_delivered_twice_and_none_without_its_key_frame() {
        let mut progress = progress();
        for n in 0..10 {
            assert!(progress.admit(0, &sample(n, n, n == 0)));
        }
        for (n, keyframe, admitted) in [
            (8, true, false),
            (9, false, false),
            (10, false, false),
            (11, true, true),
            (12, false, true),
        ] {
            let sample = sample(n, n, keyframe);
            assert_eq!(progress.admit(0, &sample), admitted, "{n}");
        }
    }

    #[test]
    fn rendition_that_rests_holds_nothing_up() {
        let mut progress = progress();
        for n in 0..10 {
            assert!(progress.admit(0, &sample(n, n, n == 0)));
            assert!(progress.admit(1, &sample(n, n, n == 0)));
        }
        assert!(progress.rest(0, SegmentNumber::new(FIRST + 2)));
        assert!(!progress.rest(0, SegmentNumber::new(FIRST + 1)));
        let at = |n| Ticks::new(begin() + n * FRAME);
        assert_eq!(progress.resume()[..2], [at(120), at(10)]);
        let reached = progress.reached().expect("open");
        assert_eq!(reached.video.map(MediaTime::ticks), Some(at(10)));
        assert!(!progress.admit(0, &sample(119, 119, false)));
        assert!(progress.admit(0, &sample(120, 120, true)));
    }

    #[test]
    fn pictures_that_follow_the_source_go_on_after_the_last_that_was_shown() {
        let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
        let mut progress = Progress::new((grid, true), SegmentNumber::new(FIRST));
        assert_eq!(progress.open(&[video("v360"), video("v180")]), Some(true));
        // A little nearer to each other than their lengths say, and shown two pictures later.
        for n in 0..5 {
            let mut sample = sample(n, n + 2, n == 0);
            sample.dts = Ticks::new(sample.dts.get() - 10 * n);
            assert!(progress.admit(0, &sample), "{n}");
        }
        assert!(!progress.admit(0, &sample(2, 4, true)), "it was delivered");
        let at = |n| Ticks::new(begin() + n * FRAME);
        assert_eq!(progress.resume(), [Ticks::new(at(6).get() + 1), at(0)]);
        // One that rests holds nothing up, whatever the grid has to say.
        assert!(progress.rest(1, SegmentNumber::new(FIRST + 9)));
        let reached = progress.reached().and_then(|reached| reached.video);
        assert_eq!(
            reached.map(MediaTime::ticks),
            Some(Ticks::new(at(4).get() - 39))
        );
    }

    #[test]
    fn other_renditions_are_noticed() {
        let mut progress = progress();
        assert_eq!(
            progress.open(&[video("v360"), video("v180"), audio()]),
            Some(false)
        );
        assert_eq!(progress.open(&[video("v360"), audio()]), None);
    }
}
