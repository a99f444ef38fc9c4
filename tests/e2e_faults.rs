//! Every fault of an encoder and of its way in, end to end: what is published stays one run, and the lips
//! stay in sync.
//!
//! Enters: a film whose picture flashes when its sound beeps, coded by ffmpeg, through a way that spoils it
//! Leaves: a failure for each fault that a viewer, a player or `headwater inspect` would have noticed
//! Never:  a publisher or a decoder of our own
//! Time:   wall clock, which is also where flashes and beeps lie; no claim depends on how fast the machine is
//! Spec:   docs/resilience.md, docs/time.md

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly, and say what it does"
)]

mod common;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "common/lips.rs"]
mod lips;
#[path = "common/media.rs"]
mod media;
#[path = "common/watch.rs"]
mod watch;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::{Process, Server, eventually, headwater, now_us, run, small_ladder};
use faulty::{Faulty, Rules};
use lips::{FLASHES, LIPS_US, Lips, PLAIN};
use watch::Watch;

/// What a stream needs to start, and to change its state, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// How long it is calm before and after each fault: four flashes or five.
const CALM: Duration = Duration::from_secs(6);
/// How often, of one stream, a stretch is looked at that was not calm because the machine was too slow for it.
const PATIENCE: u32 = 12;
/// So many slots may show a picture again in a calm stretch: fewer than a flash lasts.
const FEW_SLOTS: u64 = 2;
/// Encoding that is less late than this is in time.
const IN_TIME_MS: u64 = 250;
const VIDEO: &str = "v180";
const AUDIO: &str = "a96";

fn us(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap()
}

/// One stream with its faults.
struct Show<'a> {
    server: &'a Server,
    key: &'static str,
    way: Faulty,
    publisher: Option<Process>,
    /// What was calm: its name, from when and until when.
    calm: Vec<(String, i64, i64)>,
    /// Repairs that must have been made.
    repairs: Vec<&'static str>,
    patience: u32,
    /// Whether the source has a picture for every slot.
    is_even: bool,
}

impl<'a> Show<'a> {
    /// Begins to publish, through a way of which `rules` says what is wrong from the first message on, and
    /// is calm for a while.
    fn begin(
        server: &'a Server,
        key: &'static str,
        coded: &[&str],
        rules: impl FnOnce(&mut Rules),
    ) -> Self {
        let mut show = Self {
            server,
            key,
            way: Faulty::to(&server.rtmp),
            publisher: None,
            calm: Vec::new(),
            repairs: Vec::new(),
            patience: PATIENCE,
            is_even: !coded.contains(&"vfr"),
        };
        show.way.change(rules);
        show.publish(coded);
        server.wait_for(&format!("/live/{key}/{VIDEO}/index.m3u8"), SOON);
        show.rest("at first", Duration::ZERO);
        show
    }

    fn publish(&mut self, coded: &[&str]) {
        self.publisher = Some(lips::publish(&self.way.publish_url(self.key), coded));
    }

    /// Lets `fault` befall the stream, gives it `settle` to get over it, and is calm for a while.
    fn fault(&mut self, name: &str, settle: Duration, fault: impl FnOnce(&mut Rules)) {
        self.way.change(fault);
        self.rest(name, settle);
    }

    fn rest(&mut self, name: &str, settle: Duration) {
        std::thread::sleep(settle);
        loop {
            let before = self.missed_in_time();
            let from = now_us();
            std::thread::sleep(CALM);
            // Flashes that were not made, not decoded in time or not encoded, because the machine was too slow for
            // them, tell nothing of the fault.
            let is_calm = self.missed_in_time() <= before + FEW_SLOTS;
            if is_calm || self.patience == 0 {
                self.calm.push((name.to_owned(), from, from + us(CALM)));
                return;
            }
            self.patience -= 1;
            println!("{:8} {name:32} once more: frames are missing", self.key);
        }
    }

    fn status(&self) -> serde_json::Value {
        let path = format!("/api/v1/streams/{}", self.key);
        self.server.get(&path).json()
    }

