//! Parser of a request's body: a JSON object.

use std::{error::Error, fmt, sync::Arc};

use axum::{
    body::{Body, HttpBody as _},
    http::StatusCode,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use slm_listen::timed::{TimedBody, TooSlow};
use tokio::time::timeout;

use super::{error::ApiError, fields::Fields};
use crate::{
    access::table::Caller,
    body_memory::{BodyHold, BodyMemory, SMALL_BYTES},
    config::Limits,
    dispatch::Dispatcher,
    permits::{Permit, Permits},
    refusal::Refusal,
    throttle::Throttle,
};

/// A request that was read, and the memory that it holds until a worker has it.
pub(super) type Read<T> = (T, Option<BodyHold>);

/// Reads at most `limits.body_bytes_max`, for at most `limits.body`, and makes of it what `convert` does. A body of up to
/// [`SMALL_BYTES`] is parsed on the connection's task, a larger one on a background thread, callers in turn.
pub(super) async fn read<T: Send + 'static>(
    body: Body,
    dispatcher: &Dispatcher,
    caller: &Caller,
    convert: impl FnOnce(Fields) -> Result<T, ApiError> + Send + 'static,
) -> Result<Read<T>, ApiError> {
    read_bytes(body, dispatcher, caller, |bytes| {
        let fields = parse(&bytes)?;
        drop(bytes);
        convert(fields)
    })
    .await
}

/// As [`read`], of bodies that are not JSON alone.
pub(super) async fn read_bytes<T: Send + 'static>(
    body: Body,
    dispatcher: &Dispatcher,
    caller: &Caller,
    convert: impl FnOnce(Vec<u8>) -> Result<T, ApiError> + Send + 'static,
) -> Result<Read<T>, ApiError> {
    let large = Large {
        permits: &dispatcher.large_bodies,
        rate: &dispatcher.large_bodies_rate,
        memory: &dispatcher.body_memory,
        caller: caller.name(),
    };
    let (bytes, permit) = collect(body, &dispatcher.limits, large).await?;
    let Some((permit, hold)) = permit else { return Ok((convert(bytes)?, None)) };
    let parse = move || {
        // Held while the body is parsed, also when the caller has left meanwhile.
        let _permit = permit;
        Ok((convert(bytes)?, Some(hold)))
    };
    let parsed = dispatcher.expensive.run(&caller.tenant().into(), parse).await;
    parsed.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// What a large body of a caller needs.
struct Large<'a> {
    permits: &'a Permits,
    rate: &'a Throttle,
    memory: &'a BodyMemory,
    caller: Option<&'a Arc<str>>,
}

impl Large<'_> {
    async fn permit(&self, bytes: usize, limits: &Limits) -> Result<(Permit, BodyHold), ApiError> {
        let permit = self.permits.take(self.caller).map_err(Refusal::LargeBodies)?;
        match timeout(limits.body, self.memory.acquire(self.caller, bytes)).await {
            Ok(hold) => Ok((permit, hold)),
            Err(_) => Err(Refusal::LargeBodiesWait { waited: limits.body }.into()),
        }
    }
}

/// The whole body, with its permit if it is larger than [`SMALL_BYTES`].
async fn collect(
    body: Body,
    limits: &Limits,
    large: Large<'_>,
) -> Result<(Vec<u8>, Option<(Permit, BodyHold)>), ApiError> {
    // A body that is longer than it may be is refused when that shows.
    let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let length = length.unwrap_or(limits.body_bytes_max).min(limits.body_bytes_max);
    let mut limited = Limited::new(TimedBody::new(body, limits.body), limits.body_bytes_max);
    let (mut bytes, mut permit) = (Vec::new(), None);
    while let Some(frame) = limited.frame().await {
        let frame = frame.map_err(|error| refused(&*error, limits))?;
        let Some(data) = frame.data_ref() else { continue };
        if permit.is_none() && bytes.len() + data.len() > SMALL_BYTES {
            permit = Some(large.permit(length, limits).await?);
            bytes.reserve_exact(length.saturating_sub(bytes.len()));
        }
        bytes.extend_from_slice(data);
        if let (Some(_), Some(caller)) = (&permit, large.caller) {
            // The caller cannot send faster than is read here.
            large.rate.wait(caller, data.len()).await;
        }
    }
    Ok((bytes, permit))
}

