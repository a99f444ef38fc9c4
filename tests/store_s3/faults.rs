//! What the real server does while a real service has a bad day.
//!
//! Enters: the film, and faults one after the other
//! Leaves: a bucket that kept the promise all along, and has everything in the end
//! Never:  a time that is measured: how long a fault lasts is decided by what goes on meanwhile
//! Time:   wall clock
//! Spec:   [HLS]

use crate::common::{Server, eventually, ffmpeg_publish, run};
use crate::gateway::{Gateway, LIMIT};
use crate::proxy::{Fault, Proxy};
use crate::serve;
use crate::watch::{RENDITIONS, Watch, last_number, named};

/// A server whose way to `gateway` leads through a proxy that behaves like this at first.
fn serve_through(gateway: &Gateway, bucket: &str, fault: Fault) -> (Proxy, Server) {
    let proxy = Proxy::start(gateway.authority().parse().unwrap());
    proxy.set(fault);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("s3://{bucket}/origin");
    let command = serve(folder.path(), &proxy.endpoint(), (&url, "SK"));
    (proxy, Server::start_command(command, folder))
}

fn metric(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").text();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines.find(|(found, _)| *found == format!("headwater_store_{name}"));
    value.map_or(0, |(_, value)| value.parse().unwrap())
}

/// The last number that the server lists.
pub(crate) fn live_edge(server: &Server) -> u64 {
    last_number(&server.get("/live/film/v180/index.m3u8").text())
}

/// The last number that the bucket lists in the folder `base` of the stream.
pub(crate) fn stored_edge(gateway: &Gateway, base: &str) -> u64 {
    let path = format!("{base}/v180/index.m3u8");
    last_number(&crate::common::get(&gateway.authority(), &path).text())
}

fn base(bucket: &str) -> String {
    format!("/{bucket}/origin/live/film")
}

/// Waits until the bucket lists what the server lists now.
fn catch_up(server: &Server, gateway: &Gateway, bucket: &str) {
    let edge = live_edge(server);
    eventually("the bucket has everything", LIMIT, || {
        (stored_edge(gateway, &base(bucket)) >= edge).then_some(())
    });
}

#[test]
fn every_fault_of_a_service_is_survived_without_a_gap_and_without_a_broken_promise() {
    let gateway = Gateway::shared();
    let bucket = gateway.open_bucket();
    let (proxy, server) = serve_through(gateway, &bucket, Fault::None);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 600);
    server.wait_for("/live/film/v180/index.m3u8", LIMIT);
    eventually("the first in the bucket", LIMIT, || {
        (stored_edge(gateway, &base(&bucket)) > 0).then_some(())
    });
    let watch = Watch::start(&gateway.authority(), &format!("/{bucket}/origin/live/film"));
    for fault in [
        Fault::Refused,
        Fault::Hung,
        Fault::Slow(700),
        Fault::Broken,
        Fault::SlowDown,
        Fault::Torn,
        Fault::LostAnswer,
        Fault::Skewed,
    ] {
        proxy.set(fault);
        let edge = live_edge(&server);
        eventually("viewers see two segments more", LIMIT, || {
            (live_edge(&server) >= edge + 2 && proxy.met() > 0).then_some(())
        });
        if !matches!(fault, Fault::Slow(_)) {
            let ready = eventually("it says so", LIMIT, || {
                let ready = server.get("/readyz");
                ready.text().contains("degraded").then_some(ready)
            });
            assert_eq!(ready.status, 200, "{fault:?}: {}", ready.text());
        }
        if fault == Fault::Skewed {
            let ready = server.get("/readyz").text();
            assert!(ready.contains("clock"), "{ready}");
        }
        proxy.set(Fault::None);
        catch_up(&server, gateway, &bucket);
    }
    let seen = watch.stop();
    assert!(seen.playlists > 20 && seen.objects > 20);
    assert_eq!(seen.violations, Vec::<String>::new());
    assert_eq!(metric(&server, "lost_total"), 0);
    for rendition in RENDITIONS {
        let path = format!("/{bucket}/origin/live/film/{rendition}/index.m3u8");
        let text = crate::common::get(&gateway.authority(), &path).text();
        assert!(!text.contains("#EXT-X-GAP"), "{text}");
        assert!(named(&text).len() > 6, "{text}");
    }
    eventually("all is well", LIMIT, || {
        (server.get("/readyz").text() == "ready\n").then_some(())
    });
    let log = server.log();
    let outages = log
        .matches("the store fails; what it cannot take waits")
        .count();
    let ends = log.matches("the store is back").count();
    assert!(outages >= 6 && outages == ends, "{log}");
    drop(publisher);
}

