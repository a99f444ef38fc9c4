//! Sets of segment numbers that are mostly consecutive.
//!
//! Enters: numbers, in about their order
//! Leaves: the ranges that they make
//! Never:  two ranges that touch
//! Spec:   none

use std::ops::Range;

/// Ascending ranges of numbers with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// The set of `ranges`; `None` unless they ascend, and none is empty or touches the next.
    #[must_use]
    pub fn new(ranges: Vec<Range<u64>>) -> Option<Self> {
        let filled = ranges.iter().all(|range| range.start < range.end);
        let mut pairs = ranges.iter().zip(ranges.iter().skip(1));
        let apart = pairs.all(|(before, after)| before.end < after.start);
        (filled && apart).then_some(Self(ranges))
    }

    /// Adds `number`.
    pub fn insert(&mut self, number: u64) {
        let Some(next) = number.checked_add(1) else {
            return;
        };
        // The first range that ends at `number` or later.
        let at = self.0.partition_point(|range| range.end < number);
        match self.0.get_mut(at) {
            Some(range) if range.contains(&number) => {}
            Some(range) if range.end == number => {
                range.end = next;
                let after = self.0.get(at + 1).filter(|after| after.start == next);
                if let Some(end) = after.map(|after| after.end) {
                    self.0.remove(at + 1);
                    if let Some(range) = self.0.get_mut(at) {
                        range.end = end;
                    }
                }
            }
            Some(range) if range.start == next => range.start = number,
            _ => self.0.insert(at, number..next),
        }
    }

    /// Adds `number`, unless there would be more than `most` ranges; whether it is there then.
    pub fn insert_within(&mut self, number: u64, most: usize) -> bool {
        let nearby = number.saturating_sub(1)..=number.saturating_add(1);
        let has_room = self.0.len() < most || nearby.into_iter().any(|near| self.contains(near));
        if has_room {
            self.insert(number);
        }
        has_room
    }

    /// Adds every number of `other`, most of which are larger.
    pub fn extend(&mut self, other: &Self) {
        let bounds = 0..u64::MAX;
        *self = Self::union([&*self, other].into_iter(), &bounds);
    }

    /// Removes every number below `number`.
    pub fn remove_below(&mut self, number: u64) {
        self.0.retain(|range| range.end > number);
        if let Some(first) = self.0.first_mut() {
            first.start = first.start.max(number);
        }
    }

    /// Removes every number from `number` on, and returns it.
    pub fn split_off(&mut self, number: u64) -> Self {
        let mut later: Vec<_> = self
            .0
            .iter()
            .filter(|range| range.end > number)
            .cloned()
            .collect();
        if let Some(first) = later.first_mut() {
            first.start = first.start.max(number);
        }
        self.0.retain(|range| range.start < number);
        if let Some(last) = self.0.last_mut() {
            last.end = last.end.min(number);
        }
        Self(later)
    }

    /// The first number from `number` on.
    #[must_use]
    pub fn next_from(&self, number: u64) -> Option<u64> {
        let at = self.0.partition_point(|range| range.end <= number);
        self.0.get(at).map(|range| range.start.max(number))
    }

    /// Whether `number` is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|range| range.end <= number);
        self.0.get(at).is_some_and(|range| range.contains(&number))
    }

    /// One more than the largest number.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.0.last().map(|range| range.end)
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.0
    }

    /// What all of `sets` cover together, within `bounds`.
    pub fn union<'a>(sets: impl Iterator<Item = &'a Self>, bounds: &Range<u64>) -> Self {
        let mut all: Vec<_> = sets
            .flat_map(|set| &set.0)
            .map(|range| range.start.max(bounds.start)..range.end.min(bounds.end))
            .filter(|range| range.start < range.end)
            .collect();
        all.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in all {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Self(joined)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_hold_what_a_set_would(
            numbers in proptest::collection::vec(0_u64..60, 0..80), below in 0_u64..60,
            split in 0_u64..61,
        ) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for number in numbers {
                ranges.insert(number);
                set.insert(number);
                prop_assert_eq!(Ranges::new(ranges.0.clone()), Some(ranges.clone()));
            }
            ranges.remove_below(below);
            set.retain(|number| *number >= below);
            for number in 0..61 {
                prop_assert_eq!(ranges.contains(number), set.contains(&number));
            }
            prop_assert_eq!(ranges.end(), set.last().map(|last| last + 1));
            for number in 0..61 {
                let next = set.range(number..).next().copied();
                prop_assert_eq!(ranges.next_from(number), next);
            }
            let mut lower = ranges.clone();
            let upper = lower.split_off(split);
            for number in 0..61 {
                prop_assert_eq!(lower.contains(number), number < split && set.contains(&number));
                prop_assert_eq!(upper.contains(number), number >= split && set.contains(&number));
            }
            lower.extend(&upper);
            prop_assert_eq!(&lower, &ranges);
            let all: Vec<_> = ranges.as_slice().iter().cloned().flatten().collect();
            prop_assert_eq!(all, set.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_more_range_than_there_may_be_is_not_begun() {
        let mut set = Ranges::default();
        for (number, is_taken) in [
            (3, true),
            (9, true),
            (6, false),
            (4, true),
            (8, true),
            (9, true),
        ] {
            assert_eq!(set.insert_within(number, 2), is_taken, "{number}");
        }
        assert_eq!(set.as_slice(), [3..5, 8..10]);
    }

    #[test]
    fn a_union_covers_what_any_of_them_does() {
        let set = |ranges: &[Range<u64>]| Ranges::new(ranges.to_vec()).expect("apart");
        let sets = [set(&[1..4, 8..10]), set(&[4..6, 9..20])];
        let union = Ranges::union(sets.iter(), &(2..12));
        assert_eq!(union.as_slice(), [2..6, 8..12]);
    }
}
