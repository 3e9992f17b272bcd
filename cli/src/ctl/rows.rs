//! How objects look in tables.

use cardea_registry_api::{
    Certificate, Cluster, Instance, Name, Plugin, Route, Service, Traffic,
    api::{ChangeRecord, RouterInfo, SnapshotInfo, Status, TokenInfo, Versioned},
    fallback::FallbackInfo,
    policy::Balance,
    traffic::Zones,
};
use serde::Serialize;

use crate::table::{ago, now, render, size};

fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "–".to_owned()
    } else {
        text.to_owned()
    }
}

pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
        .unwrap_or_default()
}

pub(super) fn clusters(items: &[Versioned<Cluster>]) -> String {
    let row = |item: &Versioned<Cluster>| {
        let cluster = &item.object;
        vec![
            cluster.name.to_string(),
            or_dash(&cluster.description),
            if cluster.gateway.is_empty() {
                "direct".to_owned()
            } else {
                let gateway = cluster.gateway.iter().map(ToString::to_string);
                format!("gateway {}", gateway.collect::<Vec<_>>().join(" "))
            },
            item.revision.to_string(),
        ]
    };
    let headings = ["cluster", "description", "reached", "revision"];
    render(&headings, items.iter().map(row).collect(), &["revision"])
}

pub(super) fn traffic(items: &[Versioned<Traffic>]) -> String {
    let row = |item: &Versioned<Traffic>| {
        let traffic = &item.object;
        let weights = traffic
            .weights
            .iter()
            .map(|(name, w)| format!("{name} {w}"));
        let weights: Vec<String> = weights.collect();
        let failover = traffic.failover.as_ref().map(|failover| {
            let order: Vec<&str> = failover.order.iter().map(Name::as_str).collect();
            format!("{} below {} %", order.join(", "), failover.threshold)
        });
        let sticky = traffic.sticky.as_ref().map(ToString::to_string);
        vec![
            traffic.key().to_string(),
            if weights.is_empty() {
                format!("{} 100", traffic.cluster)
            } else {
                weights.join(", ")
            },
            or_dash(&failover.unwrap_or_default()),
            or_dash(&sticky.unwrap_or_default()),
            match traffic.zones {
                Zones::Any => "any",
                Zones::Near => "near",
            }
            .to_owned(),
            item.revision.to_string(),
        ]
    };
    let headings = [
        "traffic", "weights", "failover", "sticky", "zones", "revision",
    ];
    render(&headings, items.iter().map(row).collect(), &["revision"])
}

pub(super) fn services(items: &[Versioned<Service>]) -> String {
    let row = |item: &Versioned<Service>| {
        let service = &item.object;
        let balance = match &service.balance {
            Balance::Hash(key) => format!("hash {key}"),
            other => word(other),
        };
        vec![
            service.name.to_string(),
            or_dash(&service.owner),
            balance,
            service.retries.attempts.to_string(),
            service.timeouts.first_byte.to_string(),
            item.revision.to_string(),
        ]
    };
    let headings = [
        "service",
        "owner",
        "balance",
        "retries",
        "first byte",
        "revision",
    ];
    render(
        &headings,
        items.iter().map(row).collect(),
        &["retries", "first byte", "revision"],
    )
}

pub(super) fn routes(items: &[Versioned<Route>]) -> String {
    let row = |item: &Versioned<Route>| {
        let route = &item.object;
        vec![
            route.host.to_string(),
            route.prefix.to_string(),
            route.service.to_string(),
            route.id.to_string(),
            item.revision.to_string(),
        ]
    };
    let headings = ["host", "prefix", "service", "route", "revision"];
    render(&headings, items.iter().map(row).collect(), &["revision"])
}

