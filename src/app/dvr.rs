//! Lets viewers of a live stream go further back than its list, from this server.
//!
//! Enters: snapshots, the live manifests made of them, what an earlier run recorded
//! Leaves: the manifests that reach further back
//! Never:  reads the store: what is behind is known by its lines, and its media is read when it is asked for
//! Time:   the media's
//! Spec:   docs/recordings.md

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::media::{Item, Rendition};
use crate::package::Snapshot;
use crate::package::dvr::{self, Behind, Gone};
use crate::package::show::Show;
use crate::serve::{Document, Version};
use crate::time::WallTime;

/// What is behind the live list of a stream.
#[derive(Debug)]
pub(super) struct Dvr {
    reach: Duration,
    behind: Vec<Behind>,
    /// Where the list began when it was looked at first, and last.
    first: Option<u64>,
    next: u64,
    /// The MPD as it was made last.
    mpd: String,
}

impl Dvr {
    /// Nothing yet of `renditions`; `None` where nobody is to go back.
    pub(super) fn new(reach: Duration, renditions: usize) -> Option<Self> {
        (!reach.is_zero()).then(|| Self {
            reach,
            behind: vec![Behind::new(reach); renditions],
            first: None,
            next: 0,
            mpd: String::new(),
        })
    }

    /// There are `renditions` from now on; of those that are new nothing is behind.
    pub(super) fn widen(&mut self, renditions: usize) {
        self.behind.resize(renditions, Behind::new(self.reach));
    }

    /// Takes in what has left the list.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let listed = snapshot.listed();
        if listed.is_empty() {
            return;
        }
        if self.first.is_none() {
            (self.first, self.next) = (Some(listed.start), listed.start);
        }
        if listed.start == self.next {
            return;
        }
        let left = self.next..listed.start;
        for (index, behind) in self.behind.iter_mut().enumerate() {
            let gone = snapshot.segments(index);
            for segment in gone.filter(|segment| left.contains(&segment.number.get())) {
                behind.push(Gone {
                    number: segment.number.get(),
                    begins: segment.begins(),
                    length: segment.duration,
                    period: segment.period,
                    discontinuity: segment.discontinuity,
                    gap: segment.gap,
                });
            }
            if let Some(edge) = edge(snapshot, index) {
                behind.trim(edge);
            }
        }
        self.next = listed.start;
    }

    /// Puts before it what an earlier run recorded in `show`, with which this broadcast goes on.
    pub(super) fn resume(&mut self, show: &Show, renditions: &[Rendition]) {
        let Some(first) = self.first else {
            return;
        };
        let from = show.number_within(self.reach);
        for (behind, rendition) in self.behind.iter_mut().zip(renditions) {
            let mut earlier = Behind::new(self.reach);
            let gone = show.gone(&rendition.name, from..first);
            gone.into_iter().for_each(|gone| earlier.push(gone));
            behind.put_before(earlier);
        }
    }

    /// What reaches further back than each of the `live` manifests that changed, `texts` being all of them.
    pub(super) fn versions(
        &mut self,
        snapshot: &Snapshot,
        live: &[(Item, Version)],
        texts: &[(Item, String)],
    ) -> Vec<(Item, Version)> {
        let mut found = Vec::new();
        let mut has_mpd = false;
        let is_on_grid = snapshot.presentation().cuts.are_on_grid();
        for (item, version) in live {
            match item {
                Item::Media(name) => {
                    let index = snapshot.rendition(name.as_str());
                    if let Some(behind) = index.and_then(|index| self.behind.get(index)) {
                        let reaching = Item::DvrMedia(name.clone());
                        let version = media(&reaching, behind, version);
                        found.push((reaching, version));
                        // Its depth grows with the list; where the source cuts, it changes with the live one.
                        has_mpd |= is_on_grid && index == Some(0);
                    }
                }
                Item::Multivariant => {
                    let text = String::from_utf8_lossy(version.document().text()).into_owned();
                    let text = dvr::multivariant(&text);
                    found.push((Item::Dvr, plain(&Item::Dvr, text)));
                }
                Item::Mpd => has_mpd = true,
                _ => {}
            }
        }
        let mpd = texts.iter().find(|(item, _)| *item == Item::Mpd);
        let mpd = mpd.filter(|_| has_mpd);
        if let Some(text) = mpd.and_then(|(_, mpd)| self.mpd(snapshot, mpd)) {
            let text = dvr::rising(text, &self.mpd);
            // It is looked at with every part, and changes with a segment.
            if text != self.mpd {
                self.mpd.clone_from(&text);
                found.push((Item::DvrMpd, plain(&Item::DvrMpd, text)));
            }
        }
        found
    }

    /// The MPD that reaches back; soon after a hole, no further than the live one: as there, who stopped before the hole
    /// has to find his place behind what is reached, or dash.js would stand there for hours.
    fn mpd(&self, snapshot: &Snapshot, live: &str) -> Option<String> {
        if snapshot.behind_hole().is_some() {
            return Some(live.to_owned());
        }
        if !snapshot.presentation().cuts.are_on_grid() {
            let behind = |name: &str| self.behind.get(snapshot.rendition(name)?);
            return dvr::mpd_of_cuts(live, behind, edge(snapshot, 0)?);
        }
        let period = snapshot.period().id;
        let counts = self.behind.iter().map(|behind| behind.count_of(period));
        let config = &snapshot.presentation().config;
        let listed = snapshot.listed();
        let listed = (listed.end - listed.start).max(config.window_segments.into());
        let step = u64::from(config.segment_ms.get());
        let depth = counts.min().unwrap_or(0).saturating_add(listed) * step;
        dvr::mpd(live, depth, edge(snapshot, 0)?)
    }
}

/// Where what is listed of a rendition ends.
fn edge(snapshot: &Snapshot, rendition: usize) -> Option<WallTime> {
    let last = snapshot.listed_segments(rendition).last()?;
    Some(last.ends().to_wall())
}

fn plain(item: &Item, text: String) -> Version {
    Version::plain(Arc::new(Document::manifest(item, text.into())))
}

/// The media playlist `item` that reaches further back than `live`.
pub(super) fn media(item: &Item, behind: &Behind, live: &Version) -> Version {
    let text = |document: &Document| String::from_utf8_lossy(document.text()).into_owned();
    let document = |pieces: Vec<Bytes>| Arc::new(Document::manifest_of(item, pieces));
    let whole = text(live.document());
    let of_delta = live.delta().map(|delta| text(delta));
    let delta = dvr::delta(behind, of_delta.as_deref().unwrap_or(&whole)).map(document);
    let document = document(dvr::playlist(behind, &whole));
    match live.edge() {
        Some(edge) => Version::low_latency(document, delta, *edge),
        None => Version::skipping(document, delta),
    }
}
