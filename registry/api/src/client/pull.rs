//! The feed: pulling a cluster's set.

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, HeaderValue};

use super::{
    Client, ClientError,
    send::{Answer, Call, ReadError, header, read},
};
use crate::{
    Name, Span,
    api::{EPOCH_HEADER, KINDS_HEADER, REVISION_HEADER, ROUTERS_HEADER},
    feed::{Coding, MAX_BYTES, Update},
    plugin::Kind,
};

/// What to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Whose set.
    pub cluster: Name,
    /// What the router has applied: the proof of it, and where the answer may begin. None: nothing.
    pub applied: Option<Position>,
    /// How long the registry may hold the call while there is nothing newer.
    pub wait: Span,
    /// The router's id; none for somebody who only looks, and is not waited for.
    pub router: Option<String>,
    /// The router's program version.
    pub version: String,
    /// Asks for the full set, not a delta.
    pub full: bool,
}

/// A point in a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which history.
    pub epoch: String,
    /// Where in it.
    pub revision: u64,
}

/// The answer to a [`Pull`].
#[derive(Debug)]
pub enum Pulled {
    /// Nothing is newer than what was applied.
    NotModified {
        /// Where the registry stands, if it said so.
        at: Option<Position>,
        /// How many routers of the cluster are live, if the registry said so.
        routers: Option<u64>,
    },
    /// A full set or a delta, undamaged and complete.
    Update {
        /// The update.
        update: Box<Update>,
        /// Its bytes, decompressed: for a full set, also what is kept on disk.
        bytes: Vec<u8>,
        /// As above.
        routers: Option<u64>,
    },
}

impl Client {
    /// `GET /v1/clusters/{c}/snapshot`: the feed. An update that is damaged, cut off, too large or
    /// of an unknown format is refused whole ([`ClientError::Decode`]), and the next call asks
    /// another registry first.
    pub async fn pull(&self, pull: &Pull) -> Result<Pulled, ClientError> {
        let mut call = Call::get(&["v1", "clusters", pull.cluster.as_str(), "snapshot"])
            .query("after", pull.applied.as_ref().map(|at| at.revision))
            .query("epoch", pull.applied.as_ref().map(|at| &at.epoch))
            .query("wait", Some(pull.wait))
            .query("router", pull.router.as_ref())
            .query(
                "version",
                (!pull.version.is_empty()).then_some(&pull.version),
            )
            .query("full", pull.full.then_some(true));
        call.wait = pull.wait;
        call.headers
            .push((ACCEPT_ENCODING, HeaderValue::from_static("zstd, gzip")));
        if pull.router.is_some() {
            let kinds = Kind::ALL.map(Kind::as_str).join(",");
            if let Ok(kinds) = HeaderValue::from_str(&kinds) {
                call.headers
                    .push((HeaderName::from_static(KINDS_HEADER), kinds));
            }
        }
        // The head may take the wait; the body flows from then on.
        let idle = self.inner.request_timeout.duration();
        self.fail_over(&call, |answer| async move { pulled(answer, idle).await })
            .await
    }
}

async fn pulled(answer: Answer, idle: std::time::Duration) -> Result<Pulled, ReadError> {
    let response = answer.response;
    let routers = header(&response, ROUTERS_HEADER).and_then(|text| text.parse().ok());
    if response.status() == reqwest::StatusCode::NOT_MODIFIED {
        let revision = header(&response, REVISION_HEADER).and_then(|text| text.parse().ok());
        let at = header(&response, EPOCH_HEADER)
            .zip(revision)
            .map(|(epoch, revision)| Position { epoch, revision });
        return Ok(Pulled::NotModified { at, routers });
    }
    let unusable = |e: crate::feed::FeedError| ReadError::Unusable(e.to_string());
    let coding = header(&response, CONTENT_ENCODING.as_str());
    let coding = Coding::from_header(coding.as_deref()).map_err(unusable)?;
    let body = read(response, MAX_BYTES, idle).await?;
    let bytes = match coding {
        Coding::Identity => body,
        coding => coding.decode(&body).map_err(unusable)?,
    };
    let update = Box::new(Update::decode(&bytes).map_err(unusable)?);
    Ok(Pulled::Update {
        update,
        bytes,
        routers,
    })
}
