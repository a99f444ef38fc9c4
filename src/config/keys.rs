//! Lists every key of the configuration, once: what may be written, from where, in which order.
//!
//! Enters: nothing; this is a table
//! Leaves: [`KEYS`], which reading, showing and the documents' tests all follow
//! Never:  values, defaults, rules
//! Spec:   docs/configuration.md

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The tables and the name, joined by dots: `package.segment`.
    pub path: &'static str,
    /// The environment variable that says the same.
    pub env: Option<&'static str>,
    /// The command-line flag that says the same.
    pub flag: Option<&'static str>,
}

/// Every key there is, in the order of `deploy/config.toml`; the keys of one table are neighbours.
pub const KEYS: &[Key] = &[
    twin("log.level", "HEADWATER_LOG", "--log"),
    plain("log.format"),
    twin("ingest.rtmp.listen", "HEADWATER_RTMP", "--rtmp"),
    plain("ingest.rtmp.max_connections"),
    plain("ingest.rtmp.handshake_timeout"),
    plain("ingest.rtmp.first_media_timeout"),
    plain("ingest.rtmp.idle_timeout"),
    plain("ingest.rtmp.max_message"),
    plain("broadcast.hold"),
    plain("broadcast.slate"),
    plain("broadcast.reconnect_grace"),
    plain("broadcast.displace"),
    plain("broadcast.backup_suffix"),
    plain("broadcast.return_after"),
    twin("transcode.ladder", "HEADWATER_LADDER", "--ladder"),
    plain("package.segment"),
    plain("package.part"),
    plain("package.window_segments"),
    plain("package.kept_segments"),
    plain("package.low_latency"),
    twin("store.url", "HEADWATER_STORE", "--store"),
    plain("store.endpoint"),
    plain("store.region"),
    plain("store.addressing"),
    plain("store.timeout"),
    plain("store.fsync"),
    plain("store.max_waiting"),
    plain("store.spool"),
    plain("store.spool_max"),
    plain("store.spool_age"),
    plain("store.leftover_grace"),
    plain("store.second.url"),
    plain("store.second.endpoint"),
    plain("store.second.region"),
    plain("store.second.addressing"),
    plain("store.second.profile"),
    plain("archive.keep"),
    plain("archive.dvr"),
    twin("serve.listen", "HEADWATER_HTTP", "--http"),
    plain("serve.allow_origin"),
    plain("serve.max_connections"),
    plain("serve.opening_timeout"),
    plain("serve.idle_timeout"),
    plain("serve.drain_timeout"),
    plain("serve.memory"),
];

const fn plain(path: &'static str) -> Key {
    Key {
        path,
        env: None,
        flag: None,
    }
}

const fn twin(path: &'static str, env: &'static str, flag: &'static str) -> Key {
    Key {
        path,
        env: Some(env),
        flag: Some(flag),
    }
}

/// The key at `path`.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `path` is a table that holds keys.
#[must_use]
pub fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| {
        key.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The key that a mistyped `path` most likely meant: at most two letters off, or the same name in
/// another table.
#[must_use]
pub fn nearest(path: &str) -> Option<&'static str> {
    let name = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let wanted = path.rsplit('.').next().unwrap_or(path);
    KEYS.iter()
        .map(|key| (distance(key.path, path), key.path))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, path)| path)
        .or_else(|| {
            let mut same = KEYS.iter().filter(|key| name(key.path) == wanted);
            match (same.next(), same.next()) {
                (Some(key), None) => Some(key.path),
                _ => None,
            }
        })
}

/// Letters to insert, remove or change to make `a` of `b`; paths over 64 bytes are far from all.
fn distance(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let changed = diagonal + usize::from(from != *to);
            diagonal = *above;
            left = changed.min(left + 1).min(*above + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_table_are_neighbours() {
        let tables: Vec<_> = KEYS
            .iter()
            .filter_map(|key| key.path.rsplit_once('.'))
            .map(|(table, _)| table)
            .collect();
        let mut runs = tables.clone();
        runs.dedup();
        let mut unique = tables;
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(runs.len(), unique.len());
    }

    #[test]
    fn a_typing_mistake_finds_its_key() {
        for (typed, meant) in [
            ("package.segmnt", Some("package.segment")),
            ("packge.part", Some("package.part")),
            ("rtmp.max_message", Some("ingest.rtmp.max_message")),
            ("listen", None),
            ("package.colour", None),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
