//! Turns a request into its answer.
//!
//! Enters: the head of a request; its body is never read
//! Leaves: a complete answer: status, headers of caching and CORS, body
//! Never:  sockets
//! Time:   UTC from [`Origin::now`], for `/time`
//! Spec:   [RFC9110] §9, §14, §15; [RFC9111] §5.2; [FETCH] CORS; [RESOURCE-TIMING] §4.5

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::assets::Assets;
use super::blocking::Directives;
use super::body::{Content, PayloadBody};
use super::cache::{ETag, Encoding, Lifetime, Slice};
use super::compressing::Compressing;
use super::document::{Document, content_type, has_ended};
use super::live::Feed;
use super::metrics::{Gauge, Kind, Metrics};
use super::origin::{Found, Growth, NoClip, Object, Origin, Stored};
use super::page;
use super::route::{Route, Verb};
use super::shows::Page;
use super::stretch::Asked;
use super::waiting::{Begun, Room, Unmet, is_too_far};
use crate::id::{RenditionName, StreamName};
use crate::media::{Item, ObjectKey, Payload};

/// More header fields than any answer has, those of the HTTP library included.
const MAX_ANSWER_HEADERS: usize = 16;

/// When to ask again for what the store holds unfinished, or could not be asked for.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// When to ask again for what did not come in time.
const WAIT_RETRY: Duration = Duration::from_secs(1);

/// What a script of another origin may read beside the body.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Date, Age, Content-Length, Content-Range, ETag, Retry-After, CMSD-Static, CMSD-Dynamic",
);

/// What a script of another origin may send.
const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "Range, If-Range, If-None-Match, Cache-Control, Content-Type, \
     CMCD-Request, CMCD-Object, CMCD-Session, CMCD-Status",
);

/// How long a browser may remember a preflight, in seconds; browsers cap it themselves.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers requests out of an [`Origin`].
#[derive(Debug)]
pub(crate) struct Answerer<O> {
    origin: Arc<O>,
    assets: Assets,
    allow_origin: HeaderValue,
    metrics: Arc<Metrics>,
    room: Room,
    compressing: Compressing,
}

/// An answer before the headers that every answer has.
struct Answer {
    status: StatusCode,
    lifetime: Lifetime,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Content,
}

impl Answer {
    fn ok(lifetime: Lifetime, content_type: &'static str, body: Bytes) -> Self {
        Self {
            status: StatusCode::OK,
            lifetime,
            headers: vec![typed(content_type)],
            body: Payload::from(body).into(),
        }
    }

    fn failure(status: StatusCode, reason: &str) -> Self {
        Self {
            status,
            lifetime: Lifetime::Failure,
            headers: vec![typed(TEXT)],
            body: Payload::from(Bytes::from(format!("{reason}\n"))).into(),
        }
    }

    fn not_found() -> Self {
        Self::failure(StatusCode::NOT_FOUND, "nothing here, or not any more")
    }

    /// A segment in the making. Its length and so its ranges and its tag are not known yet; what arrives
    /// whole is what everyone else gets, so that it may be kept like any segment.
    fn growing(parts: Content, content_type: &'static str) -> Self {
        Self {
            status: StatusCode::OK,
            lifetime: Lifetime::Immutable,
            headers: vec![typed(content_type)],
            body: parts,
        }
    }

    fn stalled(retry_after: Duration) -> Self {
        let reason = "the stream has stopped advancing";
        Self::failure(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(retry_after)
    }

    fn unmet(why: Unmet) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        match why {
            Unmet::TooMany => Self::failure(status, "too many requests are waiting"),
            Unmet::TooLong => Self::failure(status, "it did not come in time"),
            Unmet::Never => return Self::not_found(),
        }
        .retry_after(WAIT_RETRY)
    }

    fn retry_after(self, after: Duration) -> Self {
        let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with(header::RETRY_AFTER, HeaderValue::from(whole.max(1)))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

fn typed(content_type: &'static str) -> (HeaderName, HeaderValue) {
    (header::CONTENT_TYPE, HeaderValue::from_static(content_type))
}

impl<O: Origin> Answerer<O> {
    pub(crate) fn new(
        origin: Arc<O>,
        assets: Assets,
        allow_origin: HeaderValue,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            origin,
            assets,
            allow_origin,
            room: Room::new(Arc::clone(&metrics)),
            compressing: Compressing::new(),
            metrics,
        }
    }

    /// The answer to the request with the head `head`.
    pub(crate) async fn answer(&self, head: Parts) -> Response<PayloadBody> {
        let request = self.metrics.begin_request();
        let route = Route::parse(head.uri.path());
        let kind = Kind::of(route.as_ref());
        let verb = Verb::parse(&head.method);
        let answer = match (verb, route) {
            (None, _) => Answer::failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET, HEAD and OPTIONS are answered",
            )
            .with(header::ALLOW, HeaderValue::from_static(Verb::ALLOWED)),
            (Some(Verb::Options), _) => preflight(),
            (Some(Verb::Get | Verb::Head), None) => Answer::not_found(),
            (Some(Verb::Get | Verb::Head), Some(route)) => {
                let query = head.uri.query();
                self.answer_route(&route, query, &head.headers).await
            }
        };
        self.metrics.count_request(kind, answer.status.as_u16());
        self.complete(answer, verb, (head.headers, request))
    }

