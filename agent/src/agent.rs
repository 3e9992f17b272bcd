//! The agent itself: one loop that owns every service's [`Life`] and the [`Stop`], does what they
//! say, and tells them how it went.
//!
//! `signals, socket, finished jobs, time → Life / Stop → jobs, signals to the process, the end`

use std::{collections::HashSet, time::Instant};

use cardea_registry_api::{
    Name,
    api::{Registration, Renewals, Renewed},
    client::{Client, ClientError},
    problem::Code,
};
use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep_until,
};

use crate::{
    children::Started,
    life::{Action, Order},
    listen::Asked,
    local::{AgentStatus, Phase, Request, Response},
    memory,
    probe::Tools,
    registrar,
    signals::Signals,
    stop::{LAST_WORD, Step, Stop},
};

mod jobs;
mod service;
#[cfg(test)]
mod tests;

use jobs::Done;
pub(crate) use jobs::Jobs;
pub(crate) use service::{Service, Trouble};

/// Somebody who waits until services have left.
#[derive(Debug)]
pub(crate) struct Waiter {
    services: Vec<usize>,
    answer: oneshot::Sender<Response>,
}

/// The agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) cluster: Name,
    pub(crate) tools: Tools,
    pub(crate) services: Vec<Service>,
    pub(crate) child: Option<Started>,
    pub(crate) signal_group: bool,
    pub(crate) stop: Stop,
    pub(crate) jobs: Jobs,
    pub(crate) waiters: Vec<Waiter>,
}

