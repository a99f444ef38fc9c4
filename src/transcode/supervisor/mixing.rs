//! Serves a ladder of which some is copied and some encoded.
//!
//! ```text
//! inputs ─▶ Copier ─┬────────────────────▶ Merger ─▶ outputs
//!                   └▶ Backlog ─▶ worker ──▲
//! ```
//!
//! Enters: tracks and samples of one source
//! Leaves: [`Output`]s: its own samples, and what is encoded of its pictures, cut at its key frames
//! Never:  waits for the worker, once that has caught up; anything to show while the source sends nothing
//! Time:   the samples'
//! Spec:   docs/adr/0006-follow-what-is-copied.md

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::backlog::Backlog;
use super::deaths::RETRY_AFTER;
use super::{Error, GivenUp, Input, MAX_OUTPUTS, Options, Output};
use super::{carry_out, copying, queue, report};
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Rendition, Sample, TrackInfo};
use crate::time::{FrameRate, Ticks, Timescale};
use crate::transcode::copy::{self, Copier, Counts, Merger};
use crate::transcode::ladder::{self, Source, VideoSource};

/// The pictures of the source, in the worker's terms.
const PICTURES: TrackId = TrackId::new(NonZeroU32::MIN);
/// The rate assumed of pictures that keep none.
const FALLBACK_RATE: Option<FrameRate> = FrameRate::new(30, 1);
/// How long the source is held back for encoders that make nothing.
const MAX_HELD_BACK: Duration = Duration::from_secs(10);
/// The copier's rendition of pictures, if there are any.
const LEAD: usize = 0;

/// The task that has workers encode.
struct Link {
    /// Closed when the source has ended.
    inputs: Option<queue::Sender>,
    outputs: mpsc::Receiver<Output>,
}

struct Mixing {
    options: Options,
    copier: Copier,
    merger: Merger,
    told: Counts,
    /// The pictures, as the copier told of them last.
    pictures: Option<Rendition>,
    /// What is to be encoded; `None` if nothing.
    plan: Option<ladder::Plan>,
    /// What the encoded renditions are, once a worker has said so.
    encoded: Vec<Rendition>,
    /// Whether encoding was given up, and has not begun again.
    has_given_up: bool,
    /// When encoding may be tried again after it failed.
    rests_until: Option<Instant>,
    backlog: Backlog,
    link: Option<Link>,
    /// Whether the pictures have stopped and the worker was told; whether a segment has begun of which that will
    /// be known with what comes next.
    are_away: bool,
    has_cut: bool,
    is_over: bool,
    ready: VecDeque<Output>,
}

/// What happened.
enum Event {
    Input(Option<Input>),
    Worker(Option<Output>),
    Handed,
    /// The source is held back, and nothing comes of it.
    Stuck,
}

/// Works to the end of `inputs`.
pub(super) async fn run(
    options: Options,
    mut inputs: queue::Receiver,
    outputs: &mpsc::Sender<Output>,
) -> Result<(), Error> {
    let mut mixing = Mixing::new(options);
    let mut held_since = None;
    loop {
        if mixing.is_over && mixing.link.is_none() && mixing.ready.is_empty() {
            return Ok(());
        }
        let is_held = !mixing.is_over && mixing.is_ahead();
        held_since = is_held.then(|| held_since.unwrap_or_else(Instant::now));
        let held_until = held_since.map(|since| since + MAX_HELD_BACK);
        let takes_input = !mixing.is_over && !is_held && mixing.ready.len() < MAX_OUTPUTS;
        let is_ready = !mixing.ready.is_empty();
        let event = tokio::select! {
            biased;
            () = outputs.closed() => return Err(Error::Stopped),
            permit = outputs.reserve(), if is_ready => {
                let permit = permit.map_err(|_| Error::Stopped)?;
                if let Some(output) = mixing.ready.pop_front() {
                    permit.send(output);
                }
                Event::Handed
            }
            event = exchange(&mut mixing.link, &mut mixing.backlog, mixing.is_over) => event,
            input = inputs.recv(), if takes_input => Event::Input(input),
            Some(()) = OptionFuture::from(held_until.map(sleep_until)) => Event::Stuck,
        };
        match event {
            Event::Handed => {}
            Event::Input(input) => mixing.take(input)?,
            Event::Stuck => {
                held_since = None;
                mixing.wait_no_longer();
            }
            Event::Worker(output) => {
                if !matches!(output, Some(Output::Load(_))) {
                    held_since = None;
                }
                mixing.encoded(output)?;
            }
        }
    }
}