    async fn answer_route(
        &self,
        route: &Route<'_>,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Answer {
        match route {
            Route::Page => self.asset("", headers).await.with(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(page::CONTENT_SECURITY_POLICY),
            ),
            Route::Asset(path) => self.asset(path, headers).await,
            Route::Object(key) if key.item.is_manifest() => {
                self.manifest(key, query, headers).await
            }
            Route::Object(key) => self.object(key, headers).await,
            Route::Streams => Answer::ok(Lifetime::Never, JSON, self.origin.streams()),
            Route::Stream(name) => match self.origin.stream(name) {
                Some(json) => Answer::ok(Lifetime::Never, JSON, json),
                None => Answer::failure(StatusCode::NOT_FOUND, "there is no such stream"),
            },
            Route::Shows(name) => self.shows(name, query).await,
            Route::Server => Answer::ok(Lifetime::Never, JSON, self.origin.server()),
            Route::Health => Answer::ok(Lifetime::Never, TEXT, Bytes::from_static(b"ok\n")),
            Route::Ready => match self.origin.ready() {
                Ok(state) => Answer::ok(Lifetime::Never, TEXT, format!("{state}\n").into()),
                Err(reason) => Answer::failure(StatusCode::SERVICE_UNAVAILABLE, &reason)
                    .retry_after(STORE_RETRY),
            },
            Route::Metrics => Answer::ok(Lifetime::Never, OPENMETRICS, self.origin.metrics()),
            Route::Time => {
                let now = self.origin.now().to_string();
                Answer::ok(Lifetime::Never, TEXT, now.into())
            }
        }
    }

