//! The routers that the registry knows.

use axum::{extract::State, http::StatusCode, response::Response};
use cardea_registry_api::{
    Name, Plugin,
    api::{Page, RouterInfo},
};

use super::{
    Api, App,
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
    let mut routers = app.core.routers(cluster.as_ref()).await;
    let state = app.core.state();
    for router in &mut routers {
        let all = state.plugins(None).map(|stored| &stored.object);
        let unknown = all.filter(|plugin| is_unknown(router, plugin));
        router.unknown_plugins = unknown.map(|plugin| plugin.name.clone()).collect();
    }
    page::values(routers, None)
}

/// Whether a router does not know the kind of a plugin that may reach its routes.
fn is_unknown(router: &RouterInfo, plugin: &Plugin) -> bool {
    let reaches = plugin
        .cluster
        .as_ref()
        .is_none_or(|own| *own == router.cluster);
    if router.is_visitor() {
        return false; // It serves its own cluster's routes, and says there what it knows.
    }
    let (Some(known), Some(kind)) = (&router.plugin_kinds, plugin.kind()) else {
        return false;
    };
    plugin.enabled && reaches && !known.iter().any(|word| word == kind.as_str())
}

/// What the writer of plugins should know: which live routers do not know their kinds.
pub(super) async fn warnings(app: &App, plugins: &[Plugin]) -> Vec<String> {
    if plugins.is_empty() {
        return Vec::new();
    }
    let routers = app.core.routers(None).await;
    let mut warnings = Vec::new();
    for plugin in plugins {
        for router in routers.iter().filter(|router| router.live) {
            if is_unknown(router, plugin) {
                warnings.push(format!(
                    "router `{}` of cluster `{}` (version {}) does not know plugins of this kind: it \
                     {}",
                    router.id,
                    router.cluster,
                    router.version,
                    if plugin.required {
                        format!("answers 503 where `{}` is required", plugin.name)
                    } else {
                        format!("leaves `{}` out", plugin.name)
                    }
                ));
            }
        }
    }
    warnings.truncate(20);
    warnings
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