/// Gives the worker what waits for it, or takes what it has made. Cancel safe.
async fn exchange(link: &mut Option<Link>, backlog: &mut Backlog, is_over: bool) -> Event {
    let Some(link) = link else {
        return std::future::pending().await;
    };
    if backlog.is_empty() && is_over {
        link.inputs = None;
    }
    let Some(inputs) = link.inputs.as_ref().filter(|_| !backlog.is_empty()) else {
        return Event::Worker(link.outputs.recv().await);
    };
    tokio::select! {
        biased;
        output = link.outputs.recv() => Event::Worker(output),
        permit = inputs.reserve(backlog.next_bytes()) => {
            // Without one the worker has ended, and says why.
            match (permit, backlog.pop()) {
                (Some(permit), Some(input)) => permit.send(input),
                (_, _) => backlog.clear(),
            }
            Event::Handed
        }
    }
}

impl Mixing {
    fn new(options: Options) -> Self {
        Self {
            copier: Copier::new(options.grid, options.first),
            merger: Merger::new(options.grid, options.template.video.copies),
            options,
            told: Counts::default(),
            pictures: None,
            plan: None,
            encoded: Vec::new(),
            has_given_up: false,
            rests_until: None,
            backlog: Backlog::default(),
            link: None,
            are_away: false,
            has_cut: false,
            is_over: false,
            ready: VecDeque::new(),
        }
    }

    /// Whether the source has to wait for what is encoded.
    fn is_ahead(&self) -> bool {
        let waits = !self.merger.has_caught_up() && self.link.is_some();
        self.merger.is_ahead() || waits && self.backlog.is_full()
    }

    /// Takes the next input of the source, or its end.
    fn take(&mut self, input: Option<Input>) -> Result<(), Error> {
        self.is_over = input.is_none();
        copying::take(&mut self.copier, input, &self.options.stream);
        let mut outputs: VecDeque<_> = std::iter::from_fn(|| self.copier.poll_output()).collect();
        while let Some(output) = outputs.pop_front() {
            if let copy::Output::Opened { renditions, .. } = &output {
                self.open(renditions, &outputs)?;
            }
            self.copied(output);
        }
        copying::tell(&self.options.stream, &mut self.told, self.copier.counts());
        if self.is_over && self.link.is_none() {
            self.merger.finish();
        }
        self.hand_on();
        Ok(())
    }

    fn hand_on(&mut self) {
        while let Some(output) = self.merger.poll_output() {
            self.ready.push_back(copying::hand_on(output));
        }
    }

    /// Plans what is to be encoded of `renditions`, whose first samples are in `outputs`.
    fn open(
        &mut self,
        renditions: &[Rendition],
        outputs: &VecDeque<copy::Output>,
    ) -> Result<(), Error> {
        self.pictures = pictures_of(renditions);
        let shown = outputs.iter().filter_map(|output| match output {
            copy::Output::Sample {
                rendition: LEAD,
                sample,
            } => Some(sample.pts),
            _ => None,
        });
        let shown: Vec<Ticks> = shown.collect();
        let video = self.pictures.as_ref();
        let video = video.and_then(|pictures| video_source(pictures, &shown));
        self.plan = self.plan(video, renditions)?;
        if self.plan.is_none() {
            self.merger.opened(Vec::new());
        }
        self.announce(false);
        Ok(())
    }

