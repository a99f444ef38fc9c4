//! Decides who may publish, and owns every broadcast.
//!
//! Enters: requests to publish, stream keys as anybody wrote them
//! Leaves: decisions; one supervised task per accepted publisher
//! Never:  waits for a broadcast before the next request is answered
//! Time:   the app's clock
//! Spec:   docs/architecture.md

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::app::broadcast::Broadcast;
use crate::app::clock::wall_now;
use crate::app::context::Context;
use crate::app::stream::Publisher;
use crate::id::StreamName;
use crate::ingest::rtmp::{Decision, MEDIA_CHANNEL_MESSAGES, PublishRequest, Refusal, RefusalCode};

/// Answers `requests` until no more can come; returns when every broadcast has ended.
pub(super) async fn run(context: Arc<Context>, mut requests: mpsc::Receiver<PublishRequest>) {
    let mut broadcasts = JoinSet::new();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => admit(&context, &mut broadcasts, request),
                None => break,
            },
            Some(ended) = broadcasts.join_next() => report(ended),
        }
    }
    while let Some(ended) = broadcasts.join_next().await {
        report(ended);
    }
}

fn admit(context: &Arc<Context>, broadcasts: &mut JoinSet<()>, request: PublishRequest) {
    let PublishRequest {
        conn,
        peer,
        stream_key,
        encoder,
        reply,
        ..
    } = request;
    let displaced = Arc::new(Notify::new());
    let publisher = Publisher {
        conn,
        address: peer.to_string(),
        encoder,
        since: wall_now(),
        displaced: Arc::clone(&displaced),
    };
    let claimed = name_of(&stream_key).and_then(|name| {
        context
            .registry
            .claim(&name, publisher, Instant::now())
            .map_err(|error| bad_name(error.to_string()))
    });
    let stream = match claimed {
        Ok(stream) => stream,
        Err(refusal) => {
            tracing::warn!(%peer, reason = %refusal, "publisher refused");
            // The publisher may have gone meanwhile.
            let _ = reply.send(Decision::Refuse(refusal));
            return;
        }
    };
    let (media, received) = mpsc::channel(MEDIA_CHANNEL_MESSAGES);
    let (close, closed) = oneshot::channel();
    if reply
        .send(Decision::Accept {
            media,
            close: closed,
        })
        .is_err()
    {
        stream.release(conn);
        context.registry.forget(stream.name(), conn);
        return;
    }
    tracing::info!(stream = %stream.name(), %peer, "publishing begins");
    let context = Arc::clone(context);
    let broadcast = Broadcast {
        context,
        stream,
        conn,
        displaced,
        media: received,
        close,
    };
    broadcasts.spawn(broadcast.run());
}

fn name_of(stream_key: &str) -> Result<StreamName, Refusal> {
    stream_key
        .parse()
        .map_err(|error: crate::id::StreamNameError| bad_name(error.to_string()))
}

fn bad_name(description: String) -> Refusal {
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
