//! Records latencies and failures of real runs, for the simulations of whole releases
//! (`registry/src/release/simulated.rs`). Not run with the tests:
//! `cargo nextest run -p cardea-tests --run-ignored only recorded_anew` writes the file anew.

use cardea_registry_api::{Span, client::FiguresQuery, figures::By};
use serde_json::json;

use super::*;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../registry/src/release/recorded.json"
);
/// How many ranks are kept.
const RANKS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes a file of the sources"]
async fn recorded_anew() {
    let _machine = gate::alone().await;
    let mut all = Vec::new();
    for (what, modes) in [
        ("steady", [Mode::Ok, Mode::Ok, Mode::Ok]),
        ("uneven", [Mode::Ok, Mode::Slow(8), Mode::Slow(40)]),
        (
            "flaky",
            [Mode::Failing(10), Mode::Failing(10), Mode::Failing(10)],
        ),
    ] {
        let site = Site::on_sqlite(&format!("record-{what}")).await;
        site.route(HOST, "shop", |_| {}).await;
        let mut backends = Vec::new();
        for (n, mode) in modes.into_iter().enumerate() {
            let backend = Backend::start(&format!("b{n}")).await;
            backend.state().set_mode(mode);
            site.register("shop", &format!("b{n}"), backend.address())
                .await;
            backends.push(backend);
        }
        site.settled().await;
        let load = Plan::new(site.routers[0].traffic(), HOST, 200.0)
            .gets()
            .start();
        load.pass(8000, LONG).await;
        let report = load.stop().await;
        println!("{what}: {report}");
        let query = FiguresQuery {
            service: Some(name("shop")),
            route: None,
            by: By::Service,
            window: Some(Span::secs(60)),
            step: Some(Span::secs(5)),
        };
        let told = site.client().figures(&name(CLUSTER), &query).await.unwrap();
        let windows: Vec<(u64, u64)> = (told.points.iter().flat_map(|point| &point.series))
            .map(|series| (series.requests, series.classes[4]))
            .filter(|(requests, _)| *requests > 0)
            .collect();
        let ranks = (0..RANKS).map(|rank| report.latencies[rank * report.latencies.len() / RANKS]);
        all.push(json!({
            "what": what,
            "latencies_us": ranks.collect::<Vec<_>>(),
            "windows": windows,
        }));
    }
    let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    std::fs::write(FILE, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
}
