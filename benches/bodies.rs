//! What sending media costs: CPU for each megabyte, beside nginx sending the same bytes from a file.
//!
//! wrk fetches one segment of two seconds at 2.8 Mbit/s, and one part of it, over and over on eight
//! connections. Ours sends it from memory in the pieces that it consists of; nginx, with sendfile, from
//! the page cache. Only the servers' own CPU counts, the kernel's work for them included.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

mod broadcast;
mod peer;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use headwater::package::Config;

use self::broadcast::{Broadcast, FIRST, cpu_ns, serve};
use self::peer::{Killed, get, start_nginx};

/// Which part of the bench a process is.
const ROLE: &str = "HEADWATER_BENCH_ROLE";
/// Runs of each, in turn; the least counts.
const RUNS: usize = 3;

/// The product: packager, origin, listener, a broadcast that has gone on for a while and stands still.
fn server() {
    let mut broadcast = Broadcast::begin(&Config::default());
    broadcast.advance(Duration::from_millis(20_700));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    let address = runtime.block_on(async { serve(&broadcast.published) });
    println!("{address}");
    runtime.block_on(std::future::pending::<()>());
}

fn start_ours() -> (Killed, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .env(ROLE, "server")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = Killed(command.spawn().expect("started"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    let address = lines.next().expect("an address").expect("text");
    (child, address)
}

/// CPU of process `pid` for each megabyte that wrk fetches from it, in nanoseconds.
fn measure(pid: u32, url: &str, bytes: usize) -> u64 {
    let before = cpu_ns(pid);
    let mut wrk = Command::new("wrk");
    let output = wrk.args(["-t1", "-c8", "-d3s", url]).output().expect("wrk");
    let spent = cpu_ns(pid) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{text}"
    );
    let line = text.lines().find(|line| line.contains("requests in"));
    let count = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    spent * 1_000_000 / (count.expect("a count") * bytes as u64).max(1)
}

fn main() {
    if std::env::var(ROLE).as_deref() == Ok("server") {
        return server();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, our_address) = start_ours();
    let (nginx, nginx_address) = start_nginx(folder.path());
    println!("sending media to eight connections, CPU for each megabyte, the least of {RUNS}");
    for (name, file) in [
        ("segment", format!("{}.m4s", FIRST + 8)),
        ("part", format!("{}.1.m4s", FIRST + 8)),
        ("sound", format!("{}.m4s", FIRST + 8)),
    ] {
        let rendition = if name == "sound" { "a128" } else { "v720" };
        let path = format!("/live/bench/{rendition}/{file}");
        let body = get(&our_address, &path);
        std::fs::create_dir_all(folder.path().join(format!("live/bench/{rendition}")))
            .expect("made");
        std::fs::write(folder.path().join(path.trim_start_matches('/')), &body).expect("written");
        let least = |pid: u32, address: &str| {
            let url = format!("http://{address}{path}");
            (0..RUNS).map(|_| measure(pid, &url, body.len())).min()
        };
        let ours = least(ours.0.id(), &our_address).expect("one");
        let theirs = least(nginx.0.id(), &nginx_address).expect("one");
        let percent = ours * 100 / theirs.max(1);
        println!(
            "  {name:<8} {:>7} bytes   headwater {:>5} us   nginx {:>5} us   ratio {}.{:02}",
            body.len(),
            ours / 1_000,
            theirs / 1_000,
            percent / 100,
            percent % 100
        );
    }
}
