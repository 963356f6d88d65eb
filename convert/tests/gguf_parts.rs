//! Models in several GGUF files: opened from any part, and only as a whole.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::path::{Path, PathBuf};

use slm_convert::Checkpoint;
use support::{assert_says, copy, fixture, read_tensors, values};

fn part(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("tiny-{number:05}-of-00003.gguf"))
}

/// Overwrites the value of a metadata key in a part.
fn put(path: &Path, key: &str, value: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    // Behind the key: the type of the value.
    let from = at + key.len() + 4;
    bytes[from..from + value.len()].copy_from_slice(value);
    std::fs::write(path, bytes).unwrap();
}

/// The refusal of a changed copy, opened by its first part.
fn refusal(change: impl FnOnce(&Path)) -> String {
    let dir = copy(&fixture("parts"));
    change(dir.path());
    Checkpoint::open(&part(dir.path(), 1)).unwrap_err().to_string()
}

#[test]
fn any_part_and_their_folder_are_the_whole_model() {
    let dir = copy(&fixture("parts"));
    let whole = Checkpoint::open(dir.path()).unwrap();
    for number in 1..=3 {
        let model = Checkpoint::open(&part(dir.path(), number)).unwrap();
        assert_eq!((model.architecture(), model.digest()), (whole.architecture(), whole.digest()), "part {number}");
        for (name, (_, shape, bytes)) in read_tensors(&fixture("tiny.safetensors")) {
            let tensor = model.tensor(&name).unwrap();
            assert_eq!((tensor.shape, tensor.data), (shape, values(&bytes)), "{name}");
        }
        assert!(model.tokenizer().unwrap().is_some() && model.chat_template().unwrap().is_some());
    }
}

#[test]
fn the_digest_covers_every_part_and_no_name() {
    let digest = |change: &dyn Fn(&Path)| {
        let dir = copy(&fixture("parts"));
        change(dir.path());
        Checkpoint::open(dir.path()).unwrap().digest().to_owned()
    };
    let plain = digest(&|_| {});
    let renamed = digest(&|folder| {
        for number in 1..=3 {
            std::fs::rename(part(folder, number), folder.join(format!("other-{number:05}-of-00003.gguf"))).unwrap();
        }
    });
    assert_eq!(renamed, plain);
    for number in 1..=3 {
        let changed = digest(&|folder| {
            let path = part(folder, number);
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes).unwrap();
        });
        assert_ne!(changed, plain, "part {number}");
    }
}

#[test]
fn parts_that_are_no_whole_model_are_named() {
    let gone = refusal(|folder| std::fs::remove_file(part(folder, 2)).unwrap());
    assert_says(&gone, &["tiny-00002-of-00003.gguf", "part 2 of 3", "not there"]);
    let alone = {
        let dir = copy(&fixture("parts"));
        [1, 3].iter().for_each(|number| std::fs::remove_file(part(dir.path(), *number)).unwrap());
        Checkpoint::open(dir.path()).unwrap_err().to_string()
    };
    assert_says(&alone, &["tiny-00001-of-00003.gguf", "part 1 of 3"]);
    let twice = refusal(|folder| {
        std::fs::copy(part(folder, 3), part(folder, 2)).unwrap();
    });
    assert_says(&twice, &["tiny-00002-of-00003.gguf", "split.no", "it is 2, and 1"]);
    let count = refusal(|folder| put(&part(folder, 3), "split.count", &[4]));
    assert_says(&count, &["tiny-00003-of-00003.gguf", "split.count", "it is 4, and 3"]);
    let tensors = refusal(|folder| put(&part(folder, 2), "split.tensors.count", &[12]));
    assert_says(&tensors, &["tiny-00002-of-00003.gguf", "split.tensors.count", "different models"]);
    let fewer = refusal(|folder| (1..=3).for_each(|number| put(&part(folder, number), "split.tensors.count", &[12])));
    assert_says(&fewer, &["tiny-00001-of-00003.gguf", "split.tensors.count", "12", "11 tensors"]);
    let repeated = refusal(|folder| {
        std::fs::copy(part(folder, 1), part(folder, 2)).unwrap();
        put(&part(folder, 2), "split.no", &[1]);
    });
    assert_says(&repeated, &["tiny-00002-of-00003.gguf", "this tensor is in", "different models"]);
    let cut = refusal(|folder| support::cut(&part(folder, 3), 100));
    assert_says(&cut, &["tiny-00003-of-00003.gguf", "truncated"]);

    let dir = copy(&fixture("parts"));
    let renamed = dir.path().join("m.gguf");
    std::fs::rename(part(dir.path(), 1), &renamed).unwrap();
    assert_says(
        &Checkpoint::open(&renamed).unwrap_err().to_string(),
        &["m.gguf", "split.count", "one of 3 files", "NAME-00001-of-00003.gguf"],
    );
}
