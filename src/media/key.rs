//! The address of one published object: the same text is its path on the web and in the store.
//!
//! Enters: ids, or text that is checked until it is nothing but ids
//! Leaves: [`ObjectKey`], which prints as a relative path
//! Never:  a path that was not built from ids, so that climbing out of a folder cannot be said
//! Spec:   docs/architecture.md

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use crate::id::{PartIndex, PeriodId, RenditionName, SegmentNumber, StreamName};

const ROOT: &str = "live";

/// Which object of which stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The stream it belongs to.
    pub stream: StreamName,
    /// What of that stream.
    pub item: Item,
}

/// What of a stream an [`ObjectKey`] names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// `index.m3u8`, the multivariant playlist.
    Multivariant,
    /// `manifest.mpd`.
    Mpd,
    /// `<rendition>/index.m3u8`, a media playlist.
    Media(RenditionName),
    /// `<rendition>/init-<period>.mp4`.
    Init(RenditionName, PeriodId),
    /// `<rendition>/<number>.m4s`.
    Segment(RenditionName, SegmentNumber),
    /// `<rendition>/<number>.<part>.m4s`.
    Part(RenditionName, SegmentNumber, PartIndex),
    /// `dvr.m3u8`, the multivariant playlist that reaches further back than the live one.
    Dvr,
    /// `dvr.mpd`, likewise.
    DvrMpd,
    /// `<rendition>/dvr.m3u8`, a media playlist that does.
    DvrMedia(RenditionName),
    /// `show-<first>.json`, the record of what is kept of the broadcast that began with this segment.
    Show(SegmentNumber),
    /// `show-<first>.m3u8`, the multivariant playlist of all of it.
    ShowMultivariant(SegmentNumber),
    /// `show-<first>.mpd`, likewise.
    ShowMpd(SegmentNumber),
    /// `<rendition>/show-<first>.m3u8`, a media playlist of all of it.
    ShowMedia(RenditionName, SegmentNumber),
}

/// The text is the path of no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the path of an object")]
pub struct ObjectKeyError;

impl Item {
    /// Whether this lists other objects and changes while they come and go.
    #[must_use]
    pub const fn is_manifest(&self) -> bool {
        match self {
            Self::Multivariant | Self::Mpd | Self::Media(_) => true,
            Self::Dvr | Self::DvrMpd | Self::DvrMedia(_) => true,
            Self::Init(..) | Self::Segment(..) | Self::Part(..) => false,
            Self::Show(_) | Self::ShowMultivariant(_) | Self::ShowMpd(_) | Self::ShowMedia(..) => {
                true
            }
        }
    }

    /// Whether this belongs to what is kept of one broadcast, the media itself aside.
    #[must_use]
    pub const fn is_of_show(&self) -> bool {
        matches!(
            self,
            Self::Show(_) | Self::ShowMultivariant(_) | Self::ShowMpd(_) | Self::ShowMedia(..)
        )
    }

    /// Whether this reaches further back than what is live. It is made when it is asked for, and never stored.
    #[must_use]
    pub const fn is_dvr(&self) -> bool {
        matches!(self, Self::Dvr | Self::DvrMpd | Self::DvrMedia(_))
    }

    /// The rendition it belongs to; `None` for what belongs to the whole stream.
    #[must_use]
    pub const fn rendition(&self) -> Option<&RenditionName> {
        match self {
            Self::Multivariant | Self::Mpd | Self::Dvr | Self::DvrMpd => None,
            Self::Show(_) | Self::ShowMultivariant(_) | Self::ShowMpd(_) => None,
            Self::ShowMedia(name, _)
            | Self::Media(name)
            | Self::DvrMedia(name)
            | Self::Init(name, _)
            | Self::Segment(name, _)
            | Self::Part(name, _, _) => Some(name),
        }
    }
}

impl ObjectKey {
    /// The folder that holds all streams.
    pub const ROOT: &str = ROOT;

    /// The object `item` of `stream`.
    #[must_use]
    pub const fn new(stream: StreamName, item: Item) -> Self {
        Self { stream, item }
    }

    /// The relative path of the folder that holds everything of `stream`.
    #[must_use]
    pub fn folder(stream: &StreamName) -> String {
        format!("{ROOT}/{stream}")
    }

