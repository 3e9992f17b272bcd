//! `ctl top`: what goes on, service by service, again and again.

use std::{
    fmt::Write as _,
    io::{ErrorKind, IsTerminal, Write as _, stdout},
};

use cardea_registry_api::{
    Span,
    client::FiguresQuery,
    figures::{By, Told, ToldSeries, WINDOW_MS},
};

use super::Session;
use crate::{
    args::TopArgs,
    exit::{Exit, Outcome},
    table,
};

/// Over how long figures are shown.
const SHOWN: Span = Span::secs(15);
/// Takes the cursor home and clears what is below it, so that the screen does not flicker.
const HOME: &str = "\x1b[H\x1b[J";

/// Shows figures until somebody stops it, or once.
pub(super) async fn run(session: &Session, args: TopArgs) -> Outcome {
    let query = FiguresQuery {
        service: args.service.clone(),
        route: None,
        by: args.by,
        window: Some(SHOWN),
        step: Some(SHOWN),
    };
    if args.once {
        let told = session.client.figures(&args.cluster, &query).await;
        let told = told.map_err(|error| session.failure(&error))?;
        return session.print(&told, |told| screen(told, None));
    }
    let mut last: Option<Told> = None;
    loop {
        let asked = async {
            let told = session.client.figures(&args.cluster, &query).await;
            let error = match told {
                Ok(told) => {
                    last = Some(told);
                    None
                }
                // What was never there is an error; what was there once may come back.
                Err(error) if last.is_none() => return Err(session.failure(&error)),
                Err(error) => Some(error.to_string()),
            };
            let text = match (&last, session.json) {
                (None, _) => String::new(),
                (Some(_), true) if error.is_some() => String::new(),
                (Some(told), true) => serde_json::to_string(told).map_err(Exit::failed)? + "\n",
                (Some(told), false) => screen(told, error.as_deref()) + "\n",
            };
            if session.json
                && let Some(error) = &error
            {
                eprintln!("{error}");
            }
            let go_on = show(&text, !session.json && stdout().is_terminal())?;
            tokio::time::sleep(args.every.duration()).await;
            Ok(go_on)
        };
        tokio::select! {
            go_on = asked => if !go_on? { return Ok(()) },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Writes to the terminal; `false`: nobody reads any more.
fn show(text: &str, clear: bool) -> Result<bool, Exit> {
    let home = if clear { HOME } else { "" };
    let mut out = stdout().lock();
    let written = write!(out, "{home}{text}").and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Exit::failed(error)),
        Ok(()) => Ok(true),
    }
}

/// Why figures are not those of now; empty: they are.
fn stale(told: &Told, error: Option<&str>) -> String {
    if let Some(error) = error {
        return format!("stale: {error}");
    }
    if let Some(why) = &told.degraded {
        return format!("degraded: {why}");
    }
    match told.newest {
        None => format!("stale: no router has reported anything for {SHOWN}"),
        Some(newest) if told.to - newest >= WINDOW_MS => {
            let ago = Span::millis((told.to - newest).unsigned_abs());
            format!("stale: the last report is {ago} older than it should be")
        }
        Some(_) => String::new(),
    }
}

/// A table of services, the busiest first.
fn screen(told: &Told, error: Option<&str>) -> String {
    let mut series: Vec<&ToldSeries> = told.points.iter().flat_map(|p| &p.series).collect();
    series.sort_by(|a, b| {
        let name = |s: &ToldSeries| (s.service.clone(), s.route.clone(), s.group.clone());
        b.requests
            .cmp(&a.requests)
            .then_with(|| name(a).cmp(&name(b)))
    });
    let reports: u64 = told.points.iter().map(|point| point.reports).sum();
    let routers = reports as f64 / (told.step.as_millis() as f64 / WINDOW_MS as f64);
    let rate: f64 = series.iter().map(|one| one.rate).sum();
    let mut text = format!(
        "cluster {}   {} routers   {} requests/s   over {}",
        told.cluster,
        routers.round(),
        decimal(rate),
        told.step
    );
    let mark = stale(told, error);
    if !mark.is_empty() {
        let _ = write!(text, "   [{mark}]");
    }
    let left_out: u64 = told.points.iter().map(|point| point.left_out).sum();
    if left_out > 0 {
        let _ = write!(
            text,
            "\n{left_out} requests of further routes are not shown"
        );
    }
    let by_group = series.iter().any(|one| one.group.is_some());
    let by_route = series.iter().any(|one| one.route.is_some());
    let mut headings = vec!["service"];
    headings.extend(by_route.then_some("route"));
    headings.extend(by_group.then_some("group"));
    let names = headings.len();
    headings.extend(["qps", "4xx", "5xx", "p90", "p99", "in flight", "peers"]);
    let rows = series.iter().map(|one| row(one, by_route, by_group));
    let table = table::render(&headings, rows.collect(), &headings[names..]);
    format!("{text}\n\n{table}")
}

fn row(one: &ToldSeries, by_route: bool, by_group: bool) -> Vec<String> {
    let name = |name: &Option<cardea_registry_api::Name>, none: &str| match name {
        Some(name) => name.to_string(),
        None => none.to_owned(),
    };
    let mut row = vec![name(&one.service, "(no route)")];
    row.extend(by_route.then(|| name(&one.route, "-")));
    row.extend(by_group.then(|| name(&one.group, "-")));
    let peers = match (one.peers_healthy, one.peers_total) {
        (Some(healthy), Some(total)) => format!("{healthy}/{total}"),
        _ => "-".to_owned(),
    };
    row.extend([
        decimal(one.rate),
        share(one.classes[3], one.requests),
        share(one.classes[4], one.requests),
        time(one.p90_us),
        time(one.p99_us),
        decimal(one.in_flight),
        peers,
    ]);
    row
}

fn decimal(n: f64) -> String {
    if n >= 100.0 || n == 0.0 {
        format!("{n:.0}")
    } else {
        format!("{n:.1}")
    }
}

fn share(part: u64, of: u64) -> String {
    if part == 0 {
        return "-".to_owned();
    }
    format!("{:.2}%", part as f64 * 100.0 / of.max(1) as f64)
}

fn time(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us < 10_000 => format!("{:.1}ms", us as f64 / 1e3),
        Some(us) if us < 10_000_000 => format!("{:.0}ms", us as f64 / 1e3),
        Some(us) => format!("{:.0}s", us as f64 / 1e6),
    }
}

