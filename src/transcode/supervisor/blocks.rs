//! Memory to read into, used again once nothing that was read lies in it any more.
//!
//! Enters: blocks that are full
//! Leaves: empty ones
//! Never:  waits; holds free memory beyond one block
//! Time:   none
//! Spec:   none
//!
//! What is read stays where it was read to until it leaves the window: samples are slices of a block. Blocks
//! become free in about the order in which they were filled. Given back to the allocator and asked for again,
//! they scatter over its arenas: a three-rung broadcast's server grew from 48 to 62 MB within ten minutes.

use std::collections::VecDeque;

use bytes::BytesMut;

/// What a block holds.
const BLOCK_BYTES: usize = 256 * 1024;
/// How many of the oldest blocks are looked at for a free one: a slow reader of one segment keeps only
/// the few blocks that this segment lies in.
const MAX_LOOKED_AT: usize = 16;

/// Full blocks, oldest first. Bounded by what their users keep: a block that is free is the next to be used.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    full: VecDeque<BytesMut>,
}

impl Blocks {
    /// The first buffer to read into.
    pub(super) fn first() -> BytesMut {
        BytesMut::with_capacity(BLOCK_BYTES)
    }

    /// Makes room in `buffer` for at least `spare` bytes, in another block if it takes one. What the buffer
    /// holds stays in it.
    pub(super) fn make_room(&mut self, buffer: &mut BytesMut, spare: usize) {
        if buffer.capacity() - buffer.len() >= spare {
            return;
        }
        // Doubled, so that a message much larger than a block is not copied again and again.
        let wanted = BLOCK_BYTES.max(2 * buffer.len() + spare);
        let mut next = self
            .free(wanted)
            .unwrap_or_else(|| BytesMut::with_capacity(wanted));
        next.extend_from_slice(buffer);
        buffer.clear();
        self.full.push_back(std::mem::replace(buffer, next));
    }

    /// A block that nothing lies in any more; further ones are given back to the system.
    fn free(&mut self, wanted: usize) -> Option<BytesMut> {
        let mut found = None;
        let mut at = 0;
        while at < self.full.len().min(MAX_LOOKED_AT) {
            let is_free = self
                .full
                .get_mut(at)
                .is_some_and(|block| block.try_reclaim(wanted));
            if !is_free {
                at += 1;
                continue;
            }
            let block = self.full.remove(at);
            if found.is_some() {
                break;
            }
            found = block;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// Reads `pieces` in turn, of which a window of `kept` stays; the most blocks there ever were.
    fn read(pieces: &[usize], kept: usize) -> usize {
        let mut blocks = Blocks::default();
        let mut buffer = Blocks::first();
        let mut window: VecDeque<(u8, Bytes)> = VecDeque::new();
        let mut most = 0;
        for (mark, piece) in (0..=u8::MAX).cycle().zip(pieces) {
            blocks.make_room(&mut buffer, *piece);
            buffer.resize(buffer.len() + piece, mark);
            window.push_back((mark, buffer.split_to(*piece).freeze()));
            if window.len() > kept {
                window.pop_front();
            }
            most = most.max(blocks.full.len());
            let whole = |(mark, bytes): &(u8, Bytes)| bytes.iter().all(|byte| byte == mark);
            assert!(window.iter().all(whole), "a block was used again too early");
        }
        most
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn blocks_are_used_again_and_never_too_early(
            pieces in prop::collection::vec(1_usize..60_000, 200..400), kept in 1_usize..40,
        ) {
            let most = read(&pieces, kept);
            // Those that the window lies in, one that is being filled, and the ends that stay empty.
            let held = kept * 60_000 / (BLOCK_BYTES - 60_000) + 3;
            prop_assert!(most <= held, "{most} blocks for {kept} pieces");
        }
    }

    #[test]
    fn piece_larger_than_a_block_gets_one_of_its_own() {
        assert!(read(&[10, 3 * BLOCK_BYTES, 10, 3 * BLOCK_BYTES, 10], 2) <= 4);
    }
}
