//! `cardea registry`.

use cardea_registry::{Registry, StartError};
use sd_notify::NotifyState;

use super::{multi_thread, single_thread};
use crate::{
    args::{LogArgs, RegistryArgs},
    config::{self, registry::RegistrySettings},
    exit::{Exit, Outcome},
    signals::{Asked, Signals, tell_service_manager},
    telemetry,
};

/// Runs a registry until it is told to stop.
pub(crate) fn run(args: &RegistryArgs, log: &LogArgs) -> Outcome {
    let file = args.config.as_deref();
    let merged = config::merge(file, &args.settings, &RegistrySettings::defaults())?;
    let threads = merged.settings.threads();
    let checked = merged.settings.clone().into_config();
    let config = checked.map_err(|e| merged.explain(e))?;
    telemetry::start(&merged.log.under(log), telemetry::DEFAULT_LEVEL)?;
    // Where one thread is enough, none has to wake another.
    let runtime = match threads.get() {
        1 => single_thread()?,
        _ => multi_thread("registry", threads)?,
    };
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut registry = tokio::select! {
            started = cardea_registry::start(config) => started.map_err(failure)?,
            () = asked_to_stop(&mut signals) => return Ok(()),
        };
        tracing::info!(
            api = %registry.api_address(),
            admin = %registry.admin_address(),
            version = env!("CARDEA_VERSION"),
            "the registry serves"
        );
        tell_service_manager(&NotifyState::Ready);
        serve(&mut registry, &mut signals).await?;
        tell_service_manager(&NotifyState::Stopping);
        tracing::info!("the registry stops");
        signals.unless_hurried(registry.stop()).await;
        Ok(())
    })
}

/// Until a signal asks to stop, or a part dies.
async fn serve(registry: &mut Registry, signals: &mut Signals) -> Outcome {
    tokio::select! {
        () = asked_to_stop(signals) => Ok(()),
        died = registry.ended() => Err(Exit::failed(died)),
    }
}

async fn asked_to_stop(signals: &mut Signals) {
    while signals.next().await != Asked::Stop {
        tracing::info!("HUP: the registry has no files to open again; it goes on");
    }
}

/// What a registry's start says.
pub(crate) fn failure(error: StartError) -> Exit {
    match error {
        StartError::Config(invalid) => Exit::invalid("", &invalid),
        other => Exit::failed(other),
    }
}
