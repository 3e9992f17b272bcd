//! Pick and forward, perhaps again: peers are asked one after another until one answers or there is
//! no more that may be done.

use std::{sync::Arc, time::Instant};

use cardea_registry_api::Name;

use crate::{
    ahead,
    exchange::Exchange,
    grpc,
    http1::body::Means,
    peer::{Failure, Picked},
    pipeline::{
        Connection,
        attempt::{self, Answer, Trouble},
        hop,
        observe::Seen,
        plan::Plan,
        retry::{self, Sent, Verdict},
    },
    refusal::{self, Refusal},
    switches::{Feature, on},
    upstream::{Policy, Upstream},
    worker::Worker,
};

/// What came of it.
#[derive(Debug)]
pub(crate) enum End {
    /// A peer answered: its head has been read.
    Answered(Answered),
    /// The router answers by itself.
    Refused {
        refusal: Refusal,
        /// The last peer asked, if there was one.
        picked: Option<Picked>,
        /// The request may be sent again, to somebody else.
        again: bool,
    },
    /// There is nobody to answer any more.
    ClientGone(Option<Picked>),
}

/// A peer's answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) picked: Picked,
    pub(crate) answer: Answer,
    /// The status alone counted against the peer.
    pub(crate) counted_as_failure: bool,
    /// The request may be sent again, to somebody else.
    pub(crate) again: bool,
}

/// What is known of the tries so far.
#[derive(Debug)]
struct Tries {
    left: u8,
    /// Another group may be asked, once, when nobody of the chosen one has answered.
    spare: bool,
    idempotent: bool,
    kept: bool,
}

impl Tries {
    /// None so far.
    fn of(plan: &Plan<'_>, x: &Exchange) -> Self {
        let left = plan.upstream.policy().retries.attempts;
        Self {
            left,
            spare: left > 0 && plan.spares.iter().any(Option::is_some),
            idempotent: x.request.method.idempotent(),
            kept: true,
        }
    }

    /// Whether the request may be sent once more after this much of it was.
    fn again(&self, sent: Sent) -> bool {
        retry::decide(retry::Failed {
            sent,
            idempotent: self.idempotent,
            kept: self.kept,
            tries_left: 1,
        }) != Verdict::No
    }
}

/// Asks peers until one answers.
pub(crate) async fn forward<'w>(
    worker: &'w Worker,
    conn: &mut Connection,
    x: &mut Exchange,
    plan: &Plan<'_>,
    body: &mut Option<Means<'w>>,
    seen: &mut Seen,
) -> End {
    let policy = plan.upstream.policy();
    let mut now = seen.started;
    if on(Feature::Health) {
        plan.upstream.budget().on_request(now);
    }
    let mut tries = Tries::of(plan, x);
    x.tried.clear();
    let first = pick(worker, x, (plan, plan.upstream), None, now);
    let Some(mut picked) = first.or_else(|| pick_spare(worker, x, plan, &mut tries, now)) else {
        return End::Refused {
            refusal: refusal::NO_PEER,
            picked: None,
            again: true,
        };
    };
    loop {
        hop::mark(x, &picked, &worker.hop);
        // Before a connection is taken: what is known of it must not grow old before it is used. And
        // before the clock is read: the wait is not the peer's, but for the sends of those before it.
        let asked_at = worker.row.join().await.unwrap_or(now);
        let kept = &mut tries.kept;
        let asked = attempt::attempt(worker, conn, x, body, &picked, kept, asked_at).await;
        now = Instant::now();
        let (failure, sent, refusal, answer) = match asked {
            Ok(mut answer) => {
                answer.took = now.saturating_duration_since(answer.asked_at);
                seen.answered(x.response.status, answer.took);
                let status = x.response.status;
                let failure = judge(policy, x);
                let failed = failure.is_some();
                if let Some(failure) = failure {
                    picked.failed(failure, now);
                    worker.metrics.upstream_error(plan.labels(), failure.kind());
                } else if on(Feature::Health) {
                    picked.responded(answer.took, now);
                }
                let again = tries.again(Sent::Something) && x.upload.done();
                let answered = |picked, answer| {
                    End::Answered(Answered {
                        picked,
                        answer,
                        counted_as_failure: failed,
                        again,
                    })
                };
                if !policy.retries_status(status) || answer.upgraded || !x.upload.done() {
                    return answered(picked, answer);
                }
                // The answer stands unless another peer may be asked.
                match next(worker, x, plan, &mut tries, (&picked, Sent::Something), now) {
                    Some(other) => {
                        seen.retries += 1;
                        picked = other;
                        continue;
                    }
                    None => return answered(picked, answer),
                }
            }
            Err(Trouble::ClientGone) => {
                seen.error = Some("client_gone");
                return End::ClientGone(Some(picked));
            }
            Err(Trouble::Refused(refusal)) => {
                return End::Refused {
                    refusal,
                    picked: Some(picked),
                    again: false,
                };
            }
            Err(Trouble::Local(error)) => {
                tracing::warn!(%error, peer = picked.peer().authority(), "cannot connect: out of resources");
                worker.make_do();
                seen.error = Some("local");
                return End::Refused {
                    refusal: refusal::ALL_FAILED,
                    picked: Some(picked),
                    again: false,
                };
            }
            Err(Trouble::Peer { failure, sent }) => (failure, sent, refusal_for(failure), ()),
        };
        let () = answer;
        picked.failed(failure, now);
        worker.metrics.upstream_error(plan.labels(), failure.kind());
        seen.error = Some(failure.kind());
        match next(worker, x, plan, &mut tries, (&picked, sent), now) {
            Some(other) => {
                seen.retries += 1;
                picked = other;
            }
            None => {
                return End::Refused {
                    refusal,
                    picked: Some(picked),
                    again: tries.again(sent),
                };
            }
        }
    }
}