#[test]
fn what_waits_is_stored_by_the_next_process() {
    let gateway = Gateway::shared();
    let bucket = gateway.open_bucket();
    let (proxy, mut server) = serve_through(gateway, &bucket, Fault::None);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 600);
    eventually("the first in the bucket", LIMIT, || {
        (stored_edge(gateway, &base(&bucket)) > 0).then_some(())
    });
    let watch = Watch::start(&gateway.authority(), &format!("/{bucket}/origin/live/film"));
    proxy.set(Fault::Broken);
    let stored = stored_edge(gateway, &base(&bucket));
    let edge = eventually("three segments wait on the disk", LIMIT, || {
        let edge = live_edge(&server);
        (edge >= stored + 4 && metric(&server, "spooled_bytes") > 0).then_some(edge)
    });
    // All but what was made within the last two seconds.
    let least = edge - 2;
    server.process().kill();
    drop(publisher);
    proxy.set(Fault::None);
    let folder = server.into_store();
    let url = format!("s3://{bucket}/origin");
    let command = serve(folder.path(), &proxy.endpoint(), (&url, "SK"));
    let server = Server::start_command(command, folder);
    eventually("what was left is in the bucket", LIMIT, || {
        (stored_edge(gateway, &base(&bucket)) >= least).then_some(())
    });
    eventually("the spool is empty", LIMIT, || {
        (metric(&server, "spooled_bytes") == 0).then_some(())
    });
    let seen = watch.stop();
    assert_eq!(seen.violations, Vec::<String>::new());
}

#[test]
fn a_service_without_conditions_is_used_with_a_word_about_what_that_means() {
    let gateway = Gateway::shared();
    for fault in [Fault::NoConditions, Fault::IgnoredConditions] {
        let bucket = gateway.open_bucket();
        let (proxy, server) = serve_through(gateway, &bucket, fault);
        let log = server.log();
        assert!(log.contains("does not enforce conditional writes"), "{log}");
        let publisher = ffmpeg_publish(&server.publish_url("film"), 60);
        eventually("the first in the bucket", LIMIT, || {
            (stored_edge(gateway, &base(&bucket)) > 0).then_some(())
        });
        let watch = Watch::start(&gateway.authority(), &format!("/{bucket}/origin/live/film"));
        catch_up(&server, gateway, &bucket);
        proxy.set(Fault::LostAnswer);
        eventually("answers are lost", LIMIT, || {
            (proxy.met() > 3).then_some(())
        });
        proxy.set(fault);
        catch_up(&server, gateway, &bucket);
        let seen = watch.stop();
        assert_eq!(seen.violations, Vec::<String>::new(), "{fault:?}");
        drop(publisher);
    }
}

#[test]
fn a_clock_that_is_wrong_is_told_at_the_start_in_one_sentence() {
    let gateway = Gateway::shared();
    let bucket = gateway.bucket();
    let proxy = Proxy::start(gateway.authority().parse().unwrap());
    proxy.set(Fault::Skewed);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("s3://{bucket}/origin");
    let (code, _, said) = run(serve(folder.path(), &proxy.endpoint(), (&url, "SK")), LIMIT);
    assert_eq!(code, 1, "{said}");
    let line = said
        .lines()
        .find(|line| line.contains("store.url"))
        .unwrap();
    assert!(
        line.contains("clock") && !line.contains("credentials"),
        "{line}"
    );
}
