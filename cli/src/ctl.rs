//! `cardea ctl …`: a client of a running registry.
//!
//! Each command gets a [`Session`]: the client, and how answers are printed. Objects are printed as
//! tables for people or as JSON for programs; errors name each field, the fix and the request id.

mod apply;
mod ask;
mod connect;
mod dev;
mod diff;
mod explain;
mod fallback;
mod get;
mod groups;
mod instances;
mod manifest;
mod operate;
mod plugins;
mod releases;
mod rows;
mod switch;
mod top;

use cardea_registry_api::client::{Client, ClientError};
use serde::Serialize;
pub(crate) use top::{by, interval};

use crate::{
    args::{CtlArgs, CtlCommand, LogArgs},
    exit::{Exit, Outcome},
    roles::single_thread,
    telemetry,
};

/// A registry, and how its answers are printed.
struct Session {
    client: Client,
    json: bool,
}

/// Runs what was asked for.
pub(crate) fn run(args: CtlArgs, log: &LogArgs) -> Outcome {
    telemetry::start(log, "error")?;
    single_thread()?.block_on(dispatch(args))
}

async fn dispatch(args: CtlArgs) -> Outcome {
    let connect = args.connect;
    let json = connect.json;
    let admin = matches!(
        args.command,
        CtlCommand::Token(_)
            | CtlCommand::Get(crate::args::GetArgs {
                kind: crate::args::GetKind::Tokens,
                ..
            })
    );
    let session = || {
        let client = connect::client(&connect, admin)?;
        Ok::<_, Exit>(Session { client, json })
    };
    match args.command {
        CtlCommand::Get(get) => get::run(&session()?, get).await,
        CtlCommand::Apply(apply) => apply::apply(&session()?, apply).await,
        CtlCommand::Diff(diff) => apply::diff(&session()?, diff.files).await,
        CtlCommand::Delete { kind, name, write } => {
            operate::delete(&session()?, kind, &name, write).await
        }
        CtlCommand::Drain(drain) => instances::drain(&session()?, drain, true).await,
        CtlCommand::Undrain(drain) => instances::drain(&session()?, drain, false).await,
        CtlCommand::Weight(weight) => instances::weight(&session()?, weight).await,
        CtlCommand::Routers { cluster } => get::routers(&session()?, cluster.as_ref()).await,
        CtlCommand::Top(top) => top::run(&session()?, top).await,
        CtlCommand::Explain {
            method,
            url,
            headers,
            router,
        } => {
            let router = router.unwrap_or_else(|| connect::router(&connect.data_dir));
            explain::run(&router, &method, &url, &headers, json).await
        }
        CtlCommand::Switch(command) => switch::run(&session()?, command).await,
        CtlCommand::Plugins(command) => plugins::run(&session()?, command).await,
        CtlCommand::Release(command) => releases::run(&session()?, command).await,
        CtlCommand::Groups(command) => groups::run(&session()?, command).await,
        CtlCommand::Fallback(command) => fallback::run(&session()?, command).await,
        CtlCommand::Token(token) => operate::token(&session()?, token).await,
        CtlCommand::History(history) => operate::history(&session()?, history.command).await,
        CtlCommand::Acknowledge(args) => operate::acknowledge(&session()?, args).await,
        CtlCommand::Snapshot(snapshot) => operate::snapshot(&session()?, &snapshot).await,
        CtlCommand::Dev { part } => dev::run(&connect.data_dir, part, json).await,
    }
}

impl Session {
    /// Prints a value: as JSON, or as the text made of it.
    fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        print(self.json, value, text)
    }

    /// What the registry's error says, for the terminal.
    fn failure(&self, error: &ClientError) -> Exit {
        failure(error, self.json)
    }
}

fn print<T: Serialize>(json: bool, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
    use std::io::{ErrorKind, Write};
    let text = if json {
        serde_json::to_string_pretty(value).map_err(Exit::failed)?
    } else {
        text(value)
    };
    // Whoever reads only the first lines (`| head`) closes early, and that is fine.
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Exit::failed(error)),
        _ => Ok(()),
    }
}

fn failure(error: &ClientError, json: bool) -> Exit {
    let ClientError::Problem { problem, .. } = error else {
        let help = match error {
            ClientError::Transport { .. } => {
                "\nis it running, and is this its address? (--registry, CARDEA_REGISTRY)"
            }
            _ => "",
        };
        return Exit::failed(format!("{error}{help}"));
    };
    if json && let Ok(text) = serde_json::to_string_pretty(problem) {
        eprintln!("{text}");
        return Exit::Status(1);
    }
    Exit::failed(describe(problem))
}

fn describe(problem: &cardea_registry_api::Problem) -> String {
    use cardea_registry_api::problem::Code;
    let mut lines = vec![format!("{} ({})", problem.title, problem.status)];
    if problem.errors.is_empty() {
        if !problem.detail.is_empty() {
            lines.push(format!("  {}", problem.detail));
        }
    } else {
        for error in &problem.errors {
            lines.push(match error.field.as_str() {
                "" => format!("  {}", error.message),
                field => format!("  {field}: {}", error.message),
            });
        }
    }
    match problem.code {
        Code::Unauthenticated => {
            lines.push("  give a token: --token-file FILE, --token or CARDEA_TOKEN".to_owned());
        }
        Code::Forbidden => {
            lines.push("  another token may be allowed: --token-file FILE".to_owned());
        }
        _ => {}
    }
    if !problem.request_id.is_empty() {
        lines.push(format!("  request id: {}", problem.request_id));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
