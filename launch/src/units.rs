//! Durations, sizes and addresses, as command lines write them.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

/// A duration such as `500ms`, `30s` or `2m`; a bare number is seconds.
///
/// # Errors
/// Says what was expected.
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

/// The shortest way to write a duration of whole milliseconds, which is what these have.
pub(crate) fn written(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// Bytes, or a number with KiB, MiB, GiB or TiB.
///
/// # Errors
/// Says what was expected.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let expected = "expected a number of bytes, or one with KiB, MiB, GiB or TiB, such as 20GiB";
    let amount: u64 = digits.trim_end().parse().map_err(|_| expected.to_owned())?;
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(expected.to_owned()),
    };
    amount.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| expected.to_owned())
}

/// An address to listen on: `127.0.0.1:8000`, `[::1]:8000`, or a host name such as `localhost:8000`, of whose addresses
/// the first IPv4 one is taken.
///
/// # Errors
/// Says what was expected, or why the host has no address.
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

/// Bytes in a unit that people read.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss)] // One decimal is shown.
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(48 * 3600)));
        assert!(duration("2w").is_err_and(|error| error.contains("`w`")));
        assert!(duration("soon").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("20GiB"), Ok(20 << 30));
        for wrong in ["", "0", "GiB", "20GB", "-1", "99999999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

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
    fn sizes_for_people() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(98_362_432), "93.8 MiB");
    }
}
