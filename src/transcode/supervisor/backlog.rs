//! Pictures of a mixed ladder that wait for the worker.
//!
//! Enters: what the worker is to be given
//! Leaves: the same, in order; without pictures that nothing can be made of in time, up to a key frame
//! Never:  more than [`MAX_SAMPLES`] or [`MAX_BYTES`] for long: either the source waits, or pictures are left out
//! Time:   none
//! Spec:   docs/adr/0006-follow-what-is-copied.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::VecDeque;

use super::Input;

/// The most samples that wait for the worker: ten seconds of sixty pictures.
const MAX_SAMPLES: usize = 600;
/// The same in bytes: as long, at 25 Mbit/s.
const MAX_BYTES: usize = 32 << 20;

/// What waits, and whether it can be decoded.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    inputs: VecDeque<Input>,
    bytes: usize,
    /// Whether what comes is of no use before the next key frame.
    awaits_key: bool,
}

impl Backlog {
    pub(super) fn push(&mut self, input: Input) {
        if let Input::Sample(_, sample) = &input {
            if self.awaits_key && !sample.keyframe {
                return;
            }
            self.awaits_key = false;
        }
        self.bytes += input.bytes();
        self.inputs.push_back(input);
    }

    pub(super) fn pop(&mut self) -> Option<Input> {
        let input = self.inputs.pop_front()?;
        self.bytes -= input.bytes();
        Some(input)
    }

    pub(super) fn clear(&mut self) {
        self.inputs.clear();
        self.bytes = 0;
    }

    /// How many bytes of media what comes next has.
    pub(super) fn next_bytes(&self) -> usize {
        self.inputs.front().map_or(0, Input::bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Whether more waits than may, so that the source has to wait or pictures are to be left out.
    pub(super) fn is_full(&self) -> bool {
        self.inputs.len() > MAX_SAMPLES || self.bytes > MAX_BYTES
    }

    /// If too much waits, leaves out all before the last key frame, or up to the next one if that is not enough.
    /// Whether it does.
    pub(super) fn bound(&mut self) -> bool {
        if !self.is_full() {
            return false;
        }
        let is_key = |input: &Input| matches!(input, Input::Sample(_, sample) if sample.keyframe);
        let is_sample = |input: &Input| matches!(input, Input::Sample(..));
        let first = self.inputs.iter().position(is_sample);
        let key = self.inputs.iter().rposition(is_key);
        let kept = key.filter(|key| first.is_some_and(|first| first < *key));
        self.awaits_key |= kept.is_none();
        let kept = self.inputs.split_off(kept.unwrap_or(self.inputs.len()));
        // Of all that was told before, the last says what the pictures are.
        let told: Vec<Input> = self.inputs.drain(..).filter(|i| !is_sample(i)).collect();
        let track = told.iter().rposition(|i| matches!(i, Input::Track(_)));
        let has_gone = told.iter().any(|i| matches!(i, Input::Detach));
        let gone = has_gone.then_some(Input::Detach);
        let track = track.and_then(|at| told.get(at).cloned());
        self.inputs
            .extend(gone.into_iter().chain(track).chain(kept));
        self.bytes = self.inputs.iter().map(Input::bytes).sum();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;

    use super::*;
    use crate::codec::video::{Colour, Dimensions};
    use crate::codec::vp9;
    use crate::id::TrackId;
    use crate::media::{CodecConfig, Sample, TrackInfo};
    use crate::time::{Span, Ticks, Timescale};

    const TRACK: TrackId = TrackId::new(NonZeroU32::MIN);

    fn track(width: u32) -> Input {
        let config = vp9::Config {
            profile: 0,
            level: 31,
            bit_depth: 8,
            chroma_subsampling: 1,
            dimensions: Dimensions { width, height: 360 },
            colour: Colour::UNSPECIFIED,
        };
        Input::Track(TrackInfo {
            id: TRACK,
            timescale: Timescale::VIDEO_90K,
            codec: CodecConfig::Vp9(config),
        })
    }

    fn picture(n: i64, keyframe: bool, data: &Bytes) -> Input {
        let sample = Sample {
            dts: Ticks::new(n),
            pts: Ticks::new(n),
            duration: Span::new(1),
            keyframe,
            data: data.clone(),
        };
        Input::Sample(TRACK, sample)
    }

    /// What waits, as the pictures' numbers and letters for the rest.
    fn said(backlog: &mut Backlog) -> Vec<String> {
        let text = |input: Input| match input {
            Input::Track(info) => format!("w{}", info.codec.dimensions().map_or(0, |d| d.width)),
            Input::Sample(_, sample) if sample.keyframe => format!("K{}", sample.dts.get()),
            Input::Sample(_, sample) => format!("v{}", sample.dts.get()),
            Input::Detach => "gone".to_owned(),
            Input::Clock(_) => "clock".to_owned(),
        };
        std::iter::from_fn(|| backlog.pop()).map(text).collect()
    }

    #[test]
    fn what_precedes_the_last_key_frame_is_left_out_but_for_what_the_pictures_are() {
        let mut backlog = Backlog::default();
        let data = Bytes::new();
        for n in 0..=600 {
            if n % 300 == 0 {
                backlog.push(Input::Detach);
                backlog.push(track(640 + u32::try_from(n).expect("small")));
            }
            backlog.push(picture(n, n % 299 == 0, &data));
        }
        assert!(backlog.bound() && !backlog.bound());
        assert_eq!(said(&mut backlog)[..4], ["gone", "w940", "K598", "v599"]);
    }

    #[test]
    fn group_that_is_longer_than_may_wait_is_left_out_up_to_the_next_key_frame() {
        let mut backlog = Backlog::default();
        backlog.push(track(640));
        let data = Bytes::from(vec![0; 1 << 20]);
        let mut times = 0;
        for n in 0..200 {
            backlog.push(picture(n, n == 0 || n == 150, &data));
            times += u32::from(backlog.bound());
            assert!(!backlog.is_full(), "{n}");
        }
        assert_eq!(times, 2, "said once for each stretch");
        assert_eq!(
            said(&mut backlog),
            ["w640"],
            "the second is too long as well"
        );
    }

    #[test]
    fn sources_that_come_and_go_do_not_add_up() {
        let mut backlog = Backlog::default();
        for n in 0..10_000 {
            backlog.push(Input::Detach);
            backlog.push(track(640 + n % 2));
            backlog.bound();
            assert!(!backlog.is_full());
        }
    }
}
