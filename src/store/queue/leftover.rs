//! What earlier broadcasts and processes left: in the spool, to be stored first; in the store, to be listed on or removed.
//!
//! Enters: what the spool and the store hold when a process or a broadcast begins
//! Leaves: the queue, which goes on from there
//! Never:  has anything removed that a playlist may name, or a write still under way may
//! Time:   monotonic instants, as arguments
//! Spec:   [HLS] §6.2.2

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::entry::{Entry, Put, SpoolId, Spooled};
use super::{DELETE_PAUSE, MAX_BATCH, Queue};
use crate::id::SegmentNumber;
use crate::media::{Item, ObjectKey};
use crate::store::names::{first_number, has_ended, last_number};

/// How long the writer of a broadcast that is over waits for a look through the folder: a listing of some hundred
/// pages.
const LOOK_LIMIT: Duration = Duration::from_secs(120);

/// How much of a folder is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of it.
    All,
    /// What is near the window, and what is from a segment on: an archive is not to be listed.
    Near(Option<SegmentNumber>),
}

/// A look through the folder that is under way, for the broadcast during which it was begun.
#[derive(Debug)]
pub(crate) struct Look(u64);

/// What an earlier process left in the spool.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) id: SpoolId,
    /// Without its body where it is media.
    pub(crate) put: Put,
    /// Bytes of the body.
    pub(crate) len: u64,
    pub(crate) since: Instant,
}

impl Queue {
    /// Puts what an earlier process left in the spool before everything else. `left` is in order.
    pub(crate) fn restore(&mut self, left: Vec<Restored>) {
        for restored in left.into_iter().rev() {
            let mut entry = Entry::new(restored.put, restored.since);
            entry.len = restored.len;
            entry.spooled = Spooled::Yes(restored.id);
            entry.attempted = true;
            entry.restored = true;
            self.waiting.push_front(entry);
        }
    }

    /// Takes note that the folder holds `found` at `now`, and that its playlists name `named`. What an earlier process
    /// left of a manifest is dropped if a newer version is stored: somebody else has gone on meanwhile, or it had
    /// been stored already.
    pub(crate) fn learn(
        &mut self,
        found: BTreeSet<ObjectKey>,
        named: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
        now: Instant,
    ) {
        self.quiet_at = Some(now + self.limits.lateness);
        self.archive |= found.iter().any(|key| key.item.is_of_show());
        self.drop_outdated(&named);
        self.named.extend(named);
        if self.tidy_at.is_some() {
            self.leave(found.iter());
        }
        self.stored.extend(found);
        self.foreign_mpd = self.has_stored_mpd();
    }

    /// Leaves media that was found where it is: it belongs to a show, whose record says how long.
    pub(crate) const fn keep_archive(&mut self) {
        self.archive = true;
    }

    /// Says that media from segment `end` on belongs to no show.
    pub(crate) const fn recorded_below(&mut self, end: SegmentNumber) {
        self.recorded_below = Some(end);
    }

    /// What is to be listed to find what earlier broadcasts left.
    pub(crate) const fn scope(&self) -> Scope {
        match (self.archive, self.recorded_below) {
            (false, _) => Scope::All,
            (true, from) => Scope::Near(from),
        }
    }

    fn shows(&self) -> Shows {
        let end = self.recorded_below.unwrap_or(SegmentNumber::new(u64::MAX));
        self.archive.then_some(end)
    }

