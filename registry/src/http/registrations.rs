//! What instances' sources do: register, renew, change, deregister; one at a time or many at once.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    InstanceId, InstanceKey, InstanceState, Name, Source, Span,
    api::{
        BulkRegistration, Deregistered, InstancePatch, Registration, Renewals, Renewed, Written,
    },
};

use super::{
    Api, App,
    extract::{Input, Key, MAX_BULK, Params},
    objects,
    openapi::{Doing, DoingTo, Sending, SendingTo},
    problem::{ApiError, of_many},
};
use crate::{
    auth::scope::{Caller, Reports, Writes},
    change::{Change, Written as Accepted},
    core::Acknowledgements,
};

/// The most registrations in one call.
const MAX_REGISTRATIONS: usize = 1000;
/// The most renewals in one call.
const MAX_RENEWALS: usize = 10_000;
/// The longest wait for routers.
const MAX_WAIT: Span = Span::secs(60);

/// What a caller may say about an instance.
fn may_register(
    caller: &Caller<Reports>,
    key: &InstanceKey,
    registration: &Registration,
) -> Result<(), ApiError> {
    caller.covers(&key.service)?;
    if registration.source == Source::Manual {
        caller.also::<Writes>("source `manual`")?;
    }
    if registration.state == InstanceState::Disabled {
        caller.also::<Writes>("state `disabled`")?;
    }
    Ok(())
}

/// Registers an instance, or replaces what its source reports and renews its lease.
#[utoipa::path(put, path = "/v1/clusters/{cluster}/services/{service}/instances/{id}",
    operation_id = "register", tag = "instances",
    params(
        ("cluster" = Name, Path, description = "Its cluster; created when it is missing."),
        ("service" = Name, Path, description = "Its service; created when it is missing."),
        ("id" = InstanceId, Path, description = "Its id."),
    ),
    request_body = Registration,
    responses((status = 200, description = "It is registered.", body = Written), Sending))]
pub(super) async fn put(
    caller: Caller<Reports>,
    State(app): Api,
    Key(key): Key<InstanceKey>,
    params: Params,
    Input(registration): Input<Registration>,
) -> Result<Response, ApiError> {
    params.finish()?;
    may_register(&caller, &key, &registration)?;
    let change = Change::Register {
        key,
        registration: Box::new(registration),
    };
    objects::write(&app, &caller, change).await
}

/// Registers many instances: all or none.
#[utoipa::path(post, path = "/v1/registrations", operation_id = "register_many", tag = "instances",
    request_body = BulkRegistration,
    responses((status = 200, description = "All are registered.", body = Written), Sending))]
pub(super) async fn put_many(
    caller: Caller<Reports>,
    State(app): Api,
    params: Params,
    Input(bulk): Input<BulkRegistration, MAX_BULK>,
) -> Result<Response, ApiError> {
    params.finish()?;
    at_most(bulk.instances.len(), MAX_REGISTRATIONS)?;
    for one in &bulk.instances {
        may_register(&caller, &one.key, &one.registration)?;
    }
    let changes = bulk
        .instances
        .into_iter()
        .map(|one| Change::Register {
            key: one.key,
            registration: Box::new(one.registration),
        })
        .collect();
    let written = app
        .core
        .submit(changes, caller.author())
        .await
        .map_err(|error| of_many(error, |i| format!("instances[{i}].registration")))?;
    Ok(objects::answer(&written))
}

fn at_most(given: usize, most: usize) -> Result<(), ApiError> {
    if given <= most {
        return Ok(());
    }
    Err(ApiError::invalid(
        "instances",
        format!("{given} at once; send at most {most}"),
    ))
}

/// Changes an instance's reported state or weight, or (operators) what is forced over it.
#[utoipa::path(patch, path = "/v1/clusters/{cluster}/services/{service}/instances/{id}",
    operation_id = "patch_instance", tag = "instances",
    params(
        ("cluster" = Name, Path, description = "Its cluster."),
        ("service" = Name, Path, description = "Its service."),
        ("id" = InstanceId, Path, description = "Its id."),
    ),
    request_body = InstancePatch,
    responses((status = 200, description = "It is so now.", body = Written), SendingTo))]
