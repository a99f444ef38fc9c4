//! Reads a bucket over and over, and keeps a record of every promise that was broken.
//!
//! Enters: a bucket that anybody may read
//! Leaves: what was wrong at any time
//! Never:  anything of Headwater's
//! Time:   wall clock
//! Spec:   [HLS] §6.2.1

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::try_get;

/// The renditions of the small ladder.
pub(crate) const RENDITIONS: [&str; 3] = ["v360", "v180", "a96"];

/// A thread that reads.
pub(crate) struct Watch {
    thread: JoinHandle<Seen>,
    stopped: Arc<AtomicBool>,
}

/// What was seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// What was wrong.
    pub(crate) violations: Vec<String>,
    /// Playlists read.
    pub(crate) playlists: usize,
    /// Objects found there that a playlist named.
    pub(crate) objects: usize,
    /// The entity tag of each object when it was first seen.
    tags: BTreeMap<String, String>,
    /// Media sequence and last number of each playlist.
    edges: BTreeMap<String, (u64, u64)>,
}

impl Watch {
    /// Watches the broadcast whose objects lie under `base` at `authority`.
    pub(crate) fn start(authority: &str, base: &str) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (authority, base) = (authority.to_owned(), base.to_owned());
        let goes_on = Arc::clone(&stopped);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            while !goes_on.load(Ordering::Relaxed) {
                for rendition in RENDITIONS {
                    seen.read(&authority, &format!("{base}/{rendition}"));
                }
                thread::sleep(Duration::from_millis(100));
            }
            seen
        });
        Self { thread, stopped }
    }

    pub(crate) fn stop(self) -> Seen {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn read(&mut self, authority: &str, folder: &str) {
        let playlist = format!("{folder}/index.m3u8");
        let response = try_get(authority, &playlist).filter(|found| found.status == 200);
        let Some(response) = response else {
            return;
        };
        self.playlists += 1;
        let text = response.text();
        let names = named(&text);
        for name in &names {
            let path = format!("{folder}/{name}");
            // What has been there is not read again each time, but the oldest and the newest are.
            let is_end = [names.first(), names.get(1), names.last()].contains(&Some(name));
            if !is_end && self.tags.contains_key(&path) {
                continue;
            }
            self.objects += 1;
            // A service that is away says nothing.
            let Some(object) = try_get(authority, &path) else {
                continue;
            };
            if object.status != 200 {
                let line = format!("{path} is named and answers {}", object.status);
                self.violations.push(line);
                continue;
            }
            let tag = object.header("etag").unwrap_or_default().to_owned();
            let first = self.tags.entry(path.clone()).or_insert_with(|| tag.clone());
            if *first != tag {
                self.violations.push(format!("{path} has changed"));
            }
        }
        let edge = (
            tag_value(&text, "#EXT-X-MEDIA-SEQUENCE:"),
            last_number(&text),
        );
        let before = self.edges.insert(folder.to_owned(), edge).unwrap_or(edge);
        if edge.0 < before.0 || edge.1 < before.1 {
            let line = format!("{folder} went back from {before:?} to {edge:?}");
            self.violations.push(line);
        }
    }
}

/// The map and the segments that a playlist names, gaps not among them.
pub(crate) fn named(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut gap = false;
    for line in text.lines() {
        if let Some(map) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            names.push(map.split('"').next().unwrap().to_owned());
        } else if line == "#EXT-X-GAP" {
            gap = true;
        } else if !line.starts_with('#') && !line.is_empty() {
            if !gap {
                names.push(line.to_owned());
            }
            gap = false;
        }
    }
    names
}

/// The last number that a playlist lists; zero if none.
pub(crate) fn last_number(text: &str) -> u64 {
    let name = text
        .lines()
        .rfind(|line| line.ends_with(".m4s") && !line.starts_with('#'));
    name.and_then(|name| name.strip_suffix(".m4s")?.parse().ok())
        .unwrap_or(0)
}

fn tag_value(text: &str, tag: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(tag));
    line.and_then(|value| value.parse().ok()).unwrap_or(0)
}
