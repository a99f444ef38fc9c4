//! Gives what was written its meaning: units, ranges, defaults and the rules between keys.
//!
//! Enters: [`Raw`], values as written
//! Leaves: a [`Config`], or every [`Problem`] there is, each with what to write instead
//! Never:  files, the environment, ports: whether an address is free is `doctor`'s to find
//! Time:   whole milliseconds
//! Spec:   [HLS] §4.4.3.1, §4.4.3.7; docs/configuration.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::archive::{parse_dvr, parse_keep, why_not_kept};
use crate::config::log::{Format, Level};
use crate::config::place::{addressing, endpoint, profile, region, second_url, store_url};
use crate::config::problem::{Origin, Problem};
use crate::config::raw::{Raw, Scalar};
use crate::config::units::{parse_duration, parse_size, print_duration, print_size};
use crate::config::{BackupSuffix, Broadcast, Config, Displace, Grace, Log, Slate};
use crate::config::{package, rtmp, serve, store, transcode};
use crate::package::LowLatency;

/// The longest name, path or URL, in bytes: the longest path that Linux opens.
const MAX_TEXT_BYTES: usize = 4096;
/// The longest segment: beyond it a player waits longer for a picture than its user does.
const MAX_SEGMENT: Duration = Duration::from_secs(10);
/// The shortest segment: below it the fetches cost more than the media.
const MIN_SEGMENT: Duration = Duration::from_secs(1);
/// The shortest part: three frames at 30 per second.
const MIN_PART: Duration = Duration::from_millis(100);
/// What `package.low_latency` says for the least latency.
pub(crate) const ULTRA: &str = "ultra";
/// How long a part is then, unless `package.part` says otherwise.
const ULTRA_PART_MS: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
/// The fewest segments listed: players start three from the end and need as many again to turn back.
const MIN_WINDOW_SEGMENTS: u32 = 6;
/// The most segments listed: what a playlist costs to send and to read grows with it.
const MAX_WINDOW_SEGMENTS: u32 = 10_800;
/// The most segments kept beyond the listed ones.
const MAX_KEPT_SEGMENTS: u32 = 2 * MAX_WINDOW_SEGMENTS;
/// The longest patience with a silent connection: longer, and the dead hold the places of the living.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// The shortest: a round trip across the world and a slow start fit in it.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest hold: a slate that flashes up for less is worse than a picture that stands.
const MIN_HOLD: Duration = Duration::from_millis(100);
/// The longest: a picture that stands for longer looks like a fault of the player.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// The shortest that a primary input must have been steady to be live again: as long as two switches lie apart.
const MIN_RETURN: Duration = Duration::from_secs(2);
/// The longest: who never wants it back leaves the primary unpublished.
const MAX_RETURN: Duration = Duration::from_secs(24 * 3600);
/// The smallest message limit: a key frame of a modest broadcast.
const MIN_MESSAGE_BYTES: u64 = 256 << 10;
/// The largest: RTMP's length field ends one byte short of 16 MiB.
const MAX_MESSAGE_BYTES: u64 = 15 << 20;
/// The most connections: as many as a process may have files open where systems are generous.
const MAX_CONNECTIONS: u64 = 65_536;
/// The shortest time for a request to a store: a segment of a large rung over a slow line.
const MIN_STORE_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest: beyond it what waits behind has left the live window.
const MAX_STORE_TIMEOUT: Duration = Duration::from_secs(60);
/// The least that may wait for the store: a segment of a ladder, twice over.
const MIN_WAITING_BYTES: u64 = 16 << 20;
/// The most: it is memory, for each broadcast.
const MAX_WAITING_BYTES: u64 = 4 << 30;
/// The least that the spool may hold: a minute of a ladder.
const MIN_SPOOL_BYTES: u64 = 64 << 20;
/// The most: more than a disk has.
const MAX_SPOOL_BYTES: u64 = 16 << 40;
/// The shortest time that media may wait for the store: that of a restart.
const MIN_SPOOL_AGE: Duration = Duration::from_secs(60);
/// The longest.
const MAX_SPOOL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// What `serve.memory` may be: some segments, to more than any machine has.
const MIN_MEMORY_BYTES: u64 = 16 << 20;
const MAX_MEMORY_BYTES: u64 = 1 << 40;
/// The longest that leftovers are kept.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);

