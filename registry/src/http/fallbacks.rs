//! Stored bodies: put as an object, or as the bytes themselves with their media type.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use cardea_registry_api::{
    Fallback, FieldError, Name,
    api::{Page, Versioned, Written},
    fallback::{FallbackInfo, MAX_BODY, plain},
    strict,
};

use super::{
    Api,
    configuration::{self, Configured},
    extract::{Key, MAX_BULK, Params, collect, is_json},
    openapi::{Deleting, Putting, Reading, ReadingOne},
    page::{PageWriter, Wanted},
    precondition::IfMatch,
    problem::ApiError,
};
use crate::auth::scope::{Caller, Reads, Writes};

/// Lists the stored bodies by name: their media types and sizes.
#[utoipa::path(get, path = "/v1/fallbacks", operation_id = "list_fallbacks", tag = "configuration",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Versioned<FallbackInfo>>), Reading))]
pub(super) async fn list(
    _: Caller<Reads>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let wanted = Wanted::take(&mut params);
    params.finish()?;
    let state = app.core.state();
    let mut page = PageWriter::new(wanted.limit);
    for stored in Fallback::behind(&state, wanted.after.as_ref()) {
        let info = stored.object.info();
        let json = serde_json::to_string(&info).map_err(ApiError::internal)?;
        if !page.versioned(&info.name, stored.revision, &json) {
            break;
        }
    }
    Ok(page.finish())
}

/// One stored body.
#[utoipa::path(get, path = "/v1/fallbacks/{fallback}", operation_id = "get_fallback",
    tag = "configuration",
    params(("fallback" = Name, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The body, in base64; its ETag is its revision.",
            body = Versioned<Fallback>),
        ReadingOne,
    ))]
pub(super) async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(name): Key<Name>,
    params: Params,
) -> Result<Response, ApiError> {
    configuration::get::<Fallback>(&app, &name, params)
}

/// Stores a body, or replaces it: then `If-Match` says which revision the caller saw.
///
/// `application/json` is the object. Any other media type, or any with `raw=true`, is the body itself,
/// which keeps that media type.
#[utoipa::path(put, path = "/v1/fallbacks/{fallback}", operation_id = "put_fallback",
    tag = "configuration",
    params(
        ("fallback" = Name, Path, description = "Its name."),
        ("raw" = Option<bool>, Query, description = "What is sent is the body, though it is JSON."),
        ("status" = Option<u16>, Query,
            description = "Of a body that is sent as it is: the status that goes with it."),
        ("If-Match" = Option<String>, Header,
            description = "The ETag of what is replaced, or `*`; none when it is created."),
    ),
    request_body = Fallback,
    responses((status = 200, description = "It is so now.", body = Written), Putting))]
pub(super) async fn put(
    caller: Caller<Writes>,
    State(app): Api,
    Key(name): Key<Name>,
    IfMatch(expected): IfMatch,
    mut params: Params,
    request: Request,
) -> Result<Response, ApiError> {
    let raw = params.switch("raw");
    let status: Option<u16> = params.take("status");
    let headers = request.headers().clone();
    let object = is_json(&headers) && !raw;
    params.ensure(
        status.is_none() || !object,
        "status",
        "the object has a field for it",
    );
    let most = if object { MAX_BULK } else { MAX_BODY };
    let bytes = collect(request.into_body(), most).await?;
    let fallback = if object {
        strict::from_json::<Fallback>(&bytes).map_err(|mut invalid| {
            invalid.errors.push(FieldError {
                field: "raw".to_owned(),
                message: "if this JSON is the body itself, say so: ?raw=true".to_owned(),
            });
            invalid
        })?
    } else {
        Fallback {
            name: name.clone(),
            content_type: content_type(&headers)?,
            status,
            body: bytes.as_ref().into(),
        }
    };
    configuration::put(&app, &caller, (name, expected), params, fallback).await
}

fn content_type(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(plain());
    };
    let text = value.to_str().map_err(|_| {
        let help = "a media type, such as text/html; charset=utf-8";
        ApiError::invalid("content-type", help)
    });
    text.map(str::to_owned)
}

/// Deletes a stored body that no plugin names.
#[utoipa::path(delete, path = "/v1/fallbacks/{fallback}", operation_id = "delete_fallback",
    tag = "configuration",
    params(
        ("fallback" = Name, Path, description = "Its name."),
        ("If-Match" = String, Header, description = "The ETag of what is deleted, or `*`."),
    ),
    responses((status = 200, description = "It is gone.", body = Written), Deleting))]
pub(super) async fn delete(
    caller: Caller<Writes>,
    State(app): Api,
    Key(name): Key<Name>,
    IfMatch(expected): IfMatch,
    params: Params,
) -> Result<Response, ApiError> {
    configuration::delete::<Fallback>(&app, &caller, (name, expected), params).await
}
