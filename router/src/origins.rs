//! Origins of web pages that may call, and `Host` names that the endpoint accepts.
//!
//! A page may read an answer only if the endpoint names the page's origin (CORS). And no page may reach an endpoint of this
//! machine under a host name of its own that resolves to 127.0.0.1 (DNS rebinding): on loopback the `Host` of a request is
//! checked.

use std::{net::IpAddr, str::FromStr};

use thiserror::Error;

/// An origin, or several: `https://chat.example.com`, `http://localhost:*` (any port), `*` (any page).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Exact(String),
    AnyPort(String),
}

/// No origin.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no origin: expected SCHEME://HOST, SCHEME://HOST:PORT, SCHEME://HOST:* for every port, or * for every page"
)]
pub struct OriginError(String);

impl Origin {
    /// Pages that this machine serves, on any port.
    #[must_use]
    pub fn loopback() -> Vec<Self> {
        let hosts = ["localhost", "127.0.0.1", "[::1]"];
        let schemes = ["http", "https"].into_iter();
        schemes.flat_map(|scheme| hosts.map(|host| Self(Pattern::AnyPort(format!("{scheme}://{host}"))))).collect()
    }

    /// Whether it is the origin that a browser names.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        match &self.0 {
            Pattern::Any => true,
            Pattern::Exact(own) => own.eq_ignore_ascii_case(origin),
            Pattern::AnyPort(own) => {
                let (start, rest) = origin.split_at_checked(own.len()).unwrap_or((origin, "?"));
                let port = rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
                own.eq_ignore_ascii_case(start) && (rest.is_empty() || port)
            }
        }
    }

    /// Its host; `None` for every page.
    fn host(&self) -> Option<&str> {
        match &self.0 {
            Pattern::Any => None,
            Pattern::Exact(origin) | Pattern::AnyPort(origin) => {
                origin.split_once("://").map(|(_, authority)| host_of(authority))
            }
        }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let error = || OriginError(text.to_owned());
        if text == "*" {
            return Ok(Self(Pattern::Any));
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let (scheme, authority) = text.split_once("://").ok_or_else(error)?;
        let word = |part: &str, more: &str| {
            !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
        };
        let host = host_of(authority);
        let port = authority.strip_prefix(host).unwrap_or_default();
        if !word(scheme, "+-.") || !word(host.trim_start_matches('[').trim_end_matches(']'), "-._:") {
            return Err(error());
        }
        // Browsers leave out the port that goes without saying.
        let said = !matches!((scheme, port), ("http", ":80") | ("https", ":443"));
        let number = port.strip_prefix(':').map(str::parse::<u16>);
        let base = format!("{scheme}://{host}").to_ascii_lowercase();
        match (port, number) {
            (":*", _) => Ok(Self(Pattern::AnyPort(base))),
            ("", _) => Ok(Self(Pattern::Exact(base))),
            (_, Some(Ok(_))) if said => Ok(Self(Pattern::Exact(format!("{base}{port}")))),
            (_, Some(Ok(_))) => Ok(Self(Pattern::Exact(base))),
            _ => Err(error()),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Pattern::Any => f.write_str("*"),
            Pattern::Exact(origin) => f.write_str(origin),
            Pattern::AnyPort(origin) => write!(f, "{origin}:*"),
        }
    }
}

/// The host of `host:port`; brackets of IPv6 stay.
fn host_of(authority: &str) -> &str {
    match authority.find(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// Whether a request that names `authority` as its host means an endpoint at `address` of loopback. Names of pages that may
/// call are names of this endpoint's owner, and pass as well.
pub(crate) fn is_own_host(authority: &str, address: IpAddr, origins: &[Origin]) -> bool {
    let authority = authority.trim();
    let (host, port) = authority.split_at(host_of(authority).len());
    // `localhost:80@evil.example` means evil.example.
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok()) {
        return false;
    }
    let host = host.trim_end_matches('.');
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let lower = host.to_ascii_lowercase();
    lower == "localhost"
        || lower.ends_with(".localhost")
        || ip.is_some_and(|ip| ip.is_loopback() || ip == address)
        || origins.iter().any(|origin| origin.host().is_none_or(|own| own == lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().expect(text)
    }

    #[test]
    fn origins_match_as_browsers_name_them() {
        let cases = [
            ("https://chat.example.com", "https://chat.example.com", true),
            ("https://Chat.example.com/", "https://chat.example.com", true),
            ("https://chat.example.com:443", "https://chat.example.com", true),
            ("https://chat.example.com", "http://chat.example.com", false),
            ("https://chat.example.com", "https://chat.example.com.evil.example", false),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://localhost:3000", "http://localhost:3001", false),
            ("http://localhost:*", "http://localhost:3000", true),
            ("http://localhost:*", "http://localhost", true),
            ("http://localhost:*", "http://localhost.evil.example", false),
            ("http://localhost:*", "http://localhost:80.evil.example", false),
            ("http://[::1]:*", "http://[::1]:5173", true),
            ("*", "null", true),
        ];
        for (pattern, named, matches) in cases {
            assert_eq!(origin(pattern).matches(named), matches, "{pattern} {named}");
            assert_eq!(origin(pattern), origin(&origin(pattern).to_string()), "{pattern}");
        }
        for wrong in ["localhost:3000", "https://", "https://a/b", "http://a:x", "http://a b", "", "null"] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn on_loopback_only_own_names_are_hosts() {
        let address = IpAddr::from([127, 0, 0, 5]);
        let origins = [origin("https://chat.example.com"), origin("http://localhost:*")];
        for host in
            ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:1", "[::1]:80", "127.0.0.5", "chat.example.com"]
        {
            assert!(is_own_host(host, address, &origins), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example", ""]
        {
            assert!(!is_own_host(host, address, &origins), "{host}");
        }
        for malformed in
            ["localhost:80@evil.example", "localhost:", "localhost:x", "localhost:80:80", "[::1]evil", "a@localhost"]
        {
            assert_eq!(is_own_host(malformed, address, &origins), malformed == "localhost:", "{malformed}");
        }
        assert!(is_own_host("evil.example", address, &[origin("*")]));
    }
}
