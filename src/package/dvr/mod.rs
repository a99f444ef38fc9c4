//! Lets viewers of a live stream go further back than its list: what has left the list, put before it.
//!
//! Enters: segments that left the live list, in order; a live playlist or MPD as it is
//! Leaves: the same that reaches further back
//! Never:  the hours written anew for a part: their lines are written once, a segment's when it leaves the list
//! Time:   the newest segment's, against which what is too old goes
//! Spec:   [HLS] §4.4.3, §4.4.5.2, §6.2.1, §6.2.5.1; docs/recordings.md

mod compose;
mod mpd;
mod timeline;

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use compose::{delta, multivariant, playlist};
pub use mpd::{depth_ms, mpd, rising};
pub use timeline::{MAX_SEGMENTS as MAX_TIMELINE_SEGMENTS, mpd as mpd_of_cuts};

use crate::id::PeriodId;
use crate::time::{MediaTime, Span, WallTime};

/// Every so many segments have a date of their own, beside those that need one.
const DATE_EVERY: u64 = 8;

/// How many segments' lines are kept in one piece.
const BLOCK_SEGMENTS: usize = 256;

/// A segment that has left the live list.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    /// Its number.
    pub number: u64,
    /// Where it begins.
    pub begins: MediaTime,
    /// How long it is, in the same scale.
    pub length: Span,
    /// Whose init segment it needs.
    pub period: PeriodId,
    /// Whether an EXT-X-DISCONTINUITY precedes it.
    pub discontinuity: bool,
    /// Whether there is nothing at its address.
    pub gap: bool,
}

impl Gone {
    /// Where it ends.
    #[must_use]
    pub fn ends(&self) -> MediaTime {
        let begins = self.begins.ticks();
        let ends = begins.checked_add(self.length).unwrap_or(begins);
        ends.at(self.begins.scale())
    }
}

/// What is behind the live list of one rendition. Clones share most of it.
#[derive(Clone, Debug)]
pub struct Behind {
    reach: Duration,
    /// Whole pieces.
    blocks: VecDeque<Arc<Block>>,
    /// The one that is being filled.
    open: Block,
    /// How many segments of the first piece are not listed any more.
    dropped: usize,
}

/// Consecutive segments of one period.
#[derive(Clone, Debug, Default)]
struct Block {
    first: u64,
    period: Option<PeriodId>,
    /// Whether an EXT-X-DISCONTINUITY precedes the first of them.
    discontinuity: bool,
    text: String,
    /// The text, once nothing is added to it.
    sealed: Bytes,
    segments: Vec<Listed>,
}

/// What a piece says of a segment beside its lines.
#[derive(Clone, Copy, Debug)]
struct Listed {
    /// Where its lines begin.
    at: usize,
    begins: MediaTime,
    length: Span,
    gap: bool,
    /// When it ends, in microseconds.
    ends: i64,
}

impl Block {
    fn next(&self) -> u64 {
        self.first.saturating_add(self.segments.len() as u64)
    }
}

impl Behind {
    /// Nothing yet, to reach back as far as `reach`.
    #[must_use]
    pub fn new(reach: Duration) -> Self {
        Self {
            reach,
            blocks: VecDeque::new(),
            open: Block::default(),
            dropped: 0,
        }
    }

