//! What copying streams of 5 Mbit/s costs: CPU of the server beside nginx-rtmp and ffmpeg, which make HLS of
//! the same streams, sent to all of them at once.
//!
//! Twenty seconds of a steady state, at the pace of the clock, of as many streams as make a server busy all the
//! time: with one alone the figure is what the machine takes to wake up. nginx-rtmp writes MPEG-TS, ffmpeg
//! fragmented MP4, one process for each stream; ours makes HLS and DASH of both kinds of latency and stores them,
//! and once more with ordinary latency alone and without waiting for the disk, which is what the others do.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

#[path = "broadcast/mod.rs"]
mod broadcast;
mod peer;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broadcast::cpu_ns;
use peer::{Killed, free_port};

const FILM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/fixtures/media/bbb_720p30_12s.mp4"
);
/// How many streams each server takes.
const STREAMS: usize = 10;
/// What is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// Until all of them listen.
const BEGINNING: Duration = Duration::from_secs(3);
/// Until as many segments leave memory as come: before, a server that keeps them pays for each page once.
const WARM_UP: Duration = Duration::from_secs(60);
/// Where Debian has it.
const NGINX_RTMP: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

fn start(command: &mut Command) -> Killed {
    command.stdin(Stdio::null()).stderr(Stdio::null());
    Killed(command.spawn().expect("started"))
}

fn ffmpeg(args: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y"]).args(args);
    command
}

/// The film with 5 Mbit/s in all, a key frame every two seconds.
fn make_source(folder: &Path) -> String {
    let file = folder.join("source.mp4").display().to_string();
    let rate = "4870k";
    let mut args = vec!["-i", FILM, "-c:v", "libx264", "-preset", "veryfast"];
    args.extend([
        "-b:v", rate, "-minrate", rate, "-maxrate", rate, "-bufsize", rate,
    ]);
    args.extend(["-x264-params", "nal-hrd=cbr:keyint=60:scenecut=0:bframes=0"]);
    args.extend(["-c:a", "aac", "-b:a", "128k", "-ac", "2", &file]);
    let mut made = start(&mut ffmpeg(&args));
    assert!(made.0.wait().expect("ffmpeg ends").success());
    file
}

/// One of those that are compared: its processes, and where each of its streams is taken.
struct Server {
    name: &'static str,
    processes: Vec<Killed>,
    /// `HOST:PORT`, and how many streams go there.
    targets: Vec<(String, usize)>,
}

impl Server {
    fn one(name: &'static str, (process, at): (Killed, String)) -> Self {
        Self {
            name,
            processes: vec![process],
            targets: vec![(at, STREAMS)],
        }
    }

    fn cpu_ns(&self) -> u64 {
        self.processes.iter().map(|p| cpu_ns(p.0.id())).sum()
    }

    fn publishers(&self, source: &str) -> Vec<Killed> {
        let publish = |(at, streams): &(String, usize)| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
            command.args(["publish", "--loop", "--streams", &streams.to_string()]);
            command.arg(source).arg(format!("rtmp://{at}/live/bench"));
            start(command.stdout(Stdio::null()))
        };
        self.targets.iter().map(publish).collect()
    }
}

/// Our server with the configuration `text`: its process, and where it takes RTMP.
fn ours(folder: &Path, text: &str) -> (Killed, String) {
    std::fs::create_dir_all(folder).expect("a folder of its own");
    let config = folder.join("config.toml");
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(["--ladder", "copy", "--config"]).arg(config);
    command.arg("--store").arg(folder.join("store"));
    let mut server = start(command.stdout(Stdio::piped()));
    let lines = BufReader::new(server.0.stdout.take().expect("piped")).lines();
    let found = lines.map_while(Result::ok).find_map(|line| {
        let rest = line.split_once("rtmp://")?.1;
        Some(rest.split(['/', ' ']).next()?.to_owned())
    });
    (server, found.expect("printed"))
}

