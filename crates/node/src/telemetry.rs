//! Logging: text or JSON lines on standard error, never secrets, prompts or results.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::Log;

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no filter.
    #[error("log.level {level:?} is no filter; try info or info,r3mes_node=debug")]
    Level {
        /// What the configuration says.
        level: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Logging was started before.
    #[error("logging was started twice")]
    Twice {
        /// What is there already.
        #[from]
        source: TryInitError,
    },
}

/// Starts logging for this process.
///
/// # Errors
/// When the level is no valid filter, or logging was started before.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|source| TelemetryError::Level {
        level: log.level.clone(),
        source,
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    if log.json {
        registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .try_init()?;
    } else {
        let colours = std::io::stderr().is_terminal();
        registry
            .with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr))
            .try_init()?;
    }
    Ok(())
}
