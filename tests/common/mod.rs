//! What the end-to-end tests share: the real server as a child process, real publishers, HTTP.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

/// The film clip, twelve seconds of 1280×720 at 30 fps with sound in 5.1.
pub(crate) fn film() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/media/bbb_720p30_12s.mp4")
}

/// A ladder of 360 and 180 lines: what can be encoded beside players on two cores.
pub(crate) fn small_ladder() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ladders/small.toml");
    path.display().to_string()
}

/// `program`, killed by the kernel when the thread that starts it ends, however it ends: a test binary
/// that is killed leaves nothing behind.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// `program` with `args`, as [`command`] starts it.
pub(crate) fn tool(program: &str, args: &[&str]) -> Command {
    let mut command = command(program);
    command.args(args);
    command
}

/// `headwater` with `args`, nothing of the environment deciding what it does.
pub(crate) fn headwater(args: &[&str]) -> Command {
    headwater_at(env!("CARGO_BIN_EXE_headwater"), args)
}

/// As [`headwater`], of which `program` is a copy.
pub(crate) fn headwater_at(program: &str, args: &[&str]) -> Command {
    let mut command = tool(program, args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HEADWATER_")) {
        command.env_remove(name);
    }
    command
}

/// `headwater serve` on free ports, which stores in `folder`.
pub(crate) fn serve_on(folder: &Path) -> Command {
    let mut command = headwater(&["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.arg("--store").arg(folder);
    command
}

/// The rules that `headwater inspect` says are broken in what it printed, but for those in `lenient`.
pub(crate) fn broken_rules<'a>(out: &'a str, lenient: &[&str]) -> Vec<&'a str> {
    let rules = [
        "  HLS-", "  LL-", "  CMAF-", "  DASH-", "  HTTP-", "  GRID-",
    ];
    let found = out
        .lines()
        .filter(|line| rules.iter().any(|rule| line.starts_with(rule)));
    found
        .filter(|line| !lenient.iter().any(|rule| line.contains(rule)))
        .collect()
}

/// `headwater inspect` looked, as its exit code and what it printed tell, and found no rule broken but those in
/// `lenient`.
pub(crate) fn assert_rules_kept((code, out, err): &(i32, String, String), lenient: &[&str]) {
    let broken = broken_rules(out, lenient);
    assert!(broken.is_empty(), "{code}\n{out}\n{err}");
    assert!(out.contains("rules checked"), "{code}\n{out}\n{err}");
}

/// Now, in microseconds since the epoch.
pub(crate) fn now_us() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

/// Runs every check, then fails with all that did not hold, by name.
pub(crate) fn check_all(checks: &[(&str, &(dyn Fn() + Sync))]) {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let running: Vec<_> = checks
            .iter()
            .map(|(name, check)| (*name, scope.spawn(*check)))
            .collect();
        let failed = running
            .into_iter()
            .filter_map(|(name, run)| run.join().is_err().then_some(name));
        failed.collect()
    });
    assert!(
        failed.is_empty(),
        "these did not hold (their panics are above): {failed:#?}"
    );
}