fn nginx(folder: &Path) -> (Killed, String) {
    let (port, root) = (free_port(), folder.join("nginx"));
    std::fs::create_dir_all(&root).expect("a folder of its own");
    let (config, root) = (root.join("nginx.conf"), root.display());
    let text = format!(
        "load_module {NGINX_RTMP};\n\
         daemon off; master_process off; pid {root}/pid; error_log stderr error;\n\
         events {{ worker_connections 1024; }}\n\
         rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; chunk_size 65536;\n\
         application live {{ live on; hls on; hls_path {root}/hls; hls_fragment 2s;\n\
         hls_playlist_length 20s; }} }} }}\n"
    );
    std::fs::write(&config, text).expect("written");
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-c"]).arg(config);
    (start(&mut command), format!("127.0.0.1:{port}"))
}

fn remuxer(folder: &Path) -> (Killed, String) {
    let (at, root) = (format!("127.0.0.1:{}", free_port()), folder.join("ffmpeg"));
    std::fs::create_dir_all(&root).expect("a folder of its own");
    let (url, list) = (format!("rtmp://{at}/live/bench"), root.join("index.m3u8"));
    let mut command = ffmpeg(&["-listen", "1", "-f", "flv", "-i", &url, "-c", "copy"]);
    command.args(["-f", "hls", "-hls_segment_type", "fmp4", "-hls_time", "2"]);
    command.args(["-hls_list_size", "10", "-hls_flags", "delete_segments"]);
    (start(command.arg(list)), at)
}

/// One ffmpeg for each stream: it takes one alone.
fn remuxers(folder: &Path) -> Server {
    let each = (0..STREAMS).map(|index| remuxer(&folder.join(index.to_string())));
    let (processes, at): (Vec<_>, Vec<_>) = each.unzip();
    Server {
        name: "ffmpeg, fMP4",
        processes,
        targets: at.into_iter().map(|at| (at, 1)).collect(),
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let source = make_source(folder);
    let both = ours(&folder.join("both"), "");
    let plain = "[package]\nlow_latency = false\n[store]\nfsync = false\n";
    let plain = ours(&folder.join("plain"), plain);
    let mut servers = vec![
        Server::one("headwater, low latency", both),
        Server::one("headwater, ordinary", plain),
        remuxers(folder),
    ];
    if Path::new(NGINX_RTMP).exists() {
        servers.push(Server::one("nginx-rtmp, MPEG-TS", nginx(folder)));
    } else {
        println!("no {NGINX_RTMP}: apt-get install libnginx-mod-rtmp");
    }
    std::thread::sleep(BEGINNING);
    let publishers = servers.iter().flat_map(|server| server.publishers(&source));
    let mut publishers: Vec<_> = publishers.collect();
    std::thread::sleep(WARM_UP);

    let read = || servers.iter().map(Server::cpu_ns).collect::<Vec<_>>();
    let (before, begun) = (read(), Instant::now());
    std::thread::sleep(MEASURED);
    let (after, micros) = (read(), begun.elapsed().as_micros());
    for publisher in &mut publishers {
        let ended = publisher.0.try_wait().expect("asked");
        assert!(ended.is_none(), "it still publishes");
    }

    let used: Vec<u64> = after.iter().zip(&before).map(|(z, a)| z - a).collect();
    println!(
        "{STREAMS} streams of 5 Mbit/s copied for {} s; for each:",
        MEASURED.as_secs()
    );
    for (Server { name, .. }, used) in servers.iter().zip(&used) {
        let hundredths = u128::from(*used) * 10 / (micros * STREAMS as u128).max(1);
        println!(
            "  {name:<24} {}.{:02} % of a core",
            hundredths / 100,
            hundredths % 100
        );
    }
    for (name, ours) in [("low latency", used[0]), ("ordinary", used[1])] {
        for (Server { name: peer, .. }, theirs) in servers.iter().zip(&used).skip(2) {
            let hundredths = ours * 100 / theirs.max(&1);
            println!(
                "  {name} / {peer:<20} {}.{:02}",
                hundredths / 100,
                hundredths % 100
            );
        }
    }
}
