//! Checks of the cache folder, the quickstart's model file and the ports.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use slm_launch::size;

use super::Check;

/// The quickstart's base model, under the cache folder: `make setup` puts it there.
const QUICKSTART_MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The cache folder: writable or not, and its size.
pub(super) fn cache(folder: &Path) -> Check {
    let show = folder.display();
    let probe = folder.join(format!(".doctor-{}", std::process::id()));
    let written =
        fs::create_dir_all(folder).and_then(|()| fs::write(&probe, b"")).and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => Check::ok("cache", format!("{show}: {}", size(bytes_in(folder)))),
        Err(error) => {
            let remedy = "make it writable, or name another folder with --cache or SLM_CACHE_DIR";
            Check::fail("cache", format!("{show}: {error}"), remedy)
        }
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| if metadata.is_dir() { bytes_in(&path) } else { metadata.len() })
        .sum()
}

/// The quickstart's base model: fetched or not.
pub(super) fn quickstart_model(cache: &Path) -> Check {
    let file = cache.join(QUICKSTART_MODEL);
    match fs::metadata(&file) {
        Ok(metadata) => Check::ok("quickstart model", format!("{}: {}", file.display(), size(metadata.len()))),
        Err(_) => Check::warn(
            "quickstart model",
            format!("{}: not there", file.display()),
            "`make setup` fetches it; only examples/quickstart needs it",
        ),
    }
}

/// A port of `slm up`: free or in use.
pub(super) fn port(name: &'static str, flag: &str, address: SocketAddr) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Check::warn(
            name,
            format!("{address} is in use"),
            format!("a swarm may be running already; otherwise give `slm up` another address by {flag}"),
        ),
        Err(error) => {
            Check::warn(name, format!("{address}: {error}"), format!("give `slm up` another address by {flag}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_port_in_use_is_a_warning() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = port("HTTP port", "--http", taken.local_addr().unwrap());
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.found.ends_with("is in use"), "{check:?}");
    }

    #[test]
    fn a_cache_that_is_a_file_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(cache(file.path()).verdict, Verdict::Fail);
    }
}
