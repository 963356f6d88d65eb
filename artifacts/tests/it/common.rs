//! Helpers of all tests.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use slm_artifacts::{Artifact, FetchError, Phase, Progress, RetryPolicy, Source, Store, StoreConfig};

/// As in earnest, with shorter pauses.
pub fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        retry: RetryPolicy { attempts: 4, pause_first: Duration::from_millis(5), pause_max: Duration::from_secs(2) },
        idle: Duration::from_secs(10),
        ..StoreConfig::new(dir)
    }
}

pub fn store(dir: &Path) -> Store {
    Store::open(config(dir)).unwrap()
}

pub async fn fetch(store: &Store, source: &Source) -> Result<Artifact, FetchError> {
    store.fetch(source, &mut |_: Progress| {}).await
}

/// The phases it went through, each once.
pub async fn phases(store: &Store, source: &Source) -> (Result<Artifact, FetchError>, Vec<Phase>) {
    let mut phases = Vec::new();
    let result = store
        .fetch(source, &mut |progress: Progress| {
            if !phases.contains(&progress.phase) {
                phases.push(progress.phase);
            }
        })
        .await;
    (result, phases)
}

pub fn with_digest(uri: &str, content: &[u8]) -> Source {
    Source { digest: Some(sha256(content)), ..Source::new(uri) }
}

pub fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// Bytes of which no two parts are alike.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        // By hand: the library refuses to write what the tests need refused.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Names in a folder, in order; none when there is no such folder.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Entries of a cache.
pub fn entries(cache: &Path) -> Vec<String> {
    names(cache).into_iter().filter(|name| name.starts_with("sha256-")).collect()
}

/// A program that `scripts/setup PART` has built.
pub fn built(program: &str, part: &str) -> PathBuf {
    let cache = env::var_os("SLM_CACHE_DIR")
        .map_or_else(|| Path::new(&env::var_os("HOME").expect("HOME is set")).join(".cache/slm-swarm"), PathBuf::from);
    let binary = cache.join("bin").join(program);
    assert!(binary.exists(), "{} is missing: run scripts/setup {part}", binary.display());
    binary
}

/// Waits for what another process or thread does.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tick.tick().await;
    }
}
