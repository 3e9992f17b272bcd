//! What is learnt of what instances bear.

use std::time::{Duration, Instant};

use cardea_registry_api::{Traffic, figures::Bears, traffic::Zones};
use proptest::prelude::*;

use super::{
    super::load::{Counted, Load, WINDOW, Window, pack},
    picks::two_clusters,
    traffic,
};
use crate::{
    balance::{Balancers, PickInput},
    fixtures::{World, instance, name},
};

/// What a request takes of an idle instance, in microseconds.
const BASE: f64 = 2_000.0;
const SECONDS: f64 = WINDOW as f64 / 1000.0;

fn calm(rate: f64) -> Window {
    window(rate, BASE, 0.0)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are small and not negative"
)]
fn window(rate: f64, mean: f64, failed: f64) -> Window {
    Window {
        requests: (rate * SECONDS) as u64,
        rate,
        failed,
        mean_us: Some(mean),
    }
}

/// An instance that serves so many requests a second: what is more waits, and is lost after a second.
struct Instance {
    serves: f64,
    waiting: f64,
    load: Load,
    now: u64,
    /// Of each window: what it kept, what it got, and whether somebody noticed.
    told: Vec<(f64, f64, bool)>,
}

impl Instance {
    fn new(serves: f64) -> Self {
        Self {
            serves,
            waiting: 0.0,
            load: Load::default(),
            now: 3_600_000,
            told: Vec::new(),
        }
    }

    /// So many requests a second are meant for it, for so many windows.
    fn asked(&mut self, rate: f64, windows: usize) {
        for _ in 0..windows {
            let kept = self.load.kept;
            let got = rate * kept;
            let before = self.waiting;
            let backlog = (before + (got - self.serves) * SECONDS).max(0.0);
            self.waiting = backlog.min(self.serves);
            let failed = (backlog - self.waiting) / (got * SECONDS).max(1.0);
            let waited = f64::midpoint(before, self.waiting) / self.serves * 1e6;
            self.now += WINDOW;
            self.load = self.load.step(window(got, BASE + waited, failed), self.now);
            self.told
                .push((kept, got, failed > 0.0 || waited > 50_000.0));
        }
    }

    /// Of the last windows: the mean of what it got, and how many were noticed.
    fn last(&self, windows: usize) -> (f64, usize) {
        let last = &self.told[self.told.len() - windows..];
        let got: f64 = last.iter().map(|(_, got, _)| got).sum();
        let noticed = last.iter().filter(|(.., noticed)| *noticed).count();
        (got / windows as f64, noticed)
    }
}

#[test]
fn more_than_it_bears_leaves_and_comes_back() {
    let mut one = Instance::new(100.0);
    one.asked(80.0, 24);
    one.asked(200.0, 240);
    let first = one.told[24..].iter().take_while(|(kept, ..)| *kept >= 1.0);
    assert_eq!(first.count(), 1, "after the first window that hurts");
    let (got, noticed) = one.last(120);
    println!("of 200 for one that serves 100: {got:.1}, {noticed} of 120 windows hurt");
    assert!((80.0..=100.5).contains(&got), "{got}");
    assert!(noticed <= 20, "{noticed}");
    one.asked(80.0, 40);
    assert!(one.load.kept >= 1.0, "{:?}", one.load);
    // It has become larger: it is noticed by itself.
    one.asked(200.0, 24);
    assert!(one.load.kept < 1.0);
    one.serves = 300.0;
    one.asked(200.0, 60);
    assert!(one.load.kept >= 1.0, "{:?}", one.load);
}

#[test]
fn nothing_is_judged_before_enough_is_known() {
    let mut one = Instance::new(100.0);
    one.asked(80.0, 11);
    one.asked(300.0, 20);
    assert!(one.told.iter().all(|(kept, ..)| *kept >= 1.0));
}

