//! Two packagers, fed with the same input, that write the same prefix of one bucket.
//!
//! Enters: the film, from one publisher to both servers
//! Leaves: one stream in the bucket
//! Never:  word between the two
//! Time:   wall clock
//! Spec:   docs/adr/0001-number-segments-by-the-clock.md

use crate::common::{Process, Server, command, eventually, film, get, run};
use crate::faults::stored_edge;
use crate::gateway::{Gateway, LIMIT};
use crate::serve;
use crate::watch::{RENDITIONS, Watch, named};

#[test]
fn two_packagers_of_one_input_write_one_stream_and_one_of_them_is_enough() {
    let gateway = Gateway::shared();
    let bucket = gateway.open_bucket();
    let url = format!("s3://{bucket}/origin");
    let base = format!("/{bucket}/origin/live/film");
    let start = || {
        let folder = tempfile::tempdir().unwrap();
        let command = serve(folder.path(), &gateway.endpoint(), (&url, "SK"));
        Server::start_command(command, folder)
    };
    let (one, mut two) = (start(), start());
    let watch = Watch::start(&gateway.authority(), &base);
    let mut ffmpeg = command("ffmpeg");
    ffmpeg
        .args(["-v", "error", "-re", "-stream_loop", "-1", "-i"])
        .arg(film())
        .args(["-t", "600", "-c", "copy", "-map", "0", "-f", "tee"])
        // What the tags of the film are called in FLV; tee does not look them up.
        .args(["-tag:v", "7", "-tag:a", "10"])
        .arg(format!(
            "[f=flv:onfail=ignore]{}|[f=flv:onfail=ignore]{}",
            one.publish_url("film"),
            two.publish_url("film")
        ));
    let publisher = Process::start(ffmpeg);
    let edge = || stored_edge(gateway, &base);
    let begun = eventually("the first in the bucket", LIMIT, || {
        Some(edge()).filter(|at| *at > 0)
    });
    let together = eventually("both go on", LIMIT, || {
        Some(edge()).filter(|at| *at >= begun + 6)
    });
    for server in [&one, &two] {
        let text = server.get("/metrics").text();
        assert!(
            !text.contains("headwater_store_objects_total 0\n"),
            "{text}"
        );
    }
    two.process().kill();
    eventually("one of them is enough", LIMIT, || {
        (edge() >= together + 3).then_some(())
    });
    let seen = watch.stop();
    drop(publisher);
    assert_eq!(seen.violations, Vec::<String>::new());
    assert!(seen.playlists > 20 && seen.objects > 20);
    for rendition in RENDITIONS {
        let text = get(
            &gateway.authority(),
            &format!("{base}/{rendition}/index.m3u8"),
        )
        .text();
        assert!(!text.contains("#EXT-X-GAP"), "{text}");
        assert!(named(&text).len() > 6, "{text}");
    }
    let mut play = command("ffmpeg");
    let address = format!("http://{}{base}/v180/index.m3u8", gateway.authority());
    play.args(["-v", "error", "-live_start_index", "0", "-i", &address])
        .args(["-t", "10", "-f", "null", "-"]);
    let (code, _, said) = run(play, LIMIT);
    assert!(code == 0 && said.is_empty(), "{said}");
}
