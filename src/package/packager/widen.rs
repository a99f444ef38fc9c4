//! Goes on with more renditions than before: pictures came to a sound.
//!
//! Enters: the renditions of before and those that are new, and the segment that all of them begin with
//! Leaves: another period; before it, gaps in place of what a new rendition has not
//! Never:  another name, another order: a rendition stays at its address and its index
//! Time:   `Ticks` in each rendition's timescale
//! Spec:   [HLS] §4.4.4.3, §4.4.4.7; [DASH] §5.3.2

use super::hole::add_missing_parts;
use super::{Packager, Track, absent, check_names, parts_per_segment, present};
use crate::id::{PeriodId, SegmentNumber};
use crate::media::{Payload, Rendition};
use crate::package::cut::Cutter;
use crate::package::error::Error;
use crate::package::period::Period;
use crate::package::snapshot::Segment;

impl Packager {
    /// Begins another period with segment `first` of every rendition. `renditions` begin with those of before,
    /// by name and order; all else of them may differ. What is missing up to `first` is a gap, and so is all
    /// that a new one has not. One that has nothing of `first` either may begin later. Only on the grid.
    ///
    /// # Errors
    ///
    /// [`Error::SourceCut`], [`Error::OtherRenditions`], [`Error::RenditionCount`], [`Error::DuplicateName`],
    /// [`Error::NumberUsed`], [`Error::Unwritable`], [`Error::NoPartTarget`]: nothing has changed then.
    /// [`Error::PartTooLarge`].
    pub fn widen(&mut self, renditions: Vec<Rendition>, first: SegmentNumber) -> Result<(), Error> {
        if !self.is_on_grid() {
            return Err(Error::SourceCut);
        }
        check_names(&renditions)?;
        let kept = self.tracks.len();
        self.check_same(renditions.get(..kept).unwrap_or(&renditions))?;
        self.check_ended_before(first)?;
        let before = self.window.presentation();
        let presentation = present(before.cuts, &before.config, &renditions)?;
        let presentation = before.going_on_as(presentation, &renditions);
        let period = Period {
            discontinuity: true,
            ..Period::new(first, renditions)?
        };
        for rendition in 0..kept {
            let end = self.tracks.get(rendition).map(|t| t.cutter.start_of(first));
            if let Some(end) = end {
                self.pass_over(rendition, end, first)?;
            }
        }
        // One that has nothing of it goes on later, as after any hole.
        let new = |rendition: &Rendition| {
            let mut track = Track::new(&presentation, rendition, first);
            track.next_dts = Some(presentation.grid().start_of(first, track.scale));
            track
        };
        self.tracks = period.renditions.iter().map(new).collect();
        let added = self.tracks.iter().skip(kept);
        let added = added.map(|track| {
            let mut gaps = self.gaps_like_others(&track.cutter, period.id);
            add_missing_parts(&presentation, &mut gaps);
            gaps
        });
        let added = added.collect();
        self.parts_per_segment = self.parts_per_segment.max(parts_per_segment(&presentation));
        self.window.widen(presentation, period, added);
        self.put_init_segments();
        self.publish();
        Ok(())
    }

    /// The segment of a rendition that is in the making.
    #[must_use]
    pub fn open_number(&self, rendition: usize) -> Option<SegmentNumber> {
        let open = self.tracks.get(rendition)?.segment.as_ref()?;
        Some(open.number)
    }

    /// Whether a rendition has everything up to segment `number`, and has not begun that.
    #[must_use]
    pub fn has_ended_before(&self, rendition: usize, number: SegmentNumber) -> bool {
        self.open_number(rendition).is_none() && self.window.next_number(rendition) == number.get()
    }

    /// Whether no rendition has anything of segment `first`, or of one that is not sure to end before it.
    fn check_ended_before(&self, first: SegmentNumber) -> Result<(), Error> {
        for (rendition, track) in self.tracks.iter().enumerate() {
            let open = track.segment.as_ref().map(|open| open.number);
            let is_past = self.window.next_number(rendition) > first.get();
            if is_past || open.is_some_and(|open| open >= first) || track.next_dts.is_none() {
                return Err(Error::NumberUsed {
                    name: track.name.clone(),
                    at: open.map_or_else(|| self.window.next_number(rendition), SegmentNumber::get),
                    found: first.get(),
                });
            }
        }
        Ok(())
    }

    /// A gap in the place of every segment that is kept of the others. Each names the init segment of
    /// `period`: of the one that it lies in there is none.
    fn gaps_like_others(&self, cutter: &Cutter, period: PeriodId) -> Vec<Segment> {
        let theirs = self.window.kept(0);
        let gap = |other: &Segment| Segment {
            discontinuity: other.discontinuity,
            payload: Payload::default(),
            ..absent(cutter, other.number, period, true)
        };
        theirs.map(gap).collect()
    }
}
