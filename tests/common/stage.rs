//! One broadcast of the film that flashes and beeps, which players play while things befall it.
//!
//! Enters: what befalls it, by name; a server, who publishes and the way between the two, to do it to
//! Leaves: a failure for each player that gave up, stood still or was out of step, for each rule of playlists that
//!         `headwater inspect` or a [`Watch`] saw broken meanwhile, and for lips out of step in what is stored
//! Never:  a player or a publisher of our own
//! Time:   wall clock; no claim depends on how fast the machine is
//! Spec:   docs/resilience.md

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail loudly, and say what it does"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::{
    Process, Server, assert_rules_kept, eventually, headwater, now_us, run, run_ok, small_ladder,
    tool,
};
use crate::faulty::{Faulty, Rules};
use crate::lips::{self, FLASHES, LENIENT, LIPS_US, Lips};
use crate::players;
use crate::watch::Watch;

/// What a stream needs to start, and to change its state, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["v360", "v180", "a96"];
/// What a streamer is told to set, of the film in the size of the whole ladder.
pub(crate) const PLAIN: [&str; 6] = ["-vf", "scale=640:360", "-bf", "0", "-tune", "zerolatency"];
/// All of a test is looked at in the end.
const CONFIG: &str = "[package]\nkept_segments = 120\n";

/// From when to when, in microseconds since the epoch, nothing befell the broadcast, and after what.
struct Calm {
    after: String,
    from_us: i64,
    to_us: i64,
}

/// `headwater inspect` that looks on, and the rules that it may find broken.
struct Inspection {
    looking: JoinHandle<(i32, String, String)>,
    excused: Vec<&'static str>,
}

/// The broadcast, and who looks at it.
pub(crate) struct Stage {
    /// `None` while it is dead.
    server: Option<Server>,
    pub(crate) way: Faulty,
    pub(crate) publisher: Option<Process>,
    config: tempfile::TempDir,
    watch: Arc<Watch>,
    watching: Option<JoinHandle<()>>,
    inspecting: Option<Inspection>,
    calm: Vec<Calm>,
}

fn serve(config: &Path) -> [String; 4] {
    let file = config.join("config.toml").display().to_string();
    let ladder = small_ladder();
    ["--config".to_owned(), file, "--ladder".to_owned(), ladder]
}

