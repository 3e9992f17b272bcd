use proptest::prelude::*;

use super::*;
use crate::plugin::asked::Headers;

const SECOND: u64 = 1_000_000_000;

fn limiter(toml: &str) -> Limiter {
    sharing(toml, &Arc::default())
}

fn sharing(toml: &str, share: &Arc<Share>) -> Limiter {
    let limit: Limit = toml::from_str(toml).unwrap();
    limit.check().unwrap();
    Limiter::new(&limit, Counts::new(limit.key.is_some()), share).unwrap()
}

/// The limit after a change: what it counts is kept.
fn changed(old: &Limiter, toml: &str) -> Limiter {
    let limit: Limit = toml::from_str(toml).unwrap();
    limit.check().unwrap();
    Limiter::new(&limit, Arc::clone(&old.counts), &Arc::default()).unwrap()
}

fn fine(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Fine(_))
}

fn by(limiter: &Limiter, user: &str, now: u64) -> Verdict {
    let list = [("x-user".to_owned(), user.to_owned())];
    let asked = Asked {
        headers: Headers::List(&list),
        ..Asked::default()
    };
    limiter.ask(&asked, now, true)
}

/// Requests per second that get through of `offered` per second, over ten seconds.
fn through(limiter: &Limiter, offered: u64) -> f64 {
    let asked = Asked::default();
    let admitted = (0..offered * 10)
        .filter(|n| fine(&limiter.ask(&asked, SECOND + n * SECOND / offered, true)))
        .count();
    // The burst of five comes once.
    (admitted - 5) as f64 / 10.0
}

#[test]
fn at_ten_times_the_rate_the_rate_gets_through() {
    for rate in [10u64, 333, 5000, 70_000] {
        let limiter = limiter(&format!("rate = {rate}\nburst = 5"));
        let got = through(&limiter, rate * 10);
        let off = (got / rate as f64 - 1.0).abs();
        assert!(off < 0.02, "{rate}: {got}");
    }
    let limiter = limiter("rate = 600\nper = \"minute\"\nburst = 5");
    assert!((through(&limiter, 100) - 10.0).abs() <= 0.2);
}

#[test]
fn a_burst_goes_through_at_once_and_then_the_rate() {
    let limiter = limiter("rate = 10\nburst = 5");
    let asked = Asked::default();
    let at_once = (0..20).filter(|_| fine(&limiter.ask(&asked, SECOND, true)));
    assert_eq!(at_once.count(), 5);
    let Verdict::TooMuch(much) = limiter.ask(&asked, SECOND, true) else {
        panic!("the burst is used up");
    };
    assert_eq!(
        much,
        TooMuch {
            retry_after: 1,
            limit: 5
        }
    );
    assert!(fine(&limiter.ask(&asked, SECOND + SECOND / 10, true)));
    assert!(!fine(&limiter.ask(&asked, SECOND + SECOND / 10, true)));
}

#[test]
fn who_waited_for_a_tight_limit_goes_on_when_it_is_raised() {
    for key in ["", "\nkey = \"header:x-user\""] {
        let tight = limiter(&format!("rate = 1\nper = \"minute\"\nburst = 1{key}"));
        assert!(fine(&by(&tight, "a", SECOND)));
        assert!(!fine(&by(&tight, "a", 2 * SECOND)));
        let raised = changed(&tight, &format!("rate = 10\nburst = 2{key}"));
        assert!(fine(&by(&raised, "a", 2 * SECOND)), "{key}");
        // Its burst is taken as used up: from here on the new rate holds, no more and no less.
        let through = (0..1000)
            .filter(|n| fine(&by(&raised, "a", 2 * SECOND + n * SECOND / 100)))
            .count();
        assert!((98..=100).contains(&through), "{key}: {through}");
    }
}

#[test]
fn asking_uses_nothing_up() {
    let limiter = limiter("rate = 1\nconcurrent = 1");
    let asked = Asked::default();
    for _ in 0..5 {
        assert!(fine(&limiter.ask(&asked, SECOND, false)));
    }
    let first = limiter.ask(&asked, SECOND, true);
    assert!(fine(&first) && !fine(&limiter.ask(&asked, SECOND, false)));
}

