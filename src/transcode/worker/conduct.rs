//! The thread that owns the conductor: decoded frames in, slots into the encoders.
//!
//! Enters: [`Event`]s of the decoders, in order per track
//! Leaves: frames and blocks in the encoders
//! Never:  decides: that is `conductor`
//! Time:   as `conductor`; between two messages the clock is this machine's monotonic one
//! Spec:   none

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clock::{AudioClock, Origin};
use super::encode::VideoEncoder;
use super::output::Item;
use super::sound::AudioEncoder;
use super::{Error, slate};
use crate::time::{Ticks, WallTime};
use crate::transcode::Absence;
use crate::transcode::conductor::{AudioConductor, Conductor, Output, Shown, VideoConductor};
use crate::transcode::ladder::Plan;

/// How often the clock is looked at while nothing comes: below the shortest slot.
const TICK: Duration = Duration::from_millis(10);
/// How often it is told how conducting goes, while nothing changes.
const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// What the decoders deliver.
pub(super) enum Event {
    /// A decoded picture.
    Frame {
        /// Where it is shown, in 90 kHz ticks.
        position: Ticks,
        /// Its pixels.
        buffer: gst::Buffer,
        /// Its layout and colour.
        info: gst_video::VideoInfo,
        /// Whether it can be shown: not before decoding has come to a picture that needs nothing from before it began.
        is_whole: bool,
    },
    /// A key frame of the source is about to be decoded; told only where its places are followed. In 90 kHz
    /// ticks.
    Keyframe {
        /// Where it is shown.
        pts: Ticks,
        /// Where it is decoded.
        dts: Ticks,
    },
    /// A decoded block of interleaved samples.
    Pcm {
        /// Where its first sample belongs, in samples.
        position: Ticks,
        /// The samples.
        pcm: Bytes,
    },
    /// A track of sound was announced: the first, or another than before.
    SoundBegins,
    /// The broadcast's clock, as told.
    Clock(WallTime),
    /// The slate, as frames are.
    Slate(gst::Buffer),
    /// The source has gone, and everything decoded was delivered.
    Detached,
    /// The source is over and everything decoded was delivered.
    Finish,
}

/// The broadcast's clock between two messages.
#[derive(Clone, Copy)]
struct Clock {
    told: WallTime,
    at: Instant,
}

impl Clock {
    fn now(&self) -> WallTime {
        let since = i64::try_from(self.at.elapsed().as_micros()).unwrap_or(i64::MAX);
        WallTime::from_micros(self.told.as_micros().saturating_add(since))
    }
}

struct Conduct<'a> {
    plan: &'a Plan,
    absence: &'a Absence,
    origin: Origin,
    /// Where the renditions go on after an earlier worker.
    resume: Vec<Ticks>,
    events: SyncSender<Event>,
    outputs: SyncSender<Item>,
    conductor: Conductor<gst::Buffer>,
    pictures: Option<VideoEncoder>,
    sound: AudioEncoder,
    clock: Option<Clock>,
    /// The slate, once it is drawn.
    slate: Option<gst::Buffer>,
    /// Where the first picture lay that could not be shown, while there was none that could.
    unseen: Option<Ticks>,
    /// Whether the slate was shown in place of it.
    stands_in: bool,
    /// What was told last, and when.
    told: (Shown, Instant),
}

/// Conducts until [`Event::Finish`], then lets the encoders drain. `sender` is the other end of `events`.
pub(super) fn run(
    (plan, absence): (&Plan, &Absence),
    (origin, resume): (Origin, Vec<Ticks>),
    (sender, events): (SyncSender<Event>, &Receiver<Event>),
    outputs: SyncSender<Item>,
) -> Result<(), Error> {
    let sound = plan.audio.as_ref().ok_or(Error::Order)?;
    let clock = AudioClock::new(sound, origin).ok_or(Error::Order)?;
    let frame = sound.frame_samples;
    let video = plan.video.as_ref().map(|video| {
        let first = origin.first_slot(video.rate);
        VideoConductor::starting_at(video.rate, plan.grid, first)
    });
    let audio = AudioConductor::new(clock.scale(), clock.feed_from(), frame, false);
    let mut conduct = Conduct {
        plan,
        absence,
        origin,
        resume,
        conductor: Conductor::new(video, audio, clock.scale()),
        pictures: None,
        sound: AudioEncoder::new((plan, sound), clock, &outputs)?,
        events: sender,
        outputs,
        clock: None,
        slate: None,
        unseen: None,
        stands_in: false,
        told: (Shown::Source, Instant::now()),
    };
    loop {
        let event = match events.recv_timeout(TICK) {
            Ok(Event::Finish) => return conduct.finish(),
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Stopped),
        };
        if let Some(event) = event {
            conduct.handle(event)?;
        }
        conduct.follow_clock()?;
    }
}

