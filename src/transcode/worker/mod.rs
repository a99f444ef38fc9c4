//! The child process that holds GStreamer: samples of a source in, samples of every rendition out.
//!
//! ```text
//! stdin ──▶ reader ──▶ decode ──▶ conduct ──▶ encode ──▶ output ──▶ stdin (a socket, both ways)
//!          (main)    (GStreamer)  (thread)   (GStreamer)  (thread)
//! ```
//!
//! Enters: [`Message`]s on the socket that stands in for stdin
//! Leaves: [`Message`]s on the same socket; one line per event on stderr; an exit code
//! Never:  more than one broadcast; a decision that `ladder` or `conductor` could have made
//! Time:   inside GStreamer, nanoseconds from the start of the first segment, or from where an earlier
//!         worker's renditions go on
//! Spec:   docs/architecture.md

mod access;
mod clock;
mod conduct;
mod confine;
mod decode;
mod encode;
mod follow;
mod output;
mod probe;
mod pulse;
mod rungs;
mod slate;
mod sound;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::BytesMut;

use self::clock::Origin;
use self::conduct::Event;
use self::decode::Decoders;
use crate::transcode::MAX_SLATE_BYTES;
use crate::transcode::ipc::{self, Message};

/// Decoded frames and blocks that wait for the conductor: small, because frames are large.
const MAX_EVENTS: usize = 4;
/// Access units that wait for the socket, over all renditions: a second of a large ladder.
const MAX_OUTPUTS: usize = 256;
/// Bytes taken from the socket at once.
const READ_BYTES: usize = 256 * 1024;

