//! Routes: `/v1/routes`.

use axum::{extract::State, response::Response};
use cardea_registry_api::{
    Name, Route,
    api::{Page, Versioned, Written},
};

use super::{
    Api,
    extract::{Input, Key, Params},
    objects::{self, same_name},
    openapi::{Deleting, Putting, Reading, ReadingOne},
    page::Wanted,
    precondition::IfMatch,
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, Reads, Writes},
    change::Change,
};

/// Lists the routes by id.
#[utoipa::path(get, path = "/v1/routes", operation_id = "list_routes", tag = "configuration",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Versioned<Route>>), Reading))]
pub(super) async fn list(
    _: Caller<Reads>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let wanted = Wanted::take(&mut params);
    params.finish()?;
    let state = app.core.state();
    let behind = state.routes(wanted.after.as_ref());
    Ok(objects::list(&wanted, behind, |route| &route.id))
}

/// One route.
#[utoipa::path(get, path = "/v1/routes/{id}", operation_id = "get_route", tag = "configuration",
    params(("id" = Name, Path, description = "Its id.")),
    responses(
        (status = 200, description = "The route; its ETag is its revision.", body = Versioned<Route>),
        ReadingOne,
    ))]
pub(super) async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(id): Key<Name>,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    objects::one(app.core.state().route(id.as_str()), "route", &id)
}

/// Creates a route, or replaces it: then `If-Match` says which revision the caller saw.
#[utoipa::path(put, path = "/v1/routes/{id}", operation_id = "put_route", tag = "configuration",
    params(
        ("id" = Name, Path, description = "Its id."),
        ("If-Match" = Option<String>, Header,
            description = "The ETag of what is replaced, or `*`; none when it is created."),
    ),
    request_body = Route,
    responses((status = 200, description = "It is so now.", body = Written), Putting))]
pub(super) async fn put(
    caller: Caller<Writes>,
    State(app): Api,
    Key(id): Key<Name>,
    IfMatch(expected): IfMatch,
    params: Params,
    Input(route): Input<Route>,
) -> Result<Response, ApiError> {
    params.finish()?;
    same_name("id", &id, &route.id)?;
    let change = Change::PutRoute { route, expected };
    objects::write(&app, &caller, change).await
}

/// Deletes a route.
#[utoipa::path(delete, path = "/v1/routes/{id}", operation_id = "delete_route", tag = "configuration",
    params(
        ("id" = Name, Path, description = "Its id."),
        ("If-Match" = String, Header, description = "The ETag of what is deleted, or `*`."),
    ),
    responses((status = 200, description = "It is gone.", body = Written), Deleting))]
pub(super) async fn delete(
    caller: Caller<Writes>,
    State(app): Api,
    Key(id): Key<Name>,
    IfMatch(expected): IfMatch,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    let change = Change::DeleteRoute { id, expected };
    objects::write(&app, &caller, change).await
}