    /// Thinks no more of an object that stays, once no manifest that is stored or waits names it: no later one
    /// of a live window will.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.removal.cancel(key);
        self.leftover.remove(key);
        // What waits counts as stored later.
        if self.is_named(key) || self.waiting.has(key) {
            self.forgotten.insert(key.clone());
        } else {
            self.stored.remove(key);
        }
    }

    /// Forgets what was to be forgotten and only the playlist `key` named, of which another version is stored.
    pub(super) fn forget_unnamed(&mut self, key: &ObjectKey) {
        let rendition = key.item.rendition();
        // After an outage there are many, all of which the versions of one playlist may name.
        let versions: Vec<_> = self.versions(key).collect();
        let is_over = |name: &&ObjectKey| {
            let is_named = || versions.iter().any(|names| names.contains(*name));
            name.item.rendition() == rendition && !self.waiting.has(name) && !is_named()
        };
        let over: Vec<_> = self.forgotten.iter().filter(is_over).cloned().collect();
        for key in over {
            self.forgotten.remove(&key);
            self.stored.remove(&key);
        }
    }

    /// The disk is full: has some of the oldest media removed that has left the window, and stays for those who have
    /// an older list. What is recorded does not go.
    pub(crate) fn make_room(&mut self, now: Instant) {
        let newest = |key: &ObjectKey| self.versions(key).filter_map(first_number).max();
        let left = |key: &ObjectKey| {
            let Item::Segment(_, number) = key.item else {
                return None;
            };
            let has_left = newest(key).is_some_and(|first| number < first);
            let goes = has_left && may_go(&key.item, self.shows()) && !self.is_named(key);
            goes.then(|| (number, key.clone()))
        };
        let mut gone: Vec<_> = self.stored.iter().filter_map(left).collect();
        gone.sort_unstable();
        for (_, key) in gone.into_iter().take(MAX_BATCH) {
            self.removal.set(key, now);
        }
    }

    /// Whether a version of the playlist that lists `key` names it, stored, waiting or held.
    pub(super) fn is_named(&self, key: &ObjectKey) -> bool {
        self.versions(key).any(|names| names.contains(key))
    }

    /// What each version of the playlist that lists `key` names, stored, waiting or held.
    fn versions(&self, key: &ObjectKey) -> impl Iterator<Item = &BTreeSet<ObjectKey>> {
        let playlist = key.item.rendition().map(|rendition| {
            let item = Item::Media(rendition.clone());
            ObjectKey::new(key.stream.clone(), item)
        });
        playlist.into_iter().flat_map(|playlist| {
            let waiting: Vec<_> = self.waiting.of_key(&playlist).collect();
            let waiting = waiting.into_iter().filter_map(|at| self.waiting.get(at));
            let entries = waiting.chain(self.held.get(&playlist));
            let stored = self.named.get(&playlist);
            entries.map(|entry| &entry.names).chain(stored)
        })
    }

    /// Takes `keys` for what earlier broadcasts left, except what this one has or keeps.
    fn leave<'a>(&mut self, keys: impl Iterator<Item = &'a ObjectKey>) {
        let shows = self.shows();
        let is_left = |key: &&ObjectKey| {
            may_go(&key.item, shows)
                && !self.kept.contains(key)
                && !self.stored.contains(key)
                && !self.waiting.has(key)
        };
        let left: Vec<_> = keys.filter(is_left).cloned().collect();
        self.leftover.extend(left);
    }

    /// Whether the folder is to be looked through now for what earlier broadcasts left, which [`Self::tidy`] is
    /// to be told; or [`Self::tidy_later`].
    pub(crate) fn take_tidying(&mut self, now: Instant) -> Option<Look> {
        self.tidy_at.take_if(|at| *at <= now)?;
        self.look_until = Some(now + LOOK_LIMIT);
        Some(Look(self.era))
    }

    /// The folder could not be looked through.
    pub(crate) fn tidy_later(&mut self, look: Look, now: Instant) {
        if look.0 == self.era {
            self.look_until = None;
            self.tidy_at = Some(now + DELETE_PAUSE);
        }
    }

    /// Has what earlier broadcasts left removed, as soon as nothing names it: the folder holds `found`, and its
    /// playlists name `named`. A look that was begun before the present broadcast says nothing: what that left
    /// which was under way then has a time of grace, and another look follows.
    pub(crate) fn tidy(
        &mut self,
        look: Look,
        (found, named): (
            &BTreeSet<ObjectKey>,
            BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
        ),
        now: Instant,
    ) {
        if look.0 != self.era {
            return;
        }
        self.look_until = None;
        // Of what this broadcast writes meanwhile, either version counts until the next one.
        for (key, names) in named {
            self.named.entry(key).or_default().extend(names);
        }
        self.leave(found.iter());
        for key in std::mem::take(&mut self.leftover) {
            self.removal.set_if_none(&key, now);
        }
    }

    fn has_stored_mpd(&self) -> bool {
        // Manifests come before everything else.
        let mut manifests = self.stored.iter().take_while(|key| key.item.is_manifest());
        manifests.any(|key| matches!(key.item, Item::Mpd))
    }

    fn drop_outdated(&mut self, named: &BTreeMap<ObjectKey, BTreeSet<ObjectKey>>) {
        let restored = self.waiting.iter();
        let restored = restored.filter(|(_, entry)| entry.restored && entry.put.is_manifest());
        let mut dropped = Vec::new();
        // Those that list no segments themselves, and those of shows.
        let mut others = Vec::new();
        // By playlist, whether the newest version here is older than the stored one.
        let mut is_overtaken = BTreeMap::new();
        for (place, entry) in restored {
            let key = &entry.put.key;
            if !matches!(key.item, Item::Media(_)) {
                others.push(place);
                continue;
            }
            let stored = named.get(key).and_then(last_number);
            let ours = last_number(&entry.names);
            is_overtaken.insert(key.clone(), stored > ours);
            let is_stored = stored.is_some() && stored == ours;
            if stored > ours || (is_stored && !has_ended(&entry.put.body.to_bytes())) {
                dropped.push(place);
            }
        }
        // An older version than the stored one shows no more than that this process's predecessor died while it
        // stored what is here. Only if all versions are older, somebody else has gone on.
        if is_overtaken.into_values().any(|is_overtaken| is_overtaken) {
            dropped.extend(others);
        }
        for place in dropped {
            self.waiting.remove(place);
            self.counts.superseded += 1;
        }
    }

    /// A new broadcast begins at `now`: everything that is there is removed after `grace`, as soon as no stored
    /// playlist names it, unless it is written again or kept.
    pub(crate) fn begin(&mut self, now: Instant, grace: Duration) {
        self.era += 1;
        self.look_until = None;
        self.kept.clear();
        let there = self.stored.iter().chain(self.waiting.keys());
        let shows = self.shows();
        let goes = |key: &&ObjectKey| may_go(&key.item, shows);
        self.leftover = there.filter(goes).cloned().collect();
        // The process before this one may have died with the write of a playlist under way.
        self.tidy_at = Some(now + grace.max(self.limits.lateness));
        self.foreign_mpd = self.has_stored_mpd();
    }

    /// Has `key` removed at `due`, or later if a stored playlist still names it then.
    pub(crate) fn retire(&mut self, key: ObjectKey, due: Instant) {
        // A playlist that names what an earlier process stored may be under way since that died.
        let is_kept = self.kept.remove(&key);
        let quiet_at = self.quiet_at.filter(|_| is_kept);
        self.removal
            .set(key, quiet_at.map_or(due, |at| due.max(at)));
    }

    /// Takes back that `key` is to be removed.
    pub(crate) fn keep(&mut self, key: &ObjectKey) {
        self.removal.cancel(key);
        self.leftover.remove(key);
        self.kept.insert(key.clone());
    }
}

/// Which media belongs to shows: that before a segment.
type Shows = Option<SegmentNumber>;

/// Whether what an earlier broadcast left is to go. Media that belongs to shows does not.
fn may_go(item: &Item, shows: Shows) -> bool {
    let is_beyond = |number: u64| shows.is_none_or(|end| number >= end.get());
    match item {
        Item::Multivariant | Item::Mpd => false,
        Item::Media(_) => true,
        // Never stored.
        Item::Dvr | Item::DvrMpd | Item::DvrMedia(_) => false,
        // A period has the number of its first segment.
        Item::Init(_, period) => is_beyond(period.get()),
        Item::Segment(_, number) | Item::Part(_, number, _) => is_beyond(number.get()),
        Item::Show(_) | Item::ShowMultivariant(_) | Item::ShowMpd(_) | Item::ShowMedia(..) => false,
    }
}
