//! What a library holds in memory, and for how long it counts.
//!
//! Enters: what was read, and made of it, with the time
//! Leaves: the same, while it is fresh
//! Never:  reads or renders
//! Time:   how long ago something was read
//! Spec:   docs/recordings.md

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reaching::Reaching;
use crate::app::status::ShowStatus;
use crate::id::SegmentNumber;
use crate::media::ObjectKey;
use crate::package::show::Show;
use crate::serve::shelf::Keep;
use crate::serve::stretch::Asked;
use crate::serve::{Clip, Growth, NoClip};

/// How old a record may be that goes on, and the list of shows.
const FRESH: Duration = Duration::from_millis(500);

/// How old the record of a show may be that has ended, and so what a manifest knows of it to which nothing will be added:
/// its oldest segments may go.
const ENDED_FRESH: Duration = Duration::from_secs(10);

/// How old what a list says of a show may be that has ended: where it begins, once its oldest segments go.
const LISTED_FRESH: Duration = Duration::from_secs(60);

/// The shows of a stream, or one of them.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Shows(Arc<Vec<SegmentNumber>>),
    Show(Arc<Show>),
    /// What reaches further back than a live manifest.
    Reaching(Arc<Reaching>),
    /// No record, or one that cannot be read.
    Nothing,
    /// The store did not say; what was made before of what it said, which comes after that when it says so again.
    Failed(Option<Arc<Reaching>>),
}

#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) found: Found,
    pub(super) bytes: u64,
    pub(super) at: Instant,
}

impl Keep for Reading {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let limit = match &self.found {
            Found::Show(show) if show.is_ended() => ENDED_FRESH,
            _ => FRESH,
        };
        now.duration_since(self.at) < limit
    }
}

/// What a list says of a show; `None` of one that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) status: Option<ShowStatus>,
    pub(super) at: Instant,
}

impl Keep for Listed {
    fn bytes(&self) -> u64 {
        // Its texts, and what they are held by.
        self.status.as_ref().map_or(0, |_| 512)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let limit = match &self.status {
            Some(status) if !status.ended => FRESH,
            // One that is damaged stays so until somebody mends it, and each reading of it is told in the log.
            _ => LISTED_FRESH,
        };
        now.duration_since(self.at) < limit
    }
}

/// What somebody asks for: a manifest, and of which stretch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asking {
    pub(super) key: ObjectKey,
    pub(super) asked: Option<Asked>,
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.asked {
            Some(asked) => write!(f, "{}?{asked}", self.key),
            None => self.key.fmt(f),
        }
    }
}

/// A manifest of a stretch, or why there is none.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) clip: Result<Clip, NoClip>,
    /// What it was made of, where that may go on.
    pub(super) of: Vec<Kept>,
    /// When it was made; of one to which nothing will be added, when the oldest record was read that it was made of.
    pub(super) at: Instant,
}

impl Made {
    /// The same, if it is of `shows` as they are: until another goes on with them, there is nothing to render.
    pub(super) fn of_same(self, shows: &[Kept]) -> Option<Clip> {
        let is_same = |(one, other): (&Kept, &Kept)| Arc::ptr_eq(&one.show, &other.show);
        let are_same = self.of.len() == shows.len() && self.of.iter().zip(shows).all(is_same);
        let clip = self.clip.ok()?;
        (are_same && clip.growth == Growth::Over).then_some(clip)
    }
}

impl Keep for Made {
    fn bytes(&self) -> u64 {
        // Its compressed forms are kept beside it.
        let text = self.clip.as_ref().map(|clip| clip.document.text().len());
        let records: u64 = self.of.iter().map(|kept| kept.bytes).sum();
        text.map_or(0, |len| len as u64 / 2 * 3) + records
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let limit = match &self.clip {
            Ok(clip) if clip.growth == Growth::Final => ENDED_FRESH,
            // Another broadcast may have begun that it goes on with.
            _ => FRESH,
        };
        now.duration_since(self.at) < limit
    }
}

/// A show as it was read.
#[derive(Clone, Debug)]
pub(in crate::app) struct Kept {
    pub(super) show: Arc<Show>,
    /// Bytes of its record.
    pub(super) bytes: u64,
    pub(super) at: Instant,
}

impl From<Arc<Show>> for Kept {
    fn from(show: Arc<Show>) -> Self {
        let (bytes, at) = (0, Instant::now());
        Self { show, bytes, at }
    }
}

impl Borrow<Show> for Kept {
    fn borrow(&self) -> &Show {
        &self.show
    }
}
