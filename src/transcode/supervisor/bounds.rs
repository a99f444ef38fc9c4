//! What a worker may say: it decodes a stranger's bytes, and may have been taken over by them.
//!
//! Enters: inputs of the source, the time of the broadcast's clock; what a worker says
//! Leaves: whether that can be true
//! Never:  clocks
//! Time:   milliseconds and each rendition's timescale, from the Unix epoch
//! Spec:   docs/resilience.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use super::{Error, Input};
use crate::id::{SegmentNumber, TrackId};
use crate::media::{Rendition, Sample};
use crate::time::{MediaTime, Ticks, Timescale, WallTime};
use crate::transcode::ladder::Plan;

/// How much later than all that is known of the source and the time a rendition may be, in milliseconds, beside
/// two segments: a source that stood still has a new place by up to two seconds.
const MAX_AHEAD_MS: i64 = 10_000;
/// How many times as much as its rate in a segment a rendition may have of it.
const MAX_OF_RATE: u64 = 10;
/// How much it may have beside that, in bytes: a key frame of noise.
const MAX_BESIDE: u64 = 4 << 20;
/// What an access unit counts for beside its bytes.
const UNIT_BYTES: u64 = 256;

#[derive(Debug)]
pub(super) struct Bounds {
    plan: Plan,
    tracks: Vec<(TrackId, Timescale)>,
    /// The latest that is known of, in milliseconds.
    newest_ms: i64,
    /// For each rendition the segment that it is in, and how many bytes it has of it.
    spent: Vec<(SegmentNumber, u64)>,
}

impl Bounds {
    /// Those of a broadcast that begins with segment `first`.
    pub(super) fn new(plan: &Plan, first: SegmentNumber) -> Self {
        let newest = plan.grid.start_of(first, Timescale::MILLIS);
        Self {
            plan: plan.clone(),
            tracks: Vec::new(),
            newest_ms: newest.get(),
            spent: Vec::new(),
        }
    }

    /// Takes note of what the source sends.
    pub(super) fn note(&mut self, input: &Input) {
        match input {
            Input::Track(info) => {
                self.tracks.retain(|(id, _)| *id != info.id);
                self.tracks.push((info.id, info.timescale));
            }
            Input::Sample(track, sample) => {
                let of = |(id, scale): &(TrackId, Timescale)| (id == track).then_some(*scale);
                if let Some(scale) = self.tracks.iter().find_map(of) {
                    let end = sample.pts.checked_add(sample.duration);
                    self.reach(end.unwrap_or(sample.pts).at(scale));
                }
            }
            Input::Clock(clock) => self.pass(clock.now),
            Input::Detach => {}
        }
    }

    /// Takes note that it is `now` by the broadcast's clock.
    pub(super) fn pass(&mut self, now: WallTime) {
        self.reach(now.to_ticks(Timescale::MICROS).at(Timescale::MICROS));
    }

    fn reach(&mut self, at: MediaTime) {
        let at = at.rescale_ceil(Timescale::MILLIS);
        self.newest_ms = self.newest_ms.max(at.get());
    }

    /// The latest that anything may be.
    fn end(&self) -> MediaTime {
        let segments_ms = 2 * i64::from(self.plan.grid.segment_ms());
        let end = self
            .newest_ms
            .saturating_add(MAX_AHEAD_MS)
            .saturating_add(segments_ms);
        Ticks::new(end).at(Timescale::MILLIS)
    }

    /// Whether `renditions` are those of the plan.
    pub(super) fn check_renditions(&self, renditions: &[Rendition]) -> Result<(), Error> {
        let planned = self.plan.outlines();
        let are = planned.len() == renditions.len()
            && planned.iter().zip(renditions).all(|(p, r)| p.fits(r));
        let what = "renditions that were not planned";
        are.then_some(()).ok_or(Error::Misbehaved { what })
    }

