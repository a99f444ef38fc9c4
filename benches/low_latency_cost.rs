//! What low latency costs the server: its own CPU for one broadcast, with and without, the worker apart.
//!
//! The film at 720p30 goes through the default ladder at the pace of the clock. The same stored and
//! served objects come out either way; with low latency, parts and a new playlist for each of them on
//! top.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Server, ffmpeg_publish};

/// How long each run is measured, after its beginning.
const SECONDS: u64 = 20;
/// Runs of each, in turn; the least counts.
const RUNS: usize = 2;

/// Clock ticks of user and system time of a process alone, without its children.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let times = fields.skip(11).take(2);
    times
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum()
}

/// The server's own CPU for [`SECONDS`] of a broadcast, in ticks of ten milliseconds.
fn measure(low_latency: &str) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    let text = format!("[package]\nlow_latency = {low_latency}\n");
    std::fs::write(&config, text).expect("the configuration is written");
    let mut server = Server::start(&["--config", &config.to_string_lossy()]);
    let _publisher = ffmpeg_publish(&server.publish_url("bench"), 120);
    server.wait_for("/live/bench/index.m3u8", Duration::from_secs(30));
    std::thread::sleep(Duration::from_secs(3));
    // The program that ends the server with this one has become the server.
    let pid = server.process().pid();
    let before = cpu_ticks(pid);
    std::thread::sleep(Duration::from_secs(SECONDS));
    cpu_ticks(pid) - before
}

fn main() {
    let mut least = [u64::MAX; 3];
    for _ in 0..RUNS {
        for (index, low_latency) in ["false", "true", "\"ultra\""].iter().enumerate() {
            least[index] = least[index].min(measure(low_latency));
        }
    }
    println!(
        "the server's own CPU for {SECONDS} s of one broadcast, default ladder, the least of {RUNS}"
    );
    let [plain, ..] = least;
    for (name, ticks) in ["plain", "low latency", "ultra"].iter().zip(least) {
        let percent = ticks * 100 / plain.max(1);
        println!(
            "  {name:<12} {:>5} ms ({}.{:02} % of a core)   ratio {}.{:02}",
            ticks * 10,
            ticks / SECONDS,
            ticks * 100 / SECONDS % 100,
            percent / 100,
            percent % 100
        );
    }
}
