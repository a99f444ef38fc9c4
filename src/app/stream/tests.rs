//! What a stream says of itself as publishers come and go.
//!
//! Enters: publishers made up
//! Leaves: a failure for each answer that is wrong; the same publishers, for other tests of `app`
//! Never:  a broadcast
//! Time:   instants of the test's own
//! Spec:   docs/resilience.md

use super::*;
use crate::id::ConnId;

const PRIMARY: Input = Input::Primary;

/// A publisher on connection `conn`, the rest of it of no account.
pub(in crate::app) fn publisher(conn: u64) -> Publisher {
    Publisher {
        conn: ConnId::new(conn),
        address: "192.0.2.1:5000".to_owned(),
        encoder: None,
        since: WallTime::from_micros(0),
    }
}

/// Its line, which says nothing.
pub(in crate::app) fn line(publisher: Publisher) -> Line {
    Line {
        publisher,
        input: PRIMARY,
        said: std::collections::VecDeque::new(),
        media: mpsc::channel(1).1,
        close: tokio::sync::oneshot::channel().0,
    }
}

fn stream() -> Stream {
    Stream::new("demo".parse().expect("a name"))
}

fn begin(stream: &Stream, publisher: Publisher) -> (u64, Both<mpsc::Receiver<Line>>) {
    match stream.enter(line(publisher), Instant::now()) {
        Entered::Begins(run, lines) => (run, lines),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_comes_second_joins_until_the_broadcast_has_ended() {
    let stream = stream();
    let (run, mut lines) = begin(&stream, publisher(1));
    assert!(lines.primary.try_recv().is_ok());
    let enter = |conn| stream.enter(line(publisher(conn)), Instant::now());
    assert!(matches!(enter(2), Entered::Joined));
    assert!(matches!(enter(3), Entered::Refused(_)), "one at a time");
    // Who came before the end is not lost by it.
    let found = stream.try_end(run, || lines.primary.try_recv().ok());
    assert_eq!(found.map(|line| line.publisher.conn), Some(ConnId::new(2)));
    assert!(!stream.is_vacant());
    assert!(
        stream
            .try_end(run, || lines.primary.try_recv().ok())
            .is_none()
    );
    assert!(stream.is_vacant());
    let (next, _lines) = begin(&stream, publisher(4));
    // The end of the first does not end the second.
    stream.end(run);
    assert!(!stream.is_vacant() && next > run);
}

#[test]
fn silent_publisher_may_be_displaced_and_a_live_one_not() {
    use Displace::{Always, Never, Stale};
    let stream = stream();
    let begun = Instant::now();
    let at = |seconds| begun + Duration::from_secs(seconds);
    assert!(matches!(
        stream.entry((PRIMARY, Never), begun, begun),
        Entry::Free
    ));
    let _broadcast = begin(&stream, publisher(1));
    stream.attach(PRIMARY, publisher(1), begun);
    stream.hear(PRIMARY, at(10));
    for (displace, asked, now, expected) in [
        (Stale, 9, 11, "Taken"),
        (Stale, 11, 12, "Unsure"),
        (Stale, 11, 13, "Free"),
        (Always, 9, 9, "Free"),
        (Never, 11, 60, "Taken"),
    ] {
        let found = format!(
            "{:?}",
            stream.entry((PRIMARY, displace), at(asked), at(now))
        );
        assert!(
            found.starts_with(expected),
            "{displace} {asked} {now}: {found}"
        );
    }
    stream.detach(PRIMARY, WallTime::from_micros(0));
    assert!(matches!(
        stream.entry((PRIMARY, Never), at(11), at(11)),
        Entry::Free
    ));
}

#[test]
fn counts_go_on_when_a_worker_counts_anew() {
    let stream = stream();
    let says = |held_slots, shown| {
        let conducted = Conducted {
            shown,
            held_slots,
            slate_slots: 0,
            slate_ms: 0,
            dropped_frames: 0,
            moves: held_slots + 1,
        };
        stream.conduct(conducted, WallTime::from_micros(0));
        stream.held_slots.load(Ordering::Relaxed)
    };
    let counts = [5, 9, 2].map(|held| says(held, Shown::Held));
    assert_eq!(counts, [5, 9, 11]);
    let repairs = stream.status().ingest.health.repairs;
    assert_eq!(repairs.get("moved"), Some(&13), "{repairs:?}");
}

#[test]
fn metadata_names_the_encoder_better_than_the_connection() {
    let stream = stream();
    stream.set_encoder(PRIMARY, "nobody publishes".to_owned());
    let connected = Publisher {
        encoder: Some("FMLE/3.0 (compatible; FMSc/1.0)".to_owned()),
        ..publisher(1)
    };
    let _broadcast = begin(&stream, connected);
    let name = || stream.status().publisher.and_then(|p| p.encoder);
    assert_eq!(name().as_deref(), Some("FMLE/3.0 (compatible; FMSc/1.0)"));
    stream.set_encoder(PRIMARY, "obs-output module".to_owned());
    assert_eq!(name().as_deref(), Some("obs-output module"));
}

#[test]
fn stream_goes_through_the_states_of_its_life() {
    let stream = stream();
    let (run, _lines) = begin(&stream, publisher(1));
    assert_eq!(stream.state(), StreamState::Starting);
    stream.publish(Vec::new(), Duration::from_secs(2), false);
    assert_eq!(stream.state(), StreamState::Live);
    for (shown, state) in [
        (Shown::Held, StreamState::Holding),
        (Shown::Slate, StreamState::Slate),
        (Shown::Source, StreamState::Live),
    ] {
        let conducted = Conducted {
            shown,
            held_slots: 0,
            slate_slots: 0,
            slate_ms: 0,
            dropped_frames: 0,
            moves: 0,
        };
        stream.conduct(conducted, WallTime::from_micros(0));
        assert_eq!(stream.state(), state);
    }
    stream.detach(PRIMARY, WallTime::from_micros(0));
    assert_eq!(stream.state(), StreamState::Reconnecting);
    stream.attach(PRIMARY, publisher(2), Instant::now());
    assert_eq!(stream.state(), StreamState::Live);
    assert_eq!(stream.reconnects.load(Ordering::Relaxed), 1);
    stream.publish(Vec::new(), Duration::from_secs(2), true);
    stream.end(run);
    assert_eq!(stream.state(), StreamState::Ended);
}
