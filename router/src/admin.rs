//! The admin port: health, readiness, metrics, and what this router knows and why it does what it
//! does. Never on the traffic port; on loopback unless configured otherwise.

use std::{io, net::TcpListener, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use cardea_registry_api::{Invalid, Name, Problem, Route, problem};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    control::Render,
    explain::{self, ExplainedPeer, Question},
    plugin::breaker,
    shared::{Concern, Readiness, Shared},
    table::{Origin, Table},
};

mod metrics;
#[cfg(test)]
mod tests;

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) render: Render,
    pub(crate) cluster: Arc<str>,
    pub(crate) router: Arc<str>,
    pub(crate) commit: Arc<str>,
}

/// Serves until it is stopped.
pub(crate) async fn serve(
    admin: Admin,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    axum::serve(listener, routes(admin))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/peers", get(peers))
        .route("/v1/table", get(table))
        .route("/v1/explain", get(explain))
        .fallback(|| async {
            Refused::from(Problem::new(
                problem::Code::NotFound,
                "known here: /healthz, /readyz, /metrics, /v1/peers, /v1/table, /v1/explain",
            ))
        })
        .with_state(admin)
}

/// A refusal as problem+json.
#[derive(Debug)]
struct Refused(Box<Problem>);

impl<P: Into<Problem>> From<P> for Refused {
    fn from(problem: P) -> Self {
        Self(Box::new(problem.into()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, problem::CONTENT_TYPE)];
        let body = serde_json::to_string(&self.0).unwrap_or_default();
        (status, kind, body).into_response()
    }
}

#[derive(Serialize)]
struct Ready {
    /// `ok`, `degraded`, `no_table` or `draining`.
    status: &'static str,
    reasons: Vec<Concern>,
    alarms: Vec<Concern>,
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let (code, status, reasons) = match admin.shared.readiness() {
        Readiness::Ready(reasons) if reasons.is_empty() => (StatusCode::OK, "ok", reasons),
        Readiness::Ready(reasons) => (StatusCode::OK, "degraded", reasons),
        Readiness::NoTable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no_table",
            admin.shared.degraded(),
        ),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", Vec::new()),
    };
    let body = Ready {
        status,
        reasons,
        alarms: admin.shared.alarms(),
    };
    (code, Json(body)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::with_capacity(64 << 10);
    (admin.render)(&mut text);
    metrics::render(&admin, &mut text);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn current(admin: &Admin) -> Result<Arc<Table>, Refused> {
    admin.shared.table_full().ok_or_else(|| {
        Refused::from(Problem::new(
            problem::Code::Unavailable,
            "there is no table yet: no registry has answered and there is no copy on disk",
        ))
    })
}

#[derive(Deserialize)]
struct PeersQuery {
    service: Option<String>,
}

#[derive(Serialize)]
struct ListedPeer<'a> {
    service: &'a str,
    #[serde(flatten)]
    peer: ExplainedPeer,
}

async fn peers(
    State(admin): State<Admin>,
    Query(query): Query<PeersQuery>,
) -> Result<Response, Refused> {
    let table = current(&admin)?;
    let now = Instant::now();
    let wanted = |service: &str| query.service.as_deref().is_none_or(|name| name == service);
    let upstreams = table.upstreams().filter(|u| wanted(u.service().as_str()));
    let peers: Vec<ListedPeer<'_>> = upstreams
        .flat_map(|upstream| {
            upstream.everybody().map(move |member| ListedPeer {
                service: upstream.service().as_str(),
                peer: ExplainedPeer::of(member, now),
            })
        })
        .collect();
    Ok(Json(json!({ "revision": table.revision, "peers": peers })).into_response())
}

#[derive(Serialize)]
struct TableView<'a> {
    cluster: &'a str,
    router: &'a str,
    epoch: &'a str,
    revision: u64,
    source: Origin,
    built_at: i64,
    confirmed_at: i64,
    routes: Vec<&'a Route>,
    services: Vec<ServiceView<'a>>,
    breakers: Vec<BreakerView>,
    degraded: Vec<Concern>,
    alarms: Vec<Concern>,
}

