//! Takes into a show what is stored of it beyond what its record knows: that is written behind.
//!
//! Enters: the store, a show that broke off
//! Leaves: the show with its tail
//! Never:  a listing: what else the store holds does not matter; a segment of the next show or period
//! Time:   a segment's own, where the grid does not say
//! Spec:   docs/recordings.md

use std::ops::Range;

use futures_util::{StreamExt as _, stream};

use crate::id::{PeriodId, RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey, Payload};
use crate::package::movie;
use crate::package::show::Show;
use crate::store::{ReadFailed, Store};

/// How many numbers in a row may be missing before nothing more is looked for: as many as a rendition may be
/// behind the others.
const MAX_MISSING: u64 = 32;

/// The most numbers that are taken in at once: some hours, after which there is another look.
const MAX_ADOPTED: u64 = 4_096;

/// How many are asked for at once.
const READ_AHEAD: usize = 16;

/// Takes in what follows what the record of `show` offers, up to `end`; whether that is all.
pub(super) async fn adopt(
    store: &Store,
    stream: &StreamName,
    show: &mut Show,
    end: Option<SegmentNumber>,
) -> Result<bool, ReadFailed> {
    let from = show.offered().end;
    let limit = from.saturating_add(MAX_ADOPTED);
    let end = end.map_or(u64::MAX, SegmentNumber::get);
    let mut numbers = from..end.min(limit);
    if !show.is_on_grid() {
        let last = show.last_period_first();
        numbers.end = next_period(store, stream, show, numbers.clone(), last).await?;
    }
    let mut reached = from;
    for rendition in show.renditions() {
        let found = take(store, stream, show, (&rendition, numbers.clone())).await?;
        reached = reached.max(found);
    }
    // A rendition that ends earlier than the others has ended there.
    Ok(reached < limit.min(end) || end <= limit)
}

/// Takes in what there is of one rendition; the number after the last.
async fn take(
    store: &Store,
    stream: &StreamName,
    show: &mut Show,
    (rendition, numbers): (&RenditionName, Range<u64>),
) -> Result<u64, ReadFailed> {
    let on_grid = show.is_on_grid();
    let key = |number| {
        let item = Item::Segment(rendition.clone(), SegmentNumber::new(number));
        ObjectKey::new(stream.clone(), item)
    };
    let wanted = numbers.clone().map(|number| async move {
        // On the grid it is enough to know that it is there.
        let found = if on_grid {
            first_byte(store, &key(number)).await
        } else {
            store.get(&key(number)).await
        };
        (number, found)
    });
    let mut reached = numbers.start;
    let mut found = stream::iter(wanted).buffered(READ_AHEAD);
    while let Some((number, segment)) = found.next().await {
        if let Some(segment) = segment?.filter(|segment| !segment.is_empty()) {
            let place = match on_grid {
                true => None,
                false => movie::place_of(&segment.to_bytes()),
            };
            show.adopt(rendition, SegmentNumber::new(number), place);
            reached = number + 1;
        } else if number >= reached.saturating_add(MAX_MISSING) {
            break;
        }
    }
    // The last one of a broadcast is short, and the grid does not say so.
    if on_grid
        && reached > numbers.start
        && let Some(last) = store.get(&key(reached - 1)).await?
    {
        let place = movie::place_of(&last.to_bytes());
        show.adopt(rendition, SegmentNumber::new(reached - 1), place);
    }
    Ok(reached)
}

/// The beginning of an object: enough to know that it is there.
async fn first_byte(store: &Store, key: &ObjectKey) -> Result<Option<Payload>, ReadFailed> {
    match store.get_range(key, 0..1).await {
        // Of an empty one there is no beginning either.
        Err(_) => store.get(key).await,
        found => found,
    }
}

/// The first of `numbers` with which a period begins that the record does not know; their end if none does.
async fn next_period(
    store: &Store,
    stream: &StreamName,
    show: &Show,
    numbers: Range<u64>,
    known: u64,
) -> Result<u64, ReadFailed> {
    let Some(rendition) = show.renditions().into_iter().next() else {
        return Ok(numbers.end);
    };
    let key = |item| ObjectKey::new(stream.clone(), item);
    let wanted = numbers.clone().map(|number| {
        let init = key(Item::Init(rendition.clone(), PeriodId::new(number)));
        let segment = Item::Segment(rendition.clone(), SegmentNumber::new(number));
        let segment = key(segment);
        async move {
            let init = first_byte(store, &init).await?;
            let segment = first_byte(store, &segment).await?;
            Ok((number, init.is_some(), segment.is_some()))
        }
    });
    let mut reached = numbers.start;
    let mut found = stream::iter(wanted).buffered(READ_AHEAD);
    while let Some(found) = found.next().await {
        let (number, begins, is_there) = found?;
        if begins && number != known {
            return Ok(number);
        }
        if is_there {
            reached = number + 1;
        } else if number >= reached.saturating_add(MAX_MISSING) {
            break;
        }
    }
    Ok(numbers.end)
}
