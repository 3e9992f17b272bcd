//! Simulated releases, with fixed seeds, over the real decision code.
//!
//! Time is as in the real thing: a release begins anywhere within a window; a window is seen three seconds
//! after its end (`telling.rs` tells of it after two, and somebody has to look).

use cardea_registry_api::figures::WINDOW_MS;

use super::{early::Early, evidence::Part, *};

/// A small generator (splitmix64), so that a seed means the same for ever.
pub(crate) struct Lots(pub(crate) u64);

impl Lots {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to before 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// How many come where so many are expected: requests come by chance, not by the clock.
    pub(crate) fn about(&mut self, mean: f64) -> u64 {
        let normal: f64 = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "some thousands, and none is the least"
        )]
        let count = (mean + mean.sqrt() * normal).max(0.0).round() as u64;
        count
    }

    /// How many of so many, each with this chance.
    pub(crate) fn binomial(&mut self, n: u64, chance: f64) -> u64 {
        // Rare things by the gaps between them, so that an hour's requests are drawn in a moment.
        if chance <= 0.0 {
            return 0;
        }
        let (mut at, mut hits) = (0.0, 0);
        loop {
            at += ((1.0 - self.unit()).ln() / (1.0 - chance).ln()).floor() + 1.0;
            if at > n as f64 {
                return hits;
            }
            hits += 1;
        }
    }
}

/// Where latencies are from: quantiles of a body and a tail, drawn by a table.
struct Latencies(Vec<u64>);

impl Latencies {
    /// `of` gives the duration (µs) at a quantile.
    fn new(of: impl Fn(f64) -> f64) -> Self {
        let steps: u32 = 1 << 14;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "durations"
        )]
        let at = |step| of((f64::from(step) + 0.5) / f64::from(steps)) as u64;
        Self((0..steps).map(at).collect())
    }

    /// As a log-logistic body (median 4 ms), whose tail falls by `1/x²`.
    fn smooth() -> Self {
        Self::new(|q| 4000.0 * (q / (1.0 - q)).powf(0.5))
    }

    /// Nine in ten from a cache; the rest from a database with a Pareto tail that has no variance (α = 1.3).
    fn two_humps() -> Self {
        Self::new(|q| {
            if q < 0.9 {
                800.0 + 900.0 * q
            } else {
                20_000.0 * ((1.0 - q) / 0.1).powf(-1.0 / 1.3)
            }
        })
    }

    fn observe(&self, n: u64, times: f64, lots: &mut Lots, figures: &mut Figures) {
        for _ in 0..n {
            let lot = usize::try_from(lots.next() >> 50).unwrap();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "durations"
            )]
            figures.latency.observe((self.0[lot] as f64 * times) as u64);
        }
    }
}

/// Of a first step of several, with every default.
fn first_step() -> Comparison {
    Comparison::new(Limits::default(), Spend::of(0.01, 0, 3, 0))
}

/// A release to be simulated.
#[derive(Clone, Copy)]
struct Release<'a> {
    /// Requests a second, of both groups.
    rate: f64,
    /// The candidate's share of them.
    share: f64,
    /// Chance of an error, of baseline and candidate.
    errors: [f64; 2],
    /// None: latencies are left out, for long runs.
    latencies: Option<&'a Latencies>,
    /// How many times as long the candidate takes.
    slower: f64,
    /// In three of a hundred windows both groups have a tenth of errors: something that both need is
    /// in trouble.
    bursts: bool,
    windows: u64,
}

impl Default for Release<'_> {
    fn default() -> Self {
        Self {
            rate: 200.0,
            share: 0.1,
            errors: [0.001; 2],
            latencies: None,
            slower: 1.0,
            bursts: false,
            windows: 6,
        }
    }
}

impl Release<'_> {
    /// The verdict that ends it, and after how many seconds; none: it was never called worse.
    fn run(&self, seed: u64) -> Option<(Verdict, f64)> {
        let mut lots = Lots(seed);
        let mut comparison = first_step();
        let window = WINDOW_MS as f64 / 1000.0;
        // How much of the first window is left when it begins.
        let left = window * (1.0 - lots.unit());
        for n in 0..self.windows {
            let length = if n == 0 { left } else { window };
            let burst = self.bursts && lots.unit() < 0.03;
            let mut groups = [Figures::default(), Figures::default()];
            for (at, group) in groups.iter_mut().enumerate() {
                let share = if at == 1 {
                    self.share
                } else {
                    1.0 - self.share
                };
                let requests = lots.about(self.rate * length * share);
                let chance = if burst {
                    self.errors[at].max(0.1)
                } else {
                    self.errors[at]
                };
                let errors = lots.binomial(requests, chance);
                group.classes = [0, requests - errors, 0, 0, errors];
                if let Some(latencies) = self.latencies {
                    let times = if at == 1 { self.slower } else { 1.0 };
                    latencies.observe(requests, times, &mut lots, group);
                }
            }
            comparison.add(&groups[0], &groups[1]);
            comparison.end_window();
            if comparison.is_worse() {
                let after = left + n as f64 * window + 3.0;
                return Some((comparison.verdict(), after));
            }
        }
        None
    }

    /// Of so many runs: those called worse, and those within 30 s.
    fn many(&self, runs: u64) -> (u64, u64) {
        let mut called = (0, 0);
        for seed in 0..runs {
            if let Some((_, after)) = self.run(seed * 7919 + 1) {
                called.0 += 1;
                called.1 += u64::from(after <= 30.0);
            }
        }
        called
    }
}

