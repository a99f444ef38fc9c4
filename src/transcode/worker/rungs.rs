//! The rungs of pictures, each an encoder behind a gate: those that the machine cannot carry rest.
//!
//! ```text
//! lane's tee ──▶ gate ──▶ scale ──▶ encoder ──▶ sink      a rung at work
//! lane's tee ──▶ gate     (taken down)                    a rung that rests
//! ```
//!
//! Enters: which slot is due, and which was given to the encoders; what comes to the gates and out of the encoders
//! Leaves: [`Item`]s: access units, that a rung rests, its end
//! Never:  decides: that is `overload`
//! Time:   slots of the plan's rate; microseconds of a monotonic clock
//! Spec:   docs/resilience.md

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::Error;
use super::access::{VideoWriter, Written};
use super::clock::VideoClock;
use super::encode::deliver;
use super::follow::Places;
use super::output::Item;
use super::pulse::Pulse;
use crate::id::SegmentNumber;
use crate::media::FrameLength;
use crate::time::FrameRate;
use crate::transcode::ladder::{Plan, PlannedVideo, VideoPlan};
use crate::transcode::overload::{Decision, Gate, Leaving, Load, Overload, Pass};

/// How long encoders may take to deliver what they hold when pictures stop: the deepest look-ahead of the slowest.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// All rungs of pictures.
pub(super) struct Rungs {
    rungs: Vec<Rung>,
    outputs: SyncSender<Item>,
    overload: Overload,
    watch: Watch,
    /// The segment under way.
    segment: Option<SegmentNumber>,
    /// The newest slot that the conductor knew to be due.
    expected: i64,
    /// The slot after the last that was given.
    next: i64,
    late_us: i64,
    pulse: Pulse,
    /// Whether the encoders were told that nothing comes for a while.
    is_stopped: bool,
}

/// What the gates' threads read of all rungs.
#[derive(Clone)]
struct Watch {
    begun: Instant,
    rate: FrameRate,
    /// The newest slot that is due.
    due: Arc<AtomicI64>,
    /// A [`Leaving`], of those that waited for too long.
    leaving: Arc<AtomicU8>,
}

impl Watch {
    fn now_us(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Takes note that `expected` was due `since` ago. Slots go on being due.
    fn expect(&self, expected: i64, since: Duration) {
        let us = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let den = 1_000_000 * i64::from(self.rate.den());
        let slots = us.saturating_mul(i64::from(self.rate.num())) / den;
        self.due
            .store(expected.saturating_add(slots), Ordering::Relaxed);
    }

    fn set_leaving(&self, leaving: Leaving) {
        self.leaving.store(leaving as u8, Ordering::Relaxed);
    }

    /// Whether `slot` may be left out.
    fn leaving(&self, slot: i64) -> Leaving {
        let all = [Leaving::Nothing, Leaving::Most, Leaving::All];
        let set = self.leaving.load(Ordering::Relaxed);
        let set = all.into_iter().find(|leaving| *leaving as u8 == set);
        set.unwrap_or_default().after(self.late_us(slot))
    }

    /// How far `slot` is behind the newest that is due.
    fn late_us(&self, slot: i64) -> i64 {
        let slots = self.due.load(Ordering::Relaxed).saturating_sub(slot).max(0);
        let num = i64::from(self.rate.num());
        slots.saturating_mul(1_000_000 * i64::from(self.rate.den())) / num
    }
}

struct Rung {
    bin: gst::Bin,
    /// The lane's side of the gate.
    pad: gst::Pad,
    divisor: i64,
    /// For how many of its slots it is said that it will rest before it does.
    notice: i64,
    shared: Arc<Shared>,
    /// Whether the encoder is there.
    is_up: bool,
    /// Whether it is to be there again as soon as the old one has finished.
    returns: bool,
    /// Whether a segment began while the old one was finishing: nothing of that one comes.
    misses: bool,
    /// Of one that follows the source and goes on after an earlier worker: whether it was told where.
    has_begun: bool,
}

/// What the gate's thread, the encoder's and the conductor's share.
struct Shared {
    door: Mutex<Door>,
    /// Told when [`Door::is_stopping`] turns false.
    stopped: Condvar,
    /// The last slot that came to the gate, in the plan's rate.
    seen: AtomicI64,
}

struct Door {
    gate: Gate,
    /// Whether the next access unit is the encoder's first.
    is_first: bool,
    /// Whether it was told that nothing comes for a while, and its encoder has not delivered everything.
    is_stopping: bool,
    /// Whether the source has ended.
    is_finishing: bool,
    has_ended: bool,
}

impl Shared {
    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing comes for a while, all that came having passed the gate; whether the encoder is to finish.
    fn stop(&self) -> bool {
        let mut door = self.door();
        let closes = door.gate.stop() == Pass::Close;
        door.is_stopping &= closes;
        self.stopped.notify_all();
        closes
    }