/// How often somebody may look.
pub(crate) fn interval(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|e| format!("{e}"))?;
    if span < Span::secs(1) || span > Span::secs(3600) {
        return Err("1s to 1h".to_owned());
    }
    Ok(span)
}

/// By what figures are told apart.
pub(crate) fn by(text: &str) -> Result<By, String> {
    text.parse().map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::{Name, figures::ToldPoint};

    use super::*;

    fn one(service: Option<&str>, requests: u64, errors: u64) -> ToldSeries {
        ToldSeries {
            service: service.map(|name| name.parse::<Name>().unwrap()),
            route: None,
            group: None,
            requests,
            rate: requests as f64 / 15.0,
            classes: [0, requests - errors, 0, 0, errors],
            in_flight: 1.5,
            retries: 0,
            fallbacks: 0,
            limited: 0,
            mean_us: Some(900),
            p50_us: Some(800),
            p90_us: Some(1_500),
            p99_us: Some(20_000),
            peers_healthy: service.map(|_| 1),
            peers_total: service.map(|_| 2),
        }
    }

    fn told() -> Told {
        let mut quiet = one(Some("quiet"), 0, 0);
        (quiet.p90_us, quiet.p99_us) = (None, None);
        Told {
            cluster: "dc-a".parse().unwrap(),
            from: 100_000,
            to: 115_000,
            step: SHOWN,
            degraded: None,
            newest: Some(115_000),
            points: vec![ToldPoint {
                at: 100_000,
                reports: 6,
                left_out: 0,
                dropped: 0,
                series: vec![quiet, one(Some("shop"), 3000, 6), one(None, 30, 0)],
            }],
        }
    }

    #[test]
    fn the_busiest_service_comes_first() {
        insta::assert_snapshot!(screen(&told(), None));
    }

    #[test]
    fn it_says_when_the_figures_are_not_those_of_now() {
        let mut told = told();
        assert_eq!(stale(&told, None), "");
        assert_eq!(stale(&told, Some("gone")), "stale: gone");
        told.newest = Some(105_000);
        let old = "stale: the last report is 10s older than it should be";
        assert_eq!(stale(&told, None), old);
        told.newest = None;
        assert_eq!(
            stale(&told, None),
            "stale: no router has reported anything for 15s"
        );
        told.degraded = Some("the database is away".to_owned());
        assert_eq!(stale(&told, None), "degraded: the database is away");
        assert!(screen(&told, None).contains("[degraded: the database is away]"));
    }
}
