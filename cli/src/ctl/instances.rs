//! `ctl drain`, `undrain` and `weight`: what an operator sets over an instance's own report.

use std::collections::BTreeSet;

use cardea_registry_api::{
    Instance, InstanceKey, InstanceState,
    api::{InstancePatch, Written},
    client::InstanceQuery,
    instance::Forced,
};
use serde::Serialize;

use super::{Session, ask};
use crate::{
    args::{DrainArgs, WeightArgs, WriteArgs},
    exit::{Exit, Outcome},
};

/// What was done to one instance.
#[derive(Serialize)]
struct Done {
    instance: String,
    forced: Forced,
    written: Option<Written>,
}

/// Drains instances, or lifts that.
pub(super) async fn drain(session: &Session, args: DrainArgs, drain: bool) -> Outcome {
    let mut chosen = Vec::new();
    if let Some(service) = &args.service {
        let query = InstanceQuery {
            service: Some(service.clone()),
            cluster: args.cluster.clone(),
            ..InstanceQuery::default()
        };
        chosen = list(session, query).await?;
        if chosen.is_empty() {
            return Err(Exit::failed(format!(
                "no instance of `{service}` is registered"
            )));
        }
        if drain && !args.write.dry_run {
            let text = format!("this drains all {} instances of `{service}`", chosen.len());
            ask::confirm(args.write, &text)?;
        }
    }
    for name in &args.instances {
        chosen.push(find(session, name).await?);
    }
    if drain && args.service.is_none() && !args.write.dry_run {
        for place in emptied(session, &chosen).await? {
            let text = format!("{place} would have no instance left that takes requests");
            ask::confirm(args.write, &text)?;
        }
    }
    let mut done = Vec::new();
    for instance in chosen {
        let state = drain.then_some(InstanceState::Draining);
        let forced = Forced {
            state,
            ..instance.forced
        };
        done.push(force(session, &instance, forced, args.write).await?);
    }
    report(session, &done, args.write, |_| {
        if drain {
            "drained: no new requests"
        } else {
            "takes requests as it reports"
        }
        .to_owned()
    })
}

/// Services (with their clusters) of which draining `chosen` would leave nobody who takes requests.
async fn emptied(session: &Session, chosen: &[Instance]) -> Result<Vec<String>, Exit> {
    let places: BTreeSet<_> = chosen
        .iter()
        .map(|instance| (&instance.cluster, &instance.service))
        .collect();
    let mut emptied = Vec::new();
    for (cluster, service) in places {
        let query = InstanceQuery {
            cluster: Some(cluster.clone()),
            service: Some(service.clone()),
            ..InstanceQuery::default()
        };
        let takers = list(session, query)
            .await?
            .into_iter()
            .filter(Instance::takes_requests);
        let keys: Vec<_> = takers.map(|taker| taker.key()).collect();
        let leaves = |key: &InstanceKey| chosen.iter().any(|instance| instance.key() == *key);
        if !keys.is_empty() && keys.iter().all(leaves) {
            emptied.push(format!("{cluster}/{service}"));
        }
    }
    Ok(emptied)
}

/// Sets an instance's weight, or lifts that.
pub(super) async fn weight(session: &Session, args: WeightArgs) -> Outcome {
    let instance = find(session, &args.instance).await?;
    let forced = Forced {
        weight: args.weight.0,
        ..instance.forced
    };
    let done = vec![force(session, &instance, forced, args.write).await?];
    report(session, &done, args.write, |forced| match forced.weight {
        Some(weight) => format!("weight {weight} (it reports {})", instance.weight),
        None => format!("weight {}, as it reports", instance.weight),
    })
}

async fn force(
    session: &Session,
    instance: &Instance,
    forced: Forced,
    write: WriteArgs,
) -> Result<Done, Exit> {
    let key = instance.key();
    let patch = InstancePatch {
        forced: Some(forced),
        ..InstancePatch::default()
    };
    let written = if write.dry_run {
        None
    } else {
        let written = session.client.patch_instance(&key, &patch).await;
        Some(written.map_err(|e| session.failure(&e))?)
    };
    Ok(Done {
        instance: key.to_string(),
        forced,
        written,
    })
}

