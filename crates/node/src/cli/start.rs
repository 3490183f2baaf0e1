//! `r3mes start`, and `r3mes run` for each of its children.

use tokio_util::sync::CancellationToken;

use super::args::{Overrides, Run, Start};
use crate::{
    agents,
    config::Config,
    home::Home,
    process::{self, HomeLock, Service, Spec, Supervisor},
    services, telemetry,
};

/// Supervises everything the configuration names until Ctrl-C.
pub(super) fn run(home: &Home, typed: &Start, overrides: &Overrides) -> anyhow::Result<()> {
    let mut config = super::load(home, overrides)?;
    if !typed.roles.is_empty() {
        config.set_roles(&typed.roles);
    }
    telemetry::start(&config.log)?;
    let lock = HomeLock::take(home)?;
    super::runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        super::cancel_on_signal(shutdown.clone())?;
        let mut supervisor = Supervisor::new(shutdown);
        process::publish_board(&supervisor, lock);
        start_all(&mut supervisor, home, &config, overrides).await?;
        Ok(supervisor.run().await?)
    })
}

async fn start_all(
    supervisor: &mut Supervisor,
    home: &Home,
    config: &Config,
    overrides: &Overrides,
) -> anyhow::Result<()> {
    let spec = |service| Spec {
        extra_args: overrides.to_args(),
        ..Spec::of(home, service)
    };
    if config.services.ledger.is_some() {
        supervisor.add(spec(Service::Ledger));
        supervisor.all_ready().await?;
    }
    let roles = config.enabled_roles();
    if !roles.is_empty() {
        agents::register(home, config).await?;
    }
    for (role, _) in roles {
        supervisor.add(spec(Service::Role(role)));
    }
    if config.services.gateway.is_some() {
        supervisor.add(spec(Service::Gateway));
    }
    supervisor.all_ready().await?;
    tracing::info!("everything is ready; stop with Ctrl-C");
    Ok(())
}

/// Runs one service in this process.
pub(super) fn run_service(home: &Home, typed: &Run, overrides: &Overrides) -> anyhow::Result<()> {
    process::end_with_parent()?;
    let config = super::load(home, overrides)?;
    telemetry::start(&config.log)?;
    super::runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        super::cancel_on_signal(shutdown.clone())?;
        match typed.service {
            Service::Ledger => services::ledger::run(home, &config, shutdown).await,
            Service::Gateway => services::gateway::run(&config, shutdown).await,
            Service::Role(role) => {
                agents::run(home, &config, role, typed.lie.as_deref(), shutdown).await
            }
        }
    })
}
