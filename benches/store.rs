//! What keeping a broadcast in a real bucket costs: a Ceph gateway on this machine, its objects in memory.
//!
//! Printed are the time from a segment that is whole on all renditions to the playlists in the bucket that list
//! it, the CPU of the storing process for each gigabit, and its memory, once with a store that works and once
//! with one that is dead and a spool that is full. Before it the same of a client that only writes the same objects,
//! media first: what the gateway and the library take by themselves. The gateway needs most of the machine: what is
//! measured is an upper bound for a service on machines of its own. `benches/origin.rs` has the reading side.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

mod broadcast;
mod gateway;
mod peer;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use headwater::media::{ObjectKey, Payload};
use headwater::store::{BroadcastWriter, Config, Keep, Put, SpoolPlace, Store};
use object_store::ObjectStoreExt as _;
use object_store::aws::AmazonS3Builder;

use self::broadcast::{FIRST, cpu_ns};
use self::gateway::{BUCKET, CREDENTIALS, Gateway};

/// Kilobits per second of the renditions of the default ladder at 720p.
const RUNGS: [(&str, usize); 5] = [
    ("v720", 2_800),
    ("v480", 1_300),
    ("v360", 750),
    ("v240", 400),
    ("a128", 128),
];
/// Segments of two seconds that are stored to measure.
const SEGMENTS: u64 = 200;
/// The pause between two: what a segment takes to be stored on an idle machine, several times over.
const PAUSE: Duration = Duration::from_millis(150);
/// Segments that a dead store is given: more than its spool holds.
const DEAD_SEGMENTS: u64 = 120;
const SPOOL_BYTES: u64 = 64 << 20;
const LISTED: u64 = 6;
/// Says in which of its roles the program runs, and where the store is.
const ROLE: &str = "HEADWATER_BENCH_ROLE";
const PORT: &str = "HEADWATER_BENCH_PORT";

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok(role) => play(role),
        Err(_) => measure(),
    }
}

/// Starts the gateway and each measurement as a process of its own.
fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(folder.path());
    let bits: usize = RUNGS.iter().map(|(_, kbps)| kbps).sum();
    println!("a ladder of {bits} kbit/s in segments of 2 s, {SEGMENTS} of them, to a Ceph gateway");
    for role in ["floor", "speed", "live", "dead"] {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command
            .env(ROLE, role)
            .env(PORT, gateway.port.to_string())
            .envs(CREDENTIALS);
        let status = command.stdin(Stdio::null()).status().expect("started");
        assert!(status.success(), "{role}: {status}");
    }
}

/// One measurement, in a process that does nothing else.
fn play(role: &str) {
    let port = std::env::var(PORT).expect("set").parse().expect("a port");
    let spool = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if role == "floor" {
            return floor(port).await;
        }
        if role == "speed" {
            let store = open(port, spool.path(), role).await;
            return speed(&store).await;
        }
        let line = Line::start(port);
        let store = open(line.port, spool.path(), role).await;
        memory(&store, &line, role).await;
    });
}

async fn open(port: u16, spool: &Path, role: &str) -> Store {
    let config = Config {
        url: format!("s3://{BUCKET}/{role}"),
        endpoint: format!("http://127.0.0.1:{port}"),
        region: "us-east-1".to_owned(),
        spool: SpoolPlace::Folder(spool.to_owned()),
        spool_max_bytes: SPOOL_BYTES,
        max_waiting_bytes: 16 << 20,
        // Otherwise what has left the window while the store was dead would not wait for it.
        keep: Keep::Forever,
        ..Config::default()
    };
    Store::open(config).await.expect("opens")
}

