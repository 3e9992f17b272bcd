//! `ctl delete`, `token`, `history` and `snapshot`.

use cardea_registry_api::{
    Name, Span, TrafficKey,
    api::{HistoryDecision, Keep, NewToken},
    client::{ClientError, Precondition},
};
use serde::Serialize;
use serde_json::json;

use super::{Session, ask, instances, rows};
use crate::{
    args::{
        AcknowledgeArgs, DeletableKind, HistoryCommand, KeepArg, SnapshotCommand, TokenCommand,
        WriteArgs,
    },
    exit::{Exit, Outcome},
};

/// Deletes an object that is still as it was when the question was asked.
pub(super) async fn delete(
    session: &Session,
    kind: DeletableKind,
    name: &str,
    write: WriteArgs,
) -> Outcome {
    let client = &session.client;
    let failed = |e: ClientError| session.failure(&e);
    if kind == DeletableKind::Instance {
        return deregister(session, name, write).await;
    }
    if kind == DeletableKind::Traffic {
        return delete_traffic(session, name, write).await;
    }
    let key: Name = name.parse().map_err(Exit::failed)?;
    let (word, revision) = match kind {
        DeletableKind::Cluster => (
            "cluster",
            client.cluster(&key).await.map_err(failed)?.revision,
        ),
        DeletableKind::Service => (
            "service",
            client.service(&key).await.map_err(failed)?.revision,
        ),
        DeletableKind::Certificate => (
            "certificate",
            client.certificate(&key).await.map_err(failed)?.revision,
        ),
        DeletableKind::Plugin => (
            "plugin",
            client.plugin(&key).await.map_err(failed)?.revision,
        ),
        DeletableKind::Fallback => (
            "fallback",
            client.fallback(&key).await.map_err(failed)?.revision,
        ),
        _ => ("route", client.route(&key).await.map_err(failed)?.revision),
    };
    if write.dry_run {
        return dry(session, &format!("{word} {key} would be deleted"));
    }
    ask::confirm(write, &format!("this deletes the {word} `{key}`"))?;
    let seen = Precondition::Revision(revision);
    let written = match kind {
        DeletableKind::Cluster => client.delete_cluster(&key, seen).await,
        DeletableKind::Service => client.delete_service(&key, seen).await,
        DeletableKind::Certificate => client.delete_certificate(&key, seen).await,
        DeletableKind::Plugin => client.delete_plugin(&key, seen).await,
        DeletableKind::Fallback => client.delete_fallback(&key, seen).await,
        _ => client.delete_route(&key, seen).await,
    };
    session.print(&written.map_err(failed)?, |written| {
        format!("{word} {key} deleted\n{}", instances::at_revision(written))
    })
}

async fn delete_traffic(session: &Session, name: &str, write: WriteArgs) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let key: TrafficKey = name.parse().map_err(Exit::failed)?;
    let found = session.client.traffic(&key).await.map_err(failed)?;
    if write.dry_run {
        return dry(session, &format!("traffic {key} would be deleted"));
    }
    let back = match &key.service {
        None => format!("requests stay in `{}` again", key.cluster),
        Some(service) => format!(
            "requests of `{service}` go where those of `{}` go",
            key.cluster
        ),
    };
    ask::confirm(write, &format!("this deletes the traffic `{key}`: {back}"))?;
    let seen = Precondition::Revision(found.revision);
    let written = session.client.delete_traffic(&key, seen).await;
    session.print(&written.map_err(failed)?, |written| {
        format!("traffic {key} deleted\n{}", instances::at_revision(written))
    })
}

