//! What of a show lies behind the list of its live stream.
//!
//! Enters: a [`Show`], which of its numbers
//! Leaves: [`Gone`] segments, as [`Behind`](crate::package::dvr::Behind) takes them
//! Never:  a number left out: what is not stored is a gap
//! Time:   what the record says; of what it does not say, as long as what came before
//! Spec:   [HLS] §4.4.4.7

use std::ops::Range;

use super::Show;
use crate::id::RenditionName;
use crate::package::dvr::Gone;

impl Show {
    /// The segments `numbers` of `rendition`, in order. What lies beyond what is offered counts as stored: it was
    /// listed, and the record is behind.
    #[must_use]
    pub fn gone(&self, rendition: &RenditionName, numbers: Range<u64>) -> Vec<Gone> {
        let mut found: Vec<Gone> = Vec::new();
        for number in numbers {
            let chapters = self.chapters.iter().enumerate().rev();
            let mut chapters = chapters.skip_while(|(_, chapter)| chapter.first > number);
            let Some((index, chapter)) = chapters.next() else {
                continue;
            };
            let track = chapter.tracks.iter().find(|track| track.name == *rendition);
            // Of a rendition that is not there, another one's lengths are as good as any.
            let Some(timed) = track.or_else(|| chapter.tracks.first()) else {
                continue;
            };
            let is_known = self.independent || timed.odd.contains_key(&number);
            let (begins, length) = match found.last().filter(|_| !is_known) {
                Some(before) => (before.ends(), before.length),
                None => {
                    let (start, length) = timed.place(self.grid(), number);
                    (start.at(timed.timescale), length)
                }
            };
            let is_stored = track.is_some_and(|track| track.stored.contains(number));
            found.push(Gone {
                number,
                begins,
                length,
                period: chapter.period,
                discontinuity: index > 0 && number == chapter.first,
                gap: !is_stored && number < self.offered.end,
            });
        }
        found
    }
}
