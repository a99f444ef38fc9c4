//! What a worker writes for people, a line at a time.
//!
//! Enters: bytes of its stderr; the time
//! Leaves: lines to be logged; the last ones
//! Never:  more of a line than [`MAX_LINE_BYTES`]; more lines than [`MAX_PER_PERIOD`] in a [`PERIOD`]
//! Time:   monotonic, as an argument
//! Spec:   none
//!
//! Whoever writes may have been taken over by what it decodes.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::VecDeque;
use std::time::Duration;

use super::MAX_LAST_LINES;

/// The most of a line that is kept.
const MAX_LINE_BYTES: usize = 500;
/// How many lines are logged in each [`PERIOD`].
const MAX_PER_PERIOD: u32 = 600;
const PERIOD: Duration = Duration::from_secs(60);

/// What was written so far.
#[derive(Debug)]
pub(super) struct Said {
    /// Whether lines beyond [`MAX_PER_PERIOD`] are left out.
    is_limited: bool,
    line: Vec<u8>,
    last: VecDeque<String>,
    /// When the present period began, and how many lines came in it.
    since: Duration,
    count: u32,
}

/// What to do about a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Log it.
    Line(String),
    /// Say that others are left out for a while.
    TooMany,
}

impl Said {
    /// Nothing yet. Everything is told if the operator has asked for more than usual: it is not `is_limited`.
    pub(super) const fn new(is_limited: bool) -> Self {
        Self {
            is_limited,
            line: Vec::new(),
            last: VecDeque::new(),
            since: Duration::ZERO,
            count: 0,
        }
    }

    /// Takes the next `bytes`, at `now`, and tells what is to be logged.
    pub(super) fn push(&mut self, bytes: &[u8], now: Duration, mut tell: impl FnMut(Told)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = MAX_LINE_BYTES - self.line.len();
            let piece = piece.get(..room).unwrap_or(piece);
            self.line.extend_from_slice(piece);
            if pieces.peek().is_some() {
                self.end_line(now).into_iter().for_each(&mut tell);
            }
        }
    }

    /// Ends, at `now`; the last lines.
    pub(super) fn end(mut self, now: Duration, tell: impl FnMut(Told)) -> VecDeque<String> {
        if !self.line.is_empty() {
            self.end_line(now).into_iter().for_each(tell);
        }
        self.last
    }

    fn end_line(&mut self, now: Duration) -> Option<Told> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if self.last.len() == MAX_LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        if now.saturating_sub(self.since) >= PERIOD {
            (self.since, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
        match self.count {
            count if count <= MAX_PER_PERIOD || !self.is_limited => Some(Told::Line(line)),
            count if count == MAX_PER_PERIOD + 1 => Some(Told::TooMany),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(7);

    fn told(said: &mut Said, bytes: &[u8], now: Duration) -> Vec<Told> {
        let mut all = Vec::new();
        said.push(bytes, now, |told| all.push(told));
        all
    }

    fn line(text: &str) -> Told {
        Told::Line(text.to_owned())
    }

    #[test]
    fn lines_are_put_together_and_what_is_no_text_is_told_as_it_is() {
        let mut said = Said::new(true);
        assert_eq!(told(&mut said, b"o", NOW), []);
        assert_eq!(told(&mut said, b"ne\ntw", NOW), [line("one")]);
        assert_eq!(told(&mut said, b"\xff\nthree", NOW), [line("tw\u{fffd}")]);
        let last = said.end(NOW, |told| assert_eq!(told, line("three")));
        assert_eq!(last, ["one", "tw\u{fffd}", "three"]);
    }

    #[test]
    fn line_without_an_end_is_not_kept() {
        let mut said = Said::new(true);
        for _ in 0..1_000 {
            assert_eq!(told(&mut said, &[b'x'; 4_096], NOW), []);
            assert!(said.line.capacity() <= 2 * MAX_LINE_BYTES);
        }
        assert_eq!(
            told(&mut said, b"\n", NOW),
            [line(&"x".repeat(MAX_LINE_BYTES))]
        );
    }

    #[test]
    fn lines_without_end_are_left_out_for_a_while() {
        let mut said = Said::new(true);
        let lines = "x\n".repeat(10_000);
        let all = told(&mut said, lines.as_bytes(), NOW + PERIOD);
        assert_eq!(all.len(), 601);
        assert_eq!(all.last(), Some(&Told::TooMany));
        assert_eq!(told(&mut said, b"y\n", NOW + PERIOD), []);
        assert_eq!(told(&mut said, b"z\n", NOW + 2 * PERIOD), [line("z")]);
        assert_eq!(said.end(NOW, drop).len(), MAX_LAST_LINES);
        let mut said = Said::new(false);
        assert_eq!(told(&mut said, lines.as_bytes(), NOW).len(), 10_000);
    }
}