fn refused(error: &(dyn Error + 'static), limits: &Limits) -> ApiError {
    if error.is::<LengthLimitError>() {
        let message = format!("the body has more than the {} bytes that are accepted", limits.body_bytes_max);
        return ApiError::body(StatusCode::PAYLOAD_TOO_LARGE, message).code("request_too_large");
    }
    if let Some(slow) = error.downcast_ref::<TooSlow>() {
        return ApiError::body(StatusCode::REQUEST_TIMEOUT, format!("{slow}; send it faster")).code("timeout");
    }
    ApiError::body(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}"))
}

pub(super) fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
    let invalid = |message: String| ApiError::body(StatusCode::BAD_REQUEST, message).code("invalid_json");
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid(format!("the body is not UTF-8: invalid at byte {}", error.valid_up_to())))?;
    let not_json = |error: &serde_json::Error| invalid(format!("the body is not JSON: {}", in_words(error)));
    if text.starts_with('\u{feff}') {
        return Err(invalid("the body begins with a byte order mark; send it without".to_owned()));
    }
    if !text.trim_start().starts_with('{') {
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => invalid("the body is JSON, but not an object".to_owned()),
            Err(error) => not_json(&error),
        });
    }
    match serde_json::from_str(text) {
        Ok(Object(object)) => Ok(Fields::new(object)),
        Err(error) if error.is_data() => Err(invalid(format!("the body has the {error}; send it once"))),
        Err(error) => Err(not_json(&error)),
    }
}

/// An object in which no name stands twice: of two values a proxy may check the first, and the endpoint would read the last.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut object = Map::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if object.contains_key(&name) {
                        let name: String = name.chars().take(80).collect();
                        return Err(A::Error::custom(format_args!("field `{name}` twice")));
                    }
                    object.insert(name, value);
                }
                Ok(Object(object))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

/// The parser's words, but for half of a character beyond U+FFFF: it does not say so.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = text.find(" at line ").map_or("", |at| &text[at..]);
    let half = ["lone leading surrogate", "unexpected end of hex escape", "lone trailing surrogate"];
    if half.iter().any(|half| text.starts_with(half)) {
        return format!(
            "a \\u escape is a lone surrogate, half of a character{place}; write the whole pair, such as \\ud83d\\ude00"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large<'a>(
        permits: &'a Permits,
        rate: &'a Throttle,
        memory: &'a BodyMemory,
        caller: Option<&'a Arc<str>>,
    ) -> Large<'a> {
        Large { permits, rate, memory, caller }
    }

    #[tokio::test]
    async fn refusals() {
        let cases: [(&[u8], u16, &str); 10] = [
            (b"{\"a\": 1, \"b\": 2, \"a\": 3}", 400, "the body has the field `a` twice"),
            (b"\xef\xbb\xbf{}", 400, "the body begins with a byte order mark"),
            (b"{\"a\": \xff}", 400, "the body is not UTF-8: invalid at byte 6"),
            (b"{\"a\": ", 400, "the body is not JSON: EOF"),
            (b"[1]", 400, "not an object"),
            (br#"{"a": "\ud800"}"#, 400, "lone surrogate, half of a character at line 1"),
            (br#"{"a": "\ud83d!"}"#, 400, "lone surrogate"),
            (br#"{"a": "\udc00"}"#, 400, "lone surrogate"),
            (b"", 400, "the body is not JSON"),
            (b"{\"a\": \"0123456789012345678901234567890\"}", 413, "more than the 32 bytes"),
        ];
        let (permits, rate) = (Permits::new(1, 1), Throttle::new(Limits::default().large_bodies_rate));
        let memory = BodyMemory::new(1 << 20);
        for (bytes, status, message) in cases {
            let limits = Limits { body_bytes_max: 32, ..Limits::default() };
            let collected = collect(Body::from(bytes), &limits, large(&permits, &rate, &memory, None)).await;
            let error = collected.and_then(|(bytes, _)| parse(&bytes)).map(|_| ()).expect_err(message);
            assert_eq!(error.status.as_u16(), status, "{message}");
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }

    #[tokio::test]
    async fn large_bodies_need_a_permit_each() {
        let permits = Permits::new(2, 1);
        let caller: Arc<str> = "mallory".into();
        let limits = Limits::default();
        let (rate, memory) = (Throttle::new(limits.large_bodies_rate), BodyMemory::new(limits.large_bodies_bytes));
        let body = |bytes: usize| {
            collect(Body::from(vec![b' '; bytes]), &limits, large(&permits, &rate, &memory, Some(&caller)))
        };
        let (_, small) = body(SMALL_BYTES).await.expect("a small one");
        assert!(small.is_none());
        let (bytes, held) = body(SMALL_BYTES + 1).await.expect("a large one");
        assert!(held.is_some() && bytes.len() == SMALL_BYTES + 1);
        let refused = body(SMALL_BYTES + 1).await.map(|_| ()).expect_err("a second one");
        assert_eq!(refused.status.as_u16(), 429);
        assert!(refused.body.message.contains("1 large request bodies"), "{}", refused.body.message);
        drop(held);
        assert!(body(SMALL_BYTES + 1).await.is_ok());
    }
}