#[test]
fn a_version_with_two_points_more_errors_is_found_within_30_seconds() {
    let runs = 2000;
    for (share, errors, at_least) in [
        (0.1, 0.0, 0.99),
        (0.1, 0.0005, 0.975),
        (0.1, 0.001, 0.95),
        (0.5, 0.001, 0.999),
        (0.5, 0.01, 0.95),
    ] {
        let release = Release {
            share,
            errors: [errors, errors + 0.02],
            ..Release::default()
        };
        let (_, in_time) = release.many(runs);
        let found = in_time as f64 / runs as f64;
        println!(
            "200 requests/s, {:.0} % to a candidate with {:.2} % errors, baseline {:.2} %: found within 30 s in \
             {in_time} of {runs} runs",
            share * 100.0,
            (errors + 0.02) * 100.0,
            errors * 100.0
        );
        assert!(found >= at_least, "{found} of {at_least}");
    }
    // What is too rare for 30 s is found a little later.
    let hard = Release {
        errors: [0.01, 0.03],
        windows: 36,
        ..Release::default()
    };
    let (found, in_time) = hard.many(runs);
    println!(
        "10 % to a candidate with 3 % errors, baseline 1 %: {in_time} within 30 s, {found} within 3 min, of {runs}"
    );
    assert!(found as f64 >= 0.98 * runs as f64);
}

/// The limit: one single look at all that comes in time, with the whole chance to err. Given how many errors
/// there were, whose they are is all that tells the groups apart where both may have any trouble, and no
/// unbiased test of that is sharper than this one (Lehmann & Romano, "Testing Statistical Hypotheses", 4.5).
#[test]
fn no_test_finds_much_more_within_30_seconds() {
    let runs = 2000;
    for (share, errors, most) in [(0.25, 0.01, 0.985), (0.1, 0.01, 0.78), (0.25, 0.005, 1.0)] {
        let mut found = 0;
        for seed in 0..runs {
            let mut lots = Lots(seed);
            // Whole windows, up to three seconds before, from anywhere within the first.
            let left = 5.0 * lots.unit();
            let seconds = left + 5.0 * ((27.0 - left) / 5.0_f64).floor();
            let mut group = |share: f64, errors| {
                let of = lots.about(200.0 * seconds * share);
                let have = lots.binomial(of, errors);
                Part { of, have }
            };
            let mut single = Early::default();
            single.add(group(1.0 - share, errors), group(share, errors + 0.02));
            found += u64::from((0..6).any(|_| single.look(0.01)));
        }
        let part = found as f64 / runs as f64;
        println!(
            "one single look with the whole chance, {:.0} % to the candidate, baseline {:.1} %: {found} of {runs}",
            share * 100.0,
            errors * 100.0
        );
        assert!(part <= most, "{part}");
    }
}

#[test]
fn at_most_one_clean_release_in_a_hundred_is_rolled_back_over_an_hour_of_looks() {
    let runs = 1000;
    for (share, errors, bursts) in [
        (0.1, 0.001, false),
        (0.1, 0.01, true),
        (0.5, 0.05, false),
        (0.02, 0.002, true),
    ] {
        let release = Release {
            share,
            errors: [errors; 2],
            bursts,
            windows: 720,
            ..Release::default()
        };
        let (called, _) = release.many(runs);
        println!(
            "clean, {:.0} % to the candidate, {:.1} % errors{}: rolled back by mistake in {called} of {runs} runs of \
             720 looks",
            share * 100.0,
            errors * 100.0,
            if bursts { " and bursts at both" } else { "" }
        );
        assert!(called * 100 <= runs, "{called} of {runs}");
    }
}

