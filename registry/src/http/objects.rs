//! How objects are listed, shown and written, whatever their kind.

use std::{fmt::Display, sync::Arc};

use axum::{
    Json,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    Name, Plugin,
    api::{EPOCH_HEADER, REVISION_HEADER, Versioned},
};
use serde::Serialize;

use super::{
    App,
    page::{self, PageWriter, Wanted},
    precondition::etag,
    problem::ApiError,
    routers::warnings,
    traffic,
};
use crate::{
    auth::scope::Caller,
    change::{Change, Kind, Written, shown},
    state::Stored,
};

/// A page of what comes behind the cursor.
pub(super) fn list<'a, T: 'a, K: Display>(
    wanted: &Wanted<Name>,
    behind: impl Iterator<Item = &'a Arc<Stored<T>>>,
    kind: Kind,
    key: impl Fn(&'a T) -> K,
) -> Response {
    let mut page = PageWriter::new(wanted.limit);
    for stored in behind {
        let json = shown(kind, stored.json());
        if !page.versioned(key(&stored.object), stored.revision, &json) {
            break;
        }
    }
    page.finish()
}

/// Operations, the newest first, all on one page: they are few.
pub(super) fn newest_first<'a, T: Clone + Serialize + 'a>(
    all: impl Iterator<Item = &'a Arc<Stored<T>>>,
    created_at: impl Fn(&T) -> i64,
) -> Result<Response, ApiError> {
    let mut all: Vec<Versioned<T>> = all
        .map(|stored| Versioned {
            revision: stored.revision,
            object: stored.object.clone(),
        })
        .collect();
    all.sort_by_key(|one| std::cmp::Reverse((created_at(&one.object), one.revision)));
    page::values(all, None)
}

/// One object with its ETag.
pub(super) fn one<T>(
    stored: Option<&Arc<Stored<T>>>,
    kind: Kind,
    key: impl Display,
) -> Result<Response, ApiError> {
    let stored = stored.ok_or_else(|| ApiError::not_found(kind.as_str(), key))?;
    let json = shown(kind, stored.json());
    let mut body = Vec::with_capacity(json.len() + 32);
    page::write_versioned(&mut body, stored.revision, &json);
    let mut response = page::json(body);
    response
        .headers_mut()
        .insert(header::ETAG, etag(stored.revision));
    Ok(response)
}

/// Submits one change and says where it led.
pub(super) async fn write<S>(
    app: &App,
    caller: &Caller<S>,
    change: Change,
) -> Result<Response, ApiError> {
    let plugins = plugins_in([&change]);
    let about = change.clone();
    let written = app.core.submit(vec![change], caller.author()).await?;
    let mut body = written.api();
    body.warnings = warnings(app, &plugins).await;
    body.warnings
        .extend(traffic::warnings(&app.core.state(), [&about]));
    let mut response = Json(body).into_response();
    stamp(&mut response, &written.epoch, written.revision);
    if let Some(outcome) = written.outcomes.last().filter(|o| o.after.is_some()) {
        response
            .headers_mut()
            .insert(header::ETAG, etag(outcome.revision));
    }
    Ok(response)
}

/// The plugins that changes put.
pub(super) fn plugins_in<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Vec<Plugin> {
    let put = |change: &Change| match change {
        Change::PutPlugin { plugin, .. } => Some((**plugin).clone()),
        _ => None,
    };
    changes.into_iter().filter_map(put).collect()
}

/// `Written` as body, with revision and epoch as headers too.
pub(super) fn answer(written: &Written) -> Response {
    let mut response = Json(written.api()).into_response();
    stamp(&mut response, &written.epoch, written.revision);
    response
}

/// Puts epoch and revision into a response's headers.
pub(super) fn stamp(response: &mut Response, epoch: &str, revision: u64) {
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static(REVISION_HEADER),
        HeaderValue::from(revision),
    );
    if let Ok(epoch) = HeaderValue::from_str(epoch) {
        headers.insert(HeaderName::from_static(EPOCH_HEADER), epoch);
    }
}
