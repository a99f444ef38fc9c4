//! Texts that many ask for, rendered once per change and compressed at most once.
//!
//! Enters: the text of a manifest or a file of the page
//! Leaves: a [`Document`]: the bytes in each coding, each with its own strong tag
//! Never:  compresses twice
//! Spec:   [RFC9110] §8.4.1, §8.8.3.3; [RFC8216] §4.3.3.4; [DASH] §5.3.1.2

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;

use super::cache::{ETag, Encoding};
use crate::media::{Item, Payload};

/// Below this a compressed body saves less than its headers cost.
const MIN_COMPRESSED_BYTES: usize = 256;

/// Brotli's effort. 5 is where its matching becomes thorough; above it the time grows several fold
/// for a few per cent, and a playlist is compressed every second.
const BROTLI_QUALITY: u32 = 5;

/// Brotli's window, 2^18 bytes: more than any manifest.
const BROTLI_WINDOW_LOG: u32 = 18;

/// One text in every coding it is sent in.
#[derive(Clone, Debug)]
pub struct Document {
    content_type: &'static str,
    identity: Coded,
    gzip: OnceLock<Option<Coded>>,
    brotli: OnceLock<Option<Coded>>,
}

/// A body in one coding.
#[derive(Clone, Debug)]
pub struct Coded {
    /// Which coding.
    pub encoding: Encoding,
    /// The bytes to send.
    pub body: Bytes,
    /// Their tag, of this coding alone.
    pub etag: ETag,
}

impl Document {
    /// A document of `text`.
    #[must_use]
    pub fn new(content_type: &'static str, text: Bytes) -> Self {
        Self {
            content_type,
            identity: coded(Encoding::Identity, text),
            gzip: OnceLock::new(),
            brotli: OnceLock::new(),
        }
    }

    /// The manifest that `item` names, from its text.
    #[must_use]
    pub fn manifest(item: &Item, text: Bytes) -> Self {
        Self::new(content_type(item), text)
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// The body in `wanted`, or as it is where that would not be smaller. The first call for a coding
    /// compresses: a playlist has a new version several times a second, and most versions are never
    /// asked for in most codings.
    #[must_use]
    pub fn coded(&self, wanted: Encoding) -> &Coded {
        match wanted {
            Encoding::Identity => None,
            Encoding::Gzip => self.gzip(),
            Encoding::Brotli => self.brotli().or_else(|| self.gzip()),
        }
        .unwrap_or(&self.identity)
    }

    fn gzip(&self) -> Option<&Coded> {
        let made = self.gzip.get_or_init(|| self.smaller(Encoding::Gzip, gzip));
        made.as_ref()
    }

    fn brotli(&self) -> Option<&Coded> {
        let made = self
            .brotli
            .get_or_init(|| self.smaller(Encoding::Brotli, brotli));
        made.as_ref()
    }

    fn smaller(&self, encoding: Encoding, compress: fn(&[u8]) -> Option<Vec<u8>>) -> Option<Coded> {
        let text = self.text();
        if text.len() < MIN_COMPRESSED_BYTES {
            return None;
        }
        let body = compress(text).filter(|body| body.len() < text.len())?;
        Some(coded(encoding, body.into()))
    }

    /// The plain text.
    #[must_use]
    pub const fn text(&self) -> &Bytes {
        &self.identity.body
    }
}

fn coded(encoding: Encoding, body: Bytes) -> Coded {
    Coded {
        encoding,
        etag: ETag::of(&Payload::from(body.clone()), encoding),
        body,
    }
}

/// The value of `Content-Type` for what `item` names. A rendition's name says what it is: those of
/// sound begin with `a`.
#[must_use]
pub fn content_type(item: &Item) -> &'static str {
    match item {
        Item::Multivariant | Item::Media(_) => "application/vnd.apple.mpegurl",
        Item::ShowMultivariant(_) | Item::ShowMedia(..) => "application/vnd.apple.mpegurl",
        Item::Mpd | Item::ShowMpd(_) => "application/dash+xml",
        Item::Show(_) => "application/json",
        Item::Init(name, _) | Item::Segment(name, _) | Item::Part(name, _, _) => {
            if name.as_str().starts_with('a') {
                "audio/mp4"
            } else {
                "video/mp4"
            }
        }
    }
}