    /// Whether `sample` can be one of `rendition`.
    pub(super) fn check_sample(
        &mut self,
        (index, rendition): (usize, Option<&Rendition>),
        sample: &Sample,
    ) -> Result<(), Error> {
        let wrong = |what| Err(Error::Misbehaved { what });
        let Some(rendition) = rendition else {
            return wrong("a sample of no rendition");
        };
        let scale = rendition.timescale;
        let end = self.end().rescale_floor(scale);
        let later = |at: Ticks| at.checked_add(sample.duration).is_none_or(|at| at > end);
        if later(sample.dts) || later(sample.pts) {
            return wrong("a sample of the future");
        }
        let reach = MAX_AHEAD_MS.saturating_mul(scale.get().into()) / 1_000;
        if sample.dts.get().abs_diff(sample.pts.get()) > reach.unsigned_abs() {
            return wrong("a sample that is shown long before or after it is decoded");
        }
        if self.spend(index, rendition, sample) {
            return Ok(());
        }
        wrong("more in a segment than its rate allows")
    }

    /// Whether a rendition that is to have `sample` has no more than it may of the segment that it is in.
    fn spend(&mut self, index: usize, rendition: &Rendition, sample: &Sample) -> bool {
        let number = self
            .plan
            .grid
            .segment_at(sample.dts.at(rendition.timescale));
        if self.spent.len() <= index {
            self.spent
                .resize(index.saturating_add(1), (SegmentNumber::new(0), 0));
        }
        let Some((segment, bytes)) = self.spent.get_mut(index) else {
            return false;
        };
        if number > *segment {
            (*segment, *bytes) = (number, 0);
        }
        *bytes = bytes.saturating_add(sample.data.len() as u64 + UNIT_BYTES);
        let of_rate = u128::from(rendition.target_bps) * u128::from(self.plan.grid.segment_ms());
        let of_rate = of_rate * u128::from(MAX_OF_RATE) / 8_000;
        u128::from(*bytes) <= of_rate + u128::from(MAX_BESIDE)
    }