    /// What the copier puts out goes to the merger, and its pictures to the worker.
    fn copied(&mut self, output: copy::Output) {
        let is_picture = matches!(
            output,
            copy::Output::Sample {
                rendition: LEAD,
                ..
            }
        ) && self.pictures.is_some();
        if std::mem::take(&mut self.has_cut) && !is_picture {
            self.stop_pictures();
        }
        match &output {
            copy::Output::Period { renditions, .. } => {
                self.pictures = pictures_of(renditions);
                self.announce(true);
            }
            copy::Output::Sample { sample, .. } if is_picture => {
                self.are_away = false;
                self.start(sample);
                if self.link.is_some() {
                    self.backlog.push(Input::Sample(PICTURES, sample.clone()));
                }
            }
            copy::Output::Cut {
                rendition: LEAD, ..
            } => {
                self.has_cut = true;
                self.say_rests();
            }
            _ => {}
        }
        if self.merger.has_caught_up() && self.backlog.bound() {
            tracing::warn!(stream = %self.options.stream,
                "the worker does not keep up: pictures are left out of all that is encoded");
        }
        self.merger.copied(output);
    }

    /// A segment has begun without pictures: those that a decoder holds, waiting for more, are all there is.
    fn stop_pictures(&mut self) {
        let is_news = !std::mem::replace(&mut self.are_away, true);
        if is_news && self.link.is_some() {
            self.backlog.push(Input::Detach);
        }
    }

    /// Tells the worker what the pictures are.
    fn announce(&mut self, is_change: bool) {
        let Some(pictures) = self.pictures.as_ref().filter(|_| self.plan.is_some()) else {
            return;
        };
        let info = TrackInfo {
            id: PICTURES,
            timescale: pictures.timescale,
            codec: pictures.codec.clone(),
        };
        if self.link.is_none() {
            // Who begins is told of the newest.
            self.backlog.clear();
        } else if is_change && !self.are_away {
            self.backlog.push(Input::Detach);
        }
        self.backlog.push(Input::Track(info));
    }

    /// What is to be encoded of `video` among `renditions`; `None` if nothing.
    fn plan(
        &self,
        video: Option<VideoSource>,
        renditions: &[Rendition],
    ) -> Result<Option<ladder::Plan>, Error> {
        let Some(video) = video else {
            return Ok(None);
        };
        let sound = renditions.iter().find_map(|r| r.codec.audio());
        let source = Source {
            video: Some(video),
            audio_rate: sound.map(|(rate, _)| rate),
        };
        let options = &self.options;
        let plan = options.plan(&source)?;
        Ok(Some(plan).filter(|plan| plan.video.is_some()))
    }

    /// Starts encoding with the first picture, or with a key frame some time after it was given up.
    fn start(&mut self, sample: &Sample) {
        let is_due = self.rests_until.is_none_or(|until| Instant::now() >= until);
        let may_begin = self.link.is_none() && sample.keyframe && is_due;
        let Some(plan) = self.plan.clone().filter(|_| may_begin) else {
            return;
        };
        self.rests_until = None;
        if self.backlog.is_empty() {
            self.announce(false);
        }
        let scale = self
            .pictures
            .as_ref()
            .map_or(Timescale::VIDEO_90K, |p| p.timescale);
        let first = self.options.grid.segment_at(sample.dts.at(scale));
        report(&self.options, &plan, first);
        let (inputs, input_queue) = queue::queue();
        let (output_queue, outputs) = mpsc::channel(MAX_OUTPUTS);
        let options = self.options.clone();
        tokio::spawn(async move {
            let queue = (Vec::new(), input_queue);
            let end = match carry_out(&options, (plan, first), queue, &output_queue).await {
                Ok(()) => Output::Finished,
                Err(error) => Output::Failed(error),
            };
            // Who has gone does not care how it ended.
            let _ = output_queue.send(end).await;
        });
        self.link = Some(Link {
            inputs: Some(inputs),
            outputs,
        });
    }

