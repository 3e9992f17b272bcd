//! The change log: who changed what, when and why.

use axum::{extract::State, response::Response};
use cardea_registry_api::{
    api::{ChangeRecord, Page, Role},
    problem::Code,
};

use super::{
    Api, extract::Params, openapi::Asking, page, page::DEFAULT_LIMIT, page::MAX_LIMIT,
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, Reads},
    change::{Kind, hide_body, hide_key},
    core::StoreError,
};

/// Stored bodies are shown to who asks for so few changes.
const WITH_BODIES: usize = 10;

/// Changes after a revision, oldest first, from the database. A page may have fewer than were asked for
/// where objects are large. Bodies of fallbacks are shown where at most 10 changes are asked for.
#[utoipa::path(get, path = "/v1/changes", operation_id = "list_changes", tag = "operations",
    params(
        ("after" = Option<u64>, Query, description = "Only later ones; default: all that are kept."),
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<u64>, Query, description = "`next` of the page before; in place of `after`."),
    ),
    responses((status = 200, description = "A page.", body = Page<ChangeRecord>), Asking))]
pub(super) async fn list(
    caller: Caller<Reads>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let after: Option<u64> = params.take("after");
    let cursor: Option<u64> = params.take("cursor");
    let limit: usize = params.take("limit").unwrap_or(DEFAULT_LIMIT);
    let fits = (1..=MAX_LIMIT).contains(&limit);
    params.ensure(fits, "limit", "a page has 1 to 1000 items");
    params.finish()?;
    let asked = cursor.or(after);
    let after = asked.unwrap_or_default();
    let ask = u32::try_from(limit).unwrap_or(u32::MAX);
    let (mut records, more) = app.core.history(after, ask).await.map_err(away)?;
    if let Some(asked) = asked
        && records
            .first()
            .is_some_and(|first| first.revision > asked + 1)
        && let Some(oldest) = app.core.oldest_change().await.map_err(away)?
        && asked + 1 < oldest
    {
        return Err(ApiError::new(
            Code::Gone,
            format!(
                "changes are kept from revision {oldest} on: ask with after={}",
                oldest - 1
            ),
        ));
    }
    let next = records
        .last()
        .filter(|_| more)
        .map(|r| r.revision.to_string());
    for record in &mut records {
        hide_tokens(record, caller.role());
        hide_keys(record);
        if limit > WITH_BODIES {
            hide_bodies(record);
        }
    }
    page::values(records, next)
}

fn away(error: StoreError) -> ApiError {
    match error {
        StoreError::Away(_) => {
            tracing::debug!(%error, "the change log cannot be read");
            ApiError::unavailable("the database is away, and the change log with it", 2)
        }
        StoreError::Refused(_) | StoreError::Unreadable(_) => ApiError::internal(error),
    }
}

/// Tokens are an admin's business, and their hashes nobody's.
fn hide_tokens(record: &mut ChangeRecord, role: Role) {
    if record.kind != Kind::Token.as_str() {
        return;
    }
    for side in [&mut record.before, &mut record.after] {
        match side {
            Some(serde_json::Value::Object(token)) if role == Role::Admin => {
                token.remove("sha256");
            }
            _ => *side = None,
        }
    }
}

fn hide_bodies(record: &mut ChangeRecord) {
    if record.kind == Kind::Fallback.as_str() {
        let sides = [&mut record.before, &mut record.after];
        sides.into_iter().flatten().for_each(hide_body);
    }
}

/// Private keys are nobody's business.
fn hide_keys(record: &mut ChangeRecord) {
    if record.kind == Kind::Certificate.as_str() {
        let sides = [&mut record.before, &mut record.after];
        sides.into_iter().flatten().for_each(hide_key);
    }
}