    /// The object that a manifest at this address means by the relative reference `reference`;
    /// `None` where that is no object of this stream.
    #[must_use]
    pub fn resolve(&self, reference: &str) -> Option<Self> {
        let path = match (self.item.rendition(), reference.strip_prefix("../")) {
            (Some(_), Some(rest)) => format!("{ROOT}/{}/{rest}", self.stream),
            (Some(rendition), None) => format!("{ROOT}/{}/{rendition}/{reference}", self.stream),
            (None, _) => format!("{ROOT}/{}/{reference}", self.stream),
        };
        path.parse().ok()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/{}/", self.stream)?;
        match &self.item {
            Item::Multivariant => f.write_str("index.m3u8"),
            Item::Mpd => f.write_str("manifest.mpd"),
            Item::Media(rendition) => write!(f, "{rendition}/index.m3u8"),
            Item::Dvr => f.write_str("dvr.m3u8"),
            Item::DvrMpd => f.write_str("dvr.mpd"),
            Item::DvrMedia(rendition) => write!(f, "{rendition}/dvr.m3u8"),
            Item::Init(rendition, period) => write!(f, "{rendition}/init-{period}.mp4"),
            Item::Segment(rendition, number) => write!(f, "{rendition}/{number}.m4s"),
            Item::Part(rendition, number, part) => write!(f, "{rendition}/{number}.{part}.m4s"),
            Item::Show(first) => write!(f, "show-{first}.json"),
            Item::ShowMultivariant(first) => write!(f, "show-{first}.m3u8"),
            Item::ShowMpd(first) => write!(f, "show-{first}.mpd"),
            Item::ShowMedia(rendition, first) => write!(f, "{rendition}/show-{first}.m3u8"),
        }
    }
}

impl FromStr for ObjectKey {
    type Err = ObjectKeyError;

    /// Reads back what [`fmt::Display`] prints and nothing else: one object has one path.
    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let mut segments = path.split('/');
        if segments.next() != Some(ROOT) {
            return Err(ObjectKeyError);
        }
        let stream = segments.next().ok_or(ObjectKeyError)?;
        let stream = stream.parse().map_err(|_| ObjectKeyError)?;
        let item = match (segments.next(), segments.next(), segments.next()) {
            (Some("index.m3u8"), None, _) => Item::Multivariant,
            (Some("manifest.mpd"), None, _) => Item::Mpd,
            (Some("dvr.m3u8"), None, _) => Item::Dvr,
            (Some("dvr.mpd"), None, _) => Item::DvrMpd,
            (Some(file), None, _) => {
                let (first, kind) = show_of(file).ok_or(ObjectKeyError)?;
                match kind {
                    "json" => Item::Show(first),
                    "m3u8" => Item::ShowMultivariant(first),
                    "mpd" => Item::ShowMpd(first),
                    _ => return Err(ObjectKeyError),
                }
            }
            (Some(rendition), Some(file), None) => {
                let rendition = rendition.parse().map_err(|_| ObjectKeyError)?;
                item_in(rendition, file)?
            }
            _ => return Err(ObjectKeyError),
        };
        Ok(Self { stream, item })
    }
}

fn item_in(rendition: RenditionName, file: &str) -> Result<Item, ObjectKeyError> {
    if file == "index.m3u8" {
        return Ok(Item::Media(rendition));
    }
    if file == "dvr.m3u8" {
        return Ok(Item::DvrMedia(rendition));
    }
    if let Some(period) = file
        .strip_prefix("init-")
        .and_then(|rest| rest.strip_suffix(".mp4"))
    {
        return Ok(Item::Init(rendition, PeriodId::new(canonical(period)?)));
    }
    if let Some((first, "m3u8")) = show_of(file) {
        return Ok(Item::ShowMedia(rendition, first));
    }
    let stem = file.strip_suffix(".m4s").ok_or(ObjectKeyError)?;
    match stem.split_once('.') {
        None => Ok(Item::Segment(
            rendition,
            SegmentNumber::new(canonical(stem)?),
        )),
        Some((number, part)) => Ok(Item::Part(
            rendition,
            SegmentNumber::new(canonical(number)?),
            PartIndex::new(canonical(part)?),
        )),
    }
}

/// The show that a file's name names, and what follows the dot.
fn show_of(file: &str) -> Option<(SegmentNumber, &str)> {
    let (first, kind) = file.strip_prefix("show-")?.split_once('.')?;
    Some((SegmentNumber::new(canonical(first).ok()?), kind))
}

