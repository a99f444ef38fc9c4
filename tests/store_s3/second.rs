//! Two stores written side by side, one of which has a bad day.
//!
//! Enters: the film, and faults of the second store
//! Leaves: two buckets that kept the promise all along, each with everything in the end
//! Never:  a first store that notices
//! Time:   wall clock
//! Spec:   docs/storage.md

use std::process::Command;

use crate::common::{Server, eventually, ffmpeg_publish, get, headwater, run};
use crate::faults::{live_edge, stored_edge};
use crate::gateway::{Gateway, LIMIT, free_port};
use crate::proxy::{Fault, Proxy};
use crate::serve;
use crate::watch::{RENDITIONS, Watch, named};

/// `headwater serve` on two buckets of `gateway`, the second of them at `endpoint`.
fn serve_two(
    folder: &std::path::Path,
    gateway: &Gateway,
    second: (&str, &str),
    first: &str,
) -> Command {
    let url = format!("s3://{first}/origin");
    let command = serve(folder, &gateway.endpoint(), (&url, "SK"));
    add_second(folder, second);
    command
}

fn add_second(folder: &std::path::Path, (endpoint, bucket): (&str, &str)) {
    let config = folder.join("config.toml");
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str(&format!(
        "[store.second]\nurl = \"s3://{bucket}/copy\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n"
    ));
    std::fs::write(&config, text).unwrap();
}

fn metric(server: &Server, name: &str, store: &str) -> u64 {
    let text = server.get("/metrics").text();
    let name = format!("headwater_store_{name}{{store=\"{store}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value
        .unwrap_or_else(|| panic!("{name}: {text}"))
        .parse()
        .unwrap()
}

#[test]
fn a_second_store_that_fails_delays_nothing_and_has_everything_in_the_end() {
    let gateway = Gateway::shared();
    let (first, second) = (gateway.open_bucket(), gateway.open_bucket());
    let proxy = Proxy::start(gateway.authority().parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let command = serve_two(folder.path(), gateway, (&proxy.endpoint(), &second), &first);
    let mut server = Server::start_command(command, folder);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 600);
    let base = |bucket: &str, prefix: &str| format!("/{bucket}/{prefix}/live/film");
    let (one, two) = (base(&first, "origin"), base(&second, "copy"));
    let edge = |base: &str| stored_edge(gateway, base);
    eventually("both have the first", LIMIT, || {
        (edge(&one) > 0 && edge(&two) > 0).then_some(())
    });
    let watches = [&one, &two].map(|base| Watch::start(&gateway.authority(), base));

    proxy.set(Fault::Hung);
    let before = edge(&two);
    let now = eventually("the first goes on alone", LIMIT, || {
        let now = edge(&one);
        (now >= before + 4 && edge(&two) <= before + 1).then_some(now)
    });
    let ready = eventually("it says so", LIMIT, || {
        let ready = server.get("/readyz");
        ready.text().contains("second store").then_some(ready)
    });
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert_eq!(metric(&server, "failing", "first"), 0);
    assert_eq!(metric(&server, "failures_total", "first"), 0);
    assert_eq!(metric(&server, "failing", "second"), 1);
    proxy.set(Fault::None);
    eventually("the second has it too", LIMIT, || {
        (edge(&two) >= now).then_some(())
    });

    // The server dies while the second store is away, and begins without it.
    proxy.set(Fault::Broken);
    eventually("something waits on the disk", LIMIT, || {
        (metric(&server, "spooled_bytes", "second") > 0).then_some(())
    });
    server.process().kill();
    drop(publisher);
    let folder = server.into_store();
    let command = serve_two(folder.path(), gateway, (&proxy.endpoint(), &second), &first);
    let server = Server::start_command(command, folder);
    assert!(
        server.log().contains("store.second.url"),
        "{}",
        server.log()
    );
    let before = edge(&one);
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 600);
    eventually("the first goes on", LIMIT, || {
        (edge(&one) >= before + 3).then_some(())
    });
    proxy.set(Fault::None);
    let now = live_edge(&server);
    eventually("both have everything", LIMIT, || {
        (edge(&one) >= now && edge(&two) >= now).then_some(())
    });
    eventually("the spool is empty", LIMIT, || {
        (metric(&server, "spooled_bytes", "second") == 0).then_some(())
    });
    for store in ["first", "second"] {
        assert_eq!(metric(&server, "lost_total", store), 0, "{store}");
    }
    assert_tried(&server, &second);
    for watch in watches {
        let seen = watch.stop();
        assert!(seen.playlists > 10 && seen.objects > 10);
        assert_eq!(seen.violations, Vec::<String>::new());
    }
    drop(server);
    read_what_is_left(gateway, &second);
}

/// What `bucket` can do was found out, though it was away at the start.
fn assert_tried(server: &Server, bucket: &str) {
    let log = server.log();
    let tried = |line: &&str| line.contains("store open") && line.contains(bucket);
    let tried = log.lines().find(tried);
    assert!(tried.is_some_and(|line| line.contains("Enforced")), "{log}");
}

