//! The agent around a process: late registration, early deregistration, signals, exit statuses.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use cardea_registry_api::{InstanceState, client::ClientError};
use cardea_tests::{
    http1,
    load::{Plan, check_posts},
    process,
    site::{Agent, AgentSetup, SOON, Site, Token},
    wait,
};
use nix::sys::signal::Signal;

use crate::gate;

async fn state_of(site: &Site, agent: &Agent) -> Option<InstanceState> {
    match site.client().instance(&agent.key()).await {
        Ok(found) => Some(found.object.effective_state()),
        Err(error) if error.is_not_found() => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_when_ready_and_drains_when_the_probe_fails() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("agent-ready").await;
    let warm_up = Duration::from_millis(1500);
    let begun = Instant::now();
    let agent = site.add_agent("shop", |setup| setup.warm_up(warm_up)).await;
    let took = begun.elapsed();
    let address = agent.address();
    assert!(
        took >= warm_up,
        "registered after {took:?}, before it was ready"
    );
    println!("ready after {warm_up:?}, registered after {took:?}");

    let agent = &site.agents[0];
    http1::get(address, "shop", "/__mode?set=status-500")
        .await
        .unwrap();
    wait::until("it drains", SOON, || async {
        (state_of(&site, agent).await == Some(InstanceState::Draining)).then_some(())
    })
    .await;
    http1::get(address, "shop", "/__mode?set=ok").await.unwrap();
    wait::until("it is up again", SOON, || async {
        (state_of(&site, agent).await == Some(InstanceState::Up)).then_some(())
    })
    .await;
}

/// What is asked of a release build is under 15 MiB (`tests/bench/run agent`); here, that what only the start
/// needed of the program is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_less_memory_once_it_has_started() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("agent-memory").await;
    let agent = site.add_agent("shop", |setup| setup).await;
    let pid = agent.process().pid();
    let of_files = || process::status_kib(pid, "RssFile:");
    let started = of_files();
    wait::until_true("a fifth of it is given back", SOON, || {
        of_files() < started * 4 / 5
    })
    .await;
    println!("{started} KiB of files at first, {} then", of_files());
    assert_eq!(
        state_of(&site, &site.agents[0]).await,
        Some(InstanceState::Up)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_again_when_the_registry_has_forgotten_it() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("agent-forgotten").await;
    site.add_agent("shop", |setup| setup).await;
    let key = site.agents[0].key();
    let before = site.client().instance(&key).await.unwrap().revision;
    site.client()
        .deregister(&key, cardea_registry_api::Span::secs(0))
        .await
        .unwrap();
    wait::until("it is registered again", SOON, || async {
        site.client()
            .instance(&key)
            .await
            .ok()
            .filter(|found| found.revision > before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pre_stop_hook_takes_the_instance_out_before_the_process_is_told() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("agent-prestop").await;
    site.route("shop.test", "shop", |_| {}).await;
    site.add_agents("shop", 2).await;
    site.settled().await;
    let load = Plan::new(site.routers[0].traffic(), "shop.test", 300.0)
        .label("prestop")
        .start();
    load.pass(300, SOON).await;

    let status = site.agents[0].command(&["status", "--json"]);
    assert!(status.status.success(), "{status:?}");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["services"][0]["registered"], "up", "{status}");

    // As Kubernetes does it: the hook runs to its end, then TERM goes to the process.
    let hook = site.agents[0].command(&["deregister", "--wait", "8s"]);
    assert!(hook.status.success(), "{hook:?}");
    assert_eq!(state_of(&site, &site.agents[0]).await, None);
    let stats = http1::get(site.agents[0].address(), "shop", "/__stats")
        .await
        .unwrap();
    let asked: serde_json::Value = serde_json::from_slice(&stats.body).unwrap();
    load.pass(300, SOON).await;
    let stats = http1::get(site.agents[0].address(), "shop", "/__stats")
        .await
        .unwrap();
    let later: serde_json::Value = serde_json::from_slice(&stats.body).unwrap();
    assert_eq!(
        asked["requests"], later["requests"],
        "requests after the hook had ended"
    );
    assert!(site.agents[0].stop().await.success());
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
    check_posts(&report, &site.records());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hook_and_stop_wait_for_a_router_that_does_not_answer() {
    const CEILING: Duration = Duration::from_secs(2);
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("agent-waits").await;
    site.route("shop.test", "shop", |_| {}).await;
    let lines = "lease = \"3s\"\nstop_ceiling = \"2s\"\n";
    for _ in 0..2 {
        site.add_agent("shop", |setup| setup.lines(lines)).await;
    }
    site.settled().await;
    site.routers[0].process().freeze().await;

    let begun = Instant::now();
    let hook = site.agents[0].command(&["deregister", "--wait", "2s", "--json"]);
    let took = begun.elapsed();
    assert!(hook.status.success(), "{hook:?}");
    let left: serde_json::Value = serde_json::from_slice(&hook.stdout).unwrap();
    let pending = &left[0]["outcome"]["pending"]["pending"];
    assert_eq!(pending, &serde_json::json!(["router-1"]), "{left}");
    // What the agent keeps back so that the names are still heard.
    let least = CEILING.mul_f64(0.9);
    assert!(took >= least, "the hook waited for {took:?} only");

    let begun = Instant::now();
    site.agents[1].process().signal(Signal::SIGTERM);
    site.agents[1]
        .process()
        .wait_log("that the router has not let go", SOON, |log| {
            log.contains("have not let go in time").then_some(())
        })
        .await;
    let took = begun.elapsed();
    assert!(took >= least, "the stop waited for {took:?} only");
    assert!(site.agents[1].process().wait_end(SOON).await.success());
    let log = site.agents[1].log_text();
    let at = |words: &str| log.find(words).expect(words);
    assert!(
        at("have not let go in time") < at("the process has ended"),
        "the process was told before the time was up:\n{log}"
    );
    site.routers[0].process().thaw();
    println!("a frozen router was waited for {took:?}; ceiling 2 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_on_signals_and_exit_statuses_and_outlasts_no_ceiling() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("agent-status").await;
    // The wrapped process ends by itself.
    let setup = AgentSetup::new("ends", "odd", &site.registry_addresses());
    let mut agent = Agent::start(setup.command(&["/bin/sh", "-c", "exit 7"]), site.dir());
    assert_eq!(agent.process().wait_end(SOON).await.code(), Some(7));

    // A signal that is none of the agent's business reaches the process.
    let (ready, seen) = (site.scratch.join("ready"), site.scratch.join("seen"));
    let script = format!(
        "trap 'echo usr1 > {}' USR1; echo > {}; while :; do sleep 0.05; done",
        seen.display(),
        ready.display()
    );
    let setup = AgentSetup::new("signals", "odd", &site.registry_addresses());
    let mut agent = Agent::start(setup.command(&["/bin/sh", "-c", &script]), site.dir());
    let pid = agent.process().pid();
    // Before it has set its trap the signal would end it.
    wait::until_true("the process has set its trap", SOON, || ready.exists()).await;
    wait::until_true("the signal is passed on", SOON, || {
        process::signal(pid, Signal::SIGUSR1);
        seen.exists()
    })
    .await;
    drop(agent);

    // The registry is dead, and frozen: the stop takes no longer than the ceiling.
    for how in ["dead", "frozen"] {
        let lines = "lease = \"3s\"\nstop_ceiling = \"2s\"\n";
        site.add_agent("shop", |setup| setup.lines(lines)).await;
        if how == "dead" {
            site.registries[0].kill();
        } else {
            site.registries[0].process().freeze().await;
        }
        let begun = Instant::now();
        let status = site.agents.last_mut().unwrap().stop().await;
        let took = begun.elapsed();
        println!(
            "registry {how}: the stop took {:.1} s (ceiling 2 s)",
            took.as_secs_f64()
        );
        assert!(status.success() || status.signal() == Some(15), "{status}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        if how == "dead" {
            site.registries[0].resume().await;
        } else {
            site.registries[0].process().thaw();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_token_registers_its_service_through_the_agent_and_no_other() {
    let _machine = gate::shared().await;
    let mut site = Site::on_sqlite("agent-bound").await;
    site.add_agent("bound", |setup| setup.token(Token::BoundAgent))
        .await;
    let setup = AgentSetup::new("foreign", "foreign", &site.registry_addresses());
    let mut foreign = Agent::start(setup.token(Token::BoundAgent), site.dir());
    foreign
        .process()
        .wait_log("that it may not", SOON, |log| {
            log.contains("bound to other services").then_some(())
        })
        .await;
    let answer = site.client().instance(&foreign.key()).await;
    assert!(
        matches!(&answer, Err(error) if ClientError::is_not_found(error)),
        "{answer:?}"
    );
}
