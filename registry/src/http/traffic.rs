//! Where clusters' requests go: one object for all services of a cluster, one for each service that is
//! to be treated otherwise.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    Name, Traffic, TrafficKey,
    api::{Page, Versioned, Written},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, App,
    extract::{Input, Key, Params},
    objects,
    openapi::{Deleting, Putting, Reading, ReadingOne},
    page::{PageWriter, Wanted},
    precondition::IfMatch,
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, Reads, Writes},
    change::{Change, Expected, Kind},
    state::State as Everything,
};

/// The most services that a warning names.
const NAMED: usize = 5;

/// All the calls, with documentation.
pub(super) fn calls() -> OpenApiRouter<std::sync::Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, delete))
        .routes(routes!(get_of_service, put_of_service, delete_of_service))
}

/// Lists where every cluster's requests go.
#[utoipa::path(get, path = "/v1/traffic", operation_id = "list_traffic", tag = "configuration",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Versioned<Traffic>>), Reading))]
async fn list(_: Caller<Reads>, State(app): Api, mut params: Params) -> Result<Response, ApiError> {
    let wanted: Wanted<TrafficKey> = Wanted::take(&mut params);
    params.finish()?;
    let state = app.core.state();
    let mut page = PageWriter::new(wanted.limit);
    for stored in state.traffics(wanted.after.as_ref()) {
        if !page.versioned(stored.object.key(), stored.revision, stored.json()) {
            break;
        }
    }
    Ok(page.finish())
}

/// Where a cluster's requests go, for services without an object of their own.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/traffic", operation_id = "get_traffic",
    tag = "configuration",
    params(("cluster" = Name, Path, description = "Whose requests.")),
    responses(
        (status = 200, description = "The object; its ETag is its revision.",
            body = Versioned<Traffic>),
        ReadingOne,
    ))]
async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(key): Key<TrafficKey>,
    params: Params,
) -> Result<Response, ApiError> {
    one(&app, &key, params)
}

/// Says where a cluster's requests go; `If-Match` says which revision the caller saw, if there is one. A
/// target that has no instances of a service is a warning: its requests go where there are some.
#[utoipa::path(put, path = "/v1/clusters/{cluster}/traffic", operation_id = "put_traffic",
    tag = "configuration",
    params(
        ("cluster" = Name, Path, description = "Whose requests."),
        ("If-Match" = Option<String>, Header,
            description = "The ETag of what is replaced, or `*`; none when it is created."),
        ("while_away" = Option<String>, Query, description = "Why it is to hold although the database is away."),
    ),
    request_body = Traffic,
    responses((status = 200, description = "It is so now.", body = Written), Putting))]
async fn put(
    caller: Caller<Writes>,
    State(app): Api,
    Key(key): Key<TrafficKey>,
    IfMatch(expected): IfMatch,
    params: Params,
    Input(traffic): Input<Traffic>,
) -> Result<Response, ApiError> {
    write(&app, &caller, (key, expected), params, traffic).await
}

/// Requests of the cluster stay in it again, but for services with an object of their own.
#[utoipa::path(delete, path = "/v1/clusters/{cluster}/traffic", operation_id = "delete_traffic",
    tag = "configuration",
    params(
        ("cluster" = Name, Path, description = "Whose requests."),
        ("If-Match" = String, Header, description = "The ETag of what is deleted, or `*`."),
        ("while_away" = Option<String>, Query, description = "Why it is to hold although the database is away."),
    ),
    responses((status = 200, description = "It is gone.", body = Written), Deleting))]
async fn delete(
    caller: Caller<Writes>,
    State(app): Api,
    Key(key): Key<TrafficKey>,
    IfMatch(expected): IfMatch,
    params: Params,
) -> Result<Response, ApiError> {
    remove(&app, &caller, (key, expected), params).await
}

/// Where a service's requests go from a cluster.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/services/{service}/traffic",
    operation_id = "get_service_traffic", tag = "configuration",
    params(
        ("cluster" = Name, Path, description = "Whose requests."),
        ("service" = Name, Path, description = "For which service."),
    ),
    responses(
        (status = 200, description = "The object; its ETag is its revision.",
            body = Versioned<Traffic>),
        ReadingOne,
    ))]
async fn get_of_service(
    _: Caller<Reads>,
    State(app): Api,
    Key(key): Key<TrafficKey>,
    params: Params,
) -> Result<Response, ApiError> {
    one(&app, &key, params)
}

/// Says where a service's requests go from a cluster: instead of, and not beside, what is said of the
/// whole cluster.
#[utoipa::path(put, path = "/v1/clusters/{cluster}/services/{service}/traffic",
    operation_id = "put_service_traffic", tag = "configuration",
    params(
        ("cluster" = Name, Path, description = "Whose requests."),
        ("service" = Name, Path, description = "For which service."),
        ("If-Match" = Option<String>, Header,
            description = "The ETag of what is replaced, or `*`; none when it is created."),
        ("while_away" = Option<String>, Query, description = "Why it is to hold although the database is away."),
    ),
    request_body = Traffic,
    responses((status = 200, description = "It is so now.", body = Written), Putting))]
async fn put_of_service(
    caller: Caller<Writes>,
    State(app): Api,
    Key(key): Key<TrafficKey>,
    IfMatch(expected): IfMatch,
    params: Params,
    Input(traffic): Input<Traffic>,
) -> Result<Response, ApiError> {
    write(&app, &caller, (key, expected), params, traffic).await
}

