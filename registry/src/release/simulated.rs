//! Whole releases, simulated with fixed seeds over the real decision code ([`super::next`], [`super::act`]),
//! with latencies and failures as they were recorded from real runs (`recorded.json`; how:
//! `tests/e2e/releases/recording.rs`).
//!
//! Time is as in the real thing: a release begins anywhere within a window, a window is seen three seconds
//! after its end (`figures/telling.rs` tells of it after two, and somebody looks each second).

use std::sync::LazyLock;

use cardea_registry_api::{
    ReleasePlan, Span,
    figures::Figures,
    release::{Pause, Step},
};
use serde::Deserialize;

use super::{judge::SPELL_MS, *};
use crate::{analysis::tests::Lots, release::tests::begun, state::tests::name};

/// How long after its end a window is seen, in milliseconds.
const SEEN_MS: i64 = 3000;

/// What was recorded of one service.
#[derive(Debug, Deserialize)]
struct Recorded {
    /// Which.
    what: String,
    /// Durations in microseconds, at evenly spaced ranks.
    latencies_us: Vec<u64>,
    /// Of each 5 s window: requests, and those that were answered with 5xx.
    windows: Vec<(u64, u64)>,
}

static RECORDED: LazyLock<Vec<Recorded>> =
    LazyLock::new(|| serde_json::from_str(include_str!("recorded.json")).unwrap());

fn recorded(what: &str) -> &'static Recorded {
    let found = RECORDED.iter().find(|one| one.what == what);
    found.unwrap_or_else(|| panic!("nothing was recorded of {what}"))
}

impl Recorded {
    fn errors(&self) -> f64 {
        let sum = |of: fn(&(u64, u64)) -> u64| self.windows.iter().map(of).sum::<u64>() as f64;
        sum(|window| window.1) / sum(|window| window.0)
    }
}

/// A release to be simulated.
#[derive(Clone)]
struct Simulated {
    plan: ReleasePlan,
    /// Requests a second, of both groups.
    rate: f64,
    service: &'static Recorded,
    /// Its share of errors: as it was recorded, if nothing else is said.
    errors: f64,
    /// Points more of errors that the candidate has.
    more_errors: f64,
    /// How many times as long it takes.
    slower: f64,
    latencies: bool,
    /// In three of a hundred windows a tenth of both groups' requests fails.
    bursts: bool,
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Became {
    state: ReleaseState,
    /// Seconds after its begin.
    after: f64,
}

impl Simulated {
    fn of(service: &str) -> Self {
        Self {
            plan: ReleasePlan::of(name("shop"), name("v2"), "simulated"),
            rate: 200.0,
            service: recorded(service),
            errors: recorded(service).errors(),
            more_errors: 0.0,
            slower: 1.0,
            latencies: false,
            bursts: false,
        }
    }

    fn steps(mut self, steps: &[(u16, u64)]) -> Self {
        let step = |(percent, secs): &(u16, u64)| Step {
            percent: Percent::from_hundredths(percent * 100).unwrap(),
            pause: Pause::For(Span::secs(*secs)),
        };
        self.plan.steps = steps.iter().map(step).collect();
        self
    }

    fn figures(&self, requests: u64, errors: f64, times: f64, lots: &mut Lots) -> Figures {
        let failed = lots.binomial(requests, errors);
        let mut figures = Figures {
            classes: [0, requests - failed, 0, 0, failed],
            ..Figures::default()
        };
        if self.latencies {
            let all = &self.service.latencies_us;
            for _ in 0..requests {
                let at = usize::try_from(lots.next() % all.len() as u64).unwrap();
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "durations"
                )]
                figures.latency.observe((all[at] as f64 * times) as u64);
            }
        }
        figures
    }

    /// Of the requests between two moments, each group's at a share of the candidate's.
    fn window(&self, at: i64, secs: f64, percent: Percent, burst: bool, lots: &mut Lots) -> Window {
        let share = f64::from(percent.hundredths()) / 10_000.0;
        let errors = self.errors;
        let floor = if burst { 0.1 } else { 0.0 };
        let mut group = |share: f64, errors: f64, times| {
            let requests = lots.about(self.rate * secs * share);
            self.figures(requests, errors.max(floor), times, lots)
        };
        Window {
            at,
            cluster: name("c"),
            candidate: group(share, errors + self.more_errors, self.slower),
            baseline: group(1.0 - share, errors, 1.0),
        }
    }

    /// Runs it to its end, or for two hours.
    fn run(&self, seed: u64) -> Became {
        let mut lots = Lots(seed);
        let begin = 1_000_000_000 + i64::try_from(lots.next() % 5000).unwrap();
        let (mut release, mut plugin) = begun(&self.plan, begin);
        let mut windows: Vec<Window> = Vec::new();
        let mut at = window_of(begin);
        loop {
            let end = at + WINDOW_MS;
            let from = begin.max(at);
            let burst = self.bursts && lots.unit() < 0.03;
            let secs = |from: i64, to: i64| (to - from) as f64 / 1000.0;
            // The share may have moved within this window.
            let since = release.since.clamp(from, end);
            let mut window = self.window(at, secs(since, end), release.percent, burst, &mut lots);
            if let Some(last) = windows.last_mut().filter(|last| last.at == at) {
                last.candidate.merge(&window.candidate);
                last.baseline.merge(&window.baseline);
                window = windows.pop().unwrap();
            }
            windows.push(window);
            let now = end + SEEN_MS;
            // What nobody compares any more is no matter.
            windows.retain(|window| window.at >= now - SPELL_MS - HISTORY_MS);
            let split = windows.partition_point(|window| window.at < release.judged_from);
            let (before, since) = windows.split_at(split);
            let before: Vec<Window> = before.iter().rev().cloned().collect();
            let seen = Seen {
                now,
                plugin: Some(&plugin),
                candidate_ready: Some(2),
                baseline_ready: Some(2),
                windows: since,
                before: &before,
                newest: Some(end),
            };
            if let Some((action, why)) = next(&release, &seen) {
                let done = act(&release, Some(&plugin), &action, (ITSELF, why, now)).unwrap();
                release = done.0;
                plugin = done.1.unwrap_or(plugin);
                if release.state != ReleaseState::Running {
                    let after = (now - begin) as f64 / 1000.0;
                    return Became {
                        state: release.state,
                        after,
                    };
                }
            }
            at = end;
            assert!(at < begin + 7_200_000, "it does not end");
        }
    }

    fn many(&self, runs: u64, salt: u64) -> Vec<Became> {
        let seed = |n: u64| n.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ salt;
        (0..runs).map(|n| self.run(seed(n))).collect()
    }
}

