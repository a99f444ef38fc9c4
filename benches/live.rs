//! A whole live broadcast, server and worker, beside one ffmpeg that makes the same ladder.
//!
//! Twenty seconds of 720p30 go to 720p, 480p and 360p at the pace of the clock. Printed are the CPU
//! time of the server's process tree against ffmpeg's, the time from the first key frame to a
//! playlist that can be played, and the server's own memory in the middle and at the end.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FILM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/fixtures/media/bbb_720p30_12s.mp4"
);
/// Three rungs of the default ladder.
const LADDER: &str = include_str!("../pipelines/auto.toml");
const SECONDS: u64 = 20;
/// Runs of each.
const RUNS: usize = 3;

/// A child that is killed by its handle when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Clock ticks of user and system time of a process and of its ended children.
fn cpu_ticks(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let times = fields.skip(11).take(4);
    times
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum()
}

/// Anonymous resident memory of a process, in kilobytes.
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn wait_for(authority: &str, path: &str) {
    let begun = Instant::now();
    while get(authority, path).is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "no {path}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn get(authority: &str, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(authority).ok()?;
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// The default ladder without its rungs for 1080, 240 and 60 frames per second.
fn three_rungs() -> String {
    let mut parts = LADDER.split("[[video.rung]]");
    let head = parts.next().expect("a head").to_owned();
    let (mut rungs, mut tail) = (String::new(), String::new());
    for part in parts {
        let (rung, rest) = part.split_once("\n[audio]").unwrap_or((part, ""));
        if !rest.is_empty() {
            tail = format!("\n[audio]{rest}");
        }
        let wanted = ["height = 720\nmax_fps = 30", "height = 480", "height = 360"];
        if wanted.iter().any(|wanted| rung.contains(wanted)) {
            rungs.push_str("[[video.rung]]");
            rungs.push_str(rung);
        }
    }
    head + &rungs + &tail
}

fn ffmpeg(args: &[&str]) -> Killed {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-stream_loop", "-1", "-i", FILM]);
    command
        .args(["-t", &SECONDS.to_string()])
        .args(args)
        .stdin(Stdio::null());
    Killed(command.spawn().expect("ffmpeg"))
}

/// What a broadcast cost.
struct Cost {
    ticks: u64,
    playable: Duration,
    resident_kb: [u64; 2],
}

fn ours(folder: &std::path::Path) -> Cost {
    std::fs::create_dir_all(folder).expect("a folder of its own");
    let ladder = folder.join("three.toml");
    std::fs::write(&ladder, three_rungs()).expect("the ladder is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args([
        "serve",
        "--rtmp",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--store",
    ]);
    command
        .arg(folder.join("store"))
        .arg("--ladder")
        .arg(&ladder);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Killed(command.spawn().expect("the server"));
    let lines = BufReader::new(server.0.stdout.take().expect("piped")).lines();
    let (mut http, mut rtmp) = (None, None);
    for line in lines.map_while(Result::ok) {
        let find = |scheme| {
            let rest = line.split_once(scheme)?.1;
            Some(rest.split(['/', ' ']).next()?.to_owned())
        };
        http = http.or_else(|| find("http://"));
        rtmp = rtmp.or_else(|| find("rtmp://"));
        if http.is_some() && rtmp.is_some() {
            break;
        }
    }
    let (http, rtmp) = (http.expect("printed"), rtmp.expect("printed"));
    let pid = server.0.id();
    let mut publisher = ffmpeg(&[
        "-c",
        "copy",
        "-f",
        "flv",
        &format!("rtmp://{rtmp}/live/bench"),
    ]);
    // A publisher's first picture is a key frame and follows its acceptance at once.
    wait_for(&http, "/api/v1/streams/bench");
    let begun = Instant::now();
    wait_for(&http, "/live/bench/index.m3u8");
    let playable = begun.elapsed();
    std::thread::sleep(Duration::from_secs(SECONDS / 2).saturating_sub(playable));
    let half = resident_kb(pid);
    publisher.0.wait().expect("ffmpeg ends");
    let full = resident_kb(pid);
    let ended = || get(&http, "/live/bench/v720/index.m3u8").is_some_and(|t| t.contains("ENDLIST"));
    while !ended() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the broadcast does not end"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    Cost {
        ticks: cpu_ticks(&pid.to_string()),
        playable,
        resident_kb: [half, full],
    }
}

fn theirs(folder: &std::path::Path) -> u64 {
    let graph = "[0:v]split=3[a][b][c];[b]scale=856:480:flags=bilinear[d];\
                 [c]scale=640:360:flags=bilinear[e]";
    let target = folder.join("ladder.mkv");
    let mut args = vec!["-filter_complex", graph];
    args.extend(["-map", "[a]", "-map", "[d]", "-map", "[e]", "-map", "0:a"]);
    args.extend([
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-tune",
        "zerolatency",
    ]);
    args.extend([
        "-threads:v",
        "1",
        "-force_key_frames",
        "expr:gte(t,n_forced*2)",
    ]);
    args.extend([
        "-x264-params",
        "scenecut=0:open-gop=0:keyint=240:sliced-threads=0",
    ]);
    for (rung, rate) in ["2800k", "1300k", "750k"].iter().enumerate() {
        // Rate and buffer too are those of the pipeline: their control costs a tenth of the encoding.
        for option in ["-b:v", "-maxrate:v", "-bufsize:v"] {
            args.push(Box::leak(format!("{option}:{rung}").into_boxed_str()));
            args.push(rate);
        }
    }
    args.extend([
        "-c:a",
        "aac",
        "-aac_coder",
        "fast",
        "-b:a",
        "128k",
        "-ac",
        "2",
        "-y",
    ]);
    args.push(Box::leak(
        target.to_string_lossy().into_owned().into_boxed_str(),
    ));
    let before = cpu_ticks("self");
    let mut process = ffmpeg(&args);
    process.0.wait().expect("ffmpeg ends");
    cpu_ticks("self") - before
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    // In turn, and the least of each counts: what a busy machine adds, it adds to either at random.
    let mut costs = Vec::new();
    let mut theirs_ticks = u64::MAX;
    for run in 0..RUNS {
        let cost = ours(&folder.path().join(run.to_string()));
        let peer = theirs(folder.path());
        println!(
            "run {run}: server and worker {} ticks, one ffmpeg {peer} ticks",
            cost.ticks
        );
        costs.push(cost);
        theirs_ticks = theirs_ticks.min(peer);
    }
    let ours_ticks = costs.iter().map(|cost| cost.ticks).min().unwrap_or(0);
    let permille = ours_ticks * 1_000 / theirs_ticks.max(1);
    println!("live ladder 720/480/360, {SECONDS} s at the pace of the clock, the least of {RUNS}");
    println!("  CPU, server and worker   {ours_ticks} ticks");
    println!("  CPU, one ffmpeg          {theirs_ticks} ticks");
    println!(
        "  ratio                    {}.{:03}",
        permille / 1_000,
        permille % 1_000
    );
    for cost in &costs {
        let [half, full] = cost.resident_kb;
        println!(
            "  publisher accepted to playable index.m3u8  {:.2?}",
            cost.playable
        );
        println!(
            "  server's own memory      {half} kB after {} s, {full} kB at the end",
            SECONDS / 2
        );
    }
}
