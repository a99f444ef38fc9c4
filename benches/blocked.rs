//! How long after a part is complete those who wait for it are answered.
//!
//! Two thousand players, each on an HTTP/1.1 connection of its own, ask for the playlist with the next
//! part and ask again as soon as they have it. A broadcast of five renditions goes on at the pace of the
//! clock. The time counts from the moment that the part's last sample is pushed into the packager to the
//! moment that a player has read the whole answer.
//!
//! Server and players are two processes that share this machine's cores. Beside it stands the floor: a
//! server that knows nothing of HTTP but the blank line, and at each tick writes the same bytes to as
//! many sockets.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench may fail loudly, and prints its result"
)]

mod broadcast;
mod peer;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use headwater::package::Config;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::broadcast::{Broadcast, FIRST, cpu_ns, serve};
use self::peer::Killed;

const PLAYERS: usize = 2_000;
/// A part of ten frames at 30 per second.
const PART: Duration = Duration::from_nanos(333_333_333);
const PARTS_PER_SEGMENT: u64 = 6;
/// Parts that everyone is connected and has come into step for, and parts that count.
const WARM_UP: usize = 6;
const PARTS: usize = 45;
/// Which part of the bench a process is.
const ROLE: &str = "HEADWATER_BENCH_ROLE";
const PATH: &str = "/live/bench/v720/index.m3u8";

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_nanos()).expect("before 2554")
}

/// Calls `tick` at the pace of parts for ever, and tells on standard output when each began.
fn at_pace(mut tick: impl FnMut()) {
    let begun = Instant::now();
    for count in 1_u32.. {
        std::thread::sleep((PART * count).saturating_sub(begun.elapsed()));
        println!("{}", now_ns());
        tick();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().expect("a runtime")
}

/// The product: packager, origin, listener.
fn server() {
    let mut broadcast = Broadcast::begin(&Config::default());
    // Ten segments, as a broadcast that has gone on for a while.
    broadcast.advance(Duration::from_secs(20));
    let runtime = runtime();
    let address = runtime.block_on(async { serve(&broadcast.published) });
    println!("{address}");
    let _entered = runtime.enter();
    at_pace(|| broadcast.advance(PART));
}

/// The least that can be done: the same bytes to everyone, at each tick.
fn floor() {
    let answer = std::env::var("HEADWATER_BENCH_BYTES").expect("given");
    let answer = Bytes::from(vec![b' '; answer.parse::<usize>().expect("a number")]);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    let answer: Bytes = [head.as_bytes(), &answer].concat().into();
    let runtime = runtime();
    let (ticks, tick) = watch::channel(());
    let listener =
        runtime.block_on(async { TcpListener::bind("127.0.0.1:0").await.expect("free") });
    println!("{}", listener.local_addr().expect("bound"));
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).expect("set");
            tokio::spawn(broadcast_to(socket, tick.clone(), answer.clone()));
        }
    });
    at_pace(|| ticks.send_replace(()));
}

