//! Decides what a cache and a player are told: how long, whether it changed, which bytes, how packed.
//!
//! Enters: request headers from anyone
//! Leaves: decisions; malformed headers decide as if they were absent
//! Never:  bodies, clocks
//! Spec:   [RFC9110] §8.8, §12.5.3, §13, §14; [RFC9111] §5.2; [RFC8246]

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::fmt;
use std::ops::Range;

use hyper::header::HeaderValue;
use xxhash_rust::xxh3::Xxh3;

use crate::media::Payload;

/// How many members of one list header are looked at. Real clients send fewer than ten; the rest of
/// a longer list is ignored, which costs its sender a full answer and nobody else anything.
const MAX_LIST_MEMBERS: usize = 64;

/// How long an answer may be kept, by kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Init, segment and part: the bytes at this address never change.
    Immutable,
    /// A manifest that changes with every segment, or the newest in place of one that is forgotten.
    Changing,
    /// The first media playlist that has the place it was asked for with, or a delta update of it. That
    /// place in the address is what makes it safe: whoever has seen it asks for the next one.
    Blocking,
    /// A manifest of what has ended. Seconds, not a year: the same address goes live again when its
    /// publisher returns, and whoever loads it again then must not get the end of the last broadcast.
    Ended,
    /// A manifest of what is kept and complete. An hour, not a year: what has been kept for long enough goes.
    Kept,
    /// The page and its files.
    Page,
    /// Anything but success.
    Failure,
    /// What is true only now: time, metrics, state.
    Never,
}

impl Lifetime {
    /// The value of `Cache-Control`.
    #[must_use]
    pub const fn cache_control(self) -> &'static str {
        match self {
            Self::Immutable => "public, max-age=31536000, immutable",
            Self::Changing | Self::Failure => "public, max-age=1",
            Self::Ended => "public, max-age=5",
            Self::Kept => "public, max-age=3600",
            Self::Blocking | Self::Page => "public, max-age=60",
            Self::Never => "no-store",
        }
    }
}

/// A strong entity tag: equal tags, equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(HeaderValue);

impl ETag {
    /// The tag of `body` in the content coding `encoding`. The same bytes have the same tag on every
    /// node, from memory and from the store.
    #[must_use]
    pub fn of(body: &Payload, encoding: Encoding) -> Self {
        let mut hasher = Xxh3::new();
        for piece in body.pieces() {
            hasher.update(piece);
        }
        let suffix = match encoding {
            Encoding::Identity => "",
            Encoding::Gzip => "-gz",
            Encoding::Brotli => "-br",
        };
        let text = format!("\"{:032x}{suffix}\"", hasher.digest128());
        Self(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"\"")))
    }

    /// As a header.
    #[must_use]
    pub const fn header(&self) -> &HeaderValue {
        &self.0
    }

    /// Whether `If-None-Match` lists this tag, by weak comparison.
    #[must_use]
    pub fn is_in<'v>(&self, if_none_match: impl IntoIterator<Item = &'v HeaderValue>) -> bool {
        members(if_none_match).any(|member| {
            member == b"*" || member.strip_prefix(b"W/").unwrap_or(member) == self.0.as_bytes()
        })
    }

    /// Whether `If-Range` lets a range be answered: absent, or this tag by strong comparison. A date
    /// never does, because no answer carries Last-Modified.
    #[must_use]
    pub fn allows_range(&self, if_range: Option<&HeaderValue>) -> bool {
        if_range.is_none_or(|value| value.as_bytes().trim_ascii() == self.0.as_bytes())
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// Which bytes of a body to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    /// All, as 200.
    Whole,
    /// These, as 206. Not empty, within the body.
    Part(Range<u64>),
    /// None of those asked for exist: 416.
    Unsatisfiable,
}

impl Slice {
    /// What the header `Range` asks of a body of `len` bytes. Several ranges, other units and
    /// malformed values are answered whole, as a server may.
    #[must_use]
    pub fn parse(range: Option<&HeaderValue>, len: u64) -> Self {
        range
            .and_then(|value| value.to_str().ok())
            .and_then(|text| Self::parse_text(text, len))
            .unwrap_or(Self::Whole)
    }

    fn parse_text(text: &str, len: u64) -> Option<Self> {
        let (unit, spec) = text.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
            return None;
        }
        let (first, last) = spec.trim().split_once('-')?;
        let range = match (first, last) {
            ("", "") => return None,
            ("", suffix) => len.saturating_sub(digits(suffix)?)..len,
            (first, "") => digits(first)?..len,
            (first, last) => {
                let (first, last) = (digits(first)?, digits(last)?);
                if last < first {
                    return None;
                }
                first..last.saturating_add(1).min(len)
            }
        };
        Some(if range.start < range.end {
            Self::Part(range)
        } else {
            Self::Unsatisfiable
        })
    }
}