impl Stage {
    /// A server with `config` beside what a stage needs, to which the film is published, coded as `coded` says, on a
    /// way of which `rules` says what is wrong from the first message on.
    pub(crate) fn begin(config: &str, coded: &[&str], rules: impl FnOnce(&mut Rules)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("config.toml"),
            format!("{CONFIG}{config}"),
        )
        .unwrap();
        let args = serve(folder.path());
        let server = Server::start(&args.each_ref().map(String::as_str));
        let way = Faulty::to(&server.rtmp);
        way.change(rules);
        let publisher = lips::publish(&way.publish_url("film"), coded);
        server.wait_for("/live/film/manifest.mpd", SOON);
        let watch = Arc::new(Watch::new(&server.http, "film", &NAMES));
        let watching = std::thread::spawn({
            let watch = Arc::clone(&watch);
            move || watch.run()
        });
        Self {
            server: Some(server),
            way,
            publisher: Some(publisher),
            config: folder,
            watch,
            watching: Some(watching),
            inspecting: None,
            calm: Vec::new(),
        }
    }

    /// Has hls.js and dash.js play it through `faults`, for each of which `befall` is called by its name and comes
    /// back when the broadcast has got over it; through those of them in `smooth` no player stands still.
    pub(crate) async fn play(
        &mut self,
        (faults, smooth): (&str, &str),
        mut befall: impl FnMut(&mut Self, &str),
    ) {
        let base = self.server().url("/");
        let mut calm = ("start".to_owned(), now_us());
        let verdict = players::play_through(&base, "film", (faults, smooth), |fault| {
            println!("{fault}");
            self.was_calm(&calm);
            befall(self, fault);
            calm = (fault.to_owned(), now_us());
        })
        .await;
        self.was_calm(&calm);
        self.watch.end();
        let watching = self.watching.take().expect("it watches");
        watching.join().unwrap();
        println!("{:#}", verdict.json);
        verdict.assert_held();
        self.watch.assert_kept_its_word();
        let log = self.server().log();
        assert!(!log.contains("panicked"), "{log}");
    }

    fn was_calm(&mut self, (after, from_us): &(String, i64)) {
        self.calm.push(Calm {
            after: after.clone(),
            from_us: *from_us,
            to_us: now_us(),
        });
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    pub(crate) fn server_pid(&mut self) -> u32 {
        self.server.as_mut().expect("it runs").process().pid()
    }

    /// Publishes the film again, coded as `coded` says; who did so before is killed, if it is still there.
    pub(crate) fn publish(&mut self, coded: &[&str]) {
        self.publisher = None;
        self.publisher = Some(lips::publish(&self.way.publish_url("film"), coded));
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let answer = self.server().get("/api/v1/streams/film");
        if answer.status == 200 {
            answer.json()
        } else {
            serde_json::Value::Null
        }
    }

    pub(crate) fn wait_for_state(&self, wanted: &str) {
        eventually(wanted, SOON, || {
            (self.status()["state"] == wanted).then_some(())
        });
    }

    /// Waits until the server has counted something: until `metric` of the stream is not zero.
    pub(crate) fn wait_for_count(&self, metric: &str) {
        eventually(metric, SOON, || {
            let metrics = self.server().get("/metrics").text();
            let mut lines = metrics.lines();
            let count = lines.find_map(|line| line.strip_prefix(metric))?;
            (count.trim() != "0").then_some(())
        });
    }

    /// The number of the last segment that is listed.
    pub(crate) fn last(&self) -> Option<u64> {
        let answer = self.server().get("/live/film/v180/index.m3u8");
        let text = answer.text();
        let mut uris = text.lines().filter_map(|line| line.strip_suffix(".m4s"));
        uris.rfind(|uri| !uri.starts_with('#'))?.parse().ok()
    }

    pub(crate) fn wait_for_segments(&self, count: u64) {
        let now = eventually("a segment", SOON, || self.last());
        eventually("more segments", SOON, || {
            self.last().filter(|last| *last >= now + count)
        });
    }

    /// `headwater inspect` begins to look on, for so long, when it has done so before to its end; `excused` may be
    /// broken meanwhile.
    pub(crate) fn inspect(&mut self, length: &'static str, excused: &[&'static str]) {
        self.assert_inspected();
        let url = self.server().url("/live/film/index.m3u8");
        let looking = move || run(headwater(&["inspect", &url, "--for", length]), 2 * SOON);
        self.inspecting = Some(Inspection {
            looking: std::thread::spawn(looking),
            excused: [excused, &LENIENT].concat(),
        });
    }

    /// What looked on found nothing.
    pub(crate) fn assert_inspected(&mut self) {
        if let Some(Inspection { looking, excused }) = self.inspecting.take() {
            assert_rules_kept(&looking.join().unwrap(), &excused);
        }
    }

    fn stored(&self) -> PathBuf {
        self.server().store.path().join("live/film")
    }

    /// The publisher says that it is done; what is stored then breaks no rule but those `excused`.
    pub(crate) fn assert_stored(&mut self, excused: &[&'static str]) {
        self.publisher.take().expect("it publishes").stop(SOON);
        self.wait_for_state("ended");
        let stored = self.stored();
        let looked = run(headwater(&["inspect", stored.to_str().unwrap()]), SOON);
        assert_rules_kept(&looked, &[excused, &LENIENT].concat());
    }

    /// What is stored of the broadcast, as it is read for [`Self::assert_in_step`].
    pub(crate) fn read_stored(&self) -> Lips {
        Lips::read(&self.stored(), "v180", "a96")
    }

    /// Of all calm stretches that `lips` covers, the sound is where its pictures are.
    pub(crate) fn assert_in_step(&self, lips: &Lips) {
        let covered = |calm: &&Calm| calm.from_us < lips.end_us;
        for Calm {
            after,
            from_us,
            to_us,
        } in self.calm.iter().filter(covered)
        {
            let offset = lips.offset(*from_us, *to_us, FLASHES);
            println!("stored, after {after}: {offset} us");
            assert!(
                offset.abs() <= LIPS_US,
                "{after}: {offset} us, of {:?}",
                lips.offsets(*from_us, *to_us)
            );
        }
    }

    /// `kill -9`, and a new server at the same addresses, to which the film is published again; what the old one had
    /// stored.
    pub(crate) fn kill_server(&mut self, coded: &[&str]) -> tempfile::TempDir {
        self.publisher = None;
        let mut server = self.server.take().expect("it runs");
        server.process().kill();
        let kept = tempfile::tempdir().unwrap();
        let (from, to) = (server.store.path().join("live/film"), kept.path());
        run_ok(
            tool("cp", &["-r", from.to_str().unwrap(), to.to_str().unwrap()]),
            SOON,
        );
        let Server {
            store, http, rtmp, ..
        } = server;
        let mut command = headwater(&["serve", "--rtmp", &rtmp, "--http", &http, "--store"]);
        command.arg(store.path()).args(serve(self.config.path()));
        let server = Server::start_command(command, store);
        self.watch.moved(&server.http);
        self.server = Some(server);
        self.publish(coded);
        self.wait_for_segments(2);
        kept
    }
}
