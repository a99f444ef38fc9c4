//! Decides which input of a broadcast is live.
//!
//! Enters: who is there, when something of it arrived, whether a decoder may join it; the time
//! Leaves: a [`Choice`] when another one is to be live
//! Never:  media, clocks, publishers
//! Time:   microseconds of the broadcast's clock
//! Spec:   docs/resilience.md
//!
//! An input is lost when nothing of it arrives for [`LOST_US`]. The other one takes its place if it has been
//! steady, and the primary comes back once it was steady for as long as the configuration says. From one that is
//! still there is no switch for [`DWELL_US`] after the last: a picture that jumps to and fro is worse than one
//! that stands.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::fmt;
use std::time::Duration;

use crate::app::inputs::{Both, Input};
use crate::time::WallTime;

/// An input of which nothing arrives for this long is lost. Encoders send sound every 20 ms and pictures every
/// 40 ms; a lost packet on a long way is sent again within 300 ms.
pub(super) const LOST_US: i64 = 600_000;
/// The same of its pictures while its sound goes on: slides come once a second.
pub(super) const PICTURES_LOST_US: i64 = 2_000_000;
/// How long an input must have been steady to take the place of one that is silent.
pub(super) const STEADY_US: i64 = 2_000_000;
/// An input that is silent for this long gives way to one that was not steady.
pub(super) const LONG_LOST_US: i64 = 3_000_000;
/// An input that has been steady for this long and has no key frame to begin with sends them too seldom to be waited
/// for: longer than one is held.
pub(super) const KEYLESS_US: i64 = 13_000_000;
/// The least time from a switch to the next one, unless a publisher goes.
pub(super) const DWELL_US: i64 = 2_000_000;
/// The primary is not returned to at the end of a silence, be it a short one.
const FRESH_US: i64 = 250_000;
/// Between two looks no more than this counts as silence: a server that was held up itself has not listened.
const MAX_STEP_US: i64 = 250_000;

/// Why an input is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Why {
    /// No other was there.
    First,
    /// The other one's publisher has gone.
    Gone,
    /// Nothing arrived of the other one.
    Silent,
    /// No pictures arrived of the other one.
    NoPictures,
    /// The primary is back, and steady.
    Steady,
}

impl Why {
    /// Its name in the API.
    pub(in crate::app) const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::NoPictures => "no_pictures",
            Self::Steady => "steady",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "no other input is there",
            Self::Gone => "the publisher of the other input has gone",
            Self::Silent => "the other input sends nothing",
            Self::NoPictures => "the other input sends no pictures",
            Self::Steady => "the primary is steady again",
        })
    }
}

/// Another input is to be live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) input: Input,
    pub(super) why: Why,
}

/// What has come of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heard {
    /// Words: it is there, and that is all.
    Words,
    /// Media: sound, or what is needed to decode pictures, or pictures that cannot be decoded.
    Media,
    /// A picture that can be decoded after those before it.
    Picture,
}

/// How an input may be joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Joinable {
    /// A decoder may begin with what is held of it.
    pub(super) now: bool,
    /// The same, and where it begins is near: it takes no time to catch up.
    pub(super) cheaply: bool,
    /// There are pictures in it.
    pub(super) pictures: bool,
}

/// What is known of a publisher that is there.
#[derive(Clone, Copy, Debug)]
struct Known {
    heard_us: i64,
    pictured_us: i64,
    steady_since_us: i64,
    joinable: Joinable,
}

impl Known {
    const fn new(now_us: i64) -> Self {
        Self {
            heard_us: now_us,
            pictured_us: now_us,
            steady_since_us: now_us,
            joinable: Joinable {
                now: false,
                cheaply: false,
                pictures: false,
            },
        }
    }

    const fn silent_us(&self, now_us: i64) -> i64 {
        now_us.saturating_sub(self.heard_us)
    }

    const fn is_silent(&self, now_us: i64) -> bool {
        self.silent_us(now_us) >= LOST_US
    }

    const fn lacks_pictures(&self, now_us: i64) -> bool {
        now_us.saturating_sub(self.pictured_us) >= PICTURES_LOST_US
    }

