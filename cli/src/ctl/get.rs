//! `ctl get` and `ctl routers`.

use cardea_registry_api::{
    Name,
    api::Versioned,
    client::{ClientError, InstanceQuery, PageQuery},
};
use serde::Serialize;

use super::{Session, instances, rows};
use crate::{
    args::{GetArgs, GetKind},
    exit::{Exit, Outcome},
};

/// How many changes are shown when nobody says.
const CHANGES: u32 = 50;

/// Shows objects.
pub(super) async fn run(session: &Session, args: GetArgs) -> Outcome {
    let client = &session.client;
    let failed = |e: ClientError| session.failure(&e);
    let named = args.name.as_deref();
    let name = || -> Result<Option<Name>, Exit> {
        named.map(str::parse).transpose().map_err(Exit::failed)
    };
    match args.kind {
        GetKind::Clusters => match name()? {
            Some(name) => one(session, client.cluster(&name).await, rows::clusters),
            None => many(session, client.all_clusters().await, rows::clusters),
        },
        GetKind::Services => match name()? {
            Some(name) => one(session, client.service(&name).await, rows::services),
            None => many(session, client.all_services().await, rows::services),
        },
        GetKind::Routes => {
            if let Some(name) = name()? {
                one(session, client.route(&name).await, rows::routes)
            } else {
                let mut routes = client.all_routes().await.map_err(failed)?;
                routes.retain(|route| {
                    args.service
                        .as_ref()
                        .is_none_or(|service| route.object.service == *service)
                });
                session.print(&routes, |routes| rows::routes(routes))
            }
        }
        GetKind::Certificates => match name()? {
            Some(name) => one(session, client.certificate(&name).await, rows::certificates),
            None => many(session, client.all_certificates().await, rows::certificates),
        },
        GetKind::Plugins => match name()? {
            Some(name) => one(session, client.plugin(&name).await, rows::plugins),
            None => many(session, client.all_plugins().await, rows::plugins),
        },
        GetKind::Traffic => {
            if let Some(key) = named {
                let key = key.parse().map_err(Exit::failed)?;
                return one(session, client.traffic(&key).await, rows::traffic);
            }
            let mut all = client.all_traffic().await.map_err(failed)?;
            let is = |wanted: &Option<Name>, name: Option<&Name>| {
                wanted.is_none() || wanted.as_ref() == name
            };
            all.retain(|one| {
                is(&args.cluster, Some(&one.object.cluster))
                    && is(&args.service, one.object.service.as_ref())
            });
            session.print(&all, |all| rows::traffic(all))
        }
        GetKind::Fallbacks => match name()? {
            Some(name) => {
                let found = client.fallback(&name).await.map_err(failed)?;
                session.print(&found, |found| {
                    rows::fallbacks(&[Versioned {
                        revision: found.revision,
                        object: found.object.info(),
                    }])
                })
            }
            None => many(session, client.all_fallbacks().await, rows::fallbacks),
        },
        GetKind::Instances => {
            if let Some(name) = named {
                let key = instances::find(session, name).await?.key();
                one(session, client.instance(&key).await, rows::instances)
            } else {
                let query = InstanceQuery {
                    cluster: args.cluster,
                    service: args.service,
                    state: args.state.map(Into::into),
                    ..InstanceQuery::default()
                };
                many(session, client.all_instances(query).await, rows::instances)
            }
        }
        GetKind::Routers => routers(session, args.cluster.as_ref()).await,
        GetKind::Tokens => tokens(session).await,
        GetKind::Changes => changes(session, args.after, args.limit).await,
        GetKind::Status => session.print(&client.status().await.map_err(failed)?, rows::status),
        GetKind::Snapshots => many(session, client.snapshots().await, rows::snapshots),
    }
}

/// The routers that the registry knows.
pub(super) async fn routers(session: &Session, cluster: Option<&Name>) -> Outcome {
    let routers = session.client.routers(cluster).await;
    many(session, routers.map(|page| page.items), rows::routers)
}

/// Every token, without its secret.
pub(super) async fn tokens(session: &Session) -> Outcome {
    let mut items = Vec::new();
    let mut page = PageQuery::default();
    loop {
        let got = session
            .client
            .tokens(&page)
            .await
            .map_err(|e| session.failure(&e))?;
        items.extend(got.items);
        match got.next {
            Some(cursor) => page.cursor = Some(cursor),
            None => return session.print(&items, |items| rows::tokens(items)),
        }
    }
}

async fn changes(session: &Session, after: Option<u64>, limit: Option<u32>) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let limit = limit.unwrap_or(CHANGES);
    let after = if let Some(after) = after {
        after
    } else {
        let head = session.client.status().await.map_err(failed)?.revision;
        head.saturating_sub(u64::from(limit))
    };
    let changes = session.client.changes(after, Some(limit)).await;
    many(session, changes.map(|page| page.items), rows::changes)
}

fn many<T: Serialize>(
    session: &Session,
    found: Result<Vec<T>, ClientError>,
    rows: fn(&[T]) -> String,
) -> Outcome {
    let found = found.map_err(|e| session.failure(&e))?;
    session.print(&found, |found| rows(found))
}

fn one<T: Serialize>(
    session: &Session,
    found: Result<T, ClientError>,
    rows: fn(&[T]) -> String,
) -> Outcome {
    let found = found.map_err(|e| session.failure(&e))?;
    session.print(&found, |found| rows(std::slice::from_ref(found)))
}
