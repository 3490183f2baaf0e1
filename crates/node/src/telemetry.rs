//! Logging: text or JSON lines on standard error, never secrets, prompts or results.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::Log;

/// Starts logging for this process.
///
/// # Errors
/// When the level is no valid filter, or logging was started before.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| {
        anyhow::anyhow!(
            "log.level {:?}: {error}; try info or info,r3mes_node=debug",
            log.level
        )
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
