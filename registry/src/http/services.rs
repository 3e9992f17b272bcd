//! Services: `/v1/services`.

use axum::{extract::State, response::Response};
use cardea_registry_api::{
    Name, Service,
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

/// Lists the services by name.
#[utoipa::path(get, path = "/v1/services", operation_id = "list_services", tag = "configuration",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Versioned<Service>>), Reading))]
pub(super) async fn list(
    _: Caller<Reads>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let wanted = Wanted::take(&mut params);
    params.finish()?;
    let state = app.core.state();
    let behind = state.services(wanted.after.as_ref());
    Ok(objects::list(&wanted, behind, |service| &service.name))
}

/// One service.
#[utoipa::path(get, path = "/v1/services/{service}", operation_id = "get_service", tag = "configuration",
    params(("service" = Name, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The service; its ETag is its revision.", body = Versioned<Service>),
        ReadingOne,
    ))]
pub(super) async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(name): Key<Name>,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    objects::one(app.core.state().service(name.as_str()), "service", &name)
}

/// Creates a service, or replaces it: then `If-Match` says which revision the caller saw.
#[utoipa::path(put, path = "/v1/services/{service}", operation_id = "put_service", tag = "configuration",
    params(
        ("service" = Name, Path, description = "Its name."),
        ("If-Match" = Option<String>, Header,
            description = "The ETag of what is replaced, or `*`; none when it is created."),
    ),
    request_body = Service,
    responses((status = 200, description = "It is so now.", body = Written), Putting))]
pub(super) async fn put(
    caller: Caller<Writes>,
    State(app): Api,
    Key(name): Key<Name>,
    IfMatch(expected): IfMatch,
    params: Params,
    Input(service): Input<Service>,
) -> Result<Response, ApiError> {
    params.finish()?;
    same_name("name", &name, &service.name)?;
    let change = Change::PutService {
        service: Box::new(service),
        expected,
    };
    objects::write(&app, &caller, change).await
}

/// Deletes a service that has no routes and no instances.
#[utoipa::path(delete, path = "/v1/services/{service}", operation_id = "delete_service", tag = "configuration",
    params(
        ("service" = Name, Path, description = "Its name."),
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
    params.finish()?;
    let change = Change::DeleteService { name, expected };
    objects::write(&app, &caller, change).await
}
