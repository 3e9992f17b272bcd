//! A job that dies must not be waited for.

use std::time::Duration;

use cardea_registry_api::InstanceState;

use super::*;
use crate::{config::Config, local::LeaveOutcome, prepare::prepare};

/// An agent whose service is registered, as far as it knows, and the time.
async fn agent() -> (Agent, Instant) {
    let text = "registries = [\"http://127.0.0.1:9\"]\n\
                [[service]]\nname = \"a\"\naddress = \"127.0.0.1:9\"\n";
    let config = Config::from_toml(text).unwrap();
    let prepared = prepare(&config).await.unwrap();
    let mut agent = prepared.into_agent(&config, None);
    let now = Instant::now();
    let life = &mut agent.services[0].life;
    assert_eq!(life.due(now), Some(Action::Probe));
    life.probed(true, now, 0.0);
    assert_eq!(life.due(now), Some(Action::Register(InstanceState::Up)));
    life.registered(InstanceState::Up, now, 0.0);
    (agent, now)
}

fn dies<T>() -> impl Future<Output = T> + Send {
    std::future::poll_fn(|_| panic!("on purpose"))
}

/// What the agent makes of the one job under way.
async fn ends(agent: &mut Agent) {
    let done = agent.jobs.next().await.expect("a job that has ended");
    agent.done(done);
}

#[tokio::test]
async fn a_renewal_that_dies_is_made_again() {
    let (mut agent, _) = agent().await;
    agent.jobs.renew(vec![0], dies());
    assert!(agent.jobs.renewing());
    ends(&mut agent).await;
    assert!(!agent.jobs.renewing());
    // Soon, as after any other failure.
    let next = agent.services[0].life.renew_at().unwrap();
    assert!(next < Instant::now() + Duration::from_secs(1));
    agent.begin_renewal(next);
    assert!(agent.jobs.renewing());
}

#[tokio::test]
async fn a_probe_that_dies_has_failed_and_is_made_again() {
    let (mut agent, now) = agent().await;
    agent.jobs.probe(0, dies());
    let soon = now + Duration::from_mins(1);
    let life = &mut agent.services[0].life;
    assert_eq!(life.due(soon), Some(Action::Probe));
    assert_eq!(agent.next(), agent.services[0].life.renew_at());
    ends(&mut agent).await;
    assert!(agent.status().services[0].probe_failure.is_some());
    assert_eq!(agent.services[0].life.due(soon), Some(Action::Probe));
}

#[tokio::test]
async fn a_registration_that_dies_is_made_again() {
    let (mut agent, now) = agent().await;
    let life = &mut agent.services[0].life;
    life.forgotten(now);
    assert_eq!(life.due(now), Some(Action::Register(InstanceState::Up)));
    let job = agent.jobs.register(0, InstanceState::Up, dies());
    agent.services[0].trouble.registering = Some(job);
    ends(&mut agent).await;
    assert!(agent.status().services[0].registry_failure.is_some());
    let again = agent.services[0]
        .life
        .due(Instant::now() + Duration::from_secs(6));
    assert_eq!(again, Some(Action::Register(InstanceState::Up)));
}

#[tokio::test]
async fn a_deregistration_that_dies_lets_the_stop_go_on() {
    let (mut agent, now) = agent().await;
    agent.services[0].leave(now, None);
    assert!(matches!(
        agent.services[0].life.due(now),
        Some(Action::Leave(_))
    ));
    agent.jobs.leave(0, dies());
    ends(&mut agent).await;
    assert!(agent.all_gone());
    let outcome = agent.services[0].left().outcome;
    assert!(
        matches!(outcome, LeaveOutcome::Unreachable { .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_was_given_up_says_nothing() {
    let (mut agent, _) = agent().await;
    let job = agent
        .jobs
        .register(0, InstanceState::Up, std::future::pending());
    job.abort();
    assert!(agent.jobs.next().await.is_none());
    assert!(agent.services[0].life.told().is_some());
}
