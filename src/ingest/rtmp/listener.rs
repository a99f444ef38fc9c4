//! The sockets and tasks around [`Session`]: one task per connection.
//!
//! Enters: TCP connections from anybody
//! Leaves: [`PublishRequest`]s to the owner; messages of accepted publications on their channels
//! Never:  lets one connection's trouble reach another; decides who may publish
//! Time:   the monotonic clock, for deadlines
//! Spec:   none of its own

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tracing::{debug, info, warn};

use super::session::{self, Event, Output, Request, Session};
use super::{Config, Decision, EndReason, Message, PublishRequest, Refusal, RefusalCode};
use crate::id::ConnId;

/// What one read takes from a socket: half a second of 1 Mbit/s, and far below what a session holds.
const READ_BYTES: usize = 64 << 10;
/// How long a peer may take to accept our last words. Twice this and the connection is gone.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a write to a peer that publishes may take. Replies are small: only a peer that does not
/// read at all lets one wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a consumer may leave no room for the end of a publication. After it the channel closes.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after an accept that failed, which is when descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts publishers on `listener` until `shutdown` says `true` or its sender is gone; then ends
/// every publication with [`EndReason::ShutDown`] and returns when all connections are closed.
///
/// A request that cannot be delivered, because `requests` is closed, is refused. A full `requests`
/// lets its connection wait.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    requests: mpsc::Sender<PublishRequest>,
    mut shutdown: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(config.max_connections));
    let mut connections = JoinSet::new();
    let mut next_conn = 0_u64;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut shutdown) => break,
            Some(ended) = connections.join_next() => {
                note_panic(ended);
                continue;
            }
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "rtmp connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let max = config.max_connections;
            warn!(%peer, max, "rtmp connection closed: all places are taken");
            continue;
        };
        let conn = ConnId::new(next_conn);
        next_conn += 1;
        let shell = Shell {
            conn,
            peer,
            requests: requests.clone(),
            shutdown: shutdown.clone(),
        };
        let config = config.clone();
        connections.spawn(async move {
            let _place = place;
            shell.run(socket, config).await;
        });
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note_panic(ended);
    }
}

/// Returns when `shutdown` says so or nobody can say it any more.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _closed_counts_too = shutdown.wait_for(|stop| *stop).await;
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "rtmp connection failed inside");
    }
}

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("{0}")]
    Protocol(#[from] session::Error),
    #[error("the publisher is done")]
    Unpublished,
    #[error("the peer closed the connection")]
    Eof,
    #[error("{0}")]
    Socket(#[from] std::io::Error),
    #[error("the peer does not read what it is sent")]
    Unread,
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("shutting down")]
    ShutDown,
}

impl Closed {
    const fn end_reason(&self) -> EndReason {
        match self {
            Self::Protocol(session::Error::TimedOut { .. }) => EndReason::TimedOut,
            Self::Protocol(_) => EndReason::Malformed,
            Self::Unpublished => EndReason::Unpublished,
            Self::Eof | Self::Socket(_) | Self::Unread => EndReason::Disconnected,
            Self::Refused(_) => EndReason::Refused,
            Self::ShutDown => EndReason::ShutDown,
        }
    }
}

/// What one connection's task knows besides the connection.
struct Shell {
    conn: ConnId,
    peer: SocketAddr,
    requests: mpsc::Sender<PublishRequest>,
    shutdown: watch::Receiver<bool>,
}

/// The way to the consumer of an accepted publication.
struct Accepted {
    media: mpsc::Sender<Message>,
    close: Option<oneshot::Receiver<Refusal>>,
}

/// What interrupted the wait for the peer.
enum Woken {
    Read(std::io::Result<usize>),
    Deadline,
    Close(Refusal),
    ShutDown,
}

