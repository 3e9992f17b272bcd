//! Telling figures: the rows of all runs, added up to steps.

use std::{collections::BTreeMap, sync::Arc};

use cardea_registry_api::{
    Invalid, Name, Span,
    figures::{By, Figures as Counted, Peers, Told, ToldPoint, ToldSeries, WINDOW_MS, window_of},
    invalid::Check,
};

use super::{Figures, KEPT_MINUTES_MS, KEPT_MS, MINUTE_MS, Window};
use crate::core::StoreError;

/// How long after its end a window is told of, in milliseconds: by then the routers have reported it.
pub(super) const REPORTED_MS: i64 = 2_000;
/// The most points of an answer.
const MOST_POINTS: i64 = 1440;
/// The most series of an answer, over all points.
const MOST_SERIES: usize = 50_000;
/// Said where the database does not answer.
const DEGRADED: &str =
    "the database is away: only what this replica has read, or has heard itself since, is told";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whose.
    pub cluster: Name,
    /// Only of this service.
    pub service: Option<Name>,
    /// Only of this route.
    pub route: Option<Name>,
    /// By what they are told apart.
    pub by: By,
    /// How far back.
    pub window: Span,
    /// How long each point is.
    pub step: Span,
}

/// Why nothing is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// It would be too much.
    #[error("these are more than {MOST_SERIES} series: ask for longer steps, or for one service")]
    TooMuch,
    /// It could not be added up; the log has the cause.
    #[error("the figures could not be added up")]
    Failed,
}

impl Question {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        let (window, step) = (ms(self.window), ms(self.step));
        let unit = self.unit();
        check.ensure(
            (WINDOW_MS..=KEPT_MINUTES_MS).contains(&window),
            "window",
            "5s to 24h",
        );
        check.ensure(
            step > 0 && step % unit == 0,
            "step",
            if unit == WINDOW_MS {
                "a multiple of 5s"
            } else {
                "a multiple of 1m, as single windows are kept for an hour only"
            },
        );
        check.ensure(
            step <= 0 || window % step == 0,
            "window",
            "a multiple of `step`",
        );
        check.ensure(
            step <= 0 || window / step <= MOST_POINTS,
            "step",
            format!("such that there are at most {MOST_POINTS} points"),
        );
        check.finish()
    }

    /// The length of the windows that it is told from, in milliseconds.
    fn unit(&self) -> i64 {
        if ms(self.window) > KEPT_MS {
            MINUTE_MS
        } else {
            WINDOW_MS
        }
    }

    /// From when to before when: whole windows that have ended, and were reported.
    fn times(&self, now: i64) -> (i64, i64) {
        let to = window_of(now - REPORTED_MS).div_euclid(self.unit()) * self.unit();
        (to - ms(self.window), to)
    }
}

