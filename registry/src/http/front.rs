//! The outermost layer: every request gets an id, its caller is looked up, its problem is written
//! out, it is counted, and it leaves one line in the log.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use futures_util::FutureExt;

use super::{App, problem::ApiError};
use crate::{auth::scope::Found, metrics};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps every call; `app` is none on the admin port, where nobody has to say who they are.
pub(super) async fn front(
    State(app): State<Option<Arc<App>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let uri = request.uri().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let found = app
        .as_ref()
        .map(|app| Found::from_headers(request.headers(), &app.core.state()));
    let actor = found.clone();
    if let Some(found) = found {
        request.extensions_mut().insert(found);
    }

    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|panic| broken(&id, panic.as_ref()));
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = error.render(id.to_str().unwrap_or_default());
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    response.headers_mut().insert(REQUEST_ID, id.clone());

    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let took = started.elapsed();
    let code = response.status();
    count(route, &method, code, took.as_secs_f64());
    let line = Line {
        id: &id,
        method: &method,
        path: uri.path(),
        status: code.as_u16(),
        actor: actor.as_ref().map_or("-", Found::name),
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    };
    line.write(route, code);
    response
}

/// The caller's own id if it is a sane one, so that logs can be joined; or else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:+/=".contains(b);
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
    };
    match headers.get(REQUEST_ID).filter(sane) {
        Some(given) => given.clone(),
        None => HeaderValue::try_from(format!("{:032x}", rand::random::<u128>()))
            .unwrap_or(HeaderValue::from_static("-")),
    }
}

fn broken(id: &HeaderValue, panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(request_id = ?id, panic = text, "a handler panicked");
    ApiError::internal("a handler panicked").render(id.to_str().unwrap_or_default())
}

fn count(route: &str, method: &Method, code: StatusCode, seconds: f64) {
    let method = method_label(method);
    let route = route.to_owned();
    ::metrics::counter!(
        metrics::REQUESTS,
        "route" => route.clone(), "method" => method, "code" => code.as_str().to_owned()
    )
    .increment(1);
    ::metrics::histogram!(metrics::DURATION, "route" => route, "method" => method).record(seconds);
}

/// A closed set: what a caller makes up must not become a series.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

struct Line<'a> {
    id: &'a HeaderValue,
    method: &'a Method,
    path: &'a str,
    status: u16,
    actor: &'a str,
    micros: u64,
}

impl Line<'_> {
    /// What changes configuration, and what failed, is worth reading; the steady murmur of
    /// registrations, renewals and polls is not, unless somebody asks for it.
    fn write(&self, route: &str, code: StatusCode) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "cardea_registry::access",
                    request_id = self.id.to_str().unwrap_or_default(),
                    method = self.method.as_str(),
                    path = self.path,
                    status = self.status,
                    actor = self.actor,
                    micros = self.micros,
                    "request"
                )
            };
        }
        let murmur = self.method == Method::GET
            || route.ends_with("/instances/{id}")
            || route.ends_with("/renew")
            || route.ends_with("/figures")
            || matches!(route, "/v1/renewals" | "/v1/registrations");
        if code.is_server_error() && code != StatusCode::SERVICE_UNAVAILABLE {
            line!(error);
        } else if code == StatusCode::UNAUTHORIZED || code == StatusCode::FORBIDDEN {
            line!(warn);
        } else if murmur {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use cardea_registry_api::{Problem, problem::Code};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem_and_not_a_broken_connection() {
        async fn broken() -> &'static str {
            panic!("on purpose")
        }
        let app = Router::new()
            .route("/", get(broken))
            .layer(middleware::from_fn_with_state(None, front));
        let request = Request::builder().uri("/").header(REQUEST_ID, "mine");
        let answer = app
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(answer.into_body(), 10_000)
            .await
            .unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (problem.code, problem.request_id.as_str()),
            (Code::Internal, "mine")
        );
        assert!(!problem.detail.contains("purpose"));
    }
}
