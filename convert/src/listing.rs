//! Folder listings.

use std::{fs, path::Path};

/// File names in a folder, sorted, without hidden ones.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// What is at `path` instead of a file: a folder, or a link that leads nowhere. `None` if there is a file or nothing.
pub(crate) fn obstacle(path: &Path) -> Option<String> {
    let itself = fs::symlink_metadata(path).ok()?;
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Some("this is a folder, not a file: fetch the file again".to_owned()),
        Ok(_) => None,
        Err(_) if itself.is_symlink() => {
            let target = fs::read_link(path).map(|target| target.display().to_string()).unwrap_or_default();
            Some(format!(
                "this is a link to {target}, which is not there (a Hugging Face cache needs its blobs beside its snapshots): \
                 copy the files that the links name, for instance with cp -rL, or fetch them again"
            ))
        }
        Err(_) => None,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nothing_and_a_folder_are_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("../blobs/4d7a", at("dangling")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("file"), "a").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        assert!(obstacle(&at("dangling")).unwrap().contains("../blobs/4d7a"));
        assert!(obstacle(&at("folder")).unwrap().contains("folder"));
        for fine in ["file", "link", "nothing"] {
            assert_eq!(obstacle(&at(fine)), None, "{fine}");
        }
    }
}
