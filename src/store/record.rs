//! An object with its headers as one file of the spool, that tells when it is not whole.
//!
//! Enters: a [`Put`]; or what a file begins with, and the rest of it
//! Leaves: the same the other way round
//! Never:  files; a body that is not the one that was written
//! Time:   none
//! Spec:   none
//!
//! ```text
//! magic 8 │ hash of the header after it 8 │ length of that 4 │ length of the body 8 │ hash of the body 8 │
//! key, content type, cache control: each its length 2 and its text │ body
//! ```
//!
//! Numbers are little-endian. The hash of the header covers everything between it and the body, so that an index
//! is read without the bodies.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::queue::Put;
use crate::media::Payload;

const MAGIC: &[u8; 8] = b"hwspool1";
/// Magic, hash, and length of the rest of the header.
pub(crate) const PREFIX_BYTES: usize = 8 + 8 + 4;
/// More than a header can have: three texts whose lengths take two bytes each.
const MAX_REST_BYTES: usize = 16 + 3 * (2 + 0xffff);

/// What stands before the body of a file.
#[derive(Debug)]
pub(crate) struct Header {
    /// The object, without its body.
    pub(crate) put: Put,
    /// Bytes of the body.
    pub(crate) body_len: u64,
    body_hash: u64,
}

/// What stands before the body of `put`; `None` if its key or a header is longer than any is.
pub(crate) fn header(put: &Put) -> Option<Bytes> {
    let mut body = Xxh3Default::new();
    for piece in put.body.pieces() {
        body.update(piece);
    }
    let mut rest = Vec::with_capacity(256);
    rest.extend_from_slice(&put.body.len().to_le_bytes());
    rest.extend_from_slice(&body.digest().to_le_bytes());
    for text in [&*put.key.to_string(), &put.content_type, &put.cache_control] {
        let len = u16::try_from(text.len()).ok()?;
        rest.extend_from_slice(&len.to_le_bytes());
        rest.extend_from_slice(text.as_bytes());
    }
    let len = u32::try_from(rest.len()).ok()?.to_le_bytes();
    let mut header = Vec::with_capacity(PREFIX_BYTES + rest.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&hash(len, &rest).to_le_bytes());
    header.extend_from_slice(&len);
    header.extend_from_slice(&rest);
    Some(header.into())
}

/// How many bytes of header follow `prefix`, the first of a file; `None` if it is no file of the spool.
pub(crate) fn rest_len(prefix: &[u8; PREFIX_BYTES]) -> Option<usize> {
    let (magic, after) = prefix.split_first_chunk::<8>()?;
    let (_, len) = after.split_first_chunk::<8>()?;
    let len = u32::from_le_bytes(*len.first_chunk::<4>()?);
    let len = usize::try_from(len).ok()?;
    (magic == MAGIC && len <= MAX_REST_BYTES).then_some(len)
}

/// The header that consists of `prefix` and `rest`; `None` if it is not whole.
pub(crate) fn parse(prefix: &[u8; PREFIX_BYTES], rest: &[u8]) -> Option<Header> {
    let (_, after) = prefix.split_first_chunk::<8>()?;
    let (expected, len) = after.split_first_chunk::<8>()?;
    if u64::from_le_bytes(*expected) != hash(*len.first_chunk::<4>()?, rest) {
        return None;
    }
    let (body_len, rest) = rest.split_first_chunk::<8>()?;
    let (body_hash, rest) = rest.split_first_chunk::<8>()?;
    let (key, rest) = text(rest)?;
    let (content_type, rest) = text(rest)?;
    let (cache_control, _) = text(rest)?;
    Some(Header {
        put: Put {
            key: key.parse().ok()?,
            body: Payload::default(),
            content_type: content_type.to_owned().into(),
            cache_control: cache_control.to_owned().into(),
        },
        body_len: u64::from_le_bytes(*body_len),
        body_hash: u64::from_le_bytes(*body_hash),
    })
}

impl Header {
    /// The object with `body`; `None` if that is not the body that was written.
    pub(crate) fn with_body(self, body: Bytes) -> Option<Put> {
        let is_whole = body.len() as u64 == self.body_len && xxh3_64(&body) == self.body_hash;
        is_whole.then(|| Put {
            body: body.into(),
            ..self.put
        })
    }
}

fn hash(len: [u8; 4], rest: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(&len);
    hash.update(rest);
    hash.digest()
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(put: &Put) -> Vec<u8> {
        let mut file = header(put).expect("short texts").to_vec();
        for piece in put.body.pieces() {
            file.extend_from_slice(piece);
        }
        file
    }

    fn read(file: &[u8]) -> Option<Put> {
        let (prefix, after) = file.split_first_chunk::<PREFIX_BYTES>()?;
        let (rest, body) = after.split_at_checked(rest_len(prefix)?)?;
        parse(prefix, rest)?.with_body(Bytes::copy_from_slice(body))
    }

    fn any_put() -> impl Strategy<Value = Put> {
        let pieces = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4);
        (any::<u64>(), pieces).prop_map(|(number, pieces)| Put {
            key: format!("live/demo/v720/{number}.m4s")
                .parse()
                .expect("a key"),
            body: Payload::new(pieces.into_iter().map(Bytes::from)),
            content_type: "video/mp4".into(),
            cache_control: "no-store".into(),
        })
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(put in any_put()) {
            let found = read(&file(&put)).expect("whole");
            prop_assert_eq!(found.key, put.key);
            prop_assert_eq!(found.body.to_bytes(), put.body.to_bytes());
            prop_assert_eq!((found.content_type, found.cache_control), (put.content_type, put.cache_control));
        }

        #[test]
        fn what_is_torn_or_changed_anywhere_is_refused(
            put in any_put(),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let whole = file(&put);
            let at = at.index(whole.len());
            prop_assert!(read(&whole[..at]).is_none());
            let mut zeroed = whole.clone();
            zeroed[at..].fill(0);
            prop_assert!(zeroed == whole || read(&zeroed).is_none());
            let mut changed = whole;
            changed[at] ^= 1 << bit;
            prop_assert!(read(&changed).is_none());
        }

        #[test]
        fn any_bytes_are_read_without_harm(file in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(read(&file).is_none());
        }
    }
}
