//! The thread that owns the conductor: decoded frames in, slots into the encoders.
//!
//! Enters: [`Event`]s of the decoders, in order per track
//! Leaves: frames and blocks in the encoders
//! Never:  decides: that is `conductor`
//! Time:   as `conductor`
//! Spec:   none

use std::sync::mpsc::{Receiver, SyncSender};

use bytes::Bytes;

use super::Error;
use super::clock::{AudioClock, Origin};
use super::encode::{AudioEncoder, VideoEncoder};
use super::output::Item;
use crate::time::{Ticks, Timescale};
use crate::transcode::conductor::{AudioConductor, VideoConductor};
use crate::transcode::ladder::Plan;

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
    },
    /// A decoded block of interleaved samples.
    Pcm {
        /// Where its first sample belongs, in samples.
        position: Ticks,
        /// The samples.
        pcm: Bytes,
    },
    /// A track of sound was announced.
    SoundExpected,
    /// The source is over and everything decoded was delivered.
    Finish,
}

struct Conduct<'a> {
    plan: &'a Plan,
    origin: Origin,
    /// Where the renditions go on after an earlier worker.
    resume: Vec<Ticks>,
    outputs: SyncSender<Item>,
    video: Option<(VideoConductor<gst::Buffer>, Option<VideoEncoder>)>,
    audio: AudioConductor,
    sound: AudioEncoder,
}

/// Conducts until [`Event::Finish`], then lets the encoders drain.
pub(super) fn run(
    plan: &Plan,
    origin: Origin,
    resume: Vec<Ticks>,
    events: &Receiver<Event>,
    outputs: SyncSender<Item>,
) -> Result<(), Error> {
    let clock = AudioClock::new(&plan.audio, origin).ok_or(Error::Order)?;
    let frame = plan.audio.frame_samples;
    let video = plan.video.as_ref().map(|video| {
        let first = origin.first_slot(video.rate);
        let conductor = VideoConductor::starting_at(video.rate, plan.grid, first);
        (conductor, None)
    });
    let mut conduct = Conduct {
        plan,
        origin,
        resume,
        video,
        audio: AudioConductor::new(clock.scale(), clock.feed_from(), frame, false),
        sound: AudioEncoder::new(plan, clock, &outputs)?,
        outputs,
    };
    loop {
        match events.recv().map_err(|_| Error::Stopped)? {
            Event::Frame {
                position,
                buffer,
                info,
            } => conduct.frame(position, buffer, &info)?,
            Event::Pcm { position, pcm } => conduct.sound(position, pcm)?,
            Event::SoundExpected => conduct.audio.expect_sound(true),
            Event::Finish => return conduct.finish(),
        }
    }
}

impl Conduct<'_> {
    fn frame(
        &mut self,
        position: Ticks,
        buffer: gst::Buffer,
        info: &gst_video::VideoInfo,
    ) -> Result<(), Error> {
        let Some((conductor, encoder)) = &mut self.video else {
            return Ok(());
        };
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => encoder.insert(VideoEncoder::new(
                self.plan,
                (self.origin, &self.resume),
                info,
                &self.outputs,
            )?),
        };
        conductor.push(position, buffer)?;
        while let Some(slot) = conductor.poll_output() {
            encoder.push(&slot)?;
        }
        let pictures = conductor.position().at(Timescale::VIDEO_90K);
        self.audio
            .follow(pictures.rescale_floor(self.sound.scale()))?;
        self.drain_audio()
    }

    /// Lays sound. Where the pictures have stopped while it goes on, the last of them is held.
    fn sound(&mut self, position: Ticks, pcm: Bytes) -> Result<(), Error> {
        self.audio.push(position, pcm)?;
        self.drain_audio()?;
        let Some((conductor, Some(encoder))) = &mut self.video else {
            return Ok(());
        };
        let sound = self.audio.position().at(self.sound.scale());
        conductor.follow(sound.rescale_floor(Timescale::VIDEO_90K))?;
        while let Some(slot) = conductor.poll_output() {
            encoder.push(&slot)?;
        }
        Ok(())
    }

    fn drain_audio(&mut self) -> Result<(), Error> {
        while let Some(block) = self.audio.poll_output() {
            self.sound.push(block)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        let mut end = self.audio.position();
        if let Some((conductor, encoder)) = &self.video {
            let Some(encoder) = encoder else {
                let element = "decoder".to_owned();
                let text = "not one picture could be decoded".to_owned();
                return Err(Error::Element { element, text });
            };
            let pictures = conductor.position().at(Timescale::VIDEO_90K);
            end = end.max(pictures.rescale_ceil(self.sound.scale()));
            encoder.finish()?;
            super::log(&format!(
                "pictures: {} repeated, {} dropped; sound: {} samples filled, {} trimmed",
                conductor.repeated(),
                conductor.dropped(),
                self.audio.filled(),
                self.audio.trimmed(),
            ));
        }
        self.audio.finish(end)?;
        self.drain_audio()?;
        self.sound.finish()?;
        let pictures = self.video.and_then(|(_, encoder)| encoder);
        self.outputs
            .send(Item::Draining(pictures, self.sound))
            .map_err(|_| Error::Stopped)
    }
}
