//! Tokens: made, listed, deleted. A secret is shown once.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    Name,
    api::{NewToken, Page, Role, TokenInfo, TokenSecret, Written},
    problem::Code,
};

use super::{
    Api,
    extract::{Input, Key, Params},
    objects,
    openapi::{DoingTo, Reading, Sending},
    page::{self, Wanted},
    problem::ApiError,
};
use crate::{
    auth::{
        TokenHash, new_secret,
        scope::{Administers, Caller},
    },
    change::{Change, Expected, Rejection, SubmitError, TokenRecord},
    state::State as Everything,
    time::now_ms,
};

/// Lists tokens by name, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "tokens",
    params(
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<TokenInfo>), Reading))]
pub(super) async fn list(
    _: Caller<Administers>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let wanted: Wanted<Name> = Wanted::take(&mut params);
    params.finish()?;
    let state = app.core.state();
    let mut behind = state.tokens(wanted.after.as_ref());
    let items: Vec<TokenInfo> = behind
        .by_ref()
        .take(wanted.limit)
        .map(|stored| stored.object.info())
        .collect();
    let last = items.last().filter(|_| behind.next().is_some());
    let next = last.map(|info| page::cursor(&info.name));
    page::values(items, next)
}

/// Makes a token; its secret is shown this once.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens",
    request_body = NewToken,
    responses((status = 201, description = "It is made.", body = TokenSecret), Sending))]
pub(super) async fn create(
    caller: Caller<Administers>,
    State(app): Api,
    params: Params,
    Input(new): Input<NewToken>,
) -> Result<Response, ApiError> {
    params.finish()?;
    if !new.services.is_empty() && new.role != Role::Agent {
        let fix = "only a token of role `agent` can be bound to services";
        return Err(ApiError::invalid("services", fix));
    }
    if new.name.as_str() == "system" {
        let fix = "the change log calls the registry itself `system`; take another name";
        return Err(ApiError::invalid("name", fix));
    }
    let secret = new_secret(new.role).map_err(ApiError::internal)?;
    let token = TokenRecord {
        name: new.name,
        role: new.role,
        services: new.services,
        created_at: now_ms(),
        sha256: TokenHash::of(&secret).hex().as_str().to_owned(),
    };
    let info = token.info();
    let put = Change::PutToken {
        token,
        expected: Expected::None,
    };
    let written = app.core.submit(vec![put], caller.author()).await;
    let written = written.map_err(|error| taken(error, &info.name))?;
    let body = Json(TokenSecret {
        info,
        token: secret,
    });
    let mut response = (StatusCode::CREATED, body).into_response();
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    objects::stamp(&mut response, &written.epoch, written.revision);
    Ok(response)
}

/// Tokens are not replaced: a new secret under an old name would surprise whoever has the old one.
fn taken(error: SubmitError, name: &Name) -> ApiError {
    match error {
        SubmitError::Rejected {
            rejection: Rejection::PreconditionRequired { .. },
            ..
        } => ApiError::new(
            Code::Conflict,
            format!("there is a token `{name}` already: delete it first, or take another name"),
        ),
        other => other.into(),
    }
}

/// Deletes a token: it opens nothing from now on.
#[utoipa::path(delete, path = "/v1/tokens/{name}", operation_id = "delete_token", tag = "tokens",
    params(("name" = Name, Path, description = "Its name.")),
    responses((status = 200, description = "It is gone.", body = Written), DoingTo))]
pub(super) async fn delete(
    caller: Caller<Administers>,
    State(app): Api,
    Key(name): Key<Name>,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    if is_last_admin(&app.core.state(), &name) {
        return Err(ApiError::new(
            Code::Conflict,
            format!("`{name}` is the last token of role `admin`: make another one first"),
        ));
    }
    objects::write(&app, &caller, Change::DeleteToken { name }).await
}

fn is_last_admin(state: &Everything, name: &Name) -> bool {
    let mut admins = state
        .tokens(None)
        .map(|stored| &stored.object)
        .filter(|token| token.role == Role::Admin);
    admins.next().is_some_and(|first| first.name == *name) && admins.next().is_none()
}