/// A child process that is killed by its handle when dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command`; it must not outlive the test, so it is killed on drop.
    pub(crate) fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, name }
    }

    /// Waits for the end, at most `limit`; gives the exit code.
    pub(crate) fn wait(&mut self, limit: Duration) -> i32 {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {limit:?}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as who presses Stop does, so that an encoder says goodbye; it has `limit` for that.
    pub(crate) fn stop(mut self, limit: Duration) {
        let pid = self.pid().to_string();
        run_ok(tool("kill", &["-INT", &pid]), limit);
        self.wait(limit);
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, twice at once, as `timeout` and a terminal's Ctrl-C through it do.
    pub(crate) fn interrupt(&self) {
        let pid = self.pid().to_string();
        let status = Command::new("kill")
            .args(["-INT", &pid, &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end, at most `limit`; gives exit code, stdout and stderr.
pub(crate) fn run(mut command: Command, limit: Duration) -> (i32, String, String) {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
    let out = read_to_end(child.stdout.take().unwrap());
    let err = read_to_end(child.stderr.take().unwrap());
    let code = Process { child, name }.wait(limit);
    (code, out.join().unwrap(), err.join().unwrap())
}

/// Runs `command` and gives its stdout; fails the test, with its stderr, unless it exits with 0.
pub(crate) fn run_ok(command: Command, limit: Duration) -> String {
    let shown = format!("{command:?}");
    let (code, out, err) = run(command, limit);
    assert_eq!(code, 0, "{shown}\n--- stdout\n{out}\n--- stderr\n{err}");
    out
}

fn read_to_end(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Calls `probe` until it gives something, at most `limit`.
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a server has logged, also when it is gone.
#[derive(Clone, Default)]
pub(crate) struct Log(std::sync::Arc<std::sync::Mutex<String>>);

impl Log {
    /// All lines so far.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// The real server, on free ports, with a store of its own.
pub(crate) struct Server {
    process: Process,
    /// Where HTTP is served, such as `127.0.0.1:40001`.
    pub(crate) http: String,
    /// Where RTMP is taken, such as `127.0.0.1:40002`; empty where it is not.
    pub(crate) rtmp: String,
    /// The folder of the store.
    pub(crate) store: tempfile::TempDir,
    log: Log,
}

impl Server {
    /// Starts `headwater serve` with `args` added; returns once both ports are open.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), args)
    }

    /// As [`Server::start`], on a store that may hold something already.
    pub(crate) fn start_on(store: tempfile::TempDir, args: &[&str]) -> Self {
        let mut command = serve_on(store.path());
        command.args(args);
        Self::start_command(command, store)
    }

    /// Starts `headwater origin`, which serves what is in `folder`.
    pub(crate) fn start_origin(folder: &Path) -> Self {
        let mut command = headwater(&["origin", "--http", "127.0.0.1:0", "--store"]);
        command.arg(folder);
        Self::start_with(command, tempfile::tempdir().unwrap(), false)
    }

    /// Starts `command`, a `headwater serve` on free ports; `store` lives as long as the server.
    pub(crate) fn start_command(command: Command, store: tempfile::TempDir) -> Self {
        Self::start_with(command, store, true)
    }

    /// Starts `command`, a `headwater origin` on a free port; `folder` lives as long as the server.
    pub(crate) fn start_reader(command: Command, folder: tempfile::TempDir) -> Self {
        Self::start_with(command, folder, false)
    }

    fn start_with(mut command: Command, store: tempfile::TempDir, takes_rtmp: bool) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(command);
        let log = Log::default();
        let (found, ports) = mpsc::channel();
        let lines = BufReader::new(process.child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = found.send(line);
            }
        });
        let errors = BufReader::new(process.child.stderr.take().unwrap()).lines();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in errors.map_while(Result::ok) {
                let mut kept = kept.0.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let (mut http, mut rtmp) = (None, None);
        while http.is_none() || (takes_rtmp && rtmp.is_none()) {
            let line = ports
                .recv_timeout(Duration::from_secs(20))
                .unwrap_or_else(|_| {
                    panic!("the server did not say where it listens:\n{}", log.text())
                });
            http = http.or_else(|| authority(&line, "http://"));
            rtmp = rtmp.or_else(|| authority(&line, "rtmp://"));
        }
        Self {
            process,
            http: http.unwrap(),
            rtmp: rtmp.unwrap_or_default(),
            store,
            log,
        }
    }

    /// The RTMP address to publish `key` to.
    pub(crate) fn publish_url(&self, key: &str) -> String {
        format!("rtmp://{}/live/{key}", self.rtmp)
    }

    /// The HTTP address of `path`, which begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// GETs `path`.
    pub(crate) fn get(&self, path: &str) -> Response {
        get(&self.http, path)
    }

    /// GETs `path` until it answers 200, at most `limit`; gives the body as text.
    pub(crate) fn wait_for(&self, path: &str, limit: Duration) -> String {
        eventually(path, limit, || {
            let response = self.get(path);
            (response.status == 200).then(|| response.text())
        })
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// What the server logs, for whoever outlives it.
    pub(crate) fn keep_log(&self) -> Log {
        self.log.clone()
    }

    /// Asks it to end and waits until it has; gives the exit code and the store.
    pub(crate) fn drain(self) -> (i32, tempfile::TempDir) {
        let Self {
            mut process, store, ..
        } = self;
        process.interrupt();
        let code = process.wait(Duration::from_secs(30));
        (code, store)
    }

    /// Lets the server be killed, and gives its store.
    pub(crate) fn into_store(self) -> tempfile::TempDir {
        self.store
    }

    /// The server's process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The pid of the worker that `server` runs for `stream`, if it runs one now.
pub(crate) fn worker_of(server: u32, stream: &str) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    let mut children = children.unwrap_or_default();
    for task in std::fs::read_dir(format!("/proc/{server}/task"))
        .ok()?
        .flatten()
    {
        let more = std::fs::read_to_string(task.path().join("children"));
        children.push_str(&more.unwrap_or_default());
    }
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(format!("\0worker\0{stream}\0").as_bytes())
    };
    let mut pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    pids.find(is_it)
}

/// The `host:port` after `scheme` in `line`.
fn authority(line: &str, scheme: &str) -> Option<String> {
    let (_, rest) = line.split_once(scheme)?;
    rest.split(['/', ' ']).next().map(str::to_owned)
}

/// One HTTP answer.
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The header lines, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of that (lower-case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A plain HTTP/1.0-style GET that shares no code with the server: one connection, read to its end.
pub(crate) fn get(authority: &str, path: &str) -> Response {
    try_get(authority, path).unwrap_or_else(|| panic!("no whole answer from {authority}{path}"))
}

/// As [`get`], of a server that may not be there, or may go away meanwhile: then `None`.
pub(crate) fn try_get(authority: &str, path: &str) -> Option<Response> {
    let mut socket = TcpStream::connect(authority).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut raw = Vec::new();
    socket.read_to_end(&mut raw).ok()?;
    let split = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&raw[..split]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1))?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let response = Response {
        status: status.parse().ok()?,
        headers,
        body: raw[split + 4..].to_vec(),
    };
    let length: Option<usize> = response
        .header("content-length")
        .and_then(|n| n.parse().ok());
    length
        .is_none_or(|length| length == response.body.len())
        .then_some(response)
}

/// Publishes the film, paced, in a loop, with the real ffmpeg.
pub(crate) fn ffmpeg_publish(url: &str, seconds: u32) -> Process {
    let mut command = command("ffmpeg");
    command
        .args(["-v", "error", "-re", "-stream_loop", "-1", "-i"])
        .arg(film());
    command.args(["-t", &seconds.to_string(), "-c", "copy", "-f", "flv", url]);
    Process::start(command)
}
