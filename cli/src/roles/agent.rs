//! `cardea agent …`: the role, and the two calls to a running one.

use std::ffi::OsString;

use cardea_agent::{AgentStatus, Config, LeaveOutcome, Left, Phase};
use cardea_registry_api::{InstanceState, Name, Span};
use sd_notify::NotifyState;

use super::single_thread;
use crate::{
    args::{AgentArgs, AgentCommand, LogArgs, SocketArgs},
    config,
    demo::die_with_parent,
    exit::{Exit, Outcome},
    signals::tell_service_manager,
    table, telemetry,
};

/// Runs what was asked for.
pub(crate) fn run(args: AgentArgs, log: &LogArgs) -> Outcome {
    match args.command {
        AgentCommand::Run(args) => {
            if args.die_with_parent {
                die_with_parent()?;
            }
            let file = args.config.as_deref();
            let (config, file_log) = config::agent::merge(file, &args.settings, &args.service)?;
            if config.services.len() > 1 {
                let text = "`agent run` wraps one service's process; for several use `agent serve`";
                return Err(Exit::Usage(text.to_owned()));
            }
            telemetry::start(&file_log.under(log), telemetry::DEFAULT_LEVEL)?;
            serve(config, Some(args.command))
        }
        AgentCommand::Serve(args) => {
            let file = args.config.as_deref();
            let (config, file_log) = config::agent::merge(file, &args.settings, &args.service)?;
            telemetry::start(&file_log.under(log), telemetry::DEFAULT_LEVEL)?;
            serve(config, None)
        }
        AgentCommand::Deregister {
            wait,
            service,
            socket,
        } => deregister(&socket, wait, service),
        AgentCommand::Status { socket } => status(&socket),
    }
}

fn serve(config: Config, command: Option<Vec<OsString>>) -> Outcome {
    tell_service_manager(&NotifyState::Ready);
    match cardea_agent::block_on(config, command) {
        Ok(0) => Ok(()),
        Ok(status) => Err(Exit::Status(u8::try_from(status).unwrap_or(1))),
        Err(error) => {
            eprintln!("cardea: {error}");
            Err(Exit::Status(u8::try_from(error.exit_status()).unwrap_or(1)))
        }
    }
}

fn deregister(args: &SocketArgs, wait: Option<Span>, service: Option<Name>) -> Outcome {
    let socket = socket(args);
    let left = single_thread()?
        .block_on(cardea_agent::deregister(&socket, wait, service))
        .map_err(Exit::failed)?;
    if args.json {
        print_json(&left)?;
    } else {
        for left in &left {
            println!("{}", sentence(left));
        }
    }
    let failed = left.iter().any(|left| {
        let outcome = &left.outcome;
        matches!(
            outcome,
            LeaveOutcome::Refused { .. } | LeaveOutcome::Unreachable { .. }
        )
    });
    if failed { Err(Exit::Status(1)) } else { Ok(()) }
}

fn sentence(left: &Left) -> String {
    let what = match &left.outcome {
        LeaveOutcome::WasAbsent => "was not registered".to_owned(),
        LeaveOutcome::LetGo { acknowledged } if acknowledged.is_empty() => {
            "deregistered; no router is running".to_owned()
        }
        LeaveOutcome::LetGo { acknowledged } => {
            format!("deregistered; let go by {}", acknowledged.join(", "))
        }
        LeaveOutcome::Pending { pending } => {
            format!("deregistered; not yet let go by {}", pending.join(", "))
        }
        LeaveOutcome::Unconfirmed => {
            "deregistered; whether the routers have let go is not known".to_owned()
        }
        LeaveOutcome::Refused { reason } => format!("the registry refuses: {reason}"),
        LeaveOutcome::Unreachable { reason } => {
            format!("no registry answered, its lease will lapse: {reason}")
        }
    };
    format!("{}/{}: {what}", left.service, left.id)
}

fn status(args: &SocketArgs) -> Outcome {
    let socket = socket(args);
    let status = single_thread()?
        .block_on(cardea_agent::status(&socket))
        .map_err(Exit::failed)?;
    if args.json {
        return print_json(&status);
    }
    println!("{}", describe(&status));
    Ok(())
}

fn describe(status: &AgentStatus) -> String {
    let child = status
        .child
        .map_or_else(String::new, |pid| format!(", its process {pid}"));
    let rows = status
        .services
        .iter()
        .map(|service| {
            let phase = match service.phase {
                Phase::Waiting => "waiting",
                Phase::Warming => "warming",
                Phase::Up => "up",
                Phase::Draining => "draining",
                Phase::Leaving => "leaving",
                Phase::Gone => "gone",
            };
            let confirmed = service.confirmed_ms_ago.map_or_else(
                || "–".to_owned(),
                |ms| format!("{:.1}s ago", ms as f64 / 1000.0),
            );
            let trouble = [&service.probe_failure, &service.registry_failure];
            let trouble: Vec<&str> = trouble.into_iter().flatten().map(String::as_str).collect();
            vec![
                service.service.to_string(),
                service.id.to_string(),
                service.address.to_string(),
                phase.to_owned(),
                service
                    .registered
                    .map_or("–", InstanceState::as_str)
                    .to_owned(),
                confirmed,
                trouble.join("; "),
            ]
        })
        .collect();
    let headings = [
        "service",
        "id",
        "address",
        "phase",
        "registered",
        "confirmed",
        "trouble",
    ];
    format!(
        "agent {} (pid {}{child}), registry {}, cluster {}\n{}",
        status.version,
        status.pid,
        status.registry,
        status.cluster,
        table::render(&headings, rows, &[])
    )
}

fn socket(args: &SocketArgs) -> std::path::PathBuf {
    args.socket
        .clone()
        .unwrap_or_else(cardea_agent::default_socket)
}

fn print_json<T: serde::Serialize>(value: &T) -> Outcome {
    println!(
        "{}",
        serde_json::to_string_pretty(value).map_err(Exit::failed)?
    );
    Ok(())
}
