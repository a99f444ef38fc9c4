//! Keeps what a decoder needs to join an input at once: its samples since a key frame.
//!
//! Enters: tracks and samples of one publisher, in decode order
//! Leaves: the same again, from a key frame on; whether and how it may be joined
//! Never:  holds more than [`MAX_BYTES`], [`MAX_ITEMS`] and [`MAX_US`]; copies a sample's bytes
//! Time:   microseconds on the broadcast's timeline
//! Spec:   docs/resilience.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::VecDeque;

use crate::app::inputs::selector::Joinable;
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Sample, TrackInfo};

/// The most bytes that are held, with what it takes to hold them: ten seconds, the longest usual GOP, at 12 Mbit/s. What is longer is
/// joined at its next key frame.
const MAX_BYTES: usize = 16 << 20;
/// The most samples that are held, and changes of tracks between them: twelve seconds of 120 pictures per second and
/// of the shortest packets of sound are fewer.
const MAX_ITEMS: usize = 8_192;
/// The longest stretch that is held: as long takes seconds to decode.
const MAX_US: i64 = 12_000_000;
/// How far back is held at least where there is so much: to where a lost input was last seen, so that the
/// picture that stands meanwhile stands no longer than until the loss is noticed.
const REACH_US: i64 = 1_000_000;
/// Pieces are at least this long: of a source of key frames alone each would be one.
const MIN_PIECE_US: i64 = 250_000;
/// A key frame that came this long ago is no longer near.
const NEAR_US: i64 = 1_500_000;
/// An input that has not announced pictures for so long has none.
const SOUND_ALONE_US: i64 = 1_000_000;

/// Something of a publisher for the transcoder.
#[derive(Clone, Debug)]
pub(in crate::app) enum Item {
    /// A track begins or changes.
    Track(TrackInfo),
    /// One access unit.
    Sample {
        /// Its track.
        track: TrackId,
        /// Whether it is of pictures or of sound.
        kind: MediaKind,
        /// Its decode time, in microseconds on the broadcast's timeline.
        at_us: i64,
        /// The access unit.
        sample: Sample,
    },
}

impl Item {
    const fn kind(&self) -> MediaKind {
        match self {
            Self::Track(info) => info.codec.kind(),
            Self::Sample { kind, .. } => *kind,
        }
    }

    /// What it takes in memory.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Track(info) => header_bytes(info),
                Self::Sample { sample, .. } => sample.data.len(),
            }
    }
}

/// How long the header is that a track refers to.
fn header_bytes(info: &TrackInfo) -> usize {
    match &info.codec {
        CodecConfig::H264(config) => config.avcc.len(),
        CodecConfig::Hevc(config) => config.hvcc.len(),
        CodecConfig::Aac(config) => config.asc.len(),
        CodecConfig::Vp9(_) | CodecConfig::Av1(_) | CodecConfig::Opus(_) => 0,
    }
}

/// Samples from one place where decoding may begin to the next.
#[derive(Debug)]
struct Piece {
    begin_us: i64,
    /// Whether decoding may begin here; before the first such place, there is only sound.
    is_start: bool,
    /// The tracks where it begins.
    tracks: Vec<TrackInfo>,
    items: Vec<Item>,
    bytes: usize,
}

impl Piece {
    fn push(&mut self, item: &Item) {
        self.items.push(item.clone());
        self.bytes += item.bytes();
    }

    /// Forgets a track of `kind` that no sample came after: only the last of each kind counts, however many come.
    fn forget_said(&mut self, kind: MediaKind) {
        let is_track = |item: &Item| matches!(item, Item::Track(_));
        // They are two at most.
        let last = self.items.iter().rposition(|item| !is_track(item));
        let said = last.map_or(0, |last| last + 1);
        let mut said = said..self.items.len();
        let is_old = |at: &usize| self.items.get(*at).is_some_and(|item| item.kind() == kind);
        if let Some(at) = said.find(is_old) {
            self.bytes -= self.items.remove(at).bytes();
        }
    }
}

/// What is held of one publisher.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// One of each kind.
    tracks: Vec<TrackInfo>,
    pieces: VecDeque<Piece>,
    bytes: usize,
    first_us: Option<i64>,
    newest_us: i64,
}

