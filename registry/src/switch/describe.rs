//! How a switch stands, in words.

use cardea_registry_api::switch::{Sample, Switch, SwitchState};

use super::{Seen, guards::time};

/// What it waits for, with the figures of now.
pub(crate) fn describe(switch: &Switch, seen: &Seen, now: i64) -> String {
    match switch.state {
        SwitchState::Waiting => {
            format!(
                "waits for somebody else than {} to approve it",
                switch.author
            )
        }
        SwitchState::Paused => {
            let changed =
                super::by_hand(switch, seen).map_or_else(String::new, |w| format!("; {w}"));
            format!(
                "stays at {} % until it is resumed or undone{changed}",
                switch.percent()
            )
        }
        SwitchState::Running => {
            let stage = format!(
                "stage {} of {} ({} %)",
                switch.stage + 1,
                switch.asked.stages.len(),
                switch.percent()
            );
            match switch.converged_at {
                None if seen.live == 0 => format!("{stage}: no router is live"),
                None if seen.behind.is_empty() => format!("{stage}: all routers have it"),
                None => format!("{stage}: waits for {}", seen.behind.join(", ")),
                Some(since) => format!(
                    "{stage}: watched for {} s of {}{}",
                    (now - since).max(0) / 1000,
                    switch.asked.watch,
                    figures(switch, seen)
                ),
            }
        }
        ended => ended.to_string(),
    }
}

/// The figures of all that is moved, now and before.
fn figures(switch: &Switch, seen: &Seen) -> String {
    let all = |samples: &[Sample]| {
        samples
            .iter()
            .find(|sample| sample.service.is_none())
            .cloned()
    };
    let Some(counted) = &seen.figures else {
        return "; no figures".to_owned();
    };
    let now = all(&counted.samples).unwrap_or_default();
    let before = all(&switch.before).unwrap_or_default();
    let p99 = |sample: &Sample| sample.p99_us.map_or_else(|| "-".to_owned(), time);
    format!(
        "; {} requests, {:.2} % of 5xx ({:.2} before), p99 {} ({} before)",
        now.requests,
        now.error_percent(),
        before.error_percent(),
        p99(&now),
        p99(&before)
    )
}