fn report(
    session: &Session,
    done: &Vec<Done>,
    write: WriteArgs,
    words: impl Fn(&Forced) -> String,
) -> Outcome {
    session.print(done, |done| {
        let mut lines: Vec<String> = done
            .iter()
            .map(|done| format!("{}: {}", done.instance, words(&done.forced)))
            .collect();
        let last = done.last().and_then(|done| done.written.as_ref());
        lines.push(match last {
            Some(written) => at_revision(written),
            None if write.dry_run => "nothing was written (--dry-run)".to_owned(),
            None => String::new(),
        });
        lines.join("\n").trim_end().to_owned()
    })
}

/// Where a write led, in words.
pub(super) fn at_revision(written: &Written) -> String {
    let later = if written.durable {
        ""
    } else {
        " (the database is away: kept, and written when it is back)"
    };
    let mut text = format!("revision {}{later}", written.revision);
    for warning in &written.warnings {
        text.push_str("\nwarning: ");
        text.push_str(warning);
    }
    text
}

async fn list(session: &Session, query: InstanceQuery) -> Result<Vec<Instance>, Exit> {
    let found = session.client.all_instances(query).await;
    let found = found.map_err(|e| session.failure(&e))?;
    Ok(found.into_iter().map(|found| found.object).collect())
}

/// The one instance that a name means.
pub(super) async fn find(session: &Session, name: &str) -> Result<Instance, Exit> {
    if let Ok(key) = name.parse::<InstanceKey>() {
        let found = session.client.instance(&key).await;
        return found
            .map(|found| found.object)
            .map_err(|e| session.failure(&e));
    }
    let service = name.split_once('/').map(|(service, _)| service.parse());
    let query = InstanceQuery {
        service: service.transpose().map_err(Exit::failed)?,
        ..InstanceQuery::default()
    };
    choose(name, list(session, query).await?).map_err(Exit::failed)
}

/// `service/id` or `id`, where only one fits.
fn choose(name: &str, instances: Vec<Instance>) -> Result<Instance, String> {
    let (service, id) = match name.split_once('/') {
        Some((service, id)) => (Some(service), id),
        None => (None, name),
    };
    let known: Vec<String> = instances.iter().map(|i| i.id.to_string()).collect();
    let mut fitting: Vec<Instance> = instances
        .into_iter()
        .filter(|instance| {
            instance.id.as_str() == id && service.is_none_or(|s| instance.service.as_str() == s)
        })
        .collect();
    match (fitting.pop(), fitting.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => {
            let near = cardea_registry_api::strict::nearest(id, known.iter().map(String::as_str));
            let hint = near.map_or_else(
                || "see `cardea ctl get instances`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            Err(format!("no instance `{name}` is registered; {hint}"))
        }
        (Some(last), _) => {
            let names: Vec<String> = fitting
                .iter()
                .chain([&last])
                .map(|i| i.key().to_string())
                .collect();
            Err(format!(
                "`{name}` fits several: write {}",
                names.join(" or ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use cardea_registry_api::api::Registration;

    use super::*;

    #[test]
    fn names_are_short_where_only_one_fits() {
        let instance = |key: &str| {
            let at = "127.0.0.1:1".parse().unwrap();
            Registration::at(at).into_instance(key.parse().unwrap(), 0)
        };
        let all = || {
            vec![
                instance("a/search/s-1"),
                instance("b/search/s-1"),
                instance("a/ads/x-1"),
            ]
        };
        assert_eq!(choose("x-1", all()).unwrap().service.as_str(), "ads");
        assert_eq!(choose("ads/x-1", all()).unwrap().service.as_str(), "ads");
        assert_eq!(
            choose("s-1", all()).unwrap_err(),
            "`s-1` fits several: write a/search/s-1 or b/search/s-1"
        );
        assert_eq!(
            choose("x-2", all()).unwrap_err(),
            "no instance `x-2` is registered; did you mean `x-1`?"
        );
    }
}
