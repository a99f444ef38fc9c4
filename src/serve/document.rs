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
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::cache::{ETag, Encoding};
use crate::id::StreamName;
use crate::media::{Item, ObjectKey, Payload};

/// Below this a compressed body saves less than its headers cost.
const MIN_COMPRESSED_BYTES: usize = 256;

/// Brotli's effort. 5 is where its matching becomes thorough; above it the time grows several fold
/// for a few per cent, and a playlist is compressed every second.
const BROTLI_QUALITY: u32 = 5;

/// Brotli's window, 2^18 bytes: more than any manifest of a live window.
const BROTLI_WINDOW_LOG: u32 = 18;

/// Up to this a text is compressed by whoever asks first, in less time than it takes to hand it to another thread and
/// back on a busy machine. Manifests of a live window are far below; those that reach back for hours are not: one of
/// two days has 3.3 MB, and takes 35 ms.
const MAX_AT_ONCE_BYTES: usize = 64 * 1024;

/// One text in every coding it is sent in.
#[derive(Clone, Debug)]
pub struct Document {
    content_type: &'static str,
    /// The text, in pieces of which some are those of another version too.
    pieces: Vec<Bytes>,
    identity: OnceLock<Coded>,
    gzip: OnceLock<Option<Coded>>,
    brotli: OnceLock<Option<Coded>>,
    turn: OnceLock<Arc<Semaphore>>,
}

/// A body in one coding.
#[derive(Clone, Debug)]
pub struct Coded {
    /// Which coding.
    pub encoding: Encoding,
    /// The bytes to send, in one piece: what is the same for all who ask is not made for each of them.
    body: Payload,
    etag: OnceLock<ETag>,
}

impl Coded {
    fn new(encoding: Encoding, body: Bytes) -> Self {
        Self {
            encoding,
            body: body.into(),
            etag: OnceLock::new(),
        }
    }

    /// The bytes to send.
    #[must_use]
    pub const fn body(&self) -> &Payload {
        &self.body
    }

    /// The tag of the bytes, of this coding alone; made by the first call.
    #[must_use]
    pub fn etag(&self) -> &ETag {
        self.etag
            .get_or_init(|| ETag::of(&self.body, self.encoding))
    }
}

impl Document {
    /// A document of `text`.
    #[must_use]
    pub fn new(content_type: &'static str, text: Bytes) -> Self {
        Self::composed(content_type, vec![text])
    }

    /// A document of `pieces`, one after the other. They are put together when somebody asks.
    #[must_use]
    pub const fn composed(content_type: &'static str, pieces: Vec<Bytes>) -> Self {
        Self {
            content_type,
            pieces,
            identity: OnceLock::new(),
            gzip: OnceLock::new(),
            brotli: OnceLock::new(),
            turn: OnceLock::new(),
        }
    }

    /// The manifest that `item` names, from its text.
    #[must_use]
    pub fn manifest(item: &Item, text: Bytes) -> Self {
        Self::new(content_type(item), text)
    }

    /// The manifest that `item` names, from the pieces of its text.
    #[must_use]
    pub fn manifest_of(item: &Item, pieces: Vec<Bytes>) -> Self {
        Self::composed(content_type(item), pieces)
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
        .unwrap_or_else(|| self.identity())
    }

    /// Whether [`Self::coded`] has the body in `wanted` at hand, or makes it in next to no time.
    #[must_use]
    pub fn is_at_hand(&self, wanted: Encoding) -> bool {
        let is_made = match wanted {
            Encoding::Identity => true,
            Encoding::Gzip => self.gzip.get().is_some(),
            Encoding::Brotli => match self.brotli.get() {
                Some(None) => self.gzip.get().is_some(),
                made => made.is_some(),
            },
        };
        is_made || self.pieces.iter().map(Bytes::len).sum::<usize>() <= MAX_AT_ONCE_BYTES
    }

    /// Whose turn it is to have it compressed, where it is long: one at a time.
    pub(crate) fn turn(&self) -> &Arc<Semaphore> {
        self.turn.get_or_init(|| Arc::new(Semaphore::new(1)))
    }

    fn identity(&self) -> &Coded {
        self.identity.get_or_init(|| {
            let text = match self.pieces.as_slice() {
                [all] => all.clone(),
                pieces => pieces.concat().into(),
            };
            Coded::new(Encoding::Identity, text)
        })
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
        Some(Coded::new(encoding, body.into()))
    }

