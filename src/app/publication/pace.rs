//! Keeps what is encoded until its time, where it comes farther ahead of the clock than it did.
//!
//! Enters: what comes out of the transcoder that is on air
//! Leaves: the same; of each rendition in its order, none sooner than the broadcast's clock allows
//! Never:  a wait for what is late; more than [`MAX_HELD`] held
//! Time:   the broadcast's clock, in microseconds
//! Spec:   docs/time.md
//!
//! Sound that becomes late takes its pictures with it: they come when they always came, and lie as much later.
//! Encoded at once, they would be published before their time, and when the sound is in time again there would be
//! nothing new for as long. What is encoded is small; so it is here that it waits. The sound itself is not early, and
//! waits for none of them.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::OptionFuture;

use crate::app::clock::SteadyClock;
use crate::media::{MediaKind, Rendition, Sample};
use crate::time::{Timescale, WallTime};
use crate::transcode::{Cuts, Output, Outputs};

/// For how long what comes says how far ahead of the clock this source is, in microseconds: one that begins with a
/// backlog is so, and its viewers are to see it as soon.
const LEARN_US: i64 = 10_000_000;

/// How much farther ahead nothing is held for, in microseconds: clocks that drift, and a first sample that was late.
const SLACK_US: i64 = 100_000;

/// The most outputs that are held: ten seconds of any ladder, which is as far ahead as a publisher is let. Beyond, the
/// first goes at once.
const MAX_HELD: usize = 16_384;

/// What comes out of a transcoder, at its time.
pub(super) struct Paced {
    outputs: Outputs,
    clock: SteadyClock,
    pace: Pace,
}

impl Paced {
    /// What comes out of `outputs` by `clock`.
    pub(super) fn new(outputs: Outputs, clock: SteadyClock) -> Self {
        let pace = Pace::default();
        Self {
            outputs,
            clock,
            pace,
        }
    }

    /// The same of a transcoder whose `renditions` are known, and cut on the grid.
    pub(super) fn opened(outputs: Outputs, clock: SteadyClock, renditions: &[Rendition]) -> Self {
        let mut paced = Self::new(outputs, clock);
        paced.pace.open(renditions);
        paced
    }

    /// What comes next; `None` after the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Output> {
        loop {
            let wait = self.pace.wait(|| self.clock.now());
            if wait == Some(Duration::ZERO) {
                return self.pace.pop();
            }
            let due = OptionFuture::from(wait.map(tokio::time::sleep));
            tokio::select! {
                output = self.outputs.next() => match output {
                    Some(output) => {
                        if let Some(output) = self.pace.take(output, || self.clock.now()) {
                            return Some(output);
                        }
                    }
                    None => {
                        self.pace.end();
                        return self.pace.pop();
                    }
                },
                Some(()) = due => {}
            }
        }
    }

    /// The transcoder alone. One that makes nothing but sound, the only one of which more is wanted, holds nothing here.
    pub(super) fn into_outputs(self) -> Outputs {
        self.outputs
    }
}

/// Which outputs wait, and until when.
#[derive(Debug, Default)]
struct Pace {
    /// The renditions, if they are paced.
    lanes: Vec<Lane>,
    /// When the first sample came.
    began: Option<WallTime>,
    /// How far ahead of the clock samples may be, in microseconds.
    lead_us: i64,
    /// How many outputs wait.
    waiting: usize,
    /// Nothing waits any more; what is said last, after all of it.
    has_ended: bool,
    last: Option<Output>,
}

/// What waits of one rendition.
#[derive(Debug)]
struct Lane {
    scale: Timescale,
    held: VecDeque<Output>,
}

impl Lane {
    /// Where `sample` lies, in microseconds.
    fn at_us(&self, sample: &Sample) -> i64 {
        sample.dts.at(self.scale).to_wall().as_micros()
    }

    /// Where the first lies that waits. A rest waits for nothing but what comes before it.
    fn front_us(&self) -> Option<i64> {
        Some(match self.held.front()? {
            Output::Sample { sample, .. } => self.at_us(sample),
            _ => i64::MIN,
        })
    }
}

impl Pace {
    /// What the renditions are. Sound alone follows nobody, and is never ahead of itself.
    fn open(&mut self, renditions: &[Rendition]) {
        let has = |kind| renditions.iter().any(|r| r.codec.kind() == kind);
        if has(MediaKind::Video) && has(MediaKind::Audio) {
            let lane = |rendition: &Rendition| Lane {
                scale: rendition.timescale,
                held: VecDeque::new(),
            };
            self.lanes = renditions.iter().map(lane).collect();
        }
    }

