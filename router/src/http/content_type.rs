//! Content type of a request's body: JSON.
//!
//! A browser sends a form or plain text from any page to any endpoint without asking first (a "simple" request of CORS). A JSON
//! body needs a preflight, which names the page's origin.

use axum::http::{HeaderMap, StatusCode, header};

use super::error::ApiError;

/// Characters of a header in a message.
const SHOWN_CHARS_MAX: usize = 80;

/// Checks the headers of a request with a JSON body. A program may leave the content type out, a web page may not.
///
/// # Errors
/// The content type is not JSON.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    check_encoding(headers)?;
    let mut types = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    if types.peek().is_none() && headers.contains_key(header::ORIGIN) {
        return Err(refused("the request has no content type"));
    }
    match types.find(|value| !value.to_str().is_ok_and(is_json)) {
        None => Ok(()),
        Some(other) => {
            let shown: String = String::from_utf8_lossy(other.as_bytes()).chars().take(SHOWN_CHARS_MAX).collect();
            Err(refused(&format!("the content type of the request is {shown:?}")))
        }
    }
}

/// Bodies are not decompressed: what is compressed has no bound that the caller pays for.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    match encodings.find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        None => Ok(()),
        Some(other) => {
            let shown: String = String::from_utf8_lossy(other.as_bytes()).chars().take(SHOWN_CHARS_MAX).collect();
            let message = format!(
                "the content encoding of the request is {shown:?}; send the body as it is, without compression"
            );
            Err(ApiError::body(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).code("unsupported_content_encoding"))
        }
    }
}

/// As [`check`], for APIs whose documentation calls them with `curl -d`, which says that the body is a form: only what a web page sends has
/// to say that it is JSON. A browser sends the origin of the page.
///
/// # Errors
/// The content type is not JSON, and the request comes from a page.
pub(super) fn check_pages(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::ORIGIN) { check(headers) } else { check_encoding(headers) }
}

/// `application/json` or `application/….+json`, with or without parameters.
fn is_json(value: &str) -> bool {
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    let token = |letter: char| letter.is_ascii_alphanumeric() || "!#$&-^_.+".contains(letter);
    subtype == "json" || (subtype.len() > "+json".len() && subtype.ends_with("+json") && subtype.chars().all(token))
}

fn refused(what: &str) -> ApiError {
    let message = format!("{what}, but bodies here are JSON; send the header `Content-Type: application/json`");
    ApiError::body(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).code("unsupported_content_type")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn status(headers: &[(&str, &[u8])]) -> u16 {
        let pair = |(name, value): &(&str, &[u8])| {
            (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_bytes(value).expect("a value"))
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(pair) {
            map.append(name, value);
        }
        check(&map).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_json_is_taken() {
        for json in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=UTF-8",
            " application/json ",
            "application/vnd.api+json",
            "application/problem+json; profile=x",
        ] {
            assert_eq!(status(&[("content-type", json.as_bytes())]), 200, "{json}");
            assert_eq!(status(&[("content-type", json.as_bytes()), ("origin", b"https://a.example")]), 200, "{json}");
        }
        for other in [
            "text/plain",
            "text/plain; application/json",
            "text/plain;charset=application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/json",
            "application/json, text/plain",
            "application/jsonp",
            "application/+json",
            "application/x y+json",
            "text/json",
            "json",
            "",
        ] {
            assert_eq!(status(&[("content-type", other.as_bytes())]), 415, "{other}");
        }
        assert_eq!(status(&[("content-type", b"\xff")]), 415);
        assert_eq!(status(&[("content-type", b"application/json"), ("content-type", b"text/plain")]), 415);
    }

    #[test]
    fn a_program_may_leave_it_out_and_a_page_may_not() {
        assert_eq!(status(&[]), 200);
        assert_eq!(status(&[("origin", b"https://evil.example")]), 415);
        assert_eq!(status(&[("origin", b"null")]), 415);
    }

    #[test]
    fn bodies_are_not_compressed() {
        assert_eq!(status(&[("content-encoding", b"identity")]), 200);
        for encoding in ["gzip", "br", "identity, gzip", ""] {
            assert_eq!(status(&[("content-encoding", encoding.as_bytes())]), 415, "{encoding}");
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, encoding.parse().expect("a value"))]);
            assert!(check_pages(&headers).is_err());
        }
    }

    #[test]
    fn a_form_is_taken_from_programs_and_not_from_pages() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        assert!(check_pages(&headers).is_ok());
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert_eq!(check_pages(&headers).map_err(|error| error.status.as_u16()), Err(415));
    }
}