    /// The encoder has delivered everything; whether that is the end of the rendition.
    fn drained(&self) -> bool {
        let mut door = self.door();
        door.is_stopping = false;
        self.stopped.notify_all();
        door.drained()
    }
}

impl Door {
    /// Whether the rendition ends now, which it does once.
    fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.has_ended, true)
    }

    /// The encoder has delivered everything; whether that is the end of the rendition.
    fn drained(&mut self) -> bool {
        if self.gate.drained() {
            self.is_first = true;
            self.is_finishing && self.end()
        } else {
            self.end()
        }
    }
}

impl Rungs {
    pub(super) fn new(rate: FrameRate, outputs: &SyncSender<Item>) -> Self {
        Self {
            rungs: Vec::new(),
            outputs: outputs.clone(),
            overload: Overload::new(0),
            watch: Watch {
                begun: Instant::now(),
                rate,
                due: Arc::new(AtomicI64::new(i64::MIN)),
                leaving: Arc::new(AtomicU8::new(Leaving::Nothing as u8)),
            },
            segment: None,
            expected: i64::MIN,
            next: 0,
            late_us: 0,
            pulse: Pulse::start(),
            is_stopped: false,
        }
    }

    /// Puts the next rung, which is `bin`, behind its lane.
    pub(super) fn add(
        &mut self,
        pipeline: &gst::Pipeline,
        (video, rung, plan): (&VideoPlan, &PlannedVideo, &Plan),
        bin: &gst::Bin,
        (clock, places): (VideoClock, Option<Places>),
    ) -> Result<(), Error> {
        let index = self.rungs.len();
        pipeline.add(bin).map_err(|_| missing("rung"))?;
        let lane = format!("lane{}_{}", rung.divisor, rung.lane);
        let lane = pipeline.by_name(&lane).ok_or_else(|| missing(&lane))?;
        let pad = lane.request_pad_simple("src_%u");
        let pad = pad.ok_or_else(|| missing("lane"))?;
        let rate = i64::from(clock.rate().num()) / i64::from(clock.rate().den());
        let begin = (clock.begin(), clock.begin_of_segment(plan.grid));
        let part = FrameLength::of_pictures(clock.rate()).in_part(plan.part);
        let part = i64::try_from(part).unwrap_or(i64::MAX);
        let shared = Arc::new(Shared {
            door: Mutex::new(Door {
                gate: Gate::new(begin, part, video.keyframes),
                is_first: true,
                is_stopping: false,
                is_finishing: false,
                has_ended: false,
            }),
            stopped: Condvar::new(),
            seen: AtomicI64::new(i64::MAX),
        });
        let divisor = i64::from(rung.divisor);
        guard(&pad, bin, (clock, divisor), &shared, &self.watch);
        let writer = VideoWriter {
            rendition: index,
            codec: video.codec,
            clock,
            places: places.map(|places| (places, divisor)),
            config: None,
        };
        let ended = Arc::clone(&shared);
        let write = write(writer, Arc::clone(&shared));
        deliver(pipeline, index, (index, &self.outputs), write, move || {
            ended.drained()
        })?;
        let rung = Rung {
            bin: bin.clone(),
            pad,
            divisor,
            notice: rate * i64::from(plan.grid.segment_ms()) / 1_000,
            shared,
            is_up: false,
            returns: false,
            misses: false,
            has_begun: false,
        };
        rung.link()?;
        self.rungs.push(Rung {
            is_up: true,
            ..rung
        });
        self.overload = Overload::new(self.rungs.len());
        Ok(())
    }