    /// The plain text.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        let pieces = self.identity().body.pieces();
        pieces.first().map_or(&[], |text| text)
    }
}

/// The value of `Content-Type` for what `item` names. A rendition's name says what it is: those of
/// sound begin with `a`.
#[must_use]
pub fn content_type(item: &Item) -> &'static str {
    match item {
        Item::Multivariant | Item::Media(_) => "application/vnd.apple.mpegurl",
        Item::Dvr | Item::DvrMedia(_) => "application/vnd.apple.mpegurl",
        Item::ShowMultivariant(_) | Item::ShowMedia(..) => "application/vnd.apple.mpegurl",
        Item::Mpd | Item::ShowMpd(_) | Item::DvrMpd => "application/dash+xml",
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
        Item::Media(_) | Item::DvrMedia(_) => Some(
            text.split(|byte| *byte == b'\n')
                .any(|line| line.trim_ascii() == b"#EXT-X-ENDLIST"),
        ),
        Item::Mpd | Item::DvrMpd => Some(!contains(text, b"type=\"dynamic\"")),
        // They are written once it has ended.
        Item::ShowMultivariant(_) | Item::ShowMpd(_) | Item::ShowMedia(..) => Some(true),
        Item::Multivariant
        | Item::Dvr
        | Item::Init(..)
        | Item::Segment(..)
        | Item::Part(..)
        | Item::Show(_) => None,
    }
}

/// The playlist of the first rendition that the MPD of `stream` names. Where both are live, it changes with every segment,
/// and the MPD does not.
#[must_use]
pub fn first_playlist(stream: &StreamName, mpd: &[u8]) -> Option<ObjectKey> {
    let text = String::from_utf8_lossy(mpd);
    let (_, rest) = text.split_once("<Representation ")?;
    let (tag, _) = rest.split_once('>')?;
    let (_, id) = tag.split_once("id=\"")?;
    let (name, _) = id.split_once('"')?;
    Some(ObjectKey::new(
        stream.clone(),
        Item::Media(name.parse().ok()?),
    ))
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
        let (mut plain, body) = (Vec::new(), coded.body().to_bytes());
        match coded.encoding {
            Encoding::Identity => plain.extend_from_slice(&body),
            Encoding::Gzip => {
                let mut reader = flate2::read::GzDecoder::new(&*body);
                reader.read_to_end(&mut plain).expect("gzip");
            }
            Encoding::Brotli => {
                let mut reader = brotli::Decompressor::new(&*body, 4_096);
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
        let tags = all.map(|encoding| document.coded(encoding).etag().to_string());
        assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2]);
        assert_eq!(document.content_type(), "application/vnd.apple.mpegurl");
    }

    #[test]
    fn a_text_in_pieces_is_the_whole_one() {
        let pieces = vec![
            Bytes::from_static(b"#EXTM3U\n"),
            Bytes::from_static(b"7.m4s\n"),
        ];
        let one = Document::composed("text/plain", pieces);
        let other = Document::new("text/plain", Bytes::from_static(b"#EXTM3U\n7.m4s\n"));
        assert_eq!(one.text(), other.text());
        let tag = |document: &Document| document.coded(Encoding::Identity).etag().to_string();
        assert_eq!(tag(&one), tag(&other));
    }

    #[test]
    fn a_long_text_is_at_hand_in_the_codings_that_were_made() {
        let text = "#EXTINF:2.000000,\n895634.m4s\n".repeat(20_000);
        let document = Document::new("text/plain", text.into());
        let at_hand = |encoding| document.is_at_hand(encoding);
        assert!(at_hand(Encoding::Identity));
        assert!(!at_hand(Encoding::Gzip) && !at_hand(Encoding::Brotli));
        let _made = document.coded(Encoding::Brotli);
        assert!(at_hand(Encoding::Brotli) && !at_hand(Encoding::Gzip));
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

    #[test]
    fn an_mpd_leads_to_the_playlist_beside_it() {
        let stream: StreamName = "demo".parse().expect("a name");
        let mpd =
            b"<AdaptationSet id=\"1\"><Representation codecs=\"x\" id=\"v720\" bandwidth=\"1\">";
        let key = first_playlist(&stream, mpd).expect("named");
        assert_eq!(key.to_string(), "live/demo/v720/index.m3u8");
        assert_eq!(first_playlist(&stream, b"<MPD>"), None);
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
