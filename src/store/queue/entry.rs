//! What waits to be stored, in the order in which it is to be written.
//!
//! Enters: objects, and word of where their bytes lie now
//! Leaves: the same by place, by key, and by what may be given up
//! Never:  decides what is written, or when
//! Time:   monotonic instants, as arguments
//! Spec:   none
//!
//! An outage of hours leaves tens of thousands of objects here, and the live path adds to them under a lock: every
//! question has an index, and nothing walks through all of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::media::{Item, ObjectKey, Payload};
use crate::store::names::named_by;

/// One object to be stored.
#[derive(Clone, Debug)]
pub struct Put {
    /// Where.
    pub key: ObjectKey,
    /// The bytes; they are shared, not copied.
    pub body: Payload,
    /// The value of `Content-Type`, kept by stores that keep such things.
    pub content_type: Cow<'static, str>,
    /// The value of `Cache-Control`, likewise.
    pub cache_control: Cow<'static, str>,
}

impl Put {
    pub(crate) const fn is_manifest(&self) -> bool {
        self.key.item.is_manifest()
    }

    /// Whether it is media, which a playlist can leave out.
    pub(crate) const fn may_be_lost(&self) -> bool {
        matches!(self.key.item, Item::Segment(..) | Item::Part(..))
    }
}

/// A file of the spool; a later one has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpoolId(pub(crate) u64);

/// Whether the spool has an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spooled {
    No,
    /// It is being written there.
    UnderWay,
    Yes(SpoolId),
}

/// The place of an object among those that wait. An object that moves gets another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(i64);

/// An object that waits.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Without its body where only the spool has it, which is so for media alone.
    pub(crate) put: Put,
    /// Bytes, wherever they are.
    pub(crate) len: u64,
    /// What it names.
    pub(crate) names: BTreeSet<ObjectKey>,
    pub(crate) since: Instant,
    pub(crate) spooled: Spooled,
    /// Whether a write of it was begun: it may be stored, whatever the answer was.
    pub(crate) attempted: bool,
    /// How often it failed where others did not, and went to the back.
    pub(crate) set_back: u32,
    /// Whether an earlier process left it in the spool.
    pub(crate) restored: bool,
}

impl Entry {
    pub(crate) fn new(put: Put, since: Instant) -> Self {
        let names = if put.is_manifest() {
            named_by(&put.key, &put.body.to_bytes())
        } else {
            BTreeSet::new()
        };
        Self {
            len: put.body.len(),
            put,
            names,
            since,
            spooled: Spooled::No,
            attempted: false,
            set_back: 0,
            restored: false,
        }
    }

    /// Bytes in memory.
    fn in_memory(&self) -> u64 {
        self.put.body.len()
    }

    fn in_spool(&self) -> u64 {
        match self.spooled {
            Spooled::Yes(_) => self.len,
            Spooled::No | Spooled::UnderWay => 0,
        }
    }
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    entries: BTreeMap<Place, Entry>,
    by_key: BTreeMap<ObjectKey, BTreeSet<Place>>,
    /// What the spool does not have and nobody writes there.
    unspooled: BTreeSet<Place>,
    /// Media, which may be given up.
    media: BTreeSet<Place>,
    front: i64,
    back: i64,
    memory_bytes: u64,
    spooled_bytes: u64,
    /// Files of the spool that are not needed any more.
    discarded: Vec<SpoolId>,
}

impl Waiting {
    /// Adds `entry` behind all others.
    pub(crate) fn push_back(&mut self, entry: Entry) {
        let place = Place(self.back);
        self.back += 1;
        self.insert(place, entry);
    }

    /// Adds `entry` before all others.
    pub(crate) fn push_front(&mut self, entry: Entry) {
        self.front -= 1;
        self.insert(Place(self.front), entry);
    }

    fn insert(&mut self, place: Place, mut entry: Entry) {
        // Word of a place that it had before will not be understood.
        if entry.spooled == Spooled::UnderWay {
            entry.spooled = Spooled::No;
        }
        if entry.spooled == Spooled::No {
            self.unspooled.insert(place);
        }
        if entry.put.may_be_lost() {
            self.media.insert(place);
        }
        self.memory_bytes += entry.in_memory();
        self.spooled_bytes += entry.in_spool();
        let places = self.by_key.entry(entry.put.key.clone()).or_default();
        places.insert(place);
        self.entries.insert(place, entry);
    }

    /// Takes out what is at `place`; its file in the spool, if any, stays its own.
    pub(crate) fn take(&mut self, place: Place) -> Option<Entry> {
        let entry = self.entries.remove(&place)?;
        self.unspooled.remove(&place);
        self.media.remove(&place);
        self.memory_bytes -= entry.in_memory();
        self.spooled_bytes -= entry.in_spool();
        if let Some(places) = self.by_key.get_mut(&entry.put.key) {
            places.remove(&place);
            if places.is_empty() {
                self.by_key.remove(&entry.put.key);
            }
        }
        Some(entry)
    }