/// Another peer to try, if the request may be tried again and there is one.
fn next(
    worker: &Worker,
    x: &mut Exchange,
    plan: &Plan<'_>,
    tries: &mut Tries,
    (failed, sent): (&Picked, Sent),
    now: Instant,
) -> Option<Picked> {
    let verdict = retry::decide(retry::Failed {
        sent,
        idempotent: tries.idempotent,
        kept: tries.kept,
        tries_left: tries.left.max(tries.spare.into()),
    });
    if verdict == Verdict::No {
        return None;
    }
    // The last try goes to another cluster, if it may: the one that failed may be gone as a whole, before
    // all of its peers are marked.
    let leave = (tries.left == 1).then(|| &failed.peer().key().cluster);
    let own = (tries.left > 0).then(|| pick(worker, x, (plan, plan.upstream), leave, now));
    let other = match own.flatten() {
        Some(other) => other,
        None => pick_spare(worker, x, plan, tries, now)?,
    };
    let retries = &plan.upstream.policy().retries;
    if verdict == Verdict::WithinBudget
        && !plan
            .upstream
            .budget()
            .try_retry(retries.budget_percent, now)
    {
        return None;
    }
    tries.left = tries.left.saturating_sub(1);
    Some(other)
}

/// A peer of whoever answers where nobody of the chosen group does: a fallback, as far as that group goes.
fn pick_spare(
    worker: &Worker,
    x: &mut Exchange,
    plan: &Plan<'_>,
    tries: &mut Tries,
    now: Instant,
) -> Option<Picked> {
    if !std::mem::take(&mut tries.spare) {
        return None;
    }
    let mut spares = plan.spares.iter().flatten();
    let found = spares.find_map(|upstream| pick(worker, x, (plan, upstream), None, now))?;
    plan.under_way.falls_back();
    Some(found)
}

/// A peer that has not been asked yet.
fn pick(
    worker: &Worker,
    x: &mut Exchange,
    (plan, upstream): (&Plan<'_>, &Arc<Upstream>),
    leave: Option<&Name>,
    now: Instant,
) -> Option<Picked> {
    let mut balancers = worker.balancers.borrow_mut();
    let input = &plan.pick;
    let picked = match upstream.ways() {
        None => balancers.pick(upstream, input, &x.tried, now),
        Some(ways) => balancers.pick_way(upstream, ways, input, (&x.tried, leave), now),
    }?;
    if !upstream.policy().protocol.is_http2() {
        let upcoming = balancers.upcoming(picked.upstream());
        worker.pool.fetch_ahead(upcoming);
    }
    ahead::fetch_ends(picked.peer().authority());
    x.tried.push(picked.number());
    Some(picked)
}

/// What an answer's head alone says against the peer. gRPC's status is there when there is nothing
/// else in the answer.
fn judge(policy: &Policy, x: &Exchange) -> Option<Failure> {
    let status = x.response.status;
    if policy.is_failure(status) {
        return Some(Failure::Status(status));
    }
    if policy.health.grpc_statuses.is_empty() {
        return None;
    }
    let status = grpc::status_of(x.upstream.raw(), &x.response)?;
    policy
        .is_grpc_failure(status)
        .then_some(Failure::GrpcStatus(status))
}

fn refusal_for(failure: Failure) -> Refusal {
    match failure {
        Failure::ConnectTimeout | Failure::FirstByteTimeout | Failure::IdleTimeout => {
            refusal::TIMED_OUT
        }
        Failure::Connect
        | Failure::Tls
        | Failure::Alpn
        | Failure::Reset
        | Failure::Protocol
        | Failure::Status(_)
        | Failure::GrpcStatus(_) => refusal::ALL_FAILED,
    }
}
