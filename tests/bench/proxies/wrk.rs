//! Saturating rounds with `wrk`, and the table that compares them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::stand::{CONNECTIONS, Proxy, bound};
use crate::table::{Table, middle, quartiles, ratios, shown, spread};

/// What one proxy showed, a value for each round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) cpu_us: Vec<f64>,
    pub(super) per_second: Vec<f64>,
    pub(super) bad: u64,
}

impl Rounds {
    /// Those of another start are the next ones.
    pub(super) fn append(&mut self, mut next: Self) {
        self.cpu_us.append(&mut next.cpu_us);
        self.per_second.append(&mut next.per_second);
        self.bad += next.bad;
    }
}

/// Rounds of `seconds` over all of `targets` in turn, after one to warm up.
pub(super) fn rounds(targets: &[(&Proxy, &Path)], rounds: usize, seconds: u64) -> Vec<Rounds> {
    interleaved(targets, rounds, |proxy, script| {
        load(proxy, script, seconds)
    })
}

/// Rounds of a load that gives requests, requests a second and failures.
pub(super) fn interleaved(
    targets: &[(&Proxy, &Path)],
    rounds: usize,
    load: impl Fn(&Proxy, &Path) -> (f64, f64, u64),
) -> Vec<Rounds> {
    let mut all: Vec<Rounds> = targets.iter().map(|_| Rounds::default()).collect();
    for round in 0..=rounds {
        for ((proxy, script), seen) in targets.iter().zip(&mut all) {
            let (spent, (requests, per_second, bad)) = proxy.cpu_us(|| load(proxy, script));
            if round > 0 {
                seen.cpu_us.push(spent / requests);
                seen.per_second.push(per_second);
                seen.bad += bad;
            }
        }
    }
    all
}

/// Requests, requests a second, failures.
pub(super) fn load(proxy: &Proxy, script: &Path, seconds: u64) -> (f64, f64, u64) {
    let out = command(bound(1), proxy, script, seconds)
        .output()
        .expect("wrk");
    results(&out)
}

/// The same within TLS.
pub(super) fn secure_load(proxy: &Proxy, script: &Path, seconds: u64) -> (f64, f64, u64) {
    let out = command_to("https", bound(1), proxy, script, seconds)
        .output()
        .expect("wrk");
    results(&out)
}

/// Adds wrk and its arguments to a command that runs another.
pub(super) fn command(by: Command, proxy: &Proxy, script: &Path, seconds: u64) -> Command {
    command_to("http", by, proxy, script, seconds)
}

fn command_to(
    scheme: &str,
    mut by: Command,
    proxy: &Proxy,
    script: &Path,
    seconds: u64,
) -> Command {
    by.args(["wrk", "-t1", &format!("-c{CONNECTIONS}")])
        .arg(format!("-d{seconds}s"))
        .arg("-s")
        .arg(script)
        .arg(format!("{scheme}://{}/", proxy.address));
    by
}

/// What wrk printed: requests, requests a second, failures.
pub(super) fn results(out: &Output) -> (f64, f64, u64) {
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let numbers: Vec<f64> = line
        .unwrap_or_else(|| panic!("wrk said: {text}{}", String::from_utf8_lossy(&out.stderr)))
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [requests, micros, bad] = numbers[..] else {
        panic!("wrk said: {text}");
    };
    (requests, requests / (micros / 1e6), bad as u64)
}

/// CPU per request beside nginx, which is the first.
pub(super) fn compare(names: &[String], all: &[Rounds]) {
    compare_in(names, all, ["CPU µs per request", "requests/s"]);
}

/// The same for something else than requests.
pub(super) fn compare_in(names: &[String], all: &[Rounds], [cost, rate]: [&str; 2]) {
    let times = "× nginx, round by round";
    let mut table = Table::new(&["", cost, times, rate, "core busy", "failed"]);
    for (name, seen) in names.iter().zip(all) {
        let (cpu, rate) = (spread(&seen.cpu_us).0, spread(&seen.per_second).0);
        table.row([
            name.clone(),
            shown(&seen.cpu_us, 2),
            middle(&ratios(&seen.cpu_us, &all[0].cpu_us), 2),
            shown(&seen.per_second, 0),
            format!("{:.0} %", cpu * rate / 1e4),
            seen.bad.to_string(),
        ]);
    }
    table.print();
}

/// How much more a request costs in the second setting than in the first.
pub(super) fn growth(titles: [&str; 2], names: &[String], first: &[Rounds], second: &[Rounds]) {
    let more = "more, round by round";
    let mut table = Table::new(&["CPU µs per request", titles[0], titles[1], more]);
    for (name, (one, two)) in names.iter().zip(first.iter().zip(second)) {
        let [low, median, high] = quartiles(&ratios(&two.cpu_us, &one.cpu_us))
            .map(|ratio| format!("{:+.1} %", (ratio - 1.0) * 100.0));
        table.row([
            name.clone(),
            shown(&one.cpu_us, 2),
            shown(&two.cpu_us, 2),
            format!("{median} ({low}…{high})"),
        ]);
    }
    table.print();
}

/// As many different requests however many routes there are, with eight ordinary headers, over the hosts in
/// turn, and one line of results.
pub(super) fn script(dir: &Path, routes: usize) -> PathBuf {
    let text = format!(
        r#"local requests = {{}}
local at = 0
function init(args)
  for i = 0, 1999 do
    local host = "h" .. (i * math.max(1, math.floor({routes} / 2000)) % {routes}) .. ".svc.local"
    requests[i + 1] = wrk.format("GET", "/api/v1/items/" .. i .. "?page=2", {{
      ["Host"] = host,
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
      ["Accept"] = "application/json, text/plain, */*",
      ["Accept-Language"] = "en-GB,en;q=0.9,de;q=0.7",
      ["Accept-Encoding"] = "gzip, deflate, br",
      ["Cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark",
      ["Referer"] = "http://www.svc.local/items",
      ["Traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency, all)
  local e = summary.errors
  print(string.format("RESULT %d %d %d", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#
    );
    let path = dir.join(format!("wrk-{routes}.lua"));
    std::fs::write(&path, text).expect("wrk's script");
    path
}
