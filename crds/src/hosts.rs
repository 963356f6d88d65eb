//! Hosts that the token or password of a Secret may be sent to. The operator and the egress ask the same.

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