/// The least that it takes: the objects of a segment, then the playlists.
async fn floor(port: u16) {
    let builder = AmazonS3Builder::from_env()
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_allow_http(true)
        .with_bucket_name(BUCKET);
    let client = builder.with_region("us-east-1").build().expect("built");
    let put = async |path: String, body: Vec<u8>| {
        let path = format!("floor/{path}");
        let put = client.put(&path.into(), body.into()).await;
        put.expect("stored");
    };
    let mut took = Vec::new();
    let (mut bytes, spent) = (0, cpu_ns(std::process::id()));
    for number in FIRST..FIRST + SEGMENTS {
        let begun = Instant::now();
        let media = RUNGS.map(|(rung, kbps)| {
            let body = vec![u8::try_from(number % 251).expect("small"); kbps * 1_000 / 8 * 2];
            bytes += body.len() as u64;
            put(format!("{rung}/{number}.m4s"), body)
        });
        join_all(media).await;
        let playlists = RUNGS.map(|(rung, _)| put(format!("{rung}/index.m3u8"), vec![b'#'; 300]));
        join_all(playlists).await;
        took.push(begun.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    tell("floor", took, cpu_ns(std::process::id()) - spent, bytes);
}

fn tell(what: &str, mut took: Vec<Duration>, spent_ns: u64, bytes: u64) {
    took.sort_unstable();
    let share = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let ms = spent_ns / 1_000_000 * 1_000_000_000 / (bytes * 8);
    println!(
        "  {what}: from whole to stored and listed   p50 {:>6.1?}   p99 {:>6.1?}; CPU for each gigabit {ms} ms",
        share(50),
        share(99)
    );
}

async fn speed(store: &Store) {
    let writer = begin(store);
    until_stored(store).await;
    let mut took = Vec::new();
    let (mut bytes, spent) = (0, cpu_ns(std::process::id()));
    for number in FIRST..FIRST + SEGMENTS {
        let begun = Instant::now();
        bytes += put_segment(&writer, number);
        until_stored(store).await;
        took.push(begun.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    tell("store", took, cpu_ns(std::process::id()) - spent, bytes);
}

async fn memory(store: &Store, line: &Line, role: &str) {
    let writer = begin(store);
    until_stored(store).await;
    line.is_dead.store(role == "dead", Ordering::Relaxed);
    for number in FIRST..FIRST + DEAD_SEGMENTS {
        put_segment(&writer, number);
        tokio::time::sleep(PAUSE).await;
    }
    if role == "live" {
        assert!(writer.flush(Duration::from_secs(60)).await, "all is stored");
    }
    let health = store.health().borrow().clone();
    let mib = |bytes: u64| bytes / (1 << 20);
    println!(
        "  memory with a {role} store         {:>4} MiB; the spool has {} MiB, {} objects were given up",
        mib(resident()),
        mib(health.spooled_bytes),
        health.lost
    );
    // Nobody is there to whom the rest could be given.
    std::process::exit(0);
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("told").trim().parse::<u64>().expect("a number") * 1024
}

fn begin(store: &Store) -> BroadcastWriter {
    let mut writer = store.broadcast("bench".parse().expect("a name"));
    writer.begin();
    for (rung, _) in RUNGS {
        put(&writer, &format!("{rung}/init-{FIRST}.mp4"), vec![1; 800]);
    }
    writer
}

/// What a segment boundary brings: media, then the playlists that list it. How many bytes of media.
fn put_segment(writer: &BroadcastWriter, number: u64) -> u64 {
    let mut bytes = 0;
    for (rung, kbps) in RUNGS {
        let body = vec![u8::try_from(number % 251).expect("small"); kbps * 1_000 / 8 * 2];
        bytes += body.len() as u64;
        put(writer, &format!("{rung}/{number}.m4s"), body);
    }
    let oldest = FIRST.max((number + 1).saturating_sub(LISTED));
    for (rung, _) in RUNGS {
        let mut text = format!("#EXTM3U\n#EXT-X-MAP:URI=\"init-{FIRST}.mp4\"\n");
        for listed in oldest..=number {
            text.push_str(&format!("#EXTINF:2.0,\n{listed}.m4s\n"));
        }
        put(writer, &format!("{rung}/index.m3u8"), text.into_bytes());
        if oldest > FIRST {
            let gone: ObjectKey = format!("live/bench/{rung}/{}.m4s", oldest - 1)
                .parse()
                .expect("a key");
            writer.forget(&gone);
        }
    }
    bytes
}

fn put(writer: &BroadcastWriter, path: &str, body: Vec<u8>) {
    let key: ObjectKey = format!("live/bench/{path}").parse().expect("a key");
    writer.put(Put {
        key,
        body: Payload::from(Bytes::from(body)),
        content_type: "video/mp4".into(),
        cache_control: "no-store".into(),
    });
}

async fn until_stored(store: &Store) {
    let mut health = store.health();
    let before = health.borrow_and_update().stored;
    let done = health.wait_for(|health| health.stored > before && health.waiting_objects == 0);
    done.await.expect("the store lives");
}

/// A line to the gateway that can be cut.
struct Line {
    port: u16,
    is_dead: Arc<AtomicBool>,
}

impl Line {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let port = listener.local_addr().expect("bound").port();
        let is_dead = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_dead);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let service = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], to)));
                let Ok(service) = service else { continue };
                for (from, to) in [(&client, &service), (&service, &client)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let cut = Arc::clone(&cut);
                    thread::spawn(move || {
                        carry(&mut from.expect("open"), &mut to.expect("open"), &cut)
                    });
                }
            }
        });
        Self { port, is_dead }
    }
}

fn carry(from: &mut TcpStream, to: &mut TcpStream, cut: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if cut.load(Ordering::Relaxed) || to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
