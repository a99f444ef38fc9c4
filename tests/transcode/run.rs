//! Runs of the real worker.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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
/// How long what a stage of a source is to bring is waited for.
const STAGE_LIMIT: Duration = Duration::from_secs(20);

/// Everything that came out of a run.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) samples: Vec<Vec<Sample>>,
    pub(crate) failure: Option<String>,
    /// For every new worker whether it began with a key frame of the source that came later.
    pub(crate) restarts: Vec<bool>,
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

fn options(template: &Template, stream: &str) -> Options {
    Options {
        stream: stream.parse().expect("legal"),
        template: template.clone(),
        machine: Machine { cores: 64 },
        grid: grid().0,
        part_ms: 333,
        first: SegmentNumber::new(0),
        program: program(),
        absence: Absence::default(),
    }
}

fn start(template: &Template, stream: &str) -> (Transcoder, Outputs) {
    let options = options(template, stream);
    if template.is_mixed() {
        Transcoder::mix(options)
    } else {
        Transcoder::start(options)
    }
}

/// Feeds a ladder that copies and encodes `stages` of a source that does not end, each with how many pictures of the
/// first encoded rendition are to have come before the next; how many have come at last.
pub(crate) fn mix(template: &Template, stages: Vec<(Vec<Item>, usize)>) -> usize {
    let stream = format!("test-{}-mixed", std::process::id());
    block_on(async {
        let (transcoder, mut outputs) = start(template, &stream);
        let mut count = 0;
        for (items, until) in stages {
            let feeder = tokio::spawn(feed(transcoder.clone(), items));
            let come = async {
                while count < until {
                    match outputs.next().await.expect("it goes on") {
                        Output::Sample { rendition: 1, .. } => count += 1,
                        Output::Failed(error) => unreachable!("{error}"),
                        _ => {}
                    }
                }
            };
            if tokio::time::timeout(STAGE_LIMIT, come).await.is_err() {
                break;
            }
            feeder.await.expect("fed");
        }
        count
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

/// What befalls a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blow {
    /// It comes once the first rendition has so many samples.
    pub(crate) at: usize,
    /// The signal.
    pub(crate) signal: &'static str,
}

impl Blow {
    pub(crate) const fn kill(at: usize) -> Self {
        let signal = "-KILL";
        Self { at, signal }
    }
}

/// Transcodes `clip`, its first frame at `ms` after the epoch.
pub(crate) fn transcode(template: &Template, clip: &Clip, ms: i64) -> Made {
    transcode_with(template, clip, ms, &[])
}

/// As [`transcode`], with `blows` to the worker.
pub(crate) fn transcode_with(template: &Template, clip: &Clip, ms: i64, blows: &[Blow]) -> Made {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let stream = format!("test-{}-{run}", std::process::id());
    block_on(async {
        let (transcoder, mut outputs) = start(template, &stream);
        let feeder = tokio::spawn(feed(transcoder, clip.at(ms)));
        let first = grid().segment_at(Ticks::new(ms).at(Timescale::MILLIS));
        let mut made = Made {
            first: FirstSegment(first.get()),
            clip_ms: ms,
            ..Made::default()
        };
        let mut struck = 0;
        while let Some(output) = outputs.next().await {
            match output {
                Output::Opened { renditions, .. } => {
                    assert!(made.renditions.is_empty(), "opened twice");
                    made.samples = vec![Vec::new(); renditions.len()];
                    made.renditions = renditions;
                }
                Output::Sample { rendition, sample } => made.samples[rendition].push(sample),
                Output::Restarted { skipped, .. } => made.restarts.push(skipped),
                Output::Finished
                | Output::Conducted(_)
                | Output::Load(_)
                | Output::GivenUp(_)
                | Output::Rest { .. } => {}
                Output::Cut { .. } => assert!(template.is_mixed(), "the grid cuts"),
                Output::Period { .. } => unreachable!("another period"),
                Output::Failed(error) => made.failure = Some(format!("{error:?}")),
            }
            let count = made.samples.first().map_or(0, Vec::len);
            // What the last one had delivered may still come when there is no other one yet.
            if let Some(blow) = blows.get(struck)
                && blow.at <= count
                && made.restarts.len() >= struck
            {
                struck += usize::from(strike(blow.signal, &stream));
            }
        }
        feeder.await.expect("fed");
        made
    })
}

/// Sends `signal` to the worker that was started for `stream`, if there is one.
fn strike(signal: &str, stream: &str) -> bool {
    let command = format!("{}\0worker\0{stream}\0", program().display());
    let is_it = |pid: &String| {
        let line = std::fs::read(Path::new("/proc").join(pid).join("cmdline"));
        line.is_ok_and(|line| line == command.as_bytes())
    };
    let find = || {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let mut names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.find(is_it)
    };
    let Some(pid) = find() else {
        return false;
    };
    let status = Command::new("kill").args([signal, &pid]).status();
    status.expect("kill").success()
}

/// What a confined worker says it can do, and what of confining did not work.
pub(crate) fn confinement() -> String {
    let mut command = Command::new(program());
    told(command.args(["worker", "--try-confinement"]))
}

/// What a confined worker can do, by calls that cannot be made in safe Rust.
pub(crate) fn calls() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("confined.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcode/confined.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lrt"])
        .status();
    assert!(compiled.expect("a compiler of C").success());
    let mut command = Command::new(program());
    command.env("LD_PRELOAD", library);
    told(command.args(["worker", "--try-confinement"]))
}

/// All that `command` writes.
fn told(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    let told = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&told).into_owned()
}

/// Which of `elements` are missing here.
pub(crate) fn probe(elements: &[String]) -> Probe {
    block_on(async { ask(&program(), elements).await.expect("an answer") })
}
