//! The HTTP API under `/v1`.
//!
//! A request passes [`front`] (request id, who calls, metrics, log), then one handler, which takes
//! out of it what it needs with the extractors of [`extract`], [`precondition`] and
//! [`crate::auth::scope`], and asks the [`Core`]. Causes become statuses in [`problem`].

mod apply;
mod changes;
mod configuration;
mod extract;
mod fallbacks;
mod feed;
mod figures;
mod front;
pub(crate) mod health;
mod instances;
mod objects;
mod openapi;
mod page;
mod precondition;
pub(crate) mod problem;
mod registrations;
mod releases;
mod routers;
mod schemas;
mod snapshots;
mod status;
mod switches;
mod tokens;
mod traffic;

use std::sync::Arc;

use axum::{Router, extract::State, middleware};
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::health::Health;
use crate::core::Core;

/// What every handler of the API can reach.
#[derive(Debug)]
pub(crate) struct App {
    /// State and writer.
    pub(crate) core: Core,
    /// How ready the registry is.
    pub(crate) health: Arc<Health>,
    /// Cancelled when the registry begins to stop: whoever waits answers at once.
    pub(crate) stopping: CancellationToken,
    /// For those who watch figures.
    watchers: Arc<Semaphore>,
    openapi: Bytes,
}

/// The state argument of handlers.
pub(crate) type Api = State<Arc<App>>;

/// The API's calls with their documentation.
fn calls() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::frame())
        .merge(configuration::calls())
        .merge(traffic::calls())
        .merge(switches::calls())
        .merge(releases::calls())
        .routes(routes!(schemas::list))
        .routes(routes!(schemas::get))
        .routes(routes!(fallbacks::list))
        .routes(routes!(fallbacks::get, fallbacks::put, fallbacks::delete))
        .routes(routes!(apply::apply))
        .routes(routes!(instances::list))
        .routes(routes!(
            instances::get,
            registrations::put,
            registrations::patch,
            registrations::delete
        ))
        .routes(routes!(registrations::renew))
        .routes(routes!(registrations::renew_many))
        .routes(routes!(registrations::put_many))
        .routes(routes!(feed::snapshot))
        .routes(routes!(figures::report))
        .routes(routes!(figures::get))
        .routes(routes!(figures::live))
        .routes(routes!(routers::list))
        .routes(routes!(routers::forget))
        .routes(routes!(snapshots::list, snapshots::write))
        .routes(routes!(snapshots::verify))
        .routes(routes!(changes::list))
        .routes(routes!(status::get))
        .routes(routes!(status::decide))
        .routes(routes!(status::acknowledge))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(openapi::document))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

/// The whole API, ready to be served.
pub(crate) fn api(core: Core, health: Arc<Health>, stopping: CancellationToken) -> Router {
    let (router, document) = calls().split_for_parts();
    let app = Arc::new(App {
        core,
        health,
        stopping,
        watchers: Arc::new(Semaphore::new(figures::MOST_WATCHERS)),
        openapi: openapi::encode(&document),
    });
    router
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn_with_state(
            Some(Arc::clone(&app)),
            front::front,
        ))
        .with_state(app)
}

/// The admin port: health and metrics.
pub(crate) fn admin(health: Arc<Health>, metrics: PrometheusHandle, commit: &str) -> Router {
    let render = {
        let health = Arc::clone(&health);
        let commit = commit.to_owned();
        move || async move { crate::metrics::render(&metrics, health.core(), commit).await }
    };
    Router::new()
        .route("/healthz", axum::routing::get(health::alive))
        .route("/readyz", axum::routing::get(health::ready))
        .route("/metrics", axum::routing::get(render))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn_with_state(None, front::front))
        .with_state(health)
}