fn ms(span: Span) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Figures {
    /// What was counted up to `now`. `away`: the database is not in use.
    pub(crate) async fn tell(
        &self,
        question: Question,
        now: i64,
        away: bool,
    ) -> Result<Told, TellError> {
        let times = question.times(now);
        let mut degraded = away;
        let mut bodies = Vec::new();
        let mut minutes = Vec::new();
        if question.unit() == MINUTE_MS {
            minutes = self
                .bodies(&question.cluster, MINUTE_MS, times, &mut degraded)
                .await;
        }
        let windows = self
            .bodies(&question.cluster, WINDOW_MS, times, &mut degraded)
            .await;
        // A minute that is put together has all of its windows.
        let whole: std::collections::HashSet<i64> = minutes.iter().map(|(at, _)| *at).collect();
        let minutes_end = minutes.iter().map(|(at, _)| at + MINUTE_MS);
        let windows_end = windows.iter().map(|(at, _)| at + WINDOW_MS);
        let ends = minutes_end.chain(windows_end).max().into_iter();
        bodies.extend(minutes);
        let minute = |at: i64| at.div_euclid(MINUTE_MS) * MINUTE_MS;
        bodies.extend(
            windows
                .into_iter()
                .filter(|(at, _)| !whole.contains(&minute(*at))),
        );
        let mut heard = Vec::new();
        if degraded {
            let memory = self.memory();
            let own = memory.windows.iter().filter(|((cluster, at), _)| {
                *cluster == question.cluster && (times.0..times.1).contains(at)
            });
            heard = own.map(|((_, at), window)| (*at, window.clone())).collect();
        }
        let degraded = degraded.then(|| DEGRADED.to_owned());
        let made = tokio::task::spawn_blocking(move || {
            let points = add_up(&question, times, &bodies, &heard)?;
            let newest = ends.chain(heard.iter().map(|(at, _)| at + WINDOW_MS)).max();
            Ok(Told {
                cluster: question.cluster.clone(),
                from: times.0,
                to: times.1,
                step: question.step,
                degraded,
                newest,
                points,
            })
        });
        made.await.unwrap_or_else(|error| {
            tracing::error!(%error, "figures could not be added up");
            Err(TellError::Failed)
        })
    }

    /// The rows of a cluster within a time, each as it is in the database now; those that were read or
    /// written before, and have not changed, are not read again.
    pub(super) async fn bodies(
        &self,
        cluster: &Name,
        step: i64,
        times: (i64, i64),
        degraded: &mut bool,
    ) -> Vec<(i64, Arc<str>)> {
        if !*degraded && let Err(error) = self.refresh(cluster, step, times).await {
            tracing::debug!(%error, "figures are told from memory");
            *degraded = true;
        }
        let rows = self.rows();
        let Some(rows) = rows.0.get(&(cluster.clone(), step)) else {
            return Vec::new();
        };
        let from = (times.0, Arc::from(""));
        let within = rows.range(from..).take_while(|((at, _), _)| *at < times.1);
        within
            .map(|((at, _), (_, body))| (*at, Arc::clone(body)))
            .collect()
    }

    /// Makes the rows in memory what the database has.
    async fn refresh(
        &self,
        cluster: &Name,
        step: i64,
        times: (i64, i64),
    ) -> Result<(), StoreError> {
        let index = self.store.figures_index(cluster, step, times).await?;
        let key = (cluster.clone(), step);
        let changed: Vec<i64> = {
            let mut rows = self.rows();
            let rows = rows.0.entry(key.clone()).or_default();
            let there: std::collections::HashSet<(i64, &str)> = index
                .iter()
                .map(|(at, run, _)| (*at, run.as_str()))
                .collect();
            rows.retain(|(at, run), _| {
                !(times.0..times.1).contains(at) || there.contains(&(*at, &**run))
            });
            let changed = index.iter().filter(|(at, run, version)| {
                let known = rows.get(&(*at, Arc::from(run.as_str())));
                known.is_none_or(|(known, _)| known < version)
            });
            changed.map(|(at, ..)| *at).collect()
        };
        let (Some(first), Some(last)) = (changed.first(), changed.last()) else {
            return Ok(());
        };
        let read = self
            .store
            .figures(cluster, step, (*first, last + 1))
            .await?;
        let mut rows = self.rows();
        for (at, run, version, body) in read {
            rows.put((cluster, step), at, &run.into(), (version, body.into()));
        }
        Ok(())
    }
}

/// What is told of one thing at one step.
#[derive(Debug, Default)]
struct Sum {
    counted: Counted,
    peers: Option<Peers>,
}

type Key = (Option<Name>, Option<Name>, Option<Name>);

/// Adds rows and windows up to points.
fn add_up(
    question: &Question,
    (from, _): (i64, i64),
    bodies: &[(i64, Arc<str>)],
    heard: &[(i64, Window)],
) -> Result<Vec<ToldPoint>, TellError> {
    let step = ms(question.step);
    let mut points: BTreeMap<i64, (Window, BTreeMap<Key, Sum>)> = BTreeMap::new();
    let mut series = 0;
    let mut add = |at: i64, window: &Window| {
        let at = from + (at - from).div_euclid(step) * step;
        let (head, sums) = points.entry(at).or_default();
        head.reports += window.reports;
        head.left_out = head.left_out.saturating_add(window.left_out);
        head.dropped = head.dropped.saturating_add(window.dropped);
        let before = sums.len();
        add_window(question, window, sums);
        series += sums.len() - before;
        if series > MOST_SERIES {
            return Err(TellError::TooMuch);
        }
        Ok(())
    };
    for (at, body) in bodies {
        match Window::decode(body) {
            Ok(window) => add(*at, &window)?,
            Err(error) => tracing::error!(%error, at, "a window is left out"),
        }
    }
    for (at, window) in heard {
        add(*at, window)?;
    }
    let told = points.into_iter().map(|(at, (head, sums))| ToldPoint {
        at,
        reports: head.reports,
        left_out: head.left_out,
        dropped: head.dropped,
        series: sums
            .into_iter()
            .map(|(key, sum)| tell(key, &sum, step))
            .collect(),
    });
    Ok(told.collect())
}

