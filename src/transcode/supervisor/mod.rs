//! Keeps a transcode worker at work: starts it, feeds it, hands on what it makes, and starts another one
//! when it dies.
//!
//! ```text
//!              ┌─ Kept: what a new worker has to see again
//! inputs ─▶ Charge ─▶ process::Worker ─▶ Charge ─▶ outputs
//!                                          └─ Progress: what was delivered already
//! ```
//!
//! Enters: tracks and samples of one source
//! Leaves: [`Output`]s: the renditions once, their samples without a gap whatever befalls a worker, and how
//!         it ended
//! Never:  GStreamer, decoding, packaging
//! Time:   the epoch timeline; the first segment is that of the first key frame, or the one asked for
//!         if that is later
//! Spec:   [`crate::transcode::ipc`]

mod attend;
mod backlog;
mod bounds;
mod copying;
mod deaths;
mod gather;
mod kept;
mod mixing;
mod process;
mod progress;
mod queue;
mod said;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::id::{SegmentNumber, StreamName, TrackId};
use crate::media::{Rendition, Sample, TrackInfo};
use crate::time::{Grid, WallTime};
use crate::transcode::Absence;
use crate::transcode::conductor::Conducted;
use crate::transcode::ipc;
use crate::transcode::ladder::{self, Machine};
use crate::transcode::overload::Load;
use crate::transcode::template::Template;

use self::attend::Charge;
use self::copying::Copying;
use self::deaths::{Deaths, Verdict};
pub use self::deaths::{GivenUp, RETRY_AFTER};
use self::gather::Gather;

/// Rendition samples that wait for the caller: about a second of a large ladder.
const MAX_OUTPUTS: usize = 256;
/// How long ago the time may have been told that a worker is told: twice as long as it takes until it is told again.
const MAX_CLOCK_AGE: Duration = Duration::from_millis(500);
/// How long to wait before a worker is tried again that could not be started: a machine that has no memory or no
/// processes left may have some soon. After the last it is given up.
const START_PAUSES_MS: [u64; 5] = [250, 500, 1_000, 2_000, 4_000];
/// This program, even if its file was replaced or removed since it began: both ends have to be the same.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// The last lines of a worker's stderr that a failure carries.
pub const MAX_LAST_LINES: usize = 16;

/// What a transcoder is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose samples these are, for the log.
    pub stream: StreamName,
    /// The ladder's file.
    pub template: Template,
    /// What the ladder may use.
    pub machine: Machine,
    /// The grid that all renditions are cut on.
    pub grid: Grid,
    /// What a part of them is to last, in milliseconds.
    pub part_ms: u32,
    /// The earliest segment that may be made: one more than the last that was used.
    pub first: SegmentNumber,
    /// The program whose hidden command `worker` is run: this one, [`OWN_PROGRAM`].
    pub program: PathBuf,
    /// What is shown while the source sends nothing.
    pub absence: Absence,
}

impl Options {
    fn plan(&self, source: &ladder::Source) -> Result<ladder::Plan, Error> {
        let plan = ladder::plan(
            &self.template,
            source,
            self.machine,
            self.grid,
            self.part_ms,
        );
        Ok(plan?)
    }
}

/// What decides where the renditions are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// The grid: a segment's number is its time divided by its length.
    Grid,
    /// The key frames of the source.
    Source {
        /// The number of the first segment of each rendition.
        first: SegmentNumber,
        /// The longest that a segment is meant to be, in milliseconds: a whole number of seconds, above which
        /// none ends by more than is rounded off.
        longest_ms: u32,
    },
}

