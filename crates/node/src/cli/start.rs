//! `r3mes start`, and `r3mes run` for each of its children.

use tokio_util::sync::CancellationToken;

use super::{
    args::{Overrides, Run, Start, StartService},
    output::Output,
};
use crate::{
    agents::{self, Agent},
    config::{Config, Engine},
    genesis, golden,
    home::Home,
    process::{self, HomeLock, Service, Spec, Supervisor},
    services, telemetry,
};

/// Supervises everything the configuration names until Ctrl-C. With `--json`, it and its children log
/// JSON lines.
pub(super) fn run(
    home: &Home,
    typed: &Start,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    let mut overrides = overrides.clone();
    if let Some(chain) = &typed.chain {
        if !home.is_initialised() {
            super::init::join_as(home, &typed.roles, chain)?;
        }
        overrides.rpc = Some(chain.clone());
    }
    let mut config = super::load(home, &overrides)?;
    if typed.chain.is_some() {
        ensure_checked(home, &config)?;
    }
    choose(&mut config, typed);
    ensure_something_runs(home, &config)?;
    if config.services.ledger.is_some() {
        genesis::require_named(home, &config.network.chain_id)?;
    }
    config.log.json |= out.json;
    telemetry::start(&config.log)?;
    let lock = HomeLock::take(home)?;
    super::runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        super::cancel_on_signal(shutdown.clone())?;
        let supervisor = Supervisor::new(shutdown.clone());
        let mut supervisor = supervisor.rotating(config.log.rotation());
        let published = process::publish_board(&supervisor, lock, "");
        let started = tokio::select! {
            started = start_all(&mut supervisor, home, &config, &overrides) => started,
            () = shutdown.cancelled() => Ok(()),
        };
        if started.is_err() {
            shutdown.cancel();
        }
        let stopped = supervisor.run().await;
        // What ended it stands in the status file.
        published.await?;
        started?;
        Ok(stopped?)
    })
}

/// What another machine's ledger answers is believed only as far as the network signed it.
fn ensure_checked(home: &Home, config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.network.light.is_some(),
        "the home {} would believe whatever that ledger says: it was made for a ledger of its own and has no `network.light` in {}. Choose a new home with --home, which is then made for that network, or make one with `r3mes init --join URL`",
        home.root().display(),
        home.config_file().display()
    );
    Ok(())
}

/// A node that would run nothing is a mistake, however short the configuration.
fn ensure_something_runs(home: &Home, config: &Config) -> anyhow::Result<()> {
    let services = &config.services;
    let serves =
        services.ledger.is_some() || services.gateway.is_some() || services.functions.is_some();
    anyhow::ensure!(
        serves || !config.enabled_roles().is_empty(),
        "there is nothing to run: {} names no service and no role. Give --roles ROLE,..., or write a section under `roles` or `services` there",
        home.config_file().display()
    );
    Ok(())
}

/// Leaves of the configuration what was asked for.
fn choose(config: &mut Config, typed: &Start) {
    let services = &mut config.services;
    if typed.chain.is_some() {
        services.ledger = None;
    }
    if !typed.services.is_empty() {
        let wanted = |service| typed.services.contains(&service);
        let ledger = wanted(StartService::Node) && typed.chain.is_none();
        services.ledger = ledger.then(|| services.ledger.take().unwrap_or_default());
        services.gateway =
            wanted(StartService::Api).then(|| services.gateway.take().unwrap_or_default());
        services.functions =
            wanted(StartService::Functions).then(|| services.functions.take().unwrap_or_default());
        config.set_roles(&typed.roles);
    } else if !typed.roles.is_empty() {
        config.set_roles(&typed.roles);
    }
}

async fn start_all(
    supervisor: &mut Supervisor,
    home: &Home,
    config: &Config,
    overrides: &Overrides,
) -> anyhow::Result<()> {
    let mut typed = overrides.to_args();
    if config.log.json {
        typed.push("--json".to_owned());
    }
    let spec = |service| Spec::of(home, service).with_args(typed.clone());
    if let Some(ledger) = &config.services.ledger {
        if ledger.starts_cometbft() {
            // Before anything runs that would wait for it.
            services::cometbft::find(ledger.cometbft().program)?;
        }
        supervisor.add(spec(Service::Ledger));
        supervisor.all_ready().await?;
        if ledger.starts_cometbft() {
            supervisor.add(spec(Service::CometBft));
            supervisor.all_ready().await?;
        }
        if ledger.engine == Engine::Cometbft {
            agents::chain::caught_up(&agents::chain::connect(home, config)?).await?;
        }
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
    if config.services.functions.is_some() {
        supervisor.add(spec(Service::Functions));
    }
    supervisor.all_ready().await?;
    tracing::info!("everything is ready; stop with Ctrl-C");
    Ok(())
}

/// Runs one service in this process.
pub(super) fn run_service(
    home: &Home,
    typed: &Run,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    process::end_with_parent(typed.supervisor)?;
    let mut config = super::load(home, overrides)?;
    config.log.json |= out.json;
    telemetry::start(&config.log)?;
    if typed.service == Service::CometBft {
        return Err(services::cometbft::become_program(home, &config));
    }
    super::runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        super::cancel_on_signal(shutdown.clone())?;
        match typed.service {
            Service::CometBft => unreachable!("it is another program by now"),
            Service::Ledger => services::ledger::run(home, &config, shutdown).await,
            Service::Gateway => services::gateway::run(home, &config, shutdown).await,
            Service::Functions => services::functions::run(home, &config, shutdown).await,
            Service::Role(role) => {
                let agent = Agent {
                    home,
                    config: &config,
                    role,
                    lie: typed.lie.as_deref(),
                    golden: &golden::pinned(),
                };
                agent.run(shutdown).await
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use r3mes_types::Role;

    use super::*;
    use crate::config::Light;

    #[test]
    fn a_home_that_names_nothing_to_run_is_refused() {
        let home = Home::new("/nowhere/home");
        let mut config = Config::default();
        let refusal = ensure_something_runs(&home, &config).unwrap_err();
        let refusal = refusal.to_string();
        assert!(
            refusal.contains("/nowhere/home/config.yaml") && refusal.contains("--roles"),
            "{refusal}"
        );
        config.set_roles(&[Role::Miner]);
        ensure_something_runs(&home, &config).unwrap();
    }

    #[test]
    fn a_home_that_checks_nothing_follows_no_other_machine_s_ledger() {
        let home = Home::new("/nowhere/home");
        let mut config = Config::default();
        let refusal = ensure_checked(&home, &config).unwrap_err().to_string();
        assert!(
            refusal.contains("/nowhere/home") && refusal.contains("init --join"),
            "{refusal}"
        );
        config.network.light = Some(Light::default());
        ensure_checked(&home, &config).unwrap();
    }
}
