//! Gives each decoded picture the place that the source has it in: beside a rendition that is the source's own
//! nothing may lie elsewhere.
//!
//! Enters: where key frames of the source are shown and decoded; where its pictures are shown, in that order
//! Leaves: for each its place, and a slot, by which encoders count
//! Never:  a picture that is moved, held or made up
//! Time:   90 kHz ticks from the Unix epoch; slots follow each other whatever the time between pictures is
//! Spec:   docs/adr/0006-follow-what-is-copied.md

use std::collections::VecDeque;

use crate::time::Ticks;

/// The most key frames that are remembered: as many as a decoder can hold, many times over.
const MAX_KEYFRAMES: usize = 256;

/// Where a picture lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its slot.
    pub slot: i64,
    /// Whether the source has a key frame there, so that it has to be one.
    pub keyframe: bool,
    /// Where it is decoded: as long before it is shown as the last key frame of the source.
    pub dts: Ticks,
    /// Where it is shown.
    pub pts: Ticks,
}

/// Follows one source after the other.
#[derive(Debug)]
pub struct Follow {
    /// Rungs of every divisor have each so-many-th slot.
    step: i64,
    next: i64,
    /// Key frames whose pictures did not come yet: where they are shown and decoded.
    keyframes: VecDeque<(Ticks, Ticks)>,
    /// How long pictures are decoded before they are shown; none before the first key frame.
    ahead: Option<i64>,
    last: Option<(Ticks, Ticks)>,
}

impl Follow {
    /// Follows from slot `first` on. Key frames take slots that are multiples of `step`.
    #[must_use]
    pub const fn new(first: i64, step: i64) -> Self {
        Self {
            step: if step > 0 { step } else { 1 },
            next: first,
            keyframes: VecDeque::new(),
            ahead: None,
            last: None,
        }
    }

    /// Takes note of a key frame, before its picture comes.
    pub fn keyframe(&mut self, pts: Ticks, dts: Ticks) {
        if self.keyframes.len() >= MAX_KEYFRAMES {
            self.keyframes.pop_front();
        }
        self.keyframes.push_back((pts, dts));
    }

    /// The place of the picture that is shown at `pts`; `None` of one before the first key frame, or that is
    /// not shown after the one before it.
    pub fn picture(&mut self, pts: Ticks) -> Option<Place> {
        if self.last.is_some_and(|(shown, _)| pts <= shown) {
            return None;
        }
        let mut keyframe = false;
        // If the key frame itself could not be decoded, the picture after it takes its part.
        while let Some((shown, decoded)) = self.keyframes.front().filter(|(at, _)| *at <= pts) {
            self.ahead = Some(shown.get().saturating_sub(decoded.get()));
            self.keyframes.pop_front();
            keyframe = true;
        }
        let dts = pts.get().saturating_sub(self.ahead?);
        let least = self.last.map_or(i64::MIN, |(_, dts)| dts.get() + 1);
        let dts = Ticks::new(dts.max(least));
        if keyframe {
            let over = self.next.rem_euclid(self.step);
            self.next += (self.step - over) % self.step;
        }
        let slot = self.next;
        self.next += 1;
        self.last = Some((pts, dts));
        Some(Place {
            slot,
            keyframe,
            dts,
            pts,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: i64 = 1_795_000_000 * 90_000;

    fn at(ticks: i64) -> Ticks {
        Ticks::new(EPOCH + ticks)
    }

    #[test]
    fn picture_is_where_the_source_has_it() {
        let mut follow = Follow::new(7, 1);
        assert_eq!(follow.picture(at(0)), None, "nothing is known of it");
        follow.keyframe(at(6_000), at(0));
        // Jittering stamps, and a key frame that comes when it wants.
        let mut places = Vec::new();
        for pts in [6_000, 9_010, 11_990] {
            places.extend(follow.picture(at(pts)));
        }
        follow.keyframe(at(15_000), at(8_910));
        places.extend(follow.picture(at(15_000)));
        let found: Vec<_> = places
            .iter()
            .map(|place| (place.slot, place.keyframe, place.dts.get() - EPOCH))
            .collect();
        assert_eq!(
            found,
            [
                (7, true, 0),
                (8, false, 3_010),
                (9, false, 5_990),
                (10, true, 8_910)
            ]
        );
    }

    #[test]
    fn every_rung_has_every_key_frame() {
        let mut follow = Follow::new(0, 2);
        for (n, keyframe) in [(0, true), (1, false), (2, false), (3, true), (4, false)] {
            if keyframe {
                follow.keyframe(at(n * 1_500), at(n * 1_500));
            }
            let place = follow.picture(at(n * 1_500)).expect("it has a place");
            assert!(!keyframe || place.slot % 2 == 0, "{place:?}");
        }
    }

    #[test]
    fn key_frame_that_cannot_be_decoded_is_made_up_for_by_the_next_picture() {
        let mut follow = Follow::new(0, 1);
        follow.keyframe(at(0), at(0));
        assert!(follow.picture(at(0)).is_some_and(|place| place.keyframe));
        follow.keyframe(at(3_000), at(3_000));
        assert!(
            follow
                .picture(at(6_000))
                .is_some_and(|place| place.keyframe)
        );
        assert_eq!(follow.picture(at(6_000)), None, "its place is taken");
    }

    proptest! {
        /// Whatever comes: no place twice, decoding never goes back, and where the source's delay is the same
        /// all along, every key frame is decoded exactly where the source's is.
        #[test]
        fn places_go_on(
            steps in prop::collection::vec((1_i64..9_000, any::<bool>()), 1..200), delay in 0_i64..9_000, step in 1_i64..4,
        ) {
            let mut follow = Follow::new(5, step);
            let (mut shown, mut last) = (0, None::<Place>);
            for (after, keyframe) in steps {
                shown += after;
                let keyframe = keyframe || last.is_none();
                if keyframe {
                    follow.keyframe(at(shown), at(shown - delay));
                }
                let place = follow.picture(at(shown)).expect("it has a place");
                prop_assert_eq!(place.keyframe, keyframe);
                prop_assert_eq!(place.dts, at(shown - delay));
                prop_assert!(!keyframe || place.slot % step == 0);
                if let Some(last) = last {
                    prop_assert!(place.slot > last.slot && place.dts > last.dts);
                }
                last = Some(place);
            }
        }
    }
}
