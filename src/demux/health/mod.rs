//! Says what is wrong with what a streamer sends, while the streamer can still act.
//!
//! Enters: every [`Output`] of a demuxer with the wall clock at its arrival; the rate of the best rendition
//! Leaves: [`Finding`]s: told once when they appear, once when they are mended
//! Never:  changes what passes; keeps bytes
//! Time:   the timeline's, and the broadcast's clock for arrivals; integers only
//! Spec:   docs/health.md

mod arrival;
mod finding;
mod pictures;

use crate::codec::video::Picture;
use crate::codec::{h264, hevc};
use crate::demux::{DropReason, Output, Repair};
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Sample};
use crate::time::{Ticks, Timescale, WallTime};

use self::arrival::Arrivals;
pub use self::finding::{Finding, Kind, Severity};
use self::pictures::Pictures;

const SECOND_US: i64 = 1_000_000;

/// How often is looked.
const LOOK_US: i64 = SECOND_US;

/// How long it must be fine before something counts as mended.
const MENDED_US: i64 = 10 * SECOND_US;

/// Without a sample for this long while the other track goes on, a track is missing.
const MISSING_US: i64 = 5 * SECOND_US;

/// Pictures that come to a broadcast without any are taken in within some seconds. Only after this, they are not.
const LEFT_OUT_US: i64 = 8 * SECOND_US;

/// Beyond this, a clock is worse than any crystal.
const DRIFT_PPM: i64 = 100;

/// What changed since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something is wrong that was not.
    Found(Finding),
    /// Something is no longer wrong.
    Mended(Kind),
}

/// What was measured, for whoever wants the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The longest of the latest distances of key frames, in milliseconds.
    pub keyframe_interval_ms: Option<i64>,
    /// How far pictures are shown from their decoding order, in milliseconds.
    pub reorder_ms: i64,
    /// Bits per second of pictures.
    pub picture_bps: Option<u64>,
    /// How much later sound arrives than its picture, in milliseconds; below zero, earlier.
    pub sound_lag_ms: Option<i64>,
    /// How slow the source's clock runs, in parts per million; below zero, fast.
    pub drift_ppm: Option<i64>,
}

#[derive(Clone, Debug)]
struct Open {
    finding: Finding,
    fine_since_us: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Track {
    id: TrackId,
    scale: Timescale,
    kind: MediaKind,
    /// What reads the kind of a picture from an access unit, where the codec has one that is read.
    picture: Option<ReadPicture>,
}

type ReadPicture = fn(&[u8]) -> Option<Picture>;

/// The examination of one publisher. Ask [`Self::examine`] after [`Self::observe`]; it looks once a second.
#[derive(Clone, Debug, Default)]
pub struct Checkup {
    tracks: Vec<Track>,
    pictures: Pictures,
    arrivals: Arrivals,
    top_rung_bps: Option<u64>,
    leaves_out_pictures: bool,
    /// Since when pictures come that are left out.
    left_out_us: Option<i64>,
    drift_ppm: Option<i64>,
    /// Of which kinds more than one track is sent.
    other_tracks: Vec<MediaKind>,
    open: Vec<Open>,
    looked_us: Option<i64>,
}

impl Checkup {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of what the demuxer said at `now`.
    pub fn observe(&mut self, output: &Output, now: WallTime) {
        match output {
            Output::Track(info) => {
                self.tracks.retain(|track| track.id != info.id);
                self.tracks.push(Track {
                    id: info.id,
                    scale: info.timescale,
                    kind: info.codec.kind(),
                    picture: match info.codec {
                        CodecConfig::H264(_) => Some(h264::picture),
                        CodecConfig::Hevc(_) => Some(hevc::picture),
                        _ => None,
                    },
                });
            }
            Output::FrameRate(rate) => self.pictures.set_rate(*rate),
            Output::Sample { track, sample } => self.see(*track, sample, now),
            Output::Repair(repair) => self.repaired(*repair, now),
        }
    }

    /// Says what the best rendition of pictures is given, in bits per second.
    pub const fn set_top_rung(&mut self, bps: Option<u64>) {
        self.top_rung_bps = bps;
    }