/// A decimal of any length; what exceeds 64 bits lies beyond every body all the same.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
}

impl Encoding {
    /// The value of `Content-Encoding`; `None` for identity, which is not named.
    #[must_use]
    pub const fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
        }
    }

    /// The coding that `Accept-Encoding` prefers; of equals the smallest. Identity where nothing
    /// fits: an answer in it is still more use than a 406.
    #[must_use]
    pub fn negotiate<'v>(accept_encoding: impl IntoIterator<Item = &'v HeaderValue>) -> Self {
        let (mut identity, mut gzip, mut brotli, mut any) = (None, None, None, None);
        for member in members(accept_encoding) {
            let Some((name, quality)) = coding(member) else {
                continue;
            };
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            let place = if is("gzip") || is("x-gzip") {
                &mut gzip
            } else if is("br") {
                &mut brotli
            } else if is("identity") {
                &mut identity
            } else if name == "*" {
                &mut any
            } else {
                continue;
            };
            *place = Some(quality);
        }
        let unnamed = any.unwrap_or(0);
        let best = [
            // Not naming identity accepts it, below everything that is named.
            (identity.unwrap_or(0), Self::Identity),
            (gzip.unwrap_or(unnamed), Self::Gzip),
            (brotli.unwrap_or(unnamed), Self::Brotli),
        ];
        best.into_iter()
            .filter(|(quality, _)| *quality > 0)
            .max()
            .map_or(Self::Identity, |(_, encoding)| encoding)
    }
}

/// One member of `Accept-Encoding`: its name and its quality in thousandths.
fn coding(member: &[u8]) -> Option<(&str, u16)> {
    let text = std::str::from_utf8(member).ok()?;
    let mut fields = text.split(';');
    let name = fields.next()?.trim();
    let mut quality = 1_000;
    for field in fields {
        let (key, value) = field.split_once('=')?;
        if key.trim().eq_ignore_ascii_case("q") {
            quality = thousandths(value.trim())?;
        }
    }
    Some((name, quality))
}

/// `0`, `1` or `0.` and up to three digits, in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1_000),
        _ => None,
    }
}

