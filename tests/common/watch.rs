//! Looks at the playlists of a broadcast again and again, as a player that forgives nothing.
//!
//! Enters: the address of a server, which may change or be silent for a while
//! Leaves: everything that was taken back, went back, or was listed and not there
//! Never:  judges what was never shown to anybody
//! Time:   wall clock; no claim depends on how fast the machine is
//! Spec:   [HLS] §6.2.1, §6.2.2

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Response, try_get};

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(200);
/// What is said of a segment, and must be said of it for as long as it is listed.
const TAGS: [&str; 4] = [
    "#EXTINF",
    "#EXT-X-GAP",
    "#EXT-X-DISCONTINUITY\n",
    "#EXT-X-PROGRAM",
];

/// A rendition, and the number of one of its segments.
pub(crate) type Place = (String, u64);

/// What the playlists of one broadcast have said over time.
pub(crate) struct Watch {
    stream: String,
    names: Vec<String>,
    /// Where the server is now.
    http: Mutex<String>,
    ends: AtomicBool,
    /// By rendition and number: the entry's tags.
    entries: Mutex<BTreeMap<(usize, u64), String>>,
    broken: Mutex<Vec<String>>,
}

impl Watch {
    /// Will look at renditions `names` of `stream` on the server at `http`.
    pub(crate) fn new(http: &str, stream: &str, names: &[&str]) -> Self {
        Self {
            stream: stream.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            http: Mutex::new(http.to_owned()),
            ends: AtomicBool::new(false),
            entries: Mutex::default(),
            broken: Mutex::default(),
        }
    }

    /// The server is somewhere else from now on.
    pub(crate) fn moved(&self, http: &str) {
        http.clone_into(&mut self.http.lock().unwrap());
    }

    /// Looks at all playlists until [`Self::end`].
    pub(crate) fn run(&self) {
        let mut firsts = vec![0; self.names.len()];
        while !self.ends.load(Ordering::Relaxed) {
            for (index, first) in firsts.iter_mut().enumerate() {
                if let Some(text) = self.playlist(index) {
                    *first = self.look(index, *first, &text);
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Looks no more.
    pub(crate) fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    fn get(&self, index: usize, file: &str) -> Option<Response> {
        let http = self.http.lock().unwrap().clone();
        let path = format!("/live/{}/{}/{file}", self.stream, self.names[index]);
        try_get(&http, &path)
    }

    fn playlist(&self, index: usize) -> Option<String> {
        let answer = self.get(index, "index.m3u8")?;
        (answer.status == 200).then(|| answer.text())
    }

    /// Compares one playlist with all that was said before; gives the first number it lists.
    fn look(&self, index: usize, before: u64, text: &str) -> u64 {
        let name = &self.names[index];
        let sequence = text
            .lines()
            .find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"));
        let first: u64 = sequence.expect("a sequence").parse().unwrap();
        if first < before {
            self.complain(format!("{name}: back from {before} to {first}"));
        }
        let (mut tags, mut next) = (String::new(), first);
        for line in text.lines() {
            if let Some(number) = line.strip_suffix(".m4s").filter(|_| !line.starts_with('#')) {
                let number: u64 = number.parse().unwrap();
                if number != next {
                    self.complain(format!("{name}: {number} where {next} belongs"));
                }
                next = number + 1;
                self.entry(index, number, std::mem::take(&mut tags));
            } else if TAGS.iter().any(|tag| format!("{line}\n").starts_with(tag)) {
                tags.push_str(line);
            }
        }
        first
    }

    /// One listed segment: it is what it was, and it is there.
    fn entry(&self, index: usize, number: u64, tags: String) {
        let name = &self.names[index];
        let known = self.entries.lock().unwrap().get(&(index, number)).cloned();
        match known {
            Some(known) if known != tags => {
                self.complain(format!("{name}/{number} was {known} and is {tags}"));
            }
            Some(_) => {}
            None => {
                let is_gap = tags.contains("GAP");
                let answer = self.get(index, &format!("{number}.m4s"));
                if let Some(answer) = answer.filter(|answer| (answer.status == 200) == is_gap) {
                    let status = answer.status;
                    self.complain(format!("{name}/{number} ({tags}) answers {status}"));
                }
                self.entries.lock().unwrap().insert((index, number), tags);
            }
        }
    }

    fn complain(&self, what: String) {
        self.broken.lock().unwrap().push(what);
    }

    /// Nothing was taken back, went back or was not there; numbers are consecutive, and no discontinuity
    /// was needed. How many gaps the renditions list altogether.
    pub(crate) fn assert_kept_its_word(&self) -> usize {
        let (breaks, gaps) = self.breaks_and_gaps();
        assert!(breaks.is_empty(), "{breaks:#?}");
        gaps.len()
    }

    /// Nothing was taken back, went back or was not there; numbers are consecutive. Where there are
    /// discontinuities, and where gaps: the rendition and the number.
    pub(crate) fn breaks_and_gaps(&self) -> (Vec<Place>, Vec<Place>) {
        let broken = self.broken.lock().unwrap();
        assert!(broken.is_empty(), "{}: {broken:#?}", self.stream);
        let entries = self.entries.lock().unwrap();
        for (index, name) in self.names.iter().enumerate() {
            let of = |(i, number): &(usize, u64)| (*i == index).then_some(*number);
            let all: Vec<u64> = entries.keys().filter_map(of).collect();
            assert!(!all.is_empty(), "{}/{name} was never there", self.stream);
            for pair in all.windows(2) {
                assert_eq!(pair[0] + 1, pair[1], "{}/{name}", self.stream);
            }
        }
        let with = |tag: &str| {
            let found = entries.iter().filter(|(_, tags)| tags.contains(tag));
            let place =
                |((index, number), _): (&(usize, u64), _)| (self.names[*index].clone(), *number);
            found.map(place).collect()
        };
        (with("DISCONTINUITY"), with("GAP"))
    }

    /// As [`Self::assert_kept_its_word`], without a gap.
    pub(crate) fn assert_one_run(&self) {
        assert_eq!(self.assert_kept_its_word(), 0, "gaps: {:#?}", self.entries);
    }
}
