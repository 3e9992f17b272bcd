//! CPU per request under saturation: 10 and 10,000 routes, 2 and 200 peers.

use std::path::Path;

use super::{
    stand::{Answers, CONNECTIONS, Proxy, Stand},
    wrk::{self, Rounds},
};

const ROUNDS: usize = 16;
const SECONDS: u64 = 1;
const PEERS: usize = 4;

/// 10 routes and 10,000, interleaved.
pub(super) async fn routes() {
    let stand = Stand::new("routes", PEERS, Answers::Small).await;
    let few = stand.proxies(10, PEERS).await;
    let many = stand.proxies(10_000, PEERS).await;
    let scripts = [10, 10_000].map(|routes| wrk::script(stand.dir(), routes));
    let (first, second) = both([&few, &many], [&scripts[0], &scripts[1]], ROUNDS, SECONDS);
    println!("### CPU per request\n");
    println!(
        "One worker each; host + prefix routing, weighted round robin 4/3/2/1 over {PEERS} upstreams, \
         X-Forwarded-For, pooled keep-alive upstreams, buffered access log; {CONNECTIONS} keep-alive \
         connections, about 400 bytes of request headers, 1 KiB answers; {ROUNDS} rounds of {SECONDS} s, \
         interleaved, after one to warm up; median (least–most), of ratios the middle half.\n"
    );
    for (routes, proxies, seen) in [("10", &few, &first), ("10,000", &many, &second)] {
        println!("{routes} routes:\n");
        wrk::compare(&targets(proxies, &scripts[0]), seen);
    }
    wrk::growth(
        ["10 routes", "10,000 routes"],
        &targets(&few, &scripts[0]),
        &first,
        &second,
    );
}

/// 2 peers and 200, interleaved.
pub(super) async fn peers() {
    let stand = Stand::new("peers", 200, Answers::Small).await;
    let few = stand.proxies(10, 2).await;
    let many = stand.proxies(10, 200).await;
    let script = wrk::script(stand.dir(), 10);
    let (first, second) = both([&few, &many], [&script, &script], ROUNDS, SECONDS);
    println!("### More peers\n");
    println!("As above, 10 routes, weights 4/3/2/1 in turn.\n");
    wrk::growth(
        ["2 peers", "200 peers"],
        &targets(&few, &script),
        &first,
        &second,
    );
}

fn targets<'a>(proxies: &'a [Proxy], script: &'a Path) -> Vec<(&'a Proxy, &'a Path)> {
    proxies.iter().map(|proxy| (proxy, script)).collect()
}

fn both(
    proxies: [&[Proxy]; 2],
    scripts: [&Path; 2],
    rounds: usize,
    seconds: u64,
) -> (Vec<Rounds>, Vec<Rounds>) {
    // Each proxy's two settings follow one another, so that what they are compared by is near.
    let (few, many) = (
        targets(proxies[0], scripts[0]),
        targets(proxies[1], scripts[1]),
    );
    let all: Vec<_> = few
        .into_iter()
        .zip(many)
        .flat_map(|(one, two)| [one, two])
        .collect();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (at, seen) in wrk::rounds(&all, rounds, seconds).into_iter().enumerate() {
        if at % 2 == 0 {
            first.push(seen);
        } else {
            second.push(seen);
        }
    }
    (first, second)
}
