//! Notices that pictures have come to stay in a broadcast that has none.
//!
//! Enters: pictures of the live input
//! Leaves: whether a ladder with pictures is worth beginning
//! Never:  a single stray picture taken for more
//! Time:   microseconds on the broadcast's timeline
//! Spec:   docs/resilience.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

/// How long pictures come, from a key frame on, until they are believed.
const STEADY_US: i64 = 1_000_000;
/// The longest that one may be missing meanwhile.
const MAX_HOLE_US: i64 = 500_000;
/// The fewest pictures in that time.
const MIN_PICTURES: u32 = 5;

/// Pictures since a key frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Appearance {
    since: Option<Since>,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    key_us: i64,
    last_us: i64,
    count: u32,
}

impl Appearance {
    /// Takes note of a picture at `at_us`; whether pictures have come to stay.
    pub(super) fn see(&mut self, at_us: i64, keyframe: bool) -> bool {
        let goes_on =
            |since: &Since| (0..=MAX_HOLE_US).contains(&at_us.saturating_sub(since.last_us));
        self.since = match self.since.filter(goes_on) {
            Some(since) => Some(Since {
                last_us: at_us,
                count: since.count.saturating_add(1),
                ..since
            }),
            None => keyframe.then_some(Since {
                key_us: at_us,
                last_us: at_us,
                count: 1,
            }),
        };
        self.since.is_some_and(|since| {
            since.count >= MIN_PICTURES && at_us.saturating_sub(since.key_us) >= STEADY_US
        })
    }

    /// Another source begins.
    pub(super) const fn forget(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When pictures are believed, of those at `ms` with a key frame first.
    fn believed_at(pictures: impl IntoIterator<Item = (i64, bool)>) -> Option<i64> {
        let mut appearance = Appearance::default();
        let mut pictures = pictures.into_iter();
        let found = pictures.find(|(ms, keyframe)| appearance.see(ms * 1_000, *keyframe));
        found.map(|(ms, _)| ms)
    }

    #[test]
    fn pictures_are_believed_a_second_after_their_key_frame() {
        let steady = (0..100).map(|n| (n * 40, n == 0));
        assert_eq!(believed_at(steady), Some(1_000));
        let late_key = (0..100).map(|n| (n * 40, n == 50));
        assert_eq!(believed_at(late_key), Some(3_000));
        assert_eq!(believed_at((0..100).map(|n| (n * 40, false))), None);
    }

    #[test]
    fn stray_pictures_are_not() {
        let rare = (0..100).map(|n| (n * 600, true));
        assert_eq!(believed_at(rare), None, "each is alone");
        let broken = (0..40).filter(|n| !(20..34).contains(n));
        let broken = broken.map(|n| (n * 40, n == 0 || n == 34));
        assert_eq!(believed_at(broken), None, "a hole begins anew");
        assert_eq!(
            believed_at([(0, true), (400, false), (800, false), (1_200, false)]),
            None
        );
    }
}