#[test]
fn trouble_far_below_the_peak_is_not_loads() {
    let mut load = Load::default();
    let mut now = 0;
    let mut step = |window: Window| {
        now += WINDOW;
        load = load.step(window, now);
        load
    };
    for _ in 0..20 {
        step(calm(100.0));
    }
    for _ in 0..20 {
        assert!(step(window(50.0, 500_000.0, 0.3)).kept >= 1.0);
    }
    // Nor are a few requests.
    assert!(step(window(10.0, 900_000.0, 0.5)).kept >= 1.0);
    let hurt = step(window(200.0, BASE, 0.2));
    assert!(
        (hurt.kept - 0.5).abs() < 1e-9,
        "what it is known to bear: {hurt:?}"
    );
}

#[test]
fn a_peak_is_forgotten() {
    let mut load = Load::default();
    let mut now = 3_600_000;
    load = load.step(calm(500.0), now);
    for _ in 0..12 * 61 {
        now += WINDOW;
        load = load.step(calm(100.0), now);
    }
    assert!((load.peak() - 100.0).abs() < 1e-9, "{load:?}");
}

#[test]
fn what_was_counted_is_exact_over_a_window_though_sums_run_over() {
    let mut before = Counted {
        requests: 7,
        failures: 1,
        answers: u64::MAX - 5,
    };
    let begun = before;
    for _ in 0..1000 {
        before.answers = before.answers.wrapping_add(pack(Duration::from_millis(2)));
    }
    before.requests += 1010;
    before.failures += 10;
    let window = before.since(&begun, 5000, 2.0);
    assert_eq!(window.requests, 1010);
    assert_eq!(window.mean_us, Some(2000.0));
    assert!((window.rate - 101.0).abs() < 1e-9, "{window:?}");
    assert!((window.failed - 10.0 / 1010.0).abs() < 1e-9, "{window:?}");
}

/// So many requests each half second, each of which takes so long in `dc`; the share of the last ones that
/// peers got that are as asked for.
struct Requests {
    world: World,
    balancers: Balancers,
    now: Instant,
}

impl Requests {
    fn new(world: World) -> Self {
        Self {
            world,
            balancers: Balancers::new(5),
            now: Instant::now(),
        }
    }

    fn pass(&mut self, windows: u32, each: u32, took: u64, is: impl Fn(&str, &str) -> bool) -> f64 {
        let upstream = self.world.upstream("s");
        let mut share = 0.0;
        for _ in 0..windows * 10 {
            self.now += Duration::from_millis(500);
            let mut found = 0;
            for _ in 0..each {
                let input = PickInput::default();
                let picked = self.balancers.pick(&upstream, &input, &[], self.now);
                let mut picked = picked.unwrap();
                let key = picked.peer().key().clone();
                let home = key.cluster == name("dc");
                let took = Duration::from_millis(if home { took } else { 2 });
                picked.responded(took, self.now);
                picked.finished();
                found += u32::from(is(key.cluster.as_str(), key.id.as_str()));
            }
            share = f64::from(found) / f64::from(each);
        }
        share
    }
}

fn home(cluster: &str, _: &str) -> bool {
    cluster == "dc"
}

#[test]
fn what_a_cluster_cannot_bear_goes_where_its_requests_may_fail_over_to() {
    let of = |traffic: Traffic| Requests::new(two_clusters(traffic));
    let mut all = of(traffic(&[], &["b"]));
    assert!((all.pass(14, 100, 2, home) - 1.0).abs() < 1e-9);
    // Twice as many, and it does not hurt.
    assert!((all.pass(14, 200, 2, home) - 1.0).abs() < 1e-9);
    // It does: back to what it was known to bear.
    let kept = all.pass(4, 400, 300, home);
    assert!((0.4..=0.55).contains(&kept), "{kept}");
    let upstream = all.world.upstream("s");
    let ways = upstream.ways().unwrap();
    let standings = ways.flow.standings(ways, crate::clock::millis(all.now));
    assert!((standings[0].bears - kept).abs() < 0.05, "{standings:?}");
    // All is well with few: it comes back.
    let kept = all.pass(40, 100, 2, home);
    assert!((kept - 1.0).abs() < 1e-9, "{kept}");
    // Without an order there is nowhere to go: where the weights say.
    let mut weighed = of(traffic(&[("dc", 50), ("b", 50)], &[]));
    weighed.pass(14, 100, 2, home);
    let share = weighed.pass(6, 400, 300, home);
    assert!((share - 0.5).abs() < 0.02, "{share}");
    assert!(!weighed.world.upstream("s").is_measured());
}

