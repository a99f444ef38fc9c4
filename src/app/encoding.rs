//! How encoding of one stream keeps up with the clock: which rungs rest, and what to do about it.
//!
//! Enters: what its worker says
//! Leaves: gauges and a counter for metrics, a part of the API, one line of log when it changes
//! Never:  judges: that is `transcode::overload`
//! Time:   milliseconds of lateness
//! Spec:   docs/resilience.md

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::app::status::RenditionStatus;
use crate::id::StreamName;
use crate::transcode::GivenUp;
use crate::transcode::copy::VIDEO_NAME;
use crate::transcode::overload::Load;

/// What an operator can do, and a streamer.
const ADVICE: &str = "give it more cores, choose a ladder with fewer rungs or a faster preset, or send a \
                      smaller picture (in OBS: Settings > Video > Output (Scaled) Resolution)";

/// How one stream's encoders keep up.
#[derive(Debug, Default)]
pub(super) struct Encoding {
    resting: AtomicU32,
    late_ms: AtomicU32,
    left_frames: AtomicU64,
    /// The worker's own count, of which the difference is added.
    told_frames: AtomicU64,
    sheds: AtomicU64,
    /// Whether nothing is encoded, and why.
    given_up: Mutex<Option<GivenUp>>,
}

/// What the API says of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct EncodingStatus {
    /// How late the slowest encoder is, in milliseconds.
    pub(super) late_ms: u32,
    /// Frames that were not encoded because they would have been late, over all broadcasts.
    pub(super) left_frames: u64,
    /// Renditions that are not made now, best first.
    pub(super) resting: Vec<String>,
    /// Why: `too_slow`, `given_up`; `null` if all are made.
    pub(super) why: Option<&'static str>,
    /// What that means, and what to do; `null` if all are made.
    pub(super) warning: Option<String>,
}

impl Encoding {
    /// A broadcast begins: all of its rungs are encoded.
    pub(super) fn begin(&self) {
        self.resting.store(0, Ordering::Relaxed);
        self.late_ms.store(0, Ordering::Relaxed);
        self.told_frames.store(0, Ordering::Relaxed);
        *self.given_up() = None;
    }

    /// Takes note that encoding of `stream`, which has `renditions`, was given up, or goes on.
    pub(super) fn give_up(
        &self,
        given_up: Option<GivenUp>,
        stream: &StreamName,
        renditions: &[RenditionStatus],
    ) {
        let all = names(u32::MAX, renditions).len();
        let resting = if given_up.is_some() { all } else { 0 };
        let resting = u32::try_from(resting).unwrap_or(u32::MAX);
        self.begin();
        self.resting.store(resting, Ordering::Relaxed);
        if given_up.is_none() {
            tracing::info!(%stream, "all rungs are encoded again");
        }
        *self.given_up() = given_up;
    }

    /// Whether nothing of the pictures is encoded.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up().is_some()
    }

    fn given_up(&self) -> MutexGuard<'_, Option<GivenUp>> {
        // A panic while it was held leaves a whole value behind.
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what the worker of `stream`, which has `renditions`, says.
    pub(super) fn tell(&self, load: Load, stream: &StreamName, renditions: &[RenditionStatus]) {
        let told = self.told_frames.swap(load.left_frames, Ordering::Relaxed);
        let more = load.left_frames.saturating_sub(told);
        self.left_frames.fetch_add(more, Ordering::Relaxed);
        self.late_ms.store(load.late_ms, Ordering::Relaxed);
        let before = self.resting.swap(load.resting, Ordering::Relaxed);
        if load.resting > before {
            let sheds = u64::from(load.resting - before);
            self.sheds.fetch_add(sheds, Ordering::Relaxed);
            let warning = warning(&names(load.resting, renditions)).unwrap_or_default();
            tracing::warn!(%stream, late_ms = load.late_ms, "{warning}");
        } else if load.resting < before {
            let resting = names(load.resting, renditions);
            tracing::info!(%stream, ?resting, "a rung is encoded again");
        }
    }

    /// How many rungs are not made now.
    pub(super) fn resting(&self) -> u32 {
        self.resting.load(Ordering::Relaxed)
    }

    /// How late the slowest encoder is, in milliseconds.
    pub(super) fn late_ms(&self) -> u32 {
        self.late_ms.load(Ordering::Relaxed)
    }

    /// How many frames were not encoded.
    pub(super) fn left_frames(&self) -> u64 {
        self.left_frames.load(Ordering::Relaxed)
    }

    /// How often a rung had to rest.
    pub(super) fn sheds(&self) -> u64 {
        self.sheds.load(Ordering::Relaxed)
    }

    /// What the API says of it.
    pub(super) fn status(&self, renditions: &[RenditionStatus]) -> EncodingStatus {
        let resting = names(self.resting(), renditions);
        let (why, warning) = match &*self.given_up() {
            Some(given_up) => (
                Some("given_up"),
                Some(alone(given_up, &resting, renditions)),
            ),
            None => (
                (!resting.is_empty()).then_some("too_slow"),
                warning(&resting),
            ),
        };
        EncodingStatus {
            late_ms: self.late_ms(),
            left_frames: self.left_frames(),
            resting,
            why,
            warning,
        }
    }
}