    /// Whether nothing need come before segment `until`. Pictures that follow the source are not the grid's, and what
    /// is said of them is not heeded.
    pub(super) fn check_rest(&self, until: SegmentNumber) -> Result<(), Error> {
        let start = self.plan.grid.start_of(until, Timescale::MILLIS);
        let is_soon = self.plan.follows || start <= self.end().ticks();
        let what = "a rest into the future";
        is_soon.then_some(()).ok_or(Error::Misbehaved { what })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;

    use super::*;
    use crate::media::{CodecConfig, TrackInfo, made_up};
    use crate::time::{FrameRate, Grid, Span};
    use crate::transcode::ladder::{self, Machine, Source};
    use crate::transcode::template::Template;

    const FIRST: SegmentNumber = SegmentNumber::new(897_000_000);
    const RATE: u32 = 48_000;

    /// A ladder of sound alone.
    fn plan() -> Plan {
        let source = Source {
            video: None,
            audio_rate: Some(RATE),
        };
        let template = Template::named("auto").expect("shipped");
        let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
        ladder::plan(&template, &source, Machine { cores: 1 }, grid, 333).expect("a ladder")
    }

    /// What an honest worker opens.
    fn opened(plan: &Plan) -> Vec<Rendition> {
        let audio = plan.audio.as_ref().expect("sound");
        let rung = |rung: &ladder::PlannedAudio| Rendition {
            name: rung.name.clone(),
            timescale: Timescale::new(RATE).expect("not zero"),
            codec: made_up::aac(RATE),
            frame_rate: None,
            target_bps: rung.bitrate_bps,
        };
        audio.rungs.iter().map(rung).collect()
    }

    /// A sample of the first segment, `after_ms` its start.
    fn sample(after_ms: i64, bytes: usize) -> Sample {
        let grid = plan().grid;
        let scale = Timescale::new(RATE).expect("not zero");
        let at = grid.start_of(FIRST, scale).get() + after_ms * 48;
        Sample {
            dts: Ticks::new(at),
            pts: Ticks::new(at),
            duration: Span::new(1_024),
            keyframe: true,
            data: Bytes::from(vec![0; bytes]),
        }
    }

    fn is_believed(bounds: &mut Bounds, sample: &Sample) -> bool {
        let renditions = opened(&plan());
        let done = bounds.check_sample((0, renditions.first()), sample);
        assert!(matches!(done, Ok(()) | Err(Error::Misbehaved { .. })));
        done.is_ok()
    }

    #[test]
    fn only_renditions_of_the_plan_are_believed() {
        let plan = plan();
        let bounds = Bounds::new(&plan, FIRST);
        let honest = opened(&plan);
        let is_believed = |all: &[Rendition]| bounds.check_renditions(all).is_ok();
        assert!(is_believed(&honest));
        assert!(!is_believed(&[]));
        assert!(!is_believed(&[honest.clone(), honest.clone()].concat()));
        let lies: [fn(&mut Rendition); 6] = [
            |r| r.name = "vcopy".parse().expect("legal"),
            |r| r.timescale = Timescale::new(1).expect("not zero"),
            |r| r.frame_rate = FrameRate::new(42_949_672, 1),
            |r| r.target_bps = u64::MAX,
            |r| r.codec = made_up::h264(640, 360, None),
            |r| {
                if let CodecConfig::Aac(config) = &mut r.codec {
                    config.frame_samples = 1;
                }
            },
        ];
        for (n, lie) in lies.iter().enumerate() {
            let mut all = honest.clone();
            lie(all.first_mut().expect("one"));
            assert!(!is_believed(&all), "{n}");
        }
    }

    #[test]
    fn nothing_is_of_the_future() {
        let mut bounds = Bounds::new(&plan(), FIRST);
        assert!(is_believed(&mut bounds, &sample(0, 1)));
        assert!(is_believed(&mut bounds, &sample(13_900, 1)));
        assert!(!is_believed(&mut bounds, &sample(14_100, 1)));
        let long = Sample {
            duration: Span::new(u64::MAX),
            ..sample(0, 1)
        };
        assert!(!is_believed(&mut bounds, &long));
        for shown in [i64::MIN, i64::MAX, 0] {
            let shown = Sample {
                pts: Ticks::new(shown),
                ..sample(0, 1)
            };
            assert!(!is_believed(&mut bounds, &shown), "{shown:?}");
        }
        assert!(bounds.check_rest(FIRST.next()).is_ok());
        assert!(
            bounds
                .check_rest(SegmentNumber::new(FIRST.get() + 8))
                .is_err()
        );
        let far = SegmentNumber::new(u64::MAX);
        assert!(bounds.check_rest(far).is_err());
        let follows = Plan {
            follows: true,
            ..plan()
        };
        assert!(Bounds::new(&follows, FIRST).check_rest(far).is_ok());
        assert!(bounds.check_sample((7, None), &sample(0, 1)).is_err());
    }

    #[test]
    fn time_goes_on_with_the_source_and_with_the_clock() {
        let track = TrackInfo {
            id: TrackId::new(NonZeroU32::MIN),
            timescale: Timescale::new(RATE).expect("not zero"),
            codec: made_up::aac(RATE),
        };
        let mut bounds = Bounds::new(&plan(), FIRST);
        bounds.note(&Input::Track(track.clone()));
        bounds.note(&Input::Sample(track.id, sample(60_000, 1)));
        assert!(is_believed(&mut bounds, &sample(70_000, 1)));
        assert!(!is_believed(&mut bounds, &sample(80_000, 1)));
        let start = plan().grid.start_of(FIRST, Timescale::MICROS);
        bounds.pass(WallTime::from_micros(start.get() + 70_000_000));
        assert!(is_believed(&mut bounds, &sample(80_000, 1)));
    }

    #[test]
    fn rendition_has_no_more_than_its_rate_allows_in_large_samples_or_small_ones() {
        for bytes in [1 << 20, 0] {
            let mut bounds = Bounds::new(&plan(), FIRST);
            let sample_of = |n: usize| sample(2_000 * i64::try_from(n).expect("few"), bytes);
            for n in 0..3 {
                let count = (0..1_000_000)
                    .take_while(|_| is_believed(&mut bounds, &sample_of(n)))
                    .count();
                // 128 kbit/s: ten times 32 kB, and four MiB.
                let spent = count * (bytes + 256);
                assert!((3 << 20..5 << 20).contains(&spent), "{n} {spent}");
            }
        }
    }
}