#[test]
fn what_instances_say_that_they_cannot_serve_goes_elsewhere_while_the_registry_says_so() {
    let mut all = Requests::new(two_clusters(traffic(&[], &["b"])));
    let upstream = all.world.upstream("s");
    let told = |part: u16, now: Instant| {
        let bears = Bears {
            service: name("s"),
            cluster: name("dc"),
            part,
        };
        let flow = &upstream.ways().unwrap().flow;
        flow.told([bears].iter(), crate::clock::millis(now));
    };
    assert!((all.pass(1, 100, 2, home) - 1.0).abs() < 1e-9);
    told(250, all.now);
    assert!((all.pass(1, 100, 2, home) - 0.25).abs() < 0.02);
    told(800, all.now);
    assert!((all.pass(1, 100, 2, home) - 0.8).abs() < 0.02);
    // Nobody says so any more.
    assert!((all.pass(5, 100, 2, home) - 1.0).abs() < 1e-9);
}

#[test]
fn what_a_zone_cannot_bear_goes_to_the_others() {
    let mut near = traffic(&[], &[]);
    near.zones = Zones::Near;
    let mut world = World::in_zone("z1");
    world.service(cardea_registry_api::Service::named(name("s")));
    world.traffic(near);
    for number in 0..4 {
        let mut one = instance("s", number, 100);
        one.zone = Some(name(if number < 2 { "z1" } else { "z2" }));
        world.instance(one);
    }
    let mut requests = Requests::new(world);
    requests.world.publish(requests.now);
    let near = |_: &str, id: &str| ["i0", "i1"].contains(&id);
    assert!((requests.pass(14, 200, 2, near) - 1.0).abs() < 1e-9);
    let kept = requests.pass(2, 400, 300, near);
    // Half of what leaves goes to them, as to all.
    assert!((0.6..=0.8).contains(&kept), "{kept}");
}

proptest! {
    #[test]
    fn what_does_not_hurt_never_leaves(
        windows in prop::collection::vec((0.0..1e5_f64, 0.5..1.9_f64, 0.0..0.05_f64), 1..200),
    ) {
        let mut load = Load::default();
        for (at, (rate, slower, failed)) in windows.into_iter().enumerate() {
            load = load.step(window(rate, BASE * slower, failed), at as u64 * WINDOW);
            prop_assert!(load.kept >= 1.0, "{:?}", load);
        }
    }

    #[test]
    fn whatever_happens_something_stays_and_all_comes_back(
        windows in prop::collection::vec((0.0..1e5_f64, 0.5..500.0_f64, 0.0..=1.0_f64), 1..100),
    ) {
        let mut load = Load::default();
        let mut now = 0;
        for (rate, slower, failed) in windows {
            now += WINDOW;
            load = load.step(window(rate, BASE * slower, failed), now);
            prop_assert!((0.05..=1.0).contains(&load.kept), "{:?}", load);
        }
        for _ in 0..12 * 10 {
            now += WINDOW;
            load = load.step(calm(1000.0 * load.kept), now);
        }
        prop_assert!(load.kept >= 1.0, "{:?}", load);
    }

    /// However much more is asked of it than it serves, it is busy, and rarely hurt.
    #[test]
    fn it_stays_busy(serves in 50.0..5000.0_f64, times in 1.2..6.0_f64) {
        let mut one = Instance::new(serves);
        one.asked(serves * 0.9, 24);
        one.asked(serves * times, 360);
        let (got, noticed) = one.last(240);
        prop_assert!((0.75..=1.01).contains(&(got / serves)), "{} of {}", got, serves);
        prop_assert!(noticed <= 60, "{}", noticed);
    }
}