/// What is said of a second store, beside where it is.
const SECOND: [&str; 4] = [
    "store.second.endpoint",
    "store.second.region",
    "store.second.addressing",
    "store.second.profile",
];

/// Gives `raw` its meaning. Whatever is wrong is added to `problems`; then the value returned holds
/// the default in its place and is not for use.
pub(crate) fn validate(raw: &Raw, problems: &mut Vec<Problem>) -> Config {
    let mut reader = Reader { raw, problems };
    let config = Config {
        log: reader.log(),
        rtmp: reader.rtmp(),
        broadcast: reader.broadcast(),
        transcode: reader.transcode(),
        package: reader.package(),
        store: reader.store(),
        serve: reader.serve(),
    };
    reader.rules_between_stages(&config);
    config
}

struct Reader<'a> {
    raw: &'a Raw,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn log(&mut self) -> Log {
        let default = Log::default();
        Log {
            level: self.parsed("log.level", default.level, Level::parse),
            format: self.parsed("log.format", default.format, Format::parse),
        }
    }

    fn rtmp(&mut self) -> rtmp::Config {
        let mut config = rtmp::Config::default();
        let timeout = MIN_TIMEOUT..=MAX_TIMEOUT;
        config.listen = self.parsed("ingest.rtmp.listen", config.listen, address);
        config.max_connections =
            self.connections("ingest.rtmp.max_connections", config.max_connections);
        for (path, value) in [
            (
                "ingest.rtmp.handshake_timeout",
                &mut config.handshake_timeout,
            ),
            (
                "ingest.rtmp.first_media_timeout",
                &mut config.first_media_timeout,
            ),
            ("ingest.rtmp.idle_timeout", &mut config.idle_timeout),
        ] {
            *value = self.duration(path, *value, timeout.clone());
        }
        let message = self.size(
            "ingest.rtmp.max_message",
            u64::from(config.max_message_bytes),
            MIN_MESSAGE_BYTES..=MAX_MESSAGE_BYTES,
        );
        config.max_message_bytes = u32::try_from(message).unwrap_or(config.max_message_bytes);
        config
    }

    fn broadcast(&mut self) -> Broadcast {
        let default = Broadcast::default();
        Broadcast {
            hold: self.duration("broadcast.hold", default.hold, MIN_HOLD..=MAX_HOLD),
            slate: self.parsed("broadcast.slate", default.slate, |text| {
                Slate::parse(text).map_err(|why| quoted(text, &why))
            }),
            reconnect_grace: self.parsed(
                "broadcast.reconnect_grace",
                default.reconnect_grace,
                |text| Grace::parse(text).map_err(|why| quoted(text, &why)),
            ),
            displace: self.parsed("broadcast.displace", default.displace, |text| {
                Displace::parse(text).map_err(|why| quoted(text, &why))
            }),
            backup_suffix: self.parsed("broadcast.backup_suffix", default.backup_suffix, |text| {
                BackupSuffix::parse(text).map_err(|why| quoted(text, &why))
            }),
            return_after: self.duration(
                "broadcast.return_after",
                default.return_after,
                MIN_RETURN..=MAX_RETURN,
            ),
        }
    }

    fn transcode(&mut self) -> transcode::Config {
        let mut config = transcode::Config::default();
        config.ladder = self.parsed("transcode.ladder", config.ladder, ladder);
        // One word to the operator, two stages that it concerns.
        config.low_delay = self.is_ultra();
        config
    }

    fn package(&mut self) -> package::Config {
        let mut config = package::Config::default();
        config.dvr = self.parsed("archive.dvr", config.dvr, parse_dvr);
        config.segment_ms = self.millis(
            "package.segment",
            config.segment_ms,
            MIN_SEGMENT..=MAX_SEGMENT,
        );
        if self.is_ultra() {
            config.part_ms = ULTRA_PART_MS;
        }
        config.part_ms = self.millis("package.part", config.part_ms, MIN_PART..=MAX_SEGMENT / 2);
        config.window_segments = self.count_u32(
            "package.window_segments",
            config.window_segments,
            MIN_WINDOW_SEGMENTS..=MAX_WINDOW_SEGMENTS,
        );
        config.kept_segments = self.count_u32(
            "package.kept_segments",
            config.kept_segments,
            MIN_WINDOW_SEGMENTS + 1..=MAX_KEPT_SEGMENTS,
        );
        config.low_latency = self.low_latency(config.low_latency);
        self.rules_of_package(&config);
        config
    }

    fn is_ultra(&self) -> bool {
        let value = self
            .raw
            .get("package.low_latency")
            .map(|entry| &entry.value);
        matches!(value, Some(Scalar::Text(text)) if text == ULTRA)
    }

    fn low_latency(&mut self, default: LowLatency) -> LowLatency {
        let path = "package.low_latency";
        let found = match self.raw.get(path).map(|entry| &entry.value) {
            None => return default,
            Some(Scalar::Switch(switch)) => return LowLatency::from(*switch),
            Some(Scalar::Text(text)) if text == ULTRA => return LowLatency::Ultra,
            Some(Scalar::Text(_)) => "another text",
            Some(Scalar::Count(_)) => "a number",
            Some(Scalar::Other(kind)) => kind,
        };
        let text = format!("true, false or {ULTRA:?} is expected, found {found}");
        self.refuse(path, text);
        default
    }

    fn rules_of_package(&mut self, config: &package::Config) {
        let (part, segment) = (
            milliseconds(config.part_ms),
            milliseconds(config.segment_ms),
        );
        if self.all_sound(&["package.segment", "package.part"]) && part > segment / 2 {
            let (part, segment) = (print_duration(part), print_duration(segment));
            let (least, most) = (print_duration(MIN_PART), config.segment_ms.get() / 2);
            self.refuse(
                "package.part",
                format!(
                    "{part} is over half of package.segment, {segment}; use {least} to {most}ms"
                ),
            );
        }
        let (kept, listed) = (config.kept_segments, config.window_segments);
        if self.all_sound(&["package.window_segments", "package.kept_segments"]) && kept <= listed {
            // Players may hold a playlist for as long as it is, and fetch what it names.
            self.refuse(
                "package.kept_segments",
                format!(
                    "{kept} is not more than package.window_segments, {listed}; use {} to {}",
                    listed + 1,
                    MAX_KEPT_SEGMENTS
                ),
            );
        }
    }

    fn store(&mut self) -> store::Config {
        let mut config = store::Config::default();
        config.url = self.parsed("store.url", config.url, store_url);
        config.endpoint = self.parsed("store.endpoint", config.endpoint, endpoint);
        config.region = self.parsed("store.region", config.region, region);
        config.addressing = self.parsed("store.addressing", config.addressing, addressing);
        config.timeout = self.duration(
            "store.timeout",
            config.timeout,
            MIN_STORE_TIMEOUT..=MAX_STORE_TIMEOUT,
        );
        config.fsync = self.switch("store.fsync", config.fsync);
        config.max_waiting_bytes = self.size(
            "store.max_waiting",
            config.max_waiting_bytes,
            MIN_WAITING_BYTES..=MAX_WAITING_BYTES,
        );
        config.spool = self.parsed("store.spool", config.spool, |text| {
            text.parse().map_err(|complaint| quoted(text, &complaint))
        });
        config.spool_max_bytes = self.size(
            "store.spool_max",
            config.spool_max_bytes,
            MIN_SPOOL_BYTES..=MAX_SPOOL_BYTES,
        );
        config.spool_age = self.duration(
            "store.spool_age",
            config.spool_age,
            MIN_SPOOL_AGE..=MAX_SPOOL_AGE,
        );
        config.leftover_grace = self.duration(
            "store.leftover_grace",
            config.leftover_grace,
            Duration::ZERO..=MAX_GRACE,
        );
        config.keep = self.parsed("archive.keep", config.keep, parse_keep);
        config.second = self.second_store(&config);
        config
    }

    fn second_store(&mut self, first: &store::Config) -> Option<store::Second> {
        let default = store::Second::default();
        let url = "store.second.url";
        let second = store::Second {
            url: self.parsed(url, default.url, second_url),
            endpoint: self.parsed("store.second.endpoint", default.endpoint, endpoint),
            region: self.parsed("store.second.region", default.region, region),
            addressing: self.parsed("store.second.addressing", default.addressing, addressing),
            profile: self.parsed("store.second.profile", default.profile, profile),
        };
        if second.url.is_empty() {
            if let Some(path) = SECOND.into_iter().find(|path| self.raw.get(path).is_some())
                && second != store::Second::default()
            {
                let text = "there is no second store; say where it is with store.second.url";
                self.refuse(path, text.to_owned());
            }
            return None;
        }
        if (&second.url, &second.endpoint) == (&first.url, &first.endpoint) {
            let text = "is the same store as store.url; name another one, or none";
            self.refuse(url, quoted(&second.url, &text));
        }
        if !second.profile.is_empty() && !second.url.starts_with("s3://") {
            let text = "is for a store that speaks S3, which store.second.url does not name";
            self.refuse("store.second.profile", quoted(&second.profile, &text));
        }
        Some(second)
    }

    fn serve(&mut self) -> serve::Config {
        let mut config = serve::Config::default();
        let timeout = MIN_TIMEOUT..=MAX_TIMEOUT;
        config.listen = self.parsed("serve.listen", config.listen, address);
        config.allow_origin = self.parsed("serve.allow_origin", config.allow_origin, allow_origin);
        config.max_connections = self.connections("serve.max_connections", config.max_connections);
        for (path, value) in [
            ("serve.opening_timeout", &mut config.opening_timeout),
            ("serve.idle_timeout", &mut config.idle_timeout),
            ("serve.drain_timeout", &mut config.drain_timeout),
        ] {
            *value = self.duration(path, *value, timeout.clone());
        }
        config.memory_bytes = self.size(
            "serve.memory",
            config.memory_bytes,
            MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES,
        );
        config
    }

    fn rules_between_stages(&mut self, config: &Config) {
        let why_not = why_not_kept(config.package.dvr, config.store.keep);
        if let Some(why) = why_not.filter(|_| self.all_sound(&["archive.keep", "archive.dvr"])) {
            self.refuse("archive.dvr", why);
        }
        let (rtmp, http) = (config.rtmp.listen, config.serve.listen);
        let same_host = rtmp.ip() == http.ip()
            || (rtmp.is_ipv4() == http.is_ipv4()
                && (rtmp.ip().is_unspecified() || http.ip().is_unspecified()));
        let sound = self.all_sound(&["ingest.rtmp.listen", "serve.listen"]);
        // Port 0 asks the system for a free one, so two of them never meet.
        if sound && same_host && rtmp.port() == http.port() && rtmp.port() != 0 {
            self.refuse(
                "serve.listen",
                format!("{http} is where ingest.rtmp.listen listens too; use another port"),
            );
        }
    }

    /// A text, given its meaning by `parse`, which answers what is wrong and what to write.
    fn parsed<T>(
        &mut self,
        path: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.text(path) else {
            return default;
        };
        match parse(text) {
            Ok(value) => value,
            Err(why) => {
                self.refuse(path, why);
                default
            }
        }
    }

    fn text(&mut self, path: &'static str) -> Option<&str> {
        let found = match &self.raw.get(path)?.value {
            Scalar::Text(text) if text.len() <= MAX_TEXT_BYTES => return Some(text),
            Scalar::Text(_) => format!("is longer than {MAX_TEXT_BYTES} bytes"),
            Scalar::Count(count) => {
                format!("text in quotes is expected, found the number {count}")
            }
            Scalar::Switch(_) => "text in quotes is expected, found true or false".to_owned(),
            Scalar::Other(kind) => format!("text in quotes is expected, found {kind}"),
        };
        self.refuse(path, found);
        None
    }

    fn duration(
        &mut self,
        path: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.parsed(path, default, |text| {
            let value = parse_duration(text).map_err(|why| quoted(text, &why))?;
            within(value, &range, print_duration)
        })
    }

    fn millis(
        &mut self,
        path: &'static str,
        default: NonZeroU32,
        range: RangeInclusive<Duration>,
    ) -> NonZeroU32 {
        let value = self.duration(path, milliseconds(default), range);
        u32::try_from(value.as_millis())
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(default)
    }

    fn size(&mut self, path: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.parsed(path, default, |text| {
            let value = parse_size(text).map_err(|why| quoted(text, &why))?;
            within(value, &range, print_size)
        })
    }

    fn count(&mut self, path: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(entry) = self.raw.get(path) else {
            return default;
        };
        let checked = match &entry.value {
            Scalar::Count(count) => match u64::try_from(*count) {
                Ok(count) => within(count, &range, |count| count.to_string()),
                Err(_) => Err(outside(count, "below", range.start(), &range, |n| {
                    n.to_string()
                })),
            },
            Scalar::Text(_) => Err("a whole number without quotes is expected".to_owned()),
            Scalar::Switch(_) => Err("a whole number is expected, found true or false".to_owned()),
            Scalar::Other(kind) => Err(format!("a whole number is expected, found {kind}")),
        };
        match checked {
            Ok(count) => count,
            Err(why) => {
                self.refuse(path, why);
                default
            }
        }
    }

    fn count_u32(&mut self, path: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        u32::try_from(self.count(path, u64::from(default), range)).unwrap_or(default)
    }

    fn connections(&mut self, path: &'static str, default: usize) -> usize {
        usize::try_from(self.count(path, default as u64, 1..=MAX_CONNECTIONS)).unwrap_or(default)
    }

    fn switch(&mut self, path: &'static str, default: bool) -> bool {
        let found = match self.raw.get(path).map(|entry| &entry.value) {
            None => return default,
            Some(Scalar::Switch(switch)) => return *switch,
            Some(Scalar::Text(_)) => "text",
            Some(Scalar::Count(_)) => "a number",
            Some(Scalar::Other(kind)) => kind,
        };
        self.refuse(path, format!("true or false is expected, found {found}"));
        default
    }

    fn refuse(&mut self, path: &'static str, text: String) {
        let origin = self
            .raw
            .get(path)
            .map_or(Origin::Default, |entry| entry.origin.clone());
        self.problems.push(Problem {
            path: path.to_owned(),
            origin,
            text,
        });
    }

    fn all_sound(&self, paths: &[&str]) -> bool {
        !self
            .problems
            .iter()
            .any(|problem| paths.contains(&problem.path.as_str()))
    }
}

