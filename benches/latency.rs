//! Glass to glass: how old a picture is when Chromium shows it, with hls.js and dash.js, as the server
//! comes and with `low_latency = "ultra"`.
//!
//! ffmpeg publishes the film at 720p30 with the time of day burnt in, the server makes its default
//! ladder of it, and `tests/players/latency.mjs` reads the clock off the pictures. Everything runs on
//! this machine, so a small one is busy with five programs; where the time goes inside the server is
//! printed beside it. `HEADWATER_BENCH_SECONDS` is how long each run measures (180),
//! `HEADWATER_BENCH_RUNS` which of them (`default-hls,default-dash,ultra-hls,ultra-dash`).

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::{Process, Server, command, film, tool};

/// Squares of the clock: `tests/players/latency.mjs` says how they are read.
const TIME_BITS: usize = 20;
/// The side of a square, in pixels of 1280.
const SQUARE: usize = 40;
/// What players find their place in, before anything counts.
const SETTLE_SECONDS: u64 = 30;

/// What is measured: a name, the setting, the player.
const RUNS: [(&str, &str, &str); 4] = [
    ("default-hls", "true", "hls"),
    ("default-dash", "true", "dash"),
    ("ultra-hls", "\"ultra\"", "hls"),
    ("ultra-dash", "\"ultra\"", "dash"),
];

/// The filters that burn the time of day into each picture, and then give it its own time again.
fn clock() -> String {
    let bit = |index: usize| format!("mod(floor(t*1000/{}),2)", 1_u64 << index);
    let parity = |first: usize| {
        let bits: Vec<String> = (first..TIME_BITS).step_by(2).map(bit).collect();
        format!("mod({},2)", bits.join("+"))
    };
    let mut squares = vec!["1".to_owned(), "0".to_owned()];
    squares.extend((0..TIME_BITS).map(bit));
    squares.extend([parity(0), parity(1)]);
    let width = squares.len() * SQUARE;
    let mut graph = format!(
        "setpts=RTCTIME/(TB*1000000),drawbox=x=0:y=0:w={width}:h={SQUARE}:color=black:t=fill"
    );
    for (index, on) in squares.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            graph,
            ",drawbox=x={}:y=0:w={SQUARE}:h={SQUARE}:color=white:t=fill:enable='{on}'",
            index * SQUARE
        );
    }
    graph + ",setpts=N/(30*TB)"
}

/// ffmpeg publishing the film with the clock in it.
fn publish(url: &str, seconds: u64) -> Process {
    let mut ffmpeg = command("ffmpeg");
    ffmpeg
        .args(["-v", "error", "-re", "-stream_loop", "-1", "-i"])
        .arg(film());
    ffmpeg.args(["-t", &seconds.to_string(), "-vf", &clock()]);
    ffmpeg.args([
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
    ]);
    ffmpeg.args(["-b:v", "5M", "-g", "60", "-fps_mode", "passthrough"]);
    ffmpeg.args(["-c:a", "aac", "-b:a", "128k", "-ac", "2", "-f", "flv", url]);
    Process::start(ffmpeg)
}

/// The mean of each stage, in milliseconds, as the server has measured it.
fn stages(server: &Server) -> String {
    let text = server.get("/metrics").text();
    let value = |kind: &str, stage: &str| {
        let name = format!("headwater_part_latency_seconds_{kind}{{");
        let wanted = format!("stage=\"{stage}\"");
        text.lines()
            .filter(|line| line.starts_with(&name) && line.contains(&wanted))
            .find_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    ["ingest", "transcode", "package", "publish", "total"]
        .map(|stage| {
            let mean = value("sum", stage) / value("count", stage).max(1.0);
            format!("{stage} {:.1}", mean * 1_000.0)
        })
        .join(", ")
}

fn measure(name: &str, low_latency: &str, engine: &str, seconds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    let text = format!("[package]\nlow_latency = {low_latency}\n");
    std::fs::write(&config, text).expect("the configuration is written");
    let server = Server::start(&["--config", &config.to_string_lossy()]);
    let whole = SETTLE_SECONDS + seconds;
    let (base, seconds, settle) = (
        server.url("/"),
        seconds.to_string(),
        SETTLE_SECONDS.to_string(),
    );
    let mut script = tool("node", &["latency.mjs", &base, "--engine", engine]);
    script.args(["--seconds", &seconds, "--settle", &settle]);
    script.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/players"));
    let mut script = script
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts: scripts/npm_tools.sh");
    let mut said = BufReader::new(script.stdout.take().expect("piped")).lines();
    let mut next = || said.next()?.ok();
    let open = next().expect("the browser starts");
    // It has limits of its own, and ends by itself.
    let _publisher = publish(&server.publish_url("clock"), whole + 120);
    let line = next().unwrap_or(open);
    let found: serde_json::Value = serde_json::from_str(&line).expect("a verdict");
    script.wait().expect("it has ended");
    println!(
        "  {name:<13} median {} ms, p95 {} ms, longest {} ms; stalls {} ({} ms), {} before; the player \
         says {} ms; lines {}; failures {}",
        found["median_ms"],
        found["p95_ms"],
        found["longest_ms"],
        found["stalls"],
        found["stalled_ms"],
        found["stalls_while_settling"],
        found["player_says_ms"],
        found["heights"],
        found["failures"],
    );
    println!("                inside, mean ms: {}", stages(&server));
}

fn main() {
    let seconds = std::env::var("HEADWATER_BENCH_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(180);
    let wanted = std::env::var("HEADWATER_BENCH_RUNS").unwrap_or_default();
    println!("glass to glass, 720p30, default ladder, {seconds} s each");
    for (name, low_latency, engine) in RUNS {
        if wanted.is_empty() || wanted.split(',').any(|part| part == name) {
            measure(name, low_latency, engine, seconds);
        }
    }
}
