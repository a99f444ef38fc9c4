//! One broadcast's samples in the care of one worker after another.
//!
//! Enters: inputs of the source; bytes of the worker
//! Leaves: bytes for the worker; [`Output`]s
//! Never:  waits on one side while another could go on
//! Time:   tokio's clock, for a worker that hangs
//! Spec:   [`crate::transcode::ipc`]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::bounds::Bounds;
use super::kept::{Kept, Reached};
use super::process::{READ_BYTES, Worker};
use super::progress::Progress;
use super::watch::{LOOK_PERIOD, Watch};
use super::{Clock, Cuts, Error, Input, Output, queue};
use crate::id::SegmentNumber;
use crate::media::Sample;
use crate::time::{MediaTime, Timescale};
use crate::transcode::Absence;
use crate::transcode::conductor::Conducted;
use crate::transcode::ipc::Message;
use crate::transcode::ladder::Plan;
use crate::transcode::overload::Load;

/// How near to its end a new worker must have come in what it was given first, in milliseconds: the last frame
/// may have shared its slot.
const CAUGHT_UP_MS: i64 = 100;
/// How long it may take over that before it is told the time all the same.
const MAX_CATCH_UP: Duration = Duration::from_secs(10);
/// For how long of the source's time a new worker waits for a key frame, in milliseconds: longer than they are usually
/// apart. Then it is given pictures that it cannot show yet, and shows the slate.
const MAX_KEYLESS_MS: i64 = 2_500;

/// What outlives a worker.
pub(super) struct Charge {
    plan: Plan,
    first: SegmentNumber,
    absence: Absence,
    kept: Kept,
    bounds: Bounds,
    /// The time as it was told last.
    clock: Option<Clock>,
    progress: Progress,
    /// How conducting went, under the workers before this one and altogether.
    conducted_before: Option<Conducted>,
    conducted: Option<Conducted>,
    /// How many frames the workers before this one left out, and altogether.
    left_before: u64,
    left: u64,
    inputs: queue::Receiver,
    /// Whether the source has ended.
    source_ended: bool,
}

/// How a worker's time ended before its work did.
pub(super) struct End {
    pub(super) cause: Error,
    /// How long it delivered.
    pub(super) worked: Duration,
    /// Whether another worker would end like this one.
    pub(super) is_final: bool,
}

impl Charge {
    /// The work on a source of which `gathered` has come already.
    pub(super) fn new(
        (plan, first, absence): (Plan, SegmentNumber, Absence),
        gathered: Vec<Input>,
        inputs: queue::Receiver,
    ) -> Self {
        let mut kept = Kept::default();
        let mut bounds = Bounds::new(&plan, first);
        for input in &gathered {
            kept.push(input);
            bounds.note(input);
        }
        Self {
            bounds,
            clock: None,
            progress: Progress::new((plan.grid, plan.follows), first),
            plan,
            first,
            absence,
            kept,
            conducted_before: None,
            conducted: None,
            left_before: 0,
            left: 0,
            inputs,
            source_ended: false,
        }
    }

    /// Gives up what the next worker would be given first.
    pub(super) fn skip(&mut self) {
        self.kept.skip();
    }

    /// Whether a worker may say that a rendition has `sample`.
    fn check_sample(&mut self, rendition: usize, sample: &Sample) -> Result<(), Error> {
        self.pass();
        let opened = self.progress.rendition(rendition);
        self.bounds.check_sample((rendition, opened), sample)
    }

    /// Whether a worker may say that a rendition has nothing before segment `until`.
    fn check_rest(&mut self, rendition: usize, until: SegmentNumber) -> Result<(), Error> {
        self.pass();
        if self.progress.rendition(rendition).is_none() {
            let what = "a rest of no rendition";
            return Err(Error::Misbehaved { what });
        }
        self.bounds.check_rest(until)
    }

    /// The worker's time goes on while it is not told.
    fn pass(&mut self) {
        if let Some(clock) = self.clock {
            self.bounds.pass(clock.by_now());
        }
    }

    /// Has `worker` do the work, to the end of the source or its own.
    pub(super) async fn attend(
        &mut self,
        worker: Worker,
        outputs: &mpsc::Sender<Output>,
    ) -> Result<(), End> {
        let was_open = self.progress.is_open();
        let mut shift = Shift::new(self, worker);
        let done = shift.run(outputs).await;
        let (worked, had_work) = (shift.worked(), shift.had_work);
        let cause = match done {
            Ok(finished) => match shift.worker.end(finished).await {
                Ok(()) => return Ok(()),
                // It was to begin with what came next, and nothing did.
                Err(_) if self.source_ended && !had_work => return Ok(()),
                Err(cause) => cause,
            },
            Err(cause) => {
                shift.worker.kill().await;
                cause
            }
        };
        let is_open = was_open || self.progress.is_open();
        let is_final = match &cause {
            Error::Stopped | Error::Differs => true,
            // What it objects to before it has made anything, the next one will object to as well.
            Error::Died { status, .. } => !is_open && status.starts_with("exit status"),
            _ => false,
        };
        Err(End {
            cause,
            worked,
            is_final,
        })
    }
}

