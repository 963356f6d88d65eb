//! Eviction: least recently used first; items in use stay.

use std::{fs, io, path::Path, time::SystemTime};

use super::{
    Cache,
    entry::{DERIVED, INDEX, Index},
    lock::FileLock,
};

/// An item that occupies space.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    key: String,
    kind: ItemKind,
    bytes: u64,
    used: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemKind {
    /// A partial download: evicted before any entry.
    Partial,
    Entry,
    /// A converted model: ranks with entries, since either can be made again.
    Converted,
}

/// Outcome of making room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is enough room.
    Made,
    /// Everything that is left is in use.
    InUse,
}

impl Cache {
    /// Evicts until `bytes` more fit below the limit. The item with key `but` stays.
    pub(crate) fn make_room(&self, bytes: u64, but: &str) -> io::Result<Room> {
        if self.bytes_max == u64::MAX {
            return Ok(Room::Made);
        }
        let items = self.items()?;
        let held: u64 = items.iter().map(|item| item.bytes).sum();
        let excess = held.saturating_add(bytes).saturating_sub(self.bytes_max);
        let freed = self.free(items, excess, but)?;
        Ok(if freed >= excess { Room::Made } else { Room::InUse })
    }

    /// Evicts until `bytes` are freed, as far as possible. Gives the bytes freed.
    pub(crate) fn free_up(&self, bytes: u64, but: &str) -> io::Result<u64> {
        self.free(self.items()?, bytes, but)
    }

    fn free(&self, items: Vec<Item>, bytes: u64, but: &str) -> io::Result<u64> {
        let mut freed = 0;
        for item in in_order(items).filter(|item| item.key != but) {
            if freed >= bytes {
                break;
            }
            let gone = match item.kind {
                ItemKind::Entry => self.evict(&item.key)?,
                ItemKind::Partial => self.evict_partial(&item.key)?,
                ItemKind::Converted => match &self.converted {
                    Some(converted) => converted.evict(&item.key)?,
                    None => false,
                },
            };
            if gone {
                tracing::info!(key = item.key, bytes = item.bytes, "evicted from the cache");
                freed += item.bytes;
            }
        }
        Ok(freed)
    }

    fn evict_partial(&self, key: &str) -> io::Result<bool> {
        let Some(lock) = FileLock::try_exclusive(&self.partial_lock(key))? else { return Ok(false) };
        super::remove(&self.partial_dir(key))?;
        lock.remove()?;
        Ok(true)
    }

    fn items(&self) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(key) = entry.file_name().into_string() else { continue };
            if key.starts_with("sha256-") {
                let index = entry.path().join(INDEX);
                let known = fs::read(&index).ok().and_then(|text| serde_json::from_slice::<Index>(&text).ok());
                let whole = |index: Index| index.bytes + bytes_in(&entry.path().join(DERIVED));
                let bytes = known.map_or_else(|| bytes_in(&entry.path()), whole);
                items.push(Item { key, kind: ItemKind::Entry, bytes, used: modified(&index) });
            }
        }
        for entry in fs::read_dir(self.partial())? {
            let entry = entry?;
            let Ok(key) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            if path.is_dir() {
                items.push(Item { key, kind: ItemKind::Partial, bytes: bytes_in(&path), used: modified(&path) });
            }
        }
        if let Some(converted) = &self.converted {
            let item = |(key, bytes, used)| Item { key, kind: ItemKind::Converted, bytes, used };
            items.extend(converted.items()?.into_iter().map(item));
        }
        Ok(items)
    }
}

fn in_order(mut items: Vec<Item>) -> impl Iterator<Item = Item> {
    let order = |item: &Item| (item.kind != ItemKind::Partial, item.used);
    items.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.key.cmp(&b.key)));
    items.into_iter()
}

pub(crate) fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Bytes of all files under a folder; files that disappear meanwhile count as zero.
pub(crate) fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::entry::CONTENT;

    #[test]
    fn what_is_made_of_an_entry_counts_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 20).unwrap();
        let staging = cache.partial().join("staging");
        fs::create_dir_all(staging.join(CONTENT)).unwrap();
        fs::write(staging.join(CONTENT).join("a"), "0123456789").unwrap();
        let entry = cache.publish("sha256-k", &staging, "k", "test").unwrap();
        fs::create_dir(&entry.derived).unwrap();
        fs::write(entry.derived.join("b"), "01234").unwrap();
        assert_eq!(cache.make_room(5, "").unwrap(), Room::Made);
        assert_eq!(cache.make_room(6, "").unwrap(), Room::InUse);
        let derived = entry.derived.clone();
        assert!(derived.join("b").exists());
        drop(entry);
        assert_eq!(cache.make_room(6, "").unwrap(), Room::Made);
        assert!(!derived.exists());
    }

    #[test]
    fn partial_downloads_go_first_then_what_was_used_longest_ago() {
        let item = |key: &str, kind, seconds| Item {
            key: key.to_owned(),
            kind,
            bytes: 1,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };
        let items = vec![
            item("new", ItemKind::Entry, 9),
            item("old", ItemKind::Entry, 1),
            item("half", ItemKind::Partial, 8),
            item("older half", ItemKind::Partial, 7),
        ];
        let order: Vec<String> = in_order(items).map(|item| item.key).collect();
        assert_eq!(order, ["older half", "half", "old", "new"]);
    }
}
