//! Renewals.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use cardea_registry_api::api::Renewals;
use cardea_tests::{
    http1::Connection,
    site::{CLUSTER, Token},
};
use tokio::task::JoinSet;

use super::{Candidate, SOON, SPAN, Store, batch};
use crate::{machine::cpu_ns, table::Table};

/// 50,000 renewals a second: what they cost the registry.
pub(super) async fn renewals(candidates: &[Candidate]) {
    const RATE: u64 = 50_000;
    const BATCH: u64 = 1000;
    const SECONDS: u64 = 10;
    println!(
        "{RATE} renewals/s for {SECONDS} s in calls of {BATCH} (an agent host renews all its services \
         in one call), and one by one as fast as 64 clients can:\n"
    );
    let mut table = Table::new(&["", "asked for", "renewals/s", "cores", "CPU µs per renewal"]);
    for candidate in candidates {
        let Store::Registry { registry, .. } = &candidate.store else {
            continue;
        };
        let client = registry.client();
        let many = batch("renewed", BATCH, 0);
        client.register_many(&many).await.expect("registrations");
        let keys: Vec<_> = many.instances.into_iter().map(|one| one.key).collect();
        let renewals = Renewals { instances: keys };
        let pid = registry.process().pid();

        let before = cpu_ns(pid);
        let begun = Instant::now();
        let (mut done, mut tick) = (
            0,
            tokio::time::interval(Duration::from_micros(1_000_000 * BATCH / RATE)),
        );
        while begun.elapsed() < Duration::from_secs(SECONDS) {
            tick.tick().await;
            done += client
                .renew_many(&renewals)
                .await
                .expect("renewals")
                .renewed;
        }
        row(
            &mut table,
            &candidate.name,
            "50,000/s, batches",
            done,
            begun.elapsed(),
            cpu_ns(pid) - before,
        );

        let before = cpu_ns(pid);
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..64 {
            tasks.spawn(renew_one_by_one(registry.api(), number, begun + SPAN));
        }
        let done = tasks.join_all().await.into_iter().sum();
        row(
            &mut table,
            &candidate.name,
            "one by one",
            done,
            begun.elapsed(),
            cpu_ns(pid) - before,
        );
    }
    table.print();
}

fn row(table: &mut Table, name: &str, how: &str, done: u64, took: Duration, cpu: u64) {
    table.row([
        name.to_owned(),
        how.to_owned(),
        format!("{:.0}", done as f64 / took.as_secs_f64()),
        format!("{:.2}", cpu as f64 / 1e9 / took.as_secs_f64()),
        format!("{:.2}", cpu as f64 / 1000.0 / done as f64),
    ]);
}

async fn renew_one_by_one(address: SocketAddr, number: u64, end: Instant) -> u64 {
    let mut connection = Connection::open(address, SOON).await.expect("the registry");
    let request = format!(
        "POST /v1/clusters/{CLUSTER}/services/renewed/instances/i-{number}/renew HTTP/1.1\r\n\
         Host: registry\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\r\n",
        Token::Agent.secret()
    );
    let mut done = 0;
    while Instant::now() < end {
        let answer = connection
            .exchange(request.as_bytes(), SOON)
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        done += 1;
    }
    done
}
