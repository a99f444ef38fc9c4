//! Remembers what was observed and hands it to the rules.
//!
//! Enters: [`Observation`]s in the order in which they were made
//! Leaves: a [`Report`]
//! Never:  media: of each segment and part a few numbers and a hash are kept
//! Time:   microseconds since the Unix epoch, as observed
//! Spec:   docs/inspect.md

use std::collections::BTreeMap;

use super::boxes::{Init, Media};
use super::findings::{Findings, Place, Report};
use super::observation::{Observation, Role};
use super::playlist::{self, Multivariant, Segment};
use super::rules::{self, Level};
use super::text::join;
use super::timeline::Listings;
use super::{dash, http, listing, low_latency, media, mpd, multivariant, timeline};

/// A broadcast under inspection.
#[derive(Debug, Default)]
pub struct Inspector {
    pub(super) findings: Findings,
    pub(super) book: Book,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) multivariant: Option<Multivariant>,
    pub(super) renditions: BTreeMap<String, Rendition>,
    pub(super) mpd: Option<Published>,
    /// Hash and length of media by address.
    pub(super) bytes: BTreeMap<String, (u64, usize)>,
    /// What MPDs listed by time.
    pub(super) timelines: Listings,
    /// By address.
    pub(super) dash_inits: BTreeMap<String, Init>,
    /// Segments fetched as DASH names them.
    pub(super) dash: Vec<DashSegment>,
    /// The MPD's clock minus ours.
    pub(super) clock_offset_us: i64,
    /// Something was answered over HTTP.
    pub(super) is_served: bool,
}

/// The MPD as last seen.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) mpd: mpd::Mpd,
    pub(super) hash: u64,
    /// The first start seen.
    pub(super) start_us: Option<i64>,
}

/// A segment that the MPD addressed.
#[derive(Debug)]
pub(super) struct DashSegment {
    pub(super) representation: String,
    pub(super) number: u64,
    pub(super) hash: (u64, usize),
    pub(super) start_us: Option<i64>,
    /// Where the MPD puts it on the wall clock, if it lists it by its time.
    pub(super) wall_us: Option<i64>,
}

/// One media playlist and its media.
#[derive(Debug, Default)]
pub(super) struct Rendition {
    pub(super) url: String,
    pub(super) last: Option<playlist::Media>,
    /// When it came.
    pub(super) last_us: i64,
    /// Every segment ever listed.
    pub(super) listed: BTreeMap<u64, Segment>,
    /// When the newest segment was first seen.
    pub(super) newest_us: i64,
    /// When it was last seen that there is none newer.
    pub(super) waited_until_us: i64,
    /// Something was removed while it was watched.
    pub(super) has_slid: bool,
    /// How many discontinuities there were up to a segment, counted from the first of all.
    pub(super) breaks: BTreeMap<u64, u64>,
    /// By address.
    pub(super) inits: BTreeMap<String, Init>,
    pub(super) segments: BTreeMap<u64, Fetched>,
    pub(super) parts: BTreeMap<(u64, u64), Vec<(u64, usize)>>,
    /// How many parts a segment has, once it is whole.
    pub(super) part_counts: BTreeMap<u64, usize>,
    /// The status with which a hinted address was answered.
    pub(super) hints: BTreeMap<String, u16>,
}

/// A segment of which the bytes were seen.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) media: Media,
    pub(super) timescale: u32,
    pub(super) start_us: Option<i64>,
    pub(super) bytes: (u64, usize),
}

impl Book {
    /// Whether a media playlist lists the segment at `url` now.
    pub(super) fn lists(&self, url: &str) -> bool {
        self.renditions.values().any(|rendition| {
            let segments = rendition.last.iter().flat_map(|last| &last.segments);
            segments
                .into_iter()
                .any(|segment| join(&rendition.url, &segment.uri) == url)
        })
    }
}

impl Book {
    /// Whether segments begin where the source's key frames are, so that they are listed by their times.
    pub(super) fn is_cut_by_source(&self) -> bool {
        let mpd = self.mpd.as_ref();
        mpd.is_some_and(|published| published.mpd.has_timelines())
    }
}

impl Rendition {
    /// The init segment of the newest segment.
    pub(super) fn init(&self) -> Option<&Init> {
        let newest = self.listed.values().next_back();
        let map = newest.and_then(|segment| segment.map.as_ref());
        let init = map.and_then(|map| self.inits.get(&join(&self.url, map)));
        init.or_else(|| self.inits.values().next_back())
    }

