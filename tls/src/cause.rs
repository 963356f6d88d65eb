//! The cause of a failed connection.

use std::error::Error;

/// The innermost cause of `error`, in its own words: "connection refused" rather than "transport error".
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Transport(#[source] io::Error);

    #[test]
    fn the_innermost_cause_is_named() {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        assert_eq!(innermost(&Transport(refused())), "connection refused");
        assert_eq!(innermost(&refused()), "connection refused");
    }
}