#[test]
fn so_many_at_a_time() {
    let limiter = limiter("concurrent = 2");
    let asked = Asked::default();
    let one = limiter.ask(&asked, SECOND, true);
    let two = limiter.ask(&asked, SECOND, true);
    assert!(fine(&one) && fine(&two) && !fine(&limiter.ask(&asked, SECOND, true)));
    drop(one);
    let three = limiter.ask(&asked, SECOND, true);
    assert!(fine(&three) && !fine(&limiter.ask(&asked, SECOND, true)));
    drop((two, three));
    assert_eq!(limiter.counts.running.load(Relaxed), 0);
}

#[test]
fn a_refused_rate_takes_no_permit() {
    let limiter = limiter("rate = 1\nconcurrent = 2");
    let asked = Asked::default();
    drop(limiter.ask(&asked, SECOND, true));
    assert!(!fine(&limiter.ask(&asked, SECOND, true)));
    assert_eq!(limiter.counts.running.load(Relaxed), 0);
}

#[test]
fn each_key_has_a_limit_of_its_own() {
    let limiter = limiter(
        "key = \"header:x-user\"\nrate = 1\n[[keys]]\nis = \"vip\"\nrate = 3\n[[keys]]\nis = \"root\"",
    );
    let times = |user: &str| {
        (0..10)
            .filter(|_| fine(&by(&limiter, user, SECOND)))
            .count()
    };
    assert_eq!(times("a"), 1);
    assert_eq!(times("b"), 1);
    assert_eq!(times("vip"), 3);
    assert_eq!(times("root"), 10);
    // Who has no key is not limited.
    assert!(matches!(
        limiter.ask(&Asked::default(), SECOND, true),
        Verdict::Aside
    ));
}

#[test]
fn a_flood_of_keys_neither_grows_nor_frees_the_hot_one() {
    let limiter = limiter("key = \"header:x-user\"\nrate = 10\nburst = 1");
    let mut hot = 0;
    // Ten seconds in steps of 1 ms: the hot key each step, and ten keys that never come again.
    for step in 0..10_000u64 {
        let now = SECOND + step * SECOND / 1000;
        hot += usize::from(fine(&by(&limiter, "hot", now)));
        for other in 0..10 {
            assert!(fine(&by(&limiter, &format!("{step}-{other}"), now)));
        }
    }
    assert!((98..=102).contains(&hot), "{hot}");
    assert_eq!(limiter.counts.keys.as_ref().unwrap().len(), KEYS);
}

#[test]
fn a_million_keys_take_no_more_room_and_leave_the_hot_one_alone() {
    let limiter = limiter("key = \"header:x-user\"\nrate = 10\nburst = 1");
    let mut list = [("x-user".to_owned(), String::new())];
    let mut ask = |user: std::fmt::Arguments<'_>, now: u64| {
        list[0].1.clear();
        std::fmt::write(&mut list[0].1, user).unwrap();
        let asked = Asked {
            headers: Headers::List(&list),
            ..Asked::default()
        };
        fine(&limiter.ask(&asked, now, true))
    };
    let mut hot = 0;
    // A million in ten seconds, each once; every tenth request is the hot key's.
    for number in 0..1_000_000u64 {
        let now = SECOND + number * 10_000;
        assert!(ask(format_args!("{number}"), now));
        if number % 10 == 0 {
            hot += usize::from(ask(format_args!("hot"), now));
        }
    }
    assert!((98..=102).contains(&hot), "{hot}");
    let places = limiter.counts.keys.as_ref().unwrap();
    assert_eq!(places.len(), KEYS);
    assert!(size_of_val(&**places) <= 2 << 20);
}

#[test]
fn one_hot_key_slows_no_other() {
    let limiter = limiter("key = \"header:x-user\"\nrate = 100\nburst = 2");
    let (mut hot, mut refused) = (0, 0);
    // Ten seconds: a hundred users at nine tenths of their rate each, and one at a hundred times it.
    for step in 0..100_000u64 {
        let now = SECOND + step * 100_000;
        hot += usize::from(fine(&by(&limiter, "hot", now)));
        if step % 111 < 100 {
            refused += usize::from(!fine(&by(&limiter, &format!("u{}", step % 111), now)));
        }
    }
    assert!((980..=1020).contains(&hot), "{hot}");
    assert_eq!(refused, 0);
}

