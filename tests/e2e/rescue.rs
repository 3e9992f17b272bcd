//! Plugins that stand beside a service: a fallback while every instance is killed, and copies to a
//! target that has stopped in its tracks, both under load and changed while it runs.

use std::{fmt::Write, fs, net::SocketAddr};

use cardea_tests::{
    backend::Backend,
    binary, http1,
    load::Plan,
    ports,
    process::{Process, Spawn},
    scratch::Scratch,
    site::SOON,
    wait,
};

use crate::gate;

struct Router {
    process: Process,
    traffic: SocketAddr,
    admin: SocketAddr,
}

impl Router {
    fn start(scratch: &Scratch, more: &[&str]) -> Self {
        let traffic = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
        let admin = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
        let process = Spawn::new("router", binary::cardea())
            .args(["router", "--static"])
            .args([scratch.path().join("services.toml")])
            .args([
                "--listen",
                &traffic.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .args(["--access-log", "off", "--threads", "1"])
            .args(more)
            .start(scratch.path());
        Self {
            process,
            traffic,
            admin,
        }
    }

    async fn text(&self, path: &str) -> String {
        let answer = http1::get(self.admin, "admin", path).await;
        answer.map(|answer| answer.text()).unwrap_or_default()
    }

    /// The sum of the metrics whose lines begin so and have this in them.
    async fn sum(&self, beginning: &str, with: &str) -> f64 {
        let text = self.text("/metrics").await;
        let lines = text.lines();
        let fitting = lines.filter(|line| line.starts_with(beginning) && line.contains(with));
        fitting
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    async fn serves(&self) {
        wait::until("it serves", SOON, || async {
            let answer = http1::get(self.traffic, "h", "/x").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid()))
            .unwrap()
            .count()
    }
}

fn instance(scratch: &Scratch, number: usize) -> (Process, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
    let name = format!("instance-{number}");
    let process = Spawn::new(&name, binary::find("cardea-test-backend"))
        .args(["--listen", &address.to_string(), "--name", &name])
        .start(scratch.path());
    (process, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_is_killed_and_no_caller_sees_it() {
    let _machine = gate::alone().await;
    let scratch = Scratch::new("rescue");
    let mut instances: Vec<_> = (0..3).map(|number| instance(&scratch, number)).collect();
    let mut addresses = String::new();
    for (_, address) in &instances {
        writeln!(addresses, "[[service.instance]]\naddress = \"{address}\"").unwrap();
    }
    let file = |body: &str| {
        format!(
            "[[service]]\nname = \"shop\"\n{addresses}\
             [[route]]\nid = \"shop\"\nhost = \"*\"\nservice = \"shop\"\n\
             [[fallback]]\nname = \"sorry\"\ntext = \"{body}\"\n\
             [[plugin]]\nname = \"rescue\"\n[plugin.fallback]\nbody = \"sorry\"\n"
        )
    };
    scratch.write("services.toml", &file("back soon"));
    let router = Router::start(&scratch, &[]);
    router.serves().await;
    let mut plan = Plan::new(router.traffic, "h", 500.0).gets().label("rescue");
    plan.echo = false;
    let load = plan.start();
    load.pass(500, SOON).await;
    for (process, _) in &mut instances {
        process.kill_now();
        load.pass(500, SOON).await;
    }
    let hidden = "cardea_router_fallback_total";
    assert!(router.sum(hidden, "answer=\"stored\"").await >= 400.0);
    // A change reaches callers while nothing else answers them.
    scratch.write("services.toml", &file("tomorrow"));
    wait::until("the other body is answered", SOON, || async {
        let answer = http1::get(router.traffic, "h", "/x").await.ok()?;
        assert_eq!(answer.header("x-cardea-fallback"), Some("unreachable"));
        (answer.text() == "tomorrow").then_some(())
    })
    .await;
    load.pass(500, SOON).await;
    let report = load.stop().await;
    println!("{report}\n{} hidden", router.sum(hidden, "").await);
    report.assert_clean();
}

/// How many connections to an address are open or being opened. (The router's descriptors say less:
/// the load's own connections come and go with how busy the machine is.)
fn connections_to(address: SocketAddr) -> usize {
    const OPEN: [&str; 2] = ["01", "02"];
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let remote_and_state = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    (table.lines().filter_map(remote_and_state))
        .filter(|(remote, state)| remote.ends_with(&port) && OPEN.contains(&state.as_str()))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_to_a_frozen_target_cost_no_request_and_no_descriptor() {
    let _machine = gate::alone().await;
    let scratch = Scratch::new("mirror");
    let origin = Backend::start("origin").await;
    let (target, address) = instance(&scratch, 0);
    let file = |times: u8| {
        let origin = origin.address();
        format!(
            "[[service]]\nname = \"shop\"\n[[service.instance]]\naddress = \"{origin}\"\n\
             [[route]]\nid = \"shop\"\nhost = \"*\"\nservice = \"shop\"\n\
             [[plugin]]\nname = \"copies\"\n[plugin.mirror]\naddress = \"{address}\"\n\
             times = {times}\ntimeout = \"500ms\"\n"
        )
    };
    scratch.write("services.toml", &file(1));
    let allow = address.to_string();
    let router = Router::start(&scratch, &["--mirror-allow", &allow]);
    router.serves().await;
    let total = "cardea_router_mirror_total";
    let mut plan = Plan::new(router.traffic, "h", 300.0).gets().label("mirror");
    plan.echo = false;
    let load = plan.start();
    wait::until("copies are answered", SOON, || async {
        (router.sum(total, "result=\"answered\"").await > 100.0).then_some(())
    })
    .await;
    let before = router.descriptors();
    target.freeze().await;
    scratch.write("services.toml", &file(10));
    wait::until("copies time out and are dropped", SOON, || async {
        let silent = router.sum(total, "result=\"dropped_silent\"").await;
        (silent > 100.0 && router.sum(total, "result=\"timeout\"").await > 15.0).then_some(())
    })
    .await;
    load.pass(600, SOON).await;
    // Those that waited are let go, and only now and then there is one that finds out whether somebody
    // answers again: no more than two at a time in a worker.
    wait::until("connections are let go", SOON, || async {
        (connections_to(address) <= 4).then_some(())
    })
    .await;
    target.thaw();
    let answered = router.sum(total, "result=\"answered\"").await;
    wait::until("copies are answered again", SOON, || async {
        (router.sum(total, "result=\"answered\"").await > answered + 100.0).then_some(())
    })
    .await;
    scratch.write("services.toml", &file(1));
    let report = load.stop().await;
    println!(
        "{report}\n{}",
        router
            .text("/metrics")
            .await
            .lines()
            .filter(|l| l.starts_with(total))
            .collect::<Vec<_>>()
            .join("\n")
    );
    report.assert_clean();
    drop(target);
    wait::until("no connection is left over", SOON, || async {
        (router.descriptors() <= before).then_some(())
    })
    .await;
}
