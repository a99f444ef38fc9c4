//! Reads a byte slice bit by bit.
//!
//! Enters: bytes from anyone
//! Leaves: integers, or [`Error`] at the end of the bytes
//! Never:  panics, reads past the end, allocates
//! Spec:   [H264] §7.2, §9.1 (Exp-Golomb); [AV1] §4.10

/// Why a value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes ended inside a value.
    #[error("the bits end at {at_bit}, {wanted} more were needed")]
    End {
        /// Position at which the value began.
        at_bit: usize,
        /// Bits that the value needs.
        wanted: usize,
    },
    /// An Exp-Golomb code of more than 32 bits.
    #[error("a variable-length code at bit {at_bit} is too long")]
    TooLong {
        /// Position at which the code began.
        at_bit: usize,
    },
}

/// A cursor over bits, the most significant of each byte first. After an error the position is unspecified.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// A cursor at the first bit of `data`.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Bits not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.data.len().saturating_mul(8).saturating_sub(self.at)
    }

    /// One bit.
    ///
    /// # Errors
    /// [`Error::End`].
    pub fn flag(&mut self) -> Result<bool, Error> {
        let byte = self.data.get(self.at / 8).ok_or(Error::End {
            at_bit: self.at,
            wanted: 1,
        })?;
        let set = byte >> (7 - self.at % 8) & 1 == 1;
        self.at += 1;
        Ok(set)
    }

    /// `count` bits, at most 32, as an unsigned number.
    ///
    /// # Errors
    /// [`Error::End`].
    pub fn bits(&mut self, count: u32) -> Result<u32, Error> {
        let count = count.min(32);
        if self.remaining() < count as usize {
            return Err(Error::End {
                at_bit: self.at,
                wanted: count as usize,
            });
        }
        let mut value = 0_u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    /// `count` bits, at most 8.
    ///
    /// # Errors
    /// [`Error::End`].
    pub fn bits8(&mut self, count: u32) -> Result<u8, Error> {
        Ok(u8::try_from(self.bits(count.min(8))?).unwrap_or(u8::MAX))
    }

    /// Passes over `count` bits.
    ///
    /// # Errors
    /// [`Error::End`].
    pub const fn skip(&mut self, count: usize) -> Result<(), Error> {
        if self.remaining() < count {
            return Err(Error::End {
                at_bit: self.at,
                wanted: count,
            });
        }
        self.at += count;
        Ok(())
    }

    /// Moves to the next byte boundary, if not on one.
    pub const fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    /// An unsigned Exp-Golomb code, `ue(v)`; also AV1's `uvlc()`.
    ///
    /// # Errors
    /// [`Error::End`], or [`Error::TooLong`] above 2^32 − 2.
    pub fn ue(&mut self) -> Result<u32, Error> {
        let at_bit = self.at;
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(Error::TooLong { at_bit });
            }
        }
        let base = (1_u32 << zeros) - 1;
        Ok(base + self.bits(zeros)?)
    }

    /// A signed Exp-Golomb code, `se(v)`.
    ///
    /// # Errors
    /// As [`Self::ue`].
    pub fn se(&mut self) -> Result<i64, Error> {
        let code = i64::from(self.ue()?);
        Ok(if code % 2 == 1 {
            (code + 1) / 2
        } else {
            -code / 2
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exp_golomb_follows_the_table() {
        // 1 | 010 | 011 | 00100 | 00101 -> 0 1 2 3 4
        let mut bits = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        for value in 0..5 {
            assert_eq!(bits.ue(), Ok(value));
        }
        let mut bits = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        for value in [0, 1, -1, 2, -2] {
            assert_eq!(bits.se(), Ok(value));
        }
    }

    #[test]
    fn the_end_is_an_error_and_moves_nothing() {
        let mut bits = BitReader::new(&[0xFF]);
        assert_eq!(
            bits.bits(9),
            Err(Error::End {
                at_bit: 0,
                wanted: 9
            })
        );
        assert_eq!(bits.bits(8), Ok(255));
        assert!(bits.flag().is_err());
        assert!(BitReader::new(&[0; 64]).ue().is_err());
    }

    proptest! {
        #[test]
        fn random_reads_never_panic(data in proptest::collection::vec(any::<u8>(), 0..40), ops in proptest::collection::vec(0_u32..40, 0..60)) {
            let mut bits = BitReader::new(&data);
            for op in ops {
                let before = bits.remaining();
                let _ = match op % 4 { 0 => bits.ue().map(|_| ()), 1 => bits.se().map(|_| ()), 2 => bits.skip(op as usize), _ => bits.bits(op).map(|_| ()) };
                prop_assert!(bits.remaining() <= before);
            }
        }
    }
}