    /// Takes note that `slot` is due.
    pub(super) fn expect(&mut self, slot: i64) {
        self.expected = slot;
        self.watch.expect(slot, Duration::ZERO);
    }

    /// Has rung `index` leave out `slot`, or, if it `begins`, go on with it from now on.
    pub(super) fn begin_from(&mut self, index: usize, slot: i64, begins: bool) {
        let Some(rung) = self.rungs.get_mut(index).filter(|rung| !rung.has_begun) else {
            return;
        };
        rung.has_begun = begins;
        let from = rung.slot_of(slot) + i64::from(!begins);
        rung.shared.door().gate.begin_from(from);
    }

    /// Takes note that `slot` is given to the encoders.
    pub(super) const fn give(&mut self, slot: i64) {
        self.next = slot + 1;
    }

    /// Takes note that the next slot begins segment `number`.
    pub(super) fn begin_segment(&mut self, number: SegmentNumber) -> Result<(), Error> {
        self.segment = Some(number);
        for rendition in 0..self.rungs.len() {
            let Some(rung) = self.rungs.get_mut(rendition) else {
                continue;
            };
            if !rung.is_up {
                self.tell_rest(rendition, false)?;
            } else if rung.shared.door().gate.is_finishing() {
                rung.misses = true;
            }
        }
        Ok(())
    }

    /// Says that `rendition` has nothing of the segment under way, or soon will not have.
    fn tell_rest(&self, rendition: usize, soon: bool) -> Result<(), Error> {
        let Some(until) = self.segment.map(SegmentNumber::next) else {
            return Ok(());
        };
        let told = self.outputs.send(Item::Rest {
            rendition,
            until,
            soon,
        });
        told.map_err(|_| Error::Stopped)
    }

    /// Looks how late the encoders are and acts on it; whether a rung begins or ceases to rest. The newest slot
    /// was due `since` ago, if slots wait for encoders since then.
    pub(super) fn look(&mut self, since: Duration) -> Result<bool, Error> {
        let now_us = self.watch.now_us();
        self.watch.expect(self.expected, since);
        self.late_us = self.late_us();
        self.tend()?;
        if self.pulse.stood_still() {
            self.overload.stood_still();
        }
        // A rung that has not said what it is yet cannot be left out, either.
        let is_changing = |rung: &Rung| {
            let door = rung.shared.door();
            door.gate.is_closing() || door.gate.is_starting()
        };
        let is_changing = self.rungs.iter().any(is_changing);
        let decision = self.overload.look(now_us, self.late_us, is_changing);
        self.watch.set_leaving(self.overload.leaving());
        let (index, returns) = match decision {
            Some(Decision::Rest(index)) => (index, false),
            Some(Decision::Return(index)) => (index, true),
            None => return Ok(false),
        };
        if let Some(rung) = self.rungs.get_mut(index) {
            rung.returns = returns;
            if !returns {
                rung.shared
                    .door()
                    .gate
                    .close(rung.slot_of(self.next) + rung.notice);
            }
        }
        if !returns {
            self.tell_rest(index, true)?;
        }
        self.tend()?;
        Ok(true)
    }

