//! What sends a switch back.

use cardea_registry_api::switch::{Sample, Switch};

use super::{Seen, ms};

/// A guard that tripped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trip {
    /// Which: a metric's label.
    pub(super) guard: &'static str,
    /// Why, with the numbers.
    pub(super) what: String,
}

/// The guards, as metrics call them.
pub(crate) const ALL: [&str; 4] = ["routers", "capacity", "errors", "p99"];

/// Which guard trips, if one does.
pub(super) fn judge(switch: &Switch, seen: &Seen, now: i64) -> Option<Trip> {
    let guards = &switch.asked.guards;
    if let (Some(limit), None) = (&guards.routers, switch.converged_at)
        && now - switch.stage_at.max(seen.since) >= ms(limit.within)
        && (seen.live == 0 || !seen.behind.is_empty())
    {
        let who = if seen.live == 0 {
            "no router is live".to_owned()
        } else {
            format!("routers do not have it: {}", seen.behind.join(", "))
        };
        return Some(Trip {
            guard: "routers",
            what: format!("returned after {}: {who}", limit.within),
        });
    }
    if guards.capacity
        && !switch.asked.force
        && let Some(short) = seen.short.first()
    {
        return Some(Trip {
            guard: "capacity",
            what: format!("returned: {}", short.why),
        });
    }
    let samples = seen.figures.iter().flat_map(|figures| &figures.samples);
    samples.into_iter().find_map(|now| {
        let before = (switch.before.iter()).find(|before| before.service == now.service);
        errors(switch, before, now).or_else(|| p99(switch, before, now))
    })
}

fn called(sample: &Sample) -> String {
    match &sample.service {
        Some(service) => format!("service `{service}`"),
        None => "all services together".to_owned(),
    }
}

fn errors(switch: &Switch, before: Option<&Sample>, now: &Sample) -> Option<Trip> {
    let limit = switch.asked.guards.errors.as_ref()?;
    if now.requests < limit.least_requests {
        return None;
    }
    // Too few to compare with: as if there had been no errors.
    let before = before.filter(|before| before.requests >= limit.least_requests);
    let was = before.map_or(0.0, Sample::error_percent);
    let is = now.error_percent();
    let above = f64::from(limit.above) / 100.0;
    (is > was + above).then(|| Trip {
        guard: "errors",
        what: format!(
            "returned: {} had {is:.2} % of 5xx ({} of {} requests), {was:.2} % before; {above:.2} points more are allowed",
            called(now),
            now.errors,
            now.requests
        ),
    })
}

fn p99(switch: &Switch, before: Option<&Sample>, now: &Sample) -> Option<Trip> {
    let limit = switch.asked.guards.p99.as_ref()?;
    // Without enough from before there is nothing to compare with.
    let before = before.filter(|before| before.requests >= limit.least_requests)?;
    if now.requests < limit.least_requests {
        return None;
    }
    let (was, is) = (before.p99_us?, now.p99_us?);
    let most = (was.saturating_mul(u64::from(limit.percent)) / 100)
        .max(was.saturating_add(limit.margin.as_millis().saturating_mul(1000)));
    (is > most).then(|| Trip {
        guard: "p99",
        what: format!(
            "returned: of {}, 99 in 100 requests took up to {}, {} before; {} are allowed",
            called(now),
            time(is),
            time(was),
            time(most)
        ),
    })
}

/// A time in microseconds, for people.
pub(super) fn time(us: u64) -> String {
    if us < 10_000 {
        format!("{:.1} ms", us as f64 / 1e3)
    } else {
        format!("{:.0} ms", us as f64 / 1e3)
    }
}
