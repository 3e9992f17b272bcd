//! Certificates that are about to expire: an alarm while there is time to act, and one that says how
//! bad it is when there is none left. They are served all the same.

use std::{sync::Arc, time::Duration};

use crate::{
    clock,
    shared::Shared,
    tls::certificates::{Certificates, Validity},
};

/// How long before its end a certificate is worth an alarm: issuers renew them earlier.
const WARN_MS: i64 = 14 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Nothing here is a matter of minutes.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Keeps the alarms up to date until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut tables = shared.watch();
    loop {
        if let Some(table) = shared.table_full() {
            let certificates = table.certificates.as_deref();
            let now = clock::unix_millis();
            shared.set_alarms("certificate_validity", alarms(certificates, now));
        }
        tokio::select! {
            changed = tables.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn alarms(certificates: Option<&Certificates>, now: i64) -> Vec<(String, String)> {
    let all = certificates.into_iter().flat_map(Certificates::validities);
    all.filter_map(|validity| {
        let wrong = judge(&validity, now)?;
        Some((format!("certificate {}", validity.name), wrong))
    })
    .collect()
}

/// What is wrong with a certificate's time.
fn judge(validity: &Validity<'_>, now: i64) -> Option<String> {
    let at = |ms: i64| {
        jiff::Timestamp::from_millisecond(ms).map_or_else(
            |_| "a time out of reach".to_owned(),
            |time| time.to_string(),
        )
    };
    if now > validity.not_after {
        Some(format!(
            "expired on {}: clients refuse it",
            at(validity.not_after)
        ))
    } else if now < validity.not_before {
        Some(format!(
            "not valid before {}: clients refuse it until then",
            at(validity.not_before)
        ))
    } else if validity.not_after - now <= WARN_MS {
        Some(format!("expires on {}", at(validity.not_after)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_comes_in_time_and_says_when_it_is_too_late() {
        let name = "shop".parse().unwrap();
        let judge = |now| {
            let validity = Validity {
                name: &name,
                not_before: 100 * DAY_MS,
                not_after: 200 * DAY_MS,
            };
            judge(&validity, now).unwrap_or_default()
        };
        assert!(judge(99 * DAY_MS).starts_with("not valid before 1970-04-11"));
        assert_eq!(judge(100 * DAY_MS), "");
        assert_eq!(judge(186 * DAY_MS - 1), "");
        assert!(judge(186 * DAY_MS).starts_with("expires on 1970-07-20"));
        assert!(judge(200 * DAY_MS + 1).starts_with("expired on 1970-07-20"));
    }
}