    /// How far the slowest open gate is behind the newest slot that is due.
    fn late_us(&self) -> i64 {
        let late_us = |rung: &Rung| {
            let is_open = rung.shared.door().gate.is_open();
            let seen = rung.shared.seen.load(Ordering::Relaxed);
            let late = self.watch.late_us(seen.saturating_add(rung.divisor));
            if is_open { late } else { 0 }
        };
        self.rungs.iter().map(late_us).max().unwrap_or(0)
    }

    /// Takes down encoders that have finished and puts up those that are to return.
    fn tend(&mut self) -> Result<(), Error> {
        let next = self.next;
        for index in 0..self.rungs.len() {
            let Some(rung) = self.rungs.get_mut(index) else {
                continue;
            };
            let is_shut = rung.shared.door().gate.is_shut();
            if rung.is_up && is_shut && !rung.returns {
                rung.take_down()?;
                self.tell_rest(index, false)?;
            } else if rung.returns && is_shut {
                let misses = rung.misses;
                rung.put_up(next)?;
                if misses {
                    self.tell_rest(index, false)?;
                }
            }
        }
        Ok(())
    }

    /// How the encoders keep up.
    pub(super) fn load(&self) -> Load {
        let left = self.rungs.iter().map(|rung| rung.shared.door().gate.left());
        Load {
            resting: u32::try_from(self.overload.resting()).unwrap_or(u32::MAX),
            late_ms: u32::try_from(self.late_us / 1_000).unwrap_or(0),
            left_frames: left.sum(),
        }
    }

    /// Nothing comes for a while: encoders at work are to deliver what they hold. Another one goes on in the place of
    /// each with the next key frame.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        for rung in &mut self.rungs {
            let mut door = rung.shared.door();
            let is_open = door.gate.is_open();
            door.is_stopping |= is_open;
            drop(door);
            rung.returns |= is_open;
        }
    }

    /// Something comes again: waits until the encoders have delivered what they held, if they were stopped.
    pub(super) fn go_on(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.is_stopped) {
            return Ok(());
        }
        let until = Instant::now() + STOP_LIMIT;
        for rung in &self.rungs {
            let left = until.saturating_duration_since(Instant::now());
            let stopping = |door: &mut Door| door.is_stopping;
            let door = rung.shared.door();
            let waited = rung
                .shared
                .stopped
                .wait_timeout_while(door, left, stopping)
                .unwrap_or_else(PoisonError::into_inner);
            if waited.1.timed_out() {
                super::log("an encoder did not deliver its last pictures in time");
            }
        }
        self.tend()
    }

    /// Nothing more comes. Rungs that rest end now, all others when their last access unit has come.
    pub(super) fn finish(&self) -> Result<(), Error> {
        for rung in &self.rungs {
            let mut door = rung.shared.door();
            door.is_finishing = true;
            door.gate.close_for_good();
            if door.gate.is_shut() && door.end() {
                drop(door);
                self.outputs.send(Item::Ended).map_err(|_| Error::Stopped)?;
            }
        }
        Ok(())
    }
}

impl Rung {
    /// The first of its slots from slot `slot` of the plan's rate on.
    fn slot_of(&self, slot: i64) -> i64 {
        slot.div_euclid(self.divisor) + i64::from(slot.rem_euclid(self.divisor) != 0)
    }

    fn link(&self) -> Result<(), Error> {
        let sink = self.bin.static_pad("sink").ok_or_else(|| missing("sink"))?;
        let linked = self.pad.link(&sink);
        linked.map(drop).map_err(|_| missing("lane"))
    }

    /// Ends an encoder that holds nothing any more: it costs neither time nor memory then.
    fn take_down(&mut self) -> Result<(), Error> {
        self.bin.set_locked_state(true);
        self.bin.set_state(gst::State::Null)?;
        if let Some(sink) = self.pad.peer() {
            // It was linked, or there is nothing to be done.
            let _ = self.pad.unlink(&sink);
        }
        self.is_up = false;
        self.misses = false;
        Ok(())
    }

