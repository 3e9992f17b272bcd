//! The routers that the registry knows.

use axum::{extract::State, http::StatusCode, response::Response};
use cardea_registry_api::{
    Name,
    api::{Page, RouterInfo},
};

use super::{
    Api,
    extract::{Key, Params, RouterKey},
    openapi::{Doing, Reading},
    page,
    problem::ApiError,
};
use crate::auth::scope::{Caller, IsRouter, Reads};

/// Lists routers with what they applied and when they last asked.
#[utoipa::path(get, path = "/v1/routers", operation_id = "list_routers", tag = "routers",
    params(("cluster" = Option<Name>, Query, description = "Only of this cluster.")),
    responses((status = 200, description = "All of them.", body = Page<RouterInfo>), Reading))]
pub(super) async fn list(
    _: Caller<Reads>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let cluster: Option<Name> = params.take("cluster");
    params.finish()?;
    page::values(app.core.routers(cluster.as_ref()).await, None)
}

/// A router that stops says so: nobody waits for it any more. Saying it twice is fine.
#[utoipa::path(delete, path = "/v1/routers/{cluster}/{id}", operation_id = "forget_router",
    tag = "routers",
    params(
        ("cluster" = Name, Path, description = "Its cluster."),
        ("id" = String, Path, description = "Its id."),
    ),
    responses((status = 204, description = "It is forgotten."), Doing))]
pub(super) async fn forget(
    _: Caller<IsRouter>,
    State(app): Api,
    Key(key): Key<RouterKey>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    params.finish()?;
    app.core.forget_router(&key.cluster, &key.id.0).await;
    Ok(StatusCode::NO_CONTENT)
}
