//! Puts what is behind a live playlist before it.
//!
//! Enters: [`Behind`], a live playlist of ours as it is served or stored
//! Leaves: the pieces of the playlist that reaches further back, whole or as a delta update
//! Never:  the lines of what is behind, but as they were written once
//! Time:   none
//! Spec:   [HLS] §4.4.3, §4.4.5.2, §6.2.5.1

use std::fmt::{self, Write};

use bytes::Bytes;

use super::{Behind, DATE_EVERY};
use crate::id::PeriodId;
use crate::package::hls::micros;
use crate::time::Span;

/// EXT-X-VERSION of a delta update: 9 for EXT-X-SKIP.
const VERSION_DELTA: &str = "#EXT-X-VERSION:9";

/// CAN-SKIP-UNTIL in target durations.
const SKIP_TARGETS: u64 = 6;

/// What the live playlists are called, and those that reach further back.
const LIVE: &str = "index.m3u8";
const REACHING: &str = "dvr.m3u8";

/// The multivariant playlist of those that reach further back, from the `live` one.
#[must_use]
pub fn multivariant(live: &str) -> String {
    live.replace(LIVE, REACHING)
}

/// The playlist that reaches further back than `live`.
#[must_use]
pub fn playlist(behind: &Behind, live: &str) -> Vec<Bytes> {
    let live = Live::read(live);
    let behind = Some(behind).filter(|behind| behind.next() == live.first);
    let mut head = String::with_capacity(512);
    // Writing to a string cannot fail.
    let _ = live.write_head(&mut head, behind, None);
    let mut pieces = vec![Bytes::from(head)];
    let mut map = None;
    if let Some(behind) = behind {
        map = lines(&mut pieces, behind, 0);
    }
    let after_gap = behind.is_some_and(Behind::is_after_gap);
    pieces.push(live.tail(map.as_deref(), after_gap, 0));
    pieces
}

/// The delta update of the same, from the delta update of the live playlist, or that playlist itself where it has
/// none; `None` if nothing would be left out.
#[must_use]
pub fn delta(behind: &Behind, live: &str) -> Option<Vec<Bytes>> {
    let live = Live::read(live);
    if live.has_ended {
        return None;
    }
    let behind = Some(behind).filter(|behind| behind.next() == live.first);
    let before = behind.map_or(0, Behind::len);
    let skipped = match live.skipped {
        0 => (before + live.count).saturating_sub(live.unskipped(behind)),
        more => before.saturating_add(more),
    };
    if skipped == 0 {
        return None;
    }
    // Of the lines of the live playlist; its own delta update has none of what that skips.
    let of_live = skipped.saturating_sub(before.saturating_add(live.skipped));
    let mut head = String::with_capacity(512);
    let _ = live.write_head(&mut head, behind, Some(skipped));
    let mut pieces = vec![Bytes::from(head)];
    let mut map = None;
    if let Some(behind) = behind {
        map = first_map(behind);
        if skipped < before {
            map = lines(&mut pieces, behind, skipped).or(map);
        }
    }
    let after_gap = behind.is_some_and(Behind::is_after_gap);
    pieces.push(live.tail(map.as_deref(), after_gap, of_live));
    Some(pieces)
}

fn first_map(behind: &Behind) -> Option<String> {
    let period = behind.all().next()?.0.period?;
    Some(map_of(period))
}

fn map_of(period: PeriodId) -> String {
    format!("#EXT-X-MAP:URI=\"init-{period}.mp4\"")
}

/// Adds the lines of what is behind but the first `skipped` segments; the last EXT-X-MAP.
fn lines(pieces: &mut Vec<Bytes>, behind: &Behind, skipped: u64) -> Option<String> {
    let mut map = first_map(behind);
    let mut skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    for (block, dropped) in behind.all() {
        let left = block.segments.len() - dropped;
        let from = dropped + skipped.min(left);
        skipped -= skipped.min(left);
        let own = block.period.map(map_of);
        if from == 0 && block.discontinuity {
            pieces.push(Bytes::from_static(b"#EXT-X-DISCONTINUITY\n"));
        }
        if from == block.segments.len() {
            continue;
        }
        if own != map {
            map = own;
            let text = map.iter().map(|map| format!("{map}\n"));
            pieces.push(text.collect::<String>().into());
        }
        let at = block.segments.get(from).map_or(0, |listed| listed.at);
        let text = match block.sealed.is_empty() {
            true => Bytes::copy_from_slice(block.text.as_bytes().get(at..).unwrap_or_default()),
            false => block.sealed.slice(at..),
        };
        pieces.push(text);
    }
    map
}

/// A live playlist, taken apart.
struct Live<'a> {
    /// The lines before the first segment that matter here all the same.
    head: Vec<&'a str>,
    target: u64,
    first: Option<u64>,
    discontinuities: u64,
    map: Option<&'a str>,
    skipped: u64,
    count: u64,
    /// How long each segment is, in microseconds.
    lengths: Vec<u64>,
    has_ended: bool,
    body: Vec<&'a str>,
}

