//! One service with everything that belongs to it.

use std::time::{Duration, Instant};

use cardea_registry_api::{
    InstanceKey, InstanceState, Span,
    api::{Registration, Written},
    client::ClientError,
};
use tokio::task::AbortHandle;

use crate::{
    life::{Life, Order},
    local::{LeaveOutcome, Left, Phase, ServiceStatus},
    probe::Probe,
};

/// A deregistration that waits for nobody still gets this long to be heard.
const SHORTEST: Duration = Duration::from_millis(250);

/// A service with everything that belongs to it.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) key: InstanceKey,
    pub(crate) registration: Registration,
    pub(crate) readiness: Probe,
    pub(crate) warm_up: Option<Probe>,
    pub(crate) stop_ceiling: Span,
    pub(crate) life: Life,
    pub(crate) trouble: Trouble,
}

/// What goes wrong with a service, and how its leave went.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    pub(super) probe: Option<String>,
    registry: Option<String>,
    pub(super) outcome: Option<LeaveOutcome>,
    pub(super) registering: Option<AbortHandle>,
}

impl Service {
    /// Leaves and waits for the routers, at most as long as was asked or else as configured.
    pub(super) fn leave(&mut self, now: Instant, wait: Option<Span>) {
        let wait = wait.unwrap_or(self.stop_ceiling);
        let order = Order {
            acknowledged: wait > Span::secs(0),
            deadline: now + wait.duration().max(SHORTEST),
        };
        self.life.leave(order, now);
    }

    pub(super) fn heard(
        &mut self,
        state: InstanceState,
        result: Result<Written, ClientError>,
        now: Instant,
    ) {
        self.trouble.registering = None;
        match result {
            Ok(written) => {
                self.trouble.clear(&self.key);
                if self.life.told() != Some(state) {
                    let (revision, durable) = (written.revision, written.durable);
                    let state = state.as_str();
                    tracing::info!(instance = %self.key, state, revision, durable, "registered");
                }
                self.life.registered(state, now, rand::random());
            }
            Err(error) => {
                self.trouble.note(&self.key, &error);
                let refused = !error.is_temporary();
                let after = error.retry_after();
                self.life.failed(refused, after, now, rand::random());
            }
        }
    }

    pub(super) fn gone(&mut self, outcome: LeaveOutcome) {
        let instance = &self.key;
        match &outcome {
            LeaveOutcome::WasAbsent => tracing::info!(%instance, "was not registered"),
            LeaveOutcome::LetGo { acknowledged } => {
                let routers = acknowledged.len();
                tracing::info!(%instance, routers, "deregistered, and every router has let go");
            }
            LeaveOutcome::Pending { pending } => {
                let routers = pending.join(", ");
                tracing::warn!(%instance, routers, "deregistered, but these have not let go in time");
            }
            LeaveOutcome::Unconfirmed => {
                tracing::info!(%instance, "deregistered, without the routers' word");
            }
            LeaveOutcome::Refused { reason } => {
                tracing::error!(%instance, reason, "the registry refuses to deregister it");
            }
            LeaveOutcome::Unreachable { reason } => {
                tracing::error!(%instance, reason, "not deregistered: its lease will lapse");
            }
        }
        self.trouble.outcome = Some(outcome);
        self.life.left();
    }

    pub(super) fn tell_phase(&self, before: Phase) {
        let (phase, instance) = (self.life.phase(), &self.key);
        if phase == before {
            return;
        }
        if let Some(reason) = &self.trouble.probe {
            tracing::warn!(%instance, phase = phase.as_str(), reason, "the probe failed");
        } else {
            tracing::info!(%instance, phase = phase.as_str(), "the service moved on");
        }
    }

    pub(super) fn left(&self) -> Left {
        Left {
            service: self.key.service.clone(),
            id: self.key.id.clone(),
            outcome: self
                .trouble
                .outcome
                .clone()
                .unwrap_or(LeaveOutcome::WasAbsent),
        }
    }

    pub(super) fn status(&self) -> ServiceStatus {
        let ago = self.life.confirmed_at().map(|at| at.elapsed().as_millis());
        ServiceStatus {
            service: self.key.service.clone(),
            id: self.key.id.clone(),
            address: self.registration.address.clone(),
            phase: self.life.phase(),
            registered: self.life.told(),
            confirmed_ms_ago: ago.and_then(|ms| u64::try_from(ms).ok()),
            probe_failure: self.trouble.probe.clone(),
            registry_failure: self.trouble.registry.clone(),
        }
    }
}

impl Trouble {
    /// A call failed. Logged when it is news: an outage is one line, not one a second.
    pub(super) fn note(&mut self, key: &InstanceKey, error: &ClientError) {
        let reason = error.to_string();
        if self.registry.is_none() {
            tracing::warn!(instance = %key, reason, "the registry cannot be told; trying on");
        }
        self.registry = Some(reason);
    }

    pub(super) fn clear(&mut self, key: &InstanceKey) {
        if self.registry.take().is_some() {
            tracing::info!(instance = %key, "the registry answers again");
        }
    }
}
