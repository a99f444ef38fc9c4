//! Counts what the origin answers.
//!
//! Enters: one call per request, one per frame of a body
//! Leaves: plain counters that any exporter can read
//! Never:  labels from what a client wrote, so the number of series is fixed
//! Spec:   none

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::route::Route;
use crate::media::Item;

/// The statuses counted one by one; what is not listed counts as 0.
pub const STATUSES: [u16; 11] = [200, 204, 206, 304, 400, 404, 405, 416, 500, 503, 0];

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The page and its files.
    Page,
    /// A multivariant playlist.
    Multivariant,
    /// A media playlist.
    Media,
    /// An MPD.
    Mpd,
    /// An init segment.
    Init,
    /// A segment.
    Segment,
    /// A part.
    Part,
    /// JSON, metrics, health, time.
    Api,
    /// An address that names nothing.
    Unknown,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Page,
        Self::Multivariant,
        Self::Media,
        Self::Mpd,
        Self::Init,
        Self::Segment,
        Self::Part,
        Self::Api,
        Self::Unknown,
    ];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Multivariant => "multivariant",
            Self::Media => "media",
            Self::Mpd => "mpd",
            Self::Init => "init",
            Self::Segment => "segment",
            Self::Part => "part",
            Self::Api => "api",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) const fn of(route: Option<&Route<'_>>) -> Self {
        match route {
            None => Self::Unknown,
            Some(Route::Page | Route::Asset(_)) => Self::Page,
            Some(Route::Object(key)) => match key.item {
                Item::Multivariant | Item::ShowMultivariant(_) | Item::Dvr => Self::Multivariant,
                Item::Mpd | Item::ShowMpd(_) | Item::DvrMpd => Self::Mpd,
                Item::Media(_) | Item::ShowMedia(..) | Item::DvrMedia(_) => Self::Media,
                Item::Init(..) => Self::Init,
                Item::Segment(..) => Self::Segment,
                Item::Part(..) => Self::Part,
                Item::Show(_) => Self::Api,
            },
            Some(_) => Self::Api,
        }
    }
}

/// Counters of one server. All only grow, but [`Self::in_flight`],
/// [`Self::waiting`] and [`Self::connections`].
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [[AtomicU64; STATUSES.len()]; Kind::ALL.len()],
    body_bytes: AtomicU64,
    in_flight: AtomicU64,
    waiting: AtomicU64,
    connections: AtomicU64,
    accepted: AtomicU64,
    accept_failures: AtomicU64,
}

impl Metrics {
    /// Requests answered, by kind and status. A status of 0 stands for all others.
    pub fn requests(&self) -> impl Iterator<Item = (Kind, u16, u64)> {
        Kind::ALL
            .into_iter()
            .zip(&self.requests)
            .flat_map(|(kind, row)| {
                let counts = STATUSES.into_iter().zip(row);
                counts.map(move |(status, count)| (kind, status, count.load(Ordering::Relaxed)))
            })
    }

    /// Bytes of bodies handed to connections.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::Relaxed)
    }

    /// Requests whose body has not yet been handed over whole.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests that wait for what is yet to be made, among those in flight.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections ever accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Failures to accept a connection, such as too many open files.
    pub fn accept_failures(&self) -> u64 {
        self.accept_failures.load(Ordering::Relaxed)
    }

    pub(crate) fn count_request(&self, kind: Kind, status: u16) {
        let column = STATUSES
            .iter()
            .position(|known| *known == status)
            .unwrap_or(STATUSES.len() - 1);
        let row = Kind::ALL.iter().position(|known| *known == kind);
        if let Some(count) = row
            .and_then(|row| self.requests.get(row))
            .and_then(|row| row.get(column))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_bytes(&self, bytes: u64) {
        self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_accept_failure(&self) {
        self.accept_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> Gauge {
        Gauge::raise(self, |metrics| &metrics.in_flight)
    }

    /// Counts a request as waiting until the guard is dropped.
    pub(crate) fn begin_wait(self: &Arc<Self>) -> Gauge {
        Gauge::raise(self, |metrics| &metrics.waiting)
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn begin_connection(self: &Arc<Self>) -> Gauge {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Gauge::raise(self, |metrics| &metrics.connections)
    }
}

/// One unit of a gauge, given back on drop.
#[derive(Debug)]
pub(crate) struct Gauge {
    metrics: Arc<Metrics>,
    which: fn(&Metrics) -> &AtomicU64,
}

impl Gauge {
    fn raise(metrics: &Arc<Metrics>, which: fn(&Metrics) -> &AtomicU64) -> Self {
        which(metrics).fetch_add(1, Ordering::Relaxed);
        Self {
            metrics: Arc::clone(metrics),
            which,
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        (self.which)(&self.metrics).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind_and_status() {
        let metrics = Arc::new(Metrics::default());
        metrics.count_request(Kind::Segment, 206);
        metrics.count_request(Kind::Segment, 206);
        metrics.count_request(Kind::Unknown, 418);
        let counted: Vec<_> = metrics.requests().filter(|(_, _, n)| *n > 0).collect();
        assert_eq!(counted, [(Kind::Segment, 206, 2), (Kind::Unknown, 0, 1)]);
        assert_eq!(metrics.requests().count(), 99);
    }

    #[test]
    fn what_began_is_in_flight_until_dropped() {
        let metrics = Arc::new(Metrics::default());
        let guard = metrics.begin_request();
        assert_eq!(metrics.in_flight(), 1);
        drop(guard);
        assert_eq!(metrics.in_flight(), 0);
    }
}
