//! The `serve` command: opens everything, runs it, and drains it at the end.
//!
//! Enters: a checked configuration
//! Leaves: a running server until a signal; then everything finished and stored
//! Never:  media
//! Time:   none
//! Spec:   docs/architecture.md, "Shutdown"

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::app::clock::wall_now;
use crate::app::context::Context;
use crate::app::gate;
use crate::app::registry::Registry;
use crate::app::{absence, banner, demo, examine, shutdown};
use crate::config::Config;
use crate::ingest::rtmp;
use crate::serve;
use crate::store::Store;
use crate::transcode::template::Pipeline;

/// How long finishing the open segments and storing them may take before the process ends anyway.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// Requests to publish that may wait for the gate: it answers each without waiting for anything.
const PUBLISH_REQUESTS: usize = 32;

/// Runs the server, with `pipeline` for its ladder, until a signal ends it.
///
/// # Errors
/// If it cannot start: a port, a folder or a ladder that cannot be used.
pub(super) async fn run(config: Config, pipeline: Pipeline, with_demo: bool) -> anyhow::Result<()> {
    let mut asked = shutdown::watch_signals().context("signals cannot be watched")?;
    raise_file_limit();
    examine::require(&pipeline).await?;
    let absence = absence::load(&config.broadcast).await?;
    let store = Store::open(config.store.clone()).await?;
    let http = serve::Server::bind(config.serve.clone())
        .map_err(|error| anyhow::anyhow!("{error} (setting: serve.listen, --http)"))?;
    let listener = listen_rtmp(config.rtmp.listen).await?;
    let rtmp_at = listener.local_addr().context("rtmp.listen")?;
    let http_at = http.local_addr();
    let registry = Arc::new(Registry::new(store.clone(), rtmp_at.port(), http.metrics()));
    let context = Arc::new(Context {
        config,
        pipeline,
        started: wall_now(),
        absence,
        cores: cores(),
        registry,
        store,
    });

    let (stop_http, http_stopped) = watch::channel(false);
    let origin = Arc::clone(&context.registry);
    let http = tokio::spawn(http.run(origin, serve::Assets::of_page(), until(http_stopped)));
    let (requests, asked_to_publish) = mpsc::channel(PUBLISH_REQUESTS);
    let rtmp = rtmp::serve(
        listener,
        context.config.rtmp.clone(),
        requests,
        asked.clone(),
    );
    let rtmp = tokio::spawn(rtmp);
    let gate = tokio::spawn(gate::run(Arc::clone(&context), asked_to_publish));
    for store in context.store.each() {
        let registry = Arc::clone(&context.registry);
        let upkeep = Arc::clone(&context.registry.upkeep);
        tokio::spawn(upkeep.run(
            (store, context.config.store.keep),
            move |stream| registry.is_live(stream),
            stop_http.subscribe(),
        ));
    }
    banner::print(http_at, rtmp_at);
    let demo = with_demo.then(|| tokio::spawn(demo::run(rtmp_at, asked.clone())));

    shutdown::asked(&mut asked).await;
    let drained = tokio::time::timeout(DRAIN_LIMIT, async {
        if let Some(demo) = demo {
            let _ = demo.await;
        }
        let _ = rtmp.await;
        let _ = gate.await;
    });
    if drained.await.is_err() {
        tracing::error!(limit = ?DRAIN_LIMIT, "not everything could be finished and stored in time");
    }
    // Players may fetch the ends of what was live until all of it is there.
    stop_http.send_replace(true);
    http.await.context("the origin broke down; this is a bug")?;
    tracing::info!("drained");
    Ok(())
}

async fn listen_rtmp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot listen for RTMP on {address}: {error} (setting: rtmp.listen, --rtmp)"
        )
    })
}

/// Allows this process as many open files as it may have: every viewer is one, and the usual soft limit of
/// 1024 is there for programs that still call `select`.
pub(super) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, allowed = ?limit.current, "the limit on open files stays as it is");
    }
}

/// Processors that this process may use.
fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

pub(super) async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the server is gone, which ends the wait as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
