//! What was asked, why, and what came back.
//!
//! Enters: answers, from the network, a folder or a test
//! Leaves: [`Observation`]
//! Never:  judgement
//! Time:   microseconds since the Unix epoch
//! Spec:   none

use bytes::Bytes;

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status; a file that is there has 200, one that is not 404.
    pub status: u16,
    /// The header lines with names in lower case; `None` for a file.
    pub headers: Option<Vec<(String, String)>>,
    /// The body, decompressed.
    pub body: Bytes,
}

impl Answer {
    /// A file that is there.
    #[must_use]
    pub const fn file(body: Bytes) -> Self {
        Self {
            status: 200,
            headers: None,
            body,
        }
    }

    /// The value of the header `name`, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.as_ref()?;
        let line = lines.iter().find(|(found, _)| found == name)?;
        Some(&line.1)
    }

    /// Whether the status is 200.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.status == 200
    }
}

/// Why something was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The multivariant playlist.
    Multivariant,
    /// A media playlist without directives.
    Media,
    /// A media playlist with `_HLS_msn` and perhaps `_HLS_part`.
    Blocking {
        /// The segment asked for.
        msn: u64,
        /// The part asked for.
        part: Option<u64>,
    },
    /// A media playlist with `_HLS_skip=YES`.
    Delta,
    /// The MPD.
    Mpd,
    /// The answer of the clock that the MPD names.
    Clock,
    /// An init segment that HLS lists.
    Init,
    /// A segment that HLS lists.
    Segment {
        /// Its media sequence number.
        msn: u64,
    },
    /// A part that HLS lists.
    Part {
        /// The media sequence number of its segment.
        msn: u64,
        /// Its place in the segment.
        part: u64,
    },
    /// What a PRELOAD-HINT names, asked before it was listed.
    Hint,
    /// An init segment that the MPD names.
    DashInit,
    /// The segment `number` that the MPD's clock makes available; the newest, or one in the window.
    DashSegment {
        /// `$Number$`.
        number: u64,
        /// Whether it is the newest.
        edge: bool,
    },
    /// A segment asked for again, towards the end.
    Again {
        /// Whether playlists have stopped listing it long enough ago that it need not be there.
        may_be_gone: bool,
    },
    /// A question about HTTP or about requests that make no sense.
    Probe(Probe),
}

/// Questions that no player asks in this form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A manifest or media with If-None-Match of the tag just given.
    NotModified {
        /// The tag sent.
        tag: String,
    },
    /// `Range: bytes=0-99` of media.
    Range {
        /// The first hundred bytes.
        expected: Bytes,
    },
    /// A manifest with `Accept-Encoding: gzip`.
    Gzip,
    /// A segment or part that will not be there for a long time.
    FarFuture,
    /// `_HLS_part` alone.
    PartAlone,
    /// `_HLS_msn` far ahead.
    TooFar,
    /// `_HLS_skip=v2`.
    SkipV2,
    /// HEAD of what was just fetched.
    Head {
        /// Its content type.
        content_type: Option<String>,
        /// Its length as it was sent.
        length: Option<String>,
    },
    /// OPTIONS, as a browser asks before a request with a range.
    Options,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Why it was made.
    pub role: Role,
    /// The rendition that it is about, or nothing.
    pub rendition: String,
    /// The address, or the path of the file.
    pub url: String,
    /// When it was sent.
    pub asked_us: i64,
    /// When the first bytes of its body came.
    pub begun_us: i64,
    /// When the answer was complete.
    pub answered_us: i64,
    /// The answer.
    pub answer: Answer,
}
