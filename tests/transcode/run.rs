//! Runs of the real worker.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use headwater::id::SegmentNumber;
use headwater::media::{Rendition, Sample};
use headwater::time::{Grid, MediaTime, Ticks, Timescale};
use headwater::transcode::ladder::Machine;
use headwater::transcode::supervisor::{Probe, probe as ask};
use headwater::transcode::template::Template;
use headwater::transcode::{Absence, Options, Output, Outputs, Transcoder};

use super::media::{Clip, Item};

const SEGMENT_MS: NonZeroU32 = NonZeroU32::new(2_000).expect("not zero");
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// Everything that came out of a run.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) samples: Vec<Vec<Sample>>,
    pub(crate) failure: Option<String>,
    pub(crate) first: FirstSegment,
    /// Where the clip's first frame lay, in milliseconds.
    pub(crate) clip_ms: i64,
}

/// The segment that a run began with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstSegment(u64);

impl FirstSegment {
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

impl From<FirstSegment> for SegmentNumber {
    fn from(first: FirstSegment) -> Self {
        Self::new(first.0)
    }
}

pub(crate) struct TestGrid(Grid);

impl TestGrid {
    pub(crate) fn segment_at(&self, time: MediaTime) -> SegmentNumber {
        self.0.segment_at(time)
    }

    pub(crate) fn start_of(&self, number: impl Into<SegmentNumber>, scale: Timescale) -> Ticks {
        self.0.start_of(number.into(), scale)
    }
}

pub(crate) fn grid() -> TestGrid {
    TestGrid(Grid::new(SEGMENT_MS))
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_headwater"))
}

fn start(template: &Template, stream: &str) -> (Transcoder, Outputs) {
    Transcoder::start(Options {
        stream: stream.parse().expect("legal"),
        template: template.clone(),
        machine: Machine { cores: 64 },
        grid: grid().0,
        first: SegmentNumber::new(0),
        program: program(),
        absence: Absence::default(),
    })
}

async fn feed(transcoder: Transcoder, items: Vec<Item>) {
    for item in items {
        let sent = match item {
            Item::Track(info) => transcoder.track(info).await,
            Item::Sample(track, sample) => transcoder.sample(track, sample).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let limited = async { tokio::time::timeout(TIME_LIMIT, work).await };
    runtime.block_on(limited).expect("within the time limit")
}

/// Transcodes `clip`, its first frame at `ms` after the epoch.
pub(crate) fn transcode(template: &Template, clip: &Clip, ms: i64) -> Made {
    block_on(async {
        let (transcoder, mut outputs) = start(template, "test");
        let feeder = tokio::spawn(feed(transcoder, clip.at(ms)));
        let first = grid().segment_at(Ticks::new(ms).at(Timescale::MILLIS));
        let mut made = Made {
            first: FirstSegment(first.get()),
            clip_ms: ms,
            ..Made::default()
        };
        while let Some(output) = outputs.next().await {
            match output {
                Output::Opened(renditions) => {
                    assert!(made.renditions.is_empty(), "opened twice");
                    made.samples = vec![Vec::new(); renditions.len()];
                    made.renditions = renditions;
                }
                Output::Sample { rendition, sample } => made.samples[rendition].push(sample),
                Output::Finished | Output::Conducted(_) => {}
                Output::Failed(error) => made.failure = Some(format!("{error:?}")),
            }
        }
        feeder.await.expect("fed");
        made
    })
}

/// Kills the worker at its first output; how the end was put, and how long it took to be seen.
pub(crate) fn killed(template: &Template, clip: &Clip) -> (String, Duration) {
    block_on(async {
        let stream = format!("killed-{}", std::process::id());
        let (transcoder, mut outputs) = start(template, &stream);
        let items = clip.at(clip.start_of_a_segment());
        // The source stays open, so that only the death of the worker can end it.
        let keep = transcoder.clone();
        let feeder = tokio::spawn(feed(transcoder, items));
        let mut at = None;
        while let Some(output) = outputs.next().await {
            match output {
                Output::Opened(_) => {
                    kill_worker_of(&stream);
                    at = Some(Instant::now());
                }
                Output::Failed(error) => {
                    drop(keep);
                    feeder.await.expect("fed");
                    return (error.to_string(), at.expect("opened").elapsed());
                }
                _ => {}
            }
        }
        ("ended without a failure".to_owned(), Duration::MAX)
    })
}

/// Kills the worker that was started for `stream`.
fn kill_worker_of(stream: &str) {
    let command = format!("{}\0worker\0{stream}\0", program().display());
    let is_it = |pid: &String| {
        let line = std::fs::read(Path::new("/proc").join(pid).join("cmdline"));
        line.is_ok_and(|line| line == command.as_bytes())
    };
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let pid = names.find(is_it).expect("a worker");
    let status = Command::new("kill").args(["-9", &pid]).status();
    assert!(status.expect("kill").success());
}

/// Which of `elements` are missing here.
pub(crate) fn probe(elements: &[String]) -> Probe {
    block_on(async { ask(&program(), elements).await.expect("an answer") })
}
