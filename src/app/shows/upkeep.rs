//! Looks after what is kept of every stream, for as long as the server runs, whatever happens to one of them.
//!
//! Enters: the store, which streams are live, the time
//! Leaves: streams looked after; which are not, for `/readyz`
//! Never:  ends before it is told to: what breaks one stream's turn, or has it wait for ever, does not reach the others
//! Time:   tokio's clock
//! Spec:   docs/recordings.md

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::sweep::{self, Busy, Due};
use crate::id::StreamName;
use crate::store::{Keep, Store};

/// How often everything is looked after: within these, an eighth of the time that things are kept.
const MIN_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How long a stream is left alone whose turn broke down.
const BROKEN_PAUSE: Duration = Duration::from_secs(600);

/// How long a stream's turn may take before the others go on without it, and how long the store may take to say what
/// streams there are before somebody is told. A store across a network has its own limit for a request, and a turn
/// that removes thousands of segments from a slow one takes a minute.
const LATE: Duration = Duration::from_secs(120);

/// Since when, by the table of the store's settings and the stream.
type Broken = BTreeMap<(&'static str, StreamName), Instant>;

/// Of which streams broadcasts go on here.
type IsLive = Arc<dyn Fn(&StreamName) -> bool + Send + Sync>;

/// By the table of the store's settings; the stream, or none for the list of them.
type Late = BTreeSet<(&'static str, Option<StreamName>)>;

/// Which streams cannot be looked after.
#[derive(Debug, Default)]
pub(in crate::app) struct Upkeep {
    broken: Mutex<Broken>,
    late: Mutex<Late>,
}

/// What one who looks after a store goes on with.
#[derive(Default)]
struct Turns {
    dues: BTreeMap<StreamName, Due>,
    /// Those that went on for too long, and may still.
    late: BTreeMap<StreamName, JoinHandle<Due>>,
}

impl Upkeep {
    /// What is wrong, in one line; `None` if nothing is.
    pub(in crate::app) fn trouble(&self) -> Option<String> {
        let names = |streams: BTreeSet<StreamName>| {
            let names: Vec<_> = streams.iter().map(StreamName::as_str).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let broken = {
            let broken = self.broken();
            broken.keys().map(|(_, stream)| stream.clone()).collect()
        };
        let broken = names(broken).map(|names| {
            format!("the recordings of {names} are not looked after; the log says why")
        });
        let (late, lists): (Vec<_>, Vec<_>) = {
            let late = self.late();
            late.iter()
                .cloned()
                .partition(|(_, stream)| stream.is_some())
        };
        let late = names(late.into_iter().filter_map(|(_, stream)| stream).collect());
        let late = late.map(|names| {
            format!("looking after the recordings of {names} does not come to an end")
        });
        let lists = lists.into_iter().map(|(table, _)| {
            format!(
                "recordings are not looked after: {table}.url does not say what streams there are"
            )
        });
        let all: Vec<_> = broken.into_iter().chain(late).chain(lists).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Looks after what is kept in `store` until `stopped`. `is_live` says of which streams broadcasts go on here.
    pub(in crate::app) async fn run(
        self: Arc<Self>,
        (store, keep): (Store, Keep),
        is_live: impl Fn(&StreamName) -> bool + Send + Sync + 'static,
        mut stopped: watch::Receiver<bool>,
    ) {
        let pause = match keep {
            Keep::Window => return,
            Keep::For(keep) => (keep / 8).clamp(MIN_PAUSE, MAX_PAUSE),
            Keep::Forever => MAX_PAUSE,
        };
        let is_live: IsLive = Arc::new(is_live);
        let mut turns = Turns::default();
        loop {
            let pass = self.pass((&store, keep), &is_live, &mut turns);
            tokio::select! {
                () = pass => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Looks after every stream once, one after another. Who takes too long goes on beside the others, by what it sees
    /// then, and has its next turn when it is through.
    async fn pass(&self, (store, keep): (&Store, Keep), is_live: &IsLive, turns: &mut Turns) {
        let Some(streams) = self.streams(store).await else {
            return;
        };
        turns.dues.retain(|stream, _| streams.contains(stream));
        let late = turns.late.keys().filter(|late| !streams.contains(late));
        let late: Vec<_> = late.cloned().collect();
        for stream in streams.into_iter().chain(late) {
            let is_broken = |at: &Instant| at.elapsed() < BROKEN_PAUSE;
            let place = (store.table(), stream.clone());
            if self.broken().get(&place).is_some_and(is_broken) {
                continue;
            }
            let (mut task, limit) = match turns.late.remove(&stream) {
                Some(task) => (task, Duration::ZERO),
                None => {
                    let due = turns.dues.remove(&stream).unwrap_or_default();
                    let live = Arc::clone(is_live);
                    let turn = turn((store.clone(), keep), (stream.clone(), live), due);
                    // A task of its own: what it meets in the store may be anything.
                    (tokio::spawn(turn), LATE)
                }
            };
            let ended = tokio::time::timeout(limit, &mut task).await;
            self.tell_late((store.table(), Some(&stream)), ended.is_err());
            match ended {
                Err(_) => {
                    turns.late.insert(stream, task);
                }
                Ok(Ok(due)) => {
                    self.broken().remove(&place);
                    turns.dues.insert(stream, due);
                }
                Ok(Err(error)) if error.is_panic() => {
                    tracing::error!(%stream, %error, "looking after its recordings broke down; this is a bug");
                    self.broken().insert(place, Instant::now());
                }
                // The runtime ends.
                Ok(Err(_)) => return,
            }
        }
    }

    /// The streams of which anything is stored; `None` if the store fails. Without them there is nothing to go on with.
    async fn streams(&self, store: &Store) -> Option<Vec<StreamName>> {
        let mut listing = std::pin::pin!(store.streams());
        let listed = match tokio::time::timeout(LATE, &mut listing).await {
            Ok(listed) => listed,
            Err(_) => {
                self.tell_late((store.table(), None), true);
                listing.await
            }
        };
        self.tell_late((store.table(), None), false);
        listed
            .inspect_err(|error| tracing::warn!(%error, "recordings cannot be looked after"))
            .ok()
    }

    /// Takes note of what is late and of what no longer is, and says either once.
    fn tell_late(&self, (table, stream): (&'static str, Option<&StreamName>), is_late: bool) {
        let place = (table, stream.cloned());
        let has_changed = match is_late {
            true => self.late().insert(place),
            false => self.late().remove(&place),
        };
        let what = stream.map_or("the list of streams", StreamName::as_str);
        match is_late {
            _ if !has_changed => {}
            true => tracing::warn!(store = table, stream = what, limit = ?LATE,
                "looking after recordings does not come to an end: does the store answer? The others are gone on with"),
            false => tracing::info!(store = table, stream = what, "this has come to its end"),
        }
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self) -> MutexGuard<'_, Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn turn(
    (store, keep): (Store, Keep),
    (stream, is_live): (StreamName, IsLive),
    mut due: Due,
) -> Due {
    let is_busy = || Busy {
        live: is_live(&stream),
        draining: store.is_draining(&stream),
    };
    let looked = sweep::look_after(&store, keep, (&stream, &is_busy), &mut due).await;
    if let Err(error) = looked {
        tracing::warn!(%stream, %error, "recordings are looked after later");
    }
    due
}
