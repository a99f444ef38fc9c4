//! A thousand clients before a server that only reads, whose memory is empty.
//!
//! All fetch the same segments of two seconds at 2.8 Mbit/s, one after the other, as viewers of one
//! broadcast do, for five seconds: from a folder, and from a bucket of a Ceph gateway on this machine, which takes its
//! part of the processors. Beside it nginx sends the same files. How often each object was read
//! from the store is the server's own count, and for the bucket the gateway's too: one is ideal.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

mod broadcast;
mod gateway;
mod peer;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use self::broadcast::cpu_ns;
use self::gateway::{BUCKET, CREDENTIALS, Gateway};
use self::peer::{Killed, get, start_nginx};

const CLIENTS: usize = 1_000;
const SEGMENTS: usize = 30;
const SEGMENT_BYTES: usize = 700_000;
const FIRST: usize = 897_600_000;
/// Runs of each, in turn; the best counts.
const RUNS: usize = 3;

/// A server that reads what is in `store`, with nothing in memory, and its address.
fn start_ours(store: &str, gateway: Option<&Gateway>) -> (Killed, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command
        .args(["origin", "--http", "127.0.0.1:0", "--log", "error"])
        .args(["--store", store]);
    if let Some(gateway) = gateway {
        command
            .envs(CREDENTIALS)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL_S3", gateway.endpoint());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().expect("started"));
    let lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    let found = lines.map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("http://")?;
        rest.split('/').next().map(str::to_owned)
    });
    (child, found.expect("an address"))
}

/// What one run of wrk found.
struct Found {
    megabytes_per_second: u64,
    /// Of the server, for each megabyte.
    cpu_us: u64,
}

fn measure(pid: u32, address: &str, script: &Path) -> Found {
    let before = cpu_ns(pid);
    let mut wrk = Command::new("wrk");
    wrk.args([
        "-t1",
        &format!("-c{CLIENTS}"),
        "-d5s",
        "--timeout",
        "20s",
        "-s",
    ]);
    let output = wrk.arg(script).arg(format!("http://{address}")).output();
    let output = output.expect("wrk");
    let spent = cpu_ns(pid) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("Non-2xx"), "{text}");
    let line = text.lines().find(|line| line.contains("requests in"));
    let count = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let bytes = count.expect("a count") * SEGMENT_BYTES as u64;
    Found {
        megabytes_per_second: bytes / 5_000_000,
        cpu_us: spent * 1_000 / bytes.max(1),
    }
}

/// How often the store was read, and how many objects were asked for.
fn reads(address: &str) -> (u64, u64) {
    let text = String::from_utf8(get(address, "/metrics")).expect("text");
    let counter = |name: &str| -> u64 {
        let name = format!("headwater_origin_{name}_total ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.expect("counted").parse().expect("a number")
    };
    let (reads, hits) = (counter("reads"), counter("hits"));
    let objects = (reads + hits).div_ceil(CLIENTS as u64);
    (reads, objects.min(SEGMENTS as u64))
}

/// The files, and the order in which wrk asks for them.
fn lay_out(folder: &Path) -> std::path::PathBuf {
    let media = folder.join("live/bench/v720");
    std::fs::create_dir_all(&media).expect("made");
    let mut script = String::from("local n = 0\nlocal paths = {");
    for number in FIRST..FIRST + SEGMENTS {
        let body: Vec<u8> = (0..SEGMENT_BYTES)
            .map(|at| u8::try_from((at * 31 + number) % 251).expect("small"))
            .collect();
        std::fs::write(media.join(format!("{number}.m4s")), body).expect("written");
        // Writing to a String cannot fail.
        let _ = write!(script, "\"/live/bench/v720/{number}.m4s\",");
    }
    // Each segment for every client, before the next one.
    let _ = write!(
        script,
        "}}\nrequest = function()\n  n = n + 1\n  \
         return wrk.format(nil, paths[math.floor(n / {CLIENTS}) % {SEGMENTS} + 1])\nend\n"
    );
    let path = folder.join("requests.lua");
    std::fs::write(&path, script).expect("written");
    path
}

/// Puts the segments into the bucket too.
fn upload(folder: &Path, gateway: &Gateway) {
    for number in FIRST..FIRST + SEGMENTS {
        let key = format!("live/bench/v720/{number}.m4s");
        gateway.upload(&folder.join(&key), &key);
    }
}

/// The highest throughput of `found` in megabytes a second, and the least CPU for each megabyte in microseconds.
fn best(found: &[Found]) -> (u64, u64) {
    let speed = found.iter().map(|found| found.megabytes_per_second).max();
    let cpu = found.iter().map(|found| found.cpu_us).min();
    (speed.unwrap_or(0), cpu.unwrap_or(0))
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = lay_out(folder.path());
    let store = folder.path().to_str().expect("text");
    println!(
        "{CLIENTS} clients fetch {SEGMENTS} segments in step, nothing in memory, the best of {RUNS}"
    );
    let (mut ours, mut theirs): (Vec<Found>, Vec<Found>) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let (server, address) = start_ours(store, None);
        ours.push(measure(server.0.id(), &address, &script));
        let (reads, objects) = reads(&address);
        println!("  folder, run {run}: {reads} reads of {objects} objects from the store");
        drop(server);
        let (server, address) = start_nginx(folder.path());
        theirs.push(measure(server.0.id(), &address, &script));
    }
    let of_ceph = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(of_ceph.path());
    upload(folder.path(), &gateway);
    let mut bucket = Vec::new();
    for run in 0..RUNS {
        let (server, address) = start_ours(&format!("s3://{BUCKET}"), Some(&gateway));
        let before = gateway.gets();
        bucket.push(measure(server.0.id(), &address, &script));
        let gets = gateway.gets() - before;
        let (reads, objects) = reads(&address);
        println!(
            "  bucket, run {run}: {reads} reads of {objects} objects from the store, {gets} GETs at the gateway"
        );
    }
    drop(gateway);
    let (ours, theirs, bucket) = (best(&ours), best(&theirs), best(&bucket));
    for (name, (speed, cpu)) in [("folder", ours), ("bucket", bucket), ("nginx", theirs)] {
        println!("  {name:<9} {speed:>6} MB/s   CPU {cpu:>5} us for each megabyte");
    }
    let percent = |a: u64, b: u64| a * 100 / b.max(1);
    for (name, ours) in [("folder", ours), ("bucket", bucket)] {
        println!(
            "  {name} to nginx   throughput {} %   CPU {} %",
            percent(ours.0, theirs.0),
            percent(ours.1, theirs.1)
        );
    }
}