    /// How long it has been sending without a break.
    const fn steady_us(&self, now_us: i64) -> i64 {
        if self.is_silent(now_us) || self.joinable.pictures && self.lacks_pictures(now_us) {
            0
        } else {
            now_us.saturating_sub(self.steady_since_us)
        }
    }

    const fn is_usable(&self, now_us: i64) -> bool {
        self.joinable.now && !self.is_silent(now_us)
    }

    /// Whether it will have no key frame soon. Joined all the same it is heard, and seen once its pictures are whole:
    /// better than nothing, but no better than anything else.
    const fn is_keyless(&self, now_us: i64) -> bool {
        let for_us = now_us.saturating_sub(self.steady_since_us);
        !self.joinable.now && !self.is_silent(now_us) && for_us >= KEYLESS_US
    }
}

/// Which input is live. Ask [`Self::decide`] after everything told, and every 100 ms. `now` never goes
/// backwards.
#[derive(Debug)]
pub(super) struct Selector {
    return_after_us: i64,
    inputs: Both<Option<Known>>,
    live: Option<Input>,
    /// Which one was live last.
    last: Option<Input>,
    switched_us: Option<i64>,
    looked_us: Option<i64>,
}

impl Selector {
    /// Nobody is there yet; the primary comes back when it was steady for `return_after`.
    pub(super) fn new(return_after: Duration) -> Self {
        Self {
            return_after_us: i64::try_from(return_after.as_micros()).unwrap_or(i64::MAX),
            inputs: Both::default(),
            live: None,
            last: None,
            switched_us: None,
            looked_us: None,
        }
    }

    /// Which input is live.
    pub(super) const fn live(&self) -> Option<Input> {
        self.live
    }

    /// A publisher of `input` has shown media.
    pub(super) const fn attach(&mut self, input: Input, now: WallTime) {
        *self.inputs.get_mut(input) = Some(Known::new(now.as_micros()));
    }

    /// The publisher of `input` has gone; whether it was live.
    pub(super) fn detach(&mut self, input: Input) -> bool {
        *self.inputs.get_mut(input) = None;
        let was_live = self.live == Some(input);
        if was_live {
            self.live = None;
        }
        was_live
    }

    /// Something of `input` has arrived, and it may now be joined as `joinable` says.
    pub(super) fn hear(&mut self, input: Input, heard: Heard, joinable: Joinable, now: WallTime) {
        let now_us = now.as_micros();
        let Some(known) = self.inputs.get_mut(input) else {
            return;
        };
        let is_picture = heard == Heard::Picture;
        let broke_off = known.is_silent(now_us)
            || is_picture && known.joinable.pictures && known.lacks_pictures(now_us);
        if broke_off {
            known.steady_since_us = now_us;
        }
        known.joinable = joinable;
        if heard >= Heard::Media {
            known.heard_us = now_us;
        }
        if is_picture {
            known.pictured_us = now_us;
        }
    }

    /// What is to be live from `now` on, if that is another one.
    pub(super) fn decide(&mut self, now: WallTime) -> Option<Choice> {
        let now_us = now.as_micros();
        self.listen_again(now_us);
        let choice = match self.live {
            None => self.begin(now_us),
            Some(live) => self.judge(live, now_us),
        }?;
        if self.last.is_some_and(|last| last != choice.input) {
            // Where nobody is left there is nothing to stay with.
            if choice.why != Why::Gone && !self.may_switch(now_us) {
                return None;
            }
            self.switched_us = Some(now_us);
        }
        (self.live, self.last) = (Some(choice.input), Some(choice.input));
        Some(choice)
    }

    /// Forgives both inputs what the server itself has missed.
    fn listen_again(&mut self, now_us: i64) {
        let step_us = self
            .looked_us
            .map_or(0, |looked| now_us.saturating_sub(looked));
        self.looked_us = Some(now_us);
        let missed_us = step_us.saturating_sub(MAX_STEP_US).max(0);
        for known in self.inputs.iter_mut().flatten() {
            let forgive = |at_us: i64| at_us.saturating_add(missed_us).min(now_us);
            known.heard_us = forgive(known.heard_us);
            known.pictured_us = forgive(known.pictured_us);
        }
    }

