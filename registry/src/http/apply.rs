//! Many objects at once: `POST /v1/apply`, what `cardea ctl apply` sends.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    Source,
    api::{Applied, ApplyRequest},
    invalid::Check,
};

use super::{
    Api,
    extract::{Input, MAX_BULK, Params},
    objects,
    openapi::Sending,
    problem::{ApiError, of_many},
    routers::warnings,
    traffic,
};
use crate::{
    auth::scope::{Caller, Writes},
    change::{Change, Expected, Outcome, SubmitError},
};

/// Creates or updates everything in the body, as one change: all of it, or nothing.
#[utoipa::path(post, path = "/v1/apply", operation_id = "apply", tag = "configuration",
    params(("dry_run" = Option<bool>, Query, description = "Only say what would be done.")),
    request_body = ApplyRequest,
    responses((status = 200, description = "What was (or would be) done.", body = Applied), Sending))]
pub(super) async fn apply(
    caller: Caller<Writes>,
    State(app): Api,
    mut params: Params,
    Input(request): Input<ApplyRequest, MAX_BULK>,
) -> Result<Response, ApiError> {
    let dry_run = params.switch("dry_run");
    params.finish()?;
    let (changes, places) = unit(request)?;
    let place = |index: usize| places.get(index).cloned().unwrap_or_default();
    if dry_run {
        let actions = app.core.preview(&changes).map_err(|(index, rejection)| {
            of_many(SubmitError::Rejected { index, rejection }, place)
        })?;
        let written = None;
        return Ok(Json(Applied { written, actions }).into_response());
    }
    let plugins = objects::plugins_in(&changes);
    let about: Vec<Change> = (changes.iter())
        .filter(|change| matches!(change, Change::PutTraffic { .. }))
        .cloned()
        .collect();
    let written = app.core.submit(changes, caller.author()).await;
    let written = written.map_err(|error| of_many(error, place))?;
    let mut done = written.api();
    done.warnings = warnings(&app, &plugins).await;
    done.warnings
        .extend(traffic::warnings(&app.core.state(), &about));
    let body = Json(Applied {
        written: Some(done),
        actions: written
            .outcomes
            .iter()
            .filter_map(Outcome::action)
            .collect(),
    });
    let mut response = body.into_response();
    objects::stamp(&mut response, &written.epoch, written.revision);
    Ok(response)
}

/// The changes in an order in which each finds what it refers to, and where in the body each stands.
fn unit(request: ApplyRequest) -> Result<(Vec<Change>, Vec<String>), ApiError> {
    let expected = Expected::Any;
    let mut check = Check::default();
    let mut changes = Vec::new();
    let mut places = Vec::new();
    for (i, cluster) in request.clusters.into_iter().enumerate() {
        changes.push(Change::PutCluster { cluster, expected });
        places.push(format!("clusters[{i}]"));
    }
    for (i, service) in request.services.into_iter().enumerate() {
        let service = Box::new(service);
        changes.push(Change::PutService { service, expected });
        places.push(format!("services[{i}]"));
    }
    for (i, one) in request.instances.into_iter().enumerate() {
        check.ensure(
            one.registration.source == Source::Manual,
            &format!("instances[{i}].registration.source"),
            "what is applied from a file is `manual`; agents register by themselves",
        );
        changes.push(Change::Register {
            key: one.key,
            registration: Box::new(one.registration),
        });
        places.push(format!("instances[{i}].registration"));
    }
    for (i, certificate) in request.certificates.into_iter().enumerate() {
        let certificate = Box::new(certificate);
        changes.push(Change::PutCertificate {
            certificate,
            expected,
        });
        places.push(format!("certificates[{i}]"));
    }
    for (i, fallback) in request.fallbacks.into_iter().enumerate() {
        changes.push(Change::PutFallback { fallback, expected });
        places.push(format!("fallbacks[{i}]"));
    }
    for (i, route) in request.routes.into_iter().enumerate() {
        changes.push(Change::PutRoute { route, expected });
        places.push(format!("routes[{i}]"));
    }
    for (i, plugin) in request.plugins.into_iter().enumerate() {
        let plugin = Box::new(plugin);
        changes.push(Change::PutPlugin { plugin, expected });
        places.push(format!("plugins[{i}]"));
    }
    for (i, traffic) in request.traffic.into_iter().enumerate() {
        let traffic = Box::new(traffic);
        changes.push(Change::PutTraffic { traffic, expected });
        places.push(format!("traffic[{i}]"));
    }
    check.finish()?;
    Ok((changes, places))
}