    /// How many frames the machine was too slow for, once what is encoded is in time; or late, if it stays so.
    fn missed_in_time(&self) -> u64 {
        let end = Instant::now() + CALM;
        loop {
            let encoding = &self.status()["encoding"];
            if encoding["late_ms"].as_u64().unwrap() < IN_TIME_MS || Instant::now() > end {
                let left = encoding["left_frames"].as_u64().unwrap();
                return left + if self.is_even { self.held_slots() } else { 0 };
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How many slots show a picture again.
    fn held_slots(&self) -> u64 {
        let metrics = self.server.get("/metrics").text();
        let name = format!("headwater_held_slots_total{{stream=\"{}\"}} ", self.key);
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.map_or(0, |count| count.parse().unwrap())
    }

    fn state(&self) -> String {
        let state = self.status()["state"].as_str().map(str::to_owned);
        state.unwrap_or_default()
    }

    fn wait_for_state(&self, wanted: &str) {
        eventually(wanted, SOON, || (self.state() == wanted).then_some(()));
    }

    /// The publisher says that it is done.
    fn end(mut self) -> Self {
        self.publisher.take().expect("it publishes").stop(SOON);
        self.wait_for_state("ended");
        self
    }

    /// Holds what was found of the stored broadcast against what was to be.
    fn assert_unnoticed(&self) {
        let metrics = self.server.get("/metrics").text();
        for kind in &self.repairs {
            let name = format!("repairs_total{{stream=\"{}\",kind=\"{kind}\"}} ", self.key);
            let count = metrics.lines().find_map(|line| line.split(&name).nth(1));
            assert!(count.is_some_and(|count| count != "0"), "{kind}: {count:?}");
        }
        let folder = self.server.store.path().join("live").join(self.key);
        let (code, out, err) = run(headwater(&["inspect", folder.to_str().unwrap()]), SOON);
        assert_eq!(code, 0, "{}: {out}\n{err}", self.key);
        let lips = Lips::read(&folder, VIDEO, AUDIO);
        for (name, from, to) in &self.calm {
            let offset = lips.offset(*from, *to, FLASHES);
            println!("{:8} {name:32} {:>6} us", self.key, offset);
            assert!(
                offset.abs() <= LIPS_US,
                "{}, {name}: {offset} us, of {:?}",
                self.key,
                lips.offsets(*from, *to)
            );
        }
    }
}

/// Clocks that jump, both or one of them, far and near, forward and back.
fn clocks(server: &Server) -> Show<'_> {
    const FAR_MS: i64 = 100_000_000;
    let mut show = Show::begin(server, "clocks", &PLAIN, |_| ());
    let soon = Duration::from_millis(500);
    show.fault("both clocks jump forward", soon, |rules| rules.jump(FAR_MS));
    show.fault("both clocks jump back", soon, |rules| {
        rules.jump(-FAR_MS - 3_000);
    });
    // Which of the tracks is right, two seconds of arrivals decide.
    let later = Duration::from_millis(3_000);
    show.fault("the clock of sound alone jumps", later, |rules| {
        rules.audio.add_ms += FAR_MS;
    });
    show.fault("the clock of pictures alone jumps", later, |rules| {
        rules.video.add_ms -= 2_500;
    });
    show.repairs.push("clock_jump");
    show.end()
}

/// Stamps that begin near the end of their 32 bits.
fn wraps_at_32_bits(server: &Server) -> Show<'_> {
    let mut show = Show::begin(server, "wrap32", &PLAIN, |rules| {
        rules.jump((1 << 32) - 9_000);
    });
    show.rest("after 2^32 ms", Duration::from_secs(3));
    show.end()
}

/// As [`wraps_at_32_bits`], of an encoder that sends only the low 24.
fn wraps_at_24_bits(server: &Server) -> Show<'_> {
    let mut show = Show::begin(server, "wrap24", &PLAIN, |rules| {
        rules.bits = 24;
        rules.jump((1 << 24) - 9_000);
    });
    show.rest("after 2^24 ms", Duration::from_secs(3));
    show.repairs.push("wrap_24");
    show.end()
}

/// B-frames of which some are shown before they are decoded, then sound whose stamps are coarse as well.
fn reordered(server: &Server) -> Show<'_> {
    let mut show = Show::begin(server, "reorder", &["-bf", "2"], |rules| {
        rules.video.add_ms = 100;
        rules.video.composition_ms = -100;
    });
    let soon = Duration::from_millis(500);
    show.fault("stamps of sound are coarse", soon, |rules| {
        rules.audio.coarse_ms = 10;
    });
    show.end()
}

