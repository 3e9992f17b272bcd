//! What a call takes: names in the path, parameters behind `?`, and a JSON body; each refused with
//! the field and the fix.

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use bytes::Bytes;
use cardea_registry_api::{
    InstanceId, InstanceKey, Invalid, Name, TrafficKey, invalid::Check, problem::Code, strict,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};

use super::problem::ApiError;

/// The most a body may have, in bytes.
pub(crate) const MAX_BODY: usize = 1 << 20;
/// The most a body of many objects may have, in bytes.
pub(crate) const MAX_BULK: usize = 8 << 20;
/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body, read strictly.
#[derive(Debug)]
pub(crate) struct Input<T, const LIMIT: usize = MAX_BODY>(pub(crate) T);

impl<T, S, const LIMIT: usize> FromRequest<S> for Input<T, LIMIT>
where
    T: DeserializeOwned + Serialize,
    S: Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        let bytes = collect(request.into_body(), LIMIT).await?;
        Ok(Self(strict::from_json(&bytes)?))
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_json(headers) {
        return Ok(());
    }
    let was = match headers.get(header::CONTENT_TYPE) {
        Some(given) => format!("`{}`", essence(given)),
        None => "missing".to_owned(),
    };
    Err(ApiError::new(
        Code::UnsupportedMediaType,
        format!("the header `content-type` is {was}; send application/json"),
    ))
}

/// Whether a body is said to be JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE);
    given.is_some_and(|given| essence(given).eq_ignore_ascii_case("application/json"))
}

/// A media type without its parameters.
fn essence(given: &HeaderValue) -> &str {
    let text = given.to_str().unwrap_or("?");
    text.split(';').next().unwrap_or_default().trim()
}

/// Reads a body of at most so many bytes.
pub(crate) async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            Code::TooLarge,
            format!("the body has more than {limit} bytes; send less at once"),
        )
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::invalid("", "the body is cut off")),
        Err(_) => Err(ApiError::invalid(
            "",
            format!("the body did not come within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

/// What a path names, such as a [`Name`] in `/v1/services/{service}`. (Not called `Path`: utoipa would
/// read it as axum's.)
#[derive(Debug)]
pub(crate) struct Key<T>(pub(crate) T);

/// Something that is read from a path's parameters.
pub(crate) trait FromPath: Sized {
    /// Reads it; wrong parameters are recorded by name.
    fn from_path(params: &RawPathParams) -> Result<Self, Invalid>;
}

impl<T: FromPath, S: Send + Sync> FromRequestParts<S> for Key<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("", "the path is not UTF-8 once decoded"))?;
        Ok(Self(T::from_path(&params)?))
    }
}

fn param<T>(params: &RawPathParams, name: &str, check: &mut Check) -> Option<T>
where
    T: FromStr<Err: Display>,
{
    let text = params
        .iter()
        .find_map(|(key, value)| (key == name).then_some(value))
        .unwrap_or_default();
    let parsed = text.parse().map_err(|e: T::Err| e.to_string());
    check.merge(name, parsed.map_err(|e| Invalid::field("", e)))
}

/// The only parameter of the path, or the last, is a name.
impl FromPath for Name {
    fn from_path(params: &RawPathParams) -> Result<Self, Invalid> {
        let (name, text) = params.iter().last().unwrap_or_default();
        text.parse()
            .map_err(|e: <Self as FromStr>::Err| Invalid::field(name, e.to_string()))
    }
}

impl FromPath for InstanceKey {
    fn from_path(params: &RawPathParams) -> Result<Self, Invalid> {
        let mut check = Check::default();
        let cluster: Option<Name> = param(params, "cluster", &mut check);
        let service: Option<Name> = param(params, "service", &mut check);
        let id: Option<InstanceId> = param(params, "id", &mut check);
        check.finish()?;
        match (cluster, service, id) {
            (Some(cluster), Some(service), Some(id)) => Ok(Self {
                cluster,
                service,
                id,
            }),
            _ => Err(Invalid::field("", "the path names no instance")),
        }
    }
}

/// `/v1/clusters/{cluster}[/services/{service}]/traffic`.
impl FromPath for TrafficKey {
    fn from_path(params: &RawPathParams) -> Result<Self, Invalid> {
        let mut check = Check::default();
        let cluster: Option<Name> = param(params, "cluster", &mut check);
        let of_service = params.iter().any(|(key, _)| key == "service");
        let service: Option<Name> = of_service
            .then(|| param(params, "service", &mut check))
            .flatten();
        check.finish()?;
        let cluster = cluster.ok_or_else(|| Invalid::field("", "the path names no cluster"))?;
        Ok(Self { cluster, service })
    }
}

