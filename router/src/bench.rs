//! What routing, picking and building tables cost. Not part of the product: behind feature `bench`.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Instance, InstanceKey, Name, Route, Service,
    api::Registration,
    feed::{Encoder, FORMAT, Head, SetChecksum, Update, kind, set_line},
    policy::{Balance, HashKey},
};

use crate::{
    Balancers, PickInput, Shared, Table, Upstream, key,
    sync::replica::Replica,
    table::{
        Origin,
        builder::{Builder, Stamp},
        objects::{Dirty, Object, Objects},
    },
};

mod plugins;

/// Prints all figures.
pub fn run() {
    plugins::decide();
    for routes in [10, 10_000] {
        route(routes);
    }
    for peers in [2, 200, 10_000] {
        for balance in [
            Balance::RoundRobin,
            Balance::LeastLoaded,
            Balance::Hash(HashKey::Client),
        ] {
            pick(peers, &balance);
        }
    }
    for (services, each) in [(1, 10_000), (1000, 10)] {
        build(services, each, &Balance::RoundRobin);
    }
    build(1, 10_000, &Balance::Hash(HashKey::Client));
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn instance(service: &str, number: usize) -> Instance {
    let key = InstanceKey {
        cluster: name("dc"),
        service: name(service),
        id: format!("i{number}").parse().expect("an id"),
    };
    let (a, b) = (number / 250, number % 250 + 1);
    let address = format!("10.{}.{}.{b}:80", a / 250, a % 250);
    Registration::at(address.parse().expect("an address")).into_instance(key, 0)
}

#[derive(Default)]
struct Tables {
    objects: Objects,
    dirty: Dirty,
    builder: Builder,
    shared: Arc<Shared>,
}

impl Tables {
    fn set(&mut self, object: Object) {
        self.objects.set(object, &mut self.dirty);
    }

    fn publish(&mut self) -> Arc<Table> {
        let stamp = Stamp {
            epoch: "e".into(),
            revision: 1,
            origin: Origin::Registry,
        };
        let dirty = std::mem::take(&mut self.dirty);
        let now = Instant::now();
        self.builder
            .build(&self.objects, &dirty, stamp, now)
            .publish(&self.shared);
        self.shared.table_full().expect("just published")
    }

    fn upstream(&self) -> Arc<Upstream> {
        let table = self.shared.table_full().expect("published");
        Arc::clone(table.upstreams().next().expect("a service"))
    }
}

fn report(what: &str, rounds: u32, took: Duration) {
    println!(
        "{what:<58} {:>10.1} ns",
        took.as_nanos() as f64 / f64::from(rounds)
    );
}

fn route(count: usize) {
    let mut tables = Tables::default();
    // Ten prefixes a host, as in the example.
    for number in 0..count {
        tables.set(Object::Route(Arc::new(Route {
            id: name(&format!("r{number}")),
            host: format!("h{}.svc.local", number / 10)
                .parse()
                .expect("a host"),
            prefix: format!("/api/v{}", number % 10).parse().expect("a prefix"),
            service: name("s"),
        })));
    }
    let table = tables.publish();
    let requests: Vec<(String, String)> = (0..4096)
        .map(|i| (i * 7919) % count)
        .map(|n| {
            (
                format!("h{}.svc.local:8080", n / 10),
                format!("/api/v{}/items/17?q=x", n % 10),
            )
        })
        .collect();
    let rounds = 4_000_000;
    let began = Instant::now();
    for (host, target) in requests.iter().cycle().take(rounds as usize) {
        let found = table.route(black_box(host.as_bytes()), black_box(target.as_bytes()));
        black_box(found.is_ok());
    }
    report(&format!("route, {count} routes"), rounds, began.elapsed());
    let began = Instant::now();
    for (host, _) in requests.iter().cycle().take(rounds as usize) {
        let found = table.route(black_box(host.as_bytes()), black_box(b"/api/v1%31//x;a/y"));
        black_box(found.is_ok());
    }
    report(
        &format!("route, {count} routes, path with escapes"),
        rounds,
        began.elapsed(),
    );
}

fn pick(peers: usize, balance: &Balance) {
    let mut tables = Tables::default();
    let mut service = Service::named(name("s"));
    service.balance = balance.clone();
    tables.set(Object::Service(Arc::new(service)));
    for number in 0..peers {
        tables.set(Object::Instance(Arc::new(instance("s", number))));
    }
    tables.publish();
    let upstream = tables.upstream();
    let mut balancers = Balancers::new(1);
    let now = Instant::now();
    let rounds = 1_000_000u32;
    let began = Instant::now();
    for number in 0..rounds {
        let input = PickInput {
            key: Some(key::hash(&number.to_le_bytes())),
            replayable: true,
            ..PickInput::default()
        };
        let mut picked = balancers.pick(&upstream, &input, &[], now).expect("a peer");
        picked.responded(Duration::from_millis(1), now);
        picked.finished();
    }
    let name = match balance {
        Balance::RoundRobin => "round-robin",
        Balance::LeastLoaded => "least-loaded",
        Balance::Hash(_) => "hash",
    };
    report(
        &format!("pick and verdict, {name}, {peers} peers"),
        rounds,
        began.elapsed(),
    );

    let mut spent = Duration::ZERO;
    for number in 0..100 {
        tables.set(Object::Instance(Arc::new(instance("s", peers + number))));
        tables.publish();
        let upstream = tables.upstream();
        let began = Instant::now();
        drop(balancers.pick(&upstream, &PickInput::default(), &[], now));
        spent += began.elapsed();
    }
    report(
        &format!("first pick after a swap, {name}, {peers} peers"),
        100,
        spent,
    );
}

fn feed(
    services: usize,
    each: usize,
    extra: Option<(&Instance, u64)>,
    balance: &Balance,
) -> Vec<u8> {
    let mut checksum = SetChecksum::default();
    let mut lines = Vec::new();
    for service in 0..services {
        let own = format!("s{service}");
        let mut object = Service::named(name(&own));
        object.balance = balance.clone();
        lines.push(set_line(kind::SERVICE, &own, &object));
        for number in 0..each {
            let instance = instance(&own, number);
            lines.push(set_line(
                kind::INSTANCE,
                &instance.key().to_string(),
                &instance,
            ));
        }
    }
    let added = extra.map(|(instance, _)| {
        set_line(kind::INSTANCE, &instance.key().to_string(), instance).expect("encodes")
    });
    let lines: Vec<_> = lines
        .into_iter()
        .map(|line| line.expect("encodes"))
        .collect();
    lines
        .iter()
        .chain(&added)
        .for_each(|line| checksum.add(line.hash));
    let mut encoder = Encoder::new(&Head {
        format: FORMAT,
        cluster: "dc".to_owned(),
        epoch: "e".to_owned(),
        revision: extra.map_or(1, |(_, after)| after + 1),
        after: extra.map(|(_, after)| after),
        checksum,
        objects: (lines.len() + usize::from(added.is_some())) as u64,
        accepted: false,
        degraded: false,
    })
    .expect("encodes");
    match &added {
        None => lines.iter().for_each(|line| encoder.set(line)),
        Some(line) => encoder.set(line),
    }
    encoder.finish()
}

fn build(services: usize, each: usize, balance: &Balance) {
    let millis = |what: &str, took: Duration| {
        let what = format!("{what}, {services} services × {each} instances, {balance:?}");
        println!("{what:<90} {:>8.3} ms", took.as_secs_f64() * 1000.0);
    };
    let bytes = feed(services, each, None, balance);
    let began = Instant::now();
    let update = Update::decode(&bytes).expect("sound");
    millis("decode the full set", began.elapsed());
    let mut replica = Replica::new(name("dc"));
    let began = Instant::now();
    let dirty = replica.apply(&update).expect("fits");
    millis("apply the full set", began.elapsed());
    let mut builder = Builder::default();
    let shared = Shared::default();
    let mut publish = |replica: &Replica, dirty: &Dirty| {
        let stamp = Stamp {
            epoch: "e".into(),
            revision: 1,
            origin: Origin::Registry,
        };
        let began = Instant::now();
        builder
            .build(replica.objects(), dirty, stamp, began)
            .publish(&shared);
        began.elapsed()
    };
    let took = publish(&replica, &dirty);
    millis("build and swap the full table", took);

    let began = Instant::now();
    let dirty = replica.apply(&update).expect("fits");
    let took = began.elapsed() + publish(&replica, &dirty);
    millis("the same full set again", took);

    let new = instance("s0", each);
    let bytes = feed(services, each, Some((&new, 1)), balance);
    let began = Instant::now();
    let update = Update::decode(&bytes).expect("sound");
    let dirty = replica.apply(&update).expect("fits");
    let applied = began.elapsed();
    let took = publish(&replica, &dirty);
    millis("a delta of one: decode and apply", applied);
    millis("a delta of one: build and swap", took);
}