/// A variable frame rate, then decode times that stand still or go back.
fn disorder(server: &Server) -> Show<'_> {
    let uneven = "select='not(eq(mod(n,5),2))'";
    let coded = [&PLAIN[..], &["-vf", uneven, "-fps_mode", "vfr"]].concat();
    let mut show = Show::begin(server, "disorder", &coded, |_| ());
    let soon = Duration::from_millis(500);
    show.fault("decode times stand still or go back", soon, |rules| {
        rules.video.disorder_every = 9;
    });
    show.repairs.push("nudged");
    show.end()
}

/// Sound that comes two seconds after its pictures, for a while.
fn late_sound(server: &Server) -> Show<'_> {
    let mut show = Show::begin(server, "late", &PLAIN, |_| ());
    show.fault("sound comes late", Duration::from_secs(8), |rules| {
        rules.audio.delay = Duration::from_secs(2);
    });
    show.fault("sound is in time again", Duration::from_secs(4), |rules| {
        rules.audio.delay = Duration::ZERO;
    });
    show.end()
}

/// Stalls, a lost connection, and one that only the publisher knows to be lost.
fn network(server: &Server) -> Show<'_> {
    let mut show = Show::begin(server, "network", &PLAIN, |_| ());
    for stall_ms in [900, 3_000] {
        let stall = Duration::from_millis(stall_ms);
        show.way.stall(stall);
        show.rest(&format!("after {stall_ms} ms of nothing"), stall + stall);
    }
    show.way.cut();
    show.wait_for_state("reconnecting");
    show.publish(&PLAIN);
    show.wait_for_state("live");
    show.rest("after a cut", Duration::from_secs(2));
    show.way.half_open();
    show.publish(&PLAIN);
    eventually("the second reconnect", SOON, || {
        let metrics = show.server.get("/metrics").text();
        metrics
            .contains("reconnects_total{stream=\"network\"} 2")
            .then_some(())
    });
    show.wait_for_state("live");
    show.rest("after a half-open connection", Duration::from_secs(2));
    show.end()
}

/// A clock that is off by ten times what the worst of crystals is.
fn drift(server: &Server) -> Show<'_> {
    let mut show = Show::begin(server, "drift", &PLAIN, |rules| rules.ppm = 2_000);
    show.rest("after a while", Duration::from_secs(10));
    show.rest("after a longer while", Duration::ZERO);
    show.end()
}

/// So many sources with their encoders and watchers leave two cores some time for a slow moment: of one that comes too
/// late something is cut out, as it should be.
const AT_ONCE: usize = 4;

type Case = for<'a> fn(&'a Server) -> Show<'a>;

#[test]
fn no_fault_of_a_source_is_noticed_by_players_and_lips_stay_in_sync() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    // All of it is looked at in the end.
    std::fs::write(&file, "[package]\nkept_segments = 120\n").unwrap();
    let ladder = small_ladder();
    let server = Server::start(&["--config", file.to_str().unwrap(), "--ladder", &ladder]);
    let all: [(&str, Case); 8] = [
        ("reorder", reordered),
        ("clocks", clocks),
        ("wrap32", wraps_at_32_bits),
        ("wrap24", wraps_at_24_bits),
        ("disorder", disorder),
        ("late", late_sound),
        ("network", network),
        ("drift", drift),
    ];
    // For whoever works on one of them.
    let only = std::env::var("HEADWATER_TEST_FAULT").unwrap_or_default();
    let chosen: Vec<_> = all.iter().filter(|(key, _)| key.contains(&only)).collect();
    let failed = Mutex::new(Vec::new());
    for some in chosen.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for (key, case) in some {
                let (server, failed) = (&server, &failed);
                scope.spawn(move || {
                    if !holds(server, key, *case) {
                        failed.lock().unwrap().push(*key);
                    }
                });
            }
        });
    }
    let failed = failed.into_inner().unwrap();
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert!(
        failed.is_empty(),
        "{failed:?}: their panics are above; the server says\n{}",
        server.log()
    );
}

/// Whether `case`, which publishes as `key`, goes unnoticed; why not is printed.
fn holds(server: &Server, key: &str, case: Case) -> bool {
    let watch = Watch::new(&server.http, key, &[VIDEO, AUDIO]);
    let held = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch.run());
        let show = scope.spawn(|| case(server)).join();
        watch.end();
        watching.join().and(show)
    });
    let judge = |show: Show<'_>| {
        let judged = std::panic::AssertUnwindSafe(|| {
            watch.assert_one_run();
            show.assert_unnoticed();
        });
        std::panic::catch_unwind(judged)
    };
    held.and_then(judge).is_ok()
}
