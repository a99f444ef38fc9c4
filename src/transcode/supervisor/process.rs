//! The worker as a child process: its socket, its stderr, its end.
//!
//! Enters: bytes to be sent; what the child sends
//! Leaves: the child's bytes; its stderr in our log, line by line; how it ended
//! Never:  leaves a child behind: it is killed when this is dropped
//! Time:   carried as it is
//! Spec:   [`crate::transcode::ipc`]

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::said::{Said, Told};
use super::{Error, MAX_LAST_LINES, OWN_PROGRAM, Options, Probe};
use crate::id::StreamName;

/// How long a worker may take to exit once it has closed its socket.
const EXIT_LIMIT: Duration = Duration::from_secs(5);
/// How long a probe may take: a first scan of all plugins is slow on a cold disk.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// Bytes taken from the socket at once.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// Room below which a read would be too small to be worth a call of the system.
const MIN_SPARE_BYTES: usize = 8 * 1024;
/// Bytes taken from its stderr at once.
const READ_LINE_BYTES: usize = 4_096;
/// What of the environment a worker is given: where GStreamer, drivers and libraries find their things. Nothing in it
/// is secret; the rest may be.
const ENVIRONMENT: [&str; 14] = [
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_DATA_DIRS",
    "XDG_RUNTIME_DIR",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LLVM_PROFILE_FILE",
    "RUST_BACKTRACE",
];
/// The same by what names begin with.
const ENVIRONMENT_OF: [&str; 22] = [
    "GST_", "G_", "ORC_", "LC_", "MALLOC_", "GLIBC_", "LIBVA_", "DRI_", "MESA_", "INTEL_", "AMD_",
    "RADV_", "CUDA_", "NVIDIA_", "OCL_", "ONEVPL_", "MFX_", "VK_", "LIBGL_", "GBM_", "__EGL_",
    "GALLIUM_",
];
/// What has GStreamer write more than usual.
const DEBUG: &str = "GST_DEBUG";

/// A worker's process.
pub(super) struct Worker {
    child: Child,
    stderr: JoinHandle<VecDeque<String>>,
    /// What it says.
    pub(super) reader: Reader,
    /// What it is told.
    pub(super) writer: Writer,
}

pub(super) struct Reader(OwnedReadHalf);

pub(super) struct Writer(Option<OwnedWriteHalf>);

impl Worker {
    pub(super) fn spawn(options: &Options) -> Result<Self, Error> {
        let (ours, theirs) = StdUnixStream::pair().map_err(Error::Spawn)?;
        ours.set_nonblocking(true).map_err(Error::Spawn)?;
        let mut child = command(&options.program)
            // Only for people who look at the list of processes.
            .arg(options.stream.as_str())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal reaches the whole group; a worker ends when it has delivered
            // everything, not before.
            .process_group(0)
            .spawn()
            .map_err(Error::Spawn)?;
        let stderr = child.stderr.take();
        let stderr = tokio::spawn(follow(stderr, options.stream.clone()));
        let (reader, writer) = UnixStream::from_std(ours)
            .map_err(Error::Spawn)?
            .into_split();
        Ok(Self {
            child,
            stderr,
            reader: Reader(reader),
            writer: Writer(Some(writer)),
        })
    }

    /// How it ended, once it has closed its socket. `finished` if it has said that it delivered everything.
    pub(super) async fn end(mut self, finished: bool) -> Result<(), Error> {
        let status = self.exit().await;
        if finished && status == "exit status: 0" {
            return Ok(());
        }
        let last = timeout(EXIT_LIMIT, &mut self.stderr).await;
        let last = last.ok().and_then(Result::ok).unwrap_or_default();
        Err(Error::Died {
            status,
            last: last.into(),
        })
    }

    /// Ends it, and waits until it has.
    pub(super) async fn kill(mut self) {
        self.kill_group();
        // It has ended already, or does by this.
        let _ = timeout(EXIT_LIMIT, self.child.kill()).await;
    }

    async fn exit(&mut self) -> String {
        match timeout(EXIT_LIMIT, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                self.kill_group();
                // Killed already, or killed by this: both are an end.
                let _ = self.child.kill().await;
                format!("did not exit within {} s", EXIT_LIMIT.as_secs())
            }
        }
    }
}

