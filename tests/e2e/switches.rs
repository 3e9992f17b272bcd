//! Switches over real processes: two data centres with routers and instances of their own, two
//! registries on one database.

mod apart;
mod centres;
mod commands;
mod moved;
mod spill;
mod trouble;

use std::time::{Duration, Instant};

use cardea_registry_api::{
    Cluster, Name, Span,
    client::{Precondition, SwitchAct},
    switch::{NewSwitch, Switch, SwitchState, Word},
};
use cardea_tests::{
    backend::Backend,
    load::{Load, Plan},
    site::{Router, SOON, Site, Token, client_of, key, name},
    wait,
};

use crate::clusters::serves;

const HOST: &str = "shop.test";
/// From an operator's word to the last router.
const MOVED: Duration = Duration::from_secs(2);
/// For a stage with a short watch: figures come each 5 s.
const STAGE: Duration = Duration::from_mins(1);

/// Two registries, two data centres, the first one with two routers; a backend in each, which says that it
/// can serve so many requests a second.
async fn centres(test: &str, capacity: Option<u32>) -> (Site, Vec<Backend>) {
    let mut site = Site::on_postgres(test, 2, 0).await;
    for centre in ["dc-a", "dc-b"] {
        let cluster = Cluster::named(name(centre));
        site.client()
            .put_cluster(&cluster, Precondition::None)
            .await
            .unwrap();
    }
    site.route(HOST, "shop", |_| {}).await;
    for centre in ["dc-a", "dc-a", "dc-b"] {
        site.add_router(|setup| setup.cluster(centre)).await;
    }
    let mut backends = Vec::new();
    for centre in ["dc-a", "dc-b"] {
        let backend = Backend::start(centre).await;
        register(&site, centre, "shop", &backend, capacity).await;
        backends.push(backend);
    }
    for router in &site.routers {
        serves(router, HOST).await;
    }
    (site, backends)
}

async fn register(
    site: &Site,
    centre: &str,
    service: &str,
    backend: &Backend,
    capacity: Option<u32>,
) {
    let registration = cardea_registry_api::api::Registration {
        source: cardea_registry_api::Source::Manual,
        lease: None,
        capacity,
        ..cardea_registry_api::api::Registration::at(cardea_tests::site::address_of(
            backend.address(),
        ))
    };
    let key = key(centre, service, centre);
    site.client().register(&key, &registration).await.unwrap();
}

/// From the first data centre to the second one, with a short watch.
fn asked() -> NewSwitch {
    let to = [(name("dc-a"), 0), (name("dc-b"), 100)].into();
    let mut asked = NewSwitch::new(name("dc-a"), None, to);
    asked.watch = Span::secs(5);
    "power".clone_into(&mut asked.reason);
    asked
}

fn load(site: &Site, rate: f64) -> Load {
    let mut plan = Plan::new(site.routers[0].traffic(), HOST, rate).gets();
    plan.targets.push(site.routers[1].traffic());
    plan.start()
}

/// There are figures of what is served.
async fn figures(site: &Site) {
    let client = site.client();
    let query = cardea_registry_api::client::FiguresQuery::default();
    wait::until_ok("figures of the first centre", STAGE, || async {
        let told = client.figures(&name("dc-a"), &query).await;
        let told = told.map_err(|error| error.to_string())?;
        let series = told.points.iter().flat_map(|point| &point.series);
        let sum: u64 = series.map(|one| one.requests).sum();
        if sum > 500 {
            Ok(())
        } else {
            Err(format!("{sum}"))
        }
    })
    .await;
}

/// The share of the next requests that the second centre answers, in percent.
async fn share(backends: &[Backend], load: &Load, requests: u64) -> f64 {
    let went = || [0, 1].map(|at: usize| backends[at].state().stats().requests as f64);
    let before = went();
    load.pass(requests, SOON).await;
    let after = went();
    let [a, b] = [0, 1].map(|at| after[at] - before[at]);
    b * 100.0 / (a + b)
}

/// Waits until a switch stands somehow.
async fn until(site: &Site, id: &Name, what: &str, holds: impl Fn(&Switch) -> bool) -> Switch {
    let client = site.client();
    wait::until_ok(what, STAGE, || async {
        let shown = client.switch(id).await.map_err(|error| error.to_string())?;
        let switch = shown.switch.object;
        if holds(&switch) {
            Ok(switch)
        } else {
            Err(format!("{}; {:?}", shown.now, switch.events))
        }
    })
    .await
}

async fn begin(site: &Site, asked: &NewSwitch) -> Name {
    let begun = site.client().begin_switch(asked, Span::secs(5)).await;
    let begun = begun.unwrap().begun.expect("no dry run");
    assert!(begun.pending.is_empty(), "{:?}", begun.pending);
    begun.switch.object.id
}

async fn act(site: &Site, id: &Name, act: SwitchAct) -> cardea_registry_api::switch::Acted {
    let word = Word {
        reason: "for the test".to_owned(),
        force: false,
    };
    let client = site.client();
    let acted = client.act_on_switch(id, act, &word, Span::secs(5)).await;
    acted.unwrap()
}

/// Undoes it; how long it took to all routers.
async fn undo(site: &Site, id: &Name) -> Duration {
    let said = Instant::now();
    let acted = act(site, id, SwitchAct::Undo).await;
    let took = said.elapsed();
    assert_eq!(acted.switch.object.state, SwitchState::Undone);
    assert_eq!(
        (acted.acknowledged.len(), acted.pending.len()),
        (2, 0),
        "{acted:?}"
    );
    took
}

fn operator(site: &Site) -> cardea_registry_api::client::Client {
    client_of(site.registry_addresses(), Token::Operator)
}
