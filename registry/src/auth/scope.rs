//! Which roles a call is open to, written in its handler's signature: a handler takes a
//! [`Caller`] with a scope, and cannot run without one that fits.

use std::{marker::PhantomData, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use cardea_registry_api::{Name, api::Role, problem::Code};

use super::{Identity, TokenHash, bearer, role_name};
use crate::{change::Author, http::problem::ApiError, state::State};

/// Who calls, as the outermost layer found it: what the extractors look at.
#[derive(Debug, Clone)]
pub(crate) struct Found(pub(crate) Result<Identity, &'static str>);

impl Found {
    /// Looks the token up.
    pub(crate) fn from_headers(headers: &http::HeaderMap, state: &State) -> Self {
        Self(bearer(headers).and_then(|secret| {
            state
                .token_by_hash(TokenHash::of(secret).hex().as_str())
                .map(|stored| Identity(Arc::clone(stored)))
                .ok_or("this token is not known (any more); ask an admin for one")
        }))
    }

    /// The token's name, for the log.
    pub(crate) fn name(&self) -> &str {
        self.0.as_ref().map_or("-", |who| who.name().as_str())
    }
}

/// The roles that a call is open to.
pub(crate) trait Scope {
    /// In the order in which they are named to somebody who has none of them.
    const ROLES: &'static [Role];
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident: $($role:ident)+;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name;

        impl Scope for $name {
            const ROLES: &'static [Role] = &[$(Role::$role),+];
        }
    )+};
}

scopes! {
    /// Reads everything but tokens.
    Reads: Viewer Operator Admin;
    /// Writes everything but tokens.
    Writes: Operator Admin;
    /// Manages tokens.
    Administers: Admin;
    /// Reports instances.
    Reports: Agent Operator Admin;
    /// Reads instances; an agent those of its services.
    ReadsInstances: Agent Viewer Operator Admin;
    /// Reads the feed, with the private keys in it.
    Follows: Router Admin;
    /// Speaks as a router.
    IsRouter: Router Operator Admin;
}

/// A caller that the scope lets in.
#[derive(Debug)]
pub(crate) struct Caller<S>(Identity, PhantomData<S>);

impl<S: Scope, T: Sync> FromRequestParts<T> for Caller<S> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &T) -> Result<Self, ApiError> {
        let found = parts.extensions.get::<Found>();
        let who = match found {
            Some(Found(Ok(who))) => who.clone(),
            Some(Found(Err(why))) => return Err(ApiError::unauthenticated(*why)),
            None => {
                return Err(ApiError::internal(
                    "the layer that finds callers is missing",
                ));
            }
        };
        require(&who, S::ROLES)?;
        Ok(Self(who, PhantomData))
    }
}

fn require(who: &Identity, roles: &[Role]) -> Result<(), ApiError> {
    if roles.contains(&who.role()) {
        return Ok(());
    }
    let wanted: Vec<String> = roles
        .iter()
        .map(|role| format!("`{}`", role_name(*role)))
        .collect();
    Err(forbidden(
        who,
        &format!("this needs {}", wanted.join(" or ")),
    ))
}

fn forbidden(who: &Identity, why: &str) -> ApiError {
    ApiError::new(
        Code::Forbidden,
        format!(
            "the token `{}` has the role `{}`; {why}",
            who.name(),
            role_name(who.role())
        ),
    )
}

impl<S> Caller<S> {
    /// As the change log shows it.
    pub(crate) fn author(&self) -> Author {
        Author::named(self.0.name().as_str())
    }

    /// Its role.
    pub(crate) fn role(&self) -> Role {
        self.0.role()
    }

    /// Refuses callers that `T` does not let in, for what a part of a call asks for.
    pub(crate) fn also<T: Scope>(&self, what: &str) -> Result<(), ApiError> {
        require(&self.0, T::ROLES).map_err(|error| error.about(what))
    }

    /// Refuses an agent whose token is bound to other services.
    pub(crate) fn covers(&self, service: &Name) -> Result<(), ApiError> {
        if self.0.covers(service) {
            return Ok(());
        }
        Err(forbidden(
            &self.0,
            &format!("it is bound to other services than `{service}`"),
        ))
    }

    /// Whether the caller sees every service.
    pub(crate) fn covers_all(&self) -> bool {
        self.0.covers_all()
    }
}