fn add_window(question: &Question, window: &Window, sums: &mut BTreeMap<Key, Sum>) {
    let asked =
        |wanted: &Option<Name>, is: Option<&Name>| wanted.as_ref().is_none_or(|w| is == Some(w));
    for ((service, route, group), figures) in &window.series {
        if !asked(&question.service, service.as_ref()) || !asked(&question.route, route.as_ref()) {
            continue;
        }
        let apart = |by: bool, name: &Option<Name>| name.clone().filter(|_| by);
        let key = (
            service.clone(),
            apart(question.by == By::Route, route),
            apart(question.by != By::Service, group),
        );
        sums.entry(key).or_default().counted.merge(figures);
    }
    if question.by != By::Service || question.route.is_some() {
        return;
    }
    for (service, peers) in &window.peers {
        if asked(&question.service, Some(service)) {
            let sum = sums.entry((Some(service.clone()), None, None)).or_default();
            match &mut sum.peers {
                Some(known) => known.merge(peers),
                None => sum.peers = Some(peers.clone()),
            }
        }
    }
}

fn tell((service, route, group): Key, sum: &Sum, step: i64) -> ToldSeries {
    let counted = &sum.counted;
    let latency = &counted.latency;
    let requests = counted.requests();
    ToldSeries {
        service,
        route,
        group,
        requests,
        rate: requests as f64 * 1000.0 / step as f64,
        classes: counted.classes,
        in_flight: counted.in_flight as f64 / (step / WINDOW_MS) as f64,
        retries: counted.retries,
        fallbacks: counted.fallbacks,
        limited: counted.limited,
        mean_us: latency.sum_us().checked_div(latency.count()),
        p50_us: latency.quantile(0.5),
        p90_us: latency.quantile(0.9),
        p99_us: latency.quantile(0.99),
        peers_healthy: sum.peers.as_ref().map(|peers| peers.healthy),
        peers_total: sum.peers.as_ref().map(|peers| peers.total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures::window::tests::report, state::tests::name};

    fn question(window: &str, step: &str) -> Question {
        Question {
            cluster: name("c"),
            service: None,
            route: None,
            by: By::Service,
            window: window.parse().unwrap(),
            step: step.parse().unwrap(),
        }
    }

    #[test]
    fn a_question_that_cannot_be_answered_names_the_field() {
        let fields = |window, step| {
            let errors = question(window, step).check().err().map(|e| e.errors);
            let errors = errors.unwrap_or_default().into_iter();
            errors.map(|error| error.field).collect::<Vec<_>>()
        };
        assert!(fields("1m", "1m").is_empty());
        assert!(fields("1h", "5s").is_empty());
        assert!(fields("24h", "1m").is_empty());
        assert_eq!(fields("25h", "1h"), ["window"]);
        assert_eq!(fields("1m", "7s"), ["step", "window"]);
        assert_eq!(fields("1m", "0s"), ["step"]);
        assert_eq!(fields("1m", "25s"), ["window"]);
        assert_eq!(fields("2h", "30s"), ["step"]);
    }

    #[test]
    fn only_windows_that_have_ended_are_told() {
        assert_eq!(question("15s", "5s").times(104_999), (85_000, 100_000));
        assert_eq!(question("2h", "1h").times(7_262_001), (60_000, 7_260_000));
    }

    #[test]
    fn windows_are_added_up_to_steps_by_what_was_asked() {
        let mut window = Window::default();
        window.add(&report("p", 0, &[("a", 3), ("b", 5)]));
        let body: Arc<str> = window.encode().into();
        let bodies: Vec<_> = [5000, 10_000, 15_000]
            .map(|at| (at, Arc::clone(&body)))
            .into();
        let told = |question: &Question| add_up(question, (5000, 20_000), &bodies, &[]).unwrap();
        let points = told(&question("15s", "15s"));
        let [point] = &points[..] else {
            panic!("{points:?}");
        };
        let all = &point.series[0];
        assert_eq!((point.at, point.reports, all.requests), (5000, 3, 24));
        assert_eq!((all.peers_healthy, all.peers_total), (Some(1), Some(2)));
        assert!((all.rate - 1.6).abs() < 1e-9, "{}", all.rate);
        let p99 = all.p99_us.unwrap();
        assert!((1000 * 7 / 8..=1000 * 9 / 8).contains(&p99), "{p99}");
        assert_eq!(told(&question("15s", "5s")).len(), 3);
        let mut routes = question("15s", "15s");
        routes.by = By::Route;
        let points = told(&routes);
        let found: Vec<_> = points[0].series.iter().map(|s| s.requests).collect();
        assert_eq!(found, [9, 15]);
        routes.route = Some(name("b"));
        assert_eq!(told(&routes)[0].series.len(), 1);
        routes.service = Some(name("other"));
        assert!(told(&routes)[0].series.is_empty());
    }

    #[test]
    fn a_damaged_row_is_left_out() {
        let bodies = [(0, Arc::from("nonsense"))];
        assert!(
            add_up(&question("5s", "5s"), (0, 5000), &bodies, &[])
                .unwrap()
                .is_empty()
        );
    }
}