/// What comes out of a transcoder, in this order: `Opened`; `Sample`s and what goes with them, among it `Cut`s
/// and `Period`s where the source cuts; then one of the last two. A `GivenUp` or `Restarted` may come anywhere before
/// those.
#[derive(Debug)]
pub enum Output {
    /// What the renditions are, pictures first, each kind best first. Once, before any sample.
    Opened {
        /// The renditions.
        renditions: Vec<Rendition>,
        /// What decides where they are cut.
        cuts: Cuts,
    },
    /// The next sample of the rendition begins this segment. Only where the source cuts, and there before the
    /// first sample of each segment.
    Cut {
        /// Index into the renditions of [`Output::Opened`].
        rendition: usize,
        /// The segment's number: one more than that of the segment before it, which has nothing if no sample
        /// came in between.
        number: SegmentNumber,
    },
    /// The timeline of the source breaks: what follows, of every rendition, is of another period. Only where
    /// the source cuts.
    Period {
        /// The renditions, with the names of before, in the same order.
        renditions: Vec<Rendition>,
        /// The number of the first segment of each in it.
        first: SegmentNumber,
    },
    /// One access unit of the rendition of that index. In decode order per rendition.
    Sample {
        /// Index into the renditions of [`Output::Opened`].
        rendition: usize,
        /// The access unit, at its exact place.
        sample: Sample,
    },
    /// How conducting goes: when what is shown changes, and now and again.
    Conducted(Conducted),
    /// A rendition rests because the machine cannot carry it: nothing comes of it before segment `until` that
    /// has not come. Said again as time goes on.
    Rest {
        /// Index into the renditions of [`Output::Opened`].
        rendition: usize,
        /// The first segment that may come.
        until: SegmentNumber,
        /// Whether it still has what precedes `until` now, and what comes next, but not for long.
        soon: bool,
    },
    /// How encoding keeps up with the clock: when a rung begins or ceases to rest, and now and again.
    Load(Load),
    /// Nothing is encoded any more, or for a while: what is copied goes on alone. `None` when it is again.
    GivenUp(Option<GivenUp>),
    /// The worker died, and another one goes on in its place. Samples go on where they ended, in decode time;
    /// where pictures are shown out of order, a few of them may be missing at that place.
    Restarted {
        /// How the worker died.
        cause: Error,
        /// Whether the new one begins with the next key frame, because samples of the source may have killed
        /// the last two. The picture is held and the sound silent for what is left out.
        skipped: bool,
    },
    /// Everything that went in has come out.
    Finished,
    /// The worker is gone, and no other one is worth a try; nothing more comes.
    Failed(Error),
}