#[test]
fn latencies_with_heavy_tails_roll_no_clean_release_back_and_a_slow_one_is_found() {
    for (what, latencies) in [
        ("smooth", Latencies::smooth()),
        ("two humps, heavy tail", Latencies::two_humps()),
    ] {
        let clean = Release {
            latencies: Some(&latencies),
            windows: 60,
            ..Release::default()
        };
        let runs = 300;
        let (called, _) = clean.many(runs);
        println!("clean, {what}: rolled back by mistake in {called} of {runs} runs of 60 looks");
        assert!(called * 100 <= runs, "{called} of {runs}");
        let slow = Release {
            slower: 2.5,
            windows: 24,
            ..clean
        };
        let runs = 200;
        let (found, in_time) = slow.many(runs);
        println!(
            "2.5 times as slow, {what}: {in_time} within 30 s, {found} within 2 min, of {runs}"
        );
        assert!(found as f64 >= 0.97 * runs as f64, "{found} of {runs}");
    }
}

#[test]
fn nothing_is_said_before_there_is_a_sample() {
    let mut comparison = first_step();
    let figures = |requests, errors| Figures {
        classes: [0, requests - errors, 0, 0, errors],
        ..Figures::default()
    };
    comparison.add(&figures(1000, 0), &figures(49, 49));
    comparison.end_window();
    assert_eq!(comparison.verdict(), Verdict::TooFew);
    comparison.add(&figures(1000, 0), &figures(1, 1));
    comparison.end_window();
    assert_eq!(comparison.verdict(), Verdict::MoreErrors);
    // Better times come too late.
    comparison.add(&figures(1000, 500), &figures(1000, 0));
    comparison.end_window();
    assert_eq!(comparison.verdict(), Verdict::MoreErrors);
}

#[test]
fn a_difference_that_does_not_matter_is_no_reason_however_certain() {
    let mut comparison = first_step();
    let figures = |requests, errors| Figures {
        classes: [0, requests - errors, 0, 0, errors],
        ..Figures::default()
    };
    for _ in 0..100 {
        comparison.add(&figures(1_000_000, 1000), &figures(1_000_000, 3000));
        comparison.end_window();
    }
    assert!(comparison.stakes().0 > 1e9);
    assert_eq!(comparison.verdict(), Verdict::NotWorse);
}

/// Where a cluster has many errors and most of the candidate's requests, it is the cluster.
#[test]
fn clusters_are_compared_each_for_itself() {
    let figures = |requests: u64, errors| Figures {
        classes: [0, requests - errors, 0, 0, errors],
        ..Figures::default()
    };
    let good = [figures(9000, 9), figures(1000, 1)];
    let bad = [figures(1000, 100), figures(9000, 900)];
    let (mut apart, mut mixed) = (first_step(), first_step());
    for _ in 0..12 {
        for [baseline, candidate] in [&good, &bad] {
            apart.add(baseline, candidate);
        }
        apart.end_window();
        let [mut baseline, mut candidate] = good.clone();
        baseline.merge(&bad[0]);
        candidate.merge(&bad[1]);
        mixed.add(&baseline, &candidate);
        mixed.end_window();
    }
    assert_eq!(apart.verdict(), Verdict::NotWorse);
    assert_eq!(mixed.verdict(), Verdict::MoreErrors, "what it would be");
}

#[test]
fn no_more_is_spent_than_there_is() {
    for steps in [1, 2, 5, 20] {
        let all: f64 = (0..steps)
            .flat_map(|step| (0..10_000).map(move |spell| Spend::of(0.01, step, steps, spell)))
            .map(|spend| spend.early + spend.errors + spend.slowness)
            .sum();
        assert!(all <= 0.01 + 1e-12, "{steps} steps: {all}");
        assert!(all >= if steps == 1 { 0.0064 } else { 0.0099 }, "{all}");
    }
}

/// Whoever else answers for a group hides its failures from callers, not from here.
#[test]
fn what_others_answer_in_a_groups_place_is_its_failure() {
    let figures = |requests, fallbacks| Figures {
        classes: [0, requests, 0, 0, 0],
        fallbacks,
        ..Figures::default()
    };
    let mut comparison = first_step();
    comparison.add(&figures(750, 0), &figures(250, 20));
    comparison.end_window();
    assert_eq!(comparison.verdict(), Verdict::MoreErrors);
    // Both are in trouble.
    let mut comparison = first_step();
    comparison.add(&figures(750, 60), &figures(250, 20));
    comparison.end_window();
    assert_eq!(comparison.verdict(), Verdict::NotWorse);
    // One that answers 5xx in its place is not counted twice.
    let mut both = figures(100, 30);
    both.classes = [0, 70, 0, 0, 30];
    assert_eq!(failed(&both), 30);
}
