//! How many registrations a second go through the core, and how long one takes.
//!
//! `cargo bench -p cardea-registry --bench writes -- [sqlite://… | postgres://…]`: registers 64 at a
//! time, then one at a time among 100,000 instances, and renews. Without a URL: SQLite in a temporary
//! directory. Postgres must be an empty database.

#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot measure should stop loudly"
)]

use std::{
    env,
    time::{Duration, Instant},
};

use cardea_registry::{
    change::{Author, Change},
    core::{Core, CoreConfig},
};
use cardea_registry_api::{InstanceKey, api::Registration};

const AT_ONCE: usize = 64;
const FILL: usize = 100_000;

fn key(n: usize) -> InstanceKey {
    format!("a/service-{}/i{n}", n % 100).parse().unwrap()
}

fn register(n: usize) -> Change {
    let address = format!("10.{}.{}.1:{}", n / 250 % 250, n % 250, 1000 + n % 60_000);
    Change::Register {
        key: key(n),
        registration: Box::new(Registration::at(address.parse().unwrap())),
    }
}

async fn one(core: &Core, n: usize) -> Duration {
    let started = Instant::now();
    core.submit(vec![register(n)], Author::named("bench"))
        .await
        .unwrap();
    started.elapsed()
}

fn percentile(times: &mut [Duration], p: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * p / 100).min(times.len() - 1)]
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = CoreConfig {
        data_dir: dir.path().join("data"),
        ..CoreConfig::default()
    };
    config.store.url = env::args()
        .skip(1)
        .find(|arg| arg.contains("://"))
        .unwrap_or_else(|| format!("sqlite://{}/registry.db", dir.path().display()));
    config.store.sqlite_full_sync = env::args().any(|arg| arg == "--full-sync");
    println!("{}", config.store.url);
    let (core, background) = Core::open(config).await.unwrap();

    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let count = 20_000;
    for task in 0..AT_ONCE {
        let core = core.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            for n in (task..count).step_by(AT_ONCE) {
                times.push(one(&core, n).await);
            }
            times
        });
    }
    let mut times = tasks.join_all().await.concat();
    let took = started.elapsed();
    println!(
        "{AT_ONCE} at a time: {:.0} registrations/s, p50 {:?}, p99 {:?}",
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        percentile(&mut times, 50),
        percentile(&mut times, 99)
    );

    let started = Instant::now();
    for from in (count..FILL).step_by(1000) {
        let changes = (from..from + 1000).map(register).collect();
        core.submit(changes, Author::named("bench")).await.unwrap();
    }
    println!(
        "in units of 1000: {:.0} registrations/s",
        f64::from(u32::try_from(FILL - count).unwrap()) / started.elapsed().as_secs_f64()
    );

    let mut times = Vec::new();
    for n in FILL..FILL + 1000 {
        times.push(one(&core, n).await);
    }
    println!(
        "one at a time among {FILL}: p50 {:?}, p99 {:?}",
        percentile(&mut times, 50),
        percentile(&mut times, 99)
    );

    let keys: Vec<InstanceKey> = (0..FILL).map(key).collect();
    let started = Instant::now();
    for keys in keys.chunks(1000) {
        assert!(core.renew(keys).iter().all(|known| *known));
    }
    println!(
        "renewals: {:.0}/s on one core",
        f64::from(u32::try_from(FILL).unwrap()) / started.elapsed().as_secs_f64()
    );
    background.stop().await;
}