    /// Says how long segments of copied pictures may be, in milliseconds: key frames farther apart are told, as a
    /// segment then begins without one. `None` where pictures are encoded.
    pub const fn set_copied_segment(&mut self, ms: Option<u64>) {
        self.pictures.set_copied_segment(ms);
    }

    /// Says whether the broadcast has no pictures, whatever comes.
    pub const fn set_without_pictures(&mut self, is_without: bool) {
        self.leaves_out_pictures = is_without;
        if !is_without {
            self.left_out_us = None;
        }
    }

    /// Says how slow the source's clock runs, in parts per million.
    pub const fn set_drift(&mut self, ppm: Option<i64>) {
        self.drift_ppm = ppm;
    }

    /// Looks at what was noted, once a second; gives what changed.
    pub fn examine(&mut self, now: WallTime) -> Vec<Change> {
        let now_us = now.as_micros();
        if self
            .looked_us
            .is_some_and(|looked| now_us.saturating_sub(looked) < LOOK_US)
        {
            return Vec::new();
        }
        self.looked_us = Some(now_us);
        Kind::ALL
            .into_iter()
            .filter_map(|kind| self.judge(kind, now_us))
            .collect()
    }

    /// What is wrong now, the worst first.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let of_kind = |kind| self.open.iter().find(move |open| open.finding.kind == kind);
        Kind::ALL
            .into_iter()
            .filter_map(of_kind)
            .map(|open| &open.finding)
    }