/// What a breaker knows of a service.
#[derive(Serialize)]
struct BreakerView {
    plugin: Name,
    service: Name,
    #[serde(flatten)]
    report: breaker::Report,
}

#[derive(Serialize)]
struct ServiceView<'a> {
    name: &'a str,
    peers: usize,
    takers: usize,
    /// Takers that are marked down or that checks took out.
    out: u32,
    /// Requests and retries of the last ten seconds.
    recent: (u64, u64),
}

async fn table(State(admin): State<Admin>) -> Result<Response, Refused> {
    let table = current(&admin)?;
    let now = Instant::now();
    let services = table.upstreams().map(|upstream| ServiceView {
        name: upstream.service().as_str(),
        peers: upstream.members().len(),
        takers: upstream.takers(),
        out: upstream.guard().counts().out,
        recent: upstream.budget().usage(now),
    });
    let breakers = admin.shared.plugins.breakers().into_iter();
    let view = TableView {
        cluster: &admin.cluster,
        router: &admin.router,
        epoch: &table.epoch,
        revision: table.revision,
        source: table.origin,
        built_at: table.built_at,
        confirmed_at: admin.shared.confirmed_at(),
        routes: in_order(&table),
        services: services.collect(),
        breakers: breakers
            .map(|(plugin, service, report)| BreakerView {
                plugin,
                service,
                report,
            })
            .collect(),
        degraded: admin.shared.degraded(),
        alarms: admin.shared.alarms(),
    };
    Ok(Json(view).into_response())
}

/// The table's routes by their ids.
fn in_order(table: &Table) -> Vec<&Route> {
    let mut routes: Vec<&Route> = table.routes().map(|entry| &*entry.route).collect();
    routes.sort_by(|one, two| one.id.cmp(&two.id));
    routes
}

async fn explain(
    State(admin): State<Admin>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let question = question(parameters)?;
    let table = current(&admin)?;
    Ok(Json(explain::explain(&table, &question, Instant::now())).into_response())
}

/// Reads `method=&url=&header=Name: value` (several `header`s; `client=` an address).
fn question(parameters: Vec<(String, String)>) -> Result<Question, Invalid> {
    let mut question = Question {
        method: "GET".to_owned(),
        host: String::new(),
        target: String::new(),
        headers: Vec::new(),
        client: None,
    };
    for (name, value) in parameters {
        match name.as_str() {
            "method" => question.method = value.to_ascii_uppercase(),
            "url" => (question.host, question.target) = split_url(&value)?,
            "header" => {
                let (name, value) = value
                    .split_once(':')
                    .ok_or_else(|| Invalid::field("header", "write `Name: value`"))?;
                let header = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
                question.headers.push(header);
            }
            "client" => {
                let client = value
                    .parse()
                    .map_err(|_| Invalid::field("client", "an IP address"))?;
                question.client = Some(client);
            }
            _ => {
                return Err(Invalid::field(
                    name,
                    "unknown parameter; known: method, url, header, client",
                ));
            }
        }
    }
    if question.target.is_empty() {
        return Err(Invalid::field(
            "url",
            "give one, such as http://shop.svc.local/api/v1",
        ));
    }
    let host = question.headers.iter().find(|(name, _)| name == "host");
    if let Some((_, host)) = host {
        question.host.clone_from(host);
    }
    Ok(question)
}

fn split_url(url: &str) -> Result<(String, String), Invalid> {
    let rest = match url.split_once("://") {
        Some(("http" | "https" | "ws" | "wss", rest)) => rest,
        Some(_) => {
            return Err(Invalid::field(
                "url",
                "begin with http:// or https://, or with the host",
            ));
        }
        None => url,
    };
    let rest = rest.split('#').next().unwrap_or(rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    Ok((host.to_owned(), target))
}

/// How long ago the source said that the table is the newest, in seconds.
fn age_seconds(shared: &Shared) -> f64 {
    let confirmed = shared.confirmed_at();
    if confirmed == 0 {
        return f64::INFINITY;
    }
    (clock::unix_millis() - confirmed).max(0) as f64 / 1000.0
}
