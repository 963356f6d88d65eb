//! Cleanup when a cache is opened: removes leftovers of processes that are gone.

use std::{fs, io, path::Path};

use super::{Cache, evict::bytes_in, lock::FileLock, refs::Ref, remove};

impl Cache {
    /// Locks decide: a living process locks what it works on.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for trash in names(&self.trash())? {
            remove(&self.trash().join(trash))?;
        }
        for name in names(&self.partial())? {
            // A folder without its lock file is left by a crash between the two steps of creating or removing them.
            self.sweep_partial(name.strip_suffix(".lock").unwrap_or(&name))?;
        }
        self.sweep_refs()
    }

    /// Keeps the partial download, which the next fetch continues, and removes everything else.
    fn sweep_partial(&self, key: &str) -> io::Result<()> {
        let dir = self.partial_dir(key);
        let Some(lock) = FileLock::try_exclusive(&self.partial_lock(key))? else { return Ok(()) };
        remove(&dir.join("staging"))?;
        if bytes_in(&dir) == 0 {
            remove(&dir)?;
            lock.remove()?;
        }
        Ok(())
    }

    /// Removes references to evicted entries, and unfinished ones.
    fn sweep_refs(&self) -> io::Result<()> {
        for name in names(&self.refs())? {
            let path = self.refs().join(&name);
            let named = name.strip_suffix(".json").and_then(|_| fs::read_to_string(&path).ok());
            let to = named.and_then(|text| serde_json::from_str::<Ref>(&text).ok());
            if !to.is_some_and(|to| self.entry_dir(&to.key).exists()) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
