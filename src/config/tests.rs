//! Tests of the configuration as a whole.
//!
//! Enters: texts, layers, and the files that document the keys
//! Leaves: nothing
//! Never:  a real environment

use super::*;
use crate::config::keys::KEYS;
use crate::package::LowLatency;
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::time::Duration;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::from_layers(text, &|_| None, &Options::default())
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

fn document(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn nothing_written_gives_the_defaults() {
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn every_problem_is_listed_with_path_place_and_fix() {
    let text = r#"
colour = "blue"

[ingest.rtmp]
listen = "1935"
max_connections = "many"
idle_timeout = 15
max_message = "1TiB"

[package]
segment = "0.5s"
part = "333.3ms"
window_segments = 3
kept_segments = -1
segmnt = "2s"

[serve]
allow_origin = "example.org"

[store]
url = "ftp://host"
"#;
    assert_eq!(
        parse(text).unwrap_err(),
        [
            "colour: there is no such key; docs/configuration.md lists all (line 2, column 1)",
            "ingest.rtmp.listen: \"1935\": is no IP address with a port; write it as in \
             \"0.0.0.0:8080\" or \"[::]:8080\" (line 5, column 1)",
            "ingest.rtmp.max_connections: a whole number without quotes is expected (line 6, column 1)",
            "ingest.rtmp.idle_timeout: text in quotes is expected, found the number 15 (line 7, column 1)",
            "ingest.rtmp.max_message: 1TiB is above 15MiB; use 256KiB to 15MiB (line 8, column 1)",
            "package.segment: 500ms is below 1s; use 1s to 10s (line 11, column 1)",
            "package.part: \"333.3ms\": it is not a whole number of ms (line 12, column 1)",
            "package.window_segments: 3 is below 6; use 6 to 10800 (line 13, column 1)",
            "package.kept_segments: -1 is below 7; use 7 to 21600 (line 14, column 1)",
            "package.segmnt: there is no such key; did you mean package.segment? (line 15, column 1)",
            "serve.allow_origin: \"example.org\": use \"*\" or one origin without a path, as in \
             \"https://example.org\" (line 18, column 1)",
            "store.url: \"ftp://host\": is of no known kind; use a folder, file:///folder, \
             s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory:// \
             (line 21, column 1)",
        ]
    );
}

#[test]
fn text_that_is_no_toml_is_refused_with_line_and_column() {
    let problems = parse("[package]\nsegment = 2s\npart = \n").unwrap_err();
    assert!(
        problems.iter().any(|p| p.contains("(line 2, column ")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|p| p.contains("(line 3, column ")),
        "{problems:?}"
    );
}

#[test]
fn a_table_in_the_place_of_a_key_and_the_reverse_are_refused() {
    let problems = parse("package = 1\n[store.url]\nx = 1").unwrap_err();
    assert_eq!(
        problems,
        [
            "package: is a table; write [package] and its keys below it (line 1, column 1)",
            "store.url: text in quotes is expected, found a table (line 2, column 8)",
        ]
    );
}

#[test]
fn values_have_to_fit_one_another() {
    for (text, problem) in [
        (
            "package.segment = '1s'\npackage.part = '600ms'",
            "package.part: 600ms is over half of package.segment, 1s; use 100ms to 500ms (line 2, column 9)",
        ),
        (
            "package.window_segments = 20",
            "package.kept_segments: 12 is not more than package.window_segments, 20; use 21 to 21600 (by default)",
        ),
        (
            "package.low_latency = 'yes'",
            "package.low_latency: true, false or \"ultra\" is expected, found another text (line 1, column 9)",
        ),
        (
            "store.fsync = 'yes'",
            "store.fsync: true or false is expected, found text (line 1, column 7)",
        ),
        (
            "ingest.rtmp.listen = '127.0.0.1:8080'",
            "serve.listen: 0.0.0.0:8080 is where ingest.rtmp.listen listens too; use another port \
             (by default)",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err(), [problem]);
    }
    assert!(parse("ingest.rtmp.listen = '127.0.0.1:0'\nserve.listen = '127.0.0.1:0'").is_ok());
    assert!(parse("ingest.rtmp.listen = '127.0.0.2:80'\nserve.listen = '127.0.0.1:80'").is_ok());
}

#[test]
fn ultra_shortens_parts_unless_they_are_set_and_asks_for_fast_encoders() {
    let config = parse("package.low_latency = 'ultra'").unwrap();
    assert_eq!(config.package.low_latency, LowLatency::Ultra);
    assert_eq!(config.package.part_ms.get(), 200);
    assert!(config.transcode.low_delay);
    let config = parse("package.low_latency = 'ultra'\npackage.part = '250ms'").unwrap();
    assert_eq!(config.package.part_ms.get(), 250);
    let config = parse("package.low_latency = true").unwrap();
    assert_eq!(config, Config::default());
}

/// One setting that all three layers can make: its key, its variable, how to give the flag, how to
/// read it back, and a value for each layer.
type Row = (
    &'static str,
    &'static str,
    fn(String) -> Options,
    fn(&Config) -> String,
    [&'static str; 3],
);

fn rows() -> Vec<Row> {
    vec![
        (
            "ingest.rtmp.listen",
            "HEADWATER_RTMP",
            |v| Options {
                rtmp: Some(v),
                ..Options::default()
            },
            |c| c.rtmp.listen.to_string(),
            ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"],
        ),
        (
            "serve.listen",
            "HEADWATER_HTTP",
            |v| Options {
                http: Some(v),
                ..Options::default()
            },
            |c| c.serve.listen.to_string(),
            ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"],
        ),
        (
            "store.url",
            "HEADWATER_STORE",
            |v| Options {
                store: Some(v),
                ..Options::default()
            },
            |c| c.store.url.clone(),
            ["/file", "/environment", "/flag"],
        ),
        (
            "transcode.ladder",
            "HEADWATER_LADDER",
            |v| Options {
                ladder: Some(v),
                ..Options::default()
            },
            |c| c.transcode.ladder.clone(),
            ["file", "environment", "flag"],
        ),
        (
            "log.level",
            "HEADWATER_LOG",
            |v| Options {
                log: Some(v),
                ..Options::default()
            },
            |c| c.log.level.to_string(),
            ["warn", "debug", "trace"],
        ),
    ]
}

#[test]
fn flag_goes_over_environment_over_file_over_default() {
    for (path, variable, flag, read, [file, environment, option]) in rows() {
        let text = format!("{path} = \"{file}\"");
        let set = |name: &str| (name == variable).then(|| environment.to_owned());
        let given = flag(option.to_owned());
        let none = Options::default();
        for (what, layers, expected) in [
            (
                "file over default",
                Config::from_layers(&text, &|_| None, &none),
                file,
            ),
            (
                "environment over default",
                Config::from_layers("", &set, &none),
                environment,
            ),
            (
                "environment over file",
                Config::from_layers(&text, &set, &none),
                environment,
            ),
            (
                "flag over default",
                Config::from_layers("", &|_| None, &given),
                option,
            ),
            (
                "flag over file",
                Config::from_layers(&text, &|_| None, &given),
                option,
            ),
            (
                "flag over environment",
                Config::from_layers("", &set, &given),
                option,
            ),
            (
                "flag over both",
                Config::from_layers(&text, &set, &given),
                option,
            ),
        ] {
            assert_eq!(read(&layers.unwrap()), expected, "{path}: {what}");
        }
    }
}

#[test]
fn every_twin_has_a_precedence_test() {
    let twins: Vec<_> = KEYS
        .iter()
        .filter_map(|key| Some((key.path, key.env?)))
        .collect();
    let tested: Vec<_> = rows().iter().map(|row| (row.0, row.1)).collect();
    assert!(twins.iter().all(|twin| tested.contains(twin)), "{twins:?}");
    assert!(
        KEYS.iter()
            .all(|key| key.env.is_some() == key.flag.is_some())
    );
}

#[test]
fn a_layer_that_says_nothing_leaves_the_others_alone() {
    let text = "store.url = '/file'\npackage.segment = '4s'";
    let empty = |_: &str| Some(String::new());
    let options = Options {
        http: Some("127.0.0.1:9".to_owned()),
        ..Options::default()
    };
    let config = Config::from_layers(text, &empty, &options).unwrap();
    assert_eq!(config.store.url, "/file");
    assert_eq!(config.package.segment_ms.get(), 4_000);
    assert_eq!(config.rtmp, Config::default().rtmp);
}

#[test]
fn a_problem_names_the_variable_or_flag_it_came_from() {
    let environment = |name: &str| (name == "HEADWATER_HTTP").then(|| "here".to_owned());
    let options = Options {
        log: Some("loud".to_owned()),
        ..Options::default()
    };
    let problems = Config::from_layers("", &environment, &options).unwrap_err();
    let origins: Vec<_> = problems
        .as_slice()
        .iter()
        .map(|p| p.origin.to_string())
        .collect();
    assert_eq!(origins, ["from HEADWATER_HTTP", "from --log"]);
}

#[test]
fn log_levels_are_words_or_directives() {
    for (level, good) in [
        ("info", true),
        ("info,headwater::ingest=debug", true),
        ("headwater=trace,off", true),
        ("verbose", false),
        ("", false),
        ("info,", false),
        ("=info", false),
        ("headwater=", false),
    ] {
        assert_eq!(Level::parse(level).is_ok(), good, "{level:?}");
    }
}

#[test]
fn the_sample_file_lists_every_key_with_its_default() {
    let text = document("deploy/config.toml");
    assert_eq!(parse(&text), Ok(Config::default()));
    let mut problems = Vec::new();
    let raw = raw::Raw::from_toml(&text, &mut problems);
    for key in KEYS {
        assert!(
            raw.get(key.path).is_some(),
            "deploy/config.toml lacks {}",
            key.path
        );
    }
}

#[test]
fn the_document_lists_every_key_with_its_default_and_twins() {
    let text = document("docs/configuration.md");
    for (key, (path, default)) in KEYS.iter().zip(show::values(&Config::default())) {
        assert_eq!(key.path, path, "show::values follows the order of KEYS");
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{path}` |")))
            .unwrap_or_else(|| panic!("docs/configuration.md lacks `{path}`"));
        assert!(
            row.contains(&format!("| `{default}` |")),
            "default of {path}: {row}"
        );
        for twin in [key.env, key.flag].into_iter().flatten() {
            assert!(row.contains(twin), "{path} lacks {twin}");
        }
    }
    let rows = text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(
        rows,
        KEYS.len(),
        "docs/configuration.md has a key that there is not"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = Config::load(Some(&path), &|_| None, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("none.toml"), "{error}");
    std::fs::write(
        &path,
        vec![b'#'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1],
    )
    .unwrap();
    let error = Config::load(Some(&path), &|_| None, &Options::default()).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
}

prop_compose! {
    fn configs()(
        ports in (0_u16..1000, 1000_u16..2000),
        connections in 1_usize..=65_536,
        timeouts in proptest::array::uniform3(1_000_u64..=300_000),
        message in (256_u32 << 10)..=(15 << 20),
        segment in 1_000_u32..=10_000,
        part in 100_u32..=500,
        segments in (6_u32..=10_800, 1_u32..=10_800),
        low_latency in prop::sample::select(vec![LowLatency::Off, LowLatency::On, LowLatency::Ultra]),
        fsync: bool,
        waiting in (16_u64 << 20)..=(4 << 30),
        folder in "/[^\\x00]{1,30}",
        ladder in "[a-z0-9_-]{1,20}",
        format in prop_oneof![Just(Format::Auto), Just(Format::Text), Just(Format::Json)],
    ) -> Config {
        let mut config = Config::default();
        config.log.format = format;
        config.rtmp.listen = ([127, 0, 0, 1], ports.0).into();
        config.serve.listen = ([0; 8], ports.1).into();
        config.rtmp.max_connections = connections;
        let [handshake, media, idle] = timeouts.map(Duration::from_millis);
        config.rtmp.handshake_timeout = handshake;
        config.rtmp.first_media_timeout = media;
        config.rtmp.idle_timeout = idle;
        config.rtmp.max_message_bytes = message;
        config.package.segment_ms = NonZeroU32::new(segment).unwrap();
        config.package.part_ms = NonZeroU32::new(part).unwrap();
        config.package.window_segments = segments.0;
        config.package.kept_segments = segments.0 + segments.1;
        config.package.low_latency = low_latency;
        config.transcode.low_delay = low_latency == LowLatency::Ultra;
        config.store.fsync = fsync;
        config.store.endpoint = format!("http://127.0.0.1:{}", ports.0);
        config.store.region = ladder.replace('_', "-");
        let (_, addressing) = store::Addressing::ALL[usize::from(ports.1 % 3)];
        config.store.addressing = addressing;
        config.store.timeout = media.min(Duration::from_secs(60));
        config.store.max_waiting_bytes = waiting;
        config.store.spool = match ports.1 % 3 {
            0 => store::SpoolPlace::Auto,
            1 => store::SpoolPlace::Off,
            _ => store::SpoolPlace::Folder(folder.replace("://", "").into()),
        };
        config.store.spool_max_bytes = waiting.max(64 << 20);
        config.store.spool_age = media.max(Duration::from_secs(60));
        config.store.leftover_grace = idle;
        config.store.second = (ports.0 % 2 == 0).then(|| store::Second {
            url: format!("s3://copy-{}/prefix", ports.1),
            endpoint: format!("https://other.example.org:{}", ports.1),
            region: ladder.replace('_', "-"),
            addressing,
            profile: ladder.clone(),
        });
        config.store.keep = match ports.1 % 3 {
            0 => store::Keep::Window,
            1 => store::Keep::Forever,
            _ => store::Keep::For(idle.max(Duration::from_secs(10))),
        };
        config.serve.max_connections = connections;
        (config.serve.opening_timeout, config.serve.idle_timeout) = (handshake, media);
        config.serve.drain_timeout = idle;
        config.serve.memory_bytes = waiting;
        config.store.url = folder.replace("://", "");
        config.transcode.ladder = ladder;
        config
    }
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_the_same(config in configs()) {
        prop_assert_eq!(parse(&config.to_toml()), Ok(config));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }
}

#[test]
fn what_means_a_backup_is_what_a_name_may_end_in() {
    let suffix = |text: &str| parse(&format!("[broadcast]\nbackup_suffix = {text:?}\n"));
    for legal in ["", "-2", ".b", "_backup"] {
        let config = suffix(legal).expect("legal");
        assert_eq!(config.broadcast.backup_suffix.to_string(), legal);
    }
    for wrong in ["/b", "ä", "a b", &"b".repeat(33)] {
        let problems = suffix(wrong).expect_err("wrong");
        assert!(problems[0].contains("use at most 32"), "{problems:?}");
    }
}

#[test]
fn what_is_said_of_a_second_store_has_to_make_sense() {
    for (text, told) in [
        (
            "store.second.region = 'x'",
            "store.second.region: there is no second store; say where it is with store.second.url",
        ),
        (
            "store.url = 's3://a/b'\nstore.second.url = 's3://a/b'",
            "store.second.url: \"s3://a/b\": is the same store as store.url",
        ),
        (
            "store.second.url = '/srv/copy'\nstore.second.profile = 'other'",
            "store.second.profile: \"other\": is for a store that speaks S3",
        ),
        (
            "store.second.url = 'ftp://a'",
            "store.second.url: \"ftp://a\": is of no known kind",
        ),
        (
            "store.second.url = '/srv/copy'\nstore.second.endpoint = 'nowhere'",
            "store.second.endpoint: \"nowhere\": use the address of the service alone",
        ),
    ] {
        let problems = parse(text).expect_err(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(told), "{}", problems[0]);
    }
    let config = parse("store.second.url = 's3://a/b'\nstore.second.endpoint = 'http://h:1'");
    let second = config.expect("sound").store.second.expect("named");
    assert_eq!(
        (&*second.url, &*second.endpoint),
        ("s3://a/b", "http://h:1")
    );
    let same = "store.url = 's3://a/b'\nstore.second.url = 's3://a/b'\nstore.second.endpoint = 'http://h:1'";
    assert!(
        parse(same).is_ok(),
        "another service may have a bucket of the same name"
    );
}
