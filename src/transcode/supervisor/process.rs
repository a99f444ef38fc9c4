//! The worker as a child process: its socket, its stderr, its end.
//!
//! Enters: [`Message`]s to be sent; what the child sends
//! Leaves: [`Output`]s; the child's stderr in our log, line by line
//! Never:  leaves a child behind: it is killed when this is dropped
//! Time:   carried as it is
//! Spec:   [`crate::transcode::ipc`]

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Error, Input, MAX_LAST_LINES, Options, Output, Probe};
use crate::id::StreamName;
use crate::transcode::ipc::Message;

/// How long a worker may take to exit once it has closed its socket.
const EXIT_LIMIT: Duration = Duration::from_secs(5);
/// How long a worker may take nothing that it is fed, or, once its source has ended, say nothing: far longer
/// than it takes to drain a decoder that hangs, after which it goes on.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a probe may take: a first scan of all plugins is slow on a cold disk.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// Bytes taken from the socket at once.
const READ_BYTES: usize = 256 * 1024;
/// Room below which a read would be too small to be worth a call of the system.
const MIN_SPARE_BYTES: usize = 8 * 1024;
/// The longest line of a worker's stderr that is kept, in characters.
const MAX_LINE_CHARS: usize = 500;

pub(super) struct Worker {
    child: Child,
    reader: OwnedReadHalf,
    writer: Option<OwnedWriteHalf>,
    stderr: JoinHandle<VecDeque<String>>,
    feeder: Option<JoinHandle<Fed>>,
}

/// How feeding a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// The source has ended.
    All,
    /// The worker is gone; its end is seen, and explained, where its answers are read.
    Gone,
    /// The worker took nothing for [`STALL_LIMIT`].
    Stalled,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

impl Worker {
    pub(super) fn spawn(options: &Options) -> Result<Self, Error> {
        let (ours, theirs) = StdUnixStream::pair().map_err(Error::Spawn)?;
        ours.set_nonblocking(true).map_err(Error::Spawn)?;
        let mut child = Command::new(&options.program)
            .arg("worker")
            // Only for people who look at the list of processes.
            .arg(options.stream.as_str())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal reaches the whole group; a worker ends when it has delivered
            // everything, not before.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Spawn)?;
        let stderr = child.stderr.take();
        let stderr = tokio::spawn(follow(stderr, options.stream.clone()));
        let (reader, writer) = UnixStream::from_std(ours)
            .map_err(Error::Spawn)?
            .into_split();
        Ok(Self {
            child,
            reader,
            writer: Some(writer),
            stderr,
            feeder: None,
        })
    }

    /// Begins to send `plan`, what was gathered, and whatever comes, in a task of its own.
    pub(super) fn feed(
        &mut self,
        plan: Message,
        gathered: Vec<Input>,
        mut inputs: mpsc::Receiver<Input>,
    ) {
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        self.feeder = Some(tokio::spawn(async move {
            let gathered = gathered.into_iter().map(message);
            let mut first: VecDeque<Message> = std::iter::once(plan).chain(gathered).collect();
            let mut buffer = BytesMut::new();
            loop {
                let next = match first.pop_front() {
                    Some(message) => Some(message),
                    None => inputs.recv().await.map(message),
                };
                let Some(message) = next else {
                    return Fed::All;
                };
                // A message too long for the worker is one that no publisher may send; it is lost.
                if let Err(error) = message.write(&mut buffer) {
                    tracing::warn!(%error, "sample not transcoded");
                }
                while !buffer.is_empty() {
                    match timeout(STALL_LIMIT, writer.write_buf(&mut buffer)).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(_)) => return Fed::Gone,
                        Err(_) => return Fed::Stalled,
                    }
                }
            }
        }));
    }

    /// Reads from the worker; `Ok(0)` at its end.
    async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, Error> {
        if let Some(feeder) = &mut self.feeder {
            // A worker that is fed is watched by its feeder: it may well have nothing to say for long.
            let fed = tokio::select! {
                read = self.reader.read_buf(buffer) => return Ok(read.unwrap_or(0)),
                fed = feeder => fed.unwrap_or(Fed::Gone),
            };
            self.feeder = None;
            if fed == Fed::Stalled {
                return Err(Error::Stalled);
            }
        }
        let read = timeout(STALL_LIMIT, self.reader.read_buf(buffer)).await;
        Ok(read.map_err(|_| Error::Stalled)?.unwrap_or(0))
    }

    /// Hands on everything the worker sends, until its end.
    pub(super) async fn deliver(&mut self, outputs: &mpsc::Sender<Output>) -> Result<(), Error> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut finished = false;
        loop {
            while let Some(message) = Message::parse(&mut buffer)? {
                let output = match message {
                    Message::Opened(renditions) => Output::Opened(renditions),
                    Message::Encoded { rendition, sample } => Output::Sample { rendition, sample },
                    Message::Conducted(conducted) => Output::Conducted(conducted),
                    _ => {
                        finished = true;
                        continue;
                    }
                };
                outputs.send(output).await.map_err(|_| Error::Stopped)?;
            }
            // Only when nearly full: what has been cut from the buffer keeps all of it alive, so a fresh
            // one for every read would hold a whole buffer for every sample in the window.
            if buffer.capacity() - buffer.len() < MIN_SPARE_BYTES {
                buffer.reserve(READ_BYTES);
            }
            if self.read(&mut buffer).await? == 0 {
                break;
            }
        }
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

    async fn exit(&mut self) -> String {
        match timeout(EXIT_LIMIT, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                // Killed already, or killed by this: both are an end.
                let _ = self.child.kill().await;
                format!("did not exit within {} s", EXIT_LIMIT.as_secs())
            }
        }
    }
}

fn message(input: Input) -> Message {
    match input {
        Input::Track(info) => Message::Track(info),
        Input::Sample(track, sample) => Message::Source { track, sample },
        Input::Clock(now) => Message::Clock(now),
        Input::Detach => Message::Detach,
    }
}

/// Logs every line of a worker's stderr and returns the last ones.
async fn follow(stderr: Option<ChildStderr>, stream: StreamName) -> VecDeque<String> {
    let mut last = VecDeque::new();
    let Some(stderr) = stderr else {
        return last;
    };
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line: String = line.chars().take(MAX_LINE_CHARS).collect();
        tracing::info!(%stream, "worker: {line}");
        if last.len() == MAX_LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

pub(super) async fn probe(program: &Path, elements: &[String]) -> Result<Probe, Error> {
    let child = Command::new(program)
        .arg("worker")
        .arg("--probe")
        .args(elements)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
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
    let mut child = Command::new(program)
        .arg("worker")
        .arg("--slate")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
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
