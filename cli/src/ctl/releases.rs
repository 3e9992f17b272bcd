//! `ctl release`.

use std::{fmt::Write as _, time::Duration};

use cardea_registry_api::{
    Name, Release, ReleasePlan,
    api::Versioned,
    client::ClientError,
    release::{Analysis, Order, ReleaseInfo, ReleasePreview, ReleaseState, Shown, Verdict},
};

use super::{Session, ask, diff};
use crate::{
    args::{OrderArgs, ReleaseCommand, WriteArgs},
    exit::{Exit, Outcome},
    table,
};

/// How often a watched release is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: ReleaseCommand) -> Outcome {
    match command {
        ReleaseCommand::Preview { plan }
        | ReleaseCommand::Start {
            plan,
            dry_run: true,
            ..
        } => preview(session, plan.into()).await,
        ReleaseCommand::Start {
            plan, yes, watch, ..
        } => start(session, plan.into(), yes, watch).await,
        ReleaseCommand::Status { id, watch } => {
            let id = found(session, id, false).await?;
            status(session, &id, watch).await
        }
        ReleaseCommand::List => list(session).await,
        ReleaseCommand::Promote { order, full } => {
            let what = if full {
                Order::PromoteFull
            } else {
                Order::Promote
            };
            command_of(session, order, what).await
        }
        ReleaseCommand::Pause { order } => command_of(session, order, Order::Pause).await,
        ReleaseCommand::Resume { order } => command_of(session, order, Order::Resume).await,
        ReleaseCommand::Abort { order } => command_of(session, order, Order::Abort).await,
        ReleaseCommand::Rollback { order, while_away } => {
            let away = order.reason.clone().filter(|_| while_away);
            ordered(session, order, Order::Rollback, away).await
        }
    }
}

async fn previewed(session: &Session, plan: &ReleasePlan) -> Result<ReleasePreview, Exit> {
    let answer = session.client.begin_release(plan, true).await;
    let answer = answer.map_err(|e| session.failure(&e))?;
    answer
        .preview
        .ok_or_else(|| Exit::failed("the registry said nothing of what it would do"))
}

async fn preview(session: &Session, mut plan: ReleasePlan) -> Outcome {
    if plan.reason.is_empty() {
        // Only a start has to say why.
        "a preview".clone_into(&mut plan.reason);
    }
    let preview = previewed(session, &plan).await?;
    session.print(&preview, |preview| {
        format!("{}\n\nnothing was done", described(preview))
    })
}

async fn start(session: &Session, plan: ReleasePlan, yes: bool, watch: bool) -> Outcome {
    let preview = previewed(session, &plan).await?;
    if !session.json {
        eprintln!("{}\n", described(&preview));
    }
    let first = percent(&preview.release);
    let (service, to) = (&plan.service, &plan.candidate);
    let write = WriteArgs {
        dry_run: false,
        yes,
    };
    ask::confirm(
        write,
        &format!("this sends {first} of `{service}` to `{to}`"),
    )?;
    let answer = session.client.begin_release(&plan, false).await;
    let answer = answer.map_err(|e| session.failure(&e))?;
    let Some(info) = &answer.release else {
        return Err(Exit::failed("the registry did not say what was started"));
    };
    if watch {
        return status(session, &info.release.id, true).await;
    }
    session.print(&answer, |_| {
        format!(
            "{}\n\nsee it go on: cardea ctl release status --watch",
            text(info)
        )
    })
}

async fn list(session: &Session) -> Outcome {
    let all = session.client.releases().await;
    let all = all.map_err(|e| session.failure(&e))?;
    session.print(&all.items, |all| {
        let now = table::now();
        let row = |one: &Versioned<Release>| {
            let release = &one.object;
            vec![
                release.id.to_string(),
                release.plan.service.to_string(),
                release.plan.candidate.to_string(),
                release.state.to_string(),
                percent(release),
                release.author.clone(),
                table::ago(now, release.created_at),
                release
                    .why
                    .clone()
                    .unwrap_or_else(|| release.plan.reason.clone()),
            ]
        };
        table::render(
            &["id", "service", "to", "state", "share", "by", "age", "why"],
            all.iter().map(row).collect(),
            &["share"],
        )
    })
}

