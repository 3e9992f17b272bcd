//! Registered late: only when the service is ready and warm.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{Scene, status, until},
    registry::{Mood, Registry},
};

const SLEEPER: &str = "exec sleep 60";

/// A service that answers every request with a status that can be changed.
fn http_service() -> (SocketAddr, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let status = Arc::new(AtomicU16::new(503));
    let answered = Arc::clone(&status);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap_or(0);
            let status = answered.load(Ordering::SeqCst);
            // The warm-up page is asked for as soon as the service is ready, and is a redirect.
            let warming = String::from_utf8_lossy(&head[..read]).starts_with("GET /warm ");
            let status = if warming && status == 204 {
                301
            } else {
                status
            };
            drop(
                stream.write_all(
                    format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes(),
                ),
            );
        }
    });
    (address, status)
}

#[test]
fn not_before_it_is_ready_and_warm() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let config = scene.config(&[&registry], "warm_up = { time = \"700ms\" }");
    let _agent = scene.run(&config, SLEEPER);
    let socket = scene.socket();
    until("the socket", || socket.exists().then_some(()));
    until("a failed probe", || {
        status(&socket).services[0].probe_failure.clone()
    });
    let ready = Instant::now();
    scene.write("ready", "");
    let call = registry.call("PUT", 0);
    assert!(call.at >= ready + Duration::from_millis(700));
    assert_eq!(call.body["state"], "up");
    assert_eq!(call.body["address"], "127.0.0.1:9001");
    let want = "/v1/clusters/default/services/search/instances/127.0.0.1:9001";
    assert_eq!(call.path, want);
    assert_eq!(registry.calls("PUT"), 1);
}

#[test]
fn drains_while_the_probe_fails() {
    let (scene, registry) = (Scene::new(), Registry::start());
    scene.write("ready", "");
    let _agent = scene.run(&scene.config(&[&registry], ""), SLEEPER);
    registry.registered("up");
    std::fs::remove_file(scene.path("ready")).unwrap();
    registry.registered("draining");
    scene.write("ready", "");
    registry.registered("up");
    assert_eq!(registry.calls("DELETE"), 0);
}

#[test]
fn http_with_the_expected_statuses_and_a_warm_up_url() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let (address, answers) = http_service();
    let config = format!(
        "{}\n[[service]]\nname = \"search\"\naddress = \"{address}\"\n\
         probe = {{ http = \"/ready\", statuses = [204, 205], interval = \"100ms\", failures = 1 }}\n\
         warm_up = {{ url = \"http://{address}/warm\" }}\n",
        scene.head(&[&registry])
    );
    let _agent = scene.serve(&config);
    let socket = scene.socket();
    until("the socket", || socket.exists().then_some(()));
    let failure = until("a failed probe", || {
        status(&socket).services[0].probe_failure.clone()
    });
    assert!(failure.contains("status 503"), "{failure}");
    answers.store(200, Ordering::SeqCst);
    until("an unexpected status", || {
        let failure = status(&socket).services[0].probe_failure.clone();
        failure.filter(|text| text.contains("status 200"))
    });
    answers.store(204, Ordering::SeqCst);
    until("ready, not warm", || {
        (status(&socket).services[0].phase == cardea_agent::Phase::Warming).then_some(())
    });
    assert_eq!(registry.calls("PUT"), 0);
    answers.store(205, Ordering::SeqCst);
    registry.registered("up");
}

#[test]
fn tcp_to_the_service_itself_when_nothing_is_said() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let config = format!(
        "{}\n[[service]]\nname = \"search\"\nport = {}\n",
        scene.head(&[&registry]),
        address.port()
    );
    let _agent = scene.serve(&config);
    let socket = scene.socket();
    until("the socket", || socket.exists().then_some(()));
    let failure = until("a failed probe", || {
        status(&socket).services[0].probe_failure.clone()
    });
    assert!(failure.contains("refused"), "{failure}");
    let _service = TcpListener::bind(address).unwrap();
    registry.registered("up");
    let call = registry.call("PUT", 0);
    assert_eq!(
        call.body["address"],
        address.to_string(),
        "the host is found out"
    );
}

#[test]
fn a_probe_that_takes_too_long_is_killed_with_all_it_started() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let config = format!(
        "{}\n[[service]]\nname = \"search\"\naddress = \"127.0.0.1:9001\"\n\
         probe = {{ exec = [\"sh\", \"-c\", \"echo $$ > $D/probe; sleep 50 & echo $! > $D/started; wait\"], timeout = \"200ms\" }}\n",
        scene.head(&[&registry])
    );
    let _agent = scene.serve(&config);
    let socket = scene.socket();
    until("the socket", || socket.exists().then_some(()));
    let failure = until("a failed probe", || {
        status(&socket).services[0].probe_failure.clone()
    });
    assert!(failure.contains("not done within 200ms"), "{failure}");
    let started: u32 = scene.read("started").trim().parse().unwrap();
    until("it is gone", || {
        let command = std::fs::read_to_string(format!("/proc/{started}/comm"));
        (!command.is_ok_and(|name| name == "sleep\n")).then_some(())
    });
}

#[test]
fn a_registry_that_comes_late_or_refuses_never_harms_the_process() {
    let scene = Scene::new();
    let registry = Registry::start();
    registry.set(|state| state.mood = Mood::Refusing(503));
    scene.write("ready", "");
    let mut agent = scene.run(&scene.config(&[&registry], ""), SLEEPER);
    registry.until("a few attempts", |state| {
        (state.calls.len() >= 3).then_some(())
    });
    let socket = scene.socket();
    assert!(status(&socket).services[0].registry_failure.is_some());
    registry.set(|state| state.mood = Mood::Well);
    registry.registered("up");
    assert!(agent.runs());
    until("the failure is over", || {
        let failure = status(&socket).services[0].registry_failure.clone();
        failure.is_none().then_some(())
    });
}
