//! What an agent has under way. Each job says what it is for when it begins, and exactly one
//! [`Done`] comes of it however it ends: should one panic, its service hears of a failure, tries
//! again, and waits for nothing that will never come.

use std::{collections::HashMap, future::Future};

use cardea_registry_api::{
    InstanceState,
    api::{Renewed, Written},
    client::{Attempt, ClientError, Failure},
};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::local::LeaveOutcome;

/// How a job ended. The number is the service's.
#[derive(Debug)]
pub(super) enum Done {
    Probed(usize, Result<(), String>),
    Warmed(usize, Result<(), String>),
    Registered(usize, InstanceState, Result<Written, ClientError>),
    Renewed(Vec<usize>, Result<Renewed, ClientError>),
    Left(usize, LeaveOutcome),
}

/// What a job is for.
#[derive(Debug)]
enum Job {
    Probe(usize),
    WarmUp(usize),
    Register(usize, InstanceState),
    Renew(Vec<usize>),
    Leave(usize),
}

/// What comes of a job by itself.
#[derive(Debug)]
enum Said {
    Asked(Result<(), String>),
    Registered(Result<Written, ClientError>),
    Renewed(Result<Renewed, ClientError>),
    Left(LeaveOutcome),
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    set: JoinSet<Said>,
    /// One entry for each task of the set.
    jobs: HashMap<Id, Job>,
}

impl Jobs {
    /// Begins to ask whether a service is ready.
    pub(super) fn probe(
        &mut self,
        service: usize,
        ask: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.begin(Job::Probe(service), async { Said::Asked(ask.await) });
    }

    /// Begins to ask whether a service is warm.
    pub(super) fn warm_up(
        &mut self,
        service: usize,
        ask: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.begin(Job::WarmUp(service), async { Said::Asked(ask.await) });
    }

    /// Begins to register a service; it may be given up.
    pub(super) fn register(
        &mut self,
        service: usize,
        state: InstanceState,
        call: impl Future<Output = Result<Written, ClientError>> + Send + 'static,
    ) -> AbortHandle {
        self.begin(Job::Register(service, state), async {
            Said::Registered(call.await)
        })
    }

    /// Begins to renew services' leases.
    pub(super) fn renew(
        &mut self,
        services: Vec<usize>,
        call: impl Future<Output = Result<Renewed, ClientError>> + Send + 'static,
    ) {
        self.begin(Job::Renew(services), async { Said::Renewed(call.await) });
    }

    /// Begins to deregister a service.
    pub(super) fn leave(
        &mut self,
        service: usize,
        call: impl Future<Output = LeaveOutcome> + Send + 'static,
    ) {
        self.begin(Job::Leave(service), async { Said::Left(call.await) });
    }

    /// Whether leases are being renewed now.
    pub(super) fn renewing(&self) -> bool {
        self.jobs.values().any(|job| matches!(job, Job::Renew(_)))
    }

    /// What comes of the next job that ends; none: none is under way. One that was given up says
    /// nothing.
    pub(super) async fn next(&mut self) -> Option<Done> {
        loop {
            let (id, ended) = match self.set.join_next_with_id().await? {
                Ok((id, said)) => (id, Ok(said)),
                Err(error) => (error.id(), Err(error)),
            };
            let Some(job) = self.jobs.remove(&id) else {
                continue;
            };
            match ended {
                Err(error) if error.is_cancelled() => {}
                ended => return Some(done(job, ended)),
            }
        }
    }

    fn begin(
        &mut self,
        job: Job,
        work: impl Future<Output = Said> + Send + 'static,
    ) -> AbortHandle {
        let task = self.set.spawn(work);
        self.jobs.insert(task.id(), job);
        task
    }
}

fn done(job: Job, ended: Result<Said, JoinError>) -> Done {
    let reason = match &ended {
        Err(error) => {
            tracing::error!(?job, %error, "a job of the agent died");
            format!("the agent itself failed: {error}")
        }
        // No job says what belongs to another kind; if it did, it would have failed.
        Ok(_) => "the agent itself failed: mixed up".to_owned(),
    };
    match (job, ended) {
        (Job::Probe(service), Ok(Said::Asked(asked))) => Done::Probed(service, asked),
        (Job::Probe(service), _) => Done::Probed(service, Err(reason)),
        (Job::WarmUp(service), Ok(Said::Asked(asked))) => Done::Warmed(service, asked),
        (Job::WarmUp(service), _) => Done::Warmed(service, Err(reason)),
        (Job::Register(service, state), Ok(Said::Registered(written))) => {
            Done::Registered(service, state, written)
        }
        (Job::Register(service, state), _) => Done::Registered(service, state, Err(broken(reason))),
        (Job::Renew(services), Ok(Said::Renewed(renewed))) => Done::Renewed(services, renewed),
        (Job::Renew(services), _) => Done::Renewed(services, Err(broken(reason))),
        (Job::Leave(service), Ok(Said::Left(outcome))) => Done::Left(service, outcome),
        (Job::Leave(service), _) => Done::Left(service, LeaveOutcome::Unreachable { reason }),
    }
}

/// As an error of the client: worth another try.
fn broken(reason: String) -> ClientError {
    ClientError::Transport {
        attempts: vec![Attempt {
            address: "agent".to_owned(),
            failure: Failure::Broken,
            reason,
        }],
    }
}
