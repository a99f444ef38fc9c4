//! Follows the MPD: loads it, sets its clock as it says, and asks for the segments that the clock makes
//! available, or that it lists.
//!
//! Enters: the address of an MPD
//! Leaves: observations
//! Never:  a rule
//! Time:   UTC as the MPD's clock tells it
//! Spec:   [DASH] §A.3, [DASHIOP]

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;

use super::Follower;
use super::source::Source;
use crate::inspect::check::mpd::{Mpd, Representation, parse};
use crate::inspect::check::{Role, parse_date};

/// How often the MPD is loaded at most.
const MIN_PERIOD: Duration = Duration::from_millis(500);
/// How often it is loaded at least.
const MAX_PERIOD: Duration = Duration::from_secs(2);

/// Follows the MPD at `url` until `ended`, or for as long as the inspection lasts.
pub(super) async fn follow(follower: Follower, url: String, mut ended: watch::Receiver<bool>) {
    let mut player = Player {
        follower,
        url,
        offset_us: None,
        inits: BTreeSet::new(),
        listed: BTreeSet::new(),
        is_known: false,
    };
    loop {
        let is_last =
            *ended.borrow_and_update() || matches!(player.follower.source, Source::Folder);
        let mpd = player.load().await;
        if let Some(mpd) = &mpd {
            player.fetch(mpd).await;
        }
        let update = mpd
            .and_then(|mpd| mpd.update_us)
            .and_then(|us| u64::try_from(us).ok());
        let period = update.map_or(MAX_PERIOD, Duration::from_micros);
        if is_last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(period.clamp(MIN_PERIOD, MAX_PERIOD)) => {}
            _ = ended.changed() => {}
        }
    }
}

struct Player {
    follower: Follower,
    url: String,
    /// The MPD's clock minus this machine's.
    offset_us: Option<i64>,
    inits: BTreeSet<String>,
    /// The segments that were asked for because a timeline lists them.
    listed: BTreeSet<String>,
    is_known: bool,
}

impl Player {
    async fn load(&mut self) -> Option<Mpd> {
        let asked_us = self.follower.clock.now_us();
        let answer = self.follower.source.get(&self.url, &[]).await;
        // A broadcast that has just begun, or one without DASH, has no MPD.
        if !answer.is_ok() && !self.is_known {
            return None;
        }
        self.is_known = true;
        let answer = self
            .follower
            .tell(Role::Mpd, "", &self.url, (asked_us, answer))
            .await;
        let mpd = parse(&answer.body, &self.url);
        (answer.is_ok() && mpd.not_xml.is_none()).then_some(mpd)
    }

    async fn fetch(&mut self, mpd: &Mpd) {
        let is_folder = matches!(self.follower.source, Source::Folder);
        if mpd.is_dynamic && self.offset_us.is_none() && !is_folder {
            self.set_clock(mpd).await;
        }
        for representation in &mpd.representations {
            if let Some(url) = representation
                .init()
                .filter(|url| self.inits.insert(url.clone()))
            {
                self.follower
                    .ask(Role::DashInit, &representation.id, &url, &[])
                    .await;
            }
            if representation.timeline().is_some() {
                self.fetch_listed(representation).await;
            } else if !(mpd.is_dynamic && is_folder) {
                self.fetch_segments(mpd, representation).await;
            }
        }
    }

    /// Asks the first clock that can be asked over HTTP.
    async fn set_clock(&mut self, mpd: &Mpd) {
        let by_http = |scheme: &str| {
            ["http-iso", "http-xsdate"]
                .iter()
                .any(|kind| scheme.contains(&format!("utc:{kind}:")))
        };
        let Some((_, url)) = mpd.clocks.iter().find(|(scheme, _)| by_http(scheme)) else {
            return;
        };
        let asked_us = self.follower.clock.now_us();
        let answer = self.follower.ask(Role::Clock, "", url, &[]).await;
        let answered_us = self.follower.clock.now_us();
        let told = parse_date(String::from_utf8_lossy(&answer.body).trim());
        self.offset_us = told.map(|told| told - (asked_us + answered_us) / 2);
    }

    /// The newest segment of a timeline and the oldest, each once.
    async fn fetch_listed(&mut self, representation: &Representation) {
        let all = representation.timeline().unwrap_or_default();
        let ends = all.last().map(|last| (last.number, true));
        let ends = ends
            .into_iter()
            .chain(all.first().map(|first| (first.number, false)));
        for (number, edge) in ends {
            let url = representation.media(number);
            if let Some(url) = url.filter(|url| self.listed.insert(url.clone())) {
                let role = Role::DashSegment { number, edge };
                self.follower.ask(role, &representation.id, &url, &[]).await;
            }
        }
    }

    /// The newest segment by the clock and the oldest in the window; of a recording the first and the last.
    async fn fetch_segments(&self, mpd: &Mpd, representation: &Representation) {
        let Some(step) = representation.step_us() else {
            return;
        };
        let numbers = if mpd.is_dynamic {
            let now_us = self.follower.clock.now_us() + self.offset_us.unwrap_or(0);
            let start_us = mpd.start_us.unwrap_or(0);
            let ends = mpd
                .length_us
                .into_iter()
                .chain(next_period_us(mpd, representation));
            let ends = ends.map(|end| start_us.saturating_add(end));
            let limit = ends.fold(now_us, i64::min);
            let Some(newest) = representation.newest(start_us, limit) else {
                return;
            };
            let depth = mpd.depth_us.unwrap_or(0) / step;
            // One less than the window holds: the oldest may go while it is asked for.
            let behind = u64::try_from(depth).unwrap_or(0).saturating_sub(2);
            [(newest, true), (newest.saturating_sub(behind), false)]
        } else {
            let length = period_length_us(mpd, representation);
            let count = length.map_or(1, |length| (length + step - 1) / step).max(1);
            let first = representation.first();
            let last = first.saturating_add(u64::try_from(count).unwrap_or(1) - 1);
            [(last, true), (first, true)]
        };
        // Before its first there is another Period, or nothing.
        let first = representation.first();
        for (number, edge) in numbers.into_iter().filter(|(number, _)| *number >= first) {
            if let Some(url) = representation.media(number) {
                let role = Role::DashSegment { number, edge };
                self.follower.ask(role, &representation.id, &url, &[]).await;
            }
        }
    }
}

/// How long the Period of `representation` is, of a recording: by its own word, up to the next, or up to the end.
fn period_length_us(mpd: &Mpd, representation: &Representation) -> Option<i64> {
    let end = next_period_us(mpd, representation).or(mpd.length_us);
    let to_end = end.and_then(|end| end.checked_sub(representation.period_start_us));
    representation.period_length_us.or(to_end)
}

/// Where the Period after that of `representation` begins, in microseconds from the MPD's zero.
fn next_period_us(mpd: &Mpd, representation: &Representation) -> Option<i64> {
    let starts = mpd
        .representations
        .iter()
        .map(|other| other.period_start_us);
    starts
        .filter(|start| *start > representation.period_start_us)
        .min()
}
