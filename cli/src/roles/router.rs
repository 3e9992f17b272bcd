//! `cardea router`.

mod detach;

use cardea_router::{Event, Router, StartError, UpgradeError};
use sd_notify::NotifyState;

use super::single_thread;
use crate::{
    activation,
    args::{LogArgs, RouterArgs},
    config::{self, router::RouterSettings},
    exit::{Exit, Outcome},
    large_pages,
    signals::{Asked, Signals, tell_service_manager},
    telemetry,
};

/// Runs a router until it is told to stop, or another process has taken over and what was open here
/// has ended. It has threads of its own; this one waits for signals.
pub(crate) fn run(args: &RouterArgs, log: &LogArgs) -> Outcome {
    if args.detach {
        return detach::run();
    }
    // Before anything else opens a file.
    let passed = activation::passed()?;
    let file = args.config.as_deref();
    let merged = config::merge(file, &args.settings, &RouterSettings::defaults())?;
    let checked = merged.settings.clone().into_config();
    let config = checked.map_err(|e| merged.explain(e))?;
    telemetry::start(&merged.log.under(log), telemetry::DEFAULT_LEVEL)?;
    if merged.settings.large_pages == Some(true) {
        large_pages::ask();
    }
    single_thread()?.block_on(async {
        let mut signals = Signals::listen()?;
        let mut router = if args.upgrade {
            tokio::select! {
                router = cardea_router::take_over(config) => router.map_err(|e| no_upgrade(&e))?,
                () = signals.stop() => return Err(Exit::failed("told to stop before it took over")),
            }
        } else {
            cardea_router::start_activated(config, passed).map_err(|e| failure(&e))?
        };
        tracing::info!(
            traffic = router.traffic_address().map(tracing::field::display),
            tls = router.tls_address().map(tracing::field::display),
            admin = %router.admin_address(),
            version = env!("CARDEA_VERSION"),
            upgrade = args.upgrade,
            "the router serves"
        );
        tell_service_manager(&NotifyState::Ready);
        if args.announce {
            detach::announce();
        }
        match serve(&mut router, &mut signals).await? {
            End::Stop => tell_service_manager(&NotifyState::Stopping),
            End::TakenOver(pid) => {
                // From here on the unit's state is the new process's business.
                tell_service_manager(&NotifyState::MainPid(pid));
                tokio::select! {
                    () = router.drained() => {
                        tracing::info!("everything that was open here has ended");
                        return Ok(());
                    }
                    () = signals.stop() => {}
                }
            }
        }
        tracing::info!("the router stops");
        signals.unless_hurried(router.stop()).await;
        Ok(())
    })
}

/// Why a router no longer serves.
enum End {
    /// It was told to.
    Stop,
    /// This process serves instead.
    TakenOver(u32),
}

/// Until a signal asks to stop, another process takes over, or a part dies.
async fn serve(router: &mut Router, signals: &mut Signals) -> Result<End, Exit> {
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            event = router.event() => return match event {
                Event::Died(died) => Err(Exit::failed(died)),
                Event::TakenOver(pid) => Ok(End::TakenOver(pid)),
            },
        };
        match asked {
            Asked::Stop => return Ok(End::Stop),
            Asked::Reopen => router.reopen_access_log(),
        }
    }
}

/// What a hand-over's failure says, with what helps.
fn no_upgrade(error: &UpgradeError) -> Exit {
    match error {
        UpgradeError::Start(error) => failure(error),
        UpgradeError::NoSocket => {
            Exit::failed(format!("{error} with --upgrade-socket, as it was told"))
        }
        UpgradeError::NoRouter { .. } => Exit::failed(format!(
            "{error}; name its --data-dir or --upgrade-socket, or start without --upgrade"
        )),
        other => Exit::failed(other),
    }
}

/// What a router's start says, with the flag that helps.
pub(crate) fn failure(error: &StartError) -> Exit {
    match error {
        StartError::Invalid(invalid) => Exit::invalid("", invalid),
        StartError::Bind { what, .. } => {
            let flag = match *what {
                "admin" => "--admin",
                "traffic-tls" => "--listen-tls",
                _ => "--listen",
            };
            Exit::failed(format!(
                "{error}; choose another with {flag}, or take over from a router with --upgrade"
            ))
        }
        other => Exit::failed(other),
    }
}
