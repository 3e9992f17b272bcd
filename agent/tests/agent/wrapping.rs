//! The wrapped process: signals, exit statuses, orphans, process 1.

use std::{fs, process::Command};

use nix::sys::signal::Signal;

use crate::{
    harness::{Scene, children_of, signal_to, until},
    registry::Registry,
};

const SLEEPER: &str = "touch $D/ready; echo $$ > $D/pid; exec sleep 60";

#[test]
fn its_own_exit_status_is_passed_on_and_it_is_deregistered() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let script = "touch $D/ready; while [ -d $D ] && [ ! -f $D/go ]; do sleep 0.02; done; exit 42";
    let mut agent = scene.run(&scene.config(&[&registry], ""), script);
    registry.registered("up");
    scene.write("go", "");
    assert_eq!(agent.ended().0, 42);
    let call = registry.call("DELETE", 0);
    assert!(
        !call.path.contains("wait"),
        "nobody waits for what is gone already"
    );
    assert!(registry.get(|state| state.instances.is_empty()));
}

#[test]
fn a_process_ended_by_a_signal_is_128_and_its_number() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let mut agent = scene.run(&scene.config(&[&registry], ""), SLEEPER);
    registry.registered("up");
    signal_to(scene.read("pid").trim().parse().unwrap(), Signal::SIGKILL);
    assert_eq!(agent.ended().0, 137);
    assert!(registry.get(|state| state.instances.is_empty()));
}

#[test]
fn a_process_may_end_while_the_registry_is_dead() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let script = "touch $D/ready; while [ -d $D ] && [ ! -f $D/go ]; do sleep 0.02; done; exit 3";
    let mut agent = scene.run(&scene.config(&[&registry], ""), script);
    registry.registered("up");
    drop(registry);
    scene.write("go", "");
    let (status, took) = agent.ended();
    assert_eq!(status, 3);
    assert!(took.as_secs() < 5, "{took:?}");
}

#[test]
fn other_signals_are_passed_on() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let script = "for s in HUP QUIT USR1 USR2 WINCH ALRM CONT; do trap \"echo $s >> $D/log\" $s; done; \
                  touch $D/ready; while [ -d $D ]; do sleep 0.02; done";
    let agent = scene.run(&scene.config(&[&registry], ""), script);
    registry.registered("up");
    for signal in [
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGALRM,
        Signal::SIGCONT,
    ] {
        agent.signal(signal);
        scene.until_written("log", &signal.as_str()[3..]);
    }
    assert_eq!(registry.calls("DELETE"), 0);
}

#[test]
fn the_whole_group_gets_signals_if_that_is_wanted() {
    for (more, group) in [("", false), ("signal_group = true\n", true)] {
        let (scene, registry) = (Scene::new(), Registry::start());
        let script = "(trap 'echo grandchild >> $D/log; exit' TERM; touch $D/ready; \
                      while [ -d $D ]; do sleep 0.02; done) & \
                      trap 'echo child >> $D/log; wait; exit 0' TERM; while [ -d $D ]; do sleep 0.02; done";
        let config = format!("{more}{}", scene.config(&[&registry], ""));
        let mut agent = scene.run(&config, script);
        registry.registered("up");
        agent.signal(Signal::SIGTERM);
        scene.until_written("log", "child");
        agent.ended();
        assert_eq!(scene.read("log").contains("grandchild"), group);
    }
}

#[test]
fn it_stands_in_a_group_of_its_own_and_knows_the_socket() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let script = format!("echo $CARDEA_AGENT_SOCKET > $D/socket; {SLEEPER}");
    let agent = scene.run(&scene.config(&[&registry], ""), &script);
    registry.registered("up");
    let group = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after_name = stat.rsplit(')').next().unwrap().to_owned();
        after_name.split_whitespace().nth(2).unwrap().to_owned()
    };
    let child = scene.read("pid").trim().parse().unwrap();
    assert_ne!(group(agent.pid()), group(child));
    assert_eq!(
        scene.read("socket").trim(),
        scene.socket().to_str().unwrap()
    );
}

#[test]
fn orphans_are_taken_in_and_reaped() {
    let (scene, registry) = (Scene::new(), Registry::start());
    // The middle shell ends at once; what it started is an orphan, and then ends too.
    let script = format!(
        "sh -c 'sh -c \"echo \\$\\$ > $D/orphan; while [ -d $D ] && [ ! -f $D/go ]; do sleep 0.02; done\" &'; {SLEEPER}"
    );
    let agent = scene.run(&scene.config(&[&registry], ""), &script);
    registry.registered("up");
    let orphan: u32 = until("the orphan", || scene.read("orphan").trim().parse().ok());
    until("it is taken in", || {
        children_of(agent.pid()).contains(&orphan).then_some(())
    });
    scene.write("go", "");
    until("it is reaped", || {
        (!fs::exists(format!("/proc/{orphan}")).unwrap()).then_some(())
    });
}

#[test]
fn as_process_one_of_its_own_namespace() {
    let through = ["unshare", "--pid", "--fork", "--mount-proc"];
    let possible = Command::new(through[0])
        .args(&through[1..])
        .arg("true")
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs the right to make a pid namespace (root)");
        return;
    }
    let (scene, registry) = (Scene::new(), Registry::start());
    let script = "sh -c 'sh -c \"sleep 0.1; echo orphan >> $D/log\" &'; \
                  trap 'echo told >> $D/log; exit 7' TERM; touch $D/ready; echo $PPID > $D/parent; \
                  while [ -d $D ]; do sleep 0.02; done";
    let config = scene.config(&[&registry], "");
    let mut agent = scene.start(&config, Some(&["sh", "-c", script]), &through);
    registry.registered("up");
    assert_eq!(scene.read("parent").trim(), "1");
    scene.until_written("log", "orphan");
    let inner = children_of(agent.pid())[0];
    until("the orphan is reaped", || {
        let zombie = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
        };
        (!children_of(inner).iter().any(zombie)).then_some(())
    });
    signal_to(inner, Signal::SIGTERM);
    scene.until_written("log", "told");
    assert_eq!(agent.ended().0, 7);
    assert!(registry.get(|state| state.instances.is_empty()));
}

#[test]
fn what_cannot_be_started_is_told_by_the_exit_status() {
    let (scene, registry) = (Scene::new(), Registry::start());
    let config = scene.config(&[&registry], "");
    let mut missing = scene.start(&config, Some(&["/nowhere/program"]), &[]);
    assert_eq!(missing.ended().0, 127);
    assert!(scene.read("stderr").contains("/nowhere/program"));
    scene.write("plain", "");
    let plain = scene.path("plain");
    let mut not_executable = scene.start(&config, Some(&[plain.to_str().unwrap()]), &[]);
    assert_eq!(not_executable.ended().0, 126);
    let bad = config.replace("\"5s\"", "\"61s\"");
    let mut bad = scene.run(&bad, "true");
    assert_eq!(bad.ended().0, 78);
    assert!(scene.read("stderr").contains("service[0].stop_ceiling"));
    assert!(registry.get(|state| state.calls.is_empty()));
}