/// The time of one worker.
struct Shift<'a> {
    charge: &'a mut Charge,
    worker: Worker,
    /// What it is given first, last first.
    replay: Vec<Input>,
    outgoing: BytesMut,
    incoming: BytesMut,
    /// What the caller has no room for yet.
    pending: Option<Output>,
    /// Where what it is given first ends, until it has come there. Until then it is not told the time: it
    /// would hold the picture for what it has at hand.
    catching_up: Option<MediaTime>,
    /// Whether it has been given a key frame, so that it can decode the pictures that follow, or need not wait for one.
    joined: bool,
    /// Where the first picture lay that it was not given for want of a key frame, in milliseconds.
    keyless_since: Option<i64>,
    /// Whether it has been given any sample.
    had_work: bool,
    /// Whether it was told the time.
    knows_time: bool,
    finished: bool,
    watch: Watch,
}

impl<'a> Shift<'a> {
    fn new(charge: &'a mut Charge, worker: Worker) -> Self {
        let mut outgoing = BytesMut::new();
        let plan = Message::Plan {
            plan: Box::new(charge.plan.clone()),
            first: charge.first,
            resume: charge.progress.resume(),
            absence: charge.absence.clone(),
        };
        give(&plan, &mut outgoing);
        let mut replay = charge.kept.inputs();
        replay.reverse();
        charge.conducted_before = charge.conducted;
        charge.left_before = charge.left;
        let is_first = charge.progress.resume().is_empty();
        let reached = charge.progress.reached();
        let mut shift = Self {
            catching_up: charge.kept.end().filter(|_| !is_first),
            joined: charge.kept.has_pictures(),
            keyless_since: None,
            charge,
            worker,
            replay,
            outgoing,
            incoming: BytesMut::with_capacity(READ_BYTES),
            pending: None,
            had_work: false,
            knows_time: false,
            finished: false,
            watch: Watch::new(),
        };
        // Of a source that has gone, all that is kept may have been delivered long ago.
        if let Some(reached) = reached {
            shift.catch_up(reached);
        }
        shift
    }

    /// Feeds and delivers until the worker closes its socket; whether it had said that it was finished.
    async fn run(&mut self, outputs: &mpsc::Sender<Output>) -> Result<bool, Error> {
        let mut look = interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while self.pending.is_none() {
                match Message::parse(&mut self.incoming)? {
                    Some(message) => self.handle(message)?,
                    None => break,
                }
            }
            self.feed();
            let (has_output, has_bytes) = (self.pending.is_some(), !self.outgoing.is_empty());
            let is_idle = !has_bytes && self.worker.writer.is_open();
            let wants_input = is_idle && !self.charge.source_ended;
            tokio::select! {
                biased;
                permit = outputs.reserve(), if has_output => {
                    let permit = permit.map_err(|_| Error::Stopped)?;
                    if let Some(output) = self.pending.take() {
                        permit.send(output);
                    }
                }
                count = self.worker.reader.read(&mut self.incoming), if !has_output => {
                    if count == 0 {
                        return Ok(self.finished);
                    }
                    self.watch.hear();
                }
                () = self.worker.writer.write(&mut self.outgoing), if has_bytes => {
                    self.watch.blocked = None;
                }
                input = self.charge.inputs.recv(), if wants_input => self.take(input),
                _ = look.tick() => self.watch.look(has_output, has_bytes)?,
                () = outputs.closed() => return Err(Error::Stopped),
            }
        }
    }
}

