//! Talking with a running agent.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cardea_agent::{LeaveOutcome, LocalError, Phase, deregister};
use cardea_registry_api::Span;
use nix::sys::signal::Signal;

use crate::{
    harness::{Scene, ask, status, until},
    registry::Registry,
};

const SERVICE: &str = "trap 'exit 7' TERM; touch $D/ready; while [ -d $D ]; do sleep 0.02; done";

#[test]
fn deregisters_for_a_hook_and_then_stops_at_once() {
    let (scene, registry) = (Scene::new(), Registry::start());
    registry.set(|state| state.routers_take = Duration::from_millis(500));
    let mut agent = scene.run(&scene.config(&[&registry], ""), SERVICE);
    registry.registered("up");
    let socket = scene.socket();
    let before = until("the agent knows that it is registered", || {
        let status = status(&socket);
        status.services[0].registered.map(|_| status)
    });
    assert_eq!(before.pid, agent.pid());
    assert_eq!(before.services[0].phase, Phase::Up);
    assert!(before.services[0].confirmed_ms_ago.is_some());

    let began = Instant::now();
    let left = ask(deregister(&socket, Some(Span::secs(3)), None)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500));
    let acknowledged = vec!["r1".to_owned()];
    assert_eq!(left[0].outcome, LeaveOutcome::LetGo { acknowledged });
    let call = registry.call("DELETE", 0);
    assert!(
        call.path.ends_with("?wait=2850ms") || call.path.contains("?wait=28"),
        "{}",
        call.path
    );

    assert!(agent.runs(), "deregistering does not stop the process");
    assert_eq!(status(&socket).services[0].phase, Phase::Gone);
    let again = ask(deregister(&socket, None, None)).unwrap();
    assert_eq!(again, left, "asked again, it says the same");
    agent.signal(Signal::SIGTERM);
    let (code, took) = agent.ended();
    assert_eq!(code, 7);
    assert!(
        took < Duration::from_millis(400),
        "{took:?}: there was nothing to wait for"
    );
    assert_eq!(registry.calls("DELETE"), 1);
    assert!(!socket.exists());
}

#[test]
fn one_service_of_two() {
    let (scene, registry) = (Scene::new(), Registry::start());
    scene.write("ready", "");
    let more = "[[service]]\nname = \"users\"\naddress = \"127.0.0.1:9002\"\nprobe = { exec = [\"true\"] }";
    let _agent = scene.serve(&scene.config(&[&registry], more));
    registry.until("both", |state| (state.instances.len() == 2).then_some(()));
    let socket = scene.socket();
    let users = Some("users".parse().unwrap());
    let left = ask(deregister(&socket, None, users)).unwrap();
    assert_eq!(left.len(), 1);
    let phases: Vec<Phase> = status(&socket).services.iter().map(|s| s.phase).collect();
    assert_eq!(phases, [Phase::Up, Phase::Gone]);

    let other = Some("other".parse().unwrap());
    let error = ask(deregister(&socket, None, other)).unwrap_err();
    assert!(matches!(error, LocalError::Refused(_)));
    assert!(error.to_string().contains("search, users"), "{error}");
}

#[test]
fn a_routers_name_is_told_when_the_time_is_up() {
    let (scene, registry) = (Scene::new(), Registry::start());
    registry.set(|state| state.routers_take = Duration::from_secs(10));
    let _agent = scene.run(&scene.config(&[&registry], ""), SERVICE);
    registry.registered("up");
    let began = Instant::now();
    let left = ask(deregister(&scene.socket(), Some(Span::millis(600)), None)).unwrap();
    let took = began.elapsed();
    let pending = vec!["r1".to_owned()];
    assert_eq!(left[0].outcome, LeaveOutcome::Pending { pending });
    assert!(took < Duration::from_millis(600), "{took:?}");
}

#[test]
fn a_second_agent_does_not_take_a_live_socket_but_a_dead_one() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let config = scene.config(&[&registry], "");
    let first = scene.run(&config, SERVICE);
    registry.registered("up");
    let mut second = scene.run(&config, SERVICE);
    assert_eq!(second.ended().0, 1);
    assert!(scene.read("stderr").contains("another agent is listening"));

    first.signal(Signal::SIGKILL);
    drop(first);
    assert!(scene.socket().exists());
    let third = scene.run(&config, SERVICE);
    let answering = until("the third answers", || {
        ask(cardea_agent::status(&scene.socket())).ok()
    });
    assert_eq!(answering.pid, third.pid());
}

#[test]
fn only_a_socket_that_was_asked_for_must_be_possible() {
    let (scene, registry) = (Scene::new(), Registry::start());
    scene.write("plain", "");
    let dir = scene.path("plain");
    let config = scene.config(&[&registry], "");
    let socket = format!("socket = \"{}\"\n", scene.socket().display());
    let impossible = format!("socket = \"{}/agent.sock\"\n", dir.display());
    let mut agent = scene.run(&config.replace(&socket, &impossible), SERVICE);
    assert_eq!(agent.ended().0, 1);
    assert!(scene.read("stderr").contains("plain/agent.sock"));

    // As an ordinary user to whom nothing belongs, in a directory that is not theirs.
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let nowhere = ["env", "--unset=XDG_RUNTIME_DIR", "--chdir=/proc"];
    let through: Vec<&str> = nobody.into_iter().chain(nowhere).collect();
    let possible = Command::new(through[0])
        .args(&through[1..])
        .arg(std::env::current_exe().unwrap())
        .arg("--list")
        .stdout(Stdio::null())
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs root, and a target directory that others can read");
        return;
    }
    scene.write("ready", "");
    scene.open_to_all();
    let config = config.replace(&socket, "");
    let mut agent = scene.start(&config, Some(&["sh", "-c", "exec sleep 60"]), &through);
    registry.registered("up");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ended().0, 128 + 15);
}

#[test]
fn nobody_there_and_nonsense() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let error = ask(cardea_agent::status(&scene.socket())).unwrap_err();
    assert!(matches!(error, LocalError::NoAgent { .. }));

    let _agent = scene.run(&scene.config(&[&registry], ""), SERVICE);
    registry.registered("up");
    let mut stream = std::os::unix::net::UnixStream::connect(scene.socket()).unwrap();
    stream.write_all(b"{\"call\":\"fly\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(
        answer.contains("error") && answer.contains("fly"),
        "{answer}"
    );
}
