//! Turns a method and an address into what is asked for.
//!
//! Enters: the method and path of a request, from anyone
//! Leaves: a [`Route`] made of ids, or the status that says why not
//! Never:  a path: nothing that a client writes reaches a disk
//! Spec:   docs/architecture.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::fmt;

use hyper::Method;

use crate::id::StreamName;
use crate::media::ObjectKey;

/// The longest path that is looked at, in bytes. The longest of ours is under 200.
pub const MAX_PATH_BYTES: usize = 512;

/// What an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'p> {
    /// The page at `/`.
    Page,
    /// A file of the page: what follows `/assets/`, to be looked up in a table.
    Asset(&'p str),
    /// A playlist, an MPD or media of one stream.
    Object(ObjectKey),
    /// What is live, as JSON.
    Streams,
    /// One stream, as JSON.
    Stream(StreamName),
    /// The shows of one stream that are kept, as JSON.
    Shows(StreamName),
    /// The server, as JSON.
    Server,
    /// Whether the process lives.
    Health,
    /// Whether it can serve.
    Ready,
    /// OpenMetrics.
    Metrics,
    /// The time of day in UTC, for DASH clients.
    Time,
}

impl<'p> Route<'p> {
    /// The route of `path`, or `None` where there is nothing.
    #[must_use]
    pub fn parse(path: &'p str) -> Option<Self> {
        if path.len() > MAX_PATH_BYTES {
            return None;
        }
        Some(match path {
            "/" => Self::Page,
            "/api/v1/streams" => Self::Streams,
            "/api/v1/server" => Self::Server,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/time" => Self::Time,
            _ => {
                if let Some(name) = path.strip_prefix("/assets/") {
                    return (!name.is_empty()).then_some(Self::Asset(name));
                }
                if let Some(name) = path.strip_prefix("/api/v1/streams/") {
                    if let Some(name) = name.strip_suffix("/shows") {
                        return name.parse().ok().map(Self::Shows);
                    }
                    return name.parse().ok().map(Self::Stream);
                }
                return path.strip_prefix('/')?.parse().ok().map(Self::Object);
            }
        })
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page => f.write_str("/"),
            Self::Asset(name) => write!(f, "/assets/{name}"),
            Self::Object(key) => write!(f, "/{key}"),
            Self::Streams => f.write_str("/api/v1/streams"),
            Self::Stream(name) => write!(f, "/api/v1/streams/{name}"),
            Self::Shows(name) => write!(f, "/api/v1/streams/{name}/shows"),
            Self::Server => f.write_str("/api/v1/server"),
            Self::Health => f.write_str("/healthz"),
            Self::Ready => f.write_str("/readyz"),
            Self::Metrics => f.write_str("/metrics"),
            Self::Time => f.write_str("/time"),
        }
    }
}

/// What is to be done with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Answer with the body.
    Get,
    /// Answer with the head of what GET would answer.
    Head,
    /// Say what is allowed from another origin.
    Options,
}

impl Verb {
    /// The methods there are, as the header `Allow` lists them.
    pub const ALLOWED: &'static str = "GET, HEAD, OPTIONS";

    /// The verb of `method`; `None` for what this origin does not do.
    #[must_use]
    pub fn parse(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::HEAD => Some(Self::Head),
            Method::OPTIONS => Some(Self::Options),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_address_of_the_design_has_its_route() {
        let key = |path: &str| Route::Object(path.parse().expect("a key"));
        for (path, route) in [
            ("/", Route::Page),
            ("/assets/app.js", Route::Asset("app.js")),
            ("/live/demo/index.m3u8", key("live/demo/index.m3u8")),
            ("/live/demo/manifest.mpd", key("live/demo/manifest.mpd")),
            (
                "/live/demo/v720/index.m3u8",
                key("live/demo/v720/index.m3u8"),
            ),
            (
                "/live/demo/v720/init-7.mp4",
                key("live/demo/v720/init-7.mp4"),
            ),
            ("/live/demo/v720/7.m4s", key("live/demo/v720/7.m4s")),
            ("/live/demo/v720/7.2.m4s", key("live/demo/v720/7.2.m4s")),
            ("/api/v1/streams", Route::Streams),
            (
                "/api/v1/streams/demo",
                Route::Stream("demo".parse().expect("a name")),
            ),
            (
                "/api/v1/streams/demo/shows",
                Route::Shows("demo".parse().expect("a name")),
            ),
            ("/live/demo/dvr.m3u8", key("live/demo/dvr.m3u8")),
            ("/live/demo/dvr.mpd", key("live/demo/dvr.mpd")),
            ("/live/demo/v720/dvr.m3u8", key("live/demo/v720/dvr.m3u8")),
            ("/api/v1/server", Route::Server),
            ("/healthz", Route::Health),
            ("/readyz", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/time", Route::Time),
        ] {
            assert_eq!(Route::parse(path).as_ref(), Some(&route), "{path}");
            assert_eq!(route.to_string(), path);
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for path in [
            "",
            "*",
            "//",
            "/live",
            "/live/demo",
            "/live/demo/",
            "/live/../etc/passwd",
            "/live/demo/%2e%2e/index.m3u8",
            "/live/demo/v720/007.m4s",
            "/live/demo/index.m3u8/",
            "/assets/",
            "/assets",
            "/api/v1/streams/",
            "/api/v1/streams/a/b",
            "/api/v1/streams/a/shows/",
            "/api/v1/streams//shows",
            "/live/demo/dvr",
            "/live/demo/v720/dvr.mpd",
            "/api",
            "/Healthz",
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
        assert_eq!(Route::parse(&format!("/assets/{}", "a".repeat(600))), None);
    }

    #[test]
    fn only_reading_methods_are_known() {
        for (method, verb) in [
            (Method::GET, Some(Verb::Get)),
            (Method::HEAD, Some(Verb::Head)),
            (Method::OPTIONS, Some(Verb::Options)),
            (Method::POST, None),
            (Method::PUT, None),
            (Method::DELETE, None),
            (Method::CONNECT, None),
            (Method::TRACE, None),
        ] {
            assert_eq!(Verb::parse(&method), verb, "{method}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_what_parses_prints_as_it_was(
            path in prop_oneof![any::<String>(), "(/live|/api/v1|/assets|/[.]{0,2}|/[a-z0-9.%]{0,8}){0,5}"],
        ) {
            if let Some(route) = Route::parse(&path) {
                prop_assert_eq!(route.to_string(), path);
            }
        }
    }
}
