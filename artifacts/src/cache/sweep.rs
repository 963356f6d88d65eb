//! What is cleared away when a cache is opened: things that a process which is gone has left.

use std::{fs, io, path::Path};

use super::{Cache, evict::bytes_in, lock::FileLock, refs::Ref, remove};

impl Cache {
    /// Locks decide: what a living process works on is locked by it.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for trash in names(&self.trash())? {
            remove(&self.trash().join(trash))?;
        }
        for name in names(&self.partial())? {
            // A folder without a lock's file was left between the two steps of making or removing them.
            self.sweep_partial(name.strip_suffix(".lock").unwrap_or(&name))?;
        }
        self.sweep_refs()
    }

    /// Keeps what arrived of a download, which the next fetch continues, and nothing else.
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

    /// A name for what is gone is of no use, and a name that was being written never will be.
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
