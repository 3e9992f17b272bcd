//! Clusters: `/v1/clusters`.

use axum::{extract::State, response::Response};
use cardea_registry_api::{
    Cluster, Name,
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

/// Lists the clusters by name.
#[utoipa::path(get, path = "/v1/clusters", operation_id = "list_clusters", tag = "configuration",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Versioned<Cluster>>), Reading))]
pub(super) async fn list(
    _: Caller<Reads>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let wanted = Wanted::take(&mut params);
    params.finish()?;
    let state = app.core.state();
    let behind = state.clusters(wanted.after.as_ref());
    Ok(objects::list(&wanted, behind, |cluster| &cluster.name))
}

/// One cluster.
#[utoipa::path(get, path = "/v1/clusters/{cluster}", operation_id = "get_cluster", tag = "configuration",
    params(("cluster" = Name, Path, description = "Its name.")),
    responses(
        (status = 200, description = "The cluster; its ETag is its revision.", body = Versioned<Cluster>),
        ReadingOne,
    ))]
pub(super) async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(name): Key<Name>,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    objects::one(app.core.state().cluster(name.as_str()), "cluster", &name)
}

/// Creates a cluster, or replaces it: then `If-Match` says which revision the caller saw.
#[utoipa::path(put, path = "/v1/clusters/{cluster}", operation_id = "put_cluster", tag = "configuration",
    params(
        ("cluster" = Name, Path, description = "Its name."),
        ("If-Match" = Option<String>, Header,
            description = "The ETag of what is replaced, or `*`; none when it is created."),
    ),
    request_body = Cluster,
    responses((status = 200, description = "It is so now.", body = Written), Putting))]
pub(super) async fn put(
    caller: Caller<Writes>,
    State(app): Api,
    Key(name): Key<Name>,
    IfMatch(expected): IfMatch,
    params: Params,
    Input(cluster): Input<Cluster>,
) -> Result<Response, ApiError> {
    params.finish()?;
    same_name("name", &name, &cluster.name)?;
    let change = Change::PutCluster { cluster, expected };
    objects::write(&app, &caller, change).await
}

/// Deletes a cluster that has no instances.
#[utoipa::path(delete, path = "/v1/clusters/{cluster}", operation_id = "delete_cluster", tag = "configuration",
    params(
        ("cluster" = Name, Path, description = "Its name."),
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
    let change = Change::DeleteCluster { name, expected };
    objects::write(&app, &caller, change).await
}