/// `/v1/routers/{cluster}/{id}`.
#[derive(Debug)]
pub(crate) struct RouterKey {
    pub(crate) cluster: Name,
    pub(crate) id: RouterId,
}

/// A router's id: 1–128 visible ASCII characters without `/`; that of a router of another cluster, which
/// asks for this one's instances, has its cluster and a `/` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouterId(pub(crate) String);

impl FromStr for RouterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'/';
        let (home, id) = match text.split_once('/') {
            Some((home, id)) => (Some(home), id),
            None => (None, text),
        };
        if (1..=128).contains(&id.len())
            && id.bytes().all(plain)
            && home.is_none_or(|home| home.parse::<Name>().is_ok())
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(
                "a router's id is 1 to 128 visible ASCII characters without `/`, after its cluster and a `/` \
                 if that is another one",
            )
        }
    }
}

impl FromPath for RouterKey {
    fn from_path(params: &RawPathParams) -> Result<Self, Invalid> {
        let mut check = Check::default();
        let cluster = param(params, "cluster", &mut check);
        let id = param(params, "id", &mut check);
        check.finish()?;
        match (cluster, id) {
            (Some(cluster), Some(id)) => Ok(Self { cluster, id }),
            _ => Err(Invalid::field("", "the path names no router")),
        }
    }
}

/// The parameters behind `?`. Handlers take out what they know; what is left is refused.
#[derive(Debug)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    check: Check,
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Params {
    fn parse(query: &str) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        Self {
            pairs,
            known: Vec::new(),
            check: Check::default(),
        }
    }

    /// Takes a parameter out; absent and empty are the same.
    pub(crate) fn take<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        self.known.push(name);
        let mut text = None;
        self.pairs.retain_mut(|(key, value)| {
            let hit = key == name;
            if hit && text.is_none() {
                text = Some(std::mem::take(value));
                return false;
            }
            self.check
                .ensure(!hit, name, "it stands twice; give it once");
            !hit
        });
        let text = text.filter(|text| !text.is_empty())?;
        let parsed = text.parse().map_err(|e: T::Err| e.to_string());
        self.check
            .merge(name, parsed.map_err(|e| Invalid::field("", e)))
    }

    /// Takes a switch out: absent is `false`.
    pub(crate) fn switch(&mut self, name: &'static str) -> bool {
        let given: Option<String> = self.take(name);
        let value = given.as_deref().map(str::parse);
        let wrong = matches!(value, Some(Err(_)));
        self.check.ensure(!wrong, name, "write true or false");
        matches!(value, Some(Ok(true)))
    }

    /// Records what is wrong with a parameter unless `ok`.
    pub(crate) fn ensure(&mut self, ok: bool, name: &str, message: &str) {
        self.check.ensure(ok, name, message);
    }

    /// Refuses what was wrong or is not known.
    pub(crate) fn finish(mut self) -> Result<(), Invalid> {
        for (name, _) in &self.pairs {
            let message = match strict::nearest(name, self.known.iter().copied()) {
                Some(near) => format!("unknown parameter; did you mean `{near}`?"),
                None if self.known.is_empty() => "unknown parameter; remove it".to_owned(),
                None => format!("unknown parameter; known here: {}", self.known.join(", ")),
            };
            let shown: String = name.chars().take(80).collect();
            self.check.ensure(false, &shown, message);
        }
        self.check.finish()
    }
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::Span;

    use super::*;

    #[test]
    fn parameters_are_read_strictly() {
        let mut params = Params::parse("wait=8s&full=true&cluster=");
        assert_eq!(params.take("wait"), Some(Span::secs(8)));
        assert!(params.switch("full"));
        assert_eq!(params.take::<Name>("cluster"), None);
        params.finish().unwrap();

        let mut params = Params::parse("wiat=8s&full=yes&limit=x&limit=2&cluster=A%20b");
        let _: Option<Span> = params.take("wait");
        params.switch("full");
        let _: Option<u32> = params.take("limit");
        let _: Option<Name> = params.take("cluster");
        let errors = params.finish().unwrap_err().errors;
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["full", "limit", "limit", "cluster", "wiat"]);
        assert_eq!(errors[4].message, "unknown parameter; did you mean `wait`?");
    }
}