/// A server that only reads finds everything in the second store when the first is not there.
fn read_what_is_left(gateway: &Gateway, second: &str) {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    drop(serve(folder.path(), &nobody, ("s3://gone/origin", "SK")));
    add_second(folder.path(), (&gateway.endpoint(), second));
    let mut command = headwater(&["origin", "--http", "127.0.0.1:0"]);
    command
        .args(["--store", "s3://gone/origin", "--config"])
        .arg(folder.path().join("config.toml"))
        .env("AWS_ACCESS_KEY_ID", "AK")
        .env("AWS_SECRET_ACCESS_KEY", "SK");
    let server = Server::start_reader(command, folder);
    for rendition in RENDITIONS {
        let path = format!("/live/film/{rendition}/index.m3u8");
        // It may have been cut off: then it says so, with what is left.
        let found = eventually(&path, LIMIT, || {
            let found = server.get(&path);
            [200, 503].contains(&found.status).then_some(found)
        });
        let stored = get(&gateway.authority(), &format!("/{second}/copy{path}")).text();
        let name = stored.lines().rfind(|line| line.ends_with(".m4s")).unwrap();
        let segment = server.get(&format!("/live/film/{rendition}/{name}"));
        assert_eq!(segment.status, 200, "{} {stored}", found.status);
    }
}

/// What `bucket` keeps of the only show of the stream: the names of what its playlists list, all of which is there.
fn kept(gateway: &Gateway, bucket: &str, prefix: &str) -> Option<Vec<String>> {
    let there = gateway.list(bucket);
    let folder = format!("{prefix}/live/film");
    let is_record = |name: &&String| name.ends_with(".json") && name.contains("/show-");
    let mut records = there.iter().filter(is_record);
    let record = records.next()?;
    assert_eq!(records.next(), None, "one show: {there:#?}");
    let read = |name: &str| get(&gateway.authority(), &format!("/{bucket}/{name}")).text();
    if !read(record).contains("\"ended\":true") {
        return None;
    }
    let show = record.strip_prefix(&format!("{folder}/"))?;
    let show = show.replace(".json", ".m3u8");
    let mut names = Vec::new();
    for rendition in RENDITIONS {
        let text = read(&format!("{folder}/{rendition}/{show}"));
        assert!(!text.contains("#EXT-X-GAP"), "{text}");
        assert!(text.contains("#EXT-X-ENDLIST"), "{text}");
        names.extend(
            named(&text)
                .iter()
                .map(|name| format!("{rendition}/{name}")),
        );
    }
    for name in &names {
        assert!(there.contains(&format!("{folder}/{name}")), "{name}");
    }
    Some(names)
}

#[test]
fn both_stores_keep_the_whole_show_though_one_was_away_in_the_middle_of_it() {
    let gateway = Gateway::shared();
    // Whoever may write the first may not write the second, which is used by a profile of its own.
    let key = "elsewhere";
    let (first, second) = (gateway.open_bucket(), gateway.open_bucket_of_another(key));
    let proxy = Proxy::start(gateway.authority().parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut command = serve_two(folder.path(), gateway, (&proxy.endpoint(), &second), &first);
    let credentials = folder.path().join("credentials");
    let text = format!("[other]\naws_access_key_id = {key}\naws_secret_access_key = {key}\n");
    std::fs::write(&credentials, text).unwrap();
    command.env("AWS_SHARED_CREDENTIALS_FILE", &credentials);
    let config = folder.path().join("config.toml");
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str("profile = \"other\"\n");
    // The window is shorter than the show.
    text.push_str("[archive]\nkeep = \"1h\"\n[package]\nwindow_segments = 6\nkept_segments = 7\n");
    std::fs::write(&config, text).unwrap();
    let server = Server::start_command(command, folder);
    let mut publisher = ffmpeg_publish(&server.publish_url("film"), 20);
    let (one, two) = (
        format!("/{first}/origin/live/film"),
        format!("/{second}/copy/live/film"),
    );
    eventually("the second has the first", LIMIT, || {
        (stored_edge(gateway, &two) > 0).then_some(())
    });
    proxy.set(Fault::Broken);
    let before = stored_edge(gateway, &one);
    eventually("the first goes on alone", LIMIT, || {
        (stored_edge(gateway, &one) >= before + 3).then_some(())
    });
    proxy.set(Fault::None);
    publisher.wait(LIMIT);
    let whole = eventually("the show in the first", LIMIT, || {
        kept(gateway, &first, "origin")
    });
    assert!(whole.len() > 3 * 8, "{whole:?}");
    let copied = eventually("the show in the second", LIMIT, || {
        kept(gateway, &second, "copy")
    });
    assert_eq!(whole, copied);
    for store in ["first", "second"] {
        assert_eq!(metric(&server, "lost_total", store), 0, "{store}");
    }
    let (code, _) = server.drain();
    assert_eq!(code, 0);
}

#[test]
fn what_is_wrong_with_a_second_store_names_its_setting() {
    let gateway = Gateway::shared();
    let bucket = gateway.bucket();
    let folder = tempfile::tempdir().unwrap();
    let command = serve_two(
        folder.path(),
        gateway,
        (&gateway.endpoint(), "nowhere"),
        &bucket,
    );
    let (code, _, said) = run(command, LIMIT);
    assert_eq!(code, 1, "{said}");
    let told = "store.second.url: cannot write to s3://nowhere/copy";
    assert!(
        said.contains(told) && said.contains("store.second.endpoint"),
        "{said}"
    );
}
