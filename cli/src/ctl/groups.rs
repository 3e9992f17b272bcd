//! `ctl groups`: named parts of a service's instances.

use cardea_registry_api::{
    Name, Service,
    api::{ApplyRequest, Versioned},
    client::{ClientError, InstanceQuery, Precondition},
    service::{MAX_GROUPS, Selector},
};
use serde::Serialize;

use super::{Session, instances, plugins};
use crate::{
    args::{GroupsCommand, WriteArgs},
    exit::{Exit, Outcome},
    table,
};

/// A group in a table.
#[derive(Debug, Serialize)]
struct Part {
    service: Name,
    group: String,
    /// None: what is in no other group.
    labels: Option<Selector>,
    instances: usize,
}

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: GroupsCommand) -> Outcome {
    match command {
        GroupsCommand::List { service } => list(session, service).await,
        GroupsCommand::Set {
            service,
            group,
            labels,
            write,
        } => {
            let labels: Selector = labels.into_iter().collect();
            change(session, &service, write, |service| {
                if service.groups.len() >= MAX_GROUPS && !service.groups.contains_key(&group) {
                    let text =
                        format!("service `{}` has {MAX_GROUPS} groups already", service.name);
                    return Err(Exit::failed(text));
                }
                service.groups.insert(group, labels);
                Ok(())
            })
            .await
        }
        GroupsCommand::Unset {
            service,
            group,
            write,
        } => {
            change(session, &service, write, |service| {
                if service.groups.remove(&group).is_none() {
                    let text = format!("service `{}` has no group `{group}`", service.name);
                    return Err(Exit::failed(text));
                }
                Ok(())
            })
            .await
        }
    }
}

async fn list(session: &Session, service: Option<Name>) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let client = &session.client;
    let services: Vec<Versioned<Service>> = match &service {
        Some(name) => vec![client.service(name).await.map_err(failed)?],
        None => client.all_services().await.map_err(failed)?,
    };
    let query = InstanceQuery {
        service,
        ..InstanceQuery::default()
    };
    let there = client.all_instances(query).await.map_err(failed)?;
    let mut groups = Vec::new();
    for service in services.iter().map(|service| &service.object) {
        if service.groups.is_empty() {
            continue;
        }
        for (at, name) in service.group_names().enumerate() {
            let mut labels = service.groups.iter();
            let labels = labels.find(|(known, _)| known.as_str() == name);
            let members = there.iter().map(|instance| &instance.object).filter(|one| {
                one.service == service.name && service.groups_of(one) & (1 << at) != 0
            });
            groups.push(Part {
                service: service.name.clone(),
                group: name.to_owned(),
                labels: labels.map(|(_, labels)| labels.clone()),
                instances: members.count(),
            });
        }
    }
    session.print(&groups, |groups| {
        let headings = ["service", "group", "labels", "instances"];
        table::render(&headings, groups.iter().map(row).collect(), &["instances"])
    })
}

fn row(group: &Part) -> Vec<String> {
    let labels = group.labels.as_ref().map_or_else(
        || "in no other group".to_owned(),
        |labels| {
            let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
            labels.collect::<Vec<_>>().join(" ")
        },
    );
    vec![
        group.service.to_string(),
        group.group.clone(),
        labels,
        group.instances.to_string(),
    ]
}

/// Changes a service that is still as it was when it was read.
async fn change(
    session: &Session,
    name: &Name,
    write: WriteArgs,
    edit: impl FnOnce(&mut Service) -> Result<(), Exit>,
) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let mut service = session.client.service(name).await.map_err(failed)?;
    edit(&mut service.object)?;
    if write.dry_run {
        let request = ApplyRequest {
            services: vec![service.object],
            ..ApplyRequest::default()
        };
        return plugins::would(session, request).await;
    }
    let seen = Precondition::Revision(service.revision);
    let written = session.client.put_service(&service.object, seen).await;
    session.print(&written.map_err(failed)?, |written| {
        let groups: Vec<&str> = service.object.group_names().collect();
        let groups = groups.join(", ");
        format!(
            "service {name} has the groups {groups}\n{}",
            instances::at_revision(written)
        )
    })
}
