//! Idle clients: what each costs in memory, and whether anybody else notices them.

use cardea_tests::http1::{Connection, Dial};

use super::{
    rate::{Paced, RATE},
    stand::{Answers, Proxy, SOON, Stand},
    wrk,
};
use crate::{machine::pss_kib, table::Table};

const CLIENTS: usize = 10_000;
const ROUNDS: usize = 3;
const SECONDS: u64 = 2;

pub(super) async fn run() {
    let stand = Stand::new("idle", 4, Answers::Small).await;
    let proxies = stand.proxies(10, 4).await;
    let script = wrk::script(stand.dir(), 10);
    println!("### Idle connections\n");
    println!(
        "PSS of the process tree; {CLIENTS} idle keep-alive connections that made one request each; \
         beside them {RATE:.0} requests/s as above, without and with the idle ones ({ROUNDS} rounds of \
         {SECONDS} s).\n"
    );
    let mut table = Table::new(&[
        "",
        "fresh MiB",
        "after load MiB",
        "idle MiB",
        "KiB per idle connection",
        "p50 µs without / with",
        "p99 µs without / with",
        "CPU µs per request without / with",
    ]);
    for proxy in &proxies {
        wrk::load(proxy, &script, 2);
        let without = paced(proxy);
        let loaded = proxy.settled_kib().await;
        let clients = connect(proxy).await;
        let held = proxy.settled_kib().await;
        let with = paced(proxy);
        drop(clients);
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        let pair = |which| format!("{} / {}", without.latency(which), with.latency(which));
        let cpu = [&without, &with].map(|seen| crate::table::spread(&seen.cpu_us).0);
        table.row([
            proxy.name.clone(),
            mib(proxy.fresh_kib),
            mib(loaded),
            mib(held),
            format!("{:.2}", (held as f64 - loaded as f64) / CLIENTS as f64),
            pair(0),
            pair(1),
            format!("{:.1} / {:.1}", cpu[0], cpu[1]),
        ]);
        assert!(pss_kib(proxy.pid()) > 0, "{} is gone", proxy.name);
    }
    table.print();
}

fn paced(proxy: &Proxy) -> Paced {
    let mut seen = Paced::default();
    for _ in 0..ROUNDS {
        seen.round(proxy.address, Some(proxy.pid()), SECONDS, true);
    }
    seen
}

async fn connect(proxy: &Proxy) -> Vec<Connection> {
    connect_by(proxy, &Dial::default(), CLIENTS).await
}

/// So many connections that have made one request.
pub(super) async fn connect_by(proxy: &Proxy, dial: &Dial, count: usize) -> Vec<Connection> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::dial(proxy.address, dial, SOON)
            .await
            .expect("connects");
        let request = b"GET /api/v1/x HTTP/1.1\r\nHost: h0.svc.local\r\n\r\n";
        let answer = connection.exchange(request, SOON).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        clients.push(connection);
    }
    clients
}