    /// Takes out what is at `place`, and has its file in the spool deleted.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Entry> {
        let entry = self.take(place)?;
        self.discard(&entry);
        Some(entry)
    }

    /// Has the file of `entry` in the spool deleted.
    pub(crate) fn discard(&mut self, entry: &Entry) {
        if let Spooled::Yes(id) = entry.spooled {
            self.discarded.push(id);
        }
    }

    /// The files that are to be deleted now.
    pub(crate) fn take_discarded(&mut self) -> Vec<SpoolId> {
        std::mem::take(&mut self.discarded)
    }

    /// The object at `place` is being written to the spool: it as it is now.
    pub(crate) fn begin_spooling(&mut self, place: Place) -> Option<Put> {
        let entry = self.entries.get_mut(&place)?;
        entry.spooled = Spooled::UnderWay;
        self.unspooled.remove(&place);
        Some(entry.put.clone())
    }

    /// Writing the object at `place` to the spool has ended, as the file `id` if it did not fail. False if the
    /// object does not wait there any more, and the file is of no use.
    pub(crate) fn end_spooling(&mut self, place: Place, id: Option<SpoolId>) -> bool {
        let entry = self.entries.get_mut(&place);
        let Some(entry) = entry.filter(|entry| entry.spooled == Spooled::UnderWay) else {
            return false;
        };
        let Some(id) = id else {
            entry.spooled = Spooled::No;
            self.unspooled.insert(place);
            return true;
        };
        entry.spooled = Spooled::Yes(id);
        self.spooled_bytes += entry.len;
        if entry.put.may_be_lost() {
            self.memory_bytes -= entry.in_memory();
            entry.put.body = Payload::default();
        }
        true
    }

    /// Puts other bytes in the place of those of a manifest. A file of it in the spool stays: whoever reads that finds
    /// out for himself what is missing.
    pub(crate) fn rewrite(&mut self, place: Place, body: Payload) {
        let Some(mut entry) = self.take(place) else {
            return;
        };
        entry.names = named_by(&entry.put.key, &body.to_bytes());
        if entry.spooled == Spooled::No {
            entry.len = body.len();
        }
        entry.put.body = body;
        self.insert(place, entry);
    }

    /// The place that the next object gets behind all others.
    pub(crate) const fn end(&self) -> Place {
        Place(self.back)
    }

    pub(crate) fn first(&self) -> Option<(Place, &Entry)> {
        let (place, entry) = self.entries.first_key_value()?;
        Some((*place, entry))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.entries.iter().map(|(place, entry)| (*place, entry))
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Entry> {
        self.entries.get(&place)
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.entries.get_mut(&place)
    }

    /// The places of `key`, the oldest version first.
    pub(crate) fn of_key(&self, key: &ObjectKey) -> impl DoubleEndedIterator<Item = Place> {
        self.by_key.get(key).into_iter().flatten().copied()
    }

    pub(crate) fn has(&self, key: &ObjectKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_key.keys()
    }

    /// Media that the spool has, the oldest first.
    pub(crate) fn media_in_spool(&self) -> impl Iterator<Item = Place> {
        let is_spooled = |place: &Place| {
            let entry = self.entries.get(place);
            entry.is_some_and(|entry| matches!(entry.spooled, Spooled::Yes(_)))
        };
        self.media.iter().copied().filter(move |at| is_spooled(at))
    }

    /// Media in memory, the oldest first.
    pub(crate) fn media_in_memory(&self) -> impl Iterator<Item = Place> {
        let unspooled = self.unspooled.iter().copied();
        unspooled.filter(|place| self.media.contains(place))
    }

    /// All media, the oldest first.
    pub(crate) fn media(&self) -> impl Iterator<Item = Place> {
        self.media.iter().copied()
    }

    /// What the spool does not have, the oldest first.
    pub(crate) fn unspooled(&self) -> impl Iterator<Item = (Place, &Entry)> {
        let entry = |place: &Place| Some((*place, self.entries.get(place)?));
        self.unspooled.iter().filter_map(entry)
    }

    pub(crate) fn unspooled_len(&self) -> usize {
        self.unspooled.len()
    }

    /// Whether an init segment waits. Their keys come before those of media.
    pub(crate) fn has_init(&self) -> bool {
        has_init(self.by_key.keys())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in memory.
    pub(crate) const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Bytes in the spool.
    pub(crate) const fn spooled_bytes(&self) -> u64 {
        self.spooled_bytes
    }
}

/// Whether an init segment is among `keys`, which are in order: those of media come after all others.
pub(crate) fn has_init<'a>(keys: impl Iterator<Item = &'a ObjectKey>) -> bool {
    let is_media = |key: &&ObjectKey| matches!(key.item, Item::Segment(..) | Item::Part(..));
    keys.take_while(|key| !is_media(key))
        .any(|key| matches!(key.item, Item::Init(..)))
}