    /// How many segments there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        let blocks = self.blocks.iter().map(|block| block.segments.len());
        let all = blocks.sum::<usize>() + self.open.segments.len();
        (all - self.dropped.min(all)) as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number after the last one; `None` if there is none.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.last_block().next())
    }

    /// How many segments at the end are of `period`.
    #[must_use]
    pub fn count_of(&self, period: PeriodId) -> u64 {
        let mine = self.all().rev();
        let mine = mine.take_while(|(block, _)| block.period == Some(period));
        let counts = mine.map(|(block, dropped)| (block.segments.len() - dropped) as u64);
        counts.sum()
    }

    /// Adds the next segment. One that does not follow the last begins anew.
    pub fn push(&mut self, gone: Gone) {
        if self.next().is_some_and(|next| next != gone.number) {
            *self = Self::new(self.reach);
        }
        let before = self.is_after_gap();
        let is_new = gone.discontinuity || self.open.period != Some(gone.period);
        if is_new || self.open.segments.len() >= BLOCK_SEGMENTS {
            self.seal();
            self.open.first = gone.number;
            self.open.period = Some(gone.period);
            self.open.discontinuity = gone.discontinuity;
        }
        let at = self.open.text.len();
        self.open.segments.push(Listed {
            at,
            begins: gone.begins,
            length: gone.length,
            gap: gone.gap,
            ends: gone.ends().to_wall().as_micros(),
        });
        // Writing to a string cannot fail.
        let _ = write_segment(&mut self.open.text, &gone, is_new || before);
    }

    /// Drops what lies further back than it is to reach, if the live list ends at `edge`.
    pub fn trim(&mut self, edge: WallTime) {
        let limit = edge.before(self.reach).as_micros();
        while let Some(block) = self.blocks.front() {
            let kept = block.segments.iter().skip(self.dropped);
            let gone = kept.take_while(|listed| listed.ends <= limit).count();
            self.dropped += gone;
            if self.dropped < block.segments.len() {
                return;
            }
            self.blocks.pop_front();
            self.dropped = 0;
        }
        let kept = self.open.segments.iter().skip(self.dropped);
        self.dropped += kept.take_while(|listed| listed.ends <= limit).count();
        if self.dropped >= self.open.segments.len() {
            *self = Self::new(self.reach);
        }
    }

    /// Puts what an earlier run recorded before it, if it leads up to it.
    pub fn put_before(&mut self, mut earlier: Self) {
        let Some(first) = self.first() else {
            *self = earlier;
            return;
        };
        if self.dropped > 0 || earlier.next() != Some(first) {
            return;
        }
        earlier.seal();
        earlier.blocks.append(&mut self.blocks);
        earlier.open = std::mem::take(&mut self.open);
        *self = earlier;
    }

    /// The number of the first.
    fn first(&self) -> Option<u64> {
        let (block, dropped) = self.all().next()?;
        Some(block.first + dropped as u64)
    }

    /// How many discontinuities it holds.
    fn discontinuities(&self) -> u64 {
        let all = self.all();
        all.filter(|(block, dropped)| block.discontinuity && *dropped == 0)
            .count() as u64
    }

    /// How long each segment is, in microseconds, the last one first.
    fn lengths(&self) -> impl Iterator<Item = u64> {
        let segments = self.all().rev();
        let segments =
            segments.flat_map(|(block, dropped)| block.segments.iter().skip(dropped).rev());
        segments.map(|listed| {
            let length = listed.length.to_duration(listed.begins.scale());
            u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
        })
    }

    /// The pieces in order, each with how many of its segments are not listed any more.
    fn all(&self) -> impl DoubleEndedIterator<Item = (&Block, usize)> {
        let dropped = |index| if index == 0 { self.dropped } else { 0 };
        let whole = self.blocks.iter().enumerate();
        let whole = whole.map(move |(index, block)| (&**block, dropped(index)));
        let open = Some(&self.open).filter(|open| !open.segments.is_empty());
        whole.chain(open.map(|open| (open, dropped(self.blocks.len()))))
    }

    fn last_block(&self) -> &Block {
        let whole = self.blocks.back().map(AsRef::as_ref);
        let last = Some(&self.open).filter(|open| !open.segments.is_empty());
        last.or(whole).unwrap_or(&self.open)
    }

    fn is_after_gap(&self) -> bool {
        let block = self.last_block();
        let text = match block.sealed.is_empty() {
            true => block.text.as_bytes(),
            false => &block.sealed[..],
        };
        let last = block.segments.last();
        let last = last.and_then(|listed| text.get(listed.at..));
        last.is_some_and(|lines| {
            let gap = b"#EXT-X-GAP\n";
            lines.windows(gap.len()).any(|window| window == gap)
        })
    }

    fn seal(&mut self) {
        if self.open.segments.is_empty() {
            return;
        }
        let mut block = std::mem::take(&mut self.open);
        block.sealed = Bytes::from(std::mem::take(&mut block.text));
        self.blocks.push_back(Arc::new(block));
    }
}

fn write_segment(out: &mut String, gone: &Gone, is_dated: bool) -> std::fmt::Result {
    if is_dated || gone.number.is_multiple_of(DATE_EVERY) {
        writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", gone.begins.to_wall())?;
    }
    if gone.gap {
        out.write_str("#EXT-X-GAP\n")?;
    }
    let length = gone.length.seconds(gone.begins.scale());
    writeln!(out, "#EXTINF:{length},\n{}.m4s", gone.number)
}

#[cfg(test)]
mod tests;
