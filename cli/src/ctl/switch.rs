//! `ctl switch …`: moving traffic between clusters, and back.

use std::{
    fmt::Write as _,
    io::{IsTerminal, stdout},
    time::Duration,
};

use cardea_registry_api::api::Versioned;
use cardea_registry_api::{
    Name, Span, Traffic, TrafficKey,
    client::{ClientError, SwitchAct},
    problem::Code,
    switch::{
        Acted, Planned, PlannedService, Shown, Switch, SwitchPlan, SwitchState, Weights, Word,
        effective, interpolated,
    },
};

mod asked;

use super::{Session, ask, instances, rows};
use crate::{
    args::{SwitchArgs, SwitchCommand, SwitchWord, WriteArgs},
    exit::{Exit, Outcome},
    table,
};

/// How long a write waits for routers.
const WAIT: Span = Span::secs(5);
/// How often a status is shown again.
const EVERY: Duration = Duration::from_secs(1);
/// The most services that a plan shows.
const MOST_SHOWN: usize = 30;

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: SwitchCommand) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    match command {
        SwitchCommand::Preview(args) => {
            let mut asked = asked::switch(args)?;
            if asked.reason.is_empty() {
                "a preview".clone_into(&mut asked.reason);
            }
            let planned = session
                .client
                .preview_switch(&asked)
                .await
                .map_err(failed)?;
            session.print(&planned, |planned| plan(&planned.plan))
        }
        SwitchCommand::Start {
            switch,
            force,
            approval,
            while_away,
            write,
        } => {
            if while_away {
                return cut_off(session, switch, write).await;
            }
            let mut asked = asked::switch(switch)?;
            (asked.force, asked.approval) = (force, approval);
            let preview = session
                .client
                .preview_switch(&asked)
                .await
                .map_err(failed)?;
            if write.dry_run {
                return session.print(&preview, |planned| {
                    format!("{}\nnothing was written (--dry-run)", plan(&planned.plan))
                });
            }
            if !session.json {
                eprintln!("{}", plan(&preview.plan));
            }
            ask::confirm(
                write,
                &format!("this moves requests of `{}`", asked.cluster),
            )?;
            let begun = session
                .client
                .begin_switch(&asked, WAIT)
                .await
                .map_err(failed)?;
            session.print(&begun, begun_text)
        }
        SwitchCommand::Status { id, watch } => status(session, id, watch).await,
        SwitchCommand::List => {
            let switches = session.client.switches().await.map_err(failed)?;
            session.print(&switches, |switches| list(switches))
        }
        SwitchCommand::Approve(word) => act(session, SwitchAct::Approve, word).await,
        SwitchCommand::Pause(word) => act(session, SwitchAct::Pause, word).await,
        SwitchCommand::Resume(word) => act(session, SwitchAct::Resume, word).await,
        SwitchCommand::Undo(word) => act(session, SwitchAct::Undo, word).await,
    }
}

/// At once, without stages and guards: nobody who could drive them is there.
async fn cut_off(session: &Session, args: SwitchArgs, write: WriteArgs) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let of = |service: Option<Name>| TrafficKey {
        cluster: args.cluster.clone(),
        service,
    };
    let key = of(args.service.clone());
    let mut traffic = Traffic::of(key.clone());
    // What holds now, but for the weights.
    for key in [key.clone(), of(None)] {
        match session.client.traffic(&key).await {
            Ok(found) => {
                traffic = found.object;
                break;
            }
            Err(ClientError::Problem { problem, .. }) if problem.code == Code::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    traffic.service.clone_from(&key.service);
    traffic.weights = interpolated(&effective(&traffic), &args.to.into_iter().collect(), 100);
    let what = format!("traffic `{key}` becomes {}", shares(&traffic.weights));
    if write.dry_run {
        return session.print(&traffic, |_| {
            format!("{what}\nnothing was written (--dry-run)")
        });
    }
    ask::confirm(write, &what)?;
    let written = session
        .client
        .put_traffic_while_away(&traffic, &args.reason)
        .await;
    session.print(&written.map_err(failed)?, |written| {
        format!("{what}\n{}", instances::at_revision(written))
    })
}

async fn act(session: &Session, act: SwitchAct, args: SwitchWord) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let (id, what) = (args.id, act.as_str());
    if args.write.dry_run {
        let shown = session.client.switch(&id).await.map_err(failed)?;
        return session.print(&shown, |shown| {
            format!(
                "{}\nnothing was written (--dry-run): this would {what} it",
                one(shown)
            )
        });
    }
    ask::confirm(args.write, &format!("{what} `{id}`"))?;
    let word = Word {
        reason: args.reason,
        force: args.force,
    };
    let acted = session.client.act_on_switch(&id, act, &word, WAIT).await;
    session.print(&acted.map_err(failed)?, acted_text)
}

