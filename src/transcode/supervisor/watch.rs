//! Whether a worker hangs.
//!
//! Enters: that it was fed, said something, delivered; what waits on either side of it
//! Leaves: [`Error::Stalled`], once it has had its time
//! Never:  a process, a message
//! Time:   tokio's clock
//! Spec:   none

use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use crate::transcode::ipc::ALIVE_PERIOD;

/// How long a worker may say nothing: it says that it lives every second, from a thread that does nothing else
/// but write; five times that is for a machine that is overloaded.
const MAX_SILENCE: Duration = ALIVE_PERIOD.saturating_mul(5);
/// The same until it has spoken once: GStreamer may have to look through all its plugins first.
const MAX_FIRST_SILENCE: Duration = Duration::from_secs(30);
/// How long a worker may make nothing although it is fed: longer than the deepest look-ahead, and than it takes
/// to drain a decoder that hangs, after which it goes on.
const MAX_IDLE: Duration = Duration::from_secs(15);
/// The same until it has made something, or once its source has ended.
const MAX_FIRST_IDLE: Duration = Duration::from_secs(30);
/// The longest that one picture keeps a worker busy, of those that follow the source: while no more come, nothing
/// can be asked for. Longer than pictures that are no hole lie apart.
const MAX_FED: Duration = Duration::from_secs(2);
/// How often a worker is looked at.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What is known of a worker's doings.
pub(super) struct Watch {
    pub(super) begun: Instant,
    /// When it last said something.
    heard: Option<Instant>,
    /// When it first and last delivered.
    delivered: Option<(Instant, Instant)>,
    /// Since when it has been fed without making anything of it.
    pub(super) owing: Option<Instant>,
    /// Of one that follows the source: when it was last fed. It makes nothing up, so that of what it holds nothing
    /// need come while nothing is added to it.
    pub(super) fed: Option<Instant>,
    /// Since when it takes nothing.
    pub(super) blocked: Option<Instant>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            heard: None,
            delivered: None,
            owing: None,
            fed: None,
            blocked: None,
        }
    }

    /// Takes note that it was fed. If it follows the source, the time since it was fed last does not count, but for
    /// what a picture may take.
    pub(super) fn feed(&mut self, follows: bool) {
        if follows {
            let now = Instant::now();
            self.pause(now);
            self.fed = Some(now);
        }
        self.owe();
    }

    /// Leaves out the time in which it was not fed.
    fn pause(&mut self, now: Instant) {
        let Some(fed) = self.fed else {
            return;
        };
        let paused = now.duration_since(fed).saturating_sub(MAX_FED);
        if paused > Duration::ZERO {
            self.owing = self.owing.map(|since| since + paused);
            self.fed = Some(fed + paused);
        }
    }

    pub(super) fn hear(&mut self) {
        self.heard = Some(Instant::now());
    }

    pub(super) fn owe(&mut self) {
        self.owing.get_or_insert_with(Instant::now);
    }

    pub(super) fn deliver(&mut self) {
        let now = Instant::now();
        let (_, last) = self.delivered.get_or_insert((now, now));
        *last = now;
    }

    /// How long it has delivered.
    pub(super) fn worked(&self) -> Duration {
        let worked = self.delivered;
        worked.map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }

    /// Judges whether it hangs. While the caller takes no `output`, it cannot go on either.
    pub(super) fn look(&mut self, has_output: bool, has_bytes: bool) -> Result<(), Error> {
        let now = Instant::now();
        self.pause(now);
        if !has_bytes {
            self.blocked = None;
        }
        if has_output {
            self.heard = self.heard.map(|_| now);
            self.owing = self.owing.map(|_| now);
            self.blocked = self.blocked.map(|_| now);
            return Ok(());
        }
        let blocked = has_bytes.then(|| *self.blocked.get_or_insert(now));
        let silence = match self.heard {
            Some(heard) => (heard, MAX_SILENCE),
            None => (self.begun, MAX_FIRST_SILENCE),
        };
        let idle = if self.delivered.is_some() {
            MAX_IDLE
        } else {
            MAX_FIRST_IDLE
        };
        let limits = [
            Some(silence),
            self.owing.map(|since| (since, idle)),
            blocked.map(|since| (since, MAX_FIRST_IDLE)),
        ];
        let mut limits = limits.into_iter().flatten();
        if limits.any(|(since, limit)| now.duration_since(since) >= limit) {
            return Err(Error::Stalled);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Looks at `watch`, which is heard of, for `seconds`, feeding it at each look if `feeds`.
    async fn look(watch: &mut Watch, seconds: u32, feeds: Option<bool>) -> Result<(), Error> {
        for _ in 0..seconds * 4 {
            advance(LOOK_PERIOD).await;
            watch.hear();
            if let Some(follows) = feeds {
                watch.feed(follows);
            }
            watch.look(false, false)?;
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn worker_that_follows_owes_nothing_for_the_time_in_which_no_picture_comes() {
        let mut watch = Watch::new();
        watch.feed(true);
        assert!(
            look(&mut watch, 120, None).await.is_ok(),
            "the camera is off"
        );
        // It is on again, and the worker hangs.
        assert!(look(&mut watch, 20, Some(true)).await.is_ok());
        let end = look(&mut watch, 20, Some(true)).await;
        assert!(matches!(end, Err(Error::Stalled)));
    }

    #[tokio::test(start_paused = true)]
    async fn worker_that_follows_owes_the_rest_when_its_source_has_ended() {
        let mut watch = Watch::new();
        watch.feed(true);
        watch.fed = None;
        watch.owe();
        let end = look(&mut watch, 40, None).await;
        assert!(matches!(end, Err(Error::Stalled)));
    }

    #[tokio::test(start_paused = true)]
    async fn worker_that_fills_what_does_not_come_owes_it() {
        let mut watch = Watch::new();
        watch.feed(false);
        let end = look(&mut watch, 40, None).await;
        assert!(matches!(end, Err(Error::Stalled)));
    }
}
