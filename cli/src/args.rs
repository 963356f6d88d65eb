//! Arguments that several commands have in common.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
};

use slm_convert::{
    bundle::{PrecisionChoice, cache_dir},
    graph,
};
use slm_router::Origin;

pub use slm_launch::{CacheArgs, Precision, duration};

use crate::exit::Failure;

/// What the converter makes of a precision.
pub fn precision(precision: Precision) -> PrecisionChoice {
    match precision {
        Precision::Auto => PrecisionChoice::Auto,
        Precision::F32 => PrecisionChoice::Exactly(graph::Precision::F32),
        Precision::Int4 => PrecisionChoice::Exactly(graph::Precision::Int4),
        Precision::Int8 => PrecisionChoice::Exactly(graph::Precision::Int8),
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

/// The folder of a cache.
///
/// # Errors
/// When neither the argument nor the environment names one.
pub fn cache_root(cache: &CacheArgs) -> Result<PathBuf, Failure> {
    let none = || Failure::usage("no cache folder: set HOME, or name one with --cache");
    cache.cache.clone().or_else(cache_dir).ok_or_else(none)
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
}
