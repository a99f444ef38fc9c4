//! A live manifest: its newest version, and the first at each of the last places of its edge.
//!
//! Enters: versions, in order
//! Leaves: the version that answers a request, the same one for everyone who asks for the same place while
//! that is remembered
//! Never:  renders; a version in it does not change
//! Time:   none
//! Spec:   [HLS] §6.2.5.2

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::blocking::{Edge, Verdict, Wanted};
use super::document::Document;

/// How many first versions are remembered; of the oldest it is not known that it is one, so two places are. Who
/// asks for one of them gets what those got who waited for it, so that caches side by side hold the same. Who is
/// further behind gets the newest: a player that asks once in each part (Shaka Player) would never catch up, and
/// 5.2.12 takes a playlist for one that shrinks once it is a segment behind.
const MAX_EARLIER: usize = 3;

/// A live manifest, and a way to wait for the next version.
pub type Feed = watch::Receiver<Arc<Live>>;

/// One version of a manifest.
#[derive(Clone, Debug)]
pub struct Version {
    document: Arc<Document>,
    delta: Option<Arc<Document>>,
    edge: Option<Edge>,
}

impl Version {
    /// A version of a manifest that nobody can wait for.
    #[must_use]
    pub const fn plain(document: Arc<Document>) -> Self {
        Self {
            document,
            delta: None,
            edge: None,
        }
    }

    /// A version of a media playlist that nobody can wait for, of which `delta` is the delta update, if that
    /// leaves out anything.
    #[must_use]
    pub const fn skipping(document: Arc<Document>, delta: Option<Arc<Document>>) -> Self {
        Self {
            document,
            delta,
            edge: None,
        }
    }

    /// A version of a media playlist whose edge is `edge`. `delta` is its delta update, unless that
    /// would leave out nothing.
    #[must_use]
    pub const fn low_latency(
        document: Arc<Document>,
        delta: Option<Arc<Document>>,
        edge: Edge,
    ) -> Self {
        Self {
            document,
            delta,
            edge: Some(edge),
        }
    }

    /// The manifest, whole.
    #[must_use]
    pub const fn document(&self) -> &Arc<Document> {
        &self.document
    }

    /// What answers a request, which may or may not accept a delta update.
    #[must_use]
    pub fn answer(&self, skip: bool) -> &Arc<Document> {
        let delta = self.delta.as_ref().filter(|_| skip);
        delta.unwrap_or(&self.document)
    }

    /// The delta update, where there is one.
    #[must_use]
    pub const fn delta(&self) -> Option<&Arc<Document>> {
        self.delta.as_ref()
    }

    /// The live edge it shows; `None` where requests are not blocked.
    #[must_use]
    pub const fn edge(&self) -> Option<&Edge> {
        self.edge.as_ref()
    }

    fn has(&self, wanted: Wanted) -> bool {
        self.edge
            .is_none_or(|edge| edge.verdict(wanted) == Verdict::Now)
    }
}

/// The version that answers a request for a place.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The version.
    pub version: Version,
    /// Whether it is the first that had the place, and so what everyone gets who asks for it. Else it is
    /// the newest, and the next who asks may get another.
    pub is_first: bool,
}

/// The versions of one manifest that are still of use.
#[derive(Clone, Debug)]
pub struct Live {
    newest: Version,
    /// The first version at each of the last places of the edge, oldest first.
    firsts: VecDeque<Version>,
}

