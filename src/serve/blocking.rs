//! Decides what a delivery directive asks for: an answer now, a wait, or a refusal.
//!
//! Enters: the query of a media playlist's address, from anyone; the live edge of that playlist
//! Leaves: [`Directives`], and a [`Verdict`] on them
//! Never:  waits, clocks
//! Time:   durations for the limits only
//! Spec:   [HLS] §6.2.5.1, §6.2.5.2, §6.2.5.3

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::time::Duration;

use crate::id::{PartIndex, SegmentNumber};

/// How many target durations a request may be blocked before it is told 503 ([HLS] §6.2.5.2).
const BLOCKED_TARGETS: u32 = 3;

/// The longest wait whatever the target duration: shorter than the silence after which a connection
/// is closed, so that whoever waits is told.
const MAX_BLOCKED: Duration = Duration::from_secs(60);

/// How many segments beyond the last whole one may be asked for ([HLS] §6.2.5.2).
const ADVANCE_SEGMENTS: u64 = 2;

/// The Advance Part Limit for parts of a second or more ([HLS] §6.2.5.2).
const ADVANCE_PARTS: u64 = 3;

/// The live edge of one rendition, as the newest playlist shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The segment that the next part belongs to: the one after the last whole segment.
    pub segment: SegmentNumber,
    /// The next part's place in it, which the playlist hints: how many of its parts are listed.
    pub part: PartIndex,
    /// How many parts the last whole segment has; none of one that an earlier run made, and of some gaps.
    pub last_parts: u32,
    /// EXT-X-TARGETDURATION.
    pub target_duration: Duration,
    /// PART-TARGET.
    pub part_target: Duration,
}

/// A place on the way of a playlist that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `_HLS_msn`.
    pub segment: u64,
    /// `_HLS_part`; `None` waits for the whole segment.
    pub part: Option<u64>,
}

/// What is to be done about a [`Wanted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The playlist has it.
    Now,
    /// It is to come.
    Wait,
    /// It is further ahead than anyone may wait for.
    TooFar,
}

impl Edge {
    /// What to do about a request for `wanted`.
    #[must_use]
    pub fn verdict(&self, wanted: Wanted) -> Verdict {
        let next = self.segment.get();
        let parts = u64::from(self.part.get());
        // What lies past the end of a finished segment is the first part of the one after.
        let (segment, part) = match wanted.part {
            // Of a segment without parts, all that there is to wait for is there: the part that follows comes no
            // sooner than the segment after it, or never where it is a gap.
            Some(part) if next == wanted.segment.saturating_add(1) && self.last_parts > 0 => {
                if part >= u64::from(self.last_parts) {
                    (next, Some(0))
                } else {
                    (wanted.segment, Some(part))
                }
            }
            part => (wanted.segment, part),
        };
        if segment < next {
            return Verdict::Now;
        }
        if segment == next && part.is_some_and(|part| part < parts) {
            return Verdict::Now;
        }
        let last_whole = next.saturating_sub(1);
        if segment > last_whole.saturating_add(ADVANCE_SEGMENTS) {
            return Verdict::TooFar;
        }
        // How many parts the segment in the making will have is not known; what follows it counts
        // from its own beginning.
        let listed = if segment == next { parts } else { 0 };
        match part {
            Some(part) if part >= listed.saturating_add(self.advance_parts()) => Verdict::TooFar,
            _ => Verdict::Wait,
        }
    }

    /// How long a request may be blocked.
    #[must_use]
    pub fn blocked_limit(&self) -> Duration {
        let limit = self.target_duration.saturating_mul(BLOCKED_TARGETS);
        limit.min(MAX_BLOCKED)
    }

    /// The Advance Part Limit: how many parts beyond the listed ones may be asked for.
    fn advance_parts(&self) -> u64 {
        let part = u64::try_from(self.part_target.as_millis()).unwrap_or(u64::MAX);
        if part == 0 || part >= 1_000 {
            return ADVANCE_PARTS;
        }
        (1_000 * ADVANCE_PARTS).div_ceil(part)
    }
}

/// The delivery directives of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// What the playlist must contain; `None` for the newest.
    pub wanted: Option<Wanted>,
    /// Whether a delta update will do.
    pub skip: bool,
}

/// Why directives cannot be followed; sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectiveError {
    /// One is there twice.
    #[error("{name} is there more than once")]
    Repeated {
        /// Which.
        name: &'static str,
    },
    /// A value that must be a decimal integer of at most 64 bits is not.
    #[error("{name} must be a whole number")]
    NotANumber {
        /// Which.
        name: &'static str,
    },
    /// `_HLS_skip` is neither of its values.
    #[error("_HLS_skip must be YES or v2")]
    Skip,
    /// `_HLS_part` without `_HLS_msn`.
    #[error("_HLS_part needs _HLS_msn")]
    PartAlone,
}

impl Directives {
    /// Reads the query of an address. What does not begin with `_HLS_` is not a directive, and one that
    /// is not known is ignored, as a server has to.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(query: Option<&str>) -> Result<Self, DirectiveError> {
        let (mut segment, mut part, mut skip) = (None, None, None);
        for field in query.unwrap_or_default().split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            match name {
                "_HLS_msn" => set(&mut segment, "_HLS_msn", number("_HLS_msn", value)?)?,
                "_HLS_part" => set(&mut part, "_HLS_part", number("_HLS_part", value)?)?,
                "_HLS_skip" if matches!(value, "YES" | "v2") => {
                    set(&mut skip, "_HLS_skip", ())?;
                }
                "_HLS_skip" => return Err(DirectiveError::Skip),
                _ => {}
            }
        }
        let wanted = match (segment, part) {
            (None, Some(_)) => return Err(DirectiveError::PartAlone),
            (None, None) => None,
            (Some(segment), part) => Some(Wanted { segment, part }),
        };
        Ok(Self {
            wanted,
            skip: skip.is_some(),
        })
    }
}