impl Worker {
    /// Ends it and what it may have started.
    fn kill_group(&self) {
        // Nobody else can have its number before it was waited for.
        let pid = self.child.id().map(u32::cast_signed);
        if let Some(group) = pid.and_then(Pid::from_raw) {
            // It has ended already, or does by this.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// The hidden command `worker` of `program`, without what it need not know; killed when it is dropped.
fn command(program: &Path) -> Command {
    let is_needed = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        let mut starts = ENVIRONMENT_OF.iter().map(|start| start.as_bytes());
        let mut names = ENVIRONMENT.iter().map(|name| name.as_bytes());
        names.any(|needed| needed == name) || starts.any(|start| name.starts_with(start))
    };
    let mut command = Command::new(program);
    if program == Path::new(OWN_PROGRAM) {
        command.arg0("headwater");
    }
    command
        .arg("worker")
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_needed(name)))
        .kill_on_drop(true);
    command
}

impl Reader {
    /// Reads what has come; 0 at the worker's end. Cancel safe.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> usize {
        // Only when nearly full: what has been cut from the buffer keeps all of it alive, so a fresh
        // one for every read would hold a whole buffer for every sample in the window.
        if buffer.capacity() - buffer.len() < MIN_SPARE_BYTES {
            buffer.reserve(READ_BYTES);
        }
        self.0.read_buf(buffer).await.unwrap_or(0)
    }
}

impl Writer {
    /// Whether more may be written.
    pub(super) const fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Takes bytes from the front of `buffer`, which is not empty. A worker that takes no more is about to
    /// end, which is seen, and explained, where its answers are read. Cancel safe.
    pub(super) async fn write(&mut self, buffer: &mut BytesMut) {
        let written = match &mut self.0 {
            Some(writer) => writer.write_buf(buffer).await.is_ok(),
            None => false,
        };
        if !written {
            self.0 = None;
            buffer.clear();
        }
    }

    /// Tells the worker that nothing more comes.
    pub(super) fn close(&mut self) {
        self.0 = None;
    }
}

/// Logs every line of a worker's stderr and returns the last ones.
async fn follow(stderr: Option<ChildStderr>, stream: StreamName) -> VecDeque<String> {
    let mut said = Said::new(std::env::var_os(DEBUG).is_none());
    let begun = Instant::now();
    let tell = |told| match told {
        Told::Line(line) => tracing::info!(%stream, "worker: {line}"),
        Told::TooMany => tracing::warn!(%stream, "the worker writes so much that it is left out"),
    };
    if let Some(mut stderr) = stderr {
        let mut bytes = vec![0; READ_LINE_BYTES];
        while let Ok(count @ 1..) = stderr.read(&mut bytes).await {
            let bytes = bytes.get(..count).unwrap_or_default();
            said.push(bytes, begun.elapsed(), tell);
        }
    }
    said.end(begun.elapsed(), tell)
}

pub(super) async fn probe(program: &Path, elements: &[String]) -> Result<Probe, Error> {
    let child = command(program)
        .arg("--probe")
        .args(elements)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::Spawn)?;
    let output = timeout(PROBE_LIMIT, child.wait_with_output()).await;
    let output = output
        .map_err(|_| Error::Spawn(std::io::ErrorKind::TimedOut.into()))?
        .map_err(Error::Spawn)?;
    if !output.status.success() {
        let lines = String::from_utf8_lossy(&output.stderr);
        let mut last: Vec<String> = lines.lines().rev().map(str::to_owned).collect();
        last.truncate(MAX_LAST_LINES);
        last.reverse();
        let status = output.status.to_string();
        return Err(Error::Died { status, last });
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(super) async fn try_slate(program: &Path, slate: Bytes) -> Result<(), Error> {
    let mut child = command(program)
        .arg("--slate")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::Spawn)?;
    let mut stdin = child.stdin.take();
    let drawn = async {
        if let Some(stdin) = &mut stdin {
            // A child that reads no further says why in its end.
            let _ = stdin.write_all(&slate).await;
        }
        drop(stdin);
        child.wait_with_output().await
    };
    let output = timeout(PROBE_LIMIT, drawn).await;
    let output = output
        .map_err(|_| Error::Spawn(std::io::ErrorKind::TimedOut.into()))?
        .map_err(Error::Spawn)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it said nothing");
    Err(Error::Slate(last.to_owned()))
}