/// Why a transcoder ends before its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source has nothing to make a ladder of.
    #[error("{0}")]
    Ladder(#[from] ladder::Error),
    /// The worker's process could not be started.
    #[error("the worker cannot be started: {0}")]
    Spawn(#[source] std::io::Error),
    /// The worker sent something else than a message.
    #[error("the worker's answer: {0}")]
    Message(#[from] ipc::Error),
    /// The worker ended without having delivered everything.
    #[error("the worker died ({status}): {}", last.last().map_or("it said nothing", String::as_str))]
    Died {
        /// Its exit status or signal, as the system names it.
        status: String,
        /// The last lines it wrote, oldest first, at most [`MAX_LAST_LINES`].
        last: Vec<String>,
    },
    /// The worker says what cannot be: it was killed.
    #[error("the worker cannot be believed: it tells of {what}")]
    Misbehaved {
        /// What it says.
        what: &'static str,
    },
    /// The worker lives, but no longer takes or gives anything; it was killed.
    #[error("the worker hangs")]
    Stalled,
    /// A new worker's renditions are not those of the worker before it, so that it cannot go on.
    #[error("a new worker's renditions differ from the old one's")]
    Differs,
    /// The transcoder has ended already; its outputs say why.
    #[error("the transcoder has ended")]
    Stopped,
    /// The slate cannot be drawn.
    #[error("{0}")]
    Slate(String),
    /// A probe's answer could not be read.
    #[error("the probe's answer: {0}")]
    Probe(#[from] serde_json::Error),
}

/// What a probe of this machine found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// GStreamer's version.
    pub gstreamer: String,
    /// The elements asked for that this machine lacks.
    pub missing: Vec<String>,
}

/// The side of a transcoder that the source goes into. Dropping it ends the source; what the worker
/// holds then still comes out.
#[derive(Clone, Debug)]
pub struct Transcoder {
    inputs: queue::Sender,
    /// Whether anything is made up for what does not come in time.
    needs_time: bool,
}

/// The side of a transcoder that the renditions come out of. Dropping it kills the worker.
#[derive(Debug)]
pub struct Outputs(Made);

/// Where outputs are made.
#[derive(Debug)]
enum Made {
    /// By a worker, which a task attends.
    Elsewhere(mpsc::Receiver<Output>),
    /// By whoever asks for them.
    Here(Box<Copying>),
}

#[derive(Clone, Debug)]
enum Input {
    Track(TrackInfo),
    Sample(TrackId, Sample),
    Clock(Clock),
    Detach,
}

impl Input {
    /// How many bytes of media it has.
    fn bytes(&self) -> usize {
        match self {
            Self::Sample(_, sample) => sample.data.len(),
            Self::Track(_) | Self::Clock(_) | Self::Detach => 0,
        }
    }
}

/// The time as it was told.
#[derive(Clone, Copy, Debug)]
struct Clock {
    now: WallTime,
    told: Instant,
}

impl Clock {
    fn new(now: WallTime) -> Self {
        let told = Instant::now();
        Self { now, told }
    }

    /// The time, unless it waited for a worker: by that of then what comes next would be early, and what comes later
    /// would be taken to be late for not being as early. It is told again soon.
    fn fresh(self) -> Option<WallTime> {
        (self.told.elapsed() <= MAX_CLOCK_AGE).then_some(self.now)
    }

    /// The time that it is by now.
    fn by_now(self) -> WallTime {
        let waited = i64::try_from(self.told.elapsed().as_micros()).unwrap_or(i64::MAX);
        WallTime::from_micros(self.now.as_micros().saturating_add(waited))
    }
}

impl Transcoder {
    /// Starts a transcoder. It first watches the source for about a third of a second to learn its
    /// frame rate and whether there is sound, then plans the ladder and starts the worker.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> (Self, Outputs) {
        let (inputs, input_queue) = queue::queue();
        let (output_queue, outputs) = mpsc::channel(MAX_OUTPUTS);
        tokio::spawn(run(options, input_queue, output_queue));
        let transcoder = Self {
            inputs,
            needs_time: true,
        };
        (transcoder, Outputs(Made::Elsewhere(outputs)))
    }

    /// Starts one that makes nothing: it hands on the samples of the source as they are, cut at its key frames.
    /// It needs no worker, nor a task of its own: whoever asks for the outputs does the little there is to do.
    /// While the source sends nothing, nothing comes out.
    #[must_use]
    pub fn copy(stream: StreamName, grid: Grid, first: SegmentNumber) -> (Self, Outputs) {
        let (inputs, input_queue) = queue::queue();
        let copying = Copying::new(stream, (grid, first), input_queue);
        let transcoder = Self {
            inputs,
            needs_time: false,
        };
        (transcoder, Outputs(Made::Here(Box::new(copying))))
    }

    /// Starts one that hands on some of the source's samples as they are and encodes others: all cut at its
    /// key frames. While the source sends nothing, nothing comes out. The template of `options` is mixed.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn mix(options: Options) -> (Self, Outputs) {
        let (inputs, input_queue) = queue::queue();
        let (output_queue, outputs) = mpsc::channel(MAX_OUTPUTS);
        tokio::spawn(async move {
            let end = match mixing::run(options, input_queue, &output_queue).await {
                Ok(()) => Output::Finished,
                Err(error) => Output::Failed(error),
            };
            // As in `run`.
            let _ = output_queue.send(end).await;
        });
        let transcoder = Self {
            inputs,
            needs_time: false,
        };
        (transcoder, Outputs(Made::Elsewhere(outputs)))
    }

    /// Announces a track, or a change of one. Waits while the worker is behind.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] once the transcoder has ended.
    pub async fn track(&self, info: TrackInfo) -> Result<(), Error> {
        self.send(Input::Track(info)).await
    }

    /// Gives one access unit of an announced track, in decode order. Waits while the worker is behind.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] once the transcoder has ended.
    pub async fn sample(&self, track: TrackId, sample: Sample) -> Result<(), Error> {
        self.send(Input::Sample(track, sample)).await
    }

    /// Tells the time of the broadcast's clock. From then on what the source does not send in time is made
    /// up for; without any, a source may be read as fast as it goes. To be told now and again.
    ///
    /// Where the worker is behind, this one is left out: another comes.
    pub fn clock(&self, now: WallTime) {
        if self.needs_time {
            self.inputs.try_send(Input::Clock(Clock::new(now)));
        }
    }

    /// Tells that the source has gone. Another one may begin, with its tracks; until then what it sent last
    /// is held, and then the slate. Waits while the worker is behind.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] once the transcoder has ended.
    pub async fn detach(&self) -> Result<(), Error> {
        self.send(Input::Detach).await
    }

    async fn send(&self, input: Input) -> Result<(), Error> {
        let is_taken = self.inputs.send(input).await;
        is_taken.then_some(()).ok_or(Error::Stopped)
    }
}

#[cfg(test)]
impl Outputs {
    /// What a test says.
    pub(crate) fn said() -> (mpsc::Sender<Output>, Self) {
        let (say, outputs) = mpsc::channel(MAX_OUTPUTS);
        (say, Self(Made::Elsewhere(outputs)))
    }
}

