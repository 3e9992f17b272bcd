//! `ctl plugins`.

use cardea_registry_api::{
    Name, Plugin,
    api::{ApplyRequest, Versioned},
    client::{ClientError, Precondition},
    plugin::Kind,
};
use serde::Serialize;

use super::{Session, apply, diff, instances, operate, rows};
use crate::{
    args::{BindTo, PluginWrite, PluginsCommand, WriteArgs},
    exit::{Exit, Outcome},
};

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: PluginsCommand) -> Outcome {
    match command {
        PluginsCommand::List { service } => list(session, service.as_ref()).await,
        PluginsCommand::Get { name } => {
            let plugin = find(session, &name).await?;
            session.print(&plugin, |plugin| {
                // A table has no room for a policy.
                let json = serde_json::to_string_pretty(&plugin.object).unwrap_or_default();
                format!("{}\n\n{json}", rows::plugins(std::slice::from_ref(plugin)))
            })
        }
        PluginsCommand::Schema { kind } => schema(session, kind.as_deref()).await,
        PluginsCommand::Bind { name, to, write } => {
            change(session, &name, write, |plugin| {
                bind(plugin, Some(&to));
                plugin.enabled = true;
            })
            .await
        }
        PluginsCommand::Unbind(PluginWrite { name, write }) => {
            change(session, &name, write, |plugin| {
                // Bound to nothing is bound to everything: it must not be on.
                bind(plugin, None);
                plugin.enabled = false;
            })
            .await
        }
        PluginsCommand::Shadow { off, which } => {
            change(session, &which.name, which.write, |plugin| {
                plugin.shadow = !off;
            })
            .await
        }
        PluginsCommand::Enable(PluginWrite { name, write }) => {
            change(session, &name, write, |plugin| plugin.enabled = true).await
        }
        PluginsCommand::Disable(PluginWrite { name, write }) => {
            change(session, &name, write, |plugin| plugin.enabled = false).await
        }
        PluginsCommand::Delete(PluginWrite { name, write }) => {
            let kind = crate::args::DeletableKind::Plugin;
            operate::delete(session, kind, name.as_str(), write).await
        }
    }
}

async fn list(session: &Session, service: Option<&Name>) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let mut plugins = session.client.all_plugins().await.map_err(failed)?;
    if let Some(service) = service {
        let routes = session.client.all_routes().await.map_err(failed)?;
        let leads = |id: &Name| {
            let mut routes = routes.iter().map(|route| &route.object);
            routes.any(|route| route.id == *id && route.service == *service)
        };
        plugins.retain(|plugin| {
            let plugin = &plugin.object;
            plugin.service.as_ref().is_none_or(|own| own == service)
                && plugin.route.as_ref().is_none_or(leads)
        });
    }
    session.print(&plugins, |plugins| rows::plugins(plugins))
}

async fn find(session: &Session, name: &Name) -> Result<Versioned<Plugin>, Exit> {
    let found = session.client.plugin(name).await;
    found.map_err(|e| session.failure(&e))
}

fn bind(plugin: &mut Plugin, to: Option<&BindTo>) {
    plugin.cluster = to.and_then(|to| to.cluster.clone());
    plugin.service = to.and_then(|to| to.service.clone());
    plugin.route = to.and_then(|to| to.route.clone());
}

/// Changes a plugin that is still as it was when it was read.
async fn change(
    session: &Session,
    name: &Name,
    write: WriteArgs,
    edit: impl FnOnce(&mut Plugin),
) -> Outcome {
    let mut plugin = find(session, name).await?;
    edit(&mut plugin.object);
    if write.dry_run {
        return would(
            session,
            ApplyRequest {
                plugins: vec![plugin.object],
                ..ApplyRequest::default()
            },
        )
        .await;
    }
    let seen = Precondition::Revision(plugin.revision);
    let written = session.client.put_plugin(&plugin.object, seen).await;
    let written = written.map_err(|e| session.failure(&e))?;
    session.print(&written, |written| {
        plugin.revision = written.revision;
        let row = rows::plugins(std::slice::from_ref(&plugin));
        format!("{row}\n{}", instances::at_revision(written))
    })
}

/// Says what applying objects would change.
pub(super) async fn would(session: &Session, request: ApplyRequest) -> Outcome {
    let applied = session.client.apply(&request, true).await;
    let applied = applied.map_err(|e| session.failure(&e))?;
    session.print(&applied, |applied| {
        format!("{}\n{}", diff::render(&applied.actions), apply::NOTHING)
    })
}

/// A kind and what it is for.
#[derive(Serialize)]
struct KindLine {
    kind: String,
    description: String,
}

async fn schema(session: &Session, kind: Option<&str>) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    if let Some(kind) = kind {
        let schema = session.client.plugin_schema(kind).await.map_err(failed)?;
        return session.print(&schema, |schema| {
            serde_json::to_string_pretty(schema).unwrap_or_default()
        });
    }
    let all = session.client.plugin_schemas().await.map_err(failed)?;
    let kinds: Vec<KindLine> = all
        .into_iter()
        .map(|one| KindLine {
            kind: one.kind,
            description: one.description,
        })
        .collect();
    session.print(&kinds, |kinds| {
        let row = |one: &KindLine| {
            let first = one.description.split_inclusive(". ").next();
            vec![
                one.kind.clone(),
                first.unwrap_or_default().trim().to_owned(),
            ]
        };
        crate::table::render(
            &["kind", "what it does"],
            kinds.iter().map(row).collect(),
            &[],
        )
    })
}

/// A plugin's kind in a table.
pub(super) fn kind(plugin: &Plugin) -> String {
    plugin
        .kind()
        .map_or_else(|| "?".to_owned(), |kind: Kind| kind.to_string())
}