/// What gets through each second of `seconds`, at ten times the rate spread evenly over routers, of
/// which there are as many as `routers` says at a second.
fn through_all(toml: &str, rate: u64, seconds: u64, routers: impl Fn(u64) -> u64) -> Vec<u64> {
    let most = (0..seconds).map(&routers).max().unwrap();
    let shares: Vec<Arc<Share>> = (0..most).map(|_| Arc::default()).collect();
    let limiters: Vec<Limiter> = shares.iter().map(|share| sharing(toml, share)).collect();
    let asked = Asked::default();
    let mut through = Vec::new();
    for second in 0..seconds {
        let count = routers(second);
        for share in &shares {
            share.routers(count, (3600 + second) * 1000);
        }
        let offered = rate * 10;
        let admitted = (0..offered).filter(|n| {
            let now = (3600 + second) * SECOND + n * SECOND / offered;
            let limiter = &limiters[usize::try_from(n % count).unwrap()];
            fine(&limiter.ask(&asked, now, true))
        });
        through.push(admitted.count() as u64);
    }
    through
}

#[test]
fn routers_share_a_divided_limit() {
    let divided = "rate = 500\nburst = 5\ncount = \"divided\"";
    for count in [1, 2, 3, 7] {
        let through = through_all(divided, 500, 10, |_| count);
        let sum: u64 = through[1..].iter().sum();
        assert!(sum.abs_diff(4500) <= 90, "{count} routers: {through:?}");
    }
    // Counted by each for itself, seven allow seven times as much.
    let local = through_all("rate = 500\nburst = 5", 500, 10, |_| 7);
    assert!(local[5].abs_diff(3500) <= 70, "{local:?}");
}

#[test]
fn a_change_of_routers_counts_smoothly() {
    let divided = "rate = 600\nburst = 6\ncount = \"divided\"";
    // Two become four, and four become two: in between, some allow what they did and some more.
    let through = through_all(divided, 600, 40, |second| {
        if (10..25).contains(&second) { 4 } else { 2 }
    });
    for steady in [through[8], through[23], through[38]] {
        assert!(steady.abs_diff(600) <= 12, "{through:?}");
    }
    // Never more than twice the rate, never less than half of it, and no jumps but at the change.
    assert!(
        through.iter().all(|n| (290..=1212).contains(n)),
        "{through:?}"
    );
    for (at, pair) in through.windows(2).enumerate().skip(1) {
        let jump = pair[0].abs_diff(pair[1]);
        assert!(jump <= 130 || at == 9 || at == 24, "{at}: {through:?}");
    }
}

#[test]
fn a_share_is_never_nothing() {
    let share = Arc::<Share>::default();
    share.routers(1000, 3_600_000);
    let limiter = sharing(
        "rate = 10\nburst = 1\nconcurrent = 3\ncount = \"divided\"",
        &share,
    );
    let first = limiter.ask(&Asked::default(), 3600 * SECOND, true);
    assert!(fine(&first));
    let Verdict::TooMuch(much) = limiter.ask(&Asked::default(), 3600 * SECOND, true) else {
        panic!("one at a time, and one each hundred seconds");
    };
    assert_eq!(much.limit, 1);
    drop(first);
    let Verdict::TooMuch(much) = limiter.ask(&Asked::default(), 3600 * SECOND, true) else {
        panic!("one each hundred seconds");
    };
    assert_eq!(much.retry_after, 100);
}

#[test]
fn many_threads_share_one_limit() {
    let limiter = limiter("rate = 1000\nburst = 1000");
    let admitted: usize = std::thread::scope(|scope| {
        let count = || {
            let asked = Asked::default();
            (0..1000)
                .filter(|_| fine(&limiter.ask(&asked, SECOND, true)))
                .count()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1000);
}

proptest! {
    /// Whenever requests come, in no span of time more get through than the burst and the rate allow.
    #[test]
    fn never_more_than_the_rate_and_the_burst(
        gaps in prop::collection::vec(0u64..300_000_000, 1..200),
        rate in 1u32..50,
        burst in 1u32..20,
    ) {
        let limiter = limiter(&format!("rate = {rate}\nburst = {burst}"));
        let mut now = SECOND;
        let mut through: Vec<u64> = Vec::new();
        for gap in gaps {
            now += gap;
            if fine(&limiter.ask(&Asked::default(), now, true)) {
                through.push(now);
            }
        }
        for (i, from) in through.iter().enumerate() {
            let seconds = (now - from) as f64 / SECOND as f64;
            let most = f64::from(burst) + f64::from(rate) * seconds + 1e-3;
            prop_assert!((through.len() - i) as f64 <= most);
        }
    }
}