    async fn shows(&self, name: &StreamName, query: Option<&str>) -> Answer {
        let page = match Page::parse(query) {
            Ok(page) => page,
            Err(error) => return Answer::failure(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        match self.origin.shows(name, page).await {
            Ok(json) => Answer::ok(Lifetime::Never, JSON, json),
            Err(reason) => no_clip(&reason),
        }
    }

    async fn asset(&self, path: &str, headers: &HeaderMap) -> Answer {
        match self.assets.get(path) {
            Some((file, true)) => self.document(file, Lifetime::Immutable, headers).await,
            Some((file, false)) => self.document(file, Lifetime::Page, headers).await,
            None => Answer::not_found(),
        }
    }

    /// A text in the coding that fits best.
    async fn document(
        &self,
        text: &Arc<Document>,
        lifetime: Lifetime,
        headers: &HeaderMap,
    ) -> Answer {
        let wanted = Encoding::negotiate(headers.get_all(header::ACCEPT_ENCODING));
        let coding = self.compressing.coding(text, wanted).await;
        document((text, coding), lifetime, headers)
    }

    async fn manifest(&self, key: &ObjectKey, query: Option<&str>, headers: &HeaderMap) -> Answer {
        let of_show = key.item.is_of_show() && !matches!(key.item, Item::Show(_));
        let is_whole = key.item.is_of_show() || key.item.is_dvr();
        let asked = match Asked::parse(query) {
            Ok(asked) => asked.filter(|_| !is_whole),
            Err(error) => return Answer::failure(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        if of_show || asked.is_some() {
            return self.clip(key, asked, query, headers).await;
        }
        match self.origin.manifest(key) {
            Found::Live(feed) => self.live(feed, query, headers).await,
            Found::Ended(last) => self.document(&last, Lifetime::Ended, headers).await,
            Found::Stalled { retry_after } => Answer::stalled(retry_after),
            Found::Missing if key.item.is_dvr() => self.clip(key, None, query, headers).await,
            Found::Missing => {
                let (text, is_advancing) = match self.stored(key).await {
                    Ok(Stored::Manifest {
                        document,
                        is_advancing,
                    }) => (document, is_advancing),
                    Ok(Stored::Media(_)) => return Answer::not_found(),
                    Err(answer) => return answer,
                };
                let lifetime = match has_ended(&key.item, text.text()) {
                    Some(false) if !is_advancing => return Answer::stalled(STORE_RETRY),
                    Some(true) => Lifetime::Ended,
                    Some(false) | None => Lifetime::Changing,
                };
                self.document(&text, lifetime, headers).await
            }
        }
    }

    /// A manifest of a stretch of what is kept. One that grows is what a live one is to caches, and one that would if
    /// the stream came back what a live one that has ended is; one that will not stays the same for good.
    async fn clip(
        &self,
        key: &ObjectKey,
        asked: Option<Asked>,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Answer {
        let reason = match self.origin.clip(key, asked).await {
            Ok(clip) => {
                let lifetime = match clip.growth {
                    Growth::Stalled => return Answer::stalled(STORE_RETRY),
                    Growth::Advancing => Lifetime::Changing,
                    Growth::Over => Lifetime::Ended,
                    Growth::Final => Lifetime::Kept,
                };
                let skip = clip.delta.is_some() && Directives::parse(query).is_ok_and(|d| d.skip);
                let delta = clip.delta.as_ref().filter(|_| skip);
                let document = delta.unwrap_or(&clip.document);
                return self.document(document, lifetime, headers).await;
            }
            Err(reason) => reason,
        };
        no_clip(&reason)
    }

    /// A live manifest, at the place that the query asks for.
    async fn live(&self, mut feed: Feed, query: Option<&str>, headers: &HeaderMap) -> Answer {
        let live = Arc::clone(&feed.borrow());
        if live.newest().edge().is_none() {
            // Nobody was told that directives are understood here, but that of skipping where there is a delta.
            let skip = live.newest().delta().is_some();
            let skip = skip && Directives::parse(query).is_ok_and(|directives| directives.skip);
            let answer = live.newest().answer(skip);
            return self.document(answer, Lifetime::Changing, headers).await;
        }
        let directives = match Directives::parse(query) {
            Ok(directives) => directives,
            Err(error) => return Answer::failure(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let Some(wanted) = directives.wanted else {
            let answer = live.newest().answer(directives.skip);
            return self.document(answer, Lifetime::Changing, headers).await;
        };
        if is_too_far(&live, wanted) {
            let reason = "the playlist is not that far yet";
            return Answer::failure(StatusCode::BAD_REQUEST, reason);
        }
        match self.room.version(&mut feed, wanted).await {
            Ok(chosen) => {
                let lifetime = if chosen.is_first {
                    Lifetime::Blocking
                } else {
                    Lifetime::Changing
                };
                let answer = chosen.version.answer(directives.skip);
                self.document(answer, lifetime, headers).await
            }
            Err(why) => Answer::unmet(why),
        }
    }

    async fn object(&self, key: &ObjectKey, headers: &HeaderMap) -> Answer {
        let content_type = content_type(&key.item);
        if let Some(found) = self.origin.object(key) {
            return media(&found, content_type, headers);
        }
        match &key.item {
            // Parts are never stored.
            Item::Part(name, segment, part) => {
                let Some(mut feed) = self.feed(key, name) else {
                    return Answer::not_found();
                };
                let at = (*segment, *part);
                let part = self.room.part(&*self.origin, key, &mut feed, at).await;
                return match part {
                    Ok(part) => media(&part, content_type, headers),
                    Err(why) => Answer::unmet(why),
                };
            }
            Item::Segment(name, number) => {
                if let Some(feed) = self.feed(key, name) {
                    let begun = self.room.segment(&self.origin, key, feed, *number).await;
                    match begun {
                        Ok(Begun::Whole(whole)) => return media(&whole, content_type, headers),
                        Ok(Begun::Growing(parts)) => {
                            return Answer::growing(Content::Growing(parts), content_type);
                        }
                        Err(Unmet::Never) => {}
                        Err(why) => return Answer::unmet(why),
                    }
                }
            }
            _ => {}
        }
        match self.stored(key).await {
            Ok(Stored::Media(object)) => media(&object, content_type, headers),
            Ok(Stored::Manifest { .. }) => Answer::not_found(),
            Err(answer) => answer,
        }
    }

    /// The feed of the playlist of `rendition`, beside `key`, while it is live.
    fn feed(&self, key: &ObjectKey, rendition: &RenditionName) -> Option<Feed> {
        let playlist = Item::Media(rendition.clone());
        match self
            .origin
            .manifest(&ObjectKey::new(key.stream.clone(), playlist))
        {
            Found::Live(feed) => Some(feed),
            Found::Stalled { .. } | Found::Ended(_) | Found::Missing => None,
        }
    }

    /// What the store has, or the answer that says why there is nothing.
    async fn stored(&self, key: &ObjectKey) -> Result<Stored, Answer> {
        match self.origin.stored(key).await {
            Ok(Some(stored)) => Ok(stored),
            Ok(None) => Err(Answer::not_found()),
            Err(failed) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Err(Answer::failure(status, &failed.to_string()).retry_after(STORE_RETRY))
            }
        }
    }

    /// The whole answer. Its head lies where that of the request did: a connection has one table of headers for all
    /// that it is asked, which the HTTP library hands back and forth.
    fn complete(
        &self,
        answer: Answer,
        verb: Option<Verb>,
        (mut table, request): (HeaderMap, Gauge),
    ) -> Response<PayloadBody> {
        let len = answer.body.len();
        let body = match verb {
            Some(Verb::Head) => Payload::default().into(),
            _ => answer.body,
        };
        let mut response = Response::new(PayloadBody::new(body, request));
        *response.status_mut() = answer.status;
        table.clear();
        *response.headers_mut() = table;
        let headers = response.headers_mut();
        // Grown one by one they would be hashed again and again.
        headers.reserve(MAX_ANSWER_HEADERS);
        headers.extend(answer.headers);
        let fixed = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, &self.allow_origin),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, &EXPOSED),
            (
                HeaderName::from_static("timing-allow-origin"),
                &self.allow_origin,
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                &HeaderValue::from_static("nosniff"),
            ),
        ];
        for (name, value) in fixed {
            headers.insert(name, value.clone());
        }
        if answer.status != StatusCode::NO_CONTENT {
            let value = HeaderValue::from_static(answer.lifetime.cache_control());
            headers.insert(header::CACHE_CONTROL, value);
        }
        let has_length = !matches!(
            answer.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        if let Some(len) = len.filter(|_| has_length) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        }
        response
    }
}

/// Why there is nothing of what is kept.
fn no_clip(reason: &NoClip) -> Answer {
    let status = match reason {
        NoClip::Refused(_) => StatusCode::BAD_REQUEST,
        NoClip::Missing(_) => StatusCode::NOT_FOUND,
        NoClip::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let answer = Answer::failure(status, &reason.to_string());
    match reason {
        NoClip::Store(_) => answer.retry_after(STORE_RETRY),
        _ => answer,
    }
}

fn preflight() -> Answer {
    Answer {
        status: StatusCode::NO_CONTENT,
        lifetime: Lifetime::Never,
        headers: vec![
            (header::ALLOW, HeaderValue::from_static(Verb::ALLOWED)),
            (
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static(Verb::ALLOWED),
            ),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ACCEPTED),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
        ],
        body: Payload::default().into(),
    }
}

/// A text in `coding`. Ranges of it are not offered: of what is compressed per client they are no use to anyone.
fn document(
    (document, coding): (&Document, Encoding),
    lifetime: Lifetime,
    headers: &HeaderMap,
) -> Answer {
    let coded = document.coded(coding);
    let mut fields = Vec::with_capacity(4);
    fields.push((header::VARY, HeaderValue::from_static("Accept-Encoding")));
    fields.push((header::ETAG, coded.etag().header().clone()));
    if is_unchanged(coded.etag(), headers) {
        return Answer {
            status: StatusCode::NOT_MODIFIED,
            lifetime,
            headers: fields,
            body: Payload::default().into(),
        };
    }
    fields.push(typed(document.content_type()));
    if let Some(token) = coded.encoding.token() {
        fields.push((header::CONTENT_ENCODING, HeaderValue::from_static(token)));
    }
    Answer {
        status: StatusCode::OK,
        lifetime,
        headers: fields,
        body: coded.body().clone().into(),
    }
}

/// Media, whole or a range of it, never compressed.
fn media(object: &Object, content_type: &'static str, headers: &HeaderMap) -> Answer {
    let etag = object.etag();
    let mut answer = Answer {
        status: StatusCode::OK,
        lifetime: Lifetime::Immutable,
        headers: vec![(header::ETAG, etag.header().clone())],
        body: Payload::default().into(),
    };
    if is_unchanged(etag, headers) {
        answer.status = StatusCode::NOT_MODIFIED;
        return answer;
    }
    let answer = answer.with(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let len = object.body().len();
    let range = headers
        .get(header::RANGE)
        .filter(|_| etag.allows_range(headers.get(header::IF_RANGE)));
    match Slice::parse(range, len) {
        Slice::Whole => Answer {
            body: object.body().clone().into(),
            ..answer.with(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        },
        Slice::Part(range) => {
            let span = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            Answer {
                status: StatusCode::PARTIAL_CONTENT,
                body: object.body().slice(range).into(),
                ..answer
                    .with(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
                    .with(header::CONTENT_RANGE, text_value(&span))
            }
        }
        Slice::Unsatisfiable => Answer::failure(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "the range lies beyond the end",
        )
        .with(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"))
        .with(header::CONTENT_RANGE, text_value(&format!("bytes */{len}"))),
    }
}

fn is_unchanged(etag: &ETag, headers: &HeaderMap) -> bool {
    etag.is_in(headers.get_all(header::IF_NONE_MATCH))
}

fn text_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
