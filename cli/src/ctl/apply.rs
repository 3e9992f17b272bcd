//! `ctl apply` and `ctl diff`.

use cardea_registry_api::api::{Applied, Verb};

use super::{Session, diff, manifest};
use crate::{
    args::{ApplyArgs, FileArgs},
    exit::{Exit, Outcome},
};

/// What a dry run ends with.
pub(super) const NOTHING: &str = "nothing was written (--dry-run)";

/// Creates and updates what the files say.
pub(super) async fn apply(session: &Session, args: ApplyArgs) -> Outcome {
    let request = manifest::read(&args.files)?;
    let dry_run = args.write.dry_run;
    let applied = session.client.apply(&request, dry_run).await;
    let applied = applied.map_err(|e| session.failure(&e))?;
    session.print(&applied, |applied| {
        if dry_run {
            format!("{}\n{NOTHING}", diff::render(&applied.actions))
        } else {
            done(applied)
        }
    })
}

fn done(applied: &Applied) -> String {
    let mut lines: Vec<String> = applied
        .actions
        .iter()
        .map(|action| {
            let done = match action.verb {
                Verb::Create => "created",
                Verb::Update => "updated",
                Verb::Unchanged => "unchanged",
            };
            format!("{} {} {done}", action.kind, action.key)
        })
        .collect();
    if let Some(written) = &applied.written {
        lines.push(super::instances::at_revision(written));
    }
    lines.join("\n")
}

/// Says what `apply` would change; the exit status tells whether anything would.
pub(super) async fn diff(session: &Session, files: FileArgs) -> Outcome {
    let request = manifest::read(&files)?;
    let applied = session.client.apply(&request, true).await;
    let applied = applied.map_err(|e| session.failure(&e))?;
    session.print(&applied.actions, |actions| diff::render(actions))?;
    if diff::changes(&applied.actions) {
        Err(Exit::Status(1))
    } else {
        Ok(())
    }
}
