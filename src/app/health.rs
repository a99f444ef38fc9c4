//! How well a stream arrives: repairs counted by kind, and what its streamer should change.
//!
//! Enters: what the demuxer of its publisher says
//! Leaves: counters for metrics, findings for the API, one line of log when one appears and when it is mended
//! Never:  judges: that is `demux::health`
//! Time:   the broadcast's clock
//! Spec:   docs/health.md

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::app::inputs::{Both, Input};
use crate::app::stream::Stream;
use crate::demux::health::{Change, Checkup, Figures, Finding, Severity};
use crate::demux::{Output, Repair};
use crate::time::WallTime;

const REPAIRS: usize = Repair::NAMES.len();

/// The kind of those that the conductor makes, which the demuxer knows nothing of.
const MOVED: &str = "moved";

/// How well one stream arrives.
#[derive(Debug, Default)]
pub(super) struct Health {
    repairs: [AtomicU64; REPAIRS],
    /// How often the conductor moved all of the source's media.
    pub(super) moved: AtomicU64,
    reports: Mutex<Both<HealthStatus>>,
}

/// What the API says of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct HealthStatus {
    /// `good`, `fair` with a warning, `poor` with something serious.
    pub(super) state: State,
    /// What is wrong now, the worst first.
    pub(super) findings: Vec<FindingStatus>,
    /// Repairs by kind, over all broadcasts.
    pub(super) repairs: BTreeMap<&'static str, u64>,
    /// The longest of the latest distances of key frames.
    pub(super) keyframe_interval_ms: Option<i64>,
    /// How far pictures are shown from their decoding order.
    pub(super) reorder_ms: i64,
    /// Bits per second of pictures.
    pub(super) picture_bps: Option<u64>,
    /// How much later sound arrives than its picture.
    pub(super) sound_lag_ms: Option<i64>,
    /// How slow the source's clock runs, in parts per million; below zero, fast.
    pub(super) drift_ppm: Option<i64>,
}

/// All of it in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Nothing but hints.
    #[default]
    Good,
    /// A warning.
    Fair,
    /// Something serious.
    Poor,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FindingStatus {
    /// Its name in `docs/health.md`.
    pub(super) id: &'static str,
    /// `hint`, `warning` or `serious`.
    pub(super) severity: &'static str,
    /// What it means to viewers.
    pub(super) problem: &'static str,
    /// What was measured.
    pub(super) found: String,
    /// What would be right.
    pub(super) expected: String,
    /// All of it in one line, with what to do in OBS.
    pub(super) text: String,
    /// What to do in OBS.
    pub(super) obs: &'static str,
    /// What to tell ffmpeg.
    pub(super) ffmpeg: &'static str,
}

impl FindingStatus {
    fn of(finding: &Finding) -> Self {
        Self {
            id: finding.kind.id(),
            severity: finding.kind.severity().as_str(),
            problem: finding.kind.problem(),
            found: finding.found.clone(),
            expected: finding.expected.clone(),
            text: finding.to_string(),
            obs: finding.kind.obs(),
            ffmpeg: finding.kind.ffmpeg(),
        }
    }
}

impl Health {
    /// Forgets what was found at `input`: another publisher begins. Counters count on.
    pub(super) fn begin(&self, input: Input) {
        self.set(input, HealthStatus::default());
    }

    /// Repairs by kind.
    pub(super) fn repairs(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self
            .repairs
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let moved = (MOVED, self.moved.load(Ordering::Relaxed));
        Repair::NAMES.into_iter().zip(counts).chain([moved])
    }

    /// What the API says of `input` now.
    #[must_use]
    pub(super) fn status(&self, input: Input) -> HealthStatus {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        HealthStatus {
            repairs: self.repairs().filter(|(_, count)| *count > 0).collect(),
            ..reports.get(input).clone()
        }
    }

    fn set(&self, input: Input, report: HealthStatus) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        *reports.get_mut(input) = report;
    }
}

impl HealthStatus {
    fn of(checkup: &Checkup) -> Self {
        let worst = checkup
            .findings()
            .map(|finding| finding.kind.severity())
            .max();
        let Figures {
            keyframe_interval_ms,
            reorder_ms,
            picture_bps,
            sound_lag_ms,
            drift_ppm,
        } = checkup.figures();
        Self {
            state: match worst {
                Some(Severity::Serious) => State::Poor,
                Some(Severity::Warning) => State::Fair,
                Some(Severity::Hint) | None => State::Good,
            },
            findings: checkup.findings().map(FindingStatus::of).collect(),
            repairs: BTreeMap::new(),
            keyframe_interval_ms,
            reorder_ms,
            picture_bps,
            sound_lag_ms,
            drift_ppm,
        }
    }

    /// What is worse than a hint, one line each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let worse = self
            .findings
            .iter()
            .filter(|finding| finding.severity != "hint");
        worse.map(|finding| finding.text.clone()).collect()
    }
}

/// Watches what one publisher sends to a stream.
pub(super) struct Watch {
    stream: Arc<Stream>,
    input: Input,
    checkup: Checkup,
    looked: Option<WallTime>,
}

impl Watch {
    /// For the next publisher of `input` of `stream`.
    pub(super) fn new(stream: &Arc<Stream>, input: Input) -> Self {
        stream.health.begin(input);
        Self {
            stream: Arc::clone(stream),
            input,
            checkup: Checkup::new(),
            looked: None,
        }
    }

    /// Takes note of what the demuxer said at `now`.
    pub(super) fn observe(&mut self, output: &Output, now: WallTime) {
        if let Output::Repair(repair) = output {
            tracing::debug!(stream = %self.stream.name(), ?repair, "repaired");
            if let Some(count) = self.stream.health.repairs.get(repair.index()) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.checkup.observe(output, now);
    }

    /// Says what changed, once a second. `drift_ppm` is what the demuxer measured.
    pub(super) fn examine(&mut self, now: WallTime, drift_ppm: Option<i64>) {
        let waited = |looked: WallTime| now.as_micros().saturating_sub(looked.as_micros());
        if self.looked.is_some_and(|looked| waited(looked) < 1_000_000) {
            return;
        }
        self.looked = Some(now);
        let copied_ms = self.stream.copied_segment_ms.load(Ordering::Relaxed);
        // What is copied is given just what comes.
        let top_rung = self.stream.top_rung_bps().filter(|_| copied_ms == 0);
        self.checkup.set_top_rung(top_rung);
        self.checkup
            .set_copied_segment(Some(copied_ms).filter(|ms| *ms > 0));
        self.checkup
            .set_without_pictures(self.stream.is_without_pictures());
        self.checkup.set_drift(drift_ppm);
        for change in self.checkup.examine(now) {
            self.log(&change);
        }
        let report = HealthStatus::of(&self.checkup);
        self.stream.health.set(self.input, report);
    }

    fn log(&self, change: &Change) {
        let (stream, input) = (self.stream.name(), self.input.as_str());
        match change {
            Change::Found(finding) if finding.kind.severity() == Severity::Hint => {
                tracing::info!(%stream, input, finding = finding.kind.id(), "{finding}");
            }
            Change::Found(finding) => {
                tracing::warn!(%stream, input, finding = finding.kind.id(), "{finding}");
            }
            Change::Mended(kind) => {
                tracing::info!(%stream, input, finding = kind.id(), "mended");
            }
        }
    }
}