    /// Takes the next output, which comes at `now`; itself, if it need not wait.
    fn take(&mut self, output: Output, now: impl FnOnce() -> WallTime) -> Option<Output> {
        let (rendition, is_early) = match &output {
            Output::Opened {
                renditions,
                cuts: Cuts::Grid,
            } => {
                self.open(renditions);
                return Some(output);
            }
            Output::Sample { rendition, sample } => {
                let at_us = self.lanes.get(*rendition).map(|lane| lane.at_us(sample));
                (
                    *rendition,
                    at_us.is_some_and(|at_us| self.is_early(at_us, now())),
                )
            }
            Output::Rest { rendition, .. } => (*rendition, false),
            // The end, however it comes, is also that of waiting.
            Output::Finished | Output::Failed(_) => {
                self.end();
                self.last = Some(output);
                return if self.waiting == 0 {
                    self.last.take()
                } else {
                    None
                };
            }
            // What is said of the transcoder is so now.
            _ => return Some(output),
        };
        match self.lanes.get_mut(rendition) {
            Some(lane) if is_early || !lane.held.is_empty() => {
                lane.held.push_back(output);
                self.waiting += 1;
                None
            }
            _ => Some(output),
        }
    }

    /// Whether a sample at `at_us` that comes at `now` is to wait.
    fn is_early(&mut self, at_us: i64, now: WallTime) -> bool {
        let now_us = now.as_micros();
        let ahead_us = at_us.saturating_sub(now_us);
        let began_us = self.began.get_or_insert(now).as_micros();
        if now_us.saturating_sub(began_us) < LEARN_US {
            self.lead_us = self.lead_us.max(ahead_us);
        }
        !self.has_ended && ahead_us > self.lead_us.saturating_add(SLACK_US)
    }

    /// Nothing waits any more.
    const fn end(&mut self) {
        self.has_ended = true;
    }

    /// How long what comes first has to wait yet; `None` if nothing waits.
    fn wait(&self, now: impl FnOnce() -> WallTime) -> Option<Duration> {
        if self.waiting == 0 {
            return self.last.as_ref().map(|_| Duration::ZERO);
        }
        let first_us = self.lanes.iter().filter_map(Lane::front_us).min()?;
        if self.has_ended || self.waiting > MAX_HELD {
            return Some(Duration::ZERO);
        }
        let until_us = first_us.saturating_sub(self.lead_us.saturating_add(SLACK_US));
        let wait_us = until_us.saturating_sub(now().as_micros());
        Some(Duration::from_micros(u64::try_from(wait_us).unwrap_or(0)))
    }

    /// What comes first of what waits.
    fn pop(&mut self) -> Option<Output> {
        let lanes = self.lanes.iter_mut().filter(|lane| !lane.held.is_empty());
        let first = lanes.min_by_key(|lane| lane.front_us());
        let Some(output) = first.and_then(|lane| lane.held.pop_front()) else {
            return self.last.take();
        };
        self.waiting -= 1;
        Some(output)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::SegmentNumber;
    use crate::package::made_up;
    use crate::time::Span;
    use crate::transcode::overload::Load;

    /// A ladder of one rung and one sound, in whose clock microseconds count from here.
    const BEGIN_US: i64 = 1_800_000_000_000_000;
    const FRAME_US: i64 = 40_000;

    fn at(us: i64) -> WallTime {
        WallTime::from_micros(BEGIN_US + us)
    }

    fn renditions() -> Vec<Rendition> {
        vec![made_up::h264("v180", 320, 180), made_up::aac("a96", 96_000)]
    }

    /// A picture that lies at `us`.
    fn picture(us: i64) -> Output {
        let dts = at(us).to_ticks(Timescale::VIDEO_90K);
        let sample = Sample {
            dts,
            pts: dts,
            duration: Span::new(3_600),
            keyframe: true,
            data: Bytes::new(),
        };
        Output::Sample {
            rendition: 0,
            sample,
        }
    }

    /// Sound that lies at `us`.
    fn sound(us: i64) -> Output {
        let dts = at(us).to_ticks(Timescale::new(48_000).expect("not zero"));
        let sample = Sample {
            dts,
            pts: dts,
            duration: Span::new(1_024),
            keyframe: true,
            data: Bytes::new(),
        };
        Output::Sample {
            rendition: 1,
            sample,
        }
    }

    /// Where a picture lies.
    fn place(output: &Output) -> i64 {
        match output {
            Output::Sample { sample, .. } => sample
                .dts
                .at(Timescale::VIDEO_90K)
                .to_wall()
                .as_micros()
                .saturating_sub(BEGIN_US),
            other => panic!("not a picture: {other:?}"),
        }
    }

    /// What a source's pictures of `from_us..to_us` become that come `ahead_us` before their time: where each lies, and
    /// when it is let out.
    fn run(pace: &mut Pace, from_us: i64, to_us: i64, ahead_us: i64) -> Vec<(i64, i64)> {
        let mut out = Vec::new();
        let mut now_us = from_us;
        while now_us < to_us {
            while pace.wait(|| at(now_us)) == Some(Duration::ZERO) {
                out.extend(pace.pop().map(|output| (place(&output), now_us)));
            }
            let output = pace.take(picture(now_us + ahead_us), || at(now_us));
            out.extend(output.map(|output| (place(&output), now_us)));
            now_us += FRAME_US;
        }
        out
    }

    fn opened() -> Pace {
        let mut pace = Pace::default();
        let cuts = Cuts::Grid;
        let opened = Output::Opened {
            renditions: renditions(),
            cuts,
        };
        assert!(pace.take(opened, || at(0)).is_some());
        pace
    }

    #[test]
    fn pictures_that_are_moved_with_late_sound_come_at_their_time() {
        const S: i64 = 1_000_000;
        let mut pace = opened();
        let before = run(&mut pace, 0, 20 * S, -300_000);
        assert!(before.iter().all(|(lies, out)| out - lies == 300_000));
        let moved = run(&mut pace, 20 * S, 60 * S, 2 * S);
        let early = moved.iter().map(|(lies, out)| lies - out).max();
        assert!(early <= Some(SLACK_US), "{early:?} µs before its time");
        let late = moved.iter().map(|(lies, out)| lies - out).min();
        assert!(late > Some(SLACK_US - 2 * FRAME_US), "{late:?}");
        // In time again, what comes lies behind what waits, and is left out before it gets here: what waits goes on.
        let mut rest = Vec::new();
        let mut now_us = 60 * S;
        while let Some(wait) = pace.wait(|| at(now_us)) {
            now_us += i64::try_from(wait.as_micros()).expect("short");
            rest.extend(pace.pop().map(|output| (place(&output), now_us)));
        }
        assert!((47..=52).contains(&rest.len()), "{}", rest.len());
        let steps = rest.windows(2).map(|pair| pair[1].1 - pair[0].1);
        assert!(
            steps.clone().all(|step| step <= FRAME_US),
            "{:?}",
            steps.max()
        );
        let all: Vec<_> = moved.iter().chain(&rest).map(|(lies, _)| *lies).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "out of order");
        assert_eq!(all.len(), 1_000, "pictures of forty seconds");
    }

