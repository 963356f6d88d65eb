//! `Authorization: Bearer TOKEN` (RFC 6750), the same over HTTP and gRPC.

use tonic::Status;

/// The reason why a request has no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthorized {
    /// No header.
    #[error("this endpoint needs a token; send it as `Authorization: Bearer TOKEN`")]
    Missing,
    /// Another scheme, no token, or several headers.
    #[error("the `Authorization` header is not `Bearer TOKEN`")]
    NotBearer,
    /// No entry has this token; perhaps not any more.
    #[error("the token is not one of this endpoint's; ask its owner for one")]
    Unknown,
}

/// The token of a request with these `authorization` headers.
pub(crate) fn token<'h>(headers: impl IntoIterator<Item = &'h [u8]>) -> Result<&'h [u8], Unauthorized> {
    let mut headers = headers.into_iter();
    let header = headers.next().ok_or(Unauthorized::Missing)?;
    let space = header.iter().position(|byte| *byte == b' ').ok_or(Unauthorized::NotBearer)?;
    let (scheme, token) = header.split_at(space);
    let token = token.trim_ascii();
    if headers.next().is_some() || !scheme.eq_ignore_ascii_case(b"bearer") || token.is_empty() {
        return Err(Unauthorized::NotBearer);
    }
    Ok(token)
}

impl Unauthorized {
    /// The value of `WWW-Authenticate`. RFC 6750: an error is named only to those who have tried.
    pub(crate) fn challenge(self) -> &'static str {
        match self {
            Self::Missing => "Bearer",
            Self::NotBearer => "Bearer error=\"invalid_request\"",
            Self::Unknown => "Bearer error=\"invalid_token\"",
        }
    }
}

impl From<Unauthorized> for Status {
    fn from(unauthorized: Unauthorized) -> Self {
        Self::unauthenticated(unauthorized.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let cases: [(&[&str], Result<&str, Unauthorized>); 9] = [
            (&["Bearer abc"], Ok("abc")),
            (&["bearer  abc "], Ok("abc")),
            (&["BEARER a.b-c_d~e+f/g="], Ok("a.b-c_d~e+f/g=")),
            (&[], Err(Unauthorized::Missing)),
            (&[""], Err(Unauthorized::NotBearer)),
            (&["abc"], Err(Unauthorized::NotBearer)),
            (&["Bearer "], Err(Unauthorized::NotBearer)),
            (&["Basic YTpi"], Err(Unauthorized::NotBearer)),
            (&["Bearer abc", "Bearer abc"], Err(Unauthorized::NotBearer)),
        ];
        for (headers, expected) in cases {
            let found = token(headers.iter().map(|header| header.as_bytes()));
            assert_eq!(found, expected.map(str::as_bytes), "{headers:?}");
        }
    }
}
