//! Releases: previewed, started, and what operators order.

use axum::{Json, extract::State, response::Response};
use cardea_registry_api::{
    Name, Release, ReleasePlan,
    api::{Page, Versioned},
    problem::Code,
    release::{Order, OrderRequest, ReleaseAnswer, ReleaseInfo},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, App,
    extract::{Input, Key, Params},
    objects,
    openapi::{Reading, ReadingOne, Sending, SendingTo},
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, Reads, Writes},
    change::Kind,
    core::ReleaseError,
};

/// Said of what was done while the database is away.
const KEPT: &str = "kept, and done in the database when it is back, also where the release went on meanwhile; not where it \
    is over and somebody changed its plugin since";

/// All the calls, with documentation.
pub(super) fn calls() -> OpenApiRouter<std::sync::Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, begin))
        .routes(routes!(get))
        .routes(routes!(promote))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
        .routes(routes!(rollback))
}

/// Lists the releases that are under way, and the latest hundred that are over; the newest first.
#[utoipa::path(get, path = "/v1/releases", operation_id = "list_releases", tag = "releases",
    responses((status = 200, description = "All of them.", body = Page<Versioned<Release>>), Reading))]
async fn list(_: Caller<Reads>, State(app): Api, params: Params) -> Result<Response, ApiError> {
    params.finish()?;
    let state = app.core.state();
    objects::newest_first(state.releases(), |release| release.created_at)
}

/// Starts a release with its first step. With `dry_run` it is only said what it would do: the plugin that its
/// first step would write and the one at its end, who is ready, and what to know before. What cannot work is
/// refused.
#[utoipa::path(post, path = "/v1/releases", operation_id = "begin_release", tag = "releases",
    params(("dry_run" = Option<bool>, Query, description = "Only say what it would do.")),
    request_body = ReleasePlan,
    responses((status = 200, description = "The release as it begins.", body = ReleaseAnswer), Sending))]
async fn begin(
    caller: Caller<Writes>,
    State(app): Api,
    mut params: Params,
    Input(plan): Input<ReleasePlan>,
) -> Result<Json<ReleaseAnswer>, ApiError> {
    let dry_run = params.switch("dry_run");
    params.finish()?;
    let author = caller.author().0;
    if dry_run {
        let preview = app.core.plan_release(&plan, &author)?;
        return Ok(Json(ReleaseAnswer {
            preview: Some(preview),
            ..ReleaseAnswer::default()
        }));
    }
    let (id, written, warnings) = app.core.begin_release(&plan, &author).await?;
    let mut written = written.api();
    written.warnings = warnings;
    Ok(Json(ReleaseAnswer {
        preview: None,
        release: Some(app.core.show_release(&id).await?),
        written: Some(written),
    }))
}

/// One release, with what the figures say of its step and what it waits for.
#[utoipa::path(get, path = "/v1/releases/{id}", operation_id = "get_release", tag = "releases",
    params(("id" = Name, Path, description = "Its name.")),
    responses((status = 200, description = "The release.", body = ReleaseInfo), ReadingOne))]
async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(id): Key<Name>,
    params: Params,
) -> Result<Json<ReleaseInfo>, ApiError> {
    params.finish()?;
    Ok(Json(app.core.show_release(&id).await?))
}

macro_rules! orders {
    ($($(#[doc = $doc:literal])+ $name:ident $order:expr, $id:literal $path:literal;)+) => {$(
        $(#[doc = $doc])+
        #[utoipa::path(post, path = $path, operation_id = $id, tag = "releases",
            params(("id" = Name, Path, description = "Its name.")),
            request_body = OrderRequest,
            responses((status = 200, description = "It is so now.", body = ReleaseAnswer), SendingTo))]
        async fn $name(
            caller: Caller<Writes>,
            State(app): Api,
            Key(id): Key<Name>,
            params: Params,
            Input(said): Input<OrderRequest>,
        ) -> Result<Json<ReleaseAnswer>, ApiError> {
            params.finish()?;
            let order: fn(&OrderRequest) -> Order = $order;
            let by = caller.author().0;
            done(&app, &id, order(&said), &by, said).await
        }
    )+};
}

orders! {
    /// Takes the next step at once, whatever the figures say; with `full` the last one. On the last step it
    /// ends the release.
    promote |said| if said.full { Order::PromoteFull } else { Order::Promote },
        "promote_release" "/v1/releases/{id}/promote";
    /// Keeps a release at its share.
    pause |_| Order::Pause, "pause_release" "/v1/releases/{id}/pause";
    /// Lets a release go on: its share is written again where somebody changed it, its step begins anew, and
    /// what was seen so far is judged no more.
    resume |_| Order::Resume, "resume_release" "/v1/releases/{id}/resume";
    /// Ends a release where it is: requests stay shared out as they are.
    abort |_| Order::Abort, "abort_release" "/v1/releases/{id}/abort";
    /// Ends a release with all requests at the baseline; also one that is over, as long as nothing else was
    /// done to its plugin. With `while_away` also while the database is away.
    rollback |_| Order::Rollback, "rollback_release" "/v1/releases/{id}/rollback";
}

async fn done(
    app: &App,
    id: &Name,
    order: Order,
    by: &str,
    said: OrderRequest,
) -> Result<Json<ReleaseAnswer>, ApiError> {
    said.check()?;
    if said.full && order != Order::PromoteFull {
        return Err(ApiError::invalid(
            "full",
            "only `promote` knows it: leave it out",
        ));
    }
    let why = said
        .reason
        .as_deref()
        .filter(|reason| !reason.trim().is_empty());
    let written = match (said.while_away, why) {
        (true, _) if order != Order::Rollback => {
            let why = "only `rollback` knows it: whatever else is ordered needs the database";
            return Err(ApiError::invalid("while_away", why));
        }
        (true, None) => {
            return Err(ApiError::invalid(
                "reason",
                "say why: it is kept in the log",
            ));
        }
        (true, Some(why)) if app.core.is_cut_off() => {
            app.core.roll_back_while_away(id, by, why).await?
        }
        (_, why) => app.core.order_release(id, order, by, why).await?,
    };
    let mut written = written.api();
    if !written.durable {
        written.warnings.push(KEPT.to_owned());
    }
    Ok(Json(ReleaseAnswer {
        preview: None,
        release: Some(app.core.show_release(id).await?),
        written: Some(written),
    }))
}

impl From<ReleaseError> for ApiError {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::NotFound(id) => Self::not_found(Kind::Release.as_str(), id),
            ReleaseError::Invalid(invalid) => invalid.into(),
            ReleaseError::Submit(error) => error.into(),
            ReleaseError::Conflict(why) => Self::new(Code::Conflict, why),
        }
    }
}
