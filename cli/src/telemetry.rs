//! The program's own log: JSON, or readable on a terminal; always on stderr.

use std::io::{IsTerminal, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    args::{LogArgs, LogFormat},
    exit::Exit,
};

/// What is logged when nobody says.
pub(crate) const DEFAULT_LEVEL: &str = "info";

/// Begins to log; `default_level` holds unless flag, environment or file say otherwise.
pub(crate) fn start(log: &LogArgs, default_level: &str) -> Result<(), Exit> {
    let level = log.log_level.as_deref().unwrap_or(default_level);
    let filter = filter(level)?;
    let pretty = match log.log_format.unwrap_or(LogFormat::Auto) {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr);
    let layer = if pretty {
        layer.with_ansi(stderr().is_terminal()).boxed()
    } else {
        layer.json().flatten_event(true).boxed()
    };
    // A second start in one process (tests) changes nothing.
    drop(
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init(),
    );
    Ok(())
}

/// Reads `info`, or `warn,cardea_router=debug`.
fn filter(text: &str) -> Result<Targets, Exit> {
    let bad = || {
        Exit::Config(format!(
            "log level `{text}`: write error, warn, info, debug, trace or off, or a list such as \
             warn,cardea_router=debug"
        ))
    };
    if let Ok(level) = text.parse::<LevelFilter>() {
        return Ok(Targets::new().with_default(level));
    }
    if text
        .split(',')
        .all(|part| part.contains('=') || part.parse::<LevelFilter>().is_ok())
    {
        text.parse().map_err(|_| bad())
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read() {
        for good in [
            "info",
            "off",
            "warn,cardea_router=debug",
            "cardea_agent=trace",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["loud", "warn,loud", "cardea_agent=loud"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