async fn broadcast_to(
    mut socket: tokio::net::TcpStream,
    mut tick: watch::Receiver<()>,
    answer: Bytes,
) {
    let mut request = [0; 1_024];
    loop {
        let mut len = 0;
        while !request[..len].ends_with(b"\r\n\r\n") {
            match socket.read(&mut request[len..]).await {
                Ok(count) if count > 0 => len += count,
                _ => return,
            }
        }
        tick.mark_unchanged();
        if tick.changed().await.is_err() || socket.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// All players, on one thread that does little: what it takes is part of what is measured. Writes when each
/// answer was there, in nanoseconds, as eight bytes; last the CPU that all of it took.
fn players() {
    let address: SocketAddr = std::env::var("HEADWATER_BENCH_ADDRESS")
        .expect("given")
        .parse()
        .expect("an address");
    let mut poll = Poll::new().expect("a selector");
    let mut events = Events::with_capacity(PLAYERS);
    let mut players: Vec<_> = (0..PLAYERS)
        .map(|index| Player::join(address, &poll, index))
        .collect();
    let mut asking: VecDeque<usize> = (0..PLAYERS).collect();
    let mut begun = Instant::now();
    let mut answered = Vec::with_capacity(PLAYERS * PARTS);
    for round in 0..=WARM_UP + PARTS {
        let mut waiting = PLAYERS;
        while waiting > 0 {
            // Nobody asks while answers are there to be read.
            let next = asking.front().map(|index| begun + pause(*index));
            let limit = next.map(|next| next.saturating_duration_since(Instant::now()));
            poll.poll(&mut events, limit).expect("polled");
            for event in &events {
                if players[event.token().0].read() {
                    answered.push((round, now_ns()));
                    waiting -= 1;
                }
            }
            if !events.is_empty() {
                continue;
            }
            let now = Instant::now();
            while let Some(index) = asking.front().copied()
                && begun + pause(index) <= now
            {
                asking.pop_front();
                players[index].ask();
            }
        }
        asking.extend(0..PLAYERS);
        begun = Instant::now();
    }
    let cpu = cpu_ns(std::process::id());
    let counted = answered.into_iter().filter(|(round, _)| *round > WARM_UP);
    let numbers = counted.map(|(_, at)| at).chain([cpu]);
    let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
    std::io::stdout().write_all(&bytes).expect("read");
}

/// How long a player takes from an answer to its next request: those of no two are the same, as those of
/// players on as many machines, and all ask again before the next part is complete.
fn pause(index: usize) -> Duration {
    let index = u32::try_from(index).expect("few");
    PART / 10 + PART / 2 * index / u32::try_from(PLAYERS).expect("few")
}

struct Player {
    socket: TcpStream,
    buffer: Box<[u8]>,
    len: usize,
    whole: usize,
    /// The place to ask for next; not known before the first answer.
    next: Option<(u64, u64)>,
}

impl Player {
    fn join(address: SocketAddr, poll: &Poll, index: usize) -> Self {
        let socket = std::net::TcpStream::connect(address).expect("connected");
        socket.set_nodelay(true).expect("set");
        socket.set_nonblocking(true).expect("set");
        let mut socket = TcpStream::from_std(socket);
        let registry = poll.registry();
        registry
            .register(&mut socket, Token(index), Interest::READABLE)
            .expect("registered");
        Self {
            socket,
            buffer: vec![0; 32 * 1_024].into(),
            len: 0,
            whole: usize::MAX,
            next: None,
        }
    }

    fn ask(&mut self) {
        let request = match self.next {
            None => request("", "identity"),
            Some((segment, part)) => request(
                &format!("?_HLS_msn={segment}&_HLS_part={part}"),
                "gzip, deflate, br",
            ),
        };
        (self.len, self.whole) = (0, usize::MAX);
        self.socket.write_all(request.as_bytes()).expect("written");
    }

    /// Reads what is there; whether that ends an answer.
    fn read(&mut self) -> bool {
        match self.socket.read(&mut self.buffer[self.len..]) {
            Ok(count) => {
                assert!(count > 0, "the server has closed");
                self.len += count;
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                return false;
            }
        }
        let answer = &self.buffer[..self.len];
        if self.whole == usize::MAX {
            self.whole = whole_length(answer).unwrap_or(usize::MAX);
        }
        if self.len < self.whole {
            return false;
        }
        let is_ok = answer.starts_with(b"HTTP/1.1 200");
        assert!(is_ok, "{}", String::from_utf8_lossy(answer));
        let next = match self.next {
            None => hinted(answer).unwrap_or((FIRST, 0)),
            Some((segment, part)) => {
                let part = part + 1;
                (segment + part / PARTS_PER_SEGMENT, part % PARTS_PER_SEGMENT)
            }
        };
        self.next = Some(next);
        true
    }
}

fn request(query: &str, codings: &str) -> String {
    format!(
        "GET {PATH}{query} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
         Accept: */*\r\nOrigin: https://player.example\r\nAccept-Encoding: {codings}\r\n\r\n"
    )
}

/// Head and body of an answer whose head is there.
fn whole_length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head + length.trim().parse::<usize>().ok()?)
}

/// The segment and the part that a playlist hints.
fn hinted(answer: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(answer).ok()?;
    let hint = text
        .lines()
        .find(|line| line.starts_with("#EXT-X-PRELOAD-HINT"))?;
    let uri = hint.split('"').nth(1)?;
    let mut numbers = uri.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn myself(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// What one run found.
struct Found {
    /// From the part's completion to each answer, sorted, in microseconds.
    micros: Vec<u64>,
    /// CPU of the server for each answer, in nanoseconds, and of the players.
    cpu_ns: [u64; 2],
}

impl Found {
    fn at(&self, permille: usize) -> u64 {
        let index = self.micros.len() * permille / 1_000;
        self.micros[index.min(self.micros.len() - 1)]
    }

    fn print(&self, name: &str) {
        println!(
            "  {name:<9} p50 {:>6} us   p99 {:>6} us   longest {:>6} us   CPU per answer: server {:.1} us, player {:.1} us",
            self.at(500),
            self.at(990),
            self.at(1_000),
            thousandths(self.cpu_ns[0]),
            thousandths(self.cpu_ns[1]),
        );
    }
}

fn thousandths(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX)) / 1_000.0
}

fn measure(role: &str, bytes: usize) -> Found {
    let mut command = myself(role);
    command.env("HEADWATER_BENCH_BYTES", bytes.to_string());
    let mut server = Killed(command.spawn().expect("started"));
    let pid = server.0.id();
    let mut lines = BufReader::new(server.0.stdout.take().expect("piped")).lines();
    let address = lines.next().expect("an address").expect("text");
    let before = cpu_ns(pid);
    let told = std::thread::spawn(move || {
        let lines = lines.map_while(Result::ok);
        lines
            .filter_map(|line| line.parse::<u64>().ok())
            .collect::<Vec<_>>()
    });
    let mut command = myself("players");
    command.env("HEADWATER_BENCH_ADDRESS", address);
    let mut players = Killed(command.spawn().expect("started"));
    let mut raw = Vec::new();
    let mut output = players.0.stdout.take().expect("piped");
    output.read_to_end(&mut raw).expect("read");
    let rounds = (WARM_UP + PARTS + 1) as u64 * PLAYERS as u64;
    let cpu = (cpu_ns(pid) - before) / rounds;
    drop(server);
    let ticks = told.join().expect("no panic");
    let mut numbers: Vec<u64> = raw
        .chunks_exact(8)
        .map(|eight| u64::from_le_bytes(eight.try_into().expect("eight")))
        .collect();
    let players_cpu = numbers.pop().expect("there") / rounds;
    let mut micros: Vec<u64> = numbers
        .into_iter()
        .map(|at| {
            let before = ticks.partition_point(|tick| *tick <= at).checked_sub(1);
            (at - ticks[before.expect("after the first")]) / 1_000
        })
        .collect();
    assert_eq!(micros.len(), PLAYERS * PARTS);
    micros.sort_unstable();
    Found {
        micros,
        cpu_ns: [cpu, players_cpu],
    }
}

/// How long the answer of the product is, so that the floor writes as much.
fn answer_bytes() -> usize {
    let mut server = Killed(myself("server").spawn().expect("started"));
    let mut lines = BufReader::new(server.0.stdout.take().expect("piped")).lines();
    let address = lines.next().expect("an address").expect("text");
    let mut socket = std::net::TcpStream::connect(address).expect("connected");
    let request = request("", "gzip, deflate, br");
    socket.write_all(request.as_bytes()).expect("written");
    let (mut answer, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let count = socket.read(&mut buffer).expect("read");
        assert!(count > 0, "the server has closed");
        answer.extend_from_slice(&buffer[..count]);
        if whole_length(&answer).is_some_and(|whole| whole <= answer.len()) {
            return answer.len();
        }
    }
}

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("server") => return server(),
        Ok("floor") => return floor(),
        Ok("players") => return players(),
        _ => {}
    }
    let bytes = answer_bytes();
    println!("a blocked request's answer of {bytes} bytes, {PLAYERS} players, {PARTS} parts");
    let floor = measure("floor", bytes);
    let ours = measure("server", bytes);
    ours.print("headwater");
    floor.print("floor");
    let ratio = |permille| {
        let (ours, floor) = (ours.at(permille), floor.at(permille).max(1));
        thousandths(ours * 1_000 / floor)
    };
    println!("  ratio     p50 {:.2}   p99 {:.2}", ratio(500), ratio(990));
}
