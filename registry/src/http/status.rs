//! How the registry stands, and which history holds.

use axum::{Json, extract::State};
use cardea_registry_api::{
    api::{AlarmAcknowledgement, HistoryDecision, Status},
    problem::Code,
};

use super::{
    Api,
    extract::{Input, Params},
    openapi::{Reading, Sending},
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, Reads, Writes},
    core::AckError,
};

/// How the registry stands, with what needs somebody's attention.
#[utoipa::path(get, path = "/v1/status", operation_id = "get_status", tag = "operations",
    responses((status = 200, description = "As it stands.", body = Status), Reading))]
pub(super) async fn get(
    _: Caller<Reads>,
    State(app): Api,
    params: Params,
) -> Result<Json<Status>, ApiError> {
    params.finish()?;
    Ok(Json(app.core.status()))
}

/// Somebody has taken note of an alarm of this replica that stands until then: `away_write_lost`.
#[utoipa::path(post, path = "/v1/alarms/acknowledge", operation_id = "acknowledge_alarm",
    tag = "operations", request_body = AlarmAcknowledgement,
    responses((status = 200, description = "As it stands now.", body = Status), Sending))]
pub(super) async fn acknowledge(
    caller: Caller<Writes>,
    State(app): Api,
    params: Params,
    Input(AlarmAcknowledgement { code }): Input<AlarmAcknowledgement>,
) -> Result<Json<Status>, ApiError> {
    params.finish()?;
    match app.core.acknowledge(&code, &caller.author()).await {
        None => {
            let why = format!(
                "no alarm `{code}` stands at this replica: `GET /v1/status` has those that do"
            );
            Err(ApiError::new(Code::Conflict, why))
        }
        Some(Err(AckError::EndsByItself)) => {
            let why = format!(
                "alarm `{code}` is not to be acknowledged: {}",
                AckError::EndsByItself
            );
            Err(ApiError::new(Code::Conflict, why))
        }
        Some(Err(error @ AckError::Disk(_))) => Err(ApiError::internal(error)),
        Some(Ok(())) => Ok(Json(app.core.status())),
    }
}

/// An operator's word on which history holds, while the registry holds one back.
#[utoipa::path(post, path = "/v1/history", operation_id = "decide_history", tag = "operations",
    request_body = HistoryDecision,
    responses((status = 200, description = "As it stands now.", body = Status), Sending))]
pub(super) async fn decide(
    caller: Caller<Writes>,
    State(app): Api,
    params: Params,
    Input(decision): Input<HistoryDecision>,
) -> Result<Json<Status>, ApiError> {
    params.finish()?;
    let status = app.core.decide_history(decision.keep, caller.author());
    Ok(Json(status.await?))
}
