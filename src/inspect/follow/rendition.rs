//! Follows one media playlist: loads it as a player does, and fetches all that it lists.
//!
//! Enters: the address of a media playlist
//! Leaves: observations
//! Never:  a rule
//! Time:   reloads by the playlist's own times
//! Spec:   [HLS] §6.3.4, §6.3.7

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method;

use super::Follower;
use super::source::Source;
use crate::inspect::check::playlist::{Media, Segment, parse_media};
use crate::inspect::check::{Answer, Probe, Role, join};

/// How many of the listed segments a live inspection fetches when it begins.
const BACKLOG_SEGMENTS: usize = 12;
/// Failures in a row after which a playlist is given up.
const MAX_FAILURES: u32 = 5;
/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Every so many reloads what was hinted is asked for, too.
const HINT_EVERY: u64 = 3;
/// Every so many reloads a delta update is asked for, too.
const DELTA_EVERY: u64 = 4;
/// How far ahead of the newest segment a request makes no sense.
const FAR: u64 = 1_000;

/// Follows the playlist at `url` until it ends or the inspection does.
pub(super) async fn follow(follower: Follower, name: String, url: String) {
    let mut track = Track {
        follower,
        name,
        url,
        fetched: BTreeSet::new(),
        oldest: None,
        reloads: 0,
    };
    track.run().await;
}

struct Track {
    follower: Follower,
    name: String,
    url: String,
    fetched: BTreeSet<String>,
    oldest: Option<Oldest>,
    reloads: u64,
}

/// The oldest segment fetched, and until when it was certainly listed.
struct Oldest {
    url: String,
    length_us: i64,
    longest_list_us: i64,
    listed_us: i64,
}