pub(super) fn certificates(items: &[Versioned<Certificate>]) -> String {
    let row = |item: &Versioned<Certificate>| {
        let certificate = &item.object;
        let (hosts, until, issuer) = match certificate.read() {
            Ok((chain, hosts)) => {
                let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
                (
                    hosts.join(" "),
                    time(chain.facts.not_after),
                    chain.facts.issuer,
                )
            }
            Err(error) => (String::new(), String::new(), error.to_string()),
        };
        vec![
            certificate.name.to_string(),
            hosts,
            until,
            issuer,
            if certificate.default { "default" } else { "" }.to_owned(),
            item.revision.to_string(),
        ]
    };
    let headings = [
        "certificate",
        "hosts",
        "valid until",
        "issuer",
        "",
        "revision",
    ];
    render(&headings, items.iter().map(row).collect(), &["revision"])
}

pub(super) fn plugins(items: &[Versioned<Plugin>]) -> String {
    let row = |item: &Versioned<Plugin>| {
        let plugin = &item.object;
        let bound = match plugin.binding() {
            Some((thing, name)) => format!("{} {name}", thing.as_str()),
            None => "everything".to_owned(),
        };
        let state = match (plugin.enabled, plugin.shadow) {
            (false, _) => "off",
            (true, true) => "shadow",
            (true, false) => "on",
        };
        vec![
            plugin.name.to_string(),
            super::plugins::kind(plugin),
            bound,
            state.to_owned(),
            if plugin.required { "required" } else { "" }.to_owned(),
            item.revision.to_string(),
        ]
    };
    let headings = ["plugin", "kind", "bound to", "state", "", "revision"];
    render(&headings, items.iter().map(row).collect(), &["revision"])
}

pub(super) fn fallbacks(items: &[Versioned<FallbackInfo>]) -> String {
    let row = |item: &Versioned<FallbackInfo>| {
        let fallback = &item.object;
        let status = fallback.status.map(|status| status.to_string());
        vec![
            fallback.name.to_string(),
            fallback.content_type.clone(),
            or_dash(&status.unwrap_or_default()),
            size(fallback.size),
            item.revision.to_string(),
        ]
    };
    let headings = ["fallback", "type", "status", "size", "revision"];
    let right = ["size", "revision"];
    render(&headings, items.iter().map(row).collect(), &right)
}

pub(super) fn instances(items: &[Versioned<Instance>]) -> String {
    let row = |item: &Versioned<Instance>| {
        let instance = &item.object;
        let mut notes = Vec::new();
        if let Some(state) = instance
            .forced
            .state
            .filter(|state| *state != instance.state)
        {
            notes.push(format!(
                "set to {}, reports {}",
                state.as_str(),
                instance.state.as_str()
            ));
        }
        if let Some(weight) = instance.forced.weight {
            notes.push(format!(
                "weight set to {weight}, reports {}",
                instance.weight
            ));
        }
        if let Some(capacity) = instance.capacity {
            notes.push(format!("serves {capacity}/s"));
        }
        if let Some(since) = instance.stale_since {
            notes.push(format!("stale since {}", time(since)));
        }
        let zone = instance
            .zone
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        vec![
            instance.key().to_string(),
            instance.address.to_string(),
            instance.effective_state().as_str().to_owned(),
            instance.effective_weight().to_string(),
            or_dash(&zone),
            or_dash(&instance.version),
            instance.source.as_str().to_owned(),
            notes.join("; "),
        ]
    };
    let headings = [
        "instance", "address", "state", "weight", "zone", "version", "source", "note",
    ];
    render(&headings, items.iter().map(row).collect(), &["weight"])
}

pub(super) fn routers(items: &[RouterInfo]) -> String {
    let now = now();
    let row = |router: &RouterInfo| {
        vec![
            router.cluster.to_string(),
            router.id.clone(),
            if router.live { "yes" } else { "no" }.to_owned(),
            router.revision.to_string(),
            router.epoch.clone(),
            format!("{} ago", ago(now, router.last_seen)),
            router.version.clone(),
            or_dash(&lacks(router)),
        ]
    };
    let headings = [
        "cluster",
        "router",
        "live",
        "revision",
        "epoch",
        "seen",
        "version",
        "too old for",
    ];
    render(&headings, items.iter().map(row).collect(), &["revision"])
}