impl Shell {
    async fn run(mut self, mut socket: TcpStream, config: Config) {
        if let Err(error) = socket.set_nodelay(true) {
            debug!(conn = %self.conn, %error, "no TCP_NODELAY");
        }
        let mut session = Session::new(config, Instant::now());
        let mut accepted = None;
        let closed = self
            .converse(&mut socket, &mut session, &mut accepted)
            .await;
        let offset = session.offset();
        self.log(&closed, offset);
        // Who ends in order closes by itself: GStreamer's rtmp2sink takes a server that is quicker for
        // a lost connection, and reports a failure.
        let peer_first = matches!(closed, Closed::Unpublished);
        let farewell = farewell(&mut socket, session, peer_first);
        if let Some(Accepted { media, .. }) = accepted {
            let end = Message::End(closed.end_reason());
            let told = tokio::time::timeout(END_TIMEOUT, media.send(end));
            let (_told_or_gone, ()) = tokio::join!(told, farewell);
        } else {
            farewell.await;
        }
    }

    fn log(&self, closed: &Closed, offset: u64) {
        let (conn, peer) = (self.conn, self.peer);
        match closed {
            Closed::Protocol(error) => {
                let fault = error.fault();
                warn!(%conn, %peer, offset, ?fault, "rtmp connection closed: {error}");
            }
            other => info!(%conn, %peer, offset, "rtmp connection closed: {other}"),
        }
    }

    /// Runs the connection to its end. What the session still has to say is left in it.
    async fn converse(
        &mut self,
        socket: &mut TcpStream,
        session: &mut Session,
        accepted: &mut Option<Accepted>,
    ) -> Closed {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut read = Instant::now();
        // One timer for all waits: most end with bytes, and then it stays as it is.
        let mut deadline = std::pin::pin!(tokio::time::sleep_until(read.into()));
        loop {
            match self.drain(socket, session, (accepted, read)).await {
                Ok(Some(at)) => deadline.as_mut().reset(at.into()),
                Ok(None) => {}
                Err(closed) => return closed,
            }
            buffer.clear();
            let woken = self
                .wait(socket, accepted, &mut buffer, deadline.as_mut())
                .await;
            read = Instant::now();
            let result = match woken {
                Woken::Read(Ok(0)) => return Closed::Eof,
                Woken::Read(Ok(_)) => session.handle_bytes(&buffer, read),
                Woken::Read(Err(error)) => return error.into(),
                Woken::Deadline => session.handle_timeout(Instant::now()),
                Woken::Close(refusal) => return refuse(session, refusal),
                Woken::ShutDown => return shut_down(session),
            };
            if let Err(error) = result {
                // Media that arrived whole before the fault is still media.
                return match self.drain(socket, session, (accepted, read)).await {
                    Err(closed @ (Closed::Unpublished | Closed::Refused(_))) => closed,
                    _ => error.into(),
                };
            }
        }
    }

    async fn wait(
        &mut self,
        socket: &mut TcpStream,
        accepted: &mut Option<Accepted>,
        buffer: &mut BytesMut,
        deadline: Pin<&mut Sleep>,
    ) -> Woken {
        tokio::select! {
            biased;
            () = stopped(&mut self.shutdown) => Woken::ShutDown,
            refusal = refusal_of(accepted) => Woken::Close(refusal),
            // Before the deadline: what has arrived counts, however long we were held up.
            read = socket.read_buf(buffer) => Woken::Read(read),
            () = deadline => Woken::Deadline,
        }
    }

    /// Does what the session asks for, which was `read` then; gives the last deadline it named.
    async fn drain(
        &mut self,
        socket: &mut TcpStream,
        session: &mut Session,
        (accepted, read): (&mut Option<Accepted>, Instant),
    ) -> Result<Option<Instant>, Closed> {
        let mut deadline = None;
        while let Some(output) = session.poll_output() {
            match output {
                Output::Send(bytes) => send(socket, &bytes).await?,
                Output::Deadline(at) => deadline = Some(at),
                Output::Event(event) => match message_of(event, read) {
                    Told::Message(message) => self.pass_on(session, accepted, message).await?,
                    Told::Request(request) => {
                        *accepted = Some(self.ask(session, request).await?);
                        session.accept(Instant::now())?;
                    }
                    Told::Unpublished => return Err(Closed::Unpublished),
                },
                Output::Close => {}
            }
        }
        Ok(deadline)
    }

