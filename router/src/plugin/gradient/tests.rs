use proptest::prelude::*;

use super::*;

fn adaptive(toml: &str) -> Adaptive {
    toml::from_str(toml).unwrap()
}

/// A service that answers in 10 ms as long as no more than `room` are at it at a time, and then in
/// proportion longer.
fn latency(running: f64, room: f64) -> f64 {
    10_000.0 * (running / room).max(1.0)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit is between 1 and 1000"
)]
fn running(limit: f64) -> u32 {
    limit as u32
}

fn settle(adaptive: &Adaptive, mut known: Known, room: f64, windows: usize) -> Known {
    for _ in 0..windows {
        // More is offered than can be taken.
        let running = running(known.limit);
        let window = Window {
            mean: latency(running.into(), room),
            peak: running,
        };
        known = known.after(window, adaptive);
    }
    known
}

#[test]
fn it_finds_what_a_service_takes_and_follows_it_down() {
    let adaptive = adaptive("max = 1000");
    // The long run is known from times with room.
    let known = settle(&adaptive, Known::new(&adaptive), 100.0, 200);
    assert!((100.0..200.0).contains(&known.limit), "{known:?}");
    let less = settle(&adaptive, known, 20.0, 40);
    assert!(less.limit < known.limit / 1.5, "{known:?} {less:?}");
}

#[test]
fn few_requests_say_nothing() {
    let adaptive = adaptive("initial = 100");
    let known = Known::new(&adaptive);
    let window = Window {
        mean: 1e6,
        peak: 49,
    };
    assert!((known.after(window, &adaptive).limit - 100.0).abs() < 1e-9);
}

#[test]
fn no_more_at_a_time_than_the_limit_from_many_threads() {
    let adaptive = adaptive("initial = 20");
    let gradient = Gradient::default();
    let taken: usize = std::thread::scope(|scope| {
        let ask = || (0..100).filter(|_| gradient.enter(&adaptive)).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(taken, 20);
    (0..taken).for_each(|_| gradient.leave());
    assert_eq!(gradient.running(), 0);
    assert!(gradient.enter(&adaptive));
}

/// Twenty at a time, and so many answers.
fn fill(gradient: &Gradient, adaptive: &Adaptive, now: u64, micros: u64, answers: usize) {
    (0..20).for_each(|_| {
        gradient.enter(adaptive);
    });
    (0..answers).for_each(|_| gradient.answered(micros, now, adaptive));
    (0..20).for_each(|_| gradient.leave());
}

#[test]
fn windows_close_by_time_and_by_samples() {
    let adaptive = adaptive("initial = 20\nmin = 1");
    let gradient = Gradient::default();
    // As fast as ever: each second four fifths of one more.
    for second in 1..20 {
        fill(&gradient, &adaptive, second * 1_000, 1_000, 50);
    }
    let grown = gradient.limit(&adaptive);
    assert!((30..=36).contains(&grown), "{grown}");
    // Ten answers at least.
    let few = Gradient::default();
    fill(&few, &adaptive, 1_000, 1_000, 5);
    fill(&few, &adaptive, 9_000, 900_000, 4);
    assert_eq!(few.known(&adaptive), Known::new(&adaptive));
    fill(&few, &adaptive, 9_000, 900_000, 1);
    assert_eq!(few.known(&adaptive).windows, 1);
}

proptest! {
    #[test]
    fn the_limit_stays_within_its_bounds(
        windows in prop::collection::vec((1.0f64..1e9, 0u32..2000), 1..200),
    ) {
        let adaptive = adaptive("initial = 20\nmin = 5\nmax = 300");
        let mut known = Known::new(&adaptive);
        for (mean, peak) in windows {
            known = known.after(Window { mean, peak }, &adaptive);
            prop_assert!((5.0..=300.0).contains(&known.limit) && known.long.is_finite());
        }
    }
}