fn in_time(all: &[Became]) -> usize {
    let back = |one: &&Became| one.state == ReleaseState::RolledBack && one.after <= 30.0;
    all.iter().filter(back).count()
}

fn rolled_back(all: &[Became]) -> usize {
    let back = |one: &&Became| one.state == ReleaseState::RolledBack;
    all.iter().filter(back).count()
}

/// With every default: a quarter of the requests at the first step.
#[test]
fn a_version_with_two_points_more_errors_is_back_within_30_seconds() {
    let runs = 2000;
    for (service, errors, at_least) in [
        ("steady", None, 0.999),
        ("steady", Some(0.0005), 0.998),
        ("steady", Some(0.001), 0.998),
        ("steady", Some(0.005), 0.99),
        ("flaky", None, 0.95),
    ] {
        let mut faulty = Simulated::of(service);
        faulty.more_errors = 0.02;
        faulty.errors = errors.unwrap_or(faulty.errors);
        let all = faulty.many(runs, 0xfa17);
        let found = in_time(&all) as f64 / runs as f64;
        println!(
            "200 requests/s, default steps, {service}, baseline {:.2} %: {} of {runs} back within 30 s, {} in all",
            faulty.errors * 100.0,
            in_time(&all),
            rolled_back(&all)
        );
        assert!(found >= at_least, "{found} of {at_least}");
    }
}

#[test]
fn at_most_one_clean_release_in_a_hundred_is_rolled_back() {
    let long = [
        (1, 120),
        (5, 300),
        (10, 600),
        (25, 1200),
        (50, 600),
        (100, 0),
    ];
    for (what, simulated, runs) in [
        ("steady, default steps", Simulated::of("steady"), 2000),
        ("flaky, default steps", Simulated::of("flaky"), 4000),
        (
            "flaky, 1, 5, 10, 25, 50, 100 % over 47 min",
            Simulated::of("flaky").steps(&long),
            300,
        ),
        (
            "flaky, with bursts at both",
            Simulated {
                bursts: true,
                ..Simulated::of("flaky")
            },
            2000,
        ),
        (
            "flaky, watched for 5 min at 100 %",
            Simulated::of("flaky").steps(&[(50, 60), (100, 300)]),
            1000,
        ),
    ] {
        let all = simulated.many(runs, 0xc1ea_4000);
        let back = rolled_back(&all);
        println!("clean, {what}: {back} of {runs} rolled back by mistake");
        assert!(back * 100 <= all.len(), "{what}: {back}");
        assert!(
            all.iter().all(|one| one.state != ReleaseState::Paused),
            "nothing paused it"
        );
    }
}

/// Also with latencies, as they were recorded.
#[test]
fn latencies_roll_no_clean_release_back_and_a_slow_version_is_found() {
    for service in ["steady", "uneven"] {
        let mut clean = Simulated::of(service);
        clean.latencies = true;
        let runs = 300;
        let back = rolled_back(&clean.many(runs, 0x1a7e));
        println!("clean, {service}, with latencies: {back} of {runs} rolled back by mistake");
        assert!(back as u64 * 100 <= runs, "{back}");
        let slow = Simulated {
            slower: 2.0,
            ..clean
        };
        let runs = 100;
        let all = slow.many(runs, 0x510e);
        let (back, quick) = (rolled_back(&all), in_time(&all));
        println!("twice as slow, {service}: {back} of {runs} rolled back, {quick} within 30 s");
        assert!(back as u64 * 100 >= runs * 97, "{back}");
    }
}