    /// What was measured so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            keyframe_interval_ms: self.pictures.longest_gop().map(|ticks| ticks / 90),
            reorder_ms: self.pictures.reorder() / 90,
            picture_bps: self.pictures.bps(),
            sound_lag_ms: self.arrivals.sound_lag_us().map(|lag| lag / 1_000),
            drift_ppm: self.drift_ppm,
        }
    }

    fn see(&mut self, id: TrackId, sample: &Sample, now: WallTime) {
        let Some(track) = self.tracks.iter().find(|track| track.id == id).copied() else {
            return;
        };
        let at = sample.dts.at(track.scale).to_wall();
        self.arrivals
            .push(track.kind, now.as_micros(), at.as_micros());
        match track.kind {
            MediaKind::Video => {
                let picture = track.picture.and_then(|read| read(&sample.data));
                self.pictures.push(sample, picture);
                if self.leaves_out_pictures {
                    self.left_out_us.get_or_insert(now.as_micros());
                }
            }
            MediaKind::Audio => {
                let length = i64::try_from(sample.duration.get()).unwrap_or(i64::MAX);
                let heard = Ticks::new(length).at(track.scale);
                let heard = heard.rescale_floor(Timescale::VIDEO_90K);
                self.pictures.hear(heard.get());
            }
        }
    }

    fn repaired(&mut self, repair: Repair, now: WallTime) {
        let now_us = now.as_micros();
        if repair.moves(MediaKind::Video) {
            self.pictures.moved();
        }
        match repair {
            Repair::ClockJump { .. } | Repair::Realigned { .. } => self.arrivals.jumped(now_us),
            Repair::Reanchored { by_ms: 1.. } => self.arrivals.fell_behind(now_us),
            Repair::Dropped {
                kind,
                reason: DropReason::OtherTrack,
            } => self.other_tracks.push(kind),
            _ => {}
        }
    }

    /// Looks at one kind; says what changed.
    fn judge(&mut self, kind: Kind, now_us: i64) -> Option<Change> {
        let found = self.look(kind, now_us);
        let at = self.open.iter().position(|open| open.finding.kind == kind);
        match (found, at) {
            (None, None) => None,
            (Some((found, expected)), None) => {
                let finding = Finding {
                    kind,
                    found,
                    expected,
                };
                let fine_since_us = None;
                self.open.push(Open {
                    finding: finding.clone(),
                    fine_since_us,
                });
                Some(Change::Found(finding))
            }
            (Some((found, expected)), Some(at)) => {
                let finding = Finding {
                    kind,
                    found,
                    expected,
                };
                let fine_since_us = None;
                *self.open.get_mut(at)? = Open {
                    finding,
                    fine_since_us,
                };
                None
            }
            (None, Some(at)) => {
                let since = *self.open.get_mut(at)?.fine_since_us.get_or_insert(now_us);
                (now_us.saturating_sub(since) >= MENDED_US).then(|| {
                    self.open.remove(at);
                    Change::Mended(kind)
                })
            }
        }
    }

    /// What was found and what is expected, if something of this kind is wrong now.
    fn look(&self, kind: Kind, now_us: i64) -> Option<(String, String)> {
        match kind {
            Kind::NoSound => self.missing(MediaKind::Audio),
            Kind::NoPicture => self.missing(MediaKind::Video),
            Kind::PicturesLeftOut => {
                let for_us = self.left_out_us.map(|since| now_us.saturating_sub(since));
                let is_found = for_us >= Some(LEFT_OUT_US);
                let found = "pictures after the broadcast had begun";
                let expected = "pictures from its first second on";
                is_found.then(|| (found.to_owned(), expected.to_owned()))
            }
            Kind::SoundLate => self.arrivals.lag(1),
            Kind::PictureLate => self.arrivals.lag(-1),
            Kind::UplinkStalls => self.arrivals.stalls(now_us),
            Kind::StaysBehind => self.arrivals.behind(now_us),
            Kind::ClockJumps => self.arrivals.jumps(now_us),
            Kind::KeyframeInterval => self.pictures.far_keyframes(),
            Kind::KeyframesIrregular => self.pictures.irregular_keyframes(),
            Kind::OpenGop => self.pictures.open_gops(),
            Kind::BFrames => self.pictures.reordered(),
            Kind::FramesMissing => self.pictures.missing(),
            Kind::FrameRateUneven => self.pictures.uneven(),
            Kind::BitrateLow => self.low_bitrate(now_us),
            Kind::OtherTracks => {
                let found = match self.other_tracks.as_slice() {
                    [] => return None,
                    [MediaKind::Video] => "several of pictures",
                    [MediaKind::Audio] => "several of sound",
                    _ => "several of pictures and of sound",
                };
                Some((found.to_owned(), "one of each".to_owned()))
            }
            Kind::ClockDrift => {
                let ppm = self.drift_ppm.filter(|ppm| ppm.abs() >= DRIFT_PPM)?;
                let way = if ppm > 0 { "slow" } else { "fast" };
                let per_hour = ppm.abs() * 36 / 10;
                let found = format!("{} ppm too {way}, {per_hour} ms an hour", ppm.abs());
                Some((found, format!("less than {DRIFT_PPM} ppm")))
            }
        }
    }

    fn missing(&self, kind: MediaKind) -> Option<(String, String)> {
        let for_us = self.arrivals.missing_us(kind);
        let what = match kind {
            MediaKind::Audio => "sound",
            MediaKind::Video => "pictures",
        };
        let found = match self.arrivals.has(kind) {
            true => format!("none for {}", seconds(for_us)),
            false => "none since the stream began".to_owned(),
        };
        (for_us >= MISSING_US).then(|| (found, format!("{what} all the time")))
    }

    /// Of what is lost on the way, or has no way, nothing would be gained by sending more.
    fn low_bitrate(&self, now_us: i64) -> Option<(String, String)> {
        let comes_whole = self.pictures.missing().is_none()
            && self.arrivals.stalls(now_us).is_none()
            && self.arrivals.behind(now_us).is_none();
        let bps = self.pictures.bps().filter(|_| comes_whole);
        let (found, wanted) = (bps?, self.top_rung_bps?);
        // A good encoder at half the rate may still be worth it; less is not.
        (found < wanted / 2).then(|| (rate(found), format!("{} or more", rate(wanted))))
    }
}

/// Microseconds as seconds with one decimal.
fn seconds(us: i64) -> String {
    let tenths = us.saturating_add(50_000).div_euclid(100_000);
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// Bits per second as people write them.
fn rate(bps: u64) -> String {
    if bps < 1_000_000 {
        return format!("{} kbit/s", bps / 1_000);
    }
    format!("{}.{} Mbit/s", bps / 1_000_000, bps / 100_000 % 10)
}

#[cfg(test)]
mod tests;