impl Agent {
    /// Runs until the end, and returns the exit status.
    pub(crate) async fn run(
        mut self,
        mut signals: Signals,
        mut asked: mpsc::Receiver<Asked>,
    ) -> i32 {
        let mut settled = std::pin::pin!(tokio::time::sleep(memory::AFTER));
        loop {
            let now = Instant::now();
            self.begin_due(now);
            self.answer_waiters();
            while let Some(step) = self.stop.poll(self.all_gone(), now) {
                if let Some(status) = self.step(step, now) {
                    return status;
                }
            }
            let at = self.next();
            tokio::select! {
                signal = signals.next() => self.signalled(signal),
                Some(done) = self.jobs.next() => self.done(done),
                Some(asked) = asked.recv() => self.asked(asked),
                status = ended(&mut self.child) => {
                    self.child = None;
                    tracing::info!(status, "the process has ended");
                    if let Some(step) = self.stop.ended(status, Instant::now()) {
                        self.step(step, Instant::now());
                    }
                }
                () = async {
                    match at {
                        Some(at) => sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                } => {}
                () = &mut settled, if !settled.is_elapsed() => memory::forget_start(),
            }
        }
    }

    fn signalled(&mut self, signal: Signal) {
        if signal == Signal::SIGCHLD {
            self.tools.children.reap();
            return;
        }
        let now = Instant::now();
        if let Some(step) = self.stop.signalled(signal, now) {
            self.step(step, now);
        }
    }

    /// Does a step of the stop; the last one brings the exit status.
    fn step(&mut self, step: Step, now: Instant) -> Option<i32> {
        match step {
            Step::Leave => {
                tracing::info!("stopping: deregistering first");
                for service in &mut self.services {
                    service.leave(now, None);
                }
            }
            Step::LeaveAtOnce => {
                for service in &mut self.services {
                    let order = Order {
                        acknowledged: false,
                        deadline: now + LAST_WORD,
                    };
                    service.life.leave(order, now);
                }
            }
            Step::Signal(signal) => self.signal(signal, self.signal_group),
            Step::Kill => {
                tracing::warn!("the process did not stop in time and is killed");
                self.signal(Signal::SIGKILL, true);
            }
            Step::End(status) => return Some(status),
        }
        None
    }

    fn signal(&self, signal: Signal, group: bool) {
        if let Some(child) = &self.child {
            self.tools.children.signal(child.pid, signal, group);
        }
    }

    fn all_gone(&self) -> bool {
        self.services
            .iter()
            .all(|service| service.life.phase() == Phase::Gone)
    }

    /// When there may be something to do by time alone.
    fn next(&self) -> Option<Instant> {
        let lives = self
            .services
            .iter()
            .filter_map(|service| service.life.next());
        let renewals = self
            .services
            .iter()
            .filter(|_| !self.jobs.renewing())
            .filter_map(|service| service.life.renew_at());
        lives.chain(renewals).chain(self.stop.next()).min()
    }

    /// Begins everything that is due.
    fn begin_due(&mut self, now: Instant) {
        for index in 0..self.services.len() {
            while let Some(action) = self.services[index].life.due(now) {
                self.begin(index, action);
            }
        }
        self.begin_renewal(now);
    }

    fn begin(&mut self, index: usize, action: Action) {
        let service = &mut self.services[index];
        let client = self.client.clone();
        let key = service.key.clone();
        match action {
            Action::Probe => {
                let (probe, tools) = (service.readiness.clone(), self.tools.clone());
                let ask = async move { probe.ask(&tools).await };
                self.jobs.probe(index, ask);
            }
            Action::WarmUp => {
                let (probe, tools) = (service.warm_up.clone(), self.tools.clone());
                self.jobs.warm_up(index, async move {
                    match probe {
                        Some(probe) => probe.ask(&tools).await,
                        None => Ok(()),
                    }
                });
            }
            Action::Register(state) => {
                let registration = Registration {
                    state,
                    ..service.registration.clone()
                };
                let register = async move { client.register(&key, &registration).await };
                service.trouble.registering = Some(self.jobs.register(index, state, register));
            }
            Action::Leave(order) => {
                if let Some(registering) = service.trouble.registering.take() {
                    registering.abort();
                }
                self.jobs.leave(index, registrar::leave(client, key, order));
            }
        }
    }

    /// Renews every lease as soon as one is due: one call for all.
    fn begin_renewal(&mut self, now: Instant) {
        let held: Vec<(usize, Instant)> = self
            .services
            .iter()
            .enumerate()
            .filter_map(|(index, service)| Some((index, service.life.renew_at()?)))
            .collect();
        if self.jobs.renewing() || held.iter().all(|(_, at)| *at > now) {
            return;
        }
        let held: Vec<usize> = held.into_iter().map(|(index, _)| index).collect();
        let renewals = Renewals {
            instances: held
                .iter()
                .map(|&index| self.services[index].key.clone())
                .collect(),
        };
        let client = self.client.clone();
        self.jobs
            .renew(held, async move { client.renew_many(&renewals).await });
    }

    fn done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Probed(index, result) => {
                let service = &mut self.services[index];
                let before = service.life.phase();
                service.life.probed(result.is_ok(), now, rand::random());
                service.trouble.probe = result.err();
                service.tell_phase(before);
            }
            Done::Warmed(index, result) => {
                let service = &mut self.services[index];
                let before = service.life.phase();
                service.life.warmed(result.is_ok(), now, rand::random());
                service.trouble.probe = result.err();
                service.tell_phase(before);
            }
            Done::Registered(index, state, result) => {
                self.services[index].heard(state, result, now);
            }
            Done::Renewed(indices, result) => self.renewed(&indices, result, now),
            Done::Left(index, outcome) => {
                let service = &mut self.services[index];
                service.gone(outcome);
            }
        }
    }

    fn renewed(&mut self, indices: &[usize], result: Result<Renewed, ClientError>, now: Instant) {
        let renewed = result.map(|renewed| renewed.unknown.into_iter().collect::<HashSet<_>>());
        for &index in indices {
            let service = &mut self.services[index];
            match &renewed {
                // One service may be refused to this token, and the call for all of them with it: each
                // says who it is by itself, which renews too, and from then on stays out if refused.
                Err(error) if indices.len() > 1 && error.code() == Some(Code::Forbidden) => {
                    service.trouble.note(&service.key, error);
                    service.life.doubted(now);
                }
                Ok(unknown) if unknown.contains(&service.key) => {
                    tracing::warn!(instance = %service.key, "forgotten by the registry");
                    service.life.forgotten(now);
                }
                Ok(_) => {
                    service.trouble.clear(&service.key);
                    service.life.renewed(now, rand::random());
                }
                Err(error) => {
                    service.trouble.note(&service.key, error);
                    let after = error.retry_after();
                    service.life.renewal_failed(after, now, rand::random());
                }
            }
        }
    }

    fn asked(&mut self, asked: Asked) {
        let Asked { request, answer } = asked;
        match request {
            Request::Status {} => drop(answer.send(Response::Status(self.status()))),
            Request::Deregister { wait, service } => {
                let chosen: Vec<usize> = (0..self.services.len())
                    .filter(|&index| {
                        let name = &self.services[index].key.service;
                        service.as_ref().is_none_or(|wanted| wanted == name)
                    })
                    .collect();
                if chosen.is_empty() {
                    drop(answer.send(Response::Error(self.no_such_service(service.as_ref()))));
                    return;
                }
                let now = Instant::now();
                for &index in &chosen {
                    self.services[index].leave(now, wait);
                }
                self.waiters.push(Waiter {
                    services: chosen,
                    answer,
                });
            }
        }
    }

    fn no_such_service(&self, wanted: Option<&Name>) -> String {
        let known: Vec<&str> = self
            .services
            .iter()
            .map(|service| service.key.service.as_str())
            .collect();
        format!(
            "this agent has no service `{}`; it has {}",
            wanted.map_or("", Name::as_str),
            known.join(", ")
        )
    }

    fn answer_waiters(&mut self) {
        let services = &self.services;
        let over = self.waiters.extract_if(.., |waiter| {
            waiter
                .services
                .iter()
                .all(|&index| services[index].life.phase() == Phase::Gone)
        });
        for waiter in over {
            let left = waiter.services.iter().map(|&index| services[index].left());
            drop(waiter.answer.send(Response::Deregistered(left.collect())));
        }
    }

    fn status(&self) -> AgentStatus {
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            child: self
                .child
                .as_ref()
                .map(|child| child.pid.as_raw().unsigned_abs()),
            registry: self.client.current_address().to_owned(),
            cluster: self.cluster.clone(),
            services: self.services.iter().map(Service::status).collect(),
        }
    }
}

/// When the process ends, its exit status.
async fn ended(child: &mut Option<Started>) -> i32 {
    match child {
        // A status that got lost counts as a failure.
        Some(child) => (&mut child.ended).await.unwrap_or(1),
        None => std::future::pending().await,
    }
}