    fn may_switch(&self, now_us: i64) -> bool {
        self.switched_us
            .is_none_or(|at_us| now_us.saturating_sub(at_us) >= DWELL_US)
    }

    /// Which one to begin with, or to go on with after the live one has gone.
    fn begin(&self, now_us: i64) -> Option<Choice> {
        let usable = |input: &Input| {
            let known = self.inputs.get(*input).as_ref();
            known.is_some_and(|known| known.is_usable(now_us))
        };
        let alone = |input: &Input| {
            let (known, other) = (self.inputs.get(*input), self.inputs.get(input.other()));
            known.is_some() && other.is_none()
        };
        // Sound of one that is alone need not wait for its first key frame, if nothing else came before.
        let same = |input: &Input| {
            let known = self.inputs.get(*input).as_ref();
            let is_keyless = known.is_some_and(|known| known.is_keyless(now_us));
            is_keyless || alone(input) && self.last.is_none_or(|last| last == *input)
        };
        let mut all = Input::ALL.into_iter();
        let input = all.clone().find(usable).or_else(|| all.find(same))?;
        let why = if self.last.is_some_and(|last| last != input) {
            Why::Gone
        } else {
            Why::First
        };
        Some(Choice { input, why })
    }

    /// Whether the other one is to take the place of `live`.
    fn judge(&self, live: Input, now_us: i64) -> Option<Choice> {
        let input = live.other();
        let present = self.inputs.get(live).as_ref()?;
        let other = self.inputs.get(input).as_ref()?;
        if !other.is_usable(now_us) {
            let is_lost = present.silent_us(now_us) >= LONG_LOST_US;
            let why = Why::Silent;
            return (is_lost && other.is_keyless(now_us)).then_some(Choice { input, why });
        }
        let steady_us = other.steady_us(now_us);
        let takes_over = steady_us >= STEADY_US || present.silent_us(now_us) >= LONG_LOST_US;
        // One that sends sound alone is no better than a live one with pictures, or they would take turns.
        let has_as_much = other.joinable.pictures || !present.joinable.pictures;
        let returns = input == Input::Primary
            && has_as_much
            && steady_us >= self.return_after_us
            && other.silent_us(now_us) < FRESH_US;
        let why = if present.is_silent(now_us) && takes_over {
            Why::Silent
        } else if present.lacks_pictures(now_us) && other.joinable.pictures && takes_over {
            Why::NoPictures
        } else if returns && other.joinable.cheaply {
            Why::Steady
        } else {
            return None;
        };
        Some(Choice { input, why })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETURN: Duration = Duration::from_secs(10);
    const STEP_MS: i64 = 20;
    const ALL: Joinable = Joinable {
        now: true,
        cheaply: true,
        pictures: true,
    };

    fn at(ms: i64) -> WallTime {
        WallTime::from_micros(1_795_000_000_000_000 + ms * 1_000)
    }

    /// A selector, and publishers that do as they are told.
    struct Scene {
        selector: Selector,
        ms: i64,
        choices: Vec<(i64, Choice)>,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                selector: Selector::new(RETURN),
                ms: 0,
                choices: Vec::new(),
            }
        }

        fn attach(&mut self, input: Input) {
            self.selector.attach(input, at(self.ms));
        }

        fn detach(&mut self, input: Input) {
            self.selector.detach(input);
            self.decide();
        }

        fn decide(&mut self) {
            let choice = self.selector.decide(at(self.ms));
            self.choices.extend(choice.map(|choice| (self.ms, choice)));
        }

        /// Lets time pass while `sending` send.
        fn pass(&mut self, ms: i64, sending: &[Input]) {
            for _ in 0..ms / STEP_MS {
                self.ms += STEP_MS;
                for input in sending {
                    let now = at(self.ms);
                    self.selector.hear(*input, Heard::Picture, ALL, now);
                }
                self.decide();
            }
        }

