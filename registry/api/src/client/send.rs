//! How a call is sent: to whom, how long, how often.

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderValue, IF_MATCH, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    Client, Precondition,
    error::{Attempt, ClientError, Failure, problem_of, root_cause},
};
use crate::Span;

/// The most an ordinary answer may hold, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// Whether saying a call twice leads to the same as saying it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It does: any failure moves on.
    Safe,
    /// It does not: moves on only while nothing can have been done.
    Unsafe,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) headers: Vec<(reqwest::header::HeaderName, HeaderValue)>,
    pub(super) repeat: Repeat,
    /// What the call itself asks the registry to wait.
    pub(super) wait: Span,
}

/// An answer that is no refusal, its body still to be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) address: String,
}

enum Outcome {
    Answer(Response),
    Refused(ClientError, StatusCode),
    Failed(Attempt),
}

impl Call {
    pub(super) fn new(method: Method, path: &[&str]) -> Self {
        Self {
            method,
            path: path.iter().map(|&segment| segment.to_owned()).collect(),
            query: Vec::new(),
            body: None,
            headers: Vec::new(),
            repeat: Repeat::Safe,
            wait: Span::secs(0),
        }
    }

    pub(super) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.query.push((name, value.to_string()));
        }
        self
    }

    pub(super) fn json<T: Serialize>(mut self, body: &T) -> Self {
        // The contract's types are plain data: writing them cannot fail. Should it, the registry
        // refuses the empty body by name.
        self.body = Some(serde_json::to_vec(body).unwrap_or_default());
        self
    }

    pub(super) fn precondition(mut self, precondition: Precondition) -> Self {
        let value = match precondition {
            Precondition::None => None,
            Precondition::Any => Some("*".to_owned()),
            Precondition::Revision(revision) => Some(format!("\"{revision}\"")),
        };
        if let Some(value) = value.and_then(|text| HeaderValue::from_str(&text).ok()) {
            self.headers.push((IF_MATCH, value));
        }
        // Said again after it was done, the revision it names is no longer the current one.
        if precondition != Precondition::Any {
            self.repeat = Repeat::Unsafe;
        }
        self
    }

    fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&self.path);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut()
                .extend_pairs(self.query.iter().map(|(name, value)| (*name, value)));
        }
        url
    }
}

