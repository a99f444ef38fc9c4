//! Many who ask for one thing cause one reading, and memory stays within its bound.

use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Value {
    number: u64,
    bytes: u64,
    until: Option<Instant>,
}

impl Keep for Value {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

fn value(number: u64, bytes: u64) -> Value {
    Value {
        number,
        bytes,
        until: None,
    }
}

fn key(number: u64) -> ObjectKey {
    let path = format!("live/demo/v720/{number}.m4s");
    path.parse().expect("a key")
}

/// Asks for the first key, of which `value` is read once `gate` opens.
fn ask_behind(gate: &Arc<Notify>, shelf: &Arc<Shelf<Value>>, value: Value) -> JoinHandle<Value> {
    let (shelf, gate) = (Arc::clone(shelf), Arc::clone(gate));
    tokio::spawn(async move {
        let read = |_| async move {
            gate.notified().await;
            value
        };
        shelf.get(&key(1), read).await
    })
}

#[tokio::test]
async fn a_thousand_who_ask_at_once_cause_one_read() {
    let shelf = Arc::new(Shelf::new(1 << 20));
    let gate = Arc::new(Notify::new());
    let asked = (0..1_000).map(|_| ask_behind(&gate, &shelf, value(7, 1_000)));
    let asked: Vec<_> = asked.collect();
    // Who asked first goes away; the others get what it asked for all the same.
    tokio::task::yield_now().await;
    asked[0].abort();
    gate.notify_one();
    for asked in asked.into_iter().skip(1) {
        assert_eq!(asked.await.expect("an answer"), value(7, 1_000));
    }
    assert_eq!(shelf.counts(), (999, 1));
}

#[tokio::test]
async fn what_broke_down_while_it_was_read_is_read_anew() {
    let shelf = Arc::new(Shelf::new(1 << 20));
    let asked = {
        let shelf = Arc::clone(&shelf);
        tokio::spawn(async move {
            let read = |_| async { panic!("of what was read") };
            shelf.get(&key(1), read).await
        })
    };
    assert!(asked.await.is_err());
    while shelf.bytes() > 0 {
        tokio::task::yield_now().await;
    }
    let read = |_| async { value(7, 1_000) };
    assert_eq!(shelf.get(&key(1), read).await, value(7, 1_000));
}

#[tokio::test]
async fn what_is_stale_is_read_again_and_shown_to_who_reads() {
    let shelf = Arc::new(Shelf::new(1 << 20));
    let soon = Instant::now() + Duration::from_millis(5);
    let first = Value {
        until: Some(soon),
        ..value(1, 10)
    };
    let read = |stale: Option<Value>| async move {
        assert_eq!(stale, None);
        first
    };
    shelf.get(&key(1), read).await;
    tokio::time::sleep_until(soon.into()).await;
    assert_eq!(shelf.peek(&key(1)), None);
    let read = |stale: Option<Value>| async move { value(stale.map_or(0, |s| s.number) + 1, 10) };
    assert_eq!(shelf.get(&key(1), read).await, value(2, 10));
    assert_eq!(shelf.peek(&key(1)), Some(value(2, 10)));
}

#[tokio::test]
async fn what_is_larger_than_the_shelf_pushes_nothing_out() {
    let shelf = Arc::new(Shelf::new(10_000));
    shelf.get(&key(1), |_| async { value(1, 1_000) }).await;
    let large = shelf.get(&key(2), |_| async { value(2, 20_000) }).await;
    assert_eq!(large.number, 2);
    tokio::task::yield_now().await;
    assert_eq!(shelf.peek(&key(1)), Some(value(1, 1_000)));
    assert_eq!(shelf.lock().bytes, 1_000 + ENTRY_BYTES);
}

/// What asks for `number`, of which each reading has so many bytes.
async fn ask(shelf: &Arc<Shelf<Value>>, number: u64, bytes: u64) {
    let read = |_| async move { value(number, bytes) };
    assert_eq!(shelf.get(&key(number), read).await.number, number);
    tokio::task::yield_now().await;
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_stays_for_a_moment() {
    let shelf = Arc::new(Shelf::holding(20_000, Duration::from_secs(3_600)));
    ask(&shelf, 1, 16_000).await;
    for _ in 0..100 {
        ask(&shelf, 2, 1_500).await;
        ask(&shelf, 3, 50_000).await;
        ask(&shelf, 3, 50_000).await;
    }
    // Of those that pass the newest always has its place, and what was pushed out of it waits for its turn.
    let (_, reads) = shelf.counts();
    assert_eq!(reads, 1 + 2 * 100);
    tokio::time::sleep(2 * PASSING).await;
    assert_eq!(shelf.bytes(), 16_000 + ENTRY_BYTES);
    assert_eq!(shelf.snapshot().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_what_has_no_room_at_all_waits_with_the_others() {
    let shelf = Arc::new(Shelf::new(10_000));
    ask(&shelf, 1, 20_000).await;
    ask(&shelf, 2, 20_000).await;
    let begun = tokio::time::Instant::now();
    let asked = (0..100).map(|_| {
        let shelf = Arc::clone(&shelf);
        tokio::spawn(async move { ask(&shelf, 1, 20_000).await })
    });
    let asked: Vec<_> = asked.collect();
    for asked in asked {
        asked.await.expect("answered");
    }
    assert_eq!(shelf.counts().1, 3);
    assert_eq!(begun.elapsed().as_secs(), PASSING.as_secs());
}

#[tokio::test]
async fn what_is_being_read_is_not_pushed_out() {
    let shelf = Arc::new(Shelf::new(10_000));
    let gate = Arc::new(Notify::new());
    let first = ask_behind(&gate, &shelf, value(1, 1_000));
    tokio::task::yield_now().await;
    for number in 2..20 {
        ask(&shelf, number, 4_000).await;
    }
    let second = ask_behind(&gate, &shelf, value(1, 1_000));
    tokio::task::yield_now().await;
    gate.notify_waiters();
    for asked in [first, second] {
        assert_eq!(asked.await.expect("read"), value(1, 1_000));
    }
    assert_eq!(shelf.counts(), (1, 19));
}

#[tokio::test]
async fn of_more_than_there_is_room_for_that_is_asked_for_in_turn_some_stays() {
    let shelf = Arc::new(Shelf::holding(10_000, Duration::from_secs(3_600)));
    for _ in 0..10 {
        for number in 0..4 {
            ask(&shelf, number, 2_000).await;
        }
    }
    // Three have room, and the fourth passes. Without the hold each would be gone before it is asked for again.
    assert_eq!(shelf.counts(), (36, 4));
}

#[tokio::test]
async fn what_is_read_anew_keeps_its_place() {
    let shelf = Arc::new(Shelf::holding(6_000, Duration::from_secs(3_600)));
    let now = Instant::now();
    let stale = Value {
        until: Some(now),
        ..value(1, 4_000)
    };
    shelf.get(&key(1), |_| async move { stale }).await;
    tokio::task::yield_now().await;
    let gate = Arc::new(Notify::new());
    let again = ask_behind(&gate, &shelf, value(1, 4_000));
    tokio::task::yield_now().await;
    shelf.get(&key(2), |_| async { value(2, 4_000) }).await;
    tokio::task::yield_now().await;
    gate.notify_one();
    again.await.expect("read");
    tokio::task::yield_now().await;
    assert_eq!(shelf.peek(&key(1)), Some(value(1, 4_000)));
    assert!(matches!(
        shelf.lock().entries[&key(2)].place,
        Place::Passing(..)
    ));
}

proptest! {
    #[test]
    fn it_holds_no_more_than_it_may_and_knows_how_much(
        asked in proptest::collection::vec((0_u64..40, 0_u64..4_000), 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let shelf = Arc::new(Shelf::new(20_000));
            for (number, bytes) in asked {
                let kept = shelf.get(&key(number), |_| async move { value(number, bytes) }).await;
                assert_eq!(kept.number, number);
                tokio::task::yield_now().await;
                let held = shelf.snapshot();
                let sum: u64 = held.iter().map(|(_, value)| value.bytes + ENTRY_BYTES).sum();
                assert_eq!(sum, shelf.bytes());
                assert!(sum <= 20_000);
                assert_eq!(shelf.lock().by_use.len(), held.len());
                // What was used last stays.
                assert!(shelf.peek(&key(number)).is_some());
            }
        });
    }
}
