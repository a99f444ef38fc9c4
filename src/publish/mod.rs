//! A publisher of our own: plays a film over RTMP at the pace of the clock.
//!
//! Enters: an MP4 file, an `rtmp://` address
//! Leaves: what an encoder would send; progress for whoever watches
//! Never:  decodes or encodes; knows the server beyond its protocol
//! Time:   one clock for all tracks: nanoseconds from the film's first sample, sent as milliseconds
//! Spec:   [RTMP] §7.2, [FLV] §E.4, [ERTMP] v2, [ISOBMFF] §8.6

mod client;
mod movie;
mod reply;
mod url;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use movie::{Codec, Movie, MovieError, MovieReader, Sample};
pub use url::{Target, TargetError};

/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What to publish, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// An MP4 file with H.264, HEVC, AV1 or VP9, with AAC-LC or Opus, or with one of each.
    pub file: PathBuf,
    /// `rtmp://host[:port]/app/key`.
    pub url: String,
    /// Begin again at the end, for ever.
    pub repeat: bool,
    /// How many publishers at once. Above one, each gets the key with `-1`, `-2`, … behind it.
    pub streams: NonZeroU32,
}

/// How far a job is, at the publisher that is farthest behind; bytes of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of media sent.
    pub bytes: u64,
    /// Media time sent, loops included.
    pub media: Duration,
    /// Times that the film has been played to its end.
    pub loops: u64,
    /// Length of the film.
    pub film: Duration,
}

/// What a job came to when it ended.
pub type Summary = Progress;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be published.
    #[error(transparent)]
    Movie(#[from] MovieError),
    /// The address is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server names the codecs that it takes, and this film's is none of them.
    #[error("the server does not take {codec}, only {taken}")]
    CodecNotTaken {
        /// Its FourCC.
        codec: &'static str,
        /// What it takes.
        taken: String,
    },
    /// The server does not take the stream.
    #[error("the server refused: {description} ({code})")]
    Refused {
        /// The status code of RTMP.
        code: String,
        /// The server's own words.
        description: String,
    },
    /// The server did not answer.
    #[error("no answer to {awaited} within {} s", after.as_secs())]
    NoAnswer {
        /// What was asked.
        awaited: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The server closed the connection.
    #[error("the server closed the connection while {during}")]
    Closed {
        /// What was going on.
        during: &'static str,
    },
    /// The server's bytes are no RTMP.
    #[error("the server's reply is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The socket or the file failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A publisher's task failed inside.
    #[error("a publisher failed inside")]
    Inside,
}

/// Plays the film of `job` in real time, until its end, or for ever, or until `shutdown` says `true`.
/// The publication is ended properly in each case. The first publisher that fails fails the job.
///
/// # Errors
/// Any [`Error`].
pub async fn publish(
    job: Job,
    mut progress: impl FnMut(Progress),
    shutdown: watch::Receiver<bool>,
) -> Result<Summary, Error> {
    let target: Target = job.url.parse()?;
    let file = job.file;
    let opened = tokio::task::spawn_blocking(move || Movie::open(&file)).await;
    let movie = Arc::new(opened.map_err(|_| Error::Inside)??);
    let mut running = JoinSet::new();
    let mut counters = Vec::new();
    for number in 1..=job.streams.get() {
        let target = match job.streams.get() {
            1 => target.clone(),
            _ => target.numbered(number),
        };
        let counter = Arc::new(Counter::default());
        counters.push(Arc::clone(&counter));
        let player = client::Player {
            movie: Arc::clone(&movie),
            target,
            repeat: job.repeat,
            counter,
        };
        running.spawn(player.play(shutdown.clone()));
    }
    let sum = || Counter::sum(&counters, movie.length());
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(Ok(result)) => result?,
                Some(Err(_)) => return Err(Error::Inside),
                None => break,
            },
            _ = ticks.tick() => progress(sum()),
        }
    }
    progress(sum());
    Ok(sum())
}

/// What one publisher has sent.
#[derive(Debug, Default)]
struct Counter {
    bytes: AtomicU64,
    media_ns: AtomicU64,
    loops: AtomicU64,
}

impl Counter {
    fn sum(counters: &[Arc<Self>], film: Duration) -> Progress {
        let least = |field: fn(&Self) -> &AtomicU64| {
            let values = counters.iter().map(|c| field(c).load(Ordering::Relaxed));
            values.min().unwrap_or(0)
        };
        Progress {
            bytes: counters
                .iter()
                .map(|c| c.bytes.load(Ordering::Relaxed))
                .sum(),
            media: Duration::from_nanos(least(|c| &c.media_ns)),
            loops: least(|c| &c.loops),
            film,
        }
    }
}
