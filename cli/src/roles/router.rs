//! `cardea router`.

use cardea_router::{Router, StartError};
use sd_notify::NotifyState;

use super::single_thread;
use crate::{
    args::{LogArgs, RouterArgs},
    config::{self, router::RouterSettings},
    exit::{Exit, Outcome},
    signals::{Asked, Signals, tell_service_manager},
    telemetry,
};

/// Runs a router until it is told to stop. It has threads of its own; this one waits for signals.
pub(crate) fn run(args: &RouterArgs, log: &LogArgs) -> Outcome {
    let file = args.config.as_deref();
    let merged = config::merge(file, &args.settings, &RouterSettings::defaults())?;
    let checked = merged.settings.clone().into_config();
    let config = checked.map_err(|e| merged.explain(e))?;
    telemetry::start(&merged.log.under(log), telemetry::DEFAULT_LEVEL)?;
    single_thread()?.block_on(async {
        let mut signals = Signals::listen()?;
        let mut router = cardea_router::start(config).map_err(|e| failure(&e))?;
        tracing::info!(
            traffic = %router.traffic_address(),
            admin = %router.admin_address(),
            version = env!("CARDEA_VERSION"),
            "the router serves"
        );
        tell_service_manager(&NotifyState::Ready);
        serve(&mut router, &mut signals).await?;
        tell_service_manager(&NotifyState::Stopping);
        tracing::info!("the router stops");
        signals.unless_hurried(router.stop()).await;
        Ok(())
    })
}

/// Until a signal asks to stop, or a part dies.
async fn serve(router: &mut Router, signals: &mut Signals) -> Outcome {
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            died = router.ended() => return Err(Exit::failed(died)),
        };
        match asked {
            Asked::Stop => return Ok(()),
            Asked::Reopen => router.reopen_access_log(),
        }
    }
}

/// What a router's start says, with the flag that helps.
pub(crate) fn failure(error: &StartError) -> Exit {
    match error {
        StartError::Invalid(invalid) => Exit::invalid("", invalid),
        StartError::Bind { what, .. } => {
            let flag = if *what == "admin" {
                "--admin"
            } else {
                "--listen"
            };
            Exit::failed(format!("{error}; choose another with {flag}"))
        }
        other => Exit::failed(other),
    }
}
