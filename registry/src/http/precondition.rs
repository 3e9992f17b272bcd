//! Revisions in headers: `ETag` on what is read, `If-Match` on what is written.

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
};

use super::problem::ApiError;
use crate::change::Expected;

/// What the caller saw, from `If-Match`.
#[derive(Debug)]
pub(crate) struct IfMatch(pub(crate) Expected);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(header::IF_MATCH).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self(Expected::None)),
            (Some(value), None) => parse(value).map(Self).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

fn wrong() -> ApiError {
    ApiError::invalid(
        "if-match",
        "send one revision in quotes, as the ETag has it (If-Match: \"42\"), or * for whatever is there",
    )
}

fn parse(value: &HeaderValue) -> Option<Expected> {
    match value.to_str().ok()?.trim() {
        "*" => Some(Expected::Any),
        text => text
            .strip_prefix('"')?
            .strip_suffix('"')?
            .parse()
            .ok()
            .map(Expected::Exactly),
    }
}

/// An object's revision as its `ETag`.
pub(crate) fn etag(revision: u64) -> HeaderValue {
    // Digits and quotes are always a header's value.
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or_else(|_| HeaderValue::from(revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_an_etag_or_a_star() {
        let read = |text: &str| parse(&text.parse().unwrap());
        assert_eq!(read("*"), Some(Expected::Any));
        assert_eq!(read("\"42\""), Some(Expected::Exactly(42)));
        assert_eq!(parse(&etag(7)), Some(Expected::Exactly(7)));
        for bad in ["42", "W/\"42\"", "\"42\", \"43\"", "\"-1\"", "\"", "\"x\""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
