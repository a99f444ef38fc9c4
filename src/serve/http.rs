//! Owns the listener and the connections.
//!
//! Enters: TCP connections from anyone, HTTP/1.1 or HTTP/2 in the clear
//! Leaves: answers; on shutdown the open requests are answered, then the connections close
//! Never:  reads a request's body
//! Time:   timeouts on tokio's clock
//! Spec:   [RFC9112] §9, [RFC9113] §3.3

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::answer::Answerer;
use super::assets::Assets;
use super::idle::Idle;
use super::metrics::{Gauge, Metrics};
use super::origin::Origin;

/// The largest head of a request, in bytes: browsers stay below 8 KiB even with cookies.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The most header fields of one request.
const MAX_HEADERS: usize = 100;

/// The most requests open at once on one HTTP/2 connection, as browsers and caches expect.
const MAX_H2_STREAMS: u32 = 128;

/// What one HTTP/2 stream may hold written but unsent, in bytes; bodies beyond wait in shared memory.
const MAX_H2_SEND_BYTES: usize = 256 * 1024;

/// Connections that the kernel holds ready while all of ours are taken.
const BACKLOG: u32 = 1_024;

/// How long to wait after a failed accept. Mostly the process is out of file descriptors, and
/// trying again at once would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the origin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The value of `Access-Control-Allow-Origin` on every answer.
    pub allow_origin: String,
    /// The most connections at once. More wait in the kernel's backlog.
    pub max_connections: usize,
    /// How long a new connection may take to say which version of HTTP it speaks.
    pub opening_timeout: Duration,
    /// How long the head of a request may take, how long a connection may wait for its next
    /// request, and how long a client may take nothing of an answer. One value for all three,
    /// because a head that trickles in costs no more than a connection kept alive. Longer than the
    /// 60 s for which caches keep theirs, so that it is the cache that closes first.
    pub idle_timeout: Duration,
    /// How long open requests may take on shutdown before they are cut off.
    pub drain_timeout: Duration,
    /// What a server that only reads keeps in memory of the store, in bytes.
    pub memory_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8_080)),
            allow_origin: "*".to_owned(),
            max_connections: 16_384,
            opening_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(65),
            drain_timeout: Duration::from_secs(10),
            memory_bytes: 512 * 1024 * 1024,
        }
    }
}

/// Why the origin could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on: in use, not ours, or not permitted.
    #[error("cannot listen for HTTP on {listen}: {source}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The allowed origin cannot be sent in a header.
    #[error("allow_origin must be * or an origin such as https://example.org, found {found:?}")]
    AllowOrigin {
        /// The value found.
        found: String,
    },
}

/// A bound listener, not yet accepting.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    allow_origin: HeaderValue,
    metrics: Arc<Metrics>,
    config: Config,
}

impl Server {
    /// Takes the address. Connections wait in the backlog until [`Self::run`].
    ///
    /// # Errors
    ///
    /// [`Error::Listen`], [`Error::AllowOrigin`]. Must be called within a tokio runtime.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let allow_origin = HeaderValue::from_str(&config.allow_origin)
            .ok()
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Error::AllowOrigin {
                found: config.allow_origin.clone(),
            })?;
        let listen = config.listen;
        let (listener, address) =
            bind(listen).map_err(|source| Error::Listen { listen, source })?;
        Ok(Self {
            listener,
            address,
            allow_origin,
            metrics: Arc::default(),
            config,
        })
    }

    /// Where it listens, with the port that a port of zero became.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The counters, which stay alive after the server.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Answers until `shutdown` is ready; then stops accepting, answers what was asked, closes, and
    /// returns. What takes longer than the drain timeout is cut off.
    pub async fn run<O: Origin>(
        self,
        origin: Arc<O>,
        assets: Assets,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let Self {
            listener,
            allow_origin,
            metrics,
            config,
            ..
        } = self;
        let answerer = Arc::new(Answerer::new(
            origin,
            assets,
            allow_origin,
            Arc::clone(&metrics),
        ));
        let builder = Arc::new(builder());
        let permits = Arc::new(Semaphore::new(
            config.max_connections.clamp(1, Semaphore::MAX_PERMITS),
        ));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let (socket, permit) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = accept(&listener, &permits, &metrics) => accepted,
            };
            let connection = Connection {
                socket: Idle::new(socket, config.opening_timeout, config.idle_timeout),
                answerer: Arc::clone(&answerer),
                builder: Arc::clone(&builder),
                open: metrics.begin_connection(),
                permit,
            };
            connections.spawn(connection.serve(graceful.watcher()));
        }
        drop(listener);
        if tokio::time::timeout(config.drain_timeout, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(
                cut_off = metrics.connections(),
                "connections were still busy when the drain timeout passed"
            );
        }
        connections.shutdown().await;
    }
}

/// One accepted connection and what it needs.
struct Connection<O> {
    socket: Idle<TcpStream>,
    answerer: Arc<Answerer<O>>,
    builder: Arc<Builder<TokioExecutor>>,
    open: Gauge,
    permit: OwnedSemaphorePermit,
}

impl<O: Origin> Connection<O> {
    async fn serve(self, watcher: hyper_util::server::graceful::Watcher) {
        let answerer = self.answerer;
        let service = service_fn(move |request: Request<Incoming>| {
            let answerer = Arc::clone(&answerer);
            async move {
                let (head, _unread) = request.into_parts();
                Ok::<_, Infallible>(answerer.answer(head).await)
            }
        });
        let connection = self
            .builder
            .serve_connection(TokioIo::new(self.socket), service)
            .into_owned();
        if let Err(error) = watcher.watch(connection).await {
            // Peers vanish all the time; it is worth a line only to whoever looks for it.
            tracing::debug!(%error, "an HTTP connection ended early");
        }
        drop((self.open, self.permit));
    }
}

fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if listen.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    // A restart must not wait for the old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Timed below it ([`Idle`]), without a timer for each request.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_H2_STREAMS)
        .max_send_buf_size(MAX_H2_SEND_BYTES)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX));
    builder
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    metrics: &Metrics,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((socket, _)) => {
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, "could not disable Nagle's algorithm");
                }
                return (socket, permit);
            }
            Err(error) => {
                metrics.count_accept_failure();
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
