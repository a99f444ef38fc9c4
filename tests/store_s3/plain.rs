//! A real S3 service that takes conditions and ignores them: s3rver, which keeps its objects in a folder.
//!
//! Enters: the film; the service is killed and begun again, then the server
//! Leaves: a bucket that a checker finds nothing wrong with
//! Never:  a proxy that plays the service
//! Time:   wall clock
//! Spec:   [HLS]

use std::path::Path;

use crate::common::{
    Process, Server, command, eventually, ffmpeg_publish, get, headwater, run, try_get,
};
use crate::gateway::{LIMIT, free_port};
use crate::serve;
use crate::watch::{RENDITIONS, last_number, named};

/// What it is called, and its secret.
const KEY: &str = "S3RVER";

struct Plain {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Process>,
}

impl Plain {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let process = None;
        Self {
            folder,
            port,
            process,
        }
    }

    fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn begin(&mut self) {
        let program = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/plain_s3/node_modules/s3rver/bin/s3rver.js"
        );
        assert!(Path::new(program).exists(), "scripts/test.sh installs it");
        let mut node = command("node");
        node.arg(program).arg("-d").arg(self.folder.path());
        node.args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-s"])
            .args(["--configure-bucket", "shows"]);
        self.process = Some(Process::start(node));
        eventually("it listens", LIMIT, || try_get(&self.authority(), "/shows"));
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    fn serve(&self, folder: tempfile::TempDir) -> Server {
        let endpoint = format!("http://{}", self.authority());
        let mut command = serve(folder.path(), &endpoint, ("s3://shows/origin", KEY));
        command.env("AWS_ACCESS_KEY_ID", KEY);
        Server::start_command(command, folder)
    }

    /// The last number that the bucket lists.
    fn edge(&self) -> u64 {
        let path = "/shows/origin/live/film/v180/index.m3u8";
        try_get(&self.authority(), path).map_or(0, |found| last_number(&found.text()))
    }

    /// Every playlist names only what is there, whole.
    fn check(&self) {
        for rendition in RENDITIONS {
            let folder = format!("/shows/origin/live/film/{rendition}");
            let text = get(&self.authority(), &format!("{folder}/index.m3u8")).text();
            let names = named(&text);
            assert!(names.len() > 2, "{text}");
            for name in names {
                let found = get(&self.authority(), &format!("{folder}/{name}"));
                assert_eq!(found.status, 200, "{name} of {text}");
                assert!(found.body.len() > 100, "{name}");
            }
        }
    }
}

#[test]
fn a_real_service_without_conditions_is_written_through_its_death_and_ours() {
    let mut service = Plain::new();
    service.begin();
    let mut server = service.serve(tempfile::tempdir().unwrap());
    eventually("the log says what the service cannot do", LIMIT, || {
        let log = server.log();
        log.contains("does not enforce conditional writes")
            .then_some(())
    });
    let publisher = ffmpeg_publish(&server.publish_url("film"), 600);
    eventually("the first in the bucket", LIMIT, || {
        (service.edge() > 0).then_some(())
    });

    service.kill();
    let live = || last_number(&server.get("/live/film/v180/index.m3u8").text());
    let before = live();
    let now = eventually("viewers see two segments more", LIMIT, || {
        Some(live()).filter(|now| *now >= before + 2)
    });
    service.begin();
    eventually("the bucket has them", LIMIT, || {
        (service.edge() >= now).then_some(())
    });
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("headwater_store_lost_total 0\n"),
        "{metrics}"
    );

    server.process().kill();
    drop(publisher);
    service.check();
    let before = service.edge();
    let server = service.serve(server.into_store());
    let mut publisher = ffmpeg_publish(&server.publish_url("film"), 9);
    eventually("it goes on", LIMIT, || {
        (service.edge() > before).then_some(())
    });
    publisher.wait(LIMIT);
    eventually("the end in the bucket", LIMIT, || {
        let ended = |rendition: &&str| {
            let path = format!("/shows/origin/live/film/{rendition}/index.m3u8");
            get(&service.authority(), &path)
                .text()
                .contains("#EXT-X-ENDLIST")
        };
        RENDITIONS.iter().all(ended).then_some(())
    });
    let (code, _) = server.drain();
    assert_eq!(code, 0);
    service.check();
    // The prefix is ours, the rest of the bucket is not.
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", service.authority());
    let mut command = serve(folder.path(), &endpoint, ("s3://shows", KEY));
    command.env("AWS_ACCESS_KEY_ID", KEY);
    let (code, _, said) = run(command, LIMIT);
    let told = "store.url: s3://shows is used by something else: found \"origin\"";
    assert!(code == 1 && said.contains(told), "{said}");
    let url = format!(
        "http://{}/shows/origin/live/film/index.m3u8",
        service.authority()
    );
    let (code, out, err) = run(headwater(&["inspect", &url]), LIMIT);
    // What was missed between the two processes is a gap, and said to be one.
    let rules = out.lines().filter(|line| line.starts_with("error"));
    let unexpected: Vec<_> = rules.filter(|line| !line.contains("HLS-GAP")).collect();
    assert!(unexpected.is_empty() && code <= 1, "{out}{err}");
}
