//! Reads from a manifest which objects it names, and has it not name some.
//!
//! Enters: the text of a playlist or of a show's record, ours or one found in the store
//! Leaves: the keys a player would fetch because of it; the same playlist with gaps; how far a record goes
//! Never:  judges the playlist
//! Spec:   [HLS] §4.1, §4.4.4, §4.4.4.7, §4.4.6

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::id::SegmentNumber;
use crate::media::{Item, ObjectKey, Payload};

/// What marks the segment after it as one that is not there.
const GAP: &str = "#EXT-X-GAP";

/// Tags whose attribute URI is fetched. A preload hint is not among them: it names what is not there
/// yet, and says so.
const FETCHED: [&str; 4] = [
    "#EXT-X-MAP:",
    "#EXT-X-PART:",
    "#EXT-X-MEDIA:",
    "#EXT-X-I-FRAME-STREAM-INF:",
];

/// The objects that the manifest `key` with the text `text` names. A segment marked as a gap is not
/// fetched, so it is not named. Nothing for an MPD, whose templates name no single object.
pub(crate) fn named_by(key: &ObjectKey, text: &[u8]) -> BTreeSet<ObjectKey> {
    match key.item {
        // What lists a show is made of what is stored, on the word of the store, and lists far too much to be
        // looked through again.
        Item::Mpd | Item::Show(_) | Item::ShowMpd(_) | Item::ShowMedia(..) => {
            return BTreeSet::new();
        }
        _ => {}
    }
    let mut names = BTreeSet::new();
    let mut gap = false;
    for line in String::from_utf8_lossy(text).lines().map(str::trim) {
        if line == GAP {
            gap = true;
        } else if FETCHED.iter().any(|tag| line.starts_with(tag)) {
            let is_gap_part = line.contains("GAP=YES");
            names.extend(
                uri_attribute(line)
                    .filter(|_| !is_gap_part)
                    .and_then(|uri| key.resolve(uri)),
            );
        } else if !line.is_empty() && !line.starts_with('#') {
            names.extend(Some(line).filter(|_| !gap).and_then(|uri| key.resolve(uri)));
            gap = false;
        }
    }
    names
}

/// The media playlist `key` with the text `text`, with a gap in the place of each segment among `missing`.
pub(crate) fn with_gaps(key: &ObjectKey, text: &Payload, missing: &BTreeSet<ObjectKey>) -> Payload {
    let text = text.to_bytes();
    let text = String::from_utf8_lossy(&text);
    let mut out = String::with_capacity(text.len() + 16 * missing.len());
    let mut has_gap = false;
    for line in text.lines() {
        let reference = line.trim();
        has_gap |= reference == GAP;
        if !reference.is_empty() && !reference.starts_with('#') {
            let is_missing = key.resolve(reference).is_some_and(|k| missing.contains(&k));
            if is_missing && !has_gap {
                out.push_str(GAP);
                out.push('\n');
            }
            has_gap = false;
        }
        out.push_str(line);
        out.push('\n');
    }
    Bytes::from(out).into()
}

/// The lowest number of a segment among `names`.
pub(crate) fn first_number(names: &BTreeSet<ObjectKey>) -> Option<SegmentNumber> {
    numbers(names).min()
}

/// The highest number of a segment among `names`.
pub(crate) fn last_number(names: &BTreeSet<ObjectKey>) -> Option<SegmentNumber> {
    numbers(names).max()
}

/// The number of the last segment that the playlist `key` with the text `text` lists, gap or not.
pub(crate) fn last_listed(key: &ObjectKey, text: &[u8]) -> Option<SegmentNumber> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim);
    let mut listed = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    match key.resolve(listed.next_back()?)?.item {
        Item::Segment(_, number) => Some(number),
        _ => None,
    }
}

fn numbers(names: &BTreeSet<ObjectKey>) -> impl Iterator<Item = SegmentNumber> {
    names.iter().filter_map(|key| match key.item {
        Item::Segment(_, number) | Item::Part(_, number, _) => Some(number),
        _ => None,
    })
}

/// Whether the playlist with the text `text` will not grow any more.
pub(crate) fn has_ended(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.any(|line| line.trim_ascii() == b"#EXT-X-ENDLIST")
}

/// The number after the last segment that a show's record with the text `text` offers, and whether nothing will be
/// added; nothing of what is no record.
pub(crate) fn recorded_up_to(text: &[u8]) -> (Option<SegmentNumber>, bool) {
    #[derive(serde::Deserialize)]
    struct Record {
        end: u64,
        ended: bool,
    }
    match serde_json::from_slice::<Record>(text) {
        Ok(record) => (Some(SegmentNumber::new(record.end)), record.ended),
        Err(_) => (None, false),
    }
}

fn uri_attribute(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("URI=\"")?;
    rest.split_once('"').map(|(uri, _)| uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, text: &str) -> Vec<String> {
        let key = path.parse().expect("a key");
        let named = named_by(&key, text.as_bytes());
        named.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_media_playlist_names_its_map_segments_and_parts_but_no_gap_and_no_hint() {
        let text = "#EXTM3U\n#EXT-X-MAP:URI=\"init-7.mp4\"\n#EXTINF:2,\n7.m4s\r\n#EXT-X-GAP\n\
            #EXTINF:2,\n8.m4s\n#EXTINF:2,\n9.m4s\n#EXT-X-PART:DURATION=0.3,URI=\"10.0.m4s\"\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"10.1.m4s\"\n";
        assert_eq!(
            names("live/demo/v720/index.m3u8", text),
            [
                "live/demo/v720/init-7.mp4",
                "live/demo/v720/7.m4s",
                "live/demo/v720/9.m4s",
                "live/demo/v720/10.0.m4s",
            ]
        );
    }

    #[test]
    fn a_gap_is_made_of_a_missing_segment_once_and_names_it_no_more() {
        let key: ObjectKey = "live/demo/v720/index.m3u8".parse().expect("a key");
        let missing = ["7.m4s", "8.m4s"].map(|name| key.resolve(name).expect("a key"));
        let text = "#EXTM3U\n#EXTINF:2,\n7.m4s\n#EXT-X-GAP\n#EXTINF:2,\n8.m4s\n#EXTINF:2,\n9.m4s\n";
        let text = Payload::from(Bytes::from_static(text.as_bytes()));
        let gapped = with_gaps(&key, &text, &BTreeSet::from(missing)).to_bytes();
        assert_eq!(
            gapped,
            "#EXTM3U\n#EXTINF:2,\n#EXT-X-GAP\n7.m4s\n#EXT-X-GAP\n#EXTINF:2,\n8.m4s\n#EXTINF:2,\n9.m4s\n"
        );
        let named: Vec<_> = named_by(&key, &gapped).into_iter().collect();
        assert_eq!(named, [key.resolve("9.m4s").expect("a key")]);
    }

    #[test]
    fn a_multivariant_playlist_names_its_media_playlists() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"a128/index.m3u8\",NAME=\"x\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1\nv720/index.m3u8\n";
        assert_eq!(
            names("live/demo/index.m3u8", text),
            ["live/demo/a128/index.m3u8", "live/demo/v720/index.m3u8"]
        );
    }
}
