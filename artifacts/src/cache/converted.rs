//! Converted models, in a folder beside the cache and under the same size limit.
//!
//! `slm_convert::bundle` creates them. This module only knows the layout of their folder:
//!
//! ```text
//! NAME/           a model, complete as soon as `bundle.json` exists
//! NAME.partial/   a model being converted
//! NAME.lock       locked exclusively during the conversion and shared during use; its mtime is the last use
//! ```

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    evict::{bytes_in, modified},
    lock::FileLock,
    remove,
};

const BUNDLE: &str = "bundle.json";

/// The folder of converted models.
#[derive(Debug)]
pub(crate) struct Converted(pub(crate) PathBuf);

impl Converted {
    /// Name, bytes and last use of every model.
    pub(crate) fn items(&self) -> io::Result<Vec<(String, u64, SystemTime)>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            // Every model has a lock; anything else is not ours.
            let name = entry?.file_name().into_string().ok();
            names.extend(name.and_then(|name| name.strip_suffix(".lock").map(str::to_owned)));
        }
        let item = |name: String| {
            let bytes = bytes_in(&self.0.join(&name)) + bytes_in(&self.partial(&name));
            let used = modified(&self.lock(&name));
            (name, bytes, used)
        };
        Ok(names.into_iter().map(item).collect())
    }

    /// Removes a model that is neither in use nor being converted, and its lock. True if it did.
    pub(crate) fn evict(&self, name: &str) -> io::Result<bool> {
        let Some(lock) = FileLock::try_exclusive(&self.lock(name))? else { return Ok(false) };
        let dir = self.0.join(name);
        // The completeness marker goes first: a crash in between leaves nothing that looks like a model.
        remove(&dir.join(BUNDLE))?;
        remove(&dir)?;
        remove(&self.partial(name))?;
        lock.remove()?;
        Ok(true)
    }

    fn lock(&self, name: &str) -> PathBuf {
        self.beside(name, "lock")
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.beside(name, "partial")
    }

    fn beside(&self, name: &str, what: &str) -> PathBuf {
        Path::new(&self.0).join(format!("{name}.{what}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::{Cache, evict::Room};

    fn model(dir: &Path, name: &str, used: u64) -> fs::File {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::write(dir.join(name).join(BUNDLE), "{}").unwrap();
        fs::write(dir.join(name).join("weights"), "01234567").unwrap();
        let lock = fs::File::create(dir.join(format!("{name}.lock"))).unwrap();
        lock.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(used)).unwrap();
        lock
    }

    fn left(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn models_that_are_not_used_make_room_with_their_locks() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("converted");
        let cache = Cache::open_with(root.path(), 40, Some(dir.clone())).unwrap();
        assert_eq!(cache.make_room(40, "").unwrap(), Room::Made, "there is no such folder yet");
        let in_use = model(&dir, "a", 1);
        in_use.lock_shared().unwrap();
        drop(model(&dir, "b", 3));
        drop(model(&dir, "c", 2));
        // Left by a crashed converter.
        fs::create_dir(dir.join("d.partial")).unwrap();
        fs::write(dir.join("d.partial/weights"), "0123456789").unwrap();
        fs::File::create(dir.join("d.lock")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        // Not ours.
        fs::write(dir.join("notes"), "").unwrap();
        assert_eq!(cache.make_room(1, "").unwrap(), Room::Made);
        assert_eq!(
            left(&dir),
            ["a", "a.lock", "b", "b.lock", "c", "c.lock", "notes"],
            "what was never used goes first"
        );
        assert_eq!(cache.make_room(15, "").unwrap(), Room::Made);
        assert_eq!(
            left(&dir),
            ["a", "a.lock", "b", "b.lock", "notes"],
            "the longest unused of those that are not in use"
        );
        assert_eq!(cache.make_room(31, "").unwrap(), Room::InUse);
        assert_eq!(left(&dir), ["a", "a.lock", "notes"]);
        drop(in_use);
        assert_eq!(cache.make_room(31, "").unwrap(), Room::Made);
        assert_eq!(left(&dir), ["notes"]);
    }
}
