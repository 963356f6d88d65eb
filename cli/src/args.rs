//! Arguments that several commands have in common.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    time::Duration,
};

use clap::ValueEnum;
use slm_convert::{
    bundle::{PrecisionChoice, cache_dir},
    graph,
};
use slm_router::Origin;

use crate::exit::Failure;

/// Precision of the weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Precision {
    /// Int4 when the file's own weights have 4 bits, Int8 when they have 5 to 8, else F32.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 4-bit integers.
    Int4,
    /// 8-bit integers.
    Int8,
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Auto => Self::Auto,
            Precision::F32 => Self::Exactly(graph::Precision::F32),
            Precision::Int4 => Self::Exactly(graph::Precision::Int4),
            Precision::Int8 => Self::Exactly(graph::Precision::Int8),
        }
    }
}

/// Where a swarm is reached.
#[derive(Clone, Debug, clap::Args)]
pub struct ListenArgs {
    /// Address of the OpenAI-compatible HTTP endpoint; port 0: any.
    #[arg(long, value_name = "ADDRESS", env = "SLM_HTTP", default_value = "127.0.0.1:8000", value_parser = address)]
    pub http: SocketAddr,
    /// Address of the gRPC endpoint; port 0: any.
    #[arg(long, value_name = "ADDRESS", env = "SLM_GRPC", default_value = "127.0.0.1:50051", value_parser = address)]
    pub grpc: SocketAddr,
    /// Web pages that may call the HTTP endpoint from a browser, by their origin: https://chat.example.com,
    /// http://localhost:* (any port) or * (any page); several with commas. `slm up` on a loopback address lets those of
    /// localhost without it.
    #[arg(long, value_name = "ORIGIN", env = "SLM_HTTP_ALLOW_ORIGIN", value_delimiter = ',')]
    pub http_allow_origin: Vec<Origin>,
}

/// An address to listen on: `127.0.0.1:8000`, `[::1]:8000`, or a host name such as `localhost:8000`, of whose addresses
/// the first IPv4 one is taken.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let expected = "expected HOST:PORT, such as localhost:8000 or 0.0.0.0:8000";
    let (host, port) = text.rsplit_once(':').ok_or(expected)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(expected.to_owned());
    }
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|error| format!("the host `{host}` is not known: {error}"))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("the host `{host}` has no address"))
}

/// Where converted models and downloads are kept.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CacheArgs {
    /// Folder of converted models and of what set-up fetched [default: slm-swarm in $XDG_CACHE_HOME or ~/.cache].
    #[arg(long, value_name = "DIR", env = "SLM_CACHE_DIR")]
    pub cache: Option<PathBuf>,
}

impl CacheArgs {
    /// The folder.
    ///
    /// # Errors
    /// When neither the argument nor the environment names one.
    pub fn root(&self) -> Result<PathBuf, Failure> {
        let none = || Failure::usage("no cache folder: set HOME, or name one with --cache");
        self.cache.clone().or_else(cache_dir).ok_or_else(none)
    }
}

/// A duration such as `500ms`, `30s` or `2m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let amount: u64 = digits.parse().map_err(|_| "expected a number with ms, s, m, h or d, such as 30s".to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(amount)),
        "" | "s" => Ok(Duration::from_secs(amount)),
        "m" => Ok(Duration::from_secs(amount.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(amount.saturating_mul(3600))),
        "d" => Ok(Duration::from_secs(amount.saturating_mul(86_400))),
        unit => Err(format!("unknown unit `{unit}`; expected ms, s, m, h or d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_host_names() {
        assert_eq!(address("127.0.0.1:80"), Ok(([127, 0, 0, 1], 80).into()));
        assert_eq!(address("[::1]:80").map(|address| address.is_ipv6()), Ok(true));
        assert!(address("localhost:8000").is_ok_and(|address| address.ip().is_loopback() && address.port() == 8000));
        for wrong in ["8000", ":8000", "localhost", "localhost:", "localhost:99999"] {
            assert!(address(wrong).is_err_and(|error| error.contains("HOST:PORT")), "{wrong}");
        }
        assert!(address("no-such-host.invalid:80").is_err_and(|error| error.contains("`no-such-host.invalid`")));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(48 * 3600)));
        assert!(duration("2w").is_err_and(|error| error.contains("`w`")));
        assert!(duration("soon").is_err());
    }
}
