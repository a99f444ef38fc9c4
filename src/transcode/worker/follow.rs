//! The thread that encodes beside what is copied: every picture of the source, in its own place.
//!
//! Enters: [`Event`]s of the decoders
//! Leaves: frames in the encoders
//! Never:  a picture held or left out, sound; decides where pictures lie: that is `conductor::Follow`
//! Time:   as `conductor::Follow`
//! Spec:   docs/adr/0006-follow-what-is-copied.md

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Error;
use super::clock::{Origin, common_step};
use super::conduct::Event;
use super::encode::VideoEncoder;
use super::output::Item;
use crate::time::Ticks;
use crate::transcode::conductor::{Follow, Place, Shown, Slot};
use crate::transcode::ladder::Plan;

/// How often the encoders are looked at while nothing comes.
const TICK: Duration = Duration::from_millis(50);
/// How often it is told how they keep up, while nothing changes.
const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// How many places are remembered: more than wait before encoders and in the deepest look-ahead.
const MAX_PLACES: usize = 4_096;

/// Where the pictures lie that are being encoded, by slot. Encoders know slots only.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<VecDeque<Place>>>);

impl Places {
    fn add(&self, place: Place) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_PLACES {
            all.pop_front();
        }
        all.push_back(place);
    }

    /// The place of the picture in `slot`.
    pub(super) fn of(&self, slot: i64) -> Option<Place> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.binary_search_by_key(&slot, |place| place.slot);
        at.ok().and_then(|at| all.get(at).copied())
    }
}

/// Encodes until [`Event::Finish`], then lets the encoders drain.
pub(super) fn run(
    plan: &Plan,
    (origin, resume): (Origin, Vec<Ticks>),
    events: &Receiver<Event>,
    outputs: SyncSender<Item>,
) -> Result<(), Error> {
    let video = plan.video.as_ref().ok_or(Error::Order)?;
    let first = origin.first_slot(video.rate);
    let mut following = Following {
        plan,
        origin,
        resume,
        follow: Follow::new(first, common_step(video)),
        places: Places::default(),
        pictures: None,
        outputs,
        told: Instant::now(),
        is_away: false,
    };
    loop {
        let mut since = Duration::ZERO;
        match events.recv_timeout(TICK) {
            Ok(Event::Finish) => return following.finish(),
            Ok(Event::Keyframe { pts, dts }) => following.follow.keyframe(pts, dts),
            Ok(Event::Frame {
                position,
                buffer,
                info,
                ..
            }) => {
                let began = Instant::now();
                following.encode(position, buffer, &info)?;
                since = began.elapsed();
            }
            Ok(Event::Detached) => following.is_away = true,
            // Nothing is made up for what does not come.
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => following.stop()?,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Stopped),
        }
        following.look(since)?;
    }
}

struct Following<'a> {
    plan: &'a Plan,
    origin: Origin,
    /// Where the pictures of each rung are shown from which it goes on after an earlier worker.
    resume: Vec<Ticks>,
    follow: Follow,
    places: Places,
    pictures: Option<VideoEncoder>,
    outputs: SyncSender<Item>,
    /// When it was last told how the encoders keep up.
    told: Instant,
    /// Whether the source has gone, and no other one has come at once.
    is_away: bool,
}

impl Following<'_> {
    fn encode(
        &mut self,
        position: Ticks,
        frame: gst::Buffer,
        info: &gst_video::VideoInfo,
    ) -> Result<(), Error> {
        let Some(place) = self.follow.picture(position) else {
            return Ok(());
        };
        self.is_away = false;
        let pictures = match &mut self.pictures {
            Some(pictures) => {
                pictures.go_on()?;
                pictures
            }
            none => {
                let from = (self.origin, self.resume.as_slice());
                let places = Some(&self.places);
                let encoder = VideoEncoder::new((self.plan, places), from, info, &self.outputs)?;
                none.insert(encoder)
            }
        };
        self.places.add(place);
        pictures.begin_from(&self.resume, place);
        pictures.expect(place.slot);
        pictures.push(&Slot {
            index: place.slot,
            cut: place.keyframe,
            frame,
            shown: Shown::Source,
        })
    }

    /// Has what the encoders hold come out, where no more pictures come: frames that wait for those after them would
    /// be missing for as long.
    fn stop(&mut self) -> Result<(), Error> {
        let is_away = std::mem::take(&mut self.is_away);
        match self.pictures.as_mut().filter(|_| is_away) {
            Some(pictures) => pictures.stop(),
            None => Ok(()),
        }
    }

    /// Looks whether the encoders keep up with what comes; the last picture waited for them for `since`.
    fn look(&mut self, since: Duration) -> Result<(), Error> {
        let Some(pictures) = &mut self.pictures else {
            return Ok(());
        };
        let has_changed = pictures.look(since)?;
        let now = Instant::now();
        if has_changed || now.duration_since(self.told) >= REPORT_PERIOD {
            self.told = now;
            let told = self.outputs.send(Item::Load(pictures.load()));
            told.map_err(|_| Error::Stopped)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        let Some(pictures) = &self.pictures else {
            let element = "decoder".to_owned();
            let text = "not one picture could be decoded".to_owned();
            return Err(Error::Element { element, text });
        };
        pictures.finish()?;
        let draining = Item::Draining(Box::new((self.pictures, None)));
        self.outputs.send(draining).map_err(|_| Error::Stopped)
    }
}
