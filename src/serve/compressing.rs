//! Has long texts compressed where nobody waits behind them.
//!
//! Enters: a [`Document`] and the coding that is wanted of it
//! Leaves: the coding that it is to be sent in, made by then
//! Never:  a long text compressed on a thread that answers requests; the same one twice
//! Time:   none
//! Spec:   none

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::cache::Encoding;
use super::document::Document;

/// Texts compressed at once: each is a processor's work, and the encoders need theirs.
const MAX_COMPRESSED: usize = 2;

/// Texts that wait for that: each may have some megabytes. Those beyond are sent as they are.
const MAX_WAITING: usize = 32;

/// Compresses long texts, a few at a time.
#[derive(Debug)]
pub(crate) struct Compressing {
    places: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Compressing {
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_COMPRESSED + MAX_WAITING)),
            room: Arc::new(Semaphore::new(MAX_COMPRESSED)),
        }
    }

    /// The coding in which `document` is to be sent to one who wants `wanted`; [`Document::coded`] has it at hand.
    pub(crate) async fn coding(&self, document: &Arc<Document>, wanted: Encoding) -> Encoding {
        if document.is_at_hand(wanted) {
            return wanted;
        }
        // However many want the same text, one has it compressed. What waits here shares it.
        let turn = Arc::clone(document.turn()).acquire_owned().await;
        if document.is_at_hand(wanted) {
            return wanted;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Encoding::Identity;
        };
        let room = Arc::clone(&self.room).acquire_owned().await;
        let work = {
            let document = Arc::clone(document);
            // They stay taken until it is done, also if who asked goes away.
            let taken = (turn, place, room);
            move || {
                let _made = document.coded(wanted).etag();
                drop(taken);
            }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(()) => wanted,
            // The runtime ends.
            Err(_) => Encoding::Identity,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn long() -> Arc<Document> {
        let text = "#EXTINF:2.000000,\n895634.m4s\n".repeat(20_000);
        Arc::new(Document::new("text/plain", text.into()))
    }

    #[tokio::test]
    async fn a_short_text_is_compressed_at_once() {
        let compressing = Compressing::new();
        let text = Bytes::from("#EXTINF:2.000000,\n".repeat(100));
        let document = Arc::new(Document::new("text/plain", text));
        let all = compressing.room.try_acquire_many(2).expect("free");
        let coding = compressing.coding(&document, Encoding::Brotli).await;
        assert_eq!(coding, Encoding::Brotli);
        drop(all);
    }

    #[tokio::test]
    async fn many_who_want_the_same_long_text_take_one_place() {
        let compressing = Arc::new(Compressing::new());
        let document = long();
        let all = compressing.room.acquire_many(2).await.expect("free");
        let ask = |encoding| {
            let (compressing, document) = (Arc::clone(&compressing), Arc::clone(&document));
            tokio::spawn(async move { compressing.coding(&document, encoding).await })
        };
        let asked: Vec<_> = (0..500).map(|_| ask(Encoding::Brotli)).collect();
        tokio::task::yield_now().await;
        let free = MAX_COMPRESSED + MAX_WAITING - 1;
        assert_eq!(compressing.places.available_permits(), free);
        drop(all);
        for asked in asked {
            assert_eq!(asked.await.expect("answered"), Encoding::Brotli);
        }
        let made = document.coded(Encoding::Brotli).body().to_bytes();
        assert!(made.len() < document.text().len() / 10);
    }

    #[tokio::test]
    async fn beyond_those_that_may_wait_a_long_text_is_sent_as_it_is() {
        let compressing = Compressing::new();
        let places = compressing.places.available_permits();
        let all = (0..places).map(|_| compressing.places.try_acquire());
        let all: Vec<_> = all.collect();
        let coding = compressing.coding(&long(), Encoding::Gzip).await;
        assert_eq!(coding, Encoding::Identity);
        drop(all);
        let coding = compressing.coding(&long(), Encoding::Gzip).await;
        assert_eq!(coding, Encoding::Gzip);
        // It gives back what it took.
        assert_eq!(compressing.places.available_permits(), places);
    }
}
