//! JSON Schema of plugins: what forms are built from.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    Name,
    api::{KindSchema, Page},
    plugin::{Kind, schema},
    strict,
};

use super::{
    extract::{Key, Params},
    openapi::{Reading, ReadingOne},
    page,
    problem::ApiError,
};
use crate::auth::scope::{Caller, Reads};

/// What plugins of each kind may say, in the order of their stages.
#[utoipa::path(get, path = "/v1/plugins/schemas", operation_id = "list_plugin_schemas",
    tag = "configuration",
    responses((status = 200, description = "All of them.", body = Page<KindSchema>), Reading))]
pub(super) async fn list(_: Caller<Reads>, params: Params) -> Result<Response, ApiError> {
    params.finish()?;
    page::values(schema::all(), None)
}

/// What a plugin of a kind may say: JSON Schema (2020-12), which refers to nothing outside of itself.
#[utoipa::path(get, path = "/v1/plugins/schemas/{kind}", operation_id = "get_plugin_schema",
    tag = "configuration",
    params(("kind" = Name, Path, description = "The kind, such as `gray`.")),
    responses((status = 200, description = "The schema.", body = Object), ReadingOne))]
pub(super) async fn get(
    _: Caller<Reads>,
    Key(wanted): Key<Name>,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    let known = Kind::ALL.map(Kind::as_str);
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == wanted.as_str());
    let Some(kind) = kind else {
        let near = strict::nearest(wanted.as_str(), known);
        let hint = near.map_or_else(
            || known.join(", "),
            |near| format!("did you mean `{near}`?"),
        );
        return Err(ApiError::not_found("kind of plugin", wanted).about(&hint));
    };
    Ok(Json(schema::of(kind).schema).into_response())
}