fn set<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), DirectiveError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(DirectiveError::Repeated { name }),
    }
}

/// A decimal integer as [HLS] §4.2 has it: digits alone, no sign, at most 20 of them.
fn number(name: &'static str, value: &str) -> Result<u64, DirectiveError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let value = value.parse().ok().filter(|_| digits);
    value.ok_or(DirectiveError::NotANumber { name })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Segment 99 is whole and has six parts; two parts of segment 100 are listed.
    fn edge() -> Edge {
        Edge {
            segment: SegmentNumber::new(100),
            part: PartIndex::new(2),
            last_parts: 6,
            target_duration: Duration::from_secs(2),
            part_target: Duration::from_millis(333),
        }
    }

    #[test]
    fn every_place_has_its_verdict() {
        use Verdict::{Now, TooFar, Wait};
        for (segment, part, verdict) in [
            (0, None, Now),
            (98, Some(50), Now),
            (99, None, Now),
            (99, Some(5), Now),
            (99, Some(6), Now),
            (99, Some(u64::MAX), Now),
            (100, Some(1), Now),
            (100, Some(2), Wait),
            (100, Some(11), Wait),
            (100, Some(12), TooFar),
            (100, None, Wait),
            (101, None, Wait),
            (101, Some(0), Wait),
            (101, Some(9), Wait),
            (101, Some(10), TooFar),
            (102, None, TooFar),
            (102, Some(0), TooFar),
            (u64::MAX, None, TooFar),
            (u64::MAX, Some(u64::MAX), TooFar),
        ] {
            let wanted = Wanted { segment, part };
            assert_eq!(edge().verdict(wanted), verdict, "{segment} {part:?}");
        }
    }

    #[test]
    fn part_past_the_end_waits_for_the_first_of_the_next_segment() {
        let edge = Edge {
            part: PartIndex::new(0),
            ..edge()
        };
        for (part, verdict) in [(5, Verdict::Now), (6, Verdict::Wait), (400, Verdict::Wait)] {
            let wanted = Wanted {
                segment: 99,
                part: Some(part),
            };
            assert_eq!(edge.verdict(wanted), verdict, "{part}");
        }
    }

    #[test]
    fn gap_is_all_that_comes_for_who_waits_for_a_part_of_it() {
        let edge = Edge {
            part: PartIndex::new(0),
            last_parts: 0,
            ..edge()
        };
        for (segment, verdict) in [(99, Verdict::Now), (100, Verdict::Wait)] {
            let wanted = Wanted {
                segment,
                part: Some(0),
            };
            assert_eq!(edge.verdict(wanted), verdict, "{segment}");
        }
    }

    #[test]
    fn limits_follow_the_targets() {
        let long = Edge {
            target_duration: Duration::from_secs(30),
            part_target: Duration::from_secs(2),
            ..edge()
        };
        assert_eq!(edge().blocked_limit(), Duration::from_secs(6));
        assert_eq!(long.blocked_limit(), MAX_BLOCKED);
        assert_eq!((edge().advance_parts(), long.advance_parts()), (10, 3));
    }

    #[test]
    fn queries_are_read_or_refused() {
        let wanted = |segment, part| Directives {
            wanted: Some(Wanted { segment, part }),
            skip: false,
        };
        for (query, read) in [
            ("", Directives::default()),
            ("token=abc&_HLS_later=1", Directives::default()),
            ("_HLS_msn=7", wanted(7, None)),
            ("_HLS_part=0&x&_HLS_msn=7", wanted(7, Some(0))),
            ("_HLS_msn=007", wanted(7, None)),
            (
                "_HLS_msn=7&_HLS_part=2&_HLS_skip=v2",
                Directives {
                    skip: true,
                    ..wanted(7, Some(2))
                },
            ),
            (
                "_HLS_skip=YES",
                Directives {
                    wanted: None,
                    skip: true,
                },
            ),
        ] {
            assert_eq!(Directives::parse(Some(query)), Ok(read), "{query}");
        }
        for query in [
            "_HLS_part=1",
            "_HLS_msn",
            "_HLS_msn=",
            "_HLS_msn=-1",
            "_HLS_msn=+1",
            "_HLS_msn=1.5",
            "_HLS_msn=%31",
            "_HLS_msn=99999999999999999999",
            "_HLS_msn=1&_HLS_msn=1",
            "_HLS_msn=1&_HLS_part=1&_HLS_part=2",
            "_HLS_msn=1&_HLS_part=x",
            "_HLS_skip",
            "_HLS_skip=NO",
            "_HLS_skip=yes",
            "_HLS_skip=YES&_HLS_skip=v2",
        ] {
            assert!(Directives::parse(Some(query)).is_err(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "(_HLS_(msn|part|skip)|[a-z]{0,3}|&|=|[0-9]{0,22}|YES|v2|-){0,12}") {
            let _ = Directives::parse(Some(&query));
        }

        /// What is answered at one edge is answered at every later one.
        #[test]
        fn nothing_that_was_there_is_waited_for(
            segment in 95_u64..104, part in proptest::option::of(0_u64..16), later in 0_u32..6,
        ) {
            let wanted = Wanted { segment, part };
            let after = Edge { part: PartIndex::new(2 + later), ..edge() };
            if edge().verdict(wanted) == Verdict::Now {
                prop_assert_eq!(after.verdict(wanted), Verdict::Now);
            }
        }
    }
}
