//! The API's own description: `OpenAPI` 3.1, made from the handlers.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use cardea_registry_api::{
    Problem,
    figures::By,
    problem::{CONTENT_TYPE, Code},
};
use http::header;
use utoipa::{
    IntoResponses, OpenApi as _,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response as Described, ResponseBuilder,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::Api;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Cardea registry",
        description = "Clusters, services, routes, plugins, stored bodies, certificates and instances; the routers' feed and live figures; tokens and snapshots. Errors are RFC 9457 problems with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem, By)),
    tags(
        (name = "configuration", description = "Clusters, services, routes, plugins, stored bodies and certificates."),
        (name = "instances", description = "Who is where."),
        (name = "routers", description = "The feed and those who read it."),
        (name = "switches", description = "Moving traffic between clusters, in stages and back."),
        (name = "releases", description = "Moving a service's traffic from one group to another, watched."),
        (name = "figures", description = "What routers count, live."),
        (name = "operations", description = "How the registry stands, its log and its snapshots."),
        (name = "tokens", description = "Who may do what."),
        (name = "health", description = "For probes."),
    ),
)]
struct Frame;

/// The document without its paths.
pub(super) fn frame() -> OpenApi {
    let mut document = Frame::openapi();
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description = Some(
        "A token as `POST /v1/tokens` shows it once; its role says what it may do.".to_owned(),
    );
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("token", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("token", [""; 0])]);
    document
}

/// The document as it is served.
pub(super) fn encode(document: &OpenApi) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "operations", security(()), responses(
    (status = 200, description = "The OpenAPI document.", body = Object),
))]
pub(super) async fn document(State(app): Api) -> Response {
    let mut response = Response::new(app.openapi.clone().into());
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($code:ident)+;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Described>> {
                [$(Code::$code),+].into_iter().map(described).collect()
            }
        }
    )+};
}

fn described(code: Code) -> (String, RefOr<Described>) {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let response = ResponseBuilder::new()
        .description(format!("`{}`: {}.", code.as_str(), code.title()))
        .content(CONTENT_TYPE, content)
        .build();
    (code.status().to_string(), response.into())
}

problems! {
    /// What can go wrong when a list is read.
    Reading: Invalid Unauthenticated Forbidden Internal;
    /// … when one object is read.
    ReadingOne: Invalid Unauthenticated Forbidden NotFound Internal;
    /// … when the database has to be asked.
    Asking: Invalid Unauthenticated Forbidden Gone Internal Unavailable;
    /// … when figures are reported.
    Reporting: Invalid Unauthenticated Forbidden TooLarge UnsupportedMediaType TooManyRequests
        Internal Unavailable;
    /// … when somebody watches.
    Streaming: Invalid Unauthenticated Forbidden TooManyRequests Internal;
    /// … when an object is put.
    Putting: Invalid Unauthenticated Forbidden Conflict PreconditionFailed TooLarge
        UnsupportedMediaType PreconditionRequired Internal Unavailable;
    /// … when an object is deleted.
    Deleting: Invalid Unauthenticated Forbidden NotFound Conflict PreconditionFailed
        PreconditionRequired Internal Unavailable;
    /// … when something is sent that needs no revision.
    Sending: Invalid Unauthenticated Forbidden Conflict TooLarge UnsupportedMediaType Internal
        Unavailable;
    /// … when something is sent to an object that must be there.
    SendingTo: Invalid Unauthenticated Forbidden NotFound Conflict TooLarge UnsupportedMediaType
        Internal Unavailable;
    /// … when something is done that takes no body.
    Doing: Invalid Unauthenticated Forbidden Internal Unavailable;
    /// … when something is done to an object that must be there.
    DoingTo: Invalid Unauthenticated Forbidden NotFound Conflict Internal Unavailable;
    /// Starting or stopping.
    NotReady: Unavailable;
}
