//! Switches: previewed, begun, and what operators do to them.

use std::time::Duration;

use axum::{Json, extract::State, response::Response};
use cardea_registry_api::{
    FieldError, Name, Problem, Span,
    api::{Page, Versioned},
    problem::Code,
    switch::{Acted, NewSwitch, Planned, Shown, Switch, Word},
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
    change::{Kind, Written},
    core::{Act, SwitchError},
};

/// The longest that a call waits for routers.
const LONGEST: Span = Span::secs(30);

/// All the calls, with documentation.
pub(super) fn calls() -> OpenApiRouter<std::sync::Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, begin))
        .routes(routes!(get))
        .routes(routes!(approve))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(undo))
}

/// Lists the switches that are under way, and the latest hundred that have ended; the newest first.
#[utoipa::path(get, path = "/v1/switches", operation_id = "list_switches", tag = "switches",
    responses((status = 200, description = "All of them.", body = Page<Versioned<Switch>>), Reading))]
async fn list(_: Caller<Reads>, State(app): Api, params: Params) -> Result<Response, ApiError> {
    params.finish()?;
    let state = app.core.state();
    objects::newest_first(state.switches(), |switch| switch.created_at)
}

/// Begins a switch, or only says what it would do (`dry_run`): what moves, what is missing where it leads,
/// and healthy capacity against the traffic of now. Where that is short it is refused, unless forced.
#[utoipa::path(post, path = "/v1/switches", operation_id = "begin_switch", tag = "switches",
    params(
        ("dry_run" = Option<bool>, Query, description = "Only say what it would do."),
        ("wait" = Option<Span>, Query,
            description = "Wait until all routers have the first stage, at most so long; at most 30s."),
    ),
    request_body = NewSwitch,
    responses((status = 200, description = "What it does, and the switch as it begins.", body = Planned),
        Sending))]
async fn begin(
    caller: Caller<Writes>,
    State(app): Api,
    mut params: Params,
    Input(asked): Input<NewSwitch>,
) -> Result<Json<Planned>, ApiError> {
    let dry_run = params.switch("dry_run");
    let wait = wait(&mut params);
    params.finish()?;
    if dry_run {
        let plan = app.core.plan_switch(&asked).await?;
        return Ok(Json(Planned { plan, begun: None }));
    }
    let author = caller.author().0;
    let (plan, id, written) = app.core.begin_switch(&asked, &author).await?;
    let begun = acted(&app, &id, &written, wait).await?;
    Ok(Json(Planned {
        plan,
        begun: Some(begun),
    }))
}

/// One switch, with what it waits for.
#[utoipa::path(get, path = "/v1/switches/{id}", operation_id = "get_switch", tag = "switches",
    params(("id" = Name, Path, description = "Its name.")),
    responses((status = 200, description = "The switch.", body = Shown), ReadingOne))]
async fn get(
    _: Caller<Reads>,
    State(app): Api,
    Key(id): Key<Name>,
    params: Params,
) -> Result<Json<Shown>, ApiError> {
    params.finish()?;
    let stored = app.core.state().switch(id.as_str()).cloned();
    let stored = stored.ok_or_else(|| ApiError::not_found(Kind::Switch.as_str(), &id))?;
    Ok(Json(Shown {
        now: app.core.describe_switch(&stored).await,
        switch: Versioned {
            revision: stored.revision,
            object: stored.object.clone(),
        },
    }))
}

macro_rules! acts {
    ($($(#[doc = $doc:literal])+ $name:ident $Act:ident $id:literal $path:literal;)+) => {$(
        $(#[doc = $doc])+
        #[utoipa::path(post, path = $path, operation_id = $id, tag = "switches",
            params(
                ("id" = Name, Path, description = "Its name."),
                ("wait" = Option<Span>, Query,
                    description = "Wait until all routers have it, at most so long; at most 30s."),
            ),
            request_body = Word,
            responses((status = 200, description = "It is so now.", body = Acted), SendingTo))]
        async fn $name(
            caller: Caller<Writes>,
            State(app): Api,
            Key(id): Key<Name>,
            params: Params,
            Input(word): Input<Word>,
        ) -> Result<Json<Acted>, ApiError> {
            act(&app, &caller, Act::$Act, (id, word), params).await
        }
    )+};
}

acts! {
    /// Approves a switch that waits for it: with another token than the one that asked for it.
    approve Approve "approve_switch" "/v1/switches/{id}/approve";
    /// Keeps a switch at its stage.
    pause Pause "pause_switch" "/v1/switches/{id}/pause";
    /// Lets a switch go on: its stage is written again, and watched from the beginning.
    resume Resume "resume_switch" "/v1/switches/{id}/resume";
    /// Makes everything as it was before the switch, at once; also after its end.
    undo Undo "undo_switch" "/v1/switches/{id}/undo";
}

async fn act(
    app: &App,
    caller: &Caller<Writes>,
    act: Act,
    (id, word): (Name, Word),
    mut params: Params,
) -> Result<Json<Acted>, ApiError> {
    let wait = wait(&mut params);
    params.finish()?;
    let by = caller.author().0;
    let written = app.core.act_on_switch(&id, act, &by, &word).await?;
    Ok(Json(acted(app, &id, &written, wait).await?))
}

fn wait(params: &mut Params) -> Duration {
    let wait: Span = params.take("wait").unwrap_or_default();
    params.ensure(wait <= LONGEST, "wait", "at most 30s");
    wait.duration()
}

async fn acted(app: &App, id: &Name, written: &Written, wait: Duration) -> Result<Acted, ApiError> {
    let stored = app.core.state().switch(id.as_str()).cloned();
    let stored = stored.ok_or_else(|| ApiError::not_found(Kind::Switch.as_str(), id))?;
    let cluster = &stored.object.asked.cluster;
    let told = app.core.switch_acknowledged(cluster, written, wait).await;
    Ok(Acted {
        written: written.api(),
        switch: Versioned {
            revision: stored.revision,
            object: stored.object.clone(),
        },
        acknowledged: told.acknowledged,
        pending: told.pending,
    })
}

impl From<SwitchError> for ApiError {
    fn from(error: SwitchError) -> Self {
        let detail = error.to_string();
        match error {
            SwitchError::NotFound(id) => Self::not_found(Kind::Switch.as_str(), id),
            SwitchError::Invalid(invalid) => invalid.into(),
            SwitchError::Submit(error) => error.into(),
            SwitchError::Refused(_) => Self::new(Code::Conflict, detail),
            SwitchError::Short(refusals) => {
                let mut problem = Problem::new(Code::Conflict, detail);
                let errors = refusals.into_iter().map(|refusal| FieldError {
                    field: "to".to_owned(),
                    message: refusal.why,
                });
                problem.errors.extend(errors);
                problem.into()
            }
        }
    }
}
