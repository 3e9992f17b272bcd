//! Two replicas of one database, as far as figures go: what is counted, once, and told alike.

use cardea_registry_api::figures::{By, LATEST_MS, window_of};

use super::{
    telling::REPORTED_MS,
    window::tests::{report, requests},
    *,
};
use crate::{
    clock::wall_ms,
    core::config::StoreConfig,
    state::tests::name,
    testing::{Postgres, sqlite_url},
};

/// A replica.
struct Replica {
    figures: Arc<Figures>,
    taker: Taker,
}

fn store(url: &str) -> Store {
    let config = StoreConfig {
        url: url.to_owned(),
        ..StoreConfig::default()
    };
    Store::new(&config).unwrap()
}

impl Replica {
    fn new(url: &str) -> Self {
        Self {
            figures: Arc::new(Figures::new(store(url))),
            taker: Taker::default(),
        }
    }

    /// Hands reports in and counts them at once; what each was told.
    async fn take(
        &mut self,
        reports: Vec<(&str, Report)>,
        away: bool,
    ) -> Vec<Result<Taken, TakeError>> {
        let asked: Vec<_> = reports
            .into_iter()
            .map(|(router, report)| {
                let (figures, router) = (Arc::clone(&self.figures), router.to_owned());
                tokio::spawn(async move { figures.take(name("c"), router, report).await })
            })
            .collect();
        let all = asked.len();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut answered = 0;
        while answered < all {
            assert!(tokio::time::Instant::now() < deadline);
            self.taker.count(&self.figures, away).await;
            tokio::task::yield_now().await;
            answered = asked.iter().filter(|task| task.is_finished()).count();
        }
        let mut told = Vec::new();
        for task in asked {
            told.push(task.await.unwrap());
        }
        told
    }

    async fn tell(&self, window: &str, now: i64, away: bool) -> cardea_registry_api::figures::Told {
        let question = Question {
            cluster: name("c"),
            service: None,
            route: None,
            by: By::Service,
            window: window.parse().unwrap(),
            step: window.parse().unwrap(),
        };
        question.check().unwrap();
        let now = now + REPORTED_MS;
        self.figures.tell(question, now, away).await.unwrap()
    }

    async fn requests(&self, window: &str, now: i64) -> u64 {
        let told = self.tell(window, now, false).await;
        assert_eq!(told.degraded, None);
        told.points
            .iter()
            .flat_map(|p| &p.series)
            .map(|s| s.requests)
            .sum()
    }
}

fn counted(told: &[Result<Taken, TakeError>]) -> Vec<bool> {
    let each = told.iter().map(|one| one.as_ref().unwrap());
    each.map(|taken| {
        assert!(taken.stored);
        taken.counted
    })
    .collect()
}

async fn suite(url: &str) {
    store(url).prepare("e").await.unwrap();
    let at = window_of(wall_ms()) - 60_000;
    let now = at + 10_000;
    let (mut one, mut two) = (Replica::new(url), Replica::new(url));
    // Some to each replica; a window in several batches.
    let told = one
        .take(
            vec![
                ("r1", report("p1", at, &[("a", 3)])),
                ("r2", report("p2", at, &[("a", 4), ("b", 1)])),
            ],
            false,
        )
        .await;
    assert_eq!(counted(&told), [true, true]);
    let told = two
        .take(vec![("r3", report("p3", at, &[("a", 10)]))], false)
        .await;
    assert_eq!(counted(&told), [true]);
    let told = one
        .take(vec![("r4", report("p4", at, &[("b", 100)]))], false)
        .await;
    assert_eq!(counted(&told), [true]);
    for replica in [&one, &two] {
        assert_eq!(replica.requests("15s", now).await, 118);
    }
    let alike = (
        one.tell("15s", now, false).await,
        two.tell("15s", now, false).await,
    );
    assert_eq!(alike.0, alike.1);
    assert_eq!(alike.0.points[0].reports, 4);

    // Said again, to either, beside one that is new: counted once.
    let again = vec![
        ("r1", report("p1", at, &[("a", 3)])),
        ("r5", report("p5", at, &[("a", 1000)])),
    ];
    assert_eq!(counted(&two.take(again, false).await), [false, true]);
    let again = vec![("r5", report("p5", at, &[("a", 1000)]))];
    assert_eq!(counted(&one.take(again, false).await), [false]);
    // The same router, started again: another process begins at nothing.
    let anew = vec![("r1", report("p1b", at, &[("a", 10_000)]))];
    assert_eq!(counted(&one.take(anew, false).await), [true]);
    // The next window, and in the same moment the one behind it: in order.
    let both = vec![
        ("r1", report("p1", at + 5000, &[("a", 20_000)])),
        ("r1", report("p1", at + 10_000, &[("a", 50_000)])),
    ];
    let told = one.take(both, false).await;
    assert!(counted(&told).contains(&true));
    for replica in [&one, &two] {
        assert_eq!(replica.requests("5s", now - 5000).await, 11_118);
    }

    // A replica that is killed and started again writes rows of its own: nothing is overwritten.
    let mut three = Replica::new(url);
    let told = three
        .take(vec![("r6", report("p6", at, &[("a", 100_000)]))], false)
        .await;
    assert_eq!(counted(&told), [true]);
    for replica in [&one, &two, &three] {
        assert_eq!(replica.requests("5s", now - 5000).await, 111_118);
    }
    old_windows_are_put_together_once(url, at).await;
}

