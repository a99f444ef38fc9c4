//! Decides who may publish, and owns every broadcast.
//!
//! Enters: requests to publish, stream keys as anybody wrote them
//! Leaves: decisions; a line for a broadcast under way, or one more supervised broadcast
//! Never:  waits for a broadcast, or for a decision, before the next request is answered
//! Time:   the app's clock
//! Spec:   docs/architecture.md, docs/resilience.md

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::app::broadcast::Broadcast;
use crate::app::clock::wall_now;
use crate::app::context::Context;
use crate::app::inputs::Input;
use crate::app::line::{Line, Publisher};
use crate::app::registry::Admission;
use crate::id::StreamName;
use crate::ingest::rtmp::{Decision, MEDIA_CHANNEL_MESSAGES, PublishRequest, Refusal, RefusalCode};

/// How often it is looked whether a publisher that has just fallen silent goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Answers `requests` until no more can come; returns when every broadcast has ended.
pub(super) async fn run(context: Arc<Context>, mut requests: mpsc::Receiver<PublishRequest>) {
    let mut tasks = JoinSet::new();
    let (closing, closed) = watch::channel(false);
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => {
                    tasks.spawn(admit(Arc::clone(&context), request, closed.clone()));
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => report(ended),
        }
    }
    // Nobody comes back any more.
    closing.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
}

/// Answers one request, and runs the broadcast that begins with it, if one does.
async fn admit(context: Arc<Context>, request: PublishRequest, closed: watch::Receiver<bool>) {
    let PublishRequest {
        conn,
        peer,
        stream_key,
        query,
        encoder,
        mut reply,
    } = request;
    let decided = tokio::select! {
        decided = decide(&context, &stream_key, query.as_deref()) => decided,
        // It has gone meanwhile.
        () = reply.closed() => return,
    };
    let (name, input) = match decided {
        Ok(place) => place,
        Err(refusal) => {
            tracing::warn!(%peer, reason = %refusal, "publisher refused");
            let _ = reply.send(Decision::Refuse(refusal));
            return;
        }
    };
    let (media, received) = mpsc::channel(MEDIA_CHANNEL_MESSAGES);
    let (close, closing) = oneshot::channel();
    let accept = Decision::Accept {
        media,
        close: closing,
    };
    if reply.send(accept).is_err() {
        return;
    }
    let line = Line {
        publisher: Publisher {
            conn,
            address: peer.to_string(),
            encoder,
            since: wall_now(),
        },
        input,
        said: VecDeque::new(),
        media: received,
        close,
    };
    match context.registry.enter(&name, line, Instant::now()) {
        Admission::Joined => {
            tracing::info!(stream = %name, input = input.as_str(), %peer, "publishing goes on");
        }
        Admission::Begins { stream, run, lines } => {
            tracing::info!(stream = %name, input = input.as_str(), %peer, "publishing begins");
            let broadcast = Broadcast {
                context,
                stream,
                run,
                lines,
                closed,
            };
            broadcast.run().await;
        }
        Admission::Refused(line, reason) => {
            tracing::warn!(%peer, %reason, "publisher refused");
            line.refuse(RefusalCode::Failed, reason);
        }
    }
}

/// The input that `stream_key` and `query` may publish to. Where a publisher is there and has just fallen
/// silent, this waits until it goes on or has been silent for long enough: an encoder that is refused does not
/// try again.
async fn decide(
    context: &Context,
    stream_key: &str,
    query: Option<&str>,
) -> Result<(StreamName, Input), Refusal> {
    let config = &context.config.broadcast;
    let (name, input) = Input::of(stream_key, query, &config.backup_suffix)
        .map_err(|error| bad_name(error.to_string()))?;
    let asked = Instant::now();
    loop {
        match context
            .registry
            .entry((&name, input), config.displace, asked)
        {
            Ok(()) => return Ok((name, input)),
            Err(Some(reason)) => {
                let suffix = &config.backup_suffix;
                return Err(bad_name(match input {
                    Input::Primary if !suffix.is_empty() => {
                        format!("{reason}, or \"{name}{suffix}\" to be its backup")
                    }
                    _ => reason,
                }));
            }
            Err(None) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

const fn bad_name(description: String) -> Refusal {
    Refusal {
        code: RefusalCode::BadName,
        description,
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a broadcast broke down; this is a bug, the others go on");
    }
}
