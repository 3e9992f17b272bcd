//! Live figures: routers report them, and whoever may read is told of them, once or as they come.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use cardea_registry_api::{
    Name, Span,
    figures::{By, Report, Taken, Told, WINDOW_MS},
    problem::Code,
};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Api, App,
    extract::{Input, Key, MAX_BULK, Params, RouterKey},
    openapi::{Reading, Reporting, Streaming},
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, IsRouter, Reads},
    clock::wall_ms,
    core::{Question, TakeError, TellError},
};

/// The most that may watch at a time.
pub(super) const MOST_WATCHERS: usize = 64;
/// What is told when nobody says.
const WINDOW: Span = Span::secs(60);
/// How long after a window's end it is told live, in milliseconds: by then the routers have reported it.
const REPORTED_MS: i64 = 3_000;

/// A router reports what it counted in one window of five seconds. Said twice, also to another replica,
/// it is counted once.
#[utoipa::path(post, path = "/v1/clusters/{cluster}/routers/{id}/figures",
    operation_id = "report_figures", tag = "figures",
    params(
        ("cluster" = Name, Path, description = "Its cluster."),
        ("id" = String, Path, description = "The router's id."),
    ),
    request_body = Report,
    responses((status = 200, description = "What became of it.", body = Taken), Reporting))]
pub(super) async fn report(
    _: Caller<IsRouter>,
    State(app): Api,
    Key(router): Key<RouterKey>,
    params: Params,
    Input(report): Input<Report, MAX_BULK>,
) -> Result<Json<Taken>, ApiError> {
    params.finish()?;
    report.check(wall_ms())?;
    let taken = app.core.take_figures(router.cluster, router.id.0, report);
    Ok(Json(taken.await?))
}

/// What the routers of a cluster counted, by service, group or route: windows of five seconds for an
/// hour, of a minute for a day. Every replica says the same.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/figures", operation_id = "get_figures",
    tag = "figures",
    params(
        ("cluster" = Name, Path, description = "Whose."),
        ("service" = Option<Name>, Query, description = "Only of this service."),
        ("route" = Option<Name>, Query, description = "Only of this route."),
        ("by" = Option<By>, Query, description = "By what they are told apart; default: service."),
        ("window" = Option<Span>, Query, description = "How far back, 5s to 24h; default 1m."),
        ("step" = Option<Span>, Query,
            description = "How long each point is: a multiple of 5s, or of 1m beyond an hour; default: the whole window."),
    ),
    responses((status = 200, description = "In steps, the oldest first.", body = Told), Reading))]
pub(super) async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(cluster): Key<Name>,
    mut params: Params,
) -> Result<Json<Told>, ApiError> {
    let (service, route) = (params.take("service"), params.take("route"));
    let by = params.take("by").unwrap_or_default();
    let window = params.take("window").unwrap_or(WINDOW);
    let step = params.take("step").unwrap_or(window);
    params.finish()?;
    let question = Question {
        cluster,
        service,
        route,
        by,
        window,
        step,
    };
    question.check()?;
    Ok(Json(app.core.figures(question).await?))
}

/// The same as it comes: an event `figures` for each window of five seconds, some seconds after its end.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/figures/live", operation_id = "watch_figures",
    tag = "figures",
    params(
        ("cluster" = Name, Path, description = "Whose."),
        ("service" = Option<Name>, Query, description = "Only of this service."),
        ("route" = Option<Name>, Query, description = "Only of this route."),
        ("by" = Option<By>, Query, description = "By what they are told apart; default: service."),
    ),
    responses(
        (status = 200, description = "Server-sent events until one side ends them; the data of each.",
            body = Told, content_type = "text/event-stream"),
        Streaming,
    ))]
pub(super) async fn live(
    _: Caller<Reads>,
    State(app): Api,
    Key(cluster): Key<Name>,
    mut params: Params,
) -> Result<Response, ApiError> {
    let (service, route) = (params.take("service"), params.take("route"));
    let by = params.take("by").unwrap_or_default();
    params.finish()?;
    let window = Span::millis(WINDOW_MS.unsigned_abs());
    let question = Question {
        cluster,
        service,
        route,
        by,
        window,
        step: window,
    };
    let place = Arc::clone(&app.watchers).try_acquire_owned().map_err(|_| {
        let most =
            format!("{MOST_WATCHERS} watch already, which is the most; ask for /figures instead");
        ApiError::new(Code::TooManyRequests, most)
    })?;
    let watcher = Watcher {
        app,
        question,
        told: 0,
        _place: place,
    };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::default());
    Ok(sse.into_response())
}

/// Somebody who watches.
struct Watcher {
    app: Arc<App>,
    question: Question,
    /// Up to when was told, Unix ms.
    told: i64,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next window; none: the registry stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let told = self.app.core.figures(self.question.clone()).await.ok();
            // Again the one before where this comes early.
            if let Some(told) = told.filter(|told| told.to > self.told) {
                self.told = told.to;
                let event = Event::default().event("figures").id(told.to.to_string());
                return event.json_data(&told).ok();
            }
            let rest = (REPORTED_MS - wall_ms().rem_euclid(WINDOW_MS)).rem_euclid(WINDOW_MS);
            let rest = Duration::from_millis(rest.max(1).unsigned_abs());
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.app.stopping.cancelled() => return None,
            }
        }
    }
}

impl From<TakeError> for ApiError {
    fn from(error: TakeError) -> Self {
        let detail = error.to_string();
        match error {
            TakeError::Store(_) | TakeError::Busy | TakeError::Stopping => {
                Self::unavailable(detail, 1)
            }
            TakeError::TooMany(..) => Self::new(Code::TooManyRequests, detail),
        }
    }
}

impl From<TellError> for ApiError {
    fn from(error: TellError) -> Self {
        match error {
            TellError::TooMuch => Self::invalid("step", error.to_string()),
            TellError::Failed => Self::internal(error),
        }
    }
}