/// A decimal as it prints: no sign, no leading zero.
fn canonical<N: FromStr<Err = ParseIntError>>(text: &str) -> Result<N, ObjectKeyError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if !digits || padded {
        return Err(ObjectKeyError);
    }
    text.parse().map_err(|_| ObjectKeyError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = ObjectKey> {
        let stream = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}".prop_map(|s| s.parse().expect("a name"));
        let rendition =
            || "[a-z][a-z0-9_-]{0,9}".prop_map(|s| s.parse::<RenditionName>().expect("a name"));
        let item = prop_oneof![
            Just(Item::Multivariant),
            Just(Item::Mpd),
            Just(Item::Dvr),
            Just(Item::DvrMpd),
            rendition().prop_map(Item::DvrMedia),
            any::<u64>().prop_map(|n| Item::Show(SegmentNumber::new(n))),
            any::<u64>().prop_map(|n| Item::ShowMultivariant(SegmentNumber::new(n))),
            any::<u64>().prop_map(|n| Item::ShowMpd(SegmentNumber::new(n))),
            (rendition(), any::<u64>())
                .prop_map(|(r, n)| Item::ShowMedia(r, SegmentNumber::new(n))),
            rendition().prop_map(Item::Media),
            (rendition(), any::<u64>()).prop_map(|(r, p)| Item::Init(r, PeriodId::new(p))),
            (rendition(), any::<u64>()).prop_map(|(r, n)| Item::Segment(r, SegmentNumber::new(n))),
            (rendition(), any::<u64>(), any::<u32>()).prop_map(|(r, n, p)| Item::Part(
                r,
                SegmentNumber::new(n),
                PartIndex::new(p)
            )),
        ];
        (stream, item).prop_map(|(stream, item)| ObjectKey::new(stream, item))
    }

    #[test]
    fn what_is_no_canonical_path_is_no_object() {
        for path in [
            "",
            "live",
            "live/",
            "live/demo",
            "live/demo/",
            "/live/demo/index.m3u8",
            "live/demo/index.m3u8/",
            "live//index.m3u8",
            "live/../index.m3u8",
            "live/demo/v720/../index.m3u8",
            "live/demo/V720/1.m4s",
            "live/demo/v720/01.m4s",
            "live/demo/v720/+1.m4s",
            "live/demo/v720/-1.m4s",
            "live/demo/v720/.m4s",
            "live/demo/v720/1..m4s",
            "live/demo/v720/1.2.3.m4s",
            "live/demo/v720/init-.mp4",
            "live/demo/v720/18446744073709551616.m4s",
            "vod/demo/index.m3u8",
            "live/demo/show-1",
            "live/demo/show-1.m4s",
            "live/demo/show-01.json",
            "live/demo/show-.mpd",
            "live/demo/v720/show-1.mpd",
        ] {
            assert_eq!(path.parse::<ObjectKey>(), Err(ObjectKeyError), "{path}");
        }
    }

    #[test]
    fn references_resolve_within_the_stream_only() {
        let media: ObjectKey = "live/demo/v720/index.m3u8".parse().expect("a key");
        let name = |reference| media.resolve(reference).map(|key| key.to_string());
        assert_eq!(name("7.m4s").as_deref(), Some("live/demo/v720/7.m4s"));
        assert_eq!(
            name("../a128/7.m4s").as_deref(),
            Some("live/demo/a128/7.m4s")
        );
        assert_eq!(name("../../other/index.m3u8"), None);
        assert_eq!(name("https://example.org/7.m4s"), None);
        let top: ObjectKey = "live/demo/index.m3u8".parse().expect("a key");
        let name = |reference| top.resolve(reference).map(|key| key.to_string());
        assert_eq!(
            name("v720/index.m3u8").as_deref(),
            Some("live/demo/v720/index.m3u8")
        );
    }

    proptest! {
        #[test]
        fn a_key_reads_back_as_itself(key in any_key()) {
            prop_assert_eq!(key.to_string().parse::<ObjectKey>(), Ok(key));
        }

        #[test]
        fn what_parses_prints_as_it_was(path in "live/[a-z.]{1,3}/(([a-z]{1,2}|[.]{1,2})/)?[a-z0-9.+-]{0,12}(m4s|mp4|m3u8)") {
            if let Ok(key) = path.parse::<ObjectKey>() {
                prop_assert_eq!(key.to_string(), path);
            }
        }
    }
}
