//! Makes a version of a manifest that players can wait at.
//!
//! Enters: a snapshot, a media playlist made of it
//! Leaves: the playlist with its delta update and its live edge
//! Never:  publishes
//! Time:   none
//! Spec:   [HLS] §6.2.5

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::media::Item;
use crate::package::{Snapshot, hls};
use crate::serve::blocking::Edge;
use crate::serve::{Document, Version};

/// The manifest `item` with the text `text`.
pub(super) fn manifest(item: &Item, text: String) -> Arc<Document> {
    Arc::new(Document::manifest(item, Bytes::from(text)))
}

/// The playlist `text` of rendition `index` with what it takes to wait for its next version.
pub(super) fn low_latency(snapshot: &Snapshot, index: usize, item: &Item, text: String) -> Version {
    let Some(edge) = edge(snapshot, index) else {
        return Version::plain(manifest(item, text));
    };
    let delta = hls::media::render_delta(snapshot, index);
    let delta = delta.filter(|delta| *delta != text);
    let delta = delta.map(|delta| manifest(item, delta));
    Version::low_latency(manifest(item, text), delta, edge)
}

/// The live edge of rendition `index`; `None` where players cannot wait at it.
fn edge(snapshot: &Snapshot, index: usize) -> Option<Edge> {
    let presentation = snapshot.presentation();
    if !presentation.config.low_latency.is_on() {
        return None;
    }
    let (segment, part) = snapshot.next_part(index)?;
    let last = snapshot.segments(index).next_back()?;
    Some(Edge {
        segment,
        part,
        last_parts: u32::try_from(last.parts.len()).unwrap_or(u32::MAX),
        target_duration: Duration::from_secs(presentation.target_duration_s.into()),
        part_target: Duration::from_micros(presentation.part_target.as_micros()),
    })
}