impl Shift<'_> {
    fn handle(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Opened(renditions) => {
                self.charge.bounds.check_renditions(&renditions)?;
                match self.charge.progress.open(&renditions) {
                    Some(true) => {
                        let cuts = Cuts::Grid;
                        self.pending = Some(Output::Opened { renditions, cuts });
                    }
                    Some(false) => {}
                    None => return Err(Error::Differs),
                }
            }
            Message::Encoded { rendition, sample } => self.deliver(rendition, sample)?,
            Message::Conducted(conducted) => {
                let before = self.charge.conducted_before;
                let all = before.map_or(conducted, |before| conducted.after(before));
                self.charge.conducted = Some(all);
                self.pending = Some(Output::Conducted(all));
            }
            Message::Rest {
                rendition,
                until,
                soon,
            } => {
                self.charge.check_rest(rendition, until)?;
                if soon || self.charge.progress.rest(rendition, until) {
                    self.pending = Some(Output::Rest {
                        rendition,
                        until,
                        soon,
                    });
                }
            }
            Message::Load(load) => {
                self.charge.left = self.charge.left_before.saturating_add(load.left_frames);
                let left_frames = self.charge.left;
                self.pending = Some(Output::Load(Load {
                    left_frames,
                    ..load
                }));
            }
            Message::Finished => self.finished = true,
            // It lives, which was noted when it was heard; and what only we say means nothing.
            _ => {}
        }
        Ok(())
    }

    fn deliver(&mut self, rendition: usize, sample: Sample) -> Result<(), Error> {
        self.watch.owing = None;
        self.charge.check_sample(rendition, &sample)?;
        if !self.charge.progress.admit(rendition, &sample) {
            return Ok(());
        }
        self.watch.deliver();
        let sample = Sample {
            // What was read with it is not to live as long.
            data: Bytes::copy_from_slice(&sample.data),
            ..sample
        };
        self.pending = Some(Output::Sample { rendition, sample });
        if let Some(reached) = self.charge.progress.reached() {
            self.catch_up(reached);
            self.charge.kept.forget(reached);
        }
        Ok(())
    }

    /// Takes the next input from the source.
    fn take(&mut self, input: Option<Input>) {
        match input {
            Some(input) => {
                self.charge.kept.push(&input);
                self.charge.bounds.note(&input);
                if let Input::Clock(clock) = &input {
                    self.charge.clock = Some(*clock);
                }
                self.give(input);
            }
            None => self.charge.source_ended = true,
        }
    }

    /// Has something to be written, if there is anything but what the source is yet to send.
    fn feed(&mut self) {
        while self.outgoing.is_empty() {
            match self.replay.pop() {
                Some(input) => self.give(input),
                None => break,
            }
        }
        if self.outgoing.is_empty() && self.charge.source_ended {
            self.worker.writer.close();
            self.watch.fed = None;
            self.watch.owe();
        }
    }

    fn give(&mut self, input: Input) {
        if let Input::Sample(track, sample) = &input
            && self.charge.kept.is_video(*track)
        {
            self.joined |= sample.keyframe || self.is_keyless(sample);
            if !self.joined {
                return;
            }
        }
        let message = match input {
            Input::Track(info) => Message::Track(info),
            Input::Sample(track, sample) => {
                self.had_work = true;
                Message::Source { track, sample }
            }
            // These ask for nothing to be made.
            Input::Clock(_) if self.is_catching_up() => return,
            Input::Clock(clock) => {
                // Without any time a worker does not see that it falls behind.
                let is_lost = !self.knows_time && self.watch.begun.elapsed() >= MAX_CATCH_UP;
                let Some(now) = clock.fresh().or_else(|| is_lost.then(|| clock.by_now())) else {
                    return;
                };
                self.knows_time = true;
                return give(&Message::Clock(now), &mut self.outgoing);
            }
            Input::Detach => return give(&Message::Detach, &mut self.outgoing),
        };
        give(&message, &mut self.outgoing);
        // Of a track that was announced nothing is made before a picture of it comes.
        let follows = self.charge.plan.follows;
        if !follows || matches!(message, Message::Source { .. }) {
            self.watch.feed(follows);
        }
    }

    /// Whether key frames have been waited for in vain until the picture `sample`. What follows the source shows
    /// nothing that is not whole, and has no slate; it waits for as long as it takes.
    fn is_keyless(&mut self, sample: &Sample) -> bool {
        let at = self.charge.kept.recoverable_ms(sample);
        let Some(at) = at.filter(|_| !self.charge.plan.follows) else {
            return false;
        };
        at.saturating_sub(*self.keyless_since.get_or_insert(at)) >= MAX_KEYLESS_MS
    }

    fn worked(&self) -> Duration {
        self.watch.worked()
    }

    fn catch_up(&mut self, reached: Reached) {
        let millis = |at: MediaTime| at.rescale_floor(Timescale::MILLIS).get();
        let reached = reached.video.or(reached.audio).map(millis);
        self.catching_up = self.catching_up.filter(|end| {
            let end = millis(*end).saturating_sub(CAUGHT_UP_MS);
            reached.is_none_or(|reached| reached < end)
        });
    }

    fn is_catching_up(&self) -> bool {
        self.catching_up.is_some() && self.watch.begun.elapsed() < MAX_CATCH_UP
    }
}

/// Has `message` written. One that is too long for the worker is one that no publisher may send; it is lost.
fn give(message: &Message, outgoing: &mut BytesMut) {
    if let Err(error) = message.write(outgoing) {
        tracing::warn!(%error, "sample not transcoded");
    }
}
