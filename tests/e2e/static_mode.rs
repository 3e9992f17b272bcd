//! `cardea router --static`: a router without a registry.

use std::{fmt::Write, net::SocketAddr};

use cardea_tests::{
    backend::Backend, binary, http1, load::Plan, ports, process::Spawn, scratch::Scratch,
    site::SOON, wait,
};

use crate::gate;

fn file(backends: &[&Backend]) -> String {
    let mut text = "[[service]]\nname = \"search\"\n".to_owned();
    for (number, backend) in backends.iter().enumerate() {
        let (address, weight) = (backend.address(), 4 - number);
        write!(
            text,
            "[[service.instance]]\naddress = \"{address}\"\nweight = {weight}\n"
        )
        .unwrap();
    }
    text + "[[route]]\nhost = \"h0.svc.local\"\nprefix = \"/api/v1\"\nservice = \"search\"\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_served_reloaded_live_and_a_bad_edit_keeps_the_last_good_one() {
    let _machine = gate::shared().await;
    let scratch = Scratch::new("static");
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let path = scratch.write("services.toml", &file(&[&one]));
    let traffic = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
    let admin = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
    let mut router = Spawn::new("router", binary::cardea())
        .args(["router", "--static"])
        .args([&path])
        .args([
            "--listen",
            &traffic.to_string(),
            "--admin",
            &admin.to_string(),
        ])
        .args(["--access-log", "off", "--threads", "1"])
        .start(scratch.path());
    wait::until("it serves the file", SOON, || {
        let end = router.ended();
        assert!(end.is_none(), "{}", router.log_text());
        async {
            http1::get(traffic, "h0.svc.local", "/api/v1/x")
                .await
                .ok()
                .filter(|a| a.status == 200)
        }
    })
    .await;
    for (host, path, status) in [
        ("h0.svc.local", "/api/v1", 200),
        ("h0.svc.local:80", "/api/v1/", 200),
        ("h0.svc.local", "/api/v1x", 404),
        ("h1.svc.local", "/api/v1", 404),
    ] {
        let answer = http1::get(traffic, host, path).await.unwrap();
        assert_eq!(answer.status, status, "{host} {path}: {}", answer.text());
    }

    let mut plan = Plan::new(traffic, "h0.svc.local", 300.0).label("static");
    "/api/v1/echo".clone_into(&mut plan.path);
    let load = plan.start();
    load.pass(100, SOON).await;
    scratch.write("services.toml", &file(&[&one, &two]));
    wait::until_true("the edit is served", SOON, || {
        two.state().stats().requests > 0
    })
    .await;
    let asked = one.state().stats().requests;
    scratch.write("services.toml", &file(&[&two]).replace("weight", "wieght"));
    wait::until_true("the bad edit is named", SOON, || {
        router.log_text().contains("wieght")
    })
    .await;
    load.pass(300, SOON).await;
    assert!(
        one.state().stats().requests > asked + 50,
        "the last good file is no longer served"
    );
    scratch.write("services.toml", &file(&[&two]));
    wait::until("the next good edit is served", SOON, || async {
        let before = one.state().stats().requests;
        load.pass(50, SOON).await;
        (one.state().stats().requests == before).then_some(())
    })
    .await;
    let report = load.stop().await;
    println!("{report}");
    report.assert_clean();
}
