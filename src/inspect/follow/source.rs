//! Where answers come from: HTTP/1.1 or files.
//!
//! Enters: addresses or paths
//! Leaves: [`Answer`]s; one with status 0 where there was none
//! Never:  a body beyond [`MAX_BODY_BYTES`]; a wait beyond [`REQUEST_LIMIT`]; TLS
//! Time:   the clock of an inspection
//! Spec:   [RFC9110], [RFC9112]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::inspect::check::Answer;

/// The most bytes of one body: a segment of 30 s at 50 Mbit/s, and a little.
pub(super) const MAX_BODY_BYTES: usize = 256 << 20;
/// How long one answer may take, blocking ones included: three target durations of ten seconds.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(35);
/// The same, for connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A clock that never jumps.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    epoch_us: i64,
    began: Arc<Instant>,
}

impl Clock {
    pub(super) fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            epoch_us: i64::try_from(wall.as_micros()).unwrap_or(i64::MAX),
            began: Arc::new(Instant::now()),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Microseconds since the Unix epoch.
    pub(super) fn now_us(&self) -> i64 {
        self.at_us(Instant::now())
    }

    /// `moment` in microseconds since the Unix epoch.
    pub(super) fn at_us(&self, moment: Instant) -> i64 {
        let since = moment.saturating_duration_since(*self.began);
        let since = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        self.epoch_us.saturating_add(since)
    }
}

/// Where answers come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// HTTP/1.1 over TCP.
    Network(Box<Client<HttpConnector, Empty<Bytes>>>),
    /// Files.
    Folder,
}

impl Source {
    pub(super) fn network() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        Self::Network(Box::new(
            Client::builder(TokioExecutor::new()).build(connector),
        ))
    }

    /// What is at `url`, asked for with the header lines `head`.
    pub(super) async fn get(&self, url: &str, head: &[(&'static str, &str)]) -> Answer {
        self.ask(&Method::GET, url, head).await.0
    }

    /// As [`Self::get`], by any method, and when the first bytes of the body came.
    pub(super) async fn ask(
        &self,
        method: &Method,
        url: &str,
        head: &[(&'static str, &str)],
    ) -> (Answer, Instant) {
        match self {
            Self::Network(client) => {
                let work = request(client, method, url, head);
                let answer = tokio::time::timeout(REQUEST_LIMIT, work).await;
                let answer = answer.ok().flatten();
                answer.unwrap_or_else(|| (without_body(0), Instant::now()))
            }
            Self::Folder => {
                let answer = read(url).await.unwrap_or_else(|| without_body(404));
                (answer, Instant::now())
            }
        }
    }
}

async fn read(path: &str) -> Option<Answer> {
    let length = tokio::fs::metadata(path).await.ok()?.len();
    if usize::try_from(length).ok()? > MAX_BODY_BYTES {
        return None;
    }
    Some(Answer::file(tokio::fs::read(path).await.ok()?.into()))
}

fn without_body(status: u16) -> Answer {
    Answer {
        status,
        headers: None,
        body: Bytes::new(),
    }
}

async fn request(
    client: &Client<HttpConnector, Empty<Bytes>>,
    method: &Method,
    url: &str,
    head: &[(&'static str, &str)],
) -> Option<(Answer, Instant)> {
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header("user-agent", "headwater-inspect");
    for (name, value) in head {
        request = request.header(*name, *value);
    }
    let response = client
        .request(request.body(Empty::new()).ok()?)
        .await
        .ok()?;
    let (parts, body) = response.into_parts();
    let mut begun = None;
    let body = body.map_frame(|frame| {
        begun.get_or_insert_with(Instant::now);
        frame
    });
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .ok()?
        .to_bytes();
    let line = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    let answer = Answer {
        status: parts.status.as_u16(),
        headers: Some(parts.headers.iter().map(line).collect()),
        body,
    };
    Some((answer, begun.unwrap_or_else(Instant::now)))
}
