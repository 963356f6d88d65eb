//! HTTP client: TLS, timeouts, and redirects.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, sync::Arc, time::Duration};

use reqwest::{Certificate, Client, Url, redirect};

use crate::FetchError;

const CONNECT: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 10;

/// Hosts that may be reached without TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlainHosts(Arc<BTreeSet<String>>);

impl PlainHosts {
    /// `HOST` covers all its ports, `HOST:PORT` one.
    pub(crate) fn new(hosts: &[String]) -> Self {
        Self(Arc::new(hosts.iter().map(|host| host.to_ascii_lowercase()).collect()))
    }

    /// Whether `HOST[:PORT]` may be reached without TLS. Loopback always may.
    pub(crate) fn contains(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &authority,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        loopback || self.0.contains(host) || self.0.contains(&authority)
    }

    fn allow(&self, url: &Url) -> bool {
        url.scheme() == "https" || url.scheme() == "http" && self.contains(&authority(url))
    }

    /// # Errors
    /// [`FetchError::Insecure`] unless it is `https:` or one of these hosts.
    pub(crate) fn check(&self, uri: &str, url: &Url) -> Result<(), FetchError> {
        if self.allow(url) {
            return Ok(());
        }
        let message =
            format!("{} is not reached without TLS; use https, or add it to the insecure hosts", authority(url));
        Err(FetchError::Insecure { uri: uri.to_owned(), message })
    }
}

/// `HOST[:PORT]` of a URL.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The client for all requests. `idle` is the read timeout.
///
/// # Errors
/// The CA file cannot be read, or has no certificate.
pub(crate) fn client(plain: &PlainHosts, ca_file: Option<&Path>, idle: Duration) -> Result<Client, FetchError> {
    let mut builder = Client::builder()
        .user_agent(concat!("slm/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(idle)
        .redirect(redirects(plain.clone()));
    if let Some(path) = ca_file {
        let name = path.display().to_string();
        let pem = fs::read(path).map_err(|error| FetchError::io("CA file", path, error))?;
        let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(FetchError::bad(&name, "holds no certificate; expected PEM"));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| FetchError::bad("HTTP client", chain(&error)))
}

/// Follows redirects only to where the first request would have been allowed. The client itself drops `Authorization`
/// when the host changes.
fn redirects(plain: PlainHosts) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let left_tls =
            attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error(RedirectError::TooMany)
        } else if left_tls || !plain.allow(attempt.url()) {
            let to = authority(attempt.url());
            attempt.error(RedirectError::Plain(to))
        } else {
            attempt.follow()
        }
    })
}

/// A redirect that is not followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedirectError {
    /// Too many redirects.
    #[error("redirects more than {REDIRECTS_MAX} times")]
    TooMany,
    /// A redirect to a host that may not be reached without TLS.
    #[error("redirects to {0} without TLS, which is not followed")]
    Plain(String),
}

/// Messages of an error's chain, without the URL, whose query may be a secret.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut said = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        said.push(error.to_string());
        next = error.source();
    }
    // Outer errors name the operation ("client error (Connect)"), the innermost one the cause.
    let innermost = said.pop().unwrap_or_else(|| "no answer".to_owned());
    if error.is_connect() {
        format!("cannot connect: {innermost}")
    } else if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        innermost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_go_without_tls() {
        let plain = PlainHosts::new(&["registry.local".to_owned(), "Other.local:5000".to_owned()]);
        for (authority, allowed) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.9:80", true),
            ("[::1]:80", true),
            ("registry.local", true),
            ("registry.local:5000", true),
            ("other.local:5000", true),
            ("other.local:5001", false),
            ("other.local", false),
            ("localhost.example.com", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(plain.contains(authority), allowed, "{authority}");
        }
        let url = Url::parse("http://example.com/x?secret").unwrap();
        let error = plain.check("http://example.com/x", &url).unwrap_err();
        assert_eq!(error.reason(), "Insecure");
        assert!(error.to_string().contains("add it to the insecure hosts"));
    }
}
