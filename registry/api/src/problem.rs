//! Errors of the API, as RFC 9457 problem details.

use serde::{Deserialize, Serialize};

use crate::{FieldError, Invalid};

/// The media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, for programs (`code`) and people (`detail`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A stable URI reference of the kind of problem: `/problems/{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The kind, for programs; stable.
    pub code: Code,
    /// What happened and what helps.
    pub detail: String,
    /// Each wrong field, for `code = "invalid"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The id under which the log knows this request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// The closed set of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: not what this call takes; `errors` names the fields.
    Invalid,
    /// 401: no token, or one that is not known.
    Unauthenticated,
    /// 403: the token's role or services do not cover this.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 409: clashes with what is there.
    Conflict,
    /// 410: it was there, and is no longer kept.
    Gone,
    /// 412: `If-Match` names another revision than the current one.
    PreconditionFailed,
    /// 413.
    TooLarge,
    /// 415: not JSON.
    UnsupportedMediaType,
    /// 428: send `If-Match` with the revision you saw.
    PreconditionRequired,
    /// 429.
    TooManyRequests,
    /// 500: our fault; the log has the cause under the request id.
    Internal,
    /// 503: the database is away and as many changes wait for it as may: known instances go on, new
    /// ones are to try again after `Retry-After`.
    JournalFull,
    /// 503: the store is away or the registry is starting or stopping; try again after `Retry-After`.
    Unavailable,
}

impl Code {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::Gone => 410,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::PreconditionRequired => 428,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::JournalFull | Self::Unavailable => 503,
        }
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::PreconditionRequired => "precondition_required",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::JournalFull => "journal_full",
            Self::Unavailable => "unavailable",
        }
    }

    /// In a few words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The request is not valid",
            Self::Unauthenticated => "A valid token is needed",
            Self::Forbidden => "The token does not allow this",
            Self::NotFound => "There is no such object",
            Self::MethodNotAllowed => "This method does not fit here",
            Self::Conflict => "This clashes with what is there",
            Self::Gone => "It is no longer kept",
            Self::PreconditionFailed => "The object has changed since you read it",
            Self::TooLarge => "The request is too large",
            Self::UnsupportedMediaType => "The body must be JSON",
            Self::PreconditionRequired => "Say which revision you are changing",
            Self::TooManyRequests => "Too many requests",
            Self::Internal => "The registry failed",
            Self::JournalFull => "No room for a new instance right now",
            Self::Unavailable => "Not possible right now",
        }
    }
}

impl Problem {
    /// A problem of a kind, with what happened.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            errors: Vec::new(),
            request_id: String::new(),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self {
            detail: invalid.to_string(),
            errors: invalid.errors,
            ..Self::new(Code::Invalid, "")
        }
    }
}
