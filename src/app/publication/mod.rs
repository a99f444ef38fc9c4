//! Carries what the packager puts out to where it can be fetched: memory first, the store behind.
//!
//! Enters: renditions once, then their samples, from the transcoder
//! Leaves: objects and manifests in the [`Stream`], the same in the store's queue, in order
//! Never:  waits for the store's disk: its queue is what bounds it
//! Time:   the samples'
//! Spec:   docs/architecture.md

mod former;
mod open;
mod out;
mod pace;
mod successor;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::sync::mpsc;

use self::former::Former;
use self::open::Open;
use self::out::Out;
use self::pace::Paced;
use self::successor::{Succession, Successor, Unfit};
use crate::app::clock::{SteadyClock, wall_now};
use crate::app::context::Context;
use crate::app::dvr::Dvr;
use crate::app::feed::MAX_ATTEMPTS;
use crate::app::shows::Recording;
use crate::app::status::RenditionStatus;
use crate::app::stream::Stream;
use crate::id::SegmentNumber;
use crate::media::{Rendition, Sample};
use crate::package::{self, Cuts, Packager, Past};
use crate::store::Writers;
use crate::time::Grid;
use crate::transcode::{self, GivenUp, Outputs};

pub(super) use self::successor::Told;

/// Why a broadcast cannot be published any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// The transcoder failed.
    #[error("{0}")]
    Transcode(#[from] transcode::Error),
    /// What the transcoder made cannot be packaged.
    #[error("the packager refused what the transcoder made: {0}")]
    Package(#[from] package::Error),
}

impl Error {
    /// Whether it is the source that cannot be used.
    pub(super) const fn is_source(&self) -> bool {
        matches!(self, Self::Transcode(transcode::Error::Ladder(_)))
    }
}

/// One broadcast on its way out.
pub(super) struct Publication {
    context: Arc<Context>,
    stream: Arc<Stream>,
    clock: SteadyClock,
    /// How it is cut and how much of it is listed.
    package: package::Config,
    past: Option<Past>,
    /// Where it is stored, until it opens.
    writer: Option<Writers>,
    /// What the renditions will be, until the first sample says where they begin.
    opened: Option<Vec<Rendition>>,
    open: Option<Open>,
    successor: Option<Successor>,
    /// The one that the one on air has taken the place of, and that takes its place again if it fails soon.
    former: Option<Former>,
    successors: Successors,
    /// How many there were.
    attempts: u32,
    /// Whether a successor was given up.
    has_given_up: bool,
}

/// How transcoders come to take the place of the first, and who is told what became of them.
pub(super) struct Successors {
    /// What comes out of the next one.
    pub(super) come: mpsc::Receiver<Outputs>,
    /// Whoever feeds it.
    pub(super) told: mpsc::Sender<Told>,
}

/// Where an output came from.
enum Source {
    Current(Option<transcode::Output>),
    Successor(Option<transcode::Output>),
    New(Outputs),
    /// The successor is waited for no longer.
    Late,
    Former(Option<transcode::Output>),
}

impl Publication {
    /// What is to be published of `stream` by its broadcast's `clock`, as `package` says, after what `past` left, and
    /// stored by `writer`; nothing is yet.
    pub(super) fn new(
        context: Arc<Context>,
        (stream, clock, package): (Arc<Stream>, SteadyClock, package::Config),
        (past, writer): (Option<Past>, Writers),
        successors: Successors,
    ) -> Self {
        Self {
            context,
            stream,
            clock,
            package,
            past,
            writer: Some(writer),
            opened: None,
            open: None,
            successor: None,
            former: None,
            successors,
            attempts: 0,
            has_given_up: false,
        }
    }

    /// Publishes what comes out of the transcoder, and of those that take its place, until it ends, however it does.
    ///
    /// # Errors
    /// Why it ended before its source. What was made until then is closed properly all the same.
    pub(super) async fn run(mut self, outputs: Outputs) -> Result<(), Error> {
        let mut outputs = Paced::new(outputs, self.clock);
        let result = loop {
            let taken = match self.next(&mut outputs).await {
                Source::Current(output) => match self.take(output) {
                    Err(Error::Transcode(error)) if self.former.is_some() => {
                        self.fall_back(&error, &mut outputs)
                    }
                    Ok(false) if self.former.as_ref().is_some_and(Former::is_needed) => {
                        self.fall_back(&transcode::Error::Stopped, &mut outputs)
                    }
                    taken => taken,
                },
                Source::Former(output) => {
                    self.hear_former(output);
                    Ok(true)
                }
                Source::Successor(output) => self.hear_successor(output).map(|()| true),
                Source::New(new) => {
                    self.begin_successor(new);
                    Ok(true)
                }
                Source::Late => self.give_up_successor(&Unfit::Late).map(|()| true),
            };
            match taken {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            if let Err(error) = self.succeed(&mut outputs) {
                break Err(error);
            }
        };
        // Nobody waits for one that did not get to it.
        drop(self.successor);
        let Some(mut open) = self.open else {
            return result;
        };
        let went_on = open.go_on(None).map_err(Error::from);
        open.finish().await;
        result.and(went_on)
    }

    /// What happens next; `outputs` are those of the transcoder that is on air.
    async fn next(&mut self, outputs: &mut Paced) -> Source {
        let late = self.successor.as_ref().map(Successor::deadline);
        let late = OptionFuture::from(late.map(tokio::time::sleep_until));
        let former = OptionFuture::from(self.former.as_mut().map(Former::next));
        let successor = OptionFuture::from(self.successor.as_mut().map(Successor::next));
        tokio::select! {
            output = outputs.next() => Source::Current(output),
            Some(output) = former => Source::Former(output),
            Some(output) = successor => Source::Successor(output),
            Some(new) = self.successors.come.recv() => Source::New(new),
            Some(()) = late => Source::Late,
        }
    }

    /// Takes an output of the transcoder that is on air; whether there is more to come.
    fn take(&mut self, output: Option<transcode::Output>) -> Result<bool, Error> {
        use transcode::Output;
        match output {
            Some(Output::Opened { renditions, cuts }) => match cuts {
                // The first sample tells where the grid begins.
                transcode::Cuts::Grid => self.opened = Some(renditions),
                transcode::Cuts::Source { first, longest_ms } => {
                    let cuts = Cuts::Source { longest_ms };
                    self.open = Some(self.open(cuts, first, renditions)?);
                }
            },
            Some(Output::Sample { rendition, sample }) => self.push(rendition, sample)?,
            Some(Output::Cut { rendition, number }) => {
                self.in_open(|open| open.cut(rendition, number))?;
            }
            Some(Output::Period { renditions, first }) => {
                self.in_open(|open| open.change(renditions, first))?;
            }
            Some(Output::Conducted(conducted)) => self.stream.conduct(conducted, wall_now()),
            Some(Output::Rest {
                rendition,
                until,
                soon,
            }) => self.in_open(|open| open.rest(rendition, until, soon))?,
            Some(Output::Load(load)) => self.stream.load(load),
            Some(Output::GivenUp(given_up)) => self.stream.give_up(given_up),
            Some(Output::Restarted { cause, skipped }) => {
                self.stream.worker_restarts.fetch_add(1, Ordering::Relaxed);
                if let Some(former) = &mut self.former {
                    former.wait_on();
                }
                tracing::warn!(stream = %self.stream.name(), %cause, skipped, "the worker was restarted");
            }
            Some(Output::Failed(error)) => return Err(error.into()),
            Some(Output::Finished) | None => return Ok(false),
        }
        Ok(true)
    }

    fn push(&mut self, rendition: usize, sample: Sample) -> Result<(), Error> {
        if let Some(renditions) = self.opened.take() {
            let first = self.segment_of(renditions.get(rendition), &sample);
            self.open = Some(self.open(Cuts::Grid, first, renditions)?);
        }
        if let Some((former, open)) = self.former.as_mut().zip(self.open.as_ref())
            && let Some(index) = open.index(rendition)
        {
            let end = sample.dts.checked_add(sample.duration);
            if former.pass(index, end) {
                self.former = None;
                self.tell(Told::Proven);
            }
        }
        let until = self.successor.as_ref().and_then(Successor::at);
        self.in_open(|open| open.push_until(rendition, sample, until))?;
        Ok(())
    }

    /// Does `what` with what is open; a transcoder says nothing of segments and samples before it is.
    fn in_open(
        &mut self,
        what: impl FnOnce(&mut Open) -> Result<(), package::Error>,
    ) -> Result<(), package::Error> {
        self.open.as_mut().map_or(Ok(()), what)
    }

    fn begin_successor(&mut self, outputs: Outputs) {
        self.attempts += 1;
        match &self.open {
            Some(open) if open.lacks_pictures() => {
                self.successor = Some(Successor::new(outputs, self.grid()));
            }
            _ => self.tell(Told::Failed),
        }
    }

    /// Takes note of what the successor says.
    fn hear_successor(&mut self, output: Option<transcode::Output>) -> Result<(), Error> {
        let both = self.open.as_ref().zip(self.successor.as_mut());
        let taken = both.map(|(open, successor)| successor.take(output, || open.free()));
        match taken {
            Some(Err(unfit)) => self.give_up_successor(&unfit),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Has the successor take over from what comes out of `current`, if that has come as far.
    ///
    /// # Errors
    /// What it has made until then cannot be packaged.
    fn succeed(&mut self, current: &mut Paced) -> Result<(), Error> {
        let both = self.open.as_mut().zip(self.successor.as_mut());
        let Some((open, successor)) = both else {
            return Ok(());
        };
        let Some(at) = successor.at().filter(|at| open.has_come_to(*at)) else {
            return Ok(());
        };
        if let Some(later) = successor.put_off(at) {
            open.go_on(Some(later))?;
            return Ok(());
        }
        let Some(succession) = self.successor.take().and_then(Successor::into_succession) else {
            return Ok(());
        };
        let Succession {
            outputs,
            renditions,
            at,
            held,
            resting,
        } = succession;
        let names: Vec<_> = renditions.iter().map(|r| r.name.to_string()).collect();
        let sounds = open.made().to_vec();
        let outputs = Paced::opened(outputs, self.clock, &renditions);
        let beyond = match open.widen(renditions, at) {
            Ok(beyond) => beyond,
            Err(error) => return self.give_up_successor(&Unfit::Package(error)),
        };
        let former = std::mem::replace(current, outputs);
        self.former = Some(Former::new(former.into_outputs(), sounds, beyond));
        for (rendition, sample) in held {
            self.push(rendition, sample)?;
        }
        for (rendition, until) in resting {
            self.in_open(|open| open.rest(rendition, until, false))?;
        }
        self.stream.encoding.begin();
        tracing::info!(stream = %self.stream.name(), renditions = names.join(" "), first = %at,
            "pictures came: the ladder goes on with them");
        self.tell(Told::TookOver);
        Ok(())
    }

    /// The transcoder that is on air has failed for good soon after it took over: the one before does so from it, and
    /// there are no pictures any more. Whether there is more to come.
    fn fall_back(&mut self, error: &transcode::Error, outputs: &mut Paced) -> Result<bool, Error> {
        let Some(former) = self.former.take() else {
            return Ok(false);
        };
        tracing::error!(stream = %self.stream.name(), %error,
            "pictures that came are gone: the transcoder for them failed soon after it had taken over; the sound goes on");
        self.tell(Told::FellBack);
        let (cause, retries) = (error.to_string(), self.attempts < MAX_ATTEMPTS);
        self.stream.give_up(Some(GivenUp { cause, retries }));
        let goes_on = !former.has_finished();
        let (former, made, held) = former.into_parts();
        *outputs = Paced::new(former, self.clock);
        self.in_open(|open| {
            open.narrow(made);
            let mut held = held.into_iter();
            held.try_for_each(|(rendition, sample)| open.push(rendition, sample))
        })?;
        Ok(goes_on)
    }

    /// Hears the transcoder of before. One that is of no use any more is nothing to fall back to: all depends on the
    /// one on air, which is waited for again.
    fn hear_former(&mut self, output: Option<transcode::Output>) {
        self.former = self.former.take().and_then(|former| former.take(output));
        if self.former.is_none() {
            self.tell(Told::Proven);
        }
    }

    /// The transcoder of before goes on, with what it has made meanwhile.
    fn give_up_successor(&mut self, why: &Unfit) -> Result<(), Error> {
        let stream = self.stream.name();
        if std::mem::replace(&mut self.has_given_up, true) {
            tracing::info!(%stream, error = %why, "pictures that came are left out again");
        } else {
            tracing::warn!(%stream, error = %why,
                "pictures that came are left out: the transcoder for them is of no use; the sound goes on");
        }
        self.successor = None;
        self.tell(Told::Failed);
        self.in_open(|open| open.go_on(None))?;
        Ok(())
    }

    fn tell(&self, what: Told) {
        // There is room for all that one successor has to say; who has gone need not know.
        let _ = self.successors.told.try_send(what);
    }

    fn grid(&self) -> Grid {
        Grid::new(self.package.segment_ms)
    }

    /// The segment of the grid that `sample` of `rendition` lies in.
    fn segment_of(&self, rendition: Option<&Rendition>, sample: &Sample) -> SegmentNumber {
        let at = rendition.map(|rendition| sample.dts.at(rendition.timescale));
        at.map_or(SegmentNumber::new(0), |at| self.grid().segment_at(at))
    }

    /// Opens the packager and the store; segment `first` names the period.
    fn open(
        &mut self,
        cuts: Cuts,
        first: SegmentNumber,
        renditions: Vec<Rendition>,
    ) -> Result<Open, package::Error> {
        let config = &self.package;
        let past = self.past.as_ref();
        let packager = Packager::cut_by(cuts, config, first, renditions.clone(), past)?;
        let name = self.stream.name();
        let new = || self.context.store.writers(name);
        let mut writer = self.writer.take().unwrap_or_else(new);
        writer.begin();
        // What the last broadcast left in memory is in the store by now, or waits for it.
        self.stream.clear();
        let status = renditions
            .iter()
            .map(|r| RenditionStatus::of(r, 0, 0))
            .collect();
        self.stream.set_renditions(status);
        self.stream.encoding.begin();
        let names: Vec<_> = renditions.iter().map(|r| r.name.to_string()).collect();
        tracing::info!(stream = %self.stream.name(), renditions = names.join(" "), "ladder open");
        let presentation = packager.presentation();
        if config.low_latency.is_on() && !presentation.config.low_latency.is_on() {
            tracing::warn!(stream = %self.stream.name(), "low latency is off for this broadcast: \
                its frame rate is not constant, or has no part length in common with its sound");
        }
        let copied_ms = match cuts {
            Cuts::Grid => 0,
            Cuts::Source { longest_ms } => longest_ms,
        };
        let told = &self.stream.copied_segment_ms;
        told.store(copied_ms.into(), Ordering::Relaxed);
        let segment = Duration::from_millis(config.segment_ms.get().max(copied_ms).into());
        let snapshot = packager.snapshot();
        let keep = self.context.config.store.keep;
        let stores = self.context.store.each().into_iter();
        let recorded = stores.filter(|_| keep.is_on());
        let name = self.stream.name();
        let recordings =
            recorded.map(|store| Recording::begin(&store, name, keep, &snapshot, first));
        let out = Out {
            stream: Arc::clone(&self.stream),
            order: (0..renditions.len()).collect(),
            dvr: Dvr::new(config.dvr, renditions.len()),
            renditions,
            writer,
            recordings: recordings.collect(),
            segment,
            outline: None,
            texts: Vec::new(),
            stored: Vec::new(),
            listed: 0..0,
        };
        out.keep(&snapshot);
        let mut open = Open {
            packager,
            out,
            begins: None,
            beyond: Vec::new(),
            made: Vec::new(),
            widened: None,
            silent: 0..0,
            rested: None,
        };
        open.drain();
        Ok(open)
    }
}
