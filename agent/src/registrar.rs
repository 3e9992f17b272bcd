//! Deregistering: the one call that has a deadline and is worth everything before it.

use std::time::{Duration, Instant};

use cardea_registry_api::{InstanceKey, Span, api::Deregistered, client::Client};
use tokio::time::{sleep_until, timeout_at};

use crate::{life::Order, local::LeaveOutcome};

/// How long before its deadline a call asks the registry to answer, so that the answer, with the
/// names of the laggards, is still heard.
const MARGIN: Duration = Duration::from_millis(150);
/// Pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Deregisters an instance and, if the order says so, waits until the routers have let go; tries one
/// registry after another until the deadline.
///
/// With several registries this takes two calls: the first does not wait, so that a registry that
/// hangs is told from one that waits for a router, and costs its time-out instead of all the time.
pub(crate) async fn leave(client: Client, key: InstanceKey, order: Order) -> LeaveOutcome {
    let deadline = order.deadline;
    let mut out = false;
    let mut pause = FIRST_PAUSE;
    let mut reason = "no registry answered in time".to_owned();
    loop {
        let waits = order.acknowledged && (out || client.addresses() == 1);
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = if waits {
            left.saturating_sub(MARGIN)
        } else {
            Duration::ZERO
        };
        let wait = Span::millis(u64::try_from(wait.as_millis()).unwrap_or(0));
        match timeout_at(deadline.into(), client.deregister(&key, wait)).await {
            Ok(Ok(_)) if order.acknowledged && !waits => out = true,
            Ok(Ok(done)) => return outcome(done, wait > Span::secs(0)),
            Ok(Err(error)) if error.is_not_found() => return LeaveOutcome::WasAbsent,
            Ok(Err(error)) if error.is_temporary() => {
                reason = error.to_string();
                tracing::debug!(%key, reason, "deregistering failed, trying again");
                sleep_until((Instant::now() + pause).min(deadline).into()).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Ok(Err(error)) => {
                let reason = error.to_string();
                return LeaveOutcome::Refused { reason };
            }
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return if out {
                LeaveOutcome::Unconfirmed
            } else {
                LeaveOutcome::Unreachable { reason }
            };
        }
    }
}

fn outcome(done: Deregistered, waited: bool) -> LeaveOutcome {
    if !done.pending.is_empty() {
        LeaveOutcome::Pending {
            pending: done.pending,
        }
    } else if waited {
        LeaveOutcome::LetGo {
            acknowledged: done.acknowledged,
        }
    } else {
        LeaveOutcome::Unconfirmed
    }
}