    /// The init segment of segment `msn`, which may be in the making.
    pub(super) fn init_of(&self, msn: u64) -> Option<&Init> {
        let listed = self.listed.get(&msn).map(|segment| &segment.map);
        let open = || self.last.as_ref().map(|last| &last.open_map);
        let map = listed.or_else(open)?.as_ref()?;
        self.inits.get(&join(&self.url, map))
    }

    /// Whether segment `msn` is the first of a period, or the first that was ever listed.
    pub(super) fn begins_period(&self, msn: u64) -> bool {
        let map = |msn: u64| self.listed.get(&msn).map(|segment| &segment.map);
        let before = msn.checked_sub(1).and_then(map);
        before.is_none_or(|before| Some(before) != map(msn))
    }

    pub(super) fn is_video(&self) -> bool {
        self.init().is_some_and(|init| init.is_video)
    }

    pub(super) fn target_us(&self) -> Option<i64> {
        self.last.as_ref()?.target_s?.checked_mul(1_000_000)
    }

    /// The highest bit rate over consecutive segments of half to one and a half target durations.
    pub(super) fn peak_bps(&self) -> Option<u64> {
        let target = self.target_us()?;
        let facts: Vec<_> = self
            .segments
            .iter()
            .filter_map(|(msn, fetched)| Some((*msn, self.listed.get(msn)?.duration_us, fetched)))
            .collect();
        let mut peak = None;
        for (first, start) in facts.iter().enumerate() {
            let (mut length, mut bytes) = (0_i64, 0_u64);
            for (offset, (msn, duration, fetched)) in facts.iter().skip(first).enumerate() {
                if *msn != start.0 + u64::try_from(offset).unwrap_or(u64::MAX) {
                    break;
                }
                length += duration;
                bytes += u64::try_from(fetched.bytes.1).unwrap_or(u64::MAX);
                if length > target * 3 / 2 {
                    break;
                }
                if length >= target / 2 {
                    let length = u64::try_from(length).unwrap_or(u64::MAX).max(1);
                    peak = peak.max(Some(bytes.saturating_mul(8_000_000) / length));
                }
            }
        }
        peak
    }
}

impl Inspector {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often rules of `level` are broken so far.
    #[must_use]
    pub fn broken(&self, level: Level) -> u64 {
        self.findings.broken(level)
    }

    /// Takes the next observation.
    pub fn observe(&mut self, seen: &Observation) {
        let (findings, book) = (&mut self.findings, &mut self.book);
        book.is_served |= seen.answer.headers.is_some();
        http::observe(findings, book, seen);
        if !http::is_available(findings, book, seen) {
            return;
        }
        match &seen.role {
            Role::Multivariant => multivariant::observe(findings, book, seen),
            Role::Media => listing::observe(findings, book, seen),
            Role::Blocking { msn, part } => {
                low_latency::blocking(findings, seen, (*msn, *part));
                listing::observe(findings, book, seen);
            }
            Role::Delta => low_latency::delta(findings, book, seen),
            Role::Mpd => dash::observe(findings, book, seen),
            Role::Clock => dash::clock(findings, book, seen),
            Role::Init => media::init(findings, book, seen),
            Role::Segment { msn } => media::segment(findings, book, seen, *msn),
            Role::Part { msn, part } => low_latency::part(findings, book, seen, (*msn, *part)),
            Role::Hint => low_latency::hint(findings, book, seen),
            Role::DashInit => dash::init(findings, book, seen),
            Role::Again { .. } => media::again(findings, book, seen),
            Role::DashSegment { number, .. } => dash::segment(findings, book, seen, *number),
            Role::Probe(_) => {}
        }
    }

    /// Checks what needs to see everything, and ends.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let (findings, book) = (&mut self.findings, &self.book);
        listing::finish(findings, book);
        media::finish(findings, book);
        multivariant::finish(findings, book);
        dash::finish(findings, book);
        timeline::finish(findings, book);
        if book.renditions.is_empty() && book.mpd.is_none() {
            findings.check(&rules::HLS_AVAILABLE, false, &Place::default(), || {
                (
                    "no playlist and no MPD".to_owned(),
                    "something to play".to_owned(),
                )
            });
        }
        self.findings.into_report()
    }
}
