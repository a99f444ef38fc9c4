//! Writes a configuration as the TOML that gives it again.
//!
//! Enters: a [`Config`]
//! Leaves: text with every key, in the order of [`KEYS`](crate::config::keys::KEYS)
//! Never:  comments, secrets (there are none here)
//! Spec:   docs/configuration.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::num::NonZeroU32;
use std::time::Duration;

use toml::Value;

use crate::config::Config;
use crate::config::archive::print_keep;
use crate::config::units::{print_duration, print_size};
use crate::config::validate::ULTRA;
use crate::package::LowLatency;
use crate::store;

/// Every key with its value, in the order of the list of keys.
pub(crate) fn values(config: &Config) -> Vec<(&'static str, Value)> {
    let (rtmp, package) = (&config.rtmp, &config.package);
    let (store, serve) = (&config.store, &config.serve);
    let mut values = vec![
        ("log.level", text(&config.log.level)),
        ("log.format", text(config.log.format.as_str())),
        ("ingest.rtmp.listen", text(rtmp.listen)),
        ("ingest.rtmp.max_connections", count(rtmp.max_connections)),
        (
            "ingest.rtmp.handshake_timeout",
            time(rtmp.handshake_timeout),
        ),
        (
            "ingest.rtmp.first_media_timeout",
            time(rtmp.first_media_timeout),
        ),
        ("ingest.rtmp.idle_timeout", time(rtmp.idle_timeout)),
        (
            "ingest.rtmp.max_message",
            text(print_size(rtmp.max_message_bytes.into())),
        ),
        ("broadcast.hold", time(config.broadcast.hold)),
        ("broadcast.slate", text(&config.broadcast.slate)),
        (
            "broadcast.reconnect_grace",
            text(config.broadcast.reconnect_grace),
        ),
        ("broadcast.displace", text(config.broadcast.displace)),
        (
            "broadcast.backup_suffix",
            text(&config.broadcast.backup_suffix),
        ),
        (
            "broadcast.return_after",
            time(config.broadcast.return_after),
        ),
        ("transcode.ladder", text(&config.transcode.ladder)),
        ("package.segment", millis(package.segment_ms)),
        ("package.part", millis(package.part_ms)),
        (
            "package.window_segments",
            Value::Integer(package.window_segments.into()),
        ),
        (
            "package.kept_segments",
            Value::Integer(package.kept_segments.into()),
        ),
        ("package.low_latency", low_latency(package.low_latency)),
    ];
    values.extend(stores(store));
    values.extend([
        ("archive.keep", text(print_keep(store.keep))),
        ("archive.dvr", time(package.dvr)),
        ("serve.listen", text(serve.listen)),
        ("serve.allow_origin", text(&serve.allow_origin)),
        ("serve.max_connections", count(serve.max_connections)),
        ("serve.opening_timeout", time(serve.opening_timeout)),
        ("serve.idle_timeout", time(serve.idle_timeout)),
        ("serve.drain_timeout", time(serve.drain_timeout)),
        ("serve.memory", text(print_size(serve.memory_bytes))),
    ]);
    values
}

/// Those of both stores.
fn stores(store: &store::Config) -> Vec<(&'static str, Value)> {
    let second = store.second.clone().unwrap_or_default();
    vec![
        ("store.url", text(&store.url)),
        ("store.endpoint", text(&store.endpoint)),
        ("store.region", text(&store.region)),
        ("store.addressing", text(addressing(store.addressing))),
        ("store.timeout", time(store.timeout)),
        ("store.fsync", Value::Boolean(store.fsync)),
        ("store.max_waiting", size(store.max_waiting_bytes)),
        ("store.spool", text(&store.spool)),
        ("store.spool_max", text(print_size(store.spool_max_bytes))),
        ("store.spool_age", time(store.spool_age)),
        ("store.leftover_grace", time(store.leftover_grace)),
        ("store.second.url", text(&second.url)),
        ("store.second.endpoint", text(&second.endpoint)),
        ("store.second.region", text(&second.region)),
        (
            "store.second.addressing",
            text(addressing(second.addressing)),
        ),
        ("store.second.profile", text(&second.profile)),
    ]
}

fn size(bytes: u64) -> Value {
    text(print_size(bytes))
}

/// The whole as TOML.
pub(crate) fn render(config: &Config) -> String {
    let mut out = String::new();
    let mut open = "";
    for (path, value) in values(config) {
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        if table != open {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&format!("[{table}]\n"));
            open = table;
        }
        out.push_str(&format!("{name} = {value}\n"));
    }
    out
}

fn low_latency(value: LowLatency) -> Value {
    match value {
        LowLatency::Off | LowLatency::On => Value::Boolean(value.is_on()),
        LowLatency::Ultra => text(ULTRA),
    }
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn time(value: Duration) -> Value {
    Value::String(print_duration(value))
}

fn millis(value: NonZeroU32) -> Value {
    time(Duration::from_millis(u64::from(value.get())))
}

fn count(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn addressing(value: store::Addressing) -> &'static str {
    let named = store::Addressing::ALL
        .iter()
        .find(|(_, other)| *other == value);
    named.map_or("auto", |(name, _)| name)
}