async fn status(session: &Session, id: Option<Name>, watch: bool) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let id = if let Some(id) = id {
        id
    } else {
        let all = session.client.switches().await.map_err(failed)?;
        let newest = all.into_iter().next();
        newest
            .ok_or_else(|| Exit::failed("there is no switch"))?
            .object
            .id
    };
    loop {
        let shown = session.client.switch(&id).await.map_err(failed)?;
        let active = shown.switch.object.state.is_active();
        if watch && !session.json && stdout().is_terminal() {
            print!("\x1b[H\x1b[J");
        }
        session.print(&shown, one)?;
        if !watch || !active {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn shares(weights: &Weights) -> String {
    let each = weights
        .iter()
        .map(|(cluster, weight)| format!("{cluster}={weight}"));
    each.collect::<Vec<_>>().join(" ")
}

fn plan(plan: &SwitchPlan) -> String {
    let mut lines = Vec::new();
    for traffic in &plan.traffic {
        let stages: Vec<String> = traffic.stages.iter().map(shares).collect();
        let new = if traffic.exists { "" } else { " (new)" };
        lines.push(format!(
            "traffic {}{new}: {} → {}",
            traffic.key,
            shares(&traffic.from),
            stages.join(" → ")
        ));
    }
    if !plan.services.is_empty() {
        let headings = [
            "service",
            "qps",
            "to",
            "share",
            "instances",
            "gets",
            "can",
            "known by",
        ];
        let rows = plan.services.iter().take(MOST_SHOWN).flat_map(service);
        let right = ["qps", "share", "instances", "gets", "can"];
        lines.push(String::new());
        lines.push(table::render(&headings, rows.collect(), &right));
        if plan.services.len() > MOST_SHOWN {
            lines.push(format!(
                "and {} more services",
                plan.services.len() - MOST_SHOWN
            ));
        }
        lines.push(String::new());
    }
    lines.extend(plan.notes.iter().map(|note| format!("note: {note}")));
    let against = plan.refusals.iter();
    lines.extend(against.map(|refusal| format!("AGAINST IT: {}", refusal.why)));
    if !plan.refusals.is_empty() {
        lines.push("it is begun only with --force, and a --reason that says why".to_owned());
    }
    lines.join("\n").trim_end().to_owned()
}

fn service(planned: &PlannedService) -> impl Iterator<Item = Vec<String>> + use<'_> {
    planned.targets.iter().map(|target| {
        vec![
            planned.service.to_string(),
            format!("{:.1}", planned.rate),
            target.cluster.to_string(),
            format!("{:.0}%", target.share),
            match target.healthy {
                Some(healthy) if healthy < target.instances => {
                    format!("{healthy} of {}", target.instances)
                }
                _ => target.instances.to_string(),
            },
            format!("{:.1}", target.load),
            target
                .capacity
                .map_or_else(|| "?".to_owned(), |most| format!("{most:.0}")),
            target.known.as_str().to_owned(),
        ]
    })
}

fn begun_text(planned: &Planned) -> String {
    planned.begun.as_ref().map_or_else(String::new, acted_text)
}

fn acted_text(acted: &Acted) -> String {
    let switch = &acted.switch.object;
    let routers = match (acted.acknowledged.as_slice(), acted.pending.as_slice()) {
        ([], []) => "no router is running".to_owned(),
        (all, []) => format!("at all {} routers", all.len()),
        (_, pending) => format!("not yet at {}", pending.join(", ")),
    };
    let mut text = format!("{} is {}", switch.id, switch.state);
    if switch.state == SwitchState::Running {
        let _ = write!(text, " at {} %", switch.percent());
    }
    let _ = write!(text, ": {routers}\nrevision {}", acted.written.revision);
    if switch.state == SwitchState::Running {
        let _ = write!(
            text,
            "\nfollow it: cardea ctl switch status {} --watch\nback:      cardea ctl switch undo {}",
            switch.id, switch.id
        );
    }
    text
}

fn scope(switch: &Switch) -> String {
    match &switch.asked.service {
        None => switch.asked.cluster.to_string(),
        Some(service) => format!("{}/{service}", switch.asked.cluster),
    }
}

fn one(shown: &Shown) -> String {
    let switch = &shown.switch.object;
    let mut lines = vec![format!(
        "{}  {} → {}  {} at {} %",
        switch.id,
        scope(switch),
        shares(&switch.asked.to),
        switch.state,
        switch.percent()
    )];
    let approved = switch
        .approved_by
        .as_ref()
        .map_or_else(String::new, |by| format!(", approved by {by}"));
    lines.push(format!(
        "by {}{approved}: {}",
        switch.author, switch.asked.reason
    ));
    if !shown.now.is_empty() {
        lines.push(format!("now: {}", shown.now));
    }
    lines.push(String::new());
    let events = switch.events.iter().map(|event| {
        vec![
            rows::time(event.at),
            event.by.clone(),
            event.state.to_string(),
            event.what.clone(),
        ]
    });
    lines.push(table::render(
        &["at", "by", "state", "what"],
        events.collect(),
        &[],
    ));
    lines.join("\n")
}

fn list(switches: &[Versioned<Switch>]) -> String {
    let rows = switches.iter().map(|one| {
        let switch = &one.object;
        vec![
            switch.id.to_string(),
            scope(switch),
            shares(&switch.asked.to),
            switch.state.to_string(),
            format!("{} %", switch.percent()),
            rows::time(switch.created_at),
            switch.author.clone(),
            switch.asked.reason.clone(),
        ]
    });
    let headings = [
        "switch", "of", "to", "state", "stage", "begun", "by", "reason",
    ];
    table::render(&headings, rows.collect(), &["stage"])
}

#[cfg(test)]
mod tests;