    /// Starts an encoder that begins with the first segment from slot `next` on.
    fn put_up(&mut self, next: i64) -> Result<(), Error> {
        if self.pad.is_linked() {
            self.take_down()?;
        }
        self.bin.set_locked_state(false);
        // Linked anew, it is told what the lane carries.
        self.link()?;
        self.bin
            .sync_state_with_parent()
            .map_err(|_| missing("state"))?;
        self.is_up = true;
        self.returns = false;
        let from = self.slot_of(next);
        self.shared.door().gate.open(from);
        Ok(())
    }
}

/// Puts the gate on `pad`, before `bin`.
fn guard(
    pad: &gst::Pad,
    bin: &gst::Bin,
    (clock, divisor): (VideoClock, i64),
    shared: &Arc<Shared>,
    watch: &Watch,
) {
    let (bin, shared, watch) = (bin.downgrade(), Arc::clone(shared), watch.clone());
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| match &info.data {
        Some(gst::PadProbeData::Buffer(buffer)) if is_stop(buffer) => {
            if shared.stop() {
                end(&bin);
            }
            gst::PadProbeReturn::Handled
        }
        Some(gst::PadProbeData::Buffer(buffer)) => {
            let Some(pts) = buffer.pts() else {
                return gst::PadProbeReturn::Ok;
            };
            let slot = clock.slot_of(pts);
            let in_rate = slot.saturating_mul(divisor);
            shared.seen.store(in_rate, Ordering::Relaxed);
            let leaving = watch.leaving(in_rate);
            let is_cut = buffer.flags().contains(gst::BufferFlags::MARKER);
            let pass = shared.door().gate.admit(slot, is_cut, leaving);
            match pass {
                Pass::Take => gst::PadProbeReturn::Ok,
                Pass::Leave => gst::PadProbeReturn::Handled,
                Pass::Close => {
                    end(&bin);
                    gst::PadProbeReturn::Handled
                }
            }
        }
        Some(gst::PadProbeData::Event(event)) => {
            let door = shared.door();
            let is_stopped = match event.type_() {
                gst::EventType::Eos => !door.gate.wants_end(),
                gst::EventType::CustomDownstream => {
                    gst_video::ForceKeyUnitEvent::is(event) && !door.gate.wants_key_frame()
                }
                _ => false,
            };
            if is_stopped {
                gst::PadProbeReturn::Handled
            } else {
                gst::PadProbeReturn::Ok
            }
        }
        _ => gst::PadProbeReturn::Ok,
    });
}

/// Has what the encoder in `bin` holds come out, and then its end, on which it is taken down.
fn end(bin: &gst::glib::WeakRef<gst::Bin>) {
    let sink = bin.upgrade().and_then(|bin| bin.static_pad("sink"));
    let _ = sink.map(|sink| sink.send_event(gst::event::Eos::new()));
}

/// What goes to the gates, after the last picture, where nothing comes for a while.
pub(super) fn stop_mark() -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_flags(gst::BufferFlags::GAP);
    }
    buffer
}

fn is_stop(buffer: &gst::BufferRef) -> bool {
    buffer.flags().contains(gst::BufferFlags::GAP)
}

/// What makes samples of an encoder's buffers, each in the place of the frame that went in at its turn.
fn write(
    mut writer: VideoWriter,
    shared: Arc<Shared>,
) -> impl FnMut(&gst::Sample) -> Result<Written, Error> + Send + 'static {
    move |sample| {
        let (slot, is_first) = {
            let mut door = shared.door();
            let slot = door.gate.come_out();
            (slot, std::mem::replace(&mut door.is_first, false))
        };
        let slot = slot.ok_or_else(|| Error::Configuration {
            rendition: writer.rendition,
            text: "more access units than frames".to_owned(),
        })?;
        writer.write(sample, (slot, is_first))
    }
}

fn missing(name: &str) -> Error {
    Error::Element {
        element: name.to_owned(),
        text: "cannot be linked".to_owned(),
    }
}