/// Why a worker stops before its work is done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
    /// The server sent something else than a message.
    #[error("message: {0}")]
    Message(#[from] ipc::Error),
    /// A message came before the plan, or a second plan.
    #[error("message out of order")]
    Order,
    /// GStreamer could not be started, or an element is missing or refuses its properties.
    #[error("{0}")]
    Gst(#[from] gst::glib::Error),
    /// A state change was refused.
    #[error("{0}")]
    State(#[from] gst::StateChangeError),
    /// An element failed while running.
    #[error("{element}: {text}")]
    Element {
        /// Its name, or the pipeline's.
        element: String,
        /// What it said.
        text: String,
    },
    /// The source's time cannot be followed.
    #[error("{0}")]
    Conductor(#[from] crate::transcode::conductor::Error),
    /// A codec of the source that GStreamer has no decoder for.
    #[error("GStreamer has no decoder of {name} here: install {package}, or send another codec")]
    Unsupported {
        /// Its name.
        name: &'static str,
        /// What brings one, in Debian's names.
        package: &'static str,
    },
    /// An encoder's output has no usable configuration.
    #[error("rendition {rendition}: {text}")]
    Configuration {
        /// The rendition's index.
        rendition: usize,
        /// What is wrong.
        text: String,
    },
    /// An encoder lost or added a frame, so that its output no longer lies on the grid.
    #[error("rendition {rendition}: key frame at slot {found}, expected {expected}")]
    Slot {
        /// The rendition's index.
        rendition: usize,
        /// The slot by count.
        expected: i64,
        /// The slot by time.
        found: i64,
    },
    /// One rendition began long after another.
    #[error("{held} access units held, and rendition {rendition} has not begun")]
    NotOpened {
        /// The rendition's index.
        rendition: usize,
        /// How many were held for it.
        held: usize,
    },
    /// Another thread of the worker has stopped.
    #[error("stopped")]
    Stopped,
}

/// Runs `headwater worker` with the arguments of this process: the worker itself, or with `--probe`
/// the question which elements are missing, or with `--slate` whether a picture can be drawn.
#[must_use]
pub fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(2).collect();
    let done = match args.split_first() {
        Some((flag, names)) if flag == "--probe" => probe::run(names),
        Some((flag, _)) if flag == "--try-confinement" => try_confinement(),
        Some((flag, _)) if flag == "--slate" => try_slate(),
        _ => work(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Draws the picture on stdin, to see whether it is one.
fn try_slate() -> Result<(), Error> {
    let mut file = Vec::new();
    std::io::stdin()
        .take(MAX_SLATE_BYTES as u64)
        .read_to_end(&mut file)?;
    gst::init()?;
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 640, 360);
    let info = info.build().map_err(|_| Error::Order)?;
    slate::draw(&file.into(), &info).map(drop)
}

/// Writes one line for the server's log.
fn log(line: &str) {
    // A server that no longer listens is about to notice the end of the worker anyway.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn try_confinement() -> Result<(), Error> {
    confine::begin();
    gst::init()?;
    Ok(confine::try_confinement()?)
}

fn work() -> Result<(), Error> {
    confine::begin();
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut reader = Reader::new(socket.try_clone()?);
    gst::init()?;
    let Some(Message::Plan {
        plan,
        first,
        absence,
        resume,
    }) = reader.next()?
    else {
        return Err(Error::Order);
    };
    confine::confine(confine::needs_card(&plan));
    let origin = Origin::resuming(&plan, &resume).unwrap_or_else(|| match &plan.video {
        Some(video) if plan.follows => Origin::following(video, (plan.grid, first)),
        _ => Origin::new(&plan, first),
    });
    let (outputs, output_queue) = sync_channel(MAX_OUTPUTS);
    let (events, event_queue) = sync_channel(MAX_EVENTS);
    let (output_plan, follows) = (plan.clone(), plan.follows);
    let failures = outputs.clone();
    let output = std::thread::spawn(move || {
        if let Err(error) = output::run(&output_plan, output_queue, socket) {
            // The reader may be waiting for a server that waits for us; nothing is left to be saved.
            log(&error.to_string());
            std::process::exit(1);
        }
    });
    let mut decoders = Decoders::new(&plan, origin, events.clone());
    let sender = events.clone();
    std::thread::spawn(move || {
        let (plan, failed) = (*plan, failures.clone());
        let events = (sender, &event_queue);
        let done = if plan.follows {
            follow::run(&plan, (origin, resume), &event_queue, failures)
        } else {
            conduct::run((&plan, &absence), (origin, resume), events, failures)
        };
        if let Err(error) = done {
            let _ = failed.send(output::Item::Failed(error));
        }
    });
    let fed = feed(&mut reader, &mut decoders, (&events, follows));
    if let Err(error) = fed {
        // What stopped the feeding is known best by whoever failed first; else it is this.
        let _ = outputs.send(output::Item::Failed(error));
    }
    drop(outputs);
    output.join().map_err(|_| Error::Stopped)
}

fn feed(
    reader: &mut Reader,
    decoders: &mut Decoders,
    (events, follows): (&SyncSender<Event>, bool),
) -> Result<(), Error> {
    while let Some(message) = reader.next()? {
        match message {
            Message::Track(info) => decoders.open(&info)?,
            Message::Source { track, sample } => {
                if sample.keyframe && follows {
                    let (pts, dts) = (sample.pts, sample.dts);
                    tell(events, Event::Keyframe { pts, dts })?;
                }
                decoders.push(track, &sample)?;
            }
            Message::Clock(now) => tell(events, Event::Clock(now))?,
            Message::Detach => {
                decoders.finish();
                tell(events, Event::Detached)?;
            }
            _ => return Err(Error::Order),
        }
    }
    decoders.finish();
    tell(events, Event::Finish)
}

fn tell(events: &SyncSender<Event>, event: Event) -> Result<(), Error> {
    events.send(event).map_err(|_| Error::Stopped)
}

/// Messages of a blocking socket.
struct Reader {
    socket: UnixStream,
    buffer: BytesMut,
    piece: Box<[u8]>,
}

impl Reader {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            buffer: BytesMut::new(),
            piece: vec![0; READ_BYTES].into_boxed_slice(),
        }
    }

    /// The next message, or `None` at the end of the source.
    fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if let Some(message) = Message::parse(&mut self.buffer)? {
                return Ok(Some(message));
            }
            let count = match self.socket.read(&mut self.piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if count == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&self.piece[..count]);
        }
    }
}