impl Hold {
    /// Holds `item`, and forgets what is no longer needed.
    pub(super) fn push(&mut self, item: &Item) {
        match item {
            Item::Track(info) => {
                let kind = info.codec.kind();
                if kind == MediaKind::Video && !self.has_pictures() {
                    // What came before them was taken for sound alone.
                    for piece in &mut self.pieces {
                        piece.is_start = false;
                    }
                }
                self.tracks.retain(|known| known.codec.kind() != kind);
                self.tracks.push(info.clone());
                if let Some(piece) = self.pieces.back_mut() {
                    self.bytes -= piece.bytes;
                    piece.forget_said(kind);
                    piece.push(item);
                    self.bytes += piece.bytes;
                }
            }
            Item::Sample {
                kind,
                at_us,
                sample,
                ..
            } => {
                self.first_us.get_or_insert(*at_us);
                self.newest_us = *at_us;
                self.begin(*kind, *at_us, sample.keyframe);
                // Pictures before the first key frame are of no use to anybody.
                let fits = |piece: &&mut Piece| piece.is_start || *kind == MediaKind::Audio;
                if let Some(piece) = self.pieces.back_mut().filter(fits) {
                    piece.push(item);
                    self.bytes += item.bytes();
                }
            }
        }
        self.trim();
    }

    /// Begins a piece where one begins.
    fn begin(&mut self, kind: MediaKind, at_us: i64, keyframe: bool) {
        let is_start = keyframe && (kind == MediaKind::Video || !self.has_pictures());
        let is_due = match self.pieces.back() {
            None => is_start || kind == MediaKind::Audio,
            Some(last) => {
                is_start && (!last.is_start || at_us.saturating_sub(last.begin_us) >= MIN_PIECE_US)
            }
        };
        if is_due {
            let bytes = self.tracks.iter().map(header_bytes).sum();
            self.bytes += bytes;
            self.pieces.push_back(Piece {
                begin_us: at_us,
                is_start,
                tracks: self.tracks.clone(),
                items: Vec::new(),
                bytes,
            });
        }
    }

    fn trim(&mut self) {
        let newest_us = self.newest_us;
        let mut count: usize = self.pieces.iter().map(|piece| piece.items.len()).sum();
        while let Some(oldest) = self.pieces.front() {
            let is_long = newest_us.saturating_sub(oldest.begin_us) > MAX_US;
            let is_needless = self.pieces.get(1).is_some_and(|second| {
                !oldest.is_start || newest_us.saturating_sub(second.begin_us) >= REACH_US
            });
            let is_much = self.bytes > MAX_BYTES || count > MAX_ITEMS;
            if !is_long && !is_needless && !is_much {
                break;
            }
            self.bytes -= oldest.bytes;
            count -= oldest.items.len();
            self.pieces.pop_front();
        }
    }

    /// Whether and how a decoder that has come to `live_us` with another input may join.
    pub(super) fn joinable(&self, live_us: i64) -> Joinable {
        let pictures = self.has_pictures();
        let lasts_us = |since_us: i64| self.newest_us.saturating_sub(since_us);
        let is_known = pictures
            || self
                .first_us
                .is_some_and(|first| lasts_us(first) >= SOUND_ALONE_US);
        let is_start = |piece: Option<&Piece>| is_known && piece.is_some_and(|p| p.is_start);
        let is_near = self.pieces.back().is_some_and(|piece| {
            let since_us = lasts_us(piece.begin_us);
            // Where it leads, it is waited for; but not for ever.
            since_us <= NEAR_US && (piece.begin_us <= live_us || since_us >= REACH_US)
        });
        Joinable {
            now: is_start(self.pieces.front()),
            cheaply: is_start(self.pieces.back()) && is_near,
            pictures,
        }
    }

    /// Everything that is held, in the order in which it came.
    pub(super) fn in_order(&self) -> Vec<Item> {
        let first = self.pieces.front();
        let tracks = first.map_or(&self.tracks, |piece| &piece.tracks);
        let tracks = tracks.iter().cloned().map(Item::Track);
        let items = self.pieces.iter().flat_map(|piece| piece.items.iter());
        tracks.chain(items.cloned()).collect()
    }

    /// Everything that is held, or only what is since the newest key frame. Sound goes first: it is decoded in no
    /// time, and must not wait for pictures of which there may be seconds to decode.
    pub(super) fn items(&self, newest: bool) -> Vec<Item> {
        let skipped = if newest {
            self.pieces.len().saturating_sub(1)
        } else {
            0
        };
        let first = self.pieces.get(skipped);
        let tracks = first.map_or(&self.tracks, |piece| &piece.tracks);
        let tracks = tracks.iter().cloned().map(Item::Track);
        let pieces = self.pieces.iter().skip(skipped);
        let items = pieces.flat_map(|piece| piece.items.iter().cloned());
        let is_sound = |item: &Item| item.kind() == MediaKind::Audio;
        let (sound, pictures): (Vec<_>, Vec<_>) = tracks.chain(items).partition(is_sound);
        sound.into_iter().chain(pictures).collect()
    }