impl Outputs {
    /// The next output; `None` after [`Output::Finished`] or [`Output::Failed`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Output> {
        match &mut self.0 {
            Made::Elsewhere(outputs) => outputs.recv().await,
            Made::Here(copying) => copying.next().await,
        }
    }
}

/// Asks a child process which of `elements` this machine lacks, so that the server itself need not
/// load GStreamer.
///
/// # Errors
///
/// [`Error::Spawn`], [`Error::Died`] or [`Error::Probe`].
pub async fn probe(program: &std::path::Path, elements: &[String]) -> Result<Probe, Error> {
    process::probe(program, elements).await
}

/// Asks a child process whether `slate`, the bytes of a picture file, can be drawn.
///
/// # Errors
///
/// [`Error::Spawn`], or [`Error::Slate`] with what is wrong with it.
pub async fn try_slate(program: &std::path::Path, slate: Bytes) -> Result<(), Error> {
    process::try_slate(program, slate).await
}

async fn run(options: Options, mut inputs: queue::Receiver, outputs: mpsc::Sender<Output>) {
    let mut gather = Gather::default();
    while !gather.is_ready() {
        match inputs.recv().await {
            Some(input) => gather.push(input),
            None => break,
        }
    }
    let end = match work(&options, gather, inputs, &outputs).await {
        Ok(()) => Output::Finished,
        Err(error) => Output::Failed(error),
    };
    // A caller that does not listen any more does not care how it ended.
    let _ = outputs.send(end).await;
}

async fn work(
    options: &Options,
    gather: Gather,
    inputs: queue::Receiver,
    outputs: &mpsc::Sender<Output>,
) -> Result<(), Error> {
    let source = gather.source();
    let plan = options.plan(&source)?;
    let first = gather.first_segment(options.grid).max(options.first);
    report(options, &plan, first);
    carry_out(
        options,
        (plan, first),
        (gather.into_inputs(), inputs),
        outputs,
    )
    .await
}

/// Has workers carry out `plan`, one after the other if need be, to the end of `inputs`, of which `gathered` has
/// come already.
async fn carry_out(
    options: &Options,
    (plan, first): (ladder::Plan, SegmentNumber),
    (gathered, inputs): (Vec<Input>, queue::Receiver),
    outputs: &mpsc::Sender<Output>,
) -> Result<(), Error> {
    let (mut deaths, begun) = (Deaths::default(), Instant::now());
    let mut charge = Charge::new((plan, first, options.absence.clone()), gathered, inputs);
    loop {
        let worker = start_worker(options, outputs).await?;
        let (cause, worked) = match charge.attend(worker, outputs).await {
            Ok(()) => return Ok(()),
            Err(end) if end.is_final => return Err(end.cause),
            Err(end) => (end.cause, end.worked),
        };
        let verdict = deaths.count(worked, begun.elapsed());
        tracing::warn!(
            stream = %options.stream, %cause, worked_ms = worked.as_millis(), ?verdict,
            "the worker is gone"
        );
        let skipped = match verdict {
            Verdict::GiveUp => return Err(cause),
            Verdict::Replay => false,
            Verdict::Skip => true,
        };
        if skipped {
            charge.skip();
        }
        let told = outputs.send(Output::Restarted { cause, skipped }).await;
        told.map_err(|_| Error::Stopped)?;
    }
}

/// Starts a worker, or tries to for some time.
async fn start_worker(
    options: &Options,
    outputs: &mpsc::Sender<Output>,
) -> Result<process::Worker, Error> {
    for pause_ms in START_PAUSES_MS {
        match process::Worker::spawn(options) {
            Ok(worker) => return Ok(worker),
            Err(error) => {
                tracing::warn!(stream = %options.stream, %error, pause_ms, "to be tried again")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            () = outputs.closed() => return Err(Error::Stopped),
        }
    }
    process::Worker::spawn(options)
}

fn report(options: &Options, plan: &ladder::Plan, first: SegmentNumber) {
    let names = plan.video.iter().flat_map(|video| &video.rungs);
    let names: Vec<&str> = names.map(|rung| rung.name.as_str()).collect();
    tracing::info!(
        stream = %options.stream, ladder = %options.template.name, %first, rungs = ?names,
        "ladder planned"
    );
    if !plan.shed.is_empty() {
        tracing::warn!(
            stream = %options.stream, shed = ?plan.shed, cores = options.machine.cores,
            "this machine cannot carry the whole ladder"
        );
    }
}

#[cfg(test)]
mod tests;