/// The members of a list that may be spread over several headers. A comma within a quoted tag would
/// be split; no tag of ours has one.
fn members<'v>(
    values: impl IntoIterator<Item = &'v HeaderValue>,
) -> impl Iterator<Item = &'v [u8]> {
    values
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
        .take(MAX_LIST_MEMBERS)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).expect("a header")
    }

    fn tag() -> ETag {
        ETag(header("\"abc\""))
    }

    #[test]
    fn lifetimes_say_what_the_design_says() {
        for (lifetime, value) in [
            (Lifetime::Immutable, "public, max-age=31536000, immutable"),
            (Lifetime::Changing, "public, max-age=1"),
            (Lifetime::Failure, "public, max-age=1"),
            (Lifetime::Never, "no-store"),
        ] {
            assert_eq!(lifetime.cache_control(), value);
        }
    }

    #[test]
    fn tags_follow_bytes_and_coding_not_pieces() {
        let whole = Payload::from(Bytes::from_static(b"abcdef"));
        let split = Payload::new([Bytes::from_static(b"abc"), Bytes::from_static(b"def")]);
        let tag = ETag::of(&whole, Encoding::Identity);
        assert_eq!(tag, ETag::of(&split, Encoding::Identity));
        assert_ne!(tag, ETag::of(&split, Encoding::Gzip));
        assert_ne!(tag, ETag::of(&Payload::default(), Encoding::Identity));
        assert!(tag.to_string().starts_with('"') && tag.to_string().len() == 34);
    }

    #[test]
    fn if_none_match_compares_weakly_through_lists() {
        for (values, matches) in [
            (&["\"abc\""][..], true),
            (&["W/\"abc\""], true),
            (&["*"], true),
            (&["\"x\", \"abc\""], true),
            (&["\"x\",W/\"abc\" , \"y\""], true),
            (&["\"x\"", "\"abc\""], true),
            (&["\"ABC\""], false),
            (&["abc"], false),
            (&["w/\"abc\""], false),
            (&["\"abc"], false),
            (&[""], false),
            (&[], false),
        ] {
            let values: Vec<_> = values.iter().map(|text| header(text)).collect();
            assert_eq!(tag().is_in(&values), matches, "{values:?}");
        }
    }

    #[test]
    fn if_range_compares_strongly() {
        for (value, allowed) in [
            (None, true),
            (Some("\"abc\""), true),
            (Some("W/\"abc\""), false),
            (Some("\"x\""), false),
            (Some("*"), false),
            (Some("Sat, 21 Nov 2026 10:00:00 GMT"), false),
        ] {
            let value = value.map(header);
            assert_eq!(tag().allows_range(value.as_ref()), allowed, "{value:?}");
        }
    }

    #[test]
    fn ranges_of_ten_bytes() {
        for (value, slice) in [
            ("bytes=0-3", Slice::Part(0..4)),
            ("bytes=0-0", Slice::Part(0..1)),
            ("bytes=9-9", Slice::Part(9..10)),
            ("bytes=3-", Slice::Part(3..10)),
            ("bytes=3-999", Slice::Part(3..10)),
            ("bytes=3-99999999999999999999999", Slice::Part(3..10)),
            ("bytes=-4", Slice::Part(6..10)),
            ("bytes=-10", Slice::Part(0..10)),
            ("bytes=-999", Slice::Part(0..10)),
            ("Bytes= 0-3", Slice::Part(0..4)),
            ("bytes=10-", Slice::Unsatisfiable),
            ("bytes=10-12", Slice::Unsatisfiable),
            ("bytes=99999999999999999999999-", Slice::Unsatisfiable),
            ("bytes=-0", Slice::Unsatisfiable),
            ("bytes=0-1,4-5", Slice::Whole),
            ("bytes=4-3", Slice::Whole),
            ("bytes=-", Slice::Whole),
            ("bytes=a-b", Slice::Whole),
            ("bytes=+1-2", Slice::Whole),
            ("bytes=1", Slice::Whole),
            ("bytes 0-3", Slice::Whole),
            ("seconds=0-3", Slice::Whole),
            ("", Slice::Whole),
        ] {
            assert_eq!(Slice::parse(Some(&header(value)), 10), slice, "{value}");
        }
        assert_eq!(Slice::parse(None, 10), Slice::Whole);
        let first = header("bytes=0-0");
        assert_eq!(Slice::parse(Some(&first), 0), Slice::Unsatisfiable);
    }

    #[test]
    fn encodings_are_negotiated_by_quality_then_size() {
        for (values, encoding) in [
            (&[][..], Encoding::Identity),
            (&[""], Encoding::Identity),
            (&["gzip"], Encoding::Gzip),
            (&["GZIP"], Encoding::Gzip),
            (&["x-gzip"], Encoding::Gzip),
            (&["br"], Encoding::Brotli),
            (&["gzip, deflate, br, zstd"], Encoding::Brotli),
            (&["gzip", "br"], Encoding::Brotli),
            (&["gzip;q=1.0, br;q=0.5"], Encoding::Gzip),
            (&["gzip; q=0.001, br; Q=0"], Encoding::Gzip),
            (&["br;q=0, gzip;q=0"], Encoding::Identity),
            (&["*"], Encoding::Brotli),
            (&["*, br;q=0"], Encoding::Gzip),
            (&["*;q=0"], Encoding::Identity),
            (&["identity;q=1, br;q=0.5"], Encoding::Identity),
            (&["identity;q=0"], Encoding::Identity),
            (&["deflate"], Encoding::Identity),
            (&["br;q=1.5"], Encoding::Identity),
            (&["br;q=0.1234, gzip"], Encoding::Gzip),
            (&["br;level"], Encoding::Identity),
        ] {
            let values: Vec<_> = values.iter().map(|text| header(text)).collect();
            assert_eq!(Encoding::negotiate(&values), encoding, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn a_range_answered_lies_within_the_body(
            text in prop_oneof!["bytes=[0-9]{0,21}-[0-9]{0,21}", "[ -~]{0,20}"],
            len in prop_oneof![0_u64..20, any::<u64>()],
        ) {
            if let Slice::Part(range) = Slice::parse(Some(&header(&text)), len) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }

        #[test]
        fn a_range_is_the_slice_it_says(a in 0_u64..30, b in 0_u64..30, len in 0_u64..30) {
            let slice = Slice::parse(Some(&header(&format!("bytes={a}-{b}"))), len);
            let expected = match (a <= b, a < len) {
                (false, _) => Slice::Whole,
                (true, false) => Slice::Unsatisfiable,
                (true, true) => Slice::Part(a..len.min(b + 1)),
            };
            prop_assert_eq!(slice, expected);
        }

        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = Encoding::negotiate([&value]);
                let _ = tag().is_in([&value]);
                let _ = tag().allows_range(Some(&value));
                let _ = Slice::parse(Some(&value), 100);
            }
        }
    }
}
