//! Hosts that the token or password of a Secret may be sent to. The operator and the egress ask the same.
//!
//! Whoever may write an object names a URL, a proxy and a Secret; only who may write the Secret says where it goes.

/// Annotation with the hosts: HOST or HOST:PORT, separated by commas.
pub const HOSTS: &str = "slmswarm.io/hosts";

/// `HOST` or `HOST:PORT` of a URL or source.
#[must_use]
pub fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // Userinfo before an @ is not part of the host.
    authority.rsplit('@').next()
}

/// Whether a Secret whose annotation is `listed` may be sent to the host of `url`.
///
/// # Errors
/// It may not: the host, and the annotation that would allow it.
pub fn allowed(listed: Option<&str>, url: &str) -> Result<(), String> {
    let host = host(url).unwrap_or_default();
    let mut hosts = listed.unwrap_or_default().split(',');
    if !host.is_empty() && hosts.any(|allowed| allowed.trim().eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(format!("its token or password may not be sent to `{host}`; allow it with the annotation {HOSTS}: {host}"))
}

/// Whether a Secret may be sent to the endpoint at `url`, through `proxy`. What goes over plain HTTP is read by all on the way, so the
/// annotation names such a host as `http://HOST`; and a proxy's host has to be listed as well.
///
/// # Errors
/// It may not: the host, and the annotation that would allow it.
pub fn allowed_outside(listed: Option<&str>, url: &str, proxy: Option<&str>) -> Result<(), String> {
    if url.starts_with("http://") {
        let plain = format!("http://{}", host(url).unwrap_or_default());
        let mut hosts = listed.unwrap_or_default().split(',');
        if !hosts.any(|allowed| allowed.trim().eq_ignore_ascii_case(&plain)) {
            return Err(format!(
                "its token may not be sent to `{plain}`, which is not encrypted; allow it with the annotation {HOSTS}: {plain}"
            ));
        }
    } else {
        allowed(listed, url)?;
    }
    match proxy {
        Some(proxy) => allowed(listed, proxy).map_err(|why| format!("through the proxy, {why}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_where_its_secret_says() {
        let cases = [
            (Some("api.example.com"), "https://api.example.com/v1", None, true),
            (Some("a.example.com, API.example.com"), "https://api.example.com/v1", None, true),
            (Some("api.example.com"), "https://api.example.com:8443/v1", None, false),
            (Some("api.example.com"), "http://api.example.com/v1", None, false),
            (Some("http://api.example.com"), "http://api.example.com/v1", None, true),
            (Some("http://api.example.com"), "https://api.example.com/v1", None, false),
            (Some("api.example.com"), "https://api.example.com/v1", Some("http://evil:8080"), false),
            (Some("api.example.com,proxy:8080"), "https://api.example.com/v1", Some("http://proxy:8080"), true),
            (Some(""), "https://api.example.com/v1", None, false),
            (None, "https://api.example.com/v1", None, false),
        ];
        for (listed, url, proxy, expected) in cases {
            assert_eq!(allowed_outside(listed, url, proxy).is_ok(), expected, "{listed:?} {url} {proxy:?}");
        }
    }
}