/// The names of the `resting` best renditions of pictures that are encoded.
fn names(resting: u32, renditions: &[RenditionStatus]) -> Vec<String> {
    let is_encoded = |r: &&RenditionStatus| r.kind == "video" && r.name != VIDEO_NAME;
    let pictures = renditions.iter().filter(is_encoded);
    let resting = usize::try_from(resting).unwrap_or(usize::MAX);
    pictures.take(resting).map(|r| r.name.clone()).collect()
}

fn warning(resting: &[String]) -> Option<String> {
    let (is, them) = if resting.len() == 1 {
        ("is", "it")
    } else {
        ("are", "them")
    };
    let names = resting.join(", ");
    (!resting.is_empty()).then(|| {
        format!(
            "This machine cannot encode the whole ladder in time: {names} {is} left out until it can, \
             and viewers of {them} see the next best. To keep all of it, {ADVICE}"
        )
    })
}

/// What it means that encoding was `given_up`, so that `resting` of `renditions` are not made.
fn alone(given_up: &GivenUp, resting: &[String], renditions: &[RenditionStatus]) -> String {
    let GivenUp { cause, retries } = given_up;
    let rest = match resting {
        [] => String::new(),
        [one] => format!("{one} rests, and "),
        all => format!("{} rest, and ", all.join(", ")),
    };
    let is_copied = renditions.iter().any(|r| r.name == VIDEO_NAME);
    let served = if is_copied {
        "only the source's own pictures are served"
    } else {
        "only the sound is served"
    };
    let next = if *retries {
        "It is tried again within a minute or so"
    } else {
        "It is not tried again in this broadcast: mend the cause, and publish again"
    };
    format!("Nothing of the pictures is encoded now ({cause}): {rest}{served}. {next}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::status::TrackStatus;

    fn rendition(name: &str, kind: &'static str) -> RenditionStatus {
        RenditionStatus {
            name: name.to_owned(),
            kind,
            track: TrackStatus {
                codec: String::new(),
                width: None,
                height: None,
                frame_rate: None,
                sample_rate: None,
                channels: None,
            },
            target_bps: 1,
            peak_bps: 1,
            average_bps: 1,
        }
    }

    #[test]
    fn rungs_that_rest_are_named_with_what_to_do() {
        let renditions = [
            rendition("v720", "video"),
            rendition("v360", "video"),
            rendition("a128", "audio"),
        ];
        let stream = "demo".parse().expect("legal");
        let encoding = Encoding::default();
        assert_eq!(encoding.status(&renditions).warning, None);
        let load = |resting, left_frames| Load {
            resting,
            late_ms: 900,
            left_frames,
        };
        encoding.tell(load(1, 5), &stream, &renditions);
        encoding.tell(load(1, 9), &stream, &renditions);
        let status = encoding.status(&renditions);
        assert_eq!(
            (status.resting, status.left_frames),
            (vec!["v720".to_owned()], 9)
        );
        let warning = status.warning.expect("there is one");
        assert!(
            warning.contains("v720 is left out") && warning.contains("more cores"),
            "{warning}"
        );
        encoding.tell(load(0, 9), &stream, &renditions);
        encoding.begin();
        encoding.tell(load(1, 2), &stream, &renditions);
        assert_eq!((encoding.left_frames(), encoding.sheds()), (11, 2));
        assert_eq!(encoding.status(&renditions).why, Some("too_slow"));
    }

    #[test]
    fn who_has_given_up_encoding_does_not_blame_the_machine() {
        let names = ["vcopy", "v480", "v240"].map(|name| rendition(name, "video"));
        let renditions: Vec<_> = names
            .into_iter()
            .chain([rendition("acopy", "audio")])
            .collect();
        let stream = "demo".parse().expect("legal");
        let encoding = Encoding::default();
        let given_up = |retries| {
            let cause = "the worker hangs".to_owned();
            Some(GivenUp { cause, retries })
        };
        encoding.give_up(given_up(true), &stream, &renditions);
        let status = encoding.status(&renditions);
        assert_eq!(
            (status.resting.as_slice(), status.why),
            (&["v480", "v240"].map(str::to_owned)[..], Some("given_up"))
        );
        assert_eq!(
            status.warning.as_deref(),
            Some(
                "Nothing of the pictures is encoded now (the worker hangs): v480, v240 rest, and only the source's own pictures are served. It is tried again within a minute or so"
            )
        );
        assert_eq!((encoding.resting(), encoding.sheds()), (2, 0));
        encoding.give_up(None, &stream, &renditions);
        let status = encoding.status(&renditions);
        assert_eq!(
            (status.resting.len(), status.why, status.warning),
            (0, None, None)
        );
        // Of a ladder without copied pictures the sound is left; or nothing else was ever made.
        encoding.give_up(given_up(false), &stream, &renditions[2..]);
        let warning = encoding
            .status(&renditions[2..])
            .warning
            .expect("there is one");
        assert!(
            warning.contains("v240 rests, and only the sound is served. It is not"),
            "{warning}"
        );
        encoding.give_up(given_up(false), &stream, &renditions[..1]);
        let warning = encoding
            .status(&renditions[..1])
            .warning
            .expect("there is one");
        assert!(
            warning.contains("hangs): only the source's own"),
            "{warning}"
        );
        encoding.begin();
        assert_eq!(encoding.status(&renditions).warning, None);
    }
}
