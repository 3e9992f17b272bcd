//! Disk snapshots.

use axum::{Json, extract::State};
use cardea_registry_api::api::SnapshotInfo;

use super::{
    Api,
    extract::Params,
    openapi::{Doing, Reading},
    problem::ApiError,
};
use crate::auth::scope::{Caller, Reads, Writes};

/// The kept disk snapshots, newest first.
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "list_snapshots", tag = "operations",
    responses((status = 200, description = "All of them.", body = Vec<SnapshotInfo>), Reading))]
pub(super) async fn list(
    _: Caller<Reads>,
    State(app): Api,
    params: Params,
) -> Result<Json<Vec<SnapshotInfo>>, ApiError> {
    params.finish()?;
    Ok(Json(app.core.snapshots(false).await))
}

/// Writes a disk snapshot now.
#[utoipa::path(post, path = "/v1/snapshots", operation_id = "write_snapshot", tag = "operations",
    responses((status = 200, description = "It is written.", body = SnapshotInfo), Doing))]
pub(super) async fn write(
    _: Caller<Writes>,
    State(app): Api,
    params: Params,
) -> Result<Json<SnapshotInfo>, ApiError> {
    params.finish()?;
    let written = app.core.write_snapshot().await;
    written.map(Json).map_err(ApiError::internal)
}

/// Reads every kept snapshot and says which are damaged.
#[utoipa::path(post, path = "/v1/snapshots/verify", operation_id = "verify_snapshots",
    tag = "operations",
    responses((status = 200, description = "All of them.", body = Vec<SnapshotInfo>), Doing))]
pub(super) async fn verify(
    _: Caller<Reads>,
    State(app): Api,
    params: Params,
) -> Result<Json<Vec<SnapshotInfo>>, ApiError> {
    params.finish()?;
    Ok(Json(app.core.snapshots(true).await))
}
