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

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gst::prelude::*;

use super::Error;
use super::access::{VideoWriter, Written};
use super::clock::VideoClock;
use super::encode::deliver;
use super::output::Item;
use crate::id::SegmentNumber;
use crate::time::{FrameRate, Grid};
use crate::transcode::ladder::{PlannedVideo, VideoPlan};
use crate::transcode::overload::{Decision, Gate, Load, Overload, Pass};

/// While a gate closes, this many pictures of a second pass: one at least for each part.
const CLOSING_RATE: i64 = 4;

/// All rungs of pictures.
pub(super) struct Rungs {
    rungs: Vec<Rung>,
    outputs: SyncSender<Item>,
    overload: Overload,
    watch: Watch,
    /// The segment under way.
    segment: Option<SegmentNumber>,
    /// The slot after the last that was given.
    next: i64,
    late_us: i64,
}

/// What the gates' threads read of all rungs.
#[derive(Clone)]
struct Watch {
    begun: Instant,
    rate: FrameRate,
    /// The newest slot that is due.
    due: Arc<AtomicI64>,
    may_leave: Arc<AtomicBool>,
}

impl Watch {
    fn now_us(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX)
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
}

/// What the gate's thread, the encoder's and the conductor's share.
struct Shared {
    door: Mutex<Door>,
    /// The last slot that came to the gate, in the plan's rate.
    seen: AtomicI64,
}

struct Door {
    gate: Gate,
    /// Whether something has come out of an encoder, ever.
    has_delivered: bool,
    /// Whether the next access unit is the encoder's first.
    is_first: bool,
    /// Whether the source has ended.
    is_finishing: bool,
    has_ended: bool,
}

impl Shared {
    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
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
                may_leave: Arc::new(AtomicBool::new(false)),
            },
            segment: None,
            next: 0,
            late_us: 0,
        }
    }

    /// Puts the next rung, which is `bin`, behind its lane.
    pub(super) fn add(
        &mut self,
        pipeline: &gst::Pipeline,
        (video, rung, grid): (&VideoPlan, &PlannedVideo, Grid),
        bin: &gst::Bin,
        clock: VideoClock,
    ) -> Result<(), Error> {
        let index = self.rungs.len();
        pipeline.add(bin).map_err(|_| missing("rung"))?;
        let lane = format!("lane{}_{}", rung.divisor, rung.lane);
        let lane = pipeline.by_name(&lane).ok_or_else(|| missing(&lane))?;
        let pad = lane.request_pad_simple("src_%u");
        let pad = pad.ok_or_else(|| missing("lane"))?;
        let rate = i64::from(clock.rate().num()) / i64::from(clock.rate().den());
        let shared = Arc::new(Shared {
            door: Mutex::new(Door {
                gate: Gate::new(clock.begin(), rate / CLOSING_RATE, video.keyframes),
                has_delivered: false,
                is_first: true,
                is_finishing: false,
                has_ended: false,
            }),
            seen: AtomicI64::new(i64::MAX),
        });
        let divisor = i64::from(rung.divisor);
        guard(&pad, bin, (clock, divisor), &shared, &self.watch);
        let writer = VideoWriter {
            rendition: index,
            codec: video.codec,
            clock,
            config: None,
        };
        let ended = Arc::clone(&shared);
        let write = write(writer, Arc::clone(&shared));
        deliver(pipeline, index, (index, &self.outputs), write, move || {
            ended.door().drained()
        })?;
        let rung = Rung {
            bin: bin.clone(),
            pad,
            divisor,
            notice: rate * i64::from(grid.segment_ms()) / 1_000,
            shared,
            is_up: false,
            returns: false,
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
    pub(super) fn expect(&self, slot: i64) {
        self.watch.due.store(slot, Ordering::Relaxed);
    }

    /// Takes note that `slot` is given to the encoders.
    pub(super) const fn give(&mut self, slot: i64) {
        self.next = slot + 1;
    }

    /// Takes note that the next slot begins segment `number`.
    pub(super) fn begin_segment(&mut self, number: SegmentNumber) -> Result<(), Error> {
        self.segment = Some(number);
        for (rendition, rung) in self.rungs.iter().enumerate() {
            if !rung.is_up {
                self.tell_rest(rendition, false)?;
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

    /// Looks how late the encoders are and acts on it; whether a rung begins or ceases to rest.
    pub(super) fn look(&mut self) -> Result<bool, Error> {
        let now_us = self.watch.now_us();
        self.late_us = self.late_us();
        self.tend()?;
        // A rung that has not said what it is yet cannot be left out.
        if !self
            .rungs
            .iter()
            .all(|rung| rung.shared.door().has_delivered)
        {
            return Ok(false);
        }
        let mut rungs = self.rungs.iter();
        let is_closing = rungs.any(|rung| rung.shared.door().gate.is_closing());
        let decision = self.overload.look(now_us, self.late_us, is_closing);
        let may_leave = self.overload.may_leave();
        self.watch.may_leave.store(may_leave, Ordering::Relaxed);
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
                rung.put_up(next)?;
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
        Some(gst::PadProbeData::Buffer(buffer)) => {
            let Some(pts) = buffer.pts() else {
                return gst::PadProbeReturn::Ok;
            };
            let slot = clock.slot_of(pts);
            let in_rate = slot.saturating_mul(divisor);
            shared.seen.store(in_rate, Ordering::Relaxed);
            let may_leave = watch.may_leave.load(Ordering::Relaxed);
            let waited_us = may_leave.then(|| watch.late_us(in_rate));
            let is_cut = buffer.flags().contains(gst::BufferFlags::MARKER);
            let pass = shared.door().gate.admit(slot, is_cut, waited_us);
            match pass {
                Pass::Take => gst::PadProbeReturn::Ok,
                Pass::Leave => gst::PadProbeReturn::Handled,
                Pass::Close => {
                    let sink = bin.upgrade().and_then(|bin| bin.static_pad("sink"));
                    // What it holds comes out, and then its end, on which it is taken down.
                    let _ = sink.map(|sink| sink.send_event(gst::event::Eos::new()));
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
        let written = writer.write(sample, (slot, is_first))?;
        shared.door().has_delivered = true;
        Ok(written)
    }
}

fn missing(name: &str) -> Error {
    Error::Element {
        element: name.to_owned(),
        text: "cannot be linked".to_owned(),
    }
}
