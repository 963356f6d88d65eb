//! Malicious and damaged archives.

use std::io::Write as _;

use tar::{Builder, Header};

use super::*;

/// An entry: type, name, link target, content.
type Made<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

/// An archive with raw headers, most of which the library would refuse to write.
fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, content) in entries {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o000);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpacked(bytes: &[u8], packing: Packing, bytes_max: u64) -> (tempfile::TempDir, Result<(), String>) {
    let dir = tempfile::tempdir().unwrap();
    let (file, into) = (dir.path().join("a.tar"), dir.path().join("into"));
    fs::write(&file, bytes).unwrap();
    fs::create_dir(&into).unwrap();
    let result = unpack(&file, packing, &into, &Limits::new(bytes_max));
    (dir, result.map_err(|error| error.to_string()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn files_folders_and_links_inside() {
    let bytes = archive(&[
        (EntryType::Directory, "./adapter/", "", b""),
        (EntryType::Regular, "./adapter/a.json", "", b"{}"),
        (EntryType::Symlink, "adapter/b.json", "a.json", b""),
        (EntryType::Link, "adapter/c.json", "adapter/a.json", b""),
    ]);
    for (bytes, packing) in [(bytes.clone(), Packing::Tar), (gzip(&bytes), Packing::TarGzip)] {
        let (dir, result) = unpacked(&bytes, packing, 2);
        assert_eq!(result, Ok(()));
        for name in ["a", "b", "c"] {
            assert_eq!(fs::read(dir.path().join(format!("into/adapter/{name}.json"))).unwrap(), b"{}");
        }
    }
}

#[test]
fn nothing_leaves_the_folder() {
    use EntryType as T;
    let cases: &[(&[Made<'_>], &str)] = &[
        (&[(T::Regular, "../x", "", b"x")], "../x: leaves the folder"),
        (&[(T::Regular, "a/../../x", "", b"x")], "leaves the folder"),
        (&[(T::Regular, "/tmp/x", "", b"x")], "/tmp/x: leaves the folder"),
        (&[(T::Symlink, "x", "/etc/passwd", b"")], "x: is a link to an absolute path"),
        (&[(T::Symlink, "x", "../../../../../../etc/passwd", b"")], "x: is a link to nothing in the archive"),
        (&[(T::Symlink, "x", "missing", b"")], "x: is a link to nothing in the archive"),
        (&[(T::Symlink, "x", "..", b""), (T::Regular, "x/y", "", b"y")], "x/y"),
        (&[(T::Symlink, "x", "..", b""), (T::Directory, "x/y", "", b"")], "x/y"),
        (&[(T::Link, "x", "../a.tar", b"")], "x"),
        // Each link alone seems to stay inside; together they do not.
        (
            &[
                (T::Directory, "d/e/", "", b""),
                (T::Symlink, "d/e/up", "../..", b""),
                (T::Symlink, "out", "d/e/up/..", b""),
            ],
            "out: is a link to nothing in the archive",
        ),
        (&[(T::Char, "x", "", b"")], "x: is neither a file"),
        (&[(T::Fifo, "x", "", b"")], "x: is neither a file"),
        (&[(T::Regular, "a/.wh.x", "", b"")], "removes a file of another layer"),
        (&[(T::Regular, "./", "", b"")], "names no file"),
    ];
    for (entries, expected) in cases {
        let (dir, result) = unpacked(&archive(entries), Packing::Tar, 100);
        let message = result.unwrap_err();
        assert!(message.contains(expected), "{message}\nexpected {expected}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "{message}");
    }
}

#[test]
fn there_is_an_end() {
    let bytes = archive(&[(EntryType::Regular, "a", "", &[0; 600]), (EntryType::Regular, "b", "", &[0; 600])]);
    assert_eq!(unpacked(&bytes, Packing::Tar, 1000).1, Err("unpacks to more than 1000 bytes".to_owned()));
    let (_, result) = unpacked(&bytes[..900], Packing::Tar, 10_000);
    assert!(result.as_ref().is_err_and(|message| message.starts_with("a: ")), "{result:?}");
    let whole = gzip(&bytes);
    let (_, result) = unpacked(&whole[..whole.len() - 12], Packing::TarGzip, 10_000);
    assert!(result.is_err(), "{result:?}");
    let (_, result) = unpacked(b"not gzip at all", Packing::TarGzip, 10_000);
    assert!(result.as_ref().is_err_and(|message| message.contains("damaged")), "{result:?}");
    let name = vec![b'n'; 64 << 20];
    let bytes = archive(&[(EntryType::GNULongName, "././@LongLink", "", &name), (EntryType::Regular, "a", "", b"a")]);
    let (_, result) = unpacked(&gzip(&bytes), Packing::TarGzip, u64::MAX);
    assert!(result.as_ref().is_err_and(|message| message.contains("header of an entry is too long")), "{result:?}");
}
