//! `kill -9` at any instant of a live broadcast, again and again; then any web server can serve what is there.
//!
//! Enters: the film; `HEADWATER_TEST_KILLS`, how often
//! Leaves: a bucket that kept the promise all along, played through nginx by ffmpeg
//! Never:  a kill that the server knew of before
//! Time:   wall clock
//! Spec:   [HLS] §6.2.1

use std::path::Path;
use std::time::Duration;

use crate::common::{Process, Server, command, eventually, ffmpeg_publish, run};
use crate::gateway::{Gateway, LIMIT, free_port};
use crate::serve;
use crate::watch::{Watch, last_number};

/// How often the server is killed where nobody says.
const KILLS: u64 = 3;

#[test]
fn a_server_that_is_killed_again_and_again_never_breaks_the_promise() {
    let kills = std::env::var("HEADWATER_TEST_KILLS");
    let kills = kills.map_or(KILLS, |kills| kills.parse().unwrap());
    let gateway = Gateway::shared();
    let bucket = gateway.open_bucket();
    let url = format!("s3://{bucket}/origin");
    let base = format!("/{bucket}/origin/live/film");
    let edge = || {
        let response = crate::common::get(&gateway.authority(), &format!("{base}/v180/index.m3u8"));
        last_number(&response.text())
    };
    let mut folder = tempfile::tempdir().unwrap();
    let watch = Watch::start(&gateway.authority(), &base);
    for kill in 0..kills {
        let command = serve(folder.path(), &gateway.endpoint(), (&url, "SK"));
        let mut server = Server::start_command(command, folder);
        let before = edge();
        let publisher = ffmpeg_publish(&server.publish_url("film"), 600);
        eventually("something new in the bucket", LIMIT, || {
            (edge() > before).then_some(())
        });
        // Spread over a segment and what is done at its end.
        std::thread::sleep(Duration::from_millis(kill * 337 % 2_300));
        server.process().kill();
        drop(publisher);
        folder = server.into_store();
    }
    let command = serve(folder.path(), &gateway.endpoint(), (&url, "SK"));
    let server = Server::start_command(command, folder);
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 9);
    eventually("the end in the bucket", LIMIT, || {
        let path = format!("{base}/v180/index.m3u8");
        let text = crate::common::get(&gateway.authority(), &path).text();
        text.contains("#EXT-X-ENDLIST").then_some(())
    });
    let seen = watch.stop();
    println!(
        "{kills} kills; read meanwhile: {} playlists, {} objects that they named",
        seen.playlists, seen.objects
    );
    assert_eq!(seen.violations, Vec::<String>::new(), "after {kills} kills");
    assert!(seen.playlists > 10 && seen.objects > 10);
    let (code, folder) = server.drain();
    assert_eq!(code, 0);
    play(gateway, &base, folder.path());
}

/// Serves the bucket with nginx, which knows nothing of it, and has ffmpeg play what is listed.
fn play(gateway: &Gateway, base: &str, folder: &Path) {
    let port = free_port();
    let root = folder.display();
    let config = folder.join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr error;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off;\n\
         client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
         uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; }} }} }}\n",
        gateway.authority()
    );
    std::fs::write(&config, text).unwrap();
    let mut nginx = command("nginx");
    nginx.arg("-c").arg(&config).args(["-e", "stderr"]);
    let _nginx = Process::start(nginx);
    let authority = format!("127.0.0.1:{port}");
    eventually("nginx listens", LIMIT, || {
        std::net::TcpStream::connect(&authority).ok()
    });
    let mut ffmpeg = command("ffmpeg");
    ffmpeg
        .args([
            "-v",
            "error",
            "-i",
            &format!("http://{authority}{base}/index.m3u8"),
        ])
        .args(["-map", "0:v:0", "-map", "0:a:0", "-f", "framecrc", "-"]);
    let (code, frames, said) = run(ffmpeg, LIMIT);
    assert_eq!(code, 0, "{said}");
    let pictures = frames.lines().filter(|line| line.starts_with("0,")).count();
    let sound = frames.lines().filter(|line| line.starts_with("1,")).count();
    assert!(pictures > 150 && sound > 150, "{pictures}, {sound}: {said}");
}