    /// Hands a message to the consumer, waiting for room.
    async fn pass_on(
        &mut self,
        session: &mut Session,
        accepted: &mut Option<Accepted>,
        message: Message,
    ) -> Result<(), Closed> {
        let Some(media) = accepted.as_ref().map(|a| a.media.clone()) else {
            return Ok(());
        };
        tokio::select! {
            biased;
            refusal = refusal_of(accepted) => Err(refuse(session, refusal)),
            sent = media.send(message) => sent.map_err(|_| {
                let description = "The server no longer takes this stream.".to_owned();
                refuse(session, Refusal { code: RefusalCode::Failed, description })
            }),
            () = stopped(&mut self.shutdown) => Err(shut_down(session)),
        }
    }

    /// Asks the owner, and waits for the answer.
    async fn ask(&mut self, session: &mut Session, request: Request) -> Result<Accepted, Closed> {
        let (reply, answer) = oneshot::channel();
        let request = PublishRequest {
            conn: self.conn,
            peer: self.peer,
            stream_key: request.stream_key,
            query: request.query,
            encoder: request.encoder,
            reply,
        };
        let requests = self.requests.clone();
        let decision = async {
            requests.send(request).await.ok()?;
            answer.await.ok()
        };
        let decision = tokio::select! {
            decision = decision => decision,
            () = stopped(&mut self.shutdown) => return Err(shut_down(session)),
        };
        let refusal = match decision {
            Some(Decision::Accept { media, close }) => {
                let close = Some(close);
                return Ok(Accepted { media, close });
            }
            Some(Decision::Refuse(refusal)) => refusal,
            None => Refusal {
                code: RefusalCode::Failed,
                description: "The server takes no streams at the moment.".to_owned(),
            },
        };
        Err(refuse(session, refusal))
    }
}

fn refuse(session: &mut Session, refusal: Refusal) -> Closed {
    session.refuse(&refusal);
    Closed::Refused(refusal)
}

fn shut_down(session: &mut Session) -> Closed {
    session.refuse(&Refusal {
        code: RefusalCode::Failed,
        description: "The server is shutting down.".to_owned(),
    });
    Closed::ShutDown
}

/// An event as the listener treats it.
enum Told {
    Message(Message),
    Request(Request),
    Unpublished,
}

fn message_of(event: Event, arrived: Instant) -> Told {
    match event {
        Event::Requested(request) => Told::Request(request),
        Event::Metadata(metadata) => Told::Message(Message::Metadata(metadata)),
        Event::Video { timestamp_ms, data } => Told::Message(Message::Video {
            timestamp_ms,
            data,
            arrived,
        }),
        Event::Audio { timestamp_ms, data } => Told::Message(Message::Audio {
            timestamp_ms,
            data,
            arrived,
        }),
        Event::Unpublished => Told::Unpublished,
    }
}

/// The consumer's refusal, when it comes; never if it cannot come.
async fn refusal_of(accepted: &mut Option<Accepted>) -> Refusal {
    if let Some(accepted) = accepted
        && let Some(close) = &mut accepted.close
    {
        match close.await {
            Ok(refusal) => return refusal,
            Err(_) => accepted.close = None,
        }
    }
    std::future::pending().await
}

async fn send(socket: &mut TcpStream, bytes: &Bytes) -> Result<(), Closed> {
    match tokio::time::timeout(WRITE_TIMEOUT, socket.write_all(bytes)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(Closed::Unread),
    }
}

/// Sends the last words, and reads on until the peer has closed too: closing a socket with unread
/// input resets the connection, and the peer would never see why. With `peer_first` it has a while to
/// close before we do.
async fn farewell(socket: &mut TcpStream, mut session: Session, peer_first: bool) {
    session.close();
    let words = async {
        while let Some(output) = session.poll_output() {
            if let Output::Send(bytes) = output {
                socket.write_all(&bytes).await?;
            }
        }
        std::io::Result::Ok(())
    };
    match tokio::time::timeout(FAREWELL, words).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return,
    }
    if peer_first {
        read_to_end(socket).await;
    }
    if socket.shutdown().await.is_ok() {
        read_to_end(socket).await;
    }
}

/// Reads and forgets until the peer closes, for [`FAREWELL`] at most.
async fn read_to_end(socket: &mut TcpStream) {
    let mut sink = vec![0; READ_BYTES];
    let unread = async { while matches!(socket.read(&mut sink).await, Ok(n) if n > 0) {} };
    let _late = tokio::time::timeout(FAREWELL, unread).await;
}
