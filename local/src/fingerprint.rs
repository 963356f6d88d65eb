//! Change detection by file metadata, without reading contents.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Name, inode, length and times of a file, or of each file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<(String, [i64; 6])>);

/// The fingerprint of a file, or of the files of a folder.
///
/// # Errors
/// The path does not exist or cannot be read.
pub(crate) fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(Fingerprint(vec![(String::new(), facts(&metadata))]));
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = fs::metadata(entry.path())?;
        if metadata.is_file() {
            files.push((entry.file_name().to_string_lossy().into_owned(), facts(&metadata)));
        }
    }
    files.sort();
    Ok(Fingerprint(files))
}

fn facts(metadata: &Metadata) -> [i64; 6] {
    let (inode, length) = (metadata.ino().cast_signed(), metadata.len().cast_signed());
    // The time of change as well: a file may be given its old time of modification back.
    [inode, length, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_files_differ() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "one").unwrap();
        let before = fingerprint(folder.path()).unwrap();
        assert_eq!(fingerprint(folder.path()).unwrap(), before);
        let beside = folder.path().join("b");
        fs::write(&beside, "two").unwrap();
        fs::rename(&beside, &file).unwrap();
        assert_ne!(fingerprint(folder.path()).unwrap(), before);
    }
}
