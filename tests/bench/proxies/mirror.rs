//! What copies cost the callers, by what their target does with them: the router without copies, twice,
//! so that one sees what two equal ones differ by, and with them, at the same rate.

use std::{
    fs::OpenOptions,
    io::Write,
    net::{SocketAddr, TcpListener},
    process::Command,
};

use cardea_tests::ports;

use super::{
    configs::{self, CommandLine, Work},
    paced::{self, Seen},
    stand::{Answers, CONNECTIONS, Proxy, Stand},
};
use crate::{
    machine::cpu_ns,
    table::{Table, quartiles, spread},
};

/// Fewer than elsewhere: the load and the upstreams share a core, and what they do to one another there
/// is not to be taken for what copies do.
const RATE: f64 = 2000.0;
const ROUNDS: u64 = 64;
const TURN_MS: u64 = 250;

/// What the copies' target does.
#[derive(Debug, Clone, Copy)]
enum Target {
    None,
    Answers,
    Slow,
    /// The kernel takes connections, and bytes, until it has enough; nobody ever reads them.
    Hole,
}

const CASES: [(&str, Target, u8); 7] = [
    ("no copies", Target::None, 0),
    ("no copies, another of the same", Target::None, 0),
    ("1 copy each, answered at once", Target::Answers, 1),
    ("1 copy each, answered after 1 s", Target::Slow, 1),
    ("10 copies each, answered after 1 s", Target::Slow, 10),
    ("1 copy each, never answered", Target::Hole, 1),
    ("10 copies each, never answered", Target::Hole, 10),
];

/// Upstreams that answer at once.
pub(super) async fn run() {
    of("at once", Answers::Small, CONNECTIONS).await;
}

/// Upstreams that take as long as a service may.
pub(super) async fn behind_a_service() {
    of("after 10 ms", Answers::After(10), 4 * CONNECTIONS).await;
}

async fn of(when: &str, answers: Answers, connections: usize) {
    let stand = Stand::new("mirror", 4, answers).await;
    let hole = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ports = [ports::reserve(), ports::reserve()];
    // Whoever gets the copies has what the load and the upstreams leave of their core.
    let behind = low_priority();
    let targets = [
        (Answers::Small, "target", ports[0]),
        (Answers::After(1000), "slow-target", ports[1]),
    ];
    let mut responders = Vec::new();
    for (answers, name, port) in targets {
        let responder = answers.start(name, &behind, &[port], stand.dir()).await;
        responders.push(responder);
    }
    let mut proxies: Vec<Proxy> = Vec::new();
    for (at, (name, target, times)) in CASES.into_iter().enumerate() {
        let to = match target {
            Target::None => None,
            Target::Answers => Some(SocketAddr::from(([127, 0, 0, 1], ports[0]))),
            Target::Slow => Some(SocketAddr::from(([127, 0, 0, 1], ports[1]))),
            Target::Hole => Some(hole.local_addr().expect("its address")),
        };
        let line = |work: &Work<'_>| command(work, to, times);
        let file = format!("mirror-{at}");
        proxies.push(stand.start(name, &file, 10, 4, line).await);
    }
    let before: Vec<u64> = proxies.iter().map(|proxy| cpu_ns(proxy.pid())).collect();
    let options = [RATE as u64, connections as u64, TURN_MS, ROUNDS];
    let mut args = vec!["turns".to_owned()];
    args.extend(options.map(|option| option.to_string()));
    args.extend(proxies.iter().map(|proxy| proxy.address.to_string()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let all: Vec<Vec<Seen>> = paced::child(&args);
    println!("### Copies, in front of upstreams that answer {when}\n");
    println!(
        "{RATE:.0} requests/s, open loop, {connections} connections; {ROUNDS} rounds in which each has a \
         turn of {TURN_MS} ms, in an order that changes; medians of the turns. Each turn is compared with \
         the first one's of its round: median of the differences, and between which the middle half of \
         them is. What the second one says is noise. CPU is that of the whole run.\n"
    );
    let mut table = Table::new(&[
        "",
        "CPU µs per request",
        "p50 µs",
        "p50 more",
        "p99 µs",
        "p99 more",
        "failed",
    ]);
    for ((proxy, turns), before) in proxies.iter().zip(&all).zip(before) {
        // The turns of the first round count for the CPU alone.
        let sent = (ROUNDS + 1) as f64 * turns[0].sent as f64;
        let spent = (cpu_ns(proxy.pid()) - before) as f64 / 1000.0;
        table.row([
            proxy.name.clone(),
            format!("{:.1}", spent / sent),
            median(turns, 0),
            more(&all[0], turns, 0),
            median(turns, 1),
            more(&all[0], turns, 1),
            turns
                .iter()
                .map(|turn| turn.failed)
                .sum::<u64>()
                .to_string(),
        ]);
    }
    table.print();
    drop((hole, responders));
}

fn median(turns: &[Seen], which: usize) -> String {
    let all: Vec<f64> = turns.iter().map(|turn| turn.latency_us[which]).collect();
    format!("{:.0}", spread(&all).0)
}

/// By how much a percentile is more than in the turn without copies in the same round.
fn more(without: &[Seen], with: &[Seen], which: usize) -> String {
    let more: Vec<f64> = without
        .iter()
        .zip(with)
        .map(|(without, with)| with.latency_us[which] / without.latency_us[which] * 100.0 - 100.0)
        .collect();
    let [low, median, high] = quartiles(&more);
    format!("{median:.1} % ({low:.1}–{high:.1})")
}

/// On core 1, behind everybody else.
fn low_priority() -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19", "taskset", "-c", "1"]);
    command
}

/// The router, with so many copies of each request.
fn command(work: &Work<'_>, target: Option<SocketAddr>, times: u8) -> CommandLine {
    let mut line = configs::cardea(work);
    if let Some(target) = target {
        let mut file = OpenOptions::new()
            .append(true)
            .open(work.path(".toml"))
            .expect("the router's file");
        writeln!(
            file,
            "[[plugin]]\nname = \"copies\"\n[plugin.mirror]\naddress = \"{target}\"\ntimes = {times}"
        )
        .expect("the router's file");
        line.args
            .extend(["--mirror-allow".to_owned(), target.to_string()]);
    }
    line
}