fn milliseconds(value: NonZeroU32) -> Duration {
    Duration::from_millis(u64::from(value.get()))
}

fn within<T: PartialOrd + Copy>(
    value: T,
    range: &RangeInclusive<T>,
    print: fn(T) -> String,
) -> Result<T, String> {
    if value < *range.start() {
        Err(outside(print(value), "below", range.start(), range, print))
    } else if value > *range.end() {
        Err(outside(print(value), "above", range.end(), range, print))
    } else {
        Ok(value)
    }
}

fn outside<T: Copy>(
    value: impl Display,
    side: &str,
    limit: &T,
    range: &RangeInclusive<T>,
    print: fn(T) -> String,
) -> String {
    let (limit, from, to) = (print(*limit), print(*range.start()), print(*range.end()));
    format!("{value} is {side} {limit}; use {from} to {to}")
}

/// A complaint that shows the text, cut to what fits a line.
pub(super) fn quoted(text: &str, why: &impl Display) -> String {
    let shown: String = text.chars().take(60).collect();
    format!("{shown:?}: {why}")
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        quoted(
            text,
            &"is no IP address with a port; write it as in \"0.0.0.0:8080\" or \"[::]:8080\"",
        )
    })
}

fn ladder(text: &str) -> Result<String, String> {
    let is_path = text.contains('/') || text.ends_with(".toml");
    let is_name = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    if is_path || is_name {
        Ok(text.to_owned())
    } else {
        Err(quoted(
            text,
            &"is neither the name of a ladder (a-z 0-9 _ -) nor the path of a .toml file",
        ))
    }
}

fn allow_origin(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_origin = host.is_some_and(|host| {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'))
    });
    if text == "*" || is_origin {
        Ok(text.to_owned())
    } else {
        Err(quoted(
            text,
            &"use \"*\" or one origin without a path, as in \"https://example.org\"",
        ))
    }
}
