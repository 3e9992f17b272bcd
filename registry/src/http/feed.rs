//! The routers' feed: `GET /v1/clusters/{cluster}/snapshot`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cardea_registry_api::{
    Name, Span,
    api::{KINDS_HEADER, ROUTERS_HEADER},
    feed::{CONTENT_TYPE, Coding},
};

use super::{
    Api,
    extract::{Key, Params, RouterId},
    objects::stamp,
    openapi::Reading,
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, Follows, IsRouter},
    core::{Asker, FeedAnswer, FeedRequest},
};

/// The longest long poll.
const MAX_WAIT: Span = Span::secs(60);

/// A cluster's full set, or what changed after a revision; with `after`, waits for something newer.
///
/// `after` and `epoch` prove that the router *applied* that revision.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/snapshot", operation_id = "feed",
    tag = "routers",
    params(
        ("cluster" = Name, Path, description = "Whose set."),
        ("after" = Option<u64>, Query, description = "The revision that the caller has applied."),
        ("epoch" = Option<String>, Query, description = "The epoch of `after`."),
        ("wait" = Option<Span>, Query,
            description = "How long to wait for something newer than `after`, at most 60s; default: not at all."),
        ("router" = Option<String>, Query,
            description = "The router's id; needs role `router`. Only then does `after` count as proof."),
        ("version" = Option<String>, Query, description = "The router's version."),
        ("full" = Option<bool>, Query, description = "The full set, also where a delta would do."),
        ("cardea-plugin-kinds" = Option<String>, Header,
            description = "Of a router: the kinds of plugins that it knows, separated by commas."),
        ("Accept-Encoding" = Option<String>, Header, description = "`zstd`, `gzip` or `identity`."),
    ),
    responses(
        (status = 200, description = "An update.", body = String, content_type = "application/x-ndjson",
            headers(
                ("cardea-revision" = u64, description = "The update leads to this revision."),
                ("cardea-epoch" = String, description = "Its epoch."),
                ("cardea-routers" = u64, description = "To a router: how many of its cluster are live."),
            )),
        (status = 304, description = "Nothing is newer.",
            headers(("cardea-routers" = u64, description = "As above."))),
        Reading,
    ))]
pub(super) async fn snapshot(
    caller: Caller<Follows>,
    State(app): Api,
    Key(cluster): Key<Name>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after: Option<u64> = params.take("after");
    let epoch: Option<String> = params.take("epoch");
    let wait: Span = params.take("wait").unwrap_or_default();
    let router: Option<RouterId> = params.take("router");
    let version: Option<String> = params.take("version");
    let full = params.switch("full");
    params.ensure(wait <= MAX_WAIT, "wait", "at most 60s");
    params.ensure(
        after.is_some() == epoch.is_some(),
        if after.is_some() { "epoch" } else { "after" },
        "`after` and `epoch` go together: give both or neither",
    );
    let short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= 128);
    params.ensure(short(&epoch), "epoch", "at most 128 bytes");
    params.ensure(short(&version), "version", "at most 128 bytes");
    params.finish()?;
    if router.is_some() {
        caller.also::<IsRouter>("router")?;
    }
    let request = FeedRequest {
        cluster,
        after: epoch.zip(after),
        wait: wait.duration(),
        full,
        coding: coding(&headers),
        router: router.map(|RouterId(id)| Asker {
            id,
            version: version.unwrap_or_default(),
            kinds: kinds(&headers),
        }),
    };
    let asked = request.after.clone();
    let as_router = request.router.is_some().then(|| request.cluster.clone());
    // When the client goes away this future is dropped, and the poll with it.
    tokio::select! {
        answer = app.core.feed(request) => {
            let mut response = respond(answer)?;
            if let Some(cluster) = as_router {
                let count = HeaderValue::from(app.core.live_routers(&cluster));
                let name = HeaderName::from_static(ROUTERS_HEADER);
                response.headers_mut().insert(name, count);
            }
            Ok(response)
        },
        () = app.stopping.cancelled() => match asked {
            // Nothing new from here; the router turns to another registry by itself.
            Some((epoch, revision)) => Ok(not_modified(&epoch, revision)),
            None => Err(ApiError::unavailable("the registry is stopping", 1)),
        },
    }
}

fn respond(answer: FeedAnswer) -> Result<Response, ApiError> {
    match answer {
        FeedAnswer::NotModified { epoch, revision } => Ok(not_modified(&epoch, revision)),
        FeedAnswer::Body {
            epoch,
            revision,
            coding,
            bytes,
        } => {
            let mut response = Response::new(bytes.into());
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            if coding != Coding::Identity {
                let coding = HeaderValue::from_static(coding.as_str());
                headers.insert(header::CONTENT_ENCODING, coding);
            }
            let vary = HeaderValue::from_static("accept-encoding");
            headers.insert(header::VARY, vary);
            stamp(&mut response, &epoch, revision);
            Ok(response)
        }
        FeedAnswer::Failed => Err(ApiError::internal("the feed could not be made")),
    }
}

fn not_modified(epoch: &str, revision: u64) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    stamp(&mut response, epoch, revision);
    response
}

/// The kinds of plugins that a router says it knows. Nonsense is as good as silence.
fn kinds(headers: &HeaderMap) -> Option<Arc<[String]>> {
    let text = headers.get(KINDS_HEADER)?.to_str().ok()?;
    let sane = |kind: &&str| (1..=32).contains(&kind.len());
    let kinds = text.split(',').map(str::trim).filter(sane).take(100);
    Some(kinds.map(str::to_owned).collect())
}

/// The best coding that the caller takes: of equal ones the smaller.
fn coding(headers: &HeaderMap) -> Coding {
    let mut best = (0, Coding::Identity);
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    for item in values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
    {
        let (name, quality) = match item.split_once(';') {
            Some((name, parameter)) => (name, quality(parameter)),
            None => (item, 1000),
        };
        let (rank, coding) = match name.trim() {
            name if name.eq_ignore_ascii_case("zstd") => (2, Coding::Zstd),
            name if name.eq_ignore_ascii_case("gzip") => (1, Coding::Gzip),
            _ => continue,
        };
        if quality > 0 && quality * 4 + rank > best.0 {
            best = (quality * 4 + rank, coding);
        }
    }
    best.1
}

/// `q=0.5` in thousandths.
fn quality(parameter: &str) -> u32 {
    let value = parameter.trim().strip_prefix(['q', 'Q']);
    let value = value.and_then(|v| v.trim_start().strip_prefix('='));
    let parsed: Option<f32> = value.and_then(|v| v.trim().parse().ok());
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000 after the clamp"
    )]
    parsed.map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_coding_is_picked() {
        let pick = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            coding(&headers)
        };
        assert_eq!(coding(&HeaderMap::new()), Coding::Identity);
        assert_eq!(pick("gzip, deflate, br, zstd"), Coding::Zstd);
        assert_eq!(pick("zstd;q=0.5, gzip"), Coding::Gzip);
        assert_eq!(pick("zstd;q=0, gzip;q=0"), Coding::Identity);
        assert_eq!(pick("GZIP;q=0.1"), Coding::Gzip);
        assert_eq!(pick("br"), Coding::Identity);
    }
}
