//! Passes over what an encoder left out.
//!
//! Enters: where a rendition ended, and where it goes on later than that
//! Leaves: the last sample shown for longer, as far as its part has room; segments without media as gaps
//! Never:  a part longer than its target; samples moved
//! Time:   `Ticks` in the rendition's timescale
//! Spec:   [HLS] §4.4.4.7, §6.2.1

use super::{Packager, absent};
use crate::id::SegmentNumber;
use crate::package::error::Error;
use crate::time::{Span, Ticks};

impl Packager {
    /// Says that a rendition will rest, but not before segment `until`. The MPD leaves it out from now on:
    /// players of DASH ask for what they expect, and nothing else tells them not to.
    pub fn rest_soon(&mut self, rendition: usize, until: SegmentNumber) {
        self.window.rest(rendition, until);
        self.publish();
    }

    /// Says that a rendition has nothing more before segment `until`: what it has not yet of those is listed
    /// as gaps, so that the list goes on without it. Nothing changes if it has more already, or has not begun.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownRendition`], [`Error::PartTooLarge`].
    pub fn rest(&mut self, rendition: usize, until: SegmentNumber) -> Result<(), Error> {
        let track = self.tracks.get(rendition);
        let track = track.ok_or(Error::UnknownRendition { index: rendition })?;
        if track.next_dts.is_none() {
            return Ok(());
        }
        let at = track.cutter.start_of(until);
        self.window.rest(rendition, until);
        self.pass_over(rendition, at, until)
    }

    /// Prepares a rendition for a sample at `at` in segment `number`, which may lie after a hole.
    pub(super) fn pass_over(
        &mut self,
        rendition: usize,
        at: Ticks,
        number: SegmentNumber,
    ) -> Result<(), Error> {
        let Some(track) = self.tracks.get_mut(rendition) else {
            return Ok(());
        };
        let ended = track.next_dts.filter(|ended| *ended < at);
        let Some(ended) = ended else {
            return Ok(());
        };
        let open = track.segment.as_ref().map(|segment| segment.number);
        let open_end = open.map(|open| track.cutter.start_of(open.next()));
        let hole = open_end.map_or(at, |end| end.min(at)).since(ended);
        let filled = track.prolong(hole.unwrap_or(Span::ZERO), true);
        let is_filled = ended.checked_add(filled) == Some(at);
        track.next_dts = Some(at);
        if open.is_none_or(|open| open == number) {
            if !is_filled {
                self.close_part(rendition)?;
            }
        } else {
            self.close_part(rendition)?;
            self.close_segment(rendition, open_end);
        }
        self.add_gaps(rendition, number);
        Ok(())
    }

    /// Adds a gap for every segment between the last whole one of a rendition and `number`, which is open or
    /// about to be.
    fn add_gaps(&mut self, rendition: usize, number: SegmentNumber) {
        let period = self.window.period().id;
        let Some(last) = self.window.last(rendition) else {
            return;
        };
        let Some(cutter) = self.tracks.get(rendition).map(|track| track.cutter) else {
            return;
        };
        let mut moved = false;
        for missing in (last.get() + 1)..number.get() {
            let gap = absent(&cutter, SegmentNumber::new(missing), period, true);
            moved |= self.window.add(rendition, gap);
        }
        if moved {
            self.publish();
        }
    }
}

impl super::Track {
    /// Shows the last pending sample for up to `hole` longer, no longer than its part has room if that is
    /// `bounded`; by how much it does.
    pub(super) fn prolong(&mut self, hole: Span, bounded: bool) -> Span {
        let room = self.cutter.room(self.pending_length);
        let room = if bounded { room } else { hole };
        let Some(last) = self.pending.last_mut() else {
            return Span::ZERO;
        };
        let by = hole.get().min(room.get());
        last.duration = Span::new(last.duration.get() + by);
        self.pending_length = Span::new(self.pending_length.get() + by);
        Span::new(by)
    }
}
