//! Has the MPD of a broadcast that its source cuts reach further back: what has left its timelines, put before them.
//!
//! Enters: the live MPD as it is served or stored; what is behind each rendition
//! Leaves: the same with longer timelines and a longer `@timeShiftBufferDepth`
//! Never:  a period that the live MPD does not describe; more segments than a player that loads it with each new one
//! can bear
//! Time:   the renditions' timescales; `@timeShiftBufferDepth` in milliseconds
//! Spec:   [DASH] §5.3.1.2, §5.3.9.6

use std::fmt::{self, Write};

use super::mpd::{depth_ms, value, with_depth};
use super::{Behind, Listed};
use crate::id::PeriodId;
use crate::time::{Ticks, Timescale, WallTime};

/// The most segments of a rendition that are put before its timeline: four hours of two seconds. Each new segment
/// has players load all of them again.
pub const MAX_SEGMENTS: usize = 7_200;

/// The MPD `live` of a broadcast that its source cuts, with what is `behind` each of its renditions. `changed_at` is
/// when that became so. `None` if nothing is added to the MPD any more, or it has no timelines.
#[must_use]
pub fn mpd<'a>(
    live: &str,
    behind: impl Fn(&str) -> Option<&'a Behind>,
    changed_at: WallTime,
) -> Option<String> {
    let mut out = String::with_capacity(live.len() * 2);
    let (mut period, mut rendition) = (None, "");
    let mut behind_ms = 0;
    let mut lines = live.lines().peekable();
    while let Some(line) = lines.next() {
        if line.contains("<Period ") {
            period = value(line, "id")?.parse().ok().map(PeriodId::new);
        } else if line.contains("<Representation ") {
            rendition = value(line, "id")?;
        }
        if !line.contains("<SegmentTemplate ") {
            let _ = writeln!(out, "{line}");
            continue;
        }
        let opening = lines.next().filter(|l| l.trim() == "<SegmentTimeline>")?;
        let template = Template::read(line, lines.peek()?)?;
        let before = behind(rendition).zip(period);
        let before = before.and_then(|(behind, period)| template.before(behind, period));
        let Some(before) = before else {
            let _ = writeln!(out, "{line}\n{opening}");
            continue;
        };
        let (from, to) = (
            format!(" startNumber=\"{}\"", template.number),
            format!(" startNumber=\"{}\"", before.number),
        );
        let _ = writeln!(out, "{}\n{opening}", line.replacen(&from, &to, 1));
        let _ = before.write(&mut out);
        behind_ms = behind_ms.max(before.length_ms(&template));
    }
    let listed_ms = depth_ms(live)?;
    with_depth(&out, listed_ms.saturating_add(behind_ms), changed_at)
}

/// What the live MPD says of the segments of a rendition.
struct Template {
    scale: Timescale,
    /// The number of the first.
    number: u64,
    /// When that begins.
    begins: Ticks,
    /// When its period does.
    zero: Ticks,
}

impl Template {
    /// From its line and that of the first segment.
    fn read(line: &str, first: &str) -> Option<Self> {
        Some(Self {
            scale: Timescale::new(value(line, "timescale")?.parse().ok()?)?,
            number: value(line, "startNumber")?.parse().ok()?,
            begins: Ticks::new(value(first, "t")?.parse().ok()?),
            zero: Ticks::new(value(line, "presentationTimeOffset")?.parse().ok()?),
        })
    }

    /// What is `behind` it of the same `period`.
    fn before(&self, behind: &Behind, period: PeriodId) -> Option<Before> {
        let next = behind.next().filter(|next| *next <= self.number)?;
        let mut listed: Vec<Listed> = behind
            .all()
            .rev()
            .take_while(|(block, _)| block.period == Some(period))
            .flat_map(|(block, dropped)| block.segments.iter().skip(dropped).rev())
            .take_while(|listed| {
                listed.begins.scale() == self.scale && listed.begins.ticks() >= self.zero
            })
            .take(MAX_SEGMENTS)
            .copied()
            .collect();
        // It begins with something that is there.
        while listed.last().is_some_and(|listed| listed.gap) {
            listed.pop();
        }
        listed.reverse();
        // Gaps with which the live list begins are not in its timeline.
        let missing = self.number - next;
        let number = next.checked_sub(listed.len() as u64)?;
        let mut times = Vec::with_capacity(listed.len());
        let last = listed.last()?;
        let end = last.begins.ticks().checked_add(last.length)?;
        let nexts = listed.iter().skip(1).map(|next| next.begins.ticks());
        for (listed, next) in listed.iter().zip(nexts.chain([end])) {
            let begins = listed.begins.ticks();
            // What is missing lasts until what follows.
            let until = next.since(begins).filter(|_| listed.gap);
            times.push((begins.get(), until.unwrap_or(listed.length).get()));
        }
        spread(&mut times, missing, (end, self.begins))?;
        Some(Before { number, times })
    }
}

/// Adds `count` segments between two instants.
fn spread(times: &mut Vec<(i64, u64)>, count: u64, (from, to): (Ticks, Ticks)) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    let room = to.since(from)?.get();
    let length = room.checked_div(count).filter(|length| *length > 0)?;
    if count > MAX_SEGMENTS as u64 {
        return None;
    }
    for index in 0..count {
        let at = from.get().checked_add_unsigned(index * length)?;
        let is_last = index + 1 == count;
        let length = if is_last {
            room - index * length
        } else {
            length
        };
        times.push((at, length));
    }
    Some(())
}

/// What is put before a timeline.
struct Before {
    /// The number of the first.
    number: u64,
    /// When each begins, and how long it is.
    times: Vec<(i64, u64)>,
}

impl Before {
    fn write(&self, out: &mut String) -> fmt::Result {
        let mut times = self.times.iter().copied().peekable();
        let mut end = None;
        while let Some((at, length)) = times.next() {
            let mut more = 0_u64;
            let mut next = at.checked_add_unsigned(length);
            while times
                .peek()
                .is_some_and(|(t, d)| Some(*t) == next && *d == length)
            {
                times.next();
                more += 1;
                next = next.and_then(|next| next.checked_add_unsigned(length));
            }
            out.write_str("            <S")?;
            if end != Some(at) {
                write!(out, " t=\"{at}\"")?;
            }
            write!(out, " d=\"{length}\"")?;
            if more > 0 {
                write!(out, " r=\"{more}\"")?;
            }
            out.write_str("/>\n")?;
            end = next;
        }
        Ok(())
    }

    /// How much further back it reaches than what it is put before.
    fn length_ms(&self, template: &Template) -> u64 {
        let first = self.times.first();
        let first = first.map_or(template.begins, |(at, _)| Ticks::new(*at));
        let ms = |ticks: Ticks| {
            let ms = ticks.at(template.scale).rescale_floor(Timescale::MILLIS);
            ms.get()
        };
        u64::try_from(ms(template.begins) - ms(first)).unwrap_or(0)
    }
}
