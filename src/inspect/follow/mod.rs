//! Follows a broadcast as players do, or reads a stored one, and lets every answer be checked.
//!
//! Enters: a [`Job`]
//! Leaves: a [`Report`]
//! Never:  a rule
//! Time:   the machine's clock, once, and from there a clock that never jumps
//! Spec:   [HLS] §6.3, [DASH] §A

mod dash;
mod rendition;
mod source;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::check::playlist::{is_multivariant, parse_multivariant};
use super::check::{Answer, Inspector, Level, Observation, Report, Role, join, listing_name};
use source::{Clock, Source};

/// Observations on their way to the inspector: it is faster than any network.
const QUEUE: usize = 64;
/// The most renditions that are followed.
pub const MAX_RENDITIONS: usize = 64;
/// The most broadcasts that are looked for in a folder.
pub const MAX_BROADCASTS: usize = 1_000;
/// How long a broadcast that is not there yet is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is asked for.
const KNOCK: Duration = Duration::from_millis(500);

/// What to inspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address: of a playlist, an MPD or the folder they stand in.
    Address(String),
    /// A folder: of one broadcast, or of several.
    Folder(PathBuf),
}

/// Why a target cannot be inspected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that begins otherwise than with `http://`.
    #[error("only http:// addresses and folders can be inspected, found {found}")]
    Scheme {
        /// What was given.
        found: String,
    },
    /// A folder that is not there.
    #[error("there is no folder {}", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// Neither a playlist nor an MPD.
    #[error("neither a playlist nor an MPD at {url} (status {status}; 0 is no answer)")]
    Nothing {
        /// Where it was looked for.
        url: String,
        /// The last status.
        status: u16,
    },
    /// The files of a folder cannot be listed.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Target {
    /// The target that `text` names.
    ///
    /// # Errors
    /// [`Error::Scheme`], [`Error::NoFolder`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with("http://") {
            return Ok(Self::Address(text.to_owned()));
        }
        if text.contains("://") && !text.starts_with("file://") {
            return Err(Error::Scheme {
                found: text.to_owned(),
            });
        }
        let path = PathBuf::from(text.strip_prefix("file://").unwrap_or(text));
        if path.is_dir() {
            Ok(Self::Folder(path))
        } else {
            Err(Error::NoFolder { path })
        }
    }
}

/// An inspection.
#[derive(Clone, Debug)]
pub struct Job {
    /// Of what.
    pub target: Target,
    /// For how long a live broadcast is followed.
    pub length: Duration,
}

/// How far an inspection is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Time since it began.
    pub elapsed: Duration,
    /// Answers so far.
    pub answers: u64,
    /// How often a MUST was broken.
    pub must: u64,
    /// How often a SHOULD was broken.
    pub should: u64,
}

/// What every task holds.
#[derive(Clone, Debug)]
struct Follower {
    source: Source,
    clock: Clock,
    seen: mpsc::Sender<Observation>,
    /// When to stop, by the clock.
    until_us: i64,
}

impl Follower {
    fn is_over(&self) -> bool {
        self.clock.now_us() >= self.until_us
    }