async fn old_windows_are_put_together_once(url: &str, at: i64) {
    let replica = Replica::new(url);
    let minute = at.div_euclid(MINUTE_MS) * MINUTE_MS;
    // Long enough after the last report for everything to be settled.
    let later = at + LATEST_MS + 10 * MINUTE_MS;
    let all = async |replica: &Replica| {
        let mut all = 0;
        for (_, body) in replica
            .figures
            .bodies(&name("c"), MINUTE_MS, (minute, later), &mut false)
            .await
        {
            all += requests(&Window::decode(&body).unwrap());
        }
        all
    };
    assert_eq!(all(&replica).await, 0);
    let before = replica.requests("1h", later).await;
    assert!(before >= 131_118, "{before}");
    for _ in 0..2 {
        replica.figures.settle(later).await.unwrap();
        assert_eq!(all(&replica).await, before);
        // Told from minutes or from windows, and from both at once, it is the same.
        assert_eq!(replica.requests("1h", later).await, before);
        assert_eq!(replica.requests("2h", later).await, before);
    }
    // After an hour the windows go, after a day the minutes.
    replica
        .figures
        .settle(at + KEPT_MS + MINUTE_MS)
        .await
        .unwrap();
    let store = store(url);
    assert!(store.oldest_figures(WINDOW_MS).await.unwrap().is_empty());
    assert_eq!(
        Replica::new(url).requests("2h", later + KEPT_MS).await,
        before
    );
    replica
        .figures
        .settle(at + KEPT_MINUTES_MS + 2 * MINUTE_MS)
        .await
        .unwrap();
    assert!(store.oldest_figures(MINUTE_MS).await.unwrap().is_empty());
}

#[tokio::test]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    suite(&sqlite_url(dir.path())).await;
}

#[tokio::test]
async fn postgres() {
    let postgres = Postgres::start();
    suite(&postgres.url()).await;
}

#[tokio::test]
async fn while_the_database_is_away_memory_goes_on_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite_url(dir.path());
    store(&url).prepare("e").await.unwrap();
    let at = window_of(wall_ms()) - 60_000;
    let now = at + 10_000;
    let mut replica = Replica::new(&url);
    let told = replica
        .take(vec![("r1", report("p1", at, &[("a", 3)]))], false)
        .await;
    assert_eq!(counted(&told), [true]);
    let away = vec![
        ("r2", report("p2", at, &[("a", 5)])),
        ("r1", report("p1", at + 5000, &[("a", 7)])),
    ];
    for told in replica.take(away, true).await {
        assert_eq!(
            told,
            Ok(Taken {
                counted: true,
                stored: false,
                bears: Vec::new(),
            })
        );
    }
    let again = vec![("r2", report("p2", at, &[("a", 5)]))];
    let told = replica.take(again, true).await;
    assert_eq!(
        told[0],
        Ok(Taken {
            counted: false,
            stored: false,
            bears: Vec::new(),
        })
    );
    let told = replica.tell("15s", now, true).await;
    assert!(told.degraded.is_some());
    assert_eq!(told.points[0].series[0].requests, 15);
    // Back again: all replicas say the same, which is what the database has.
    let back = vec![("r1", report("p1", at + 5000, &[("a", 9)]))];
    assert_eq!(counted(&replica.take(back, false).await), [true]);
    assert_eq!(replica.requests("15s", now).await, 12);
    assert_eq!(Replica::new(&url).requests("15s", now).await, 12);
}

#[tokio::test]
async fn a_database_that_does_not_take_a_batch_is_tried_again_without_loss() {
    let postgres = Postgres::start();
    let url = postgres.url();
    store(&url).prepare("e").await.unwrap();
    let at = window_of(wall_ms()) - 60_000;
    let mut replica = Replica::new(&url);
    let one = || vec![("r1", report("p1", at, &[("a", 3)]))];
    assert_eq!(counted(&replica.take(one(), false).await), [true]);
    postgres.crash();
    let two = || vec![("r2", report("p2", at, &[("a", 4)]))];
    let told = replica.take(two(), false).await;
    assert!(matches!(told[0], Err(TakeError::Store(_))), "{told:?}");
    postgres.resume();
    let told = loop {
        let told = replica.take(two(), false).await;
        if told[0].is_ok() {
            break told;
        }
    };
    assert_eq!(counted(&told), [true]);
    assert_eq!(replica.requests("15s", at + 10_000).await, 7);
}

#[tokio::test]
async fn more_clusters_and_series_than_there_may_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let url = sqlite_url(dir.path());
    store(&url).prepare("e").await.unwrap();
    let at = window_of(wall_ms());
    let mut replica = Replica::new(&url);
    let mut told = Vec::new();
    for n in 0..65 {
        let figures = Arc::clone(&replica.figures);
        let report = report("p", at, &[("a", 1)]);
        let take = tokio::spawn(async move {
            figures
                .take(name(&format!("c{n}")), "r".to_owned(), report)
                .await
        });
        while !take.is_finished() {
            replica.taker.count(&replica.figures, false).await;
            tokio::task::yield_now().await;
        }
        told.push(take.await.unwrap());
    }
    assert!(told[..64].iter().all(Result::is_ok));
    assert_eq!(told[64], Err(TakeError::TooMany("clusters", 64)));
    // More than may wait: said at once.
    let place = Place(Arc::clone(&replica.figures.waiting), MOST_WAITING);
    replica
        .figures
        .waiting
        .fetch_add(MOST_WAITING + 1, Ordering::Relaxed);
    let busy = replica
        .figures
        .take(name("c"), "r".to_owned(), report("p", at, &[]))
        .await;
    assert_eq!(busy, Err(TakeError::Busy));
    drop(place);
}