/// What is said of the whole cluster holds for the service again.
#[utoipa::path(delete, path = "/v1/clusters/{cluster}/services/{service}/traffic",
    operation_id = "delete_service_traffic", tag = "configuration",
    params(
        ("cluster" = Name, Path, description = "Whose requests."),
        ("service" = Name, Path, description = "For which service."),
        ("If-Match" = String, Header, description = "The ETag of what is deleted, or `*`."),
        ("while_away" = Option<String>, Query, description = "Why it is to hold although the database is away."),
    ),
    responses((status = 200, description = "It is gone.", body = Written), Deleting))]
async fn delete_of_service(
    caller: Caller<Writes>,
    State(app): Api,
    Key(key): Key<TrafficKey>,
    IfMatch(expected): IfMatch,
    params: Params,
) -> Result<Response, ApiError> {
    remove(&app, &caller, (key, expected), params).await
}

fn one(app: &App, key: &TrafficKey, params: Params) -> Result<Response, ApiError> {
    params.finish()?;
    objects::one(app.core.state().traffic(key), Kind::Traffic, key)
}

async fn write(
    app: &App,
    caller: &Caller<Writes>,
    (key, expected): (TrafficKey, Expected),
    mut params: Params,
    traffic: Traffic,
) -> Result<Response, ApiError> {
    let away: Option<String> = params.take("while_away");
    params.finish()?;
    if traffic.key() != key {
        let field = if traffic.cluster == key.cluster {
            "service"
        } else {
            "cluster"
        };
        let why = format!(
            "the path says `{key}`, the body `{}`: make them the same",
            traffic.key()
        );
        return Err(ApiError::invalid(field, why));
    }
    if let Some(reason) = away.filter(|_| app.core.is_cut_off()) {
        return cut_off(app, caller, (key, expected), Some(traffic), &reason).await;
    }
    let traffic = Box::new(traffic);
    objects::write(app, caller, Change::PutTraffic { traffic, expected }).await
}

/// A write that holds although the database is away.
async fn cut_off(
    app: &App,
    caller: &Caller<Writes>,
    (key, expected): (TrafficKey, Expected),
    after: Option<Traffic>,
    reason: &str,
) -> Result<Response, ApiError> {
    let there = app.core.state().traffic(&key).cloned();
    // As the state itself would ask.
    let revision = there.as_ref().map(|stored| stored.revision);
    expected.of(Kind::Traffic, &key.to_string(), revision)?;
    if there.is_none() && after.is_none() {
        return Err(ApiError::not_found(Kind::Traffic.as_str(), key));
    }
    let before = there.map(|stored| stored.object.clone());
    let warning = format!(
        "kept, and written when the database is back, unless traffic `{key}` is changed in it meanwhile: that holds then"
    );
    let written = app
        .core
        .move_traffic(key, (before, after), reason, caller.author());
    let written = written.await?;
    let mut body = written.api();
    if !body.durable {
        body.warnings.push(warning);
    }
    let mut response = Json(body).into_response();
    objects::stamp(&mut response, &written.epoch, written.revision);
    Ok(response)
}

async fn remove(
    app: &App,
    caller: &Caller<Writes>,
    (key, expected): (TrafficKey, Expected),
    mut params: Params,
) -> Result<Response, ApiError> {
    let away: Option<String> = params.take("while_away");
    params.finish()?;
    if let Some(reason) = away.filter(|_| app.core.is_cut_off()) {
        return cut_off(app, caller, (key, expected), None, &reason).await;
    }
    objects::write(app, caller, Change::DeleteTraffic { key, expected }).await
}

/// What the writer of traffic should know: which services the clusters that are to serve do not have.
pub(super) fn warnings<'a>(
    state: &Everything,
    changes: impl IntoIterator<Item = &'a Change>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for change in changes {
        let Change::PutTraffic { traffic, .. } = change else {
            continue;
        };
        for cluster in traffic.others() {
            let direct = (state.cluster(cluster.as_str()))
                .is_some_and(|stored| stored.object.gateway.is_empty());
            let lacking = lacking(state, traffic, cluster);
            if !direct || lacking.is_empty() {
                continue;
            }
            let shown: Vec<&str> = lacking
                .iter()
                .take(NAMED)
                .map(|name| name.as_str())
                .collect();
            let more = match lacking.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            warnings.push(format!(
                "cluster `{cluster}` has no instance that takes requests of {}{more}: they go to the \
                 other clusters that `{}` names, or stay in `{}`",
                shown.join(", "),
                traffic.key(),
                traffic.cluster
            ));
        }
    }
    warnings
}

/// The services that a cluster cannot serve, of those that the traffic is about.
fn lacking<'a>(state: &'a Everything, traffic: &'a Traffic, cluster: &Name) -> Vec<&'a Name> {
    let takes = |service: &Name| {
        (state.instances_in(cluster, Some(service))).any(|stored| stored.object.takes_requests())
    };
    match &traffic.service {
        Some(service) => [service].into_iter().filter(|one| !takes(one)).collect(),
        None => (state.services(None).map(|stored| &stored.object.name))
            .filter(|service| state.population(&traffic.cluster, service) > 0 && !takes(service))
            .collect(),
    }
}
