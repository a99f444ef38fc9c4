//! How pictures are coded and spaced: key frames, open GOPs, B-frames, missing and uneven frames, their rate.
//!
//! Enters: samples of pictures in decode order, what the heads of their slices say, the frame rate
//! Leaves: what is wrong with that, in words
//! Never:  keeps bytes
//! Time:   ticks of 90 kHz
//! Spec:   none

use std::collections::VecDeque;

use super::seconds;
use crate::codec::video::{Picture, Slice};
use crate::media::Sample;
use crate::time::{FrameRate, Timescale};

const SECOND: i64 = 90_000;
/// Distances of key frames that are kept.
const MAX_GOPS: usize = 6;
/// Key frames farther apart are told. Two seconds are usual, four the most that services take.
const MAX_GOP: i64 = 42 * SECOND / 10;
/// By how much a segment may exceed what is said of it, because players round.
const SEGMENT_SLACK_MS: i64 = 450;
/// Distances of key frames below this may vary as they like: encoders put one at a change of scene.
const SHORT_GOP: i64 = 25 * SECOND / 10;
/// The stretch over which frames and bytes are counted.
const WINDOW: i64 = 10 * SECOND;
/// A distance of two pictures beyond this is a stall, not a row of missing pictures, unless there was sound meanwhile. It
/// says nothing of how the pictures are made.
const STALL: i64 = 2 * SECOND;
/// Beyond this there were no pictures at all, which is told by itself.
const ABSENCE: i64 = 5 * SECOND;
/// A distance beyond this, or below, is the move that was told, not a row of missing pictures, or of uneven ones: what
/// is moved back is squeezed together.
const FAR_MOVE: i64 = SECOND * 2 / 5;
const NEAR_MOVE: i64 = SECOND / 1_000;
/// A track comes to where it is moved within two GOPs, and within this.
const MOVING_GOPS: u8 = 2;
const MOVING: i64 = 20 * SECOND;
/// From this share on, in percent, missing and uneven pictures are told.
const MISSING_PERCENT: i64 = 2;
const UNEVEN_PERCENT: i64 = 10;
/// Fewer missing than this in a window are an accident.
const MIN_MISSING: i64 = 3;

/// What was counted in one window.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    frames: i64,
    missing: i64,
    uneven: i64,
    bytes: u64,
    ticks: i64,
    /// The least and the most that presentation differs from decoding.
    offsets: Option<(i64, i64)>,
    bipredicted: i64,
    /// Pictures that begin an open GOP.
    recovering: i64,
}

impl Count {
    fn reorder(&self) -> i64 {
        self.offsets
            .map_or(0, |(least, most)| most.saturating_sub(least))
    }
}

/// The pictures of one publisher.
#[derive(Clone, Debug, Default)]
pub(super) struct Pictures {
    rate: Option<FrameRate>,
    last: Option<i64>,
    /// How much sound has come since the last picture, in ticks.
    heard: i64,
    keyframe: Option<i64>,
    /// Whether the GOP that goes on is known to be open.
    is_open: bool,
    /// The latest distances of key frames, the oldest first.
    gops: VecDeque<i64>,
    now: Count,
    before: Option<Count>,
    /// Time was put right, and pictures may lie elsewhere from one of the next on: before so many key frames.
    may_move: u8,
    /// For how long yet, in ticks.
    may_move_for: i64,
    /// The longest that a segment may be which these pictures make as they are, in ticks.
    copied_segment: Option<i64>,
}

impl Pictures {
    pub(super) const fn set_rate(&mut self, rate: FrameRate) {
        self.rate = Some(rate);
    }

    pub(super) const fn set_copied_segment(&mut self, ms: Option<u64>) {
        self.copied_segment = match ms {
            Some(ms) => Some((ms.cast_signed() + SEGMENT_SLACK_MS).saturating_mul(90)),
            None => None,
        };
    }

    /// Takes note of `ticks` of sound, of 90 kHz.
    pub(super) const fn hear(&mut self, ticks: i64) {
        self.heard = self.heard.saturating_add(ticks);
    }

    pub(super) fn push(&mut self, sample: &Sample, picture: Option<Picture>) {
        let at = sample.dts.get();
        let heard = std::mem::take(&mut self.heard);
        // Of slow pictures, one that is missing is farther.
        let far = self
            .period()
            .map_or(FAR_MOVE, |period| FAR_MOVE.max(2 * period));
        let is_told = |distance: &i64| {
            let most = if heard >= distance / 2 {
                ABSENCE
            } else {
                STALL
            };
            let is_moved = self.may_move > 0 && !(NEAR_MOVE..far).contains(distance);
            *distance < most && !is_moved
        };
        let last = self.last.replace(at);
        let distance = last.map(|last| at.saturating_sub(last));
        let told = distance.filter(is_told);
        self.may_move_for -= distance.unwrap_or(0).clamp(0, MOVING);
        if self.may_move_for <= 0 {
            self.may_move = 0;
        }
        match told {
            Some(distance) => self.space(distance),
            // How far the next key frame is from the last one is not the encoder's doing.
            None => self.keyframe = None,
        }
        if sample.keyframe {
            self.may_move = self.may_move.saturating_sub(1);
            self.is_open = false;
            let gop = self
                .keyframe
                .replace(at)
                .map(|last| at.saturating_sub(last));
            if self.gops.len() >= MAX_GOPS {
                self.gops.pop_front();
            }
            self.gops.extend(gop);
        }
        let now = &mut self.now;
        now.frames += 1;
        now.bytes = now.bytes.saturating_add(sample.data.len() as u64);
        let offset = sample.composition_offset().get();
        let (least, most) = now.offsets.unwrap_or((offset, offset));
        now.offsets = Some((least.min(offset), most.max(offset)));
        if let Some(picture) = picture {
            now.bipredicted += i64::from(picture.slice == Slice::Bipredicted);
            // Of the leading pictures that need what is before their key frame, one tells it.
            let opens = picture.skips && !std::mem::replace(&mut self.is_open, picture.skips);
            now.recovering += i64::from(picture.recovers && !picture.is_idr || opens);
        }
        if now.ticks >= WINDOW {
            self.before = Some(std::mem::take(&mut self.now));
        }
    }