pub(super) async fn patch(
    caller: Caller<Reports>,
    State(app): Api,
    Key(key): Key<InstanceKey>,
    params: Params,
    Input(patch): Input<InstancePatch>,
) -> Result<Response, ApiError> {
    params.finish()?;
    caller.covers(&key.service)?;
    if patch.forced.is_some() {
        caller.also::<Writes>("forced")?;
    }
    objects::write(&app, &caller, Change::Patch { key, patch }).await
}

/// Takes an instance out at once, and waits until every live router of its cluster has let go.
#[utoipa::path(delete, path = "/v1/clusters/{cluster}/services/{service}/instances/{id}",
    operation_id = "deregister", tag = "instances",
    params(
        ("cluster" = Name, Path, description = "Its cluster."),
        ("service" = Name, Path, description = "Its service."),
        ("id" = InstanceId, Path, description = "Its id."),
        ("wait" = Option<Span>, Query,
            description = "The longest wait for routers, at most 60s; default: none."),
    ),
    responses(
        (status = 200, description = "It is gone, or was not there.", body = Deregistered),
        Doing,
    ))]
pub(super) async fn delete(
    caller: Caller<Reports>,
    State(app): Api,
    Key(key): Key<InstanceKey>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let wait: Span = params.take("wait").unwrap_or_default();
    params.ensure(wait <= MAX_WAIT, "wait", "at most 60s");
    params.finish()?;
    caller.covers(&key.service)?;
    let change = Change::Deregister { key: key.clone() };
    let written = app.core.submit(vec![change], caller.author()).await?;
    let acknowledgements = acknowledged(&app, &key.cluster, &written, wait.duration()).await;
    let mut response = Json(Deregistered {
        written: written.api(),
        found: written.found(),
        acknowledged: acknowledgements.acknowledged,
        pending: acknowledgements.pending,
    })
    .into_response();
    objects::stamp(&mut response, &written.epoch, written.revision);
    Ok(response)
}

/// A registry that stops does not wait: it says who is still missing.
async fn acknowledged(
    app: &App,
    cluster: &Name,
    written: &Accepted,
    wait: Duration,
) -> Acknowledgements {
    tokio::select! {
        all = app.core.acknowledged(cluster, written, wait) => all,
        () = app.stopping.cancelled() => {
            app.core.acknowledged(cluster, written, Duration::ZERO).await
        }
    }
}

/// Renews an instance's lease; 404 means: register again.
#[utoipa::path(post, path = "/v1/clusters/{cluster}/services/{service}/instances/{id}/renew",
    operation_id = "renew", tag = "instances",
    params(
        ("cluster" = Name, Path, description = "Its cluster."),
        ("service" = Name, Path, description = "Its service."),
        ("id" = InstanceId, Path, description = "Its id."),
    ),
    responses((status = 200, description = "It lives on.", body = Renewed), DoingTo))]
pub(super) async fn renew(
    caller: Caller<Reports>,
    State(app): Api,
    Key(key): Key<InstanceKey>,
    params: Params,
) -> Result<Json<Renewed>, ApiError> {
    params.finish()?;
    caller.covers(&key.service)?;
    if app.core.renew(std::slice::from_ref(&key)) == [true] {
        return Ok(Json(Renewed {
            renewed: 1,
            unknown: Vec::new(),
        }));
    }
    Err(ApiError::new(
        cardea_registry_api::problem::Code::NotFound,
        format!("there is no instance `{key}` (any more): register it again"),
    ))
}

/// Renews many leases; the answer names those to register again.
#[utoipa::path(post, path = "/v1/renewals", operation_id = "renew_many", tag = "instances",
    request_body = Renewals,
    responses((status = 200, description = "Those that are known live on.", body = Renewed), Sending))]
pub(super) async fn renew_many(
    caller: Caller<Reports>,
    State(app): Api,
    params: Params,
    Input(renewals): Input<Renewals, MAX_BULK>,
) -> Result<Json<Renewed>, ApiError> {
    params.finish()?;
    at_most(renewals.instances.len(), MAX_RENEWALS)?;
    if !caller.covers_all() {
        for key in &renewals.instances {
            caller.covers(&key.service)?;
        }
    }
    let renewed = app.core.renew(&renewals.instances);
    let unknown: Vec<InstanceKey> = renewals
        .instances
        .into_iter()
        .zip(&renewed)
        .filter_map(|(key, renewed)| (!renewed).then_some(key))
        .collect();
    Ok(Json(Renewed {
        renewed: renewed.len() as u64 - unknown.len() as u64,
        unknown,
    }))
}
