//! Renders the multivariant playlist.
//!
//! Enters: a [`Snapshot`] with at least one listed segment
//! Leaves: the playlist as text: pictures with the sound that suits them, or sound alone
//! Never:  a combination whose bandwidth is understated; an attribute whose order could vary
//! Time:   none
//! Spec:   [HLS] §4.4.6

use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ClosedCaptionGroupId, MasterPlaylist, Resolution,
    VariantStream,
};

use crate::media::{CodecConfig, CodecString, MediaKind, Rendition};
use crate::package::snapshot::Snapshot;

/// EXT-X-VERSION: 6, as the media playlists.
const VERSION: usize = 6;

/// The playlist; `None` as long as nothing is listed.
#[must_use]
pub fn render(snapshot: &Snapshot) -> Option<String> {
    if snapshot.listed().is_empty() {
        return None;
    }
    let pictures = of_kind(snapshot, MediaKind::Video);
    let sounds = of_kind(snapshot, MediaKind::Audio);
    let playlist = MasterPlaylist {
        version: Some(VERSION),
        independent_segments: snapshot.presentation().cuts.are_on_grid(),
        alternatives: if pictures.is_empty() {
            Vec::new()
        } else {
            sounds.iter().map(|entry| alternative(entry)).collect()
        },
        variants: variants(&pictures, &sounds),
        ..MasterPlaylist::default()
    };
    let mut bytes = Vec::new();
    playlist.write_to(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

/// A rendition with its announced rates.
#[derive(Clone, Copy)]
struct Entry<'a> {
    rendition: &'a Rendition,
    peak_bps: u64,
    average_bps: u64,
}

fn of_kind(snapshot: &Snapshot, kind: MediaKind) -> Vec<Entry<'_>> {
    let renditions = snapshot.period().renditions.iter().enumerate();
    let entry = |(index, rendition): (usize, &'_ Rendition)| {
        snapshot
            .rates(index)
            .map(|rates| (index, rendition.codec.kind(), rates))
    };
    renditions
        .filter_map(entry)
        .filter(|(_, found, _)| *found == kind)
        .filter_map(|(index, _, rates)| {
            let rendition = snapshot.period().renditions.get(index)?;
            Some(Entry {
                rendition,
                peak_bps: rates.peak_bps,
                average_bps: rates.average_bps,
            })
        })
        .collect()
}

/// Every picture with one sound of each codec; sound alone if there are no pictures.
fn variants(pictures: &[Entry<'_>], sounds: &[Entry<'_>]) -> Vec<VariantStream> {
    if pictures.is_empty() {
        return sounds.iter().map(|sound| variant(sound, None)).collect();
    }
    let mut found = Vec::new();
    for (place, picture) in pictures.iter().enumerate() {
        for sound in matching_sounds(place, pictures.len(), sounds) {
            found.push(variant(picture, Some(sound)));
        }
        if sounds.is_empty() {
            found.push(variant(picture, None));
        }
    }
    found
}

/// Of each codec of sound the one for the picture at `place` of `count`: the better half of the pictures
/// has the better half of the sounds. Both are listed best first.
fn matching_sounds<'a, 'b>(
    place: usize,
    count: usize,
    sounds: &'b [Entry<'a>],
) -> Vec<&'b Entry<'a>> {
    let family = |entry: &Entry<'_>| std::mem::discriminant(&entry.rendition.codec);
    let mut families = Vec::new();
    for sound in sounds {
        if !families.contains(&family(sound)) {
            families.push(family(sound));
        }
    }
    let choose = |wanted: &std::mem::Discriminant<CodecConfig>| {
        let mut same: Vec<_> = sounds.iter().filter(|s| family(s) == *wanted).collect();
        same.sort_by_key(|entry| std::cmp::Reverse(entry.rendition.target_bps));
        same.get(place * same.len() / count.max(1)).copied()
    };
    families.iter().filter_map(choose).collect()
}

fn variant(main: &Entry<'_>, sound: Option<&Entry<'_>>) -> VariantStream {
    let codecs = std::iter::once(main).chain(sound);
    let codecs: Vec<_> = codecs
        .map(|entry| CodecString::of(&entry.rendition.codec).to_string())
        .collect();
    let size = main.rendition.codec.dimensions();
    let frame_rate = main.rendition.frame_rate;
    VariantStream {
        uri: format!("{}/index.m3u8", main.rendition.name),
        bandwidth: main.peak_bps + sound.map_or(0, |entry| entry.peak_bps),
        average_bandwidth: Some(main.average_bps + sound.map_or(0, |entry| entry.average_bps)),
        codecs: Some(codecs.join(",")),
        resolution: size.map(|size| Resolution {
            width: u64::from(size.width),
            height: u64::from(size.height),
        }),
        frame_rate: frame_rate.and_then(|rate| rate.to_string().parse().ok()),
        audio: sound.map(|entry| group_of(entry)),
        closed_captions: size.map(|_| ClosedCaptionGroupId::None),
        ..VariantStream::default()
    }
}

/// Sounds that differ in bit rate are no alternatives of each other for a viewer, so each is a group.
fn group_of(sound: &Entry<'_>) -> String {
    sound.rendition.name.to_string()
}

fn alternative(sound: &Entry<'_>) -> AlternativeMedia {
    let channels = sound.rendition.codec.audio().map(|(_, channels)| channels);
    AlternativeMedia {
        media_type: AlternativeMediaType::Audio,
        uri: Some(format!("{}/index.m3u8", sound.rendition.name)),
        group_id: group_of(sound),
        name: "Main".to_owned(),
        default: true,
        autoselect: true,
        channels: channels.map(|channels| channels.to_string()),
        ..AlternativeMedia::default()
    }
}
