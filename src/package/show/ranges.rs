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

    /// Removes every number below `number`.
    pub fn remove_below(&mut self, number: u64) {
        self.0.retain(|range| range.end > number);
        if let Some(first) = self.0.first_mut() {
            first.start = first.start.max(number);
        }
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
            let all: Vec<_> = ranges.as_slice().iter().cloned().flatten().collect();
            prop_assert_eq!(all, set.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_union_covers_what_any_of_them_does() {
        let set = |ranges: &[Range<u64>]| Ranges::new(ranges.to_vec()).expect("apart");
        let sets = [set(&[1..4, 8..10]), set(&[4..6, 9..20])];
        let union = Ranges::union(sets.iter(), &(2..12));
        assert_eq!(union.as_slice(), [2..6, 8..12]);
    }
}