impl<'a> Live<'a> {
    fn read(text: &'a str) -> Self {
        let mut live = Self {
            head: Vec::new(),
            target: 1,
            first: None,
            discontinuities: 0,
            map: None,
            skipped: 0,
            count: 0,
            lengths: Vec::new(),
            has_ended: false,
            body: Vec::new(),
        };
        for line in text.lines() {
            let value = |tag| line.strip_prefix(tag);
            let number = |text: &str| text.trim().parse::<u64>().ok();
            if !live.body.is_empty() {
                live.body.push(line);
            } else if let Some(text) = value("#EXT-X-MEDIA-SEQUENCE:") {
                live.first = number(text);
            } else if let Some(text) = value("#EXT-X-DISCONTINUITY-SEQUENCE:") {
                live.discontinuities = number(text).unwrap_or(0);
            } else if let Some(text) = value("#EXT-X-SKIP:SKIPPED-SEGMENTS=") {
                live.skipped = number(text).unwrap_or(0);
            } else if line.starts_with("#EXT-X-MAP:") {
                live.map = Some(line);
            } else if is_of_segment(line) {
                live.body.push(line);
            } else {
                if let Some(text) = value("#EXT-X-TARGETDURATION:") {
                    live.target = number(text).unwrap_or(1);
                }
                live.head.push(line);
            }
            let length = value("#EXTINF:").and_then(micros);
            live.lengths.extend(length.map(Span::get));
            live.count += u64::from(!line.starts_with('#'));
            live.has_ended |= line == "#EXT-X-ENDLIST";
        }
        live
    }

    fn write_head(
        &self,
        out: &mut String,
        behind: Option<&Behind>,
        skipped: Option<u64>,
    ) -> fmt::Result {
        for line in &self.head {
            if line.starts_with("#EXT-X-VERSION:") && skipped.is_some() {
                writeln!(out, "{VERSION_DELTA}")?;
                continue;
            }
            writeln!(out, "{line}")?;
            let is_target = line.starts_with("#EXT-X-TARGETDURATION:");
            if is_target && !self.is_controlled() && !self.has_ended {
                let until = self.target.saturating_mul(SKIP_TARGETS);
                writeln!(out, "#EXT-X-SERVER-CONTROL:CAN-SKIP-UNTIL={until}.0")?;
            }
        }
        let first = behind.and_then(Behind::first).or(self.first);
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.unwrap_or(0))?;
        let inside = behind.map_or(0, Behind::discontinuities);
        let listed = self.body.contains(&"#EXT-X-DISCONTINUITY");
        let sequence = self.discontinuities.saturating_sub(inside);
        if sequence > 0 || inside > 0 || listed {
            writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{sequence}")?;
        }
        let map = behind.and_then(first_map);
        if let Some(map) = map.as_deref().or(self.map) {
            writeln!(out, "{map}")?;
        }
        match skipped {
            Some(skipped) => writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}"),
            None => Ok(()),
        }
    }

    /// How many segments at the end no delta update skips, of those that are listed and of what is `behind` them: the
    /// fewest that last for CAN-SKIP-UNTIL.
    fn unskipped(&self, behind: Option<&Behind>) -> u64 {
        let until = self.target.saturating_mul(SKIP_TARGETS * 1_000_000);
        let lengths = self.lengths.iter().rev().copied();
        let before = behind.into_iter().flat_map(Behind::lengths);
        let mut from_end = 0_u64;
        let kept = lengths.chain(before).take_while(|length| {
            let is_kept = from_end < until;
            from_end = from_end.saturating_add(*length);
            is_kept
        });
        kept.count() as u64
    }

    fn is_controlled(&self) -> bool {
        let mut head = self.head.iter();
        head.any(|line| line.starts_with("#EXT-X-SERVER-CONTROL:"))
    }

    /// What follows what is behind, whose last EXT-X-MAP is `map`, and whose last segment may be a gap, but for the first
    /// `left_out` segments.
    fn tail(&self, map: Option<&str>, after_gap: bool, mut left_out: u64) -> Bytes {
        let mut out = String::with_capacity(64 * self.body.len());
        let mut own = self.map.filter(|own| map.is_some_and(|map| map != *own));
        let mut number = self.first.unwrap_or(0).saturating_add(self.skipped);
        // Dates are those that the lines behind have, so that nothing about a segment changes when it leaves.
        let (mut is_dated, mut gap, mut after_gap) = (map.is_none(), false, after_gap);
        let in_force = map.or(self.map);
        for line in &self.body {
            let is_map = line.starts_with("#EXT-X-MAP:");
            if is_map {
                own = None;
            }
            if left_out > 0 {
                if is_map {
                    own = Some(*line).filter(|own| in_force != Some(own));
                }
                gap |= *line == "#EXT-X-GAP";
                if !line.starts_with('#') {
                    (number, left_out) = (number.saturating_add(1), left_out - 1);
                    (is_dated, after_gap, gap) = (false, gap, false);
                }
                continue;
            }
            if *line != "#EXT-X-DISCONTINUITY"
                && let Some(own) = own.take()
            {
                out.extend([own, "\n"]);
            }
            if line.starts_with("#EXT-X-PROGRAM-DATE-TIME:") {
                if !(is_dated || after_gap || number.is_multiple_of(DATE_EVERY)) {
                    continue;
                }
            } else if line.starts_with("#EXT-X-RENDITION-REPORT:") {
                out.push_str(&line.replace(LIVE, REACHING));
                out.push('\n');
                continue;
            }
            is_dated |= *line == "#EXT-X-DISCONTINUITY" || is_map;
            gap |= *line == "#EXT-X-GAP";
            out.push_str(line);
            out.push('\n');
            if !line.starts_with('#') {
                number = number.saturating_add(1);
                (is_dated, after_gap, gap) = (false, gap, false);
            }
        }
        out.into()
    }
}

/// Whether a line says something of a segment, or of what follows the last one.
fn is_of_segment(line: &str) -> bool {
    const TAGS: [&str; 7] = [
        "#EXT-X-PROGRAM-DATE-TIME:",
        "#EXT-X-PART:",
        "#EXT-X-GAP",
        "#EXTINF:",
        "#EXT-X-PRELOAD-HINT:",
        "#EXT-X-RENDITION-REPORT:",
        "#EXT-X-ENDLIST",
    ];
    line == "#EXT-X-DISCONTINUITY"
        || !line.starts_with('#')
        || TAGS.iter().any(|tag| line.starts_with(tag))
}