    fn has_pictures(&self) -> bool {
        let mut kinds = self.tracks.iter().map(|info| info.codec.kind());
        kinds.any(|kind| kind == MediaKind::Video)
    }
}

#[cfg(test)]
pub(in crate::app) mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::media::made_up;
    use crate::time::{Span, Ticks, Timescale};

    static ZEROES: [u8; 400_000] = [0; 400_000];

    fn id(kind: MediaKind) -> TrackId {
        TrackId::new(match kind {
            MediaKind::Video => NonZeroU32::MIN,
            MediaKind::Audio => NonZeroU32::new(2).expect("not zero"),
        })
    }

    pub(in crate::app) fn pictures() -> Item {
        Item::Track(TrackInfo {
            id: id(MediaKind::Video),
            timescale: Timescale::VIDEO_90K,
            codec: made_up::h264(640, 360, None),
        })
    }

    pub(in crate::app) fn sound() -> Item {
        Item::Track(TrackInfo {
            id: id(MediaKind::Audio),
            timescale: Timescale::MILLIS,
            codec: made_up::aac(48_000),
        })
    }

    pub(in crate::app) fn sample(kind: MediaKind, ms: i64, keyframe: bool, bytes: usize) -> Item {
        let at = Ticks::new(ms);
        Item::Sample {
            track: id(kind),
            kind,
            at_us: ms * 1_000,
            sample: Sample {
                dts: at,
                pts: at,
                duration: Span::new(40),
                keyframe,
                data: Bytes::from_static(&ZEROES).slice(..bytes),
            },
        }
    }

    /// Pictures of 25 frames per second with a key frame every `gop`, and their sound, up to frame `count`.
    fn held(gop: i64, count: i64) -> Hold {
        let mut hold = Hold::default();
        hold.push(&pictures());
        hold.push(&sound());
        for n in 0..count {
            hold.push(&sample(MediaKind::Video, n * 40, n % gop == 0, 100));
            hold.push(&sample(MediaKind::Audio, n * 40, true, 10));
        }
        hold
    }

    /// Where what is held begins, in milliseconds.
    fn begins(items: &[Item]) -> Option<i64> {
        let samples = items.iter().filter_map(|item| match item {
            Item::Sample { at_us, .. } => Some(at_us / 1_000),
            Item::Track(_) => None,
        });
        samples.min()
    }

    #[test]
    fn holds_from_a_key_frame_that_is_a_second_old() {
        // Key frames at 0, 2000 and 4000 ms.
        for (count, begin) in [(10, 0), (60, 0), (76, 2_000), (110, 2_000), (126, 4_000)] {
            let hold = held(50, count);
            let items = hold.items(false);
            let kinds: Vec<MediaKind> = items.iter().map(Item::kind).collect();
            assert!(
                kinds.is_sorted_by_key(|kind| *kind == MediaKind::Video),
                "sound first"
            );
            assert!(matches!(items.first(), Some(Item::Track(_))));
            assert_eq!(begins(&items), Some(begin), "{count}");
            assert!(hold.joinable(0).now);
        }
        assert_eq!(begins(&held(50, 60).items(true)), Some(2_000));
    }

    #[test]
    fn in_its_order_what_is_held_begins_with_both_tracks_and_the_key_frame() {
        let mut hold = Hold::default();
        hold.push(&sound());
        for n in 0..60 {
            hold.push(&sample(MediaKind::Audio, n * 20, true, 10));
        }
        hold.push(&pictures());
        for n in 0..30 {
            let ms = 1_200 + n * 40;
            hold.push(&sample(MediaKind::Audio, ms, true, 10));
            hold.push(&sample(MediaKind::Video, ms, n == 3, 100));
        }
        let items = hold.in_order();
        let is_track = |item: &&Item| matches!(item, Item::Track(_));
        assert_eq!(items.iter().take_while(is_track).count(), 2);
        assert_eq!(begins(&items), Some(1_320));
        assert!(matches!(
            &items[2],
            Item::Sample {
                kind: MediaKind::Video,
                ..
            }
        ));
    }

    #[test]
    fn is_joined_cheaply_where_its_key_frame_meets_the_other() {
        let cheaply = |count, live_ms: i64| held(50, count).joinable(live_ms * 1_000).cheaply;
        // The key frame lies at 2000 ms; the newest frame at 2000 and 2040.
        assert!(cheaply(51, 2_010));
        assert!(!cheaply(51, 1_900), "it leads: a frame would be missing");
        assert!(cheaply(80, 1_900), "it leads for long");
        assert!(!cheaply(50, 2_010), "the key frame is old");
    }

    #[test]
    fn without_a_key_frame_there_is_nothing_to_join() {
        let mut hold = Hold::default();
        hold.push(&pictures());
        hold.push(&sound());
        for n in 0..200 {
            hold.push(&sample(MediaKind::Audio, n * 20, true, 10));
            assert!(!hold.joinable(0).now);
        }
        hold.push(&sample(MediaKind::Video, 4_000, true, 10));
        assert!(hold.joinable(0).now);
        assert_eq!(begins(&hold.items(false)), Some(4_000));
    }

    #[test]
    fn sound_alone_is_joined_once_no_pictures_were_announced_for_a_while() {
        let mut hold = Hold::default();
        hold.push(&sound());
        for n in 0..200 {
            hold.push(&sample(MediaKind::Audio, n * 20, true, 10));
            assert_eq!(hold.joinable(0).now, n >= 50, "{n}");
        }
        let begin = begins(&hold.items(false)).expect("held");
        assert!((2_400..=3_000).contains(&begin), "{begin}");
    }

    fn held_items(hold: &Hold) -> impl Iterator<Item = &Item> {
        hold.pieces.iter().flat_map(|piece| &piece.items)
    }

    #[test]
    fn however_small_samples_are_there_are_not_too_many() {
        let mut hold = Hold::default();
        hold.push(&pictures());
        for n in 0..30_000 {
            hold.push(&sample(MediaKind::Video, n / 10, n % 10_000 == 0, 6));
            assert!(held_items(&hold).count() <= MAX_ITEMS);
        }
        // What does not fit is joined at the next key frame.
        assert!(!hold.joinable(0).now);
        hold.push(&sample(MediaKind::Video, 3_000, true, 6));
        assert!(hold.joinable(0).now);
    }

    #[test]
    fn headers_that_change_all_the_time_are_counted() {
        let header = |bytes: usize| {
            let Item::Track(mut info) = pictures() else {
                unreachable!("a track")
            };
            let CodecConfig::H264(config) = &mut info.codec else {
                unreachable!("pictures")
            };
            config.avcc = Bytes::from_static(&ZEROES).slice(..bytes);
            Item::Track(info)
        };
        let mut hold = Hold::default();
        for n in 0..2_000 {
            hold.push(&header(400_000 - n));
            hold.push(&header(399_999 - n));
            let ms = i64::try_from(n).expect("small");
            hold.push(&sample(MediaKind::Video, ms, n % 500 == 0, 6));
            let headers = held_items(&hold).filter(|item| matches!(item, Item::Track(_)));
            assert!(headers.count() * 398_000 <= MAX_BYTES);
        }
    }

    proptest! {
        /// Whatever comes, it is bounded, and what may be joined begins with a key frame.
        #[test]
        fn is_bounded_and_decodable(
            samples in prop::collection::vec((any::<bool>(), 0..40_u8, 0..400_000_usize), 1..500),
        ) {
            let mut hold = Hold::default();
            hold.push(&pictures());
            hold.push(&sound());
            for (n, (is_picture, keyframe, bytes)) in (0_i64..).zip(samples) {
                let item = if is_picture {
                    sample(MediaKind::Video, n * 40, keyframe == 0, bytes)
                } else {
                    sample(MediaKind::Audio, n * 40, true, bytes / 10)
                };
                hold.push(&item);
                prop_assert!(hold.bytes <= MAX_BYTES && held_items(&hold).count() <= MAX_ITEMS);
                if n % 10 > 0 {
                    continue;
                }
                let items = hold.items(false);
                let samples = || items.iter().filter_map(|item| match item {
                    Item::Sample { kind, at_us, sample, .. } => Some((*kind, *at_us, sample)),
                    Item::Track(_) => None,
                });
                prop_assert_eq!(held_items(&hold).map(Item::bytes).sum::<usize>(), hold.bytes);
                prop_assert!(samples().all(|(_, at_us, _)| hold.newest_us - at_us <= MAX_US));
                let pictures = samples().find(|(kind, ..)| *kind == MediaKind::Video);
                if hold.joinable(0).now {
                    prop_assert!(pictures.is_some_and(|(.., sample)| sample.keyframe));
                } else {
                    prop_assert!(pictures.is_none());
                }
            }
        }
    }
}
