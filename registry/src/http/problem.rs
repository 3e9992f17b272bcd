//! The one place where causes become HTTP statuses.
//!
//! A handler fails with an [`ApiError`]. Its response carries the problem as an extension; the
//! outermost layer ([`super::front`]) puts the request's id in and writes the body.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    Invalid, Problem,
    problem::{CONTENT_TYPE, Code},
};

use crate::change::{Rejection, SubmitError};

/// Why a call failed, and the headers that go with it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<Failure>);

#[derive(Debug, Clone)]
struct Failure {
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// A kind of problem and what happened.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// A wrong field, with the fix.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Invalid::field(field, message).into()
    }

    /// No token, or none that is known.
    pub(crate) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, detail).with(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"cardea\""),
        )
    }

    /// Try again in so many seconds.
    pub(crate) fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        Self::new(Code::Unavailable, detail).with(header::RETRY_AFTER, retry_after.into())
    }

    /// Our fault: the cause goes to the log, not to the caller.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside");
        Self::new(
            Code::Internal,
            "the registry's log has the cause under this request's id",
        )
    }

    /// No object of this kind has this key.
    pub(crate) fn not_found(kind: &str, key: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {kind} `{key}`"))
    }

    /// The same problem, said of a part of the call.
    pub(crate) fn about(mut self, part: &str) -> Self {
        let detail = &mut self.0.problem.detail;
        *detail = format!("{part}: {detail}");
        self
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The full response, body and all.
    pub(crate) fn render(mut self, request_id: &str) -> Response {
        request_id.clone_into(&mut self.0.problem.request_id);
        let status = StatusCode::from_u16(self.0.problem.status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0.problem).unwrap_or_default();
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        let mut response = (status, [content_type], body).into_response();
        response.headers_mut().extend(self.0.headers);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = StatusCode::from_u16(self.0.problem.status)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(Failure {
            problem,
            headers: Vec::new(),
        }))
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Problem::from(invalid).into()
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let code = match rejection {
            Rejection::NotFound { .. } => Code::NotFound,
            Rejection::PreconditionRequired { .. } => Code::PreconditionRequired,
            Rejection::PreconditionFailed { .. } => Code::PreconditionFailed,
            Rejection::Conflict { .. } => Code::Conflict,
            Rejection::Invalid(invalid) => return invalid.into(),
        };
        Self::new(code, rejection.to_string())
    }
}

/// For calls that submit one change: its place in the unit says nothing.
impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Rejected { rejection, .. } => rejection.into(),
            SubmitError::Unavailable {
                reason,
                retry_after,
            } => Self::unavailable(reason, retry_after),
            SubmitError::Full {
                reason,
                retry_after,
            } => Self::new(Code::JournalFull, reason).with(header::RETRY_AFTER, retry_after.into()),
            SubmitError::Stopping => Self::unavailable(error.to_string(), 1),
        }
    }
}

/// For calls that submit many: `place` says where in the body the change at an index came from.
pub(crate) fn of_many(error: SubmitError, place: impl Fn(usize) -> String) -> ApiError {
    match error {
        SubmitError::Rejected {
            index,
            rejection: Rejection::Invalid(invalid),
        } => invalid.under(&place(index)).into(),
        SubmitError::Rejected { index, rejection } => {
            let mut error = ApiError::from(rejection);
            let problem = &mut error.0.problem;
            problem.errors.push(cardea_registry_api::FieldError {
                field: place(index),
                message: problem.detail.clone(),
            });
            error
        }
        other => other.into(),
    }
}

/// Answers paths that the API does not have.
pub(crate) async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::new(
        Code::NotFound,
        format!(
            "the API has no `{}`; /v1/openapi.json lists what it has",
            uri.path()
        ),
    )
}

/// Answers methods that a path does not have.
pub(crate) async fn no_such_method(method: Method, request: Request) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!(
            "`{}` does not take {method}; the header `allow` lists what it takes",
            request.uri().path()
        ),
    )
}