    /// Time was put right: pictures lie elsewhere, be it from one of the next on.
    pub(super) const fn moved(&mut self) {
        (self.may_move, self.may_move_for) = (MOVING_GOPS, MOVING);
    }

    /// How far pictures are apart at the rate that they have, in ticks.
    fn period(&self) -> Option<i64> {
        let rate = self.rate?;
        Some(rate.slot_start(1, Timescale::VIDEO_90K).get().max(1))
    }

    /// Counts the distance of two pictures.
    fn space(&mut self, distance: i64) {
        self.now.ticks = self.now.ticks.saturating_add(distance.max(0));
        let Some(period) = self.period() else {
            return;
        };
        let slots = (distance + period / 2) / period;
        if slots < 1 || (distance - slots * period).abs() > period / 4 {
            self.now.uneven += 1;
        } else {
            self.now.missing += slots - 1;
        }
    }

    /// The longest of the latest distances of key frames, in ticks; one that still grows counts.
    pub(super) fn longest_gop(&self) -> Option<i64> {
        let growing = self.last.zip(self.keyframe);
        let growing = growing.map(|(last, keyframe)| last.saturating_sub(keyframe));
        self.gops.iter().copied().chain(growing).max()
    }

    /// How far presentation is from decoding, in ticks.
    pub(super) fn reorder(&self) -> i64 {
        self.before.map_or(0, |before| before.reorder())
    }

    /// Bits per second, once known.
    pub(super) fn bps(&self) -> Option<u64> {
        let before = self.before?;
        let ticks = u64::try_from(before.ticks)
            .ok()
            .filter(|ticks| *ticks > 0)?;
        Some(before.bytes.saturating_mul(8 * 90_000) / ticks)
    }

    pub(super) fn far_keyframes(&self) -> Option<(String, String)> {
        let most = self.copied_segment.unwrap_or(MAX_GOP).min(MAX_GOP);
        let longest = self.longest_gop().filter(|longest| *longest > most)?;
        let expected = "2 s, at most 4 s".to_owned();
        self.open_gops()
            .is_none()
            .then(|| (every(longest), expected))
    }

    pub(super) fn irregular_keyframes(&self) -> Option<(String, String)> {
        let mut gops: Vec<i64> = self.gops.iter().copied().collect();
        gops.sort_unstable();
        let (least, median, most) = (*gops.first()?, *gops.get(gops.len() / 2)?, *gops.last()?);
        // A long one long ago is an encoder that was told better meanwhile.
        let newest = self.gops.iter().rev().take(2).max()?;
        let varies = gops.len() == MAX_GOPS && *newest > SHORT_GOP && most * 2 > median * 3;
        varies.then(|| {
            let found = format!("{} to {} apart", span(least), span(most));
            (found, "always 2 s".to_owned())
        })
    }

    pub(super) fn open_gops(&self) -> Option<(String, String)> {
        let seen = |count: &Count| count.recovering;
        let count = seen(&self.now).max(self.before.as_ref().map_or(0, seen));
        (count >= 2).then(|| {
            let found = format!("{count} GOPs in 10 s that need pictures before them");
            (
                found,
                "closed GOPs, each beginning with an IDR frame".to_owned(),
            )
        })
    }

    pub(super) fn reordered(&self) -> Option<(String, String)> {
        let before = self
            .before
            .filter(|before| before.bipredicted > 0 && before.reorder() > 0)?;
        let percent = before.bipredicted * 100 / before.frames.max(1);
        let ms = before.reorder() / 90;
        Some((
            format!("{percent} % B-frames, which delay the picture by up to {ms} ms"),
            "none where delay matters".to_owned(),
        ))
    }

    pub(super) fn missing(&self) -> Option<(String, String)> {
        let before = self.before.filter(|before| before.missing >= MIN_MISSING)?;
        let due = before.frames + before.missing;
        (before.missing * 100 >= due * MISSING_PERCENT).then(|| {
            let found = format!("{} of {due} frames missing in 10 s", before.missing);
            (found, "none".to_owned())
        })
    }

    pub(super) fn uneven(&self) -> Option<(String, String)> {
        let before = self.before?;
        let percent = before.uneven * 100 / before.frames.max(1);
        (percent >= UNEVEN_PERCENT).then(|| {
            let found = format!("{percent} % of the frames off their time");
            let expected = self.rate.map_or_else(String::new, |rate| {
                format!("{rate} frames per second, evenly")
            });
            (found, expected)
        })
    }
}

fn span(ticks: i64) -> String {
    seconds(ticks.saturating_mul(100) / 9)
}

fn every(ticks: i64) -> String {
    format!("one every {}", span(ticks))
}
