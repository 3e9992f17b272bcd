//! Health: whether the process lives, and whether it can serve. Neither looks at the database.

use std::sync::{Arc, OnceLock};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use cardea_registry_api::api::Mode;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{Api, problem::ApiError};
use crate::core::Core;

/// How far the registry has come.
#[derive(Debug, Default)]
pub(crate) struct Health {
    core: OnceLock<Core>,
    /// Cancelled when the registry begins to stop.
    pub(crate) stopping: CancellationToken,
}

/// `GET /readyz`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// `ok`, or `degraded` while the registry serves without its database.
    status: &'static str,
    /// How it stands.
    mode: Mode,
    /// The epoch served.
    epoch: String,
    /// The revision served.
    revision: u64,
}

impl Health {
    /// The first set is loaded: ready from now on.
    pub(crate) fn loaded(&self, core: Core) {
        // Only ever called once; a second core would be a mistake that changes nothing.
        let _ = self.core.set(core);
    }

    /// The core, once there is one.
    pub(crate) fn core(&self) -> Option<&Core> {
        self.core.get()
    }

    fn answer(&self) -> Result<Json<Ready>, ApiError> {
        if self.stopping.is_cancelled() {
            return Err(ApiError::unavailable("the registry is stopping", 1));
        }
        let Some(core) = self.core() else {
            return Err(ApiError::unavailable("the registry is starting", 1));
        };
        let status = core.status();
        Ok(Json(Ready {
            status: match status.mode {
                Mode::Ok => "ok",
                Mode::DatabaseLost | Mode::HistoryHeld => "degraded",
            },
            mode: status.mode,
            epoch: status.epoch,
            revision: status.revision,
        }))
    }
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses(
    (status = 200, description = "The process lives.", body = String, content_type = "text/plain"),
))]
pub(super) async fn healthz() -> Response {
    alive().await
}

/// The first set is loaded, and the registry is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, description = "It can serve.", body = Ready),
    super::openapi::NotReady,
))]
pub(super) async fn readyz(State(app): Api) -> Result<Json<Ready>, ApiError> {
    app.health.answer()
}

/// `/healthz` on the admin port.
pub(super) async fn alive() -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (StatusCode::OK, headers, "ok\n").into_response()
}

/// `/readyz` on the admin port.
pub(super) async fn ready(State(health): State<Arc<Health>>) -> Result<Json<Ready>, ApiError> {
    health.answer()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_has_loaded_nothing_is_not_ready() {
        let health = Health::default();
        let answer = health.answer().unwrap_err().render("id");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    }
}