impl Live {
    /// A manifest whose first version is `version`.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self {
            firsts: VecDeque::from([version.clone()]),
            newest: version,
        }
    }

    /// The manifest after `version` was added, and whether its edge has moved, which is what people
    /// wait for.
    #[must_use]
    pub fn followed_by(&self, version: Version) -> (Self, bool) {
        let place = |version: &Version| version.edge.map(|edge| (edge.segment, edge.part));
        let moved = version.edge.is_none() || place(&version) != place(&self.newest);
        let mut firsts = self.firsts.clone();
        if moved {
            if firsts.len() >= MAX_EARLIER {
                firsts.pop_front();
            }
            firsts.push_back(version.clone());
        }
        let newest = version;
        (Self { newest, firsts }, moved)
    }

    /// The newest version.
    #[must_use]
    pub const fn newest(&self) -> &Version {
        &self.newest
    }

    /// The version that answers a request for `wanted`; `None` while there is none.
    #[must_use]
    pub fn version_with(&self, wanted: Wanted) -> Option<Chosen> {
        if !self.newest.has(wanted) {
            return None;
        }
        let first = self.firsts.iter().position(|version| version.has(wanted));
        // The oldest may not have been the first that has it.
        let known = first.filter(|index| *index > 0);
        let known = known.and_then(|index| self.firsts.get(index));
        Some(Chosen {
            version: known.unwrap_or(&self.newest).clone(),
            is_first: known.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::{PartIndex, SegmentNumber};

    fn version(segment: u64, part: u32, text: &str) -> Version {
        let text = bytes::Bytes::copy_from_slice(text.as_bytes());
        let edge = Edge {
            segment: SegmentNumber::new(segment),
            part: PartIndex::new(part),
            last_parts: 6,
            target_duration: Duration::from_secs(2),
            part_target: Duration::from_millis(333),
        };
        Version::low_latency(Arc::new(Document::new("text/plain", text)), None, edge)
    }

    fn text(version: &Version) -> &[u8] {
        version.document().text()
    }

    fn chosen(live: &Live, segment: u64, part: Option<u64>) -> Option<(String, bool)> {
        let chosen = live.version_with(Wanted { segment, part })?;
        let text = String::from_utf8_lossy(text(&chosen.version)).into_owned();
        Some((text, chosen.is_first))
    }

    #[test]
    fn who_asks_for_a_place_gets_the_first_version_that_had_it() {
        let mut live = Live::new(version(9, 5, "9.5"));
        let mut moves = Vec::new();
        for (segment, part, text) in [(10, 0, "10.0"), (10, 1, "10.1"), (10, 1, "10.1 later")] {
            let (next, moved) = live.followed_by(version(segment, part, text));
            moves.push(moved);
            live = next;
        }
        assert_eq!(moves, [true, true, false]);
        for (segment, part, answer) in [
            (9, None, Some(("10.0", true))),
            (9, Some(5), Some(("10.0", true))),
            (10, Some(0), Some(("10.1", true))),
            (10, Some(1), None),
            (8, Some(0), Some(("10.1 later", false))),
        ] {
            let answer = answer.map(|(text, is_first)| (text.to_owned(), is_first));
            assert_eq!(chosen(&live, segment, part), answer, "{segment} {part:?}");
        }
        assert_eq!(text(live.newest()), b"10.1 later");
    }

    #[test]
    fn who_is_three_parts_behind_gets_the_newest() {
        let mut live = Live::new(version(9, 0, "9.0"));
        for part in 1..6 {
            live = live.followed_by(version(9, part, &format!("9.{part}"))).0;
        }
        for (part, answer) in [(4, ("9.5", true)), (3, ("9.4", true)), (2, ("9.5", false))] {
            let answer = Some((answer.0.to_owned(), answer.1));
            assert_eq!(chosen(&live, 9, Some(part)), answer, "{part}");
        }
    }

    #[test]
    fn little_is_remembered_and_the_end_answers_everything() {
        let mut live = Live::new(version(1, 0, "begin"));
        for segment in 2..100 {
            live = live.followed_by(version(segment, 0, "more")).0;
        }
        assert_eq!(live.firsts.len(), MAX_EARLIER);
        let end = Arc::new(Document::new(
            "text/plain",
            bytes::Bytes::from_static(b"end"),
        ));
        let (live, moved) = live.followed_by(Version::plain(end));
        assert!(moved);
        assert_eq!(chosen(&live, 10_000, None), Some(("end".to_owned(), true)));
    }
}
