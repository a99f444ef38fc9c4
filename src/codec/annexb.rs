//! NAL units in their two framings: start codes (Annex B) and length prefixes.
//!
//! Enters: access units from publishers and encoders
//! Leaves: NAL units without framing; bodies in 4-byte length prefixes
//! Never:  a look inside a NAL unit, beyond emulation prevention
//! Spec:   [H264] annex B, §7.4.1; [NALFF] §5.3.2

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

/// Why a body is not a row of length-prefixed NAL units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body ends inside a length.
    #[error("the length of a NAL unit is cut off at byte {at_byte}")]
    CutLength {
        /// Where the length begins.
        at_byte: usize,
    },
    /// A length points past the end of the body.
    #[error("a NAL unit at byte {at_byte} claims {claimed} bytes, {left} are left")]
    CutNal {
        /// Where the NAL unit begins.
        at_byte: usize,
        /// Its length as written.
        claimed: usize,
        /// Bytes that follow.
        left: usize,
    },
}

/// Bytes of each NAL unit's length prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthSize {
    /// One byte.
    One,
    /// Two bytes.
    Two,
    /// Four bytes, the form of every [`Sample`](crate::media::Sample).
    Four,
}

impl LengthSize {
    /// Number of bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// The NAL units of a length-prefixed body, empty ones left out. Ends after the first error.
#[derive(Clone, Debug)]
pub struct LengthPrefixed<'a> {
    data: &'a [u8],
    at: usize,
    size: LengthSize,
}

impl<'a> LengthPrefixed<'a> {
    /// The NAL units of `data`, each behind a length of `size`.
    #[must_use]
    pub const fn new(data: &'a [u8], size: LengthSize) -> Self {
        Self { data, at: 0, size }
    }

    fn read(&mut self) -> Result<&'a [u8], Error> {
        let begin = self.at + self.size.bytes();
        let Some(length) = self.data.get(self.at..begin) else {
            return Err(Error::CutLength { at_byte: self.at });
        };
        let claimed = length
            .iter()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        let left = self.data.get(begin..).unwrap_or_default();
        let Some(nal) = left.get(..claimed) else {
            return Err(Error::CutNal {
                at_byte: begin,
                claimed,
                left: left.len(),
            });
        };
        self.at = begin + claimed;
        Ok(nal)
    }
}

impl<'a> Iterator for LengthPrefixed<'a> {
    type Item = Result<&'a [u8], Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.data.len() {
            match self.read() {
                Ok([]) => {}
                Ok(nal) => return Some(Ok(nal)),
                Err(error) => {
                    self.at = self.data.len();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// The NAL units of a body with start codes, empty ones left out; bytes before the first start code are
/// passed over, zero bytes after a NAL unit belong to none.
#[must_use]
pub const fn start_coded(data: &[u8]) -> StartCoded<'_> {
    StartCoded {
        data,
        begin: after_start_code(data, 0),
    }
}

/// Iterator of [`start_coded`].
#[derive(Clone, Debug)]
pub struct StartCoded<'a> {
    data: &'a [u8],
    begin: Option<usize>,
}

impl<'a> Iterator for StartCoded<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(begin) = self.begin {
            self.begin = after_start_code(self.data, begin);
            let end = self.begin.map_or(self.data.len(), |next| next - 3);
            let mut nal = self.data.get(begin..end).unwrap_or_default();
            while let [rest @ .., 0] = nal {
                nal = rest;
            }
            if !nal.is_empty() {
                return Some(nal);
            }
        }
        None
    }
}

/// The position behind the first `00 00 01` at or after `from`.
const fn after_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at + 3 <= data.len() {
        if data[at] == 0 && data[at + 1] == 0 && data[at + 2] == 1 {
            return Some(at + 3);
        }
        at += 1;
    }
    None
}

/// Whether `data` begins with a start code of three or four bytes.
#[must_use]
pub const fn is_start_coded(data: &[u8]) -> bool {
    matches!(data, [0, 0, 1, ..] | [0, 0, 0, 1, ..])
}

