//! CPU per request under saturation: 10 and 10,000 routes, 2 and 200 peers.

use std::path::Path;

use super::{
    stand::{self, Answers, CONNECTIONS, Proxy, Stand},
    wrk::{self, Rounds},
};

/// How often everything is started anew: where a process' memory happens to lie makes it some percent dearer or
/// cheaper for as long as it lives, HAProxy up to a quarter.
const STARTS: usize = 6;
/// Rounds with the same processes.
const ROUNDS: usize = 3;
const SECONDS: u64 = 1;
const PEERS: usize = 4;

/// Routes and peers.
type Setting = (usize, usize);

/// What was seen of two settings.
struct Seen {
    names: Vec<String>,
    rounds: [Vec<Rounds>; 2],
}

/// 10 routes and 10,000, interleaved.
pub(super) async fn routes() {
    let seen = both("routes", [(10, PEERS), (10_000, PEERS)]).await;
    println!("### CPU per request\n");
    println!(
        "One worker each; host + prefix routing, weighted round robin 4/3/2/1 over {PEERS} upstreams, \
         X-Forwarded-For, pooled keep-alive upstreams, buffered access log; {CONNECTIONS} keep-alive \
         connections, about 400 bytes of request headers, 1 KiB answers; {STARTS} times all are started, and \
         have {ROUNDS} rounds of {SECONDS} s, interleaved, after one to warm up; median (least–most), of ratios \
         the middle half.\n"
    );
    for (routes, at) in [("10", 0), ("10,000", 1)] {
        println!("{routes} routes:\n");
        wrk::compare(&seen.names, &seen.rounds[at]);
    }
    seen.growth(["10 routes", "10,000 routes"]);
}

/// 2 peers and 200, interleaved.
pub(super) async fn peers() {
    let seen = both("peers", [(10, 2), (10, 200)]).await;
    println!("### More peers\n");
    println!("As above, 10 routes, weights 4/3/2/1 in turn.\n");
    seen.growth(["2 peers", "200 peers"]);
}

impl Seen {
    fn growth(&self, titles: [&str; 2]) {
        let [few, many] = &self.rounds;
        wrk::growth(titles, &self.names, few, many);
    }
}

fn targets<'a>(proxies: &'a [Proxy], script: &'a Path) -> Vec<(&'a Proxy, &'a Path)> {
    proxies.iter().map(|proxy| (proxy, script)).collect()
}

/// Two settings of each proxy, round by round.
async fn both(name: &str, settings: [Setting; 2]) -> Seen {
    let mut rounds = [Vec::new(), Vec::new()];
    let mut names = Vec::new();
    let upstreams = settings.iter().map(|(_, peers)| *peers).max().unwrap_or(0);
    for _ in 0..STARTS {
        let stand = Stand::new(name, upstreams, Answers::Small).await;
        let [few, many] = settings;
        let few = stand.proxies(few.0, few.1).await;
        let many = stand.proxies(many.0, many.1).await;
        let scripts = settings.map(|(routes, _)| wrk::script(stand.dir(), routes));
        // Each proxy's two settings follow one another, so that what they are compared by is near.
        let first = targets(&few, &scripts[0]);
        let both = first.into_iter().zip(targets(&many, &scripts[1]));
        let all: Vec<_> = both.flat_map(|(one, two)| [one, two]).collect();
        for of in &mut rounds {
            of.resize_with(few.len(), Rounds::default);
        }
        for (at, seen) in wrk::rounds(&all, ROUNDS, SECONDS).into_iter().enumerate() {
            rounds[at % 2][at / 2].append(seen);
        }
        names = stand::names(&few);
    }
    Seen { names, rounds }
}