impl Track {
    async fn run(&mut self) {
        let Some((answer, mut media)) = self.load(Role::Media, &self.url).await else {
            return;
        };
        let is_folder = matches!(self.follower.source, Source::Folder);
        self.fetch(
            &media,
            if is_folder {
                usize::MAX
            } else {
                BACKLOG_SEGMENTS
            },
        )
        .await;
        if is_folder {
            return;
        }
        self.probe(&answer, &media).await;
        let mut failures = 0;
        while !media.ended && !self.follower.is_over() && failures < MAX_FAILURES {
            let next = match media.control.as_ref().filter(|control| control.can_block) {
                Some(_) => self.reload_blocking(&media).await,
                None => {
                    let target = u64::try_from(media.target_s.unwrap_or(2)).unwrap_or(2);
                    tokio::time::sleep(Duration::from_millis(target.clamp(1, 60) * 500)).await;
                    self.load(Role::Media, &self.url)
                        .await
                        .map(|(_, media)| media)
                }
            };
            let Some(next) = next else {
                failures += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            failures = 0;
            media = next;
            self.fetch(&media, BACKLOG_SEGMENTS).await;
        }
        self.fetch_oldest_again().await;
    }

    async fn load(&self, role: Role, url: &str) -> Option<(Answer, Media)> {
        let answer = self.follower.ask(role, &self.name, url, &[]).await;
        let media = parse_media(&answer.body);
        answer.is_ok().then_some((answer, media))
    }

    /// Waits for the next part, or segment where there are no parts. Now and then asks for what is
    /// hinted, and for a delta update.
    async fn reload_blocking(&mut self, media: &Media) -> Option<Media> {
        self.reloads += 1;
        let (msn, part) = media.next_part();
        let part = media.part_target_us.map(|_| part);
        let directives = match part {
            Some(part) => format!("_HLS_msn={msn}&_HLS_part={part}"),
            None => format!("_HLS_msn={msn}"),
        };
        let url = with_query(&self.url, &directives);
        let hint = media
            .hint
            .as_ref()
            .filter(|_| self.reloads.is_multiple_of(HINT_EVERY));
        let asked_us = self.follower.clock.now_us();
        let answer = if let Some(hint) = hint {
            let hint = join(&self.url, hint);
            let ask_hint = self.follower.ask(Role::Hint, &self.name, &hint, &[]);
            tokio::join!(ask_hint, self.follower.source.get(&url, &[])).1
        } else {
            self.follower.source.get(&url, &[]).await
        };
        let role = Role::Blocking { msn, part };
        let answer = self
            .follower
            .tell(role, &self.name, &url, (asked_us, answer))
            .await;
        if !answer.is_ok() {
            return None;
        }
        let skips = media
            .control
            .as_ref()
            .is_some_and(|c| c.can_skip_until_us.is_some());
        if skips && self.reloads.is_multiple_of(DELTA_EVERY) {
            let url = with_query(&self.url, &format!("{directives}&_HLS_skip=YES"));
            self.follower.ask(Role::Delta, &self.name, &url, &[]).await;
        }
        Some(parse_media(&answer.body))
    }

    /// Fetches what `media` lists and was not fetched yet; of segments the newest `most`.
    async fn fetch(&mut self, media: &Media, most: usize) {
        let newest = media.segments.len().saturating_sub(most);
        for segment in media.segments.iter().skip(newest) {
            self.fetch_segment(media, segment).await;
        }
        let begun = media.open_parts.first().and(media.open_map.as_ref());
        if let Some(map) = begun {
            self.fetch_once(Role::Init, map).await;
        }
        for (index, part) in media.open_parts.iter().enumerate() {
            if !part.gap && !part.is_range {
                self.fetch_part(&part.uri, media.next_msn(), index).await;
            }
        }
        self.note_oldest(media);
    }

    async fn fetch_segment(&mut self, media: &Media, segment: &Segment) {
        if segment.gap || segment.is_range {
            return;
        }
        if let Some(map) = &segment.map {
            self.fetch_once(Role::Init, map).await;
        }
        for (index, part) in segment.parts.iter().enumerate() {
            if !part.gap && !part.is_range {
                self.fetch_part(&part.uri, segment.msn, index).await;
            }
        }
        self.fetch_once(Role::Segment { msn: segment.msn }, &segment.uri)
            .await;
        if self.oldest.is_none() {
            self.oldest = Some(Oldest {
                url: join(&self.url, &segment.uri),
                length_us: segment.duration_us,
                longest_list_us: media.length_us(),
                listed_us: self.follower.clock.now_us(),
            });
        }
    }

    async fn fetch_part(&mut self, uri: &str, msn: u64, index: usize) {
        let part = u64::try_from(index).unwrap_or(u64::MAX);
        self.fetch_once(Role::Part { msn, part }, uri).await;
    }

    async fn fetch_once(&mut self, role: Role, uri: &str) {
        let url = join(&self.url, uri);
        if self.fetched.insert(url.clone()) {
            self.follower.ask(role, &self.name, &url, &[]).await;
        }
    }

    fn note_oldest(&mut self, media: &Media) {
        let url = &self.url;
        if let Some(oldest) = &mut self.oldest
            && media
                .segments
                .iter()
                .any(|segment| join(url, &segment.uri) == oldest.url)
        {
            oldest.listed_us = self.follower.clock.now_us();
            oldest.longest_list_us = oldest.longest_list_us.max(media.length_us());
        }
    }

    async fn fetch_oldest_again(&self) {
        let Some(oldest) = &self.oldest else {
            return;
        };
        let since = self.follower.clock.now_us() - oldest.listed_us;
        let may_be_gone = since >= oldest.length_us + oldest.longest_list_us;
        let role = Role::Again { may_be_gone };
        self.follower.ask(role, &self.name, &oldest.url, &[]).await;
    }

    /// Asks what no player asks.
    async fn probe(&self, playlist: &Answer, media: &Media) {
        let ask = async |probe: Probe, url: &str, head: &[(&'static str, &str)]| {
            self.follower
                .ask(Role::Probe(probe), &self.name, url, head)
                .await;
        };
        ask(Probe::Gzip, &self.url, &[("accept-encoding", "gzip")]).await;
        if let Some(tag) = playlist.header("etag") {
            let probe = Probe::NotModified {
                tag: tag.to_owned(),
            };
            ask(probe, &self.url, &[("if-none-match", tag)]).await;
        }
        let whole = media
            .segments
            .iter()
            .rfind(|segment| !segment.gap && !segment.is_range);
        if let Some(segment) = whole {
            let url = join(&self.url, &segment.uri);
            let answer = self.follower.source.get(&url, &[]).await;
            if let Some(tag) = answer.header("etag") {
                let probe = Probe::NotModified {
                    tag: tag.to_owned(),
                };
                ask(probe, &url, &[("if-none-match", tag)]).await;
            }
            self.probe_methods(&url, &answer).await;
            let expected = answer.body.slice(..answer.body.len().min(100));
            ask(Probe::Range { expected }, &url, &[("range", "bytes=0-99")]).await;
            let far = segment.msn.saturating_add(FAR).to_string();
            let number = segment.msn.to_string();
            if segment.uri.contains(&number) {
                let future = segment.uri.replace(&number, &far);
                ask(Probe::FarFuture, &join(&self.url, &future), &[]).await;
            }
            if let Some(part) = segment
                .parts
                .first()
                .filter(|part| part.uri.contains(&number))
            {
                let future = part.uri.replace(&number, &far);
                ask(Probe::FarFuture, &join(&self.url, &future), &[]).await;
            }
        }
        if !media.ended
            && media
                .control
                .as_ref()
                .is_some_and(|control| control.can_block)
        {
            ask(Probe::PartAlone, &with_query(&self.url, "_HLS_part=0"), &[]).await;
            let far = format!("_HLS_msn={}", media.next_msn().saturating_add(FAR));
            ask(Probe::TooFar, &with_query(&self.url, &far), &[]).await;
            if media
                .control
                .as_ref()
                .is_some_and(|control| control.can_skip_until_us.is_some())
            {
                let url = with_query(&self.url, "_HLS_skip=v2");
                ask(Probe::SkipV2, &url, &[]).await;
            }
        }
    }
}

impl Track {
    /// Asks for what was just answered by other methods than GET.
    async fn probe_methods(&self, url: &str, answer: &Answer) {
        let said = |name| answer.header(name).map(str::to_owned);
        let head = Probe::Head {
            content_type: said("content-type"),
            length: said("content-length"),
        };
        let preflight: &[(&str, &str)] = &[
            ("origin", "https://player.example"),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "range"),
        ];
        for (probe, method, lines) in [
            (head, Method::HEAD, &[][..]),
            (Probe::Options, Method::OPTIONS, preflight),
        ] {
            let asked_us = self.follower.clock.now_us();
            let (answer, _) = self.follower.source.ask(&method, url, lines).await;
            let role = Role::Probe(probe);
            self.follower
                .tell(role, &self.name, url, (asked_us, answer))
                .await;
        }
    }
}

fn with_query(url: &str, query: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{query}")
}