    /// Takes what the worker made.
    fn encoded(&mut self, output: Option<Output>) -> Result<(), Error> {
        match output {
            Some(Output::Opened { renditions, .. }) => self.opened(renditions),
            Some(Output::Sample { rendition, sample }) => self.merger.encoded(rendition, sample),
            Some(Output::Rest {
                rendition, soon, ..
            }) => {
                if !soon {
                    self.merger.rests(rendition);
                    self.hand_on();
                }
                self.say_rest(rendition);
            }
            Some(output @ (Output::Load(_) | Output::GivenUp(_) | Output::Restarted { .. })) => {
                self.ready.push_back(output);
            }
            Some(Output::Failed(error)) if !self.merger.is_open() => return Err(error),
            Some(Output::Failed(cause)) => {
                tracing::error!(stream = %self.options.stream, %cause, retry_s = RETRY_AFTER.as_secs(),
                    "nothing can be encoded: what is copied goes on alone");
                self.rest(Some(Instant::now() + RETRY_AFTER));
                self.give_up(&cause, true);
            }
            Some(Output::Finished) | None => {
                self.link = None;
                self.merger.finish();
            }
            Some(Output::Cut { .. } | Output::Period { .. } | Output::Conducted(_)) => {}
        }
        self.hand_on();
        Ok(())
    }

    /// Takes what a worker says the encoded renditions are.
    fn opened(&mut self, renditions: Vec<Rendition>) {
        if self.encoded.is_empty() {
            self.encoded.clone_from(&renditions);
            self.merger.opened(renditions);
        } else if self.encoded != renditions {
            tracing::error!(stream = %self.options.stream, cause = %Error::Differs,
                "nothing can be encoded any more: what is copied goes on alone");
            self.rest(None);
            self.give_up(&Error::Differs, false);
        } else if std::mem::take(&mut self.has_given_up) {
            self.ready.push_back(Output::GivenUp(None));
        }
    }

    /// Nothing is encoded until `until`, or ever again: what is copied goes on alone.
    fn rest(&mut self, until: Option<Instant>) {
        self.link = None;
        self.backlog.clear();
        self.rests_until = until;
        if until.is_none() {
            self.plan = None;
        }
        for index in 0..self.encoded.len() {
            self.merger.rests(index);
        }
        if self.is_over {
            self.merger.finish();
        }
        self.hand_on();
        self.say_rests();
    }

    fn give_up(&mut self, cause: &impl std::fmt::Display, retries: bool) {
        self.has_given_up = true;
        let cause = cause.to_string();
        let given_up = GivenUp { cause, retries };
        self.ready.push_back(Output::GivenUp(Some(given_up)));
    }

    /// While nothing is encoded, has that said with every segment: what is missing is listed as it is with its cut.
    fn say_rests(&mut self) {
        if self.link.is_none() {
            (0..self.encoded.len()).for_each(|index| self.say_rest(index));
        }
    }

    fn say_rest(&mut self, index: usize) {
        self.ready.push_back(Output::Rest {
            rendition: self.merger.place_of(index),
            until: self.merger.newest().next(),
            // What is missing is listed as it is with every cut.
            soon: true,
        });
    }

    /// The source was held back for long, and nothing was encoded meanwhile.
    fn wait_no_longer(&mut self) {
        if self.merger.wait_no_longer() {
            return;
        }
        tracing::error!(stream = %self.options.stream,
            "the encoders make nothing of the pictures that there are: what is copied is published alone");
        self.rest(None);
        self.merger.opened(Vec::new());
        self.hand_on();
        self.give_up(&"the encoders make nothing of the pictures", false);
    }
}

fn pictures_of(renditions: &[Rendition]) -> Option<Rendition> {
    let is_video = |rendition: &&Rendition| rendition.codec.kind() == MediaKind::Video;
    renditions.iter().find(is_video).cloned()
}

/// What is known of pictures of which some are `shown`: a rate that they do not keep is measured all the same, rather
/// than believed.
fn video_source(pictures: &Rendition, shown: &[Ticks]) -> Option<VideoSource> {
    let codec: &CodecConfig = &pictures.codec;
    let scale = pictures.timescale;
    let in_90k = |at: &Ticks| at.at(scale).rescale_nearest(Timescale::VIDEO_90K);
    let shown: Vec<Ticks> = shown.iter().map(in_90k).collect();
    let measured = || ladder::estimate(codec.declared_rate(), &shown);
    Some(VideoSource {
        dimensions: codec.dimensions()?,
        pixel_aspect: codec.pixel_aspect(),
        rate: pictures.frame_rate.or_else(measured).or(FALLBACK_RATE)?,
    })
}

#[cfg(test)]
#[path = "mixing_tests.rs"]
mod tests;