impl Conduct<'_> {
    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Frame {
                position,
                buffer,
                info,
                is_whole,
            } => {
                if self.plan.video.is_none() {
                    return Ok(());
                }
                if self.pictures.is_none() {
                    self.open_pictures(&info)?;
                }
                if is_whole {
                    self.conductor.picture(position, buffer)?;
                } else {
                    self.unseen.get_or_insert(position);
                    self.stand_in()?;
                }
            }
            Event::Pcm { position, pcm } => self.conductor.sound(position, pcm)?,
            Event::SoundBegins => self.conductor.begin_sound(),
            Event::Clock(now) => {
                // A message that was held up on its way is no reason to go back.
                let before = self.clock.map(|clock| clock.now());
                let told = before.map_or(now, |before| now.max(before));
                let at = Instant::now();
                self.clock = Some(Clock { told, at });
            }
            Event::Slate(frame) => {
                self.slate = Some(frame.clone());
                self.conductor.set_slate(frame, self.absence.hold);
                self.stand_in()?;
            }
            Event::Detached => self.conductor.detach(),
            Event::Keyframe { .. } | Event::Finish => {}
        }
        self.drain()
    }

    /// Begins with the slate where no picture can be shown yet: whatever comes, something has to be.
    fn stand_in(&mut self) -> Result<(), Error> {
        if let (Some(slate), Some(position)) = (&self.slate, self.unseen)
            && !std::mem::replace(&mut self.stands_in, true)
        {
            self.conductor.picture(position, slate.clone())?;
        }
        Ok(())
    }

    fn follow_clock(&mut self) -> Result<(), Error> {
        if let Some(clock) = self.clock {
            self.conductor.follow(clock.now())?;
            self.drain()?;
        }
        let now = Instant::now();
        let shown = self.conductor.conducted().shown;
        let is_due = now.duration_since(self.told.1) >= REPORT_PERIOD;
        if self.look(Duration::ZERO)? || is_due {
            self.tell(
                self.pictures
                    .as_ref()
                    .map(|pictures| Item::Load(pictures.load())),
            )?;
        }
        if shown != self.told.0 || is_due {
            self.told = (shown, now);
            self.tell(Some(Item::Conducted(self.conductor.conducted())))?;
        }
        Ok(())
    }

    fn tell(&self, item: Option<Item>) -> Result<(), Error> {
        let sent = item.map_or(Ok(()), |item| self.outputs.send(item));
        sent.map_err(|_| Error::Stopped)
    }

    /// Looks whether the encoders keep up with the clock, once there is one; for `since` slots have waited for them.
    fn look(&mut self, since: Duration) -> Result<bool, Error> {
        match &mut self.pictures {
            Some(pictures) if self.clock.is_some() => pictures.look(since),
            _ => Ok(false),
        }
    }

    /// The first frame says what all are: the encoders are built, and the slate is drawn like it.
    fn open_pictures(&mut self, info: &gst_video::VideoInfo) -> Result<(), Error> {
        let encoder = VideoEncoder::new(
            (self.plan, None),
            (self.origin, &self.resume),
            info,
            &self.outputs,
        )?;
        self.pictures = Some(encoder);
        let (slate, info) = (self.absence.slate.clone(), info.clone());
        let events = self.events.clone();
        std::thread::spawn(move || match slate::draw(&slate, &info) {
            // Whoever no longer listens needs no slate.
            Ok(frame) => drop(events.send(Event::Slate(frame))),
            Err(error) => super::log(&format!("no slate: {error}")),
        });
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Error> {
        // First all that is due, so that it is known how much that is.
        let mut due = Vec::new();
        while let Some(output) = self.conductor.poll_output()? {
            if let (Output::Slot(slot), Some(pictures)) = (&output, &mut self.pictures) {
                pictures.expect(slot.index);
            }
            due.push(output);
        }
        let began = Instant::now();
        for output in due {
            match output {
                Output::Slot(slot) => {
                    if let Some(pictures) = &mut self.pictures {
                        pictures.push(&slot)?;
                    }
                    // Pushing may have taken long, and what became due meanwhile is not polled yet.
                    self.look(began.elapsed())?;
                }
                Output::Block(block) => self.sound.push(block)?,
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        self.conductor.finish()?;
        self.drain()?;
        if self.plan.video.is_some() {
            let Some(encoder) = &self.pictures else {
                let element = "decoder".to_owned();
                let text = "not one picture could be decoded".to_owned();
                return Err(Error::Element { element, text });
            };
            encoder.finish()?;
            let conducted = self.conductor.conducted();
            let (filled, trimmed) = self.conductor.silence();
            super::log(&format!(
                "pictures: {} held, {} of the slate, {} dropped; sound: {filled} samples filled, \
                 {trimmed} trimmed",
                conducted.held_slots, conducted.slate_slots, conducted.dropped_frames,
            ));
        }
        self.sound.finish()?;
        self.outputs
            .send(Item::Draining(Box::new((self.pictures, Some(self.sound)))))
            .map_err(|_| Error::Stopped)
    }
}