impl Client {
    /// Sends a call and reads its JSON answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let bytes = self.call_bytes(call).await?;
        let (address, bytes) = bytes;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Decode {
            address,
            reason: e.to_string(),
        })
    }

    /// Sends a call and reads its answer whole. The body counts as part of the attempt: a registry
    /// that dies while it answers is passed over like one that never did.
    pub(super) async fn call_bytes(&self, call: Call) -> Result<(String, Vec<u8>), ClientError> {
        let limit = self.inner.request_timeout.duration() + call.wait.duration();
        self.fail_over(&call, |answer| async {
            match timeout(limit, read(answer.response, MAX_ANSWER, limit)).await {
                Ok(Ok(bytes)) => Ok((answer.address, bytes)),
                Ok(Err(failed)) => Err(failed),
                Err(_) => Err(ReadError::Failed(
                    Failure::Timeout,
                    "the answer took too long".to_owned(),
                )),
            }
        })
        .await
    }

    /// Tries one registry after another, beginning with the one that answered last.
    pub(super) async fn fail_over<T, F, R>(&self, call: &Call, read: F) -> Result<T, ClientError>
    where
        F: Fn(Answer) -> R,
        R: Future<Output = Result<T, ReadError>>,
    {
        let count = self.inner.addresses.len();
        let start = self.inner.current.load(Ordering::Relaxed);
        let mut attempts = Vec::new();
        let mut refusal = None;
        for step in 0..count {
            let index = (start + step) % count;
            // A connection kept from an earlier call may break under this one, as its registry has
            // been restarted since: that deserves a second, fresh one.
            for fresh in [false, true] {
                let address = self.name_of(index);
                let attempt = match self.attempt(call, index).await {
                    Outcome::Answer(response) => {
                        let answer = Answer { response, address };
                        match read(answer).await {
                            Ok(value) => {
                                self.inner.current.store(index, Ordering::Relaxed);
                                return Ok(value);
                            }
                            Err(ReadError::Unusable(reason)) => {
                                let next = (index + 1) % count;
                                self.inner.current.store(next, Ordering::Relaxed);
                                let address = self.name_of(index);
                                return Err(ClientError::Decode { address, reason });
                            }
                            Err(ReadError::Failed(failure, reason)) => Attempt {
                                address: self.name_of(index),
                                failure,
                                reason,
                            },
                        }
                    }
                    Outcome::Refused(error, status) => {
                        // 503 says that nothing was done; behind 502 and 504 something may have been.
                        let elsewhere = match call.repeat {
                            Repeat::Safe => matches!(status.as_u16(), 502..=504),
                            Repeat::Unsafe => status.as_u16() == 503,
                        };
                        if !elsewhere {
                            self.inner.current.store(index, Ordering::Relaxed);
                            return Err(error);
                        }
                        refusal = refusal.or(Some(error));
                        break;
                    }
                    Outcome::Failed(attempt) => attempt,
                };
                let failure = attempt.failure;
                attempts.push(attempt);
                if failure != Failure::Connect && call.repeat == Repeat::Unsafe {
                    return Err(ClientError::Transport { attempts });
                }
                if failure != Failure::Broken || fresh {
                    break;
                }
            }
        }
        // Why a registry refuses says more than that another is not there.
        Err(refusal.unwrap_or(ClientError::Transport { attempts }))
    }

    fn name_of(&self, index: usize) -> String {
        let url = self.inner.addresses[index].as_str();
        url.trim_end_matches('/').to_owned()
    }

    /// One attempt at one registry, up to the head of its answer.
    async fn attempt(&self, call: &Call, index: usize) -> Outcome {
        let url = call.url(&self.inner.addresses[index]);
        let mut request = self.inner.http.request(call.method.clone(), url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let limit = self.inner.request_timeout.duration() + call.wait.duration();
        let failed = |failure, reason| {
            Outcome::Failed(Attempt {
                address: self.name_of(index),
                failure,
                reason,
            })
        };
        let response = match timeout(limit, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let failure = if error.is_connect() {
                    Failure::Connect
                } else if error.is_timeout() {
                    Failure::Timeout
                } else {
                    Failure::Broken
                };
                return failed(failure, root_cause(&error));
            }
            Err(_) => return failed(Failure::Timeout, format!("no answer within {limit:?}")),
        };
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Outcome::Answer(response);
        }
        let retry_after = retry_after(&response);
        let content_type = header(&response, CONTENT_TYPE.as_str());
        let body = match timeout(limit, read(response, MAX_ANSWER, limit)).await {
            Ok(Ok(body)) => body,
            _ => Vec::new(),
        };
        let problem = problem_of(status.as_u16(), content_type.as_deref(), &body);
        let error = ClientError::Problem {
            problem: Box::new(problem),
            retry_after,
            address: self.name_of(index),
        };
        Outcome::Refused(error, status)
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// It did not arrive; another registry may do better.
    Failed(Failure, String),
    /// It arrived and is not what it should be.
    Unusable(String),
}

/// Reads a body of at most `most` bytes whose parts follow each other within `idle`.
pub(super) async fn read(
    mut response: Response,
    most: usize,
    idle: Duration,
) -> Result<Vec<u8>, ReadError> {
    let announced = response.content_length().unwrap_or(0);
    let too_large = || ReadError::Unusable(format!("larger than {most} bytes"));
    if announced > most as u64 {
        return Err(too_large());
    }
    // Not more than a little on somebody else's word.
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0).min(1 << 20));
    loop {
        match timeout(idle, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() > most => return Err(too_large()),
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(error)) => return Err(ReadError::Failed(Failure::Broken, root_cause(&error))),
            Err(_) => {
                let reason = format!("nothing more within {idle:?}");
                return Err(ReadError::Failed(Failure::Timeout, reason));
            }
        }
    }
}

/// A header's value as text.
pub(super) fn header(response: &Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// `Retry-After` in seconds; the form with a date is not used by registries.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = header(response, RETRY_AFTER.as_str())?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}