/// The plugins that a router does not know.
fn lacks(router: &RouterInfo) -> String {
    let names = router.unknown_plugins.iter();
    names.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

pub(super) fn tokens(items: &[TokenInfo]) -> String {
    let row = |token: &TokenInfo| {
        let services: Vec<&str> = token
            .services
            .iter()
            .map(cardea_registry_api::Name::as_str)
            .collect();
        vec![
            token.name.to_string(),
            word(&token.role),
            or_dash(&services.join(", ")),
            time(token.created_at),
        ]
    };
    let headings = ["token", "role", "services", "made"];
    render(&headings, items.iter().map(row).collect(), &[])
}

pub(super) fn changes(items: &[ChangeRecord]) -> String {
    let row = |change: &ChangeRecord| {
        vec![
            change.revision.to_string(),
            time(change.at),
            change.actor.clone(),
            change.cause.clone(),
            change.kind.clone(),
            change.key.clone(),
        ]
    };
    let headings = ["revision", "when", "who", "why", "kind", "object"];
    render(&headings, items.iter().map(row).collect(), &["revision"])
}

pub(super) fn snapshots(items: &[SnapshotInfo]) -> String {
    let now = now();
    let row = |snapshot: &SnapshotInfo| {
        vec![
            snapshot.file.clone(),
            size(snapshot.size),
            format!("{} ago", ago(now, snapshot.written_at)),
            snapshot.revision.to_string(),
            snapshot.objects.to_string(),
            snapshot.damage.clone().unwrap_or_else(|| "–".to_owned()),
        ]
    };
    let headings = [
        "snapshot", "size", "written", "revision", "objects", "damage",
    ];
    render(
        &headings,
        items.iter().map(row).collect(),
        &["size", "revision", "objects"],
    )
}

pub(super) fn status(status: &Status) -> String {
    let mut lines: Vec<String> = [
        ("mode", word(&status.mode)),
        ("revision", status.revision.to_string()),
        ("epoch", status.epoch.clone()),
        ("replica", status.replica.clone()),
        ("version", status.version.clone()),
        ("started from", status.started_from.clone()),
        (
            "pending",
            format!("{} changes wait for the database", status.pending_changes),
        ),
    ]
    .into_iter()
    .map(|(name, value)| format!("{name:<14}{value}"))
    .collect();
    if status.alarms.is_empty() {
        lines.push("alarms        none".to_owned());
    }
    let now = now();
    for alarm in &status.alarms {
        let since = ago(now, alarm.since);
        lines.push(format!(
            "ALARM {} for {since}: {}",
            alarm.code, alarm.message
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::{InstanceState, api::Registration, instance::Forced};

    use super::*;

    #[test]
    fn instances_say_what_is_set_over_them() {
        let at = "10.0.0.7:9001".parse().unwrap();
        let registration = Registration {
            version: "1.4".to_owned(),
            ..Registration::at(at)
        };
        let plain = registration.into_instance("dc-a/search/s-1".parse().unwrap(), 0);
        let mut forced = plain.clone();
        forced.id = "s-2".parse().unwrap();
        forced.forced = Forced {
            state: Some(InstanceState::Draining),
            weight: Some(5),
        };
        let rows: Vec<Versioned<Instance>> = [plain, forced]
            .into_iter()
            .map(|object| Versioned {
                revision: 7,
                object,
            })
            .collect();
        insta::assert_snapshot!(instances(&rows));
    }

    #[test]
    fn a_status_shows_its_alarms() {
        let status = Status {
            version: "0.1.0".to_owned(),
            replica: "r-1".to_owned(),
            epoch: "e1".to_owned(),
            revision: 12,
            mode: cardea_registry_api::api::Mode::DatabaseLost,
            started_from: "database".to_owned(),
            pending_changes: 2,
            alarms: vec![cardea_registry_api::api::Alarm {
                code: "database_lost".to_owned(),
                message: "the database does not answer".to_owned(),
                since: now() - 500,
            }],
        };
        insta::assert_snapshot!(super::status(&status));
    }
}