/// Whether the manifest at `item` says that nothing more will come; `None` for a multivariant
/// playlist, which never says.
#[must_use]
pub fn has_ended(item: &Item, text: &[u8]) -> Option<bool> {
    match item {
        Item::Media(_) => Some(
            text.split(|byte| *byte == b'\n')
                .any(|line| line.trim_ascii() == b"#EXT-X-ENDLIST"),
        ),
        Item::Mpd => Some(!contains(text, b"type=\"dynamic\"")),
        // They are written once it has ended.
        Item::ShowMultivariant(_) | Item::ShowMpd(_) | Item::ShowMedia(..) => Some(true),
        Item::Multivariant
        | Item::Init(..)
        | Item::Segment(..)
        | Item::Part(..)
        | Item::Show(_) => None,
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}

fn brotli(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder =
        brotli::CompressorWriter::new(Vec::new(), 4_096, BROTLI_QUALITY, BROTLI_WINDOW_LOG);
    encoder.write_all(text).ok()?;
    Some(encoder.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn decode(coded: &Coded) -> Vec<u8> {
        let mut plain = Vec::new();
        match coded.encoding {
            Encoding::Identity => plain.extend_from_slice(&coded.body),
            Encoding::Gzip => {
                let mut reader = flate2::read::GzDecoder::new(&*coded.body);
                reader.read_to_end(&mut plain).expect("gzip");
            }
            Encoding::Brotli => {
                let mut reader = brotli::Decompressor::new(&*coded.body, 4_096);
                reader.read_to_end(&mut plain).expect("brotli");
            }
        }
        plain
    }

    #[test]
    fn every_coding_has_its_own_tag_and_the_same_text() {
        let text = "#EXTINF:2.000000,\n895634.m4s\n".repeat(60);
        let document = Document::manifest(&Item::Multivariant, text.clone().into());
        let all = [Encoding::Identity, Encoding::Gzip, Encoding::Brotli];
        for encoding in all {
            let coded = document.coded(encoding);
            assert_eq!(coded.encoding, encoding);
            assert_eq!(decode(coded), text.as_bytes());
        }
        let tags = all.map(|encoding| document.coded(encoding).etag.to_string());
        assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2]);
        assert_eq!(document.content_type(), "application/vnd.apple.mpegurl");
    }

    #[test]
    fn short_texts_stay_as_they_are() {
        let document = Document::new("text/plain", Bytes::from_static(b"short"));
        assert_eq!(
            document.coded(Encoding::Brotli).encoding,
            Encoding::Identity
        );
    }

    #[test]
    fn manifests_say_themselves_whether_they_have_ended() {
        let media = Item::Media("v720".parse().expect("a name"));
        for (item, text, ended) in [
            (&media, "#EXTM3U\n#EXT-X-ENDLIST\n", Some(true)),
            (&media, "#EXTM3U\n#EXT-X-ENDLIST\r\n", Some(true)),
            (&media, "#EXTM3U\n# not #EXT-X-ENDLIST\n", Some(false)),
            (&Item::Mpd, "<MPD type=\"static\">", Some(true)),
            (&Item::Mpd, "<MPD type=\"dynamic\">", Some(false)),
            (&Item::Multivariant, "#EXTM3U\n", None),
        ] {
            assert_eq!(has_ended(item, text.as_bytes()), ended, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_decodes_to_the_text(text in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let document = Document::new("text/plain", text.clone().into());
            for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Brotli] {
                prop_assert_eq!(decode(document.coded(encoding)), text.clone());
            }
        }
    }
}
