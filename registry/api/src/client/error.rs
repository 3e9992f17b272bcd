//! What can come back instead of an answer.

use std::{error::Error, fmt, time::Duration};

use crate::{
    Problem,
    problem::{CONTENT_TYPE, Code},
};

/// Why a call brought no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// A registry refused.
    #[error("{}", describe(.problem))]
    Problem {
        /// Its words.
        problem: Box<Problem>,
        /// When it says to ask again.
        retry_after: Option<Duration>,
        /// Which registry.
        address: String,
    },
    /// No registry could be reached, or none answered in time.
    #[error("no registry answered: {}", list(.attempts))]
    Transport {
        /// What happened, in the order it was tried.
        attempts: Vec<Attempt>,
    },
    /// An answer that cannot be understood; it was refused whole.
    #[error("the answer of {address} is not usable: {reason}")]
    Decode {
        /// Which registry.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One vain attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which registry.
    pub address: String,
    /// How it failed.
    pub failure: Failure,
    /// In words.
    pub reason: String,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection: nothing was sent.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke before the answer was complete.
    Broken,
}

impl ClientError {
    /// The kind of problem, if a registry refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Problem { problem, .. } => Some(problem.code),
            _ => None,
        }
    }

    /// When the registry says to ask again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// Whether the same call may succeed later: nobody answered, or only "not now".
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Problem { problem, .. } => matches!(
                problem.code,
                Code::Unavailable | Code::JournalFull | Code::TooManyRequests | Code::Internal
            ),
            Self::Transport { .. } | Self::Decode { .. } => true,
        }
    }
}

fn describe(problem: &Problem) -> String {
    if problem.detail.is_empty() {
        problem.title.clone()
    } else {
        problem.detail.clone()
    }
}

fn list(attempts: &[Attempt]) -> String {
    let words: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    words.join("; ")
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

/// The innermost cause: what the operating system or the peer said.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The problem that a refusing answer carries; a plain one when something in between answered.
pub(super) fn problem_of(status: u16, content_type: Option<&str>, body: &[u8]) -> Problem {
    let typed = content_type.is_some_and(|value| value.trim().starts_with(CONTENT_TYPE));
    let parsed = typed.then(|| serde_json::from_slice::<Problem>(body).ok());
    parsed.flatten().unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
        let mut problem = Problem::new(
            code_of(status),
            format!("answered {status} without saying why: {}", text.trim()),
        );
        problem.status = status;
        problem
    })
}

/// The nearest kind of problem for a bare status.
fn code_of(status: u16) -> Code {
    match status {
        401 => Code::Unauthenticated,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        405 => Code::MethodNotAllowed,
        409 => Code::Conflict,
        412 => Code::PreconditionFailed,
        413 => Code::TooLarge,
        415 => Code::UnsupportedMediaType,
        428 => Code::PreconditionRequired,
        429 => Code::TooManyRequests,
        502..=504 => Code::Unavailable,
        400..=499 => Code::Invalid,
        _ => Code::Internal,
    }
}