    /// Asks, tells the inspector, and gives the answer.
    async fn ask(
        &self,
        role: Role,
        rendition: &str,
        url: &str,
        head: &[(&'static str, &str)],
    ) -> Answer {
        let asked_us = self.clock.now_us();
        let (answer, begun) = self.source.ask(&Method::GET, url, head).await;
        let times = (asked_us, self.clock.at_us(begun));
        self.send(role, (rendition, url), times, answer).await
    }

    async fn tell(&self, role: Role, rendition: &str, url: &str, got: (i64, Answer)) -> Answer {
        let (asked_us, answer) = got;
        let times = (asked_us, self.clock.now_us());
        self.send(role, (rendition, url), times, answer).await
    }

    async fn send(
        &self,
        role: Role,
        (rendition, url): (&str, &str),
        (asked_us, begun_us): (i64, i64),
        answer: Answer,
    ) -> Answer {
        let observation = Observation {
            role,
            rendition: rendition.to_owned(),
            url: url.to_owned(),
            asked_us,
            begun_us,
            answered_us: self.clock.now_us(),
            answer: answer.clone(),
        };
        // An error means that the inspection was given up; then nobody wants to know.
        let _ = self.seen.send(observation).await;
        answer
    }
}

/// Inspects what `job` names; `report_progress` is called after every answer.
///
/// # Errors
/// [`Error::Nothing`] where there is nothing to inspect, [`Error::Unreadable`].
pub async fn inspect(
    job: Job,
    mut report_progress: impl FnMut(&Progress),
) -> Result<Report, Error> {
    match &job.target {
        Target::Address(url) => {
            let entry = Entry::of(url);
            one(Source::network(), entry, job.length, &mut report_progress).await
        }
        Target::Folder(path) => {
            let mut whole: Option<Report> = None;
            for folder in broadcasts(path)? {
                let entry = Entry::of(&folder.to_string_lossy());
                let report = one(Source::Folder, entry, job.length, &mut report_progress).await?;
                whole = Some(match whole {
                    None => report,
                    Some(before) => before.and(report),
                });
            }
            whole.ok_or_else(|| Error::Nothing {
                url: path.to_string_lossy().into_owned(),
                status: 404,
            })
        }
    }
}

/// The folders of broadcasts at `path` or up to two levels below it.
fn broadcasts(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_one = |path: &Path| {
        ["index.m3u8", "manifest.mpd"]
            .iter()
            .any(|f| path.join(f).is_file())
    };
    let mut level = vec![path.to_owned()];
    for _ in 0..3 {
        let found: Vec<_> = level.iter().filter(|path| is_one(path)).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let mut deeper = Vec::new();
        for folder in &level {
            let unreadable = |error| Error::Unreadable {
                path: folder.clone(),
                error,
            };
            for entry in std::fs::read_dir(folder).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if path.is_dir() && deeper.len() < MAX_BROADCASTS {
                    deeper.push(path);
                }
            }
        }
        deeper.sort();
        level = deeper;
    }
    Ok(Vec::new())
}

/// Where a broadcast's manifests are.
struct Entry {
    playlist: String,
    mpd: String,
}

impl Entry {
    fn of(url: &str) -> Self {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        if path.ends_with(".m3u8") {
            return Self {
                playlist: url.to_owned(),
                mpd: join(url, "manifest.mpd"),
            };
        }
        if path.ends_with(".mpd") {
            return Self {
                playlist: join(url, "index.m3u8"),
                mpd: url.to_owned(),
            };
        }
        let base = format!("{}/", path.trim_end_matches('/'));
        Self {
            playlist: format!("{base}index.m3u8"),
            mpd: format!("{base}manifest.mpd"),
        }
    }
}

/// One broadcast.
async fn one(
    source: Source,
    entry: Entry,
    length: Duration,
    report_progress: &mut impl FnMut(&Progress),
) -> Result<Report, Error> {
    let clock = Clock::start();
    let (seen, mut observations) = mpsc::channel(QUEUE);
    let is_folder = matches!(source, Source::Folder);
    let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let follower = Follower {
        source,
        clock: clock.clone(),
        seen,
        until_us: clock
            .now_us()
            .saturating_add(if is_folder { 0 } else { micros }),
    };
    let answer = await_entry(&follower, &entry).await?;
    let work = tokio::spawn(follow_all(follower, entry, answer));
    let mut inspector = Inspector::new();
    let mut progress = Progress::default();
    while let Some(observation) = observations.recv().await {
        inspector.observe(&observation);
        progress.answers += 1;
        progress.elapsed = clock.elapsed();
        progress.must = inspector.broken(Level::Must);
        progress.should = inspector.broken(Level::Should);
        report_progress(&progress);
    }
    // The channel closes when every task has ended.
    let _ = work.await;
    Ok(inspector.finish())
}

/// The playlist's answer as soon as there is a playlist or an MPD.
async fn await_entry(follower: &Follower, entry: &Entry) -> Result<Option<(i64, Answer)>, Error> {
    let mut patience = PATIENCE;
    loop {
        let asked_us = follower.clock.now_us();
        let answer = follower.source.get(&entry.playlist, &[]).await;
        if answer.is_ok() {
            return Ok(Some((asked_us, answer)));
        }
        if follower.source.get(&entry.mpd, &[]).await.is_ok() {
            return Ok(None);
        }
        patience = patience.saturating_sub(KNOCK);
        if patience.is_zero() || matches!(follower.source, Source::Folder) {
            return Err(Error::Nothing {
                url: entry.playlist.clone(),
                status: answer.status,
            });
        }
        tokio::time::sleep(KNOCK).await;
    }
}

/// Follows every rendition and the MPD to the end.
async fn follow_all(follower: Follower, entry: Entry, playlist: Option<(i64, Answer)>) {
    let (ended, watching) = watch::channel(false);
    let mpd = tokio::spawn(dash::follow(follower.clone(), entry.mpd.clone(), watching));
    let mut tasks = JoinSet::new();
    let is_live = playlist
        .as_ref()
        .is_some_and(|(_, answer)| is_multivariant(&answer.body))
        && !matches!(follower.source, Source::Folder);
    if let Some((asked_us, answer)) = playlist {
        for url in renditions(&follower, &entry, (asked_us, answer)).await {
            tasks.spawn(rendition::follow(follower.clone(), listing_name(&url), url));
        }
    } else {
        while !follower.is_over() {
            tokio::time::sleep(KNOCK).await;
        }
    }
    while tasks.join_next().await.is_some() {}
    if is_live {
        // What is published may have changed since.
        let role = Role::Multivariant;
        follower.ask(role, "", &entry.playlist, &[]).await;
    }
    ended.send_replace(true);
    let _ = mpd.await;
}

/// The addresses of the media playlists.
async fn renditions(follower: &Follower, entry: &Entry, got: (i64, Answer)) -> Vec<String> {
    if !is_multivariant(&got.1.body) {
        return vec![entry.playlist.clone()];
    }
    let answer = follower
        .tell(Role::Multivariant, "", &entry.playlist, got)
        .await;
    let found = parse_multivariant(&answer.body);
    let variants = found.variants.iter().map(|variant| variant.uri.as_str());
    let media = found.media.iter().filter_map(|media| media.get("URI"));
    let mut urls = Vec::new();
    for uri in variants.chain(media) {
        let url = join(&entry.playlist, uri);
        if !urls.contains(&url) && urls.len() < MAX_RENDITIONS {
            urls.push(url);
        }
    }
    urls
}