    #[test]
    fn the_sound_that_is_late_waits_for_none_of_its_pictures() {
        let mut pace = opened();
        run(&mut pace, 0, 20_000_000, -300_000);
        for us in (20_000_000..30_000_000).step_by(40_000) {
            assert!(pace.take(picture(us + 2_000_000), || at(us)).is_none());
            while pace.wait(|| at(us)) == Some(Duration::ZERO) {
                pace.pop();
            }
            assert!(pace.take(sound(us - 300_000), || at(us)).is_some(), "{us}");
        }
    }

    #[test]
    fn a_source_that_begins_with_a_backlog_is_shown_as_early_as_it_comes() {
        let mut pace = opened();
        let out = run(&mut pace, 0, 60_000_000, 4_000_000);
        assert!(out.iter().all(|(lies, out)| lies - out == 4_000_000));
    }

    #[test]
    fn what_is_said_of_the_transcoder_overtakes_and_the_end_waits_for_nothing() {
        let mut pace = opened();
        run(&mut pace, 0, 20_000_000, 0);
        assert!(pace.take(picture(25_000_000), || at(20_000_000)).is_none());
        let rest = Output::Rest {
            rendition: 0,
            until: SegmentNumber::new(900_000_020),
            soon: false,
        };
        assert!(
            pace.take(rest, || at(20_000_000)).is_none(),
            "it is of later"
        );
        let load = Output::Load(Load::default());
        assert!(pace.take(load, || at(20_000_000)).is_some());
        let wait = pace.wait(|| at(20_000_000));
        assert_eq!(wait, Some(Duration::from_micros(4_900_000)));
        assert!(pace.take(Output::Finished, || at(20_000_000)).is_none());
        let mut kinds = Vec::new();
        while pace.wait(|| at(20_000_000)) == Some(Duration::ZERO) {
            kinds.extend(pace.pop());
        }
        assert!(matches!(
            kinds.as_slice(),
            [Output::Sample { .. }, Output::Rest { .. }, Output::Finished]
        ));
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let mut pace = opened();
        run(&mut pace, 0, 20_000_000, 0);
        for _ in 0..=MAX_HELD {
            assert!(pace.take(picture(29_000_000), || at(20_000_000)).is_none());
        }
        assert_eq!(pace.wait(|| at(20_000_000)), Some(Duration::ZERO));
        pace.pop();
        assert_ne!(pace.wait(|| at(20_000_000)), Some(Duration::ZERO));
    }

    #[test]
    fn sound_alone_and_what_the_source_cuts_are_not_paced() {
        for (renditions, cuts) in [
            (vec![made_up::aac("a96", 96_000)], Cuts::Grid),
            (
                renditions(),
                Cuts::Source {
                    first: SegmentNumber::new(1),
                    longest_ms: 2_000,
                },
            ),
        ] {
            let mut pace = Pace::default();
            pace.take(Output::Opened { renditions, cuts }, || at(0));
            run(&mut pace, 0, 20_000_000, 0);
            assert!(pace.take(picture(25_000_000), || at(20_000_000)).is_some());
        }
    }
}