        fn said(&self) -> Vec<String> {
            let text = |(ms, choice): &(i64, Choice)| {
                format!("{ms} {} {}", choice.input.as_str(), choice.why.as_str())
            };
            self.choices.iter().map(text).collect()
        }
    }

    use Input::{Backup, Primary};

    #[test]
    fn silent_primary_is_replaced_within_a_second_and_comes_back_when_steady() {
        let mut scene = Scene::new();
        scene.attach(Primary);
        scene.attach(Backup);
        scene.pass(5_000, &[Primary, Backup]);
        scene.pass(5_000, &[Backup]);
        scene.pass(20_000, &[Primary, Backup]);
        assert_eq!(
            scene.said(),
            [
                "20 primary first",
                "5600 backup silent",
                "20020 primary steady"
            ]
        );
    }

    #[test]
    fn primary_that_sends_sound_alone_does_not_take_turns_with_a_backup_that_has_pictures() {
        let mut scene = Scene::new();
        scene.attach(Primary);
        scene.attach(Backup);
        let sound = Joinable {
            pictures: false,
            ..ALL
        };
        for _ in 0..60_000 / STEP_MS {
            scene.ms += STEP_MS;
            let now = at(scene.ms);
            let selector = &mut scene.selector;
            selector.hear(Primary, Heard::Media, sound, now);
            selector.hear(Backup, Heard::Picture, ALL, now);
            scene.decide();
        }
        assert_eq!(scene.said().len(), 2, "{:?}", scene.said());
        assert!(scene.said()[1].contains(" backup "), "{:?}", scene.said());
    }

    #[test]
    fn publisher_that_goes_is_replaced_at_once() {
        let mut scene = Scene::new();
        scene.attach(Primary);
        scene.attach(Backup);
        scene.pass(5_000, &[Primary, Backup]);
        scene.detach(Primary);
        scene.pass(1_000, &[Backup]);
        assert_eq!(scene.said()[1], "5000 backup gone");
    }

    #[test]
    fn who_sends_no_key_frames_is_better_than_nobody() {
        // None of the pictures of a relay that joined in the middle can be decoded; its sound can.
        let heard = [Heard::Picture, Heard::Media];
        let cases = heard.map(|heard| [(true, Why::Gone, heard), (false, Why::Silent, heard)]);
        for (goes, wanted, heard) in cases.into_iter().flatten() {
            let mut scene = Scene::new();
            scene.attach(Primary);
            scene.attach(Backup);
            let keyless = Joinable {
                pictures: true,
                ..Joinable::default()
            };
            let mut lost_ms = i64::MAX;
            for _ in 0..25_000 / STEP_MS {
                scene.ms += STEP_MS;
                let now = at(scene.ms);
                if scene.ms < 20_000 {
                    scene.selector.hear(Primary, Heard::Picture, ALL, now);
                } else if lost_ms == i64::MAX {
                    lost_ms = scene.ms;
                    if goes {
                        scene.detach(Primary);
                    }
                }
                scene.selector.hear(Backup, heard, keyless, now);
                scene.decide();
            }
            let (ms, choice) = scene.choices[scene.choices.len() - 1];
            assert_eq!((choice.input, choice.why), (Backup, wanted));
            let after = ms - lost_ms;
            assert!(after <= if goes { STEP_MS } else { 3_020 }, "{after}");
        }
    }

    #[test]
    fn broadcast_may_begin_on_its_backup() {
        let mut scene = Scene::new();
        scene.attach(Backup);
        scene.pass(1_000, &[Backup]);
        scene.attach(Primary);
        scene.pass(15_000, &[Primary, Backup]);
        assert_eq!(scene.said(), ["20 backup first", "11000 primary steady"]);
    }

    #[test]
    fn server_that_was_held_up_does_not_blame_its_publishers() {
        let mut scene = Scene::new();
        scene.attach(Primary);
        scene.attach(Backup);
        scene.pass(5_000, &[Primary, Backup]);
        scene.ms += 5_000;
        // What the backup sent happens to be looked at first.
        scene.pass(STEP_MS, &[Backup]);
        scene.pass(5_000, &[Primary, Backup]);
        assert_eq!(scene.said(), ["20 primary first"]);
    }

    #[test]
    fn sound_alone_is_not_enough_where_the_other_has_pictures() {
        let mut scene = Scene::new();
        scene.attach(Primary);
        scene.attach(Backup);
        scene.pass(5_000, &[Primary, Backup]);
        for _ in 0..200 {
            let (now, sound) = (at(scene.ms), Heard::Media);
            scene.selector.hear(Primary, sound, ALL, now);
            scene.pass(STEP_MS, &[Backup]);
        }
        assert_eq!(scene.said()[1], "7000 backup no_pictures");
        assert_eq!(scene.said().len(), 2);
    }

    #[derive(Clone, Copy, Debug, Default)]
    struct Doing {
        there: bool,
        sends: bool,
        joinable: bool,
    }

    fn doing() -> impl Strategy<Value = (Doing, Doing, i64)> {
        let one = || {
            (0..8_u8, 0..6_u8, 0..6_u8).prop_map(|(there, sends, joinable)| Doing {
                there: there > 0,
                sends: there > 0 && sends > 0,
                joinable: joinable > 0,
            })
        };
        (one(), one(), 1..400_i64)
    }

    /// How long each has been sending, and has been joinable, without a break; in steps.
    #[derive(Default)]
    struct Record {
        there: bool,
        silent: i64,
        steady: i64,
        joinable: i64,
    }

    impl Record {
        fn step(&mut self, scene: &mut Scene, input: Input, doing: Doing) {
            let is_new = doing.there != self.there;
            if is_new {
                *self = Self {
                    there: doing.there,
                    ..Self::default()
                };
                if doing.there {
                    scene.attach(input);
                } else {
                    scene.selector.detach(input);
                }
            }
            if doing.sends {
                let joinable = if doing.joinable {
                    ALL
                } else {
                    Joinable {
                        pictures: true,
                        ..Joinable::default()
                    }
                };
                if self.silent * STEP_MS >= 580 {
                    (self.steady, self.silent) = (0, 0);
                }
                scene
                    .selector
                    .hear(input, Heard::Picture, joinable, at(scene.ms));
                self.steady += self.silent + 1;
                self.silent = 0;
                self.joinable = if doing.joinable { self.joinable + 1 } else { 0 };
            } else {
                // Coming counts as being heard.
                self.silent += i64::from(!is_new);
            }
        }
    }

    proptest! {
        /// Whatever two publishers do.
        #[test]
        fn switches_are_few_prompt_and_onto_key_frames(
            acts in prop::collection::vec(doing(), 1..60),
        ) {
            let mut scene = Scene::new();
            let mut records = Both::<Record>::default();
            let (mut last, mut switched) = (None::<Input>, i64::MIN / 2);
            // For how long the live one was lost although the other could have been.
            let mut owing = 0;
            for (primary, backup, steps) in acts {
                for _ in 0..steps {
                    scene.ms += STEP_MS;
                    let before = scene.choices.len();
                    records.primary.step(&mut scene, Primary, primary);
                    records.backup.step(&mut scene, Backup, backup);
                    scene.decide();
                    for &(ms, choice) in &scene.choices[before..] {
                        let record = records.get(choice.input);
                        if last.is_some_and(|last| last != choice.input) {
                            let sent_ms = (record.steady + record.silent) * STEP_MS;
                            let keyless = sent_ms >= KEYLESS_US / 1_000 - STEP_MS;
                            let begins = record.joinable > 0 || keyless;
                            prop_assert!(begins, "{choice:?} without a key frame");
                            let waited = ms - switched >= DWELL_US / 1_000;
                            prop_assert!(waited || choice.why == Why::Gone, "{choice:?} too soon");
                            switched = ms;
                        }
                        if choice.why == Why::Steady {
                            prop_assert_eq!(choice.input, Primary);
                            prop_assert!((record.steady + record.silent) * STEP_MS >= 9_980);
                        }
                        last = Some(choice.input);
                    }
                    let is_lost = scene.selector.live().is_none_or(|live| {
                        !records.get(live).there || records.get(live).silent > 0
                    });
                    let could = last.is_some_and(|last| {
                        let other = records.get(last.other());
                        other.silent == 0 && other.joinable > 0 && other.steady * STEP_MS > 3_000
                    });
                    let may = scene.selector.live().is_none()
                        || scene.ms - switched >= DWELL_US / 1_000;
                    owing = if is_lost && could && may { owing + STEP_MS } else { 0 };
                    prop_assert!(owing <= 1_000, "lost for {owing} ms at {}", scene.ms);
                }
            }
        }
    }
}