async fn deregister(session: &Session, name: &str, write: WriteArgs) -> Outcome {
    let key = instances::find(session, name).await?.key();
    if write.dry_run {
        return dry(session, &format!("instance {key} would be deregistered"));
    }
    ask::confirm(write, &format!("this takes the instance `{key}` out"))?;
    let gone = session.client.deregister(&key, Span::secs(5)).await;
    let gone = gone.map_err(|e| session.failure(&e))?;
    session.print(&gone, |gone| {
        let routers = match (gone.acknowledged.as_slice(), gone.pending.as_slice()) {
            ([], []) => "no router is running".to_owned(),
            (acknowledged, []) => format!("let go by {}", acknowledged.join(", ")),
            (_, pending) => format!("not yet let go by {}", pending.join(", ")),
        };
        format!(
            "instance {key} deregistered; {routers}\n{}",
            instances::at_revision(&gone.written)
        )
    })
}

/// Tokens.
pub(super) async fn token(session: &Session, command: TokenCommand) -> Outcome {
    let client = &session.client;
    let failed = |e: ClientError| session.failure(&e);
    match command {
        TokenCommand::Create {
            name,
            role,
            services,
            write,
        } => {
            let token = NewToken {
                name,
                role: role.into(),
                services,
            };
            if write.dry_run {
                return dry(session, &format!("token {} would be made", token.name));
            }
            let made = client.create_token(&token).await.map_err(failed)?;
            session.print(&made, |made| {
                // The secret alone on stdout, so that it can go straight into a file.
                eprintln!("token {}, shown this once:", made.info.name);
                made.token.clone()
            })
        }
        TokenCommand::List => super::get::tokens(session).await,
        TokenCommand::Delete { name, write } => {
            if write.dry_run {
                return dry(session, &format!("token {name} would be deleted"));
            }
            ask::confirm(
                write,
                &format!("this deletes the token `{name}`: its users are refused"),
            )?;
            client.delete_token(&name).await.map_err(failed)?;
            session.print(&json!({ "deleted": name }), |_| {
                format!("token {name} deleted")
            })
        }
    }
}

/// Which history holds.
pub(super) async fn history(session: &Session, command: HistoryCommand) -> Outcome {
    let HistoryCommand::Keep { which, write } = command;
    let (keep, text) = match which {
        KeepArg::Database => (
            Keep::Database,
            "the database's history holds: what only this registry remembers is let go",
        ),
        KeepArg::Memory => (
            Keep::Memory,
            "this registry's memory holds: it is written over what the database has",
        ),
    };
    if write.dry_run {
        return dry(session, text);
    }
    ask::confirm(write, text)?;
    let status = session
        .client
        .decide_history(HistoryDecision { keep })
        .await;
    let status = status.map_err(|e| session.failure(&e))?;
    session.print(&status, rows::status)
}

/// Somebody has taken note of an alarm.
pub(super) async fn acknowledge(session: &Session, args: AcknowledgeArgs) -> Outcome {
    let AcknowledgeArgs { code, write } = args;
    let text = format!("alarm {code} ends");
    if write.dry_run {
        return dry(session, &text);
    }
    ask::confirm(write, &text)?;
    let status = session.client.acknowledge_alarm(&code).await;
    let status = status.map_err(|e| session.failure(&e))?;
    session.print(&status, rows::status)
}

/// Disk snapshots.
pub(super) async fn snapshot(session: &Session, command: &SnapshotCommand) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    match command {
        SnapshotCommand::Write => {
            let written = session.client.write_snapshot().await.map_err(failed)?;
            session.print(&vec![written], |written| rows::snapshots(written))
        }
        SnapshotCommand::Verify => {
            let found = session.client.verify_snapshots().await.map_err(failed)?;
            session.print(&found, |found| rows::snapshots(found))?;
            if found.iter().any(|snapshot| snapshot.damage.is_some()) {
                return Err(Exit::Status(1));
            }
            Ok(())
        }
    }
}

fn dry(session: &Session, text: &str) -> Outcome {
    #[derive(Serialize)]
    struct Would<'a> {
        dry_run: bool,
        would: &'a str,
    }
    let would = Would {
        dry_run: true,
        would: text,
    };
    session.print(&would, |_| {
        format!("{text}\nnothing was written (--dry-run)")
    })
}
