//! What waits for a transcoder that is not as far yet.
//!
//! Enters: what the other transcoder was given, in order
//! Leaves: the same, but for what there is no room for
//! Never:  more than [`MAX_SAMPLES`] or [`MAX_BYTES`]; a picture without the one that it refers to
//! Time:   none
//! Spec:   docs/resilience.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::VecDeque;

use super::Piece;
use crate::app::inputs::Item;
use crate::media::MediaKind;

/// The most that waits: what is held of an input, twelve seconds, and half a minute of pictures and sound.
pub(super) const MAX_SAMPLES: usize = 4_096;
/// The same in bytes: twice what is held of an input.
const MAX_BYTES: usize = 32 << 20;

/// What waits, the first first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Whether a picture was left out, so that none can be decoded until the next key frame.
    is_broken: bool,
}

impl Waiting {
    /// What an input is joined with: bounded by itself.
    pub(super) fn of(items: Vec<Item>) -> Self {
        let pieces: VecDeque<_> = items.into_iter().map(Piece::Item).collect();
        Self {
            bytes: pieces.iter().map(bytes).sum(),
            pieces,
            is_broken: false,
        }
    }

    /// Has `piece` wait, if there is room, or it has to be known.
    pub(super) fn push(&mut self, piece: Piece) {
        match &piece {
            Piece::Item(Item::Sample { kind, sample, .. }) => {
                let is_picture = *kind == MediaKind::Video;
                let is_full = self.pieces.len() >= MAX_SAMPLES
                    || self.bytes.saturating_add(bytes(&piece)) > MAX_BYTES;
                self.is_broken &= !(is_picture && sample.keyframe && !is_full);
                self.is_broken |= is_picture && is_full;
                if is_full || is_picture && self.is_broken {
                    return;
                }
            }
            Piece::Item(Item::Track(info)) => {
                let kind = info.codec.kind();
                self.replace(|known| {
                    matches!(known, Piece::Item(Item::Track(info)) if info.codec.kind() == kind)
                });
            }
            // Of a source that sent nothing, nothing need be known.
            Piece::Detach => self.replace(|_| true),
        }
        self.bytes = self.bytes.saturating_add(bytes(&piece));
        self.pieces.push_back(piece);
    }

    /// Forgets what `is_old`, as far as no sample came after it: however often it is said, the last counts.
    fn replace(&mut self, is_old: impl Fn(&Piece) -> bool) {
        let said = self.pieces.iter().rev();
        let said = said.take_while(|piece| !is_sample(piece)).count();
        let said = self.pieces.split_off(self.pieces.len() - said);
        let said = said.into_iter().filter(|piece| !is_old(piece));
        self.pieces.extend(said);
    }

    /// The first.
    pub(super) fn front(&self) -> Option<&Piece> {
        self.pieces.front()
    }

    /// Takes the first.
    pub(super) fn pop_front(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes(&piece));
        Some(piece)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

const fn is_sample(piece: &Piece) -> bool {
    matches!(piece, Piece::Item(Item::Sample { .. }))
}

fn bytes(piece: &Piece) -> usize {
    match piece {
        Piece::Item(Item::Sample { sample, .. }) => sample.data.len(),
        Piece::Item(Item::Track(_)) | Piece::Detach => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::inputs::made_up::{pictures, sample, sound};

    fn picture(ms: i64, keyframe: bool) -> Piece {
        Piece::Item(sample(MediaKind::Video, ms, keyframe, 1))
    }

    fn full() -> Waiting {
        let n = i64::try_from(MAX_SAMPLES).expect("small");
        Waiting::of(
            (0..n)
                .map(|n| sample(MediaKind::Audio, n, true, 1))
                .collect(),
        )
    }

    /// When the pictures that wait are, in milliseconds.
    fn pictures_of(waiting: &Waiting) -> Vec<i64> {
        let found = waiting.pieces.iter().filter_map(|piece| match piece {
            Piece::Item(Item::Sample { kind, at_us, .. }) => {
                (*kind == MediaKind::Video).then_some(*at_us / 1_000)
            }
            _ => None,
        });
        found.collect()
    }

    #[test]
    fn pictures_go_on_with_a_key_frame_where_one_was_left_out() {
        let mut waiting = full();
        waiting.push(picture(0, true));
        assert!(waiting.pop_front().is_some());
        waiting.push(picture(40, false));
        assert!(
            pictures_of(&waiting).is_empty(),
            "what it refers to is not there"
        );
        waiting.push(picture(80, true));
        assert_eq!(pictures_of(&waiting), [80]);
        assert!(waiting.pop_front().is_some());
        waiting.push(picture(120, false));
        assert_eq!(pictures_of(&waiting), [80, 120]);
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_too() {
        let mut waiting = Waiting::default();
        for n in 0..1_000 {
            waiting.push(Piece::Item(sample(MediaKind::Audio, n, true, 400_000)));
        }
        let bytes: usize = waiting.pieces.iter().map(bytes).sum();
        assert_eq!(bytes, waiting.bytes);
        assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES - 400_000, "{bytes}");
        while waiting.pop_front().is_some() {}
        assert_eq!(waiting.bytes, 0);
    }

    #[test]
    fn tracks_that_are_said_again_and_again_do_not_pile_up() {
        let mut waiting = full();
        for _ in 0..1_000 {
            waiting.push(Piece::Item(pictures()));
            waiting.push(Piece::Item(sound()));
        }
        assert_eq!(waiting.pieces.len(), MAX_SAMPLES + 2);
        for _ in 0..1_000 {
            waiting.push(Piece::Detach);
            waiting.push(Piece::Item(pictures()));
        }
        assert_eq!(waiting.pieces.len(), MAX_SAMPLES + 2);
    }
}