/// `nals`, each behind a 4-byte length.
#[must_use]
pub fn join<'a>(nals: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut out = BytesMut::new();
    for nal in nals {
        // A NAL unit is a slice of one message, whose size the ingest limits far below 4 GiB.
        out.put_u32(u32::try_from(nal.len()).unwrap_or(u32::MAX));
        out.put_slice(nal);
    }
    out.freeze()
}

/// A body with start codes as one with 4-byte lengths.
#[must_use]
pub fn to_length_prefixed(data: &[u8]) -> Bytes {
    join(start_coded(data))
}

/// A body with lengths of `size` as one with 4-byte lengths; shares the bytes if it already is one.
///
/// # Errors
/// [`Error`] if the lengths do not add up to the body.
pub fn widen_lengths(data: &Bytes, size: LengthSize) -> Result<Bytes, Error> {
    let nals = LengthPrefixed::new(data, size);
    if size == LengthSize::Four {
        nals.clone().try_for_each(|nal| nal.map(|_| ()))?;
        return Ok(data.clone());
    }
    let nals = nals.collect::<Result<Vec<_>, _>>()?;
    Ok(join(nals))
}

/// A NAL unit without its emulation prevention bytes; borrows if there are none.
#[must_use]
pub fn unescape(nal: &[u8]) -> Cow<'_, [u8]> {
    if !nal.windows(3).any(|three| three == [0, 0, 3]) {
        return Cow::Borrowed(nal);
    }
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for byte in nal {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_part_nal_units() {
        let data = [
            9, 0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 0, 0, 0, 1, 0, 0, 1, 0x65,
        ];
        let nals: Vec<&[u8]> = start_coded(&data).collect();
        assert_eq!(nals, [&[0x67, 1][..], &[0x68], &[0x65]]);
        assert_eq!(
            to_length_prefixed(&data)[..],
            [0, 0, 0, 2, 0x67, 1, 0, 0, 0, 1, 0x68, 0, 0, 0, 1, 0x65]
        );
    }

    #[test]
    fn shorter_lengths_are_widened() {
        for (size, data) in [
            (LengthSize::One, &[2, 0x65, 7, 0, 1, 0x06][..]),
            (LengthSize::Two, &[0, 2, 0x65, 7, 0, 1, 0x06]),
        ] {
            let wide = widen_lengths(&Bytes::copy_from_slice(data), size).expect("valid");
            assert_eq!(wide[..], [0, 0, 0, 2, 0x65, 7, 0, 0, 0, 1, 0x06]);
        }
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        let cut = |data: &'static [u8]| widen_lengths(&Bytes::from_static(data), LengthSize::Four);
        assert_eq!(
            cut(&[0, 0, 0, 9, 1]),
            Err(Error::CutNal {
                at_byte: 4,
                claimed: 9,
                left: 1
            })
        );
        assert_eq!(cut(&[0, 0]), Err(Error::CutLength { at_byte: 0 }));
    }

    #[test]
    fn emulation_prevention_is_removed() {
        assert_eq!(unescape(&[1, 0, 0, 3, 1, 0, 0, 3])[..], [1, 0, 0, 1, 0, 0]);
        assert_eq!(unescape(&[0, 0, 0, 3, 0])[..], [0, 0, 0, 0]);
        assert!(matches!(unescape(&[0, 0, 2]), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn joining_and_parting_are_inverse(nals in proptest::collection::vec(proptest::collection::vec(1_u8..255, 1..20), 0..8)) {
            let joined = join(nals.iter().map(Vec::as_slice));
            let parted: Result<Vec<_>, _> = LengthPrefixed::new(&joined, LengthSize::Four).collect();
            let parted = parted.expect("just joined");
            prop_assert_eq!(&parted, &nals);
        }

        #[test]
        fn random_bytes_never_panic(data in proptest::collection::vec(0_u8..5, 0..60)) {
            let _ = start_coded(&data).count();
            let _ = unescape(&data);
            for size in [LengthSize::One, LengthSize::Two, LengthSize::Four] {
                let _ = LengthPrefixed::new(&data, size).count();
            }
        }
    }
}