async fn status(session: &Session, id: &Name, watch: bool) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let mut last = String::new();
    loop {
        let info = session.client.release(id).await.map_err(failed)?;
        let over = info.release.state.is_over();
        let said = text(&info);
        // Only what is new, so that it can be kept in a file.
        if !watch || said != last {
            session.print(&info, |_| said.clone())?;
            last = said;
        }
        if !watch || over {
            let back = watch && info.release.state == ReleaseState::RolledBack;
            return if back { Err(Exit::Status(1)) } else { Ok(()) };
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// The release that is meant.
async fn found(session: &Session, id: Option<Name>, under_way: bool) -> Result<Name, Exit> {
    if let Some(id) = id {
        return Ok(id);
    }
    let all = session.client.releases().await;
    let all = all.map_err(|e| session.failure(&e))?.items;
    let mut running = all.iter().filter(|one| !one.object.state.is_over());
    match (running.next(), running.next()) {
        (Some(one), None) => Ok(one.object.id.clone()),
        (Some(one), Some(other)) => Err(Exit::Usage(format!(
            "several releases are under way, `{}` and `{}` among them: say which",
            one.object.id, other.object.id
        ))),
        (None, _) if under_way => Err(Exit::Usage(
            "no release is under way: say which one is meant (cardea ctl release list)".to_owned(),
        )),
        (None, _) => (all.first())
            .map(|one| one.object.id.clone())
            .ok_or_else(|| Exit::failed("there was no release yet")),
    }
}

async fn command_of(session: &Session, order: OrderArgs, what: Order) -> Outcome {
    ordered(session, order, what, None).await
}

/// `away`: the reason with which it is to hold also while the database is away.
async fn ordered(
    session: &Session,
    order: OrderArgs,
    what: Order,
    away: Option<String>,
) -> Outcome {
    let id = found(session, order.id, true).await?;
    let does = match what {
        Order::Promote => "takes the next step of",
        Order::PromoteFull => "sends all requests to the candidate of",
        Order::Rollback => "sends all requests back to the baseline of",
        Order::Abort => "ends, where it is,",
        // Nothing is moved by them.
        Order::Pause | Order::Resume => "",
    };
    if !does.is_empty() {
        let write = WriteArgs {
            dry_run: false,
            yes: order.yes,
        };
        ask::confirm(write, &format!("this {does} release `{id}`"))?;
    }
    let client = &session.client;
    let answer = match away {
        Some(reason) => client.roll_back_while_away(&id, &reason).await,
        None => {
            client
                .order_release(&id, what, order.reason.as_deref())
                .await
        }
    };
    let answer = answer.map_err(|e| session.failure(&e))?;
    session.print(&answer, |answer| {
        let mut said = answer.release.as_ref().map(text).unwrap_or_default();
        for warning in answer.written.iter().flat_map(|written| &written.warnings) {
            let _ = write!(said, "\nnote: {warning}");
        }
        said
    })
}

fn percent(release: &Release) -> String {
    format!("{} %", f64::from(release.percent.hundredths()) / 100.0)
}

/// What a release would do.
fn described(preview: &ReleasePreview) -> String {
    let plan = &preview.release.plan;
    let from = plan
        .baseline
        .as_ref()
        .map_or("the other variants", Name::as_str);
    let steps: Vec<String> = (plan.steps.iter())
        .map(|step| {
            format!(
                "{} % ({})",
                f64::from(step.percent.hundredths()) / 100.0,
                step.pause
            )
        })
        .collect();
    let count = |of: &std::collections::BTreeMap<Name, u64>| {
        let each: Vec<String> = of
            .iter()
            .map(|(cluster, n)| format!("{n} in {cluster}"))
            .collect();
        if each.is_empty() {
            "not told apart".to_owned()
        } else {
            each.join(", ")
        }
    };
    let mut text = format!(
        "{}: from {from} to {}\nsteps      {}\n{:<10} {}\n{:<10} {}\n\n{}",
        plan.service,
        plan.candidate,
        steps.join(" → "),
        plan.candidate,
        count(&preview.candidate_ready),
        from,
        count(&preview.baseline_ready),
        diff::render(&preview.actions),
    );
    for warning in &preview.warnings {
        let _ = write!(text, "\nnote: {warning}");
    }
    text
}

/// A release for people.
fn text(info: &ReleaseInfo) -> String {
    let release = &info.release;
    let plan = &release.plan;
    let from = plan
        .baseline
        .as_ref()
        .map_or("the other variants", Name::as_str);
    let mut text = format!(
        "{}   {}   {} of {} at {} (from {from})   step {} of {}",
        release.id,
        release.state,
        percent(release),
        plan.service,
        plan.candidate,
        release.step + 1,
        plan.steps.len()
    );
    if let Some(why) = &release.why {
        let _ = write!(text, "\nwhy: {why}");
    }
    if let Some(analysis) = &info.analysis {
        let _ = write!(text, "\n{}", figures(release, analysis));
    }
    for event in &release.events {
        let share = f64::from(event.percent.hundredths()) / 100.0;
        let at = table::ago(event.at, release.created_at);
        let what = serde_json::to_value(event.what).unwrap_or_default();
        let what = what.as_str().unwrap_or_default().to_owned();
        let why = event.why.as_deref().unwrap_or_default();
        let _ = write!(
            text,
            "\n  +{at:<7} {what:<12} {share:>5} %  {}  {why}",
            event.by
        );
    }
    text
}

fn figures(release: &Release, analysis: &Analysis) -> String {
    let row = |name: &str, shown: &Shown| {
        vec![
            name.to_owned(),
            shown.requests.to_string(),
            format!("{:.2} %", shown.errors_percent),
            (shown.p99_us).map_or("-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1000.0)),
            shown
                .ready
                .map_or("-".to_owned(), |ready| ready.to_string()),
        ]
    };
    let from = release
        .plan
        .baseline
        .as_ref()
        .map_or("others", Name::as_str);
    let table = table::render(
        &["group", "requests", "5xx", "p99", "ready"],
        vec![
            row(release.plan.candidate.as_str(), &analysis.candidate),
            row(from, &analysis.baseline),
        ],
        &["requests", "5xx", "p99", "ready"],
    );
    let verdict = match analysis.verdict {
        Verdict::TooFew => "too few requests to say anything",
        Verdict::NotWorse => "no sound reason to call it worse",
        Verdict::MoreErrors => "it has more errors",
        Verdict::Slower => "it is slower",
    };
    let waits = analysis.waits_for.as_ref();
    let waits = waits.map_or_else(String::new, |waits| format!("; waits for {waits}"));
    format!("{table}\n{verdict}{waits}")
}
